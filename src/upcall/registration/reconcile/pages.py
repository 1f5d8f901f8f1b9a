"""Pages of the provider's reports, read as leniently as callbacks are: what a page may lack, it lacks.

Nobody has seen the live answers. A list may be null, a number may stand where a text belongs, and a page may have any
size; what cannot be placed is counted.

Source: official SDK, ``V2CampaignHistory`` and ``V2CampaignDevice`` (documented).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CampaignPage",
    "DevicePage",
    "ReportedCampaign",
    "ReportedDevice",
    "read_campaign",
    "read_campaigns",
    "read_devices",
]

_CAMPAIGN_IDS: Final = ("id", "campaignId", "upgradeId")
_DEVICE_IDS: Final = ("deviceId", "imei")
_REASONS: Final = ("resultReason", "reason")
_NO: Final = {"", "0", "false", "no", "none", "null"}


class ReportedCampaign(msgspec.Struct, frozen=True):
    """Hold a campaign as the report has it.

    Args:
        campaign_id: The campaign.
        status: The provider's own word, None where it gives none.
        members: All that the report says of it.
    """

    campaign_id: str
    status: str | None
    members: dict[str, Any]


class ReportedDevice(msgspec.Struct, frozen=True):
    """Hold where a device stands in a campaign, as the report has it.

    Args:
        device_id: The device.
        status: The provider's own word.
        reason: The provider's text for it, None where it gives none.
    """

    device_id: str
    status: str
    reason: str | None = None


class CampaignPage(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one page of an account's campaigns.

    Args:
        campaigns: The campaigns.
        has_more: Whether the provider says that there are more.
        last_seen: What it says to go on from, None where it does not.
        unreadable: How many entries name no campaign.
    """

    campaigns: tuple[ReportedCampaign, ...] = ()
    has_more: bool = False
    last_seen: str | None = None
    unreadable: int = 0

    @property
    def ids(self) -> tuple[str, ...]:
        """Return what the page holds, by name."""
        return tuple(campaign.campaign_id for campaign in self.campaigns)


class DevicePage(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one page of a campaign's devices.

    Args:
        devices: The devices.
        has_more: Whether the provider says that there are more.
        last_seen: What it says to go on from, None where it does not.
        unreadable: How many entries name no device or no state.
        total: How many devices the campaign has, None where the provider does not say.
    """

    devices: tuple[ReportedDevice, ...] = ()
    has_more: bool = False
    last_seen: str | None = None
    unreadable: int = 0
    total: int | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """Return what the page holds, by name."""
        return tuple(device.device_id for device in self.devices)


def read_campaign(entry: Any) -> ReportedCampaign | None:
    """Read one campaign, None where it has no name."""
    if not isinstance(entry, dict):
        return None
    campaign_id = _first(entry, _CAMPAIGN_IDS)
    return None if campaign_id is None else ReportedCampaign(campaign_id, _text(entry.get("status")), entry)


def read_campaigns(document: Mapping[str, Any]) -> CampaignPage:
    """Read a page of campaigns."""
    entries = _entries(document.get("campaignList"))
    campaigns = tuple(campaign for entry in entries if (campaign := read_campaign(entry)) is not None)
    return CampaignPage(
        campaigns=campaigns,
        has_more=_flag(document.get("hasMoreData")),
        last_seen=_text(document.get("lastSeenCampaignId")),
        unreadable=len(entries) - len(campaigns),
    )


def read_devices(document: Mapping[str, Any]) -> DevicePage:
    """Read a page of devices."""
    entries = _entries(document.get("deviceList"))
    devices = tuple(device for entry in entries if (device := _device(entry)) is not None)
    return DevicePage(
        devices=devices,
        has_more=_flag(document.get("hasMoreData")),
        last_seen=_text(document.get("lastSeenDeviceId")),
        unreadable=len(entries) - len(devices),
        total=_count(document.get("totalDevice")),
    )


def _device(entry: Any) -> ReportedDevice | None:
    if not isinstance(entry, dict):
        return None
    device_id, status = _first(entry, _DEVICE_IDS), _text(entry.get("status"))
    if device_id is None or status is None:
        return None
    return ReportedDevice(device_id, status, _first(entry, _REASONS))


def _entries(value: Any) -> list[Any]:
    """Return a list's entries: null is none, and an object alone is one."""
    if isinstance(value, dict):
        return [value] if value else []
    return value if isinstance(value, list) else []


def _first(entry: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((text for name in names if (text := _text(entry.get(name))) is not None), None)


def _text(value: Any) -> str | None:
    """Return a text, or a number's digits; None where there is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value.strip() or None if isinstance(value, str) else None


def _flag(value: Any) -> bool:
    """Tell whether a member says yes, as a truth value, a number or a word."""
    return value.strip().casefold() not in _NO if isinstance(value, str) else bool(value)


def _count(value: Any) -> int | None:
    text = _text(value)
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
