"""What waits and what runs of each subscriber, and who may start next. Decides; does no I/O."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from upcall.dispatch.handlers import Handler
    from upcall.inbox import WorkItem

__all__ = ["Job", "Lane", "calls_running", "claim_groups", "free_slots", "starts"]

FEWEST_AHEAD = 16
MOST_AHEAD = 1024
MOST_BYTES_AHEAD = 8 * 1024 * 1024
QUICK_SECONDS = 0.25
SLOW_SECONDS = 1.0


class Job(NamedTuple):
    """Hold a claimed piece of work with what its handler is called with."""

    item: WorkItem
    arguments: tuple[Any, ...] | LookupError


class Lane:
    """Hold what one subscriber has waiting and running.

    Work is claimed ahead of the running: as much as is used up in about a second, since what is held by a worker that
    hangs or dies waits for it.

    Args:
        handler: The subscriber.
        limit: How many calls of it run at once.
    """

    def __init__(self, handler: Handler, limit: int) -> None:
        self.handler = handler
        self.limit = limit
        self.is_async: bool = handler.is_async
        self.waiting: deque[Job] = deque()
        self.running = 0
        self.ahead: int = limit
        self._filled_at: float | None = None

    def wanted(self, free: int, now: float) -> int:
        """Return how many pieces to claim.

        Args:
            free: How many more calls could start now.
            now: Seconds on any steady clock.
        """
        if self.room(free) < max(1, (free + self.ahead) // 2):
            return 0
        self._adapt(now)
        return self.room(free)

    def room(self, free: int) -> int:
        """Return how many more pieces there is room for, where so many more calls could start now."""
        return free + self.ahead - len(self.waiting)

    def filled(self, got: int, asked: int, now: float) -> None:
        """Take note of a claim: only one that gave all that was asked for tells how quickly work is used up."""
        self._filled_at = now if got >= asked else None

    def weighed(self, pieces: int, size_bytes: int) -> None:
        """Claim less ahead where the bodies are large."""
        if size_bytes > MOST_BYTES_AHEAD:
            self.ahead = min(self.ahead, max(1, pieces * MOST_BYTES_AHEAD // size_bytes))

    def _adapt(self, now: float) -> None:
        if self._filled_at is None:
            return
        elapsed, self._filled_at = now - self._filled_at, None
        if elapsed < QUICK_SECONDS:
            self.ahead = min(MOST_AHEAD, max(FEWEST_AHEAD, 2 * self.ahead))
        elif elapsed > SLOW_SECONDS:
            self.ahead //= 2


def free_slots(lane: Lane, concurrency: int, running: int) -> int:
    """Return how many more calls a lane may start.

    A subscriber that runs nothing may always start one, however many slots the others have taken. Subscribers of ours
    have slots of their own.

    Args:
        lane: Whose.
        concurrency: How many calls of users' handlers run at once.
        running: How many do.
    """
    own = lane.limit - lane.running
    if lane.handler.is_ours:
        return own
    left = concurrency - running
    return max(0, min(own, left if lane.running else max(left, 1)))


def starts(lanes: Sequence[Lane], has_slot: Callable[[Lane], bool]) -> Iterator[Lane]:
    """Yield who starts next, in turn, while anybody can; the caller starts one of its work before it asks again."""
    more = True
    while more:
        more = False
        for lane in lanes:
            if lane.waiting and has_slot(lane):
                more = True
                yield lane


def claim_groups(lanes: Iterable[Lane], concurrency: int, now: float) -> Iterator[tuple[list[Lane], int]]:
    """Yield who claims together and how much: those that want about as much, so that nobody gets more than it wants."""
    every = list(lanes)
    groups: dict[int, list[tuple[Lane, int]]] = {}
    for lane in every:
        wanted = lane.wanted(free_slots(lane, concurrency, calls_running(every)), now)
        if wanted:
            groups.setdefault(wanted.bit_length(), []).append((lane, wanted))
    for group in groups.values():
        yield [lane for lane, _ in group], min(wanted for _, wanted in group)


def calls_running(lanes: Iterable[Lane]) -> int:
    """Return how many calls of users' handlers run."""
    return sum(lane.running for lane in lanes if not lane.handler.is_ours)
