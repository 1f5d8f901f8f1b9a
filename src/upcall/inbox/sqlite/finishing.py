"""The transaction that ends a piece of work together with what its handler writes."""

from __future__ import annotations

import contextlib
import sqlite3
import weakref
from typing import TYPE_CHECKING, Any, Final

from upcall.errors import StoreError
from upcall.inbox.sqlite.schema import OWN_PREFIX, OWN_TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["HandlerTransaction", "handlers_transaction"]

_REFUSED: Final = frozenset(
    {
        sqlite3.SQLITE_ATTACH,
        sqlite3.SQLITE_DETACH,
        sqlite3.SQLITE_SAVEPOINT,
        sqlite3.SQLITE_TRANSACTION,
        sqlite3.SQLITE_ANALYZE,
    }
)
_SECRET: Final = frozenset({"tokens", "upcall_journal", "upcall_notes"})
"""Tables that hold callback URLs or their tokens."""
_READ_PRAGMAS: Final = frozenset({"table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo"})
_SEQUENCES: Final = "sqlite_sequence"
# Of each action that writes: which of its two arguments names a table.
_WRITES: Final = {
    sqlite3.SQLITE_INSERT: 0,
    sqlite3.SQLITE_UPDATE: 0,
    sqlite3.SQLITE_DELETE: 0,
    sqlite3.SQLITE_CREATE_TABLE: 0,
    sqlite3.SQLITE_DROP_TABLE: 0,
    sqlite3.SQLITE_CREATE_VIEW: 0,
    sqlite3.SQLITE_DROP_VIEW: 0,
    sqlite3.SQLITE_CREATE_VTABLE: 0,
    sqlite3.SQLITE_DROP_VTABLE: 0,
    sqlite3.SQLITE_CREATE_TEMP_TABLE: 0,
    sqlite3.SQLITE_CREATE_TEMP_VIEW: 0,
    sqlite3.SQLITE_ALTER_TABLE: 1,
    sqlite3.SQLITE_CREATE_INDEX: 1,
    sqlite3.SQLITE_DROP_INDEX: 1,
    sqlite3.SQLITE_CREATE_TRIGGER: 1,
    sqlite3.SQLITE_DROP_TRIGGER: 1,
    sqlite3.SQLITE_CREATE_TEMP_INDEX: 1,
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER: 1,
}


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """Let a handler read everything but the tokens and the URLs, and write to tables of its own."""
    if action in _REFUSED:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_PRAGMA:
        return sqlite3.SQLITE_OK if first in _READ_PRAGMAS else sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_READ and first in _SECRET:
        return sqlite3.SQLITE_DENY
    if action in _WRITES:
        table = ((first, second)[_WRITES[action]] or "").casefold()
        is_ours = table in OWN_TABLES or table.startswith(OWN_PREFIX) or table == _SEQUENCES
        return sqlite3.SQLITE_DENY if is_ours else sqlite3.SQLITE_OK
    return sqlite3.SQLITE_OK


class HandlerTransaction:
    """Give a handler what `upcall.inbox.Transaction` promises, until its work ends.

    Args:
        connection: The inbox's connection, in a write transaction.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cursors: weakref.WeakSet[sqlite3.Cursor] = weakref.WeakSet()
        self._is_over = False

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one SQL statement on tables of the handler's own, and return its cursor.

        Raises:
            sqlite3.Error: The statement failed, or touched a table of Upcall's.
            StoreError: The transaction is over, or was rolled back by an earlier statement.
        """
        return self._cursor().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Sequence[Sequence[Any]]) -> sqlite3.Cursor:
        """Run one SQL statement once for each row of parameters, and return its cursor."""
        return self._cursor().executemany(sql, parameters)

    def _cursor(self) -> sqlite3.Cursor:
        self.check()
        cursor = self._connection.cursor()
        self._cursors.add(cursor)
        return cursor

    def check(self) -> None:
        """Refuse to go on where nothing that is written could become part of the transaction.

        Raises:
            StoreError: It is over, or was rolled back.
        """
        if self._is_over:
            raise StoreError("the transaction is over: its handler has returned.")
        if not self._connection.in_transaction:
            raise StoreError(
                "the handler's transaction was rolled back by one of its statements.",
                hint="Let the error of that statement end the handler.",
            )

    def end(self) -> None:
        """Close what the handler left open: a statement that was not read to its end would hold up the commit."""
        self._is_over = True
        for cursor in self._cursors:
            cursor.close()


@contextlib.contextmanager
def handlers_transaction(connection: sqlite3.Connection) -> Iterator[HandlerTransaction]:
    """Hand an open transaction to a handler, and see that it is whole afterwards.

    Raises:
        StoreError: One of the handler's statements rolled it back.
    """
    transaction = HandlerTransaction(connection)
    connection.set_authorizer(_authorize)
    try:
        yield transaction
        transaction.check()
    finally:
        transaction.end()
        connection.set_authorizer(None)
