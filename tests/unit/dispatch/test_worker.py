"""The worker: at least once, retries, dead letters, and nothing that a handler does ends it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import itertools
import json
import logging
import threading

import pytest

from upcall.dispatch import Worker
from upcall.dispatch import events as events_module
from upcall.errors import StoreError
from upcall.inbox import Reported, Trust
from upcall.inbox.owners import new_owner
from upcall.testing import callback

BOUND = contextvars.ContextVar("BOUND", default=None)
SECOND = 1_000_000
DAY = 24 * 3600 * SECOND


class Watched:
    """An inbox that tells of each call, and fails where a test says so."""

    def __init__(self, inbox):
        self._inbox = inbox
        self.calls = []
        self.failures = {}
        self.hooks = {}

    def __getattr__(self, name):
        method = getattr(self._inbox, name)
        if not callable(method):
            return method

        def call(*args, **options):
            self.calls.append(name)
            if self.failures.get(name):
                raise self.failures[name].pop(0)
            result = method(*args, **options)
            self.hooks.get(name, lambda: None)()
            return result

        return call


def refuse_to_end(seen):
    """Make a handler that records its start and waits for something that never comes."""

    async def handler(event):
        seen.append(event.id)
        await asyncio.Event().wait()

    return handler


class TestHandingOn:
    async def test_sync_and_async_handlers_receive_each_callback(self, world):
        """Each handler receives each accepted callback once, async on the loop and the others in a thread."""
        seen = []

        @world.table.on()
        def plain(event):
            seen.append(("plain", event.id, threading.current_thread() is threading.main_thread()))

        @world.table.on()
        async def asynchronous(event):
            seen.append(("async", event.id, threading.current_thread() is threading.main_thread()))

        world.append(b"no json", callback())
        worker = world.worker()
        await worker.drain()
        assert sorted(seen) == [("async", 1, True), ("async", 2, True), ("plain", 1, False), ("plain", 2, False)]
        assert (worker.stats.done, worker.stats.failed, worker.stats.dead) == (4, 0, 0)
        assert world.inbox.ledger().handled == 2

    async def test_the_event_is_the_stored_callback(self, world):
        """A handler sees the callback's number, receipt, bytes and account."""
        seen = []
        world.table.on()(seen.append)
        world.append(b'{"type":"upgradeProgress"}', account="0000000001-00001")
        await world.worker().drain()
        (event,) = seen
        assert (event.id, event.received_at, event.account) == (1, world.now, "0000000001-00001")
        assert event.raw == b'{"type":"upgradeProgress"}'

    async def test_a_callback_is_parsed_once_for_all_of_its_devices(self, world, monkeypatch):
        """A report of many devices is parsed when it is enrolled, and not again to be handed on."""
        parsed = []
        monkeypatch.setattr(events_module, "stored_event", lambda *facts: parsed.append(facts))
        seen = []
        world.table.on_device()(lambda event, device: seen.append((event.id, device.device_id)))
        for number in range(1, 6):
            world.report({f"{number}{device:014}": "UpgradeFailed" for device in range(20)})
        await world.worker().drain()
        assert len(set(seen)) == len(seen) == 100
        assert parsed == []

    async def test_events_that_another_worker_enrolled(self, world, monkeypatch):
        """Work that another process enrolled is parsed once for all of its devices, and few events are kept."""
        parsed = []
        parse = events_module.stored_event
        monkeypatch.setattr(events_module, "stored_event", lambda *facts: parsed.append(facts[0]) or parse(*facts))
        monkeypatch.setattr(events_module, "KEPT_EVENTS", 2)
        seen = []
        world.table.on_device()(lambda event, device: seen.append((event.id, device.device_id)))
        for number in range(1, 6):
            world.report({f"{number}{device:014}": "UpgradeFailed" for device in range(20)})
        (handler,) = world.table.handlers
        world.inbox.subscribe([handler.name], world.now)
        world.inbox.enroll([handler.subscription()], world.now)
        await world.worker().drain()
        assert len(set(seen)) == len(seen) == 100
        assert sorted(parsed) == [1, 2, 3, 4, 5]

    async def test_what_a_handler_changes_in_an_event_is_its_own(self, world):
        """Handlers of one callback do not see what another one did to the members that can be changed."""
        seen = []

        def change(event):
            seen.append(repr(event.extra))
            event.extra["unknown"].append("changed")

        async def change_too(event):
            change(event)

        world.table.on()(change)
        world.table.on()(change_too)
        world.append(b'{"type":"upgradeProgress","unknown":[1]}')
        await world.worker().drain()
        assert seen == ["{'unknown': [1]}"] * 2

    async def test_day_0_and_day_20_have_two_effects(self, world):
        """The same body within the window has one effect, after 20 days a second one with a key of its own."""
        effects = {}
        world.table.on()(lambda event: effects.setdefault(event.key, event.id))
        for wait in (0, 60 * SECOND, 20 * DAY, 60 * SECOND):
            world.now += wait
            world.append(b"the same")
            await world.worker().drain()
        assert len(effects) == len(set(effects.values())) == 2

    async def test_a_thousand_copies_have_one_effect(self, world):
        """A thousand copies of one callback run its handler once."""
        seen = []
        world.table.on()(seen.append)
        world.append(*[b"the same"] * 1000)
        await world.worker().drain()
        assert len(seen) == 1

    async def test_what_was_reported_has_one_effect(self, world):
        """A device that was reported is handled as such, and not again when its callback comes late after all."""
        seen = []
        world.table.on_device("UpgradeFailed")(lambda event, device: seen.append((event.origin, device.device_id)))
        body = callback(campaign_id="c1", devices={"d1": "UpgradeFailed"})
        report = Reported(
            account="0000123456-00001", campaign_id="c1", device_id="d1", status="UpgradeFailed", body=body
        )
        for _ in range(2):
            world.inbox.append_reported([report], world.now)
            await world.worker().drain()
        world.report({"d2": "UpgradeFailed", "d1": "UpgradedFailed"}, campaign_id="c1")
        await world.worker().drain()
        assert seen == [("reconciled", "d1"), ("received", "d2")]

    async def test_quarantined_callbacks_reach_no_handler(self, world):
        """No handler sees what is in quarantine."""
        world.table.on()(pytest.fail)
        world.append(b"x", trust=Trust.QUARANTINED)
        await world.worker().drain()

    async def test_a_plain_function_around_an_async_one(self, world):
        """A function that returns a coroutine is not done before that coroutine is."""
        seen = []

        async def work(event):
            seen.append(event.id)

        @functools.wraps(work)
        def wrapper(event):
            return work(event)

        world.table.on()(wrapper)
        world.table.on()(lambda event: work(event) or None)
        world.append(b"x")
        await world.worker().drain()
        assert seen == [1, 1]

    async def test_a_worker_without_handlers(self, world):
        """A program without handlers has nothing to do, and leaves all for one that has."""
        world.append(b"x")
        await world.worker().drain()
        assert world.inbox.ledger().unread == 1

    async def test_two_programs_on_one_store(self, world):
        """A worker runs its own handlers only, and another program's wait for that program."""
        seen = []
        for name in ("one", "other"):
            handler = functools.partial(lambda which, event: seen.append(which), name)
            handler.__module__, handler.__qualname__ = "program", name
            world.table.on()(handler)
        one, other = world.table.handlers
        world.append(b"x")
        world.inbox.subscribe([one.name, other.name], world.now)
        await world.worker(handlers=[one]).drain()
        assert seen == ["one"]
        await world.worker(world.open(), handlers=[one, other]).drain()
        assert seen == ["one", "other"]

    async def test_a_handler_that_is_gone_leaves_its_work(self, world):
        """Work of a handler that was taken out of the program waits, and holds up nobody."""
        world.table.on()(refuse_to_end([]))
        seen = []

        @world.table.on()
        def stays(event):
            seen.append(event.id)

        goes, kept = world.table.handlers
        world.append(b"1", b"2")
        world.inbox.subscribe([goes.name, kept.name], world.now)
        world.inbox.enroll([goes.subscription(), kept.subscription()], world.now)
        await world.worker(handlers=[kept]).drain()
        assert sorted(seen) == [1, 2]
        assert world.inbox.ledger().pending == 2

    async def test_no_more_than_the_concurrency_at_once(self, world):
        """No more handlers run at once than were allowed, and that many do."""
        running, most = 0, 0
        full = asyncio.Event()

        @world.table.on()
        async def handler(event):
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 3:
                full.set()
            await full.wait()
            await asyncio.sleep(0)
            running -= 1

        world.append(*[bytes([n]) for n in range(12)])
        await world.worker(concurrency=3).drain()
        assert most == 3
        assert world.inbox.ledger().handled == 12

    async def test_no_more_threads_than_the_concurrency(self, world):
        """Handlers that block share no more threads than were allowed, and the threads end with the work."""
        barrier = threading.Barrier(3, timeout=80)
        names = set()

        @world.table.on()
        def handler(event):
            names.add(threading.current_thread().name)
            barrier.wait()

        world.append(*[bytes([n]) for n in range(12)])
        await world.worker(concurrency=3).drain()
        assert len(names) == 3
        for thread in threading.enumerate():
            if thread.name in names:
                thread.join(20)
                assert not thread.is_alive()

    async def test_a_handlers_own_limit(self, world):
        """A handler runs no more calls at once than it says, async or not, while others run more."""
        running, most = {"one": 0, "two": 0}, {"one": 0, "two": 0}

        def counting(name):
            async def handler(event):
                running[name] += 1
                most[name] = max(most[name], running[name])
                for _ in range(5):
                    await asyncio.sleep(0)
                running[name] -= 1

            handler.__qualname__ = name
            return handler

        world.table.on(concurrency=2)(counting("one"))
        world.table.on()(counting("two"))
        world.append(*[bytes([n]) for n in range(20)])
        await world.worker(concurrency=8).drain()
        assert (most["one"], most["two"] > 2) == (2, True)
        assert world.inbox.ledger().handled == 20

    async def test_a_slow_handler_does_not_hold_up_the_others(self, world):
        """A handler that takes every slot leaves the others one each: they go on, however many it has waiting."""
        held, seen, stop = asyncio.Event(), [], asyncio.Event()

        @world.table.on()
        async def slow(event):
            await held.wait()

        @world.table.on()
        async def quick(event):
            seen.append(event.id)
            if len(seen) == 30:
                stop.set()
                held.set()

        world.append(*[bytes([n]) for n in range(30)])
        await asyncio.wait_for(world.worker(concurrency=4).run(stop), 20)
        assert sorted(seen) == list(range(1, 31))

    async def test_context_variables_stay_with_a_call(self, world):
        """What a handler binds to its context, the next call does not see."""
        seen = []

        @world.table.on(concurrency=1)
        async def asynchronous(event):
            seen.append(BOUND.get())
            BOUND.set(event.id)

        @world.table.on(concurrency=1)
        def plain(event):
            seen.append(BOUND.get())
            BOUND.set(event.id)

        world.append(*[bytes([n]) for n in range(10)])
        await world.worker().drain()
        assert seen == [None] * 20

    async def test_handlers_of_one_name(self, world):
        """Two handlers of one name would share their work, and are refused."""
        world.table.on()(lambda event: None)
        with pytest.raises(ValueError, match="is there twice"):
            world.worker(handlers=world.table.handlers * 2)

    def test_a_concurrency_of_none(self, world):
        """A worker that may run nothing is refused."""
        with pytest.raises(ValueError, match="at least 1, not 0"):
            world.worker(concurrency=0)


