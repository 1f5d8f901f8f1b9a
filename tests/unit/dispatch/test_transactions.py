"""Transactional handlers: what they write and the end of their work are one."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading

import pytest

from upcall.dispatch import RetryLater

SECOND = 1_000_000


def create(world):
    """Make a table of the handler's own, beside the inbox's."""
    with contextlib.closing(sqlite3.connect(world.path)) as connection:
        connection.execute("CREATE TABLE tickets (callback_id INTEGER, device_id TEXT)")
        connection.commit()


def tickets(world):
    with contextlib.closing(sqlite3.connect(world.path)) as connection:
        return connection.execute("SELECT callback_id, device_id FROM tickets ORDER BY 1, 2").fetchall()


def insert(transaction, event, device_id=""):
    transaction.execute("INSERT INTO tickets VALUES (?, ?)", (event.id, device_id))


async def test_it_writes_and_ends_at_once(world):
    """What a handler writes is there, once for each callback and each device."""
    create(world)

    @world.table.on(transactional=True)
    def on_event(event, transaction):
        insert(transaction, event)

    @world.table.on_device("UpgradeFailed", transactional=True)
    def on_device(event, device, transaction):
        insert(transaction, event, device.device_id)

    world.report({"d1": "UpgradeFailed", "d2": "UpgradeFailed", "d3": "Accepted"})
    world.report({"d4": "Accepted"})
    worker = world.worker()
    await worker.drain()
    assert tickets(world) == [(1, ""), (1, "d1"), (1, "d2"), (2, "")]
    assert (worker.stats.done, worker.stats.failed) == (4, 0)
    assert world.inbox.ledger().handled == 2


async def test_a_failure_keeps_nothing(world):
    """A handler that fails has written nothing, is tried again, and its success counts once."""
    create(world)
    calls = []

    @world.table.on(transactional=True, backoff_seconds=0)
    def handler(event, transaction):
        insert(transaction, event)
        calls.append(event.id)
        if len(calls) < 3:
            raise OSError("not yet")

    world.append(b"1")
    await world.worker().drain()
    assert len(calls) == 3
    assert tickets(world) == [(1, "")]


async def test_dead_letters_and_decisions(world):
    """A transactional handler is given up, and decides itself, as any other."""
    create(world)

    @world.table.on(transactional=True, max_attempts=2, backoff_seconds=0)
    def handler(event, transaction):
        insert(transaction, event)
        raise RetryLater(0, "busy")

    world.append(b"1")
    await world.worker().drain()
    assert len(world.inbox.dead()) == 1
    assert tickets(world) == []


async def test_a_lease_that_was_lost(world):
    """A handler whose work another worker has taken meanwhile writes nothing and is not called."""
    create(world)
    calls = []

    @world.table.on(transactional=True)
    def handler(event, transaction):
        calls.append(event.id)
        insert(transaction, event)

    world.append(b"1")
    name = world.table.handlers[0].name
    thief = world.open()
    worker = world.worker()
    stolen = []

    class Stealing:
        def __init__(self, inbox):
            self._inbox = inbox

        def __getattr__(self, attribute):
            return getattr(self._inbox, attribute)

        def enroll(self, *args, **options):
            found = self._inbox.enroll(*args, **options)
            if not stolen:
                world.now += 60 * SECOND
                stolen.extend(thief.claim([name], "thief", world.now, lease_seconds=30, limit=1))
            return found

    worker = world.worker(Stealing(world.inbox))
    await worker.drain()
    assert len(stolen) == 1
    assert calls == []
    assert worker.stats.done == 0


async def test_the_loop_goes_on_meanwhile(world):
    """While a transactional handler runs, async handlers do too."""
    create(world)
    ticked, seen = threading.Event(), []

    @world.table.on(transactional=True)
    def slow(event, transaction):
        assert ticked.wait(20)
        insert(transaction, event)

    @world.table.on()
    async def tick(event):
        while not seen:
            await asyncio.sleep(0.001)
            seen.append(event.id)
        ticked.set()

    world.append(b"1")
    await asyncio.wait_for(world.worker().drain(), 30)
    assert tickets(world) == [(1, "")]


async def test_several_transactional_handlers(world):
    """Handlers that need the store take turns at it, and neither starves."""
    create(world)
    for which in ("one", "two"):

        def handler(event, transaction, which=which):
            insert(transaction, event, which)

        handler.__qualname__ = which
        world.table.on(transactional=True)(handler)
    world.append(*[bytes([n]) for n in range(100)])
    await world.worker().drain()
    assert tickets(world) == sorted((n, which) for n in range(1, 101) for which in ("one", "two"))


async def test_async_ones_are_refused(world):
    """An async transactional handler is refused where it is written: the store is locked while it runs."""
    with pytest.raises(TypeError, match="is async"):

        @world.table.on(transactional=True)
        async def handler(event, transaction): ...

    with pytest.raises(TypeError, match=r"handler\(event, transaction\)"):
        world.table.on(transactional=True)(lambda event: None)
    with pytest.raises(TypeError, match=r"handler\(event, device, transaction\)"):
        world.table.on_device(transactional=True)(lambda event, device: None)
    assert world.table.handlers == []


async def test_a_hidden_coroutine_is_a_failure(world):
    """A plain function that returns a coroutine would not have run: it fails, and nothing is kept."""
    create(world)

    async def later(event, transaction): ...

    @world.table.on(transactional=True, max_attempts=1)
    def handler(event, transaction):
        insert(transaction, event)
        return later(event, transaction)

    world.append(b"1")
    await world.worker().drain()
    assert "returned an awaitable" in world.inbox.dead()[0].error
    assert tickets(world) == []


async def test_a_rollback_that_the_handler_swallows_is_its_own_failure(world):
    """It uses up its attempts like any other failure, and what came after it goes on."""
    create(world)
    with contextlib.closing(sqlite3.connect(world.path)) as connection:
        connection.execute("CREATE UNIQUE INDEX one_ticket ON tickets (callback_id)")
        connection.execute("INSERT INTO tickets VALUES (1, 'there')")
        connection.commit()

    @world.table.on(transactional=True, max_attempts=1)
    def handler(event, transaction):
        with contextlib.suppress(sqlite3.IntegrityError):
            transaction.execute("INSERT OR ROLLBACK INTO tickets VALUES (?, '')", (event.id,))

    world.report({"d1": "Accepted"})
    world.report({"d2": "Accepted"})
    worker = world.worker()
    await asyncio.wait_for(worker.drain(), 20)
    assert (worker.stats.done, worker.stats.dead) == (1, 1)
    assert "rolled back" in world.inbox.dead()[0].error


class HalfMade(RetryLater):
    def __init__(self):
        """Forget what its base needs."""


@pytest.mark.parametrize("kind", ["thread", "transaction"])
async def test_an_exception_of_half_a_kind_is_a_failure(world, kind):
    """A subclass of ours that was not made whole is a failure like any other, and holds nobody up."""
    create(world)

    def fail(event, *_):
        if event.id == 1:
            raise HalfMade

    world.table.on(max_attempts=1, transactional=kind == "transaction")(fail)
    world.report({"d1": "Accepted"})
    world.report({"d2": "Accepted"})
    worker = world.worker()
    await asyncio.wait_for(worker.drain(), 20)
    assert (worker.stats.done, worker.stats.dead) == (1, 1)
