"""What a person decides: to replay work, to give it up, to let callbacks out of quarantine or drop them there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from upcall.inbox.sqlite.clock import note_time
from upcall.inbox.sqlite.connection import transaction
from upcall.inbox.sqlite.selection import Finder, in_numbers, work_of_selection
from upcall.inbox.values import Selection, State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

__all__ = ["Decisions"]

_ENDED: Final = "w.state IN ('done', 'dead', 'dropped')"
# Where the body is gone there is nothing to hand on, and nobody works for a subscriber that was forgotten.
_CAN_RUN: Final = """
    EXISTS (SELECT 1 FROM callbacks c WHERE c.id = w.callback_id AND c.body IS NOT NULL AND c.trust <> 'quarantined')
    AND w.subscriber IN (SELECT name FROM subscribers)
"""


class Decisions:
    """Carry out decisions in an SQLite store.

    Args:
        connection: The inbox's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._finder = Finder(connection)

    def replay(self, selection: Selection, now: int, *, reason: str, limit: int) -> int:
        """Make work that is done, dead or dropped pending again, oldest first; return how many pieces."""
        found = self._first_ended(selection, limit)
        if not found:
            return 0
        which = f"{in_numbers('w.id', found)} AND {_ENDED} AND {_CAN_RUN}"
        with transaction(self._connection):
            note_time(self._connection, now)
            self._connection.execute(
                "INSERT INTO replays (work_id, replayed_at, reason, state, attempts, error)"
                f" SELECT w.id, ?, ?, w.state, w.attempts, w.error FROM work w WHERE {which} ORDER BY w.id",
                (now, reason),
            )
            return self._connection.execute(
                "UPDATE work AS w SET state = 'pending', attempts = 0, due_at = ?, owner = NULL, finished_at = NULL,"
                f" replays = replays + 1, merged_with = NULL WHERE {which}",
                (now,),
            ).rowcount

    def replayable(self, selection: Selection) -> int:
        """Return how many pieces of work `replay` would take."""
        return sum(map(len, self._ended(selection, 0)))

    def _first_ended(self, selection: Selection, limit: int) -> list[int]:
        """Return the numbers of so much work that ended.

        Where a callback's state is asked about, with all that is left of the last one: its state is another as soon as
        one of its pieces is pending.
        """
        found = [row for rows in self._ended(selection, limit) for row in rows]
        last = found[limit - 1][1] if selection.state is not None and len(found) > limit else None
        return [number for place, (number, callback_id) in enumerate(found) if place < limit or callback_id == last]

    def _ended(self, selection: Selection, limit: int) -> Iterator[list[tuple[int, int]]]:
        """Yield the numbers of work that ended, and of its callbacks, oldest first, until there are enough."""
        conditions, values = work_of_selection(selection, "w.")
        count = 0
        for callbacks in self._finder.chunks(selection):
            rows = self._connection.execute(
                f"SELECT w.id, w.callback_id FROM work w"
                f" WHERE {in_numbers('w.callback_id', callbacks)} AND {_ENDED}{conditions}"
                f" AND {_CAN_RUN} ORDER BY w.callback_id, w.id",
                values,
            ).fetchall()
            yield rows
            count += len(rows)
            if limit and count >= limit:
                return

    def drop_dead(self, selection: Selection, now: int, *, limit: int) -> int:
        """Give up dead work for good; return how many pieces."""
        which, values = self._finder.dead_work(selection)
        rows = self._connection.execute(
            f"SELECT w.id FROM work w WHERE w.state = 'dead' AND {which} ORDER BY w.id LIMIT ?", (*values, limit)
        ).fetchall()
        with transaction(self._connection):
            return self._connection.executemany(
                "UPDATE work SET state = 'dropped', finished_at = ? WHERE id = ? AND state = 'dead'",
                [(now, number) for (number,) in rows],
            ).rowcount

    def release_quarantined(self, selection: Selection, now: int, *, limit: int) -> int:
        """Let handlers see quarantined callbacks, in the order of their release; return how many."""
        numbers = self._quarantined(selection, limit)
        with transaction(self._connection):
            held = self._still_held(numbers)
            self._connection.executemany(
                "UPDATE callbacks SET trust = 'accepted', released_at = ?,"
                " evidence = coalesce(evidence || '; ', '') || 'released by hand' WHERE id = ?",
                [(now, number) for number in held],
            )
            self._connection.executemany(
                "INSERT INTO releases (callback_id, released_at) VALUES (?, ?)", [(number, now) for number in held]
            )
        return len(held)

    def drop_quarantined(self, selection: Selection, now: int, *, limit: int) -> int:
        """Remove the bodies of quarantined callbacks; return how many."""
        numbers = self._quarantined(selection, limit)
        with transaction(self._connection):
            held = self._still_held(numbers)
            self._connection.executemany(
                "UPDATE callbacks SET body = NULL, dropped_at = ? WHERE id = ?", [(now, number) for number in held]
            )
            self._connection.executemany(
                "UPDATE events SET body_gone = 1 WHERE callback_id = ?", [(number,) for number in held]
            )
        return len(held)

    def _quarantined(self, selection: Selection, limit: int) -> list[int]:
        if selection.state not in {None, State.QUARANTINED}:
            return []
        selection = msgspec.structs.replace(selection, state=State.QUARANTINED)
        return self._finder.numbers(selection, limit=limit, oldest=True)

    def _still_held(self, numbers: list[int]) -> list[int]:
        """Leave out what another process released or dropped meanwhile."""
        rows = self._connection.execute(
            f"SELECT id FROM callbacks WHERE {in_numbers('id', numbers)} AND trust = 'quarantined'"
            " AND dropped_at IS NULL ORDER BY id"
        )
        return [number for (number,) in rows]
