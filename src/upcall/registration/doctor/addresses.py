"""Which addresses the provider can reach, and which ports it is said to allow. Pure."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from upcall.thingspace import CALLBACK_PORTS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["is_published_port", "literal", "unreachable"]


def literal(host: str) -> bool:
    """Tell whether a host is an address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def unreachable(addresses: Iterable[str], *, local: bool) -> list[str]:
    """Return the addresses that the provider cannot reach, each with what it is.

    Args:
        addresses: What a name resolved to.
        local: Whether the provider is a sandbox on this machine, which reaches what this machine does.
    """
    judged = ((address, _kind(address)) for address in addresses)
    reached = {"this machine", "private"} if local else set()
    return [f"{address} ({kind})" for address, kind in judged if kind is not None and kind not in reached]


def is_published_port(port: int) -> bool:
    """Tell whether a port stands in the list that the provider publishes."""
    return any(_holds(entry, port) for entry in CALLBACK_PORTS.values)


def _holds(entry: str, port: int) -> bool:
    first, _, last = entry.partition("-")
    return int(first) <= port <= int(last or first)


def _kind(text: str) -> str | None:
    """Say what an address is that is not of the public internet."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return "no address"
    address = getattr(found, "ipv4_mapped", None) or found
    if address.is_global and not address.is_multicast:
        return None
    for kind, is_it in (
        ("this machine", address.is_loopback),
        ("no host's", address.is_unspecified),
        ("this link only", address.is_link_local),
        ("a group of receivers", address.is_multicast),
        ("private", address.is_private),
    ):
        if is_it:
            return kind
    return "not public"
