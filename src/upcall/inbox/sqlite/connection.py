"""Opening an SQLite inbox: the pragmas that make a commit durable, and errors that say what is wrong."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from upcall.errors import StoreError, StoreUnreadableError, StoreVersionError
from upcall.inbox.durable import make_directory, network_file_system
from upcall.inbox.sqlite.schema import (
    APPLICATION_ID,
    LEAST_READER,
    ORIGINAL,
    SCHEMA_VERSION,
    SECOND,
    SUPERSEDED,
    THIRD,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "BUSY_SECONDS",
    "begin",
    "connect",
    "is_busy",
    "poll",
    "read_batch",
    "set_version",
    "snapshot",
    "store_errors",
    "stored_version",
    "synchronous",
    "transaction",
]

BUSY_SECONDS = 10.0
_POLL_SECONDS = 0.001
WAL_CHECKPOINT_PAGES = 16_000
BATCH_BYTES = 2 * 1024 * 1024
"""Bodies that are parsed in one go: a listener waits three seconds for another writer, and then answers 503."""

_creating = threading.Lock()


def connect(
    path: Path, *, create: bool = False, accept_old: bool = False, busy_seconds: float = BUSY_SECONDS
) -> sqlite3.Connection:
    """Open a connection whose commits are on disk when they return.

    Args:
        path: The store's file.
        create: Make the file and its directory where there is none.
        accept_old: Open a store of an older schema too.
        busy_seconds: How long a statement waits for another writer.

    Raises:
        StoreUnreadableError: There is no store, it is not an inbox, or it cannot be read.
        StoreVersionError: A newer Upcall wrote it, or an older one and it was not upgraded.
        StoreError: It lies on a network file system.
    """
    _prepare_file(path, create=create)
    with store_errors(path):
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _check_or_create(connection, path, create=create, accept_old=accept_old)
            _configure(connection, path)
            connection.execute(f"PRAGMA busy_timeout = {int(busy_seconds * 1000)}")
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare_file(path: Path, *, create: bool) -> None:
    try:
        if path.is_dir():
            raise StoreUnreadableError(f"store {path} is a directory.", hint="Name a file in it.")
        _refuse_network(path)
        if create:
            make_directory(path.parent)
            _create_file(path)
        elif not path.exists():
            raise StoreUnreadableError(
                f"there is no store at {path}.",
                hint="`upcall listen` makes one; --store or UPCALL_STORE names another.",
            )
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise StoreUnreadableError(f"store {str(path)!r} cannot be opened: {reason}.") from error


def _create_file(path: Path) -> None:
    """Make an empty file where there is none; one that is there is not touched.

    To close any descriptor of a file gives up every lock that this process holds on it. A connection beside this one
    would lose its hold on the store, and the next process to leave would delete the write-ahead log under it.
    """
    with _creating, contextlib.suppress(FileExistsError):
        # The file holds device identifiers and callback tokens: nobody else may read it.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


def _refuse_network(path: Path) -> None:
    kind = network_file_system(path)
    if kind is not None:
        raise StoreError(
            f"store {path} lies on a network file system ({kind}), where SQLite's locks and fsync cannot be trusted.",
            hint="Put it on a local disk.",
        )


def _configure(connection: sqlite3.Connection, path: Path) -> None:
    if _write_ahead(connection) != "wal":
        raise StoreError(f"store {path} cannot have a write-ahead log here.", hint="Put it on a local disk.")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute("PRAGMA temp_store = MEMORY")
    # 64 MiB, not SQLite's 4: an index page that many callbacks change is then copied to the file once, and fewer of
    # them wait while it is.
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_CHECKPOINT_PAGES}").close()
    if sys.platform == "darwin":
        connection.execute("PRAGMA fullfsync = 1")  # fsync alone does not reach the platter there


def _write_ahead(connection: sqlite3.Connection) -> str:
    """Turn the write-ahead log on, and return the mode that there is then."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            # Two processes that create the store together: SQLite fails one of them at once, whatever its timeout is.
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
            time.sleep(0.005)


def _check_or_create(connection: sqlite3.Connection, path: Path, *, create: bool, accept_old: bool) -> None:
    # Looked at before anything is set: a file that is not ours stays as it is.
    with snapshot(connection):  # another process may be creating the store now
        known = _recognise(connection, path, accept_old=accept_old)
    if known:
        return
    if not create:
        raise StoreUnreadableError(f"store {path} is empty.", hint="`upcall listen` makes one.")
    _configure(connection, path)
    with transaction(connection):
        if not _recognise(connection, path, accept_old=accept_old):  # another process may have been quicker
            _create(connection)


def _create(connection: sqlite3.Connection) -> None:
    for statement in ORIGINAL:
        connection.execute(statement)
    for addition in (*SECOND, *THIRD):
        column = f"ALTER TABLE {addition.table} ADD COLUMN {addition.sql}"
        connection.execute(column if addition.is_column else addition.sql)
    connection.execute(SUPERSEDED)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    set_version(connection, SCHEMA_VERSION)


