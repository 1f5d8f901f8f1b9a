"""Serving the sandbox on one socket: uvicorn with httptools and uvloop, named here only."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import TYPE_CHECKING, Any, Final

import httptools
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from upcall.errors import StartError
from upcall.sandbox.http import RESET_EXTENSION

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

__all__ = ["serve"]

IDLE_SECONDS: Final = 75
DRAIN_SECONDS: Final = 10
BACKLOG: Final = 2048
MAX_HEAD_BYTES: Final = 1024 * 1024
"""A request whose line and headers are longer, give or take a read, is refused before a stranger fills the memory."""

_NOT_HTTP: Final = "Invalid HTTP request received."


def serve(
    app: Callable[..., Any],
    listening: socket.socket,
    *,
    on_ready: Callable[[], None],
) -> None:
    """Serve until SIGTERM or SIGINT, then answer what was accepted and return.

    Args:
        app: The ASGI application; its lifespan ends with the server's.
        listening: The socket, from `bind`; it is closed at the end.
        on_ready: Called once requests are accepted.

    Raises:
        StartError: The application's start failed.
        KeyboardInterrupt: SIGINT ended it.
    """
    config = uvicorn.Config(
        app,
        http=_Protocol,
        lifespan="on",
        ws="none",
        access_log=False,  # the application has a line for each request
        log_config=None,
        log_level=logging.WARNING,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        backlog=BACKLOG,
    )
    logging.getLogger("uvicorn.error").addFilter(_tells_more_than_a_cut)
    server = _Server(config, on_ready)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_stopped(server, listening))
    if signal.SIGINT in server.stopped_by:
        raise KeyboardInterrupt


def _tells_more_than_a_cut(record: logging.LogRecord) -> bool:
    """Leave out the traceback of each request that was cut off at the end of the drain."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


class _Protocol(HttpToolsProtocol):
    """Serve a request that offers another protocol (``Upgrade: h2c``) as the plain request that it is as well.

    Java's HttpClient offers HTTP/2 with each request over plain http. The parser stops after the head of such a
    request, and uvicorn would hand it on without its body (uvicorn issue 2722).
    """

    _in_head = False
    _head_bytes = 0

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()
        self.scope["extensions"] = {RESET_EXTENSION: {"end": self._reset}}

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        rest = memoryview(data)
        self._unset_keepalive_if_required()
        try:
            while True:
                try:
                    self.parser.feed_data(rest)
                except httptools.HttpParserUpgrade as offer:
                    rest = rest[offer.args[0] :]
                    self._begin_again_without_offer()
                else:
                    break
            if self._in_head:
                self._head_bytes += len(data)
                if self._head_bytes > MAX_HEAD_BYTES:
                    raise httptools.HttpParserError
        except httptools.HttpParserError:
            self.logger.warning(_NOT_HTTP)
            self.send_400_response(_NOT_HTTP)

    def _reset(self) -> None:
        """End the connection without an answer."""
        if self.cycle is not None:
            self.cycle.disconnected = True  # or uvicorn would say that the application gave none
        self.transport.abort()

    def _should_upgrade(self) -> bool:
        return True  # so that uvicorn does not begin an answer before the head is read again

    def _begin_again_without_offer(self) -> None:
        """Read the head of a request again, without what stopped the parser."""
        method = self.parser.get_method()
        if method == b"CONNECT":  # stops the parser too, and offers nothing else
            raise httptools.HttpParserError
        lines = [b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"\r\n".join((*lines, b"", b"")))


class _Server(uvicorn.Server):
    """Say when requests are accepted, and keep the process alive to close its state file."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self.stopped_by: list[int] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._on_ready()

    def stop(self, number: int) -> None:
        # A second signal does not wait for anybody.
        self.force_exit = bool(self.stopped_by)
        self.stopped_by.append(number)
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn raises the signal again once it has stopped, which would end the process before our clean-up.
        yield


async def _until_stopped(server: _Server, listening: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop, number)
    try:
        await server.serve(sockets=[listening])
    except SystemExit:
        raise StartError("the server could not start; the lines above say why.") from None
    finally:
        listening.close()
