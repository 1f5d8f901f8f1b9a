"""How far a callback is, in SQL."""

from __future__ import annotations

from typing import Final

from upcall.inbox.values import State

__all__ = ["ALL_CAME", "ALL_RELEASED", "HAS_DEAD", "KNOWN_CAME", "KNOWN_RELEASED", "OPEN", "STATE", "WHERE"]

OPEN: Final = "state IN ('pending', 'leased')"

# Up to which callback, and which release, every known subscriber has looked. Where there is none, nobody is waited for:
# that is how a callback's state is told.
_END: Final = (1 << 63) - 1
KNOWN_CAME: Final = f"coalesce((SELECT min(cursor) FROM subscribers), {_END})"
KNOWN_RELEASED: Final = f"coalesce((SELECT min(released) FROM subscribers), {_END})"
# The same, but where there is none, where the next one would begin: what nobody has looked at is kept for it.
ALL_CAME: Final = """(
    SELECT coalesce(min(cursor), (SELECT position FROM cursors WHERE name = 'forgotten'), 0) FROM subscribers
)"""
ALL_RELEASED: Final = """(
    SELECT coalesce(min(released), (SELECT position FROM cursors WHERE name = 'forgotten_released'), 0) FROM subscribers
)"""

HAS_DEAD: Final = "EXISTS (SELECT 1 FROM work w WHERE w.callback_id = {id} AND w.state = 'dead')"
_HAS_WORK: Final = "EXISTS (SELECT 1 FROM work w WHERE w.callback_id = {id})"
_HAS_OPEN: Final = f"EXISTS (SELECT 1 FROM work w WHERE w.callback_id = {{id}} AND w.{OPEN})"
_HAS_DROPPED: Final = "EXISTS (SELECT 1 FROM work w WHERE w.callback_id = {id} AND w.state = 'dropped')"
_HAS_UNDONE: Final = "EXISTS (SELECT 1 FROM work w WHERE w.callback_id = {id} AND w.state <> 'done')"
_QUARANTINED: Final = "EXISTS (SELECT 1 FROM callbacks q WHERE q.id = {id} AND q.trust = 'quarantined')"
_HELD: Final = (
    "EXISTS (SELECT 1 FROM callbacks q WHERE q.id = {id} AND q.trust = 'quarantined' AND q.dropped_at IS NULL)"
)
_GONE: Final = "EXISTS (SELECT 1 FROM callbacks q WHERE q.id = {id} AND q.dropped_at IS NOT NULL)"
# The number first: of a callback that everybody has looked at no row is read.
_UNREAD: Final = f"""(
    {{id}} > {KNOWN_CAME} AND EXISTS (
        SELECT 1 FROM callbacks u WHERE u.id = {{id}} AND u.trust <> 'quarantined' AND u.released_at IS NULL
    )
    OR EXISTS (SELECT 1 FROM releases r WHERE r.callback_id = {{id}} AND r.seq > {KNOWN_RELEASED})
)"""
_WAITS: Final = f"({_HAS_OPEN} OR {_UNREAD})"

WHERE: Final = {
    State.QUARANTINED: _HELD,
    State.PENDING: _WAITS,
    State.DEAD: f"{HAS_DEAD} AND NOT {_WAITS}",
    State.DROPPED: f"({_HAS_DROPPED} OR {_GONE}) AND NOT {HAS_DEAD} AND NOT {_WAITS}",
    State.DONE: f"{_HAS_WORK} AND NOT {_HAS_UNDONE} AND NOT {_UNREAD}",
    State.STORED: f"NOT {_HAS_WORK} AND NOT {_QUARANTINED} AND NOT {_UNREAD}",
}
"""Of the callback whose number stands in the place of `{id}`."""

STATE: Final = f"""
    CASE
        WHEN c.trust = 'quarantined' THEN iif(c.dropped_at IS NULL, '{State.QUARANTINED}', '{State.DROPPED}')
        WHEN {_WAITS} THEN '{State.PENDING}'
        WHEN {HAS_DEAD} THEN '{State.DEAD}'
        WHEN {_HAS_DROPPED} THEN '{State.DROPPED}'
        WHEN {_HAS_WORK} THEN '{State.DONE}'
        ELSE '{State.STORED}'
    END
""".format(id="c.id")
"""Of the callback `c`."""
