"""Which check a failed TLS handshake is the failure of, by what the TLS library says. Pure.

The library names what is wrong with a certificate by OpenSSL's numbers, and everything else by a reason in capitals.

Source: OpenSSL, x509_vfy.h and sslerr.h (documented); which reason a server's choice leads to was tried (observed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from upcall.registration.doctor.sights import Certificate, Handshake

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from upcall.registration.doctor.sights import Flaw

__all__ = ["DATE_CODES", "NAME_CODES", "NO_CHECK_TIME", "blame", "certificate_of", "wants_certificate"]

DATE_CODES: Final = frozenset({9, 10, 13, 14})
"""Not yet valid, expired, or dates that cannot be read."""
NAME_CODES: Final = frozenset({62, 63, 64})
"""For another host, e-mail address or IP address."""
NO_CHECK_TIME: Final = 0x200000
"""OpenSSL's flag that admits certificates of any dates, X509_V_FLAG_NO_CHECK_TIME."""

_SELF_SIGNED: Final = 18
_ROOT_UNKNOWN: Final = 19
_ISSUER_UNKNOWN: Final = frozenset({2, 20, 21})
_CHAIN_TEXTS: Final = {
    _SELF_SIGNED: "the certificate is self-signed",
    _ROOT_UNKNOWN: "the chain ends at an authority that this machine does not know",
}
_ALONE: Final = (
    "the certificate comes alone, and this machine does not know who issued it: its intermediate certificate is"
    " missing, or its authority is no public one"
)
_NOT_ALONE: Final = "the certificates that come lead to no authority that this machine knows"

_VERSION_REASONS: Final = frozenset(
    {
        "LEGACY_SIGALG_DISALLOWED_OR_UNSUPPORTED",
        "NO_PROTOCOLS_AVAILABLE",
        "TLSV1_ALERT_PROTOCOL_VERSION",
        "UNSUPPORTED_PROTOCOL",
        "WRONG_SSL_VERSION",
    }
)
_PLAIN_REASONS: Final = frozenset(
    {"HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE", "WRONG_VERSION_NUMBER"}
)
_CERTIFICATE_REASONS: Final = frozenset(
    {"TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE", "SSLV3_ALERT_BAD_CERTIFICATE"}
)
_TEXTS: Final = {
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refused the handshake: no cipher is common, or it wants a client certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate",
    "TLSV1_UNRECOGNIZED_NAME": "it serves no host of that name",
}
_OLD: Final = "it speaks no version of TLS that this machine takes (1.2 or newer)"
_PLAIN: Final = "what answers there does not speak TLS"
_CLOSED: Final = "the connection was closed in the middle of the handshake"


def blame(error: Exception) -> Handshake:
    """Say which check a handshake failed by.

    Args:
        error: What the TLS library or the socket raised.
    """
    code = int(getattr(error, "verify_code", 0) or 0)
    if code:
        return Handshake(flaw=_flaw_of(code), code=code, text=str(getattr(error, "verify_message", "")).rstrip("."))
    reason = getattr(error, "reason", None) or ""
    # Python names only the reasons that its own OpenSSL had when it was built.
    if reason in _VERSION_REASONS or "legacy sigalg" in str(error):
        return Handshake(flaw="tls-version", text=_OLD)
    return Handshake(flaw="tls", text=_text_of(error, reason))


def chain_text(code: int, text: str, sent: int | None) -> str:
    """Say in words why a chain is not believed.

    Args:
        code: OpenSSL's number.
        text: OpenSSL's words.
        sent: How many certificates came, None where that is not known.
    """
    if code in _ISSUER_UNKNOWN:
        return _NOT_ALONE if sent is not None and sent > 1 else _ALONE
    return _CHAIN_TEXTS.get(code, text)


def certificate_of(told: Mapping[str, Any], seconds_of: Callable[[str], float]) -> Certificate | None:
    """Read what the TLS library tells of a certificate, None where it tells nothing.

    Args:
        told: What `ssl.SSLSocket.getpeercert` returned.
        seconds_of: Reads one of its times.
    """
    if "notBefore" not in told or "notAfter" not in told:
        return None
    names = tuple(value for kind, value in told.get("subjectAltName", ()) if kind in {"DNS", "IP Address"})
    return Certificate(seconds_of(told["notBefore"]), seconds_of(told["notAfter"]), names)


def wants_certificate(error: Exception) -> bool:
    """Tell whether a connection ended because we showed no certificate; TLS 1.3 tells it after the handshake."""
    return getattr(error, "reason", None) in _CERTIFICATE_REASONS


def _flaw_of(code: int) -> Flaw:
    if code in DATE_CODES:
        return "certificate-dates"
    return "certificate-name" if code in NAME_CODES else "certificate-chain"


def _text_of(error: Exception, reason: str) -> str:
    if isinstance(error, TimeoutError):
        return "the handshake took too long"
    if reason in _PLAIN_REASONS:
        return _PLAIN
    if reason in _TEXTS:
        return _TEXTS[reason]
    is_closed = isinstance(error, (ConnectionError, EOFError)) or "EOF" in f"{type(error).__name__} {error}"
    return _CLOSED if is_closed else f"the handshake failed: {reason.lower().replace('_', ' ') or error}"
