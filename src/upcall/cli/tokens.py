"""Which tokens ``upcall listen`` accepts: given ones, else the environment's, else what the store generated."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from upcall.errors import SettingsError
from upcall.listener import parse_tokens
from upcall.listener.tokens import StoreTokens
from upcall.thingspace import check_account

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upcall.listener import Token

__all__ = ["environment_tokens", "given_tokens", "store_tokens"]


def given_tokens(texts: Sequence[str], accounts: Sequence[str]) -> list[Token]:
    """Return the tokens that are given, on the command line or else by the environment; none where none are.

    Args:
        texts: Tokens as given on the command line.
        accounts: The accounts that are expected, none for all.

    Raises:
        SettingsError: An account or a token is none, or a variable that is set holds no token.
    """
    owners = _checked(accounts)
    texts = list(texts) or environment_tokens()
    return parse_tokens(texts, owners) if texts else []


def store_tokens(accounts: Sequence[str]) -> StoreTokens:
    """Return what reads the tokens of the store itself.

    Args:
        accounts: The accounts that are expected, none for all.

    Raises:
        SettingsError: An account is none.
    """
    return StoreTokens(_checked(accounts))


def _checked(accounts: Sequence[str]) -> tuple[str, ...]:
    try:
        return tuple(check_account(account) for account in accounts)
    except ValueError as error:
        raise SettingsError(f"{error}.") from None


def environment_tokens() -> list[str]:
    """Return the tokens that the environment gives; a generated one must not take their place unnoticed.

    Raises:
        SettingsError: A variable that is set holds no token.
    """
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
