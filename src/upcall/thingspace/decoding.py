"""JSON out of any bytes: strictly first, then as leniently as JSON can be read."""

from __future__ import annotations

import json
import math
from typing import Any, Final

import msgspec

__all__ = ["MAX_DEPTH", "load_json", "may_nest_too_deeply"]

MAX_DEPTH: Final = 128
"""Containers inside one another beyond which a body is not read: the known messages need four.

A fixed depth makes the answer the same on every interpreter and however deep the caller's stack is, and lets all
that handles a decoded value recurse.
"""

_TOO_DEEP: Final = "JSON nested too deeply to read"
_CONTAINERS: Final = (dict, list)
_decode = msgspec.json.Decoder().decode


def load_json(body: bytes) -> Any:
    """Decode a body; what comes out holds only text that UTF-8 can hold and only finite numbers.

    Read beyond strict JSON are UTF-16 and UTF-32, a byte order mark, control characters in strings, lone
    surrogates (kept as their escapes), and NaN and numbers out of range (kept as their text).

    Args:
        body: Any bytes.

    Raises:
        ValueError: They are no JSON, or nested deeper than `MAX_DEPTH`; the message says which, and shows none of
            the body.
    """
    try:
        document = _decode(body)
        lenient = False
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except (msgspec.DecodeError, UnicodeError):
        document = _load_leniently(body)
        lenient = True
    if may_nest_too_deeply(body) and _nests_too_deeply(document):
        raise ValueError(_TOO_DEEP)
    return _escape_surrogates(document) if lenient else document


def may_nest_too_deeply(body: bytes) -> bool:
    """Tell whether a body opens so many containers that they could exceed `MAX_DEPTH`; cheap, and never wrongly no."""
    return body.count(b"{") + body.count(b"[") > MAX_DEPTH


def _load_leniently(body: bytes) -> Any:
    try:
        return json.loads(body, strict=False, parse_int=_lenient_int, parse_float=_lenient_float, parse_constant=str)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not text: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}" if body.strip() else "empty body") from None


def _lenient_int(digits: str) -> int | str:
    """Read an integer of any length: one past Python's limit on digits stays text."""
    try:
        return int(digits)
    except ValueError:
        return digits


def _lenient_float(digits: str) -> float | str:
    """Read a number of any size: one that is out of range stays text."""
    number = float(digits)
    return number if math.isfinite(number) else digits


def _nests_too_deeply(document: Any) -> bool:
    level = [document] if isinstance(document, _CONTAINERS) else []
    for _ in range(MAX_DEPTH):
        level = [
            child
            for holder in level
            for child in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(child, _CONTAINERS)
        ]
        if not level:
            return False
    return True


def _escape_surrogates(value: Any) -> Any:
    """Replace half characters, which no UTF-8 can hold, by their escapes."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escape_surrogates(key): _escape_surrogates(item) for key, item in value.items()}
    return [_escape_surrogates(item) for item in value] if isinstance(value, list) else value
