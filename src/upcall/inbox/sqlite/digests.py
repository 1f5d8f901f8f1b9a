"""Which arrivals are copies of callbacks already kept: the newest digests in memory, all others in a table.

A digest is random. An index that every insert extends has a page of its own to change for nearly every callback, and
that was half of what an insert and its commit cost. So the newest digests are held in memory, and filed in the table
some thousand at a time and in its order. Where another process has appended, or this one begins, what is not filed yet
is read again from the callbacks themselves.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from upcall.inbox.values import REDELIVERY_WINDOW_MICROS

if TYPE_CHECKING:
    import sqlite3

    from upcall.inbox.values import Arrival

__all__ = ["Digests", "file_digests"]

FILE_FROM: Final = 2048
"""How many digests are filed at a time: less often costs memory, more often more pages a callback."""

_HEAD: Final = 8
"""How many bytes of a digest the table holds. Two that begin alike are told apart by the callbacks themselves."""

_COPY: Final = f"""
    c.digest = {{row}}digest AND (c.trust = 'quarantined') = ({{row}}trust = 'quarantined')
    AND abs(c.received_at - {{row}}received_at) <= {REDELIVERY_WINDOW_MICROS}
"""
_FILED: Final = f"""
    FROM main.digests d CROSS JOIN main.callbacks c ON c.id = d.callback_id
    WHERE d.bucket = {{row}}bucket {{step}} AND d.head = substr({{row}}digest, 1, {_HEAD}) AND {_COPY}
"""
_STEPS: Final = ("", "- 1", "+ 1")
# The window is decided while nobody else can write. A callback in quarantine and one that is not are never copies of
# each other, so nobody's early copy can take an honest one's place.
_EXISTS: Final = " OR ".join(f"EXISTS (SELECT 1 {_FILED.format(row='NEW.', step=step)})" for step in _STEPS)
_LEAVE_OUT_COPIES: Final = f"""
    CREATE TEMP TRIGGER leave_out_copies BEFORE INSERT ON main.callbacks WHEN {_EXISTS}
    BEGIN SELECT RAISE(IGNORE); END
"""
_FIND: Final = f"""
    SELECT c.id FROM callbacks c WHERE c.id IN (SELECT value FROM json_each(:recent)) AND {_COPY.format(row=":")}
    UNION ALL {" UNION ALL ".join(f"SELECT c.id {_FILED.format(row=':', step=step)}" for step in _STEPS)}
    ORDER BY 1 LIMIT 1
"""
_POSITIONS: Final = """
    SELECT coalesce((SELECT position FROM cursors WHERE name = 'filed'), 0),
        coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'callbacks'), 0)
"""
_FILE: Final = f"""
    INSERT OR IGNORE INTO digests (bucket, head, callback_id)
    SELECT bucket, substr(digest, 1, {_HEAD}), id FROM callbacks WHERE id > ? AND id <= ? ORDER BY 1, 2
"""


class Digests:
    """Tell copies, on the connection of one appender and inside its write transactions.

    Args:
        connection: The appender's.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._recent: dict[bytes, list[int]] = {}
        self._filed = -1
        self._newest = -1
        self._is_filing = False
        connection.execute(_LEAVE_OUT_COPIES)

    def catch_up(self) -> None:
        """Know every callback that is stored; called at the beginning of each transaction."""
        filed, newest = self._connection.execute(_POSITIONS).fetchone()
        if filed != self._filed:
            self._recent.clear()
            self._filed = self._newest = filed
        if newest > self._newest:
            rows = self._connection.execute("SELECT id, digest FROM callbacks WHERE id > ?", (self._newest,))
            for callback_id, digest in rows:
                self.note(digest, callback_id)
            self._newest = newest

    def may_know(self, digest: bytes) -> bool:
        """Tell whether a copy may be among those that are held in memory; the others the insert leaves out itself."""
        return digest in self._recent

    def note(self, digest: bytes, callback_id: int) -> None:
        """Hold a callback that was inserted."""
        self._recent.setdefault(digest, []).append(callback_id)
        self._newest = callback_id

    def find(self, arrival: Arrival, digest: bytes) -> int | None:
        """Return the first callback that an arrival is a copy of, None where it is none."""
        row = self._connection.execute(
            _FIND,
            {
                "recent": json.dumps(self._recent.get(digest, ())),
                "bucket": arrival.received_at // REDELIVERY_WINDOW_MICROS,
                "digest": digest,
                "trust": arrival.trust.value,
                "received_at": arrival.received_at,
            },
        ).fetchone()
        return None if row is None else int(row[0])

    def file(self) -> None:
        """File what is held where that is worth it; called before a transaction is committed."""
        if len(self._recent) >= FILE_FROM:
            file_digests(self._connection, self._filed, self._newest)
            self._is_filing = True

    def committed(self) -> None:
        """Hold no longer what was filed."""
        if self._is_filing:
            self._is_filing = False
            self._recent.clear()
            self._filed = self._newest

    def rolled_back(self) -> None:
        """Forget what may not be stored; the next transaction reads it again."""
        self._is_filing = False
        self._recent.clear()
        self._filed = self._newest = -1


def file_digests(connection: sqlite3.Connection, after: int, upto: int) -> None:
    """Put the digests of callbacks into the table, in the open transaction.

    Args:
        connection: The store's.
        after: The last callback that was filed.
        upto: The last one to file.
    """
    connection.execute(_FILE, (after, upto))
    connection.execute("INSERT OR REPLACE INTO cursors (name, position) VALUES ('filed', ?)", (upto,))
