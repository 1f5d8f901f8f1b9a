"""Looking at URLs: before they are registered, and as a part of the whole examination."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.client.many import run_many
from upcall.registration.doctor.calling import shown_to_nobody
from upcall.registration.doctor.judging import account_form, of_sight, url_form
from upcall.registration.doctor.results import Chain, skipped
from upcall.registration.doctor.tokens import secrets_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from upcall.registration.desired import Target
    from upcall.registration.doctor.calling import Progress
    from upcall.registration.doctor.looking import Looker
    from upcall.registration.doctor.results import CheckResult
    from upcall.registration.doctor.sights import Sight

__all__ = ["CERTAIN", "LOOKED_AT", "PREFLIGHT", "Preflight", "Viewed", "concluded", "look_at_all", "preflight"]

CERTAIN: Final = frozenset({"account-form", "url-form"})
"""The checks whose failure is certain wherever they are made: a write is refused by them. What the others find may
look different from elsewhere."""

PREFLIGHT: Final = (
    "account-form",
    "url-form",
    "dns",
    "connect",
    "tls",
    "tls-version",
    "certificate-chain",
    "certificate-dates",
    "certificate-name",
    "redirect",
    "round-trip",
)
"""The checks that are made before a URL is registered."""

LOOKED_AT: Final = {
    name: skipped("there was nothing to look at", passes=name == "tokens")
    for name in (
        "tokens",
        "port",
        *PREFLIGHT[2:],
        "answer-time",
        "listener-clock",
        "forwarded-for",
    )
}
"""The checks that a look at a URL admits, as they are without one."""


_NAMED_ACCOUNTS: Final = 3


class Viewed(msgspec.Struct, frozen=True):
    """Hold a URL and what may be the token in it; `repr` shows neither.

    Args:
        url: The URL.
        secrets: What may be its token.
    """

    url: str
    secrets: tuple[str, ...]

    def __repr__(self) -> str:
        return "Viewed(…)"

    @classmethod
    def of(cls, target: Target, url: str) -> Viewed:
        """Make one of an account's URL."""
        return cls(url, secrets_of(target, url))


def preflight(
    targets: Sequence[Target],
    looker: Looker,
    *,
    local: bool = False,
    allow_http: bool = False,
    max_concurrency: int = 8,
    progress: Progress | None = None,
) -> list[CheckResult]:
    """Look at the URLs that accounts should have registered, before they are.

    Args:
        targets: The accounts, with their URLs. One without a URL fails by its form.
        looker: Looks from this machine.
        local: Whether the provider is a sandbox on this machine.
        allow_http: Whether http to this machine is admitted, for a sandbox.
        max_concurrency: How many URLs at once.
        progress: Shows how far along it is.

    Returns:
        For each account the results of `PREFLIGHT`. By those of `CERTAIN` that failed a write must be refused.
    """
    forms = {target.account: url_form(target, target.url, allow_http=allow_http) for target in targets}
    views = {
        target.account: Viewed.of(target, target.url)
        for target in targets
        if target.url is not None and forms[target.account].status == "ok"
    }
    sights = look_at_all(views.values(), looker, local=local, max_concurrency=max_concurrency, progress=progress)
    now = looker.wall()
    results = []
    for target in targets:
        findings = LOOKED_AT | {"account-form": account_form(target.account), "url-form": forms[target.account]}
        view = views.get(target.account)
        if view is not None:
            findings |= of_sight(sights[view], local=local, now=now)
        chain = Chain()
        chain.take({name: findings[name] for name in PREFLIGHT}, account=target.account)
        results += chain.results
    return results


class Preflight(msgspec.Struct, frozen=True):
    """Hold what a look at URLs means for writing them.

    Args:
        refusals: The accounts whose URL must not be registered, each with why.
        warnings: What else is wrong, a sentence each, however many accounts have it.
    """

    refusals: dict[str, str]
    warnings: tuple[str, ...]


def concluded(results: Sequence[CheckResult], *, strict: bool) -> Preflight:
    """Return what the results of `preflight` mean: what is certain refuses, what only this machine sees warns.

    Args:
        results: What was found.
        strict: Whether what only this machine sees refuses too.
    """
    bad = [result for result in results if result.status in {"failed", "warning"}]
    refusing = [result for result in bad if result.status == "failed" and (strict or result.name in CERTAIN)]
    refusals = {result.account: _said(result) for result in reversed(refusing) if result.account is not None}
    alike: dict[tuple[str, str], list[str]] = {}
    for result in bad:
        if result.account not in refusals:
            alike.setdefault((result.name, _said(result)), []).append(result.account or "")
    return Preflight(refusals, tuple(_warning(name, said, accounts) for (name, said), accounts in alike.items()))


def _warning(name: str, said: str, accounts: Sequence[str]) -> str:
    more = f" and {len(accounts) - _NAMED_ACCOUNTS} more" if len(accounts) > _NAMED_ACCOUNTS else ""
    return f"{name} of {', '.join(accounts[:_NAMED_ACCOUNTS])}{more}: {said}"


def _said(result: CheckResult) -> str:
    found = result.found if result.found.endswith(".") else f"{result.found}."
    return f"{found} {result.todo}".strip()


def look_at_all(
    views: Iterable[Viewed], looker: Looker, *, local: bool, max_concurrency: int, progress: Progress | None = None
) -> dict[Viewed, Sight]:
    """Look at URLs, so many at once and each once, however many accounts share it.

    Args:
        views: The URLs.
        looker: Looks from this machine.
        local: Whether the provider is a sandbox on this machine.
        max_concurrency: How many at once.
        progress: Shows how far along it is.
    """
    distinct = list(dict.fromkeys(views))
    work = [
        (str(number), partial(looker.look, view.url, view.secrets, local=local)) for number, view in enumerate(distinct)
    ]
    with (progress or shown_to_nobody)("looking", len(work)) as on_result:
        ends = run_many(work, max_concurrency=max_concurrency, on_result=on_result)
    sights = {}
    for view, end in zip(distinct, ends, strict=True):
        if end.error is not None:
            raise end.error  # no URL does that: what went wrong is ours
        assert end.result is not None
        sights[view] = end.result
    return sights
