"""Where things lie: the state directory, the store, the settings file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from upcall.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["config_path", "default_store", "expanded", "is_profile_file", "state_dir"]


def state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Return the directory for what outlives a process: ``UPCALL_STATE_DIR``, else the user's own.

    Raises:
        SettingsError: The user has no directory.
    """
    env = os.environ if environ is None else environ
    named = env.get("UPCALL_STATE_DIR")
    if named:
        return expanded(named)
    if base := env.get("XDG_STATE_HOME"):
        return Path(base) / "upcall"
    return Path(env.get("HOME") or expanded("~")) / ".local" / "state" / "upcall"


def default_store(environ: Mapping[str, str] | None = None) -> str:
    """Return the store's URL: ``UPCALL_STORE``, else an SQLite file in the state directory."""
    env = os.environ if environ is None else environ
    return env.get("UPCALL_STORE") or f"sqlite:///{(state_dir(env) / 'inbox.db').absolute()}"


def config_path(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the settings file that ``UPCALL_CONFIG`` names, None where it names none."""
    env = os.environ if environ is None else environ
    named = env.get("UPCALL_CONFIG")
    return expanded(named) if named else None


def expanded(named: str | os.PathLike[str]) -> Path:
    """Put a user's home directory in the place of ``~``.

    Raises:
        SettingsError: There is none.
    """
    try:
        return Path(named).expanduser()
    except RuntimeError:
        hint = "Write the place without ~, or set HOME or UPCALL_STATE_DIR."
        raise SettingsError(f"{named} cannot be found: there is no such home directory.", hint=hint) from None


def is_profile_file(text: str) -> bool:
    """Tell whether a profile's text is the path of a file, and no name."""
    return text.endswith(".toml")
