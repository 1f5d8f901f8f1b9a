"""Every call that we make, as data: where it goes, what it needs, whether it may be repeated, how it is read.

Paths hang under the root that ends in ``/api``. Retry safety belongs to the operation and not to the verb: POST and
PUT of a callback both replace and DELETE is idempotent, as documented; a login is counted by the provider, and
scheduling a campaign twice makes two campaigns.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from upcall.client.answers import Answer, UnreadableError, decode_json, is_empty, is_success, read_complaint
from upcall.errors import AnsweredError, FotaV2ResultException
from upcall.thingspace import (
    CallbackSummary,
    FotaV2CallbackRegistrationRequest,
    FotaV2CallbackRegistrationResult,
    FotaV2SuccessResult,
    check_account,
    check_callback_url,
)

__all__ = [
    "Auth",
    "Call",
    "IssuedToken",
    "Operation",
    "deregister_callback",
    "get_campaign_device_status",
    "get_campaign_information",
    "list_registered_callbacks",
    "log_in",
    "log_out",
    "register_callback",
    "request_token",
    "sandbox_banner",
    "schedule_campaign_firmware_upgrade",
    "update_callback",
]

T = TypeVar("T")

_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"
_TOKEN_SECONDS: Final = 3600.0
"""How long a bearer token lives where the answer does not say. Source: "Get credentials" (documented)."""


class Auth(enum.Enum):
    """Name what a call must carry."""

    NONE = "nothing"
    BASIC = "client id and secret"
    BEARER = "bearer token"
    BOTH = "bearer token and session token"


class Operation(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Describe one operation of the provider.

    Args:
        name: The official SDK's name for it.
        method: The HTTP verb.
        path: Its template, under the base URL.
        read: Makes the result of an answer that `accepts` admits, or raises `UnreadableError`.
        retry_safe: Whether doing it twice does the same as doing it once.
        accepts: Tells whether an answer is one to read. All others are errors.
        auth: What the request must carry.
        bad_request: What status 400 raises.
        at_root: Whether the path hangs under the host and not under ``/api``.
    """

    name: str
    method: str
    path: str
    read: Callable[[Answer], T]
    retry_safe: bool
    accepts: Callable[[Answer], bool] = is_success
    auth: Auth = Auth.BOTH
    bad_request: type[AnsweredError] = FotaV2ResultException
    at_root: bool = False


