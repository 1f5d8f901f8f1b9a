"""JSON out of any bytes: strictly first, then as leniently as JSON can be read."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

import msgspec

__all__ = ["MAX_DEPTH", "bytes_of", "load_json", "nests_too_deeply"]

MAX_DEPTH: Final = 128
"""Containers inside one another beyond which a body is not read: the known messages need four.

A fixed depth makes the answer the same on every interpreter and however deep the caller's stack is, and lets all
that handles a decoded value recurse.
"""

_TOO_DEEP: Final = "JSON nested too deeply to read"
_NO_BRACKET_NOR_QUOTE: Final = bytes(set(range(256)) - set(b'[]{}"'))
_AS_LISTS: Final = bytes.maketrans(b"{}", b"[]")
_RUN: Final = re.compile(rb"\[+|\]+")
_MANY_LEAVES: Final = 400_000
"""From here on it costs less to cut all leaves off than to walk past each of them."""

_decode = msgspec.json.Decoder().decode


def bytes_of(raw: bytes | bytearray | memoryview | str) -> bytes:
    """Return a body as bytes, whatever it was given as; half characters of a text stay what they are."""
    return raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else bytes(raw)


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
    text = body
    try:
        document = _decode(body)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except (msgspec.DecodeError, UnicodeError):
        text, document = _load_leniently(body)
    if nests_too_deeply(text):
        raise ValueError(_TOO_DEEP)
    return _escape_surrogates(document) if text is not body and _may_hold_surrogates(text) else document


def nests_too_deeply(text: bytes) -> bool:
    """Tell whether a JSON text nests deeper than `MAX_DEPTH`, without building what it says.

    Args:
        text: A whole JSON document in UTF-8.
    """
    if text.count(b"{") + text.count(b"[") <= MAX_DEPTH:
        return False
    brackets = _brackets(text)
    depth = 0
    while brackets.count(b"[]") > _MANY_LEAVES:
        brackets = brackets.replace(b"[]", b"")
        depth += 1
    for run in _RUN.finditer(brackets):
        first, end = run.span()
        if brackets[first] == ord("["):
            depth += end - first
            if depth > MAX_DEPTH:
                return True
        else:
            depth -= end - first
    return depth > MAX_DEPTH


def _brackets(text: bytes) -> bytes:
    """Keep only the brackets that open and close containers, all of them as a list's."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(rb"\"", b"")
    # Taking out two quotes that meet leaves everything else inside or outside of a string, as it was.
    kept = text.translate(_AS_LISTS, _NO_BRACKET_NOR_QUOTE).replace(b'""', b"")
    return b"".join(kept.split(b'"')[::2])


def _load_leniently(body: bytes) -> tuple[bytes, Any]:
    """Return the body's text in UTF-8, and what it says."""
    try:
        text = body.decode(json.detect_encoding(body), "surrogatepass")
        document = json.loads(
            text, strict=False, parse_int=_lenient_int, parse_float=_lenient_float, parse_constant=str
        )
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not text: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}" if body.strip() else "empty body") from None
    return text.encode("utf-8", "surrogatepass"), document


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


def _may_hold_surrogates(text: bytes) -> bool:
    return b"\xed" in text or b"\\ud" in text or b"\\uD" in text


def _escape_surrogates(value: Any) -> Any:
    """Replace half characters, which no UTF-8 can hold, by their escapes."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escape_surrogates(key): _escape_surrogates(item) for key, item in value.items()}
    return [_escape_surrogates(item) for item in value] if isinstance(value, list) else value
