"""Tokens, what the registration room keeps, and what deliveries tell of the provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from upcall.inbox.intervals import intervals_between
from upcall.inbox.journal import JournalEntry, ListedDelivery, Note, Uptime

if TYPE_CHECKING:
    from upcall.inbox.memory.tables import Tables
    from upcall.inbox.values import TokenRecord

__all__ = [
    "add_token",
    "beat",
    "drop_note",
    "forget_notes",
    "forget_reported",
    "journal",
    "last_listed",
    "notes",
    "prune_records",
    "put_note",
    "record",
    "repeat_intervals",
    "set_token",
    "tokens",
    "uptimes",
]


def tokens(tables: Tables) -> list[TokenRecord]:
    """Return all tokens in the order in which they were made."""
    return sorted(tables.tokens, key=lambda record: (record.created_at, record.token))


def add_token(tables: Tables, record: TokenRecord, now: int) -> bool:
    """Keep a token, and tell whether it is new."""
    if any(record.token == known.token for known in tables.tokens):
        return False
    tables.tokens += (msgspec.structs.replace(record, created_at=now),)
    return True


def set_token(tables: Tables, token: str, state: str, retire_at: int | None) -> None:
    """Change how a token lives."""
    tables.tokens = tuple(
        msgspec.structs.replace(known, state=state, retire_at=retire_at) if known.token == token else known
        for known in tables.tokens
    )


def beat(tables: Tables, uptime: Uptime) -> None:
    """Keep a listener's uptime."""
    tables.uptimes[uptime.listener] = uptime


def uptimes(tables: Tables, since: int) -> list[Uptime]:
    """Return the uptimes that reach past a time, in the order of their beginnings."""
    found = [uptime for uptime in tables.uptimes.values() if uptime.last_at > since]
    return sorted(found, key=lambda uptime: (uptime.began_at, uptime.listener))


def record(tables: Tables, entry: JournalEntry) -> int:
    """Add an entry to the journal, and return its number."""
    tables.last_entry_id += 1
    kept = msgspec.structs.replace(entry, id=tables.last_entry_id, document=_copied(entry.document))
    tables.journal += (kept,)
    return tables.last_entry_id


def journal(tables: Tables, topic: str, account: str | None, since: int, limit: int) -> list[JournalEntry]:
    """Return the newest entries of a topic, oldest first."""
    found = [
        msgspec.structs.replace(entry, document=_copied(entry.document))
        for entry in tables.journal
        if entry.topic == topic and account in {None, entry.account} and entry.at >= since
    ]
    return found[-limit:]


def put_note(tables: Tables, note: Note) -> None:
    """Write a note in the place of the one with its topic and key."""
    tables.notes[note.topic, note.key] = msgspec.structs.replace(note, document=_copied(note.document))


def notes(tables: Tables, topic: str) -> list[Note]:
    """Return the notes of a topic, by key."""
    found = [note for note in tables.notes.values() if note.topic == topic]
    found.sort(key=lambda note: note.key)
    return [msgspec.structs.replace(note, document=_copied(note.document)) for note in found]


def drop_note(tables: Tables, topic: str, key: str) -> None:
    """Remove a note, where there is one."""
    tables.notes.pop((topic, key), None)


def repeat_intervals(tables: Tables, since: int, limit: int) -> list[int]:
    """Return how long after the one before it each further delivery of a callback came."""
    deliveries = [
        (callback.id, delivery.received_at)
        for callback in tables.callbacks.values()
        for delivery in callback.deliveries
    ]
    return intervals_between(deliveries, since=since, limit=limit)


def last_listed(tables: Tables, account: str) -> ListedDelivery | None:
    """Return an account's last delivery from a listed address."""
    found = [
        (delivery.received_at, delivery.source)
        for callback in tables.callbacks.values()
        if tables.event(callback).account == account
        for delivery in callback.deliveries
        if delivery.listed
    ]
    return ListedDelivery(*max(found)) if found else None


def prune_records(tables: Tables, before: int, limit: int) -> bool:
    """Remove uptimes that ended, and entries that were recorded, before a time; tell whether there are more."""
    ended = [uptime.listener for uptime in tables.uptimes.values() if uptime.last_at < before]
    for listener in ended[:limit]:
        del tables.uptimes[listener]
    old = [entry.id for entry in tables.journal[: limit + 1] if entry.at < before]
    tables.journal = tuple(entry for entry in tables.journal if entry.id not in old[:limit])
    return max(len(ended), len(old)) > limit


def forget_reported(tables: Tables, device_id: str) -> None:
    """Remove what was reported of a device."""
    for key in [key for key in tables.reported if key[1] == device_id]:
        del tables.reported[key]


def forget_notes(tables: Tables, device_id: str) -> None:
    """Remove the notes that name a device: what they say of how far something is, is found out again."""
    named = msgspec.json.encode(device_id)
    for key in [key for key, note in tables.notes.items() if named in msgspec.json.encode(note.document)]:
        del tables.notes[key]


def _copied(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document as a store gives it back: whoever holds the first one may go on changing it."""
    return dict(msgspec.json.decode(msgspec.json.encode(document)))
