"""Folding stored callbacks into the read model, in the order of receipt."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from upcall.inbox.events import projected_event
from upcall.inbox.memory.tables import Event
from upcall.inbox.readmodel import duplicate_guess, fold_campaign, fold_device, fold_drift
from upcall.inbox.values import REDELIVERY_WINDOW_MICROS, Origin

if TYPE_CHECKING:
    from upcall.inbox.memory.tables import Callback, Tables
    from upcall.thingspace import CallbackEvent

__all__ = ["project"]


def project(tables: Tables, limit: int, upto: int | None) -> int:
    """Bring the read model forward by up to so many callbacks; return how many it took."""
    behind = tables.after(tables.projected)
    if upto is not None:  # in their order: what is released before something beyond the end waits for it
        came = [callback for callback in behind if callback.id not in tables.releases and callback.id <= upto]
        released = [callback for callback in behind if callback.id in tables.releases]
        behind = [*came, *takewhile(lambda callback: callback.id <= upto, released)]
    taken = behind[:limit]
    for callback in taken:
        event = projected_event(callback.body, callback.digest, callback.origin)
        if callback.id not in tables.events:
            _note(tables, callback, event)
        if not callback.is_quarantined and callback.origin != Origin.GUARD:
            _fold(tables, callback, event)
        tables.projected = tables.projected.furthest(tables.place(callback))
    return len(taken)


def _note(tables: Tables, callback: Callback, event: CallbackEvent) -> None:
    same = [number for number, other in tables.events.items() if other.key == event.key]
    earlier_id = max(same, default=None)
    earlier_at = None if earlier_id is None else tables.callbacks[earlier_id].received_at
    tables.events[callback.id] = Event(
        account=event.account or callback.account,
        kind=event.kind,
        campaign_id=event.campaign_id,
        key=event.key,
        duplicate=duplicate_guess(callback.received_at, earlier_at, REDELIVERY_WINDOW_MICROS),
        duplicate_of=earlier_id,
    )
    for text in dict.fromkeys(event.drift):
        tables.drift[text] = fold_drift(tables.drift.get(text), text, callback.id, callback.received_at)


def _fold(tables: Tables, callback: Callback, event: CallbackEvent) -> None:
    if event.campaign_id is None:
        return
    place = (event.campaign_id, event.account or callback.account or "")
    tables.campaigns[place] = fold_campaign(tables.campaigns.get(place), event, callback.received_at)
    for update in event.devices:
        key = (*place, update.device_id)
        tables.devices[key] = fold_device(tables.devices.get(key), update, callback.received_at)
