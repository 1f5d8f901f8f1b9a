"""What a campaign needs, under the official SDK's names. Scheduling one twice makes two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from upcall.client.answers import Answer, UnreadableError, decode_json, is_empty
from upcall.client.operations.base import Call, Operation, fill
from upcall.redact import mask_device
from upcall.thingspace import check_account

__all__ = [
    "get_campaign_device_status",
    "get_campaign_history_by_status",
    "get_campaign_information",
    "get_device_firmware_upgrade_history",
    "schedule_campaign_firmware_upgrade",
]


def _read_object(answer: Answer) -> dict[str, Any]:
    document = decode_json(answer.body)
    if not isinstance(document, dict):
        raise UnreadableError("is no JSON object")
    return document


def _read_page(answer: Answer) -> dict[str, Any]:
    """Read a page of a list; what is empty may be answered as nothing at all."""
    return {} if is_empty(answer.body) else _read_object(answer)


def _read_list(answer: Answer) -> list[dict[str, Any]]:
    if is_empty(answer.body):
        return []
    document = decode_json(answer.body)
    if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
        raise UnreadableError("is no JSON array of objects")
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
_HISTORY: Final = Operation(
    name="get_campaign_history_by_status",
    method="GET",
    path="/fota/v2/reports/{account}/campaigns",
    read=_read_page,
    retry_safe=True,
)
_DEVICE_HISTORY: Final = Operation(
    name="get_device_firmware_upgrade_history",
    method="GET",
    path="/fota/v2/reports/{account}/devices/{device_id}",
    read=_read_list,
    retry_safe=True,
)


def schedule_campaign_firmware_upgrade(account: str, body: Mapping[str, Any]) -> Call[dict[str, Any]]:
    """Schedule a campaign."""
    if not isinstance(body, Mapping):
        raise TypeError(f"body must be a dict, not {type(body).__name__}")
    return fill(_SCHEDULE, msgspec.json.encode(dict(body)), account=check_account(account))


def get_campaign_information(account: str, campaign_id: str) -> Call[dict[str, Any]]:
    """Read a campaign."""
    return fill(_INFORMATION, account=check_account(account), campaign_id=_check_id("campaign_id", campaign_id))


def get_campaign_device_status(
    account: str, campaign_id: str, last_seen_device_id: str | None = None
) -> Call[dict[str, Any]]:
    """Read one page of the devices' states in a campaign."""
    return fill(
        _DEVICE_STATUS,
        query={"lastSeenDeviceId": last_seen_device_id},
        account=check_account(account),
        campaign_id=_check_id("campaign_id", campaign_id),
    )


def get_campaign_history_by_status(
    account: str, campaign_status: str | None = None, last_seen_campaign_id: str | None = None
) -> Call[dict[str, Any]]:
    """Read one page of an account's campaigns."""
    return fill(
        _HISTORY,
        query={"campaignStatus": campaign_status, "lastSeenCampaignId": last_seen_campaign_id},
        account=check_account(account),
    )


def get_device_firmware_upgrade_history(account: str, device_id: str) -> Call[list[dict[str, Any]]]:
    """Read which campaigns a device was in."""
    return fill(
        _DEVICE_HISTORY,
        masked={"device_id": mask_device(_check_id("device_id", device_id))},
        account=check_account(account),
        device_id=device_id,
    )


def _check_id(name: str, value: object) -> str:
    """Return an identifier that stands for one segment of a path."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if not value.strip() or value in {".", ".."}:
        raise ValueError(f"{name} must not be {value!r}")
    return value
