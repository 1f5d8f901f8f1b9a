"""The wire: the one module that names httpx2 and its core, which load, with the TLS context, at the first call.

Of its own accord a client drives httpcore2, httpx2's core, whose connection pool is what makes httpx2 good; building
httpx2's requests and responses around it costs as much again as sending them. Where proxy variables are set, or the
user gives a client or a transport, httpx2 itself is driven. Either way a request becomes an `Answer` or a `Failure`.
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
import time
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from upcall.client.answers import Answer
from upcall.client.failures import Failure
from upcall.errors import SettingsError
from upcall.thingspace import is_loopback_host

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterable, Iterator
    from typing import Literal, TypeAlias

    import httpcore2
    import httpx2

    from upcall.client.effects import Request

    AsyncHttpClient: TypeAlias = httpx2.AsyncClient
    AsyncHttpTransport: TypeAlias = httpx2.AsyncBaseTransport
    HttpClient: TypeAlias = httpx2.Client
    HttpTransport: TypeAlias = httpx2.BaseTransport
    Flaw: TypeAlias = Literal["cut", "too_large", "garbled"]

__all__ = ["MAX_BODY_BYTES", "AsyncWire", "Wire"]

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""No answer of this API comes near it: a page of 1,000 devices has some 100 KiB."""

_MAX_CONNECTIONS: Final = 100
_KEEPALIVE_SECONDS: Final = 5.0
"""Idle connections are closed early: a server that closes one as we send costs a retry."""

_PROXY_SCHEMES: Final = ("http", "https", "all")
_ENCODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})


