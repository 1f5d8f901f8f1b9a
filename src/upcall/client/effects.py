"""What a flow asks of its driver, and what it gives back: values that both sides know.

A flow is a generator. It yields effects, receives what became of each, and returns its result.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from upcall.client.answers import Answer
from upcall.client.auth import Flight

__all__ = ["Clock", "Do", "Effect", "Flow", "Join", "Launch", "Reply", "Request", "Send", "Wait"]

T = TypeVar("T")


class Clock(msgspec.Struct, frozen=True):
    """Hold where time and chance come from.

    Args:
        monotonic: Seconds that never go back.
        wall: Seconds since 1970.
        chance: A random number of [0, 1).
    """

    monotonic: Callable[[], float]
    wall: Callable[[], float]
    chance: Callable[[], float]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one HTTP request; `repr` shows neither headers nor body.

    Args:
        method: The HTTP verb.
        root: The URL's beginning, without a trailing slash.
        path: The rest of it, percent-encoded.
        headers: The headers, without ``Host`` and ``Content-Length``.
        body: The body.
    """

    method: str
    root: str
    path: str
    headers: dict[str, str]
    body: bytes | None

    def __repr__(self) -> str:
        return f"Request({self.method} {self.url})"

    @property
    def url(self) -> str:
        """Return the whole URL."""
        return self.root + self.path


class Send(msgspec.Struct, frozen=True):
    """Send a request; receives an `Answer` or a `Failure`."""

    request: Request
    timeout_seconds: float


class Wait(msgspec.Struct, frozen=True):
    """Let time pass."""

    seconds: float


class Launch(msgspec.Struct, frozen=True):
    """Run a flow to its end whatever becomes of the caller; receives nothing. Its result is in its flight.

    Args:
        flow: What to run.
        ended: To be called when it is over, even where it was stopped before its first step.
    """

    flow: Flow[None]
    ended: Callable[[], None]


class Join(msgspec.Struct, frozen=True):
    """Wait for a flight; receives its outcome, or a `TimeoutError`."""

    flight: Flight
    timeout_seconds: float


class Do(msgspec.Struct, frozen=True):
    """Call a function that touches the disk; receives what it returns. `repr` does not show its arguments."""

    function: Callable[[], Any]

    def __repr__(self) -> str:
        return "Do(…)"


Effect: TypeAlias = Send | Wait | Launch | Join | Do
Flow: TypeAlias = Generator[Effect, Any, T]


class Reply(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Hold what a call came to; `repr` does not show the result, which may be a token.

    Args:
        parsed: The result.
        answer: The answer that it was read from.
        attempts: How many times the request was sent.
        elapsed_seconds: Since the call began.
    """

    parsed: T
    answer: Answer
    attempts: int
    elapsed_seconds: float

    def __repr__(self) -> str:
        return f"Reply({self.answer!r}, attempts={self.attempts})"
