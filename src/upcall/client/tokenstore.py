"""Tokens on disk, where the user asked for it: ten runs of a command log in once.

The file is its owner's alone, and one that others can read is not believed. Times in it are wall-clock times, because
a monotonic clock does not outlive its machine's start; a token that they make out to be good, and is not, is refused
by the provider and dropped like any other.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.client.statefile import DamagedError, StateFile, fingerprint

if TYPE_CHECKING:
    from pathlib import Path

    from upcall.client.auth import Token
    from upcall.settings import Credentials

__all__ = ["BEARER", "SESSION", "StoredToken", "TokenStore"]

BEARER: Final = "bearer"
SESSION: Final = "session"

_logger = logging.getLogger("upcall.client")


class StoredToken(msgspec.Struct, frozen=True):
    """Hold a token; `repr` does not show it. Times are in seconds since 1970.

    Args:
        value: The token.
        used_at: When it was last used, within a minute.
        refresh_at: When to fetch another one, None where only use decides.
        expires_at: When it ends, None where only use decides.
    """

    value: str
    used_at: float
    refresh_at: float | None = None
    expires_at: float | None = None

    def __repr__(self) -> str:
        return f"StoredToken(used_at={self.used_at}, expires_at={self.expires_at})"


class _Entry(msgspec.Struct, frozen=True):
    secrets: str
    tokens: dict[str, StoredToken]


class _Document(msgspec.Struct, frozen=True):
    salt: str
    entries: dict[str, _Entry] = msgspec.field(default_factory=dict)


class TokenStore:
    """Keep the tokens of one caller at one base URL, in a file that others may share.

    Args:
        path: The file.
        base_url: Where the tokens are good.
        credentials: Whose they are: other secrets do not get them.
    """

    # Tokens come as objects that hide their values: a trace that shows local names shows no secret.

    def __init__(self, path: Path, base_url: str, credentials: Credentials) -> None:
        self._file = StateFile(path)
        who = f"{base_url}\0{credentials.client_id}\0{credentials.username}"
        self._key = hashlib.sha256(who.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        self._secrets = f"{credentials.client_secret}\0{credentials.password}"
        self._known: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return f"TokenStore({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """Return the file."""
        return self._file.path

    def load(self, kind: str) -> StoredToken | None:
        """Return a token, good or not; None where there is none, or the file cannot be believed."""
        return self._tokens(self._document()).get(kind)

    def save(self, kind: str, token: StoredToken) -> None:
        """Keep a token in place of the one before."""
        with self._file.locked():
            document = self._document()
            self._write(document, self._tokens(document) | {kind: token})

    def touch(self, kind: str, token: Token, used_at: float) -> None:
        """Note that a token was used."""
        with self._file.locked():
            document = self._document()
            tokens = self._tokens(document)
            held = tokens.get(kind)
            if held is not None and held.value == token.value:
                self._write(document, tokens | {kind: msgspec.structs.replace(held, used_at=used_at)})

    def drop(self, kind: str, token: Token) -> None:
        """Forget the token that was refused, unless another one has taken its place."""
        with self._file.locked():
            document = self._document()
            tokens = self._tokens(document)
            if kind in tokens and tokens[kind].value == token.value:
                self._write(document, {name: kept for name, kept in tokens.items() if name != kind})

    def _document(self) -> _Document:
        try:
            document = self._file.read(_Document) if self._file.is_private() else None
        except DamagedError:
            document = None
        return document or _Document(secrets.token_hex(16))

    def _tokens(self, document: _Document) -> dict[str, StoredToken]:
        entry = document.entries.get(self._key)
        return entry.tokens if entry is not None and entry.secrets == self._mark(document.salt) else {}

    def _mark(self, salt: str) -> str:
        if self._known is None or self._known[0] != salt:
            self._known = (salt, fingerprint(salt, self._secrets))
        return self._known[1]

    def _write(self, document: _Document, tokens: dict[str, StoredToken]) -> None:
        entries = document.entries | {self._key: _Entry(self._mark(document.salt), tokens)}
        try:
            self._file.write(_Document(document.salt, entries))
        except OSError as error:
            _logger.warning("tokens are not kept: %s cannot be written: %s", self.path, error.strerror)