class TestFailures:
    async def test_retries_wait_as_scheduled_and_end_well(self, world):
        """A handler that fails is tried again when its wait is over, not before, until it succeeds."""
        attempts = []

        @world.table.on(backoff_seconds=2.0)
        def handler(event):
            attempts.append(world.now)
            if len(attempts) < 4:
                raise OSError("the ticket system is away")

        begin = world.now
        world.append(b"x")
        await world.worker().drain()
        for wait in (2, 4, 8):
            due = world.inbox.next_due([world.table.handlers[0].name])
            assert due == world.now + wait * SECOND
            world.now = due - 1
            await world.worker().drain()
            assert attempts[-1] < world.now
            world.now = due
            await world.worker().drain()
        assert [at - begin for at in attempts] == [0, 2 * SECOND, 6 * SECOND, 14 * SECOND]
        assert world.inbox.ledger().handled == 1

    async def test_a_handler_that_keeps_failing_ends_in_the_dead_letters(self, world):
        """After the last attempt the work is kept with its traceback, and no other handler notices."""
        seen = []

        @world.table.on(max_attempts=3, backoff_seconds=0)
        def fails(event):
            raise ValueError("no such device")

        @world.table.on()
        def works(event):
            seen.append(event.id)

        world.append(b"x", b"y")
        worker = world.worker()
        await worker.drain()
        assert sorted(seen) == [1, 2]
        letters = world.inbox.dead()
        assert [(d.callback_id, d.attempts) for d in letters] == [(1, 3), (2, 3)]
        assert all("ValueError: no such device" in d.error and "in fails" in d.error for d in letters)
        assert world.states() == {("fails", ""): "dead", ("works", ""): "done"}
        assert (worker.stats.done, worker.stats.failed, worker.stats.dead) == (2, 6, 2)

    @pytest.mark.parametrize("quoted", [repr, lambda raw: str(json.loads(raw)), lambda raw: raw.decode()])
    async def test_what_a_failure_quotes_has_no_password(self, world, caplog, quoted):
        """A failure that quotes a V1 callback is kept and logged with its password blanked, however it is written."""

        @world.table.on(max_attempts=1)
        def fails(event):
            raise ValueError(quoted(event.raw)) from KeyError(event.raw)

        world.append(b'{"username": "fleet", "password": "hunter\\"2", "status": "odd"}' + b" " * 9000)
        await world.worker().drain()
        (letter,) = world.inbox.dead()
        assert "hunter" not in letter.error + caplog.text
        assert "fleet" in caplog.text

    async def test_order_is_kept_per_campaign(self, world):
        """An ordered handler gets a campaign's callbacks in the order of receipt, each after the one before is done."""
        seen = []

        @world.table.on(ordered=True, backoff_seconds=0)
        async def handler(event):
            seen.append((event.campaign_id, event.id))
            await asyncio.sleep(0)
            if event.id == 1 and seen.count(("a", 1)) < 3:
                raise OSError

        for number in range(12):
            world.report({str(number): "Accepted"}, campaign_id="ab"[number % 2])
        await world.worker().drain()
        assert [number for campaign, number in seen if campaign == "a"] == [1, 1, 1, 3, 5, 7, 9, 11]
        assert [number for campaign, number in seen if campaign == "b"] == [2, 4, 6, 8, 10, 12]

    async def test_one_devices_failure_never_reruns_the_others(self, world):
        """Of a callback's devices the one that fails is tried again alone, and is given up alone."""
        runs = []

        @world.table.on_device("UpgradeFailed", max_attempts=2, backoff_seconds=0)
        def handler(event, device):
            runs.append(device.device_id)
            if device.device_id == "d2":
                raise RuntimeError("no")

        world.report({"d1": "UpgradeFailed", "d2": "UpgradedFailed", "d3": "UpgradeFailed", "d4": "UpgradeSuccess"})
        await world.worker().drain()
        assert sorted(runs) == ["d1", "d2", "d2", "d3"]
        assert world.states() == {("handler", "d1"): "done", ("handler", "d2"): "dead", ("handler", "d3"): "done"}

    @pytest.mark.parametrize(
        "error",
        [
            SystemExit(3),
            KeyboardInterrupt(),
            GeneratorExit(),
            StopIteration(1),
            asyncio.CancelledError(),
            MemoryError(),
        ],
        ids=lambda error: type(error).__name__,
    )
    @pytest.mark.parametrize("kind", ["sync", "async", "wrapped"])
    async def test_whatever_a_handler_raises_is_its_own_failure(self, world, kind, error):
        """An exception that would end a program is that handler's failure, and the worker goes on."""
        seen = []

        async def fail(event):
            raise error

        def raises(event):
            if kind == "sync":
                raise error
            return fail(event)

        world.table.on(max_attempts=1)(fail if kind == "async" else raises)
        world.table.on()(seen.append)
        world.append(b"x", b"y")
        await asyncio.wait_for(world.worker(concurrency=2).drain(), 20)
        assert len(seen) == 2
        assert len(world.inbox.dead()) == 2
        expected = "StopIteration" if isinstance(error, StopIteration) else type(error).__name__
        assert expected in world.inbox.dead()[0].error

    async def test_a_handler_whose_own_task_was_cancelled(self, world):
        """A handler that waits for a task that somebody cancelled has failed, and the worker goes on."""

        @world.table.on(max_attempts=1)
        async def handler(event):
            inner = asyncio.ensure_future(asyncio.Event().wait())
            await asyncio.sleep(0)
            inner.cancel()
            await inner

        world.append(b"x")
        await world.worker().drain()
        assert "CancelledError" in world.inbox.dead()[0].error

    async def test_errors_that_are_hard_to_write_down(self, world):
        """An exception whose text cannot be made, or cannot be stored, is recorded all the same."""

        class MuteError(Exception):
            def __str__(self):
                raise RuntimeError("not even its text")

        errors = [
            MuteError(),
            ValueError("half \ud800 a character"),
            ValueError("n\0l"),
            ValueError("long " * 10_000),
            ValueError(""),
        ]

        @world.table.on(max_attempts=1)
        def handler(event):
            raise errors[event.id - 1]

        world.append(*[bytes([n]) for n in range(len(errors))])
        await world.worker().drain()
        texts = [letter.error for letter in world.inbox.dead()]
        assert "Mute" in texts[0]
        assert "half \\ud800 a character" in texts[1]
        assert "n\0l" in texts[2]
        assert len(texts[3]) <= 8000
        assert "ValueError" in texts[4]

    async def test_failures_are_logged_without_bodies_and_with_the_next_step(self, world, caplog):
        """Each failure is one warning with the attempt; giving up is one error that names the command."""

        @world.table.on(max_attempts=2, backoff_seconds=0)
        def handler(event):
            raise ValueError("first line\nsecond line")

        world.append(b"secret body")
        with caplog.at_level(logging.INFO, "upcall.dispatch"):
            await world.worker().drain()
        levels = [(record.levelname, record.getMessage()) for record in caplog.records]
        assert [level for level, _ in levels] == ["WARNING", "ERROR"]
        assert "attempt 1 of 2" in levels[0][1]
        assert "ValueError: first line" in levels[0][1]
        assert "upcall dead list" in levels[1][1]
        assert not [text for _, text in levels if "secret" in text or "second line" in text]

    async def test_a_handler_that_ends_its_process_each_time_is_given_up(self, world):
        """Work that every worker died of is not started for ever: its starts count as attempts."""
        runs = []
        world.table.on(max_attempts=2)(runs.append)
        name = world.table.handlers[0].name
        world.append(b"poison")
        world.inbox.subscribe([name], world.now)
        world.inbox.enroll([world.table.handlers[0].subscription()], world.now)
        for _ in range(2):
            assert world.inbox.claim([name], "died", world.now, lease_seconds=1, limit=1)
            world.now += SECOND
        await world.worker().drain()
        assert runs == []
        (letter,) = world.inbox.dead()
        assert "started 2 times" in letter.error


