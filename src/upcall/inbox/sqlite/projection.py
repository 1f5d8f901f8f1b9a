"""Folding stored callbacks into the read model, in the order of receipt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upcall.inbox.base import REDELIVERY_WINDOW_MICROS, DeviceRecord
from upcall.inbox.readmodel import CampaignView, duplicate_guess, fold_campaign, fold_device
from upcall.inbox.sqlite.connection import read_batch, transaction
from upcall.thingspace import parse_callback

if TYPE_CHECKING:
    import sqlite3

    from upcall.thingspace import CallbackEvent

__all__ = ["Projection"]


class Projection:
    """Bring the read model of an SQLite store forward.

    Args:
        connection: The inbox's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def advance(self, limit: int) -> int:
        """Fold in up to so many callbacks that are not in the read model yet; return how many it took.

        Fewer where their bodies are large: a listener beside us waits for as long as this takes.
        """
        if not self._unread(1):
            return 0
        with transaction(self._connection):
            rows = self._unread(limit)
            batch = _Batch(self._connection)
            for callback_id, received_at, trust, account, body in rows:
                event = parse_callback(body)
                batch.note(callback_id, received_at, event)
                if trust != "quarantined":
                    batch.fold(received_at, account, event)
            batch.write()
            if rows:
                self._connection.execute("UPDATE cursors SET position = ? WHERE name = 'projection'", (rows[-1][0],))
        return len(rows)

    def _unread(self, limit: int) -> list[tuple[int, int, str, str | None, bytes]]:
        return read_batch(
            self._connection.execute(
                "SELECT id, received_at, trust, account, coalesce(body, x'') FROM callbacks"
                " WHERE id > (SELECT position FROM cursors WHERE name = 'projection') ORDER BY id LIMIT ?",
                (limit,),
            )
        )


class _Batch:
    """Fold several callbacks in memory, so that a campaign or device that many are about is written once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._campaigns: dict[tuple[str, str], CampaignView] = {}
        self._devices: dict[tuple[str, str, str], DeviceRecord] = {}

    def note(self, callback_id: int, received_at: int, event: CallbackEvent) -> None:
        earlier = self._connection.execute(
            "SELECT callback_id, received_at FROM events WHERE key = ? ORDER BY callback_id DESC LIMIT 1", (event.key,)
        ).fetchone()
        earlier_id, earlier_at = earlier or (None, None)
        self._connection.execute(
            "INSERT OR REPLACE INTO events"
            " (callback_id, received_at, account, kind, campaign_id, key, duplicate, duplicate_of)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                callback_id,
                received_at,
                event.account,
                event.kind,
                event.campaign_id,
                event.key,
                duplicate_guess(received_at, earlier_at, REDELIVERY_WINDOW_MICROS),
                earlier_id,
            ),
        )

    def fold(self, received_at: int, account: str | None, event: CallbackEvent) -> None:
        if event.campaign_id is None:
            return
        place = (event.campaign_id, event.account or account or "")
        self._campaigns[place] = fold_campaign(self._campaign(place), event, received_at)
        for update in event.devices:
            device = (*place, update.device_id)
            self._devices[device] = fold_device(self._device(device), update, received_at)

    def _campaign(self, place: tuple[str, str]) -> CampaignView | None:
        if place in self._campaigns:
            return self._campaigns[place]
        row = self._connection.execute(
            "SELECT name, status, first_at, last_at, callbacks FROM campaigns WHERE campaign_id = ? AND account = ?",
            place,
        ).fetchone()
        return None if row is None else CampaignView(*row)

    def _device(self, device: tuple[str, str, str]) -> DeviceRecord | None:
        if device in self._devices:
            return self._devices[device]
        row = self._connection.execute(
            "SELECT device_id, status, reason, updated_at, contradiction FROM devices"
            " WHERE campaign_id = ? AND account = ? AND device_id = ?",
            device,
        ).fetchone()
        return None if row is None else DeviceRecord(*row)

    def write(self) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO campaigns (campaign_id, account, name, status, first_at, last_at, callbacks)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (*place, view.name, view.status, view.first_at, view.last_at, view.callbacks)
                for place, view in self._campaigns.items()
            ],
        )
        self._connection.executemany(
            "INSERT OR REPLACE INTO devices"
            " (campaign_id, account, device_id, status, reason, updated_at, contradiction)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (*place, device.status, device.reason, device.updated_at, device.contradiction)
                for place, device in self._devices.items()
            ],
        )
