"""Campaigns: what a request asks for, what will become of each device, and where it stands, without I/O.

A plan is drawn up when the campaign is scheduled: a list of steps in virtual seconds from then. Who runs it divides
them by the speed. Dates and windows are kept as they were sent, and are not obeyed: a campaign starts at once.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any, Final

import msgspec

from upcall.thingspace import CampaignState, DeviceState, is_final_campaign, is_final_device

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from upcall.sandbox.state import Randomness

__all__ = [
    "FAILURE_REASONS",
    "REJECTION_REASONS",
    "SUCCESS_REASON",
    "Campaign",
    "CampaignRequest",
    "DeviceStatus",
    "Progress",
    "SandboxOptions",
    "Step",
    "TimeWindow",
    "campaign_answer",
    "new_campaign",
]

REJECTION_REASONS: Final = (
    "Device not found",
    "Device is already in another upgrade",
    "Device is not FOTA capable",
    "Invalid IMEI",
    "Software prerequisite not met",
    "Make or model not met",
    "Device is not active",
    "Internal error",
)
"""Why a device is rejected. Source: campaign lifecycle V2 lists the cases (documented); the wording is ours."""

FAILURE_REASONS: Final = (
    "RovaClientDidNotReportStatus",
    "RovaClientDownloadFailed",
    "RovaClientDownloadNotInstalledYet",
    "RovaClientDownloadedInstallFailed",
    "Uknown device error.",
    "Other",
)
"""Why an upgrade fails, with the provider's spelling. Source: campaign lifecycle V2 (documented)."""

SUCCESS_REASON: Final = "DownloadInstallSucceeded"
"""Source: official SDK, an example (documented)."""

_IMEI: Final = re.compile(r"[0-9]{14,16}")
_REJECTED_SHARE: Final = 0.05
_FAILING_SHARE: Final = 0.10
# Shares of the virtual time: the start date is reached, devices check in, the upgrade runs, the campaign ends.
_STARTED_AT: Final = 0.01
_CHECK_IN: Final = (0.02, 0.70)
_UPGRADE: Final = (0.05, 0.27)
_ENDS_AFTER: Final = 0.01


class TimeWindow(msgspec.Struct, frozen=True, rename="camel"):
    """Hold hours of the day. Source: official SDK, ``V2TimeWindow`` (documented).

    Args:
        start_time: 0 to 23.
        end_time: 1 to 24.
    """

    start_time: int
    end_time: int


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


class SandboxOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what a request may ask of the sandbox in its ``_sandbox`` member, which no provider reads.

    Args:
        hours: The virtual time within which every device is final.
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


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a campaign as it was scheduled, and its plan.

    Args:
        id: The provider's identifier, a UUID.
        account: Whose.
        request: What it was asked for.
        scheduled_at: When, in seconds of the sandbox's clock.
        intake: Each device as it was accepted or rejected, in the request's order.
        steps: What happens, in order of time.
    """

    id: str
    account: str
    request: CampaignRequest
    scheduled_at: float
    intake: tuple[DeviceStatus, ...]
    steps: tuple[Step, ...]


class Progress:
    """Keep where a campaign and its devices stand.

    Args:
        campaign: The campaign.
    """

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.status: str = CampaignState.REQUEST_PENDING
        self.cursor: int = 0
        self.devices: dict[str, DeviceStatus] = {device.device_id: device for device in campaign.intake}

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
        queued = self.status in {CampaignState.REQUEST_PENDING, CampaignState.QUEUED}
        campaign_status, device_status = (
            (CampaignState.CANCELLED, DeviceState.CANCELLED) if queued else (CampaignState.ABORTED, DeviceState.ABORTED)
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

    def _apply(self, step: Step) -> None:
        if step.device_id is None:
            self.status = step.status
        else:
            self.devices[step.device_id] = DeviceStatus(step.device_id, step.status, step.reason)


def new_campaign(
    request: CampaignRequest,
    device_ids: Sequence[str],
    *,
    account: str,
    now: float,
    options: SandboxOptions,
    busy: Collection[str],
    ids: Randomness,
    random: Randomness,
) -> Campaign:
    """Draw up a campaign: its identifier, which devices are rejected, and what becomes of the others.

    Args:
        request: What was asked for.
        device_ids: The devices, each once.
        account: Whose campaign.
        now: Seconds of the sandbox's clock.
        options: How long it takes and how many fail.
        busy: Devices that another campaign still has.
        ids: Where the identifier comes from.
        random: What decides the devices' fates.
    """
    intake = _intake(device_ids, busy, options.rejected, random)
    accepted = [device.device_id for device in intake if device.status == DeviceState.ACCEPTED]
    return Campaign(
        id=str(uuid.UUID(int=ids.getrandbits(128), version=4)),
        account=account,
        request=request,
        scheduled_at=now,
        intake=intake,
        steps=_steps(accepted, options.hours * 3600.0, options.failing, random),
    )


def _intake(
    device_ids: Sequence[str], busy: Collection[str], rejected: int | None, random: Randomness
) -> tuple[DeviceStatus, ...]:
    reasons: dict[str, str] = {}
    for device_id in device_ids:
        if not _IMEI.fullmatch(device_id):
            reasons[device_id] = "Invalid IMEI"
        elif device_id in busy:
            reasons[device_id] = "Device is already in another upgrade"
    sound = [device_id for device_id in device_ids if device_id not in reasons]
    reasons |= {
        device_id: _pick(REJECTION_REASONS, random) for device_id in _some(sound, rejected, _REJECTED_SHARE, random)
    }
    return tuple(
        DeviceStatus(device_id, DeviceState.REJECTED, reasons[device_id])
        if device_id in reasons
        else DeviceStatus(device_id, DeviceState.ACCEPTED)
        for device_id in device_ids
    )


def _steps(accepted: Sequence[str], span_seconds: float, failing: int | None, random: Randomness) -> tuple[Step, ...]:
    fated = set(_some(accepted, failing, _FAILING_SHARE, random))
    steps = [Step(span_seconds * _STARTED_AT, CampaignState.SCHEDULED)]
    for device_id in accepted:
        pending_at = span_seconds * _between(_CHECK_IN, random)
        final_at = pending_at + span_seconds * _between(_UPGRADE, random)
        steps.append(Step(pending_at, DeviceState.UPGRADE_PENDING, device_id))
        if device_id in fated:
            steps.append(Step(final_at, DeviceState.UPGRADE_FAILED, device_id, _pick(FAILURE_REASONS, random)))
        else:
            steps.append(Step(final_at, DeviceState.UPGRADE_SUCCESS, device_id, SUCCESS_REASON))
    steps.sort(key=lambda step: step.at)
    steps.append(Step(steps[-1].at + span_seconds * _ENDS_AFTER, CampaignState.ENDED))
    return (Step(0.0, CampaignState.QUEUED), *steps)


def _some(from_: Sequence[str], count: int | None, share: float, random: Randomness) -> list[str]:
    """Pick so many at random, or each with a chance of `share`."""
    if count is None:
        return [item for item in from_ if random.random() < share]
    pool = list(from_)
    picked = []
    for _ in range(min(count, len(pool))):
        index = random.randrange(len(pool))
        pool[index], pool[-1] = pool[-1], pool[index]
        picked.append(pool.pop())
    return picked


def _pick(from_: Sequence[str], random: Randomness) -> str:
    return from_[random.randrange(len(from_))]


def _between(bounds: tuple[float, float], random: Randomness) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * random.random()


def campaign_answer(progress: Progress) -> dict[str, Any]:
    """Return a campaign as the API gives it. Source: official SDK, ``CampaignSoftware`` (documented)."""
    campaign = progress.campaign
    return {
        "id": campaign.id,
        "accountName": campaign.account,
        **msgspec.to_builtins(campaign.request),
        "make": "Upcall",
        "model": "Sandbox",
        "status": progress.status,
    }
