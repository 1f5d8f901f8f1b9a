"""Callbacks that are made of the provider's reports: which report is news, and which real callback then is none.

A real callback that says what a report said before merges with it: whoever was told by the one is not called for the
other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from upcall.inbox.readmodel import CampaignView, fold_campaign, fold_device, is_campaign_news, is_news
from upcall.inbox.values import DeviceRecord, Origin
from upcall.thingspace import CallbackEvent, DeviceUpdate, is_final_campaign, normalize_campaign, normalize_device

if TYPE_CHECKING:
    from collections.abc import Collection

    from upcall.inbox.journal import Reported

__all__ = ["CONFIRMED_BY", "Fact", "Known", "Merger", "News", "Said", "reported_state", "said_by"]

CONFIRMED_BY = "the provider's report says so"
"""The evidence of a reconciled callback's trust."""

Fact = tuple[str, str]
"""A device and its normalised state; without a device, the campaign's own state."""
Known = DeviceRecord | CampaignView | None
"""A device or a campaign as the callbacks tell it."""


def reported_state(report: Reported) -> str:
    """Return the normalised state of a report's device, or of its campaign."""
    return str(normalize_device(report.status) if report.device_id else normalize_campaign(report.status))


class News:
    """Tell which of a series of reports are news, each beside those before it."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, ...]] = set()
        self._told: dict[tuple[str, ...], Known] = {}

    def take(self, report: Reported, known: Collection[Known], *, was_reported: bool, now: int) -> bool:
        """Tell whether a report is news, and count it among what was told.

        Args:
            report: The report.
            known: What callbacks tell of its device or campaign, under each account that they may have named.
            was_reported: Whether the store holds a report that says the same.
            now: The time.
        """
        place = (report.account, report.campaign_id, report.device_id)
        fact = (*place, reported_state(report))
        told = self._told.get(place)
        if was_reported or fact in self._taken or not report.status:
            return False
        if not all(_is_news_to(each, report) for each in (told, *known)):
            return False
        self._taken.add(fact)
        self._told[place] = _after(told, report, now)
        return True


def _is_news_to(known: Known, report: Reported) -> bool:
    if isinstance(known, CampaignView):
        return is_campaign_news(known, report.status)
    return is_news(known, report.status)


def _after(told: Known, report: Reported, now: int) -> Known:
    if report.device_id:
        before = told if isinstance(told, DeviceRecord) else None
        return fold_device(before, DeviceUpdate(device_id=report.device_id, status=report.status), now)
    view = told if isinstance(told, CampaignView) else None
    return fold_campaign(view, CallbackEvent(campaign_status=report.status), now)


class Said(msgspec.Struct, frozen=True):
    """Hold what a real callback says that reports say too.

    Args:
        callback_id: The callback.
        campaign_id: Of which campaign.
        account: Of whose, None where neither the callback nor its token tells.
        facts: Of each device that it names its state; where it names none, the campaign's own.
        is_whole: Whether each device that it names has a state.
        ending: Beside the devices that it names, that the campaign is over; else None.
    """

    callback_id: int
    campaign_id: str
    account: str | None
    facts: tuple[Fact, ...]
    is_whole: bool = True
    ending: Fact | None = None


def said_by(event: CallbackEvent) -> Said | None:
    """Return what a stored callback says that reports say too; None where that is nothing, or it is none of theirs."""
    if event.campaign_id is None or event.origin != Origin.RECEIVED:
        return None
    own = None if event.campaign_status is None else ("", str(normalize_campaign(event.campaign_status)))
    if not event.devices:
        return None if own is None else Said(event.id, event.campaign_id, event.account, (own,))
    facts = dict.fromkeys((device.device_id, state) for device in event.devices if (state := device.state) is not None)
    is_whole = all(device.status is not None for device in event.devices)
    ending = own if own is not None and is_final_campaign(own[1]) else None
    return Said(event.id, event.campaign_id, event.account, tuple(facts), is_whole, ending)


class Merger(msgspec.Struct, frozen=True):
    """Hold what a real callback merges with.

    Args:
        said: What it says.
        reports: What of that was reported, and by which reconciled callback, for this real one to merge with.
        is_ending_told: Whether it was reported that the campaign is over.
    """

    said: Said
    reports: Mapping[Fact, int]
    is_ending_told: bool = False

    def behind(self, device_id: str) -> list[int]:
        """Return the reconciled callbacks that together told all that a piece of work is about, oldest first.

        None where they did not. Whoever takes whole callbacks is to hear of the campaign's end too.

        Args:
            device_id: The device that the work is for, empty where it is for the callback as a whole.
        """
        if not device_id and not (self.said.is_whole and (self.said.ending is None or self.is_ending_told)):
            return []
        facts = [fact for fact in self.said.facts if device_id in {"", fact[0]}]
        if any(fact not in self.reports for fact in facts):
            return []
        return sorted({self.reports[fact] for fact in facts})
