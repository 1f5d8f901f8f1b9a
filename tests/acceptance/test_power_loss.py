"""After a power cut at any moment, what was acknowledged by then is there: in the store, or in the spool for it.

A kill cannot show that: what a killed process wrote is still in the kernel's memory. So a listener runs under
tests/power/powerlog.c, which logs what it writes, syncs and answers, and tests/power/disk.py makes of each beginning of
that log what the disk would hold if nothing was kept that was not synced, or only some of it, in torn sectors.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import random
import re
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path

import pytest

from upcall.inbox import open_inbox
from upcall.inbox.spool import Spool

POWER = Path(__file__).parents[1] / "power"
MARKER = re.compile(rb"marker-(\d+)!")
GENERATIONS = 3
CUTS = 12
"""In each generation, besides its end: at random places of its log."""

_spec = importlib.util.spec_from_file_location("power_disk", POWER / "disk.py")
disk = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(disk)


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """Return the compiled logger."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not here: apt-get install gcc libc6-dev")
    target = tmp_path_factory.mktemp("power") / "powerlog.so"
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *options, "-o", target, POWER / "powerlog.c", "-ldl", "-pthread"], check=True)
    return target


class Machine:
    """Run listeners on a disk, one after the other, and cut the power.

    Args:
        upcall: The place whose directory is the disk.
        shim: The logger.
        scratch: Where logs, and what cuts leave, go.
    """

    def __init__(self, upcall, shim, scratch):
        self.upcall = upcall
        self.directory = upcall.directory
        self.acknowledged = []
        self.luck = random.Random(3)
        self.failure = scratch / "fail"
        self._shim = shim
        self._scratch = scratch
        self._numbers = itertools.count()

    def listen(self, *words, **options):
        return self.upcall.listen(*words, wrapper=self.watch(), **options)

    def watch(self):
        """Begin a log, and return the wrapper that writes it."""
        self.log = self._scratch / f"log-{next(self._numbers)}"
        self.disk = disk.Disk(self.directory)
        self.traffic = disk.Traffic(MARKER)
        settings = {"DIR": self.directory, "LOG": self.log, "FAIL": self.failure}
        return ["env", f"LD_PRELOAD={self._shim}", *(f"POWER_{name}={value}" for name, value in settings.items())]

    def cuts(self, count):
        """Replay the log of the listener that ended up to several moments; give what was lost at each of them."""
        records = disk.read_log(self.log)
        # While the first answers leave, and anywhere: most of a log is the making of the store.
        first = next((place for place, record in enumerate(records) if record.operation == "A"), 0)
        places = sorted(self.luck.sample(range(first, len(records) + 1), count))
        for before, place in itertools.pairwise([0, *places, len(records)]):
            self.disk.follow(records[before:place])
            self.traffic.follow(records[before:place])
            for luck in (None, self.luck):
                yield self.lost(luck)
        self.acknowledged += self.traffic.acknowledged

    def lost(self, luck):
        """Return which of the acknowledged markers neither store nor spool holds after a cut now."""
        return {*self.acknowledged, *self.traffic.acknowledged} - self.kept(luck)

    def kept(self, luck=None):
        """Return the markers that store and spool hold after a cut now."""
        left = self._scratch / f"cut-{next(self._numbers)}"
        self.disk.lay_out(left, luck)
        kept = recovered(left)
        shutil.rmtree(left)
        return kept

    def restart(self):
        """Have the disk hold what the cut at the log's end left on it."""
        shutil.rmtree(self.directory)
        self.disk.lay_out(self.directory, self.luck)


def recovered(directory):
    """Return the markers in a store, once its spool was imported as the listener does it."""
    with (
        open_inbox(str(directory / "inbox.db"), create=True) as inbox,
        contextlib.closing(inbox.appender()) as appender,
    ):
        for place in directory.glob("state/spool/*"):
            import_all(Spool(place), appender)
        assert inbox.check() == []
        return {MARKER.search(record.body)[1] for record in inbox.callbacks()}


