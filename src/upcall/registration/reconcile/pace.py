"""How fast the provider is asked: a bucket that fills with one request at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pace"]


class Pace:
    """Wait before each request for as long as the agreed rate wants.

    Args:
        requests_per_second: How many requests a second at most, more than 0.
        monotonic: Returns seconds of a clock that only goes forward.
        sleep: Waits for so many seconds.

    Raises:
        ValueError: The rate is no number above 0.
    """

    def __init__(
        self, requests_per_second: float, *, monotonic: Callable[[], float], sleep: Callable[[float], object]
    ) -> None:
        if not 0 < requests_per_second < float("inf"):
            raise ValueError(f"requests_per_second must be more than 0, not {requests_per_second}")
        self._gap_seconds = 1 / requests_per_second
        self._monotonic = monotonic
        self._sleep = sleep
        self._free_at = float("-inf")

    def wait(self) -> None:
        """Return when the next request may be sent."""
        now = self._monotonic()
        if now < self._free_at:
            self._sleep(self._free_at - now)
        self._free_at = max(now, self._free_at) + self._gap_seconds