class TestCrashes:
    async def test_a_living_worker_renews_every_fifteen_seconds(self, world):
        """A sign of life comes every 15 seconds, and the lease lasts for three of them."""
        beats, held, stop = [], asyncio.Event(), asyncio.Event()
        renew = world.inbox.renew

        def beat(ids, owner, now, **options):
            beats.append(((now - begin) // SECOND, options["lease_seconds"]))
            renew(ids, owner, now, **options)

        @world.table.on()
        async def handler(event):
            await held.wait()

        def clock():
            world.now += SECOND
            if len(beats) == 3:
                held.set()
                stop.set()
            return world.now

        begin = world.now
        world.append(b"1")
        world.inbox.renew = beat
        await asyncio.wait_for(world.worker(now=clock).run(stop), 20)
        gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(beats)]
        assert all(15 <= gap <= 20 for gap in gaps)  # the clock goes on by a second each time it is asked
        assert {lease for _, lease in beats} == {45.0}

    async def test_work_of_a_worker_that_died_is_done_after_its_lease(self, world):
        """A worker that was killed in the middle of a handler loses nothing: the handler runs again."""
        done = []
        world.table.on()(lambda event: done.append(event.id))
        world.append(b"1", b"2", b"3")
        handler = world.table.handlers[0]
        dying = world.open()
        dying.subscribe([handler.name], world.now)
        dying.enroll([handler.subscription()], world.now)
        dying.claim([handler.name], "another-host 1 aa", world.now, lease_seconds=30, limit=2)
        dying.close()
        await world.worker().drain()
        assert done == [3]
        world.now += 30 * SECOND
        await world.worker().drain()
        assert sorted(done) == [1, 2, 3]
        assert [work.attempts for n in (1, 2, 3) for work in world.inbox.work(n)] == [2, 2, 1]

    async def test_work_of_a_process_that_is_gone_is_taken_back_at_once(self, world, monkeypatch, caplog):
        """The next worker of the machine does not wait for the leases of one whose process has ended."""
        done = []
        world.table.on()(lambda event: done.append(event.id))
        handler = world.table.handlers[0]
        world.append(b"1")
        gone = new_owner()
        world.inbox.subscribe([handler.name], world.now)
        world.inbox.enroll([handler.subscription()], world.now)
        world.inbox.claim([handler.name], gone, world.now, lease_seconds=30, limit=2)
        monkeypatch.setattr("upcall.dispatch.worker.dead_owners", lambda owners: [o for o in owners if o == gone])
        with caplog.at_level(logging.INFO, "upcall.dispatch"):
            await world.worker().drain()
        assert done == [1]
        assert "took back 1 pieces of work" in caplog.text

    async def test_a_store_that_fails_while_draining_gives_its_work_back(self, world):
        """An error of the store ends a drain, is raised, and leaves the work for the next one."""
        seen = []
        world.table.on()(lambda event: seen.append(event.id))
        world.append(b"1")
        watched = Watched(world.inbox)
        watched.failures["settle"] = [StoreError("the disk is full."), StoreError("the disk is full.")]
        with pytest.raises(StoreError, match="the disk is full"):
            await world.worker(watched).drain()
        await world.worker().drain()
        assert seen == [1, 1]
        assert world.inbox.ledger().handled == 1


class TestRunning:
    async def test_callbacks_that_come_while_it_runs(self, world):
        """A running worker sees what another process appends, and ends when it is told to."""
        seen, stop = [], asyncio.Event()

        @world.table.on()
        async def handler(event):
            seen.append(event.id)
            if event.id == 3:
                stop.set()
            else:
                world.append(bytes([event.id]))

        world.append(b"first")
        await asyncio.wait_for(world.worker(world.open()).run(stop), 20)
        assert seen == [1, 2, 3]
        assert world.inbox.ledger().handled == 3

    async def test_stop_gives_a_slow_handlers_work_back(self, world):
        """A handler that does not end within the grace is interrupted, and its work is anybody's at once."""
        seen, stop = [], asyncio.Event()
        world.table.on()(refuse_to_end(seen))
        world.append(b"1")
        watched = Watched(world.inbox)
        watched.hooks["claim"] = lambda: seen and stop.set()
        await asyncio.wait_for(world.worker(watched).run(stop, grace_seconds=0.01), 20)
        assert seen == [1]
        assert world.inbox.owners() == []
        assert world.inbox.next_due([world.table.handlers[0].name]) == world.now

    async def test_stop_gives_a_blocked_threads_work_back(self, world):
        """A handler that blocks its thread does not hold up the end, and its late end is not recorded."""
        stop, release, ended = asyncio.Event(), threading.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        @world.table.on()
        def handler(event):
            loop.call_soon_threadsafe(stop.set)
            release.wait(20)
            ended.set()

        world.append(b"1")
        await asyncio.wait_for(world.worker().run(stop, grace_seconds=0.01), 20)
        assert not ended.is_set()
        assert world.states() == {("handler", ""): "pending"}
        release.set()
        assert ended.wait(20)
        await asyncio.sleep(0)
        assert world.states() == {("handler", ""): "pending"}

    async def test_stop_lets_running_handlers_finish(self, world):
        """A handler that ends within the grace is recorded as done, and no new one is started."""
        seen, stop = [], asyncio.Event()

        @world.table.on()
        async def handler(event):
            seen.append(event.id)
            stop.set()
            for _ in range(5):
                await asyncio.sleep(0)

        world.append(b"1", b"2")
        await asyncio.wait_for(world.worker(concurrency=1).run(stop), 20)
        assert seen == [1]
        assert world.inbox.callback(1).state == "done"
        assert world.inbox.callback(2).state == "pending"

    async def test_a_cancelled_worker_gives_its_work_back(self, world):
        """A worker whose task is cancelled leaves no lease behind."""
        seen = []
        started = asyncio.Event()
        world.table.on()(refuse_to_end(seen))
        world.append(b"1")
        watched = Watched(world.inbox)
        watched.hooks["enroll"] = lambda: seen and started.set()
        running = asyncio.ensure_future(world.worker(watched).run(asyncio.Event()))
        await asyncio.wait_for(started.wait(), 20)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert world.inbox.owners() == []

    @pytest.mark.parametrize("step", ["subscribe", "owners", "enroll", "claim", "settle", "release"])
    async def test_a_store_that_fails_for_a_while(self, world, step, caplog):
        """A store that fails while the worker runs is tried again: nothing is lost, and the log says it once."""
        seen, stop = [], asyncio.Event()
        world.table.on()(lambda event: seen.append(event.id))
        world.append(b"1", b"2")
        watched = Watched(world.inbox)
        watched.failures[step] = [StoreError("locked by another process.") for _ in range(3)]
        watched.hooks["settle"] = lambda: world.inbox.ledger().handled == 2 and stop.set()
        await asyncio.wait_for(world.worker(watched).run(stop), 20)
        assert world.inbox.ledger().handled == 2
        assert set(seen) == {1, 2}
        complaints = [record for record in caplog.records if "locked by another process" in record.getMessage()]
        assert len(complaints) == (0 if step == "release" else 1)

    async def test_a_store_that_fails_is_not_asked_without_a_pause(self, world):
        """While what has ended cannot be recorded the worker waits between its tries."""
        stop = asyncio.Event()
        world.table.on()(lambda event: None)
        world.append(b"1")
        watched = Watched(world.inbox)
        watched.failures["settle"] = [StoreError("the disk is full.") for _ in range(5)]
        pauses = []
        real_wait = asyncio.wait

        async def wait(tasks, **options):
            pauses.append((any(task.done() for task in tasks), options["timeout"]))
            return await real_wait(tasks, **options)

        watched.hooks["settle"] = stop.set
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "wait", wait)
            await real_wait([asyncio.ensure_future(world.worker(watched).run(stop))], timeout=80)
        assert world.inbox.ledger().handled == 1
        assert not [timeout for has_ended, timeout in pauses if has_ended]
        assert sum(timeout > 0 for _, timeout in pauses) >= 5

    async def test_leases_of_running_handlers_are_renewed(self, world):
        """A handler that takes longer than the lease keeps its work, while running and while draining."""
        renewed = asyncio.Event()
        seen = []

        @world.table.on()
        async def handler(event):
            seen.append(event.id)
            world.now += 10 * SECOND  # far past the lease
            await renewed.wait()

        world.append(b"1")
        watched = Watched(world.inbox)
        watched.hooks["renew"] = renewed.set
        await asyncio.wait_for(world.worker(watched, lease_seconds=0.02).drain(), 20)
        assert "renew" in watched.calls
        assert seen == [1]
        assert world.inbox.work(1)[0].attempts == 1

    async def test_a_worker_does_not_run_its_own_work_twice_at_once(self, world):
        """A worker whose own leases ran out, its loop having been blocked, does not start that work again."""
        seen, stop = [], asyncio.Event()
        world.table.on()(refuse_to_end(seen))
        world.append(b"1")
        watched = Watched(world.inbox)

        def pass_the_time():
            world.now += 60 * SECOND
            if watched.calls.count("claim") > 5:
                stop.set()

        watched.hooks["claim"] = pass_the_time
        await asyncio.wait_for(world.worker(watched).run(stop, grace_seconds=0), 20)
        assert seen == [1]

    async def test_a_worker_can_drain_again(self, world):
        """One worker drains as often as it is asked to."""
        seen = []
        world.table.on()(lambda event: seen.append(event.id))
        worker = world.worker()
        for number in range(3):
            world.append(bytes([number]))
            await worker.drain()
        assert seen == [1, 2, 3]

    async def test_two_workers_share_the_work(self, world):
        """Two workers on one store run each callback once between them."""
        seen = []
        stop = asyncio.Event()

        @world.table.on()
        async def handler(event):
            seen.append(event.id)
            await asyncio.sleep(0)
            if len(seen) == 40:
                stop.set()

        world.append(*[bytes([n]) for n in range(40)])
        workers = [world.worker(world.open(), concurrency=3) for _ in range(2)]
        await asyncio.wait_for(asyncio.gather(*(worker.run(stop) for worker in workers)), 20)
        assert sorted(seen) == list(range(1, 41))
        assert sum(worker.stats.done for worker in workers) == 40
        assert all(worker.stats.done for worker in workers)

    async def test_the_clock_and_the_luck_are_the_worlds_by_default(self, world):
        """Without a clock given, a worker keeps the wall clock's time."""
        seen = []
        world.table.on(max_attempts=2, backoff_seconds=0)(lambda event: seen.append(1 / 0))
        world.append(b"1")
        await Worker(world.inbox, world.table.handlers).drain()
        assert len(world.inbox.dead()) == 1