class Wire:
    """Send requests from threads.

    Args:
        base_url: The provider's root: loopback ignores proxy variables.
        transport: An httpx2 transport to use instead of the network.
        http_client: An httpx2 client to use, which its owner closes.
    """

    def __init__(self, base_url: str, transport: HttpTransport | None, http_client: HttpClient | None) -> None:
        self._pool: httpcore2.ConnectionPool | None = None
        self._client = http_client
        self._is_given = http_client is not None
        if http_client is not None:
            return
        proxied = _is_proxied(base_url)
        with _environment_errors():
            if transport is None and not proxied:
                import httpcore2  # noqa: PLC0415 - at the first call, not at import

                backend = _deadline_backend()
                self._pool = httpcore2.ConnectionPool(network_backend=backend, **_pool_options(base_url))
            else:
                import httpx2  # noqa: PLC0415

                self._client = httpx2.Client(transport=transport, trust_env=proxied)

    def send(self, request: Request, timeout_seconds: float) -> Answer | Failure:
        """Send a request and read its answer."""
        if self._pool is not None:
            return self._send_by_core(self._pool, request, timeout_seconds)
        assert self._client is not None
        return self._send_by_client(self._client, request, timeout_seconds)

    def close(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            self._pool.close()
        elif self._client is not None and not self._is_given:
            self._client.close()

    def _send_by_core(
        self, pool: httpcore2.ConnectionPool, request: Request, timeout_seconds: float
    ) -> Answer | Failure:
        body, content = _Body(timeout_seconds), _Content(request.body)
        response: httpcore2.Response | None = None
        _here.deadline = body.deadline
        try:
            response = pool.handle_request(_core_request(request, content, timeout_seconds))
            with contextlib.closing(response):
                for chunk in response.iter_stream():
                    if body.is_full(chunk):
                        break
        except _core_errors() as error:
            if response is None:
                return _unanswered(error, content)
            body.flaw = "cut"  # once the status has come it survives, whatever the body did
        return body.encoded(response.status, response.headers)

    def _send_by_client(self, client: httpx2.Client, request: Request, timeout_seconds: float) -> Answer | Failure:
        import httpx2  # noqa: PLC0415

        body = _Body(timeout_seconds)
        response: httpx2.Response | None = None
        try:
            wire = client.build_request(
                request.method, request.url, headers=request.headers, content=request.body, timeout=timeout_seconds
            )
            # Auth of the client's own would take the place of ours.
            response = client.send(wire, stream=True, auth=None, follow_redirects=False)
            with contextlib.closing(response):
                for chunk in response.iter_bytes():
                    if body.is_full(chunk):
                        break
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            if response is None:
                return _lost(error)
            body.flaw = "garbled" if isinstance(error, httpx2.DecodingError) else "cut"
        return body.decoded(response.status_code, response.headers.raw)


class AsyncWire:
    """Send requests from one event loop.

    Args:
        base_url: The provider's root: loopback ignores proxy variables.
        transport: An httpx2 transport to use instead of the network.
        http_client: An httpx2 client to use, which its owner closes.
    """

    def __init__(
        self, base_url: str, transport: AsyncHttpTransport | None, http_client: AsyncHttpClient | None
    ) -> None:
        self._pool: httpcore2.AsyncConnectionPool | None = None
        self._client = http_client
        self._is_given = http_client is not None
        if http_client is not None:
            return
        proxied = _is_proxied(base_url)
        with _environment_errors():
            if transport is None and not proxied:
                import httpcore2  # noqa: PLC0415 - at the first call, not at import

                self._pool = httpcore2.AsyncConnectionPool(**_pool_options(base_url))
            else:
                import httpx2  # noqa: PLC0415

                self._client = httpx2.AsyncClient(transport=transport, trust_env=proxied)

    async def send(self, request: Request, timeout_seconds: float) -> Answer | Failure:
        """Send a request and read its answer."""
        if self._pool is not None:
            return await self._send_by_core(self._pool, request, timeout_seconds)
        assert self._client is not None
        return await self._send_by_client(self._client, request, timeout_seconds)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            await self._pool.aclose()
        elif self._client is not None and not self._is_given:
            await self._client.aclose()

    async def _send_by_core(
        self, pool: httpcore2.AsyncConnectionPool, request: Request, timeout_seconds: float
    ) -> Answer | Failure:
        import asyncio  # noqa: PLC0415 - takes long to load, and a program without tasks has no use for it

        body, content = _Body(timeout_seconds), _Content(request.body)
        response: httpcore2.Response | None = None
        try:
            async with asyncio.timeout(timeout_seconds):
                response = await pool.handle_async_request(_core_request(request, content, None))
                async with contextlib.aclosing(response):
                    async for chunk in response.aiter_stream():
                        if body.is_full(chunk):
                            break
        except _async_errors() as error:
            if response is None:
                return _unanswered(error, content)
            body.flaw = "cut"  # once the status has come it survives, whatever the body did
        return body.encoded(response.status, response.headers)

    async def _send_by_client(
        self, client: httpx2.AsyncClient, request: Request, timeout_seconds: float
    ) -> Answer | Failure:
        import httpx2  # noqa: PLC0415

        body = _Body(timeout_seconds)
        response: httpx2.Response | None = None
        try:
            wire = client.build_request(
                request.method, request.url, headers=request.headers, content=request.body, timeout=timeout_seconds
            )
            response = await client.send(wire, stream=True, auth=None, follow_redirects=False)
            async with contextlib.aclosing(response):
                async for chunk in response.aiter_bytes():
                    if body.is_full(chunk):
                        break
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            if response is None:
                return _lost(error)
            body.flaw = "garbled" if isinstance(error, httpx2.DecodingError) else "cut"
        return body.decoded(response.status_code, response.headers.raw)


class _Body:
    """Gather an answer's body, within a deadline and a size.

    A timeout of the library's is one for each read; this one is for the whole answer.
    """

    __slots__ = ("_chunks", "_size", "deadline", "flaw")

    def __init__(self, timeout_seconds: float) -> None:
        self.deadline = time.monotonic() + timeout_seconds
        self._chunks: list[bytes] = []
        self._size = 0
        self.flaw: Flaw | None = None

    def is_full(self, chunk: bytes) -> bool:
        """Take a chunk, and tell whether to stop reading."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > MAX_BODY_BYTES:
            self.flaw = "too_large"
        elif time.monotonic() > self.deadline:
            self.flaw = "cut"
        return self.flaw is not None

    def decoded(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> Answer:
        """Return the answer whose chunks were decompressed as they came."""
        return Answer(status=status, headers=_named(headers), body=b"".join(self._chunks), flaw=self.flaw)

    def encoded(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> Answer:
        """Return the answer whose chunks are as they came."""
        named, body, flaw = _named(headers), b"".join(self._chunks), self.flaw
        encoding = named.get("content-encoding", "").strip().lower()
        if body and encoding not in {"", "identity"}:
            body, damage = _decompressed(body, encoding)
            flaw = flaw or damage
        return Answer(status=status, headers=named, body=body, flaw=flaw)


def _named(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}


def _decompressed(raw: bytes, encoding: str) -> tuple[bytes, Flaw | None]:
    """Decompress a body, and no more of it than an answer may hold."""
    if encoding not in _ENCODINGS:
        return b"", "garbled"
    try:
        inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # finds out itself whether it is gzip or zlib
        body = inflater.decompress(raw, MAX_BODY_BYTES + 1)
    except zlib.error:
        return b"", "garbled"
    if len(body) > MAX_BODY_BYTES:
        return body, "too_large"
    return body, None if inflater.eof else "garbled"


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


@functools.cache
def _deadline_backend() -> httpcore2.NetworkBackend:
    """Make a network backend whose reads and writes end at the deadline of the request that they belong to.

    The pool's own timeouts are one for each read: an answer's head that comes in drops would take for ever.
    """
    import httpcore2  # noqa: PLC0415

    class Stream(httpcore2.NetworkStream):
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
            return Stream(self._inner.start_tls(ssl_context, server_hostname, left))

        def get_extra_info(self, info: str) -> Any:
            return self._inner.get_extra_info(info)

    class Backend(httpcore2.SyncBackend):
        def connect_tcp(
            self, host: str, port: int, timeout: float | None = None, *arguments: Any, **options: Any
        ) -> httpcore2.NetworkStream:
            left = _left(timeout, httpcore2.ConnectTimeout)
            return Stream(super().connect_tcp(host, port, left, *arguments, **options))

    return Backend()


def _left(timeout: float | None, too_late: type[Exception]) -> float | None:
    if timeout is None:
        return None  # the pool closes connections without one
    left: float = _here.deadline - time.monotonic()
    if left <= 0:
        raise too_late
    return min(timeout, left)


def _core_request(request: Request, content: _Content, timeout_seconds: float | None) -> httpcore2.Request:
    import httpcore2  # noqa: PLC0415

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


def _pool_options(base_url: str) -> dict[str, Any]:
    import httpcore2  # noqa: PLC0415

    is_https = urlsplit(base_url).scheme == "https"
    return {
        "ssl_context": httpcore2.default_ssl_context() if is_https else None,
        "max_connections": _MAX_CONNECTIONS,
        "max_keepalive_connections": _MAX_CONNECTIONS,
        "keepalive_expiry": _KEEPALIVE_SECONDS,
    }


@functools.cache
def _async_errors() -> tuple[type[Exception], ...]:
    return (TimeoutError, *_core_errors())


@functools.cache
def _core_errors() -> tuple[type[Exception], ...]:
    import httpcore2  # noqa: PLC0415

    return (
        httpcore2.TimeoutException,
        httpcore2.NetworkError,
        httpcore2.ProtocolError,
        httpcore2.ProxyError,
        httpcore2.UnsupportedProtocol,
    )


def _unanswered(error: Exception, content: _Content) -> Failure:
    """Say what an exception means that came before any status."""
    if isinstance(error, TimeoutError):
        reason = "the answer took too long" if content.sent else "the connection took too long"
        return Failure(reason=reason, sent=content.sent)
    return _lost(error, sent=content.sent)


def _lost(error: Exception, *, sent: bool | None = None) -> Failure:
    """Say what an exception means that came before any status; httpx2 and its core name theirs alike.

    Args:
        error: The exception.
        sent: Whether the request's head had left, None where its kind must tell.
    """
    name = type(error).__name__
    if name in {"LocalProtocolError", "UnsupportedProtocol", "InvalidURL"}:
        return Failure(reason="the request cannot be written", sent=False, permanent=True)
    if sent is None:
        sent = name not in {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"}
    return Failure(reason=_reason(error, name), sent=sent, permanent="CERTIFICATE_VERIFY_FAILED" in str(error))


def _reason(error: Exception, name: str) -> str:
    """Say what happened: in the system's words, or in ours where the library would quote what came."""
    words = {
        "ConnectTimeout": "the connection took too long",
        "PoolTimeout": "no connection came free",
        "ReadTimeout": "the answer took too long",
        "WriteTimeout": "the request took too long",
    }
    if name == "RemoteProtocolError":
        is_end = "disconnected" in str(error) or "closed" in str(error)
        return "the server closed the connection" if is_end else "what came back is not HTTP"
    return words.get(name) or re.sub(r"^\[Errno -?\d+\] ", "", str(error)).rstrip(".") or name


def _is_proxied(base_url: str) -> bool:
    """Tell whether proxy variables are set that may apply; loopback ignores them."""
    if is_loopback_host(urlsplit(base_url).hostname or ""):
        return False
    from urllib.request import getproxies  # noqa: PLC0415 - takes long to load

    proxies = getproxies()
    return any(proxies.get(scheme) for scheme in _PROXY_SCHEMES)


@contextlib.contextmanager
def _environment_errors() -> Iterator[None]:
    """Say which variables are to blame; the library's own error would show a proxy's password."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        raise SettingsError(
            f"The connection cannot be set up ({type(error).__name__}).",
            hint="Check HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR.",
        ) from None
