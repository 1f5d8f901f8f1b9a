"""One attempt at a piece of work: the handler is called, and whatever it does becomes an outcome."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import os
from typing import TYPE_CHECKING, Any

from upcall.dispatch.isolation import in_own_context
from upcall.dispatch.outcomes import NeverEndedError, failure
from upcall.failpoints import reach
from upcall.inbox import Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from upcall.dispatch.handlers import Handler
    from upcall.dispatch.lanes import Job
    from upcall.inbox import Inbox, WorkItem

__all__ = ["Attempts"]

_STILL_THERE_SECONDS = 1.0


class Attempts:
    """Call handlers.

    Args:
        now: The wall clock, UTC microseconds.
        fraction: Random numbers from 0 to 1, for jitter.
    """

    def __init__(self, now: Callable[[], int], fraction: Callable[[], float]) -> None:
        self._now = now
        self._fraction = fraction
        self._process = os.getpid()
        self.abandoned: bool = False
        """Whether what still runs is to be cancelled: else a cancellation is the handler's own doing."""

    async def on_loop(self, handler: Handler, job: Job) -> Outcome:
        """Await an async handler."""
        try:
            arguments = _arguments(handler, job)
            reach("mid_handler")
            result = handler.function(*arguments)
            # Ours set no context variables; for others' the difference from a task of its own must not show.
            await (result if handler.is_ours or not inspect.iscoroutine(result) else in_own_context(result))
            reach("before_done")
        except asyncio.CancelledError as error:
            if self.abandoned:
                raise
            _forget_cancellation()
            return self._failed(handler, job, error)
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is that handler's failure
            return self._failed(handler, job, error)
        return Outcome(job.item.id, "done")

    def in_thread(self, handler: Handler, job: Job, loop: asyncio.AbstractEventLoop) -> Outcome:
        """Call a plain handler, in the thread that this is called in."""
        error: BaseException | None = None
        try:
            arguments = _arguments(handler, job)
            reach("mid_handler")
            result = contextvars.copy_context().run(handler.function, *arguments)
            if inspect.isawaitable(result):  # a plain function around an async one
                _await_on(loop, result)
            reach("before_done")
        except BaseException as raised:  # noqa: BLE001 - whatever a handler raises is that handler's failure
            error = raised
        self._end_forks(error)
        return Outcome(job.item.id, "done") if error is None else self._failed(handler, job, error)

    def in_transaction(self, handler: Handler, job: Job, inbox: Inbox, owner: str) -> Outcome | None:
        """Call a transactional handler; what it writes and the end of its work are one commit.

        Returns:
            How it failed; an outcome ``done`` is recorded already. None where the lease was lost.

        Raises:
            StoreError: The store failed, and nothing of it is kept; the handler did not fail.
        """
        raised: list[BaseException] = []
        lost = False
        try:
            with inbox.finish(job.item.id, owner, self._now()) as transaction:
                if transaction is None:
                    lost = True
                else:
                    try:
                        arguments = _arguments(handler, job)
                        reach("mid_handler")
                        result = contextvars.copy_context().run(handler.function, *arguments, transaction)
                        _refuse_awaitable(handler, result)
                        transaction.check()  # a rollback that the handler swallowed is its failure, not the store's
                        reach("before_done")
                    except BaseException as error:
                        raised.append(error)
                        raise
                    finally:
                        self._end_forks(raised[0] if raised else None)
        except BaseException as error:
            if not raised:
                raise
            return self._failed(handler, job, error if error is raised[0] else raised[0])
        return None if lost else Outcome(job.item.id, "done")

    def _failed(self, handler: Handler, job: Job, error: BaseException) -> Outcome:
        return failure(handler, job.item, error, now=self._now(), fraction=self._fraction())

    def _end_forks(self, error: BaseException | None) -> None:
        if os.getpid() != self._process:
            # A child that the function forked has come back from it: it must not go on as this worker.
            os._exit(0 if error is None else 1)


def _arguments(handler: Handler, job: Job) -> tuple[Any, ...]:
    """Return what to call with.

    Raises:
        NeverEndedError: It was started as often as it may be, and ended none of these times.
        LookupError: The handler wants what the callback does not have.
    """
    item: WorkItem = job.item
    if item.attempt > handler.schedule.max_attempts:
        raise NeverEndedError(item.attempt - 1)
    if isinstance(job.arguments, LookupError):
        raise job.arguments
    return job.arguments


def _forget_cancellation() -> None:
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


def _refuse_awaitable(handler: Handler, result: Any) -> None:
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(f"{handler.name} is transactional and returned an awaitable: it must be a plain function")


def _await_on(loop: asyncio.AbstractEventLoop, awaitable: Awaitable[Any]) -> None:
    """Wait in this thread for what runs on the loop, as long as there is one."""

    async def ended() -> BaseException | None:
        try:
            await awaitable
        except BaseException as error:  # noqa: BLE001 - as a value, for not every exception passes a task
            return error
        return None

    future = asyncio.run_coroutine_threadsafe(ended(), loop)
    while True:
        try:
            error = future.result(_STILL_THERE_SECONDS)
        except concurrent.futures.TimeoutError:
            if loop.is_closed():
                raise RuntimeError("the event loop was closed under the handler") from None
        else:
            if error is not None:
                raise error
            return
