"""What runs: lanes take turns at the slots, async work on the loop, plain work in threads, transactions one by one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from upcall.dispatch.lanes import calls_running, free_slots, starts
from upcall.dispatch.threads import HandlerThreads
from upcall.errors import StoreError
from upcall.inbox import open_inbox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from upcall.dispatch.attempts import Attempts
    from upcall.dispatch.lanes import Job, Lane
    from upcall.inbox import Inbox, Outcome

__all__ = ["Ended", "Runners"]

TURN_COUNT = 64
TURN_SECONDS = 0.05
"""After so many calls, or so long, a lane's runner gives its slot back, for whoever is next."""
BURST_COUNT = 32
BURST_SECONDS = 0.1
"""After so many transactions, or so long, the worker has its own turn at the store."""
STORE_PAUSE_SECONDS = 1.0

_log = logging.getLogger("upcall.dispatch")


class Ended(NamedTuple):
    """Hold what an attempt came to.

    Args:
        work_id: The work.
        outcome: How it ended, None where its lease was lost and nothing was done.
        is_recorded: Whether the store knows already, by the handler's own transaction.
    """

    work_id: int
    outcome: Outcome | None
    is_recorded: bool = False


class _Turn:
    """Count calls and time, from now.

    Args:
        count: After so many calls it is over.
        seconds: After so long too.
    """

    def __init__(self, count: int = TURN_COUNT, seconds: float = TURN_SECONDS) -> None:
        self._left = count
        self._until = time.monotonic() + seconds

    def is_over(self) -> bool:
        """Count a call, and tell whether that was the last."""
        self._left -= 1
        return self._left <= 0 or time.monotonic() > self._until


class Runners:
    """Run what waits in lanes.

    All of it belongs to one event loop, but the threads that take their lane's next work themselves.

    Args:
        lanes: The lanes, in the order of their turns.
        concurrency: How many calls of users' handlers run at once.
        attempts: Calls the handlers.
        store: The inbox's URL, for transactions: a connection of their own.
        owner: Whose leases the work is under.
        on_turn: Called on the loop when a lane's runner ended its turn.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        concurrency: int,
        attempts: Attempts,
        *,
        store: str,
        owner: str,
        on_turn: Callable[[Lane], None],
    ) -> None:
        self._lanes = lanes
        self._concurrency = concurrency
        self._attempts = attempts
        self._store = store
        self._owner = owner
        self._on_turn = on_turn
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = HandlerThreads()
        self._inbox: Inbox | None = None
        self._first = 0
        self.ended: deque[Ended] = deque()
        """What was not settled yet."""
        self.is_bursting: bool = False
        """Whether a transactional handler is at the store, and has it locked."""
        self.is_held_back: bool = False
        """Whether nothing more is started than what is started by name."""

    @property
    def is_running(self) -> bool:
        """Tell whether any handler runs."""
        return any(lane.running for lane in self._lanes)

    def start_what_waits(self) -> None:
        """Start what has a slot; the lanes take turns at being the first."""
        if self.is_held_back:
            return
        self._first = (self._first + 1) % max(1, len(self._lanes))
        in_turn = [*self._lanes[self._first :], *self._lanes[: self._first]]
        for lane in starts(in_turn, self.has_slot):
            job = self._next(lane)
            if job is not None:  # else a thread of the lane's own was quicker
                self.start(lane, job)

    def has_slot(self, lane: Lane) -> bool:
        """Tell whether one more call of a lane's may start now."""
        if self.is_held_back or (self.is_bursting and lane.handler.transactional):
            return False
        return free_slots(lane, self._concurrency, calls_running(self._lanes)) > 0

    def start(self, lane: Lane, job: Job) -> None:
        """Start a piece of work of a lane that has a slot; its runner goes on with its lane's next."""
        lane.running += 1
        if lane.handler.transactional:
            self.is_bursting = True
            self._threads.start(lambda: self._burst(lane, job))
        elif lane.is_async:
            task = self._loop.create_task(self._on_loop(lane, job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._threads.start(lambda: self._in_thread(lane, job))

    async def abandon(self) -> None:
        """Let go of what runs: async work is cancelled, a thread's end is not heard."""
        self.is_held_back = self._attempts.abandoned = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.close()
        if self._inbox is not None and not self.is_bursting:
            self._inbox.close()

    def _next(self, lane: Lane) -> Job | None:
        """Return a lane's next work, None where there is none to start."""
        if self.is_held_back:
            return None
        try:
            return lane.waiting.popleft()
        except IndexError:
            return None

    def _must_give_way(self, lane: Lane) -> bool:
        """Tell whether somebody waits for the slot of a lane's runner whose turn is over."""
        return not lane.handler.is_ours and any(
            other.waiting and other is not lane and not other.handler.is_ours for other in self._lanes
        )

    async def _on_loop(self, lane: Lane, job: Job | None) -> None:
        turn = _Turn()
        try:
            while job is not None:
                outcome = await self._attempts.on_loop(lane.handler, job)
                self.ended.append(Ended(job.item.id, outcome))
                if turn.is_over():
                    if self._must_give_way(lane):
                        return
                    self._on_turn(lane)
                    await asyncio.sleep(0)
                    turn = _Turn()
                job = self._next(lane)
        finally:
            self._end_turn(lane)

    def _in_thread(self, lane: Lane, job: Job | None) -> None:
        turn = _Turn()
        try:
            while job is not None:
                outcome = self._attempts.in_thread(lane.handler, job, self._loop)
                self.ended.append(Ended(job.item.id, outcome))
                if turn.is_over():
                    break
                job = self._next(lane)
        finally:
            self._tell_loop(self._end_turn, lane)

    def _burst(self, lane: Lane, job: Job | None) -> None:
        turn = _Turn(BURST_COUNT, BURST_SECONDS)
        try:
            while job is not None:
                try:
                    if self._inbox is None:
                        self._inbox = open_inbox(self._store)
                    outcome = self._attempts.in_transaction(lane.handler, job, self._inbox, self._owner)
                except StoreError as error:
                    _log.warning("%s Trying again.", error)
                    lane.waiting.appendleft(job)
                    time.sleep(STORE_PAUSE_SECONDS)
                    break
                self.ended.append(Ended(job.item.id, outcome, outcome is None or outcome.state == "done"))
                job = None if turn.is_over() else self._next(lane)
        finally:
            self._tell_loop(self._end_burst, lane)

    def _tell_loop(self, end: Callable[[Lane], None], lane: Lane) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime
            self._loop.call_soon_threadsafe(end, lane)

    def _end_burst(self, lane: Lane) -> None:
        self.is_bursting = False
        if self.is_held_back and self._attempts.abandoned and self._inbox is not None:
            self._inbox.close()
        self._end_turn(lane)

    def _end_turn(self, lane: Lane) -> None:
        lane.running -= 1
        if not self._attempts.abandoned:
            self._on_turn(lane)
