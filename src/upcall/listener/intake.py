"""Group commit: requests that wait share a transaction, and their answers follow its fsync.

Rows are inserted on the event loop, which is cheap; the commit, which waits for the disk, runs in one thread. While
it runs the next group gathers. Where the store fails, is locked or is gone, the same thread writes the group to the
spool; from then on groups go there, until the store takes the spool's records again, in order, and then new ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from upcall import failpoints
from upcall.errors import StoreError
from upcall.inbox import Receipt
from upcall.listener.stats import ListenerStats

if TYPE_CHECKING:
    from collections.abc import Callable

    from upcall.inbox import Appender, Arrival
    from upcall.inbox.spool import Segment, Spool

    Done = Callable[[Receipt | StoreError], None]
    Group = list[tuple[Arrival, Done]]

__all__ = ["Intake"]

MAX_GROUP: Final = 512
MAX_GROUP_BYTES: Final = 4 * 1024 * 1024
"""No more than this waits for one fsync, if it is not one body: the group behind it should not wait long."""
LOOP_BYTES: Final = 256 * 1024
"""A larger group is inserted by the thread: hashing and writing it would hold up everybody's requests."""
STORE_WAIT_SECONDS: Final = 0.4
"""How long a group waits for another writer before the spool takes it: acknowledgements must not wait a second."""
LONE_WAIT_SECONDS: Final = 3.0
"""The same where there is no spool. The provider was seen to send again after about 4 s of silence."""
RECOVERY_SECONDS: Final = 0.25
"""How often a store that failed is tried again."""
IMPORT_RECORDS: Final = 1000
IMPORT_BYTES: Final = 4 * 1024 * 1024
"""What of the spool is imported in one step: the groups that wait come in between."""
IMPORT_WAIT_SECONDS: Final = 0.2
"""How long a step of the import waits for another writer: who never waits finds a busy one always writing."""
QUIET_SECONDS: Final = 0.1

_log = logging.getLogger("upcall.listener")


