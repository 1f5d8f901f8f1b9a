"""What one call may spend, and what it has spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypedDict

import msgspec

from upcall.client.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CallOptions", "Limits", "Trip", "check_options"]

_STORED_REPLAYS: Final = 3
_SHORTEST_TIMEOUT: Final = 1.0
"""A request that is sent at the end of its budget is still given a second: a write cut short is the worst outcome."""


class CallOptions(TypedDict, total=False):
    """What one call may set for itself, in place of what its client was made with.

    Args:
        timeout_seconds: How long one request may take, more than 0.
        max_retries: How often the call may be tried again, 0 or more.
        max_elapsed_seconds: The budget of the whole call, retries and waits included, more than 0.
    """

    timeout_seconds: float
    max_retries: int
    max_elapsed_seconds: float


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what a call may spend.

    Args:
        timeout_seconds: How long one request may take, more than 0.
        policy: When to try again.

    Raises:
        ValueError: A number is out of its range.
    """

    timeout_seconds: float = 30.0
    policy: RetryPolicy = RetryPolicy()

    def __post_init__(self) -> None:
        if not self.timeout_seconds > 0:
            raise ValueError(f"timeout_seconds must be more than 0, not {self.timeout_seconds}")

    def but(self, options: Mapping[str, Any]) -> Limits:
        """Return these limits with what one call sets for itself; None changes nothing.

        Args:
            options: See `CallOptions`.

        Raises:
            TypeError: There is no such option.
            ValueError: A number is out of its range.
        """
        known = CallOptions.__annotations__
        for name in options:
            if name not in known:
                raise TypeError(f"There is no option {name!r}: a call takes {', '.join(known)}.")
        given = {name: value for name, value in options.items() if value is not None}
        timeout_seconds = given.pop("timeout_seconds", self.timeout_seconds)
        return Limits(timeout_seconds=timeout_seconds, policy=msgspec.structs.replace(self.policy, **given))


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse the options of a call that mean nothing, before a call of many is made.

    Raises:
        TypeError: There is no such option.
        ValueError: A number is out of its range.
    """
    Limits().but(options)


class Trip:
    """Count what one call spends.

    Args:
        limits: What it may spend.
        started: When it began, on the monotonic clock.
        purpose: The name of the operation that the user asked for, empty where none is.
    """

    __slots__ = ("_replays", "attempts", "limits", "purpose", "read_back", "retries", "started")

    def __init__(self, limits: Limits, started: float, purpose: str = "") -> None:
        self.limits: Limits = limits
        self.purpose: str = purpose
        self.started: float = started
        self.attempts: int = 0
        self.retries: int = 0
        self._replays: dict[tuple[str, bool], int] = {}
        self.read_back: bool = False

    def part(self) -> Trip:
        """Return the trip of a call that is made for this one: both share one budget."""
        return Trip(self.limits, self.started)

    def may_replay(self, kind: str, *, stored: bool) -> bool:
        """Tell whether the call may be sent again because a token was refused.

        Once for a token that was fetched. One that was found on disk may have died in another process's hands: it does
        not count, up to a point.
        """
        return self._replays.get((kind, stored), 0) < (_STORED_REPLAYS if stored else 1)

    def note_replay(self, kind: str, *, stored: bool) -> None:
        """Count a replay."""
        self._replays[kind, stored] = self._replays.get((kind, stored), 0) + 1

    def left(self, now: float) -> float:
        """Return how much of the budget is left, never less than a request needs."""
        return max(_SHORTEST_TIMEOUT, self.limits.policy.max_elapsed_seconds - (now - self.started))

    def timeout(self, now: float) -> float:
        """Return how long a request may take that is sent now."""
        return min(self.limits.timeout_seconds, self.left(now))
