"""Who calls: read from variables, or from files that variables name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from upcall.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Credentials", "credential_sources", "read_credentials", "read_secret_file"]

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
    """

    client_id: str | None = None
    client_secret: str | None = None
    username: str | None = None
    password: str | None = None
    session_token: str | None = None

    def __repr__(self) -> str:
        given = [name for name in self.__struct_fields__ if getattr(self, name)]
        return f"Credentials({', '.join(given)})"

    def missing(self) -> tuple[str, ...]:
        """Return the environment variables that a call still needs."""
        wanted = ["client_id", "client_secret"]
        if not self.session_token:
            wanted += ["username", "password"]
        return tuple(f"THINGSPACE_{name.upper()}" for name in wanted if not getattr(self, name))

    def unusable(self) -> tuple[str, ...]:
        """Return the environment variables whose values no request can carry."""
        token = self.session_token or ""
        given = ((name, getattr(self, name) or "") for name in self.__struct_fields__)
        wrong = [name for name, value in given if any("\ud800" <= character <= "\udfff" for character in value)]
        if "session_token" not in wrong and not (token.isascii() and token.isprintable() and " " not in token):
            wrong.append("session_token")
        return tuple(f"THINGSPACE_{name.upper()}" for name in wrong)


def read_credentials(environ: Mapping[str, str]) -> Credentials:
    """Read the credentials that the environment names.

    Raises:
        SettingsError: A ``…_FILE`` variable names a file that cannot be read.
    """
    return Credentials(**{name: _value(environ, _variable(name)) for name in Credentials.__struct_fields__})


def credential_sources(environ: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """Return which variable each credential is read from, None where it is not set; no value is shown.

    Args:
        environ: Variables to read instead of the process's own.
    """
    env = os.environ if environ is None else environ
    return {name: _source(env, _variable(name)) for name in Credentials.__struct_fields__}


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


def _value(env: Mapping[str, str], name: str) -> str | None:
    source = _source(env, name)
    if source is None or source != f"{name}_FILE":
        return env[source] if source else None
    return read_secret_file(Path(env[source]), source)
