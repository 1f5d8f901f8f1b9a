"""Removing what is past its time a short step at a time: bodies, whole callbacks, campaigns, uptimes and entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from upcall.inbox.sqlite.connection import transaction
from upcall.inbox.sqlite.counts import UNREAD
from upcall.inbox.sqlite.digests import HEAD_BYTES
from upcall.inbox.sqlite.records import prune_records
from upcall.inbox.sqlite.selection import in_numbers
from upcall.inbox.sqlite.states import ALL_CAME, ALL_RELEASED, OPEN
from upcall.inbox.values import REDELIVERY_WINDOW_MICROS, Pruned, Retention

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Pruning"]

_MICROS: Final = 1_000_000
_START: Final = (-(1 << 63), 0)
_DEVICES_FOR_A_CALLBACK: Final = 20

# Nobody needs the callback's body any more: each subscriber has looked, no work is left or given up, and the read
# model has taken it in. What was dropped from the quarantine, nobody needed before.
_OVER: Final = f"""
    NOT EXISTS (SELECT 1 FROM work w WHERE w.callback_id = c.id AND (w.{OPEN} OR w.state = 'dead'))
    AND CASE
        WHEN c.trust = 'quarantined' THEN c.dropped_at IS NOT NULL
        WHEN c.released_at IS NULL THEN c.id <= {ALL_CAME}
        ELSE (SELECT seq FROM releases r WHERE r.callback_id = c.id) <= min(
            {ALL_RELEASED},
            coalesce((SELECT position FROM cursors WHERE name = 'released'), 0)
        )
    END
"""
_PAST: Final = f"""
    SELECT e.received_at, e.callback_id FROM events e CROSS JOIN callbacks c ON c.id = e.callback_id
    WHERE e.body_gone = ? AND (e.received_at, e.callback_id) > (?, ?) AND e.received_at < ? AND {_OVER}
    ORDER BY e.received_at, e.callback_id LIMIT ?
"""
_STILL_OVER: Final = f"SELECT c.id FROM callbacks c WHERE {{which}} AND {_OVER}"
_KEPT: Final = f"""
    SELECT count(*) FROM callbacks c WHERE c.received_at < ? AND c.id IN (
        SELECT id FROM callbacks WHERE trust = 'quarantined' AND dropped_at IS NULL
        UNION SELECT callback_id FROM work WHERE {OPEN}
        UNION SELECT callback_id FROM work WHERE state = 'dead'
        UNION SELECT id FROM ({UNREAD})
        UNION SELECT id FROM callbacks
            WHERE id > coalesce((SELECT position FROM cursors WHERE name = 'projection'), 0)
        UNION SELECT callback_id FROM releases
            WHERE seq > coalesce((SELECT position FROM cursors WHERE name = 'released'), 0)
    )
"""
_FORGET_DIGEST: Final = f"""
    DELETE FROM digests
    WHERE (bucket, head, callback_id) = (SELECT bucket, substr(digest, 1, {HEAD_BYTES}), id FROM callbacks WHERE id = ?)
