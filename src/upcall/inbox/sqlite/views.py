"""The read side: stored callbacks, dead letters, campaigns, counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from upcall.inbox.base import CallbackRecord, CampaignRecord, DeadRecord, Delivery, DeviceRecord, Ledger

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Views"]

_STATE: Final = """
    CASE
        WHEN c.trust = 'quarantined' THEN 'quarantined'
        WHEN EXISTS (SELECT 1 FROM work w WHERE w.callback_id = c.id AND w.state = 'dead') THEN 'dead'
        WHEN EXISTS (SELECT 1 FROM work w WHERE w.callback_id = c.id AND w.state IN ('pending', 'leased'))
            THEN 'pending'
        WHEN EXISTS (SELECT 1 FROM work w WHERE w.callback_id = c.id) THEN 'done'
        ELSE 'stored'
    END
"""
_CALLBACKS: Final = f"""
    SELECT c.id, c.received_at, coalesce(e.account, c.account), e.kind, e.campaign_id,
        1 + (SELECT count(*) FROM deliveries d WHERE d.callback_id = c.id),
        {_STATE}, c.origin, c.trust, c.evidence,
        coalesce(e.duplicate, 'first'), e.duplicate_of, coalesce(e.key, ''), c.body
    FROM callbacks c LEFT JOIN events e ON e.callback_id = c.id
"""
_CAMPAIGN: Final = "SELECT campaign_id, account, name, status, first_at, last_at, callbacks FROM campaigns"


class Views:
    """Answer questions from an SQLite store.

    Args:
        connection: The inbox's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def callbacks(
        self, *, limit: int, after: int, account: str | None, kind: str | None, campaign_id: str | None
    ) -> list[CallbackRecord]:
        """Return the newest callbacks in the order of receipt; a limit of 0 means all."""
        filters = {"coalesce(e.account, c.account) = ?": account, "e.kind = ?": kind, "e.campaign_id = ?": campaign_id}
        wanted = {clause: value for clause, value in filters.items() if value is not None}
        where = " AND ".join(["c.id > ?", *wanted])
        rows = self._connection.execute(
            f"{_CALLBACKS} WHERE {where} ORDER BY c.id DESC LIMIT ?",
            (after, *wanted.values(), limit or -1),
        ).fetchall()
        return [CallbackRecord(*row) for row in reversed(rows)]

    def callback(self, callback_id: int) -> CallbackRecord | None:
        """Return one callback."""
        row = self._connection.execute(f"{_CALLBACKS} WHERE c.id = ?", (callback_id,)).fetchone()
        return None if row is None else CallbackRecord(*row)

    def deliveries(self, callback_id: int) -> list[Delivery]:
        """Return a callback's deliveries in the order of receipt."""
        rows = self._connection.execute(
            "SELECT received_at, peer, token_id, answer FROM callbacks WHERE id = ?1"
            " UNION ALL SELECT received_at, peer, token_id, answer FROM deliveries WHERE callback_id = ?1"
            " ORDER BY received_at",
            (callback_id,),
        )
        return [Delivery(*row) for row in rows]

    def dead(self, *, limit: int) -> list[DeadRecord]:
        """Return the newest dead letters, oldest first; a limit of 0 means all."""
        rows = self._connection.execute(
            "SELECT w.callback_id, w.subscriber, w.device_id, w.attempts, coalesce(w.finished_at, 0), w.error,"
            " e.kind, coalesce(e.account, c.account), e.campaign_id"
            " FROM work w JOIN callbacks c ON c.id = w.callback_id LEFT JOIN events e ON e.callback_id = w.callback_id"
            " WHERE w.state = 'dead' ORDER BY w.id DESC LIMIT ?",
            (limit or -1,),
        ).fetchall()
        return [DeadRecord(*row) for row in reversed(rows)]

    def campaigns(self, *, limit: int) -> list[CampaignRecord]:
        """Return the campaigns last heard of, in the order of their last word; a limit of 0 means all."""
        rows = self._connection.execute(
            f"{_CAMPAIGN} ORDER BY last_at DESC, campaign_id LIMIT ?", (limit or -1,)
        ).fetchall()
        return [self._campaign(row) for row in reversed(rows)]

    def campaign(self, campaign_id: str) -> tuple[CampaignRecord, list[DeviceRecord]] | None:
        """Return one campaign and its devices."""
        row = self._connection.execute(
            f"{_CAMPAIGN} WHERE campaign_id = ? ORDER BY account = '', last_at DESC LIMIT 1", (campaign_id,)
        ).fetchone()
        if row is None:
            return None
        devices = self._connection.execute(
            "SELECT device_id, status, reason, updated_at, contradiction FROM devices"
            " WHERE campaign_id = ? AND account = ? ORDER BY device_id",
            row[:2],
        )
        return self._campaign(row), [DeviceRecord(*device) for device in devices]

    def _campaign(self, row: tuple[str, str, str | None, str | None, int, int, int]) -> CampaignRecord:
        campaign_id, account, name, status, first_at, last_at, callbacks = row
        counts = self._connection.execute(
            "SELECT coalesce(status, ''), count(*) FROM devices WHERE campaign_id = ? AND account = ?"
            " GROUP BY 1 ORDER BY 1",
            (campaign_id, account),
        )
        return CampaignRecord(
            campaign_id, account or None, name, status, first_at, last_at, callbacks, dict(counts.fetchall())
        )

    def ledger(self) -> Ledger:
        """Count what the store holds."""

        def count(sql: str) -> int:
            return int(self._connection.execute(f"SELECT count(*) FROM {sql}").fetchone()[0])

        stored = count("callbacks")
        unsettled = "state IN ('pending', 'leased')"
        pending = count(f"(SELECT DISTINCT callback_id FROM work WHERE {unsettled})")
        dead = count("(SELECT DISTINCT callback_id FROM work WHERE state = 'dead')")
        handled = count(
            "(SELECT callback_id FROM work GROUP BY callback_id HAVING min(state) = 'done' AND max(state) = 'done')"
        )
        seen = self._connection.execute("SELECT coalesce(max(cursor), 0) FROM subscribers").fetchone()[0]
        return Ledger(
            stored=stored,
            deliveries=stored + count("deliveries"),
            quarantined=count("callbacks WHERE trust = 'quarantined'"),
            handled=handled,
            pending=pending,
            dead=dead,
            unread=count(f"callbacks WHERE id > {int(seen)} AND trust <> 'quarantined'"),
        )
