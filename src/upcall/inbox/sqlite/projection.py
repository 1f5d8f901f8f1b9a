"""Folding stored callbacks into the read model: as they came, and those from quarantine at their release."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Final

from upcall.inbox.events import projected_event
from upcall.inbox.readmodel import CampaignView, duplicate_guess, fold_campaign, fold_device, fold_drift
from upcall.inbox.sqlite.connection import read_batch, snapshot, transaction
from upcall.inbox.values import REDELIVERY_WINDOW_MICROS, DeviceRecord, DriftRecord, Origin

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from upcall.thingspace import CallbackEvent

__all__ = ["Projection"]

_CAME: Final = """
    SELECT id, 0, received_at, trust <> 'quarantined' AND released_at IS NULL, digest, account, origin, body
    FROM callbacks WHERE id > ? AND id <= ? ORDER BY id LIMIT ?
"""
_RELEASED: Final = """
    SELECT c.id, r.seq, c.received_at, 1, c.digest, c.account, c.origin, c.body
    FROM releases r CROSS JOIN callbacks c ON c.id = r.callback_id
    WHERE r.seq > ? ORDER BY r.seq LIMIT ?
"""
_EVENT: Final = """
    INSERT OR REPLACE INTO events
        (callback_id, received_at, account, kind, campaign_id, key, duplicate, duplicate_of, body_gone)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_LAST: Final = (1 << 63) - 1
_STEP: Final = 1000
_POSITION: Final = """
    INSERT INTO cursors (name, position) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET position = ?2
"""
_CAMPAIGN_COLUMNS: Final = tuple(CampaignView.__struct_fields__)
_DEVICE_COLUMNS: Final = tuple(DeviceRecord.__struct_fields__)
_DRIFT_COLUMNS: Final = tuple(DriftRecord.__struct_fields__)

Row = tuple[int, int, int, int, bytes, "str | None", str, "bytes | None"]
"""A callback to fold: number, release or 0, receipt, whether to fold it, digest, the token's account, origin, body."""


