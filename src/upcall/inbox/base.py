"""The inbox's contract: the values that cross it, and what every backend must do with them.

Times are UTC microseconds since 1970. An inbox belongs to one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, Self

import msgspec

from upcall.thingspace import CallbackEvent

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "REDELIVERY_WINDOW_MICROS",
    "Appender",
    "Arrival",
    "CallbackRecord",
    "CampaignRecord",
    "DeadRecord",
    "Delivery",
    "DeviceRecord",
    "Inbox",
    "Ledger",
    "Outcome",
    "Receipt",
    "Subscription",
    "TokenRecord",
    "Trust",
    "WorkItem",
    "WorkRecord",
]

REDELIVERY_WINDOW_MICROS = 30 * 60 * 1_000_000
"""Byte-equal deliveries this close to the first are one callback.

Source: the documented ladder ends 15 minutes after the first try (documented for a sister product); 10 more for
clocks and slow answers, and never less than 30 minutes.
"""


class Trust(StrEnum):
    """Say whether handlers may see a callback."""

    ACCEPTED = "accepted"
    QUARANTINED = "quarantined"
    CONFIRMED = "confirmed"


class Arrival(msgspec.Struct, frozen=True):
    """Hold one delivery as the listener took it, before anything is parsed into it.

    Args:
        body: The body, byte for byte.
        received_at: When its last byte came.
        peer: The TCP peer's address.
        trust: The gate's verdict.
        evidence: Why it is in quarantine, None where it is not.
        token_id: Which token it came through, not the token itself.
        account: The account that the token belongs to, None where it belongs to several or all.
        origin: ``received``, later ``reconciled``.
    """

    body: bytes
    received_at: int
    peer: str = ""
    trust: Trust = Trust.ACCEPTED
    evidence: str | None = None
    token_id: str = ""
    account: str | None = None
    origin: str = "received"


class Receipt(msgspec.Struct, frozen=True):
    """Say where an arrival is kept.

    Args:
        callback_id: The callback's number.
        is_new: False where the arrival was one more delivery of a callback already kept.
    """

    callback_id: int
    is_new: bool


class Delivery(msgspec.Struct, frozen=True):
    """Describe one delivery of a callback.

    Args:
        received_at: When it came.
        peer: From which address.
        token_id: Through which token.
        answer: The status that it was answered with.
    """

    received_at: int
    peer: str
    token_id: str
    answer: int


class CallbackRecord(msgspec.Struct, frozen=True):
    """Describe one stored callback.

    Args:
        id: Its number, growing in the order of receipt.
        received_at: When it was first received.
        account: The account that it names, else the token's.
        kind: Its kind.
        campaign_id: Its campaign.
        deliveries: How often it was delivered.
        state: ``stored`` (no handler asked for it), ``pending``, ``done``, ``dead`` or ``quarantined``.
        origin: ``received`` or ``reconciled``.
        trust: The gate's verdict.
        evidence: Why it is in quarantine.
        duplicate: The guess: ``first``, ``redelivery`` or ``repeat``.
        duplicate_of: The callback that it seems to repeat.
        key: The canonical key of what it says.
        body: The body, None once retention removed it.
    """

    id: int
    received_at: int
    account: str | None
    kind: str | None
    campaign_id: str | None
    deliveries: int
    state: str
    origin: str
    trust: str
    evidence: str | None
    duplicate: str
    duplicate_of: int | None
    key: str
    body: bytes | None


class WorkRecord(msgspec.Struct, frozen=True):
    """Describe what one subscriber did with one callback.

    Args:
        subscriber: The handler's name.
        device_id: The device, empty where the handler takes whole callbacks.
        state: ``pending``, ``leased``, ``done`` or ``dead``.
        attempts: How often it was started.
        due_at: When it may run next.
        error: The last failure's traceback.
    """

    subscriber: str
    device_id: str
    state: str
    attempts: int
    due_at: int
    error: str | None


class DeadRecord(msgspec.Struct, frozen=True):
    """Describe one piece of work that was given up.

    Args:
        callback_id: The callback.
        subscriber: The handler's name.
        device_id: The device, empty where the handler takes whole callbacks.
        attempts: How often it was started.
        finished_at: When it was given up.
        error: The last failure's traceback.
        kind: The callback's kind.
        account: The callback's account.
        campaign_id: The callback's campaign.
    """

    callback_id: int
    subscriber: str
    device_id: str
    attempts: int
    finished_at: int
    error: str | None
    kind: str | None
    account: str | None
    campaign_id: str | None


class DeviceRecord(msgspec.Struct, frozen=True):
    """Describe one device of a campaign as the callbacks tell it.

    Args:
        device_id: The device.
        status: The provider's own word.
        reason: The provider's text.
        updated_at: When the provider says it happened, else when the callback came.
        contradiction: A second final word that did not agree, None where none came.
    """

    device_id: str
    status: str | None
    reason: str | None
    updated_at: int
    contradiction: str | None = None


class CampaignRecord(msgspec.Struct, frozen=True):
    """Describe one campaign as the callbacks tell it.

    Args:
        campaign_id: The campaign.
        account: Its account.
        name: Its name.
        status: The provider's own word.
        first_at: When its first callback came.
        last_at: When its last callback came.
        callbacks: How many callbacks were about it.
        devices: How many devices each status word counts.
    """

    campaign_id: str
    account: str | None
    name: str | None
    status: str | None
    first_at: int
    last_at: int
    callbacks: int
    devices: dict[str, int]


class Subscription(msgspec.Struct, frozen=True):
    """Describe who wants which callbacks.

    Args:
        name: The subscriber's name: its work and its progress are kept under it.
        wants: Returns, for a callback, the devices that it wants work for: ``("",)`` for the callback as a whole,
            nothing where it does not want it.
    """

    name: str
    wants: Callable[[CallbackEvent], Sequence[str]]


class WorkItem(msgspec.Struct, frozen=True):
    """Hold one claimed piece of work.

    Args:
        id: Its number.
        subscriber: Whose it is.
        device_id: The device, empty for the callback as a whole.
        attempt: Which attempt this is, from 1.
        callback_id: The callback.
        received_at: When the callback was first received.
        account: The account that its token belongs to, None where it belongs to several or all.
        body: The callback's body.
    """

    id: int
    subscriber: str
    device_id: str
    attempt: int
    callback_id: int
    received_at: int
    account: str | None
    body: bytes


class Outcome(msgspec.Struct, frozen=True):
    """Say how a claimed piece of work ended.

    Args:
        work_id: Its number.
        state: ``done``, ``pending`` (to be tried again) or ``dead``.
        due_at: When to try again.
        error: The failure's traceback.
    """

    work_id: int
    state: str
    due_at: int = 0
    error: str | None = None


class TokenRecord(msgspec.Struct, frozen=True):
    """Hold a token that the store generated for this machine.

    Args:
        token: The secret part of the callback URL.
        accounts: The accounts that it belongs to, empty for all.
    """

    token: str
    accounts: tuple[str, ...]


class Ledger(msgspec.Struct, frozen=True):
    """Count what the store holds.

    Args:
        stored: Callbacks kept.
        deliveries: Deliveries of them, the first ones included.
        quarantined: Callbacks that no handler sees.
        handled: Callbacks of which every piece of work is done.
        pending: Callbacks with work still to do.
        dead: Callbacks with work that was given up.
        unread: Callbacks that no subscriber has looked at yet.
    """

    stored: int
    deliveries: int
    quarantined: int
    handled: int
    pending: int
    dead: int
    unread: int

    @property
    def redelivered(self) -> int:
        """Return how many deliveries were recognised as copies."""
        return self.deliveries - self.stored


class Appender(Protocol):
    """Append arrivals in groups: `stage` is quick, `commit` returns when they are on disk."""

    def stage(self, arrivals: Sequence[Arrival], *, wait_seconds: float = 0.0) -> list[Receipt] | None:
        """Put arrivals into an open transaction; None where another process is writing and the wait was too short."""
        ...

    def commit(self) -> None:
        """Make what was staged durable; it is on disk when this returns."""
        ...

    def rollback(self) -> None:
        """Forget what was staged."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Inbox(Protocol):
    """Keep callbacks, hand out work, answer questions."""

    url: str

    def appender(self) -> Appender:
        """Return an appender with a connection of its own."""
        ...

    def append(self, arrivals: Sequence[Arrival]) -> list[Receipt]:
        """Keep arrivals; they are on disk when this returns."""
        ...

    def subscribe(self, names: Sequence[str], now: int) -> None:
        """Make subscribers known: the first ones of a store begin at its start, later ones where those stand."""
        ...

    def enroll(self, subscriptions: Sequence[Subscription], now: int, *, limit: int = 500) -> int:
        """Turn callbacks that subscribers have not seen into work; return how many callbacks were looked at."""
        ...

    def claim(self, names: Sequence[str], owner: str, now: int, *, lease_seconds: float, limit: int) -> list[WorkItem]:
        """Lease work that is due, or whose lease ran out, to an owner."""
        ...

    def renew(self, work_ids: Sequence[int], owner: str, now: int, *, lease_seconds: float) -> None:
        """Extend leases that the owner still holds."""
        ...

    def settle(self, outcomes: Sequence[Outcome], owner: str, now: int) -> None:
        """Record how leased work ended; an owner that lost its lease changes nothing."""
        ...

    def release(self, owners: Sequence[str], now: int, *, uncounted: bool = False) -> int:
        """Give back, at once, the work that these owners hold.

        Uncounted, the attempt that is given back does not count: it was stopped, and did not fail.
        """
        ...

    def owners(self) -> list[str]:
        """Return who holds leases."""
        ...

    def next_due(self, names: Sequence[str]) -> int | None:
        """Return when the next piece of work is due, None where there is none."""
        ...

    def project(self, *, limit: int = 1000) -> int:
        """Bring the read model forward by up to so many callbacks; return how many it took."""
        ...

    def callbacks(
        self,
        *,
        limit: int = 0,
        after: int = 0,
        account: str | None = None,
        kind: str | None = None,
        campaign_id: str | None = None,
    ) -> list[CallbackRecord]:
        """Return the newest callbacks in the order of receipt; a limit of 0 means all."""
        ...

    def callback(self, callback_id: int) -> CallbackRecord | None:
        """Return one callback."""
        ...

    def deliveries(self, callback_id: int) -> list[Delivery]:
        """Return a callback's deliveries in the order of receipt."""
        ...

    def work(self, callback_id: int) -> list[WorkRecord]:
        """Return what subscribers did with a callback."""
        ...

    def dead(self, *, limit: int = 0) -> list[DeadRecord]:
        """Return the newest dead letters, oldest first; a limit of 0 means all."""
        ...

    def campaigns(self, *, limit: int = 0) -> list[CampaignRecord]:
        """Return the campaigns last heard of, in the order of their last word; a limit of 0 means all."""
        ...

    def campaign(self, campaign_id: str) -> tuple[CampaignRecord, list[DeviceRecord]] | None:
        """Return one campaign and its devices."""
        ...

    def ledger(self) -> Ledger:
        """Count what the store holds."""
        ...

    def tokens(self) -> list[TokenRecord]:
        """Return the tokens that were generated for this store."""
        ...

    def add_token(self, record: TokenRecord, now: int) -> None:
        """Keep a generated token."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
