"""Copies of a store: one moment of it in a file that is whole and on disk, or not there."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from upcall.errors import StoreError, StoreUnreadableError, UpcallError
from upcall.inbox.durable import make_directory
from upcall.inbox.sqlite.connection import store_errors
from upcall.inbox.sqlite.schema import APPLICATION_ID, SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["backup", "restore"]

STEP_PAGES: Final = 1000
PAUSE_SECONDS: Final = 0.001
"""Between two steps, so that who writes meanwhile has the disk too."""

_NO_COPY: Final = "Name one that `upcall store backup` made."
_BESIDE: Final = ("-wal", "-shm")


def backup(path: Path, target: Path, progress: Callable[[int, int], None]) -> None:
    """Write a copy of this moment's store to a file.

    Args:
        path: The store.
        target: The file, which must not exist.
        progress: Called with how many pages of how many are copied.

    Raises:
        UpcallError: The file exists.
        StoreError: It cannot be written.
    """
    if os.path.lexists(target):
        raise UpcallError(f"{target} is there already, and was left alone.", hint="Name another file.")
    with _temporary(target) as copy:
        _copy(path, copy, progress)
        with _file_errors(target):
            _put(copy, target)


def restore(source: Path, path: Path, *, replace: bool) -> Path | None:
    """Put a copy in a store's place.

    Args:
        source: The copy.
        path: The store.
        replace: Whether there may be a store already; it is kept beside the new one.

    Returns:
        Where the old store is now, None where there was none.

    Raises:
        UpcallError: There is a store, and it may not be replaced.
        StoreError: It is in use; or the copy is none, or damaged.
    """
    if not source.is_file():
        raise StoreUnreadableError(f"there is no copy at {source}.", hint=_NO_COPY)
    if path.exists() and not replace:
        raise UpcallError(f"there is a store at {path}.", hint="--replace keeps it aside and takes its place.")
    with _file_errors(path):
        make_directory(path.parent)
    with _temporary(path) as copy:
        _copy(source, copy, lambda _done, _total: None, what="copy", hint=_NO_COPY)
        with _file_errors(path), _only_user(path):
            aside = _set_aside(path)
            copy.replace(path)
            _sync(path.parent)
    return aside


def _copy(source: Path, copy: Path, progress: Callable[[int, int], None], **named: str) -> None:
    """Copy one moment of a store into an empty file, check the copy, and see it on disk; `named` as `store_errors`."""

    def step(_status: int, left: int, total: int) -> None:
        progress(total - left, total)
        time.sleep(PAUSE_SECONDS)

    with store_errors(source, **named), contextlib.closing(_open(source)) as origin:
        _recognise(origin, source)
        with store_errors(copy), contextlib.closing(_open(copy)) as destination:
            # The read transaction pins the moment: what is written meanwhile does not make the copy begin again.
            origin.execute("BEGIN")
            origin.execute("SELECT 1 FROM sqlite_master").fetchone()
            origin.backup(destination, pages=STEP_PAGES, progress=step)
            origin.rollback()
            destination.execute("PRAGMA journal_mode = DELETE").close()  # one file, nothing beside it
            found = destination.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise StoreUnreadableError(f"{named.get('what', 'store')} {source} is damaged: {' '.join(found.split())}.")
    _sync(copy)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=10.0, isolation_level=None)


def _recognise(connection: sqlite3.Connection, path: Path) -> None:
    mark = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if mark != APPLICATION_ID:
        raise StoreUnreadableError(f"{path} is an SQLite file, but not an Upcall inbox.")
    if version > SCHEMA_VERSION:
        raise StoreUnreadableError(f"{path} was written by a newer Upcall (schema {version}).")


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """Give an empty file beside a target, which nobody else may read, and which does not stay."""
    copy = target.with_name(f".{target.name}.{os.getpid()}.part")
    with _file_errors(target):
        copy.unlink(missing_ok=True)
        os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    try:
        yield copy
    finally:
        for suffix in ("", "-journal", *_BESIDE):
            copy.with_name(copy.name + suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise UpcallError(f"{path} is there already, and was left alone.", hint="Name another file.") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}.") from error


def _put(copy: Path, target: Path) -> None:
    """Give a finished file its name, never in the place of another."""
    try:
        target.hardlink_to(copy)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(target):
            raise FileExistsError from None
        copy.rename(target)
    _sync(target.parent)


@contextlib.contextmanager
def _only_user(path: Path) -> Iterator[None]:
    """Hold a store that nobody else uses; one that cannot be read is nobody's to hold.

    Raises:
        StoreError: Somebody uses it.
    """
    if not path.exists():
        yield
        return
    with contextlib.closing(sqlite3.connect(path, timeout=0.0, isolation_level=None)) as held:
        try:
            # Only the last connection can leave the write-ahead log, and takes what is in it into the file.
            held.execute("PRAGMA journal_mode = DELETE").close()
            held.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                raise StoreError(
                    f"store {path} is in use.", hint="Stop the listener and the workers, then restore."
                ) from error
        yield


def _set_aside(path: Path) -> Path | None:
    """Give the old store another name; until the new one takes its place it has both."""
    if not path.exists():
        return None
    aside = path.with_name(f"{path.name}.before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    for suffix in _BESIDE:
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))
    _put_beside(path, aside)
    return aside


def _put_beside(path: Path, aside: Path) -> None:
    try:
        aside.hardlink_to(path)
    except OSError:
        path.rename(aside)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
