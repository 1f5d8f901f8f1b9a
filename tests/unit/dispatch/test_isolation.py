"""Coroutines within another task: they are themselves, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from upcall.dispatch.isolation import in_own_context

NAME = contextvars.ContextVar("NAME", default="nobody")


async def test_what_is_set_stays_within():
    """A context variable that a handler sets is seen by it across its waits, and by nobody after it."""

    async def handler():
        NAME.set("handler")
        await asyncio.sleep(0)
        return NAME.get()

    assert await in_own_context(handler()) == "handler"
    assert NAME.get() == "nobody"


async def test_timeouts_work():
    """A handler's own deadline ends its wait, and not the task that awaits it."""

    async def handler():
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await in_own_context(handler())
    await asyncio.sleep(0)


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
async def test_exceptions_come_out_as_they_are(error):
    """Whatever a handler raises, before or after a wait, comes out."""

    async def handler(waits):
        if waits:
            await asyncio.sleep(0)
        raise error

    for waits in (False, True):
        with pytest.raises(type(error)):
            await in_own_context(handler(waits))


async def test_failures_and_cancellation_go_in():
    """What fails while a handler waits for it, and its own cancellation, reach the handler."""
    seen = []

    async def handler(waited_for):
        try:
            await waited_for
        except BaseException as error:
            seen.append(type(error))
            raise

    failed = asyncio.get_running_loop().create_future()
    failed.set_exception(OSError())
    with pytest.raises(OSError):
        await in_own_context(handler(failed))
    task = asyncio.ensure_future(_as_task(handler(asyncio.Event().wait())))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [OSError, asyncio.CancelledError]


async def _as_task(coroutine):
    return await in_own_context(coroutine)
