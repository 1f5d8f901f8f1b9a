"""The one guarded POST to somebody else's URL.

What may be reached is said at start-up. A host is resolved once for each connection, every address of the answer is
checked, and the connection goes to the addresses that were checked: a name that resolves to something else later, or
for somebody else, changes nothing. The host name stays what ``Host``, SNI and the certificate are about. Redirects are
answers, not orders; proxies of the environment are ignored, because a proxy resolves for itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from upcall.errors import DeliveryError, SettingsError, TargetRefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from types import TracebackType

    Resolve = Callable[[str, int], Awaitable[list[str]]]
    IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

__all__ = ["Answer", "GuardedPoster", "Targets"]

_HEX_OR_DIGITS: Final = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*", re.IGNORECASE)
"""Hosts that some C library would read as a number: 127.1, 0x7f.1, 0177.0.0.1, 2130706433."""

_KEEP_ALIVE_SECONDS: Final = 2.0
"""How long an idle connection is used again: less than any server keeps one, or a try would be lost to its closing."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what came back.

    Args:
        status: The HTTP status; a redirect is returned, never followed.
        body: The body's beginning, up to the cap.
        truncated: Whether there was more.
        elapsed_seconds: From the call to the end of the body.
    """

    status: int
    body: bytes
    truncated: bool
    elapsed_seconds: float


class Targets(msgspec.Struct, frozen=True):
    """Hold the addresses that may be reached.

    Args:
        addresses: Each with its port; None for any port.
        loopback: Whether this machine's loopback addresses may be reached too.
    """

    addresses: frozenset[tuple[IPAddress, int | None]] = frozenset()
    loopback: bool = True

    @classmethod
    def parse(cls, targets: Iterable[str] = (), *, loopback: bool = True) -> Self:
        """Read ``HOST[:PORT]`` texts; a name is resolved now, and stands for the addresses that it has now.

        Args:
            targets: Names or addresses; an IPv6 address with a port stands in brackets.
            loopback: Whether loopback addresses may be reached too.

        Raises:
            SettingsError: A text cannot be read, or a name does not resolve.
        """
        addresses: set[tuple[IPAddress, int | None]] = set()
        for text in targets:
            host, port = _host_and_port(text)
            addresses |= {(address, port) for address in _resolve_now(text, host)}
        return cls(frozenset(addresses), loopback)

    def allows(self, address: IPAddress, port: int) -> bool:
        """Tell whether an address may be reached on a port."""
        if self.loopback and address.is_loopback:
            return True
        return (address, port) in self.addresses or (address, None) in self.addresses


class GuardedPoster:
    """POST to URLs that were registered by others, to allowed addresses only.

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
        targets: Targets,
        *,
        connect_timeout_seconds: float = 10.0,
        total_timeout_seconds: float = 30.0,
        max_response_bytes: int = 64 * 1024,
        trust: str | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self._targets = targets
        self._connect_timeout_seconds = connect_timeout_seconds
        self._total_timeout_seconds = total_timeout_seconds
        self._max_response_bytes = max_response_bytes
        self._tls = _tls_context(trust)
        self._resolve = resolve or _resolve
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a body and return the answer, whatever its status.

        Args:
            url: Where to.
            body: The bytes.
            headers: The whole of what describes them; each try should carry the same.

        Raises:
            TargetRefusedError: The URL leads to an address that is not allowed, or is written in an odd form.
            DeliveryError: No whole answer came; `kind` says why.
        """
        self._check_url(url)
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._total_timeout_seconds):
                return await self._exchange(url, body, headers, started)
        except DeliveryError:
            raise
        except (aiohttp.ClientError, OSError, TimeoutError, ssl.CertificateError, ValueError) as error:
            kind = _kind(error)
            raise DeliveryError(f"POST to {_origin(url)} failed: {_what(error, kind)}.", kind=kind) from None

    async def _exchange(self, url: str, body: bytes, headers: Mapping[str, str], started: float) -> Answer:
        async with self._open().post(url, data=body, headers=headers, allow_redirects=False) as response:
            read = bytearray()
            truncated = False
            async for part in response.content.iter_any():
                read += part
                if len(read) > self._max_response_bytes:
                    truncated = True
                    response.close()  # the rest is not wanted, and must not hold the connection
                    break
            return Answer(
                status=response.status,
                body=bytes(read[: self._max_response_bytes]),
                truncated=truncated,
                elapsed_seconds=time.monotonic() - started,
            )

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=_CheckedResolver(self._targets, self._resolve),
                ssl=self._tls,
                limit=0,
                use_dns_cache=False,
                keepalive_timeout=_KEEP_ALIVE_SECONDS,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout_seconds),
                trust_env=False,
                # Compressed answers stay compressed: a small bomb must not become a large one.
                auto_decompress=False,
                skip_auto_headers=("Accept", "Accept-Encoding"),
            )
        return self._session

    def _check_url(self, url: str) -> None:
        """Refuse what is wrong with a URL before any name is resolved.

        An address in the URL never reaches the resolver, so it is checked here.
        """
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise _refused("The URL", str(error)) from None
        if parts.scheme not in {"http", "https"} or not host:
            raise _refused("The URL", "it is not http or https with a host")
        if ":" in host or _HEX_OR_DIGITS.fullmatch(host.rstrip(".")):
            _check_address(self._targets, host, host, port)


class _CheckedResolver(AbstractResolver):
    """Resolve a host for one connection, and return addresses only if all of them are allowed."""

    def __init__(self, targets: Targets, resolve: Resolve) -> None:
        self._targets = targets
        self._resolve = resolve

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - both are connected to
    ) -> list[ResolveResult]:
        found = await self._resolve(host, port)
        if not found:
            raise OSError(f"{host} has no address")
        addresses = [_check_address(self._targets, host, text, port) for text in found]
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,  # noqa: PLR2004 - IP version
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


def _check_address(targets: Targets, host: str, text: str, port: int) -> IPAddress:
    """Return an address that may be reached, or refuse it."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        # 0177.0.0.1, 2130706433, 127.1: what they mean depends on who reads them.
        raise _refused(host, "it is an address in an odd form") from None
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.scope_id):
        raise _refused(host, f"{address} is an address in an odd form")
    if not targets.allows(address, port):
        raise _refused(host, f"{address} port {port} is not one that was allowed at start-up")
    return address


