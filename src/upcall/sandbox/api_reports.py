"""Reports, devices and software: what a campaign's owner reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from upcall.sandbox.api_campaigns import campaign_answer, find_campaign
from upcall.sandbox.campaigns import is_imei
from upcall.sandbox.fleet import DISTRIBUTION_TYPE, SOFTWARE, fleet
from upcall.sandbox.http import Answer, RequestError, invalid_parameter, json_answer
from upcall.sandbox.models import (
    AccountDevice,
    CampaignPage,
    DeviceHistoryEntry,
    DevicePage,
    DeviceStatusPage,
    ReportedDevice,
    Software,
)
from upcall.thingspace import DeviceState, normalize_campaign

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upcall.sandbox.app import Sandbox
    from upcall.sandbox.http import Request

__all__ = ["PAGE_SIZE", "campaign_devices", "campaigns", "device_history", "devices", "software"]

PAGE_SIZE: Final = 1000
"""Entries in a page at most. Source: reports V3, the same model as V2's (documented)."""

_TIME: Final = "2026-01-15T00:00:00.000Z"
_GO_TIME: Final = "2026-01-15 00:00:00.000 +0000 UTC"
"""Two forms of time in one answer, as the provider's examples have (documented)."""


async def software(_: Sandbox, request: Request, account: str) -> Answer:  # noqa: ARG001 - all accounts have the same
    """Answer ``GET /software/{account}``: what can be installed."""
    wanted = request.query.get("distributionType")
    return json_answer([package for package in SOFTWARE if wanted in {None, "", package.distribution_type}])


async def devices(sandbox: Sandbox, request: Request, account: str) -> Answer:
    """Answer ``GET /devices/{account}``: the account's own devices, then those that its campaigns named."""
    known = dict.fromkeys(fleet(account))
    upgraded: dict[str, str] = {}
    for progress in sandbox.campaigns.of(account):
        known |= dict.fromkeys(progress.devices)
        for device in progress.devices.values():
            if device.status == DeviceState.UPGRADE_SUCCESS:
                upgraded[device.device_id] = progress.campaign.request.software_to
    wanted = request.query.get("distributionType")
    shown = [device_id for device_id in known if wanted in {None, "", DISTRIBUTION_TYPE}]
    page, more = _page(shown, request.query.get("lastSeenDeviceId"))
    return json_answer(
        DevicePage(
            account_name=account,
            has_more_data=more,
            last_seen_device_id=page[-1] if page else "0",
            max_page_size=PAGE_SIZE,
            device_list=[_device(device_id, upgraded.get(device_id)) for device_id in page],
        )
    )


async def campaigns(sandbox: Sandbox, request: Request, account: str) -> Answer:
    """Answer ``GET /reports/{account}/campaigns``: the account's campaigns, newest last, of one status if asked."""
    wanted = request.query.get("campaignStatus")
    rows = {
        progress.campaign.id: progress
        for progress in sandbox.campaigns.of(account)
        if not wanted or normalize_campaign(progress.status) == normalize_campaign(wanted)
    }
    last_seen = request.query.get("lastSeenCampaignId")
    page, more = _page(list(rows), last_seen, "lastSeenCampaignId Not Valid")
    # The provider's model says that this list may be null: it is, where there is none.
    found = [campaign_answer(rows[campaign_id]) for campaign_id in page] or None
    return json_answer(CampaignPage(more, found, page[-1] if page else None))


async def campaign_devices(sandbox: Sandbox, request: Request, account: str, campaign_id: str) -> Answer:
    """Answer ``GET /reports/{account}/campaigns/{id}/devices``: where each device stands, a page at a time."""
    progress = find_campaign(sandbox, account, campaign_id)
    page, more = _page(list(progress.devices), request.query.get("lastSeenDeviceId"))
    shown = (progress.devices[device_id] for device_id in page)
    return json_answer(
        DeviceStatusPage(
            total_device=len(progress.devices),
            has_more_data=more,
            last_seen_device_id=page[-1] if page else "0",
            max_page_size=PAGE_SIZE,
            device_list=[ReportedDevice(device.device_id, device.status, device.reason or "") for device in shown],
        )
    )


async def device_history(sandbox: Sandbox, _: Request, account: str, device_id: str) -> Answer:
    """Answer ``GET /reports/{account}/devices/{imei}``: the campaigns that a device was in."""
    if not is_imei(device_id):
        return invalid_parameter("Invalid device id format")
    return json_answer(
        [
            DeviceHistoryEntry(
                device_id=device_id,
                id=progress.campaign.id,
                account_name=account,
                software_name=progress.campaign.request.software_name,
                start_date=progress.campaign.request.start_date,
                status=device.status,
                reason=device.reason or "",
            )
            for progress in sandbox.campaigns.of(account)
            if (device := progress.devices.get(device_id)) is not None
        ]
    )


def _device(device_id: str, version: str | None) -> AccountDevice:
    return AccountDevice(
        device_id=device_id,
        mdn=f"555{device_id[-7:]}",
        model="Sandbox",
        make="Upcall",
        fota_eligible=True,
        app_fota_eligible=True,
        license_assigned=True,
        distribution_type=DISTRIBUTION_TYPE,
        software_list=[Software("FOTA_Verizon_Model-A", version or "00", _TIME)],
        create_time=_TIME,
        upgrade_time=_TIME,
        update_time=_TIME,
        refresh_time=_GO_TIME,
    )


def _page(
    ids: Sequence[str], last_seen: str | None, message: str = "LastSeenDeviceId Not Valid"
) -> tuple[Sequence[str], bool]:
    """Return the page after the entry last seen, and whether there are more.

    Raises:
        RequestError: No entry is called that.
    """
    start = 0
    if last_seen not in {None, "", "0"}:
        try:
            start = ids.index(str(last_seen)) + 1
        except ValueError:
            raise RequestError(invalid_parameter(message)) from None
    return ids[start : start + PAGE_SIZE], start + PAGE_SIZE < len(ids)
