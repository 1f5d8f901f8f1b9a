"""``upcall prove``: kill, flood and starve Upcall on this machine, and account for every callback."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Typer reads it off the signature
from typing import Annotated

import typer

from upcall.cli.output import JsonOption, emit, line

__all__ = ["prove"]


def prove(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="About half a minute: fewer kills, a shorter flood.")] = False,
    kills: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Kills at each point.", show_default="3; 1 with --quick")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.5, max=600, help="How long the flood lasts.", show_default="4; 1 with --quick"),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            metavar="DIRECTORY",
            help="Where the data lies while it runs: on the disk that the store will be on.",
            show_default="/var/tmp",  # noqa: S108 - a word of the help
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the data; it is kept too where something is wrong.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Try to make Upcall lose a callback, on this machine and loopback only, and say what became of each.

    Kills its own listener and worker at every marked point, floods, drips, forges, locks and fills the store. Ends with
    0 only if nothing was lost, nothing took effect twice, and every check held. Your store, settings and credentials
    are not touched.
    """
    from upcall.cli.output import error_console
    from upcall.cli.proof.command import prove_in
    from upcall.cli.proof.prover import Plan

    console = error_console()
    drips = ("body",) if quick else ("body", "head", "silent")
    plan = Plan(
        seconds=seconds or (1.0 if quick else 4.0),
        kills=kills or (1 if quick else 3),
        outage_seconds=0.5 if quick else 2.0,
        drips=drips,
    )
    report = prove_in(
        directory, plan, keep=keep, say=lambda text: console.print(f"  {text}", soft_wrap=True, markup=False)
    )
    if json:
        emit(report.document())
    else:
        for text in report.lines():
            line(text)
    raise typer.Exit(0 if report.proved else 1)
