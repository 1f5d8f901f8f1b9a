"""The sandbox's time, and the one place that waits for it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OWNER", "Agenda", "Clock", "Entry", "ManualClock", "RealClock", "moment"]


_AT_ONCE: Final = 500
"""Actions after which whoever else waits for the loop has a turn."""

OWNER: Final[ContextVar[object]] = ContextVar("owner", default=None)
"""For whom what is done now is done: what he starts inherits it, in other tasks too."""


_LAST: Final = datetime.max.replace(tzinfo=UTC, microsecond=0).timestamp()


def moment(seconds: float) -> datetime:
    """Return a clock's time as a date; what lies beyond the year 9999 has none, and is taken for its end."""
    return datetime.fromtimestamp(min(seconds, _LAST), UTC)


class Clock(Protocol):
    """Tell the time in seconds since 1970."""

    @property
    def is_manual(self) -> bool:
        """Tell whether it stands still until it is moved."""
        ...

    def now(self) -> float:
        """Return the time."""
        ...


class RealClock:
    """Tell the time of day, and never run backwards when the machine's clock is set."""

    is_manual: Final = False

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

    is_manual: Final = True

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now

    def now(self) -> float:
        """Return the time."""
        return self._now

    def move_to(self, now: float) -> None:
        """Move the clock forward; it never goes back."""
        self._now = max(self._now, now)

    def go_on_from(self, now: float) -> None:
        """Take over the time of a clock that stood still meanwhile."""
        self._now = now


class Entry:
    """Be one thing that is to happen.

    Args:
        when: Seconds of the clock.
        action: What is to happen.
    """

    __slots__ = ("action", "when")

    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when: float = when
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Let it not happen."""
        self.action = None


class Agenda:
    """Hold what is to happen, and let it happen when it is due.

    Args:
        clock: What tells when that is.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.on_error: Callable[[Exception], None] | None = None
        self.stirred: asyncio.Event = asyncio.Event()
        """Set when something falls asleep by this agenda, and by who else tells of what others wait for."""
        self._sleepers: dict[object, object] = {}
        self._entries: list[tuple[float, int, Entry]] = []
        self._order = itertools.count()
        self._wake = asyncio.Event()

    def at(self, when: float, action: Callable[[], None]) -> Entry:
        """Plan an action; those due at one moment happen in the order in which they were planned.

        Args:
            when: Seconds of the clock; what is past is due at once.
            action: What is to happen. It must not wait: it starts a task where it has to.
        """
        entry = Entry(when, action)
        heapq.heappush(self._entries, (when, next(self._order), entry))
        if self._entries[0][2] is entry:
            self._wake.set()
        return entry

    async def sleep(self, seconds: float) -> None:
        """Wait by the agenda's clock; with a manual one, until it is moved so far."""
        done = asyncio.Event()

        def wake() -> None:
            self._sleepers.pop(done, None)
            done.set()

        entry = self.at(self.clock.now() + seconds, wake)
        self._sleepers[done] = OWNER.get()
        self.stirred.set()
        try:
            await done.wait()
        finally:
            self._sleepers.pop(done, None)
            entry.cancel()

    def asleep(self) -> set[object]:
        """Return for whom something sleeps, of those that `OWNER` names, and nothing else is known to go on."""
        return set(self._sleepers.values())

    def rouse(self, owner: object) -> None:
        """Take somebody for awake, whatever still sleeps for him."""
        self._sleepers = {done: whose for done, whose in self._sleepers.items() if whose is not owner}

    def clear(self) -> None:
        """Let nothing happen of what was planned."""
        for _, _, entry in self._entries:
            entry.cancel()
        self._entries.clear()

    def next_due(self) -> float | None:
        """Return when the next action is due, None where nothing is planned."""
        while self._entries and self._entries[0][2].action is None:
            heapq.heappop(self._entries)
        return self._entries[0][0] if self._entries else None

    def run_due(self, most: int | None = None) -> int:
        """Let everything happen that is due when this is called; return how many actions did.

        Args:
            most: How many at most; None for all.
        """
        now = self.clock.now()
        done = 0
        while (due := self.next_due()) is not None and due <= now:
            _, _, entry = heapq.heappop(self._entries)
            action, entry.action = entry.action, None
            done += 1
            if action is not None:
                self._do(action)
            if done == most:
                break
        return done

    def _do(self, action: Callable[[], None]) -> None:
        """Do a thing; what goes wrong with it ends nothing else, where somebody is told of it."""
        try:
            action()
        except Exception as error:
            if self.on_error is None:
                raise
            self.on_error(error)

    async def run(self) -> None:
        """Let things happen when they are due, for ever."""
        while True:
            self._wake.clear()
            # Between two long batches the loop must get to answer requests.
            if self.run_due(_AT_ONCE):
                await asyncio.sleep(0)
                continue
            due = self.next_due()
            wait_seconds = None if due is None else max(0.0, due - self.clock.now())
            try:
                async with asyncio.timeout(wait_seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass
