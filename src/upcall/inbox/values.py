"""The values that cross the inbox's contract. Times are UTC microseconds since 1970."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

import msgspec

from upcall.thingspace import CallbackEvent

__all__ = [
    "EVERYTHING",
    "REDELIVERY_WINDOW_MICROS",
    "UNENDED",
    "Arrival",
    "CallbackRecord",
    "CampaignRecord",
    "DeadRecord",
    "Delivery",
    "DeviceRecord",
    "DriftRecord",
    "Forgotten",
    "Ledger",
    "Lessee",
    "Origin",
    "Outcome",
    "Pruned",
    "Receipt",
    "ReplayRecord",
    "Retention",
    "Selection",
    "State",
    "SubscriberRecord",
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

UNENDED = "No end of this attempt was recorded: its process died, or was out of touch with the store."
"""The error of work that a dead owner held."""


class Trust(StrEnum):
    """Say whether handlers may see a callback: not while it is `QUARANTINED`."""

    ACCEPTED = "accepted"
    QUARANTINED = "quarantined"
    CONFIRMED = "confirmed"


class Origin(StrEnum):
    """Say where a callback comes from: the provider sent it, its reports said so, or Upcall's own guard did."""

    RECEIVED = "received"
    RECONCILED = "reconciled"
    GUARD = "guard"


class State(StrEnum):
    """Say how far a callback is. Each callback is in exactly one of these.

    `QUARANTINED` until it is released, `DROPPED` once it was dropped from there; else `PENDING` where some subscriber
    has not looked yet or any of its work is left to do; else `DEAD` where any was given up, `DROPPED` where a person
    let go of any that was, `DONE` where there was some, and `STORED` where there was none: nobody wants it, or there is
    no subscriber yet.
    """

    QUARANTINED = "quarantined"
    DROPPED = "dropped"
    PENDING = "pending"
    DONE = "done"
    DEAD = "dead"
    STORED = "stored"


class Arrival(msgspec.Struct, frozen=True):
    """Hold one delivery as the listener took it, before anything is parsed into it.

    Args:
        body: The body, byte for byte.
        received_at: When its last byte came.
        peer: The TCP peer's address.
        source: Who sent it: the peer, or whom a trusted proxy names.
        listed: Whether the source is on the provider's published list, None where nobody looked.
        trust: The gate's verdict.
        evidence: What the verdict rests on.
        token_id: Which token it came through, not the token itself.
        account: The account that the token belongs to, None where it belongs to several or all.
        origin: ``received``, ``reconciled`` from the provider's reports, or ``guard`` for what the guardian says.
    """

    body: bytes
    received_at: int
    peer: str = ""
    source: str = ""
    listed: bool | None = None
    trust: Trust = Trust.ACCEPTED
    evidence: str | None = None
    token_id: str = ""
    account: str | None = None
    origin: str = "received"


class Receipt(msgspec.Struct, frozen=True):
    """Say where an arrival is kept.

    Args:
        callback_id: The callback's number, 0 where it lies in the spool and has none yet.
        is_new: False where the arrival was one more delivery of a callback already kept.
        spooled: Whether it lies in the spool and not in the store yet.
    """

    callback_id: int
    is_new: bool
    spooled: bool = False


class Delivery(msgspec.Struct, frozen=True):
    """Describe one delivery of a callback.

    Args:
        received_at: When it came.
        peer: From which TCP peer.
        source: Who sent it: the peer, or whom a trusted proxy names.
        listed: Whether the source is on the provider's published list, None where nobody looked.
        token_id: Through which token.
        answer: The status that it was answered with.
    """

    received_at: int
    peer: str
    source: str
    listed: bool | None
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
        state: How far it is, one of `State`.
        origin: ``received``, ``reconciled`` or ``guard``.
        trust: The gate's verdict.
        evidence: What the verdict rests on.
        duplicate: The guess: ``first``, ``redelivery`` or ``repeat``.
        duplicate_of: The callback that it seems to repeat.
        key: The canonical key of what it says.
        digest: SHA-256 of the body, in hexadecimal; it outlives the body.
        body_bytes: How long the body is; None once it was removed.
        body: The body; None once retention removed it, and where bodies were not asked for.
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
    digest: str
    body_bytes: int | None
    body: bytes | None


