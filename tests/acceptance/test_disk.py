"""Disks that are full, read-only or gone: what the listener does then, and that it loses nothing it acknowledged."""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import httpx2
import pytest

from upcall.inbox.spool import spooled


def body(serial, size=700):
    return b'{"type": "upgradeProgress", "serial": %d, "padding": "%s"}' % (serial, b"x" * size)


def stored(path):
    """Return the serials in a store, in the order of its numbers."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return [
            json.loads(found)["serial"] for (found,) in connection.execute("SELECT body FROM callbacks ORDER BY id")
        ]


class Line:
    """Send one callback after the other, and note which were acknowledged, and how the others were answered."""

    def __init__(self):
        self.acknowledged = []
        self.refused = []
        self._serials = itertools.count()
        self._client = httpx2.Client()

    def send(self, url, count=1, *, size=700):
        for serial in itertools.islice(self._serials, count):
            answer = self._client.post(url, content=body(serial, size))
            if answer.status_code == 200:
                self.acknowledged.append(serial)
            else:
                self.refused.append(answer)

    def close(self):
        self._client.close()

    def until(self, url, condition, *, size=700, limit=3000):
        """Send until something holds; fail where it never does."""
        for _ in range(limit):
            if condition():
                return
            self.send(url, size=size)
        pytest.fail(f"not after {limit} callbacks")


@pytest.fixture
def line():
    with contextlib.closing(Line()) as line:
        yield line


@pytest.fixture
def small_disk(tmp_path):
    """Return a function that mounts a disk of so many KiB, with a file on it that can be removed to make room."""
    mounted = []

    def mount(name, kib):
        place = tmp_path / name
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=700", "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("no small disk can be mounted here: that takes root")
        mounted.append(place)
        (place / "ballast").write_bytes(bytes(kib * 1024 // 2))
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def spool(tmp_path):
    return tmp_path / "spool"


def records(spool):
    return sum(info.records for info in spooled(spool))


def lay(upcall, path):
    """Have the commands use another store."""
    upcall.path, upcall.store = path, f"sqlite:///{path}"


def test_a_full_disk_stops_nobody(upcall, small_disk, spool, line):
    """Callbacks go to the spool while the store's disk is full, and into the store, in order and once, when it is not.

    No restart: room is made, and the listener finds it.
    """
    disk = small_disk("disk", 2048)
    lay(upcall, disk / "inbox.db")
    listener = upcall.listen("--spool", str(spool))
    line.until(listener.url, lambda: records(spool) > 20, size=4000)
    (disk / "ballast").unlink()
    upcall.until(lambda: records(spool) == 0)
    line.send(listener.url, 5)
    assert listener.end() == 0
    assert line.refused == []
    assert stored(upcall.path) == line.acknowledged
    errors = listener.errors.read_text()
    assert "full" in errors
    assert "Traceback" not in errors


LIMITED = """
import sys
from pathlib import Path
from upcall.inbox.sqlite import append

connect = append.connect

def limited(path, **options):
    connection = connect(path, **options)
    connection.execute(f"PRAGMA max_page_count = {Path(path).with_name('pages').read_text()}")
    return connection

append.connect = limited
from upcall.cli.main import run
sys.exit(run())
"""
"""A listener whose store may have so many pages as a file says when it opens the store: a full disk, without one."""


def test_a_full_store_stops_nobody(upcall, spool, line):
    """The same where nothing can be mounted: SQLite refuses another page."""
    pages = upcall.directory / "pages"
    pages.write_text("60")
    listener = upcall.listen("--spool", str(spool), program=("-c", LIMITED))
    line.until(listener.url, lambda: records(spool) > 20)
    pages.write_text("1000000")
    upcall.until(lambda: records(spool) == 0)
    line.send(listener.url, 5)
    assert listener.end() == 0
    assert line.refused == []
    assert stored(upcall.path) == line.acknowledged


def test_two_full_disks_are_said(upcall, small_disk, line):
    """Where neither store nor spool has room: 503, when to come again, and nothing that was acknowledged is lost."""
    disk, other = small_disk("disk", 1024), small_disk("other", 256)
    lay(upcall, disk / "inbox.db")
    listener = upcall.listen("--spool", str(other / "spool"))
    line.until(listener.url, lambda: len(line.refused) >= 3, size=4000)
    assert {answer.status_code for answer in line.refused} == {503}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in line.refused)
    (other / "ballast").unlink()
    (disk / "ballast").unlink()
    before = len(line.refused)
    upcall.until(lambda: records(other / "spool") == 0)
    line.send(listener.url, 5)
    upcall.until(lambda: records(other / "spool") == 0)
    assert listener.end() == 0
    assert len(line.refused) == before
    assert stored(upcall.path) == line.acknowledged


def test_a_killed_listener_on_full_disks_has_kept_what_it_acknowledged(upcall, small_disk, line):
    """What the spool took is there for the next process, whatever was cut off when its disk filled up."""
    disk, other = small_disk("disk", 1024), small_disk("other", 256)
    lay(upcall, disk / "inbox.db")
    listener = upcall.listen("--spool", str(other / "spool"))
    line.until(listener.url, lambda: len(line.refused) >= 3, size=4000)
    listener.kill()
    (other / "ballast").unlink()
    (disk / "ballast").unlink()
    listener = upcall.listen("--spool", str(other / "spool"))
    upcall.until(lambda: records(other / "spool") == 0)
    assert listener.end() == 0
    assert set(stored(upcall.path)) >= set(line.acknowledged)


def unprivileged():
    """Return a wrapper in which permissions count; skip where the superuser cannot give up its power over them."""
    if os.geteuid():
        return ()
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if shutil.which("setpriv") is None or subprocess.run([*drop, "true"], check=False, capture_output=True).returncode:
        pytest.skip("setpriv is not here: no permission stops the superuser")
    return drop


@contextlib.contextmanager
def read_only(*places):
    for place in places:
        place.chmod(0o500 if place.is_dir() else 0o400)
    try:
        yield
    finally:
        for place in places:
            place.chmod(0o700 if place.is_dir() else 0o600)


def test_a_store_that_becomes_read_only_is_said_at_the_next_start(upcall, line, tmp_path):
    """A running listener, which has its files open, goes on; one that starts says what is wrong."""
    wrapper = unprivileged()
    place = tmp_path / "store"
    place.mkdir()
    lay(upcall, place / "inbox.db")
    listener = upcall.listen(wrapper=wrapper)
    line.send(listener.url, 3)
    with read_only(place, *place.iterdir()):
        line.send(listener.url, 3)
        listener.kill()
        again = upcall.start("listen", "--port", "0", "--store", upcall.store, wrapper=wrapper)
        assert again.wait() == 3
        (message,) = again.errors.read_text().splitlines()
        assert str(upcall.path) in message
    assert line.refused == []
    assert stored(upcall.path) == line.acknowledged == [0, 1, 2, 3, 4, 5]


def test_a_spool_that_is_read_only_too_is_said(upcall, line, spool):
    """A locked store beside a spool that takes nothing: 503 with Retry-After, and the store's return ends it."""
    wrapper = unprivileged()
    spool.mkdir()
    listener = upcall.listen("--spool", str(spool), wrapper=wrapper)
    line.send(listener.url, 2)
    with read_only(spool), locked(upcall.path):
        line.send(listener.url)
    (refused,) = line.refused
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    line.until(listener.url, lambda: len(line.acknowledged) >= 4)
    upcall.until(lambda: records(spool) == 0)
    assert listener.end() == 0
    assert stored(upcall.path) == line.acknowledged


