"""Callbacks to send."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["callback"]


def callback(
    kind: str = "upgradeProgress",
    *,
    account: str = "0000123456-00001",
    campaign_id: str = "e3a1c9d2-7b64-4f0e-9a55-1c2d3e4f5a6b",
    status: str = "CampaignScheduled",
    devices: Mapping[str, str] | None = None,
) -> bytes:
    """Make a callback's body in the shape that is best supported by what is known.

    Args:
        kind: One of the four types.
        account: The account that it names.
        campaign_id: The campaign that it is about.
        status: The campaign's status.
        devices: Status by device identifier.

    Source: the V2 message schema is not public; this is the reconstruction in docs/callback-messages.md (inferred).
    """
    device_list = [{"deviceId": device_id, "status": word} for device_id, word in (devices or {}).items()]
    elements: dict[str, Any] = {"upgradeScheduled": {}, "upgradeProgress": {}, "upgradeFinished": {}}
    if kind in elements:
        elements[kind] = {"id": campaign_id, "status": status, "deviceList": device_list}
    return json.dumps({"accountName": account, "type": kind, "firmwareList": [], **elements}).encode()
