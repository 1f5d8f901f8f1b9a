"""Threads for handlers that are not async."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["HandlerThreads"]

_Function: TypeAlias = Callable[[], None]


class HandlerThreads:
    """Run functions in daemon threads, as many at once as there are functions.

    Not an executor: one keeps the process alive until its last function returns, and a handler that hangs would then
    hold up a worker that was told to end.
    """

    def __init__(self) -> None:
        self._functions: queue.SimpleQueue[_Function | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._busy = 0

    def start(self, function: _Function) -> None:
        """Run a function, which raises nothing, in a thread."""
        with self._lock:
            self._busy += 1
            if self._busy > self._threads:
                self._threads += 1
                name = f"upcall-handler-{self._threads}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
        self._functions.put(function)

    def close(self) -> None:
        """Let each thread end once it is idle."""
        with self._lock:
            for _ in range(self._threads):
                self._functions.put(None)
            self._threads = 0

    def _work(self) -> None:
        while (function := self._functions.get()) is not None:
            function()
            del function  # waiting for the next one must not keep this one's event alive
            with self._lock:
                self._busy -= 1
