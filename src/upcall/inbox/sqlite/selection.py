"""Which callbacks, and which work, a selection means: numbers first, found by an index; rows afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from upcall.inbox.sqlite.states import HAS_DEAD, KNOWN_CAME, KNOWN_RELEASED, OPEN, WHERE
from upcall.inbox.values import EVERYTHING, REDELIVERY_WINDOW_MICROS, State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from upcall.inbox.values import Selection

__all__ = ["Finder", "in_numbers", "storable", "work_of_selection"]

PROBE_ROWS: Final = 5000
_AT_A_TIME: Final = 1000

# States that few callbacks are in are looked up from there; the others are checked row by row. What waits because it
# came after where some subscriber stands is not here: those are a range of numbers.
_SETS: Final = {
    State.QUARANTINED: "SELECT id FROM callbacks WHERE trust = 'quarantined' AND dropped_at IS NULL",
    State.DROPPED: "SELECT id FROM callbacks WHERE dropped_at IS NOT NULL"
    " UNION ALL SELECT callback_id FROM work INDEXED BY work_dropped WHERE state = 'dropped'",
    State.DEAD: "SELECT callback_id AS id FROM work INDEXED BY work_given_up WHERE state = 'dead'",
    State.PENDING: f"SELECT callback_id AS id FROM work INDEXED BY work_open WHERE {OPEN}"
    f" UNION ALL SELECT callback_id FROM releases WHERE seq > {KNOWN_RELEASED}",
}
_SAID: Final = ("campaign_id", "account", "kind")
"""What callbacks say, the column of the likely rarest value first."""


class _Query(msgspec.Struct):
    """Hold a query for callbacks' numbers: where from, which number, and under what conditions."""

    source: str
    id: str
    conditions: list[str] = []
    values: list[Any] = []  # msgspec gives each query lists of its own

    def add(self, condition: str, *values: object) -> None:
        self.conditions.append(condition)
        self.values.extend(values)

    @property
    def sql(self) -> str:
        return f"SELECT DISTINCT {self.id} FROM {self.source} WHERE {' AND '.join(self.conditions)}"


def in_numbers(column: str, numbers: list[int] | tuple[int, ...]) -> str:
    """Return the condition that a column is one of these numbers, however many they are."""
    return f"{column} IN ({', '.join(str(int(number)) for number in numbers)})"


def storable(number: int) -> int:
    """Return a number, or the nearest to it that SQLite can hold: no callback has either."""
    return max(-(1 << 63), min(number, (1 << 63) - 1))


