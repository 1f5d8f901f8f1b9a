"""What a campaign needs, under the official SDK's names. Scheduling one twice makes two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from upcall.client.answers import Answer, UnreadableError, decode_json
from upcall.client.operations.base import Call, Operation, fill
from upcall.thingspace import check_account

__all__ = ["get_campaign_device_status", "get_campaign_information", "schedule_campaign_firmware_upgrade"]


def _read_object(answer: Answer) -> dict[str, Any]:
    document = decode_json(answer.body)
    if not isinstance(document, dict):
        raise UnreadableError("is no JSON object")
    return document


_SCHEDULE: Final = Operation(
    name="schedule_campaign_firmware_upgrade",
    method="POST",
    path="/fota/v2/campaigns/{account}",
    read=_read_object,
    retry_safe=False,
)
_INFORMATION: Final = Operation(
    name="get_campaign_information",
    method="GET",
    path="/fota/v2/campaigns/{account}/{campaign_id}",
    read=_read_object,
    retry_safe=True,
)
_DEVICE_STATUS: Final = Operation(
    name="get_campaign_device_status",
    method="GET",
    path="/fota/v2/reports/{account}/campaigns/{campaign_id}/devices",
    read=_read_object,
    retry_safe=True,
)


def schedule_campaign_firmware_upgrade(account: str, body: Mapping[str, Any]) -> Call[dict[str, Any]]:
    """Schedule a campaign."""
    if not isinstance(body, Mapping):
        raise TypeError(f"body must be a dict, not {type(body).__name__}")
    return fill(_SCHEDULE, msgspec.json.encode(dict(body)), account=check_account(account))


def get_campaign_information(account: str, campaign_id: str) -> Call[dict[str, Any]]:
    """Read a campaign."""
    return fill(_INFORMATION, account=check_account(account), campaign_id=_check_campaign_id(campaign_id))


def get_campaign_device_status(
    account: str, campaign_id: str, last_seen_device_id: str | None = None
) -> Call[dict[str, Any]]:
    """Read one page of the devices' states in a campaign."""
    query = None if last_seen_device_id is None else {"lastSeenDeviceId": last_seen_device_id}
    return fill(
        _DEVICE_STATUS,
        query=query,
        account=check_account(account),
        campaign_id=_check_campaign_id(campaign_id),
    )


def _check_campaign_id(campaign_id: object) -> str:
    if not isinstance(campaign_id, str):
        raise TypeError(f"campaign_id must be a str, not {type(campaign_id).__name__}")
    if not campaign_id.strip() or campaign_id in {".", ".."}:
        raise ValueError(f"campaign_id must not be {campaign_id!r}")
    return campaign_id
