"""What an output may show of secrets and of personal data."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["BLANK", "blank_password", "blank_told_password", "mask_device", "mask_token", "mask_url_token", "scrub"]

BLANK = "***"
"""What stands where a secret stood."""

_MIN_SECRET = 4
"""A shorter secret is part of any text, and blanking it would blank the text."""
_SHOWN_OF_A_TOKEN = 4
_SHOWN_OF_A_DEVICE = 4

_STRING = r'"(?:[^"\\]++|\\.)*+"?'
"""A JSON string; the last one of a body that was cut off has no end."""

_MEMBER = re.compile(rf"({_STRING})(\s*:\s*)?", re.DOTALL)
_LOOSE_MEMBER = re.compile(r'("password")(\s*:\s*)', re.IGNORECASE)
_SCALAR = re.compile(rf"{_STRING}|[^\s,\]}}\"]+", re.DOTALL)
_NOTHING = {'""', "null", "[]", "{}", ""}
# Quoted in other text a body is written anew, in Python's or JSON's way, its quotes with one more backslash each time;
# a pair of key and value is quoted with a comma, unless another key follows.
# A string without an end takes the rest of the text with it, a list or an object the rest of its line.
_KEY_ENDS = r"""\\*["']?\s*[:=]"""
_TOLD = re.compile(
    rf"""(password(?:{_KEY_ENDS}|\\*["']\s*,(?!\s*[bu]?(?:\\*["'])?password(?:{_KEY_ENDS}|\\*["']\s*,)))\s*)"""
    r"""([bu]?(\\*["']).*?(?:(?<!\\)\3|\Z)|[\[{(][^\n]*|[^\s,;&\]})]+)""",
    re.DOTALL | re.IGNORECASE,
)
_decoder = json.JSONDecoder(strict=False)


def scrub(text: str | None, secrets: Iterable[str]) -> str | None:
    """Blank known secrets in somebody else's text.

    Args:
        text: The text.
        secrets: All that may not be shown. One may be a part of another or overlap with it: what any of them covers
            is blanked.
    """
    if text is None:
        return None
    covered = sorted(span for secret in set(secrets) if len(secret) >= _MIN_SECRET for span in _spans(text, secret))
    parts, shown_from = [], 0
    for start, end in covered:
        if start >= shown_from:
            parts += [text[shown_from:start], BLANK]
        shown_from = max(shown_from, end)
    return "".join((*parts, text[shown_from:]))


def _spans(text: str, secret: str) -> Iterator[tuple[int, int]]:
    """Return where a secret stands in a text, each time that it does."""
    start = text.find(secret)
    while start >= 0:
        yield start, start + len(secret)
        start = text.find(secret, start + 1)


def mask_token(token: str) -> str:
    """Show the first four characters of a token, and no more than a quarter of it."""
    shown = token[: min(_SHOWN_OF_A_TOKEN, len(token) // 4)]
    return f"{shown}{BLANK}"


def mask_url_token(url: str) -> str:
    """Mask the last path segment of a callback URL, where its token stands; leave out user, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return BLANK
    path = parts.path.rstrip("/")
    head, slash, token = path.rpartition("/")
    masked = f"{head}{slash}{mask_token(token)}" if token else ""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, masked + parts.path[len(path) :], "", ""))


def mask_device(device_id: str) -> str:
    """Show the last four characters of a device identifier, for logs."""
    return device_id if len(device_id) <= _SHOWN_OF_A_DEVICE else f"…{device_id[-_SHOWN_OF_A_DEVICE:]}"


def blank_password(raw: bytes) -> bytes:
    """Blank the password that a V1 callback carries in clear, leaving every other byte as it is.

    Every member named ``password`` is blanked, at any depth, in any case, with its key escaped or not, and whatever
    its value is; so is the rest of a body that was cut off within one.

    Args:
        raw: A callback's body, any bytes.

    Returns:
        The same bytes where there is no password, or an empty one.

    Source: V1 messages echo the registered password in plain text (documented).
    """
    encoding = json.detect_encoding(raw)
    if encoding.startswith("utf-8"):
        return _blank_in(raw, "latin-1")
    blanked = _blank_in(raw, encoding)
    return blanked if _is_json(raw) else _blank_in(blanked, "latin-1")


def blank_told_password(text: str) -> str:
    """Blank the passwords in a text that may quote a V1 callback, or parts of it, in Python's or JSON's way.

    Args:
        text: Somebody else's words, such as a traceback.

    Source: V1 messages echo the registered password in plain text (documented).
    """
    return _TOLD.sub(rf'\1"{BLANK}"', text) if "password" in text.lower() else text


def _blank_in(raw: bytes, encoding: str) -> bytes:
    """Blank the passwords of a body in one encoding.

    Latin-1 stands for UTF-8 too: it reads any byte and gives it back, and what it misreads stands within strings.
    """
    try:
        text = raw.decode(encoding, "surrogatepass")
    except UnicodeDecodeError:
        return raw
    if "password" not in text.lower() and "\\u" not in text:
        return raw
    blanked = _blank(text, _MEMBER)
    if not _is_json(raw):
        # Where its strings begin is anybody's guess.
        blanked = _blank(blanked, _LOOSE_MEMBER)
    return raw if blanked == text else blanked.encode(encoding, "surrogatepass")


def _blank(text: str, members: re.Pattern[str]) -> str:
    """Replace the value of each member whose key is `password`."""
    kept = []
    start = position = 0
    while member := members.search(text, position):
        position = member.end()
        if member[2] is None or not _is_password(member[1]):
            continue
        end = _end_of_value(text, position)
        if text[position:end] not in _NOTHING:
            kept += [text[start:position], f'"{BLANK}"']
            start = end
        position = end
    return "".join((*kept, text[start:]))


def _is_password(key: str) -> bool:
    try:
        return str(_decoder.decode(key)).casefold() == "password"
    except ValueError:
        return False


def _end_of_value(text: str, start: int) -> int:
    """Find where a value ends; one that does not end takes the rest of the text with it."""
    if text[start : start + 1] not in {"{", "["}:
        scalar = _SCALAR.match(text, start)
        return scalar.end() if scalar else start
    try:
        return _decoder.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return len(text)


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw, strict=False)
    except (ValueError, RecursionError):
        return False
    return True