class Finder:
    """Find callbacks in an SQLite store.

    What the read model has taken in is found by what it says; the few behind its position one by one.

    Args:
        connection: The inbox's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def numbers(self, selection: Selection, *, limit: int = 0, oldest: bool = False) -> list[int]:
        """Return the numbers of callbacks, the oldest ones or the newest, in the order of receipt."""
        parts = self._parts(selection)
        found: list[int] = []
        order = "ASC" if oldest else "DESC"
        for queries in parts if oldest else reversed(parts):
            if queries and (not limit or len(found) < limit):
                # Of several, each in its order, SQLite reads only as far as the limit.
                sql = f"{' UNION '.join(query.sql for query in queries)} ORDER BY 1 {order} LIMIT ?"
                values = [value for query in queries for value in query.values]
                rows = self._connection.execute(sql, (*values, limit - len(found) if limit else -1))
                found += [number for (number,) in rows]
        return found if oldest else found[::-1]

    def chunks(self, selection: Selection) -> Iterator[list[int]]:
        """Yield the numbers of all callbacks of a selection, oldest first, some at a time."""
        while numbers := self.numbers(selection, limit=_AT_A_TIME, oldest=True):
            yield numbers
            selection = msgspec.structs.replace(selection, after=numbers[-1])

    def members(self, selection: Selection) -> tuple[str, list[Any]]:
        """Return a query for the numbers of all callbacks of a selection, to be put into another, and its values."""
        queries = [query for queries in self._parts(selection) for query in queries]
        sql = " UNION ALL ".join(query.sql for query in queries) or "SELECT 0 WHERE 0"
        return sql, [value for query in queries for value in query.values]

    def dead_work(self, selection: Selection) -> tuple[str, list[Any]]:
        """Return the condition that dead work (`w`) is of a selection, and its values."""
        if selection == EVERYTHING:
            return "1", []
        conditions, of_work = work_of_selection(selection, "w.")
        members, of_callbacks = self.members(msgspec.structs.replace(selection, given_up=True))
        return f"w.callback_id IN ({members}){conditions}", [*of_callbacks, *of_work]

    def _parts(self, selection: Selection) -> list[list[_Query]]:
        """Return the queries for what the read model has taken in, and for what it has not; later numbers last."""
        numbers = {
            name: storable(value)
            for name in ("after", "before", "since", "until")
            if (value := getattr(selection, name)) is not None
        }
        selection = msgspec.structs.replace(selection, **numbers)
        position = self._position()
        return [self._projected(selection, position), self._behind(selection, position)]

    def _position(self) -> int:
        row = self._connection.execute("SELECT position FROM cursors WHERE name = 'projection'").fetchone()
        return 0 if row is None else int(row[0])

    def _projected(self, selection: Selection, position: int) -> list[_Query]:
        """Return the queries for callbacks that the read model has taken in; what two of them find is found once."""
        first, last = self._span(selection, position)
        if first > last:
            return []
        state = State.DEAD if selection.given_up else selection.state
        if state in _SETS and state is not State.PENDING:
            return [_of_set(_SETS[state], selection, first, last)]
        if selection.ids:
            return [_of_set("SELECT id FROM callbacks", selection, first, last)]
        if state is None:
            return [self._of_range(selection, first, last)]
        (read,) = self._connection.execute(f"SELECT {KNOWN_CAME}").fetchone()
        if state is State.PENDING:
            waiting = [_of_set(_SETS[state], selection, first, last)]
            unread = [self._of_range(selection, max(first, read + 1), last)] if read < last else []
            return waiting + unread
        # Beyond where every subscriber has looked nothing is over but what was released.
        over = self._of_range(selection, first, min(last, read))
        return [over, _of_set("SELECT callback_id AS id FROM releases", selection, first, last)]

    def _of_range(self, selection: Selection, first: int, last: int) -> _Query:
        """Return the query for callbacks by their numbers and by what they say."""
        said = _said_by(selection)
        query = _Query("events e", "e.callback_id")
        query.add("e.callback_id BETWEEN ? AND ?", first, last)
        leader = self._rarest(said, first, last)
        facts, values = _facts(selection, said, "e.", leader=leader)
        if facts:
            query.add(facts, *values)
        _narrow(query, selection)
        return query

    def _behind(self, selection: Selection, position: int) -> list[_Query]:
        """Return the query for callbacks that the read model has not taken in: of those only the token's account."""
        if selection.kind is not None or selection.campaign_id is not None:
            return []
        query = _Query("callbacks c", "c.id")
        query.add("c.id > ?", max(position, selection.after))
        if selection.before:
            query.add("c.id < ?", selection.before)
        facts, values = _facts(selection, _said_by(selection), "c.")
        if facts:
            query.add(facts, *values)
        _narrow(query, selection)
        return [query]

    def _span(self, selection: Selection, position: int) -> tuple[int, int]:
        """Return between which numbers the callbacks of a selection lie."""
        first, last = selection.after + 1, min(position, selection.before - 1) if selection.before else position
        if selection.since is None and selection.until is None:
            return first, last
        since = -(1 << 62) if selection.since is None else selection.since
        until = 1 << 62 if selection.until is None else selection.until
        spanned = self._connection.execute(
            "SELECT coalesce(min(first_id), 1), coalesce(max(last_id), 0) FROM spans WHERE bucket BETWEEN ? AND ?",
            (since // REDELIVERY_WINDOW_MICROS, until // REDELIVERY_WINDOW_MICROS),
        ).fetchone()
        return max(first, spanned[0]), min(last, spanned[1])

    def _rarest(self, said: dict[str, str], first: int, last: int) -> str | None:
        """Return which of several things said the fewest callbacks say, as far as a short look tells."""
        if len(said) < 2:  # noqa: PLR2004 - one needs no choice
            return next(iter(said), None)
        counts = {
            name: self._connection.execute(
                f"SELECT count(*) FROM (SELECT 1 FROM events WHERE {name} = ? AND callback_id BETWEEN ? AND ? LIMIT ?)",
                (value, first, last, PROBE_ROWS),
            ).fetchone()[0]
            for name, value in said.items()
        }
        return min(counts, key=counts.__getitem__)


def _of_set(members: str, selection: Selection, first: int, last: int) -> _Query:
    """Return the query for callbacks out of those that another query gives."""
    query = _Query(f"({members}) c", "c.id")
    query.add("c.id BETWEEN ? AND ?", first, last)
    said = _said_by(selection)
    if said or selection.since is not None or selection.until is not None:
        facts, values = _facts(selection, said, "e.")
        query.add(f"EXISTS (SELECT 1 FROM events e WHERE e.callback_id = c.id AND {facts})", *values)
    _narrow(query, selection)
    return query


def _said_by(selection: Selection) -> dict[str, str]:
    return {name: value for name in _SAID if (value := getattr(selection, name)) is not None}


def _facts(
    selection: Selection, said: dict[str, str], prefix: str, *, leader: str | None = None
) -> tuple[str, list[Any]]:
    """Return the conditions on what a callback says and when it came, as one text and its values."""
    # A plus keeps SQLite from choosing an index of its own.
    conditions: dict[str, str | int] = {
        f"{'' if name == leader else '+'}{prefix}{name} = ?": value for name, value in said.items()
    }
    times = {f"{prefix}received_at >= ?": selection.since, f"{prefix}received_at < ?": selection.until}
    conditions.update({condition: value for condition, value in times.items() if value is not None})
    return " AND ".join(conditions), list(conditions.values())


def _narrow(query: _Query, selection: Selection) -> None:
    """Add what is checked row by row."""
    if selection.ids:
        query.add(in_numbers(query.id, selection.ids))
    if selection.given_up:
        query.add(HAS_DEAD.format(id=query.id))
    if selection.state is not None:
        query.add(WHERE[selection.state].format(id=query.id))
    conditions, values = work_of_selection(selection, "w.")
    if conditions:
        query.add(f"EXISTS (SELECT 1 FROM work w WHERE w.callback_id = {query.id}{conditions})", *values)


def work_of_selection(selection: Selection, prefix: str = "") -> tuple[str, list[str]]:
    """Return what a selection says of the work itself, as further conditions and their values."""
    wanted = {"subscriber": selection.subscriber, "device_id": selection.device_id}
    given = {f" AND {prefix}{name} = ?": value for name, value in wanted.items() if value is not None}
    return "".join(given), list(given.values())
