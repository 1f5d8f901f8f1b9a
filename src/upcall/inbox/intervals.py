"""How far apart the deliveries of one callback came."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["intervals_between"]


def intervals_between(deliveries: Iterable[tuple[int, int]], *, since: int, limit: int) -> list[int]:
    """Return how long after the one before it each further delivery of a callback came, oldest first.

    Args:
        deliveries: Of each delivery, the first ones included, its callback's number and when it came.
        since: Only further deliveries that came then or later.
        limit: At most so many, the newest; 0 means all.
    """
    further = [
        (at, at - before)
        for (number, before), (same_number, at) in pairwise(sorted(deliveries))
        if number == same_number and at >= since
    ]
    return [interval for _, interval in sorted(further)][-limit:]
