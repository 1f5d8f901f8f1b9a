"""How a call that failed is told: the error's kind, its text and its facts.

A text shows neither secret nor body. Of the provider's own message it shows a line in which tokens, URLs and device
identifiers are masked, because providers echo what they were sent.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from upcall.client.answers import MAX_REQUEST_ID, Answer, Complaint, read_complaint
from upcall.errors import (
    AnsweredError,
    CredentialsError,
    NoAnswerError,
    RequestNotSentError,
    ThingSpaceError,
    UndecodableAnswerError,
)
from upcall.redact import mask_device, mask_url_token, scrub

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upcall.client.operations import Operation
    from upcall.settings import Credentials

__all__ = ["Failure", "Tally", "answered", "login_refused", "unconfirmed", "undecodable", "unreached"]

E = TypeVar("E", bound=ThingSpaceError)

_URL: Final = re.compile(r"https?://[^\s\"'<>]+")
_LONG_NUMBER: Final = re.compile(r"\d{10,}")
_MAX_SHOWN: Final = 200
_FLAWS: Final = {
    "cut": "was cut off",
    "too_large": "is larger than any answer of this API",
    "garbled": "cannot be decompressed",
}
_REFUSED: Final = frozenset({401, 403})
_BAD_REQUEST: Final = 400
_WRONG_PLACE: Final = "Check the base URL, the root that ends in /api, and what stands between here and there."
_NO_SUCH_PATH: Final = "900906"
"""The gateway's code for a path that it does not know, with 400 (documented for Connectivity Management)."""

_HINTS: Final = {
    400: "The provider refuses the request itself: correct what it names, such as the account or the URL.",
    404: "Check the base URL, the root that ends in /api.",
    407: "A proxy wants credentials: check HTTPS_PROXY and ALL_PROXY.",
    408: "The provider gave up waiting for the request: call again.",
    429: "Too many calls: call again later, and fewer at once.",
}
_HINTS_BY_CLASS: Final = {
    3: "Redirects are not followed: check the base URL.",
    5: "The provider failed, not the request: call again later.",
}
_UNSURE: Final = "It may have been carried out: read back what is there before you call again."


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Say that a request got no answer.

    Args:
        reason: What happened, for a sentence.
        sent: Whether any of it may have reached the provider.
        permanent: Whether the same request can never do better.
    """

    reason: str
    sent: bool
    permanent: bool = False


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what a failed call cost.

    Args:
        base_url: The provider's root.
        attempts: How many times the request was sent.
        elapsed_seconds: Since the call began.
        secrets: What no text may show.
        retry_after_seconds: How long the provider asked to be left alone, where it did.
        left_seconds: What is left of the budget.
    """

    base_url: str
    attempts: int
    elapsed_seconds: float
    secrets: tuple[str, ...] = ()
    retry_after_seconds: float | None = None
    left_seconds: float = 0.0

    def __repr__(self) -> str:
        return f"Tally(attempts={self.attempts}, elapsed_seconds={self.elapsed_seconds})"


def unreached(operation: Operation[Any], failure: Failure, tally: Tally) -> ThingSpaceError:
    """Make the error of a request without an answer."""
    if failure.sent:
        hint = _UNSURE if operation.method != "GET" else "It only reads, and is safe to call again."
        text = f"{operation.name} was sent to {tally.base_url} and not answered: {failure.reason}."
        return _fill(NoAnswerError(text, hint=hint), operation, tally)
    text = f"{operation.name} was not sent to {tally.base_url}: {failure.reason}."
    hint = "Check the base URL, the network, proxy variables and certificates; calling again is safe."
    return _fill(RequestNotSentError(text, hint=hint), operation, tally)


def answered(operation: Operation[Any], answer: Answer, tally: Tally, credentials: Credentials) -> ThingSpaceError:
    """Make the error of an answer that is none of the operation's results.

    Args:
        operation: What was asked for.
        answer: What came.
        tally: What it cost.
        credentials: Who called, to name what to correct.
    """
    complaint = read_complaint(answer)
    kind: type[ThingSpaceError] = AnsweredError
    if answer.status == _BAD_REQUEST:
        kind = operation.bad_request
    if answer.status in _REFUSED or _is_refused_client(operation, complaint):
        kind = CredentialsError
    hint = _wait_hint(tally) or _hint(answer, complaint, operation, credentials)
    error = kind(_sentence(operation, answer, complaint, tally), hint=hint)
    return _fill(error, operation, tally, answer, complaint)


