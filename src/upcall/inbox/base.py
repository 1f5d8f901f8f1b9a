"""The inbox's contract: what every backend must do.

Times are UTC microseconds since 1970. An inbox belongs to one thread at a time; its appender to another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

from upcall.inbox.values import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType

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

__all__ = ["Appender", "Inbox", "Transaction"]


class Transaction(Protocol):
    """Write to the inbox's own store, in the transaction that ends a piece of work.

    What a handler writes through it and the end of its work are on disk together, or not at all.
    """

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """Run one SQL statement on tables of the handler's own, and return its cursor.

        Raises:
            sqlite3.Error: The statement failed, or touched a table of Upcall's.
        """
        ...

    def executemany(self, sql: str, parameters: Sequence[Sequence[Any]]) -> Any:
        """Run one SQL statement once for each row of parameters, and return its cursor."""
        ...

    def check(self) -> None:
        """Refuse to go on where one of the statements rolled the transaction back.

        Raises:
            StoreError: It did, or the transaction is over.
        """
        ...


class Appender(Protocol):
    """Append arrivals in groups: `stage` is quick, `commit` returns when they are on disk."""

    def stage(
        self, arrivals: Sequence[Arrival], *, wait_seconds: float = 0.0, mark: tuple[str, int] | None = None
    ) -> list[Receipt] | None:
        """Put arrivals into an open transaction; None where another process is writing and the wait was too short.

        A mark is a name and a position that `marked` returns once this transaction is committed: so that what is
        imported is imported once.

        Raises:
            StoreError: The store failed, and nothing is staged; or what was staged before is neither committed nor
                rolled back, and stays so.
        """
        ...

    def commit(self) -> None:
        """Make what was staged durable; it is on disk when this returns."""
        ...

    def rollback(self) -> None:
        """Forget what was staged."""
        ...

    def marked(self, name: str) -> int:
        """Return the position that was last committed under a name, 0 where none was."""
        ...

    def unmark(self, name: str) -> None:
        """Forget a name's position."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Inbox(Protocol):
    """Keep callbacks, hand out work, answer questions."""

    url: str

    # receiving

    def appender(self) -> Appender:
        """Return an appender with a connection of its own."""
        ...

    def append(self, arrivals: Sequence[Arrival]) -> list[Receipt]:
        """Keep arrivals; they are on disk when this returns."""
        ...

    def quarantined_bytes(self) -> int:
        """Return how many bytes of bodies the quarantine holds."""
        ...

    # handing out work

    def subscribe(self, names: Sequence[str], now: int) -> None:
        """Make subscribers known: the first ones of a store begin at its start, later ones where the furthest stood."""
        ...

    def unsubscribe(self, name: str) -> int:
        """Forget a subscriber and its work that is not done; return how much work that was."""
        ...

    def enroll(
        self, subscriptions: Sequence[Subscription], now: int, *, limit: int = 500, lessee: Lessee | None = None
    ) -> tuple[int, list[WorkItem]]:
        """Turn callbacks that subscribers have not seen, or that were released since, into work.

        Args:
            subscriptions: Who wants which callbacks.
            now: The time.
            limit: At most so many callbacks.
            lessee: Who leases at once what would be claimed next anyway: an owner that has just claimed, and found
                less than it has room for. The rest is pending, and so is all that waits within an order: `claim` hands
                it out.

        Returns:
            How many callbacks were looked at, and what was leased.
        """
        ...

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

        Args:
            names: The subscribers whose work is wanted.
            owner: Who claims it.
            now: The time.
            lease_seconds: How long it stays the owner's without a sign of life.
            limit: At most so many pieces.
            unended_alone: Give `WorkItem.unended` work one piece at a time, with no other: where it is what ended an
                earlier owner's process, it takes no other work with it.
        """
        ...

    def renew(self, work_ids: Sequence[int], owner: str, now: int, *, lease_seconds: float) -> None:
        """Extend leases that the owner still holds."""
        ...

    def settle(self, outcomes: Sequence[Outcome], owner: str, now: int) -> None:
        """Record how leased work ended; an owner that lost its lease changes nothing."""
        ...

    def finish(self, work_id: int, owner: str, now: int) -> AbstractContextManager[Transaction | None]:
        """Open a transaction that ends a piece of work as done, together with what its body writes.

        Gives None where the owner lost its lease: nothing must be written then. Where the body raises, nothing is
        kept and the work stays leased.
        """
        ...

    def release(self, owners: Sequence[str], now: int, *, uncounted: bool = False) -> int:
        """Give back, at once, the work that these owners hold.

        Uncounted, the attempt that is given back does not count: it was stopped, and did not fail. Counted, it was
        started and recorded no end: the work's error becomes `UNENDED`.
        """
        ...

    def owners(self) -> list[str]:
        """Return who holds leases."""
        ...

    def next_due(self, names: Sequence[str]) -> int | None:
        """Return when the next piece of work is due, None where there is none."""
        ...

    # what a person decides

    def replay(self, selection: Selection, now: int, *, reason: str, limit: int = 1000) -> int:
        """Make work that is done, dead or dropped pending again, oldest first; return how many pieces.

        How it had ended is kept beside it. Call again until nothing is left: what was replayed is pending. Work is
        left out where nobody could do it: its callback's body is gone, or its subscriber was forgotten.
        """
        ...

    def replayable(self, selection: Selection) -> int:
        """Return how many pieces of work `replay` would take."""
        ...

    def drop_dead(self, selection: Selection, now: int, *, limit: int = 1000) -> int:
        """Give up dead work for good; return how many pieces. It stays visible as ``dropped``."""
        ...

    def release_quarantined(self, selection: Selection, now: int, *, limit: int = 1000) -> int:
        """Let handlers see quarantined callbacks, in the order of their release; return how many.

        Their evidence says so from then on.
        """
        ...

    def drop_quarantined(self, selection: Selection, now: int, *, limit: int = 1000) -> int:
        """Remove the bodies of quarantined callbacks; return how many. Their facts and digests stay."""
        ...

    # looking

    def project(self, *, limit: int = 1000, upto: int | None = None) -> int:
        """Bring the read model forward by up to so many callbacks; return how many it took.

        Args:
            limit: How many.
            upto: The last callback to take, None for whatever is there. Who looks names the newest that there is, and
                so comes to an end where callbacks keep coming.
        """
        ...

    def callbacks(
        self, selection: Selection = EVERYTHING, *, limit: int = 0, oldest: bool = False, bodies: bool = True
    ) -> list[CallbackRecord]:
        """Return callbacks in the order of receipt.

        Args:
            selection: Which.
            limit: At most so many; 0 means all.
            oldest: With a limit, the oldest ones in place of the newest.
            bodies: Whether to read their bodies too.
        """
        ...

    def callback(self, callback_id: int) -> CallbackRecord | None:
        """Return one callback."""
        ...

    def deliveries(self, callback_id: int) -> list[Delivery]:
        """Return a callback's deliveries in the order of receipt."""
        ...

    def work(self, callback_id: int) -> list[WorkRecord]:
        """Return what subscribers did with a callback."""
        ...

    def dead(self, selection: Selection = EVERYTHING, *, limit: int = 0) -> list[DeadRecord]:
        """Return the newest dead letters, oldest first; a limit of 0 means all."""
        ...

    def campaigns(self, *, limit: int = 0) -> list[CampaignRecord]:
        """Return the campaigns last heard of, in the order of their last word; a limit of 0 means all."""
        ...

    def campaign(self, campaign_id: str) -> tuple[CampaignRecord, list[DeviceRecord]] | None:
        """Return one campaign and its devices."""
        ...

    def drift(self) -> list[DriftRecord]:
        """Return how callbacks differed from the known schema, most recent last."""
        ...

    def ledger(self) -> Ledger:
        """Count what the store holds; it may read much of it."""
        ...

    def subscribers(self) -> list[SubscriberRecord]:
        """Return how far each subscriber is; quick, however many callbacks there are."""
        ...

    # tokens

    def tokens(self) -> list[TokenRecord]:
        """Return the tokens that were generated for this store."""
        ...

    def add_token(self, record: TokenRecord, now: int) -> None:
        """Keep a generated token.

        Raises:
            StoreError: The store has it already.
        """
        ...

    def set_token(self, token: str, *, state: str, retire_at: int | None, now: int) -> None:
        """Change how a generated token lives; one that the store does not have is left alone.

        Args:
            token: The token.
            state: ``live``, ``next``, ``retiring`` or ``retired``; see `TokenRecord`.
            retire_at: When a retiring one is to be retired, None for never.
            now: The time.
        """
        ...

    # what the registration room keeps

    def beat(self, uptime: Uptime) -> None:
        """Keep a listener's uptime, in the place of what was kept of the same listener."""
        ...

    def uptimes(self, *, since: int = 0) -> list[Uptime]:
        """Return the uptimes that reach past a time, in the order of their beginnings."""
        ...

    def record(self, entry: JournalEntry) -> int:
        """Add an entry to the journal, and return its number; it is on disk when this returns."""
        ...

    def journal(self, topic: str, *, account: str | None = None, since: int = 0, limit: int = 0) -> list[JournalEntry]:
        """Return entries of a topic, oldest first; a limit takes the newest ones, 0 means all."""
        ...

    def put_note(self, *notes: Note) -> None:
        """Write notes, each in the place of the one with its topic and key; all of them or none."""
        ...

    def notes(self, topic: str) -> list[Note]:
        """Return the notes of a topic, by key."""
        ...

    def drop_note(self, topic: str, key: str) -> None:
        """Remove a note, where there is one."""
        ...

    def append_reported(self, reported: Sequence[Reported], now: int, *, dry_run: bool = False) -> list[int | None]:
        """Keep what the provider reports where it is news, as callbacks of origin ``reconciled``.

        News is decided against the read model brought up to the newest callback, within the transaction that appends:
        what a real callback said before is not news, and what was reported before is not news again. A real callback
        that says the same later merges with it: handlers are not called for it (`enroll` makes its work ``done``).

        Args:
            reported: Devices, and campaigns, in the provider's words.
            now: The time, which becomes their time of receipt.
            dry_run: Keep nothing; 0 stands for the number of what would be kept.

        Returns:
            For each the number of its callback, None where it is no news.
        """
        ...

    def repeat_intervals(self, *, since: int = 0, limit: int = 10_000) -> list[int]:
        """Return how long after the delivery before it each further delivery of a callback came, in microseconds."""
        ...

    def last_listed(self, account: str) -> ListedDelivery | None:
        """Return when a callback of an account last came from an address that the provider publishes."""
        ...

    # upkeep

    def prune(self, retention: Retention, now: int, *, limit: int = 500) -> Pruned:
        """Take one step of retention, small enough that nobody waits for it."""
        ...

    def forget(self, device_id: str, now: int, *, after: int = 0, limit: int = 200) -> Forgotten:
        """Take one step of removing a device's identifier: from bodies, work, errors, campaigns."""
        ...

    def check(self) -> list[str]:
        """Read the whole store and return what is wrong with it, a line each; nothing where all is well."""
        ...

    def backup(self, target: Path, *, progress: Callable[[int, int], None] = ...) -> None:
        """Write a copy of this moment's store to a file, while others go on writing.

        Args:
            target: The file, which must not exist; it is there, whole and on disk, or not at all.
            progress: Called with how many parts of how many are done.

        Raises:
            UpcallError: The file exists.
            StoreError: It cannot be written.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
