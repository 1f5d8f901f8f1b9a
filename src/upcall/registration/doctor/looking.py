"""Looking at a URL from this machine, as the provider would: resolve, connect, agree on TLS, ask for a proof."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from upcall.registration.doctor.addresses import literal, unreachable
from upcall.registration.doctor.asking import CLOSED, ask, request_of
from upcall.registration.doctor.handshakes import DATE_CODES, NAME_CODES, blame, certificate_of, wants_certificate
from upcall.registration.doctor.sights import FORGED, Attempt, Handshake, Place, Reply, Sight
from upcall.registration.doctor.trust import Contexts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

__all__ = ["Limits", "Looker", "resolve"]

_NOT_THEIRS: Final = frozenset(
    {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPERM, errno.ENETDOWN}
)
"""This machine has no way to such addresses: no IPv6, most often."""
_NONCE_BYTES: Final = 24


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what looking may take.

    Args:
        resolve_seconds: For a name.
        connect_seconds: For a connection to one address.
        handshake_seconds: For one TLS handshake.
        answer_seconds: For one answer.
        objection_seconds: For hearing why a connection is closed, where the answer was cut off.
        url_seconds: For one URL, all of these together.
        run_seconds: For all URLs of a run: those that were not begun by then are skipped.
        addresses: How many addresses of a name are connected to.
    """

    resolve_seconds: float = 5.0
    connect_seconds: float = 5.0
    handshake_seconds: float = 5.0
    answer_seconds: float = 10.0
    objection_seconds: float = 1.0
    url_seconds: float = 60.0
    run_seconds: float = 300.0
    addresses: int = 4


