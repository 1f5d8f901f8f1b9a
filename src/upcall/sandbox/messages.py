"""The bodies of callbacks, in the envelope of `upcall.thingspace.messages`.

The V2 schema is not public. What stands in the envelope are the members of V2's own campaign and device models.

Source: "About callback services" (documented for V1), official SDK models ``CampaignSoftware`` and
``V2DeviceStatus`` (their place in a callback is inferred).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from upcall.redact import mask_device
from upcall.thingspace import callback_body

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from upcall.sandbox.campaigns import Campaign, DeviceStatus

__all__ = ["MAX_DEVICES", "Callback", "announcement", "finished", "progress", "scheduled"]

MAX_DEVICES: Final = 1000
"""Devices in one callback at most. Source: the reports' page size (documented); assumed here."""


class Callback(msgspec.Struct, frozen=True):
    """Hold one callback as it will be sent, each time with the same bytes.

    Args:
        account: Whose listener gets it.
        type: One of the four callback types.
        campaign_id: What it is about, None for an announcement.
        body: The bytes.
        about: What it says, in a few words for a person; no whole device identifier.
    """

    account: str
    type: str
    campaign_id: str | None
    body: bytes
    about: str = ""


def scheduled(campaign: Campaign, status: str, devices: Sequence[DeviceStatus]) -> Iterator[Callback]:
    """Build the callbacks that tell which devices were accepted or rejected, a thousand at most in each.

    Args:
        campaign: The campaign.
        status: Its state, in the provider's word.
        devices: The devices that it has taken in.
    """
    for start in range(0, len(devices), MAX_DEVICES):
        some = devices[start : start + MAX_DEVICES]
        yield _about(campaign, "upgradeScheduled", status, some, f"{len(some)} devices")


def progress(campaign: Campaign, status: str, device: DeviceStatus) -> Callback:
    """Build the callback that one device's change of state makes."""
    return _about(campaign, "upgradeProgress", status, (device,), f"{mask_device(device.device_id)} {device.status}")


def finished(campaign: Campaign, status: str) -> Callback:
    """Build a campaign's last callback: its final state."""
    return _about(campaign, "upgradeFinished", status, (), status)


def announcement(account: str, software: Sequence[dict[str, Any]]) -> Callback:
    """Build the callback that tells of new versions.

    Args:
        account: Whose listener gets it.
        software: Members of V1's ``firmwareList`` entries.
    """
    body = callback_body(account, "firmwareList", list(software))
    return Callback(account, "firmwareList", None, body, f"{len(software)} packages")


def _about(campaign: Campaign, kind: str, status: str, devices: Sequence[DeviceStatus], about: str) -> Callback:
    request = campaign.request
    element = {
        "id": campaign.id,
        "campaignName": request.campaign_name or "",
        "softwareName": request.software_name,
        "softwareFrom": request.software_from,
        "softwareTo": request.software_to,
        "startDate": request.start_date,
        "endDate": request.end_date,
        "status": status,
        "deviceList": [
            {"deviceId": device.device_id, "status": device.status, "resultReason": device.reason or ""}
            for device in devices
        ],
    }
    return Callback(campaign.account, kind, campaign.id, callback_body(campaign.account, kind, element), about)
