"""Which campaigns are to be read: every one that something can be missing of. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from upcall.thingspace import is_final_campaign, is_final_device, normalize_campaign, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from upcall.inbox import CampaignRecord
    from upcall.registration.outages import Span
    from upcall.registration.reconcile.pages import ReportedCampaign

__all__ = ["DAY_MICROS", "choose", "is_open", "window_start"]

DAY_MICROS: Final = 86_400_000_000

_ON_DEMAND: Final = timedelta(days=7)
"""A campaign on demand ends a week after its start. Source: campaign lifecycle V2 (documented)."""
_DOUBT: Final = timedelta(days=2)
"""Dates have no zone and no hour, and a state may change a while after the end."""


def choose(
    listed: Iterable[ReportedCampaign], known: Mapping[str, CampaignRecord], since: int
) -> list[ReportedCampaign]:
    """Return the campaigns whose devices are to be read, in the report's order.

    One too many costs a request, one too few loses a state. So only those are left out that ended before the window by
    their dates, by the provider's word and by ours.

    Args:
        listed: What the provider has.
        known: What callbacks told, by the campaign's id.
        since: From when on callbacks may be missing, UTC microseconds.
    """
    return [campaign for campaign in listed if _matters(campaign, known.get(campaign.campaign_id), since)]


def window_start(outages: Iterable[Span], now: int) -> int:
    """Return from when on callbacks may be missing: a day ago, or earlier where the last outage began before.

    Args:
        outages: When callbacks could not arrive, as far as is known.
        now: The time.
    """
    return min(now - DAY_MICROS, max((span.start for span in outages), default=now))


def is_open(record: CampaignRecord) -> bool:
    """Tell whether a campaign, or any of its devices, is not final as callbacks tell it."""
    if record.status is None or not is_final_campaign(record.status):
        return True
    return any(count and not is_final_device(status) for status, count in record.devices.items())


def _matters(campaign: ReportedCampaign, record: CampaignRecord | None, since: int) -> bool:
    if campaign.status is None or not is_final_campaign(campaign.status):
        return True
    if record is not None and (is_open(record) or record.last_at >= since or _disagree(record, campaign.status)):
        return True
    end = _latest_end(campaign.members)
    return end is None or end >= datetime.fromtimestamp(max(since, 0) / 1e6, UTC)


def _disagree(record: CampaignRecord, status: str) -> bool:
    return record.status is not None and normalize_campaign(record.status) != normalize_campaign(status)


def _latest_end(members: Mapping[str, Any]) -> datetime | None:
    """Return when a campaign was over at the latest, by its dates, None where they do not tell."""
    end, start = _moment(members.get("endDate")), _moment(members.get("startDate"))
    if end is None or start is None:
        return None
    try:
        return max(end, start + _ON_DEMAND) + _DOUBT
    except OverflowError:
        return None


def _moment(value: Any) -> datetime | None:
    micros = parse_time(value).micros if isinstance(value, str) else None
    return None if micros is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
