"""``upcall demo``: the whole path on this machine, its own listener killed in the middle, and a ledger at the end."""

from __future__ import annotations

from typing import Annotated

import typer

from upcall.cli.output import JsonOption, emit, line

__all__ = ["demo"]


def demo(
    *,
    devices: Annotated[int, typer.Option(min=1, max=5000, help="Devices in the campaign.")] = 25,
    seed: Annotated[int, typer.Option(help="What the simulated campaign and its faults are drawn from.")] = 1,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the data for good; otherwise a later demo clears it away.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Run a campaign end to end, offline: sandbox, registration, callbacks, a SIGKILL of the listener, a ledger.

    Ends with 0 only if every callback that was sent is stored and handled, and the devices' states are equal on both
    sides.
    """
    from upcall.cli.demo_run import run_demo
    from upcall.cli.output import error_console

    result = run_demo(devices=devices, seed=seed, keep=keep, console=error_console())
    if json:
        emit(result.ledger.document())
    else:
        for text in result.report():
            line(text)
    raise typer.Exit(0 if result.ledger.holds() else 1)
