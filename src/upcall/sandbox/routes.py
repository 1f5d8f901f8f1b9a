"""Which path means what, and what is checked before it: the gateway's checks first, then the service's."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from upcall.sandbox import api_auth, api_callbacks, api_campaigns, api_control, api_reports, models, openapi
from upcall.sandbox.faults import Faults
from upcall.sandbox.http import (
    NO_RESOURCE,
    ConnectionEnded,
    RequestError,
    fault,
    html_answer,
    invalid_parameter,
    json_answer,
    provider_error,
)
from upcall.sandbox.ledger import Message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from upcall.sandbox.app import Sandbox
    from upcall.sandbox.faults import Trouble
    from upcall.sandbox.http import Answer, Request

    Handler = Callable[..., Awaitable[Answer]]

__all__ = ["ROUTES", "Route", "answer"]


class Route(NamedTuple):
    """Say what answers a path and a method, and what its document says of it.

    Args:
        method: The HTTP method.
        path: The path, names of parameters in braces.
        name: What the call is named: by the official SDK, where it has it.
        handler: What answers.
        guard: What is checked before: ``basic``, ``bearer``, ``session``, ``loopback`` or ``none``.
        result: What a 200 holds; None for an empty body.
        body: What the request holds, in each of its forms; empty for nothing.
        is_form: Whether it is a form, not JSON.
        sdk_sends_any: Whether the official SDKs send it as ``*/*``.
        query: The names of query parameters.
        may_be_empty: Whether a 200 may be empty as well.
        refusals: What else is refused, by the status; not what the guard refuses, and no unsound request.
    """

    method: str
    path: str
    name: str
    handler: Handler
    guard: str
    result: Any = None
    body: tuple[Any, ...] = ()
    is_form: bool = False
    sdk_sends_any: bool = False
    query: tuple[str, ...] = ()
    may_be_empty: bool = False
    refusals: tuple[tuple[int, str], ...] = ()


async def _document(sandbox: Sandbox, _: Request) -> Answer:  # noqa: ARG001 - the same for every sandbox
    """Answer ``GET /openapi.json``: this API, described in OpenAPI 3.1."""
    return json_answer(openapi.document(ROUTES))


_FOTA: Final = "/api/fota/v2"
_TS: Final = "/api/ts/v1/oauth2"
_M2M: Final = "/api/m2m/v1/session"

ROUTES: Final = (
    Route(
        "POST",
        f"{_TS}/token",
        "request_token_thingspace_oauth",
        api_auth.issue_token,
        "basic",
        models.OauthToken,
        body=(models.TokenForm,),
        is_form=True,
    ),
    Route(
        "POST", f"{_TS}/revoke", "revoke_token", api_auth.revoke_token, "basic", body=(models.RevokeForm,), is_form=True
    ),
    Route(
        "POST",
        f"{_M2M}/login",
        "start_connectivity_management_session",
        api_auth.log_in,
        "bearer",
        models.SessionToken,
        body=(models.LogInBody,),
    ),
    Route(
        "POST",
        f"{_M2M}/logout",
        "end_connectivity_management_session",
        api_auth.log_out,
        "session",
        models.SessionToken,
    ),
    Route(
        "GET",
        f"{_FOTA}/callbacks/{{account}}",
        "list_registered_callbacks",
        api_callbacks.show,
        "session",
        models.CallbackBody,
        may_be_empty=True,
    ),
    Route(
        "POST",
        f"{_FOTA}/callbacks/{{account}}",
        "register_callback",
        api_callbacks.register,
        "session",
        models.CallbackBody,
        body=(models.CallbackBody,),
        sdk_sends_any=True,
    ),
    Route(
        "PUT",
        f"{_FOTA}/callbacks/{{account}}",
        "update_callback",
        api_callbacks.register,
        "session",
        models.CallbackBody,
        body=(models.CallbackBody,),
        sdk_sends_any=True,
    ),
    Route(
        "DELETE",
        f"{_FOTA}/callbacks/{{account}}",
        "deregister_callback",
        api_callbacks.deregister,
        "session",
        models.Success,
    ),
    Route(
        "POST",
        f"{_FOTA}/campaigns/{{account}}",
        "schedule_campaign_firmware_upgrade",
        api_campaigns.schedule,
        "session",
        models.CampaignAnswer,
        body=(models.CampaignBody,),
        sdk_sends_any=True,
    ),
    Route(
        "GET",
        f"{_FOTA}/campaigns/{{account}}/{{id}}",
        "get_campaign_information",
        api_campaigns.show,
        "session",
        models.CampaignAnswer,
    ),
    Route(
        "PUT",
        f"{_FOTA}/campaigns/{{account}}/{{id}}",
        "update_campaign_firmware_devices",
        api_campaigns.change_devices,
        "session",
        models.DevicesResult,
        body=(models.DevicesBody, models.WrappedDevicesBody),
        sdk_sends_any=True,
    ),
    Route(
        "DELETE",
        f"{_FOTA}/campaigns/{{account}}/{{id}}",
        "cancel_campaign",
        api_campaigns.stop,
        "session",
        models.Success,
    ),
    Route(
        "PUT",
        f"{_FOTA}/campaigns/{{account}}/{{id}}/dates",
        "update_campaign_dates",
        api_campaigns.change_dates,
        "session",
        models.CampaignAnswer,
        body=(models.DatesBody,),
        sdk_sends_any=True,
    ),
    Route(
        "GET",
        f"{_FOTA}/software/{{account}}",
        "list_available_software",
        api_reports.software,
        "session",
        list[models.SoftwarePackage],
        query=("distributionType",),
    ),
    Route(
        "GET",
        f"{_FOTA}/devices/{{account}}",
        "list_account_devices",
        api_reports.devices,
        "session",
        models.DevicePage,
        query=("lastSeenDeviceId", "distributionType"),
    ),
    Route(
        "GET",
        f"{_FOTA}/reports/{{account}}/campaigns",
        "get_campaign_history_by_status",
        api_reports.campaigns,
        "session",
        models.CampaignPage,
        query=("campaignStatus", "lastSeenCampaignId"),
    ),
    Route(
        "GET",
        f"{_FOTA}/reports/{{account}}/campaigns/{{id}}/devices",
        "get_campaign_device_status",
        api_reports.campaign_devices,
        "session",
        models.DeviceStatusPage,
        query=("lastSeenDeviceId",),
    ),
    Route(
        "GET",
        f"{_FOTA}/reports/{{account}}/devices/{{imei}}",
        "get_device_firmware_upgrade_history",
        api_reports.device_history,
        "session",
        list[models.DeviceHistoryEntry],
    ),
    Route("GET", "/openapi.json", "show_document", _document, "none", dict[str, Any]),
    Route("GET", "/_sandbox", "show_sandbox", api_control.banner, "loopback", api_control.Banner),
    Route("POST", "/_sandbox/reset", "reset_sandbox", api_control.reset, "loopback", models.Success),
    Route("GET", "/_sandbox/clock", "show_clock", api_control.clock, "loopback", api_control.ClockState),
    Route(
        "POST",
        "/_sandbox/clock",
        "move_clock",
        api_control.move_clock,
        "loopback",
        api_control.ClockState,
        body=(api_control.ClockMove,),
        refusals=((409, "The clock runs by itself."),),
    ),
    Route("GET", "/_sandbox/faults", "show_faults", api_control.faults, "loopback", Faults),
    Route("PUT", "/_sandbox/faults", "set_faults", api_control.set_faults, "loopback", Faults, body=(Faults,)),
    Route("DELETE", "/_sandbox/faults", "clear_faults", api_control.clear_faults, "loopback", Faults),
    Route(
        "GET",
        "/_sandbox/deliveries",
        "list_deliveries",
        api_control.deliveries,
        "loopback",
        list[Message],
        query=("account", "campaign", "state"),
        refusals=((400, "There is no such state."),),
    ),
    Route(
        "GET",
        "/_sandbox/summary",
        "count_deliveries",
        api_control.summary,
        "loopback",
        api_control.Summary,
        query=("account", "campaign"),
    ),
    Route(
        "GET",
        "/_sandbox/truth/{id}",
        "show_truth",
        api_control.truth,
        "loopback",
        api_control.Truth,
        refusals=((404, "There is no such campaign."),),
    ),
    Route(
        "POST",
        "/_sandbox/announce/{account}",
        "announce_software",
        api_control.announce,
        "loopback",
        api_control.Announced,
    ),
    Route(
        "POST", "/_sandbox/unlock/{username}", "unlock_username", api_control.unlock, "loopback", api_control.Unlocked
    ),
)
"""Every path of the sandbox."""

_ACCOUNT: Final = re.compile(models.ACCOUNT_PATTERN)
_ANY: Final = "*"


class _Node:
    """Be one segment of the known paths."""

    def __init__(self) -> None:
        self.next: dict[str, _Node] = {}
        self.routes: dict[str, Route] = {}


def _tree() -> _Node:
    root = _Node()
    for route in ROUTES:
        node = root
        for part in route.path.strip("/").split("/"):
            node = node.next.setdefault(_ANY if part.startswith("{") else part, _Node())
        node.routes[route.method] = route
    return root


_ROOT: Final = _tree()


async def answer(sandbox: Sandbox, request: Request) -> Answer:
    """Answer one request.

    Raises:
        RequestError: With the answer of a request that is refused.
        ConnectionEnded: A fault ends the connection.
    """
    # The control paths stand at the root; under the base URL they are found too.
    is_control = request.segments[:2] == ("api", "_sandbox")
    route, wild = _find(request.method, request.segments[1:] if is_control else request.segments)
    if route.guard == "loopback":
        api_control.require_loopback(request)
    if route.guard in {"loopback", "none"}:
        return await route.handler(sandbox, request, *wild)
    account = wild[0] if wild else ""
    trouble = sandbox.trouble(account)
    if trouble is not None and trouble.name == "reset":
        # Whether the call was carried out is what a caller cannot know.
        if trouble.choice < 0.5:  # noqa: PLR2004 - every second one
            with contextlib.suppress(RequestError):
                await _checked(sandbox, request, route, wild)
        raise ConnectionEnded
    if trouble is not None:
        try:
            _refuse(sandbox, request, trouble)
            return await _checked(sandbox, request, route, wild)
        except RequestError as refused:
            raise RequestError(msgspec.structs.replace(refused.answer, note=f"fault {trouble.name}")) from None
    return await _checked(sandbox, request, route, wild)


async def _checked(sandbox: Sandbox, request: Request, route: Route, wild: list[str]) -> Answer:
    if route.guard in {"bearer", "session"}:
        api_auth.require_bearer(sandbox, request)
    if route.guard == "session":
        api_auth.require_session(sandbox, request)
    if wild and not _ACCOUNT.fullmatch(wild[0]):
        raise RequestError(invalid_parameter("Invalid account name format"))
    return await route.handler(sandbox, request, *wild)


def _refuse(sandbox: Sandbox, request: Request, trouble: Trouble) -> None:
    """Answer a call as a fault wants it.

    Raises:
        RequestError: With that answer; a token that dies is refused by the check of it.
    """
    match trouble.name:
        case "unauthorized":
            sandbox.access.drop_bearer(api_auth.bearer_of(request))
            sandbox.keep_access_soon()
        case "rate_limited":
            raise RequestError(fault(429, "900802", "Message throttled out", "You have exceeded your quota"))
        case "server_error":
            status = (500, 502, 503)[int(trouble.choice * 3)]
            raise RequestError(fault(status, f"101{status}", "Runtime Error", "Error connecting to the back end"))
        case "html":
            raise RequestError(html_answer((200, 503)[int(trouble.choice * 2)]))


def _find(method: str, segments: tuple[str, ...]) -> tuple[Route, list[str]]:
    """Return what answers a path, and what stands in the place of its parameters.

    Raises:
        RequestError: Nothing does.
    """
    node, wild = _ROOT, []
    for segment in segments:
        following = node.next.get(segment) if segment != _ANY else None
        if following is None:
            following = node.next.get(_ANY)
            wild.append(segment)
        if following is None:
            raise _no_resource(segments)
        node = following
    route = node.routes.get(method)
    if route is None:
        raise _no_resource(segments, node.routes)
    return route, wild


def _no_resource(segments: tuple[str, ...], allowed: Iterable[str] = ()) -> RequestError:
    if segments[0] == "_sandbox":  # no provider answers here: say what helps
        if not (methods := ", ".join(sorted(allowed))):
            return RequestError(provider_error(404, "NOT_FOUND", "No such control call; /openapi.json has them all"))
        refusal = provider_error(405, "METHOD_NOT_ALLOWED", f"This control call takes {methods}")
        return RequestError(msgspec.structs.replace(refusal, headers=(*refusal.headers, ("allow", methods))))
    note = "" if segments[0] == "api" else "every path of the API begins with /api"
    return RequestError(msgspec.structs.replace(NO_RESOURCE, note=note))
