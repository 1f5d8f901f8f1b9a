"""What a memory store holds: tables of frozen rows, replaced as a whole at each commit.

A writer fills a draft and puts it in the place of what was there. So a reader always sees one moment, and a writer
that fails leaves nothing.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.inbox.events import stored_event
from upcall.inbox.journal import JournalEntry, Note, Uptime
from upcall.inbox.readmodel import CampaignView
from upcall.inbox.values import Delivery, DeviceRecord, DriftRecord, ReplayRecord, State, TokenRecord, Trust

if TYPE_CHECKING:
    from upcall.thingspace import CallbackEvent

__all__ = ["ENDED", "Callback", "Event", "OrderKey", "Position", "Report", "Tables", "Tally", "Work"]

ENDED: Final = frozenset({"done", "dead", "dropped"})
"""The states of work that nobody is going to do."""

OrderKey = tuple[str, str, str]
"""Subscriber, account and campaign: within one of these, ordered work is handed out a piece at a time."""


class Callback(msgspec.Struct, frozen=True):
    """Hold one callback; see `upcall.inbox.CallbackRecord`.

    Args:
        id: Its number.
        received_at: When it was first received.
        account: The account that its token belongs to.
        origin: Where it came from, see `upcall.inbox.Origin`.
        trust: The gate's verdict, until a person released it.
        evidence: What the verdict rests on.
        digest: SHA-256 of the body as it came.
        body: The body, None once it was removed.
        deliveries: All of them, the first one first.
        is_dropped: Whether a person dropped it from the quarantine.
        is_redacted: Whether a device's identifier was blanked in its body.
    """

    id: int
    received_at: int
    account: str | None
    origin: str
    trust: Trust
    evidence: str | None
    digest: str
    body: bytes | None
    deliveries: tuple[Delivery, ...]
    is_dropped: bool = False
    is_redacted: bool = False

    @property
    def is_quarantined(self) -> bool:
        """Tell whether no handler may see it: a callback that was dropped from there included."""
        return self.trust is Trust.QUARANTINED

    @property
    def handed_on(self) -> CallbackEvent | None:
        """Return it as its handlers receive it, None where they may not see it or it has no body any more."""
        if self.is_quarantined or self.body is None:
            return None
        return stored_event(self.id, self.received_at, self.account, self.digest, self.body, self.origin)


class Event(msgspec.Struct, frozen=True):
    """Hold what the parser made of a callback; its account is the token's where it names none."""

    account: str | None
    kind: str | None = None
    campaign_id: str | None = None
    key: str = ""
    duplicate: str = "first"
    duplicate_of: int | None = None


class Work(msgspec.Struct, frozen=True):
    """Hold one piece of work; see `upcall.inbox.WorkRecord`."""

    id: int
    callback_id: int
    subscriber: str
    device_id: str
    due_at: int
    order_key: OrderKey | None = None
    state: str = "pending"
    attempts: int = 0
    owner: str | None = None
    finished_at: int | None = None
    error: str | None = None
    replays: tuple[ReplayRecord, ...] = ()
    merged_with: int | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether there is still something to do."""
        return self.state not in ENDED

    def held_by(self, owner: str) -> bool:
        """Tell whether the owner has not lost its lease."""
        return self.state == "leased" and self.owner == owner


class Position(msgspec.Struct, frozen=True):
    """Say how far somebody has read: up to which callback, and how many of those that were released."""

    callback_id: int = 0
    releases: int = 0

    def furthest(self, other: Position) -> Position:
        """Return the further of two positions, of callbacks and of releases."""
        return Position(max(self.callback_id, other.callback_id), max(self.releases, other.releases))

    def includes(self, other: Position) -> bool:
        """Tell whether somebody who stands here has read what lies up to there."""
        return self.furthest(other) == self


class Tally(msgspec.Struct, frozen=True):
    """Count what became of a subscriber's attempts since it is known."""

    done: int = 0
    failed: int = 0


class Report(msgspec.Struct, frozen=True):
    """Say which reconciled callback said something, and which real one that says the same merged with it.

    Args:
        callback_id: The reconciled one.
        merged_by: The real one, None where none came.
    """

    callback_id: int
    merged_by: int | None = None


class Tables(msgspec.Struct):
    """Hold the rows of one moment."""

    callbacks: dict[int, Callback] = {}
    releases: tuple[int, ...] = ()
    work: dict[int, Work] = {}
    subscribers: dict[str, Position] = {}
    forgotten: Position = Position()
    tallies: dict[str, Tally] = {}
    events: dict[int, Event] = {}
    campaigns: dict[tuple[str, str], CampaignView] = {}
    devices: dict[tuple[str, str, str], DeviceRecord] = {}
    drift: dict[str, DriftRecord] = {}
    projected: Position = Position()
    reported: dict[tuple[str, str, str, str], Report] = {}  # by campaign, device, state and account
    tokens: tuple[TokenRecord, ...] = ()
    uptimes: dict[str, Uptime] = {}
    journal: tuple[JournalEntry, ...] = ()
    notes: dict[tuple[str, str], Note] = {}
    marks: dict[str, int] = {}
    clock: int = 0
    last_callback_id: int = 0
    last_work_id: int = 0
    last_entry_id: int = 0

    def draft(self) -> Tables:
        """Return tables that can be changed while these stay as they are."""
        return Tables(*(copy.copy(getattr(self, name)) for name in self.__struct_fields__))

    def update_callback(self, callback: Callback, **changes: object) -> None:
        """Put a changed row in the place of a callback's."""
        self.callbacks[callback.id] = msgspec.structs.replace(callback, **changes)

    def update_work(self, work: Work, **changes: object) -> None:
        """Put a changed row in the place of a piece of work's."""
        self.work[work.id] = msgspec.structs.replace(work, **changes)

    def count(self, name: str, state: str) -> None:
        """Count an attempt by what its work became."""
        tally = self.tallies.get(name, Tally())
        is_done = state == "done"
        self.tallies[name] = Tally(tally.done + is_done, tally.failed + (not is_done))

    def work_of(self, callback_id: int) -> list[Work]:
        """Return a callback's work in the order in which it was made."""
        return [work for work in self.work.values() if work.callback_id == callback_id]

    def after(self, position: Position) -> list[Callback]:
        """Return what somebody has not read: callbacks as they came, then those released since, as they were released.

        A callback that was released is read at its release only, whoever has passed it before.
        """
        released = set(self.releases)
        came = [row for row in self.callbacks.values() if row.id > position.callback_id and row.id not in released]
        since = [self.callbacks[number] for number in self.releases[position.releases :] if number in self.callbacks]
        return came + since

    def place(self, callback: Callback) -> Position:
        """Return the position of somebody who has read up to a callback."""
        if callback.id in self.releases:
            return Position(0, self.releases.index(callback.id) + 1)
        return Position(callback.id, 0)

    def state(self, callback: Callback) -> State:
        """Return how far a callback is."""
        if callback.is_dropped:
            return State.DROPPED
        if callback.is_quarantined:
            return State.QUARANTINED
        states = {work.state for work in self.work_of(callback.id)}
        if states - ENDED or any(not position.includes(self.place(callback)) for position in self.subscribers.values()):
            return State.PENDING
        for state in (State.DEAD, State.DROPPED, State.DONE):
            if state.value in states:
                return state
        return State.STORED

    def event(self, callback: Callback) -> Event:
        """Return what a callback says: of its account nothing but whose token it came through, until it is parsed."""
        return self.events.get(callback.id) or Event(account=callback.account)
