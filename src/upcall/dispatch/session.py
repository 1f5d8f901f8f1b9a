"""One run of a worker over an inbox: what it claims, holds and settles."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from upcall.dispatch.attempts import Attempts
from upcall.dispatch.events import KeptEvents
from upcall.dispatch.lanes import Job, Lane, calls_running, claim_groups, free_slots
from upcall.dispatch.runners import Runners
from upcall.errors import StoreError
from upcall.inbox import Lessee, Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from upcall.dispatch.handlers import Handler
    from upcall.inbox import Inbox, WorkItem
    from upcall.thingspace import CallbackEvent

__all__ = ["Session", "WorkerStats"]

ENROLL_LIMIT = 512
SETTLE_COUNT = 512
SETTLE_SECONDS = 0.005
"""How long what has ended waits for more, so that one commit settles it all."""
HEARTBEAT_SECONDS = 15.0
ALONE_SECONDS = 5.0
"""How long work that may have ended a process has the worker to itself: what kills does so at once, as a rule."""

_MICROS = 1_000_000


class WorkerStats(msgspec.Struct):
    """Count what a worker did.

    Args:
        done: Work that ended well.
        failed: Attempts that failed.
        dead: Work that was given up.
    """

    done: int = 0
    failed: int = 0
    dead: int = 0


class _Suspect:
    """Hold work that may have ended the process that was at it."""

    def __init__(self, lane: Lane, job: Job) -> None:
        self.lane = lane
        self.job = job
        self.is_started = False
        self.since = time.monotonic()

    @property
    def has_waited(self) -> bool:
        return time.monotonic() - self.since > ALONE_SECONDS


class Session:
    """Claim, hand to the runners, and settle, from one start of a worker to its end.

    Args:
        inbox: The store.
        handlers: Whom to call.
        owner: Whose leases these are.
        concurrency: How many calls of users' handlers run at once.
        lease_seconds: How long work stays the owner's without a sign of life.
        now: The wall clock, UTC microseconds.
        fraction: Random numbers from 0 to 1, for jitter.
        stats: Where what ends is counted.
    """

    def __init__(
        self,
        inbox: Inbox,
        handlers: Sequence[Handler],
        *,
        owner: str,
        concurrency: int,
        lease_seconds: float,
        now: Callable[[], int],
        fraction: Callable[[], float],
        stats: WorkerStats,
    ) -> None:
        self._inbox = inbox
        self._owner = owner
        self._concurrency = concurrency
        self._lease_seconds = lease_seconds
        self._now = now
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self._events = KeptEvents()
        self._lanes = {handler.name: Lane(handler, _limit(handler, concurrency)) for handler in handlers}
        self._subscriptions = [self._subscription(handler) for handler in handlers]
        self._held: set[int] = set()
        self._suspect: _Suspect | None = None
        self._runners = Runners(
            list(self._lanes.values()),
            concurrency,
            Attempts(now, fraction),
            store=inbox.url,
            owner=owner,
            on_turn=self._turn_ended,
        )
        self._renewed_at = now()
        self._soon: asyncio.TimerHandle | None = None
        self._resting: asyncio.Future[None] | None = None
        self._is_awake = False

    @property
    def is_idle(self) -> bool:
        """Tell whether nothing is held."""
        return not self._held

    def step(self) -> bool:
        """Settle what ended, claim what is due, start what can; tell whether there may be more to claim.

        Raises:
            StoreError: The store failed; what could be started was.
        """
        try:
            if self._runners.is_bursting:
                return False  # the store is locked by a transaction of our own, which says when it ends
            self._renew()
            self._settle()
            return self._fill()
        finally:
            self._start()

    def wake(self) -> None:
        """End a rest."""
        self._is_awake = True
        if self._resting is not None and not self._resting.done():
            self._resting.set_result(None)

    async def rest(self, seconds: float) -> None:
        """Wait until enough has ended, and so long at most."""
        if not self._is_awake:
            self._resting = self._loop.create_future()
            timer = self._loop.call_later(seconds, self.wake)
            try:
                await self._resting
            finally:
                timer.cancel()
        self._is_awake = False

    async def finish(self, grace_seconds: float) -> None:
        """Start nothing more, and wait for what runs."""
        self._runners.is_held_back = True
        deadline = time.monotonic() + grace_seconds
        while self._runners.is_running and (left := deadline - time.monotonic()) > 0:
            await self.rest(left)

    async def aclose(self) -> None:
        """Let go of what still runs, record what ended, and give back the rest."""
        await self._runners.abandon()
        if self._soon is not None:
            self._soon.cancel()
        with contextlib.suppress(StoreError):
            self._settle()
        with contextlib.suppress(StoreError):
            self._inbox.release([self._owner], self._now(), uncounted=True)
        for lane in self._lanes.values():
            if lane.handler.aclose is not None:
                await lane.handler.aclose()

    def _subscription(self, handler: Handler) -> Subscription:
        keep = self._events.keep

        def wants(event: CallbackEvent) -> Sequence[str]:
            devices = handler.wants(event)
            if devices:
                keep(event)  # parsed to be asked about, and claimed soon
            return devices

        return Subscription(handler.name, wants, ordered=handler.ordered)

    def _renew(self) -> None:
        """Extend the leases, by the clock that they are kept by, before anything could be claimed that is held."""
        now = self._now()
        beat = int(min(HEARTBEAT_SECONDS, self._lease_seconds / 3) * _MICROS)
        if not self._held:
            self._renewed_at = now
        elif not 0 <= now - self._renewed_at < beat:
            self._inbox.renew(list(self._held), self._owner, now, lease_seconds=self._lease_seconds)
            self._renewed_at = now

    def _settle(self) -> None:
        """Record, in one commit, all that ended since the last time."""
        ended = list(self._runners.ended)
        outcomes = [one.outcome for one in ended if one.outcome is not None and not one.is_recorded]
        if outcomes:
            self._inbox.settle(outcomes, self._owner, self._now())
        for _, outcome, _ in ended:
            self._runners.ended.popleft()
            if outcome is not None:
                self._stats.done += outcome.state == "done"
                self._stats.failed += outcome.error is not None
                self._stats.dead += outcome.state == "dead"
        self._held.difference_update([one.work_id for one in ended])

    def _fill(self) -> bool:
        """Claim, enroll where that gave too little, and tell whether there may be more."""
        if not self._may_claim():
            return False
        claimed, hungry = self._claim()
        room = self._room(hungry)
        if not room or not self._may_claim():
            return claimed
        lessee = Lessee(self._owner, self._lease_seconds, {lane.handler.name: limit for lane, limit in room.items()})
        looked_at, items = self._inbox.enroll(self._subscriptions, self._now(), limit=ENROLL_LIMIT, lessee=lessee)
        got = Counter(item.subscriber for item in items)
        now = time.monotonic()
        for lane, limit in room.items():
            self._note(lane, got[lane.handler.name], limit, items, now)
        self._take(items)
        return claimed or looked_at > 0

    def _claim(self) -> tuple[bool, list[Lane]]:
        """Claim what the lanes want; tell whether they got any, and who wants more than there was."""
        got = False
        hungry: list[Lane] = []
        now = time.monotonic()
        for lanes, limit in list(claim_groups(self._lanes.values(), self._concurrency, now)):
            names = [lane.handler.name for lane in lanes]
            items = self._inbox.claim(
                names, self._owner, self._now(), lease_seconds=self._lease_seconds, limit=limit, unended_alone=True
            )
            for lane in lanes:
                self._note(lane, len(items), limit, items, now)
            got |= self._take(items)
            if len(items) < limit:
                hungry += lanes
            if self._suspect is not None:
                break
        return got, hungry

    def _note(self, lane: Lane, got: int, asked: int, items: Sequence[WorkItem], now: float) -> None:
        """Tell a lane what came of asking for its work."""
        lane.filled(got, asked, now)
        lane.weighed(len(items), sum({item.callback_id: len(item.body) for item in items}.values()))

    def _room(self, lanes: Sequence[Lane]) -> dict[Lane, int]:
        """Return how much more lanes want, those that want any."""
        running = calls_running(self._lanes.values())
        rooms = {lane: lane.room(free_slots(lane, self._concurrency, running)) for lane in lanes}
        return {lane: room for lane, room in rooms.items() if room > 0}

    def _take(self, items: Sequence[WorkItem]) -> bool:
        """Put what was claimed where its handler finds it."""
        # What is held already is there: our own lease ran out, and claiming it has extended it.
        new = [item for item in items if item.id not in self._held]
        for item in new:
            self._held.add(item.id)
            lane = self._lanes[item.subscriber]
            try:
                job = Job(item, lane.handler.arguments(self._events.of(item), item.device_id))
            except LookupError as error:
                job = Job(item, error)
            if item.unended and not lane.handler.is_ours and self._suspect is None:
                self._suspect = _Suspect(lane, job)
            else:
                lane.waiting.append(job)
        return bool(new)

    def _may_claim(self) -> bool:
        """Tell whether to claim: not while a suspect waits to be alone, nor while it is.

        Where it ends this process too, it takes no other work with it. Neither wait is without an end.
        """
        suspect = self._suspect
        if suspect is not None and (
            suspect.job.item.id not in self._held or (suspect.is_started and suspect.has_waited)
        ):
            self._suspect = None
            self._runners.is_held_back = False
        return self._suspect is None

    def _start(self) -> None:
        if self._suspect is not None and not self._suspect.is_started:
            self._start_suspect(self._suspect)
        self._runners.start_what_waits()

    def _start_suspect(self, suspect: _Suspect) -> None:
        """Start a suspect once nothing else is held, or it has waited for that long enough, and nothing more beside it.

        Where its lane has no slot by then it waits for one like other work: a handler's limit counts for more.
        """
        if not (suspect.has_waited or self._held == {suspect.job.item.id}):
            return
        if self._runners.has_slot(suspect.lane):
            suspect.is_started, suspect.since = True, time.monotonic()
            self._runners.is_held_back = True
            self._runners.start(suspect.lane, suspect.job)
        elif suspect.has_waited:
            suspect.lane.waiting.appendleft(suspect.job)
            self._suspect = None

    def _turn_ended(self, lane: Lane) -> None:
        self._start()
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if not lane.waiting or self._runners.is_held_back or len(self._runners.ended) >= SETTLE_COUNT:
            self.wake()
        else:
            self._soon = self._loop.call_later(SETTLE_SECONDS, self.wake)


def _limit(handler: Handler, concurrency: int) -> int:
    """Return how many calls of a handler run at once."""
    if handler.transactional:
        return 1  # a store has one writer at a time
    wanted = handler.concurrency or concurrency
    return wanted if handler.is_ours else min(wanted, concurrency)
