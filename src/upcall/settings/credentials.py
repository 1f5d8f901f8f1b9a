"""Who calls: read from variables, or from files that variables name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CREDENTIAL_FIELDS", "Credentials", "read_credentials", "read_secret_file"]

CREDENTIAL_FIELDS: Final = ("client_id", "client_secret", "username", "password", "session_token")
"""What ThingSpace wants of a caller, by the names of the fields of `Credentials`."""

_SDK_NAMES = {
    "THINGSPACE_CLIENT_ID": "THINGSPACE_OAUTH_OAUTH_CLIENT_ID",
    "THINGSPACE_CLIENT_SECRET": "THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET",
    "THINGSPACE_SESSION_TOKEN": "VZ_M2M_TOKEN_VZ_M2M_TOKEN",
}
"""The official SDK's own names for the same values."""


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what ThingSpace wants of a caller; `repr` shows none of it.

    Args:
        client_id: The OAuth2 key.
        client_secret: The OAuth2 secret.
        username: The UWS user name of the session login.
        password: Its password.
        session_token: A fixed VZ-M2M token, used instead of a login and never replaced.
        sources: Pairs of a field and of the variable or file that it is read from, for errors; no secret.
        table: Which ``[credentials.…]`` table of a settings file says so, None where none does.
    """

    client_id: str | None = None
    client_secret: str | None = None
    username: str | None = None
    password: str | None = None
    session_token: str | None = None
    sources: tuple[tuple[str, str], ...] = ()
    table: str | None = None

    def __repr__(self) -> str:
        return f"Credentials({', '.join(name for name in CREDENTIAL_FIELDS if getattr(self, name))})"

    def name_of(self, field: str) -> str:
        """Return what to correct or to set for a field: where it is read from, or where it could be."""
        source = dict(self.sources).get(field)
        if source is not None:
            return source
        return f"{field}_env of [credentials.{self.table}]" if self.table else _variable(field)

    def missing(self, *, session: bool = True) -> tuple[str, ...]:
        """Return the names of what a call still needs, as `name_of` does.

        Args:
            session: Whether the call needs a session token, as most do.
        """
        wanted = ["client_id", "client_secret"]
        if session and not self.session_token:
            wanted += ["username", "password"]
        return tuple(self.name_of(field) for field in wanted if not getattr(self, field))

    def unusable(self) -> tuple[str, ...]:
        """Return the names of what no request can carry, as `name_of` does."""
        token = self.session_token or ""
        given = ((name, getattr(self, name) or "") for name in CREDENTIAL_FIELDS)
        wrong = [name for name, value in given if any("\ud800" <= character <= "\udfff" for character in value)]
        if "session_token" not in wrong and not (token.isascii() and token.isprintable() and " " not in token):
            wrong.append("session_token")
        return tuple(self.name_of(field) for field in wrong)


def read_credentials(environ: Mapping[str, str]) -> Credentials:
    """Read the credentials that the environment names.

    Raises:
        SettingsError: A ``…_FILE`` variable names a file that cannot be read.
    """
    named = {field: _source(environ, _variable(field)) for field in CREDENTIAL_FIELDS}
    sources = {field: source for field, source in named.items() if source is not None}
    return Credentials(
        **{field: _value(environ, source) for field, source in sources.items()}, sources=tuple(sources.items())
    )


def read_secret_file(path: Path, named_by: str) -> str | None:
    """Read a file that holds one secret; None where it is empty.

    Args:
        path: The file.
        named_by: Which variable or setting names it, for the error.

    Raises:
        SettingsError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise SettingsError(
            f"{named_by} names {path}, which cannot be read: {reason}.", hint="Correct the path or unset it."
        ) from None


def _variable(name: str) -> str:
    return f"THINGSPACE_{name.upper()}"


def _source(env: Mapping[str, str], name: str) -> str | None:
    """Return the variable that holds a secret: its own, its ``_FILE`` twin, or the official SDK's."""
    return next((key for key in (name, f"{name}_FILE", _SDK_NAMES.get(name)) if key and env.get(key)), None)


def _value(env: Mapping[str, str], source: str) -> str | None:
    return read_secret_file(Path(env[source]), source) if source.endswith("_FILE") else env[source]
