"""When failed work runs again. Pure: the randomness is an argument."""

from __future__ import annotations

import msgspec

__all__ = ["RetrySchedule", "retry_delay_seconds"]

LONGEST_BACKOFF_SECONDS = 365 * 24 * 3600


class RetrySchedule(msgspec.Struct, frozen=True, kw_only=True):
    """Say how often a handler is tried, and how long it waits in between.

    Args:
        max_attempts: Tries in all, at least 1.
        backoff_seconds: The longest wait before the second try, 0 to a year; it doubles with each try.
        max_backoff_seconds: No wait is longer; 0 to a year.

    Raises:
        ValueError: A figure is out of its range.
    """

    max_attempts: int = 12
    backoff_seconds: float = 1.0
    max_backoff_seconds: float = 600.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {self.max_attempts}")
        for name, seconds in (("backoff", self.backoff_seconds), ("max_backoff", self.max_backoff_seconds)):
            if not 0 <= seconds <= LONGEST_BACKOFF_SECONDS:  # false of NaN too
                raise ValueError(f"{name}_seconds must be from 0 to {LONGEST_BACKOFF_SECONDS} (a year), not {seconds}")


def retry_delay_seconds(
    schedule: RetrySchedule, attempt: int, fraction: float, *, at_least_seconds: float = 0.0
) -> float | None:
    """Return how long to wait after a failed attempt.

    Args:
        schedule: The handler's schedule.
        attempt: The attempt that failed, from 1.
        fraction: A random number from 0 to 1: half of the wait is fixed, half is jitter.
        at_least_seconds: What the handler, or whom it spoke to, asked for; it makes the wait longer only.

    Returns:
        Seconds; None where the attempts are used up.
    """
    if attempt >= schedule.max_attempts:
        return None
    # Past 2**60 the doubling has long met its cap, and a float would overflow.
    longest = min(schedule.max_backoff_seconds, schedule.backoff_seconds * 2.0 ** min(attempt - 1, 60))
    return max(at_least_seconds, longest * (0.5 + 0.5 * fraction))
