"""An event loop in a thread of its own, for fixtures that work in synchronous and in asynchronous tests."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["LoopThread"]

Result = TypeVar("Result")


class LoopThread:
    """Run coroutines for callers in other threads.

    Args:
        name: What it is the thread of.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"upcall test: {name}", daemon=True)
        self._thread.start()

    @property
    def is_closed(self) -> bool:
        """Tell whether it was closed."""
        return self._loop.is_closed()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end and return what it returns.

        Raises:
            RuntimeError: The thread is closed, or calls itself and would wait for ever.
        """
        self._check(work)
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def run_for(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do the same for a coroutine of another loop, which goes on meanwhile.

        Raises:
            RuntimeError: The thread is closed, or calls itself and would wait for ever.
        """
        self._check(work)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def _check(self, work: Coroutine[Any, Any, Any]) -> None:
        why = "is closed" if self.is_closed else None
        if threading.current_thread() is self._thread:
            why = "cannot be asked by an async handler, which runs inside it: ask from the test"
        if why is not None:
            work.close()
            raise RuntimeError(f"The {self._name} {why}.")

    def close(self) -> None:
        """End the thread; what it still does is let go of."""
        if not self.is_closed:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
