"""What is looked at before a URL is registered: what is certain refuses, what only this machine sees warns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from upcall.cli.output import log

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from upcall.cli.desired import Wanted
    from upcall.registration import Step, Target
    from upcall.registration.doctor import CheckResult
    from upcall.settings import Settings

__all__ = ["StrictOption", "refused_by_preflight"]

StrictOption = Annotated[
    bool,
    typer.Option("--strict", help="Also refuse on what only this machine sees: DNS, port, certificate, round trip."),
]

_NAMED_ACCOUNTS = 3


def refused_by_preflight(wanted: Wanted, steps: Sequence[Step], *, strict: bool, allow_http: bool) -> dict[str, str]:
    """Return the accounts whose URL must not be registered, each with why; warn of the rest on stderr.

    Args:
        wanted: What the command is about.
        steps: What is to be done; only what writes a URL is looked at.
        strict: Refuse on warnings too.
        allow_http: Whether http to this machine is admitted.
    """
    from upcall.cli.calling import progress
    from upcall.registration.doctor import CERTAIN, Looker, preflight

    targets = _written(wanted, steps)
    if not targets:
        return {}
    results = preflight(targets, Looker(), local=_is_local(wanted.settings), allow_http=allow_http, progress=progress)
    bad = [result for result in results if result.status in {"failed", "warning"}]
    certain = [result for result in bad if result.status == "failed" and (strict or result.name in CERTAIN)]
    flawed = {result.account: _said(result) for result in reversed(certain) if result.account is not None}
    _warn(result for result in bad if result.account not in flawed)
    return flawed


def _written(wanted: Wanted, steps: Iterable[Step]) -> list[Target]:
    """Return the targets whose URL is to be written, with the URL that the step has."""
    import msgspec

    targets = {target.account: target for target in wanted.targets}
    return [
        msgspec.structs.replace(targets[step.account], url=step.desired)
        for step in steps
        if step.is_write and step.desired is not None
    ]


def _is_local(settings: Settings) -> bool:
    """Tell whether the provider is a sandbox on this machine."""
    from upcall.thingspace import is_loopback_host

    return is_loopback_host(urlsplit(settings.base_url or "").hostname or "")


def _warn(results: Iterable[CheckResult]) -> None:
    """Say each trouble once, however many accounts have it."""
    alike: dict[tuple[str, str], list[str]] = {}
    for result in results:
        alike.setdefault((result.name, _said(result)), []).append(result.account or "")
    for (name, said), accounts in alike.items():
        more = f" and {len(accounts) - _NAMED_ACCOUNTS} more" if len(accounts) > _NAMED_ACCOUNTS else ""
        log(f"upcall: warning: {name} of {', '.join(accounts[:_NAMED_ACCOUNTS])}{more}: {said}")


def _said(result: CheckResult) -> str:
    found = result.found if result.found.endswith(".") else f"{result.found}."
    return f"{found} {result.todo}".strip()
