"""The four operations on an account's callback listener.

POST and PUT both replace and DELETE is idempotent, as documented, so all four are safe to repeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from upcall.client.answers import Answer, UnreadableError, decode_json, is_empty, is_success
from upcall.client.operations.base import Call, Operation, ReadBack, fill
from upcall.thingspace import (
    CallbackSummary,
    FotaV2CallbackRegistrationRequest,
    FotaV2CallbackRegistrationResult,
    FotaV2SuccessResult,
    check_account,
    check_callback_url,
)

__all__ = [
    "RegistrationBody",
    "deregister_callback",
    "list_registered_callbacks",
    "register_callback",
    "update_callback",
]

R = TypeVar("R", FotaV2CallbackRegistrationResult, FotaV2SuccessResult)

RegistrationBody: TypeAlias = FotaV2CallbackRegistrationRequest | Mapping[str, Any]
"""What registers a URL: the model, or a dict with `url`."""


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
    return fill(_LIST, account=check_account(account))


def update_callback(
    account: str, body: RegistrationBody, *, allow_http: bool = False
) -> Call[FotaV2CallbackRegistrationResult]:
    """Replace the URL that is registered for an account."""
    return _write(_UPDATE, account, body, allow_http=allow_http)


def register_callback(
    account: str, body: RegistrationBody, *, allow_http: bool = False
) -> Call[FotaV2CallbackRegistrationResult]:
    """Register a URL for an account, replacing any other."""
    return _write(_REGISTER, account, body, allow_http=allow_http)


def deregister_callback(account: str) -> Call[FotaV2SuccessResult]:
    """Remove the URL that is registered for an account."""

    def settle(standing: CallbackSummary) -> FotaV2SuccessResult | None:
        return FotaV2SuccessResult(success=True, read_back=True) if standing.url is None else None

    read_back = ReadBack(call=list_registered_callbacks(account), settle=settle, mark=_mark)
    return fill(_DEREGISTER, read_back=read_back, account=check_account(account))


def _write(
    operation: Operation[FotaV2CallbackRegistrationResult], account: str, body: RegistrationBody, *, allow_http: bool
) -> Call[FotaV2CallbackRegistrationResult]:
    document = _checked(body, allow_http=allow_http)
    url = document["url"]

    def settle(standing: CallbackSummary) -> FotaV2CallbackRegistrationResult | None:
        return FotaV2CallbackRegistrationResult(url=url, read_back=True) if standing.url == url else None

    read_back = ReadBack(call=list_registered_callbacks(account), settle=settle, mark=_mark)
    return fill(operation, msgspec.json.encode(document), read_back=read_back, account=check_account(account))


def _mark(result: R) -> R:
    return msgspec.structs.replace(result, read_back=True)


def _checked(body: RegistrationBody, *, allow_http: bool) -> dict[str, Any]:
    """Return a body that can be sent, as a dict."""
    document = msgspec.to_builtins(body) if isinstance(body, FotaV2CallbackRegistrationRequest) else body
    if not isinstance(document, Mapping):
        raise TypeError(
            f"body must be a FotaV2CallbackRegistrationRequest or a dict with 'url', not {type(body).__name__}"
        )
    if "url" not in document:
        raise ValueError("body has no 'url': ThingSpace expects {'url': 'https://…'}")
    check_callback_url(document["url"], allow_http=allow_http)
    return dict(document)
