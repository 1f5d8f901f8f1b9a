"""When to try again: a decision over numbers, with the time and the randomness passed in."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["RETRY_STATUSES", "RetryPolicy", "retry_after_seconds"]

RETRY_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed."""


_LONGEST_SECONDS: Final = 1e9


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Say how often and how long one call may try.

    Args:
        max_retries: Tries after the first one, 0 or more.
        max_elapsed_seconds: The budget of the whole call, waits included, more than 0.
        backoff_seconds: The most that the first wait can last; each later wait may last twice as long.
        max_backoff_seconds: The most that any wait can last, unless the provider asks for longer.
    """

    max_retries: int = 3
    max_elapsed_seconds: float = 60.0
    backoff_seconds: float = 0.5
    max_backoff_seconds: float = 8.0

    def __post_init__(self) -> None:
        if self.max_retries < 0:
            raise ValueError(f"max_retries must be 0 or more, not {self.max_retries}")
        if not self.max_elapsed_seconds > 0:
            raise ValueError(f"max_elapsed_seconds must be more than 0, not {self.max_elapsed_seconds}")

    def wait_seconds(
        self, *, retries: int, elapsed_seconds: float, chance: float, retry_after: float = 0.0
    ) -> float | None:
        """Return how long to wait before the next try, None to give up.

        Args:
            retries: How many retries were made.
            elapsed_seconds: How long the call has taken so far.
            chance: A random number of [0, 1): the jitter is full.
            retry_after: How long the provider asked to be left alone, in seconds.
        """
        left = self.max_elapsed_seconds - elapsed_seconds
        if retries >= self.max_retries or left <= 0:
            return None
        ceiling = min(self.max_backoff_seconds, self.backoff_seconds * 2.0 ** min(retries, 32))
        # Jitter comes on top of Retry-After: callers who were told the same second should not all return in it.
        wait = retry_after + chance * ceiling
        if wait <= left:
            return wait
        return left if 0 < retry_after <= left else None


def retry_after_seconds(header: str | None, *, wall_now: float) -> float:
    """Read a ``Retry-After`` header in either form; 0 where it is absent or unreadable.

    Args:
        header: The header's value: seconds, or an HTTP date.
        wall_now: Now, in seconds since 1970.

    Source: RFC 9110, section 10.2.3. That ThingSpace sends one is unknown.
    """
    text = (header or "").strip()
    if not text:
        return 0.0
    if text.isascii() and text.isdigit():
        return min(float(text), _LONGEST_SECONDS)
    from datetime import UTC  # noqa: PLC0415 - the date form is rare, and its parser takes long to load
    from email.utils import parsedate_to_datetime  # noqa: PLC0415

    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # "-0000" says UTC, and that the sender's own zone is unknown
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - wall_now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
