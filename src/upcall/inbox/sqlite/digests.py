"""Which arrivals are copies of callbacks already kept: the newest digests in memory, all others in a table.

A digest is random. An index that every insert extends has a page of its own to change for nearly every callback, and
that was half of what an insert and its commit cost. So the newest digests are held in memory, sorted into bins by their
first bits, and the bins are filed in the table one after the other: what is filed at a time then lies close together
there, however large the table is. Where another process has appended, or this one begins, what is not filed yet is read
again from the callbacks themselves.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Final

from upcall.inbox.values import REDELIVERY_WINDOW_MICROS

if TYPE_CHECKING:
    import sqlite3

    from upcall.inbox.values import Arrival

__all__ = ["HEAD_BYTES", "Digests", "file_digests"]

BINS: Final = 128
"""More cost memory, and time when a process begins; fewer cost a commit more pages."""
FILE_FROM: Final = 256
"""How many new digests are worth filing a bin, which then holds about as many."""

HEAD_BYTES: Final = 8
"""How many bytes of a digest the table holds. Two that begin alike are told apart by the callbacks themselves."""

_COPY: Final = f"""
    c.digest = {{row}}digest AND c.origin = {{row}}origin AND (c.trust = 'quarantined') = ({{row}}trust = 'quarantined')
    AND abs(c.received_at - {{row}}received_at) <= {REDELIVERY_WINDOW_MICROS}
"""
_FILED: Final = f"""
    FROM main.digests d CROSS JOIN main.callbacks c ON c.id = d.callback_id
    WHERE d.bucket = {{row}}bucket {{step}} AND d.head = substr({{row}}digest, 1, {HEAD_BYTES}) AND {_COPY}
"""
_STEPS: Final = ("", "- 1", "+ 1")
# The window is decided while nobody else can write. A callback in quarantine and one that is not are never copies of
# each other, so nobody's early copy can take an honest one's place; nor are two that came in other ways.
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
    SELECT bucket, substr(digest, 1, {HEAD_BYTES}), id FROM callbacks WHERE {{which}} ORDER BY 1, 2
"""
_FILE_THESE: Final = _FILE.format(which="id IN (SELECT value FROM json_each(?))")
_FILE_RANGE: Final = _FILE.format(which="id > ? AND id <= ?")
_ADVANCE: Final = """
    INSERT INTO cursors (name, position) VALUES ('filed', ?)
    ON CONFLICT (name) DO UPDATE SET position = max(position, excluded.position)
"""
"""Another process files too, in its own turn."""


class Digests:
    """Tell copies, on the connection of one appender and inside its write transactions.

    Args:
        connection: The appender's.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._bins: list[dict[bytes, list[int]]]
        self._filed_upto: deque[int]
        """Up to which callback each bin was filed, in their turn: the first stands for all."""
        self._filing: list[int]
        self._turn: int
        self._newest: int
        self._unfiled: int
        self._first_round: int
        """How many bins were not filed yet since this began."""
        self._pace: int
        """How many of those each commit files at least."""
        self._forget()
        connection.execute(_LEAVE_OUT_COPIES)
        self.catch_up()

    def catch_up(self) -> None:
        """Know every callback that is stored; called at the beginning of each transaction."""
        filed, newest = self._connection.execute(_POSITIONS).fetchone()
        begins = self._newest < 0
        if begins:
            self._newest = filed
            self._filed_upto.extend([filed] * BINS)
        if newest > self._newest:
            after = max(self._newest, filed)
            for row in self._connection.execute("SELECT digest, id FROM callbacks WHERE id > ?", (after,)):
                self.note(*row)
            self._newest = max(self._newest, newest)
        if begins:
            # They are filed with those to come, not all in the first commit. Where they are many rounds' worth, because
            # the processes before this one ended within their first round, each commit of this one's files some.
            self._pace = self._unfiled // (2 * BINS * FILE_FROM)
            self._unfiled = 0

    def may_know(self, digest: bytes) -> bool:
        """Tell whether a copy may be among those that are held in memory; the others the insert leaves out itself."""
        return digest in self._bin(digest)

    def note(self, digest: bytes, callback_id: int) -> None:
        """Hold a callback that was inserted."""
        self._bin(digest).setdefault(digest, []).append(callback_id)
        self._newest = callback_id
        self._unfiled += 1

    def find(self, arrival: Arrival, digest: bytes) -> int | None:
        """Return the first callback that an arrival is a copy of, None where it is none."""
        row = self._connection.execute(
            _FIND,
            {
                "recent": json.dumps(self._bin(digest).get(digest, ())),
                "bucket": arrival.received_at // REDELIVERY_WINDOW_MICROS,
                "digest": digest,
                "origin": arrival.origin,
                "trust": arrival.trust.value,
                "received_at": arrival.received_at,
            },
        ).fetchone()
        return None if row is None else int(row[0])

    def file(self) -> None:
        """File the bins whose turn it is, as many as new digests are worth; called before a commit."""
        turns = min(max(self._unfiled // FILE_FROM, min(self._pace, self._first_round)), BINS)
        if turns:
            self._filing = [(self._turn + ahead) % BINS for ahead in range(turns)]
            ids = [number for bin_ in self._filing for numbers in self._bins[bin_].values() for number in numbers]
            self._connection.execute(_FILE_THESE, (json.dumps(ids),))
            self._filed_upto.extend([self._newest] * turns)
            self._connection.execute(_ADVANCE, (self._filed_upto[0],))

    def committed(self) -> None:
        """Hold no longer what was filed."""
        if not self._filing:
            return
        for bin_ in self._filing:
            self._bins[bin_].clear()
        self._turn = (self._turn + len(self._filing)) % BINS
        self._first_round = max(self._first_round - len(self._filing), 0)
        self._unfiled = 0
        self._filing = []

    def rolled_back(self) -> None:
        """Forget what may not be stored; the next transaction reads it again."""
        self._forget()

    def _bin(self, digest: bytes) -> dict[bytes, list[int]]:
        return self._bins[digest[0] * BINS >> 8]

    def _forget(self) -> None:
        self._bins = [{} for _ in range(BINS)]
        self._filed_upto = deque(maxlen=BINS)
        self._filing = []
        self._turn = 0
        self._newest = -1
        self._unfiled = 0
        self._first_round = BINS
        self._pace = 0


def file_digests(connection: sqlite3.Connection, after: int, upto: int) -> None:
    """Put the digests of callbacks into the table, in the open transaction.

    Args:
        connection: The store's.
        after: The last callback that was filed.
        upto: The last one to file.
    """
    connection.execute(_FILE_RANGE, (after, upto))
    connection.execute(_ADVANCE, (upto,))
