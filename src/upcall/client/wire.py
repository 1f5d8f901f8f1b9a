"""The wire: the one module that names httpx2 and its core, which load, with the TLS context, at the first call.

Of its own accord a client drives httpcore2, httpx2's core, whose connection pool is what makes httpx2 good; building
httpx2's requests and responses around it costs as much again as sending them. Where proxy variables are set, or the
user gives a client or a transport, httpx2 itself is driven. Either way a request becomes an `Answer` or a `Failure`.
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from upcall.client.answers import Answer
from upcall.client.failures import Failure
from upcall.errors import SettingsError
from upcall.thingspace import is_loopback_host

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
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

                self._pool = httpcore2.ConnectionPool(**_pool_options(base_url))
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
        import httpcore2  # noqa: PLC0415

        body = _Body(timeout_seconds)
        response: httpcore2.Response | None = None
        try:
            response = pool.handle_request(_core_request(request, timeout_seconds))
            with contextlib.closing(response):
                for chunk in response.iter_stream():
                    if body.is_full(chunk):
                        break
        except _core_errors() as error:
            if response is None:
                return _lost(error, httpcore2)
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
                return _lost(error, httpx2)
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
        import httpcore2  # noqa: PLC0415

        body = _Body(timeout_seconds)
        response: httpcore2.Response | None = None
        try:
            response = await pool.handle_async_request(_core_request(request, timeout_seconds))
            async with contextlib.aclosing(response):
                async for chunk in response.aiter_stream():
                    if body.is_full(chunk):
                        break
        except _core_errors() as error:
            if response is None:
                return _lost(error, httpcore2)
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
                return _lost(error, httpx2)
            body.flaw = "garbled" if isinstance(error, httpx2.DecodingError) else "cut"
        return body.decoded(response.status_code, response.headers.raw)


class _Body:
    """Gather an answer's body, within a deadline and a size.

    A timeout of the library's is one for each read; this one is for the whole answer.
    """

    __slots__ = ("_chunks", "_deadline", "_size", "flaw")

    def __init__(self, timeout_seconds: float) -> None:
        self._deadline = time.monotonic() + timeout_seconds
        self._chunks: list[bytes] = []
        self._size = 0
        self.flaw: Flaw | None = None

    def is_full(self, chunk: bytes) -> bool:
        """Take a chunk, and tell whether to stop reading."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > MAX_BODY_BYTES:
            self.flaw = "too_large"
        elif time.monotonic() > self._deadline:
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


def _core_request(request: Request, timeout_seconds: float) -> httpcore2.Request:
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
    return httpcore2.Request(
        request.method, url, headers=headers, content=request.body, extensions={"timeout": timeouts}
    )


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
def _core_errors() -> tuple[type[Exception], ...]:
    import httpcore2  # noqa: PLC0415

    return (
        httpcore2.TimeoutException,
        httpcore2.NetworkError,
        httpcore2.ProtocolError,
        httpcore2.ProxyError,
        httpcore2.UnsupportedProtocol,
    )


def _lost(error: Exception, library: Any) -> Failure:
    """Say what an exception means that came before any status; both libraries name theirs alike."""
    if isinstance(error, (library.LocalProtocolError, library.UnsupportedProtocol, getattr(library, "InvalidURL", ()))):
        return Failure(reason="the request cannot be written", sent=False, permanent=True)
    unsent = (library.ConnectError, library.ConnectTimeout, library.PoolTimeout, library.ProxyError)
    if isinstance(error, unsent):
        return Failure(reason=_reason(error), sent=False, permanent="CERTIFICATE_VERIFY_FAILED" in str(error))
    return Failure(reason=_reason(error), sent=True)


def _reason(error: Exception) -> str:
    """Say what happened in the error's own words; a timeout has none but its name."""
    words = {
        "ConnectTimeout": "the connection took too long",
        "PoolTimeout": "no connection came free",
        "ReadTimeout": "the answer took too long",
        "WriteTimeout": "the request took too long",
    }
    name = type(error).__name__
    return words.get(name) or re.sub(r"^\[Errno -?\d+\] ", "", str(error)).rstrip(".") or name


def _is_proxied(base_url: str) -> bool:
    """Tell whether proxy variables are set that may apply; loopback ignores them."""
    from urllib.request import getproxies  # noqa: PLC0415 - takes long to load

    proxies = getproxies()
    is_set = any(proxies.get(scheme) for scheme in _PROXY_SCHEMES)
    return is_set and not is_loopback_host(urlsplit(base_url).hostname or "")


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
