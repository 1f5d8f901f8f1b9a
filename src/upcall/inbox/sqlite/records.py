"""What the registration room keeps: when listeners accepted, what was done and seen, what is known now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from upcall.inbox.journal import JournalEntry, Note, Uptime
from upcall.inbox.sqlite.connection import synchronous, transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

__all__ = ["Records", "prune_records"]

_BEAT: Final = """
    INSERT OR REPLACE INTO upcall_uptimes (listener, began_at, last_at, ended, tokens, given, url)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_UPTIMES: Final = """
    SELECT listener, began_at, last_at, ended, tokens, given, url FROM upcall_uptimes
    WHERE last_at > ? ORDER BY began_at, listener
"""
_JOURNAL: Final = """
    SELECT topic, at, account, document, id FROM upcall_journal
    WHERE topic = ?1 AND (?2 IS NULL OR account = ?2) AND at >= ?3 ORDER BY id DESC LIMIT ?4
"""
_OLD_ROWS: Final = {
    "upcall_uptimes": "SELECT listener FROM upcall_uptimes WHERE last_at < ?1 ORDER BY last_at LIMIT ?2",
    # By their numbers, for want of an index by time: entries are added as time goes on.
    "upcall_journal": "SELECT id FROM (SELECT id, at FROM upcall_journal ORDER BY id LIMIT ?2) WHERE at < ?1",
}
_KEYS: Final = {"upcall_uptimes": "listener", "upcall_journal": "id"}


class Records:
    """Keep uptimes, a journal and notes in an SQLite store.

    Args:
        connection: The inbox's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def beat(self, uptime: Uptime) -> None:
        """Keep a listener's uptime.

        It is on disk a moment later, with the next callback that is kept: a listener does not wait for this. Where a
        power cut takes it back, the outage that follows begins a little earlier than it did, never later.
        """
        values = (
            uptime.listener,
            uptime.began_at,
            uptime.last_at,
            uptime.ended,
            "\n".join(uptime.tokens),
            uptime.given,
            uptime.url,
        )
        with synchronous(self._connection, "NORMAL"), transaction(self._connection):
            self._connection.execute(_BEAT, values)

    def uptimes(self, since: int) -> list[Uptime]:
        """Return the uptimes that reach past a time, in the order of their beginnings."""
        rows = self._connection.execute(_UPTIMES, (since,)).fetchall()
        return [_uptime(row) for row in rows]

    def record(self, entry: JournalEntry) -> int:
        """Add an entry to the journal, on disk, and return its number."""
        with synchronous(self._connection, "FULL"), transaction(self._connection):
            cursor = self._connection.execute(
                "INSERT INTO upcall_journal (topic, at, account, document) VALUES (?, ?, ?, ?)",
                (entry.topic, entry.at, entry.account, _text(entry.document)),
            )
        return cursor.lastrowid or 0

    def journal(self, topic: str, account: str | None, since: int, limit: int) -> list[JournalEntry]:
        """Return the newest entries of a topic, oldest first."""
        rows = self._connection.execute(_JOURNAL, (topic, account, since, limit or -1)).fetchall()
        return [
            JournalEntry(topic=topic, at=at, account=owner, document=msgspec.json.decode(document), id=number)
            for topic, at, owner, document, number in reversed(rows)
        ]

    def put_note(self, notes: Sequence[Note]) -> None:
        """Write notes, each in the place of the one with its topic and key; all of them or none."""
        rows = [(note.topic, note.key, note.at, _text(note.document)) for note in notes]
        with transaction(self._connection):
            self._connection.executemany(
                "INSERT OR REPLACE INTO upcall_notes (topic, key, at, document) VALUES (?, ?, ?, ?)", rows
            )

    def notes(self, topic: str) -> list[Note]:
        """Return the notes of a topic, by key."""
        rows = self._connection.execute(
            "SELECT topic, key, at, document FROM upcall_notes WHERE topic = ? ORDER BY key", (topic,)
        ).fetchall()
        return [
            Note(topic=topic, key=key, at=at, document=msgspec.json.decode(document))
            for topic, key, at, document in rows
        ]

    def drop_note(self, topic: str, key: str) -> None:
        """Remove a note, where there is one."""
        with transaction(self._connection):
            self._connection.execute("DELETE FROM upcall_notes WHERE topic = ? AND key = ?", (topic, key))


def prune_records(connection: sqlite3.Connection, before: int, limit: int) -> bool:
    """Remove uptimes that ended, and entries that were recorded, before a time; tell whether there are more.

    Args:
        connection: The inbox's connection.
        before: The time.
        limit: At most so many of each.
    """
    more = False
    for table, query in _OLD_ROWS.items():
        keys = connection.execute(query, (before, limit + 1)).fetchall()
        if keys:
            with transaction(connection):
                connection.executemany(f"DELETE FROM {table} WHERE {_KEYS[table]} = ?", keys[:limit])
        more = more or len(keys) > limit
    return more


def _uptime(row: tuple[Any, ...]) -> Uptime:
    listener, began_at, last_at, ended, tokens, given, url = row
    return Uptime(
        listener=listener,
        began_at=began_at,
        last_at=last_at,
        ended=bool(ended),
        tokens=tuple(tokens.split("\n") if tokens else ()),
        given=bool(given),
        url=url,
    )


def _text(document: dict[str, Any]) -> str:
    return msgspec.json.encode(document).decode()
