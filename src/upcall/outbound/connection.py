"""One connection to a receiver: one request at a time."""

from __future__ import annotations

import asyncio
import select
import time
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast

from upcall.outbound.failures import failure, failure_of
from upcall.outbound.response import Answer, MalformedAnswerError, ResponseReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from upcall.errors import DeliveryError

__all__ = ["NEVER", "Connection", "Keeper", "Rest"]

NEVER: Final = float("inf")


class Rest(NamedTuple):
    """Hold a body that is sent as it comes.

    Args:
        parts: Its parts.
        length: How many bytes they should be.
    """

    parts: AsyncIterator[bytes]
    length: int


class Keeper(Protocol):
    """Keep connections; `upcall.outbound.pool.Pool` does."""

    def watch(self, connection: Connection, due: float) -> None:
        """Have `Connection.expire` called at a time of the monotonic clock, in place of what was said before."""
        ...

    def rest(self, connection: Connection) -> None:
        """Keep a connection for the next request."""
        ...

    def lost(self, connection: Connection) -> None:
        """Take note of a connection that is no more."""
        ...


class Connection(asyncio.Protocol):
    """Send requests and read their answers, one after the other.

    A request is written once. Where the connection ends before an answer, it may have been received, and a POST is not
    repeated by who does not know what it does: that is for the caller, with its own count of tries.

    Args:
        origin: Where it leads to, for errors.
        keeper: What is told of its states.
        max_response_bytes: How much of an answer's body is read.
    """

    due: float = NEVER
    """When it expires; its keeper's."""

    def __init__(self, origin: str, *, keeper: Keeper, max_response_bytes: int) -> None:
        self.origin = origin
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keeper = keeper
        self._max_response_bytes = max_response_bytes
        self._is_open = False
        self._began = 0.0
        self._missing = 0
        self._reader: ResponseReader | None = None
        self._waiting: asyncio.Future[Answer] | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether nothing has ended it yet, as far as the event loop knows."""
        return self._is_open

    @property
    def is_usable(self) -> bool:
        """Tell whether a request can be sent: it is open, and the peer has neither closed it nor sent anything."""
        # What has come in since the loop last looked would be too late to learn after the request is written.
        return self._is_open and not self._transport.is_closing() and not self._incoming.poll(0)

    async def exchange(self, request: bytes, began: float, deadline: float, rest: Rest | None = None) -> Answer:
        """Send a request and return its answer.

        Args:
            request: All of it, or what comes before the rest.
            began: When it was asked for, for the answer's time.
            deadline: Until when the answer may take, by the monotonic clock.
            rest: What follows, as it comes; where it ends early, the connection does.

        Raises:
            DeliveryError: No whole answer came; `kind` says why.
        """
        if not self._is_open:
            raise failure(self.origin, "reset")
        waiting: asyncio.Future[Answer] = self.gone.get_loop().create_future()
        self._waiting = waiting
        self._began = began
        self._missing = 0 if rest is None else rest.length
        self._reader = ResponseReader(self._max_response_bytes)
        self._keeper.watch(self, deadline)
        self._transport.write(request)
        sending = None if rest is None else asyncio.ensure_future(self._send(rest, waiting))
        try:
            return await waiting
        except asyncio.CancelledError:
            if self._waiting is waiting:
                self.abort()  # the answer to this request must not become the answer to another
            raise
        finally:
            if sending is not None:
                sending.cancel()

    async def _send(self, rest: Rest, waiting: asyncio.Future[Answer]) -> None:
        """Send what comes; what ends early, or is too long, ends the connection."""
        async for part in rest.parts:
            self._missing -= len(part)
            if self._waiting is not waiting or self._missing < 0:
                break
            self._transport.write(part)
        if self._missing and self._waiting is waiting:
            self.fail("reset", "the body was not sent as long as it is")

    def expire(self) -> None:
        """End what takes too long: an answer, or the wait for another request."""
        self.fail("timeout")

    def fail(self, kind: str, what: str = "") -> None:
        """Close it, and fail the request that is under way."""
        self._end_with(failure(self.origin, kind, what))

    def abort(self) -> None:
        """Close it at once."""
        self._is_open = False
        self._waiting = self._reader = None
        self._transport.abort()

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._incoming = select.poll()
        self._incoming.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._is_open = True

    def data_received(self, data: bytes) -> None:
        """Read the answer; what comes unasked ends the connection."""
        reader = self._reader
        if reader is None:
            self.abort()
            return
        try:
            if reader.feed(data):
                self._answered(reader)
        except MalformedAnswerError:
            self.fail("protocol")

    def eof_received(self) -> None:
        """Close: a peer that sends no more has no answer for us."""
        self._ended()
        self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Take note of the end."""
        if self._reader is not None and error is not None:
            self._end_with(failure_of(self.origin, error))
        else:
            self._ended()
        self._is_open = False
        self._keeper.lost(self)
        if not self.gone.done():
            self.gone.set_result(None)

    def _answered(self, reader: ResponseReader) -> None:
        waiting, self._waiting, self._reader = self._waiting, None, None
        # Bytes of a request that are still to be sent would be read as the beginning of the next.
        is_sent = not self._missing and not self._transport.get_write_buffer_size()
        if reader.keeps_alive and is_sent and not self._transport.is_closing():
            self._keeper.rest(self)
        else:
            self.abort()
        if waiting is not None and not waiting.done():
            answer = Answer(
                status=reader.status,
                body=reader.body,
                truncated=reader.is_truncated,
                elapsed_seconds=time.monotonic() - self._began,
                retry_after=reader.retry_after,
            )
            waiting.set_result(answer)

    def _ended(self) -> None:
        reader = self._reader
        if reader is None:
            return
        if reader.end():
            self._answered(reader)
        else:
            self.fail("protocol" if reader.is_begun else "reset")

    def _end_with(self, error: DeliveryError) -> None:
        waiting = self._waiting
        self.abort()
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
