"""Which path means what, and what is checked before it: the gateway's checks first, then the service's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from upcall.sandbox import api_auth, api_callbacks, api_campaigns, api_control, api_reports
from upcall.sandbox.http import RequestError, fault, invalid_parameter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from upcall.sandbox.app import Sandbox
    from upcall.sandbox.http import Answer, Request

    Handler = Callable[..., Awaitable[Answer]]

__all__ = ["answer"]

_FOTA: Final = "api/fota/v2"

_PROVIDER: Final[dict[str, dict[str, Handler]]] = {
    "api/ts/v1/oauth2/token": {"POST": api_auth.issue_token},
    "api/ts/v1/oauth2/revoke": {"POST": api_auth.revoke_token},
    "api/m2m/v1/session/login": {"POST": api_auth.log_in},
    "api/m2m/v1/session/logout": {"POST": api_auth.log_out},
}
_SERVICE: Final[dict[str, dict[str, Handler]]] = {
    f"{_FOTA}/callbacks/*": {
        "GET": api_callbacks.show,
        "POST": api_callbacks.register,
        "PUT": api_callbacks.register,
        "DELETE": api_callbacks.deregister,
    },
    f"{_FOTA}/campaigns/*": {"POST": api_campaigns.schedule},
    f"{_FOTA}/campaigns/*/*": {"GET": api_campaigns.show, "DELETE": api_campaigns.stop},
    f"{_FOTA}/campaigns/*/*/dates": {"PUT": api_campaigns.change_dates},
    f"{_FOTA}/software/*": {"GET": api_reports.software},
    f"{_FOTA}/devices/*": {"GET": api_reports.devices},
    f"{_FOTA}/reports/*/campaigns": {"GET": api_reports.campaigns},
    f"{_FOTA}/reports/*/campaigns/*/devices": {"GET": api_reports.campaign_devices},
    f"{_FOTA}/reports/*/devices/*": {"GET": api_reports.device_history},
}
_CONTROL: Final[dict[str, dict[str, Handler]]] = {
    "_sandbox": {"GET": api_control.banner},
    "_sandbox/deliveries": {"GET": api_control.deliveries},
    "_sandbox/truth/*": {"GET": api_control.truth},
    "_sandbox/announce/*": {"POST": api_control.announce},
    "_sandbox/unlock/*": {"POST": api_control.unlock},
}
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9-]+")


async def answer(sandbox: Sandbox, request: Request) -> Answer:
    """Answer one request.

    Raises:
        RequestError: With the answer of a request that is refused.
    """
    segments = request.segments
    # The control paths stand at the root; under the base URL they are found too.
    control = segments[1:] if segments[:2] == ("api", "_sandbox") else segments
    if control[0] == "_sandbox":
        api_control.require_loopback(request)
        handler, wild = _find(_CONTROL, request.method, control)
        return await handler(sandbox, request, *wild)
    try:
        handler, wild = _find(_SERVICE, request.method, segments)
    except RequestError:
        handler, wild = _find(_PROVIDER, request.method, segments)
        return await handler(sandbox, request)
    api_auth.require_bearer(sandbox, request)
    api_auth.require_session(sandbox, request)
    if not _ACCOUNT.fullmatch(wild[0]):
        raise RequestError(invalid_parameter("Invalid account name format"))
    return await handler(sandbox, request, *wild)


def _find(table: dict[str, dict[str, Handler]], method: str, segments: tuple[str, ...]) -> tuple[Handler, list[str]]:
    """Return a path's handler and what stands at its stars."""
    for pattern, methods in table.items():
        parts = pattern.split("/")
        if len(parts) != len(segments) or method not in methods:
            continue
        pairs = list(zip(parts, segments, strict=True))
        if all(part in {"*", segment} for part, segment in pairs):
            return methods[method], [segment for part, segment in pairs if part == "*"]
    raise RequestError(fault(400, "900906", "No matching resource found", "No matching resource for this API request"))
