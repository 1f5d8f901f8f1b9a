"""Where a POST may go: addresses that were named at start-up, or what an operator's own URL may lead to."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Final, Self, TypeAlias
from urllib.parse import urlsplit

import msgspec

from upcall.errors import SettingsError, TargetRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

__all__ = ["IPAddress", "OwnTarget", "Targets", "check_address", "is_private", "refused"]


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

    @property
    def hint(self) -> str:
        """Say what may be done about a refusal."""
        return "Allow a target with --deliver-to HOST[:PORT]."

    def allows(self, address: IPAddress, port: int) -> bool:
        """Tell whether an address may be reached on a port."""
        if self.loopback and address.is_loopback:
            return True
        return (address, port) in self.addresses or (address, None) in self.addresses


class OwnTarget(msgspec.Struct, frozen=True):
    """Allow what an operator's own URL may lead to: any address but those that no receiver has.

    A link-local address is where a cloud keeps its machines' credentials: it is reached only where the URL is it. What
    is not encrypted goes to this machine or a private network only.

    Args:
        literal: The address that the URL itself is, None where it is a name.
        is_plain: Whether the URL is ``http``.
    """

    literal: IPAddress | None = None
    is_plain: bool = False

    @classmethod
    def of(cls, url: str) -> Self:
        """Read the target of a URL.

        Raises:
            ValueError: The URL cannot be read.
        """
        parts = urlsplit(url)
        try:
            literal = ipaddress.ip_address(parts.hostname or "")
        except ValueError:
            literal = None
        return cls(literal, parts.scheme == "http")

    @property
    def hint(self) -> str:
        """Say what may be done about a refusal."""
        return "Correct the URL, or where its name leads to: http reaches loopback and private addresses only."

    def allows(self, address: IPAddress, port: int) -> bool:  # noqa: ARG002 - any port
        """Tell whether an address may be reached."""
        if self.is_plain and not (address.is_loopback or is_private(address)):
            return False
        if address == self.literal:
            return True
        return not (address.is_link_local or address.is_unspecified or address.is_multicast or address in _METADATA)


_METADATA: Final = frozenset({ipaddress.ip_address("fd00:ec2::254")})
_SHARED: Final = ipaddress.ip_network("100.64.0.0/10")


def is_private(address: IPAddress) -> bool:
    """Tell whether an address belongs to a network of one's own, this machine's link and shared space included."""
    return address.is_private or (address.version == 4 and address in _SHARED)  # noqa: PLR2004 - IP version


def check_address(targets: Targets | OwnTarget, host: str, text: str, port: int) -> IPAddress:
    """Return an address that may be reached.

    Args:
        targets: What may be reached.
        host: The host of the URL, for the refusal.
        text: The address, as the URL or the resolver wrote it.
        port: The port.

    Raises:
        TargetRefusedError: It may not be reached, or is written in a form that readers understand differently.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        # 0177.0.0.1, 2130706433, 127.1: what they mean depends on who reads them.
        raise refused(targets, host, "it is an address in an odd form", _PLAINLY) from None
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.scope_id):
        raise refused(targets, host, f"{address} is an address in an odd form", _PLAINLY)
    if not targets.allows(address, port):
        raise refused(targets, host, f"{address} port {port} is not one that was allowed at start-up")
    return address


_PLAINLY: Final = "Write the address plainly, such as 192.0.2.1."


def refused(targets: Targets | OwnTarget, host: str, why: str, hint: str | None = None) -> TargetRefusedError:
    """Make the refusal of a host, with what may be done about it."""
    return TargetRefusedError(f"{host} was not sent to: {why}.", hint=hint or targets.hint, kind="target")


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
