"""The inbox in this process's memory, for tests: ``memory://NAME``. Clear rather than quick."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final, Self

from upcall.errors import SettingsError, StoreError, StoreUnreadableError
from upcall.inbox.memory import looking, receiving, records, upkeep, working
from upcall.inbox.memory.projection import project
from upcall.inbox.memory.reported import append_reported
from upcall.inbox.memory.store import MemoryStore
from upcall.inbox.values import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from upcall.inbox.base import Transaction
    from upcall.inbox.journal import JournalEntry, ListedDelivery, Note, Reported, Uptime
    from upcall.inbox.memory.tables import Tables
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

__all__ = ["MemoryAppender", "MemoryInbox"]

_SCHEME: Final = "memory://"
_stores: dict[str, MemoryStore] = {}
_stores_lock = threading.Lock()


class MemoryAppender:
    """Append arrivals; what is staged is a draft until the commit puts it in the tables' place.

    Args:
        store: Where to.
    """

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._draft: Tables | None = None

    def stage(
        self, arrivals: Sequence[Arrival], *, wait_seconds: float = 0.0, mark: tuple[str, int] | None = None
    ) -> list[Receipt] | None:
        """Put arrivals into a draft; None where somebody else is writing and the wait was too short.

        Raises:
            StoreError: What was staged before is neither committed nor rolled back, and stays so.
        """
        if self._draft is not None:
            raise StoreError("an appender stages once, and then commits or rolls back.")
        if not self._store.lock(wait_seconds):
            return None
        self._draft = self._store.tables.draft()
        try:
            if mark is not None:
                self._draft.marks[mark[0]] = mark[1]
            return receiving.keep(self._draft, arrivals)
        except BaseException:
            self.rollback()
            raise

    def commit(self) -> None:
        """Make what was staged everybody's."""
        if self._draft is not None:
            self._store.tables = self._draft
        self.rollback()

    def rollback(self) -> None:
        """Forget what was staged."""
        if self._draft is not None:
            self._draft = None
            self._store.unlock()

    def marked(self, name: str) -> int:
        """Return the position that was last committed under a name, 0 where none was."""
        return self._store.tables.marks.get(name, 0)

    def unmark(self, name: str) -> None:
        """Forget a name's position."""
        with self._store.write() as tables:
            tables.marks.pop(name, None)

    def close(self) -> None:
        """Forget what was staged, and let others write."""
        self.rollback()


