"""A stored callback as its handlers receive it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from upcall.thingspace import parse_callback

if TYPE_CHECKING:
    from upcall.thingspace import CallbackEvent

__all__ = ["stored_event"]


def stored_event(callback_id: int, received_at: int, account: str | None, body: bytes) -> CallbackEvent:
    """Parse a stored callback into the event that its handlers receive.

    Its `key` is the same each time this callback is handed on, and no other's: a body that comes again after the
    redelivery window is another callback and must have its own effect.

    Args:
        callback_id: The callback's number.
        received_at: When it was first received, UTC microseconds.
        account: The account that its token belongs to, for a body that names none.
        body: The body.
    """
    event = parse_callback(body)
    # Nobody else has seen it yet, and a copy costs more.
    setattr_of = msgspec.structs.force_setattr
    setattr_of(event, "id", callback_id)
    setattr_of(event, "received_at", received_at)
    setattr_of(event, "account", event.account or account)
    setattr_of(event, "key", f"{event.key}-{callback_id}")
    return event
