"""Accepting connections that speak TLS: each counts from its first packet on, not from the end of its handshake.

An event loop tells a protocol of a connection when hands are shaken. Until then a stranger's connections would be in
nobody's count, and a few hundred of them, held in silence, would take every descriptor that there is.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket
    import ssl

    from upcall.listener.connections import Connections
    from upcall.listener.protocol import HttpProtocol
    from upcall.listener.sources import Peer

__all__ = ["TlsDoor"]

HANDSHAKE_SECONDS: Final = 20.0
_AT_ONCE: Final = 64
"""How many connections are accepted before others have their turn."""
_PAUSE_SECONDS: Final = 0.1
"""How long nobody is accepted after the system refused: it has no descriptor left."""


class TlsDoor:
    """Accept connections on a listening socket, count them, and shake hands.

    Args:
        connections: Counts connections, and makes a protocol for each.
        listening: The socket.
        tls: What TLS needs.
        handshake_seconds: How long a handshake may take.
    """

    def __init__(
        self,
        connections: Connections,
        listening: socket.socket,
        tls: ssl.SSLContext,
        *,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        self._connections = connections
        self._listening = listening
        self._tls = tls
        self._handshake_seconds = handshake_seconds
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._open()

    def close(self) -> None:
        """Accept nobody any more, and give up the handshakes that are under way: no request was read there."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()
        for handshake in self._handshakes:
            handshake.cancel()

    def _open(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                accepted, address = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(self._listening)
                self._pause = self._loop.call_later(_PAUSE_SECONDS, self._open)
                return
            self._let_in(accepted, self._connections.sources.peer(str(address[0])))

    def _let_in(self, accepted: socket.socket, peer: Peer) -> None:
        connection = self._connections()
        if not self._connections.expect(connection, peer):
            accepted.close()
            return
        accepted.setblocking(False)
        handshake = asyncio.ensure_future(self._shake_hands(accepted, connection, peer))
        self._handshakes.add(handshake)
        handshake.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, accepted: socket.socket, connection: HttpProtocol, peer: Peer) -> None:
        try:
            with contextlib.suppress(OSError):  # no TLS, too slow, gone: a connection that said nothing
                await self._loop.connect_accepted_socket(
                    lambda: connection,
                    accepted,
                    ssl=self._tls,
                    ssl_handshake_timeout=self._handshake_seconds,
                )
        finally:
            if connection in self._connections.expected:
                self._connections.forget(connection, peer)
                accepted.close()
