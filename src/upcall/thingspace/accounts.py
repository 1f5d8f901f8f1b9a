"""Account names and callback URLs: what can be sent, checked before it is sent."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

__all__ = ["check_account", "check_callback_url", "is_loopback_host"]

_URL_CHARACTERS: Final = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")
"""What RFC 3986 lets a URL hold."""

_EXAMPLE: Final = "https://host:50559/path"
_WRITTEN: Final = "(Software Management API reference V2, 'Register a callback listener URL')"
"""Where the provider says what it demands of accounts and URLs."""


def check_account(account: object) -> str:
    """Return the account name, or refuse what cannot be one.

    Args:
        account: A billing account name such as ``0000123456-00001``.

    Raises:
        TypeError: It is not a string. An ``int`` loses its leading zeros, which are significant.
        ValueError: It is empty, or cannot stand in a URL's path.

    Source: V2 callback pages; names are strings with leading zeros (documented).
    """
    if not isinstance(account, str):
        message = f"account must be a str such as '0000123456-00001', not {type(account).__name__}"
        if isinstance(account, int):
            message += f": a number loses the leading zeros that are part of the name {_WRITTEN}"
        raise TypeError(message)
    if not account or account in {".", ".."} or account != account.strip() or not account.isprintable():
        raise ValueError(
            f"account must not be {account!r}: ThingSpace expects a name such as '0000123456-00001' {_WRITTEN}"
        )
    return account


def check_callback_url(url: object, *, allow_http: bool = False) -> str:
    """Return the callback URL, or refuse what ThingSpace cannot use.

    No message shows the path, which holds the listener's token.

    Args:
        url: Where ThingSpace is to POST.
        allow_http: Admit plain ``http`` to a loopback host, for a sandbox.

    Raises:
        TypeError: It is not a string.
        ValueError: It has no host, is not https, names a user, or holds characters that no URL may hold.

    Source: "Register a callback listener URL V2" demands https, "About callback services" rules out HTTP
        authentication (documented). Ports are not checked: that the list published for Connectivity Management binds
        here is inferred.
    """
    if not isinstance(url, str):
        raise TypeError(f"url must be a str, not {type(url).__name__}")
    _check_characters(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"url cannot be read: {error}") from None
    if "@" in parts.netloc:
        raise ValueError(
            "url must not name a user or a password: ThingSpace does no HTTP authentication (Software Management,"
            " 'About callback services'); put an unguessable token into the path"
        )
    if not host:
        raise ValueError(f"url names no host: ThingSpace needs a whole URL such as {_EXAMPLE} {_WRITTEN}")
    if port == 0 or not _is_host(host):
        raise ValueError(
            f"url cannot be reached at {parts.netloc!r}: ThingSpace needs a URL such as {_EXAMPLE} {_WRITTEN}"
        )
    _check_scheme(parts, host, allow_http=allow_http)
    return url


def is_loopback_host(host: str) -> bool:
    """Tell whether a host name or address can only be this machine.

    Args:
        host: A name, or an address without brackets. An address with a trailing dot is a name that a resolver may
            answer as it likes.
    """
    if host.removesuffix(".").lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # Python before 3.13 does not look into an IPv4 address that is written as IPv6.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _check_characters(url: str) -> None:
    allowed = _URL_CHARACTERS.match(url)
    if allowed is None or allowed.end() == len(url):
        return
    character = url[allowed.end()]
    if character.isspace() or not character.isprintable():
        raise ValueError(f"url holds a space or a control character at position {allowed.end()}")
    raise ValueError(
        f"url holds {character!r} at position {allowed.end()}, which no URL may: write a host's name in its"
        " 'xn--' form and other characters percent-encoded"
    )


def _check_scheme(parts: SplitResult, host: str, *, allow_http: bool) -> None:
    if parts.scheme == "https" or (parts.scheme == "http" and allow_http and is_loopback_host(host)):
        return
    shown = f"{parts.scheme}://{parts.netloc}"
    if parts.scheme == "http" and allow_http:
        raise ValueError(f"url {shown!r} is http: allow_http admits loopback hosts only, and {host} is not one")
    raise ValueError(f"url {shown!r} is not https, which ThingSpace demands of a callback listener {_WRITTEN}")


def _is_host(host: str) -> bool:
    """Tell whether a host can be one at all: an address, or labels none of which is empty."""
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return False
        return True
    return all(host.removesuffix(".").split("."))
