"""All connections of one listening socket: how many there may be, how slow, and how they end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Protocol

import msgspec

from upcall.listener.protocol import HttpProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from upcall.listener.answers import Answer
    from upcall.listener.request import Request
    from upcall.listener.sources import Peer, Sources
    from upcall.listener.stats import ListenerStats

__all__ = ["Connections", "Limits", "Service"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Say how long a connection may take for what, and how much of it is accepted.

    Args:
        first_byte_seconds: From the connection to its first byte.
        head_seconds: From a request's first byte to the end of its headers.
        body_seconds: From there to the end of its body.
        grace_seconds: A body is not held to the minimum rate at its beginning.
        min_body_rate: Bytes a second that a body must come at, on average.
        idle_seconds: Between two requests of a connection.
        max_head_bytes: A request line and headers; also what may stand between or behind the pieces of a body.
        per_source: Connections from one address; a trusted proxy's are not counted.
        connections: Connections in all.
        held_bytes: What the bodies of all connections may take together, until they are answered.
    """

    first_byte_seconds: float = 20.0
    head_seconds: float = 20.0
    body_seconds: float = 60.0
    grace_seconds: float = 5.0
    min_body_rate: int = 1024
    idle_seconds: float = 75.0
    max_head_bytes: int = 1024 * 1024
    per_source: int = 256
    connections: int = 10_000
    held_bytes: int = 512 * 1024 * 1024


class Service(Protocol):
    """Answer requests; what HTTP is about is the protocol's."""

    max_body_bytes: int

    def begin(self, request: Request) -> Answer | None:
        """Look at a request's head; an answer refuses it, and its body is thrown away."""
        ...

    def finish(self, request: Request, body: bytes, reply: Callable[[Answer], None]) -> None:
        """Take a whole request; `reply` is called once, on the loop, now or later."""
        ...


class Connections:
    """Know all connections of one listening socket: count them, and close those that are too slow.

    Args:
        service: Answers requests.
        sources: Describes peers.
        stats: Where refusals are counted.
        limits: What connections are held to.
        log: Told of each answered request, None for nobody.
    """

    def __init__(
        self,
        service: Service,
        sources: Sources,
        stats: ListenerStats,
        *,
        limits: Limits | None = None,
        log: Callable[[Request, int, float], None] | None = None,
    ) -> None:
        self.service: Service = service
        self.sources: Sources = sources
        self.stats: ListenerStats = stats
        self.limits: Limits = limits or Limits()
        self.log: Callable[[Request, int, float], None] | None = log
        self.draining: bool = False
        self.held_bytes: int = 0
        self.open: set[HttpProtocol] = set()
        self.expected: set[HttpProtocol] = set()
        self._from: Counter[str] = Counter()

    def __call__(self) -> HttpProtocol:
        """Return the protocol of a new connection."""
        return HttpProtocol(self)

    def expect(self, connection: HttpProtocol, peer: Peer) -> bool:
        """Count a connection before TLS is spoken on it; tell whether there is room for it."""
        if not self._has_room(peer):
            return False
        self.expected.add(connection)
        return True

    def admit(self, connection: HttpProtocol, peer: Peer) -> bool:
        """Count a new connection, where that was not done; tell whether there is room for it."""
        if connection in self.expected:
            self.expected.discard(connection)
        elif not self._has_room(peer):
            return False
        self.open.add(connection)
        return True

    def _has_room(self, peer: Peer) -> bool:
        has_room = len(self.open) + len(self.expected) < self.limits.connections
        if has_room and not peer.is_proxy:
            has_room = self._from[peer.site] < self.limits.per_source
            self._from[peer.site] += has_room
        self.stats.capped += not has_room
        return has_room

    def forget(self, connection: HttpProtocol, peer: Peer) -> None:
        """Count a connection that ended."""
        if connection not in self.open and connection not in self.expected:
            return
        self.open.discard(connection)
        self.expected.discard(connection)
        if not peer.is_proxy:
            self._from[peer.site] -= 1
            if not self._from[peer.site]:
                del self._from[peer.site]

    def sweep(self, now: float) -> None:
        """Close the connections that are over a deadline."""
        for connection in tuple(self.open):
            connection.check(now)

    async def watch(self, *, every_seconds: float = 1.0) -> None:
        """Sweep on a timer, until cancelled."""
        while True:
            await asyncio.sleep(every_seconds)
            self.sweep(time.monotonic())

    async def drain(self, *, idle_seconds: float = 0.5, seconds: float = 10.0) -> int:
        """Answer what was accepted, and end every connection.

        A connection between two requests stays open for a moment longer: its client may have sent one that has not
        arrived. Each answer from now on ends its connection.

        Args:
            idle_seconds: How long such a connection stays.
            seconds: After which connections are cut.

        Returns:
            How many requests were cut.
        """
        self.draining = True
        loop = asyncio.get_running_loop()
        began = loop.time()
        while self.open and loop.time() - began < seconds:
            if loop.time() - began >= idle_seconds:
                for connection in tuple(self.open):
                    connection.close_if_idle()
            await asyncio.sleep(0.01)
        cut = sum(connection.is_busy for connection in self.open)
        for connection in tuple(self.open):
            connection.abort()
        return cut
