"""What a handler raises to say itself what becomes of its work."""

from __future__ import annotations

import math

__all__ = ["GiveUp", "RetryLater"]

_LONGEST_SECONDS = 365 * 24 * 3600


class RetryLater(Exception):  # noqa: N818 - it decides, and reports no error of the program
    """Raise it in a handler to have the work tried again, and not before so many seconds have passed.

    It counts as an attempt, and makes no wait shorter than the handler's own schedule does.

    Args:
        seconds: How long to wait at least, 0 to a year.
        reason: What is waited for; it stands in the work's error.

    Raises:
        ValueError: The seconds are out of range.
    """

    def __init__(self, seconds: float, reason: str = "") -> None:
        if not (math.isfinite(seconds) and 0 <= seconds <= _LONGEST_SECONDS):
            raise ValueError(f"seconds must be from 0 to {_LONGEST_SECONDS} (a year), not {seconds}")
        super().__init__(seconds, reason)
        self.seconds: float = float(seconds)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason or 'not now'} (in {self.seconds:g} s at the earliest)"


class GiveUp(Exception):  # noqa: N818 - it decides, and reports no error of the program
    """Raise it in a handler to send the work to the dead letters at once.

    Args:
        reason: Why no other attempt would do better; it stands in the dead letter.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason or "given up"
