"""The write path: arrivals in, fsynced rows out."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from typing import TYPE_CHECKING, Final

from upcall.errors import StoreError
from upcall.inbox.sqlite.connection import connect, is_busy, poll, store_errors
from upcall.inbox.sqlite.digests import Digests
from upcall.inbox.sqlite.log import log_of, write_again
from upcall.inbox.values import REDELIVERY_WINDOW_MICROS, Arrival, Receipt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["SqliteAppender", "commit_to_disk", "resolve_doubt"]

_ANSWER: Final = 200
_UNMARK_SECONDS: Final = 0.2
"""How long forgetting a mark waits for another writer: acknowledgements wait behind it, and a mark does no harm."""
_REPAIR_SECONDS: Final = 0.2
"""The same before the log is written again: where that is too short, it is tried at the next opening."""

_doubtful: Final[set[Path]] = set()
"""Stores whose disk failed a commit of this process: what they say is committed may not be on disk."""

_INSERT: Final = """
    INSERT INTO callbacks
        (received_at, bucket, digest, trust, evidence, origin, peer, source, listed, token_id, account, answer, body)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_REDELIVER: Final = """
    INSERT INTO deliveries (callback_id, received_at, peer, source, listed, token_id, answer)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_MARK: Final = "INSERT OR REPLACE INTO marks (name, position) VALUES (?, ?)"


class SqliteAppender:
    """Append arrivals through a connection of its own.

    `stage` and `commit` may run on different threads, one after the other.

    Args:
        path: The store's file, which exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places = (str(path), log_of(path))
        self._connection = connect(path, busy_seconds=0)
        try:
            with store_errors(path):
                resolve_doubt(self._connection, path)
                self._cursor = self._connection.cursor()
                self._digests = Digests(self._connection)
            self._files = self._identities()
        except BaseException:
            self._connection.close()
            raise

    def stage(
        self, arrivals: Sequence[Arrival], *, wait_seconds: float = 0.0, mark: tuple[str, int] | None = None
    ) -> list[Receipt] | None:
        """Put arrivals into an open transaction.

        Args:
            arrivals: What came, in order.
            wait_seconds: How long to wait while another process is writing.
            mark: A name and a position that `marked` returns once this transaction is committed.

        Returns:
            A receipt for each, good once `commit` returned; None where the other process was still writing.

        Raises:
            StoreError: The store failed, and nothing is staged; or what was staged before is neither committed nor
                rolled back, and stays so.
        """
        if self._connection.in_transaction:
            raise StoreError("an appender stages once, and then commits or rolls back.")
        with store_errors(self._path):
            if not self._begin(wait_seconds):
                return None
            try:
                self._check_files()
                self._digests.catch_up()
                if mark is not None:
                    self._cursor.execute(_MARK, mark)
                return [self._insert(arrival) for arrival in arrivals]
            except BaseException:
                self.rollback()
                raise

    def commit(self) -> None:
        """Make what was staged durable: its bytes are on disk when this returns.

        Raises:
            StoreError: The store failed; nothing of it is kept.
        """
        with store_errors(self._path):
            try:
                self._digests.file()
                commit_to_disk(self._connection, self._path)
            except BaseException:
                self.rollback()
                raise
            self._digests.committed()

    def rollback(self) -> None:
        """Forget what was staged."""
        self._digests.rolled_back()
        self._connection.rollback()

    def marked(self, name: str) -> int:
        """Return the position that was last committed under a name, 0 where none was."""
        with store_errors(self._path):
            row = self._cursor.execute("SELECT position FROM marks WHERE name = ?", (name,)).fetchone()
        return 0 if row is None else int(row[0])

    def unmark(self, name: str) -> None:
        """Forget a name's position."""
        with store_errors(self._path):
            if not self._begin(_UNMARK_SECONDS):
                raise StoreError(f"store {self._path} is locked by another process.", hint="Try again.")
            try:
                self._cursor.execute("DELETE FROM marks WHERE name = ?", (name,))
                commit_to_disk(self._connection, self._path)
            except BaseException:
                self.rollback()
                raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _begin(self, wait_seconds: float) -> bool:
        try:
            poll(self._cursor, wait_seconds)
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            return False
        return True

    def _check_files(self) -> None:
        """Refuse to write to files that were deleted or replaced: what is committed to them is gone when they close."""
        files = self._identities()
        if files != self._files or None in files:
            raise StoreError(
                f"store {self._path} or its -wal file was deleted or replaced while in use.",
                hint="Put it back, or start again.",
            )

    def _identities(self) -> list[tuple[int, int] | None]:
        return [_identity(path) for path in self._places]

    def _insert(self, arrival: Arrival) -> Receipt:
        digest = hashlib.sha256(arrival.body).digest()
        if self._digests.may_know(digest):
            callback_id = self._digests.find(arrival, digest)
            if callback_id is not None:
                return self._redeliver(callback_id, arrival)
        at = arrival.received_at
        cursor = self._cursor.execute(
            _INSERT,
            (
                at,
                at // REDELIVERY_WINDOW_MICROS,
                digest,
                arrival.trust.value,
                arrival.evidence,
                arrival.origin,
                arrival.peer,
                arrival.source or None,
                arrival.listed,
                arrival.token_id,
                arrival.account,
                _ANSWER,
                arrival.body,
            ),
        )
        if cursor.rowcount == 1:
            number = cursor.lastrowid or 0
            self._digests.note(digest, number)
            return Receipt(number, is_new=True)
        callback_id = self._digests.find(arrival, digest)
        assert callback_id is not None
        return self._redeliver(callback_id, arrival)

    def _redeliver(self, callback_id: int, arrival: Arrival) -> Receipt:
        self._cursor.execute(
            _REDELIVER,
            (
                callback_id,
                arrival.received_at,
                arrival.peer,
                arrival.source or None,
                arrival.listed,
                arrival.token_id,
                _ANSWER,
            ),
        )
        return Receipt(callback_id, is_new=False)


def resolve_doubt(connection: sqlite3.Connection, path: Path) -> None:
    """Trust a store again, after a disk that failed in the middle of a commit.

    Args:
        connection: One of the store's.
        path: Its file.

    Raises:
        StoreError: The disk fails still.
        sqlite3.OperationalError: Another process is writing.
    """
    if path not in _doubtful:
        return
    poll(connection.cursor(), _REPAIR_SECONDS)
    try:
        write_again(path)
    finally:
        connection.rollback()
    _doubtful.discard(path)


def commit_to_disk(connection: sqlite3.Connection, path: Path) -> None:
    """Commit, and remember a disk that failed."""
    try:
        connection.commit()
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR:
            _doubtful.add(path)
        raise


def _identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from one that took its place, None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - on the hot path
    except OSError:
        return None
    return found.st_dev, found.st_ino
