"""`GuardedPoster`: from a URL, a body and headers to an answer, or to the reason why there is none."""

from __future__ import annotations

import asyncio
import functools
import re
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final, Self

from upcall.errors import SettingsError
from upcall.outbound.connection import Connection, Rest
from upcall.outbound.failures import failure, failure_of
from upcall.outbound.pool import Pool
from upcall.outbound.targets import check_address, refused
from upcall.outbound.urls import Destination

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from types import TracebackType

    from upcall.outbound.response import Answer
    from upcall.outbound.targets import IPAddress, OwnTarget, Targets

    Resolve = Callable[[str, int], Awaitable[list[str]]]

__all__ = ["GuardedPoster", "system_addresses"]

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS: Final = frozenset(
    {"connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers that say where a request ends, and whom it is for."""

_MOST_DESTINATIONS: Final = 256
"""How many URLs are remembered as they were read."""


class GuardedPoster:
    """POST to URLs that were registered by others, or by an operator, to allowed addresses only.

    Args:
        targets: What may be reached.
        connect_timeout_seconds: For resolving and connecting.
        total_timeout_seconds: For everything, the answer's body included.
        max_response_bytes: How much of an answer's body is read.
        trust: A file of certificates in PEM to trust beside the system's.
        resolve: Returns a host's addresses; None asks the system.

    Raises:
        SettingsError: The file of certificates cannot be read.
    """

    def __init__(
        self,
        targets: Targets | OwnTarget,
        *,
        connect_timeout_seconds: float = 10.0,
        total_timeout_seconds: float = 30.0,
        max_response_bytes: int = 64 * 1024,
        trust: str | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self._targets = targets
        self._connect_timeout_seconds = min(connect_timeout_seconds, total_timeout_seconds)
        self._total_timeout_seconds = total_timeout_seconds
        self._max_response_bytes = max_response_bytes
        self._tls = None if trust is None else _tls_context(trust)
        self._resolve = resolve or system_addresses
        self._pool = Pool()
        self._openings: set[asyncio.Timeout] = set()
        self._destinations: dict[str, Destination] = {}
        self._checked_names: tuple[str, ...] = ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; posts that are under way fail. A later post opens new ones."""
        now = asyncio.get_running_loop().time()
        for opening in self._openings:
            if not opening.expired():
                opening.reschedule(now)
        await self._pool.aclose()

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        parts: AsyncIterator[bytes] | None = None,
        on_connected: Callable[[], None] | None = None,
    ) -> Answer:
        """Send a body and return the answer, whatever its status.

        Args:
            url: Where to.
            body: The bytes.
            headers: The whole of what describes them; each try should carry the same.
            parts: What is sent in the body's place, as it comes; where that is shorter than the body, the connection
                ends there.
            on_connected: Called once there is a connection.

        Raises:
            TargetRefusedError: The URL leads to an address that is not allowed, or is written in an odd form.
            DeliveryError: No whole answer came; `kind` says why.
        """
        began = time.monotonic()
        destination = self._destinations.get(url) or self._read(url)
        first = body if parts is None else b""
        request = b"%b%b\r\n%b" % (destination.head, self._fields(destination, headers, len(body)), first)
        connection = self._pool.take(destination.origin) or await self._open(destination)
        if on_connected is not None:
            on_connected()
        rest = None if parts is None else Rest(parts, len(body))
        return await connection.exchange(request, began, began + self._total_timeout_seconds, rest)

    def _read(self, url: str) -> Destination:
        """Refuse what is wrong with a URL before any name is resolved; an address in it never is."""
        try:
            destination = Destination.of(url)
        except ValueError as error:
            raise refused(self._targets, "The URL", str(error), "Correct the URL.") from None
        if destination.is_address:
            check_address(self._targets, destination.host, destination.host, destination.port)
        if len(self._destinations) == _MOST_DESTINATIONS:
            self._destinations.clear()
        self._destinations[url] = destination
        return destination

    def _fields(self, destination: Destination, headers: Mapping[str, str], length: int) -> bytes:
        names = tuple(headers)
        if names != self._checked_names:
            if not all(_HEADER_NAME.fullmatch(name) and name.lower() not in _OURS for name in names):
                raise failure(destination.origin, "protocol", "a header's name cannot be sent")
            self._checked_names = names
        if not "".join(headers.values()).isprintable():  # a line's end in a value would begin a header, or a request
            raise failure(destination.origin, "protocol", "a header's value cannot be sent")
        fields = [f"{name}: {value}\r\n" for name, value in headers.items()]
        return f"{''.join(fields)}Content-Length: {length}\r\n".encode()

    async def _open(self, destination: Destination) -> Connection:
        try:
            async with asyncio.timeout(self._connect_timeout_seconds) as opening:
                self._openings.add(opening)
                try:
                    return await self._connect(destination)
                finally:
                    self._openings.discard(opening)
        except (OSError, ValueError) as error:
            raise failure_of(destination.origin, error, connecting=True) from None

    async def _connect(self, destination: Destination) -> Connection:
        """Connect to the first address of a host that can be reached; each gets its share of the time."""
        until = time.monotonic() + self._connect_timeout_seconds
        *others, last = await self._addresses(destination)
        for position, address in enumerate(others):
            share = (until - time.monotonic()) / (len(others) - position + 1)
            try:
                async with asyncio.timeout(share):
                    return await self._connect_to(address, destination)
            except ssl.SSLError:
                raise  # a host that can be reached, and is not to be trusted
            except OSError:
                continue
        return await self._connect_to(last, destination)

    async def _addresses(self, destination: Destination) -> list[IPAddress]:
        host, port = destination.host, destination.port
        found = [host] if destination.is_address else await self._resolve(host, port)
        if not found:
            raise OSError
        return [check_address(self._targets, host, text, port) for text in found]

    async def _connect_to(self, address: IPAddress, destination: Destination) -> Connection:
        def connection() -> Connection:
            return Connection(destination.origin, keeper=self._pool, max_response_bytes=self._max_response_bytes)

        loop = asyncio.get_running_loop()
        tls = None if destination.server_name is None else self._tls or _system_tls()
        _, made = await loop.create_connection(
            connection, str(address), destination.port, ssl=tls, server_hostname=destination.server_name
        )
        # Not earlier: of a connection that is made while its making is cancelled, uvloop does not tell the end.
        self._pool.add(made)
        return made


@functools.cache
def _system_tls() -> ssl.SSLContext:
    return _tls_context(None)


def _tls_context(trust: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if trust is None:
        return context
    try:
        context.load_verify_locations(trust)
    except (OSError, ssl.SSLError) as error:
        why = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise SettingsError(f"The certificates in {trust} cannot be read: {why}.") from None
    return context


async def system_addresses(host: str, port: int) -> list[str]:
    """Return what the system resolves a host to."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]
