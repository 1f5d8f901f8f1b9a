"""Where log lines go, and in which form.

``UPCALL_LOG`` sends them to stderr, ``UPCALL_LOG_FILE`` to a file; ``UPCALL_LOG_FORMAT`` makes each a JSON object.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any

from upcall.cli.output import visible
from upcall.errors import SettingsError

__all__ = ["FORMATS", "LEVELS", "configure_logging"]

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_ours: list[logging.Handler] = []


def configure_logging(default: int | None = None) -> None:
    """Send log lines where the environment wants them, in place of where an earlier call sent them.

    Args:
        default: From which level on they go to stderr where ``UPCALL_LOG`` does not say; None for not at all.

    Raises:
        SettingsError: The level or the format is none, or the file cannot be written.
    """
    formatter = _formatter()
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
        handler.setFormatter(formatter)
        root.addHandler(handler)
    if _ours:
        root.setLevel(min(handler.level for handler in _ours))


class _TextFormatter(logging.Formatter):
    """Escape what a terminal would obey: a handler's error may quote a callback, and callbacks come from anybody."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), keep="\n\t")


class _JsonFormatter(logging.Formatter):
    """Make one JSON object of a record, with the members that its `upcall_fields` adds."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        document: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _whole(record.getMessage()),
            **getattr(record, "upcall_fields", {}),
        }
        if record.exc_info:
            document["error"] = _whole(self.formatException(record.exc_info))
        return json.dumps(document, default=str)  # which escapes all but the visible characters of ASCII


def _whole(text: str) -> str:
    """Write out halves of characters, such as of a file's name, which not every reader of JSON takes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _formatter() -> logging.Formatter:
    return _JsonFormatter() if _choice("UPCALL_LOG_FORMAT", FORMATS) == "json" else _TextFormatter(_FORMAT)


def _level() -> int | None:
    name = _choice("UPCALL_LOG", LEVELS)
    return logging.getLevelNamesMapping()[name.upper()] if name else None


def _choice(variable: str, choices: tuple[str, ...]) -> str:
    word = os.environ.get(variable, "").strip().lower()
    if word and word not in choices:
        raise SettingsError(f"{variable} is {word!r}.", hint=f"Set it to one of {', '.join(choices)}, or unset it.")
    return word


def _file(path: str) -> logging.Handler:
    try:
        return logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"UPCALL_LOG_FILE names {path}, which cannot be written: {error.strerror}.", hint="Correct or unset it."
        ) from None