@contextlib.contextmanager
def locked(path):
    """Keep everybody else from writing to a store."""
    with contextlib.closing(sqlite3.connect(path, timeout=100, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.rollback()


def move(path, target):
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").rename(f"{target}{suffix}")


def test_a_store_that_is_taken_away_and_put_back(upcall, line, spool, tmp_path):
    """The spool stands in while the store's files are gone; nothing is missing once they are back."""
    listener = upcall.listen("--spool", str(spool))
    line.send(listener.url, 5)
    move(upcall.path, tmp_path / "away")
    line.send(listener.url, 5)
    assert records(spool) == 5
    assert not upcall.path.exists()
    move(tmp_path / "away", upcall.path)
    upcall.until(lambda: records(spool) == 0)
    line.send(listener.url, 5)
    assert listener.end() == 0
    assert line.refused == []
    assert stored(upcall.path) == line.acknowledged == list(range(15))


def test_a_store_that_is_deleted(upcall, line, spool):
    """What is acknowledged after the deletion is in the spool, and in the new store of the listener's next start."""
    listener = upcall.listen("--spool", str(spool))
    line.send(listener.url, 5)
    for path in upcall.path.parent.glob(f"{upcall.path.name}*"):
        path.unlink()
    line.send(listener.url, 5)
    listener.end()
    assert not upcall.path.exists()
    assert records(spool) == 5
    listener = upcall.listen("--spool", str(spool))
    upcall.until(lambda: records(spool) == 0)
    line.send(listener.url)
    assert listener.end() == 0
    assert line.refused == []
    assert stored(upcall.path) == line.acknowledged[5:]


async def test_two_listeners_share_a_store_and_a_spool(upcall, sender, spool):
    """Both store; while the store is locked both spool; and what one leaves that is killed, the other imports."""
    first, second = (upcall.listen("--spool", str(spool)) for _ in range(2))
    runs = [sender(listener.port, connections=4) for listener in (first, second)]

    async def send(begin):
        starts = range(begin, begin + 100 * len(runs), 100)
        await asyncio.gather(
            *(run.send(map(body, range(start, start + 100))) for run, start in zip(runs, starts, strict=True))
        )

    await send(0)
    with locked(upcall.path):
        await send(1000)
        assert len(spooled(spool)) == 2
        first.kill()
    await asyncio.to_thread(upcall.until, lambda: records(spool) == 0)
    runs = runs[1:]
    await send(2000)
    assert await asyncio.to_thread(second.end) == 0
    kept = stored(upcall.path)
    assert sorted(kept) == [*range(200), *range(1000, 1200), *range(2000, 2100)]


async def test_a_spool_is_imported_while_callbacks_keep_coming(upcall, sender, spool):
    """Under load the listener comes back to its store: the spool runs empty although requests never pause."""
    listener = upcall.listen("--spool", str(spool))
    running = sender(listener.port, connections=8)
    stopping = False

    def until_stopped():
        for serial in itertools.count():
            if stopping:
                return
            yield body(serial)

    sending = asyncio.ensure_future(running.send(until_stopped()))
    await running.reaches(50)
    with locked(upcall.path):
        await running.reaches(len(running.acknowledged) + 300)
        assert records(spool) > 100
    await asyncio.to_thread(upcall.until, lambda: "takes callbacks again" in listener.errors.read_text(), 10)
    await running.reaches(len(running.acknowledged) + 50)
    assert records(spool) == 0
    stopping = True
    await sending
    assert await asyncio.to_thread(listener.end, signal.SIGTERM) == 0
    kept = stored(upcall.path)
    assert len(kept) == len(set(kept)) == len(running.acknowledged)
    assert running.refused == []
