"""Where a callback came from: the TCP peer, or whom a trusted proxy names.

Anybody can write ``X-Forwarded-For``. So it is read only where the peer itself is a proxy that the operator named, from
the right, and only as far as the hops are such proxies too: the first other address is the source.
"""

from __future__ import annotations

import functools
import ipaddress
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.errors import SettingsError
from upcall.thingspace import CALLBACK_SOURCES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Peer", "Source", "Sources"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_KEPT: Final = 4096
"""How many addresses are remembered as they were judged: one person's proxy names few."""
_KEPT_CHARACTERS: Final = 256
"""How long a header may be to be remembered: strangers write the left part of it."""
_MAX_HOPS: Final = 32
_IPV4_BITS: Final = 32
_IPV6_SITE_BITS: Final = 64
_WIDEST: Final = {4: 8, 6: 16}
"""A prefix shorter than this is no proxy's network, but much of the internet."""


class Source(msgspec.Struct, frozen=True):
    """Say who sent a callback.

    Args:
        address: The address, as text.
        listed: Whether the provider publishes it as one of its own; None where the question makes no sense, because
            the callback came from this machine.
        evidence: The same in words, to be kept with the callback.
    """

    address: str
    listed: bool | None
    evidence: str


class Peer(msgspec.Struct, frozen=True):
    """Describe the other end of a connection.

    Args:
        address: Its address, as text.
        site: What its connections are counted under: the address, of IPv6 the first 64 bits.
        is_proxy: Whether it is one of the trusted proxies.
        source: Who sends, where the peer is no trusted proxy.
    """

    address: str
    site: str
    is_proxy: bool
    source: Source


class Sources:
    """Tell who sent a callback, and whether the provider publishes that address.

    Args:
        trusted_proxies: Networks of proxies whose ``X-Forwarded-For`` is believed, such as ``10.0.0.0/24``.
        listed: Addresses that the provider publishes.
        refuse_unlisted: Refuse callbacks from other addresses, in place of flagging them.

    Raises:
        SettingsError: A network cannot be read, or is so wide that anybody could forge a source.
    """

    def __init__(
        self,
        trusted_proxies: Iterable[str] = (),
        *,
        listed: Sequence[str] = CALLBACK_SOURCES.values,
        refuse_unlisted: bool = False,
    ) -> None:
        self._proxies = tuple(map(_network, trusted_proxies))
        self._listed = frozenset(map(ipaddress.ip_address, listed))
        self.refuse_unlisted: bool = refuse_unlisted
        self.peer: Callable[[str], Peer] = functools.lru_cache(_KEPT)(self._peer)
        self._forwarded = functools.lru_cache(_KEPT)(self._read_forwarded)

    @property
    def has_proxies(self) -> bool:
        """Tell whether any proxy is trusted."""
        return bool(self._proxies)

    def of(self, peer: Peer, forwarded: str | None) -> Source:
        """Return who sent a request.

        Args:
            peer: The connection's other end.
            forwarded: The request's ``X-Forwarded-For``, several joined by commas in their order.
        """
        if not peer.is_proxy or not forwarded:
            return peer.source
        read = self._forwarded if len(forwarded) <= _KEPT_CHARACTERS else self._read_forwarded
        return read(peer, forwarded)

    def refuses(self, source: Source) -> bool:
        """Tell whether a callback from there is refused."""
        return self.refuse_unlisted and not source.listed

    def _peer(self, host: str) -> Peer:
        """Describe a peer by the address that the socket gives."""
        address = _address(host)
        if address is None:  # a socket that has no address: a file's, or a test's
            return Peer(host, host, is_proxy=False, source=Source(host, None, "from no address"))
        return Peer(str(address), _site(address), is_proxy=self._is_proxy(address), source=self._source(address))

    def _read_forwarded(self, peer: Peer, forwarded: str) -> Source:
        for hop in reversed(forwarded.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]):
            address = _address(_without_port(hop.strip()))
            if address is None:
                return Source(peer.address, listed=False, evidence="the proxy names no readable address")
            if not self._is_proxy(address):
                return self._source(address)
        return Source(peer.address, listed=False, evidence="the proxy names proxies only")

    def _source(self, address: IPAddress) -> Source:
        if self._is_proxy(address):
            return Source(str(address), listed=False, evidence="the proxy names no source")
        if address.is_loopback:
            return Source(str(address), listed=None, evidence="from this machine")
        if address in self._listed:
            return Source(str(address), listed=True, evidence="from a listed address")
        return Source(str(address), listed=False, evidence="from an address that is not listed")

    def _is_proxy(self, address: IPAddress) -> bool:
        return any(address.version == network.version and address in network for network in self._proxies)


def _network(text: str) -> IPNetwork:
    try:
        network = _unmapped(ipaddress.ip_network(text.strip(), strict=False))
    except ValueError:
        raise SettingsError(
            f"the trusted proxy {text!r} is no address and no network.", hint="Write 10.0.0.7 or 10.0.0.0/24."
        ) from None
    if network.prefixlen < _WIDEST[network.version]:
        raise SettingsError(
            f"the trusted proxy {text!r} covers so many addresses that anybody could forge a source.",
            hint="Name your proxies alone, such as 10.0.0.0/24.",
        )
    return network


def _unmapped(network: IPNetwork) -> IPNetwork:
    """Return an IPv4 network that is written in IPv6's form as what it is: addresses are compared as such."""
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    length = network.prefixlen - (network.max_prefixlen - _IPV4_BITS)
    return network if mapped is None or length < 0 else ipaddress.IPv4Network((mapped, length))


def _address(text: str) -> IPAddress | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _site(address: IPAddress) -> str:
    if address.max_prefixlen == _IPV4_BITS:
        return str(address)
    return str(ipaddress.ip_network((int(address), _IPV6_SITE_BITS), strict=False))


def _without_port(hop: str) -> str:
    """Return the address of a hop that may be written with a port, IPv6 in brackets."""
    hop = hop.strip('"')
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
