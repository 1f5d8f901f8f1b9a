"""The worker: claims what is due, runs handlers, records how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import logging
import random
import time
import traceback
from typing import TYPE_CHECKING, Any

import msgspec

from upcall.dispatch.owner import dead_owners, new_owner
from upcall.dispatch.schedule import retry_delay_seconds
from upcall.dispatch.threads import HandlerThreads
from upcall.errors import StoreError
from upcall.inbox import Outcome, stored_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from upcall.dispatch.handlers import Handler
    from upcall.inbox import Inbox, WorkItem
    from upcall.thingspace import CallbackEvent

__all__ = ["Worker", "WorkerStats"]

MAX_ERROR_CHARACTERS = 8000
COMPLAINT_SECONDS = 30.0
KEPT_EVENTS = 4
_MICROS = 1_000_000

_log = logging.getLogger("upcall.dispatch")


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


class Worker:
    """Drain an inbox into handlers, each callback to each handler at least once.

    Args:
        inbox: The store, used by this worker alone.
        handlers: Whom to call.
        concurrency: How many handlers run at once.
        lease_seconds: How long work stays this worker's without a sign of life.
        poll_seconds: How often an idle worker looks for new callbacks.
        now: The wall clock, UTC microseconds.
        fraction: Random numbers from 0 to 1, for jitter.

    Raises:
        ValueError: The concurrency is below 1.
    """

    def __init__(
        self,
        inbox: Inbox,
        handlers: Sequence[Handler],
        *,
        concurrency: int = 16,
        lease_seconds: float = 30.0,
        poll_seconds: float = 0.05,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        self._inbox = inbox
        self._handlers = {handler.name: handler for handler in handlers}
        self._subscriptions = [handler.subscription() for handler in handlers]
        self._names = list(self._handlers)
        self._concurrency = concurrency
        self._lease_seconds = lease_seconds
        self._poll_seconds = poll_seconds
        self._now = now
        self._fraction = fraction
        self._owner = new_owner()
        self._running: dict[asyncio.Task[Outcome], int] = {}
        self._events: dict[int, CallbackEvent] = {}
        self._threads = HandlerThreads()
        self._complaint = ""
        self._complained_at = 0.0
        self.stats: WorkerStats = WorkerStats()

    async def run(self, stop: asyncio.Event, *, grace_seconds: float = 10.0) -> None:
        """Work until asked to stop; then finish what runs, and give back the rest.

        Args:
            stop: Set it to end.
            grace_seconds: How long running handlers may take to finish.
        """
        stopping = asyncio.ensure_future(stop.wait())
        try:
            async with self._at_work():
                started = False
                while not stop.is_set():
                    started = started or self._survive(self._start)
                    busy = started and self._survive(self._fill)
                    await asyncio.wait(
                        {stopping, *self._unfinished()},
                        timeout=0 if busy and len(self._running) < self._concurrency else self._poll_seconds,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    self._survive(self._settle)
                if unfinished := self._unfinished():
                    await asyncio.wait(unfinished, timeout=grace_seconds)
        finally:
            stopping.cancel()

    async def drain(self) -> None:
        """Work until nothing is due now; work that waits for a retry is left.

        Raises:
            StoreError: The store failed.
        """
        async with self._at_work():
            self._start()
            while self._fill() or self._running:
                if unfinished := self._unfinished():
                    await asyncio.wait(unfinished, return_when=asyncio.FIRST_COMPLETED)
                self._settle()

    @contextlib.asynccontextmanager
    async def _at_work(self) -> AsyncIterator[None]:
        """Keep leases alive; at the end record what ended and give back the rest."""
        heartbeat = asyncio.ensure_future(self._heartbeat())
        try:
            yield
        finally:
            heartbeat.cancel()
            await self._give_back()

    def _start(self) -> bool:
        now = self._now()
        self._inbox.subscribe(self._names, now)
        gone = dead_owners(self._inbox.owners())
        if gone:
            count = self._inbox.release(gone, now)
            _log.info("took back %d pieces of work from a worker that died", count)
        return True

    def _fill(self) -> bool:
        """Enroll and claim; tell whether there may be more."""
        if not self._names:
            return False
        enrolled = self._inbox.enroll(self._subscriptions, self._now())
        free = self._concurrency - len(self._running)
        items = (
            self._inbox.claim(self._names, self._owner, self._now(), lease_seconds=self._lease_seconds, limit=free)
            if free
            else []
        )
        held = set(self._running.values())
        for item in items:
            if item.id not in held:  # else our own lease ran out, and claiming it has extended it
                self._running[asyncio.ensure_future(self._attempt(item))] = item.id
        return bool(enrolled or items)

    def _unfinished(self) -> list[asyncio.Task[Outcome]]:
        return [task for task in self._running if not task.done()]

    def _settle(self) -> None:
        """Record, in one commit, all that ended since the last time."""
        ended = [task for task in self._running if task.done()]
        if not ended:
            return
        outcomes = [task.result() for task in ended]
        self._inbox.settle(outcomes, self._owner, self._now())
        for task in ended:
            del self._running[task]
        for outcome in outcomes:
            self.stats.done += outcome.state == "done"
            self.stats.failed += outcome.error is not None
            self.stats.dead += outcome.state == "dead"

    def _survive(self, step: Callable[[], bool | None]) -> bool:
        """Run a step; a store that fails now is tried again, since its work is still in it."""
        try:
            return bool(step())
        except StoreError as error:
            text, now = str(error), time.monotonic()
            if text != self._complaint or now - self._complained_at > COMPLAINT_SECONDS:
                self._complaint, self._complained_at = text, now
                _log.warning("%s Trying again.", text)
            return False

    async def _attempt(self, item: WorkItem) -> Outcome:
        handler = self._handlers[item.subscriber]
        if item.attempt > handler.schedule.max_attempts:
            return self._failed(handler, item, _NeverEndedError(item.attempt - 1))
        try:
            error = await self._call(handler, handler.arguments(self._event(item), item.device_id))
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            error = cancelled  # the handler's own doing
        except BaseException as raised:  # noqa: BLE001 - whatever a handler raises is that handler's failure
            error = raised
        return Outcome(item.id, "done") if error is None else self._failed(handler, item, error)

    def _event(self, item: WorkItem) -> CallbackEvent:
        """Return the event of a piece of work; the work of one callback's devices does not parse it once for each."""
        event = self._events.pop(item.callback_id, None)
        if event is None:
            event = stored_event(item.callback_id, item.received_at, item.account, item.body)
        self._events[item.callback_id] = event
        while len(self._events) > KEPT_EVENTS:
            del self._events[next(iter(self._events))]
        # What can be changed in it is the handler's own.
        return msgspec.structs.replace(event, extra=copy.deepcopy(event.extra)) if event.extra else event

    async def _call(self, handler: Handler, arguments: tuple[Any, ...]) -> BaseException | None:
        """Run a handler to its end; what a thread raised is returned, for not every exception passes a coroutine."""
        if handler.is_async:
            await handler.function(*arguments)
            return None
        result, error = await self._threads.call(handler.function, arguments)
        if inspect.isawaitable(result):  # a plain function around an async one
            await result
        return error

    def _failed(self, handler: Handler, item: WorkItem, error: BaseException) -> Outcome:
        text = _storable("".join(traceback.format_exception(error))[-MAX_ERROR_CHARACTERS:])
        delay = retry_delay_seconds(handler.schedule, item.attempt, self._fraction())
        if delay is None:
            _log.error(
                "%s gave up on callback %d after %d attempts: %s. See: upcall dead list",
                handler.name, item.callback_id, item.attempt, _brief(error),
            )  # fmt: skip
            return Outcome(item.id, "dead", self._now(), text)
        _log.warning(
            "%s failed on callback %d, attempt %d of %d, next in %.1f s: %s",
            handler.name, item.callback_id, item.attempt, handler.schedule.max_attempts, delay, _brief(error),
        )  # fmt: skip
        return Outcome(item.id, "pending", self._now() + int(delay * _MICROS), text)

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            self._survive(self._renew)

    def _renew(self) -> None:
        held = list(self._running.values())
        if held:
            self._inbox.renew(held, self._owner, self._now(), lease_seconds=self._lease_seconds)

    async def _give_back(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running = {task: work_id for task, work_id in self._running.items() if not task.cancelled()}
        self._survive(self._settle)
        self._running.clear()
        with contextlib.suppress(StoreError):
            self._inbox.release([self._owner], self._now(), uncounted=True)
        self._threads.close()


class _NeverEndedError(Exception):
    """Say why work is given up that no handler failed at."""

    def __init__(self, starts: int) -> None:
        super().__init__(
            f"started {starts} times, and no end of the last start was recorded: its process died, was stopped, or was"
            " out of touch with the store for longer than the lease"
        )


def _storable(text: str) -> str:
    """Return a text that a store can keep: half characters become their escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _brief(error: BaseException) -> str:
    try:
        lines = str(error).splitlines()
    except Exception:  # noqa: BLE001 - an exception whose text cannot be made still has a name
        lines = []
    return _storable(f"{type(error).__name__}: {lines[0][:200] if lines else ''}".rstrip(": "))
