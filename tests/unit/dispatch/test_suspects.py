"""Work that may have ended a process: it runs alone, and takes no other work with it."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from upcall.dispatch import session as session_module
from upcall.inbox import Outcome
from upcall.inbox.owners import new_owner

SECOND = 1_000_000


class Crash:
    """Claim as a worker does that then dies: nothing of it is recorded."""

    def __init__(self, world, monkeypatch):
        self.world = world
        self.gone = []
        monkeypatch.setattr("upcall.dispatch.worker.dead_owners", lambda owners: [o for o in owners if o in self.gone])

    def __call__(self, limit, **options):
        names = [handler.name for handler in self.world.table.handlers]
        self.gone.append(new_owner())
        self.world.inbox.subscribe(names, self.world.now)
        self.world.inbox.enroll([handler.subscription() for handler in self.world.table.handlers], self.world.now)
        return self.world.inbox.claim(
            names, self.gone[-1], self.world.now, lease_seconds=30, limit=limit, **options
        )  # fmt: skip


@pytest.fixture
def crash(world, monkeypatch):
    return Crash(world, monkeypatch)


class Overlap:
    """Tell what ran beside what."""

    def __init__(self):
        self.running = set()
        self.beside = {}

    async def run(self, number):
        self.running.add(number)
        for one in self.running:
            self.beside.setdefault(one, set()).update(self.running - {one})
        for _ in range(3):
            await asyncio.sleep(0)
        self.running.remove(number)


async def test_what_a_dead_worker_held_runs_alone(world, crash):
    """After a crash each piece that was held runs by itself, the rest side by side."""
    overlap = Overlap()

    @world.table.on()
    async def handler(event):
        await overlap.run(event.id)

    world.append(*[bytes([n]) for n in range(20)])
    crash(3)
    await world.worker().drain()
    assert [number for number, beside in overlap.beside.items() if not beside] == [1, 2, 3]
    assert world.inbox.ledger().handled == 20


async def test_an_ordinary_retry_does_not_run_alone(world):
    """Work that failed and said so is no suspect: a receiver that was away is caught up with side by side."""
    overlap, failed = Overlap(), set()

    @world.table.on(backoff_seconds=0)
    async def handler(event):
        if event.id not in failed:
            failed.add(event.id)
            raise OSError
        await overlap.run(event.id)

    world.append(*[bytes([n]) for n in range(10)])
    await world.worker().drain()
    assert all(overlap.beside.values())


async def test_a_poison_callback_takes_no_other_to_the_dead_letters(world, crash):
    """A callback that ends its process each time is given up after its attempts, and all others are handled."""
    done, poison = [], 5
    world.table.on(max_attempts=4)(lambda event: done.append(event.id))
    world.append(*[bytes([n]) for n in range(8)])
    assert len(crash(8)) == 8
    for _ in range(3):
        # A worker as ours is, until it comes to the poison: what it holds then is lost with it.
        world.inbox.release(crash.gone, world.now)
        while (items := crash(8, unended_alone=True)) and items[0].callback_id != poison:
            assert len(items) == 1
            done.append(items[0].callback_id)
            world.inbox.settle([Outcome(items[0].id, "done")], crash.gone[-1], world.now)
        assert len(items) == 1
    await world.worker().drain()
    assert sorted(done) == [1, 2, 3, 4, 6, 7, 8]
    (letter,) = world.inbox.dead()
    assert (letter.callback_id, letter.attempts) == (poison, 5)


async def test_a_long_one_holds_up_the_others_for_a_while_only(world, crash, monkeypatch):
    """A suspect that runs on is taken for innocent after a while, and the others go on beside it."""
    monkeypatch.setattr(session_module, "ALONE_SECONDS", 0.02)
    held, seen, stop = asyncio.Event(), [], asyncio.Event()

    @world.table.on()
    async def handler(event):
        seen.append(event.id)
        if event.id == 1:
            await held.wait()
        if len(seen) == 6:
            held.set()
            stop.set()

    world.append(*[bytes([n]) for n in range(6)])
    crash(1)
    await asyncio.wait_for(world.worker().run(stop), 20)
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]
    assert world.inbox.ledger().handled == 6


async def test_a_long_one_before_it_holds_it_up_for_a_while_only(world, crash, monkeypatch):
    """A suspect waits for what runs, but not for ever."""
    monkeypatch.setattr(session_module, "ALONE_SECONDS", 0.02)
    held, begun, seen, stop = asyncio.Event(), asyncio.Event(), [], asyncio.Event()

    @world.table.on()
    async def handler(event):
        seen.append(event.id)
        if event.id == 2:
            begun.set()
            await held.wait()
        elif event.id == 1:
            held.set()
            stop.set()

    world.append(b"1", b"2")
    crash(1)
    crash.gone.clear()  # its lease runs out while another piece has long been running
    worker = asyncio.ensure_future(world.worker().run(stop))
    await asyncio.wait_for(begun.wait(), 20)
    world.now += 31 * SECOND
    await asyncio.wait_for(worker, 20)
    assert seen == [2, 1]


async def test_a_handlers_limit_counts_for_more(world, crash, monkeypatch):
    """A suspect of a handler whose slots are taken for long starts after them, not beside them, and holds up nobody."""
    monkeypatch.setattr(session_module, "ALONE_SECONDS", 0.02)
    overlap, held, begun, stop = Overlap(), asyncio.Event(), asyncio.Event(), asyncio.Event()

    @world.table.on(concurrency=1)
    async def one_at_a_time(event):
        overlap.running.add(event.id)
        if event.id == 2:
            begun.set()
            await held.wait()
        await overlap.run(event.id)
        if len(overlap.beside) == 3:
            stop.set()

    @world.table.on()
    async def another(event):
        if event.id == 3:  # claimed only once the suspect stands in nobody's way
            held.set()

    world.append(b"1", b"2")
    crash(1)
    crash.gone.clear()  # its lease runs out while another piece has long been running
    worker = asyncio.ensure_future(world.worker().run(stop))
    await asyncio.wait_for(begun.wait(), 20)
    world.now += 31 * SECOND
    world.append(b"3")
    await asyncio.wait_for(worker, 20)
    assert overlap.beside == {2: set(), 1: set(), 3: set()}
    assert list(overlap.beside) == [2, 1, 3]


async def test_a_worker_that_ends_starts_no_suspect(world, crash, monkeypatch):
    """Once a worker was told to end, a suspect that has waited long enough is given back, uncounted."""
    seen, held, stop = [], asyncio.Event(), asyncio.Event()
    claim, finish = world.inbox.claim, session_module.Session.finish

    @world.table.on()
    async def handler(event):
        seen.append(event.id)
        world.now += 31 * SECOND  # the other one's lease has run out
        await held.wait()

    def claim_and_stop(*names, **options):
        items = claim(*names, **options)
        if any(item.unended for item in items):
            stop.set()
        return items

    async def finish_late(session, grace_seconds):
        monkeypatch.setattr(session_module, "ALONE_SECONDS", 0)
        held.set()
        await finish(session, grace_seconds)

    monkeypatch.setattr(world.inbox, "claim", claim_and_stop)
    monkeypatch.setattr(session_module.Session, "finish", finish_late)
    world.append(b"1", b"2")
    crash(1)
    crash.gone.clear()
    await asyncio.wait_for(world.worker().run(stop), 20)
    assert seen == [2]
    (work,) = world.inbox.work(1)
    assert (work.state, work.attempts) == ("pending", 1)


async def test_subscribers_of_ours_are_no_suspects(world, crash):
    """Subscribers without code end no process: theirs run side by side after a crash."""
    overlap = Overlap()

    @world.table.on()
    async def handler(event):
        await overlap.run(event.id)

    world.table.handlers[0] = msgspec.structs.replace(world.table.handlers[0], is_ours=True)
    world.append(*[bytes([n]) for n in range(6)])
    crash(6)
    await world.worker().drain()
    assert all(overlap.beside.values())