class MemoryInbox:
    """Keep callbacks in this process's memory. See `upcall.inbox.Inbox` for what each method promises.

    Inboxes of one name share one store, which is gone when the last of them is closed.

    Args:
        url: ``memory://NAME``.
        create: Make the store where there is none.

    Raises:
        SettingsError: The URL names no store.
        StoreUnreadableError: There is no store.
    """

    def __init__(self, url: str, *, create: bool = False) -> None:
        self.url: str = url
        self._name = url.removeprefix(_SCHEME)
        if not url.startswith(_SCHEME) or not self._name:
            raise SettingsError(f"store {url!r} has no name.", hint="Write memory://NAME.")
        with _stores_lock:
            if self._name not in _stores:
                if not create:
                    raise StoreUnreadableError(f"there is no store {url} in this process.", hint="Open it with create.")
                _stores[self._name] = MemoryStore(self._name)
            self._store = _stores[self._name]
            self._store.users += 1
        self._is_open = True

    # receiving

    def appender(self) -> MemoryAppender:
        """Return an appender of its own."""
        return MemoryAppender(self._store)

    def append(self, arrivals: Sequence[Arrival]) -> list[Receipt]:
        """Keep arrivals; they are everybody's when this returns."""
        with self._store.write() as tables:
            return receiving.keep(tables, arrivals)

    def quarantined_bytes(self) -> int:
        """Return how many bytes of bodies the quarantine holds."""
        return receiving.quarantined_bytes(self._store.tables)

    # handing out work

    def subscribe(self, names: Sequence[str], now: int) -> None:  # noqa: ARG002 - the contract's; nothing shows when
        """Make subscribers known: the first ones of a store begin at its start, later ones where the furthest stood."""
        with self._store.write() as tables:
            working.subscribe(tables, names)

    def unsubscribe(self, name: str) -> int:
        """Forget a subscriber and its work that is not done; return how much work that was."""
        with self._store.write() as tables:
            return working.unsubscribe(tables, name)

    def enroll(
        self, subscriptions: Sequence[Subscription], now: int, *, limit: int = 500, lessee: Lessee | None = None
    ) -> tuple[int, list[WorkItem]]:
        """Turn callbacks that subscribers have not seen, or that were released since, into work."""
        seen = self._store.tables
        callbacks = working.to_enroll(seen, subscriptions, limit)
        if not callbacks:
            return 0, []
        # Asked before the write begins: the subscribers' own code may take its time, and may use the store.
        wanted = list(working.wishes(seen, subscriptions, callbacks))
        with self._store.write() as tables:
            names = [subscription.name for subscription in subscriptions]
            made = working.enroll(tables, names, callbacks, wanted, now)
            items = working.lease_new(tables, made, lessee, now) if lessee else []
        return len(callbacks), items

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
        """Lease work that is due, or whose lease ran out, to an owner."""
        with self._store.write() as tables:
            return working.claim(
                tables, names, owner, now, lease_seconds=lease_seconds, limit=limit, unended_alone=unended_alone
            )

    def renew(self, work_ids: Sequence[int], owner: str, now: int, *, lease_seconds: float) -> None:
        """Extend leases that the owner still holds."""
        with self._store.write() as tables:
            working.renew(tables, work_ids, owner, now, lease_seconds=lease_seconds)

    def settle(self, outcomes: Sequence[Outcome], owner: str, now: int) -> None:
        """Record how leased work ended; an owner that lost its lease changes nothing."""
        with self._store.write() as tables:
            working.settle(tables, outcomes, owner, now)

    @contextlib.contextmanager
    def finish(self, work_id: int, owner: str, now: int) -> Iterator[Transaction | None]:
        """Open a transaction that ends a piece of work as done, together with what its body writes."""
        with self._store.write() as tables:
            work = tables.work.get(work_id)
            is_held = work is not None and work.held_by(owner)
            if work is not None and is_held:
                with self._store.handlers_transaction() as transaction:
                    yield transaction
                tables.count(work.subscriber, "done")
                tables.update_work(work, state="done", owner=None, error=None, finished_at=now)
        if not is_held:
            yield None

    def release(self, owners: Sequence[str], now: int, *, uncounted: bool = False) -> int:
        """Give back, at once, the work that these owners hold."""
        with self._store.write() as tables:
            return working.give_back(tables, owners, now, uncounted=uncounted)

    def owners(self) -> list[str]:
        """Return who holds leases."""
        return sorted({work.owner for work in self._store.tables.work.values() if work.owner is not None})

    def next_due(self, names: Sequence[str]) -> int | None:
        """Return when the next piece of work is due, None where there is none."""
        return working.next_due(self._store.tables, names)

    # what a person decides

    def replay(self, selection: Selection, now: int, *, reason: str, limit: int = 1000) -> int:
        """Make work that is done, dead or dropped pending again, oldest first; return how many pieces."""
        with self._store.write() as tables:
            return working.replay(tables, selection, now, reason=reason, limit=limit)

    def replayable(self, selection: Selection) -> int:
        """Return how many pieces of work `replay` would take."""
        return working.replayable(self._store.tables, selection)

    def drop_dead(self, selection: Selection, now: int, *, limit: int = 1000) -> int:
        """Give up dead work for good; return how many pieces. It stays visible as ``dropped``."""
        with self._store.write() as tables:
            return working.drop_dead(tables, selection, now, limit=limit)

    def release_quarantined(self, selection: Selection, now: int, *, limit: int = 1000) -> int:  # noqa: ARG002 - as above
        """Let handlers see quarantined callbacks, in the order of their release; return how many."""
        with self._store.write() as tables:
            return receiving.release_quarantined(tables, selection, limit)

    def drop_quarantined(self, selection: Selection, now: int, *, limit: int = 1000) -> int:  # noqa: ARG002 - as above
        """Remove the bodies of quarantined callbacks; return how many. Their facts and digests stay."""
        with self._store.write() as tables:
            return receiving.drop_quarantined(tables, selection, limit)

    # looking

    def project(self, *, limit: int = 1000, upto: int | None = None) -> int:
        """Bring the read model forward by up to so many callbacks; return how many it took."""
        with self._store.write() as tables:
            return project(tables, limit, upto)

    def callbacks(
        self, selection: Selection = EVERYTHING, *, limit: int = 0, oldest: bool = False, bodies: bool = True
    ) -> list[CallbackRecord]:
        """Return callbacks in the order of receipt."""
        tables = self._store.tables
        rows = looking.selected(tables, selection)
        rows = rows[: limit or None] if oldest else looking.newest(rows, limit)
        return [looking.callback_record(tables, row, with_body=bodies) for row in rows]

    def callback(self, callback_id: int) -> CallbackRecord | None:
        """Return one callback."""
        tables = self._store.tables
        row = tables.callbacks.get(callback_id)
        return None if row is None else looking.callback_record(tables, row)

    def deliveries(self, callback_id: int) -> list[Delivery]:
        """Return a callback's deliveries in the order of receipt."""
        row = self._store.tables.callbacks.get(callback_id)
        return [] if row is None else sorted(row.deliveries, key=lambda delivery: delivery.received_at)

    def work(self, callback_id: int) -> list[WorkRecord]:
        """Return what subscribers did with a callback."""
        return looking.work_records(self._store.tables, callback_id)

    def dead(self, selection: Selection = EVERYTHING, *, limit: int = 0) -> list[DeadRecord]:
        """Return the newest dead letters, oldest first; a limit of 0 means all."""
        return looking.newest(looking.dead(self._store.tables, selection), limit)

    def campaigns(self, *, limit: int = 0) -> list[CampaignRecord]:
        """Return the campaigns last heard of, in the order of their last word; a limit of 0 means all."""
        return looking.newest(looking.campaigns(self._store.tables), limit)

    def campaign(self, campaign_id: str) -> tuple[CampaignRecord, list[DeviceRecord]] | None:
        """Return one campaign and its devices."""
        return looking.campaign(self._store.tables, campaign_id)

    def drift(self) -> list[DriftRecord]:
        """Return how callbacks differed from the known schema, most recent last."""
        return looking.drift(self._store.tables)

    def ledger(self) -> Ledger:
        """Count what the store holds."""
        return looking.ledger(self._store.tables)

    def subscribers(self) -> list[SubscriberRecord]:
        """Return how far each subscriber is."""
        return looking.subscribers(self._store.tables)

    # tokens

    def tokens(self) -> list[TokenRecord]:
        """Return the tokens that were generated for this store, retired ones included."""
        return records.tokens(self._store.tables)

    def add_token(self, record: TokenRecord, now: int) -> None:
        """Keep a generated token."""
        with self._store.write() as tables:
            if not records.add_token(tables, record, now):
                raise StoreError(f"store {self.url} has this token already.")

    def set_token(self, token: str, *, state: str, retire_at: int | None, now: int) -> None:  # noqa: ARG002 - as above
        """Change how a generated token lives; one that the store does not have is left alone."""
        with self._store.write() as tables:
            records.set_token(tables, token, state, retire_at)

    # what the registration room keeps

    def beat(self, uptime: Uptime) -> None:
        """Keep a listener's uptime, in the place of what was kept of the same listener."""
        with self._store.write() as tables:
            records.beat(tables, uptime)

    def uptimes(self, *, since: int = 0) -> list[Uptime]:
        """Return the uptimes that reach past a time, in the order of their beginnings."""
        return records.uptimes(self._store.tables, since)

    def record(self, entry: JournalEntry) -> int:
        """Add an entry to the journal, and return its number."""
        with self._store.write() as tables:
            return records.record(tables, entry)

    def journal(self, topic: str, *, account: str | None = None, since: int = 0, limit: int = 0) -> list[JournalEntry]:
        """Return entries of a topic, oldest first; a limit takes the newest ones, 0 means all."""
        return records.journal(self._store.tables, topic, account, since, limit)

    def put_note(self, *notes: Note) -> None:
        """Write notes, each in the place of the one with its topic and key; all of them or none."""
        with self._store.write() as tables:
            for note in notes:
                records.put_note(tables, note)

    def notes(self, topic: str) -> list[Note]:
        """Return the notes of a topic, by key."""
        return records.notes(self._store.tables, topic)

    def drop_note(self, topic: str, key: str) -> None:
        """Remove a note, where there is one."""
        with self._store.write() as tables:
            records.drop_note(tables, topic, key)

    def append_reported(self, reported: Sequence[Reported], now: int, *, dry_run: bool = False) -> list[int | None]:
        """Keep what the provider reports where it is news, as callbacks of origin ``reconciled``."""
        if dry_run:
            found = append_reported(self._store.tables.draft(), reported, now)
            return [None if number is None else 0 for number in found]
        with self._store.write() as tables:
            return append_reported(tables, reported, now)

    def repeat_intervals(self, *, since: int = 0, limit: int = 10_000) -> list[int]:
        """Return how long after the delivery before it each further delivery of a callback came, in microseconds."""
        return records.repeat_intervals(self._store.tables, since, limit)

    def last_listed(self, account: str) -> ListedDelivery | None:
        """Return when a callback of an account last came from an address that the provider publishes."""
        return records.last_listed(self._store.tables, account)

    # upkeep

    def prune(self, retention: Retention, now: int, *, limit: int = 500) -> Pruned:
        """Take one step of retention."""
        with self._store.write() as tables:
            return upkeep.prune(tables, retention, now, limit)

    def forget(self, device_id: str, now: int, *, after: int = 0, limit: int = 200) -> Forgotten:  # noqa: ARG002 - as above
        """Take one step of removing a device's identifier: from bodies, work, errors, campaigns."""
        with self._store.write() as tables:
            return upkeep.forget(tables, device_id, after, limit)

    def check(self) -> list[str]:
        """Return what is wrong with the store, a line each; nothing where all is well."""
        return upkeep.check(self._store.tables)

    def backup(self, target: Path, *, progress: Callable[[int, int], None] | None = None) -> None:  # noqa: ARG002 - as above
        """Refuse: a copy in a file would be of no use.

        Raises:
            StoreError: Always.
        """
        raise StoreError(
            f"a memory store cannot be backed up, so {target} is not written.", hint="Use an SQLite store."
        )

    def close(self) -> None:
        """Leave the store; the last one takes it away."""
        if not self._is_open:
            return
        self._is_open = False
        with _stores_lock:
            self._store.users -= 1
            if not self._store.users:
                del _stores[self._name]
                self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
