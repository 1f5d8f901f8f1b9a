"""Where log lines go: ``UPCALL_LOG`` sends them to stderr, ``UPCALL_LOG_FILE`` to a file."""

from __future__ import annotations

import logging
import os
import sys

from upcall.cli.output import visible
from upcall.errors import SettingsError

__all__ = ["LEVELS", "configure_logging"]

LEVELS = ("debug", "info", "warning", "error")

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_ours: list[logging.Handler] = []


def configure_logging(default: int | None = None) -> None:
    """Send log lines where the environment wants them, in place of where an earlier call sent them.

    Args:
        default: From which level on they go to stderr where ``UPCALL_LOG`` does not say; None for not at all.

    Raises:
        SettingsError: The level is none, or the file cannot be written.
    """
    root = logging.getLogger()
    while _ours:
        old = _ours.pop()
        root.removeHandler(old)
        old.close()
    level = _level()
    path = os.environ.get("UPCALL_LOG_FILE")
    if level is not None or default is not None:
        _ours.append(logging.StreamHandler(sys.stderr))
        _ours[-1].setLevel(level or default or logging.INFO)
    if path:
        _ours.append(_file(path))
        _ours[-1].setLevel(level or logging.DEBUG)
    for handler in _ours:
        handler.setFormatter(_Formatter(_FORMAT))
        root.addHandler(handler)
    if _ours:
        root.setLevel(min(handler.level for handler in _ours))


class _Formatter(logging.Formatter):
    """Escape what a terminal would obey: a handler's error may quote a callback, and callbacks come from anybody."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), keep="\n\t")


def _level() -> int | None:
    name = os.environ.get("UPCALL_LOG", "").strip().lower()
    if not name:
        return None
    if name not in LEVELS:
        raise SettingsError(f"UPCALL_LOG is {name!r}.", hint=f"Set it to one of {', '.join(LEVELS)}, or unset it.")
    return logging.getLevelNamesMapping()[name.upper()]


def _file(path: str) -> logging.Handler:
    try:
        return logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"UPCALL_LOG_FILE names {path}, which cannot be written: {error.strerror}.", hint="Correct or unset it."
        ) from None
