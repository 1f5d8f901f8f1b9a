"""Reports, devices and software: what a campaign's owner reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from upcall.sandbox.api_campaigns import find_campaign
from upcall.sandbox.campaigns import campaign_answer
from upcall.sandbox.fleet import SOFTWARE, fleet
from upcall.sandbox.http import Answer, RequestError, invalid_parameter, json_answer
from upcall.thingspace import DeviceState, normalize_campaign

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upcall.sandbox.app import Sandbox
    from upcall.sandbox.http import Request

__all__ = ["PAGE_SIZE", "campaign_devices", "campaigns", "device_history", "devices", "software"]

PAGE_SIZE: Final = 1000
"""Entries in a page at most. Source: reports V3, the same model as V2's (documented)."""


async def software(_: Sandbox, request: Request, account: str) -> Answer:  # noqa: ARG001 - all accounts have the same
    """Answer ``GET /software/{account}``: what can be installed."""
    wanted = request.query.get("distributionType")
    return json_answer([package for package in SOFTWARE if wanted in {None, package["distributionType"]}])


async def devices(sandbox: Sandbox, request: Request, account: str) -> Answer:
    """Answer ``GET /devices/{account}``: the account's own devices, then those that its campaigns named."""
    known = dict.fromkeys(fleet(account))
    upgraded: dict[str, str] = {}
    for progress in sandbox.campaigns.of(account):
        known |= dict.fromkeys(progress.devices)
        for device in progress.devices.values():
            if device.status == DeviceState.UPGRADE_SUCCESS:
                upgraded[device.device_id] = progress.campaign.request.software_to
    page, more = _page(list(known), request.query.get("lastSeenDeviceId"))
    return json_answer(
        {
            "accountName": account,
            "hasMoreData": more,
            "lastSeenDeviceId": page[-1] if page else "0",
            "maxPageSize": PAGE_SIZE,
            "deviceList": [_device(device_id, upgraded.get(device_id)) for device_id in page],
        }
    )


async def campaigns(sandbox: Sandbox, request: Request, account: str) -> Answer:
    """Answer ``GET /reports/{account}/campaigns``, newest last, with ``campaignStatus`` as a filter."""
    wanted = request.query.get("campaignStatus")
    rows = {
        progress.campaign.id: campaign_answer(progress)
        for progress in sandbox.campaigns.of(account)
        if not wanted or normalize_campaign(progress.status) == normalize_campaign(wanted)
    }
    last_seen = request.query.get("lastSeenCampaignId")
    page, more = _page(list(rows), last_seen, "lastSeenCampaignId Not Valid")
    answer: dict[str, Any] = {
        "hasMoreData": more,
        # The provider's model says that this list may be null: it is, where there is none.
        "campaignList": [rows[campaign_id] for campaign_id in page] or None,
    }
    if page:
        answer["lastSeenCampaignId"] = page[-1]
    return json_answer(answer)


async def campaign_devices(sandbox: Sandbox, request: Request, account: str, campaign_id: str) -> Answer:
    """Answer ``GET /reports/{account}/campaigns/{id}/devices``: where each device stands, a page at a time."""
    progress = find_campaign(sandbox, account, campaign_id)
    page, more = _page(list(progress.devices), request.query.get("lastSeenDeviceId"))
    return json_answer(
        {
            "totalDevice": len(progress.devices),
            "hasMoreData": more,
            "lastSeenDeviceId": page[-1] if page else "0",
            "maxPageSize": PAGE_SIZE,
            "deviceList": [
                {
                    "deviceId": device.device_id,
                    "status": device.status,
                    "resultReason": device.reason or "",
                }
                for device in (progress.devices[device_id] for device_id in page)
            ],
        }
    )


async def device_history(sandbox: Sandbox, _: Request, account: str, device_id: str) -> Answer:
    """Answer ``GET /reports/{account}/devices/{imei}``: the campaigns that a device was in."""
    return json_answer(
        [
            {
                "deviceId": device_id,
                "id": progress.campaign.id,
                "accountName": account,
                "softwareName": progress.campaign.request.software_name,
                "startDate": progress.campaign.request.start_date,
                "status": device.status,
                "reason": device.reason or "",
            }
            for progress in sandbox.campaigns.of(account)
            if (device := progress.devices.get(device_id)) is not None
        ]
    )


def _device(device_id: str, version: str | None) -> dict[str, Any]:
    time = "2026-01-15 00:00:00 +0000 UTC"
    return {
        "deviceId": device_id,
        "mdn": f"555{device_id[-7:]}",
        "model": "Sandbox",
        "make": "Upcall",
        "fotaEligible": True,
        "appFotaEligible": True,
        "licenseAssigned": True,
        "distributionType": "HTTP",
        "softwareList": [{"name": "FOTA_Verizon_Model-A", "version": version or "00", "upgradeTime": time}],
        "createTime": time,
        "upgradeTime": time,
        "updateTime": time,
        "refreshTime": time,
    }


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
