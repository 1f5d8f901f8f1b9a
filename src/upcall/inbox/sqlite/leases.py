"""Handing out work: who is at it, until when, and how it ended."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from upcall.inbox.sqlite.clock import note_time, set_back_by
from upcall.inbox.sqlite.connection import begin, transaction
from upcall.inbox.sqlite.enrolment import marks
from upcall.inbox.values import UNENDED, Outcome, ReplayRecord, WorkItem, WorkRecord

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

__all__ = ["Leases"]

_MICROS: Final = 1_000_000
_SETTLE_BATCH: Final = 512
_END_OF_TIME: Final = (1 << 63) - 1

_READY: Final = """
    SELECT due_at, id FROM work
    WHERE state IN ('pending', 'leased') AND order_key IS NULL AND subscriber = ? AND due_at <= ?
    ORDER BY due_at, id LIMIT ?
"""
# Of each order only the first piece that is open: found by a step from one order to the next, so that what waits
# behind it costs nothing.
_FIRST_IN_ORDER: Final = """
    WITH RECURSIVE orders (order_key) AS (
        SELECT min(order_key) FROM work
        WHERE state IN ('pending', 'leased') AND order_key IS NOT NULL AND subscriber = ?1
        UNION ALL
        SELECT (
            SELECT min(w.order_key) FROM work w
            WHERE w.state IN ('pending', 'leased') AND w.order_key IS NOT NULL AND w.subscriber = ?1
                AND w.order_key > orders.order_key
        )
        FROM orders WHERE orders.order_key IS NOT NULL
    )
    SELECT w.due_at, w.id FROM orders CROSS JOIN work w ON w.id = (
        SELECT min(f.id) FROM work f
        WHERE f.state IN ('pending', 'leased') AND f.order_key IS NOT NULL AND f.subscriber = ?1
            AND f.order_key = orders.order_key
    )
    WHERE orders.order_key IS NOT NULL AND w.due_at <= ?2
    ORDER BY w.due_at, w.id LIMIT ?3
"""
_CLAIM: Final = """
    UPDATE work SET state = 'leased', owner = ?, due_at = ?, attempts = attempts + 1
    WHERE id IN ({ids})
    RETURNING id, subscriber, device_id, attempts, callback_id
"""
_BODIES: Final = """
    SELECT id, received_at, account, lower(hex(digest)), coalesce(body, x''), origin FROM callbacks WHERE id IN ({ids})
"""
_SETTLE: Final = """
    UPDATE work SET state = ?, due_at = ?, error = ?, owner = NULL, finished_at = ?
    WHERE id = ? AND owner = ? AND state = 'leased'
    RETURNING subscriber
"""
_SETTLE_DONE: Final = """
    UPDATE work SET state = 'done', due_at = 0, error = NULL, owner = NULL, finished_at = ?
    WHERE id IN ({ids}) AND owner = ? AND state = 'leased'
    RETURNING subscriber
