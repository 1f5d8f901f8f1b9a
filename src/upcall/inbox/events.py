"""A stored callback as its handlers receive it, and as the read model takes it in."""

from __future__ import annotations

from typing import Final

import msgspec

from upcall.inbox.values import Origin
from upcall.thingspace import CallbackEvent, parse_callback

__all__ = ["key_of", "projected_event", "stored_event"]

_DIGITS: Final = 32
"""Of the digest, so many stand in a key."""


def key_of(callback_id: int, digest: str) -> str:
    """Return the key that handlers see, out of a callback's number and its body's SHA-256 in hexadecimal."""
    return f"{digest[:_DIGITS]}-{callback_id}"


def stored_event(  # noqa: PLR0917 - a callback's columns, in the order in which a store reads them
    callback_id: int, received_at: int, account: str | None, digest: str, body: bytes, origin: str = Origin.RECEIVED
) -> CallbackEvent:
    """Parse a stored callback into the event that its handlers receive.

    Its `key` is the same each time this callback is handed on, and no other's: a body that comes again after the
    redelivery window is another callback and must have its own effect. It is made of what the store keeps for good: a
    body may be blanked or removed, and another release may read it otherwise.

    Args:
        callback_id: The callback's number.
        received_at: When it was first received, UTC microseconds.
        account: The account that its token belongs to, for a body that names none.
        digest: SHA-256 of the body as it came, in hexadecimal.
        body: The body.
        origin: Where it came from.
    """
    event = parse_callback(body, key=key_of(callback_id, digest))
    # Nobody else has seen it yet, and a copy costs more.
    setattr_of = msgspec.structs.force_setattr
    setattr_of(event, "id", callback_id)
    setattr_of(event, "received_at", received_at)
    setattr_of(event, "account", event.account or account)
    return event if origin == Origin.RECEIVED else _ours(event, origin)


def projected_event(body: bytes | None, digest: str, origin: str) -> CallbackEvent:
    """Parse a stored callback for the read model; one whose body is gone is told by the digest that outlives it."""
    if body is None:
        return CallbackEvent(key=digest[:_DIGITS])
    event = parse_callback(body)
    return event if origin == Origin.RECEIVED else _ours(event, origin)


def _ours(event: CallbackEvent, origin: str) -> CallbackEvent:
    """Complete an event whose text is our own: it teaches nothing of the provider's schema."""
    msgspec.structs.force_setattr(event, "origin", origin)
    msgspec.structs.force_setattr(event, "drift", ())
    return event
