"""How an attempt ended, as the store keeps it and the log tells it."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING

from upcall.dispatch.control import GiveUp, RetryLater
from upcall.dispatch.schedule import LONGEST_BACKOFF_SECONDS, retry_delay_seconds
from upcall.inbox import Outcome
from upcall.redact import blank_told_password

if TYPE_CHECKING:
    from upcall.dispatch.handlers import Handler
    from upcall.inbox import WorkItem

__all__ = ["NeverEndedError", "failure"]

MAX_ERROR_CHARACTERS = 8000
_MICROS = 1_000_000

_log = logging.getLogger("upcall.dispatch")


class NeverEndedError(Exception):
    """Say why work is given up that no handler failed at."""

    def __init__(self, starts: int) -> None:
        super().__init__(
            f"started {starts} times, and no end of the last start was recorded: its process died, was stopped, or was"
            " out of touch with the store for longer than the lease"
        )


def failure(handler: Handler, item: WorkItem, error: BaseException, *, now: int, fraction: float) -> Outcome:
    """Decide what becomes of work that failed, and log it.

    Args:
        handler: Whose attempt it was.
        item: The work.
        error: What it failed with.
        now: The time, UTC microseconds.
        fraction: A random number from 0 to 1, for jitter.
    """
    asked = _asked_seconds(error)
    delay = retry_delay_seconds(handler.schedule, item.attempt, fraction, at_least_seconds=asked)
    text = _text(handler, error)
    if delay is None or isinstance(error, GiveUp):
        _log.error(
            "%s gave up on callback %d after %d attempts: %s. See: upcall dead list",
            handler.name, item.callback_id, item.attempt, _brief(error),
        )  # fmt: skip
        return Outcome(item.id, "dead", now, text)
    _log.warning(
        "%s failed on callback %d, attempt %d of %d, next in %.1f s: %s",
        handler.name, item.callback_id, item.attempt, handler.schedule.max_attempts, delay, _brief(error),
    )  # fmt: skip
    return Outcome(item.id, "pending", now + int(delay * _MICROS), text)


def _asked_seconds(error: BaseException) -> float:
    """Return how long a handler wants to wait, a year at most; a subclass may hold anything there, or nothing."""
    seconds = getattr(error, "seconds", 0.0) if isinstance(error, RetryLater) else 0.0
    is_wait = isinstance(seconds, (int, float)) and seconds > 0  # false of NaN too
    return min(seconds, LONGEST_BACKOFF_SECONDS) if is_wait else 0.0


def _text(handler: Handler, error: BaseException) -> str:
    """Return what the store keeps: of a user's handler the traceback, of a subscriber of ours what it says.

    Either may quote the callback.
    """
    lines = traceback.format_exception_only(error) if handler.is_ours else traceback.format_exception(error)
    return _storable(blank_told_password("".join(lines))[-MAX_ERROR_CHARACTERS:])


def _storable(text: str) -> str:
    """Return a text that a store can keep: half characters become their escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _brief(error: BaseException) -> str:
    try:
        lines = blank_told_password(str(error)).splitlines()
    except Exception:  # noqa: BLE001 - an exception whose text cannot be made still has a name
        lines = []
    return _storable(f"{type(error).__name__}: {lines[0][:200] if lines else ''}".rstrip(": "))
