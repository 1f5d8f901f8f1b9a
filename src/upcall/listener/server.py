"""Sockets that listen, and the listener's own server on them: uvloop, TLS, signals and a drain that cuts nobody."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import signal
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final, TypeVar

import uvloop

from upcall.errors import SettingsError, StartError
from upcall.listener.door import TlsDoor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from upcall.listener.connections import Connections

__all__ = ["bind", "max_connections", "run", "serving", "tls_context", "until_stopped", "url_of"]

BACKLOG: Final = 2048
DRAIN_SECONDS: Final = 10.0
MAX_PORT: Final = 65535
_FILES_KEPT: Final = 128
"""Descriptors left for the store, the spool and the log when connections take the rest."""

Result = TypeVar("Result")

_log = logging.getLogger("upcall.listener")


def bind(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Args:
        host: A name or address, such as ``127.0.0.1`` or ``::1``.
        port: The port, 0 for a free one.

    Raises:
        StartError: The port is in use or may not be used, or the address is not this machine's.
    """
    if not 0 <= port <= MAX_PORT:  # the resolver would take another port, without a word
        raise StartError(f"cannot listen on {host!r} port {port}: ports go from 0 to {MAX_PORT}.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, OverflowError, UnicodeError) as error:
        raise StartError(f"cannot listen on {host!r} port {port}: {_reason(error)}.") from None
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except (OSError, OverflowError) as error:
        listening.close()
        raise StartError(f"cannot listen on {host} port {port}: {_reason(error)}.", hint=_way_out(error)) from None
    return listening


def _reason(error: Exception) -> str:
    if getattr(error, "errno", None) == errno.EADDRINUSE:
        return "the port is in use"
    return getattr(error, "strerror", None) or str(error)


def _way_out(error: Exception) -> str | None:
    return {
        errno.EADDRINUSE: "Stop what listens there, or choose another port; 0 picks a free one.",
        errno.EACCES: "Choose a port above 1023.",
    }.get(getattr(error, "errno", None) or 0)


def url_of(listening: socket.socket, *, scheme: str = "http") -> str:
    """Return the root URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """Make what TLS needs: 1.2 or newer, with the whole chain out of the file.

    Args:
        certificate: PEM: the certificate, then those that lead to a public root. The provider refuses self-signed ones.
        key: PEM: the private key, None where the certificate's file holds it.

    Raises:
        SettingsError: A file cannot be read, or they do not belong together.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        why = "they are no certificate and key in PEM that belong together, or the key has a password"
        said = why if isinstance(error, ssl.SSLError) else error.strerror
        raise SettingsError(f"The certificate {certificate} cannot be used: {said}.") from None
    return context


def max_connections(most: int) -> int:
    """Return how many connections there may be: so many, but no more than this process may open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else max(1, min(most, soft - _FILES_KEPT))


@contextlib.asynccontextmanager
async def serving(
    connections: Connections, listening: socket.socket, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    """Accept connections on a socket; at the end answer what was accepted, and close it.

    Args:
        connections: Makes a protocol for each.
        listening: The socket, from `bind`.
        tls: What TLS needs, None for plain HTTP.
    """
    if tls is None:
        server = await asyncio.get_running_loop().create_server(connections, sock=listening, backlog=BACKLOG)
        close = server.close
    else:
        close = TlsDoor(connections, listening, tls).close
    watching = asyncio.ensure_future(connections.watch())
    try:
        yield
    finally:
        connections.draining = True
        await asyncio.sleep(0)  # what the system has accepted for us is ours to answer
        await asyncio.sleep(0)
        close()
        cut = await connections.drain(seconds=DRAIN_SECONDS)
        if cut:
            _log.warning("cut %d requests that were not whole %g s after the end was asked for", cut, DRAIN_SECONDS)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@contextlib.asynccontextmanager
async def until_stopped(*, on_hangup: Callable[[], None] | None = None) -> AsyncIterator[asyncio.Event]:
    """Give an event that SIGTERM or SIGINT sets; a second one ends the process without waiting for anybody.

    Args:
        on_hangup: Called on SIGHUP, None to let it end the process.

    Raises:
        KeyboardInterrupt: SIGINT ended it.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    came: list[int] = []

    def ask(number: int) -> None:
        if came:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        came.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask, number)
    if on_hangup is not None:
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
    yield stop
    if signal.SIGINT in came:
        raise KeyboardInterrupt


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on an event loop of uvloop's, and return what it returns."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
