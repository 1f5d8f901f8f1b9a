"""The provider's times: three formats, one value, the text always kept."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

__all__ = ["ProviderTime", "parse_time", "text_of_micros"]

_ISO: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,12})?)?(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)
_GO: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?) ([+-][0-9]{4})"
    r"(?: [A-Z]{2,5}| [+-][0-9]{2,4})?(?: m=[+-][0-9.]{1,24})?"
)
_RFC_822: Final = re.compile(
    r"(?:[A-Za-z]{3}, )?[0-9]{1,2} [A-Za-z]{3} [0-9]{4} [0-9]{2}:[0-9]{2}(?::[0-9]{2})?"
    r"(?: (?:[A-Z]{1,5}|[+-][0-9]{4}))?"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class ProviderTime(msgspec.Struct, frozen=True):
    """Hold a time as the provider wrote it, and as it was understood.

    Args:
        text: The provider's own text.
        micros: UTC microseconds since 1970, None where the text could not be read.
        zone_assumed: Whether the text named no zone and UTC was assumed.
    """

    text: str
    micros: int | None = None
    zone_assumed: bool = False


def parse_time(text: str) -> ProviderTime:
    """Read a time in ISO 8601, in Go's format or in RFC 822's; never fail.

    Args:
        text: What the provider wrote, such as ``2021-06-03 00:03:56.079 +0000 UTC``.

    Source: SDK examples mix ISO 8601 with Go's format; V3 texts hold RFC 822 times (documented).
    """
    try:
        moment = _read(text.strip())
        if moment is None:
            return ProviderTime(text)
        assumed = moment.tzinfo is None
        utc = moment.replace(tzinfo=UTC) if assumed else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return ProviderTime(text)
    return ProviderTime(text, (utc - _EPOCH) // _MICROSECOND, assumed)


def text_of_micros(micros: int) -> str:
    """Write UTC microseconds since 1970 as ISO 8601 with a Z.

    Raises:
        OverflowError: They lie outside the years 1 to 9999, where no result of `parse_time` does.
    """
    return (_EPOCH + timedelta(microseconds=micros)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _read(text: str) -> datetime | None:
    """Read a time, naive where it names no zone that is known."""
    if _ISO.fullmatch(text):
        return datetime.fromisoformat(text.upper())
    if go_time := _GO.fullmatch(text):
        return datetime.fromisoformat(f"{go_time[1]}{go_time[2]}")
    return parsedate_to_datetime(text) if _RFC_822.fullmatch(text) else None
