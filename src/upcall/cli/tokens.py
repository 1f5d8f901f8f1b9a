"""Which tokens ``upcall listen`` accepts: given ones, else the environment's, else what the store generated."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from upcall.errors import SettingsError
from upcall.inbox import TokenRecord
from upcall.listener import Token, generate_token, parse_tokens
from upcall.thingspace import check_account

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from upcall.inbox import Inbox

__all__ = ["live_tokens"]

_log = logging.getLogger("upcall.listener")


def live_tokens(inbox: Inbox, texts: Sequence[str], accounts: Sequence[str]) -> list[Token]:
    """Return the tokens to accept: given, else from the environment, else this store's own.

    Args:
        inbox: Keeps the tokens that are generated.
        texts: Tokens as given on the command line.
        accounts: The accounts that are expected, none for all.

    Raises:
        SettingsError: An account or a token is none, or a variable that is set holds no token.
    """
    try:
        owners = tuple(check_account(account) for account in accounts)
    except ValueError as error:
        raise SettingsError(f"{error}.") from None
    given = list(texts) or _environment_tokens()
    return parse_tokens(given, owners) if given else _generated_tokens(inbox, owners)


def _environment_tokens() -> list[str]:
    """Return the tokens that the environment gives; a generated one must not take their place unnoticed."""
    text, path = os.environ.get("UPCALL_TOKENS"), os.environ.get("UPCALL_TOKENS_FILE")
    if text is None and path is None:
        return []
    place = "UPCALL_TOKENS" if text is not None else "UPCALL_TOKENS_FILE"
    if path and not text:
        place = f"UPCALL_TOKENS_FILE names {path}, which"
        text = _read(path)
    found = (text or "").replace(",", " ").split()
    if not found:
        raise SettingsError(
            f"{place} holds no token.",
            hint="Write TOKEN or ACCOUNT=TOKEN there, or unset the variable and a token is generated.",
        )
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"UPCALL_TOKENS_FILE names {path}, which cannot be read: {error}.", hint="Correct the path or unset it."
        ) from None


def _generated_tokens(inbox: Inbox, owners: tuple[str, ...]) -> list[Token]:
    """Return the tokens generated for these accounts, else all of the store's: one of them is registered somewhere."""
    records = inbox.tokens()
    exact = [record for record in records if set(record.accounts) == set(owners)]
    if exact and len(exact) < len(records):
        _log.warning(
            "this store has a generated token for other accounts too, which is not accepted now; to go on with it, give"
            " the same accounts as then (--account, --config), or give the token itself by UPCALL_TOKENS"
        )
    elif not exact and records:
        _log.info("the token that was generated for %s belongs to %s now", *map(_named, (records[0].accounts, owners)))
    elif not records:
        exact = [TokenRecord(generate_token(), owners)]
        inbox.add_token(exact[0], time.time_ns() // 1000)
    return [Token(record.token, frozenset(owners)) for record in exact or records]


def _named(accounts: Collection[str]) -> str:
    return ", ".join(accounts) or "every account"
