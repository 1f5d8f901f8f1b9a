"""Runs campaigns: takes each step when it is due, and hands the callback that it makes to the delivery engine."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.sandbox import messages
from upcall.sandbox.campaigns import Campaign, Progress
from upcall.thingspace import CampaignState, is_final_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from upcall.sandbox.campaigns import CampaignRequest, Step
    from upcall.sandbox.clock import Agenda
    from upcall.sandbox.messages import Callback
    from upcall.sandbox.persistence import Saved, Store

__all__ = ["CampaignRunner"]

_STEPS_AT_ONCE: Final = 200
"""Steps that are taken without letting anybody else run: a fast campaign must not keep requests waiting."""


class _Kept(msgspec.Struct, frozen=True):
    cursor: int
    stopped: bool = False


class CampaignRunner:
    """Keep all campaigns and move them on.

    Args:
        store: Where they are kept for good.
        agenda: What waits for the next step.
        submit: Takes over a callback.
        speed: What virtual time is divided by.
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
        for raw in sorted(
            (msgspec.json.decode(value, type=Campaign) for value in (saved or {}).get("campaign", {}).values()),
            key=lambda campaign: campaign.scheduled_at,
        ):
            self._all[raw.id] = _restored(raw, (saved or {}).get("progress", {}).get(raw.id))

    def __len__(self) -> int:
        return len(self._all)

    def resume(self) -> None:
        """Go on with the campaigns of an earlier run; what fell due meanwhile happens now, in order."""
        for progress in self._all.values():
            self._plan(progress)

    def add(self, campaign: Campaign) -> Progress:
        """Start a campaign."""
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
        for change in progress.stop():
            self._tell(progress, change)
        self._keep_progress(progress, stopped=True)

    def change_request(self, progress: Progress, request: CampaignRequest) -> None:
        """Give a campaign another request, such as one with other dates."""
        progress.campaign = msgspec.structs.replace(progress.campaign, request=request)
        self._keep_campaign(progress)

    def _plan(self, progress: Progress) -> None:
        due = self._due(progress)
        if due is not None:
            self._agenda.at(due, partial(self._run, progress))

    def _due(self, progress: Progress) -> float | None:
        at = progress.next_at()
        return None if at is None else progress.campaign.scheduled_at + at / self._speed

    def _run(self, progress: Progress) -> None:
        if progress.ended:
            return  # stopped meanwhile
        now = self._agenda.clock.now()
        for _ in range(_STEPS_AT_ONCE):
            due = self._due(progress)
            if due is None or due > now:
                break
            self._tell(progress, progress.advance())
        self._keep_progress(progress)
        due = self._due(progress)
        if due is not None:
            self._agenda.at(max(due, self._agenda.clock.now()), partial(self._run, progress))

    def _tell(self, progress: Progress, step: Step) -> None:
        campaign = progress.campaign
        if step.device_id is not None:
            self._submit(messages.progress(campaign, progress.status, progress.devices[step.device_id]))
        elif step.status == CampaignState.QUEUED:
            for callback in messages.scheduled(campaign, step.status):
                self._submit(callback)
        elif progress.ended:
            self._submit(messages.finished(campaign, step.status))

    def _keep_campaign(self, progress: Progress) -> None:
        self._store.put("campaign", progress.campaign.id, msgspec.json.encode(progress.campaign))

    def _keep_progress(self, progress: Progress, *, stopped: bool = False) -> None:
        kept = _Kept(progress.cursor, stopped)
        self._store.put("progress", progress.campaign.id, msgspec.json.encode(kept))


def _restored(campaign: Campaign, kept: bytes | None) -> Progress:
    progress = Progress(campaign)
    if kept is not None:
        where = msgspec.json.decode(kept, type=_Kept)
        for _ in range(where.cursor):
            progress.advance()
        if where.stopped:
            progress.stop()
    return progress
