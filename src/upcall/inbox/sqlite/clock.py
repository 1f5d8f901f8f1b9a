"""A wall clock that was set back must not make work wait for the moment that it was due at before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3

__all__ = ["note_time", "set_back_by"]

TOLERANCE_MICROS: Final = 60 * 1_000_000
"""Processes read their clocks before they wait for one another; a clock that was set back by less is waited for."""

LONGEST_LEASE_MICROS: Final = 60 * 1_000_000
"""What is left of a lease, at most, once the clock was set back: its owner renews it long before."""


def set_back_by(connection: sqlite3.Connection, now: int) -> int:
    """Return by how much the clock was set back since the store last heard the time, 0 where it was not."""
    row = connection.execute("SELECT position FROM cursors WHERE name = 'clock'").fetchone()
    behind = 0 if row is None else int(row[0]) - now
    return behind if behind > TOLERANCE_MICROS else 0


def note_time(connection: sqlite3.Connection, now: int) -> None:
    """Note the time that something's due time is counted from, in the transaction that says so.

    Where the clock was set back, open work moves with it: what waits goes on waiting for as long as it had to.

    Args:
        connection: The inbox's connection, in a write transaction.
        now: The wall clock.
    """
    behind = set_back_by(connection, now)
    if not behind:
        connection.execute(
            "INSERT INTO cursors (name, position) VALUES ('clock', ?1)"
            " ON CONFLICT (name) DO UPDATE SET position = ?1 WHERE position < ?1",
            (now,),
        )
        return
    connection.execute(
        "UPDATE work INDEXED BY work_due SET due_at = max(?1, due_at - ?2)"
        " WHERE state IN ('pending', 'leased') AND state = 'pending' AND due_at > ?1",
        (now, behind),
    )
    connection.execute(
        "UPDATE work INDEXED BY work_due SET due_at = min(due_at, ?1)"
        " WHERE state IN ('pending', 'leased') AND state = 'leased'",
        (now + LONGEST_LEASE_MICROS,),
    )
    connection.execute("UPDATE cursors SET position = ? WHERE name = 'clock'", (now,))
