"""The values that the registration room keeps in an inbox. Times are UTC microseconds since 1970."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["JournalEntry", "ListedDelivery", "Note", "Reported", "Uptime"]


class Uptime(msgspec.Struct, frozen=True, kw_only=True):
    """Say from when to when one listener process accepted callbacks, as far as its heartbeat tells.

    Args:
        listener: The process: machine, process number and a random end.
        began_at: When it first accepted.
        last_at: Its last heartbeat; where it `ended`, its end.
        ended: Whether it stopped in an orderly way: nothing was accepted after `last_at`.
        tokens: The ids of the tokens that it accepts, not the tokens themselves.
        given: Whether its tokens were given to it, by option or environment, and are not the store's.
        url: Where it listens, without a token; for a person.
    """

    listener: str
    began_at: int
    last_at: int
    ended: bool = False
    tokens: tuple[str, ...] = ()
    given: bool = False
    url: str = ""


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one thing that was done or seen, kept for an audit; entries are only ever added.

    Args:
        topic: What it is about, such as ``registration``.
        at: When.
        account: The account that it concerns, empty for none.
        document: Plain JSON values.
        id: Its number, growing; 0 before it is recorded.
    """

    topic: str
    at: int
    account: str = ""
    document: dict[str, Any] = msgspec.field(default_factory=dict)
    id: int = 0


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what is known now under a key; a new one takes its place.

    Args:
        topic: What it is about, such as ``guard``.
        key: Of what, such as an account.
        at: When it was written.
        document: Plain JSON values.
    """

    topic: str
    key: str
    at: int
    document: dict[str, Any] = msgspec.field(default_factory=dict)


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what the provider's reports say of one device in one campaign, or of a campaign.

    Args:
        account: Whose.
        campaign_id: The campaign.
        device_id: The device, empty for the campaign itself.
        status: The provider's own word.
        body: The callback that is kept where this is news.
    """

    account: str
    campaign_id: str
    device_id: str = ""
    status: str
    body: bytes


class ListedDelivery(msgspec.Struct, frozen=True):
    """Say when a callback last came from an address that the provider publishes.

    Args:
        received_at: When.
        source: From which address.
    """

    received_at: int
    source: str
