"""What a call came to, beside its result."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from upcall.client.effects import Reply

__all__ = ["RawResponse", "raw_response"]

T = TypeVar("T")


class RawResponse(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Hold a result together with the answer that it was read from; `repr` shows no header.

    Args:
        status: The answer's HTTP status.
        headers: The answer's headers, their names in lower case.
        request_id: The provider's id for the request, where it sent one.
        elapsed: From the call to its end, waits and other tries included.
        attempts: How many times the request was sent.
        parsed: The result.
    """

    status: int
    headers: Mapping[str, str]
    request_id: str | None
    elapsed: timedelta
    attempts: int
    parsed: T

    def __repr__(self) -> str:
        return f"RawResponse(status={self.status}, attempts={self.attempts}, parsed={self.parsed!r})"


def raw_response(reply: Reply[T]) -> RawResponse[T]:
    """Make the raw response of what an exchange came to."""
    return RawResponse(
        status=reply.answer.status,
        headers=reply.answer.headers,
        request_id=reply.answer.request_id,
        elapsed=timedelta(seconds=reply.elapsed_seconds),
        attempts=reply.attempts,
        parsed=reply.parsed,
    )
