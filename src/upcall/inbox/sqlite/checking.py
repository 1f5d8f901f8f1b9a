"""Reading a whole store, to say what is wrong with it."""

from __future__ import annotations

import hashlib
import sqlite3
from typing import TYPE_CHECKING, Final

from upcall.inbox.sqlite.connection import snapshot
from upcall.inbox.sqlite.counts import Counts

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["problems"]

SHOWN_EACH: Final = 20
"""Of one kind of trouble, so many are named."""

_COUNTED: Final = ("quarantined", "dropped", "unread", "pending", "handled", "dead", "unwanted")
_QUERIES: Final = {
    "deliveries of callback {0}, which is not there": "SELECT DISTINCT callback_id FROM deliveries"
    " WHERE callback_id NOT IN (SELECT id FROM callbacks) LIMIT ?",
    "an event of callback {0}, which is not there": "SELECT callback_id FROM events"
    " WHERE callback_id NOT IN (SELECT id FROM callbacks) LIMIT ?",
    "work {0} is for callback {1}, which is not there": "SELECT id, callback_id FROM work"
    " WHERE callback_id NOT IN (SELECT id FROM callbacks) LIMIT ?",
    "a release of callback {0}, which is not there": "SELECT callback_id FROM releases"
    " WHERE callback_id NOT IN (SELECT id FROM callbacks) LIMIT ?",
    "a report is kept as callback {0}, which is not there": "SELECT callback_id FROM upcall_reported"
    " WHERE callback_id NOT IN (SELECT id FROM callbacks) LIMIT ?",
    "a replay of work {0}, which is not there": "SELECT work_id FROM replays"
    " WHERE work_id NOT IN (SELECT id FROM work) LIMIT ?",
    "work {0} has state {1!r}, which is none": "SELECT id, state FROM work"
    " WHERE state NOT IN ('pending', 'leased', 'done', 'dead', 'dropped') LIMIT ?",
    "work {0} is leased to nobody": "SELECT id FROM work WHERE state = 'leased' AND owner IS NULL LIMIT ?",
    "callback {0} has trust {1!r}, which is none": "SELECT id, trust FROM callbacks"
    " WHERE trust NOT IN ('accepted', 'quarantined', 'confirmed') LIMIT ?",
    "a token has state {0!r}, which is none": "SELECT DISTINCT state FROM tokens"
    " WHERE state NOT IN ('live', 'next', 'retiring', 'retired') LIMIT ?",
    "callback {0} is behind the read model, but not in it": "SELECT id FROM callbacks"
    " WHERE id <= (SELECT position FROM cursors WHERE name = 'projection')"
    " AND id NOT IN (SELECT callback_id FROM events) LIMIT ?",
    "the digest of callback {0} is filed, and it is not there": "SELECT callback_id FROM digests"
    " WHERE callback_id NOT IN (SELECT id FROM callbacks) LIMIT ?",
    "the digest of callback {0} is not filed": "SELECT c.id FROM callbacks c"
    " WHERE c.id <= (SELECT position FROM cursors WHERE name = 'filed') AND NOT EXISTS (SELECT 1 FROM digests d"
    " WHERE d.bucket = c.bucket AND d.head = substr(c.digest, 1, 8) AND d.callback_id = c.id) LIMIT ?",
    "subscriber {0} stands at callback {1}, and there are {2}": "SELECT name, cursor, newest FROM subscribers,"
    " (SELECT coalesce(max(seq), 0) AS newest FROM sqlite_sequence WHERE name = 'callbacks')"
    " WHERE cursor > newest LIMIT ?",
    "the read model stands at callback {0}, and there are {1}": "SELECT position, newest FROM cursors,"
    " (SELECT coalesce(max(seq), 0) AS newest FROM sqlite_sequence WHERE name = 'callbacks')"
    " WHERE name = 'projection' AND position > newest LIMIT ?",
}


def problems(connection: sqlite3.Connection) -> list[str]:
    """Return what is wrong with a store, a line each; nothing where all is well."""
    with snapshot(connection):
        damage = list(_damage(connection))
        if damage:  # what else is read would say no more
            return damage
        return [*_bodies(connection), *_rows(connection), *_counts(connection)]


def _damage(connection: sqlite3.Connection) -> Iterator[str]:
    try:
        lines = [line for (line,) in connection.execute(f"PRAGMA integrity_check({SHOWN_EACH})")]
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
            raise
        lines = [str(error)]
    for line in lines:
        if line != "ok":
            yield f"the file is damaged: {' '.join(line.split())}. Restore a copy: upcall store restore"


def _bodies(connection: sqlite3.Connection) -> Iterator[str]:
    """Compare each body with the digest that was made when it came."""
    rows = connection.execute(
        "SELECT id, digest, body FROM callbacks WHERE body IS NOT NULL AND redacted_at IS NULL ORDER BY id"
    )
    wrong = 0
    for number, digest, body in rows:
        if hashlib.sha256(body).digest() != digest:
            wrong += 1
            if wrong <= SHOWN_EACH:
                yield f"the body of callback {number} is not the one that was received"
    if wrong > SHOWN_EACH:
        yield f"so are the bodies of {wrong - SHOWN_EACH} more"


def _rows(connection: sqlite3.Connection) -> Iterator[str]:
    for text, query in _QUERIES.items():
        for row in connection.execute(query, (SHOWN_EACH,)):
            yield text.format(*row)


def _counts(connection: sqlite3.Connection) -> Iterator[str]:
    ledger = Counts(connection).ledger()
    for name in _COUNTED:
        if getattr(ledger, name) < 0:
            yield f"the counts do not add up to the {ledger.stored} callbacks stored: {name} is {getattr(ledger, name)}"
