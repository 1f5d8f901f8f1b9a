"""URLs as the sender reads them: strictly, and once."""

from __future__ import annotations

import re
import string
from typing import Final, Self
from urllib.parse import quote, urlsplit

import msgspec

__all__ = ["Destination"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_HOST_NAME: Final = re.compile(r"[a-z0-9._-]+")
_HEX_OR_DIGITS: Final = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*")
"""Hosts that some C library would read as a number: 127.1, 0x7f.1, 0177.0.0.1, 2130706433."""


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what of a URL a POST needs.

    Args:
        origin: Scheme, host and port: what an error may name, as a callback's token stands in the path.
        host: The host's name, or its address without brackets.
        port: The port.
        is_address: Whether the host is an address, or what some readers would take for one.
        server_name: Whom the certificate must name; None for plain ``http``.
        head: The request line and the ``Host`` header.
    """

    origin: str
    host: str
    port: int
    is_address: bool
    server_name: str | None
    head: bytes

    @classmethod
    def of(cls, url: str) -> Self:
        """Read a URL.

        Raises:
            ValueError: It cannot be sent to; the text says why, and shows nothing of the URL.
        """
        # urlsplit drops some of these in silence: what was checked elsewhere would not be what is sent.
        if url != url.strip() or any(character < " " or character == "\x7f" for character in url):
            raise ValueError("it holds control characters, or blanks around it")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ValueError("it cannot be read") from None
        if parts.scheme not in _DEFAULT_PORTS or not host:
            raise ValueError("it is not http or https with a host")
        if port == 0:
            raise ValueError("its port is 0")
        if "@" in parts.netloc:
            raise ValueError("it holds a user name")
        if ":" not in host and not _HOST_NAME.fullmatch(host):
            raise ValueError("its host is not a name in ASCII, nor an address")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls._of_parts(parts.scheme, host, port, target)

    @classmethod
    def _of_parts(cls, scheme: str, host: str, port: int | None, target: str) -> Self:
        bracketed = f"[{host}]" if ":" in host else host
        named_port = "" if port in {None, _DEFAULT_PORTS[scheme]} else f":{port}"
        return cls(
            origin=f"{scheme}://{bracketed}{named_port}",
            host=host,
            port=_DEFAULT_PORTS[scheme] if port is None else port,
            is_address=":" in host or _HEX_OR_DIGITS.fullmatch(host.rstrip(".")) is not None,
            server_name=host.rstrip(".") if scheme == "https" else None,
            head=f"POST {_escaped(target)} HTTP/1.1\r\nHost: {bracketed}{named_port}\r\n".encode("ascii"),
        )


def _escaped(target: str) -> str:
    """Return a path and query with nothing in it that a request line cannot hold; escapes stay as they are."""
    try:
        return quote(target, safe=string.punctuation)
    except UnicodeEncodeError:
        raise ValueError("it holds what is no character") from None
