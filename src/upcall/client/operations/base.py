"""What an operation is, and what a call of one is: values, without I/O.

Paths hang under the root that ends in ``/api``. Retry safety belongs to the operation and not to the verb.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from upcall.client.answers import Answer, is_success
from upcall.errors import AnsweredError, FotaV2ResultException

__all__ = ["Auth", "Call", "Operation", "ReadBack", "fill"]

T = TypeVar("T")

JSON: Final = "application/json"


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
        judged_by_status: Whether an error status that `accepts` admits says it all, whatever became of its body.
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
    judged_by_status: bool = False


class ReadBack(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Say how to find out whether a write was carried out whose answer was lost.

    Args:
        call: What reads the present state.
        settle: Makes the write's result of that state, None where the write is still to be made.
        mark: Says in a result of the write that the state was read back before.
    """

    call: Call[Any]
    settle: Callable[[Any], T | None]
    mark: Callable[[T], T]


class Call(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Hold one operation with its arguments filled in; `repr` shows no body.

    Args:
        operation: What to do.
        path: Its path with every segment percent-encoded, and its query.
        body: The request's body, None for none.
        content_type: What the body is.
        read_back: How to find out whether it was carried out, where no answer came.
        masked_path: The path for logs and hooks where it holds a device's identifier, None where it holds none.
    """

    operation: Operation[T]
    path: str
    body: bytes | None = None
    content_type: str = JSON
    read_back: ReadBack[T] | None = None
    masked_path: str | None = None

    @property
    def shown_path(self) -> str:
        """Return the path as logs and hooks may show it: a query may hold a device's identifier too."""
        return self.masked_path or self.path.partition("?")[0]

    def __repr__(self) -> str:
        return f"Call({self.operation.name})"


def fill(
    operation: Operation[T],
    body: bytes | None = None,
    *,
    query: Mapping[str, str | None] | None = None,
    masked: Mapping[str, str] | None = None,
    read_back: ReadBack[T] | None = None,
    **segments: str,
) -> Call[T]:
    """Make a call: fill the segments, percent-encoded, into an operation's path.

    Args:
        operation: What to do.
        body: The request's body.
        query: Parameters behind the path; one that is None is left out.
        masked: What logs and hooks show in the place of segments that are personal data.
        read_back: How to find out whether it was carried out.
        segments: The path's segments.
    """
    quoted = {name: quote(value, safe="") for name, value in segments.items()}
    path = operation.path.format(**quoted)
    given = {name: value for name, value in (query or {}).items() if value is not None}
    if given:
        path = f"{path}?{urlencode(given)}"
    masked_path = operation.path.format(**{**quoted, **masked}) if masked else None
    return Call(operation=operation, path=path, body=body, read_back=read_back, masked_path=masked_path)