"""


class _Bounds(msgspec.Struct, frozen=True):
    """Hold until when bodies, and until when whole callbacks and campaigns, are past their time."""

    bodies: int
    records: int


class _Sweep(msgspec.Struct):
    """Remember how far a series of steps has come, so that none looks again at what has to stay.

    Args:
        retention: What the steps apply.
        kept: How many callbacks past their time stay.
        places: For bodies, and for whole callbacks with and without one, the last that was looked at.
    """

    retention: Retention
    kept: int
    places: dict[str, tuple[int, int]]


class Pruning:
    """Apply retention to an SQLite store.

    Args:
        connection: The inbox's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._sweep: _Sweep | None = None

    def step(self, retention: Retention, now: int, *, limit: int) -> Pruned:
        """Take one step, small enough that nobody waits for it."""
        bounds = _bounds(retention, now)
        is_first = self._sweep is None or self._sweep.retention != retention
        if self._sweep is None or is_first:
            self._sweep = self._new_sweep(retention, bounds)
        kept = self._sweep.kept
        bodies, more_bodies = self._bodies(bounds, limit)
        callbacks, more_callbacks = self._callbacks(bounds, limit)
        campaigns, more_campaigns = self._campaigns(bounds, limit)
        more_records = prune_records(self._connection, bounds.records, limit)
        more = more_bodies or more_callbacks or more_campaigns or more_records
        if not more and not is_first:  # what had to stay when it was looked at may have ended since
            self._sweep = self._new_sweep(retention, bounds)
            more = self._bodies(bounds, 0)[1] or self._callbacks(bounds, 0)[1]
        if not more:
            self._sweep = None
            self._forget_spans(bounds)
        return Pruned(bodies, callbacks, campaigns, kept, more)

    def _new_sweep(self, retention: Retention, bounds: _Bounds) -> _Sweep:
        (kept,) = self._connection.execute(_KEPT, (bounds.bodies,)).fetchone()
        return _Sweep(retention, kept, {})

    def _bodies(self, bounds: _Bounds, limit: int) -> tuple[int, bool]:
        numbers, more = self._past("bodies", 0, (bounds.records, 0), bounds.bodies, limit)
        if not numbers:
            return 0, more
        with transaction(self._connection):
            rows = self._still_over(numbers)
            self._connection.executemany("UPDATE callbacks SET body = NULL WHERE id = ?", rows)
            self._connection.executemany("UPDATE events SET body_gone = 1 WHERE callback_id = ?", rows)
        return len(rows), more

    def _callbacks(self, bounds: _Bounds, limit: int) -> tuple[int, bool]:
        numbers, more = self._past("bare", 1, _START, bounds.records, limit)
        if not more:
            others, more = self._past("whole", 0, _START, bounds.records, limit - len(numbers))
            numbers += others
        if not numbers:
            return 0, more
        with transaction(self._connection):
            rows = self._still_over(numbers)
            self._remove(rows)
        return len(rows), more

    def _remove(self, rows: list[tuple[int]]) -> None:
        for statement in (
            "DELETE FROM replays WHERE work_id IN (SELECT id FROM work WHERE callback_id = ?)",
            "DELETE FROM work WHERE callback_id = ?",
            "DELETE FROM deliveries WHERE callback_id = ?",
            "DELETE FROM releases WHERE callback_id = ?",
            "DELETE FROM events WHERE callback_id = ?",
            "DELETE FROM upcall_reported WHERE callback_id = ?",
            _FORGET_DIGEST,
            "DELETE FROM callbacks WHERE id = ?",
        ):
            self._connection.executemany(statement, rows)

    def _past(self, name: str, body_gone: int, start: tuple[int, int], end: int, limit: int) -> tuple[list[int], bool]:
        """Return callbacks that are past their time and that nobody needs, and whether there are more."""
        assert self._sweep is not None
        place = max(start, self._sweep.places.get(name, start))
        rows = self._connection.execute(_PAST, (body_gone, *place, end, limit + 1)).fetchall()
        taken, more = rows[:limit], len(rows) > limit
        if not more:
            self._sweep.places[name] = (end, 0)
        elif taken:
            self._sweep.places[name] = taken[-1]
        return [number for _, number in taken], more

    def _still_over(self, numbers: list[int]) -> list[tuple[int]]:
        return self._connection.execute(_STILL_OVER.format(which=in_numbers("c.id", numbers))).fetchall()

    def _campaigns(self, bounds: _Bounds, limit: int) -> tuple[int, bool]:
        """Remove campaigns with their devices; of one with very many, some devices at a time."""
        rows = self._connection.execute(
            "SELECT campaign_id, account FROM campaigns WHERE last_at < ? ORDER BY last_at LIMIT ?",
            (bounds.records, limit + 1),
        ).fetchall()
        if not rows:
            return 0, False
        removed, budget = 0, limit * _DEVICES_FOR_A_CALLBACK
        with transaction(self._connection):
            for place in rows[:limit]:
                budget -= self._remove_devices(place, budget)
                if budget <= 0:
                    return removed, True
                self._connection.execute("DELETE FROM campaigns WHERE campaign_id = ? AND account = ?", place)
                removed += 1
        return removed, len(rows) > limit

    def _remove_devices(self, place: tuple[Any, ...], limit: int) -> int:
        return self._connection.execute(
            "DELETE FROM devices WHERE (campaign_id, account, device_id) IN (SELECT campaign_id, account, device_id"
            " FROM devices WHERE campaign_id = ? AND account = ? LIMIT ?)",
            (*place, limit),
        ).rowcount

    def _forget_spans(self, bounds: _Bounds) -> None:
        empty = (
            "FROM spans WHERE bucket < ?"
            " AND NOT EXISTS (SELECT 1 FROM callbacks c WHERE c.id BETWEEN spans.first_id AND spans.last_id)"
        )
        end = (bounds.records // REDELIVERY_WINDOW_MICROS,)
        if self._connection.execute(f"SELECT 1 {empty} LIMIT 1", end).fetchone():
            with transaction(self._connection):
                self._connection.execute(f"DELETE {empty}", end)


def _bounds(retention: Retention, now: int) -> _Bounds:
    record_micros = int(max(retention.record_seconds, retention.body_seconds) * _MICROS)
    return _Bounds(
        bodies=now - int(retention.body_seconds * _MICROS),
        # Within the redelivery window a copy must still find the callback that it is one of.
        records=now - max(record_micros, REDELIVERY_WINDOW_MICROS + 1),
    )