def _refused(host: str, why: str) -> TargetRefusedError:
    return TargetRefusedError(
        f"{host} was not sent to: {why}.", hint="Allow a target with --deliver-to HOST[:PORT].", kind="target"
    )


def _tls_context(trust: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if trust is not None:
        try:
            context.load_verify_locations(trust)
        except (OSError, ssl.SSLError) as error:
            why = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
            raise SettingsError(f"The certificates in {trust} cannot be read: {why}.") from None
    return context


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _resolve_now(text: str, host: str) -> set[IPAddress]:
    try:
        return {ipaddress.ip_address(host)}
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return {ipaddress.ip_address(str(entry[4][0])) for entry in found}
    except (OSError, UnicodeError, ValueError) as error:
        raise SettingsError(
            f"The target {text!r} does not resolve: {getattr(error, 'strerror', None) or error}."
        ) from None


def _host_and_port(text: str) -> tuple[str, int | None]:
    bare = text.strip()
    try:
        ipaddress.IPv6Address(bare)
    except ValueError:
        pass
    else:
        return bare, None
    try:
        parts = urlsplit(f"//{bare}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or any(character in bare for character in "/?#@"):
        raise SettingsError(f"The target {text!r} cannot be read.", hint="Write HOST or HOST:PORT.")
    return host, port


def _origin(url: str) -> str:
    """Name a URL in an error without its path: that is where a callback's token stands."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.port else f"{parts.scheme}://{parts.hostname}"


_KINDS: Final = (
    (TimeoutError, "timeout"),
    (aiohttp.ClientSSLError, "tls"),
    (aiohttp.ClientConnectorCertificateError, "tls"),
    (ssl.SSLError, "tls"),
    (aiohttp.ClientConnectorError, "connect"),
    (aiohttp.ServerDisconnectedError, "reset"),
    (aiohttp.ClientOSError, "reset"),
    (aiohttp.ClientConnectionResetError, "reset"),
    (aiohttp.InvalidURL, "target"),
    (aiohttp.ClientError, "protocol"),
    (ValueError, "protocol"),
)


def _kind(error: BaseException) -> str:
    return next((kind for types, kind in _KINDS if isinstance(error, types)), "connect")


_PHRASES: Final = {
    "timeout": "no whole answer came within the time allowed",
    "reset": "the connection was closed before an answer came",
    "protocol": "the answer is not whole HTTP",
    "target": "the URL cannot be used",
}


def _what(error: BaseException, kind: str) -> str:
    """Say what went wrong; never in the library's words, which can hold the URL with its token."""
    verification = getattr(getattr(error, "certificate_error", error), "verify_message", None)
    if verification:
        return f"the certificate was refused: {verification}"
    return _PHRASES.get(kind) or getattr(error, "strerror", None) or "the host could not be reached"
