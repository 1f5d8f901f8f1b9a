"""Backups and what is put back from them: whole, private, of one moment, and never over anything."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading

import pytest

from upcall.errors import StoreError, StoreUnreadableError, UpcallError
from upcall.inbox import Arrival, open_inbox, restore_store
from upcall.inbox.sqlite import copies


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "inbox.db")


@pytest.fixture
def inbox(store):
    with open_inbox(store, create=True) as opened:
        opened.append([Arrival(body=b"kept %d" % n, received_at=n) for n in range(100)])
        yield opened


@pytest.fixture
def copy(inbox, tmp_path):
    inbox.backup(tmp_path / "copy.db")
    return tmp_path / "copy.db"


def bodies(url):
    with open_inbox(str(url)) as opened:
        return [record.body for record in opened.callbacks()]


def names(directory):
    return sorted(file.name for file in directory.iterdir())


def test_a_copy_is_one_private_file(inbox, copy, tmp_path):
    """A copy is a single file that nobody else may read, and that can be opened as a store."""
    assert names(tmp_path) == ["copy.db", "inbox.db", "inbox.db-shm", "inbox.db-wal"]
    assert copy.stat().st_mode & 0o777 == 0o600
    assert copy.read_bytes()[18:20] == b"\x01\x01"  # no write-ahead log: it can be read where nothing can be written
    assert len(bodies(copy)) == 100


def test_a_copy_holds_one_moment_while_others_write(inbox, tmp_path, monkeypatch):
    """Callbacks that come during a backup are stored at once, are not in it, and do not make it begin again."""
    monkeypatch.setattr(copies, "STEP_PAGES", 1)
    told = []

    def progress(done, total):
        told.append((done, total))
        if len(told) < 10:
            inbox.append([Arrival(body=b"during %d" % len(told), received_at=1)])

    inbox.backup(tmp_path / "copy.db", progress=progress)
    assert len(bodies(tmp_path / "copy.db")) == 100
    assert len(inbox.callbacks()) == 109
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1]


def test_a_backup_that_fails_leaves_nothing(inbox, tmp_path):
    """A backup that is stopped, or whose place cannot be written, leaves neither a copy nor a part of one."""

    def stop(done, total):
        raise KeyboardInterrupt

    before = names(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        inbox.backup(tmp_path / "copy.db", progress=stop)
    with pytest.raises(StoreError, match=r"copy\.db cannot be written: No such file or directory"):
        inbox.backup(tmp_path / "nowhere" / "copy.db")
    assert names(tmp_path) == before


def test_a_backup_never_replaces_a_file(inbox, tmp_path):
    """A file, a link that leads nowhere, and a file that appears meanwhile are all left alone."""
    target = tmp_path / "copy.db"
    target.symlink_to(tmp_path / "nothing")
    with pytest.raises(UpcallError, match="there already"):
        inbox.backup(target)
    target.unlink()
    with pytest.raises(UpcallError, match="there already"):
        inbox.backup(target, progress=lambda done, total: target.write_text("theirs"))
    assert target.read_text() == "theirs"


def test_a_disk_without_links(inbox, tmp_path, monkeypatch):
    """Where files cannot have two names a backup is renamed into place, still over nothing."""
    monkeypatch.setattr("pathlib.Path.hardlink_to", lambda self, target: (_ for _ in ()).throw(OSError(95, "no links")))
    inbox.backup(tmp_path / "copy.db")
    assert len(bodies(tmp_path / "copy.db")) == 100
    target = tmp_path / "other.db"
    with pytest.raises(UpcallError, match="there already"):
        inbox.backup(target, progress=lambda done, total: target.touch())


def test_a_restored_store_is_the_copy(copy, tmp_path):
    """A copy becomes a store where there is none, in a directory that is made for it, and stays as it is."""
    before = copy.read_bytes()
    url = tmp_path / "new" / "inbox.db"
    assert restore_store(copy, f"sqlite:///{url}") is None
    assert len(bodies(url)) == 100
    assert url.stat().st_mode & 0o777 == 0o600
    assert copy.read_bytes() == before


def test_a_store_is_replaced_only_when_told_to_and_kept_aside(inbox, store, copy, tmp_path):
    """Without the word a store is left alone; with it, it is kept beside the new one, its last rows included."""
    inbox.append([Arrival(body=b"after the copy", received_at=1)])
    inbox.close()
    with pytest.raises(UpcallError, match=r"there is a store at .*--replace"):
        restore_store(copy, store)
    aside = restore_store(copy, store, replace=True)
    assert bodies(aside)[-1] == b"after the copy"
    assert len(bodies(store)) == 100
    assert not [name for name in names(tmp_path) if name.endswith(".part")]


def test_what_the_log_held_goes_aside_too(inbox, store, copy, tmp_path):
    """The rows of a process that was killed are in the store's log: they are kept aside with it."""
    inbox.close()
    script = (
        "import os, signal, sys\nfrom upcall.inbox import Arrival, open_inbox\n"
        "open_inbox(sys.argv[1]).append([Arrival(body=b'in the log', received_at=1)])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, store], check=False)
    assert bodies(restore_store(copy, store, replace=True))[-1] == b"in the log"


def test_a_store_in_use_is_not_replaced(inbox, store, copy, tmp_path):
    """A store that somebody has open, even idle, is not replaced under them."""
    before = names(tmp_path)
    with pytest.raises(StoreError, match=r"is in use\. Stop the listener"):
        restore_store(copy, store, replace=True)
    assert names(tmp_path) == before
    assert inbox.append([Arrival(body=b"still in use", received_at=1)])[0].is_new


def test_a_damaged_store_can_be_replaced(inbox, store, copy, tmp_path):
    """The store that is replaced may be the reason why: one that cannot be read goes aside as it is."""
    inbox.close()
    (tmp_path / "inbox.db").write_bytes(b"ruined" * 1000)
    aside = restore_store(copy, store, replace=True)
    assert aside.read_bytes() == b"ruined" * 1000
    assert len(bodies(store)) == 100


@pytest.mark.parametrize("kind", ["missing", "text", "theirs", "newer", "damaged"])
def test_only_a_sound_copy_is_put_in_a_stores_place(inbox, store, copy, tmp_path, kind):
    """What is no copy, or a damaged one, is refused before the store is touched."""
    inbox.close()
    if kind == "missing":
        copy.unlink()
    elif kind == "text":
        copy.write_text("notes" * 1000)
    elif kind == "damaged":
        content = bytearray(copy.read_bytes())
        content[8192:20000] = b"\xff" * (20000 - 8192)
        copy.write_bytes(content)
    else:
        other = sqlite3.connect(copy)
        other.execute("PRAGMA application_id = 7" if kind == "theirs" else "PRAGMA user_version = 99")
        other.close()
    before = (tmp_path / "inbox.db").read_bytes()
    with pytest.raises(StoreUnreadableError):
        restore_store(copy, store, replace=True)
    assert (tmp_path / "inbox.db").read_bytes() == before
    assert len(bodies(store)) == 100


def test_who_starts_meanwhile_writes_to_no_store_that_is_gone(inbox, store, copy, monkeypatch):
    """While a copy takes its place a store is locked: who comes then has the new one, or is refused."""
    inbox.close()
    written, started, threads = [], threading.Event(), []

    def begin():
        started.set()
        try:
            with open_inbox(store) as opened:
                opened.append([Arrival(body=b"meanwhile", received_at=1)])
                written.append(True)
        except StoreError:
            written.append(False)

    def slowly(path, set_aside=copies._set_aside):
        threads.append(threading.Thread(target=begin))
        threads[0].start()
        assert started.wait(10)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("SELECT count(*) FROM callbacks")
        return set_aside(path)

    monkeypatch.setattr(copies, "_set_aside", slowly)
    with contextlib.closing(sqlite3.connect(store, timeout=0, check_same_thread=False)) as other:
        aside = restore_store(copy, store, replace=True)
    threads[0].join(30)
    assert len(bodies(aside)) == 100
    assert len(bodies(store)) == 100 + written[0]
