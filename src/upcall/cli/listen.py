"""``upcall listen``: receive callbacks, and hand them on where a module is named."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path  # noqa: TC003 - Typer reads it off the signature
from typing import Annotated

import typer

from upcall.cli.output import StoreOption, log, ready
from upcall.cli.subscriber_options import ExecOption, ForwardOption, ForwardRawOption, JsonlOption, subscribers

__all__ = ["listen"]


def listen(
    module: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:APP",
            help="Handlers to run in this process, such as mymodule:app. Without it, `upcall work` runs them.",
        ),
    ] = None,
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 picks a free one.")] = 8080,
    store: StoreOption = None,
    spool: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Where callbacks go while the store fails: best on another disk.",
            show_default="in the state directory",
        ),
    ] = None,
    account: Annotated[
        list[str] | None,
        typer.Option(help="An account whose callbacks are expected; may be given several times.", show_default="all"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A settings file: each of its accounts is expected, as if given by --account.",
            show_default="none is looked for",
        ),
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option(
            help="The secret end of the callback URL, TOKEN or ACCOUNT=TOKEN; may be given several times.",
            show_default="UPCALL_TOKENS, UPCALL_TOKENS_FILE, else one is generated and kept in the store",
        ),
    ] = None,
    mask_token: Annotated[bool, typer.Option("--mask-token", help="Hide the token in the ready line.")] = False,
    admin: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Serve /healthz, /readyz and /metrics there, such as 127.0.0.1:9464."),
    ] = None,
    forward: ForwardOption = None,
    forward_raw: ForwardRawOption = None,
    execute: ExecOption = None,
    jsonl: JsonlOption = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="A proxy whose X-Forwarded-For is believed; may be given several times."),
    ] = None,
    refuse_unlisted: Annotated[
        bool,
        typer.Option(
            "--refuse-unlisted",
            help="Refuse callbacks from addresses that ThingSpace does not publish; the list drifts.",
        ),
    ] = False,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help="Speak https with this certificate and its chain; SIGHUP reloads."),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Its private key.", show_default="in the certificate's file")
    ] = None,
    max_per_source: Annotated[
        int, typer.Option(min=256, help="Connections from one address; a trusted proxy's are not counted.")
    ] = 256,
    quarantine_mb: Annotated[
        int, typer.Option(min=1, help="How much the quarantine may hold, in MiB; past that its callbacks get 503.")
    ] = 1024,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Log a line for each request, without token and query.")
    ] = False,
    guard: Annotated[
        bool,
        typer.Option(
            "--guard",
            help="Watch, beside listening, that the accounts of --config stay registered here, as `upcall guard` does."
            " It needs the provider's credentials.",
        ),
    ] = False,
    reassert: Annotated[
        bool | None,
        typer.Option(
            "--reassert/--no-reassert",
            help="Take back a slot that was ours; --reassert guards, as --guard does.",
            show_default="[guard] reassert, else not",
        ),
    ] = None,
) -> None:
    """Receive callbacks at POST /callbacks/TOKEN and keep each before it is acknowledged.

    Prints `ready URL` once it accepts requests: register that URL with ThingSpace. It must be https there, by
    --tls-cert or through a proxy (docs/deploy.md).
    """
    from upcall.cli.logs import configure_logging
    from upcall.cli.serving import ListenOptions, expected_accounts, guarded_settings, run_listener
    from upcall.listener.connections import Limits

    configure_logging(logging.INFO)
    options = ListenOptions(
        module=module,
        host=host,
        port=port,
        store=store,
        spool=spool,
        accounts=expected_accounts(account or (), config),
        tokens=token or (),
        mask=mask_token,
        admin=admin,
        trusted_proxies=trusted_proxy or (),
        refuse_unlisted=refuse_unlisted,
        tls_certificate=tls_cert,
        tls_key=tls_key,
        access_log=access_log,
        quarantine_bytes=quarantine_mb * 1024 * 1024,
        limits=Limits(per_source=max_per_source),
        guarded=guarded_settings(config, reassert) if guard or reassert else None,
        reassert=reassert,
    )
    stdout = sys.stdout
    # What a module or its handlers print goes to stderr: whoever reads stdout expects the ready line, and stops there.
    with contextlib.redirect_stdout(sys.stderr):
        without_code = subscribers(forward=forward, forward_raw=forward_raw, execute=execute, jsonl=jsonl)
        run_listener(options, without_code, on_ready=lambda url: ready(url, stdout), log=log)
