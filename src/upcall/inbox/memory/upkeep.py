"""Retention, forgetting a device, and looking for what is wrong."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.inbox.blanking import Blank
from upcall.inbox.memory.looking import ledger, unread_by_any
from upcall.inbox.memory.records import forget_notes, forget_reported, prune_records
from upcall.inbox.values import REDELIVERY_WINDOW_MICROS, Forgotten, Pruned, Retention, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upcall.inbox.memory.tables import Callback, Tables

__all__ = ["check", "forget", "prune"]

_MICROS: Final = 1_000_000
_WORK_STATES: Final = frozenset({"pending", "leased", "done", "dead", "dropped"})


def prune(tables: Tables, retention: Retention, now: int, limit: int) -> Pruned:
    """Take one step of retention: bodies first, then whole callbacks, then campaigns, then records."""
    record_seconds = max(retention.record_seconds, retention.body_seconds)
    body_end = now - int(retention.body_seconds * _MICROS)
    # Within the redelivery window a copy must still find the callback that it is one of.
    record_end = now - max(int(record_seconds * _MICROS), REDELIVERY_WINDOW_MICROS + 1)
    due = [row for row in tables.callbacks.values() if row.received_at < body_end]
    free = [row for row in due if _is_over(tables, row)]
    bodies = [row for row in free if row.body is not None and row.received_at >= record_end]
    whole = [row for row in free if row.received_at < record_end]
    places = [place for place, view in tables.campaigns.items() if view.last_at < record_end]
    for callback in bodies[:limit]:
        tables.update_callback(callback, body=None)
    for callback in whole[:limit]:
        _remove(tables, callback)
    for place in places[:limit]:
        _remove_campaign(tables, place)
    more_records = prune_records(tables, record_end, limit)
    return Pruned(
        bodies=min(len(bodies), limit),
        callbacks=min(len(whole), limit),
        campaigns=min(len(places), limit),
        kept=len(due) - len(free),
        more=more_records or max(len(bodies), len(whole), len(places)) > limit,
    )


def _is_over(tables: Tables, callback: Callback) -> bool:
    """Tell whether nobody needs a callback's body any more, and the read model has taken it in."""
    if callback.id not in tables.events:
        return False
    state = tables.state(callback)
    if state in {State.DROPPED, State.DONE, State.STORED}:
        is_read = callback.is_dropped or not unread_by_any(tables, callback)
        return is_read and (callback.is_quarantined or tables.projected.includes(tables.place(callback)))
    return False


def _remove(tables: Tables, callback: Callback) -> None:
    del tables.callbacks[callback.id]
    tables.events.pop(callback.id, None)
    for work in tables.work_of(callback.id):
        del tables.work[work.id]
    for key in [key for key, report in tables.reported.items() if report.callback_id == callback.id]:
        del tables.reported[key]


def _remove_campaign(tables: Tables, place: tuple[str, str]) -> None:
    del tables.campaigns[place]
    for key in [key for key in tables.devices if key[:2] == place]:
        del tables.devices[key]


def forget(tables: Tables, device_id: str, after: int, limit: int) -> Forgotten:
    """Take one step of removing a device's identifier."""
    later = [row for row in tables.callbacks.values() if row.id > after]
    looked_at = later[:limit]
    blank = Blank(device_id)
    bodies = sum(_blank_body(tables, callback, blank) for callback in looked_at)
    work = sum(_forget_work(tables, callback, device_id, blank) for callback in looked_at)
    places = [key for key in tables.devices if key[2] == device_id]
    for key in places:
        del tables.devices[key]
    forget_reported(tables, device_id)
    forget_notes(tables, device_id)
    next_id = looked_at[-1].id if len(later) > limit else None
    return Forgotten(len(looked_at), bodies, work, len(places), next_id)


def _blank_body(tables: Tables, callback: Callback, blank: Blank) -> bool:
    if callback.body is None or not blank.is_in(callback.body):
        return False
    tables.update_callback(callback, body=blank.bytes(callback.body), is_redacted=True)
    return True


def _forget_work(tables: Tables, callback: Callback, device_id: str, blank: Blank) -> int:
    """Remove the device's own work, and blank its name in what other work failed with; return how much was removed."""
    if not device_id:
        return 0
    removed = 0
    for work in tables.work_of(callback.id):
        if work.device_id == device_id:
            del tables.work[work.id]
            removed += 1
        else:
            replays = tuple(msgspec.structs.replace(each, error=_blanked(each.error, blank)) for each in work.replays)
            tables.update_work(work, error=_blanked(work.error, blank), replays=replays)
    return removed


def _blanked(text: str | None, blank: Blank) -> str | None:
    return None if text is None else blank.text(text)


def check(tables: Tables) -> list[str]:
    """Return what is wrong with a store, a line each."""
    return [*_wrong_callbacks(tables), *_wrong_work(tables), *_wrong_counts(tables)]


def _wrong_callbacks(tables: Tables) -> Iterator[str]:
    for callback in tables.callbacks.values():
        kept = callback.body is not None and not callback.is_redacted
        if kept and hashlib.sha256(callback.body or b"").hexdigest() != callback.digest:
            yield f"callback {callback.id}: its body is not the one that was received"
    for number in tables.events.keys() - tables.callbacks.keys():
        yield f"event {number}: there is no such callback"


def _wrong_work(tables: Tables) -> Iterator[str]:
    for work in tables.work.values():
        if work.callback_id not in tables.callbacks:
            yield f"work {work.id}: there is no callback {work.callback_id}"
        if work.state not in _WORK_STATES:
            yield f"work {work.id}: its state {work.state!r} is none that there is"


def _wrong_counts(tables: Tables) -> Iterator[str]:
    for name, position in tables.subscribers.items():
        if position.callback_id > tables.last_callback_id or position.releases > len(tables.releases):
            yield f"subscriber {name}: it has read further than there are callbacks"
    counts = ledger(tables)
    parts = (counts.quarantined, counts.dropped, counts.unread, counts.pending, counts.handled, counts.dead)
    if sum(parts) + counts.unwanted != counts.stored:
        yield f"the ledger does not add up to the {counts.stored} callbacks stored"
