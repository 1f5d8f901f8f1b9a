"""Counting what a store holds, and how far each subscriber is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from upcall.inbox.sqlite.connection import snapshot
from upcall.inbox.sqlite.states import ALL_CAME, ALL_RELEASED, OPEN
from upcall.inbox.values import Ledger, SubscriberRecord

if TYPE_CHECKING:
    import sqlite3

__all__ = ["UNREAD", "Counts"]

EXACT_ROWS: Final = 10_000
"""A backlog up to here is counted row by row, a longer one by its numbers: they have no gaps."""

# What came, or was released, after where the subscriber stands that is least far.
UNREAD: Final = f"""
    SELECT id FROM callbacks WHERE id > {ALL_CAME} AND trust <> 'quarantined' AND released_at IS NULL
    UNION ALL
    SELECT callback_id FROM releases WHERE seq > {ALL_RELEASED}
"""
# Each piece of work by the worst of its states, as `upcall.inbox.sqlite.states` has it of one callback.
_LEDGER: Final = f"""
    WITH unread AS MATERIALIZED ({UNREAD}),
        worked AS MATERIALIZED (
            SELECT callback_id, max({OPEN}) AS open, max(state = 'dead') AS dead, max(state = 'dropped') AS dropped
            FROM work GROUP BY callback_id
        ),
        ended AS MATERIALIZED (
            SELECT dead, dropped FROM worked WHERE NOT open AND callback_id NOT IN (SELECT id FROM unread)
        )
    SELECT
        (SELECT count(*) FROM callbacks),
        (SELECT count(*) FROM deliveries),
        (SELECT count(*) FROM callbacks WHERE trust = 'quarantined' AND dropped_at IS NULL),
        (SELECT count(*) FROM callbacks WHERE dropped_at IS NOT NULL)
            + (SELECT count(*) FROM ended WHERE dropped AND NOT dead),
        (SELECT count(*) FROM unread WHERE id NOT IN (SELECT callback_id FROM worked WHERE open)),
        (SELECT count(*) FROM worked WHERE open),
        (SELECT count(*) FROM ended WHERE NOT dead AND NOT dropped),
        (SELECT count(*) FROM ended WHERE dead)
"""
_SUBSCRIBERS: Final = "SELECT name, cursor, released, done, failed FROM subscribers ORDER BY name"
# The oldest is one of the first: numbers follow the receipts but for what was received at about one time.
_FIRST_ROWS: Final = 1000
_CAME: Final = f"""
    SELECT min(received_at) FROM (
        SELECT received_at FROM callbacks WHERE id > ? AND trust <> 'quarantined' AND released_at IS NULL
        ORDER BY id LIMIT {_FIRST_ROWS}
    )
"""
_RELEASED: Final = f"""
    SELECT min(received_at) FROM (
        SELECT c.received_at FROM releases r CROSS JOIN callbacks c ON c.id = r.callback_id WHERE r.seq > ?
        ORDER BY r.seq LIMIT {_FIRST_ROWS}
    )
"""
_WORKED: Final = f"""
    SELECT min(received_at) FROM (
        SELECT c.received_at FROM work w CROSS JOIN callbacks c ON c.id = w.callback_id
        WHERE w.subscriber = ? AND w.{OPEN} ORDER BY w.callback_id LIMIT {_FIRST_ROWS}
    )
"""
_GIVEN_UP: Final = "SELECT count(*) FROM work INDEXED BY work_given_up WHERE state = 'dead' AND subscriber = ?"
# Of the callbacks behind a position, those that no subscriber looks at when it comes there.
_PASSED_OVER: Final = """
    SELECT
        (SELECT count(*) FROM callbacks WHERE id > ?1 AND trust = 'quarantined' AND dropped_at IS NULL)
        + (SELECT count(*) FROM callbacks WHERE id > ?1 AND dropped_at IS NOT NULL)
        + (SELECT count(*) FROM releases WHERE callback_id > ?1)
"""


class Counts:
    """Count in an SQLite store.

    Args:
        connection: The inbox's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def ledger(self) -> Ledger:
        """Count each callback once; reads all work."""
        stored, deliveries, quarantined, dropped, unread, pending, handled, dead = self._connection.execute(
            _LEDGER
        ).fetchone()
        return Ledger(
            stored=stored,
            deliveries=stored + deliveries,
            quarantined=quarantined,
            dropped=dropped,
            unread=unread,
            pending=pending,
            handled=handled,
            dead=dead,
            unwanted=stored - quarantined - dropped - unread - pending - handled - dead,
        )

    def quarantined_bytes(self) -> int:
        """Return how many bytes of bodies the quarantine holds."""
        return self._count(
            "SELECT coalesce(sum(length(body)), 0) FROM callbacks WHERE trust = 'quarantined' AND dropped_at IS NULL"
        )

    def subscribers(self) -> list[SubscriberRecord]:
        """Return how far each subscriber is, without reading more than its backlog."""
        with snapshot(self._connection):
            rows = self._connection.execute(_SUBSCRIBERS).fetchall()
            return [self._subscriber(*row) for row in rows]

    def _subscriber(self, name: str, cursor: int, released: int, done: int, failed: int) -> SubscriberRecord:
        leased = self._count("SELECT count(*) FROM work WHERE state = 'leased' AND subscriber = ?", name)
        undone = self._count(f"SELECT count(*) FROM work WHERE {OPEN} AND subscriber = ?", name)
        heads = [
            row[0]
            for query, value in ((_CAME, cursor), (_RELEASED, released), (_WORKED, name))
            if (row := self._connection.execute(query, (value,)).fetchone())[0] is not None
        ]
        return SubscriberRecord(
            name=name,
            unread=self._unread(cursor) + self._count("SELECT count(*) FROM releases WHERE seq > ?", released),
            pending=undone - leased,
            leased=leased,
            dead=self._count(_GIVEN_UP, name),
            oldest_at=min(heads, default=None),
            done=done,
            failed=failed,
        )

    def _unread(self, cursor: int) -> int:
        newest = self._count("SELECT coalesce(max(id), 0) FROM callbacks")
        if newest - cursor > EXACT_ROWS:
            return newest - cursor - self._count(_PASSED_OVER, cursor)
        return self._count(
            "SELECT count(*) FROM callbacks WHERE id > ? AND trust <> 'quarantined' AND released_at IS NULL", cursor
        )

    def _count(self, sql: str, *values: object) -> int:
        return int(self._connection.execute(sql, values).fetchone()[0])
