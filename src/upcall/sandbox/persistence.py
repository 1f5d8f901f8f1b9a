"""The state file: what a killed sandbox needs to go on where it was.

SQLite with a write-ahead log and ``synchronous=FULL``: what `flush` returned for is on the disk. Values are kept by
kind and key; several changes of one value between two flushes are written once, and those of one flush all or none.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from typing import TYPE_CHECKING, Final, Protocol

from upcall.errors import StartError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Memory", "Saved", "StateFile", "Store"]

_APPLICATION_ID: Final = 0x55504342
_VERSION: Final = 1

Saved = dict[str, dict[str, bytes]]
"""Values by kind and key."""


class Store(Protocol):
    """Keep values by kind and key."""

    def load(self) -> Saved:
        """Return everything that is kept."""
        ...

    def put(self, kind: str, key: str, value: bytes | None) -> None:
        """Remember to keep a value, or to forget it where it is None, at the next flush."""
        ...

    async def flush(self) -> None:
        """Return once everything put before is kept for good."""
        ...

    async def close(self) -> None:
        """Flush and let go."""
        ...


class Memory:
    """Keep nothing: a sandbox without a state file starts empty each time."""

    def load(self) -> Saved:
        """Return nothing."""
        return {}

    def put(self, kind: str, key: str, value: bytes | None) -> None:
        """Do nothing."""

    async def flush(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
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
        self._pending: dict[tuple[str, str], bytes | None] = {}
        self._writing = asyncio.Lock()
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

    def put(self, kind: str, key: str, value: bytes | None) -> None:
        """Remember to keep a value, or to forget it where it is None, at the next flush."""
        self._pending[kind, key] = value

    async def flush(self) -> None:
        """Return once everything put before is on the disk.

        Callers that wait together share one transaction.
        """
        async with self._writing:
            if not self._pending:
                return
            batch, self._pending = self._pending, {}
            try:
                await asyncio.to_thread(self._write, batch)
            except sqlite3.Error:
                self._pending = batch | self._pending
                raise

    def _write(self, batch: dict[tuple[str, str], bytes | None]) -> None:
        kept = [(kind, key, value) for (kind, key), value in batch.items() if value is not None]
        dropped = [name for name, value in batch.items() if value is None]
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", kept)
            self._connection.executemany("DELETE FROM entries WHERE kind = ? AND key = ?", dropped)
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    async def close(self) -> None:
        """Flush and close the file."""
        await self.flush()
        self._connection.close()
