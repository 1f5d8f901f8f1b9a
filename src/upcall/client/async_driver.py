"""Carry out flows in asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from upcall.client.effects import Do, Effect, Flow, Join, Launch, Send, Wait

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from upcall.client.wire import AsyncWire

__all__ = ["AsyncDriver"]

T = TypeVar("T")


class AsyncDriver:
    """Carry out flows in any number of tasks; connections belong to one event loop, so each loop has its own.

    Args:
        make_wire: Opens the connections of an event loop, when its first request is sent.
    """

    def __init__(self, make_wire: Callable[[], AsyncWire]) -> None:
        self.sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep
        self._make_wire = make_wire
        self._loops: dict[asyncio.AbstractEventLoop, _LoopPart] = {}
        self._is_closed = False
        weakref.finalize(self, _left_open, self._loops).atexit = False

    async def run(self, flow: Flow[T]) -> T:
        """Carry out a flow and return what it comes to."""
        step: Callable[[], Effect] = partial(next, flow)
        stopped: asyncio.CancelledError | None = None
        with contextlib.closing(flow):
            while True:
                try:
                    effect = step()
                except StopIteration as end:
                    return cast("T", end.value)
                if stopped is not None:
                    raise stopped
                try:
                    if isinstance(effect, Do):
                        value, stopped = await _to_its_end(effect.function)
                    else:
                        value = await self._perform(effect)
                except Exception as error:  # noqa: BLE001 - the flow raises it, and ends what it had begun
                    step = partial(flow.throw, error)
                else:
                    step = partial(flow.send, value)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; those of an ended one were closed as it ended."""
        self._is_closed = True
        part = self._loops.get(asyncio.get_running_loop())
        if part is not None:
            await part.close()

    async def _perform(self, effect: Send | Wait | Launch | Join) -> Any:
        match effect:
            case Send():
                return await (await self._part()).wire.send(effect.request, effect.timeout_seconds)
            case Wait():
                return await self.sleep(effect.seconds)
            case Launch():
                # A task of its own: a caller who is cancelled does not stop a login whose outcome others wait for,
                # and whose refusal has to be counted.
                part = await self._part()
                part.launch(self.run(effect.flow), effect.ended)
                return None
            case Join():
                try:
                    return await asyncio.wait_for(asyncio.wrap_future(effect.flight), effect.timeout_seconds)
                except TimeoutError as error:
                    return error

    async def _part(self) -> _LoopPart:
        if self._is_closed:
            raise RuntimeError("This client is closed.")
        loop = asyncio.get_running_loop()
        part = self._loops.get(loop)
        if part is None:
            loops = self._loops
            part = loops[loop] = _LoopPart(self._make_wire(), lambda: loops.pop(loop, None))
            await part.open()
        return part


class _LoopPart:
    """Hold the connections and the tasks that belong to one event loop, and end them with it."""

    def __init__(self, wire: AsyncWire, forget: Callable[[], object]) -> None:
        self.wire = wire
        self._tasks: set[asyncio.Task[Any]] = set()
        self._forget = forget
        self._guard = self._close_with_loop()

    async def open(self) -> None:
        # An event loop closes the generators that were begun in it before it ends: asyncio.run() leaves no socket.
        await anext(self._guard)

    async def close(self) -> None:
        await self._guard.aclose()

    def launch(self, work: Coroutine[Any, Any, None], ended: Callable[[], None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: ended())

    async def _close_with_loop(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._forget()
            for task in self._tasks:
                task.cancel()
            await self.wire.aclose()


def _left_open(loops: dict[asyncio.AbstractEventLoop, _LoopPart]) -> None:
    """Warn of connections in a loop that still runs; those of an ended one were closed as it ended."""
    if loops:
        warnings.warn(
            "An AsyncThingSpaceClient was not closed: use it in an async with statement, or await aclose().",
            ResourceWarning,
            2,
        )


async def _to_its_end(function: Callable[[], T]) -> tuple[T, asyncio.CancelledError | None]:
    """Call a function in a thread; who is cancelled meanwhile learns what it returned, and stops after that."""
    work = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(work), None
    except asyncio.CancelledError as stopped:
        return await work, stopped
