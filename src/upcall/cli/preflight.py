"""What is looked at before a URL is registered: what is certain refuses, what only this machine sees warns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from upcall.cli.output import log

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from upcall.cli.desired import Wanted
    from upcall.registration import Step, Target

__all__ = ["StrictOption", "refused_by_preflight"]

StrictOption = Annotated[
    bool,
    typer.Option("--strict", help="Also refuse on what only this machine sees: DNS, port, certificate, round trip."),
]


def refused_by_preflight(wanted: Wanted, steps: Sequence[Step], *, strict: bool, allow_http: bool) -> dict[str, str]:
    """Return the accounts whose URL must not be registered, each with why; warn of the rest on stderr.

    Args:
        wanted: What the command is about.
        steps: What is to be done; only what writes a URL is looked at.
        strict: Refuse on warnings too.
        allow_http: Whether http to this machine is admitted.
    """
    from upcall.cli.calling import progress
    from upcall.registration.doctor import Looker, concluded, preflight
    from upcall.registration.guarding import is_local

    targets = _written(wanted, steps)
    if not targets:
        return {}
    results = preflight(targets, Looker(), local=is_local(wanted.settings), allow_http=allow_http, progress=progress)
    found = concluded(results, strict=strict)
    for warning in found.warnings:
        log(f"upcall: warning: {warning}")
    return found.refusals


def _written(wanted: Wanted, steps: Iterable[Step]) -> list[Target]:
    """Return the targets whose URL is to be written, with the URL that the step has."""
    import msgspec

    targets = {target.account: target for target in wanted.targets}
    return [
        msgspec.structs.replace(targets[step.account], url=step.desired)
        for step in steps
        if step.is_write and step.desired is not None
    ]
