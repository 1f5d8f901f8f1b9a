"""What strangers do to a public port: drips, floods of connections, forged headers, bodies that are none."""

from __future__ import annotations

import contextlib
import gzip
import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["JUNK", "OTHER_HOST", "Drips", "ask", "crowd", "other_host_works"]

OTHER_HOST: Final = "127.0.0.2"
"""Where hostile connections come from, so that the caps of a source are theirs and not the good sender's."""
JUNK: Final = (
    b"",
    b"no JSON at all",
    b"\xff\xfe\xfd\x00 not even text",
    gzip.compress(b'{"type": "upgradeProgress"}', mtime=0),
    b"[" * 100_000,
    b'{"type": "upgradeProgress", "upgradeProgress": {',
)
"""Bodies that are no callbacks: acknowledged, kept byte for byte, and put where no handler sees them."""

_ANSWER_SECONDS: Final = 10.0
_TICK_SECONDS: Final = 0.25


def ask(port: int, request: bytes) -> int:
    """Send bytes on a connection of their own, and return the status of the answer; 0 where the other end hung up.

    Args:
        port: Where on loopback.
        request: All of it; the other end may answer before it has read everything.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_SECONDS) as connection:
        with contextlib.suppress(OSError):  # refused by its head, and cut off
            connection.sendall(request)
        answer = b""
        with contextlib.suppress(OSError):
            while b"\r\n\r\n" not in answer and (chunk := connection.recv(4096)):
                answer += chunk
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


def other_host_works(port: int) -> bool:
    """Tell whether this machine can speak to itself from `OTHER_HOST`; Linux can."""
    try:
        _connect(port).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def crowd(port: int, count: int) -> Iterator[int]:
    """Open so many connections from one source, all at once, and keep them open.

    Yields:
        How many the other end closed at once.
    """
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(count):
            with contextlib.suppress(OSError):
                connections.append(stack.enter_context(_connect(port)))
        time.sleep(_TICK_SECONDS)
        yield count - sum(_is_open(connection) for connection in connections)


class _Drip(msgspec.Struct):
    """Hold a connection that sends next to nothing."""

    kind: str
    connection: socket.socket
    opened_at: float
    closed_after: float | None = None


class Drips:
    """Hold connections that are silent, or that send a byte a second, and see when each is closed.

    Args:
        port: Where on loopback.
        path: The path of callbacks.
        each: How many of each kind: silent, in a head, in a body.
    """

    def __init__(self, port: int, path: str, *, each: int) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4096\r\n\r\n".encode()
        beginnings = {"silent": b"", "head": b"POST /", "body": head + b"{"}
        self._drips = [self._open(port, kind, first) for kind, first in beginnings.items() for _ in range(each)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upcall-proof-drips", daemon=True)
        self._thread.start()

    def slowest(self, kind: str) -> float | None:
        """Return how many seconds the last of a kind stayed open; None while one is."""
        times = [drip.closed_after for drip in self._drips if drip.kind == kind]
        return None if None in times else max(filter(None, times), default=0.0)

    def close(self) -> None:
        """End them."""
        self._over.set()
        self._thread.join()
        for drip in self._drips:
            drip.connection.close()

    def _open(self, port: int, kind: str, first: bytes) -> _Drip:
        connection = _connect(port)
        if first:
            connection.sendall(first)
        connection.setblocking(False)
        return _Drip(kind, connection, time.monotonic())

    def _run(self) -> None:
        turn = 0
        with selectors.DefaultSelector() as selector:
            for drip in self._drips:
                selector.register(drip.connection, selectors.EVENT_READ, drip)
            while not self._over.is_set() and selector.get_map():
                for key, _ in selector.select(_TICK_SECONDS):
                    self._look(key.data, selector)
                turn += 1
                self._over.wait(_TICK_SECONDS)
                if turn % 4 == 0:
                    self._send_a_byte()

    def _look(self, drip: _Drip, selector: selectors.BaseSelector) -> None:
        try:
            is_over = drip.connection.recv(4096) == b""
        except BlockingIOError:
            return
        except OSError:
            is_over = True
        if is_over:
            drip.closed_after = time.monotonic() - drip.opened_at
            selector.unregister(drip.connection)

    def _send_a_byte(self) -> None:
        for drip in self._drips:
            if drip.kind != "silent" and drip.closed_after is None:
                with contextlib.suppress(OSError):
                    drip.connection.send(b"x")


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_SECONDS, source_address=(OTHER_HOST, 0))


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
