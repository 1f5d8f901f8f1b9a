"""The options that ``upcall listen`` and ``upcall work`` share: subscribers without code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upcall.dispatch import Handler

__all__ = ["ExecOption", "ForwardOption", "ForwardRawOption", "JsonlOption", "subscribers"]

ForwardOption = Annotated[
    list[str] | None,
    typer.Option(
        "--forward",
        metavar="URL",
        help="Send each callback on as a CloudEvent, signed with UPCALL_FORWARD_SECRET; may be given several times.",
    ),
]
ForwardRawOption = Annotated[
    list[str] | None,
    typer.Option(
        "--forward-raw", metavar="URL", help="Send each callback's body on as it came; may be given several times."
    ),
]
ExecOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exec", metavar="COMMAND", help="Run a command for each callback, JSON on its stdin; several times."
    ),
]
JsonlOption = Annotated[
    list[str] | None,
    typer.Option("--jsonl", metavar="FILE", help="Append each callback to a file, a line each; several times."),
]


def subscribers(
    *,
    forward: Sequence[str] | None,
    forward_raw: Sequence[str] | None,
    execute: Sequence[str] | None,
    jsonl: Sequence[str] | None,
) -> list[Handler]:
    """Return a handler for each of the options; none of them loads anything.

    Raises:
        SettingsError: An option, or the secret to sign with, cannot be used.
    """
    if not (forward or forward_raw or execute or jsonl):
        return []
    from upcall.dispatch.subscribers import subscribers_from_options

    return subscribers_from_options(
        forward=forward or (), forward_raw=forward_raw or (), execute=execute or (), jsonl=jsonl or ()
    )