def import_all(spool, appender):
    for segment in spool.segments():
        offset, is_end = appender.marked(segment.name), False
        while not is_end:
            arrivals, offset, is_end = segment.read(offset, max_records=100, max_bytes=1 << 20)
            if arrivals:
                appender.stage(arrivals, mark=(segment.name, offset))
                appender.commit()
        segment.remove()
        appender.unmark(segment.name)
    spool.close()


@pytest.fixture
def machine(upcall, shim, tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    inner = type(upcall)(place)
    with tempfile.TemporaryDirectory() as scratch:  # not in the test's own: a log holds what senders sent, tokens too
        yield Machine(inner, shim, Path(scratch))
        for server in inner.servers:
            server.close()


class Load:
    """Give marked bodies until stopped, each number once."""

    def __init__(self):
        self._numbers = itertools.count()
        self._is_stopped = False

    def __iter__(self):
        self._is_stopped = False
        for number in self._numbers:
            yield b'{"type": "marker-%d!", "padding": "%s"}' % (
                number,
                b"x" * (6000 if number % 20 == 0 else number % 300),
            )
            if self._is_stopped:
                return

    def stop(self):
        self._is_stopped = True


@contextlib.contextmanager
def store_locked(path):
    """Keep the listener from writing to its store."""
    with contextlib.closing(sqlite3.connect(path, timeout=100, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.rollback()


async def test_power_cuts_lose_nothing_that_was_acknowledged(machine, sender):
    """Cuts while it stores: each acknowledged callback is in the store, also after several cuts in a row."""
    load = Load()
    for _ in range(GENERATIONS):
        listener = machine.listen()
        running = sender(listener.port, connections=8)
        sending = asyncio.ensure_future(running.send(load))
        await running.reaches(machine.luck.randrange(100, 300))
        listener.kill()
        load.stop()
        await sending
        lost = list(await asyncio.to_thread(lambda: list(machine.cuts(CUTS))))
        assert list(map(len, lost)) == [0] * len(lost)
        assert len(lost) >= 2 * CUTS
        assert len(machine.traffic.acknowledged) >= 100
        assert {MARKER.search(body)[1] for body in running.acknowledged} <= set(machine.traffic.acknowledged)
        machine.restart()


async def test_power_cuts_lose_nothing_that_the_spool_took(machine, sender):
    """Cuts while the store is locked, while it is free again and the spool is imported: store and spool have all."""
    load = Load()
    for generation in range(GENERATIONS):
        listener = machine.listen()
        running = sender(listener.port, connections=8)
        sending = asyncio.ensure_future(running.send(load))
        await running.reaches(30)
        with store_locked(machine.upcall.path):
            await running.reaches(len(running.acknowledged) + 150)
            if generation == 1:
                listener.kill()
        if generation != 1:
            await running.reaches(len(running.acknowledged) + machine.luck.randrange(1, 200))
            listener.kill()
        load.stop()
        await sending
        assert any(b"UPCSPOOL" in record.data for record in disk.read_log(machine.log))
        lost = list(await asyncio.to_thread(lambda: list(machine.cuts(CUTS))))
        assert list(map(len, lost)) == [0] * len(lost)
        machine.restart()


CARELESS = """
import os, sqlite3, sys, threading, time
from pathlib import Path
from upcall.cli.main import run

def commit(path, failure):
    connection = sqlite3.connect(path, timeout=100, isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")
    while True:
        while not failure.with_suffix(".now").exists():
            time.sleep(0.001)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT OR REPLACE INTO cursors (name, position) VALUES ('careless', random())")
        failure.with_suffix(".now").rename(failure)
        connection.execute("COMMIT")

path = sys.argv[sys.argv.index("--store") + 1].removeprefix("sqlite:///")
threading.Thread(target=commit, args=[path, Path(os.environ["POWER_FAIL"])], daemon=True).start()
sys.exit(run())
"""
"""A listener beside which somebody commits as a worker does, without an fsync; the next fsync, when told so, fails."""


async def test_power_cuts_lose_nothing_after_an_fsync_that_failed(machine, sender):
    """What others committed is not on disk, and never will be: what is acknowledged afterwards lasts all the same."""
    listener = machine.listen(program=("-c", CARELESS))
    running = sender(listener.port, connections=4)
    load = Load()
    sending = asyncio.ensure_future(running.send(load))
    await running.reaches(50)
    machine.failure.with_suffix(".now").touch()
    await asyncio.to_thread(machine.upcall.until, lambda: "takes callbacks again" in listener.errors.read_text())
    await running.reaches(len(running.acknowledged) + 100)
    listener.kill()
    load.stop()
    await sending
    assert running.refused == []
    lost = list(await asyncio.to_thread(lambda: list(machine.cuts(CUTS))))
    assert list(map(len, lost)) == [0] * len(lost)


FAILING = """
import os, signal, sys
from pathlib import Path
from upcall.errors import StoreError
from upcall.inbox import Arrival, open_inbox
from upcall.inbox.sqlite import append

inbox = open_inbox(sys.argv[1], create=True, relaxed=True)

def keep(number):
    appender = inbox.appender()
    try:
        appender.stage([Arrival(body=b"marker-%d!" % number, received_at=number)])
        appender.commit()
    except StoreError:
        return False
    finally:
        appender.close()
    return True

kept = [keep(0)]
inbox.subscribe(["worker"], 1)
Path(sys.argv[2]).touch()
print([*kept, keep(1), keep(2)], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
"""Commit what is synced, what is not, what cannot be synced, and once more what is."""
TRUSTING = "\nappend.write_again = lambda path: None\n"


@pytest.mark.parametrize(("sabotage", "kept"), [("", {b"0", b"2"}), (TRUSTING, {b"0"})], ids=["mended", "trusting"])
def test_a_log_with_a_hole_is_written_again(machine, sabotage, kept):
    """A commit behind what a failed fsync left out is there after a cut, and the store is sound after a cut anywhere.

    A store that is trusted at once has lost it.
    """
    program = FAILING.replace("append\n", f"append\n{sabotage}", 1)
    run = machine.upcall.start(
        str(machine.upcall.path), str(machine.failure), program=("-c", program), wrapper=machine.watch()
    )
    assert run.next_line() == "[True, False, True]\n"
    run.wait()
    records = disk.read_log(machine.log)
    failed = next(place for place, record in enumerate(records) if record.operation == "F")
    machine.disk.follow(records[:failed])
    for place in range(failed, len(records)):
        machine.disk.follow(records[place : place + 1])
        assert machine.kept() >= {b"0"}
    assert machine.kept() == kept


UNSAFE_STORE = """
from upcall.inbox.sqlite import append

durable = append.connect

def careless(*arguments, **options):
    connection = durable(*arguments, **options)
    connection.execute("PRAGMA synchronous = OFF")
    return connection

append.connect = careless
"""
UNSAFE_SPOOL = """
from upcall.inbox import segment

segment.sync_file = lambda descriptor: None
"""
UNSAFE_NAME = """
from upcall.inbox import durable, segment

segment.sync_directory = durable.sync_directory = lambda directory: None
"""
RUN = "\nimport sys\nfrom upcall.cli.main import run\nsys.exit(run())\n"


@pytest.mark.parametrize("sabotage", [UNSAFE_STORE, UNSAFE_SPOOL, UNSAFE_NAME], ids=["store", "spool", "name"])
async def test_a_listener_that_does_not_sync_is_caught(machine, sender, sabotage):
    """The same cuts, where the store, the spool's records or its files' names are not synced, show losses."""
    listener = machine.listen(program=("-c", sabotage + RUN))
    running = sender(listener.port, connections=4)
    lock = contextlib.nullcontext() if sabotage == UNSAFE_STORE else store_locked(machine.upcall.path)
    with lock:
        await running.send(itertools.islice(Load(), 60))
    assert len(running.acknowledged) == 60
    listener.kill()
    lost = list(await asyncio.to_thread(lambda: list(machine.cuts(CUTS))))
    assert max(map(len, lost)) > 10