class Call(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Hold one operation with its arguments filled in; `repr` shows no body.

    Args:
        operation: What to do.
        path: Its path with every segment percent-encoded, and its query.
        body: The request's body, None for none.
        content_type: What the body is.
    """

    operation: Operation[T]
    path: str
    body: bytes | None = None
    content_type: str = _JSON

    def __repr__(self) -> str:
        return f"Call({self.operation.name})"


class IssuedToken(msgspec.Struct, frozen=True):
    """Hold a bearer token as it was issued; `repr` does not show it.

    Args:
        value: The token.
        lifetime_seconds: How long the provider says that it lives.
    """

    value: str
    lifetime_seconds: float

    def __repr__(self) -> str:
        return f"IssuedToken(lifetime_seconds={self.lifetime_seconds})"


# --- The four operations on an account's callback listener -----------------------------------------------------------


def _callback_url(document: Any) -> tuple[str | None, dict[str, Any]]:
    """Take the URL out of an answer: a table of the documentation prints it ``URL``, its examples ``url``."""
    if not isinstance(document, dict):
        raise UnreadableError("is no JSON object")
    key = next((name for name in ("url", "URL") if name in document), None)
    if key is None:
        raise UnreadableError("names no url")
    url = document[key]
    if url is not None and not isinstance(url, str):
        raise UnreadableError("has a url that is no text")
    return url or None, {name: value for name, value in document.items() if name != key}


def _read_summary(answer: Answer) -> CallbackSummary:
    if answer.status == 404 or is_empty(answer.body):  # noqa: PLR2004
        return CallbackSummary()
    document = decode_json(answer.body)
    # V1 answers an array where V2 answers an object.
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    url, extra = _callback_url(document)
    return CallbackSummary(url=url, extra=extra)


def _is_summary(answer: Answer) -> bool:
    """Tell whether an answer says what is registered; a 404 of the service itself says that nothing is."""
    if answer.status != 404 or is_empty(answer.body):  # noqa: PLR2004
        return is_success(answer) or answer.status == 404  # noqa: PLR2004
    try:
        document = decode_json(answer.body)
    except UnreadableError:
        return False
    return not (isinstance(document, dict) and "fault" in document)


def _read_registration(answer: Answer) -> FotaV2CallbackRegistrationResult:
    url, extra = _callback_url(decode_json(answer.body))
    if url is None:
        raise UnreadableError("names no url")
    return FotaV2CallbackRegistrationResult(url=url, extra=extra)


def _read_success(answer: Answer) -> FotaV2SuccessResult:
    if is_empty(answer.body):
        return FotaV2SuccessResult(success=True)
    document = decode_json(answer.body)
    if not isinstance(document, dict) or not isinstance(document.get("success"), bool):
        raise UnreadableError("does not say whether it succeeded")
    return FotaV2SuccessResult(
        success=document["success"], extra={name: value for name, value in document.items() if name != "success"}
    )


_CALLBACKS_PATH: Final = "/fota/v2/callbacks/{account}"

_LIST: Final = Operation(
    name="list_registered_callbacks",
    method="GET",
    path=_CALLBACKS_PATH,
    read=_read_summary,
    accepts=_is_summary,
    retry_safe=True,
)
_UPDATE: Final = Operation(
    name="update_callback", method="PUT", path=_CALLBACKS_PATH, read=_read_registration, retry_safe=True
)
_REGISTER: Final = Operation(
    name="register_callback", method="POST", path=_CALLBACKS_PATH, read=_read_registration, retry_safe=True
)
_DEREGISTER: Final = Operation(
    name="deregister_callback", method="DELETE", path=_CALLBACKS_PATH, read=_read_success, retry_safe=True
)


def list_registered_callbacks(account: str) -> Call[CallbackSummary]:
    """Read which URL is registered for an account."""
    return _fill(_LIST, account=check_account(account))


def update_callback(
    account: str, body: FotaV2CallbackRegistrationRequest | Mapping[str, Any], *, allow_http: bool = False
) -> Call[FotaV2CallbackRegistrationResult]:
    """Replace the URL that is registered for an account."""
    return _fill(_UPDATE, _registration_body(body, allow_http=allow_http), account=check_account(account))


def register_callback(
    account: str, body: FotaV2CallbackRegistrationRequest | Mapping[str, Any], *, allow_http: bool = False
) -> Call[FotaV2CallbackRegistrationResult]:
    """Register a URL for an account, replacing any other."""
    return _fill(_REGISTER, _registration_body(body, allow_http=allow_http), account=check_account(account))


def deregister_callback(account: str) -> Call[FotaV2SuccessResult]:
    """Remove the URL that is registered for an account."""
    return _fill(_DEREGISTER, account=check_account(account))


def _registration_body(body: FotaV2CallbackRegistrationRequest | Mapping[str, Any], *, allow_http: bool) -> bytes:
    document = msgspec.to_builtins(body) if isinstance(body, FotaV2CallbackRegistrationRequest) else body
    if not isinstance(document, Mapping):
        raise TypeError(
            f"body must be a FotaV2CallbackRegistrationRequest or a dict with 'url', not {type(body).__name__}"
        )
    if "url" not in document:
        raise ValueError("body has no 'url': ThingSpace expects {'url': 'https://…'}")
    check_callback_url(document["url"], allow_http=allow_http)
    return msgspec.json.encode(dict(document))


# --- What a campaign needs, under the official SDK's names -----------------------------------------------------------


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
    return _fill(_SCHEDULE, msgspec.json.encode(dict(body)), account=check_account(account))


def get_campaign_information(account: str, campaign_id: str) -> Call[dict[str, Any]]:
    """Read a campaign."""
    return _fill(_INFORMATION, account=check_account(account), campaign_id=_check_campaign_id(campaign_id))


def get_campaign_device_status(
    account: str, campaign_id: str, last_seen_device_id: str | None = None
) -> Call[dict[str, Any]]:
    """Read one page of the devices' states in a campaign."""
    query = None if last_seen_device_id is None else {"lastSeenDeviceId": last_seen_device_id}
    return _fill(
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


# --- The two tokens --------------------------------------------------------------------------------------------------


def _read_token(answer: Answer) -> IssuedToken:
    document = decode_json(answer.body)
    if not isinstance(document, dict):
        raise UnreadableError("is no JSON object")
    return IssuedToken(_header_text(document, "access_token"), _lifetime(document.get("expires_in")))


def _lifetime(seconds: Any) -> float:
    try:
        value = float(seconds)
    except (TypeError, ValueError, OverflowError):
        return _TOKEN_SECONDS
    return value if 0 < value < float("inf") else _TOKEN_SECONDS


def _read_session(answer: Answer) -> str | None:
    """Return the session token, None where the login was refused."""
    if not is_success(answer):
        return None
    document = decode_json(answer.body)
    if not isinstance(document, dict):
        raise UnreadableError("is no JSON object")
    return _header_text(document, "sessionToken")


def _is_login_verdict(answer: Answer) -> bool:
    """Tell whether the provider judged the user name and password: the gateway's ``fault`` judges only the bearer."""
    refused = answer.status in {400, 401, 403} and read_complaint(answer).shape != "fault"
    return is_success(answer) or refused


def _header_text(document: dict[str, Any], key: str) -> str:
    """Return a token that can stand in a header."""
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise UnreadableError(f"has no {key}")
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise UnreadableError(f"has a {key} that no header can carry")
    return value


_TOKEN: Final = Operation(
    name="request_token",
    method="POST",
    path="/ts/v1/oauth2/token",
    read=_read_token,
    retry_safe=True,
    auth=Auth.BASIC,
    bad_request=AnsweredError,
)
_LOGIN: Final = Operation(
    name="login",
    method="POST",
    path="/m2m/v1/session/login",
    read=_read_session,
    accepts=_is_login_verdict,
    retry_safe=False,
    auth=Auth.BEARER,
    bad_request=AnsweredError,
)
_LOGOUT: Final = Operation(
    name="logout",
    method="POST",
    path="/m2m/v1/session/logout",
    read=lambda _: None,
    retry_safe=True,
    bad_request=AnsweredError,
)


def request_token() -> Call[IssuedToken]:
    """Ask for a bearer token."""
    return Call(operation=_TOKEN, path=_TOKEN.path, body=b"grant_type=client_credentials", content_type=_FORM)


def log_in(username: str, password: str) -> Call[str | None]:
    """Ask for a session token; the result is None where the provider refuses the user name or the password."""
    return _fill(_LOGIN, msgspec.json.encode({"username": username, "password": password}))


def log_out() -> Call[None]:
    """End the session."""
    return _fill(_LOGOUT)


# --- The sandbox says that it is one ---------------------------------------------------------------------------------


def _read_banner(answer: Answer) -> dict[str, Any] | None:
    try:
        document = decode_json(answer.body)
    except UnreadableError:
        return None
    is_sandbox = is_success(answer) and isinstance(document, dict) and document.get("sandbox") is True
    return document if is_sandbox else None


_BANNER: Final = Operation(
    name="sandbox_banner",
    method="GET",
    path="/_sandbox/",
    read=_read_banner,
    accepts=lambda _: True,
    retry_safe=True,
    auth=Auth.NONE,
    bad_request=AnsweredError,
    at_root=True,
)


def sandbox_banner() -> Call[dict[str, Any] | None]:
    """Ask whether a sandbox answers; the result is None where something else does."""
    return _fill(_BANNER)


def _fill(
    operation: Operation[T], body: bytes | None = None, *, query: Mapping[str, str] | None = None, **segments: str
) -> Call[T]:
    path = operation.path.format(**{name: quote(value, safe="") for name, value in segments.items()})
    return Call(operation=operation, path=f"{path}?{urlencode(query)}" if query else path, body=body)
