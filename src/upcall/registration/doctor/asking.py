"""One GET over a socket that is open already, whole or not at all within a time."""

from __future__ import annotations

import http.client
import io
import ssl
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from upcall.listener.probe import PROBE, ProbeAnswer, proves
from upcall.registration.doctor.handshakes import wants_certificate
from upcall.registration.doctor.sights import Reply
from upcall.version import __version__

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from upcall.registration.doctor.sights import Place

__all__ = ["CLOSED", "ask", "request_of"]

CLOSED: Final = "the connection was closed without an answer"

MAX_ANSWER_BYTES: Final = 64 * 1024
"""What is longer is no listener's answer to a probe, and is read no further."""
_PIECE: Final = 8192
_END_OF_HEAD: Final = b"\r\n\r\n"


def request_of(place: Place, nonce: str, *, forwarded: str | None = None) -> bytes:
    """Return a probe's bytes.

    Args:
        place: Where it goes.
        nonce: What is to be proved.
        forwarded: The source to forge, None for none.
    """
    mark = "&" if "?" in place.target else "?"
    host = f"[{place.host}]" if ":" in place.host else place.host
    lines = [
        f"GET {place.target}{mark}{PROBE}={nonce} HTTP/1.1",
        f"Host: {host}" if place.port in {80, 443} else f"Host: {host}:{place.port}",
        f"User-Agent: upcall-doctor/{__version__}",
        "Accept: application/json",
        "Connection: close",
    ]
    if forwarded is not None:
        lines.append(f"X-Forwarded-For: {forwarded}")
    return "\r\n".join((*lines, "", "")).encode("ascii")


def ask(connection: socket.socket, request: bytes, *, nonce: str, secrets: Iterable[str], until: float) -> Reply:
    """Send a probe and read its answer.

    Args:
        connection: The connection.
        request: The probe, from `request_of`.
        nonce: What is to be proved.
        secrets: The tokens of which one is to prove it.
        until: When the time for it is over, by the monotonic clock.
    """
    try:
        connection.settimeout(_left(until))
        connection.sendall(request)
        return _read(_received(connection, until), nonce, secrets)
    except TimeoutError:
        return Reply(error="no whole answer came in time")
    except (http.client.HTTPException, ValueError):
        return Reply(error="what came is no HTTP answer")
    except ssl.SSLError as error:
        return Reply(error=CLOSED, wants_certificate=wants_certificate(error))
    except OSError:
        return Reply(error=CLOSED)


def _received(connection: socket.socket, until: float) -> bytes:
    """Read until the answer is whole, or the other end closes."""
    data = b""
    while not _is_whole(data) and len(data) < MAX_ANSWER_BYTES:
        connection.settimeout(_left(until))
        piece = connection.recv(_PIECE)
        if not piece:
            break
        data += piece
    if not data:
        raise ConnectionResetError
    return data


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _is_whole(data: bytes) -> bool:
    """Tell whether a head and the body that it tells the length of are there; others end with the connection."""
    head, end, body = data.partition(_END_OF_HEAD)
    if not end:
        return False
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return len(body) >= int(value.strip()[:8])
    return False


class _Received:
    """Give what was received to a parser that reads from sockets."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


def _read(data: bytes, nonce: str, secrets: Iterable[str]) -> Reply:
    response = http.client.HTTPResponse(_Received(data), method="GET")  # type: ignore[arg-type] # reads by makefile alone
    response.begin()
    body = response.read(MAX_ANSWER_BYTES)
    said = _said(body)
    return Reply(
        status=response.status,
        location=_origin(response.getheader("Location")),
        said=said,
        is_proved=said is not None and any(proves(said.proof, secret, nonce.encode()) for secret in secrets),
        is_empty=not body,
    )


def _said(body: bytes) -> ProbeAnswer | None:
    try:
        return msgspec.json.decode(body, type=ProbeAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _origin(location: str | None) -> str:
    """Return where a redirect leads to, without the path, in which a token may stand."""
    if not location:
        return ""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}" if host else "another path there"
