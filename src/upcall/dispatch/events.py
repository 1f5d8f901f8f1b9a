"""The parsed events of a worker: what enrolling parsed, claiming need not parse again."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import msgspec

from upcall.inbox import stored_event

if TYPE_CHECKING:
    from upcall.inbox import WorkItem
    from upcall.thingspace import CallbackEvent

__all__ = ["KeptEvents"]

KEPT_BYTES = 8 * 1024 * 1024
KEPT_EVENTS = 512


class KeptEvents:
    """Keep the newest events, by their callbacks' numbers.

    As many as one enrolment makes and up to as many before them, by number and by the size of their bodies; not more,
    since what is kept for long is no longer in the processor's caches when its memory is used again.
    """

    def __init__(self) -> None:
        self._events: dict[int, CallbackEvent] = {}
        self._before: dict[int, CallbackEvent] = {}
        self._bytes = 0

    def keep(self, event: CallbackEvent) -> None:
        """Keep an event; the oldest give way."""
        if event.id in self._events:
            return
        if len(self._events) >= KEPT_EVENTS or self._bytes >= KEPT_BYTES:
            self._before, self._events, self._bytes = self._events, {}, 0
        self._events[event.id] = event
        self._bytes += len(event.raw)

    def of(self, item: WorkItem) -> CallbackEvent:
        """Return the event of a piece of work; what can be changed in it is the caller's own."""
        event = self._events.get(item.callback_id) or self._before.get(item.callback_id)
        if event is None:
            event = stored_event(item.callback_id, item.received_at, item.account, item.digest, item.body, item.origin)
            self.keep(event)
        return msgspec.structs.replace(event, extra=copy.deepcopy(event.extra)) if event.extra else event