def _recognise(connection: sqlite3.Connection, path: Path, *, accept_old: bool) -> bool:
    """Tell an inbox from an empty file, and refuse anything else."""
    version = stored_version(connection)
    mark = connection.execute("PRAGMA application_id").fetchone()[0]
    if mark == APPLICATION_ID:
        if version > SCHEMA_VERSION and _least_reader(connection, version) > SCHEMA_VERSION:
            raise StoreVersionError(
                f"store {path} was written by a newer Upcall (schema {version}; this one knows {SCHEMA_VERSION}).",
                hint="Run that Upcall, or name another store with --store.",
            )
        if version < SCHEMA_VERSION and not accept_old:
            raise StoreVersionError(
                f"store {path} has schema {version}; this Upcall reads {SCHEMA_VERSION}.",
                hint="Run: upcall store upgrade",
            )
        return True
    if mark or version or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StoreUnreadableError(
            f"store {path} is an SQLite file, but not an Upcall inbox.", hint="Name another with --store."
        )
    return False


def _least_reader(connection: sqlite3.Connection, version: int) -> int:
    """Return the oldest schema whose Upcall can use a newer store: the newer one says so where it only added."""
    try:
        row = connection.execute("SELECT position FROM cursors WHERE name = 'least_reader'").fetchone()
    except sqlite3.OperationalError:  # no such table
        row = None
    return int(row[0]) if row else version


def stored_version(connection: sqlite3.Connection) -> int:
    """Return the number of a store's schema."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def set_version(connection: sqlite3.Connection, version: int) -> None:
    """Say which schema a store has now, and how old an Upcall may be that uses it, in the open transaction."""
    least = min(version, LEAST_READER)
    connection.execute("INSERT OR REPLACE INTO cursors (name, position) VALUES ('least_reader', ?)", (least,))
    connection.execute(f"PRAGMA user_version = {version}")


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether a statement failed only because another process is writing."""
    return error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


_ADVICE: Final = {
    sqlite3.SQLITE_READONLY: "Let this user write the file and its directory (ls -ld), or run it as one who can.",
    sqlite3.SQLITE_CANTOPEN: "Let this user read and write the file and its directory (ls -ld).",
    sqlite3.SQLITE_FULL: "Make room on its disk.",
    sqlite3.SQLITE_CORRUPT: "See what is left: upcall store check. Then: upcall store restore",
}
"""What to do about an error of SQLite, by its primary code."""


@contextlib.contextmanager
def store_errors(path: Path, *, what: str = "store", hint: str = "Name another with --store.") -> Iterator[None]:
    """Turn SQLite's errors into ours, naming the file.

    Args:
        path: The file.
        what: What it is to whoever named it.
        hint: What to do where it is no SQLite file.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_NOTADB:
            raise StoreUnreadableError(f"{what} {path} is not an SQLite file.", hint=hint) from error
        if code is not None and is_busy(error):
            raise StoreError(f"{what} {path} is locked by another process.", hint="Try again.") from error
        advice = _ADVICE.get(code & 0xFF) if code is not None else None
        raise StoreUnreadableError(f"{what} {path} cannot be used: {error}.", hint=advice) from error


def read_batch(rows: sqlite3.Cursor) -> list[tuple[Any, ...]]:
    """Read rows whose last column is a body, until their bodies weigh `BATCH_BYTES`; at least one, where there is one.

    However large callbacks are, what is parsed in one go then takes a bounded time and a bounded memory.
    """
    batch: list[tuple[Any, ...]] = []
    weight = 0
    with contextlib.closing(rows):
        for row in rows:
            batch.append(row)
            weight += len(row[-1] or b"")
            if weight >= BATCH_BYTES:
                break
    return batch


def begin(connection: sqlite3.Connection) -> None:
    """Begin a write transaction, waiting for another writer.

    Raises:
        sqlite3.OperationalError: Another process was still writing at the end of the wait.
    """
    (busy_millis,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        poll(connection.cursor(), BUSY_SECONDS)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {busy_millis}")


def poll(cursor: sqlite3.Cursor, wait_seconds: float) -> None:
    """Begin a write transaction on a connection that does not wait itself, looking every millisecond for its turn.

    SQLite's own waiting sleeps longer and longer, up to a tenth of a second. A listener under load leaves gaps of a
    millisecond: who sleeps through them falls behind without bound.

    Raises:
        sqlite3.OperationalError: Another process was still writing at the end of the wait.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            cursor.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
            time.sleep(_POLL_SECONDS)
        else:
            return


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run statements in one write transaction: all of it on disk at the end, or none."""
    begin(connection)
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


@contextlib.contextmanager
def synchronous(connection: sqlite3.Connection, level: str) -> Iterator[None]:
    """Commit with another level of `PRAGMA synchronous` than the connection's, outside any transaction.

    Args:
        connection: The connection.
        level: ``FULL`` waits for the disk; ``NORMAL`` leaves that to the next commit that does.
    """
    (before,) = connection.execute("PRAGMA synchronous").fetchone()
    connection.execute(f"PRAGMA synchronous = {level}")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA synchronous = {before}")


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Run queries that all see one moment."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.rollback()
