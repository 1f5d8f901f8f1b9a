"""The sandbox's time, and the one place that waits for it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Agenda", "Clock", "ManualClock", "RealClock"]


class Clock(Protocol):
    """Tell the time in seconds since 1970."""

    def now(self) -> float:
        """Return the time."""
        ...


class RealClock:
    """Tell the time of day, and never run backwards when the machine's clock is set."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Return the time."""
        return self._offset + time.monotonic()


class ManualClock:
    """Stand still until it is moved.

    Args:
        now: Where it starts.
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now

    def now(self) -> float:
        """Return the time."""
        return self._now

    def move_to(self, now: float) -> None:
        """Move the clock forward; it never goes back."""
        self._now = max(self._now, now)


class Agenda:
    """Hold what is to happen, and let it happen when it is due.

    Args:
        clock: What tells when that is.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._wake = asyncio.Event()

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Plan an action; those due at one moment happen in the order in which they were planned.

        Args:
            when: Seconds of the clock; what is past is due at once.
            action: What is to happen. It must not wait: it starts a task where it has to.
        """
        heapq.heappush(self._entries, (when, next(self._order), action))
        if self._entries[0][2] is action:
            self._wake.set()

    def next_due(self) -> float | None:
        """Return when the next action is due, None where nothing is planned."""
        return self._entries[0][0] if self._entries else None

    def run_due(self) -> int:
        """Let everything happen that is due when this is called; return how many actions did."""
        now = self.clock.now()
        done = 0
        while self._entries and self._entries[0][0] <= now:
            _, _, action = heapq.heappop(self._entries)
            action()
            done += 1
        return done

    async def run(self) -> None:
        """Let things happen when they are due, for ever."""
        while True:
            self._wake.clear()
            # Between two long batches the loop must get to answer requests.
            if self.run_due():
                await asyncio.sleep(0)
                continue
            due = self.next_due()
            wait_seconds = None if due is None else max(0.0, due - self.clock.now())
            try:
                async with asyncio.timeout(wait_seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass
