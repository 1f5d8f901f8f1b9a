"""Where things lie: the state directory, the store, the settings file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from upcall.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["config_path", "default_store", "state_dir"]


def state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Return the directory for what outlives a process: ``UPCALL_STATE_DIR``, else the user's own.

    Raises:
        SettingsError: The user has no directory.
    """
    env = os.environ if environ is None else environ
    named = env.get("UPCALL_STATE_DIR")
    if named:
        return _expanded(named)
    if base := env.get("XDG_STATE_HOME"):
        return Path(base) / "upcall"
    return Path(env.get("HOME") or _expanded("~")) / ".local" / "state" / "upcall"


def default_store(environ: Mapping[str, str] | None = None) -> str:
    """Return the store's URL: ``UPCALL_STORE``, else an SQLite file in the state directory."""
    env = os.environ if environ is None else environ
    return env.get("UPCALL_STORE") or f"sqlite:///{(state_dir(env) / 'inbox.db').absolute()}"


def config_path(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the settings file that ``UPCALL_CONFIG`` names, None where it names none."""
    env = os.environ if environ is None else environ
    named = env.get("UPCALL_CONFIG")
    return _expanded(named) if named else None


def _expanded(named: str) -> Path:
    """Put the user's directory in the place of ``~``."""
    try:
        return Path(named).expanduser()
    except RuntimeError:
        hint = "Set UPCALL_STATE_DIR to a directory of its own, and name other places without ~."
        raise SettingsError("This user has no home directory, and HOME is not set.", hint=hint) from None
