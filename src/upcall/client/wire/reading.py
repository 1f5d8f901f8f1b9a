"""What both kinds of wire make of what comes: a body within its bounds, a failure in words."""

from __future__ import annotations

import re
import ssl
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

_REFUSED_CERTIFICATE: Final = re.compile("alert .*certificate|CERTIFICATE_REQUIRED", re.IGNORECASE)
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
    body, is_whole = b"", False
    try:
        while raw and len(body) <= MAX_BODY_BYTES:  # gzip may come in several members
            inflater = zlib.decompressobj(_window(raw))
            body += inflater.decompress(raw, MAX_BODY_BYTES + 1 - len(body))
            is_whole = inflater.eof
            raw = inflater.unused_data
    except zlib.error:
        return b"", "garbled"
    if len(body) > MAX_BODY_BYTES:
        return body, "too_large"
    return body, None if is_whole else "garbled"


def _window(raw: bytes) -> int:
    """Tell zlib what it reads: gzip or zlib by their first bytes, else the bare deflate that some servers send."""
    is_wrapped = raw.startswith(b"\x1f\x8b") or (
        raw[0] & 15 == zlib.DEFLATED and len(raw) > 1 and not (raw[0] << 8 | raw[1]) % 31
    )
    return zlib.MAX_WBITS | 32 if is_wrapped else -zlib.MAX_WBITS


def lost(error: Exception, *, sent: bool | None = None) -> Failure:
    """Say what an exception means that came before any status; httpx2 and its core name theirs alike.

    Args:
        error: The exception.
        sent: Whether the request's head had left, None where its kind must tell.
    """
    name = type(error).__name__
    system = _system_error(error)
    if isinstance(system, ssl.SSLError) and _REFUSED_CERTIFICATE.search(str(system)):
        return Failure(
            reason=f"the server refuses the client certificate: {_words(system)}", sent=False, permanent=True
        )
    if name == "ProxyError":
        # A proxy that counts refused passwords may lock an account too; its words may echo what it was sent.
        status = str(error)[:3]
        return Failure(
            reason=f"the proxy answered {status}" if status.isdigit() else "the proxy failed",
            sent=False,
            permanent=status == "407",
        )
    if name in {"LocalProtocolError", "UnsupportedProtocol", "InvalidURL"}:
        return Failure(reason="the request cannot be written", sent=False, permanent=True)
    if sent is None:
        sent = name not in {"ConnectError", "ConnectTimeout", "PoolTimeout"}
    return Failure(
        reason=_reason(error, name, sent=sent), sent=sent, permanent="CERTIFICATE_VERIFY_FAILED" in str(error)
    )


def _reason(error: Exception, name: str, *, sent: bool) -> str:
    """Say what happened: in the system's words, or in ours where the library would quote what came."""
    words = {
        "ConnectTimeout": "the connection took too long",
        "PoolTimeout": "no connection came free",
        "ReadTimeout": "the answer took too long",
        "TimeoutError": "the answer took too long" if sent else "the connection took too long",
        "WriteTimeout": "the request took too long",
    }
    if name == "RemoteProtocolError":
        is_end = "disconnected" in str(error) or "closed" in str(error)
        return "the server closed the connection" if is_end else "what came back is not HTTP"
    return words.get(name) or _words(_system_error(error) or error) or name


def _words(error: BaseException) -> str:
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)).rstrip(".")


def _system_error(error: BaseException) -> OSError | None:
    """Return what the system said at the bottom of an exception, such as that a connection was refused."""
    found = None
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.errno is not None:
            found = below
        inner = below.exceptions[0] if isinstance(below, BaseExceptionGroup) else None
        below = inner or below.__cause__ or below.__context__
    return found
