"""The handlers that ``upcall demo`` runs: one for every callback, one for devices whose upgrade failed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upcall.app import Upcall

if TYPE_CHECKING:
    from upcall.thingspace import CallbackEvent, DeviceUpdate

__all__ = ["app"]

app: Upcall = Upcall()


@app.on()
def note(event: CallbackEvent) -> None:
    """Write down each callback."""
    _append("callbacks.jsonl", {"key": event.key, "kind": event.kind, "campaign_id": event.campaign_id})


@app.on_device("UpgradeFailed")
def open_ticket(event: CallbackEvent, device: DeviceUpdate) -> None:
    """Open a ticket for each device whose upgrade failed."""
    _append("tickets.jsonl", {"campaign_id": event.campaign_id, "device_id": device.device_id, "reason": device.reason})


def _append(name: str, document: dict[str, Any]) -> None:
    directory = os.environ.get("UPCALL_DEMO_DIR")
    if directory:
        with (Path(directory) / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(document) + "\n")
