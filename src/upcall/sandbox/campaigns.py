"""Campaigns: what a request asks for, and where a campaign and its devices stand, without I/O."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from upcall.thingspace import CampaignState, DeviceState, is_final_campaign, is_final_device

__all__ = [
    "Campaign",
    "CampaignRequest",
    "DeviceStatus",
    "Fate",
    "Progress",
    "SandboxOptions",
    "Step",
    "TimeWindow",
    "is_imei",
]


_IMEI: Final = re.compile(r"[0-9]{14,16}")


class TimeWindow(msgspec.Struct, frozen=True, rename="camel"):
    """Hold hours of the day. Source: official SDK, ``V2TimeWindow`` (documented).

    Args:
        start_time: 0 to 23.
        end_time: 1 to 24.
    """

    start_time: Annotated[int, Meta(ge=0, le=23)]
    end_time: Annotated[int, Meta(ge=1, le=24)]


class CampaignRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Hold what schedules an upgrade. Source: official SDK, ``CampaignSoftwareUpgrade`` (documented).

    Args:
        campaign_name: The campaign's name.
        software_name: What to install.
        software_from: What is installed now.
        software_to: What will be.
        distribution_type: ``HTTP`` or ``OMA``.
        start_date: YYYY-MM-DD.
        end_date: YYYY-MM-DD.
        download_after_date: YYYY-MM-DD.
        download_time_window_list: When devices may download.
        install_after_date: YYYY-MM-DD.
        install_time_window_list: When devices may install.
    """

    campaign_name: str | None = None
    software_name: str
    software_from: str
    software_to: str
    distribution_type: str
    start_date: str
    end_date: str
    download_after_date: str | None = None
    download_time_window_list: tuple[TimeWindow, ...] | None = None
    install_after_date: str | None = None
    install_time_window_list: tuple[TimeWindow, ...] | None = None


class SandboxOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold what a request may ask of the sandbox in its ``_sandbox`` member, which no provider reads.

    Args:
        hours: The virtual time within which every device is final: dates and windows are not obeyed then.
        failing: How many devices fail; None leaves it to chance.
        rejected: How many devices are rejected; None leaves it to chance.
        seed: What decides each device's fate; None takes the sandbox's own.
    """

    hours: float = 1.0
    failing: int | None = None
    rejected: int | None = None
    seed: int | None = None


class Step(msgspec.Struct, frozen=True, array_like=True):
    """Hold one change of state.

    Args:
        at: Virtual seconds since the campaign was scheduled.
        status: The new state, in the provider's word.
        device_id: Whose; None for the campaign's own.
        reason: The provider's text for a device's state.
    """

    at: float
    status: str
    device_id: str | None = None
    reason: str | None = None


class DeviceStatus(msgspec.Struct, frozen=True):
    """Hold where a device stands in a campaign.

    Args:
        device_id: Its IMEI.
        status: Its state, in the provider's word.
        reason: The provider's text for it.
    """

    device_id: str
    status: str
    reason: str | None = None


class Fate(msgspec.Struct, frozen=True, array_like=True):
    """Hold what is decided about a device when its campaign takes it on.

    Args:
        device_id: Its IMEI.
        every_seconds: How often it checks in, in virtual seconds.
        phase_seconds: When it does first, in virtual seconds after midnight, UTC.
        download_seconds: How long its download takes.
        install_seconds: How long its installation takes.
        failure: Why its upgrade fails; None where it does not.
    """

    device_id: str
    every_seconds: float
    phase_seconds: float
    download_seconds: float
    install_seconds: float
    failure: str | None = None


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a campaign as it was scheduled, and its plan.

    Args:
        id: The provider's identifier, a UUID.
        account: Whose.
        request: What it was asked for.
        scheduled_at: When, in seconds of the sandbox's clock.
        intake: Each device as it was accepted or rejected, in the request's order.
        steps: What happens, in order of time.
        hours: The virtual time in which all of it happens; None where it happens by dates and windows.
        fates: What is decided about each device, where dates and windows are obeyed.
        speed: What its virtual time is divided by; it keeps the one that it was scheduled with.
        number: Which campaign of the sandbox it is, from 1.
    """

    id: str
    account: str
    request: CampaignRequest
    scheduled_at: float
    intake: tuple[DeviceStatus, ...]
    steps: tuple[Step, ...]
    hours: float | None = 1.0
    fates: tuple[Fate, ...] = ()
    speed: float = 1.0
    number: int = 0


class Progress:
    """Keep where a campaign and its devices stand.

    Args:
        campaign: The campaign.
    """

    def __init__(self, campaign: Campaign) -> None:
        self.campaign: Campaign = campaign
        self.status: str = CampaignState.REQUEST_PENDING
        self.cursor: int = 0
        self.devices: dict[str, DeviceStatus] = {device.device_id: device for device in campaign.intake}

    @property
    def is_queued(self) -> bool:
        """Tell whether it has not started: it can still be given other devices, and is cancelled, not aborted."""
        return self.status in {CampaignState.REQUEST_PENDING, CampaignState.QUEUED}

    @property
    def ended(self) -> bool:
        """Tell whether nothing more will happen."""
        return is_final_campaign(self.status)

    def next_at(self) -> float | None:
        """Return when the next step is due, in virtual seconds, None where there is none."""
        steps = self.campaign.steps
        return None if self.ended or self.cursor >= len(steps) else steps[self.cursor].at

    def advance(self) -> Step:
        """Take the next step."""
        step = self.campaign.steps[self.cursor]
        self.cursor += 1
        self._apply(step)
        return step

    def stop(self) -> tuple[Step, ...]:
        """Cancel the campaign, or abort it once it has started; return the changes.

        Source: "deleting after the start date aborts" (documented).
        """
        campaign_status, device_status = (
            (CampaignState.CANCELLED, DeviceState.CANCELLED)
            if self.is_queued
            else (CampaignState.ABORTED, DeviceState.ABORTED)
        )
        changes = [
            Step(0.0, device_status, device.device_id)
            for device in self.devices.values()
            if not is_final_device(device.status)
        ]
        changes.append(Step(0.0, campaign_status))
        for change in changes:
            self._apply(change)
        return tuple(changes)

    def change(self, campaign: Campaign) -> None:
        """Go on with another plan: the steps that were taken are the first of it.

        Args:
            campaign: The same campaign with other devices, or with other dates.
        """
        known = self.devices
        self.campaign = campaign
        self.devices = {device.device_id: known.get(device.device_id, device) for device in campaign.intake}

    def _apply(self, step: Step) -> None:
        if step.device_id is None:
            self.status = step.status
        else:
            self.devices[step.device_id] = DeviceStatus(step.device_id, step.status, step.reason)


def is_imei(text: str) -> bool:
    """Tell whether a text may be a device's identifier: 14 to 16 digits; a check digit is not checked."""
    return _IMEI.fullmatch(text) is not None
