"""What became of each callback: every try, kept."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from upcall.sandbox.faults import Fortune
from upcall.sandbox.models import FINAL_STATES
from upcall.sandbox.persistence import Memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upcall.sandbox.messages import Callback
    from upcall.sandbox.persistence import Saved, Store

__all__ = ["Attempt", "Ledger", "Message"]


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hold one try.

    Args:
        number: Which try it was, from 1.
        url: Where it went, its token masked.
        at: When it started, seconds since 1970.
        duration_seconds: How long it took.
        status: The answer's HTTP status, None where there was none.
        error: What went wrong, in the word of `upcall.errors.DeliveryError`, None where an answer came.
        why: What went wrong, in a sentence.
        duplicate: Whether a fault sent it, though the callback was acknowledged.
        faults: The other faults that this try met.
    """

    number: int
    url: str = ""
    at: float
    duration_seconds: float
    status: int | None = None
    error: str | None = None
    why: str | None = None
    duplicate: bool = False
    faults: tuple[str, ...] = ()


class Message(msgspec.Struct, kw_only=True):
    """Hold a callback and what became of it so far.

    Args:
        id: The sandbox's number for it, from 1 in the order of making.
        account: Whose listener gets it.
        type: One of the four callback types.
        campaign_id: What it is about.
        sha256: Of the body, in hexadecimal.
        created_at: When it was made, seconds since 1970.
        state: ``pending`` or one of `FINAL_STATES`.
        acknowledged: Whether a try was answered 2xx.
        next_at: When the next try is due, None where none is.
        started: How many tries were started; one that a kill interrupted is among them.
        attempts: The tries that ended.
        fortune: The faults that it meets, decided when it was made.
        about: What it says, in a few words for a person.
    """

    id: int
    account: str
    type: str
    campaign_id: str | None
    sha256: str
    created_at: float
    state: str = "pending"
    acknowledged: bool = False
    next_at: float | None = None
    started: int = 0
    attempts: list[Attempt] = msgspec.field(default_factory=list)
    fortune: Fortune = Fortune()
    about: str = ""

    @property
    def is_settled(self) -> bool:
        """Tell whether nothing more will be sent of it."""
        return self.state in FINAL_STATES and self.next_at is None


class Ledger:
    """Keep every callback, and the bodies of those that may still be sent.

    Args:
        store: Where they are kept for good.
        saved: What was kept there before.

    Raises:
        msgspec.DecodeError: What was kept is not ours.
    """

    def __init__(self, store: Store, saved: Saved | None = None) -> None:
        self._store = store
        self._messages: dict[int, Message] = {}
        self._bodies: dict[int, bytes] = {}
        self._entered: dict[int, int] = {}
        for key, value in sorted((saved or {}).get("message", {}).items(), key=lambda item: int(item[0])):
            self._messages[int(key)] = msgspec.json.decode(value, type=Message)
        self._bodies = {int(key): value for key, value in (saved or {}).get("body", {}).items()}

    def __iter__(self) -> Iterator[Message]:
        return iter(self._messages.values())

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, callback: Callback, now: float) -> Message:
        """Enter a callback."""
        message = Message(
            id=len(self._messages) + 1,
            account=callback.account,
            type=callback.type,
            campaign_id=callback.campaign_id,
            sha256=hashlib.sha256(callback.body).hexdigest(),
            created_at=now,
            next_at=now,
            about=callback.about,
        )
        self._messages[message.id] = message
        self._bodies[message.id] = callback.body
        self._store.put("body", str(message.id), callback.body)
        self._entered[message.id] = self.keep(message)
        return message

    def entered(self, message: Message) -> int:
        """Return up to which put the store must be flushed for a callback and its body to be kept."""
        return self._entered.get(message.id, 0)

    def keep(self, message: Message) -> int:
        """Keep a callback as it now stands, with the next flush; let go of the body of one that is never sent again."""
        if message.is_settled and self._bodies.pop(message.id, None) is not None:
            self._store.put("body", str(message.id), None)
            self._entered.pop(message.id, None)
        return self._store.put("message", str(message.id), partial(msgspec.json.encode, message))

    def detach(self) -> None:
        """Keep nothing for good any more."""
        self._store = Memory()

    def body(self, message: Message) -> bytes:
        """Return the bytes of a callback that may still be sent."""
        return self._bodies[message.id]

    def unfinished(self) -> list[Message]:
        """Return the callbacks for which a try is still due."""
        return [message for message in self._messages.values() if message.next_at is not None]

    def select(self, account: str | None = None, campaign_id: str | None = None) -> list[Message]:
        """Return the callbacks of an account, a campaign, or all."""
        return [
            message
            for message in self._messages.values()
            if account in {None, message.account} and campaign_id in {None, message.campaign_id}
        ]
