"""What becomes of a campaign's devices, drawn up when the campaign takes them on, without I/O.

A plan is a list of steps in virtual seconds since the campaign was scheduled; who runs it divides them by the speed.
With ``_sandbox.hours`` everything happens within that virtual time. Without it the calendar is obeyed: the campaign
starts and ends by its dates, and a device does nothing before it checks in inside a window. A campaign's calendar
begins with the time of day at which it was scheduled, and passes at the sandbox's speed.
"""

from __future__ import annotations

import math
import uuid
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.sandbox.campaigns import Campaign, DeviceStatus, Fate, Step, is_imei
from upcall.thingspace import CampaignState, DeviceState, is_final_device

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from upcall.sandbox.campaigns import CampaignRequest, Progress, SandboxOptions, TimeWindow
    from upcall.sandbox.state import Randomness

__all__ = [
    "FAILURE_REASONS",
    "REJECTION_REASONS",
    "SUCCESS_REASON",
    "new_campaign",
    "with_dates",
    "with_devices",
    "without_devices",
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

DID_NOT_REPORT: Final = "RovaClientDidNotReportStatus"
DOWNLOAD_FAILED: Final = "RovaClientDownloadFailed"
NOT_INSTALLED_YET: Final = "RovaClientDownloadNotInstalledYet"

FAILURE_REASONS: Final = (
    DID_NOT_REPORT,
    DOWNLOAD_FAILED,
    NOT_INSTALLED_YET,
    "RovaClientDownloadedInstallFailed",
    "Uknown device error.",
    "Other",
)
"""Why an upgrade fails, with the provider's spelling. Source: campaign lifecycle V2 (documented)."""

SUCCESS_REASON: Final = "DownloadInstallSucceeded"
"""Source: official SDK, an example (documented)."""

_REJECTED_SHARE: Final = 0.05
_FAILING_SHARE: Final = 0.10

# Within hours: shares of the virtual time. The start is reached, devices check in, the upgrade runs, the campaign ends.
_STARTED_AT: Final = 0.01
_CHECK_IN: Final = (0.02, 0.70)
_UPGRADE: Final = (0.05, 0.27)
_ENDS_AFTER: Final = 0.01

# By the calendar, in virtual seconds. That devices check in on their own schedule is documented; how often is not.
_DAY: Final = 86_400.0
_EVERY: Final = (3_600.0, 6 * 3_600.0)
_DOWNLOAD: Final = (300.0, 3_600.0)
_INSTALL: Final = (120.0, 1_200.0)
_A_MOMENT: Final = 1.0
"""Between a step and the one that follows at once."""


def new_campaign(
    request: CampaignRequest,
    device_ids: Sequence[str],
    *,
    account: str,
    now: float,
    options: SandboxOptions | None,
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
        options: How long it takes and how many fail; None to obey the calendar.
        busy: Devices that another campaign still has.
        ids: Where the identifier comes from.
        random: What decides the devices' fates.
    """
    intake = _intake(device_ids, busy, None if options is None else options.rejected, random)
    campaign = Campaign(
        id=str(new_id(ids)),
        account=account,
        request=request,
        scheduled_at=now,
        intake=intake,
        steps=(Step(0.0, CampaignState.QUEUED),),
        hours=None if options is None else options.hours,
    )
    accepted = _accepted(intake)
    if options is not None:
        span_seconds = options.hours * 3600.0
        steps = _hurried(accepted, span_seconds, options.failing, random)
        started = Step(span_seconds * _STARTED_AT, CampaignState.SCHEDULED)
        return _with_steps(campaign, (*campaign.steps, started), steps)
    return _by_calendar(msgspec.structs.replace(campaign, fates=_fates(accepted, random)), None, 0.0)


def with_devices(
    progress: Progress, device_ids: Sequence[str], *, busy: Collection[str], at: float, random: Randomness
) -> Campaign:
    """Take more devices into a campaign that has not started; those that it has stay as they are.

    Args:
        progress: The campaign.
        device_ids: The devices.
        busy: Devices that another campaign still has.
        at: Virtual seconds since the campaign was scheduled.
        random: What decides the devices' fates.
    """
    campaign = progress.campaign
    new = _intake([one for one in dict.fromkeys(device_ids) if one not in progress.devices], busy, None, random)
    taken, accepted = _taken(progress), _accepted(new)
    changed = msgspec.structs.replace(campaign, intake=campaign.intake + new)
    if campaign.hours is None:
        fates = campaign.fates + _fates(accepted, random)
        return _by_calendar(msgspec.structs.replace(changed, fates=fates), progress, at)
    steps = _hurried(accepted, campaign.hours * 3600.0, None, random)
    return _with_steps(changed, taken, [*_ahead(progress), *steps])


def without_devices(progress: Progress, device_ids: Collection[str]) -> Campaign:
    """Let go of devices of a campaign that has not started."""
    campaign, gone = progress.campaign, frozenset(device_ids)
    changed = msgspec.structs.replace(
        campaign,
        intake=tuple(device for device in campaign.intake if device.device_id not in gone),
        fates=tuple(fate for fate in campaign.fates if fate.device_id not in gone),
    )
    ahead = [step for step in _ahead(progress) if step.device_id not in gone]
    return _with_steps(changed, _taken(progress), ahead)


def with_dates(progress: Progress, request: CampaignRequest, at: float) -> Campaign:
    """Give a campaign other dates and windows: what has happened stays, the rest is planned anew.

    Args:
        progress: The campaign.
        request: The request with its new dates.
        at: Virtual seconds since the campaign was scheduled.
    """
    campaign = msgspec.structs.replace(progress.campaign, request=request)
    if campaign.hours is not None:
        return campaign
    return _by_calendar(campaign, progress, at)


def new_id(ids: Randomness) -> uuid.UUID:
    """Draw an identifier."""
    return uuid.UUID(int=ids.getrandbits(128), version=4)


# --- Who is taken on -------------------------------------------------------------------------------------------------


def _intake(
    device_ids: Sequence[str], busy: Collection[str], rejected: int | None, random: Randomness
) -> tuple[DeviceStatus, ...]:
    reasons: dict[str, str] = {}
    for device_id in device_ids:
        if not is_imei(device_id):
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


def _accepted(intake: Iterable[DeviceStatus]) -> list[str]:
    return [device.device_id for device in intake if device.status == DeviceState.ACCEPTED]


# --- Within hours ----------------------------------------------------------------------------------------------------


def _hurried(accepted: Sequence[str], span_seconds: float, failing: int | None, random: Randomness) -> list[Step]:
    fated = set(_some(accepted, failing, _FAILING_SHARE, random))
    steps: list[Step] = []
    for device_id in accepted:
        pending_at = span_seconds * _between(_CHECK_IN, random)
        final_at = pending_at + span_seconds * _between(_UPGRADE, random)
        steps.append(Step(pending_at, DeviceState.UPGRADE_PENDING, device_id))
        if device_id in fated:
            steps.append(Step(final_at, DeviceState.UPGRADE_FAILED, device_id, _pick(FAILURE_REASONS, random)))
        else:
            steps.append(Step(final_at, DeviceState.UPGRADE_SUCCESS, device_id, SUCCESS_REASON))
    return steps


def _taken(progress: Progress) -> tuple[Step, ...]:
    """Return the steps that were taken, and the first one, which is at once."""
    return progress.campaign.steps[: max(progress.cursor, 1)]


def _ahead(progress: Progress) -> list[Step]:
    """Return the other steps, without the last one."""
    ahead = progress.campaign.steps[max(progress.cursor, 1) :]
    return [step for step in ahead if step.status != CampaignState.ENDED]


def _with_steps(campaign: Campaign, taken: Sequence[Step], ahead: list[Step]) -> Campaign:
    """Put steps in order behind those that were taken, and end the campaign after the last one."""
    ahead.sort(key=lambda step: step.at)
    pause = _A_MOMENT if campaign.hours is None else campaign.hours * 3600.0 * _ENDS_AFTER
    last = ahead[-1] if ahead else taken[-1]
    return msgspec.structs.replace(campaign, steps=(*taken, *ahead, Step(last.at + pause, CampaignState.ENDED)))


# --- By the calendar -------------------------------------------------------------------------------------------------


def _fates(accepted: Sequence[str], random: Randomness) -> tuple[Fate, ...]:
    fated = set(_some(accepted, None, _FAILING_SHARE, random))
    fates = []
    for device_id in accepted:
        every = _between(_EVERY, random)
        fate = Fate(device_id, every, every * random.random(), _between(_DOWNLOAD, random), _between(_INSTALL, random))
        why = _pick(FAILURE_REASONS, random)
        fates.append(msgspec.structs.replace(fate, failure=why) if device_id in fated else fate)
    return tuple(fates)


def _by_calendar(campaign: Campaign, progress: Progress | None, at: float) -> Campaign:
    """Plan everything that is still to come.

    Args:
        campaign: The campaign as it is to be.
        progress: Where it stands; None for a new one.
        at: Virtual seconds since it was scheduled.
    """
    calendar = _Calendar(campaign, at)
    taken = campaign.steps if progress is None else _taken(progress)
    devices = {} if progress is None else progress.devices
    downloads = {step.device_id: step.at for step in taken if step.status == DeviceState.UPGRADE_PENDING}
    planned = {} if progress is None else {step.device_id: step for step in _ahead(progress)}
    ahead: list[Step] = []
    if not any(step.status == CampaignState.SCHEDULED for step in taken):
        ahead.append(Step(calendar.starts_at, CampaignState.SCHEDULED))
    for fate in campaign.fates:
        device = devices.get(fate.device_id)
        if device is None or not is_final_device(device.status):
            ahead += calendar.steps(fate, downloads.get(fate.device_id), planned.get(fate.device_id))
    return _with_steps(campaign, taken, ahead)


class _Calendar:
    """Say when a device of a campaign does what, in virtual seconds since the campaign was scheduled.

    Args:
        campaign: The campaign.
        at: Nothing is planned earlier.
    """

    def __init__(self, campaign: Campaign, at: float) -> None:
        request = campaign.request
        self._origin = campaign.scheduled_at
        self._not_before = at
        self._downloads = request.download_time_window_list or ()
        self._installs = request.install_time_window_list or ()
        self.starts_at: float = max(self._begin_of(request.start_date), at + _A_MOMENT)
        self._download_from = max(self.starts_at + _A_MOMENT, self._begin_of(request.download_after_date))
        self._install_from = self._begin_of(request.install_after_date)
        # Where the end is past, what is undone fails at once.
        self._ends_at = max(self._begin_of(request.end_date) + _DAY, self.starts_at + _A_MOMENT)

    def steps(self, fate: Fate, download_at: float | None, planned: Step | None) -> list[Step]:
        """Return a device's steps that are still to come.

        Args:
            fate: What is decided about it.
            download_at: When its download began, None where it has not.
            planned: Its last step as it was planned before, None where it was not.
        """
        steps: list[Step] = []
        if download_at is None:
            download_at = self._check_in(fate, self._download_from, self._downloads)
            if download_at is None:
                return [Step(self._ends_at, DeviceState.UPGRADE_FAILED, fate.device_id, DID_NOT_REPORT)]
            steps.append(Step(download_at, DeviceState.UPGRADE_PENDING, fate.device_id))
        return [*steps, self._last_step(fate, download_at + fate.download_seconds, planned)]

    def _last_step(self, fate: Fate, downloaded_at: float, planned: Step | None) -> Step:
        if downloaded_at >= self._ends_at or fate.failure == DID_NOT_REPORT:
            return Step(self._ends_at, DeviceState.UPGRADE_FAILED, fate.device_id, DID_NOT_REPORT)
        if fate.failure == DOWNLOAD_FAILED:
            return Step(downloaded_at, DeviceState.UPGRADE_FAILED, fate.device_id, DOWNLOAD_FAILED)
        install_at = self._installing_since(fate, planned)
        if install_at is None:
            earliest = max(downloaded_at, self._install_from, self._not_before)
            install_at = self._check_in(fate, earliest, self._installs)
        done_at = None if install_at is None else install_at + fate.install_seconds
        if done_at is None or done_at >= self._ends_at or fate.failure == NOT_INSTALLED_YET:
            return Step(self._ends_at, DeviceState.UPGRADE_FAILED, fate.device_id, NOT_INSTALLED_YET)
        if fate.failure is not None:
            return Step(done_at, DeviceState.UPGRADE_FAILED, fate.device_id, fate.failure)
        return Step(done_at, DeviceState.UPGRADE_SUCCESS, fate.device_id, SUCCESS_REASON)

    def _installing_since(self, fate: Fate, planned: Step | None) -> float | None:
        """Return when an installation began that is under way, None where none is."""
        if planned is None or planned.reason in {None, DID_NOT_REPORT, DOWNLOAD_FAILED, NOT_INSTALLED_YET}:
            return None
        began = planned.at - fate.install_seconds
        return began if began <= self._not_before else None

    def _check_in(self, fate: Fate, not_before: float, windows: Sequence[TimeWindow]) -> float | None:
        """Return when a device first checks in inside a window; None where that is not before the end."""
        for opens, closes in self._open_times(not_before, windows):
            steps = math.ceil((self._origin + opens - fate.phase_seconds) / fate.every_seconds)
            when = fate.phase_seconds + steps * fate.every_seconds - self._origin
            if when < min(closes, self._ends_at):
                return when
        return None

    def _open_times(self, not_before: float, windows: Sequence[TimeWindow]) -> Iterable[tuple[float, float]]:
        """Yield the times between then and the end at which a window is open, in their order."""
        if not windows:
            yield not_before, self._ends_at
            return
        spans = sorted((window.start_time * 3600.0, _closing(window) * 3600.0) for window in windows)
        # A day early: a window over midnight may be open already.
        midnight = math.floor((self._origin + not_before) / _DAY) * _DAY - self._origin - _DAY
        while midnight < self._ends_at:
            for opens, closes in spans:
                if midnight + closes > not_before:
                    yield max(midnight + opens, not_before), midnight + closes
            midnight += _DAY

    def _begin_of(self, text: str | None) -> float:
        """Return when a date begins, in UTC."""
        if text is None:
            return -math.inf
        return datetime.combine(date.fromisoformat(text), time(), UTC).timestamp() - self._origin


def _closing(window: TimeWindow) -> int:
    """Return the hour at which a window closes; one that ends before it begins goes over midnight (assumed)."""
    return window.end_time if window.end_time > window.start_time else window.end_time + 24


# --- Drawing ---------------------------------------------------------------------------------------------------------


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
