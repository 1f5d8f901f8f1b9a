"""``upcall sandbox``: a ThingSpace on this machine."""

from __future__ import annotations

import time
from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import Annotated, Literal

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
        str,
        typer.Option(metavar="NAME|FILE.toml", help="When callbacks are tried again: documented, observed, or a file."),
    ] = "documented",
    speed: Annotated[
        float, typer.Option(help="How fast campaigns and retry gaps pass: 3600 is an hour a second.")
    ] = 1.0,
    clock: Annotated[
        Literal["real", "manual"],
        typer.Option(help="manual: nothing happens, and nothing expires, before POST /_sandbox/clock moves it."),
    ] = "real",
    seed: Annotated[
        int | None, typer.Option(help="Decides devices' fates and faults.", show_default="a random one")
    ] = None,
    faults: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=RATE,…|FILE.toml",
            help="What goes wrong on purpose: delay, drop, duplicate, reorder, refuse_once, cut_body, slow_body,"
            " forged_forward, unauthorized, session_dead, rate_limited, server_error, html, reset, stolen,"
            " stale_listener.",
        ),
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
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Lines only for requests and deliveries that go wrong.")
    ] = False,
) -> None:
    """Run a ThingSpace on this machine: its API, campaigns, and callbacks that are delivered with retries.

    Its client id, client secret, user name and password are all "sandbox". Point a client at it with
    THINGSPACE_BASE_URL, the URL of its ready line. While it runs, /_sandbox/ on the same port shows every delivery and
    the truth about a campaign, sets faults, moves a manual clock and forgets everything; /openapi.json describes all.
    """
    from upcall.listener.server import bind, url_of
    from upcall.sandbox import ManualClock, Sandbox, load_faults
    from upcall.sandbox.serving import serve
    from upcall.settings import read_profile

    chosen_profile, chosen_faults = read_profile(profile), load_faults(faults)
    # The port first: a state file is not opened, and no callback sent, by a sandbox that cannot serve.
    bound = bind(host, port)
    application = Sandbox(
        profile=chosen_profile,
        speed=speed,
        seed=seed,
        faults=chosen_faults,
        clock=ManualClock(time.time()) if clock == "manual" else None,
        allow_http=allow_http,
        deliver_to=tuple(deliver_to or ()),
        trust=None if trust is None else str(trust),
        state=state,
        log=(lambda _: None) if quiet else output.log,
        warn=output.log,
    )
    options, kept = application.options, (len(application.campaigns), len(application.ledger))
    output.log(
        f"profile {options.profile}, speed {options.speed:g}, {clock} clock, seed {options.seed}"
        + (f", faults {faults}" if chosen_faults else "")
        + (f"; from the state file, campaigns: {kept[0]}, callbacks: {kept[1]}" if any(kept) else "")
    )
    serve(application, bound, on_ready=lambda: output.ready(f"{url_of(bound)}/api"))
    if application.failure is not None:
        raise application.failure
