"""Campaigns: ``/fota/v2/campaigns/{account}``."""

from __future__ import annotations

import math
import re
import uuid
from datetime import date
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from upcall.sandbox.campaigns import CampaignRequest, SandboxOptions
from upcall.sandbox.http import Answer, RequestError, invalid_parameter, json_answer
from upcall.sandbox.models import ACCOUNT_PATTERN, NOT_BLANK_PATTERN, CampaignAnswer, DevicesResult, Success
from upcall.sandbox.planning import new_campaign, new_id

if TYPE_CHECKING:
    from upcall.sandbox.app import Sandbox
    from upcall.sandbox.campaigns import Progress
    from upcall.sandbox.http import Request

__all__ = ["campaign_answer", "change_dates", "change_devices", "find_campaign", "schedule", "show", "stop", "take_on"]

_MAX_HOURS = 24.0 * 366
_REQUIRED = ("softwareName", "softwareFrom", "softwareTo", "distributionType")
_DATES = ("downloadAfterDate", "installAfterDate")


async def schedule(sandbox: Sandbox, request: Request, account: str) -> Answer:
    """Answer POST: take on a campaign; 200 says only that it was taken on.

    Source: "Schedule an upgrade V2" (documented); which error an unsound request gets is documented for V1.
    """
    progress = take_on(sandbox, account, request.json_object())
    await sandbox.store.flush()
    return json_answer(campaign_answer(progress))


def take_on(sandbox: Sandbox, account: str, body: dict[str, Any]) -> Progress:
    """Take on a campaign.

    Args:
        sandbox: Whose campaign it becomes.
        account: Whose devices.
        body: What was asked for.

    Raises:
        RequestError: It cannot be.
    """
    if not re.fullmatch(ACCOUNT_PATTERN, account):
        raise RequestError(invalid_parameter("Invalid account name format"))
    device_ids = _device_ids(body.get("deviceList"))
    upgrade = _upgrade(body)
    options = _options(body.get("_sandbox"), len(device_ids))
    number, seed = len(sandbox.campaigns) + 1, sandbox.options.seed
    own_seed = f"{seed}/campaign/{number}" if options is None or options.seed is None else f"{options.seed}"
    campaign = new_campaign(
        upgrade,
        device_ids,
        account=account,
        now=sandbox.clock.now(),
        options=options,
        busy=sandbox.campaigns.busy(account),
        # By resets and time too: afterwards the same seed has the same fates, and no callback equals an earlier one.
        ids=Random(f"{seed}/campaign-id/{sandbox.resets}/{number}/{sandbox.clock.now()}"),  # noqa: S311 - an identifier, no secret
        random=Random(own_seed),  # noqa: S311 - reproducible on purpose
    )
    return sandbox.campaigns.add(campaign)


async def change_devices(sandbox: Sandbox, request: Request, account: str, campaign_id: str) -> Answer:
    """Answer PUT: add devices to a campaign that has not started, or remove them.

    Both forms of the body are read: the official SDK's ``{"Type", "deviceList"}``, and the page's own, which wraps
    objects with a lower-case ``type`` in an array under ``addOrRemoveDevice``.

    Source: "Add or remove devices in an upgrade V2" and official SDK (documented). What is said to a campaign that
        has started, and to a device that it does not have, is assumed.
    """
    progress = find_campaign(sandbox, account, campaign_id)
    changes = [_devices_change(change) for change in _changes(request.json_object())]
    if not progress.is_queued:
        return invalid_parameter(f"The campaign is {progress.status}")
    added = f"{sandbox.options.seed}/added/{campaign_id}/{len(progress.campaign.intake)}"
    random = Random(added)  # noqa: S311 - reproducible on purpose
    for kind, device_ids in changes:
        if kind == "append":
            sandbox.campaigns.add_devices(progress, device_ids, random)
        else:
            sandbox.campaigns.remove_devices(progress, device_ids)
    await sandbox.store.flush()
    return json_answer(DevicesResult(account, progress.campaign.id, str(new_id(sandbox.secrets))))


def _changes(body: dict[str, Any]) -> list[Any]:
    wrapped = body.get("addOrRemoveDevice")
    return wrapped if isinstance(wrapped, list) and wrapped else [body]


def _devices_change(change: Any) -> tuple[str, tuple[str, ...]]:
    if not isinstance(change, dict):
        raise RequestError(invalid_parameter("Input binding error"))
    kind = change.get("Type", change.get("type"))
    if not isinstance(kind, str) or kind.lower() not in _CHANGES:
        raise RequestError(invalid_parameter("Invalid Type: append or remove"))
    return _CHANGES[kind.lower()], _device_ids(change.get("deviceList"))


_CHANGES = {"append": "append", "add": "append", "remove": "remove"}


async def show(sandbox: Sandbox, _: Request, account: str, campaign_id: str) -> Answer:
    """Answer GET: the campaign as it stands."""
    return json_answer(campaign_answer(find_campaign(sandbox, account, campaign_id)))


async def change_dates(sandbox: Sandbox, request: Request, account: str, campaign_id: str) -> Answer:
    """Answer PUT of the dates: what has not happened yet is planned anew by them.

    Source: official SDK (documented); which of the members may be left out is assumed.
    """
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
    return json_answer(Success(success=True))


def campaign_answer(progress: Progress) -> CampaignAnswer:
    """Return a campaign as the API gives it."""
    campaign = progress.campaign
    return CampaignAnswer(
        **msgspec.structs.asdict(campaign.request),
        id=campaign.id,
        account_name=campaign.account,
        make="Upcall",
        model="Sandbox",
        status=progress.status,
    )


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
        if not isinstance(body.get(name), str) or not re.search(NOT_BLANK_PATTERN, body[name]):
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


def _options(value: Any, devices: int) -> SandboxOptions | None:
    if value is None:
        return None
    try:
        options = msgspec.convert(value, SandboxOptions)
    except msgspec.ValidationError as error:
        raise RequestError(invalid_parameter(f"Invalid _sandbox: {error}")) from None
    if not (math.isfinite(options.hours) and 0 < options.hours <= _MAX_HOURS):
        raise RequestError(invalid_parameter(f"Invalid _sandbox.hours: above 0, up to {_MAX_HOURS:.0f}"))
    counts = (options.failing or 0, options.rejected or 0)
    if min(counts) < 0:
        raise RequestError(invalid_parameter("Invalid _sandbox: failing and rejected are 0 or more"))
    if sum(counts) > devices:
        raise RequestError(invalid_parameter("Invalid _sandbox: failing and rejected are more than the devices"))
    return options
