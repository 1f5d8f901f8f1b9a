"""Campaigns: ``/fota/v2/campaigns/{account}``."""

from __future__ import annotations

import math
import re
import uuid
from datetime import date
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from upcall.sandbox.campaigns import CampaignRequest, SandboxOptions, campaign_answer, new_campaign
from upcall.sandbox.http import Answer, RequestError, invalid_parameter, json_answer

if TYPE_CHECKING:
    from upcall.sandbox.app import Sandbox
    from upcall.sandbox.campaigns import Progress
    from upcall.sandbox.http import Request

__all__ = ["change_dates", "find_campaign", "schedule", "show", "stop"]

_MAX_HOURS = 24.0 * 366
_REQUIRED = ("softwareName", "softwareFrom", "softwareTo", "distributionType")
_DATES = ("downloadAfterDate", "installAfterDate")


async def schedule(sandbox: Sandbox, request: Request, account: str) -> Answer:
    """Answer POST: take on a campaign; 200 says only that it was taken on.

    Source: "Schedule an upgrade V2" (documented); which error an unsound request gets is documented for V1.
    """
    body = request.json_object()
    device_ids = _device_ids(body.get("deviceList"))
    upgrade = _upgrade(body)
    options = _options(body.get("_sandbox"), len(device_ids))
    number = len(sandbox.campaigns) + 1
    own_seed = f"{sandbox.options.seed}/campaign/{number}" if options.seed is None else f"{options.seed}"
    campaign = new_campaign(
        upgrade,
        device_ids,
        account=account,
        now=sandbox.clock.now(),
        options=options,
        busy=sandbox.campaigns.busy(account),
        ids=Random(f"{sandbox.options.seed}/campaign-id/{number}"),  # noqa: S311 - an identifier, no secret
        random=Random(own_seed),  # noqa: S311 - reproducible on purpose
    )
    answer = json_answer(campaign_answer(sandbox.campaigns.add(campaign)))
    await sandbox.store.flush()
    return answer


async def show(sandbox: Sandbox, _: Request, account: str, campaign_id: str) -> Answer:
    """Answer GET: the campaign as it stands."""
    return json_answer(campaign_answer(find_campaign(sandbox, account, campaign_id)))


async def change_dates(sandbox: Sandbox, request: Request, account: str, campaign_id: str) -> Answer:
    """Answer PUT of the dates: they are kept and shown, and change nothing in the plan."""
    progress = find_campaign(sandbox, account, campaign_id)
    body = request.json_object()
    known = msgspec.to_builtins(progress.campaign.request)
    changed = _upgrade(known | {key: value for key, value in body.items() if key in _CHANGEABLE})
    if progress.ended:
        return invalid_parameter(f"The campaign is {progress.status}")
    sandbox.campaigns.change_request(progress, changed)
    await sandbox.store.flush()
    return json_answer(campaign_answer(progress))


_CHANGEABLE = frozenset(("startDate", "endDate", *_DATES, "downloadTimeWindowList", "installTimeWindowList"))


async def stop(sandbox: Sandbox, _: Request, account: str, campaign_id: str) -> Answer:
    """Answer DELETE: cancel the campaign, or abort it once it has started.

    Source: "Schedule an upgrade V2" (documented); that an ended one is refused is assumed.
    """
    progress = find_campaign(sandbox, account, campaign_id)
    if progress.ended:
        return invalid_parameter(f"The campaign is {progress.status}")
    sandbox.campaigns.stop(progress)
    await sandbox.store.flush()
    return json_answer({"success": True})


def find_campaign(sandbox: Sandbox, account: str, campaign_id: str) -> Progress:
    """Return an account's campaign.

    Raises:
        RequestError: The identifier is no UUID, or no campaign of this account has it.
    """
    try:
        uuid.UUID(campaign_id)
    except ValueError:
        raise RequestError(invalid_parameter("Invalid uuid")) from None
    progress = sandbox.campaigns.get(campaign_id.lower())
    if progress is None or progress.campaign.account != account:
        raise RequestError(invalid_parameter("Invalid upgradeId"))
    return progress


def _device_ids(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise RequestError(invalid_parameter("Device list is empty"))
    return tuple(dict.fromkeys(value))


def _upgrade(body: dict[str, Any]) -> CampaignRequest:
    for name in ("startDate", "endDate"):
        if not _is_date(body.get(name)):
            # The provider's own text, with its own spelling, for the start date.
            message = "FotaPostUpgrades: invalid state date" if name == "startDate" else "Invalid endDate"
            raise RequestError(invalid_parameter(message))
    if body["endDate"] < body["startDate"]:
        raise RequestError(invalid_parameter("Invalid endDate: it is before startDate"))
    for name in _REQUIRED:
        if not isinstance(body.get(name), str) or not body[name].strip():
            raise RequestError(invalid_parameter(f"Invalid {name}"))
    for name in _DATES:
        if body.get(name) is not None and not _is_date(body[name]):
            raise RequestError(invalid_parameter(f"Invalid {name}"))
    try:
        return msgspec.convert(body, CampaignRequest)
    except msgspec.ValidationError as error:
        raise RequestError(invalid_parameter(f"Input binding error: {error}")) from None


def _is_date(value: Any) -> bool:
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _options(value: Any, devices: int) -> SandboxOptions:
    try:
        options = SandboxOptions() if value is None else msgspec.convert(value, SandboxOptions)
    except msgspec.ValidationError as error:
        raise RequestError(invalid_parameter(f"Invalid _sandbox: {error}")) from None
    if not (math.isfinite(options.hours) and 0 < options.hours <= _MAX_HOURS):
        raise RequestError(invalid_parameter(f"Invalid _sandbox.hours: above 0, up to {_MAX_HOURS:.0f}"))
    counts = (options.failing or 0, options.rejected or 0)
    if min(counts) < 0 or sum(counts) > devices:
        raise RequestError(invalid_parameter("Invalid _sandbox: failing and rejected are more than the devices"))
    return options
