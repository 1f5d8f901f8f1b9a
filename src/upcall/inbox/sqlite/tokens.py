"""The tokens that were generated for a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from upcall.inbox.sqlite.connection import stored_version, transaction
from upcall.inbox.values import TokenRecord

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Tokens"]

_SINCE_SCHEMA: Final = 3
"""Before, all tokens were live."""

_ALL: Final = "SELECT token, accounts, created_at{lives} FROM tokens ORDER BY created_at, token"
_CHANGE: Final = """
    UPDATE tokens SET
        state = ?2, retire_at = ?3, retired_at = CASE WHEN ?2 = 'retired' THEN coalesce(retired_at, ?4) END
    WHERE token = ?1
"""


class Tokens:
    """Keep tokens in an SQLite store, also in one that was not upgraded yet.

    Args:
        connection: The inbox's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self) -> list[TokenRecord]:
        """Return all tokens in the order in which they were made."""
        rows = self._connection.execute(_ALL.format(lives="" if self._is_old() else ", state, retire_at"))
        return [_record(*row) for row in rows.fetchall()]

    def add(self, record: TokenRecord, now: int) -> bool:
        """Keep a token, and tell whether it is new."""
        accounts = "\n".join(record.accounts)  # an account may hold a space
        values = {"token": record.token, "accounts": accounts, "created_at": now}
        if not self._is_old() or record.state != "live":
            values |= {"state": record.state, "retire_at": record.retire_at}
        with transaction(self._connection):
            return bool(
                self._connection.execute(
                    f"INSERT INTO tokens ({', '.join(values)}) VALUES ({', '.join('?' for _ in values)})"
                    " ON CONFLICT DO NOTHING",
                    tuple(values.values()),
                ).rowcount
            )

    def change(self, token: str, state: str, retire_at: int | None, now: int) -> None:
        """Change how a token lives."""
        with transaction(self._connection):
            self._connection.execute(_CHANGE, (token, state, retire_at, now))

    def _is_old(self) -> bool:
        return stored_version(self._connection) < _SINCE_SCHEMA


def _record(
    token: str, accounts: str, created_at: int, state: str = "live", retire_at: int | None = None
) -> TokenRecord:
    owners = tuple(accounts.split("\n") if accounts else ())
    return TokenRecord(token, owners, state=state, retire_at=retire_at, created_at=created_at)