def resolve(host: str) -> list[str]:
    """Return the addresses of a name, as this machine resolves it.

    Raises:
        OSError: It does not.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Looker:
    """Look at URLs; any thread may, and each look is bounded.

    Args:
        trust: A file of authorities, in PEM, to believe beside the public ones.
        limits: What looking may take.
        resolver: Returns the addresses of a name.
        clock: Returns seconds that never go back; how long an answer took is told by it.
        wall: Returns the time, in seconds since 1970.

    Raises:
        SettingsError: The file of authorities cannot be used.
    """

    def __init__(
        self,
        *,
        trust: str | os.PathLike[str] | None = None,
        limits: Limits | None = None,
        resolver: Callable[[str], Sequence[str]] = resolve,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.limits: Limits = limits or Limits()
        self.resolver: Callable[[str], Sequence[str]] = resolver
        self.clock: Callable[[], float] = clock
        self.wall: Callable[[], float] = wall
        self.contexts: Contexts = Contexts(trust)
        self._over_at = time.monotonic() + self.limits.run_seconds

    def look(self, url: str, tokens: Collection[str], *, local: bool = False) -> Sight:
        """Look at a URL that `check_callback_url` admits.

        Args:
            url: The URL.
            tokens: The tokens of which one is to prove that the listener knows it.
            local: Whether the provider is a sandbox on this machine, which reaches what this machine does.
        """
        now = time.monotonic()
        place = Place.of(url)
        if now >= self._over_at:
            return Sight(place=place, is_late=True)
        return _Look(self, place, tokens, local=local, until=now + self.limits.url_seconds).see()


class _Look:
    """Hold one look at one URL."""

    def __init__(self, looker: Looker, place: Place, tokens: Collection[str], *, local: bool, until: float) -> None:
        self._looker = looker
        self._limits = looker.limits
        self._place = place
        self._tokens = tokens
        self._local = local
        self._until = until
        self._address = ""

    def see(self) -> Sight:
        sight = Sight(place=self._place)
        addresses, dns_error = self._resolve()
        sight = _with(sight, addresses=addresses, dns_error=dns_error)
        if dns_error or unreachable(addresses, local=self._local):
            return sight
        attempts = tuple(self._attempt(address) for address in addresses[: self._limits.addresses])
        sight = _with(sight, attempts=attempts)
        self._address = next((attempt.address for attempt in attempts if attempt.error is None), "")
        if not self._address:
            return sight
        reply, handshake = self._ask()
        if reply is None and handshake is None:
            return _with(sight, attempts=(Attempt(self._address, "a connection was made, and a second one was not"),))
        sight = _with(sight, handshake=handshake, reply=reply)
        if reply is None or not reply.is_proved:
            return sight
        forged, _ = self._ask(forwarded=FORGED)
        return _with(sight, forged=forged)

    # one step each

    def _resolve(self) -> tuple[tuple[str, ...], str]:
        if literal(self._place.host):
            return (self._place.host,), ""
        found: list[Any] = []
        worker = threading.Thread(target=self._resolve_into, args=(found,), daemon=True)  # a resolver knows no deadline
        worker.start()
        worker.join(self._for(self._limits.resolve_seconds))
        if not found:
            return (), "the resolver did not answer in time"
        if isinstance(found[0], Exception):
            return (), getattr(found[0], "strerror", None) or str(found[0])
        return tuple(found[0]), "" if found[0] else "it has no address"

    def _resolve_into(self, found: list[Any]) -> None:
        try:
            found.append(self._looker.resolver(self._place.host))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the resolver answered
            found.append(error)

    def _attempt(self, address: str) -> Attempt:
        try:
            self._connect(address).close()
        except TimeoutError:
            return Attempt(address, "no answer")
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            return Attempt(address, reason, is_ours=error.errno in _NOT_THEIRS)
        return Attempt(address)

    def _ask(self, *, forwarded: str | None = None) -> tuple[Reply | None, Handshake | None]:
        """Connect, agree on TLS where there is any, and probe; nothing comes of it where no connection is made."""
        looker, handshake = self._looker, None
        nonce = secrets.token_urlsafe(_NONCE_BYTES)
        began = looker.clock()
        try:
            connection = self._connect(self._address)
        except OSError:
            return None, None
        with contextlib.closing(connection):
            if not self._place.is_plain:
                try:
                    connection = self._wrap(connection, looker.contexts.strict)
                except (OSError, EOFError, ValueError) as error:
                    return None, self._explained(blame(error))
                handshake = _agreed(connection)
            with contextlib.closing(connection):
                until = time.monotonic() + self._for(self._limits.answer_seconds)
                request = request_of(self._place, nonce, forwarded=forwarded)
                reply = ask(connection, request, nonce=nonce, secrets=self._tokens, until=until)
        reply = _with(reply, seconds=looker.clock() - began, at=looker.wall())
        if reply.error == CLOSED and not self._place.is_plain:
            reply = _with(reply, wants_certificate=reply.wants_certificate or self._hears_objection())
        return reply, handshake

    def _hears_objection(self) -> bool:
        """Tell whether the other end wants a certificate of ours: who sends nothing hears that before the end."""
        try:
            plain = self._connect(self._address)
            with (
                contextlib.closing(plain),
                contextlib.closing(self._wrap(plain, self._looker.contexts.strict)) as connection,
            ):
                connection.settimeout(self._for(self._limits.objection_seconds))
                connection.recv(1)
        except (OSError, EOFError) as error:
            return wants_certificate(error)
        return False

    def _explained(self, handshake: Handshake) -> Handshake:
        """Look again, less strictly, so that it can be said what the certificate is, and not only what it is not."""
        contexts = self._looker.contexts
        if handshake.code in NAME_CODES:
            # The name is compared first: where something else is wrong too, that is what must be mended first.
            seen = self._seen(contexts.any_name)
        elif handshake.code in DATE_CODES:
            seen = self._seen(contexts.any_time)
        elif handshake.code:
            seen = self._seen(contexts.any_chain)
        else:
            return handshake
        if seen.flaw is not None and seen.code:
            return seen if handshake.code in NAME_CODES else handshake
        return _with(handshake, certificate=seen.certificate, sent=seen.sent)

    def _seen(self, context: ssl.SSLContext) -> Handshake:
        try:
            plain = self._connect(self._address)
            with contextlib.closing(plain), contextlib.closing(self._wrap(plain, context)) as connection:
                return _agreed(connection)
        except (OSError, EOFError, ValueError) as error:
            return blame(error)

    def _connect(self, address: str) -> socket.socket:
        timeout = self._for(self._limits.connect_seconds)
        return socket.create_connection((address, self._place.port), timeout)

    def _wrap(self, plain: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
        plain.settimeout(self._for(self._limits.handshake_seconds))
        return context.wrap_socket(plain, server_hostname=self._place.host.rstrip("."))

    def _for(self, seconds: float) -> float:
        """Return how long a step may take: so long, but no longer than what is left."""
        return max(0.001, min(seconds, self._until - time.monotonic()))


def _agreed(connection: ssl.SSLSocket) -> Handshake:
    told = connection.getpeercert() or {}
    return Handshake(
        version=connection.version() or "",
        certificate=certificate_of(told, ssl.cert_time_to_seconds),
        sent=_sent(connection),
    )


def _sent(connection: ssl.SSLSocket) -> int | None:
    """Return how many certificates came; Python before 3.13 tells it on the inner object only."""
    read = getattr(connection, "get_unverified_chain", None)
    if read is None:
        read = getattr(getattr(connection, "_sslobj", None), "get_unverified_chain", None)
    return None if read is None else len(read() or ())


_with: Final = msgspec.structs.replace
