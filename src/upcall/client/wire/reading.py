"""What both kinds of wire make of what comes: a body within its bounds, a failure in words."""

from __future__ import annotations

import re
import time
import zlib
from typing import TYPE_CHECKING, Final

from upcall.client.answers import Answer
from upcall.client.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal, TypeAlias

    Flaw: TypeAlias = Literal["cut", "too_large", "garbled"]

__all__ = ["MAX_BODY_BYTES", "Body", "lost"]

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""No answer of this API comes near it: a page of 1,000 devices has some 100 KiB."""

_ENCODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})


class Body:
    """Gather an answer's body, within a deadline and a size.

    A timeout of the library's is one for each read; this one is for the whole answer.
    """

    __slots__ = ("_chunks", "_size", "deadline", "flaw")

    def __init__(self, timeout_seconds: float) -> None:
        self.deadline: float = time.monotonic() + timeout_seconds
        self._chunks: list[bytes] = []
        self._size = 0
        self.flaw: Flaw | None = None

    def is_full(self, chunk: bytes) -> bool:
        """Take a chunk, and tell whether to stop reading."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > MAX_BODY_BYTES:
            self.flaw = "too_large"
        elif time.monotonic() > self.deadline:
            self.flaw = "cut"
        return self.flaw is not None

    def decoded(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> Answer:
        """Return the answer whose chunks were decompressed as they came."""
        return Answer(status=status, headers=_named(headers), body=b"".join(self._chunks), flaw=self.flaw)

    def encoded(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> Answer:
        """Return the answer whose chunks are as they came."""
        named, body, flaw = _named(headers), b"".join(self._chunks), self.flaw
        encoding = named.get("content-encoding", "").strip().lower()
        if body and encoding not in {"", "identity"}:
            body, damage = _decompressed(body, encoding)
            flaw = flaw or damage
        return Answer(status=status, headers=named, body=body, flaw=flaw)


def _named(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}


def _decompressed(raw: bytes, encoding: str) -> tuple[bytes, Flaw | None]:
    """Decompress a body, and no more of it than an answer may hold."""
    if encoding not in _ENCODINGS:
        return b"", "garbled"
    try:
        inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # finds out itself whether it is gzip or zlib
        body = inflater.decompress(raw, MAX_BODY_BYTES + 1)
    except zlib.error:
        return b"", "garbled"
    if len(body) > MAX_BODY_BYTES:
        return body, "too_large"
    return body, None if inflater.eof else "garbled"


def lost(error: Exception, *, sent: bool | None = None) -> Failure:
    """Say what an exception means that came before any status; httpx2 and its core name theirs alike.

    Args:
        error: The exception.
        sent: Whether the request's head had left, None where its kind must tell.
    """
    name = type(error).__name__
    if name in {"LocalProtocolError", "UnsupportedProtocol", "InvalidURL"}:
        return Failure(reason="the request cannot be written", sent=False, permanent=True)
    if sent is None:
        sent = name not in {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"}
    return Failure(reason=_reason(error, name), sent=sent, permanent="CERTIFICATE_VERIFY_FAILED" in str(error))


def _reason(error: Exception, name: str) -> str:
    """Say what happened: in the system's words, or in ours where the library would quote what came."""
    words = {
        "ConnectTimeout": "the connection took too long",
        "PoolTimeout": "no connection came free",
        "ReadTimeout": "the answer took too long",
        "WriteTimeout": "the request took too long",
    }
    if name == "RemoteProtocolError":
        is_end = "disconnected" in str(error) or "closed" in str(error)
        return "the server closed the connection" if is_end else "what came back is not HTTP"
    return words.get(name) or re.sub(r"^\[Errno -?\d+\] ", "", str(error)).rstrip(".") or name
