"""A store whose disk failed a commit is trusted again once its log was written anew, and not before.

What that is good for, tests/acceptance/test_power_loss.py shows on a disk that loses what it did not sync.
"""

import contextlib
import errno
import os
import sqlite3

import pytest

from upcall.errors import StoreError
from upcall.inbox import Arrival, open_inbox
from upcall.inbox.sqlite import append


class Failing:
    """A connection whose commits fail.

    Args:
        connection: It.
        code: SQLite's, for the error.
    """

    def __init__(self, connection, code):
        self._connection = connection
        self._error = sqlite3.OperationalError("disk I/O error")
        self._error.sqlite_errorcode = code

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def commit(self):
        raise self._error


def arrivals(number):
    return [Arrival(body=b"%d" % number, received_at=number)]


@pytest.fixture
def inbox(tmp_path):
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as inbox:
        inbox.append(arrivals(1))
        yield inbox
        append._doubtful.clear()


@pytest.fixture
def fail(inbox):
    """Return a function that has a commit of the store fail."""

    def fail(code=sqlite3.SQLITE_IOERR_FSYNC):
        with contextlib.closing(inbox.appender()) as appender:
            appender._connection = Failing(appender._connection, code)
            appender.stage(arrivals(2))
            with pytest.raises(StoreError, match="disk I/O error"):
                appender.commit()

    return fail


@pytest.fixture
def written(monkeypatch):
    """Return what is written at offsets from now on."""
    found = []
    real = os.pwrite

    def pwrite(descriptor, data, offset):
        found.append((offset, bytes(data)))
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    return found


def test_the_log_is_written_again_once_as_it_stands(inbox, fail, written):
    """Each byte of it, at the next opening alone; what was in the store is there, and what comes is kept."""
    fail()
    log = (inbox.path.parent / "inbox.db-wal").read_bytes()
    inbox.append(arrivals(3))
    assert b"".join(data for _, data in written) == log
    inbox.append(arrivals(4))
    assert len(written) == 1
    assert [record.body for record in inbox.callbacks()] == [b"1", b"3", b"4"]


def test_other_failures_cast_no_doubt(inbox, fail, written):
    """A full disk, say, was never told that all was well."""
    fail(sqlite3.SQLITE_FULL)
    inbox.append(arrivals(3))
    assert written == []


def test_a_store_in_doubt_waits_for_a_writer_and_for_no_reader(inbox, fail, written, monkeypatch):
    """While another process writes the store is not used; one that reads for hours does not matter."""
    monkeypatch.setattr(append, "_REPAIR_SECONDS", 0.0)
    fail()
    with contextlib.closing(sqlite3.connect(inbox.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked by another process"):
            inbox.append(arrivals(3))
        other.rollback()
        assert written == []
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM callbacks").fetchone()
        inbox.append(arrivals(3))
        assert written


def test_a_disk_that_fails_still_leaves_the_doubt(inbox, fail, written, monkeypatch):
    """It is tried again with each opening, and nothing is kept in the store until it succeeded."""
    fail()
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "fdatasync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error"))
        )
        for _ in range(2):
            with pytest.raises(StoreError, match=r"inbox\.db cannot be written: Input/output error\."):
                inbox.append(arrivals(3))
    assert len(written) == 2
    inbox.append(arrivals(3))
    assert [record.body for record in inbox.callbacks()] == [b"1", b"3"]
