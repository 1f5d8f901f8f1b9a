"""What no provider has: ``/_sandbox/``, for callers on this machine only."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from upcall.errors import SettingsError
from upcall.sandbox import messages
from upcall.sandbox.campaigns import DeviceStatus
from upcall.sandbox.clock import moment
from upcall.sandbox.faults import Faults
from upcall.sandbox.fleet import new_versions
from upcall.sandbox.http import Answer, RequestError, fault, invalid_parameter, json_answer, provider_error
from upcall.sandbox.models import ACCOUNT_PATTERN, DELIVERY_STATES, Success
from upcall.thingspace import is_final_device

if TYPE_CHECKING:
    from upcall.sandbox.app import Sandbox
    from upcall.sandbox.http import Request

__all__ = [
    "Announced",
    "Banner",
    "ClockMove",
    "ClockState",
    "Summary",
    "Truth",
    "Unlocked",
    "announce",
    "banner",
    "clear_faults",
    "clock",
    "deliveries",
    "faults",
    "move_clock",
    "require_loopback",
    "reset",
    "set_faults",
    "summary",
    "truth",
    "unlock",
]

MAX_ADVANCE_SECONDS: Final = 366 * 86_400.0


class Banner(msgspec.Struct, frozen=True, kw_only=True):
    """Say that this is a sandbox, and how it was started."""

    sandbox: bool = True
    name: str = "upcall sandbox"
    version: str
    profile: str
    clock: str
    speed: float
    seed: int
    faults: Faults
    allow_http: bool


class ClockState(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what time it is.

    Args:
        mode: ``real`` or ``manual``.
        now: Seconds since 1970.
        time: The same, in ISO 8601.
        next_due: When the next thing happens, None where nothing is planned.
    """

    mode: str
    now: float
    time: str
    next_due: float | None


