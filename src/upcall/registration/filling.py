"""Reconciling by itself: after an outage that can have lost something, and on a schedule."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from functools import cache
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.client import ThingSpaceClient
from upcall.inbox import Note, open_inbox
from upcall.registration.lock import reconcile_lock
from upcall.registration.outages import away_spans, find_outages
from upcall.registration.reading import read_elsewhere
from upcall.registration.reconcile import reconcile_accounts
from upcall.settings import read_profile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from upcall.inbox import Inbox
    from upcall.registration.outages import Outage
    from upcall.registration.reconcile import Reconciled
    from upcall.settings import Settings

__all__ = ["Due", "GapFiller", "what_is_due"]

TOPIC: Final = "reconcile.schedule"
"""The topic of the notes that say for each account up to when its gaps are filled."""

LOOK_SECONDS: Final = 15.0
"""How often it looks whether something is due: a look reads the heartbeats only."""
AGAIN_SECONDS: Final = 300.0
"""How long it waits after a run that came to no end."""

_AGAIN_MICROS: Final = round(AGAIN_SECONDS * 1e6)
_LONGEST_MICROS: Final = 4 * 3_600_000_000
"""How long an account is left alone that could not be read whole: twice as long each time, up to the longest."""

_DAY_MICROS: Final = 86_400_000_000

_log = logging.getLogger("upcall.reconcile")


class Due(msgspec.Struct, frozen=True):
    """Say that reports are to be read.

    Args:
        since: From when on callbacks may be missing, UTC microseconds; None where nothing in particular is.
        why: Why now, for the log.
    """

    since: int | None
    why: str


def what_is_due(
    outages: Sequence[Outage], filled_until: int, now: int, *, after_outage: bool, every_seconds: float | None
) -> Due | None:
    """Decide whether an account's reports are to be read now.

    Args:
        outages: What the heartbeats and the guard's journal tell of one account.
        filled_until: When the last run began that read all of it.
        now: The time, UTC microseconds.
        after_outage: Whether an outage that can have lost something is a reason.
        every_seconds: How long after a run the next one is due, None for never.
    """
    missed = [
        outage for outage in outages if outage.lost and not outage.is_current and filled_until < outage.span.end <= now
    ]
    if after_outage and missed:
        return Due(min(outage.span.start for outage in missed), "an outage is over that can have lost callbacks")
    if every_seconds is not None and now - filled_until >= every_seconds * 1e6:
        return Due(None, "it is time again")
    return None


class GapFiller:
    """Read the provider's reports when that is due, in a thread beside a guard.

    Args:
        settings: What the environment and the settings file say, all their accounts.
        store: The store's URL.
        now: Returns the time, UTC microseconds.
        make_client: Makes the client of a ``[credentials.…]`` table, None for one by the settings.

    Raises:
        SettingsError: The delivery profile cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        store: str,
        *,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
        make_client: Callable[[str | None], ThingSpaceClient] | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._now = now
        self._make_client = make_client or self._client_of_settings
        self._profile = read_profile(settings.profile)
        self._accounts = {account.name: account.credentials for account in settings.accounts}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble = ""
        self._put_off: dict[str, tuple[int, int]] = {}
        """For each account that could not be read whole until when it is left alone, and how long that is."""

    @property
    def is_wanted(self) -> bool:
        """Tell whether the settings ask for it."""
        wished = self._settings.reconcile
        return bool(self._accounts) and (wished.after_outage or wished.every_seconds is not None)

    def start(self) -> None:
        """Begin, where the settings ask for it."""
        if self.is_wanted:
            self._thread = threading.Thread(target=self._run, name="upcall-reconcile", daemon=True)
            self._thread.start()

    def stop(self, *, within_seconds: float = 5.0) -> None:
        """End before the next request, and wait so long for that; the next run goes on where this one was."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(within_seconds)

    def step(self) -> bool:
        """Reconcile if that is due; tell whether everything that was due could be read.

        Raises:
            UpcallError: The store cannot be used, no call can be made at all, or a reconciliation is under way.
        """
        with open_inbox(self._store) as inbox:
            now = self._now()
            groups = self._due(inbox, now)
            if not groups:
                return True
            with contextlib.ExitStack() as stack:
                stack.enter_context(reconcile_lock(self._settings.state_dir, "guard", wait_seconds=0.0))
                client_named = cache(lambda name: stack.enter_context(self._make_client(name)))
                read = [self._fill(inbox, client_named, due, accounts, now) for due, accounts in groups.items()]
            return all(read)

    def _run(self) -> None:
        while not self._stopping.is_set():
            pause = LOOK_SECONDS
            try:
                self.step()
                self._trouble = ""
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again: nobody else would
                pause = AGAIN_SECONDS if self._trouble else LOOK_SECONDS
                if str(error) != self._trouble:  # once, not with each attempt
                    self._trouble = str(error)
                    _log.warning("gaps wait to be filled: %s", error)
            self._stopping.wait(pause)

    def _due(self, inbox: Inbox, now: int) -> dict[Due, list[str]]:
        """Return what is due, and for which accounts."""
        # A note from later than now was written by a clock that was ahead.
        filled = {note.key: note.at for note in inbox.notes(TOPIC) if note.at <= now}
        # All of them: an outage that goes on over a run is over after it, and began before it.
        away = away_spans(inbox.uptimes(), now)
        outages = find_outages(away, read_elsewhere(inbox, now), self._profile, now)
        wished = self._settings.reconcile
        groups: dict[Due, list[str]] = {}
        for account in self._accounts:
            until, wait = self._put_off.get(account, (0, 0))
            if 0 < until - now <= wait:  # else a clock was set back meanwhile
                continue
            due = what_is_due(
                [outage for outage in outages if outage.account in {"", account}],
                filled.get(account, now - _DAY_MICROS),
                now,
                after_outage=wished.after_outage,
                every_seconds=wished.every_seconds,
            )
            if due is not None:
                groups.setdefault(due, []).append(account)
        return groups

    def _fill(
        self,
        inbox: Inbox,
        client_named: Callable[[str | None], ThingSpaceClient],
        due: Due,
        accounts: Sequence[str],
        now: int,
    ) -> bool:
        _log.info("reading the provider's reports (accounts: %d): %s", len(accounts), due.why)
        results = reconcile_accounts(
            accounts,
            inbox=inbox,
            client_of=lambda account: client_named(self._accounts[account]),
            since=due.since,
            requests_per_second=self._settings.reconcile.requests_per_second,
            is_stopping=self._stopping.is_set,
            now=self._now,
        )
        _tell(results)
        # What was read to its end is not read again, though a report in it may be refused each time.
        finished = {result.account for result in results if result.finished}
        for account in finished:
            inbox.put_note(Note(topic=TOPIC, key=account, at=now))
            self._put_off.pop(account, None)
        for account in set(accounts) - finished:
            _, wait = self._put_off.get(account, (0, 0))
            wait = min(2 * wait, _LONGEST_MICROS) or _AGAIN_MICROS
            self._put_off[account] = (self._now() + wait, wait)
        return finished.issuperset(accounts)

    def _client_of_settings(self, name: str | None) -> ThingSpaceClient:
        return ThingSpaceClient(credentials=self._settings.credentials_named(name), config=self._settings.path)


def _tell(results: Sequence[Reconciled]) -> None:
    for result in results:
        for error in result.errors:
            _log.warning("%s could not be reconciled: %s", result.account, error)
        if result.differed or result.campaigns_differed:
            _log.warning(
                "%s: %d devices and %d campaigns stood elsewhere than callbacks had told; handlers hear of it now",
                result.account,
                result.differed,
                result.campaigns_differed,
            )
