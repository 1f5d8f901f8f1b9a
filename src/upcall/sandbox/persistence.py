"""The state file: what a killed sandbox needs to go on where it was.

SQLite with a write-ahead log and ``synchronous=FULL``: what `flush` returned for is on the disk. Values are kept by
kind and key; several changes of one value between two flushes are written once, and those of one flush all or none.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from upcall.errors import StartError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Memory", "Saved", "StateFile", "Store", "Value"]

_APPLICATION_ID: Final = 0x55504342
_VERSION: Final = 1

Saved = dict[str, dict[str, bytes]]
"""Values by kind and key."""

Value: TypeAlias = "bytes | Callable[[], bytes] | None"
"""What is kept: bytes, what makes them at the next flush, or None to forget what was kept."""


class Store(Protocol):
    """Keep values by kind and key."""

    def load(self) -> Saved:
        """Return everything that is kept."""
        ...

    def put(self, kind: str, key: str, value: Value) -> int:
        """Remember to keep a value, or to forget it where it is None, at the next flush; return its number."""
        ...

    def is_kept(self) -> bool:
        """Tell whether everything put before is kept for good."""
        ...

    async def flush(self, until: int | None = None) -> None:
        """Return once everything put before is kept for good.

        Args:
            until: It is enough that all up to the put of this number is.
        """
        ...

    def clear(self) -> None:
        """Forget everything at the next flush."""
        ...

    async def close(self) -> None:
        """Flush and let go."""
        ...

    def abandon(self) -> None:
        """Let go at once."""
        ...


class Memory:
    """Keep nothing: a sandbox without a state file starts empty each time."""

    def load(self) -> Saved:
        """Return nothing."""
        return {}

    def put(self, kind: str, key: str, value: Value) -> int:  # noqa: ARG002 - it keeps nothing
        """Do nothing."""
        return 0

    def is_kept(self) -> bool:
        """Return true: there is nothing to keep."""
        return True

    async def flush(self, until: int | None = None) -> None:
        """Do nothing."""

    def clear(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    def abandon(self) -> None:
        """Do nothing."""


class StateFile:
    """Keep values in one SQLite file, for one sandbox at a time.

    Args:
        path: The file; it is made where there is none.

    Raises:
        StartError: It cannot be opened, is something else, or another sandbox has it open.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: dict[tuple[str, str], Value] = {}
        self._is_cleared = False
        self._put = 0
        self._kept = 0
        self._writing: asyncio.Future[None] | None = None
        # Its own: what others run in threads, such as looking up names, must not hold up an answer.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upcall sandbox state")
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            # It holds live tokens: nobody else's to read.
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            connection = sqlite3.connect(self._path, timeout=0.2, check_same_thread=False, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(getattr(error, "strerror", None) or str(error)) from None
        try:
            # Exclusive: a second sandbox on the file would send every callback a second time.
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._check(connection)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA fullfsync=ON")
            connection.execute("PRAGMA cache_size=-65536")  # a large campaign in one transaction
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS entries"
                " (kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID"
            )
            connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={_VERSION}")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            connection.close()
            locked = "locked" in str(error)
            raise self._unusable("another sandbox has it open" if locked else str(error)) from None
        except StartError:
            connection.close()
            raise
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application_id != _APPLICATION_ID and (tables or application_id):
            raise self._unusable("it is not a sandbox's state file")
        if version > _VERSION:
            raise self._unusable(f"a newer Upcall wrote it (version {version}, this one reads {_VERSION})")

    def _unusable(self, why: str) -> StartError:
        return StartError(f"The state file {self._path} cannot be used: {why}.", hint="Name another with --state.")

    def load(self) -> Saved:
        """Return everything that is kept."""
        saved: Saved = {}
        try:
            for kind, key, value in self._connection.execute("SELECT kind, key, value FROM entries"):
                saved.setdefault(kind, {})[key] = value
        except sqlite3.Error as error:
            raise self._unusable(str(error)) from None
        return saved

    def put(self, kind: str, key: str, value: Value) -> int:
        """Remember to keep a value, or to forget it where it is None, at the next flush; return its number."""
        self._pending[kind, key] = value
        self._put += 1
        return self._put

    def clear(self) -> None:
        """Forget everything at the next flush."""
        self._pending.clear()
        self._is_cleared = True
        self._put += 1

    def is_kept(self) -> bool:
        """Tell whether everything put before is on the disk."""
        return self._put <= self._kept

    async def flush(self, until: int | None = None) -> None:
        """Return once everything put before is on the disk.

        Callers that wait together share one transaction, and one failure; who gives up waiting does not end it.

        Args:
            until: It is enough that all up to the put of this number is.

        Raises:
            sqlite3.Error: It could not be written; the next flush tries again.
        """
        wanted = self._put if until is None else until
        while wanted > self._kept:
            if self._writing is None:
                self._writing = asyncio.ensure_future(self._write_pending())
                self._writing.add_done_callback(_seen)
            await asyncio.shield(self._writing)

    async def _write_pending(self) -> None:
        reached = self._put
        batch, self._pending = self._pending, {}
        is_cleared, self._is_cleared = self._is_cleared, False
        try:
            made = {name: value() if callable(value) else value for name, value in batch.items()}
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._write, made, is_cleared)
            self._kept = reached
        except BaseException:
            if not self._is_cleared:  # what was put, or cleared, since is newer
                self._pending, self._is_cleared = batch | self._pending, is_cleared
            raise
        finally:
            self._writing = None

    def _write(self, batch: dict[tuple[str, str], bytes | None], is_cleared: bool) -> None:  # noqa: FBT001 - private
        kept = [(kind, key, value) for (kind, key), value in batch.items() if value is not None]
        dropped = [name for name, value in batch.items() if value is None]
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            if is_cleared:
                self._connection.execute("DELETE FROM entries")
            self._connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", kept)
            self._connection.executemany("DELETE FROM entries WHERE kind = ? AND key = ?", dropped)
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    async def close(self) -> None:
        """Flush and close the file, which is closed even where that fails.

        Raises:
            StoreError: It cannot be written.
        """
        try:
            await self.flush()
        except sqlite3.Error as error:
            raise StoreError(
                f"The state file {self._path} could not be written: {error}. What changed last is not in it.",
                hint="Make room, and start again on the same file.",
            ) from None
        finally:
            if self._writing is not None:
                await asyncio.gather(self._writing, return_exceptions=True)
            self._thread.shutdown()
            self._connection.close()

    def abandon(self) -> None:
        """Close the file at once."""
        self._thread.shutdown()
        self._connection.close()


def _seen(writing: asyncio.Future[None]) -> None:
    """Take note of how a write ended, where everybody who waited for it has gone."""
    if not writing.cancelled():
        writing.exception()
