"""What is looked at before a URL is registered: what is certain refuses, what only this machine sees warns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upcall.cli.desired import Wanted
    from upcall.registration import Step

__all__ = ["StrictOption", "refused_by_preflight"]

StrictOption = Annotated[
    bool,
    typer.Option("--strict", help="Also refuse on what only this machine sees: DNS, port, certificate, round trip."),
]


def refused_by_preflight(
    wanted: Wanted,  # noqa: ARG001
    steps: Sequence[Step],
    *,
    strict: bool,  # noqa: ARG001
    allow_http: bool,
) -> dict[str, str]:
    """Return the accounts whose URL must not be registered, each with why; warn of the rest on stderr.

    Args:
        wanted: What the command is about.
        steps: What is to be done; only what writes a URL is looked at.
        strict: Refuse on warnings too.
        allow_http: Whether http to this machine is admitted.
    """
    from upcall.registration import flaw_of

    found = {
        step.account: flaw_of(step.account, step.desired, allow_http=allow_http) for step in steps if step.is_write
    }
    return {account: flaw for account, flaw in found.items() if flaw is not None}
