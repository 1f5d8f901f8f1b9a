"""Why a POST came to nothing, in words of ours: a library's can hold the URL with its token."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Final

from upcall.errors import DeliveryError

__all__ = ["failure", "failure_of"]

_PHRASES: Final = {
    "connect": "the host could not be reached",
    "tls": "no encrypted connection could be made",
    "timeout": "no whole answer came within the time allowed",
    "reset": "the connection was closed before an answer came",
    "protocol": "the answer is not whole HTTP",
    "target": "the URL cannot be used",
}


def failure(origin: str, kind: str, what: str = "") -> DeliveryError:
    """Make the error of a POST.

    Args:
        origin: Where it went, without the path.
        kind: One of `DeliveryError`'s kinds.
        what: What happened; empty for what the kind says.
    """
    return DeliveryError(f"POST to {origin} failed: {what or _PHRASES[kind]}.", kind=kind)


def failure_of(origin: str, error: Exception, *, connecting: bool = False) -> DeliveryError:
    """Make the error of a POST that another error ended.

    Args:
        origin: Where it went, without the path.
        error: What was raised, or what the connection was lost with.
        connecting: Whether there was no connection yet.
    """
    if isinstance(error, TimeoutError):
        return failure(origin, "timeout")
    if isinstance(error, ssl.SSLError):
        verification = getattr(error, "verify_message", None)
        return failure(origin, "tls", f"the certificate was refused: {verification}" if verification else "")
    if isinstance(error, ValueError):
        return failure(origin, "target")
    return failure(origin, "connect", _reason(error)) if connecting else failure(origin, "reset")


def _reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return error.strerror or ""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else ""