class ReplayRecord(msgspec.Struct, frozen=True):
    """Describe one replay of a piece of work: who wanted it, and how the work stood before.

    Args:
        replayed_at: When.
        reason: Why and by whom, in that person's words.
        state: How the work had ended.
        attempts: How often it had been started.
        error: The last failure's traceback by then.
    """

    replayed_at: int
    reason: str
    state: str
    attempts: int
    error: str | None


class WorkRecord(msgspec.Struct, frozen=True):
    """Describe what one subscriber did with one callback.

    Args:
        subscriber: The handler's name.
        device_id: The device, empty where the handler takes whole callbacks.
        state: ``pending``, ``leased``, ``done``, ``dead``, or ``dropped`` where a person gave it up.
        attempts: How often it was started, since the last replay.
        due_at: When it may run next.
        finished_at: When it ended, None where it has not.
        error: The last failure's traceback.
        replays: What it was before each replay, oldest first.
        merged_with: The reconciled callback that had said the same to this subscriber before: it was not called.
    """

    subscriber: str
    device_id: str
    state: str
    attempts: int
    due_at: int
    finished_at: int | None
    error: str | None
    replays: tuple[ReplayRecord, ...] = ()
    merged_with: int | None = None


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
        first_at: When a callback first named it.
        first_status: The word that it was first named with.
        last_at: When a callback last named it: a device that is not final and was not heard of since is silent.
        last_status: The word that it was last named with, which need not be where it stands.
    """

    device_id: str
    status: str | None
    reason: str | None
    updated_at: int
    contradiction: str | None = None
    first_at: int = 0
    first_status: str | None = None
    last_at: int = 0
    last_status: str | None = None


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
        contradiction: A second final word that did not agree, None where none came.
        contradicting: How many devices have one.
    """

    campaign_id: str
    account: str | None
    name: str | None
    status: str | None
    first_at: int
    last_at: int
    callbacks: int
    devices: dict[str, int]
    contradiction: str | None = None
    contradicting: int = 0


class Subscription(msgspec.Struct, frozen=True):
    """Describe who wants which callbacks.

    Args:
        name: The subscriber's name: its work and its progress are kept under it.
        wants: Returns, for a callback, the devices that it wants work for: ``("",)`` for the callback as a whole,
            nothing where it does not want it.
        ordered: Whether work about one campaign of one account is handed out one piece at a time, in the order of
            receipt: a piece waits until every earlier one is done or dead.
    """

    name: str
    wants: Callable[[CallbackEvent], Sequence[str]]
    ordered: bool = False


class Lessee(msgspec.Struct, frozen=True):
    """Say who leases work as it is made, and how much of it.

    Args:
        owner: Who.
        seconds: How long it stays the owner's without a sign of life.
        room: How many pieces of each subscriber's new work, oldest first; of a subscriber that is not in it, none.
    """

    owner: str
    seconds: float
    room: Mapping[str, int]


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
        digest: SHA-256 of the callback's body as it came, in hexadecimal.
        body: The callback's body.
        unended: Whether it was started before and no end of that was recorded: it may be what ended that process.
        origin: Where the callback came from, see `Arrival`.
    """

    id: int
    subscriber: str
    device_id: str
    attempt: int
    callback_id: int
    received_at: int
    account: str | None
    digest: str
    body: bytes
    unended: bool = False
    origin: str = "received"


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
        state: ``live``, ``next`` (accepted already, about to take a live one's place), ``retiring`` (accepted until
            `retire_at`) or ``retired`` (no longer accepted).
        retire_at: When a retiring one is to be retired.
        created_at: When it was made.
    """

    token: str
    accounts: tuple[str, ...]
    state: str = "live"
    retire_at: int | None = None
    created_at: int = 0