class ClockMove(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for a manual clock to be moved; everything that falls due meanwhile happens, in order.

    Args:
        advance_seconds: So far.
        to_next: To when the next thing is due.
    """

    advance_seconds: Annotated[float, Meta(ge=0, le=MAX_ADVANCE_SECONDS)] | None = None
    to_next: bool = False


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """Hold where a campaign and its devices really stand.

    Args:
        campaign_id: The campaign.
        account: Whose.
        status: Its state, in the provider's word.
        ended: Whether that is final.
        final: Whether every device's is.
        devices: The devices.
    """

    campaign_id: str
    account: str
    status: str
    ended: bool
    final: bool
    devices: list[DeviceStatus]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Count callbacks by what became of them.

    Args:
        callbacks: All of them.
        tries: How often they were sent in all.
        states: How many are ``pending`` or in one of the final states.
    """

    callbacks: int
    tries: int
    states: dict[str, int]


class Announced(msgspec.Struct, frozen=True):
    """Hold the number of a callback that was made."""

    id: int


class Unlocked(msgspec.Struct, frozen=True):
    """Say whether there were refused logins."""

    unlocked: bool


def require_loopback(request: Request) -> None:
    """Check that a control call comes from this machine, and from no web page of another.

    Raises:
        RequestError: It does not.
    """
    if not _is_loopback(request.peer):
        raise RequestError(fault(403, "403", "Forbidden", "Control calls are answered on this machine only"))
    # A page that a browser here shows can reach loopback too, under a name of its own or from an origin of its own.
    for name, value in (("Host", request.headers.get("host")), ("Origin", request.headers.get("origin"))):
        if value and not _is_local_name(value if name == "Origin" else f"//{value}"):
            raise RequestError(fault(403, "403", "Forbidden", f"{name} is not a name of this machine"))


def _is_loopback(address: str | None) -> bool:
    try:
        parsed = ipaddress.ip_address(address or "")
        # A socket of both families tells of an IPv4 caller in this form.
        return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback
    except ValueError:
        return False


def _is_local_name(url: str) -> bool:
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return False
    return host == "localhost" or host.endswith(".localhost") or _is_loopback(host)


async def banner(sandbox: Sandbox, _: Request) -> Answer:
    """Answer ``GET /_sandbox/``: say that this is a sandbox, and how it was started."""
    options = sandbox.options
    return json_answer(
        Banner(
            version=sandbox.version,
            profile=options.profile,
            clock="manual" if sandbox.clock.is_manual else "real",
            speed=options.speed,
            seed=options.seed,
            faults=sandbox.faults,
            allow_http=options.allow_http,
        )
    )


async def reset(sandbox: Sandbox, _: Request) -> Answer:
    """Answer ``POST /_sandbox/reset``: forget everything, as if the sandbox had just been started.

    The clock and the faults stay as they are.
    """
    await sandbox.reset()
    return json_answer(Success(success=True))


async def clock(sandbox: Sandbox, _: Request) -> Answer:
    """Answer ``GET /_sandbox/clock``: what time it is."""
    return json_answer(_clock_state(sandbox))


async def move_clock(sandbox: Sandbox, request: Request) -> Answer:
    """Answer ``POST /_sandbox/clock``: move a manual clock, and let everything happen that falls due meanwhile."""
    try:
        move = msgspec.convert(_object_of(request), ClockMove)
    except msgspec.ValidationError as error:
        return invalid_parameter(f"Input binding error: {error}")
    if not sandbox.clock.is_manual:
        return provider_error(409, "CLOCK_RUNS", "The clock runs by itself. Start the sandbox with --clock manual.")
    if (move.advance_seconds is None) is not move.to_next:
        return invalid_parameter("Give either advance_seconds or to_next")
    if move.advance_seconds is not None:
        await sandbox.advance(move.advance_seconds)
    else:
        await sandbox.advance_to_next()
    return json_answer(_clock_state(sandbox))


def _clock_state(sandbox: Sandbox) -> ClockState:
    now = sandbox.clock.now()
    return ClockState(
        mode="manual" if sandbox.clock.is_manual else "real",
        now=now,
        time=moment(now).isoformat(timespec="milliseconds"),
        next_due=sandbox.agenda.next_due(),
    )


async def faults(sandbox: Sandbox, _: Request) -> Answer:
    """Answer ``GET /_sandbox/faults``: what goes wrong on purpose."""
    return json_answer(sandbox.faults)


async def set_faults(sandbox: Sandbox, request: Request) -> Answer:
    """Answer ``PUT /_sandbox/faults``: let this go wrong from now on, and nothing else."""
    try:
        chosen = Faults.checked(_object_of(request))
    except SettingsError as error:
        return invalid_parameter(str(error))
    sandbox.set_faults(chosen)
    return json_answer(chosen)


def _object_of(request: Request) -> dict[str, Any]:
    """Return the body, and say more of one that is no JSON object than the provider would."""
    try:
        return request.json_object()
    except RequestError:
        raise RequestError(invalid_parameter("The body is a JSON object, as /openapi.json shows")) from None


async def clear_faults(sandbox: Sandbox, _: Request) -> Answer:
    """Answer ``DELETE /_sandbox/faults``: let nothing go wrong from now on."""
    sandbox.set_faults(Faults())
    return json_answer(sandbox.faults)


async def deliveries(sandbox: Sandbox, request: Request) -> Answer:
    """Answer ``GET /_sandbox/deliveries``: every callback and every try, of an account, campaign or state if asked."""
    state = request.query.get("state")
    if state is not None and state not in DELIVERY_STATES:
        return invalid_parameter(f"There is no state {state!r}, but {', '.join(DELIVERY_STATES)}")
    chosen = sandbox.ledger.select(request.query.get("account"), request.query.get("campaign"))
    return json_answer([message for message in chosen if state in {None, message.state}])


async def summary(sandbox: Sandbox, request: Request) -> Answer:
    """Answer ``GET /_sandbox/summary``: how many callbacks, of an account or campaign if asked, are in which state."""
    chosen = sandbox.ledger.select(request.query.get("account"), request.query.get("campaign"))
    states = Counter(message.state for message in chosen)
    tries = sum(len(message.attempts) for message in chosen)
    return json_answer(
        Summary(callbacks=len(chosen), tries=tries, states={state: states[state] for state in DELIVERY_STATES})
    )


async def truth(sandbox: Sandbox, _: Request, campaign_id: str) -> Answer:
    """Answer ``GET /_sandbox/truth/{id}``: where a campaign and its devices really stand."""
    progress = sandbox.campaigns.get(campaign_id.lower())
    if progress is None:
        return provider_error(404, "NOT_FOUND", "There is no such campaign")
    devices = list(progress.devices.values())
    return json_answer(
        Truth(
            campaign_id=progress.campaign.id,
            account=progress.campaign.account,
            status=progress.status,
            ended=progress.ended,
            final=all(is_final_device(device.status) for device in devices),
            devices=devices,
        )
    )


async def announce(sandbox: Sandbox, _: Request, account: str) -> Answer:
    """Answer ``POST /_sandbox/announce/{account}``: send the callback that tells of new versions."""
    if not re.fullmatch(ACCOUNT_PATTERN, account):
        return invalid_parameter("Invalid account name format")
    message = sandbox.deliver(messages.announcement(account, new_versions()))
    await sandbox.store.flush()
    return json_answer(Announced(message.id))


async def unlock(sandbox: Sandbox, _: Request, username: str) -> Answer:
    """Answer ``POST /_sandbox/unlock/{username}``: do what the provider's support does after five refused logins."""
    unlocked = sandbox.access.unlock(username)
    await sandbox.keep_access_now()
    return json_answer(Unlocked(unlocked))
