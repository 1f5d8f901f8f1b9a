"""Tokens and sessions: ``/ts/v1/oauth2`` and ``/m2m/v1/session``, and the two checks before every other call."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from upcall.sandbox.faults import SESSION_DEAD_SECONDS
from upcall.sandbox.http import (
    Answer,
    RequestError,
    fault,
    json_answer,
    oauth_error,
    provider_error,
    wrong_authentication,
)
from upcall.sandbox.models import OauthToken, SessionToken

if TYPE_CHECKING:
    from upcall.sandbox.app import Sandbox
    from upcall.sandbox.http import Request

__all__ = ["bearer_of", "issue_token", "log_in", "log_out", "require_bearer", "require_session", "revoke_token"]

_SESSION_ERRORS = {
    "Expired": ("REQUEST_FAILED.SessionToken.Expired", "The session token has expired. Log in again."),
    "Format": ("REQUEST_FAILED.SessionToken.Format", "The VZ-M2M-Token header is missing."),
    "Invalid": ("INPUT_INVALID.SessionToken.Invalid", "The session token is not valid."),
}
"""Source: Connectivity Management's error codes (documented there); the status of 401 is assumed."""


def require_bearer(sandbox: Sandbox, request: Request) -> None:
    """Check the bearer token of a call.

    Raises:
        RequestError: It is missing (900902) or not live (900901), in the gateway's shape; or the header holds
            credentials of another kind (403, XML).
    """
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() not in {"", "bearer"} and rest.strip():
        raise RequestError(wrong_authentication())
    token = bearer_of(request)
    if not token:
        raise RequestError(fault(401, "900902", "Missing Credentials", "Required OAuth credentials were not provided"))
    if not sandbox.access.is_bearer(token, sandbox.clock.now()):
        raise RequestError(
            fault(401, "900901", "Invalid Credentials", "Access failure for API, the token is not valid")
        )


def bearer_of(request: Request) -> str:
    """Return the bearer token of a call, empty where it carries none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def require_session(sandbox: Sandbox, request: Request) -> None:
    """Check the session of a call, and extend it.

    Raises:
        RequestError: It is missing, unknown or expired.
    """
    verdict = sandbox.access.use_session(request.headers.get("vz-m2m-token", "").strip(), sandbox.clock.now())
    if verdict.error is not None:
        code, message = _SESSION_ERRORS[verdict.error]
        raise RequestError(provider_error(401, f"UnifiedWebService.{code}", message))
    sandbox.keep_access_soon()


async def issue_token(sandbox: Sandbox, request: Request) -> Answer:
    """Answer ``POST /ts/v1/oauth2/token``: the client's bearer token, the same within the hour."""
    client_id = _client(sandbox, request)
    if request.form().get("grant_type") != "client_credentials":
        return oauth_error(400, "invalid_request", "grant_type must be client_credentials")
    bearer, seconds = sandbox.access.issue_token(client_id, sandbox.clock.now(), sandbox.secrets)
    await sandbox.keep_access_now()
    return json_answer(OauthToken(bearer.token, "am_application_scope default", "Bearer", seconds))


async def revoke_token(sandbox: Sandbox, request: Request) -> Answer:
    """Answer ``POST /ts/v1/oauth2/revoke``: no body; the revoked token comes back in a header.

    Source: "Get credentials" (documented; the header's name is the gateway product's own, assumed).
    """
    client_id = _client(sandbox, request)
    token = request.form().get("token", "")
    if not token:
        return oauth_error(400, "invalid_request", "token is missing")
    if not sandbox.access.revoke_token(client_id, token):
        return Answer(200)
    await sandbox.keep_access_now()
    return Answer(200, b"", (("RevokedAccessToken", token),))


async def log_in(sandbox: Sandbox, request: Request) -> Answer:
    """Answer ``POST /m2m/v1/session/login``: a new session.

    Source: "Start connectivity management session" (documented); the codes of a refusal are assumed.
    """
    body = request.json_object()
    username, password = body.get("username"), body.get("password")
    if not isinstance(username, str) or not isinstance(password, str):
        return provider_error(400, "UnifiedWebService.INPUT_INVALID.Credentials.Missing", "Give username and password.")
    now = sandbox.clock.now()
    dies_at = now + SESSION_DEAD_SECONDS if sandbox.session_dies() else None
    login = sandbox.access.log_in(username, password, now, sandbox.secrets, dies_at=dies_at)
    await sandbox.keep_access_now()
    if login.session_token is not None:
        return json_answer(SessionToken(login.session_token))
    if login.locked:
        message = "The account is locked after five refused logins. Only support unlocks it."
        return provider_error(400, "UnifiedWebService.REQUEST_FAILED.Account.Locked", message)
    return provider_error(
        400, "UnifiedWebService.INPUT_INVALID.Password.Invalid", "The user name or the password is not valid."
    )


async def log_out(sandbox: Sandbox, request: Request) -> Answer:
    """Answer ``POST /m2m/v1/session/logout``: the session is over."""
    token = request.headers["vz-m2m-token"].strip()
    sandbox.access.log_out(token)
    await sandbox.keep_access_now()
    return json_answer(SessionToken(token))


def _client(sandbox: Sandbox, request: Request) -> str:
    """Return the client id of a Basic header that is right."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic" or not encoded.strip():
        raise RequestError(fault(401, "900902", "Missing Credentials", "Required OAuth credentials were not provided"))
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except ValueError:
        decoded = ""
    client_id, _, client_secret = decoded.partition(":")
    if not sandbox.access.credentials.is_client(client_id, client_secret):
        raise RequestError(oauth_error(401, "invalid_client", "A valid OAuth client could not be found"))
    return client_id
