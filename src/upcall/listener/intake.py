"""Group commit: requests that wait share a transaction, and their answers follow its fsync.

Rows are inserted on the event loop, which is cheap; the commit, which waits for the disk, runs in one thread. While
it runs the next group gathers.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from typing import TYPE_CHECKING

from upcall.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from upcall.inbox import Appender, Arrival, Receipt

    _Waiting = tuple[Arrival, asyncio.Future[Receipt]]

__all__ = ["Intake"]

MAX_GROUP = 512
STORE_WAIT_SECONDS = 3.0
"""How long a group waits for another writer. The provider was seen to send again after about 4 s of silence."""

QUIET_SECONDS = 0.1

_log = logging.getLogger("upcall.listener")


class Intake:
    """Append arrivals durably, many to a commit.

    Made and used on one event loop; `close` it there.

    Args:
        appender: The store's write path, which the intake owns from now on.
    """

    def __init__(self, appender: Appender) -> None:
        self._appender = appender
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Waiting] = []
        self._busy = False
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run_jobs, name="upcall-commit", daemon=True)
        self._thread.start()
        self._last_finished = 0.0
        self.commits: int = 0

    @property
    def is_idle(self) -> bool:
        """Tell whether no request waits, nor did a moment ago: between two of a stream there is no time to spare."""
        return not self._busy and self._loop.time() - self._last_finished > QUIET_SECONDS

    def take(self, arrival: Arrival) -> asyncio.Future[Receipt]:
        """Queue an arrival.

        Args:
            arrival: What came.

        Returns:
            A future that has the receipt once the arrival is on disk, or a StoreError once it cannot be.
        """
        future: asyncio.Future[Receipt] = self._loop.create_future()
        if self._closing:  # nobody would take it to the store any more
            future.set_exception(StoreError("the listener is closing."))
            return future
        self._waiting.append((arrival, future))
        if not self._busy:
            self._busy = True
            self._idle.clear()
            # Not at once: requests that were read in this turn of the loop join the group.
            self._loop.call_soon(self._start_group)
        return future

    async def close(self) -> None:
        """Commit what waits, then close the store's write path; what comes from now on is refused."""
        self._closing = True
        await self._idle.wait()
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)
        self._appender.close()

    def _start_group(self) -> None:
        group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
        arrivals = [arrival for arrival, _ in group]
        try:
            receipts = self._appender.stage(arrivals)
        except Exception as error:  # noqa: BLE001 - see _failure
            self._finish(group, None, _failure(error))
            return
        if receipts is None:  # another process is writing: wait for it where waiting does not stop the loop
            self._jobs.put(lambda: self._commit_late(group, arrivals))
        else:
            self._jobs.put(lambda: self._commit(group, receipts))

    def _commit_late(self, group: list[_Waiting], arrivals: list[Arrival]) -> None:
        try:
            receipts = self._appender.stage(arrivals, wait_seconds=STORE_WAIT_SECONDS)
        except Exception as error:  # noqa: BLE001 - see _failure
            self._loop.call_soon_threadsafe(self._finish, group, None, _failure(error))
            return
        if receipts is None:
            locked = StoreError("the store is locked by another process.")
            self._loop.call_soon_threadsafe(self._finish, group, None, locked)
            return
        self._commit(group, receipts)

    def _commit(self, group: list[_Waiting], receipts: list[Receipt]) -> None:
        error: StoreError | None = None
        try:
            self._appender.commit()
        except Exception as failure:  # noqa: BLE001 - see _failure
            error = _failure(failure)
        self._loop.call_soon_threadsafe(self._finish, group, receipts, error)

    def _finish(self, group: list[_Waiting], receipts: list[Receipt] | None, error: StoreError | None) -> None:
        self.commits += 1
        self._last_finished = self._loop.time()
        if self._waiting:
            self._start_group()  # first, so that the disk works while this group is answered
        else:
            self._busy = False
            self._idle.set()
        if error is not None:
            _log.error("not stored, answered 503: %d callbacks: %s", len(group), error)
        for index, (_, future) in enumerate(group):
            if future.done():  # its client went away
                continue
            if error is not None or receipts is None:
                future.set_exception(error or StoreError("nothing was stored."))
            else:
                future.set_result(receipts[index])

    def _run_jobs(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def _failure(error: Exception) -> StoreError:
    """Return what the waiting requests are told; whatever went wrong, they are answered and the next group follows."""
    return error if isinstance(error, StoreError) else StoreError(f"{type(error).__name__}: {error}.")
