"""Who wants which callbacks: subscribers, how far each has looked, and the work that comes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from upcall.inbox.events import stored_event
from upcall.inbox.sqlite.clock import note_time
from upcall.inbox.sqlite.connection import read_batch, transaction
from upcall.inbox.sqlite.merging import LateCallbacks, Place
from upcall.inbox.values import Lessee, WorkItem

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

    from upcall.inbox.values import Subscription
    from upcall.thingspace import CallbackEvent

__all__ = ["Enrolment", "marks"]

_FORGET_BATCH: Final = 5000

# Those that were forgotten count too: what they had looked at was history to whoever comes then.
_FURTHEST: Final = """
    SELECT
        max(coalesce(max(cursor), 0), coalesce((SELECT position FROM cursors WHERE name = 'forgotten'), 0)),
        max(coalesce(max(released), 0), coalesce((SELECT position FROM cursors WHERE name = 'forgotten_released'), 0))
    FROM subscribers
"""
_REMEMBER: Final = tuple(
    f"INSERT INTO cursors (name, position) SELECT '{place}', {column} FROM subscribers WHERE name = ?"
    " ON CONFLICT (name) DO UPDATE SET position = max(position, excluded.position)"
    for place, column in (("forgotten", "cursor"), ("forgotten_released", "released"))
)
_CAME: Final = """
    SELECT id, 0, received_at, account, lower(hex(digest)), origin,
        CASE WHEN trust <> 'quarantined' AND released_at IS NULL THEN body END
    FROM callbacks WHERE id > ? ORDER BY id LIMIT ?
"""
# A callback that was released is taken at its release, whoever has passed it before.
_RELEASED: Final = """
    SELECT c.id, r.seq, c.received_at, c.account, lower(hex(c.digest)), c.origin, c.body
    FROM releases r CROSS JOIN callbacks c ON c.id = r.callback_id WHERE r.seq > ? ORDER BY r.seq LIMIT ?
"""
_INSERT: Final = """
    INSERT OR IGNORE INTO work
        (callback_id, subscriber, device_id, order_key, state, attempts, due_at, owner, finished_at, merged_with)
    VALUES
"""
_VALUES: Final = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ROWS_A_STATEMENT: Final = 64
"""One statement of many rows costs half of what as many statements do."""
# Work that was there before stays as it was, and is not the owner's: what was made has greater numbers.
_MADE_LEASED: Final = """
    SELECT id, subscriber, device_id, callback_id FROM work WHERE id > ? AND state = 'leased' ORDER BY id
"""

_MICROS: Final = 1_000_000

Row = tuple[int, int, int, "str | None", str, str, "bytes | None"]
"""A callback to look at: number, its release's or 0, receipt, account, digest, origin, body where one may see it."""
Position = tuple[int, int]
"""How far a subscriber has looked: the last callback's number, and the last release's."""


class Wish(NamedTuple):
    """Hold work that a subscriber wants: of which row, for which device, within which order."""

    row: Row
    name: str
    device_id: str
    order_key: str | None

    @property
    def place(self) -> Place:
        """Return which piece of work it is."""
        return self.row[0], self.name, self.device_id


def marks(values: Sequence[object]) -> str:
    """Return as many question marks as there are values."""
    return ", ".join("?" * len(values))


