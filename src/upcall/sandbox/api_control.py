"""What no provider has: ``/_sandbox/``, for callers on this machine only."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import msgspec

from upcall.sandbox import messages
from upcall.sandbox.fleet import new_versions
from upcall.sandbox.http import Answer, RequestError, fault, json_answer, provider_error
from upcall.thingspace import is_final_device

if TYPE_CHECKING:
    from upcall.sandbox.app import Sandbox
    from upcall.sandbox.http import Request

__all__ = ["announce", "banner", "deliveries", "require_loopback", "truth", "unlock"]


def require_loopback(request: Request) -> None:
    """Check that a control call comes from this machine.

    Raises:
        RequestError: It does not.
    """
    try:
        local = request.peer is not None and ipaddress.ip_address(request.peer).is_loopback
    except ValueError:
        local = False
    if not local:
        raise RequestError(fault(403, "403", "Forbidden", "Control calls are answered on this machine only"))


async def banner(sandbox: Sandbox, _: Request) -> Answer:
    """Answer ``GET /_sandbox/``: say that this is a sandbox, and how it was started."""
    options = sandbox.options
    return json_answer(
        {
            "sandbox": True,
            "name": "upcall sandbox",
            "version": sandbox.version,
            "profile": options.profile,
            "speed": options.speed,
            "seed": options.seed,
            "faults": dict(sandbox.faults.rates),
            "allow_http": options.allow_http,
        }
    )


async def deliveries(sandbox: Sandbox, request: Request) -> Answer:
    """Answer ``GET /_sandbox/deliveries``: every callback and every try, of an account or a campaign if asked."""
    chosen = sandbox.ledger.select(request.query.get("account"), request.query.get("campaign"))
    return json_answer([msgspec.to_builtins(message) for message in chosen])


async def truth(sandbox: Sandbox, _: Request, campaign_id: str) -> Answer:
    """Answer ``GET /_sandbox/truth/{id}``: where a campaign and its devices really stand."""
    progress = sandbox.campaigns.get(campaign_id.lower())
    if progress is None:
        return provider_error(404, "NOT_FOUND", "There is no such campaign")
    return json_answer(
        {
            "campaign_id": progress.campaign.id,
            "account": progress.campaign.account,
            "status": progress.status,
            "ended": progress.ended,
            "final": all(is_final_device(device.status) for device in progress.devices.values()),
            "devices": [msgspec.to_builtins(device) for device in progress.devices.values()],
        }
    )


async def announce(sandbox: Sandbox, _: Request, account: str) -> Answer:
    """Answer ``POST /_sandbox/announce/{account}``: send the callback that tells of new versions."""
    message = sandbox.deliver(messages.announcement(account, new_versions()))
    await sandbox.store.flush()
    return json_answer({"id": message.id})


async def unlock(sandbox: Sandbox, _: Request, username: str) -> Answer:
    """Answer ``POST /_sandbox/unlock/{username}``: do what the provider's support does after five refused logins."""
    unlocked = sandbox.access.unlock(username)
    await sandbox.keep_access_now()
    return json_answer({"unlocked": unlocked})
