"""HTTP/1.1 as the listener speaks it: our own protocol over httptools, with the deadlines and caps that servers lack.

A connection is silent, in a head, in a body, or waiting for its answer, and each of these has its deadline. One timer
looks at all connections, so that a deadline costs a request nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Final, cast

import httptools

from upcall import failpoints
from upcall.listener.answers import CONTINUE, DISCARD_FACTOR, FAILED, TOO_LARGE, Answer, answer
from upcall.listener.request import Request

if TYPE_CHECKING:
    from upcall.listener.connections import Connections

__all__ = ["HttpProtocol"]

_BAD_REQUEST: Final = answer(400, b'{"error":"not an HTTP request"}')
_TOO_SLOW: Final = answer(408, b'{"error":"too slow"}')
_HEAD_TOO_LARGE: Final = answer(431, b'{"error":"head too large"}')
_BUSY: Final = answer(503, b'{"error":"busy, send again"}', "Retry-After: 1")

_REFUSED_GRACE_SECONDS: Final = 1.0
"""How long the body of a refused request may take to begin: most clients hear nothing before they have sent it."""
_LINGER_SECONDS: Final = 2.0
"""How long a refused client may go on sending before it is cut off: it may not have read the answer yet."""
_PIPELINED: Final = 16
"""How many requests of one connection may wait for their turn before it is read no further."""
_KEPT_HEADERS: Final = frozenset(
    {b"connection", b"content-length", b"expect", b"transfer-encoding", b"x-forwarded-for"}
)
_MOST_KEPT: Final = 100
"""How many of those a request may have: a head of nothing else would take many times its size."""
_NEVER: Final = float("inf")

_log = logging.getLogger("upcall.listener")


class HttpProtocol(asyncio.Protocol):
    """Read requests off one connection and answer them in their order.

    Args:
        connections: What this connection shares with the others.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._service = connections.service
        self._parser = httptools.HttpRequestParser(self)
        self._request: Request | None = None  # the one that comes in
        self._answering: Request | None = None
        self._queue: deque[Request] = deque()
        self._head_bytes = 0
        self._size_seen = 0
        self._is_new = True
        self._is_reading = False  # a request has begun, if only with an empty line
        self._is_deaf = False  # nothing more that comes in is read
        self._is_ended = False  # nothing more goes out
        self._is_full = False  # the client does not read its answers
        self._enter(connections.limits.first_byte_seconds)

    # the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a new connection, or close it where there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self._peer = self._connections.sources.peer(str(name[0]) if name else "")
        if failpoints.armed:
            failpoints.reach("accept")
        if not self._connections.admit(self, self._peer):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter
        """Forget the connection; a request that came whole is kept all the same."""
        self._is_deaf = self._is_ended = True
        if self._request is not None and self._request.started_at and self._request.refused is None:
            self._connections.stats.cut_short += 1
        for request in (self._request, *self._queue):
            if request is not None:
                self._let_go(request)
        self._request = None
        self._connections.forget(self, self._peer)

    def eof_received(self) -> bool:
        """Keep the connection open for writing where answers are still to come."""
        self._is_deaf = True
        last = self._queue[-1] if self._queue else self._answering
        if last is None:
            return False
        last.keep_alive = False
        return self._transport.can_write_eof()

    def pause_writing(self) -> None:
        """Read no further while the client does not read its answers."""
        self._is_full = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        self._is_full = False
        self._read_on()

    def _read_on(self) -> None:
        if not self._is_full and len(self._queue) < _PIPELINED:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        if self._is_deaf:
            return
        if not self._is_reading and self._answering is None:
            self._is_reading, self._is_new = True, False
            self._enter(self._connections.limits.head_seconds)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            if not self._is_deaf:
                self._connections.stats.bad_request += 1
                self._refuse(_BAD_REQUEST)
            return
        request = self._request
        if request is None:
            return
        if request.size == self._size_seen:  # a head, or what stands between and behind the pieces of a body
            self._head_bytes += len(data)
            if self._head_bytes > self._connections.limits.max_head_bytes:
                self._head_too_large()
        self._size_seen = request.size

    def _feed(self, data: bytes) -> None:
        """Feed the parser, reading a request that offers another protocol as the plain request that it is as well.

        Java's HttpClient offers HTTP/2 with each request over plain http. The parser stops after the head of such a
        request: its body would be lost.
        """
        rest: bytes | memoryview = data
        while True:
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as offer:
                rest = memoryview(rest)[offer.args[0] :]
                self._begin_again_without_offer()
            else:
                return

    def _begin_again_without_offer(self) -> None:
        """Read the head of a request again, without what stopped the parser."""
        request = self._request
        if request is None or request.method == b"CONNECT":  # stops the parser too, and offers nothing else
            raise httptools.HttpParserError
        lines = [b"%s %s HTTP/%s" % (request.method, request.target, self._parser.get_http_version().encode())]
        lines += [b"%s: %s" % header for header in request.head]
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(b"\r\n".join((*lines, b"", b"")))

    # what the parser tells

    def on_message_begin(self) -> None:
        """Begin a request; what follows the connection's last one is none."""
        if self._is_deaf:
            raise httptools.HttpParserError
        self._request = Request(self._peer)
        self._head_bytes = self._size_seen = 0

    def on_url(self, url: bytes) -> None:
        """Take the target, or a piece of it."""
        request = cast("Request", self._request)
        request.target = request.target + url if request.target else url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header that matters here; those behind a body are nobody's."""
        name = name.lower()
        request = self._request
        if name not in _KEPT_HEADERS or request is None or request.started_at:
            return
        request.head.append((name, value))
        if len(request.head) > _MOST_KEPT:
            self._head_too_large()
        if name == b"content-length":
            request.length = int(value)
        elif name == b"x-forwarded-for":
            text = value.decode("latin-1")
            request.forwarded = f"{request.forwarded},{text}" if request.forwarded else text
        elif name == b"expect":
            request.expects_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """Look at the head, and refuse by it where it must be."""
        request = self._request
        if request is None:  # refused
            return
        request.method = self._parser.get_method()
        if self._parser.should_upgrade():
            request.offers_upgrade = True  # the head is about to be read again
            return
        request.keep_alive = self._parser.should_keep_alive() and not self._is_dubious(request)
        request.started_at = time.monotonic()
        if failpoints.armed:
            failpoints.reach("headers")
        request.refused = self._service.begin(request)
        if request.refused is None and request.length > self._service.max_body_bytes:
            self._too_large(request)
        if self._answering is None:
            self._await_body(request)

    def _is_dubious(self, request: Request) -> bool:
        """Tell whether two readers could see another end of the request: HTTP/1.0 knows no chunks."""
        return self._parser.get_http_version() == "1.0" and any(
            name == b"transfer-encoding" for name, _ in request.head
        )

    def _await_body(self, request: Request) -> None:
        self._enter(self._connections.limits.body_seconds)
        if not request.expects_continue or request.size:
            return
        if request.refused is not None:
            self._refuse(request.refused)  # its client waits for leave to send the body
        elif self._parser.get_http_version() != "1.0":
            self._transport.write(CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body; over the cap, throw it away."""
        request = self._request
        if request is None:  # refused
            return
        if failpoints.armed:
            failpoints.reach("body")
        request.size += len(body)
        most = self._service.max_body_bytes
        if request.refused is None:
            if request.size > most:
                self._too_large(request)
            elif self._connections.held_bytes + len(body) > self._connections.limits.held_bytes:
                self._busy(request)
            else:
                self._hold(request, body)
                return
        if request.size > most * DISCARD_FACTOR and request.refused is not None:
            self._refuse(request.refused)

    def _hold(self, request: Request, body: bytes) -> None:
        self._connections.held_bytes += len(body)
        request.held += len(body)
        if not request.body:
            request.body = body
        elif isinstance(request.body, bytes):
            request.body = bytearray(request.body) + body
        else:
            request.body += body

    def _let_go(self, request: Request) -> None:
        """Give back what a request's body took."""
        self._connections.held_bytes -= request.held
        request.held = 0
        request.body = b""

    def _too_large(self, request: Request) -> None:
        self._connections.stats.too_large += 1
        self._give_up(request, TOO_LARGE)

    def _busy(self, request: Request) -> None:
        self._connections.stats.busy += 1
        self._give_up(request, _BUSY)

    def _give_up(self, request: Request, reply: Answer) -> None:
        """Refuse a request by its body: the rest of it is thrown away, and the connection ends with the answer."""
        request.refused = reply
        request.keep_alive = False
        self._let_go(request)

    def _head_too_large(self) -> None:
        self._connections.stats.bad_request += 1
        self._refuse(_HEAD_TOO_LARGE)

    def on_message_complete(self) -> None:
        """Hand a whole request on, in its turn."""
        request = self._request
        if request is None or request.offers_upgrade:
            return
        self._request = None
        if self._answering is None:
            self._handle(request)
        else:
            self._wait_in_line(request)

    # answering

    def _handle(self, request: Request) -> None:
        self._answering = request
        self._deadline = _NEVER  # what an answer waits for has a deadline of its own
        if request.refused is not None:
            self._reply(request.refused)
            return
        body, request.body = bytes(request.body), b""
        try:
            self._service.finish(request, body, self._reply)
        except Exception:  # noqa: BLE001 - whatever went wrong, nobody else would answer
            _log.exception("a request was answered 500: this is a mistake in Upcall")
            self._reply(FAILED)

    def _wait_in_line(self, request: Request) -> None:
        self._queue.append(request)
        if len(self._queue) == _PIPELINED:
            self._transport.pause_reading()

    def _reply(self, reply: Answer) -> None:
        request, self._answering = self._answering, None
        connections = self._connections
        if request is None:
            return
        self._let_go(request)
        seconds = time.monotonic() - request.started_at if request.started_at else 0.0
        connections.stats.observe_answer(seconds)
        if connections.log is not None:
            connections.log(request, reply.status, seconds)
        if self._is_ended:
            return
        is_last = not self._queue and self._request is None
        close = not request.keep_alive or (connections.draining and is_last)
        self._transport.write(reply.wire(head=request.method == b"HEAD", close=close))
        if close:
            self._end()
        elif self._queue:
            self._answering = self._queue[0]  # its turn comes, but not by recursion: there may be many
            asyncio.get_running_loop().call_soon(self._handle_next)
        else:
            self._await_request()

    def _handle_next(self) -> None:
        if self._is_ended:
            return
        request = self._queue.popleft()
        if len(self._queue) == _PIPELINED - 1:
            self._read_on()
        self._handle(request)

    def _await_request(self) -> None:
        limits = self._connections.limits
        self._is_reading = self._request is not None
        if self._request is None:
            self._enter(limits.idle_seconds)
        elif self._request.started_at:
            self._await_body(self._request)
        else:
            self._enter(limits.head_seconds)

    def _refuse(self, reply: Answer) -> None:
        """Answer, in its turn, and end the connection: nothing more of it can be read."""
        if self._is_ended:
            return
        request, self._request = self._request or Request(self._peer), None
        self._is_deaf = True
        request.refused = reply
        request.keep_alive = False
        if self._answering is None:
            self._handle(request)
        else:
            self._wait_in_line(request)

    def _end(self) -> None:
        """Close once the answer is out; what the client still sends is thrown away for a moment."""
        self._is_deaf = self._is_ended = True
        self._deadline = time.monotonic() + _LINGER_SECONDS
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    # deadlines

    @property
    def is_busy(self) -> bool:
        """Tell whether a request is being read or answered, or an answer is on its way."""
        under_way = self._request is not None or self._answering is not None
        return under_way or self._transport.get_write_buffer_size() > 0

    def check(self, now: float) -> None:
        """Close the connection where it is over its deadline or too slow."""
        if now < self._deadline and not self._is_too_slow(now):
            return
        if self._request is None or self._is_ended:
            self._connections.stats.timed_out += self._is_new or (self._is_reading and not self._is_ended)
            self.abort()  # it asked nothing
        else:
            self._connections.stats.timed_out += self._request.refused is None
            self._refuse(self._request.refused or _TOO_SLOW)

    def close_if_idle(self) -> None:
        """Close the connection where nothing is under way."""
        if not self.is_busy:
            self.abort()

    def abort(self) -> None:
        """Close the connection at once."""
        self._is_deaf = self._is_ended = True
        self._transport.abort()

    def _enter(self, seconds: float) -> None:
        self._phase_began = time.monotonic()
        self._deadline = self._phase_began + seconds

    def _is_too_slow(self, now: float) -> bool:
        request = self._request
        if request is None or not request.started_at or self._answering is not None:
            return False
        limits = self._connections.limits
        grace = limits.grace_seconds if request.refused is None else min(limits.grace_seconds, _REFUSED_GRACE_SECONDS)
        return request.size < (now - self._phase_began - grace) * limits.min_body_rate
