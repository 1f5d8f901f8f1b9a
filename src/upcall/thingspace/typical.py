"""Messages about a campaign in exactly the known shape, decoded straight into its members.

Nearly every callback is one. A message that differs in anything that would have to be thought about is left to
`read_message`; where both read one, they make the same event.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from upcall.thingspace.events import CallbackEvent, DeviceUpdate
from upcall.thingspace.reading import MAX_DRIFT, unknown_status
from upcall.thingspace.statuses import CampaignState, is_known_device_word, normalize_campaign
from upcall.thingspace.times import ProviderTime, parse_time

__all__ = ["read_typical"]

_Text: TypeAlias = str | None
_NoMembers: TypeAlias = Annotated[dict[str, str], msgspec.Meta(max_length=0)] | None
_NoEntries: TypeAlias = Annotated[list[str], msgspec.Meta(max_length=0)] | None
_Windows: TypeAlias = list[dict[str, str | int | float | None]] | None


class _Device(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    device_id: str
    status: _Text = None
    result_reason: _Text = None
    updated_time: _Text = None


class _Campaign(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    id: _Text = None
    campaign_id: _Text = None
    upgrade_id: _Text = None
    campaign_name: _Text = None
    status: _Text = None
    device_list: list[_Device] | None = None
    updated_time: _Text = None
    firmware_name: _Text = None
    firmware_from: _Text = None
    firmware_to: _Text = None
    software_name: _Text = None
    software_from: _Text = None
    software_to: _Text = None
    distribution_type: _Text = None
    make: _Text = None
    model: _Text = None
    start_date: _Text = None
    end_date: _Text = None
    download_after_date: _Text = None
    download_time_window_list: _Windows = None
    install_after_date: _Text = None
    install_time_window_list: _Windows = None


class _Message(msgspec.Struct, forbid_unknown_fields=True, rename="camel", tag_field="type", kw_only=True):
    account_name: _Text = None
    participant_name: _Text = None
    username: _Text = None
    password: _Text = None
    firmware_list: _NoEntries = None
    software_list: _NoEntries = None


class _Scheduled(_Message, tag="upgradeScheduled"):
    campaign: _Campaign = msgspec.field(name="upgradeScheduled")
    upgrade_progress: _NoMembers = None
    upgrade_finished: _NoMembers = None


class _Progress(_Message, tag="upgradeProgress"):
    campaign: _Campaign = msgspec.field(name="upgradeProgress")
    upgrade_scheduled: _NoMembers = None
    upgrade_finished: _NoMembers = None


class _Finished(_Message, tag="upgradeFinished"):
    campaign: _Campaign = msgspec.field(name="upgradeFinished")
    upgrade_scheduled: _NoMembers = None
    upgrade_progress: _NoMembers = None


_decode: Final = msgspec.json.Decoder(_Scheduled | _Progress | _Finished).decode
_KINDS: Final = {_Scheduled: "upgradeScheduled", _Progress: "upgradeProgress", _Finished: "upgradeFinished"}


class _OddError(Exception):
    """Say that a message has to be read member by member."""


def read_typical(body: bytes) -> CallbackEvent | None:
    """Make an event of a message that has the known shape, without its `raw` and its `key`; None of any other.

    Args:
        body: Any bytes.
    """
    try:
        message = _decode(body)
        return _event(_KINDS[type(message)], message.account_name, message.campaign)
    except (msgspec.DecodeError, UnicodeError, RecursionError, _OddError):
        return None


def _event(kind: str, account: str | None, campaign: _Campaign) -> CallbackEvent:
    drift: list[str] = []
    # In the order in which they are noted: the devices, the campaign, its time.
    devices = tuple([_device(kind, number, device, drift) for number, device in enumerate(campaign.device_list or ())])
    status = _text(campaign.status)
    if status is not None and len(drift) < MAX_DRIFT and not isinstance(normalize_campaign(status), CampaignState):
        drift.append(unknown_status(f"$.{kind}", status))
    return CallbackEvent(
        kind=kind,
        account=_text(account),
        campaign_id=_campaign_id(campaign),
        campaign_name=_text(campaign.campaign_name),
        campaign_status=status,
        devices=devices,
        time=None if campaign.updated_time is None else _time(campaign.updated_time),
        drift=tuple(drift),
    )


def _campaign_id(campaign: _Campaign) -> str:
    """Return the only id."""
    if (campaign.id is None) + (campaign.campaign_id is None) + (campaign.upgrade_id is None) != 2:  # noqa: PLR2004 - all but one
        raise _OddError
    return _filled(campaign.id or campaign.campaign_id or campaign.upgrade_id or "")


def _device(kind: str, number: int, device: _Device, drift: list[str]) -> DeviceUpdate:
    status = _text(device.status)
    if status is not None and len(drift) < MAX_DRIFT and not is_known_device_word(status):
        drift.append(unknown_status(f"$.{kind}.deviceList[{number}]", status))
    return DeviceUpdate(
        device_id=_filled(device.device_id),
        status=status,
        reason=_text(device.result_reason),
        time=None if device.updated_time is None else _time(device.updated_time),
    )


def _text(value: str | None) -> str | None:
    return value.strip() or None if value else None


def _filled(value: str) -> str:
    text = value.strip()
    if not text:
        raise _OddError
    return text


def _time(value: str) -> ProviderTime | None:
    text = value.strip()
    if not text:
        return None
    time = parse_time(text)
    if time.micros is None:
        raise _OddError
    return time
