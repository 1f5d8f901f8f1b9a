"""Times, sizes and counts as people write and read them."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["parse_duration", "parse_moment", "words_of_bytes", "words_of_count", "words_of_micros"]

_SECOND: Final = 1_000_000
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION: Final = re.compile(r"([0-9]{1,6})\s*([smhdw])(?:\s+ago)?", re.IGNORECASE)
_KIBI: Final = 1024


def parse_moment(text: str, now: int, *, option: str) -> int:
    """Read a point in time: RFC 3339, a date, or how long ago.

    Args:
        text: Such as ``2026-08-01T03:00:00Z``, ``2026-08-01``, ``15m`` or ``3d ago``; without a zone it is UTC.
        now: UTC microseconds.
        option: The option that it was given to, for the error.

    Returns:
        UTC microseconds.

    Raises:
        SettingsError: It is no such time.
    """
    from upcall.errors import SettingsError
    from upcall.thingspace import parse_time

    ago = _duration(text)
    if ago is not None:
        return now - ago
    moment = parse_time(text).micros
    if moment is None:
        raise SettingsError(
            f"{option} is {text!r}, which is no time.",
            hint="Write 15m, 2h or 3d for so long ago, or a time such as 2026-08-01T03:00:00Z.",
        )
    return moment


def parse_duration(text: str, *, option: str) -> int:
    """Read a length of time, such as ``24h``, in microseconds.

    Args:
        text: A number and one of s, m, h, d, w.
        option: The option that it was given to, for the error.

    Raises:
        SettingsError: It is no length of time.
    """
    from upcall.errors import SettingsError

    length = _duration(text)
    if length is None:
        raise SettingsError(f"{option} is {text!r}, which is no length of time.", hint="Write 90s, 15m, 24h or 7d.")
    return length


def _duration(text: str) -> int | None:
    found = _DURATION.fullmatch(text.strip())
    return int(found[1]) * _UNITS[found[2].lower()] * _SECOND if found else None


def words_of_micros(micros: int) -> str:
    """Write a length of time with its two largest units, such as ``3 h 20 min``."""
    seconds = abs(micros) / _SECOND
    if seconds < _UNITS["m"]:
        return f"{seconds:.1f} s"
    for unit, name, part, part_name in (("d", "d", "h", "h"), ("h", "h", "m", "min"), ("m", "min", "s", "s")):
        whole, rest = divmod(int(seconds), _UNITS[unit])
        if whole:
            smaller = rest // _UNITS[part]
            return f"{whole} {name} {smaller} {part_name}" if smaller else f"{whole} {name}"
    raise AssertionError


def words_of_count(number: int, one: str, many: str | None = None) -> str:
    """Write how many there are of something.

    Args:
        number: How many.
        one: The word for one of them.
        many: The word for several, where it is not the same with an s.
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def words_of_bytes(count: int) -> str:
    """Write a number of bytes in the largest unit that it reaches, such as ``12.3 MiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _KIBI:
            return f"{size:.1f} {unit}" if unit != "B" else f"{count} B"
        size /= _KIBI
    return f"{size:.1f} TiB"
