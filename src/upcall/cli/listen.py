"""``upcall listen``: receive callbacks, and hand them on where a module is named."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer

from upcall.cli.output import StoreOption, log, ready

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
    account: Annotated[
        list[str] | None,
        typer.Option(help="An account whose callbacks are expected; may be given several times.", show_default="all"),
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option(
            help="The secret end of the callback URL, TOKEN or ACCOUNT=TOKEN; may be given several times.",
            show_default="UPCALL_TOKENS, UPCALL_TOKENS_FILE, else one is generated and kept in the store",
        ),
    ] = None,
    mask_token: Annotated[bool, typer.Option("--mask-token", help="Hide the token in the ready line.")] = False,
) -> None:
    """Receive callbacks at POST /callbacks/TOKEN and keep each before it is acknowledged.

    Prints `ready URL` once it accepts requests: register that URL with ThingSpace, through a proxy that speaks https.
    """
    from upcall.cli.serving import run_listener

    stdout = sys.stdout
    # What a module or its handlers print goes to stderr: whoever reads stdout expects the ready line, and stops there.
    with contextlib.redirect_stdout(sys.stderr):
        run_listener(
            module=module,
            host=host,
            port=port,
            store=store,
            accounts=account or [],
            tokens=token or [],
            mask=mask_token,
            on_ready=lambda url: ready(url, stdout),
            log=log,
        )
