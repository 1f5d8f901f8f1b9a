"""The worker: claims what is due, runs handlers, records how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from typing import TYPE_CHECKING

from upcall.dispatch.session import Session, WorkerStats
from upcall.errors import StoreError
from upcall.inbox.owners import dead_owners, new_owner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from upcall.dispatch.handlers import Handler
    from upcall.inbox import Inbox

__all__ = ["Worker", "WorkerStats"]

COMPLAINT_SECONDS = 30.0

_log = logging.getLogger("upcall.dispatch")


class Worker:
    """Drain an inbox into handlers, each callback to each handler at least once.

    Args:
        inbox: The store, used by this worker alone.
        handlers: Whom to call.
        concurrency: How many calls of handlers run at once; one that runs nothing may always start one beyond.
        lease_seconds: How long work stays this worker's without a sign of life. It gives one every 15 seconds, of a
            shorter lease three times in its time.
        poll_seconds: How often an idle worker looks for new callbacks.
        now: The wall clock, UTC microseconds.
        fraction: Random numbers from 0 to 1, for jitter.

    Raises:
        ValueError: The concurrency is below 1, or two handlers have one name.
    """

    def __init__(
        self,
        inbox: Inbox,
        handlers: Sequence[Handler],
        *,
        concurrency: int = 16,
        lease_seconds: float = 45.0,
        poll_seconds: float = 0.05,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        self._inbox = inbox
        self._handlers = list(handlers)
        self._names = [handler.name for handler in handlers]
        if twice := {name for name in self._names if self._names.count(name) > 1}:
            raise ValueError(f"{min(twice)} is there twice: one handler has one name, under which its work is kept")
        self._concurrency = concurrency
        self._lease_seconds = lease_seconds
        self._poll_seconds = poll_seconds
        self._now = now
        self._fraction = fraction
        self._owner = new_owner()
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
            async with self._session() as session:
                stopping.add_done_callback(lambda _: session.wake())
                has_begun = False
                while not stop.is_set():
                    has_begun = has_begun or self._survives(self._begin) is not None
                    more = self._survives(session.step) if has_begun else None
                    if more is None:  # a store that fails is not asked again at once, whatever ends meanwhile
                        await asyncio.wait({stopping}, timeout=self._poll_seconds)
                    else:
                        await session.rest(0 if more else self._poll_seconds)
                await session.finish(grace_seconds)
        finally:
            stopping.cancel()

    async def drain(self) -> None:
        """Work until nothing is due now; work that waits for a retry is left.

        Raises:
            StoreError: The store failed.
        """
        async with self._session() as session:
            self._begin()
            while (more := session.step()) or not session.is_idle:
                await session.rest(0 if more else self._poll_seconds)

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        session = Session(
            self._inbox,
            self._handlers,
            owner=self._owner,
            concurrency=self._concurrency,
            lease_seconds=self._lease_seconds,
            now=self._now,
            fraction=self._fraction,
            stats=self.stats,
        )
        try:
            yield session
        finally:
            await session.aclose()

    def _begin(self) -> bool:
        """Make the handlers known, and take back what workers of this machine held that are gone."""
        now = self._now()
        self._inbox.subscribe(self._names, now)
        gone = dead_owners(self._inbox.owners())
        if gone:
            count = self._inbox.release(gone, now)
            _log.info("took back %d pieces of work from a worker that died", count)
        return True

    def _survives(self, step: Callable[[], bool]) -> bool | None:
        """Run a step; None where the store failed, which is tried again, since its work is still in it."""
        try:
            return step()
        except StoreError as error:
            text, now = str(error), time.monotonic()
            if text != self._complaint or now - self._complained_at > COMPLAINT_SECONDS:
                self._complaint, self._complained_at = text, now
                _log.warning("%s Trying again.", text)
            return None
