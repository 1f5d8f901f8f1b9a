"""Reading the provider's reports, page by page and no faster than agreed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from upcall.errors import AnsweredError, FotaV2ResultException
from upcall.registration.reconcile.pages import ReportedCampaign, read_campaign, read_campaigns, read_devices
from upcall.registration.reconcile.walking import Walk

if TYPE_CHECKING:
    from collections.abc import Callable

    from upcall.client import ThingSpaceClient
    from upcall.registration.reconcile.pace import Pace
    from upcall.registration.reconcile.pages import CampaignPage, DevicePage

__all__ = ["STATUSES", "Listing", "Reader", "StoppedError"]

STATUSES: Final = (
    "CampaignRequestPending",
    "CampaignRequestFailed",
    "CampaignRequestQueued",
    "CampaignQueued",
    "CampaignScheduled",
    "CampaignFailed",
    "CampaignEnded",
    "CampaignCancelled",
    "CampaignAborted",
)
"""What to ask for one by one where all at once is refused.

Source: official SDK, ``CampaignStatusEnum``, and ``CampaignQueued``, as the pages call ``CampaignRequestQueued``
(documented).
"""

_UNKNOWN: Final = frozenset({400, 404})
"""How a campaign that there is not may be answered. Source: 400, ``Invalid upgradeId`` (documented); 404 (assumed)."""


class StoppedError(Exception):
    """Say that the run is to end before the next request."""


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """Hold an account's campaigns.

    Args:
        campaigns: The campaigns, each once.
        remarks: What a person should know of how they were read.
        trouble: Why these need not be all, None where they are.
    """

    campaigns: tuple[ReportedCampaign, ...] = ()
    remarks: tuple[str, ...] = ()
    trouble: str | None = None


class Reader:
    """Read one account's reports.

    Args:
        client: Calls the provider, and repeats by itself what may pass.
        account: The account.
        pace: Waits before each request.
        is_stopping: Tells whether the run is to end.
    """

    def __init__(self, client: ThingSpaceClient, account: str, *, pace: Pace, is_stopping: Callable[[], bool]) -> None:
        self._campaigns = client.campaigns_v2
        self._reports = client.software_management_reports_v2
        self._account = account
        self._pace = pace
        self._is_stopping = is_stopping

    def campaigns(self, *, some_expected: bool) -> Listing:
        """Read all campaigns of the account.

        The SDK always asks for one status. Whether the provider answers without is unknown: where it refuses, or names
        none although callbacks did, it is asked for one status after the other.

        Args:
            some_expected: Whether callbacks told of campaigns that are not over.

        Raises:
            ThingSpaceError: They cannot be read.
            StoppedError: The run is to end.
        """
        try:
            listing = self._walk(None)
        except FotaV2ResultException as refused:
            why = f"ThingSpace refuses to list campaigns without a status ({_words(refused)})"
            return self._by_status(why, refused)
        if listing.campaigns or not some_expected:
            return listing
        return self._by_status("ThingSpace lists no campaign without a status", None)

    def campaign(self, campaign_id: str) -> ReportedCampaign | None:
        """Read one campaign, None where the provider says that it has none of that name.

        Raises:
            ThingSpaceError: It cannot be read.
            StoppedError: The run is to end.
        """
        self._before()
        try:
            return read_campaign(self._campaigns.get_campaign_information(self._account, campaign_id))
        except AnsweredError as error:
            if error.status_code in _UNKNOWN:
                return None
            raise
        except ValueError:  # a callback may name what no call can: "..", say
            return None

    def devices(self, campaign_id: str, last_seen: str) -> DevicePage:
        """Read one page of a campaign's devices.

        Raises:
            ThingSpaceError: It cannot be read.
            StoppedError: The run is to end.
        """
        self._before()
        return read_devices(self._reports.get_campaign_device_status(self._account, campaign_id, last_seen))

    def _by_status(self, why: str, refused: FotaV2ResultException | None) -> Listing:
        found: dict[str, ReportedCampaign] = {}
        unknown, troubles, remarks = [], [], [f"{why}: it was asked for one status after the other."]
        for status in STATUSES:
            try:
                listing = self._walk(status)
            except FotaV2ResultException as error:
                unknown.append(status)
                refused = refused or error
                continue
            found |= {campaign.campaign_id: campaign for campaign in listing.campaigns}
            remarks += listing.remarks
            troubles += [listing.trouble] if listing.trouble else []
        if refused is not None and len(unknown) == len(STATUSES):
            raise refused
        if unknown:
            remarks.append(f"ThingSpace refuses to list campaigns by {', '.join(unknown)}.")
        return Listing(
            campaigns=tuple(found.values()),
            remarks=tuple(dict.fromkeys(remarks)),
            trouble="; ".join(troubles) or None,
        )

    def _walk(self, status: str | None) -> Listing:
        found: dict[str, ReportedCampaign] = {}
        walk, unreadable = Walk(None), 0
        while not walk.is_over:
            page = self._page(status, walk.position)
            found |= {campaign.campaign_id: campaign for campaign in page.campaigns}
            unreadable += page.unreadable
            walk.take(page)
        of = f" by {status}" if status else ""
        return Listing(
            campaigns=tuple(found.values()),
            remarks=(f"{unreadable} entries of the list of campaigns{of} name no campaign.",) if unreadable else (),
            trouble=f"The list of campaigns{of} {walk.trouble}" if walk.trouble else None,
        )

    def _page(self, status: str | None, last_seen: str | None) -> CampaignPage:
        self._before()
        return read_campaigns(self._reports.get_campaign_history_by_status(self._account, status, last_seen))

    def _before(self) -> None:
        if self._is_stopping():
            raise StoppedError
        self._pace.wait()


def _words(error: FotaV2ResultException) -> str:
    return error.error_message or error.error_code or f"status {error.status_code}"
