"""Removing a device's identifier from a store: blanked in what is kept for other reasons, deleted elsewhere."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.inbox.blanking import Blank
from upcall.inbox.sqlite.connection import transaction
from upcall.inbox.sqlite.selection import in_numbers
from upcall.inbox.values import Forgotten

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Forgetting"]

_ERRORS: Final = {
    "work": "SELECT id, error FROM work WHERE {callbacks} AND instr(error, ?)",
    "replays": "SELECT r.id, r.error FROM work w CROSS JOIN replays r ON r.work_id = w.id"
    " WHERE {callbacks} AND instr(r.error, ?)",
}
# By way of the campaigns, of which there are few: an index by device would cost every callback.
_DEVICES: Final = (
    "FROM devices WHERE device_id = ? AND (campaign_id, account) IN (SELECT campaign_id, account FROM campaigns)"
)
_REPORTED: Final = "SELECT campaign_id, device_id, state, account FROM upcall_reported WHERE device_id = ?"


class Forgetting:
    """Forget a device in an SQLite store.

    Args:
        connection: The inbox's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def step(self, device_id: str, now: int, *, after: int, limit: int) -> Forgotten:
        """Take one step; only where it finds something it writes."""
        self._connection.execute("PRAGMA secure_delete = ON").close()
        rows = self._connection.execute(
            "SELECT id, body FROM callbacks WHERE id > ? ORDER BY id LIMIT ?", (after, limit + 1)
        ).fetchall()
        looked_at, is_last = rows[:limit], len(rows) <= limit
        blank = Blank(device_id)
        numbers = [number for number, _ in looked_at]
        bodies = self._blank_bodies([number for number, body in looked_at if blank.is_in(body)], blank, now)
        work = self._forget_work(numbers, device_id, blank)
        devices = 0
        if is_last or after == 0:
            devices = self._forget_device(device_id)
            self._forget_reported(device_id)
            self._forget_notes(device_id)
        if is_last:
            self._empty_log()
        return Forgotten(len(looked_at), bodies, work, devices, None if is_last else numbers[-1])

    def _blank_bodies(self, numbers: Sequence[int], blank: Blank, now: int) -> int:
        if not numbers:
            return 0
        with transaction(self._connection):
            rows = self._connection.execute(
                f"SELECT id, body FROM callbacks WHERE {in_numbers('id', list(numbers))} AND body IS NOT NULL"
            ).fetchall()
            self._connection.executemany(
                "UPDATE callbacks SET body = ?, redacted_at = ? WHERE id = ?",
                [(blank.bytes(body), now, number) for number, body in rows],
            )
        return len(rows)

    def _forget_work(self, numbers: list[int], device_id: str, blank: Blank) -> int:
        """Remove the device's own work, and blank its name in what other work failed with."""
        which = in_numbers("callback_id", numbers)
        own = self._connection.execute(f"SELECT id FROM work WHERE {which} AND device_id = ?", (device_id,)).fetchall()
        errors = {
            table: self._connection.execute(query.format(callbacks=which), (device_id,)).fetchall()
            for table, query in _ERRORS.items()
        }
        if not device_id or not (own or any(errors.values())):
            return 0
        with transaction(self._connection):
            for table, rows in errors.items():
                self._connection.executemany(
                    f"UPDATE {table} SET error = ? WHERE id = ?", [(blank.text(error), row) for row, error in rows]
                )
            self._connection.executemany("DELETE FROM replays WHERE work_id = ?", own)
            self._connection.executemany("DELETE FROM work WHERE id = ?", own)
        return len(own)

    def _forget_device(self, device_id: str) -> int:
        if not self._connection.execute(f"SELECT 1 {_DEVICES} LIMIT 1", (device_id,)).fetchone():
            return 0
        with transaction(self._connection):
            return self._connection.execute(f"DELETE {_DEVICES}", (device_id,)).rowcount

    def _forget_reported(self, device_id: str) -> None:
        rows = self._connection.execute(_REPORTED, (device_id,)).fetchall()
        if rows:
            with transaction(self._connection):
                self._connection.executemany(
                    "DELETE FROM upcall_reported WHERE (campaign_id, device_id, state, account) = (?, ?, ?, ?)", rows
                )

    def _forget_notes(self, device_id: str) -> None:
        """Remove the notes that name the device: what they say of how far something is, is found out again."""
        named = msgspec.json.encode(device_id).decode()
        if self._connection.execute("SELECT 1 FROM upcall_notes WHERE instr(document, ?)", (named,)).fetchone():
            with transaction(self._connection):
                self._connection.execute("DELETE FROM upcall_notes WHERE instr(document, ?)", (named,))

    def _empty_log(self) -> None:
        """Take what the write-ahead log still holds of it; where others are reading, the next checkpoint does."""
        with contextlib.suppress(sqlite3.OperationalError):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
