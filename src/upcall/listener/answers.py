"""The answers that a listener gives: constant bytes, made once, that reflect nothing of the request."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec

__all__ = ["CONTINUE", "DISCARD_FACTOR", "FAILED", "TOO_LARGE", "Answer", "answer"]

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
DISCARD_FACTOR: Final = 8
"""How many times the cap a body is read on and thrown away, so that its client hears the answer and no reset."""
_JSON: Final = "application/json"


class Answer(msgspec.Struct, frozen=True):
    """Hold an answer, and its bytes as they go on the wire.

    Args:
        status: Its status.
        headers: Its headers, as an ASGI server takes them.
        body: Its body.
        keep: The bytes where the connection goes on.
        close: The bytes where it ends.
        head_keep: As `keep`, to HEAD.
        head_close: As `close`, to HEAD.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    keep: bytes
    close: bytes
    head_keep: bytes
    head_close: bytes

    def wire(self, *, head: bool, close: bool) -> bytes:
        """Return its bytes.

        Args:
            head: Whether HEAD was asked, which is answered without a body.
            close: Whether the connection ends with it.
        """
        if head:
            return self.head_close if close else self.head_keep
        return self.close if close else self.keep


def answer(status: int, body: bytes, *headers: str, content_type: str = _JSON) -> Answer:
    """Make an answer.

    Args:
        status: The status.
        body: The body.
        headers: Further lines, such as ``Allow: GET``.
        content_type: What the body is.
    """
    lines = [f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *headers]
    pairs = [line.encode().partition(b": ") for line in lines]
    lines.insert(0, f"HTTP/1.1 {status} {HTTPStatus(status).phrase}")
    keep = "\r\n".join((*lines, "", "")).encode()
    close = "\r\n".join((*lines, "Connection: close", "", "")).encode()
    fields = tuple((name.lower(), value) for name, _, value in pairs)
    return Answer(status, fields, body, keep + body, close + body, keep, close)


FAILED: Final = answer(500, b'{"error":"failed"}')
TOO_LARGE: Final = answer(413, b'{"error":"body too large"}')
"""Ends the connection, which may not have been read to the end of the body."""
