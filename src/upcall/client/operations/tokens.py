"""The calls behind the two tokens. A login is counted by the provider, so it is not repeated."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from upcall.client.answers import Answer, UnreadableError, decode_json, is_success, read_complaint
from upcall.client.operations.base import Auth, Call, Operation, fill
from upcall.errors import AnsweredError

__all__ = ["LOGIN", "IssuedToken", "log_in", "log_out", "request_token"]

_FORM: Final = "application/x-www-form-urlencoded"
_TOKEN_SECONDS: Final = 3600.0
"""How long a bearer token lives where the answer does not say. Source: "Get credentials" (documented)."""


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


def _is_logged_out(answer: Answer) -> bool:
    """Tell whether a session is over: one that is refused was over before."""
    return is_success(answer) or read_complaint(answer).names_session()


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
LOGIN: Final = Operation(
    name="login",
    method="POST",
    path="/m2m/v1/session/login",
    read=_read_session,
    accepts=_is_login_verdict,
    judged_by_status=True,
    retry_safe=False,
    auth=Auth.BEARER,
    bad_request=AnsweredError,
)
_LOGOUT: Final = Operation(
    name="logout",
    method="POST",
    path="/m2m/v1/session/logout",
    read=lambda _: None,
    accepts=_is_logged_out,
    retry_safe=True,
    bad_request=AnsweredError,
)


def request_token() -> Call[IssuedToken]:
    """Ask for a bearer token."""
    return Call(operation=_TOKEN, path=_TOKEN.path, body=b"grant_type=client_credentials", content_type=_FORM)


def log_in(username: str, password: str) -> Call[str | None]:
    """Ask for a session token; the result is None where the provider refuses the user name or the password."""
    return fill(LOGIN, msgspec.json.encode({"username": username, "password": password}))


def log_out() -> Call[None]:
    """End the session."""
    return fill(_LOGOUT)