class Enrolment:
    """Turn callbacks into work, in an SQLite store.

    Args:
        connection: The inbox's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def subscribe(self, names: Sequence[str], now: int) -> None:
        """Make subscribers known: the first ones begin at the store's start, later ones where the furthest stood."""
        execute = self._connection.execute
        known = {name for (name,) in execute("SELECT name FROM subscribers")}
        if known.issuperset(names):
            return
        with transaction(self._connection):
            furthest = execute(_FURTHEST).fetchone()
            self._connection.executemany(
                "INSERT OR IGNORE INTO subscribers (name, cursor, released, created_at) VALUES (?, ?, ?, ?)",
                [(name, *furthest, now) for name in names],
            )

    def unsubscribe(self, name: str) -> int:
        """Forget a subscriber and its work that is not done; return how much work that was."""
        removed = 0
        while step := self._forget_some(name):
            removed += step
        return removed

    def _forget_some(self, name: str) -> int:
        """Take one short step; the last one takes the name too."""
        with transaction(self._connection):
            rows = self._connection.execute(
                "SELECT id FROM work WHERE subscriber = ?1 AND state IN ('pending', 'leased') UNION ALL"
                " SELECT id FROM work WHERE subscriber = ?1 AND state = 'dead' LIMIT ?2",
                (name, _FORGET_BATCH),
            ).fetchall()
            self._connection.executemany("DELETE FROM replays WHERE work_id = ?", rows)
            self._connection.executemany("DELETE FROM work WHERE id = ?", rows)
            if len(rows) < _FORGET_BATCH:
                for query in _REMEMBER:
                    self._connection.execute(query, (name,))
                self._connection.execute("DELETE FROM subscribers WHERE name = ?", (name,))
        return len(rows)

    def enroll(
        self, subscriptions: Sequence[Subscription], now: int, *, limit: int, lessee: Lessee | None
    ) -> tuple[int, list[WorkItem]]:
        """Turn callbacks that subscribers have not seen, or that were released since, into work.

        Returns how many callbacks were looked at, and what of the work is leased.
        """
        positions = self._positions([subscription.name for subscription in subscriptions])
        if not positions:
            return 0, []
        rows = self._unseen(positions, limit)
        if not rows:
            return 0, []
        # Asked before the write transaction begins: a listener beside us waits for writes only.
        late = LateCallbacks(self._connection)
        wishes = list(_wishes(subscriptions, positions, rows, late))
        with transaction(self._connection):
            wanted = self._still_wanted(wishes, positions)
            merged = late.claim([wish.place for wish in wanted]) if late.is_any else {}
            items = self._write(wanted, merged, now, lessee)
            self._advance(positions, rows)
        return len({row[0] for row in rows}), items

    def _positions(self, names: Sequence[str]) -> dict[str, Position]:
        rows = self._connection.execute(
            f"SELECT name, cursor, released FROM subscribers WHERE name IN ({marks(names)})", names
        )
        return {name: (cursor, released) for name, cursor, released in rows}

    def _unseen(self, positions: dict[str, Position], limit: int) -> list[Row]:
        """Return callbacks that not all of the subscribers have looked at: as they came, then as they were released.

        Up to half is for those that were released: callbacks that keep coming do not hold them up.
        """
        came, released = (min(position[part] for position in positions.values()) for part in (0, 1))
        (last,) = self._connection.execute("SELECT coalesce(max(seq), 0) FROM releases").fetchone()
        kept_free = min(last - released, limit // 2)
        rows = read_batch(self._connection.execute(_CAME, (came, limit - kept_free)))
        if last > released:
            rows += read_batch(self._connection.execute(_RELEASED, (released, limit - len(rows))))
        return rows

    def _still_wanted(self, wishes: Sequence[Wish], positions: dict[str, Position]) -> Sequence[Wish]:
        """Leave out the wishes of subscribers that were forgotten or came further since they stood there."""
        found = self._positions(list(positions))
        if found == positions:
            return wishes
        return [wish for wish in wishes if wish.name in found and _is_ahead(wish.row, found[wish.name])]

    def _write(
        self, wishes: Sequence[Wish], merged: Mapping[Place, int], now: int, lessee: Lessee | None
    ) -> list[WorkItem]:
        """Make work of wishes; return what of it is leased."""
        if not wishes:
            return []
        note_time(self._connection, now)
        (last,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM work").fetchone()
        work = list(_work(wishes, merged, now, lessee))
        for start in range(0, len(work), _ROWS_A_STATEMENT):
            some = work[start : start + _ROWS_A_STATEMENT]
            self._connection.execute(
                _INSERT + ", ".join([_VALUES] * len(some)), [value for row in some for value in row]
            )
        if lessee is None:
            return []
        rows = {wish.row[0]: wish.row for wish in wishes}
        return [
            WorkItem(
                work_id, name, device_id, 1, number, *rows[number][2:5], rows[number][6] or b"", origin=rows[number][5]
            )
            for work_id, name, device_id, number in self._connection.execute(_MADE_LEASED, (last,))
        ]

    def _advance(self, positions: dict[str, Position], rows: Sequence[Row]) -> None:
        came = max((row[0] for row in rows if not row[1]), default=0)
        released = max(row[1] for row in rows)
        self._connection.execute(
            "UPDATE subscribers SET cursor = max(cursor, ?), released = max(released, ?)"
            f" WHERE name IN ({marks(list(positions))})",
            (came, released, *positions),
        )


def _wishes(
    subscriptions: Sequence[Subscription], positions: dict[str, Position], rows: Sequence[Row], late: LateCallbacks
) -> Iterator[Wish]:
    askers = [(each, positions[each.name]) for each in subscriptions if each.name in positions]
    for row in rows:
        callback_id, release, received_at, account, digest, origin, body = row
        if body is None:
            continue
        event = stored_event(callback_id, received_at, account, digest, body, origin)
        if late.is_any:
            late.hear(event, was_released=release > 0)
        for subscription, position in askers:
            if _is_ahead(row, position):
                order_key = _order_key(event) if subscription.ordered else None
                for device_id in subscription.wants(event):
                    yield Wish(row, subscription.name, device_id, order_key)


def _work(
    wishes: Sequence[Wish], merged: Mapping[Place, int], now: int, lessee: Lessee | None
) -> Iterator[tuple[object, ...]]:
    """Yield the row of each wish: done where it merged; leased while there is room, unless it has an order to wait in.

    In the order of the callbacks, merged or not: ordered work is handed out by its numbers, replayed too.
    """
    owner, until = (lessee.owner, now + int(lessee.seconds * _MICROS)) if lessee else ("", 0)
    left = dict(lessee.room) if lessee else {}
    for row, name, device_id, order_key in wishes:
        if merged and (row[0], name, device_id) in merged:
            yield row[0], name, device_id, order_key, "done", 0, 0, None, now, merged[row[0], name, device_id]
        elif order_key is None and left.get(name, 0) > 0:
            left[name] -= 1
            yield row[0], name, device_id, None, "leased", 1, until, owner, None, None
        else:
            yield row[0], name, device_id, order_key, "pending", 0, now, None, None, None


def _is_ahead(row: Row, position: Position) -> bool:
    """Tell whether somebody who stands there has not looked at a callback."""
    callback_id, release, *_ = row
    return release > position[1] if release else callback_id > position[0]


def _order_key(event: CallbackEvent) -> str | None:
    """Return what ordered work has in common that is handed out a piece at a time."""
    return None if event.campaign_id is None else f"{event.account or ''}\n{event.campaign_id}"
