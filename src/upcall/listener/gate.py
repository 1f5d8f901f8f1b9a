"""Who may deliver, and whether handlers may see what came.

Callbacks are unsigned and their schema is not published. So trust rests on a positive contradiction only: a body
that is no JSON, or that names an account which the token does not belong to. A missing field proves nothing. Where a
callback came from is kept beside it, and refuses nothing unless the gate is told so (`upcall.listener.sources`).
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import re
import secrets
from typing import TYPE_CHECKING

import msgspec

from upcall.errors import SettingsError
from upcall.inbox import Trust
from upcall.thingspace import check_account, peek_account

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Gate", "Token", "Verdict", "generate_token", "parse_tokens"]

MIN_TOKEN_CHARACTERS = 16
_TOKEN_TEXT = re.compile(r"[A-Za-z0-9._~-]+")
_TOKEN_BYTES = 24


class Token(msgspec.Struct, frozen=True):
    """Hold the secret part of a callback URL; `repr` does not show it.

    Args:
        secret: The path segment.
        accounts: The accounts that may deliver through it, empty for all.
    """

    secret: str
    accounts: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Token(id={self.id}, accounts={sorted(self.accounts) or '*'})"

    @property
    def id(self) -> str:
        """Return what stands for the token in the store: enough to tell tokens apart, not to use one."""
        return _id_of(self.secret)

    @property
    def account(self) -> str | None:
        """Return the account that it belongs to, None where it belongs to several or all."""
        return next(iter(self.accounts)) if len(self.accounts) == 1 else None


class Verdict(msgspec.Struct, frozen=True):
    """Say whether handlers may see a callback.

    Args:
        trust: The verdict.
        evidence: What it rests on.
    """

    trust: Trust
    evidence: str


_UNDECODABLE = Verdict(Trust.QUARANTINED, "the body is not JSON")
_OWN_ACCOUNT = Verdict(Trust.ACCEPTED, "names the token's account")
_NO_ACCOUNT = Verdict(Trust.ACCEPTED, "names no account")
_ANY_ACCOUNT = Verdict(Trust.ACCEPTED, "the token is for every account")


class Gate:
    """Tell live tokens from others, and judge bodies.

    Args:
        tokens: The live tokens, at least one.
    """

    def __init__(self, tokens: Sequence[Token]) -> None:
        if not tokens:
            raise SettingsError("a listener needs at least one token.", hint="Give --token, or let it generate one.")
        self.tokens: tuple[Token, ...] = tuple(tokens)
        self._digests = [(_digest(token.secret), token) for token in tokens]

    def admit(self, secret: str) -> Token | None:
        """Return the live token that a path names, comparing in constant time."""
        digest = _digest(secret)
        found = None
        for known, token in self._digests:
            if hmac.compare_digest(known, digest):
                found = token
        return found

    def judge(self, token: Token, body: bytes) -> Verdict:
        """Judge a body that came through a token. Total over any bytes."""
        decodable, account = peek_account(body)
        if not decodable:
            return _UNDECODABLE
        if not token.accounts:
            return _ANY_ACCOUNT
        if account is None:
            return _NO_ACCOUNT
        if account in token.accounts:
            return _OWN_ACCOUNT
        return Verdict(Trust.QUARANTINED, f"names account {account[:64]!r}, which the token does not belong to")


def generate_token() -> str:
    """Make a token that nobody guesses: 192 random bits."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def parse_tokens(texts: Iterable[str], accounts: Sequence[str] = ()) -> list[Token]:
    """Read tokens as they are given on a command line, in a variable or in a file.

    Args:
        texts: Each ``TOKEN`` or ``ACCOUNT=TOKEN``.
        accounts: The accounts of tokens that name none; none means all.

    Raises:
        SettingsError: A token is too short to be unguessable, cannot stand in a URL's path, or is given twice; or an
            account is expected that no token belongs to.
    """
    tokens: dict[str, Token] = {}
    for text in texts:
        account, mark, secret = text.rpartition("=")
        if len(secret) < MIN_TOKEN_CHARACTERS or not _TOKEN_TEXT.fullmatch(secret):
            raise SettingsError(
                f"a token must have at least {MIN_TOKEN_CHARACTERS} characters out of A-Z a-z 0-9 . _ ~ - (this one has"
                f" {len(secret)} characters).",
                hint="Correct it in --token or UPCALL_TOKENS, or leave both out: upcall listen generates one.",
            )
        if secret in tokens:
            raise SettingsError("the same token is given twice.", hint="Give each token once.")
        try:
            owners = frozenset({check_account(account)} if mark else map(check_account, accounts))
        except ValueError as error:
            raise SettingsError(f"{error}.") from None
        tokens[secret] = Token(secret, owners)
    for account in accounts:
        if not any(account in token.accounts for token in tokens.values()):
            raise SettingsError(
                f"account {account} is expected, and each token names another one.",
                hint=f"Add {account}=TOKEN, or give a token that names no account: it is for all that are expected.",
            )
    return list(tokens.values())


@functools.cache
def _id_of(secret: str) -> str:
    """Return a token's id; kept, because each callback is stored with it."""
    return hashlib.sha256(secret.encode()).hexdigest()[:12]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
