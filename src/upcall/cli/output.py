"""How commands speak: data on stdout, progress and logs on stderr, nothing folded or coloured in a pipe."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from upcall.errors import UpcallError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console
    from rich.progress import Progress

__all__ = [
    "MOST",
    "JsonOption",
    "StoreOption",
    "emit",
    "error_console",
    "line",
    "log",
    "progress_bar",
    "ready",
    "table",
    "visible",
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON: one object, or one a line.")]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="The inbox, such as sqlite:////var/lib/upcall/inbox.db.",
        show_default="UPCALL_STORE, else in the state directory",
    ),
]

MOST = 2**63 - 1
"""The largest number that a store knows."""

_PADDED_TO = 60
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves a terminal's cursor, colours it, turns its text around, or is no character at all."""


def visible(text: str, *, keep: str = "") -> str:
    r"""Write what a terminal would obey as its escape, such as ``\x1b``: callbacks come from anybody.

    Args:
        text: Any text.
        keep: Control characters to leave as they are.
    """
    return _UNSEEN.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def emit(document: Any) -> None:
    """Print one JSON document on one line of stdout."""
    text = json.dumps(document, ensure_ascii=not _speaks_unicode(sys.stdout), separators=(", ", ": "))
    _print(_UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text), sys.stdout)


def line(text: str) -> None:
    """Print a line of data on stdout, what a terminal would obey in it escaped."""
    _print(visible(text, keep="\n\t"), sys.stdout)


def log(text: str) -> None:
    """Print one line for a person on stderr; where nobody can read it, it is not worth failing for."""
    with contextlib.suppress(OSError, UpcallError):
        _print(visible(text, keep="\n\t"), sys.stderr)


def ready(url: str, stdout: TextIO | None = None) -> None:
    """Say that a server accepts requests: the one line that a server prints on stdout.

    A server whose stdout nobody reads serves all the same.

    Args:
        url: Where it accepts them.
        stdout: The stdout to print it on, where `sys.stdout` stands for another.
    """
    stdout = stdout or sys.stdout
    try:
        _print(f"ready {url}", stdout)
    except (OSError, UpcallError):
        log("upcall: ready, but the ready line cannot be written to stdout.")
        with contextlib.suppress(OSError, AttributeError):  # it may be None
            stdout.close()  # else the interpreter tries again at its end, and complains


def _print(text: str, stream: TextIO | None) -> None:
    if stream is None:  # the process was started with it closed
        raise UpcallError("there is no stdout to write to.")
    if not _speaks_unicode(stream):
        text = text.encode(stream.encoding, "backslashreplace").decode(stream.encoding)
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        with contextlib.suppress(OSError):
            stream.close()  # else the interpreter tries again at its end, and exits with a status of its own
        raise UpcallError(f"stdout cannot be written: {error.strerror}.") from error


def _speaks_unicode(stream: TextIO | None) -> bool:
    encoding = getattr(stream, "encoding", None)  # a stream of a test's has none
    return not encoding or encoding.lower().startswith("utf")


def error_console() -> Console:
    """Return a Rich console on stderr; it colours and animates on a terminal only."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def progress_bar(console: Console, *, transient: bool = False) -> Progress:
    """Return a bar that says what is done, how many of how many, and since when; it moves on a terminal only.

    Args:
        console: Where it is shown.
        transient: Wipe it away at its end.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=transient, disable=not console.is_terminal)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in aligned columns, never folded: a terminal cuts no field, a pipe reads whole lines.

    A very long field is printed whole, and does not make its column as wide in the other rows.
    """
    cells = [tuple(headers), *(tuple(map(visible, row)) for row in rows)]
    widths = [min(_PADDED_TO, max(len(row[column]) for row in cells)) for column in range(len(headers))]
    for row in cells:
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
