"""Reconciling accounts, one after another."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from upcall.registration.outages import away_spans
from upcall.registration.reading import read_elsewhere
from upcall.registration.reconcile.choosing import window_start
from upcall.registration.reconcile.pace import Pace
from upcall.registration.reconcile.reader import Reader
from upcall.registration.reconcile.running import AccountRun, Terms, catch_up
from upcall.registration.reconcile.values import Reconciled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from upcall.client import ThingSpaceClient
    from upcall.errors import CredentialsError
    from upcall.inbox import CampaignRecord, Inbox
    from upcall.registration.reconcile.values import ReconcileProgress

__all__ = ["SILENT_AFTER_SECONDS", "default_since", "reconcile_accounts"]

SILENT_AFTER_SECONDS: Final = 86_400.0
"""A device that is not final and was not heard of for so long is silent; ``campaigns show`` says the same."""

_SECOND: Final = 1_000_000


def reconcile_accounts(
    accounts: Iterable[str],
    *,
    inbox: Inbox,
    client_of: Callable[[str], ThingSpaceClient],
    since: int | None = None,
    dry_run: bool = False,
    requests_per_second: float = 5.0,
    silent_after_seconds: float = SILENT_AFTER_SECONDS,
    on_progress: Callable[[ReconcileProgress], object] | None = None,
    on_result: Callable[[Reconciled], object] | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
    now: Callable[[], int] = lambda: time.time_ns() // 1000,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> list[Reconciled]:
    """Read accounts' campaigns and devices from the provider's reports, and keep what callbacks did not tell.

    Each device whose state differs is kept as a callback of origin ``reconciled``: handlers see it once, and a callback
    that says the same later merges with it. It takes as long as the provider is to be spared, so a server calls it in a
    thread, with an inbox of that thread's own. Interrupted, the next call within six hours goes on where it ended.

    Args:
        accounts: The accounts; one that cannot be read does not stop the rest.
        inbox: Where callbacks are kept.
        client_of: Returns who calls for an account.
        since: From when on callbacks may be missing, UTC microseconds; None takes `default_since` for each account.
        dry_run: Keep nothing, and count what would be kept.
        requests_per_second: How fast the provider is asked at most, more than 0. What the client repeats by itself
            after an error comes on top.
        silent_after_seconds: A device that is not final and was not heard of for so long is silent.
        on_progress: Told after each page.
        on_result: Told of each account's result as it comes.
        is_stopping: Asked before each request whether to end.
        now: Returns the time, UTC microseconds.
        monotonic: Returns seconds of a clock that only goes forward.
        sleep: Waits for so many seconds.

    Returns:
        A result an account, in order; after `is_stopping` said so, only those of the accounts that were begun.

    Raises:
        SettingsError: No call can be made at all, because credentials are missing.
        StoreError: The inbox cannot be used.
        ValueError: The rate is no number above 0.
    """
    pace = Pace(requests_per_second, monotonic=monotonic, sleep=sleep)
    terms = Terms(
        now=now, silent_after_micros=round(silent_after_seconds * _SECOND), is_dry=dry_run, on_progress=on_progress
    )
    told = _told(inbox)
    refusals: dict[ThingSpaceClient, CredentialsError] = {}
    results: list[Reconciled] = []
    for account in dict.fromkeys(accounts):
        if is_stopping():
            break
        client = client_of(account)
        began_at = now()
        start = since if since is not None else default_since(inbox, account, began_at)
        if client in refusals:  # it would be refused for each
            error = f"{refusals[client]}"
            results.append(Reconciled(account=account, since=start, until=began_at, finished=False, errors=(error,)))
        else:
            reader = Reader(client, account, pace=pace, is_stopping=is_stopping)
            run = AccountRun(account, told.get(account, {}), reader, inbox, terms)
            results.append(run.run(start))
            if run.refusal is not None:
                refusals[client] = run.refusal
        if on_result is not None:
            on_result(results[-1])
    return results


def _told(inbox: Inbox) -> dict[str, dict[str, CampaignRecord]]:
    """Return the campaigns as callbacks tell them, by account and by name: once, for it looks at every device."""
    catch_up(inbox)
    told: dict[str, dict[str, CampaignRecord]] = {}
    for record in inbox.campaigns():
        told.setdefault(record.account or "", {})[record.campaign_id] = record
    return told


def default_since(inbox: Inbox, account: str, now: int) -> int:
    """Return from when on callbacks of an account may be missing: a day ago, or its last outage if that began earlier.

    Args:
        inbox: Its uptimes tell when no listener accepted, the guard's journal when the slot was not ours.
        account: The account.
        now: The time, UTC microseconds.
    """
    elsewhere = read_elsewhere(inbox, now, account)
    return window_start((*away_spans(inbox.uptimes(), now), *elsewhere.get(account, ())), now)
