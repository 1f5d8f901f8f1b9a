"""An event as one JSON object: what commands read on stdin and what a file holds a line of."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec

from upcall.redact import blank_password
from upcall.thingspace import text_of_micros

if TYPE_CHECKING:
    from upcall.thingspace import CallbackEvent, DeviceUpdate

__all__ = ["event_json"]

_encode = msgspec.json.Encoder().encode


def event_json(event: CallbackEvent) -> bytes:
    """Return an event as JSON on one line, without the newline.

    Its members, in this order: ``id``, ``key``, ``received_at`` (ISO 8601, UTC), ``origin``, ``account``, ``kind``,
    ``campaign_id``, ``campaign_status``, ``devices`` (each with ``device_id``, ``status``, ``reason``, ``time``), and
    ``raw``, the body as received but for a V1 password; where it is no UTF-8, ``raw_base64`` instead.
    """
    document: dict[str, Any] = {
        "id": event.id,
        "key": event.key,
        "received_at": text_of_micros(event.received_at),
        "origin": event.origin,
        "account": event.account,
        "kind": event.kind,
        "campaign_id": event.campaign_id,
        "campaign_status": event.campaign_status,
        "devices": [_device(device) for device in event.devices],
    }
    raw = blank_password(event.raw)
    try:
        document["raw"] = raw.decode()
    except UnicodeDecodeError:
        document["raw_base64"] = base64.b64encode(raw).decode()
    return _encode(document)


def _device(device: DeviceUpdate) -> dict[str, Any]:
    return {
        "device_id": device.device_id,
        "status": device.status,
        "reason": device.reason,
        "time": device.time and device.time.text,
    }
