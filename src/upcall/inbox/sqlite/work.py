"""Work: who wants which callbacks, who is at it, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from upcall.inbox.base import Outcome, Subscription, WorkItem, WorkRecord
from upcall.inbox.events import stored_event
from upcall.inbox.sqlite.connection import read_batch, transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

__all__ = ["WorkTable"]

_MICROS: Final = 1_000_000

_DUE: Final = """
    SELECT due_at, id FROM work
    WHERE state IN ('pending', 'leased') AND subscriber = ? AND due_at <= ?
    ORDER BY due_at, id LIMIT ?
"""
_CLAIM: Final = """
    UPDATE work SET state = 'leased', owner = ?, due_at = ?, attempts = attempts + 1
    WHERE id IN ({ids})
    RETURNING id, subscriber, device_id, attempts, callback_id
"""
_END_OF_TIME: Final = (1 << 63) - 1
_SETTLE: Final = """
    UPDATE work SET state = ?, due_at = ?, error = ?, owner = NULL, finished_at = ?
    WHERE id = ? AND owner = ? AND state = 'leased'
"""


def marks(values: Sequence[object]) -> str:
    """Return as many question marks as there are values."""
    return ", ".join("?" * len(values))


class WorkTable:
    """Hand out work from an SQLite store.

    Args:
        connection: The inbox's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def subscribe(self, names: Sequence[str], now: int) -> None:
        """Make subscribers known: the first ones begin at the store's start, later ones where those stand."""
        execute = self._connection.execute
        known = {name for (name,) in execute("SELECT name FROM subscribers")}
        if known.issuperset(names):
            return
        with transaction(self._connection):
            (cursor,) = execute("SELECT coalesce(max(cursor), 0) FROM subscribers").fetchone()
            for name in names:
                execute(
                    "INSERT OR IGNORE INTO subscribers (name, cursor, created_at) VALUES (?, ?, ?)", (name, cursor, now)
                )

    def enroll(self, subscriptions: Sequence[Subscription], now: int, *, limit: int) -> int:
        """Turn callbacks that subscribers have not seen into work; return how many callbacks were looked at."""
        if not subscriptions:
            return 0
        names = [subscription.name for subscription in subscriptions]
        positions = dict(
            self._connection.execute(f"SELECT name, cursor FROM subscribers WHERE name IN ({marks(names)})", names)
        )
        start = min(positions.values(), default=0)
        rows = read_batch(
            self._connection.execute(
                "SELECT id, received_at, trust, account, body FROM callbacks WHERE id > ? ORDER BY id LIMIT ?",
                (start, limit),
            )
        )
        if not rows:
            return 0
        # Parsed before the write transaction begins: a listener beside us waits for writes only.
        work = [
            (callback_id, subscription.name, device_id, now)
            for callback_id, received_at, trust, account, body in rows
            if trust != "quarantined" and body is not None
            for event in (stored_event(callback_id, received_at, account, body),)
            for subscription in subscriptions
            if positions[subscription.name] < callback_id
            for device_id in subscription.wants(event)
        ]
        end = rows[-1][0]
        with transaction(self._connection):
            self._connection.executemany(
                "INSERT OR IGNORE INTO work (callback_id, subscriber, device_id, state, due_at)"
                " VALUES (?, ?, ?, 'pending', ?)",
                work,
            )
            self._connection.execute(
                f"UPDATE subscribers SET cursor = max(cursor, ?) WHERE name IN ({marks(names)})",
                (end, *names),
            )
        return len(rows)

    def claim(self, names: Sequence[str], owner: str, now: int, *, lease_seconds: float, limit: int) -> list[WorkItem]:
        """Lease work that is due, or whose lease ran out, to an owner."""
        if not self._due(names, now, 1):
            return []
        with transaction(self._connection):
            ids = self._due(names, now, limit)
            claimed = self._connection.execute(
                _CLAIM.format(ids=marks(ids)), (owner, now + int(lease_seconds * _MICROS), *ids)
            ).fetchall()
        items = []
        callbacks: dict[int, tuple[int, str | None, bytes]] = {}  # each body is read once, for all of its devices
        for work_id, subscriber, device_id, attempts, callback_id in sorted(claimed):
            if callback_id not in callbacks:
                callbacks[callback_id] = self._connection.execute(
                    "SELECT received_at, account, coalesce(body, x'') FROM callbacks WHERE id = ?", (callback_id,)
                ).fetchone()
            items.append(WorkItem(work_id, subscriber, device_id, attempts, callback_id, *callbacks[callback_id]))
        return items

    def renew(self, work_ids: Sequence[int], owner: str, now: int, *, lease_seconds: float) -> None:
        """Extend leases that the owner still holds."""
        until = now + int(lease_seconds * _MICROS)
        with transaction(self._connection):
            self._connection.executemany(
                "UPDATE work SET due_at = ? WHERE id = ? AND owner = ? AND state = 'leased'",
                [(until, work_id, owner) for work_id in work_ids],
            )

    def settle(self, outcomes: Sequence[Outcome], owner: str, now: int) -> None:
        """Record how leased work ended; an owner that lost its lease changes nothing."""
        with transaction(self._connection):
            self._connection.executemany(
                _SETTLE,
                [
                    (
                        outcome.state,
                        outcome.due_at,
                        outcome.error,
                        None if outcome.state == "pending" else now,
                        outcome.work_id,
                        owner,
                    )
                    for outcome in outcomes
                ],
            )

    def release(self, owners: Sequence[str], now: int, *, uncounted: bool) -> int:
        """Give back, at once, the work that these owners hold."""
        with transaction(self._connection):
            return self._connection.execute(
                f"UPDATE work SET state = 'pending', owner = NULL, due_at = ?, attempts = attempts - ?"
                f" WHERE state IN ('pending', 'leased') AND owner IN ({marks(owners)})",
                (now, uncounted, *owners),
            ).rowcount

    def owners(self) -> list[str]:
        """Return who holds leases."""
        rows = self._connection.execute(
            "SELECT DISTINCT owner FROM work WHERE state IN ('pending', 'leased') AND owner IS NOT NULL"
        )
        return [owner for (owner,) in rows]

    def _due(self, names: Sequence[str], now: int, limit: int) -> list[int]:
        """Return work that is due, each subscriber's in its order and all subscribers in turn.

        In turn, so that what one of them has left undone does not hold up the others.
        """
        queues = [self._connection.execute(_DUE, (name, now, limit)).fetchall() for name in names]
        turns = sorted((turn, *row) for queue in queues for turn, row in enumerate(queue))
        return [work_id for _, _, work_id in turns[:limit]]

    def next_due(self, names: Sequence[str]) -> int | None:
        """Return when the next piece of work is due, None where there is none."""
        heads = [self._connection.execute(_DUE, (name, _END_OF_TIME, 1)).fetchone() for name in names]
        return min((head[0] for head in heads if head is not None), default=None)

    def of(self, callback_id: int) -> list[WorkRecord]:
        """Return what subscribers did with a callback."""
        rows = self._connection.execute(
            "SELECT subscriber, device_id, state, attempts, due_at, error FROM work WHERE callback_id = ?"
            " ORDER BY subscriber, device_id",
            (callback_id,),
        )
        return [WorkRecord(*row) for row in rows]
