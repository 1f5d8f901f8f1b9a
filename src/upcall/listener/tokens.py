"""The tokens that a store generated: which of them a listener accepts, and when an old one is over."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from upcall.inbox import TokenRecord
from upcall.listener.gate import Token, generate_token

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from upcall.inbox import Inbox

__all__ = ["StoreTokens"]

_ORDER: Final = ("live", "next", "retiring")
"""The states of tokens that are accepted; the first one stands in the ready line."""

_log = logging.getLogger("upcall.listener")


class StoreTokens:
    """Read which of a store's own tokens are to be accepted.

    Args:
        accounts: The accounts that are expected, none for all.
    """

    def __init__(self, accounts: Sequence[str] = ()) -> None:
        self._accounts = tuple(accounts)

    def begin(self, inbox: Inbox) -> list[Token]:
        """Return the tokens to accept; a store that has none gets one, and the log says what changed since."""
        now = time.time_ns() // 1000
        records = self._retire(inbox, now)
        mine = self._mine(records)
        if not mine:
            inbox.add_token(TokenRecord(generate_token(), self._accounts), now)
            return self._tokens(inbox.tokens())
        if len(mine) < len(records):
            _log.warning(
                "this store has a generated token for other accounts too, which is not accepted now; to go on with it,"
                " give the same accounts as then (--account, --config), or give the token itself by UPCALL_TOKENS"
            )
        elif mine[0].accounts and not self._accounts:
            _log.warning(
                "callbacks of every account are taken with the token that was generated for %s; to take theirs alone,"
                " name them (--account, --config)",
                _named(mine[0].accounts),
            )
        elif set(mine[0].accounts) != set(self._accounts):
            _log.info(
                "the token that was generated for %s belongs to %s now",
                *map(_named, (mine[0].accounts, self._accounts)),
            )
        return self._tokens(records)

    def read(self, inbox: Inbox, now: int) -> list[Token]:
        """Return the tokens to accept now; one whose time is over is retired first.

        Args:
            inbox: The store.
            now: The time, UTC microseconds.
        """
        return self._tokens(self._retire(inbox, now))

    def _tokens(self, records: Sequence[TokenRecord]) -> list[Token]:
        return [Token(record.token, frozenset(self._accounts)) for record in self._mine(records)]

    def _mine(self, records: Sequence[TokenRecord]) -> list[TokenRecord]:
        """Return the tokens generated for these accounts, else all of the store's: one of them is registered."""
        accepted = sorted(
            (record for record in records if record.state in _ORDER), key=lambda record: _ORDER.index(record.state)
        )
        return [record for record in accepted if set(record.accounts) == set(self._accounts)] or accepted

    def _retire(self, inbox: Inbox, now: int) -> list[TokenRecord]:
        """Retire what is due, and return all tokens that are accepted by somebody."""
        records = inbox.tokens()
        due = [
            record
            for record in records
            if record.state == "retiring" and record.retire_at is not None and record.retire_at <= now
        ]
        for record in due:
            inbox.set_token(record.token, state="retired", retire_at=record.retire_at, now=now)
            _log.info("token %s is retired: its time beside the one that took its place is over", _id(record))
        return [record for record in records if record.state in _ORDER and record not in due]


def _id(record: TokenRecord) -> str:
    return Token(record.token).id


def _named(accounts: Collection[str]) -> str:
    return ", ".join(accounts) or "every account"