def unconfirmed(
    operation: Operation[Any], answer: Answer | None, problem: ThingSpaceError, tally: Tally
) -> NoAnswerError:
    """Make the error of a write without a whole answer, where reading back what is there failed too."""
    text = f"{operation.name} was sent to {tally.base_url} and not answered, and could not be read back: {problem}"
    error = _fill(NoAnswerError(text, hint=_UNSURE), operation, tally, answer)
    error.retry_after_seconds = error.retry_after_seconds or problem.retry_after_seconds
    return error


def login_refused(
    operation: Operation[Any], answer: Answer, tally: Tally, credentials: Credentials
) -> CredentialsError:
    """Make the error of a login that the provider judged and refused."""
    complaint = read_complaint(answer)
    error = CredentialsError(
        _sentence(operation, answer, complaint, tally),
        hint=f"Check {credentials.name_of('username')} and {credentials.name_of('password')}: five refusals in a row"
        " lock the account at the provider, so this password is not sent again.",
    )
    return _fill(error, operation, tally, answer, complaint)


def undecodable(operation: Operation[Any], answer: Answer, problem: str, tally: Tally) -> UndecodableAnswerError:
    """Make the error of a success whose body is not the documented one."""
    what = _FLAWS.get(answer.flaw or "", problem)
    complaint = read_complaint(answer)
    error = UndecodableAnswerError(
        f"ThingSpace answered {operation.name} with {answer.status} and a body that {what}{_said(complaint, tally)}.",
        hint="It was probably carried out: read back what is there." if operation.method != "GET" else _WRONG_PLACE,
    )
    return _fill(error, operation, tally, answer, complaint)


def _sentence(operation: Operation[Any], answer: Answer, complaint: Complaint, tally: Tally) -> str:
    return f"ThingSpace answered {operation.name} with {answer.status}{_said(complaint, tally)}".rstrip(".") + "."


def _said(complaint: Complaint, tally: Tally) -> str:
    """Return the provider's own code and message, fit for a log."""
    code = f" {_shown(complaint.code, tally.secrets)}" if complaint.code else ""
    return code + (f": {_shown(complaint.message, tally.secrets)}" if complaint.message else "")


def _shown(text: str, secrets: Iterable[str]) -> str:
    """Make a provider's text fit for a log: one short line without secrets, URL tokens or device identifiers."""
    line = " ".join((scrub(text, secrets) or "").split())
    line = _URL.sub(lambda found: mask_url_token(found[0]), "".join(c for c in line if c.isprintable()))
    line = _LONG_NUMBER.sub(lambda found: mask_device(found[0]), line)
    return line if len(line) <= _MAX_SHOWN else f"{line[:_MAX_SHOWN]}…"


def _wait_hint(tally: Tally) -> str | None:
    asked = tally.retry_after_seconds
    if asked is None or asked <= tally.left_seconds:
        return None
    left = max(0.0, tally.left_seconds)
    return f"It asks to be left alone for {asked:.0f} s, and max_elapsed_seconds leaves {left:.0f} s: call again later."


def _is_refused_client(operation: Operation[Any], complaint: Complaint) -> bool:
    return operation.name == "request_token" and complaint.code in {"invalid_client", "unauthorized_client"}


def _hint(answer: Answer, complaint: Complaint, operation: Operation[Any], credentials: Credentials) -> str:
    if complaint.code == _NO_SUCH_PATH:
        return _WRONG_PLACE
    if operation.name == "request_token" and answer.status in {_BAD_REQUEST, *_REFUSED}:
        return f"Check {credentials.name_of('client_id')} and {credentials.name_of('client_secret')}."
    if credentials.session_token and (complaint.names_session() or answer.status in _REFUSED):
        token, user, password = (credentials.name_of(field) for field in ("session_token", "username", "password"))
        return (
            f"The session token was given and is never replaced: give a fresh {token}, or unset it and"
            f" set {user} and {password}."
        )
    if answer.status in _REFUSED:
        return "Check that these credentials may manage software of this account."
    return _HINTS.get(answer.status) or _HINTS_BY_CLASS.get(answer.status // 100, _WRONG_PLACE)


def _fill(
    error: E,
    operation: Operation[Any],
    tally: Tally,
    answer: Answer | None = None,
    complaint: Complaint | None = None,
) -> E:
    error.operation = operation.name
    error.attempts = tally.attempts
    error.elapsed_seconds = tally.elapsed_seconds
    error.retry_after_seconds = tally.retry_after_seconds
    if answer is not None:
        error.status_code = answer.status
        error.request_id = (scrub(answer.request_id, tally.secrets) or "")[:MAX_REQUEST_ID] or None
    if complaint is not None:
        error.error_code = scrub(complaint.code, tally.secrets)
        error.error_message = scrub(complaint.message, tally.secrets)
    return error
