"""The state file."""

import asyncio
import sqlite3
import threading

import pytest

from upcall.errors import StartError, StoreError
from upcall.sandbox.ledger import Ledger
from upcall.sandbox.messages import Callback
from upcall.sandbox.persistence import StateFile


async def test_kept_and_forgotten(tmp_path):
    """What was flushed is there after a restart, what was forgotten is not."""
    path = tmp_path / "state"
    store = StateFile(path)
    store.put("a", "1", b"one")
    store.put("a", "2", b"two")
    await store.flush()
    store.put("a", "1", None)
    store.put("b", "1", b"x")
    store.put("b", "1", b"y")
    await store.close()
    again = StateFile(path)
    assert again.load() == {"a": {"2": b"two"}, "b": {"1": b"y"}}
    await again.close()


async def test_flushes_share_a_transaction(tmp_path):
    """Callers that flush together all find their values kept."""
    store = StateFile(tmp_path / "state")

    async def keep(number):
        store.put("n", str(number), b"v")
        await store.flush()

    await asyncio.gather(*(keep(number) for number in range(200)))
    assert len(store.load()["n"]) == 200
    await store.close()


async def test_failed_write_is_not_forgotten(tmp_path, monkeypatch):
    """A flush that fails says so, and the next one writes what it could not."""
    store = StateFile(tmp_path / "state")
    store.put("a", "1", b"one")
    write = store._write

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store, "_write", full)
    with pytest.raises(sqlite3.OperationalError):
        await store.flush()
    monkeypatch.setattr(store, "_write", write)
    await store.flush()
    assert store.load() == {"a": {"1": b"one"}}
    await store.close()


async def test_one_sandbox_a_file(tmp_path):
    """A second sandbox on the same file is refused: it would send every callback twice."""
    store = StateFile(tmp_path / "state")
    with pytest.raises(StartError, match="another sandbox has it open"):
        StateFile(tmp_path / "state")
    await store.close()


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be read as one" * 20, None])
def test_other_files_are_refused(tmp_path, content):
    """A file that is something else is refused and left as it was."""
    path = tmp_path / "state"
    if content is None:
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE mine (x)")
        other.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(StartError, match="cannot be used"):
        StateFile(path)
    assert path.read_bytes() == before


def test_newer_files_are_refused(tmp_path):
    """A file that a newer version wrote is refused by its version."""
    path = tmp_path / "state"
    connection = StateFile(path)._connection
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StartError, match="newer"):
        StateFile(path)


def test_unreachable_path(tmp_path):
    """A path that cannot be opened is one clear line."""
    with pytest.raises(StartError, match="cannot be used"):
        StateFile(tmp_path / "missing" / "state")


async def test_ledger_goes_on_where_it_was(tmp_path):
    """Callbacks that may still be sent come back with their bytes; the bodies of the others are let go."""
    store = StateFile(tmp_path / "state")
    ledger = Ledger(store)
    done, pending = (ledger.add(Callback("a", "upgradeProgress", "c", body), 1.0) for body in (b"done", b"pending"))
    done.state, done.next_at = "acknowledged", None
    ledger.keep(done)
    await store.close()
    again = StateFile(tmp_path / "state")
    saved = again.load()
    assert list(saved["body"]) == ["2"]
    restored = Ledger(again, saved)
    assert [message.id for message in restored.unfinished()] == [2]
    assert restored.body(restored.unfinished()[0]) == b"pending"
    assert restored.add(Callback("a", "upgradeProgress", "c", b"x"), 2.0).id == 3
    assert pending.sha256 == restored.unfinished()[0].sha256
    await again.close()


class Slow:
    """Hold the writes of a state file back until told; note how many were begun."""

    def __init__(self, store):
        self._write, self.begun, self.go = store._write, threading.Semaphore(0), threading.Event()
        self.count = 0
        store._write = self

    def __call__(self, *arguments):
        self.count += 1
        self.begun.release()
        assert self.go.wait(20)
        self._write(*arguments)

    async def has_begun(self):
        await asyncio.to_thread(self.begun.acquire)


async def test_who_gives_up_waiting_does_not_end_the_write(tmp_path):
    """A flush whose caller is cancelled goes on; the next one neither writes beside it nor forgets what it wrote."""
    store = StateFile(tmp_path / "state")
    slow = Slow(store)
    store.put("a", "1", b"one")
    flushing = asyncio.ensure_future(store.flush())
    await slow.has_begun()
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    store.put("a", "2", b"two")
    second = asyncio.ensure_future(store.flush())
    await asyncio.sleep(0)
    assert slow.count == 1
    slow.go.set()
    await second
    assert store.load() == {"a": {"1": b"one", "2": b"two"}}
    await store.close()


async def test_what_was_cleared_does_not_come_back(tmp_path):
    """A write that is under way when everything is forgotten is forgotten with it."""
    store = StateFile(tmp_path / "state")
    slow = Slow(store)
    store.put("a", "old", b"old")
    flushing = asyncio.ensure_future(store.flush())
    await slow.has_begun()
    store.clear()
    store.put("a", "new", b"new")
    slow.go.set()
    await asyncio.gather(flushing, store.flush())
    assert store.load() == {"a": {"new": b"new"}}
    await store.close()


async def test_a_failed_write_does_not_undo_a_clearing(tmp_path, monkeypatch):
    """What could not be written before everything was forgotten is not written afterwards."""
    store = StateFile(tmp_path / "state")
    write = store._write
    begun, go = threading.Event(), threading.Event()

    def fail(*_):
        begun.set()
        assert go.wait(20)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store, "_write", fail)
    store.put("a", "old", b"old")
    flushing = asyncio.ensure_future(store.flush())
    await asyncio.to_thread(begun.wait)
    store.clear()
    go.set()
    await asyncio.gather(flushing, return_exceptions=True)
    monkeypatch.setattr(store, "_write", write)
    await store.flush()
    assert store.load() == {}
    await store.close()


async def test_a_failure_is_shared(tmp_path, monkeypatch):
    """A full disk costs those who wait together one write, not one each."""
    store = StateFile(tmp_path / "state")
    tries = []

    def full(*_):
        tries.append(1)
        raise sqlite3.OperationalError("database or disk is full")

    write = store._write
    monkeypatch.setattr(store, "_write", full)
    store.put("a", "1", b"one")
    failures = await asyncio.gather(*(store.flush() for _ in range(50)), return_exceptions=True)
    assert {type(failure) for failure in failures} == {sqlite3.OperationalError}
    assert len(tries) == 1
    monkeypatch.setattr(store, "_write", write)
    await store.close()


async def test_a_flush_up_to_a_put_does_not_wait_for_later_ones(tmp_path):
    """Who waits for what is kept already does not wait for what was put since."""
    store = StateFile(tmp_path / "state")
    number = store.put("a", "1", b"one")
    await store.flush()
    slow = Slow(store)
    store.put("a", "2", b"two")
    await store.flush(number)
    assert slow.count == 0
    slow.go.set()
    await store.close()


async def test_closing_on_a_full_disk_says_what_is_lost(tmp_path, monkeypatch):
    """A sandbox that cannot keep its last changes says so, with the file, and lets go of it all the same."""
    store = StateFile(tmp_path / "state")

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store, "_write", full)
    store.put("a", "1", b"one")
    with pytest.raises(StoreError, match=r"/state could not be written: database or disk is full\. What changed last"):
        await store.close()
    again = StateFile(tmp_path / "state")
    assert again.load() == {}
    await again.close()
