"""A listener's sign of life in its store, and the tokens that it takes from there meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final

from upcall.inbox import Uptime
from upcall.inbox.owners import new_owner
from upcall.listener.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable

    from upcall.inbox import Inbox
    from upcall.listener.gate import Token
    from upcall.listener.reception import Reception
    from upcall.listener.tokens import StoreTokens

__all__ = ["BEAT_SECONDS", "Heartbeat"]

BEAT_SECONDS: Final = 5.0
"""How often: so much longer than it was an outage may look that began with a kill."""

_FROZEN_MICROS: Final = 4 * int(BEAT_SECONDS * 1e6)
"""A beat that comes so late comes from a process that was frozen, or a machine that slept: it accepted nothing.

One that comes before the last one comes by a clock that was set back, and what was told by it until then is worthless.
"""

_log = logging.getLogger("upcall.listener")


class Heartbeat:
    """Write every few seconds that a listener accepts callbacks, and take over the store's tokens.

    What lies between two uptimes is an outage (`upcall outages`). While callbacks can neither be stored nor spooled the
    listener is as good as away: that ends an uptime too, and so does a process that was frozen, with its machine or
    alone. Used on the listener's event loop; the store is written in a thread. A store that fails is tried again at the
    next beat; the uptime goes on then, for the spool accepted.

    Args:
        inbox_factory: Opens the store for one beat.
        reception: What accepts.
        tokens: Reads the store's own tokens; None where they were given, and stay.
        url: Where the listener is, without a token.
        now: Returns the time, UTC microseconds.
    """

    def __init__(
        self,
        inbox_factory: Callable[[], Inbox],
        reception: Reception,
        *,
        tokens: StoreTokens | None = None,
        url: str = "",
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._inbox_factory = inbox_factory
        self._reception = reception
        self._tokens = tokens
        self._url = url
        self._now = now
        self._name = ""
        self._began_at: int | None = None
        self._alive_at = now()
        self._refuses = False
        self._not_stored = 0
        self._trouble = ""
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin, on the running loop, once the listener accepts."""
        self._task = asyncio.ensure_future(self._run())

    async def aclose(self) -> None:
        """End, once the listener accepts no more: the uptime ends now, and not at the last beat."""
        self._closing.set()
        if self._task is not None:
            await asyncio.wait({self._task})
            await self.beat(ended=True)

    async def beat(self, *, ended: bool = False) -> None:
        """Write one sign of life.

        Args:
            ended: Whether it is the last.
        """
        if self._keeps_nothing() or not 0 <= self._now() - self._alive_at <= _FROZEN_MICROS:
            self._began_at = None
        self._alive_at = self._now()
        if self._refuses:
            return
        if self._began_at is None:
            self._began_at = self._now()
            self._name = new_owner()  # what began anew is another uptime
        uptime = Uptime(
            listener=self._name,
            began_at=self._began_at,
            last_at=self._now(),
            ended=ended,
            # Those that are accepted by now: a reader who finds an id there may rely on it.
            tokens=tuple(token.id for token in self._reception.tokens),
            given=self._tokens is None,
            url=self._url,
        )
        try:
            try:
                accepted = await asyncio.to_thread(self._write, uptime, self._reception.tokens)
            finally:
                self._alive_at = self._now()  # however long the store took
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again: nobody else would
            if str(error) != self._trouble:  # once, not with each beat
                self._trouble = str(error)
                _log.warning("the heartbeat waits: %s", error)
            return
        self._trouble = ""
        if accepted != self._reception.tokens:
            self._reception.use(Gate(accepted))
            await self.beat(ended=ended)  # who waits for it need not wait for the next one

    async def _run(self) -> None:
        while not self._closing.is_set():
            await self.beat()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), BEAT_SECONDS)

    def _keeps_nothing(self) -> bool:
        """Tell whether a callback was refused since the last beat, or would be now, because it cannot be kept."""
        refused, self._not_stored = (
            self._reception.stats.not_stored - self._not_stored,
            self._reception.stats.not_stored,
        )
        self._refuses = refused > 0 or not self._reception.state.can_keep
        return self._refuses

    def _write(self, uptime: Uptime, accepted: tuple[Token, ...]) -> tuple[Token, ...]:
        """Write a sign of life, and return the tokens to accept from now on."""
        with self._inbox_factory() as inbox:
            inbox.beat(uptime)
            if self._tokens is None:
                return accepted
            # A store that lost its tokens locks nobody out.
            return tuple(self._tokens.read(inbox, uptime.last_at)) or accepted
