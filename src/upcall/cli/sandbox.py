"""``upcall sandbox``: a ThingSpace on this machine."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import Annotated

import typer

from upcall.cli import output

__all__ = ["sandbox"]


def sandbox(
    *,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free port.")] = 8800,
    state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep everything in this file, across restarts and kills.")
    ] = None,
    profile: Annotated[
        str, typer.Option(help="When callbacks are tried again: documented or observed.")
    ] = "documented",
    speed: Annotated[
        float, typer.Option(help="How fast campaigns and retry gaps pass: 3600 is an hour a second.")
    ] = 1.0,
    seed: Annotated[
        int | None, typer.Option(help="Decides devices' fates and faults.", show_default="a random one")
    ] = None,
    faults: Annotated[
        str | None, typer.Option(metavar="NAME=RATE,…", help="What goes wrong: delay, drop, duplicate, reorder.")
    ] = None,
    deliver_to: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST[:PORT]", help="Where callbacks may go beside this machine; may be repeated."),
    ] = None,
    trust: Annotated[
        Path | None, typer.Option(metavar="CA.pem", help="Certificates to trust in listeners, beside the system's.")
    ] = None,
    allow_http: Annotated[
        bool, typer.Option("--allow-http", help="Let listeners on this machine register plain http URLs.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No line for each request and delivery.")] = False,
) -> None:
    """Run a ThingSpace on this machine: its API, campaigns, and callbacks that are delivered with retries.

    Its client id, client secret, user name and password are all "sandbox". Point a client at it with
    THINGSPACE_BASE_URL, the URL of its ready line.
    """
    from upcall.listener.server import bind, url_of
    from upcall.sandbox import Sandbox, parse_faults
    from upcall.sandbox.serving import serve

    # The port first: a state file is not opened, and no callback sent, by a sandbox that cannot serve.
    bound = bind(host, port)
    application = Sandbox(
        profile=profile,
        speed=speed,
        seed=seed,
        faults=parse_faults(faults),
        allow_http=allow_http,
        deliver_to=tuple(deliver_to or ()),
        trust=None if trust is None else str(trust),
        state=state,
        log=(lambda _: None) if quiet else output.log,
    )
    serve(application, bound, on_ready=lambda: output.ready(f"{url_of(bound)}/api"))
