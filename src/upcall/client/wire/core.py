"""Drive httpx2's core: the wire of a client that was given none. The one module that names httpcore2.

Its connection pool is what makes httpx2 good; building httpx2's requests and responses around it costs as much again
as sending them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

import httpcore2

from upcall.client.wire.reading import Body, lost

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator

    from upcall.client.answers import Answer
    from upcall.client.effects import Request
    from upcall.client.failures import Failure

__all__ = ["AsyncCoreWire", "CoreWire"]

_MAX_CONNECTIONS: Final = 100
_KEEPALIVE_SECONDS: Final = 5.0
"""Idle connections are closed early: a server that closes one as we send costs a retry."""

_ERRORS: Final = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
)


class CoreWire:
    """Send requests from threads.

    Args:
        base_url: The provider's root.
    """

    def __init__(self, base_url: str) -> None:
        self._pool = httpcore2.ConnectionPool(network_backend=_Backend(), **_pool_options(base_url))

    def send(self, request: Request, timeout_seconds: float) -> Answer | Failure:
        """Send a request and read its answer."""
        body, content = Body(timeout_seconds), _Content(request.body)
        response: httpcore2.Response | None = None
        _here.deadline = body.deadline
        try:
            response = self._pool.handle_request(_wire_request(request, content, timeout_seconds))
            with contextlib.closing(response):
                for chunk in response.iter_stream():
                    if body.is_full(chunk):
                        break
        except (OSError, *_ERRORS) as error:
            if response is None:
                return lost(error, sent=content.sent)
            body.flaw = "cut"  # once the status has come it survives, whatever the body did
        return body.encoded(response.status, response.headers)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


class AsyncCoreWire:
    """Send requests from one event loop.

    Args:
        base_url: The provider's root.
    """

    def __init__(self, base_url: str) -> None:
        self._pool = httpcore2.AsyncConnectionPool(**_pool_options(base_url))

    async def send(self, request: Request, timeout_seconds: float) -> Answer | Failure:
        """Send a request and read its answer."""
        body, content = Body(timeout_seconds), _Content(request.body)
        response: httpcore2.Response | None = None
        try:
            async with asyncio.timeout(timeout_seconds):
                response = await self._pool.handle_async_request(_wire_request(request, content, None))
                async with contextlib.aclosing(response):
                    async for chunk in response.aiter_stream():
                        if body.is_full(chunk):
                            break
        except (OSError, *_ERRORS) as error:  # TimeoutError is one, and what the backend lets through of TLS
            if response is None:
                return lost(error, sent=content.sent)
            body.flaw = "cut"  # once the status has come it survives, whatever the body did
        return body.encoded(response.status, response.headers)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()


def _pool_options(base_url: str) -> dict[str, Any]:
    return {
        "ssl_context": httpcore2.default_ssl_context() if urlsplit(base_url).scheme == "https" else None,
        "max_connections": _MAX_CONNECTIONS,
        "max_keepalive_connections": _MAX_CONNECTIONS,
        "keepalive_expiry": _KEEPALIVE_SECONDS,
    }


class _Origin(NamedTuple):
    """Hold the parts of a root that every request under it repeats."""

    scheme: bytes
    host: bytes
    port: int | None
    path: bytes
    host_header: bytes


@functools.lru_cache(maxsize=64)
def _origin(root: str) -> _Origin:
    parts = urlsplit(root)
    host = parts.hostname or ""
    name = host.encode("ascii") if host.isascii() else host.encode("idna")
    header = b"[%s]" % name if b":" in name else name
    if parts.port not in {None, 443 if parts.scheme == "https" else 80}:
        header = b"%s:%d" % (header, parts.port or 0)
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~-._").encode("ascii")
    return _Origin(parts.scheme.encode("ascii"), name, parts.port, path, header)


def _wire_request(request: Request, content: _Content, timeout_seconds: float | None) -> httpcore2.Request:
    origin = _origin(request.root)
    url = httpcore2.URL(
        scheme=origin.scheme, host=origin.host, port=origin.port, target=origin.path + request.path.encode("ascii")
    )
    headers = [(b"Host", origin.host_header), (b"Accept-Encoding", b"gzip")]
    headers += [(name.encode("ascii"), value.encode("latin-1")) for name, value in request.headers.items()]
    if request.body is not None:
        headers.append((b"Content-Length", b"%d" % len(request.body)))
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), timeout_seconds)
    return httpcore2.Request(request.method, url, headers=headers, content=content, extensions={"timeout": timeouts})


class _Content:
    """Hold a request's body, and note whether the request's head has left when it is asked for."""

    __slots__ = ("_body", "sent")

    def __init__(self, body: bytes | None) -> None:
        self._body = body
        self.sent = False

    def __iter__(self) -> Iterator[bytes]:
        self.sent = True
        if self._body:
            yield self._body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.sent = True
        if self._body:
            yield self._body


_here = threading.local()
"""Until when the request may take that is under way in this thread."""


class _Backend(httpcore2.SyncBackend):
    """Open connections whose reads and writes end at the deadline of the request that they belong to.

    The pool's own timeouts are one for each read: an answer's head that comes in drops would take for ever.
    """

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *arguments: Any, **options: Any
    ) -> httpcore2.NetworkStream:
        left = _left(timeout, httpcore2.ConnectTimeout)
        return _Stream(super().connect_tcp(host, port, left, *arguments, **options))


class _Stream(httpcore2.NetworkStream):
    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _left(timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = _left(timeout, httpcore2.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _left(timeout: float | None, too_late: type[Exception]) -> float | None:
    if timeout is None:
        return None  # the pool closes connections without one
    left: float = _here.deadline - time.monotonic()
    if left <= 0:
        raise too_late
    return min(timeout, left)
