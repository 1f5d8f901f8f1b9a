"""Blanking a device's identifier in what is kept for other reasons."""

from __future__ import annotations

import re

__all__ = ["Blank"]


class Blank:
    """Put stars in the place of an identifier, where it stands alone and not within a longer one.

    In a body also where JSON writes some of its characters as escapes.

    Args:
        device_id: The identifier; an empty one is nowhere.
    """

    def __init__(self, device_id: str) -> None:
        self._is_empty = not device_id
        self._text = re.compile(rf"(?<![0-9A-Za-z]){re.escape(device_id)}(?![0-9A-Za-z])")
        characters = (rf"(?:{re.escape(letter)}|(?i:\\u{ord(letter):04x}))" for letter in device_id)
        self._body = re.compile(rf"(?<![0-9A-Za-z]){''.join(characters)}(?![0-9A-Za-z])".encode())

    def is_in(self, body: bytes | None) -> bool:
        """Tell whether a body names the device."""
        return not self._is_empty and body is not None and self._body.search(body) is not None

    def bytes(self, body: bytes) -> bytes:
        """Return a body of the same length that does not name it."""
        return self._body.sub(lambda match: b"*" * len(match[0]), body)

    def text(self, text: str) -> str:
        """Return a text of the same length that does not name it."""
        return self._text.sub(lambda match: "*" * len(match[0]), text)
