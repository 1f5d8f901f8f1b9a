"""The wire: a request becomes an `Answer` or a `Failure`.

Of its own accord a client drives httpcore2, httpx2's core. Where proxy variables are set, or the user gives a client or
a transport, httpx2 itself is driven. Both load at the first call, and the TLS context with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from urllib.parse import urlsplit

from upcall.errors import SettingsError
from upcall.thingspace import is_loopback_host

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    import httpx2

    from upcall.client.answers import Answer
    from upcall.client.effects import Request
    from upcall.client.failures import Failure

    AsyncHttpClient: TypeAlias = httpx2.AsyncClient
    AsyncHttpTransport: TypeAlias = httpx2.AsyncBaseTransport
    HttpClient: TypeAlias = httpx2.Client
    HttpTransport: TypeAlias = httpx2.BaseTransport

__all__ = ["AsyncWire", "Wire", "open_async_wire", "open_wire"]

W = TypeVar("W")

_PROXY_SCHEMES: Final = ("http", "https", "all")


class Wire(Protocol):
    """Send requests from threads."""

    def send(self, request: Request, timeout_seconds: float) -> Answer | Failure:
        """Send a request and read its answer."""
        ...

    def close(self) -> None:
        """Close the connections that are ours."""
        ...


class AsyncWire(Protocol):
    """Send requests from one event loop."""

    async def send(self, request: Request, timeout_seconds: float) -> Answer | Failure:
        """Send a request and read its answer."""
        ...

    async def aclose(self) -> None:
        """Close the connections that are ours."""
        ...


def open_wire(base_url: str, transport: HttpTransport | None, http_client: HttpClient | None) -> Wire:
    """Open the wire of a client.

    Args:
        base_url: The provider's root: loopback ignores proxy variables.
        transport: An httpx2 transport to use instead of the network.
        http_client: An httpx2 client to use, which its owner closes.

    Raises:
        SettingsError: A variable of proxies or of certificates makes no sense.
    """

    def make() -> Wire:
        is_proxied = _is_proxied(base_url)
        if http_client is None and transport is None and not is_proxied:
            from upcall.client.wire.core import CoreWire  # noqa: PLC0415 - at the first call, not at import

            return CoreWire(base_url)
        from upcall.client.wire.given import GivenWire, make_client  # noqa: PLC0415

        if http_client is not None:
            return GivenWire(http_client, is_ours=False)
        return GivenWire(make_client(transport, trust_env=is_proxied), is_ours=True)

    return _set_up(make)


def open_async_wire(
    base_url: str, transport: AsyncHttpTransport | None, http_client: AsyncHttpClient | None
) -> AsyncWire:
    """Open the wire of a client in one event loop; see `open_wire`."""

    def make() -> AsyncWire:
        is_proxied = _is_proxied(base_url)
        if http_client is None and transport is None and not is_proxied:
            from upcall.client.wire.core import AsyncCoreWire  # noqa: PLC0415 - at the first call, not at import

            return AsyncCoreWire(base_url)
        from upcall.client.wire.given import AsyncGivenWire, make_async_client  # noqa: PLC0415

        if http_client is not None:
            return AsyncGivenWire(http_client, is_ours=False)
        return AsyncGivenWire(make_async_client(transport, trust_env=is_proxied), is_ours=True)

    return _set_up(make)


def _is_proxied(base_url: str) -> bool:
    """Tell whether proxy variables are set that may apply; loopback ignores them."""
    if is_loopback_host(urlsplit(base_url).hostname or ""):
        return False
    from urllib.request import getproxies  # noqa: PLC0415 - takes long to load

    proxies = getproxies()
    return any(proxies.get(scheme) for scheme in _PROXY_SCHEMES)


def _set_up(make: Callable[[], W]) -> W:
    """Say which variables are to blame; the library's own error, and its trace, would show a proxy's password."""
    try:
        return make()
    except TypeError:
        raise
    except Exception as error:  # noqa: BLE001 - proxy URLs fail in many ways
        kind = type(error).__name__
    raise SettingsError(
        f"The connection cannot be set up ({kind}).",
        hint="Check HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR.",
    )