class Ledger(msgspec.Struct, frozen=True):
    """Count what the store holds: each callback is counted once, under its `State`; what is pending is two counts.

    Without subscribers what came since the last one was forgotten, else all, is `unread`: it is there for the next one,
    though each callback's state is `STORED`.

    Args:
        stored: Callbacks kept, those whose body is gone included: the sum of all that follow but the deliveries.
        deliveries: Deliveries of them, the first ones included.
        quarantined: Callbacks that no handler sees.
        dropped: Callbacks that were dropped from the quarantine, and those with dropped work, none of it dead, and
            nothing left to do.
        unread: Callbacks without work to do that some subscriber has not looked at yet.
        pending: Callbacks with work still to do.
        handled: Callbacks of which every piece of work is done.
        dead: Callbacks with work that was given up, and nothing left to do.
        unwanted: Callbacks that no subscriber wanted.
    """

    stored: int
    deliveries: int
    quarantined: int
    dropped: int
    unread: int
    pending: int
    handled: int
    dead: int
    unwanted: int

    @property
    def redelivered(self) -> int:
        """Return how many deliveries were recognised as copies."""
        return self.deliveries - self.stored


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Say which callbacks, or which work, is meant; what is left out is not asked about.

    Args:
        ids: Callbacks by their numbers; empty for any.
        after: Only callbacks with a greater number.
        before: Only callbacks with a smaller number, 0 for any.
        since: Only callbacks received then or later.
        until: Only callbacks received before then.
        account: Only this account's.
        kind: Only this kind's, as `normalize_kind` writes it.
        campaign_id: Only this campaign's.
        state: Only callbacks in this state.
        given_up: Only callbacks with dead work, whatever else of them is left to do.
        subscriber: Only work of this subscriber.
        device_id: Only work for this device.
    """

    ids: tuple[int, ...] = ()
    after: int = 0
    before: int = 0
    since: int | None = None
    until: int | None = None
    account: str | None = None
    kind: str | None = None
    campaign_id: str | None = None
    state: State | None = None
    given_up: bool = False
    subscriber: str | None = None
    device_id: str | None = None


EVERYTHING = Selection()


class SubscriberRecord(msgspec.Struct, frozen=True):
    """Describe how far one subscriber is.

    Args:
        name: Its name.
        unread: Callbacks that it has not looked at.
        pending: Its work that waits to run or to run again.
        leased: Its work that somebody is at.
        dead: Its work that was given up.
        oldest_at: When the oldest callback that it is not done with was received, None where there is none.
        done: How many attempts ended well since it is known; neither replays nor retention take any back.
        failed: How many attempts failed since it is known; one that recorded no end is neither.
    """

    name: str
    unread: int
    pending: int
    leased: int
    dead: int
    oldest_at: int | None
    done: int = 0
    failed: int = 0


class DriftRecord(msgspec.Struct, frozen=True):
    """Describe one way in which callbacks differed from what is known of their schema.

    Args:
        text: What was unexpected, as `CallbackEvent.drift` words it.
        callbacks: How many callbacks showed it.
        first_id: The first of them.
        first_at: When that was received.
        last_id: The last of them.
        last_at: When that was received.
    """

    text: str
    callbacks: int
    first_id: int
    first_at: int
    last_id: int
    last_at: int


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """Say how long what is kept.

    Args:
        body_seconds: Bodies, from receipt; a body with work undone or dead, in quarantine, or unread stays.
        record_seconds: Everything else about a callback, and campaigns and devices from their last word; never
            shorter than the bodies.
    """

    body_seconds: float = 90 * 86_400.0
    record_seconds: float = 400 * 86_400.0


class Pruned(msgspec.Struct, frozen=True):
    """Count what one step of retention removed.

    Args:
        bodies: Bodies removed.
        callbacks: Callbacks removed, with their deliveries, work and event.
        campaigns: Campaigns removed, with their devices.
        kept: Callbacks past their time that stay: undone, dead, in quarantine, or unread.
        more: Whether another step would remove more.
    """

    bodies: int
    callbacks: int
    campaigns: int
    kept: int
    more: bool


class Forgotten(msgspec.Struct, frozen=True):
    """Count what one step of forgetting a device changed.

    Args:
        looked_at: Callbacks looked at by this step.
        bodies: Bodies in which the identifier was blanked, byte for byte, the rest left as it is.
        work: Pieces of work about the device that were removed.
        devices: Campaigns that the device was removed from.
        next_id: Where the next step begins; None where this was the last.
    """

    looked_at: int
    bodies: int
    work: int
    devices: int
    next_id: int | None
