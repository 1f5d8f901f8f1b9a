"""What one call may spend, and what it has spent."""

from __future__ import annotations

from typing import Final, TypedDict

import msgspec

from upcall.client.retry import RetryPolicy

__all__ = ["CallOptions", "Limits", "Trip"]

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

    def but(
        self,
        *,
        timeout_seconds: float | None = None,
        max_retries: int | None = None,
        max_elapsed_seconds: float | None = None,
    ) -> Limits:
        """Return these limits with what one call sets for itself."""
        policy = self.policy
        return Limits(
            timeout_seconds=self.timeout_seconds if timeout_seconds is None else timeout_seconds,
            policy=RetryPolicy(
                max_retries=policy.max_retries if max_retries is None else max_retries,
                max_elapsed_seconds=policy.max_elapsed_seconds if max_elapsed_seconds is None else max_elapsed_seconds,
                backoff_seconds=policy.backoff_seconds,
                max_backoff_seconds=policy.max_backoff_seconds,
            ),
        )


class Trip:
    """Count what one call spends.

    Args:
        limits: What it may spend.
        started: When it began, on the monotonic clock.
    """

    __slots__ = ("attempts", "limits", "read_back", "replayed", "retries", "started")

    def __init__(self, limits: Limits, started: float) -> None:
        self.limits = limits
        self.started = started
        self.attempts = 0
        self.retries = 0
        self.replayed: frozenset[str] = frozenset()
        self.read_back = False

    def part(self) -> Trip:
        """Return the trip of a call that is made for this one: both share one budget."""
        return Trip(self.limits, self.started)

    def left(self, now: float) -> float:
        """Return how much of the budget is left, never less than a request needs."""
        return max(_SHORTEST_TIMEOUT, self.limits.policy.max_elapsed_seconds - (now - self.started))

    def timeout(self, now: float) -> float:
        """Return how long a request may take that is sent now."""
        return min(self.limits.timeout_seconds, self.left(now))
