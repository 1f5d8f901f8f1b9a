"""Callbacks made of reports: the bodies that would have told the same.

They have the shape of the reconstruction that `docs/callback-messages.md` describes, and say what the report says and
nothing else: no time, no state in between, and in a device's body no state of the campaign's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from upcall.inbox import Reported
from upcall.thingspace import DeviceState, callback_body, is_final_campaign, normalize_device

if TYPE_CHECKING:
    from upcall.registration.reconcile.pages import ReportedCampaign, ReportedDevice

__all__ = ["campaign_reported", "device_reported"]

_MEMBERS: Final = (
    "campaignName",
    "softwareName",
    "distributionType",
    "make",
    "model",
    "softwareFrom",
    "softwareTo",
    "startDate",
    "endDate",
    "downloadAfterDate",
    "downloadTimeWindowList",
    "installAfterDate",
    "installTimeWindowList",
)
"""What a callback may say of its campaign beside its id and its state. Source: official SDK, ``V2CampaignMetaInfo``."""

_SCHEDULING: Final = (DeviceState.ACCEPTED, DeviceState.REJECTED)


def device_reported(account: str, campaign: ReportedCampaign, device: ReportedDevice) -> Reported:
    """Return a device's state as it is handed to the inbox.

    Args:
        account: Whose.
        campaign: Its campaign.
        device: Where it stands.
    """
    kind = "upgradeScheduled" if normalize_device(device.status) in _SCHEDULING else "upgradeProgress"
    entry = {"deviceId": device.device_id, "status": device.status, "resultReason": device.reason or ""}
    return Reported(
        account=account,
        campaign_id=campaign.campaign_id,
        device_id=device.device_id,
        status=device.status,
        body=callback_body(account, kind, {**_element(campaign), "deviceList": [entry]}),
    )


def campaign_reported(account: str, campaign: ReportedCampaign) -> Reported | None:
    """Return a campaign's state as it is handed to the inbox, None where the report does not tell it."""
    if campaign.status is None:
        return None
    kind = "upgradeFinished" if is_final_campaign(campaign.status) else "upgradeScheduled"
    element = {**_element(campaign), "status": campaign.status, "deviceList": []}
    return Reported(
        account=account,
        campaign_id=campaign.campaign_id,
        status=campaign.status,
        body=callback_body(account, kind, element),
    )


def _element(campaign: ReportedCampaign) -> dict[str, Any]:
    told = {name: campaign.members[name] for name in _MEMBERS if campaign.members.get(name) not in (None, "", [], {})}
    return {"id": campaign.campaign_id, **told}
