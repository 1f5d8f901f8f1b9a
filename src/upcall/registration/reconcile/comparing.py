"""What a page of devices says against what callbacks told. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from upcall.registration.reconcile.progress import Found
from upcall.registration.reconcile.values import Contradiction, MissingReport, SilentDevice
from upcall.thingspace import (
    DeviceState,
    device_rank,
    is_final_campaign,
    is_final_device,
    normalize_campaign,
    normalize_device,
    text_of_micros,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from upcall.inbox import CampaignRecord, DeviceRecord
    from upcall.registration.reconcile.pages import DevicePage, ReportedCampaign

__all__ = ["compare", "compare_campaign", "missing_devices", "not_recoverable", "skipped_states"]

_WAY: Final = (DeviceState.ACCEPTED, DeviceState.UPGRADE_PENDING)
"""What a device goes through before its end. Source: campaign lifecycle V2 (documented)."""

_ENDS: Final = (DeviceState.UPGRADE_FAILED, DeviceState.UPGRADE_SUCCESS)
"""The ends that come of going that way; a rejection and the campaign's own end may come at any time."""


def compare(campaign_id: str, page: DevicePage, told: Mapping[str, DeviceRecord], *, heard_since: int) -> Found:
    """Return what is worth naming in a page.

    Args:
        campaign_id: The campaign.
        page: The devices as the provider has them.
        told: The devices as callbacks tell them, by name.
        heard_since: A device that is not final and was last heard of before then is silent, UTC microseconds.
    """
    silent, contradictions, met = [], [], []
    for device in page.devices:
        record = told.get(device.device_id)
        if record is None or _is_open(record):
            met.append(device.device_id)
        if not is_final_device(device.status) and _last_at(record) < heard_since:
            silent.append(SilentDevice(campaign_id, device.device_id, device.status, _last_at(record) or None))
        if record is not None and record.status is not None and _contradict(record.status, device.status):
            contradictions.append(Contradiction(campaign_id, device.device_id, record.status, device.status))
    return Found(
        devices=len(page.devices),
        met=tuple(met),
        silent=tuple(silent),
        contradictions=tuple(contradictions),
        unreadable=page.unreadable,
    )


def compare_campaign(campaign: ReportedCampaign, record: CampaignRecord | None) -> Found:
    """Return what is worth naming in a campaign's own state."""
    if record is None or record.status is None or campaign.status is None or not is_final_campaign(record.status):
        return Found()
    if normalize_campaign(record.status) == normalize_campaign(campaign.status):
        return Found()
    return Found(contradictions=(Contradiction(campaign.campaign_id, "", record.status, campaign.status),))


def missing_devices(campaign_id: str, told: Iterable[DeviceRecord], met: Collection[str]) -> tuple[MissingReport, ...]:
    """Return the devices that are not final as callbacks tell them, and that the whole report did not hold."""
    return tuple(
        MissingReport(campaign_id, record.device_id, record.status)
        for record in told
        if _is_open(record) and record.device_id not in met
    )


def skipped_states(told: DeviceRecord | None, reported: str) -> tuple[DeviceState, ...]:
    """Return the documented states that a device went through, and that no callback told of.

    Args:
        told: The device as callbacks tell it, None where none named it.
        reported: Where it stands.
    """
    rank = -1 if told is None or told.status is None else device_rank(told.status)
    state = normalize_device(reported)
    end = device_rank(reported)
    if is_final_device(reported) and state not in _ENDS:
        return ()
    return tuple(step for step in _WAY if rank < device_rank(step) < end)


def not_recoverable(*, since: int, until: int, skipped: int) -> tuple[str, ...]:
    """Return what was lost and stands in no report, a sentence each.

    Args:
        since: From when on callbacks may be missing.
        until: Until when.
        skipped: How many devices went through states that no callback told of.
    """
    window = f"between {text_of_micros(since)} and {text_of_micros(until)}"
    lost = [f"Announcements of new software that were sent {window} and did not arrive: no report holds them."]
    if skipped:
        whose = "one device" if skipped == 1 else f"{skipped} devices"
        lost.append(f"The states in between of {whose}: reports tell where a device stands, and not how it got there.")
    return tuple(lost)


def _is_open(record: DeviceRecord) -> bool:
    return record.status is None or not is_final_device(record.status)


def _contradict(told: str, reported: str) -> bool:
    return is_final_device(told) and normalize_device(told) != normalize_device(reported)


def _last_at(record: DeviceRecord | None) -> int:
    """Return when we last heard of a device, 0 for never; a store of an older Upcall's may not have kept it."""
    return 0 if record is None else record.last_at or record.updated_at
