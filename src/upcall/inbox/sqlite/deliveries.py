"""What deliveries tell of the provider: how soon it repeats them, and when it last reached this store."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Final

from upcall.inbox.intervals import intervals_between
from upcall.inbox.journal import ListedDelivery
from upcall.inbox.sqlite.connection import snapshot
from upcall.inbox.sqlite.selection import in_numbers
from upcall.inbox.values import REDELIVERY_WINDOW_MICROS

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Deliveries"]

LOOKED_AT: Final = 10_000
"""At most so many of an account's callbacks are looked at, the newest: an index would cost every callback."""

_FURTHER: Final = "SELECT callback_id, received_at FROM deliveries ORDER BY id DESC LIMIT ?"
_ALL_OF: Final = """
    SELECT callback_id, received_at FROM deliveries WHERE {of_deliveries}
    UNION ALL SELECT id, received_at FROM callbacks WHERE {of_callbacks}
"""
_LISTED: Final = """
    SELECT c.received_at, CASE WHEN c.listed THEN coalesce(c.source, c.peer) END,
        d.received_at, coalesce(d.source, d.peer)
    FROM {rows} LEFT JOIN deliveries d ON d.callback_id = c.id AND d.listed
    WHERE {which} ORDER BY {id} DESC LIMIT ?
"""
# What the read model has not taken in, of which only the token's account is known; then the rest.
_PARTS: Final = (
    _LISTED.format(
        rows="callbacks c",
        which="c.id > max(coalesce((SELECT position FROM cursors WHERE name = 'projection'), 0),"
        f" (SELECT max(id) FROM callbacks) - {LOOKED_AT}) AND c.account = ?",
        id="c.id",
    ),
    _LISTED.format(
        rows="events e CROSS JOIN callbacks c ON c.id = e.callback_id", which="e.account = ?", id="e.callback_id"
    ),
)


class Deliveries:
    """Look at the deliveries in an SQLite store.

    Args:
        connection: The inbox's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def intervals(self, since: int, limit: int) -> list[int]:
        """Return how long after the one before it each further delivery of a callback came."""
        with snapshot(self._connection):
            newest = self._connection.execute(_FURTHER, (limit or -1,))
            # They lie in the order of receipt but for what came by way of the spool.
            recent = takewhile(lambda row: row[1] >= since - REDELIVERY_WINDOW_MICROS, newest)
            numbers = sorted({number for number, _ in recent})
            query = _ALL_OF.format(
                of_deliveries=in_numbers("callback_id", numbers), of_callbacks=in_numbers("id", numbers)
            )
            return intervals_between(self._connection.execute(query), since=since, limit=limit)

    def last_listed(self, account: str) -> ListedDelivery | None:
        """Return an account's last delivery from a listed address, among its newest callbacks."""
        last: tuple[int, str] | None = None
        with snapshot(self._connection):
            for query in _PARTS:
                for came_at, source, again_at, again_source in self._connection.execute(query, (account, LOOKED_AT)):
                    # Older ones can have been delivered again by then, but not after the redelivery window.
                    if last is not None and came_at + REDELIVERY_WINDOW_MICROS < last[0]:
                        break
                    found = [(came_at, source)] if source is not None else []
                    found += [(again_at, again_source)] if again_at is not None else []
                    last = max([*found, *([last] if last else [])], default=None)
        return None if last is None else ListedDelivery(*last)
