"""Marked points at which a test can end this process, as a power cut would: without a word.

Armed by ``UPCALL_KILL_AT=NAME:COUNT``: at the COUNT-th passage of the point the process sends itself SIGKILL. Nothing
else arms them; unarmed, a point costs one look at a variable.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Final

from upcall.errors import SettingsError

__all__ = ["POINTS", "armed", "reach"]

POINTS: Final = (
    "accept",
    "headers",
    "body",
    "before_insert",
    "before_commit",
    "after_commit",
    "spooled",
    "mid_handler",
    "before_done",
)
"""In the order in which a callback passes them; ``spooled`` stands in for a commit where the store failed."""


def _read(text: str | None) -> tuple[str, int] | None:
    if not text:
        return None
    name, _, count = text.partition(":")
    if name not in POINTS or not (count or "1").isdigit():
        raise SettingsError(
            f"UPCALL_KILL_AT is {text!r}, which names no point.", hint=f"Unset it, or use one of {', '.join(POINTS)}."
        )
    return name, int(count or 1)


armed: tuple[str, int] | None = _read(os.environ.get("UPCALL_KILL_AT"))
"""The point and the passage at which this process ends, None as a rule."""

_passages = 0
_lock = threading.Lock()


def reach(point: str) -> None:
    """Pass a point; end the process, without cleaning up, where it is armed and this is its passage.

    Args:
        point: One of `POINTS`.
    """
    global _passages  # noqa: PLW0603 - one count a process, as the variable is
    if armed is None or armed[0] != point:
        return
    with _lock:
        _passages += 1
        if _passages >= armed[1]:
            os.kill(os.getpid(), signal.SIGKILL)
