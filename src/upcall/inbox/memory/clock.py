"""A wall clock that was set back must not make work wait for the moment that it was due at before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from upcall.inbox.memory.tables import Tables

__all__ = ["note_time"]

_TOLERANCE_MICROS: Final = 60 * 1_000_000
_LONGEST_LEASE_MICROS: Final = 60 * 1_000_000


def note_time(tables: Tables, now: int) -> None:
    """Note the time. Where the clock was set back open work moves with it, and no lease lasts for long."""
    behind = tables.clock - now
    if behind <= _TOLERANCE_MICROS:
        tables.clock = max(tables.clock, now)
        return
    tables.clock = now
    for work in list(tables.work.values()):
        if work.state == "pending" and work.due_at > now:
            tables.update_work(work, due_at=max(now, work.due_at - behind))
        elif work.state == "leased":
            tables.update_work(work, due_at=min(work.due_at, now + _LONGEST_LEASE_MICROS))
