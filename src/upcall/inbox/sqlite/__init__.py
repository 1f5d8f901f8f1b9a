"""The inbox in one SQLite file: WAL, `synchronous=FULL`, group commit."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from upcall.errors import StoreError
from upcall.inbox.sqlite import checking, copies
from upcall.inbox.sqlite.append import SqliteAppender
from upcall.inbox.sqlite.connection import BUSY_SECONDS, connect, store_errors
from upcall.inbox.sqlite.counts import Counts
from upcall.inbox.sqlite.deciding import Decisions
from upcall.inbox.sqlite.deliveries import Deliveries
from upcall.inbox.sqlite.enrolment import Enrolment
from upcall.inbox.sqlite.finishing import handlers_transaction
from upcall.inbox.sqlite.forgetting import Forgetting
from upcall.inbox.sqlite.leases import Leases
from upcall.inbox.sqlite.projection import Projection
from upcall.inbox.sqlite.records import Records
from upcall.inbox.sqlite.reported import Reports
from upcall.inbox.sqlite.retention import Pruning
from upcall.inbox.sqlite.selection import storable
from upcall.inbox.sqlite.tokens import Tokens
from upcall.inbox.sqlite.views import Views
from upcall.inbox.values import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from upcall.inbox.base import Transaction
    from upcall.inbox.journal import JournalEntry, ListedDelivery, Note, Reported, Uptime
    from upcall.inbox.values import (
        Arrival,
        CallbackRecord,
        CampaignRecord,
        DeadRecord,
        Delivery,
        DeviceRecord,
        DriftRecord,
        Forgotten,
        Ledger,
        Lessee,
        Outcome,
        Pruned,
        Receipt,
        Retention,
        Selection,
        SubscriberRecord,
        Subscription,
        TokenRecord,
        WorkItem,
        WorkRecord,
    )

__all__ = ["SqliteInbox"]


class SqliteInbox:
    """Keep callbacks in one SQLite file. See `upcall.inbox.Inbox` for what each method promises.

    Args:
        path: The file.
        create: Make it where there is none.
        accept_old: Open a store of an older schema too, for its tokens; all else waits until it is upgraded.
        relaxed: Leave it to the next appender's commit, or checkpoint, to bring this connection's commits to the disk.

    Raises:
        StoreUnreadableError: There is no store, it is not an inbox, or it cannot be read.
        StoreVersionError: A newer Upcall wrote it, or an older one and it was not upgraded.
        StoreError: It lies on a network file system.
    """

    def __init__(self, path: Path, *, create: bool = False, accept_old: bool = False, relaxed: bool = False) -> None:
        self.path = path
        self.url: str = f"sqlite:///{path}"
        self._connection = connect(path, create=create, accept_old=accept_old)
        if relaxed:
            self._connection.execute("PRAGMA synchronous = NORMAL")
        self._enrolment = Enrolment(self._connection)
        self._leases = Leases(self._connection)
        self._decisions = Decisions(self._connection)
        self._views = Views(self._connection)
        self._counts = Counts(self._connection)
        self._projection = Projection(self._connection)
        self._pruning = Pruning(self._connection)
        self._forgetting = Forgetting(self._connection)
        self._tokens = Tokens(self._connection)
        self._records = Records(self._connection)
        self._reports = Reports(self._connection, self._projection, path)
        self._deliveries = Deliveries(self._connection)

    # receiving

    def appender(self) -> SqliteAppender:
        """Return an appender with a connection of its own."""
        return SqliteAppender(self.path)

    def append(self, arrivals: Sequence[Arrival]) -> list[Receipt]:
        """Keep arrivals; they are on disk when this returns."""
        appender = self.appender()
        try:
            receipts = appender.stage(arrivals, wait_seconds=BUSY_SECONDS)
            if receipts is None:
                raise StoreError(f"store {self.path} is locked by another process.", hint="Try again.")
            appender.commit()
        finally:
            appender.close()
        return receipts

    def quarantined_bytes(self) -> int:
        """Return how many bytes of bodies the quarantine holds."""
        with store_errors(self.path):
            return self._counts.quarantined_bytes()

    # handing out work

    def subscribe(self, names: Sequence[str], now: int) -> None:
        """Make subscribers known: the first ones of a store begin at its start, later ones where the furthest stood."""
        with store_errors(self.path):
            self._enrolment.subscribe(names, now)

    def unsubscribe(self, name: str) -> int:
        """Forget a subscriber and its work that is not done; return how much work that was."""
        with store_errors(self.path):
            return self._enrolment.unsubscribe(name)

    def enroll(
        self, subscriptions: Sequence[Subscription], now: int, *, limit: int = 500, lessee: Lessee | None = None
    ) -> tuple[int, list[WorkItem]]:
        """Turn callbacks that subscribers have not seen, or that were released since, into work."""
        with store_errors(self.path):
            return self._enrolment.enroll(subscriptions, now, limit=limit, lessee=lessee)

    def claim(
        self,
        names: Sequence[str],
        owner: str,
        now: int,
        *,
        lease_seconds: float,
        limit: int,
        unended_alone: bool = False,
    ) -> list[WorkItem]:
        """Lease work that is due, or whose lease ran out, to an owner.

        A clock that was set back by more than a minute moves all that waits with it.
        """
        with store_errors(self.path):
            return self._leases.claim(
                names, owner, now, lease_seconds=lease_seconds, limit=limit, unended_alone=unended_alone
            )

    def renew(self, work_ids: Sequence[int], owner: str, now: int, *, lease_seconds: float) -> None:
        """Extend leases that the owner still holds."""
        with store_errors(self.path):
            self._leases.renew(work_ids, owner, now, lease_seconds=lease_seconds)

    def settle(self, outcomes: Sequence[Outcome], owner: str, now: int) -> None:
        """Record how leased work ended; an owner that lost its lease changes nothing."""
        with store_errors(self.path):
            self._leases.settle(outcomes, owner, now)

    @contextlib.contextmanager
    def finish(self, work_id: int, owner: str, now: int) -> Iterator[Transaction | None]:
        """Open a transaction that ends a piece of work as done, together with what its body writes.

        Nobody else writes meanwhile: keep it short. What the body raises comes out as it is.
        """
        with store_errors(self.path):
            is_held = self._leases.begin_end(work_id, owner)
        if not is_held:
            yield None
            return
        try:
            with handlers_transaction(self._connection) as given:
                yield given
            with store_errors(self.path):
                self._leases.conclude_end(work_id, now)
        except BaseException:
            with store_errors(self.path):
                self._connection.rollback()
            raise

    def release(self, owners: Sequence[str], now: int, *, uncounted: bool = False) -> int:
        """Give back, at once, the work that these owners hold."""
        with store_errors(self.path):
            return self._leases.release(owners, now, uncounted=uncounted)

    def owners(self) -> list[str]:
        """Return who holds leases."""
        with store_errors(self.path):
            return self._leases.owners()

    def next_due(self, names: Sequence[str]) -> int | None:
        """Return when the next piece of work is due, None where there is none."""
        with store_errors(self.path):
            return self._leases.next_due(names)

    # what a person decides

    def replay(self, selection: Selection, now: int, *, reason: str, limit: int = 1000) -> int:
        """Make work that is done, dead or dropped pending again, oldest first; return how many pieces."""
        with store_errors(self.path):
            return self._decisions.replay(selection, now, reason=reason, limit=limit)

    def replayable(self, selection: Selection) -> int:
        """Return how many pieces of work `replay` would take."""
        with store_errors(self.path):
            return self._decisions.replayable(selection)

    def drop_dead(self, selection: Selection, now: int, *, limit: int = 1000) -> int:
        """Give up dead work for good; return how many pieces. It stays visible as ``dropped``."""
        with store_errors(self.path):
            return self._decisions.drop_dead(selection, now, limit=limit)

    def release_quarantined(self, selection: Selection, now: int, *, limit: int = 1000) -> int:
        """Let handlers see quarantined callbacks, in the order of their release; return how many."""
        with store_errors(self.path):
            return self._decisions.release_quarantined(selection, now, limit=limit)

    def drop_quarantined(self, selection: Selection, now: int, *, limit: int = 1000) -> int:
        """Remove the bodies of quarantined callbacks; return how many. Their facts and digests stay."""
        with store_errors(self.path):
            return self._decisions.drop_quarantined(selection, now, limit=limit)

    # looking

    def project(self, *, limit: int = 1000, upto: int | None = None) -> int:
        """Bring the read model forward by up to so many callbacks; return how many it took."""
        with store_errors(self.path):
            return self._projection.advance(limit, upto)

    def callbacks(
        self, selection: Selection = EVERYTHING, *, limit: int = 0, oldest: bool = False, bodies: bool = True
    ) -> list[CallbackRecord]:
        """Return callbacks in the order of receipt."""
        with store_errors(self.path):
            return self._views.callbacks(selection, limit=limit, oldest=oldest, bodies=bodies)

    def callback(self, callback_id: int) -> CallbackRecord | None:
        """Return one callback."""
        with store_errors(self.path):
            return self._views.callback(storable(callback_id))

    def deliveries(self, callback_id: int) -> list[Delivery]:
        """Return a callback's deliveries in the order of receipt."""
        with store_errors(self.path):
            return self._views.deliveries(storable(callback_id))

    def work(self, callback_id: int) -> list[WorkRecord]:
        """Return what subscribers did with a callback."""
        with store_errors(self.path):
            return self._leases.of(storable(callback_id))

    def dead(self, selection: Selection = EVERYTHING, *, limit: int = 0) -> list[DeadRecord]:
        """Return the newest dead letters, oldest first; a limit of 0 means all."""
        with store_errors(self.path):
            return self._views.dead(selection, limit=limit)

    def campaigns(self, *, limit: int = 0) -> list[CampaignRecord]:
        """Return the campaigns last heard of, in the order of their last word; a limit of 0 means all."""
        with store_errors(self.path):
            return self._views.campaigns(limit=limit)

    def campaign(self, campaign_id: str) -> tuple[CampaignRecord, list[DeviceRecord]] | None:
        """Return one campaign and its devices."""
        with store_errors(self.path):
            return self._views.campaign(campaign_id)

    def drift(self) -> list[DriftRecord]:
        """Return how callbacks differed from the known schema, most recent last."""
        with store_errors(self.path):
            return self._views.drift()

    def ledger(self) -> Ledger:
        """Count what the store holds; it may read much of it."""
        with store_errors(self.path):
            return self._counts.ledger()

    def subscribers(self) -> list[SubscriberRecord]:
        """Return how far each subscriber is; quick, however many callbacks there are."""
        with store_errors(self.path):
            return self._counts.subscribers()

    # tokens

    def tokens(self) -> list[TokenRecord]:
        """Return the tokens that were generated for this store, retired ones included."""
        with store_errors(self.path):
            return self._tokens.all()

    def add_token(self, record: TokenRecord, now: int) -> None:
        """Keep a generated token."""
        with store_errors(self.path):
            is_new = self._tokens.add(record, now)
        if not is_new:
            raise StoreError(f"store {self.url} has this token already.")

    def set_token(self, token: str, *, state: str, retire_at: int | None, now: int) -> None:
        """Change how a generated token lives; one that the store does not have is left alone."""
        with store_errors(self.path):
            self._tokens.change(token, state, retire_at, now)

    # what the registration room keeps

    def beat(self, uptime: Uptime) -> None:
        """Keep a listener's uptime, in the place of what was kept of the same listener."""
        with store_errors(self.path):
            self._records.beat(uptime)

    def uptimes(self, *, since: int = 0) -> list[Uptime]:
        """Return the uptimes that reach past a time, in the order of their beginnings."""
        with store_errors(self.path):
            return self._records.uptimes(storable(since))

    def record(self, entry: JournalEntry) -> int:
        """Add an entry to the journal, and return its number; it is on disk when this returns."""
        with store_errors(self.path):
            return self._records.record(entry)

    def journal(self, topic: str, *, account: str | None = None, since: int = 0, limit: int = 0) -> list[JournalEntry]:
        """Return entries of a topic, oldest first; a limit takes the newest ones, 0 means all."""
        with store_errors(self.path):
            return self._records.journal(topic, account, storable(since), limit)

    def put_note(self, *notes: Note) -> None:
        """Write notes, each in the place of the one with its topic and key; all of them or none."""
        with store_errors(self.path):
            self._records.put_note(notes)

    def notes(self, topic: str) -> list[Note]:
        """Return the notes of a topic, by key."""
        with store_errors(self.path):
            return self._records.notes(topic)

    def drop_note(self, topic: str, key: str) -> None:
        """Remove a note, where there is one."""
        with store_errors(self.path):
            self._records.drop_note(topic, key)

    def append_reported(self, reported: Sequence[Reported], now: int, *, dry_run: bool = False) -> list[int | None]:
        """Keep what the provider reports where it is news, as callbacks of origin ``reconciled``.

        Some hundred at a time are on disk together; where it fails between, it can be called again with all of them.
        """
        with store_errors(self.path):
            return self._reports.would_append(reported, now) if dry_run else self._reports.append(reported, now)

    def repeat_intervals(self, *, since: int = 0, limit: int = 10_000) -> list[int]:
        """Return how long after the delivery before it each further delivery of a callback came, in microseconds."""
        with store_errors(self.path):
            return self._deliveries.intervals(storable(since), limit)

    def last_listed(self, account: str) -> ListedDelivery | None:
        """Return when a callback of an account last came from an address that the provider publishes.

        It looks at the newest ten thousand of the account's callbacks.
        """
        with store_errors(self.path):
            return self._deliveries.last_listed(account)

    # upkeep

    def prune(self, retention: Retention, now: int, *, limit: int = 500) -> Pruned:
        """Take one step of retention, small enough that nobody waits for it.

        What stays is counted when a series of steps begins, and not again before its end.
        """
        with store_errors(self.path):
            return self._pruning.step(retention, now, limit=limit)

    def forget(self, device_id: str, now: int, *, after: int = 0, limit: int = 200) -> Forgotten:
        """Take one step of removing a device's identifier: from bodies, work, errors, campaigns.

        In bodies it is found where it stands as it is or with JSON's escapes, and not within a longer word.
        """
        with store_errors(self.path):
            return self._forgetting.step(device_id, now, after=after, limit=limit)

    def check(self) -> list[str]:
        """Read the whole store and return what is wrong with it, a line each; nothing where all is well."""
        with store_errors(self.path):
            return checking.problems(self._connection)

    def backup(self, target: Path, *, progress: Callable[[int, int], None] = lambda _done, _total: None) -> None:
        """Write a copy of this moment's store to a file, while others go on writing.

        Args:
            target: The file, which must not exist; it is there, whole and on disk, or not at all.
            progress: Called with how many pages of how many are copied.

        Raises:
            StoreError: The file exists or cannot be written.
        """
        copies.backup(self.path, target, progress)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