"""
_COUNT: Final = "UPDATE subscribers SET done = done + ?, failed = failed + ? WHERE name = ?"


class Leases:
    """Hand out work from an SQLite store.

    Args:
        connection: The inbox's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

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
        """Lease work that is due, or whose lease ran out, to an owner; see `upcall.inbox.Inbox.claim`."""
        if not self._due(names, now, 1) and not set_back_by(self._connection, now):
            return []
        with transaction(self._connection):
            note_time(self._connection, now)
            ids = self._due(names, now, limit)
            unended = self._unended(ids)
            if unended_alone and unended:
                ids = [work_id for work_id in ids if work_id in unended][:1]
            claimed = self._connection.execute(
                _CLAIM.format(ids=marks(ids)), (owner, now + int(lease_seconds * _MICROS), *ids)
            ).fetchall()
            if unended:  # so that it is known of them for as long as they record no end
                self._connection.execute(
                    f"UPDATE work SET error = ? WHERE owner = ? AND id IN ({marks(list(unended))})",
                    (UNENDED, owner, *unended),
                )
        return self._items(sorted(claimed), unended)

    def _unended(self, ids: Sequence[int]) -> set[int]:
        """Return work that was started, and of which no end was recorded."""
        rows = self._connection.execute(
            f"SELECT id FROM work WHERE id IN ({marks(ids)}) AND (state = 'leased' OR error = ?)", (*ids, UNENDED)
        )
        return {work_id for (work_id,) in rows}

    def _items(self, claimed: Sequence[tuple[int, str, str, int, int]], unended: set[int]) -> list[WorkItem]:
        """Read the bodies of claimed work, each once for all of its devices."""
        numbers = sorted({row[-1] for row in claimed})
        rows = self._connection.execute(_BODIES.format(ids=marks(numbers)), numbers)
        callbacks: dict[int, tuple[int, str | None, str, bytes]] = {}
        origins: dict[int, str] = {}
        for number, *facts, origins[number] in rows:
            callbacks[number] = tuple(facts)
        return [
            WorkItem(
                work_id, name, device_id, attempts, number, *callbacks[number], work_id in unended, origins[number]
            )
            for work_id, name, device_id, attempts, number in claimed
        ]

    def renew(self, work_ids: Sequence[int], owner: str, now: int, *, lease_seconds: float) -> None:
        """Extend leases that the owner still holds."""
        until = now + int(lease_seconds * _MICROS)
        with transaction(self._connection):
            note_time(self._connection, now)
            self._connection.executemany(
                "UPDATE work SET due_at = ? WHERE id = ? AND owner = ? AND state = 'leased'",
                [(until, work_id, owner) for work_id in work_ids],
            )

    def settle(self, outcomes: Sequence[Outcome], owner: str, now: int) -> None:
        """Record how leased work ended; an owner that lost its lease changes nothing."""
        well = [outcome.work_id for outcome in outcomes if outcome.state == "done"]
        others = [outcome for outcome in outcomes if outcome.state != "done"]
        with transaction(self._connection):
            note_time(self._connection, now)
            done = self._settle_done(well, owner, now)
            failed = Counter(name for outcome in others for name in self._settle_failed(outcome, owner, now))
            self._count(done, failed)

    def _settle_done(self, work_ids: Sequence[int], owner: str, now: int) -> Counter[str]:
        """Mark much work as done at once; return of whom how much it was."""
        done: Counter[str] = Counter()
        for start in range(0, len(work_ids), _SETTLE_BATCH):
            ids = work_ids[start : start + _SETTLE_BATCH]
            rows = self._connection.execute(_SETTLE_DONE.format(ids=marks(ids)), (now, *ids, owner))
            done.update(name for (name,) in rows)
        return done

    def _settle_failed(self, outcome: Outcome, owner: str, now: int) -> list[str]:
        """Record how one piece of work failed; return whose it was, nobody's where the lease was lost."""
        ended = None if outcome.state == "pending" else now
        values = (outcome.state, outcome.due_at, outcome.error, ended, outcome.work_id, owner)
        return [name for (name,) in self._connection.execute(_SETTLE, values).fetchall()]

    def _count(self, done: Counter[str], failed: Counter[str]) -> None:
        """Add to the subscribers' figures what is recorded in the open transaction."""
        for name in done.keys() | failed.keys():
            self._connection.execute(_COUNT, (done[name], failed[name], name))

    def begin_end(self, work_id: int, owner: str) -> bool:
        """Open the transaction that ends a piece of work; tell whether the owner still holds it, else it is closed."""
        begin(self._connection)
        held = self._connection.execute(
            "SELECT 1 FROM work WHERE id = ? AND owner = ? AND state = 'leased'", (work_id, owner)
        ).fetchone()
        if held is None:
            self._connection.rollback()
        return held is not None

    def conclude_end(self, work_id: int, now: int) -> None:
        """Mark work as done in the open transaction, and commit it."""
        note_time(self._connection, now)
        rows = self._connection.execute(
            "UPDATE work SET state = 'done', error = NULL, owner = NULL, due_at = 0, finished_at = ? WHERE id = ?"
            " RETURNING subscriber",
            (now, work_id),
        ).fetchall()
        self._count(Counter(name for (name,) in rows), Counter())
        self._connection.commit()

    def release(self, owners: Sequence[str], now: int, *, uncounted: bool) -> int:
        """Give back, at once, the work that these owners hold."""
        with transaction(self._connection):
            note_time(self._connection, now)
            return self._connection.execute(
                "UPDATE work SET state = 'pending', owner = NULL, due_at = ?1, attempts = attempts - ?2,"
                " error = iif(?2, error, ?3)"
                f" WHERE state = 'leased' AND owner IN ({marks(owners)})",
                (now, uncounted, UNENDED, *owners),
            ).rowcount

    def owners(self) -> list[str]:
        """Return who holds leases."""
        rows = self._connection.execute("SELECT DISTINCT owner FROM work WHERE state = 'leased' ORDER BY owner")
        return [owner for (owner,) in rows]

    def next_due(self, names: Sequence[str]) -> int | None:
        """Return when the next piece of work is due, None where there is none."""
        heads = [queue[0][0] for name in names for queue in self._queues(name, _END_OF_TIME, 1) if queue]
        return min(heads, default=None)

    def _due(self, names: Sequence[str], now: int, limit: int) -> list[int]:
        """Return work that is due, each subscriber's in its order and all subscribers in turn.

        In turn, so that what one of them has left undone does not hold up the others.
        """
        turns = []
        for name in names:
            ready, first_in_order = self._queues(name, now, limit)
            queue = sorted((*ready, *first_in_order)) if first_in_order else ready
            turns += [(turn, *row) for turn, row in enumerate(queue)]
        return [work_id for _, _, work_id in sorted(turns)[:limit]]

    def _queues(self, name: str, until: int, limit: int) -> list[list[tuple[int, int]]]:
        """Return a subscriber's work that may be handed out by then: what has no order, and the first of each order."""
        return [self._connection.execute(query, (name, until, limit)).fetchall() for query in (_READY, _FIRST_IN_ORDER)]

    def of(self, callback_id: int) -> list[WorkRecord]:
        """Return what subscribers did with a callback."""
        rows = self._connection.execute(
            "SELECT id, replays, subscriber, device_id, state, attempts, due_at, finished_at, error, merged_with"
            " FROM work WHERE callback_id = ? ORDER BY subscriber, device_id",
            (callback_id,),
        ).fetchall()
        return [
            WorkRecord(
                name, device, state, attempts, due, finished, error, self._replays(work_id) if count else (), merged
            )
            for work_id, count, name, device, state, attempts, due, finished, error, merged in rows
        ]

    def _replays(self, work_id: int) -> tuple[ReplayRecord, ...]:
        rows = self._connection.execute(
            "SELECT replayed_at, reason, state, attempts, error FROM replays WHERE work_id = ? ORDER BY id", (work_id,)
        )
        return tuple(ReplayRecord(*row) for row in rows)
