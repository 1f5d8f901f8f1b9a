"""The state file."""

import asyncio
import sqlite3

import pytest

from upcall.errors import StartError
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

    def full(batch):
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
