"""Threads for handlers that are not async."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["HandlerThreads"]

Ended: TypeAlias = tuple[Any, BaseException | None]
"""What a function returned, or what it raised."""

_Job: TypeAlias = tuple[asyncio.AbstractEventLoop, asyncio.Future[Ended], Callable[..., Any], tuple[Any, ...]]


class HandlerThreads:
    """Run functions beside an event loop, each in a daemon thread.

    Not an executor: one keeps the process alive until its last function returns, and a handler that hangs would then
    hold up a worker that was told to end. Nor can one hand on every exception, StopIteration among them.

    Used on one event loop.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = 0
        self._busy = 0

    async def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Ended:
        """Call a function in a thread; when cancelled, the function runs on and its end is not heard."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Ended] = loop.create_future()
        self._busy += 1
        if self._busy > self._threads:
            self._threads += 1
            name = f"upcall-handler-{self._threads}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
        self._jobs.put((loop, future, function, arguments))
        return await future

    def close(self) -> None:
        """Let each thread end once it is idle."""
        for _ in range(self._threads):
            self._jobs.put(None)
        self._threads = 0

    def _work(self) -> None:
        process = os.getpid()
        while (job := self._jobs.get()) is not None:
            loop, future, function, arguments = job
            ended: Ended
            try:
                ended = function(*arguments), None
            except BaseException as error:  # noqa: BLE001 - whatever a handler raises is that handler's failure
                ended = None, error
            if os.getpid() != process:
                # A child that the function forked has come back from it: it must not go on as this worker.
                os._exit(0 if ended[1] is None else 1)
            with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime
                loop.call_soon_threadsafe(self._finish, future, ended)
            # Waiting for the next job must not keep this one's event and traceback alive.
            del job, future, function, arguments, ended

    def _finish(self, future: asyncio.Future[Ended], ended: Ended) -> None:
        self._busy -= 1
        if not future.done():
            future.set_result(ended)
