"""Callback messages: any bytes in, one value out, never an exception.

The V2 message schema is not public. What is known of V1 and what is inferred of V2 is read; what is not known
is kept in `extra` and named in `drift`, so that the first real message teaches its schema. A missing field is
never a reason to distrust a callback.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from upcall.thingspace.decoding import bytes_of, load_json
from upcall.thingspace.events import CallbackEvent
from upcall.thingspace.reading import read_message, type_name, without_passwords
from upcall.thingspace.statuses import normalize_campaign
from upcall.thingspace.typical import read_typical

__all__ = ["parse_callback"]

_STACK_TOO_DEEP: Final = "the caller's stack is too deep to read the body"


_set = msgspec.structs.force_setattr
_encode = msgspec.json.Encoder().encode


def parse_callback(raw: bytes | bytearray | memoryview | str, *, key: str | None = None) -> CallbackEvent:
    """Make a `CallbackEvent` of any bytes whatever.

    Args:
        raw: A callback's body.
        key: The event's key where it has one already, in place of a digest of what it says.

    Returns:
        The event. Bytes that are no JSON give one with `undecodable` set; JSON of another shape gives one with
        `drift`.

    Source: sections "V1 structure" (documented) and "V2 structure" (reconstructed) of docs/callback-messages.md.
    """
    body = bytes_of(raw)
    try:
        return _parse(body, key)
    except RecursionError:
        return CallbackEvent(raw=body, undecodable=_STACK_TOO_DEEP, key=key or _digest(body))


def _parse(body: bytes, key: str | None) -> CallbackEvent:
    event = read_typical(body)
    return _parse_fully(body, key) if event is None else _with_body(event, body, key)


def _parse_fully(body: bytes, key: str | None = None) -> CallbackEvent:
    """Parse a body of any shape."""
    try:
        document = load_json(body)
    except ValueError as error:
        return CallbackEvent(raw=body, undecodable=str(error), key=key or _digest(body))
    if not isinstance(document, dict):
        drift = f"$: {type_name(document)} in place of an object"
        extra = {"$": without_passwords(document)}
        return CallbackEvent(raw=body, drift=(drift,), extra=extra, key=key or _digest(body))
    return _with_body(read_message(document), body, key)


def _with_body(event: CallbackEvent, body: bytes, key: str | None = None) -> CallbackEvent:
    """Complete an event that nobody has seen yet: a copy of so many members would cost as much as reading them."""
    _set(event, "raw", body)
    _set(event, "key", key or _key(event, body))
    return event


def _key(event: CallbackEvent, body: bytes) -> str:
    """Digest what the message says; a message that says nothing known is told by its bytes."""
    if not (event.devices or event.software or event.campaign_id):
        return _digest(body)
    said: list[Any] = [
        event.kind,
        event.account,
        event.campaign_id,
        event.campaign_status and normalize_campaign(event.campaign_status),
        event.time and event.time.text,
        [(device.device_id, device.state, device.reason, device.time and device.time.text) for device in event.devices],
        [
            (item.name, item.make, item.model, item.from_version, item.to_version, item.launch_date)
            for item in event.software
        ],
    ]
    return _digest(_encode(said))


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]