class Projection:
    """Bring the read model of an SQLite store forward.

    Args:
        connection: The inbox's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def position(self) -> tuple[int, int]:
        """Return up to which callback the read model goes, and the newest callback."""
        position, _ = self._positions()
        (newest,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM callbacks").fetchone()
        return position, newest

    def advance(self, limit: int, upto: int | None = None) -> int:
        """Fold in up to so many callbacks that are not in the read model yet; return how many it took.

        Fewer where their bodies are large. Where another process was quicker its work stands, and this one's is
        dropped.
        """
        with snapshot(self._connection):
            positions = self._positions()
            rows = self._unread(positions, limit, _LAST if upto is None else upto)
        if not rows:
            return 0
        # Parsed before the write transaction begins: a listener beside us waits for writes only.
        parsed = [(row, _event(row)) for row in rows]
        with transaction(self._connection):
            if self._positions() == positions:
                self._fold(parsed)
        return len(rows)

    def catch_up(self) -> None:
        """Take in all that came up to now, as fast as it is read; what comes meanwhile is left."""
        _, newest = self.position()
        while self.advance(_STEP, newest):
            pass

    def finish(self, limit: int) -> bool:
        """Take in the rest in the open transaction; tell whether that was all, since it was no more than so many."""
        rows = self._unread(self._positions(), limit + 1, _LAST)
        if len(rows) > limit:
            return False
        if rows:
            self._fold([(row, _event(row)) for row in rows])
        return self._is_current()

    def _is_current(self) -> bool:
        return not self._unread(self._positions(), 1, _LAST)

    def _fold(self, parsed: Sequence[tuple[Row, CallbackEvent]]) -> None:
        batch = _Batch(self._connection)
        for row, event in parsed:
            batch.take(row, event)
        batch.write()
        self._move([row for row, _ in parsed])

    def _positions(self) -> tuple[int, int]:
        """Return up to which callback, and up to which release, the read model goes."""
        found = dict(
            self._connection.execute("SELECT name, position FROM cursors WHERE name IN ('projection', 'released')")
        )
        return found.get("projection", 0), found.get("released", 0)

    def _unread(self, positions: tuple[int, int], limit: int, upto: int) -> list[Row]:
        came, released = positions
        rows: list[Row] = read_batch(self._connection.execute(_CAME, (came, upto, limit)))
        if len(rows) < limit:
            end = rows[-1][0] if rows else came
            since = read_batch(self._connection.execute(_RELEASED, (released, limit - len(rows))))
            rows += takewhile(lambda row: row[0] <= end, since)
        return rows

    def _move(self, rows: Sequence[Row]) -> None:
        came = max((row[0] for row in rows if not row[1]), default=0)
        released = max(row[1] for row in rows)
        for name, end in (("projection", came), ("released", released)):
            if end:
                self._connection.execute(_POSITION, (name, end))


def _event(row: Row) -> CallbackEvent:
    *_, digest, _, origin, body = row
    return projected_event(body, digest.hex(), origin)


class _Batch:
    """Fold several callbacks in memory, so that a campaign or device that many are about is written once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._campaigns: dict[tuple[str, str], CampaignView] = {}
        self._devices: dict[tuple[str, str, str], DeviceRecord] = {}
        self._drift: dict[str, DriftRecord] = {}
        self._spans: dict[int, tuple[int, int]] = {}

    def take(self, row: Row, event: CallbackEvent) -> None:
        callback_id, release, received_at, is_seen, _, account, origin, body = row
        if not release:
            self._note(callback_id, received_at, event, account=event.account or account, body_gone=body is None)
        if is_seen and origin != Origin.GUARD:
            self._fold(received_at, event.account or account or "", event)

    def _note(
        self, callback_id: int, received_at: int, event: CallbackEvent, *, account: str | None, body_gone: bool
    ) -> None:
        earlier = self._connection.execute(
            "SELECT callback_id, received_at FROM events WHERE key = ? AND callback_id < ?"
            " ORDER BY callback_id DESC LIMIT 1",
            (event.key, callback_id),
        ).fetchone()
        earlier_id, earlier_at = earlier or (None, None)
        guess = duplicate_guess(received_at, earlier_at, REDELIVERY_WINDOW_MICROS)
        self._connection.execute(
            _EVENT,
            (
                callback_id,
                received_at,
                account,
                event.kind,
                event.campaign_id,
                event.key,
                guess,
                earlier_id,
                body_gone,
            ),
        )
        bucket = received_at // REDELIVERY_WINDOW_MICROS
        first, _ = self._spans.get(bucket, (callback_id, 0))
        self._spans[bucket] = (first, callback_id)
        for text in dict.fromkeys(event.drift):
            self._drift[text] = fold_drift(self._drift_of(text), text, callback_id, received_at)

    def _fold(self, received_at: int, account: str, event: CallbackEvent) -> None:
        if event.campaign_id is None:
            return
        place = (event.campaign_id, account)
        self._campaigns[place] = fold_campaign(self._campaign(place), event, received_at)
        for update in event.devices:
            device = (*place, update.device_id)
            self._devices[device] = fold_device(self._device(device), update, received_at)

    def _campaign(self, place: tuple[str, str]) -> CampaignView | None:
        if place in self._campaigns:
            return self._campaigns[place]
        row = self._connection.execute(
            f"SELECT {', '.join(_CAMPAIGN_COLUMNS)} FROM campaigns WHERE campaign_id = ? AND account = ?", place
        ).fetchone()
        return None if row is None else CampaignView(*row)

    def _device(self, device: tuple[str, str, str]) -> DeviceRecord | None:
        if device in self._devices:
            return self._devices[device]
        row = self._connection.execute(
            f"SELECT {', '.join(_DEVICE_COLUMNS)} FROM devices WHERE campaign_id = ? AND account = ? AND device_id = ?",
            device,
        ).fetchone()
        return None if row is None else DeviceRecord(*row)

    def _drift_of(self, text: str) -> DriftRecord | None:
        if text in self._drift:
            return self._drift[text]
        row = self._connection.execute(
            f"SELECT {', '.join(_DRIFT_COLUMNS)} FROM drift WHERE text = ?", (text,)
        ).fetchone()
        return None if row is None else DriftRecord(*row)

    def write(self) -> None:
        self._replace(
            "campaigns",
            ("campaign_id", "account", *_CAMPAIGN_COLUMNS),
            [(*place, *_values(view)) for place, view in self._campaigns.items()],
        )
        self._replace(
            "devices",
            ("campaign_id", "account", *_DEVICE_COLUMNS),
            [(*place[:2], *_values(device)) for place, device in self._devices.items()],
        )
        self._replace("drift", _DRIFT_COLUMNS, [_values(record) for record in self._drift.values()])
        self._connection.executemany(
            "INSERT INTO spans (bucket, first_id, last_id) VALUES (?1, ?2, ?3) ON CONFLICT (bucket)"
            " DO UPDATE SET first_id = min(first_id, ?2), last_id = max(last_id, ?3)",
            [(bucket, *ends) for bucket, ends in self._spans.items()],
        )

    def _replace(self, table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
        marks = ", ".join("?" * len(columns))
        self._connection.executemany(f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)


def _values(record: CampaignView | DeviceRecord | DriftRecord) -> tuple[object, ...]:
    return tuple(getattr(record, name) for name in record.__struct_fields__)
