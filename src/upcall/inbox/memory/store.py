"""One store in memory: its tables, its one writer at a time, and the tables of its handlers."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from typing import TYPE_CHECKING, Final

from upcall.errors import StoreError
from upcall.inbox.memory.tables import Tables
from upcall.inbox.sqlite.finishing import HandlerTransaction, handlers_transaction

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MemoryStore"]

_BUSY_SECONDS: Final = 10.0


class MemoryStore:
    """Keep the tables that inboxes of one name share, and a database for the tables of handlers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tables: Tables = Tables()
        self.users = 0
        self._writer = threading.Lock()  # one that another thread may release: stage and commit may run on two
        self._handlers = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)

    def lock(self, wait_seconds: float = _BUSY_SECONDS) -> bool:
        """Wait to become the only writer; tell whether that came to pass."""
        return self._writer.acquire(timeout=wait_seconds)

    def unlock(self) -> None:
        """Let the next writer in."""
        self._writer.release()

    @contextlib.contextmanager
    def write(self) -> Iterator[Tables]:
        """Fill a draft of the tables, which takes their place at the end; nothing does where the body raises.

        Raises:
            StoreError: Somebody else went on writing.
        """
        if not self.lock():
            raise StoreError(f"store memory://{self.name} is locked by another writer.", hint="Try again.")
        try:
            draft = self.tables.draft()
            yield draft
            self.tables = draft
        finally:
            self.unlock()

    @contextlib.contextmanager
    def handlers_transaction(self) -> Iterator[HandlerTransaction]:
        """Open a transaction on the tables of handlers; nothing is kept where the body raises."""
        self._handlers.execute("BEGIN")
        try:
            with handlers_transaction(self._handlers) as transaction:
                yield transaction
            self._handlers.execute("COMMIT")
        except BaseException:
            if self._handlers.in_transaction:
                self._handlers.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Forget the tables of handlers."""
        self._handlers.close()
