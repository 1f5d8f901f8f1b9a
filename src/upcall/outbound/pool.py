"""The connections of a sender: which are free, and when each is over its time."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from upcall.outbound.connection import NEVER, Connection

__all__ = ["KEEP_ALIVE_SECONDS", "Pool"]

KEEP_ALIVE_SECONDS: Final = 2.0
"""How long an idle connection is used again: less than any server keeps one, or a try would be lost to its closing."""

_SHORTEST_SECONDS: Final = 0.001


class Pool:
    """Keep connections by where they lead to.

    One timer looks at all of them, so that a deadline costs a request nothing.

    Args:
        keep_alive_seconds: How long one is kept without a request.
    """

    def __init__(self, *, keep_alive_seconds: float = KEEP_ALIVE_SECONDS) -> None:
        self._keep_alive_seconds = keep_alive_seconds
        self._all: set[Connection] = set()
        self._idle: dict[str, list[Connection]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER

    def __len__(self) -> int:
        return len(self._all)

    def take(self, origin: str) -> Connection | None:
        """Return an open connection, the one that was used last, or None where there is none."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                return connection
            connection.abort()
        return None

    def add(self, connection: Connection) -> None:
        """Take over a connection that was made."""
        if connection.is_open:
            self._all.add(connection)

    async def aclose(self) -> None:
        """Close all, failing what is under way; none is left when this returns."""
        closing = list(self._all)
        for connection in closing:
            connection.fail("reset", "the sender was closed")
        if closing:
            await asyncio.wait([connection.gone for connection in closing])

    # what a connection calls

    def watch(self, connection: Connection, due: float) -> None:
        """Have `Connection.expire` called at a time of the monotonic clock, in place of what was said before."""
        connection.due = due
        if due < self._timer_at:
            self._arm(due)

    def rest(self, connection: Connection) -> None:
        """Keep a connection for the next request."""
        self._idle.setdefault(connection.origin, []).append(connection)
        self.watch(connection, time.monotonic() + self._keep_alive_seconds)

    def lost(self, connection: Connection) -> None:
        """Take note of a connection that is no more."""
        self._all.discard(connection)
        idle = self._idle.get(connection.origin, [])
        if connection in idle:
            idle.remove(connection)
        if not idle:
            self._idle.pop(connection.origin, None)
        if not self._all:
            self._arm(NEVER)

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = due
        if due != NEVER:
            seconds = max(due - time.monotonic(), _SHORTEST_SECONDS)
            self._timer = asyncio.get_running_loop().call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in list(self._all):
            if connection.due <= now:
                connection.due = NEVER
                connection.expire()
        self._arm(min((connection.due for connection in self._all), default=NEVER))
