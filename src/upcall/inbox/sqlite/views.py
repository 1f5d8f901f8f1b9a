"""The read side: stored callbacks, dead letters, campaigns, drift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from upcall.inbox.sqlite.connection import snapshot
from upcall.inbox.sqlite.selection import Finder
from upcall.inbox.sqlite.states import STATE
from upcall.inbox.values import (
    CallbackRecord,
    CampaignRecord,
    DeadRecord,
    Delivery,
    DeviceRecord,
    DriftRecord,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from upcall.inbox.values import Selection

__all__ = ["Views"]

_AT_A_TIME: Final = 500

_CALLBACKS: Final = f"""
    SELECT c.id, c.received_at, coalesce(e.account, c.account), e.kind, e.campaign_id,
        1 + (SELECT count(*) FROM deliveries d WHERE d.callback_id = c.id),
        {STATE}, c.origin, c.trust, c.evidence,
        coalesce(e.duplicate, 'first'), e.duplicate_of, coalesce(e.key, ''), lower(hex(c.digest)),
        length(c.body), {{body}}
    FROM callbacks c LEFT JOIN events e ON e.callback_id = c.id WHERE {{which}} ORDER BY c.id
"""
_DELIVERIES: Final = """
    SELECT received_at, peer, coalesce(source, peer), listed, token_id, answer FROM callbacks WHERE id = ?1
    UNION ALL
    SELECT received_at, peer, coalesce(source, peer), listed, token_id, answer FROM deliveries WHERE callback_id = ?1
    ORDER BY received_at
"""
_DEAD: Final = """
    SELECT w.callback_id, w.subscriber, w.device_id, w.attempts, coalesce(w.finished_at, 0), w.error,
        e.kind, coalesce(e.account, c.account), e.campaign_id
    FROM work w CROSS JOIN callbacks c ON c.id = w.callback_id LEFT JOIN events e ON e.callback_id = w.callback_id
    WHERE w.state = 'dead' AND {which} ORDER BY w.id DESC LIMIT ?
"""
_CAMPAIGN: Final = """
    SELECT campaign_id, account, name, status, first_at, last_at, callbacks, contradiction FROM campaigns
"""


class Views:
    """Answer questions from an SQLite store.

    Args:
        connection: The inbox's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._finder = Finder(connection)

    def callbacks(self, selection: Selection, *, limit: int, oldest: bool, bodies: bool) -> list[CallbackRecord]:
        """Return callbacks in the order of receipt."""
        records: list[CallbackRecord] = []
        with snapshot(self._connection):
            numbers = self._finder.numbers(selection, limit=limit, oldest=oldest)
            for start in range(0, len(numbers), _AT_A_TIME):
                records += self._records(numbers[start : start + _AT_A_TIME], bodies=bodies)
        return records

    def callback(self, callback_id: int) -> CallbackRecord | None:
        """Return one callback."""
        return next(iter(self._records([callback_id], bodies=True)), None)

    def _records(self, numbers: Sequence[int], *, bodies: bool) -> list[CallbackRecord]:
        marks = ", ".join("?" * len(numbers))
        sql = _CALLBACKS.format(body="c.body" if bodies else "NULL", which=f"c.id IN ({marks})")
        return [CallbackRecord(*row) for row in self._connection.execute(sql, numbers)]

    def deliveries(self, callback_id: int) -> list[Delivery]:
        """Return a callback's deliveries in the order of receipt."""
        return [
            Delivery(received_at, peer, source, None if listed is None else bool(listed), token_id, answer)
            for received_at, peer, source, listed, token_id, answer in self._connection.execute(
                _DELIVERIES, (callback_id,)
            )
        ]

    def dead(self, selection: Selection, *, limit: int) -> list[DeadRecord]:
        """Return the newest dead letters, oldest first; a limit of 0 means all."""
        with snapshot(self._connection):
            which, values = self._finder.dead_work(selection)
            rows = self._connection.execute(_DEAD.format(which=which), (*values, limit or -1)).fetchall()
        return [DeadRecord(*row) for row in reversed(rows)]

    def campaigns(self, *, limit: int) -> list[CampaignRecord]:
        """Return the campaigns last heard of, in the order of their last word; a limit of 0 means all."""
        rows = self._connection.execute(
            f"{_CAMPAIGN} ORDER BY last_at DESC, campaign_id DESC, account DESC LIMIT ?", (limit or -1,)
        ).fetchall()
        return [self._campaign(row) for row in reversed(rows)]

    def campaign(self, campaign_id: str) -> tuple[CampaignRecord, list[DeviceRecord]] | None:
        """Return one campaign and its devices."""
        row = self._connection.execute(
            f"{_CAMPAIGN} WHERE campaign_id = ? ORDER BY account = '', last_at DESC LIMIT 1", (campaign_id,)
        ).fetchone()
        if row is None:
            return None
        columns = ", ".join(DeviceRecord.__struct_fields__)
        devices = self._connection.execute(
            f"SELECT {columns} FROM devices WHERE campaign_id = ? AND account = ? ORDER BY device_id", row[:2]
        )
        return self._campaign(row), [DeviceRecord(*device) for device in devices]

    def _campaign(self, row: tuple[str, str, str | None, str | None, int, int, int, str | None]) -> CampaignRecord:
        campaign_id, account, name, status, first_at, last_at, callbacks, contradiction = row
        counts = self._connection.execute(
            "SELECT coalesce(status, ''), count(*), count(contradiction) FROM devices"
            " WHERE campaign_id = ? AND account = ? GROUP BY 1 ORDER BY 1",
            (campaign_id, account),
        ).fetchall()
        return CampaignRecord(
            campaign_id,
            account or None,
            name,
            status,
            first_at,
            last_at,
            callbacks,
            {status: devices for status, devices, _ in counts},
            contradiction,
            sum(contradicting for *_, contradicting in counts),
        )

    def drift(self) -> list[DriftRecord]:
        """Return how callbacks differed from the known schema, most recent last."""
        columns = ", ".join(DriftRecord.__struct_fields__)
        rows = self._connection.execute(f"SELECT {columns} FROM drift ORDER BY last_id, text")
        return [DriftRecord(*row) for row in rows]
