"""Runs campaigns: takes each step when it is due, and hands the callback that it makes to the delivery engine."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.sandbox import messages
from upcall.sandbox.campaigns import Campaign, Progress
from upcall.sandbox.planning import with_dates, with_devices, without_devices
from upcall.thingspace import CampaignState, is_final_device

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from upcall.sandbox.campaigns import CampaignRequest, Step
    from upcall.sandbox.clock import Agenda, Entry
    from upcall.sandbox.messages import Callback
    from upcall.sandbox.persistence import Saved, Store
    from upcall.sandbox.state import Randomness

__all__ = ["CampaignRunner"]

_STEPS_AT_ONCE: Final = 200
"""Steps that are taken without letting anybody else run: a fast campaign must not keep requests waiting."""


class _Kept(msgspec.Struct, frozen=True):
    """Hold how far a campaign is.

    Args:
        cursor: The steps that were taken.
        told: Where it was stopped, how many of the changes by that were told of; None where it was not.
    """

    cursor: int
    told: int | None = None


class CampaignRunner:
    """Keep all campaigns and move them on.

    Args:
        store: Where they are kept for good.
        agenda: What waits for the next step.
        submit: Takes over a callback.
        speed: What the virtual time of new campaigns is divided by.
        saved: What was kept before.

    Raises:
        msgspec.DecodeError: What was kept is not ours.
    """

    def __init__(
        self,
        *,
        store: Store,
        agenda: Agenda,
        submit: Callable[[Callback], object],
        speed: float,
        saved: Saved | None = None,
    ) -> None:
        self._store = store
        self._agenda = agenda
        self._submit = submit
        self._speed = speed
        self._all: dict[str, Progress] = {}
        self._next: dict[str, Entry] = {}
        self._stopped: dict[str, tuple[Step, ...]] = {}
        self._told: dict[str, int] = {}
        campaigns = [msgspec.json.decode(value, type=Campaign) for value in (saved or {}).get("campaign", {}).values()]
        for campaign in sorted(campaigns, key=lambda one: one.number):
            self._restore(campaign, (saved or {}).get("progress", {}).get(campaign.id))

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Progress]:
        return iter(self._all.values())

    def resume(self) -> None:
        """Go on with the campaigns of an earlier run; what fell due meanwhile happens now, in order."""
        for progress in self._all.values():
            self._plan(progress)
            if progress.campaign.id in self._stopped:
                self._tell_of_stop(progress)

    def add(self, campaign: Campaign) -> Progress:
        """Start a campaign, at the runner's speed."""
        campaign = msgspec.structs.replace(campaign, speed=self._speed, number=len(self._all) + 1)
        progress = Progress(campaign)
        self._all[campaign.id] = progress
        self._keep_campaign(progress)
        self._keep_progress(progress)
        self._plan(progress)
        return progress

    def get(self, campaign_id: str) -> Progress | None:
        """Return a campaign, None where there is none of that identifier."""
        return self._all.get(campaign_id)

    def of(self, account: str) -> Iterator[Progress]:
        """Return an account's campaigns, oldest first."""
        return (progress for progress in self._all.values() if progress.campaign.account == account)

    def busy(self, account: str) -> set[str]:
        """Return the devices that a running campaign of the account still has."""
        return {
            device.device_id
            for progress in self.of(account)
            if not progress.ended
            for device in progress.devices.values()
            if not is_final_device(device.status)
        }

    def stop(self, progress: Progress) -> None:
        """Cancel or abort a campaign and tell of every device that it changes."""
        self._stopped[progress.campaign.id] = progress.stop()
        self._told[progress.campaign.id] = 0
        self._plan(progress)
        self._tell_of_stop(progress)

    def _tell_of_stop(self, progress: Progress) -> None:
        """Tell of some of the changes, and of the others when everybody else had a turn."""
        name = progress.campaign.id
        changes, told = self._stopped[name], self._told[name]
        for change in changes[told : told + _STEPS_AT_ONCE]:
            self._tell(progress, change)
        self._told[name] = min(told + _STEPS_AT_ONCE, len(changes))
        self._keep_progress(progress)
        if self._told[name] < len(changes):
            self._agenda.at(self._agenda.clock.now(), partial(self._tell_of_stop, progress))

    def change_request(self, progress: Progress, request: CampaignRequest) -> None:
        """Give a campaign other dates and windows."""
        self._change(progress, with_dates(progress, request, self._at(progress)))

    def add_devices(self, progress: Progress, device_ids: Sequence[str], random: Randomness) -> None:
        """Take more devices into a campaign that has not started, and tell of them."""
        account, known = progress.campaign.account, frozenset(progress.devices)
        campaign = with_devices(progress, device_ids, busy=self.busy(account), at=self._at(progress), random=random)
        self._change(progress, campaign)
        new = [device for device in campaign.intake if device.device_id not in known]
        if new and progress.status == CampaignState.QUEUED:
            for callback in messages.scheduled(campaign, progress.status, new):
                self._submit(callback)

    def remove_devices(self, progress: Progress, device_ids: Collection[str]) -> None:
        """Let go of devices of a campaign that has not started."""
        self._change(progress, without_devices(progress, device_ids))

    def _at(self, progress: Progress) -> float:
        """Return the virtual seconds since a campaign was scheduled."""
        return (self._agenda.clock.now() - progress.campaign.scheduled_at) * progress.campaign.speed

    def _change(self, progress: Progress, campaign: Campaign) -> None:
        progress.change(campaign)
        self._keep_campaign(progress)
        self._plan(progress)

    def _plan(self, progress: Progress, not_before: float = 0.0) -> None:
        entry = self._next.pop(progress.campaign.id, None)
        if entry is not None:
            entry.cancel()
        due = self._due(progress)
        if due is not None:
            self._next[progress.campaign.id] = self._agenda.at(max(due, not_before), partial(self._run, progress))

    def _due(self, progress: Progress) -> float | None:
        at = progress.next_at()
        return None if at is None else progress.campaign.scheduled_at + at / progress.campaign.speed

    def _run(self, progress: Progress) -> None:
        now = self._agenda.clock.now()
        for _ in range(_STEPS_AT_ONCE):
            due = self._due(progress)
            if due is None or due > now:
                break
            self._tell(progress, progress.advance())
        self._keep_progress(progress)
        self._plan(progress, self._agenda.clock.now())

    def _tell(self, progress: Progress, step: Step) -> None:
        campaign = progress.campaign
        if step.device_id is not None:
            self._submit(messages.progress(campaign, progress.status, progress.devices[step.device_id]))
        elif step.status == CampaignState.QUEUED:
            for callback in messages.scheduled(campaign, step.status, campaign.intake):
                self._submit(callback)
        elif progress.ended:
            self._submit(messages.finished(campaign, step.status))

    def _keep_campaign(self, progress: Progress) -> None:
        self._store.put("campaign", progress.campaign.id, partial(msgspec.json.encode, progress.campaign))

    def _keep_progress(self, progress: Progress) -> None:
        kept = _Kept(progress.cursor, self._told.get(progress.campaign.id))
        self._store.put("progress", progress.campaign.id, msgspec.json.encode(kept))

    def _restore(self, campaign: Campaign, kept: bytes | None) -> None:
        self._all[campaign.id] = progress = Progress(campaign)
        if kept is None:
            return
        where = msgspec.json.decode(kept, type=_Kept)
        for _ in range(where.cursor):
            progress.advance()
        if where.told is not None:
            self._stopped[campaign.id] = progress.stop()
            self._told[campaign.id] = where.told
