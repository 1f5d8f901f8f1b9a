"""What was seen of a URL, as values: those who look make them, those who judge read them."""

from __future__ import annotations

from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from upcall.listener.probe import ProbeAnswer
from upcall.thingspace import CALLBACK_SOURCES

__all__ = ["FORGED", "Attempt", "Certificate", "Flaw", "Handshake", "Place", "Reply", "Sight"]

Flaw = Literal["tls", "tls-version", "certificate-chain", "certificate-dates", "certificate-name"]
"""The check that a handshake failed by."""

FORGED: Final = CALLBACK_SOURCES.values[0]
"""The source that a probe claims to have: one of the provider's own addresses."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Place(msgspec.Struct, frozen=True):
    """Hold a URL's parts; `repr` shows no path, in which the token stands.

    Args:
        scheme: ``https`` or ``http``.
        host: The host, without brackets.
        port: The port.
        target: The path and the query.
    """

    scheme: str
    host: str
    port: int
    target: str

    def __repr__(self) -> str:
        return f"Place({self.scheme}://{self.host}:{self.port})"

    @classmethod
    def of(cls, url: str) -> Place:
        """Read a URL that `check_callback_url` admits."""
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme], target)

    @property
    def is_plain(self) -> bool:
        """Return whether it is http."""
        return self.scheme == "http"


class Attempt(msgspec.Struct, frozen=True):
    """Say how connecting to one address ended.

    Args:
        address: The address.
        error: Why it failed, None where it did not.
        is_ours: Whether it failed on this machine, which has no way to such addresses.
    """

    address: str
    error: str | None = None
    is_ours: bool = False


class Certificate(msgspec.Struct, frozen=True):
    """Hold what a certificate says.

    Args:
        starts_at: From when it holds, in seconds since 1970.
        ends_at: Until when.
        names: The names and addresses that it is for.
    """

    starts_at: float
    ends_at: float
    names: tuple[str, ...]


class Handshake(msgspec.Struct, frozen=True, kw_only=True):
    """Say how a TLS handshake ended.

    Args:
        flaw: The check that it failed by, None where it did not.
        text: What happened, where it failed.
        version: Which version was spoken, such as ``TLSv1.3``.
        code: OpenSSL's number of what is wrong with the certificate, 0 for nothing.
        certificate: What the certificate says, where that was read.
        sent: How many certificates were sent, None where that is not known.
    """

    flaw: Flaw | None = None
    text: str = ""
    version: str = ""
    code: int = 0
    certificate: Certificate | None = None
    sent: int | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Hold how a probe was answered; `repr` shows little.

    Args:
        status: The status; None where there was no answer.
        location: Where a redirect leads to, without its path.
        said: What a listener said, None where the body is none of a listener's.
        is_proved: Whether the proof is one.
        is_empty: Whether there was no body.
        error: Why there was no answer.
        wants_certificate: Whether it ended because we showed no certificate.
        seconds: From before the connection was made to the end of the answer.
        at: When the answer came, in seconds since 1970.
    """

    status: int | None = None
    location: str = ""
    said: ProbeAnswer | None = None
    is_proved: bool = False
    is_empty: bool = False
    error: str = ""
    wants_certificate: bool = False
    seconds: float = 0.0
    at: float = 0.0


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what was seen of a URL, as far as it went.

    Args:
        place: The URL's parts.
        addresses: What its host resolved to.
        dns_error: Why it did not.
        attempts: How connecting to its addresses ended.
        handshake: How TLS was agreed on.
        reply: How a probe was answered.
        forged: How a probe with a forged source was answered.
        is_late: Whether the time of the run was over before it.
    """

    place: Place
    addresses: tuple[str, ...] = ()
    dns_error: str = ""
    attempts: tuple[Attempt, ...] = ()
    handshake: Handshake | None = None
    reply: Reply | None = None
    forged: Reply | None = None
    is_late: bool = False
