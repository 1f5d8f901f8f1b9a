"""A settings file: read once, with the line of each mistake in it."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Final

from upcall.errors import SettingsError
from upcall.settings.checking import Finding, checked_file
from upcall.settings.lines import Lines
from upcall.settings.tables import File
from upcall.settings.values import SettingsProblem

if TYPE_CHECKING:
    from pathlib import Path

    from upcall.settings.lines import Place

__all__ = ["SettingsFile", "read_file"]

_AT: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_NAME_WITHOUT_QUOTES: Final = re.compile(r"\s*name\s*=\s*\d")


class SettingsFile:
    """Hold what a settings file says, and what is wrong in it; `repr` shows neither.

    Args:
        path: The file, for messages.
        text: What stands in it.
    """

    def __init__(self, path: Path, text: str) -> None:
        self.path: Path = path
        self.tables: File = File()
        self._text = text
        self._findings: list[Finding] = []
        self._syntax: SettingsProblem | None = None
        try:
            self.tables, self._findings = checked_file(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            self._syntax = _syntax(str(error), text)
        except RecursionError:
            self._syntax = SettingsProblem(None, "its lists are too deep")

    def blame(self, place: Place, error: SettingsError) -> None:
        """Note that what stands somewhere in the file cannot be used.

        Args:
            place: The keys that lead there.
            error: Why.
        """
        self._findings.append(Finding(place, error.message.rstrip("."), error.hint))

    def problems(self) -> tuple[SettingsProblem, ...]:
        """Return what is wrong, in the order of the lines."""
        if self._syntax is not None:
            return (self._syntax,)
        if not self._findings:
            return ()
        lines = Lines(self._text)
        located = [_located(finding, lines) for finding in self._findings]
        return tuple(sorted(located, key=lambda problem: problem.line or 0))

    def refuse(self) -> None:
        """Raise the first thing that is wrong.

        Raises:
            SettingsError: Something is.
        """
        problems = self.problems()
        if not problems:
            return
        first, more = problems[0], len(problems) - 1
        where = f" at line {first.line}" if first.line is not None else ""
        rest = f" Mistakes that follow it: {more}." if more else ""
        raise SettingsError(f"The settings file {self.path} is wrong{where}: {first.text}.{rest}", hint=first.hint)


def read_file(path: Path) -> SettingsFile:
    """Read a settings file.

    Raises:
        SettingsError: It is not there, or cannot be read.
    """
    try:
        return SettingsFile(path, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"There is no settings file {path}.", hint="Correct --config or UPCALL_CONFIG.") from None
    except OSError as error:
        raise SettingsError(f"The settings file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"The settings file {path} is wrong at line {line}: it is not UTF-8 text.") from None


def _located(finding: Finding, lines: Lines) -> SettingsProblem:
    text = finding.text
    if finding.first is not None:
        text += f", first at line {lines.of(finding.first)}"
    return SettingsProblem(lines.of(finding.place), text, finding.hint, finding.account)


def _syntax(told: str, text: str) -> SettingsProblem:
    """Take the place out of what `tomllib` says; the end of the document is its last line."""
    lines = text.rstrip().split("\n")
    found = _AT.search(told)
    line = int(found[1]) if found and found[1] else len(lines)
    column = f" (column {found[2]})" if found and found[2] else " (at the end of the file)"
    hint = None
    if line <= len(lines) and _NAME_WITHOUT_QUOTES.match(lines[line - 1]):
        hint = 'An account\'s name stands in quotes: name = "0000123456-00001".'
    return SettingsProblem(line, _AT.sub("", told) + column, hint)