class Intake:
    """Keep arrivals durably, many to a commit: in the store, else in the spool.

    Made and used on one event loop; `close` it there.

    Args:
        open_appender: Opens the store's write path; called again after the store failed.
        spool: Where arrivals go while the store fails, None for nowhere.
        stats: Where commits are counted.
    """

    def __init__(
        self, open_appender: Callable[[], Appender], *, spool: Spool | None = None, stats: ListenerStats | None = None
    ) -> None:
        self._store = _Store(open_appender, spool, stats or ListenerStats())
        self._loop = asyncio.get_running_loop()
        self._waiting: Group = []
        self._busy = False
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run_jobs, name="upcall-commit", daemon=True)
        self._thread.start()
        self._last_finished = 0.0
        self._again: asyncio.TimerHandle | None = None
        self._recovery_due = False
        self._jobs.put(self._store.open)
        if self._store.spooling:
            self._recover_soon(0.0)

    @property
    def is_idle(self) -> bool:
        """Tell whether no request waits, nor did a moment ago: between two of a stream there is no time to spare."""
        return not self._busy and self._loop.time() - self._last_finished > QUIET_SECONDS

    @property
    def spooling(self) -> bool:
        """Tell whether arrivals go to the spool."""
        return self._store.spooling

    @property
    def can_keep(self) -> bool:
        """Tell whether the last arrival could be kept."""
        return self._store.can_keep

    @property
    def trouble(self) -> str | None:
        """Return why the store does not take arrivals, or not all that wait in the spool; None where it does."""
        return self._store.trouble

    def look_for_spool(self) -> None:
        """Import what another listener, which is gone, left in the spool, and what could not be read before."""
        if not self._store.needs_recovery and not self._closing:
            self._recovery_due = True
            if not self._busy:
                self._begin(self._next)

    def take(self, arrival: Arrival, done: Done) -> None:
        """Queue an arrival.

        Args:
            arrival: What came.
            done: Called on the loop with the receipt once the arrival is on disk, or with why it cannot be.
        """
        if self._closing:  # nobody would take it to the store any more
            done(StoreError("the listener is closing."))
            return
        self._waiting.append((arrival, done))
        if not self._busy:
            self._begin(self._start_group)

    async def close(self) -> None:
        """Keep what waits, then close the store's write path; what comes from now on is refused."""
        self._closing = True
        if self._again is not None:
            self._again.cancel()
        await self._idle.wait()
        self._jobs.put(self._store.close)
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _begin(self, step: Callable[[], None]) -> None:
        self._busy = True
        self._idle.clear()
        # Not at once: requests that were read in this turn of the loop join the group.
        self._loop.call_soon(step)

    def _start_group(self) -> None:
        number, size = _group_of(self._waiting)
        group, self._waiting = self._waiting[:number], self._waiting[number:]
        arrivals = [arrival for arrival, _ in group]
        store = self._store
        receipts = None
        if not store.spooling and size <= LOOP_BYTES:
            receipts = store.stage_now(arrivals)
        if receipts is None:
            self._jobs.put(lambda: self._report(group, store.keep(arrivals)))
        else:
            staged = receipts
            self._jobs.put(lambda: self._report(group, store.commit(arrivals, staged)))
            time.sleep(0)  # lets the thread begin now, and not when the loop next has nothing to do

    def _report(self, group: Group, outcome: list[Receipt] | StoreError) -> None:
        self._loop.call_soon_threadsafe(self._finish, group, outcome)

    def _finish(self, group: Group, outcome: list[Receipt] | StoreError) -> None:
        self._last_finished = self._loop.time()
        if isinstance(outcome, StoreError):
            _log.error("not stored, answered 503: %d callbacks: %s", len(group), outcome)
        for index, (_, done) in enumerate(group):
            try:
                done(outcome if isinstance(outcome, StoreError) else outcome[index])
            except Exception:  # noqa: BLE001 - the others of the group are still to be answered
                _log.exception("an answer could not be given: this is a mistake in Upcall")
        self._next()  # last: the thread cannot begin before the loop lets go of the interpreter

    def _next(self, *, group_first: bool = False) -> None:
        """Give the thread its next job: groups and steps of recovery take turns."""
        if self._store.needs_recovery and not self._recovery_due:
            self._recover_soon(RECOVERY_SECONDS)
        if self._recovery_due and not self._closing and not (group_first and self._waiting):
            self._recovery_due = False
            self._jobs.put(self._step)
        elif self._waiting:
            self._start_group()
        else:
            self._busy = False
            self._idle.set()

    def _recover_soon(self, seconds: float) -> None:
        if self._again is None and not self._closing:
            self._again = self._loop.call_later(seconds, self._recover)

    def _recover(self) -> None:
        self._again = None
        self._recovery_due = True
        if not self._busy and not self._closing:
            self._begin(self._next)

    def _step(self) -> None:
        more = self._store.recover()
        self._loop.call_soon_threadsafe(self._stepped, more)

    def _stepped(self, more: bool) -> None:  # noqa: FBT001 - a callback
        self._recovery_due = more
        self._next(group_first=True)

    def _run_jobs(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def _group_of(waiting: Group) -> tuple[int, int]:
    """Return how many of those that wait go together, and how many bytes their bodies have."""
    size = 0
    for number, (arrival, _) in enumerate(waiting[:MAX_GROUP]):
        if number and size + len(arrival.body) > MAX_GROUP_BYTES:
            return number, size
        size += len(arrival.body)
    return min(len(waiting), MAX_GROUP), size


class _Store:
    """The store and the spool as one place that keeps. One thread at a time: the loop, then the thread, in turn."""

    def __init__(self, open_appender: Callable[[], Appender], spool: Spool | None, stats: ListenerStats) -> None:
        self._open = open_appender
        self._spool = spool
        self._stats = stats
        self._appender: Appender | None = None
        self._staged_at = 0.0
        self._imported = 0
        self.trouble: str | None = None
        self.can_keep = True
        # What an earlier process left in the spool comes first.
        self.spooling: bool = spool is not None and bool(spool.segments())

    @property
    def needs_recovery(self) -> bool:
        """Tell whether something is to be imported, or neither place took the last callback."""
        return self.spooling or not self.can_keep

    def open(self) -> None:
        """Open the store before the first arrival needs it; what is wrong with it, the first arrival hears."""
        with contextlib.suppress(Exception):
            self._opened()

    def stage_now(self, arrivals: list[Arrival]) -> list[Receipt] | None:
        """Stage on the loop where the store is open and free; None where the thread must see to it."""
        if self._appender is None:
            return None
        if failpoints.armed:
            failpoints.reach("before_insert")
        self._staged_at = time.perf_counter()
        try:
            return self._appender.stage(arrivals)
        except Exception as error:  # noqa: BLE001 - see _failure
            self._lose(error)
            return None

    def commit(self, arrivals: list[Arrival], receipts: list[Receipt]) -> list[Receipt] | StoreError:
        """Commit what was staged; the spool takes it where that fails."""
        assert self._appender is not None
        try:
            if failpoints.armed:
                failpoints.reach("before_commit")
            self._appender.commit()
        except Exception as error:  # noqa: BLE001 - see _failure
            return self._divert(arrivals, self._lose(error))
        self._stats.observe_commit(time.perf_counter() - self._staged_at, len(receipts))
        self.can_keep = True
        if failpoints.armed:
            failpoints.reach("after_commit")
        return receipts

    def keep(self, arrivals: list[Arrival]) -> list[Receipt] | StoreError:
        """Keep arrivals where waiting for the store does not stop the loop."""
        if self.spooling:
            return self._divert(arrivals, None)
        self._staged_at = time.perf_counter()
        try:
            appender = self._opened()
            wait = LONE_WAIT_SECONDS if self._spool is None else STORE_WAIT_SECONDS
            receipts = appender.stage(arrivals, wait_seconds=wait)
        except Exception as error:  # noqa: BLE001 - see _failure
            return self._divert(arrivals, self._lose(error))
        if receipts is None:
            return self._divert(arrivals, StoreError("the store is locked by another process."))
        return self.commit(arrivals, receipts)

    def recover(self) -> bool:
        """Import some of the spool; tell whether to go on at once. At its end arrivals go to the store again."""
        was_spooling = self.spooling
        try:
            segments = self._spool.segments() if self._spool else []
            self.spooling = self.spooling or bool(segments)
            if segments and not self._import(self._opened(), segments[0]):
                return False
            # Asked in the same step: under load a group would come in between, and the spool would never be empty.
            if self._spool and self._spool.segments():
                return True
            self._opened()
        except Exception as error:  # noqa: BLE001 - see _failure
            self._say(self._lose(error))
            self._try_spool()
            return False
        if was_spooling or self._imported:
            _log.warning("the store takes callbacks again; %d were imported from the spool", self._imported)
        self.spooling, self.trouble, self._imported = False, self._spool.trouble if self._spool else None, 0
        self.can_keep = True
        return False

    def _try_spool(self) -> None:
        """Find out whether the spool takes callbacks again, where it took none: else nobody would send any."""
        if self._spool is not None and not self.can_keep:
            with contextlib.suppress(StoreError):
                self._spool.probe()
                self.spooling = self.can_keep = True

    def close(self) -> None:
        """Close both."""
        if self._appender is not None:
            self._appender.close()
        if self._spool is not None:
            self._spool.close()

    def _opened(self) -> Appender:
        if self._appender is None:
            self._appender = self._open()
        return self._appender

    def _import(self, appender: Appender, segment: Segment) -> bool:
        """Take one step through a segment. Its position is committed with its rows, so that none comes twice."""
        assert self._spool is not None
        offset = appender.marked(segment.name)
        try:
            arrivals, end, is_last = segment.read(offset, max_records=IMPORT_RECORDS, max_bytes=IMPORT_BYTES)
        except StoreError as error:  # not the store's fault, and those behind it need not wait
            self._spool.put_off(segment, error)
            return True
        if arrivals:
            if appender.stage(arrivals, wait_seconds=IMPORT_WAIT_SECONDS, mark=(segment.name, end)) is None:
                return False  # another process is writing
            appender.commit()
            self._imported += len(arrivals)
        if is_last:
            segment.remove()
            appender.unmark(segment.name)
        return True

    def _divert(self, arrivals: list[Arrival], error: StoreError | None) -> list[Receipt] | StoreError:
        """Write to the spool what the store did not take."""
        if self._spool is None:
            self.can_keep = False
            return error or StoreError("nothing was stored.")
        try:
            self._spool.append(arrivals)
        except Exception as second:  # noqa: BLE001 - see _failure
            self.can_keep = False
            return StoreError(f"{error or self.trouble or 'the store failed.'} And the spool: {_failure(second)}")
        if error is not None:
            self._say(error)
        self.spooling = self.can_keep = True
        if failpoints.armed:
            failpoints.reach("spooled")
        return [Receipt(0, is_new=True, spooled=True)] * len(arrivals)

    def _say(self, error: StoreError) -> None:
        """Tell of trouble once, not with each group."""
        if str(error) != self.trouble:
            self.trouble = str(error)
            _log.error("callbacks go to the spool: %s", error)

    def _lose(self, error: Exception) -> StoreError:
        """Give up the connection to a store that failed: what it points at may be gone."""
        appender, self._appender = self._appender, None
        try:
            if appender is not None:
                appender.close()
        except Exception as second:  # noqa: BLE001 - it failed already
            _log.debug("closing the store failed too: %s", second)
        return _failure(error)


def _failure(error: Any) -> StoreError:
    """Return what the waiting requests are told; whatever went wrong, they are answered and the next group follows."""
    return error if isinstance(error, StoreError) else StoreError(f"{type(error).__name__}: {error}.")
