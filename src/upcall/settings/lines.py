"""In which line of a TOML text something stands.

No parser of our own: `tomllib` says what a piece of the text means. A statement is the shortest piece that it takes,
so the text falls into statements, and each of them alone says what it gives a value to.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Lines", "Place"]

Place = tuple[str | int, ...]
"""The keys and indexes that lead to a value, such as ``("accounts", 1, "url")``."""

_ENDS: Final = ("]", "}", '"""', "'''")
"""One of them stands in the last line of each statement that has more lines than one."""

_GOES_ON: Final = ("]", "}", "{", ",")
"""No statement begins so: a line before one that does ends none."""

_CLOSING: Final = ("", "]", "}]", "]}]", "]]", "}", "]}", "]}]}")
"""What is missing after the first lines of a list or an inline table."""


class Lines:
    """Find the lines of a text.

    Args:
        text: TOML that can be read.
    """

    def __init__(self, text: str) -> None:
        self._lines = text.replace("\r\n", "\n").split("\n")
        self._found: dict[Place, tuple[int, int]] = {}
        self._sections: dict[Place, Place] = {}
        self._lengths: dict[Place, int] = {}
        section: Place = ()
        for start, end, document in self._statements():
            if self._lines[start].lstrip().startswith("["):
                section = self._section(document)
                self._note(section, start, end, section)
            else:
                for place in _places(document):
                    self._note((*section, *place), start, end, section)

    def of(self, place: Place) -> int | None:
        """Return the line in which a value is given, counted from 1; where there is none, the nearest around it.

        Args:
            place: Where the value stands in the document.
        """
        while place and place not in self._found:
            place = place[:-1]
        if not place:
            return None
        start, end = self._found[place]
        wanted = place[len(self._sections[place]) :]
        is_element = any(isinstance(key, int) for key in wanted)
        return (self._within(wanted, start, end) if is_element else start) + 1

    def _statements(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Yield each statement: its first line, the one after its last, and what it means alone."""
        start = 0
        for end in range(1, len(self._lines) + 1):
            if end - start > 1 and not self._may_end(end):
                continue
            document = _parsed("\n".join(self._lines[start:end]))
            if document is not None:
                yield start, end, document
                start = end

    def _may_end(self, end: int) -> bool:
        """Tell whether a statement of several lines can end before a line: saves reading long ones again and again."""
        if not any(mark in self._lines[end - 1] for mark in _ENDS):
            return False
        following = next((line for line in self._lines[end:] if line.strip()), "")
        return not following.lstrip().startswith(_GOES_ON)

    def _section(self, document: Any) -> Place:
        """Return where the statements after a header stand; a header of a list adds an element to it."""
        place: Place = ()
        while document:
            ((key, document),) = document.items()
            place = (*place, key)
            if isinstance(document, list):
                self._lengths[place] = self._lengths.get(place, 0) + 1
                document = document[0]
            if place in self._lengths:
                place = (*place, self._lengths[place] - 1)
        return place

    def _note(self, place: Place, start: int, end: int, section: Place) -> None:
        """Note where a value, and whatever holds it, is given first."""
        while place and place not in self._found:
            self._found[place] = (start, end)
            self._sections[place] = section
            place = place[:-1]

    def _within(self, wanted: Place, start: int, end: int) -> int:
        """Return the line of a statement with which an element of its value comes, if the rest were closed."""
        low, high = start + 1, end
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._is_there(wanted, start, middle) else (middle + 1, high)
        return low - 1

    def _is_there(self, wanted: Place, start: int, end: int) -> bool:
        """Tell whether a value stands in the first lines of a statement, or in fewer where those cannot be closed."""
        for cut in range(end, start, -1):
            text = "\n".join(self._lines[start:cut])
            for closing in _CLOSING:
                document = _parsed(f"{text}\n{closing}")
                if document is not None:
                    return wanted in set(_places(document))
        return False


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _places(value: Any) -> Iterator[Place]:
    """Yield where everything in a value stands."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in items:
        yield (key,)
        for place in _places(held):
            yield (key, *place)
