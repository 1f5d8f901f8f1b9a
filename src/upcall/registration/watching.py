"""What the guard concludes from one look after the other: a state an account, and the changes worth an alert. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from upcall.redact import mask_url_token
from upcall.thingspace import text_of_micros

if TYPE_CHECKING:
    from upcall.registration.planning import Standing

__all__ = [
    "MOST_THEFTS",
    "THEFT_MICROS",
    "UNREAD_ROUNDS",
    "State",
    "Transition",
    "Watch",
    "observe",
    "pause_seconds",
    "reason_to_leave",
    "taken_again",
    "text_of",
    "transition_of",
]

State = Literal["unknown", "in_order", "drifted", "none", "unreachable", "given_up"]
"""How an account stands: ``unknown`` before the first look, ``drifted`` where another URL stands, ``none`` where none
does, ``unreachable`` where it could not be read several times in a row, ``given_up`` where it was taken too often."""

UNREAD_ROUNDS: Final = 3
"""So many rounds in a row an account cannot be read before anybody is told: the provider has its moments."""

MOST_THEFTS: Final = 3
"""At this theft within a day the slot is left: two systems that write against each other would go on for ever."""

THEFT_MICROS: Final = 24 * 3600 * 1_000_000

_JITTER: Final = 0.1


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what is known of one account from one round to the next; `repr` shows no token.

    Args:
        state: How it stands, see `State`.
        registered: The URL that stood when it was last read.
        desired: The URL that should stand.
        since: When it came into this state, UTC microseconds.
        last_ok: When it was last seen in order; None for never.
        unread: How many rounds in a row it could not be read.
        behind: How it stood before it became unreachable; None where it is not.
        thefts: When it was taken, within the last day.
        error: Why it could not be read.
    """

    state: State = "unknown"
    registered: str | None = None
    desired: str | None = None
    since: int = 0
    last_ok: int | None = None
    unread: int = 0
    behind: State | None = None
    thefts: tuple[int, ...] = ()
    error: str | None = None

    def __repr__(self) -> str:
        return f"Watch({self.state!r}, since={self.since}, last_ok={self.last_ok}, unread={self.unread})"

    @classmethod
    def of(cls, document: dict[str, Any]) -> Watch:
        """Read a note; one that another release wrote in another form begins anew."""
        try:
            return msgspec.convert(document, cls)
        except msgspec.ValidationError:
            return cls()

    def document(self) -> dict[str, Any]:
        """Return what the note holds."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """Say that an account came from one state into another; `repr` shows no token.

    Args:
        account: The account.
        at: When, UTC microseconds.
        was: The state before.
        state: The state now.
        registered: The URL that stands, None for none or where it was not read.
        desired: The URL that should stand.
        last_ok: When it was last seen in order; None for never.
        ours: Whether the one that stands is an older one of ours.
        taken_back: Whether the guard itself took the slot back.
        error: Why it could not be read.
    """

    account: str
    at: int
    was: State
    state: State
    registered: str | None = None
    desired: str | None = None
    last_ok: int | None = None
    ours: bool = False
    taken_back: bool = False
    error: str | None = None

    def __repr__(self) -> str:
        return f"Transition({self.account!r}, {self.was!r}, {self.state!r})"

    def document(self) -> dict[str, Any]:
        """Return what the journal holds of it: an audit, with whole URLs."""
        document: dict[str, Any] = {
            "from": self.was,
            "to": self.state,
            "registered": self.registered,
            "desired": self.desired,
            "last_ok": self.last_ok,
            "ours": self.ours,
            "taken_back": self.taken_back,
        }
        return document if self.error is None else document | {"error": self.error}


def observe(
    watch: Watch,
    standing: Standing,
    *,
    desired: str | None,
    is_well: bool,
    was_ours: bool,
    ours: bool,
    reasserts: bool,
    now: int,
) -> Watch:
    """Return what is known of an account after one more look.

    Args:
        watch: What was known before.
        standing: What was read.
        desired: The URL that should stand.
        is_well: Whether what was read is in order.
        was_ours: Whether the slot was ours before, as far as the audit says.
        ours: Whether the URL that stands is ours, if not the one that should.
        reasserts: Whether the guard takes slots back, and so may come to give up.
        now: The time, UTC microseconds.
    """
    if standing.error is not None:
        return _unread(watch, standing.error, now)
    before = watch.behind or watch.state
    thefts = _recent(watch.thefts, now)
    if is_well and before == "given_up":
        thefts = ()  # somebody settled who owns the slot, and it counts anew
    if not is_well and not ours and (before == "in_order" or (before == "unknown" and was_ours)):
        thefts = (*thefts, now)
    given_up = reasserts and not ours and len(thefts) >= MOST_THEFTS
    state = _state(standing.url, before, is_well=is_well, given_up=given_up)
    same = state == watch.state and (state == "in_order" or standing.url == watch.registered)
    return Watch(
        state=state,
        registered=standing.url,
        desired=desired,
        since=watch.since if same else now,
        last_ok=now if is_well else watch.last_ok,
        thefts=thefts,
    )


def taken_again(watch: Watch, standing: Standing, now: int) -> Watch:
    """Return what is known of an account whose slot was taken in the moment in which it was taken back."""
    thefts = (*_recent(watch.thefts, now), now)
    return msgspec.structs.replace(
        watch,
        state="given_up" if len(thefts) >= MOST_THEFTS else watch.state,
        registered=standing.url,
        thefts=thefts,
    )


def transition_of(account: str, before: Watch, after: Watch, *, now: int, ours: bool = False) -> Transition | None:
    """Return the change between two looks, None where there is none that anybody must be told.

    That all is well at the first look is not news. Another URL in the slot of a drifted account is.

    Args:
        account: The account.
        before: What was known before.
        after: What is known now.
        now: The time, UTC microseconds.
        ours: Whether the URL that stands is an older one of ours.
    """
    other = after.state in {"drifted", "given_up"} and after.registered != before.registered
    if (after.state == before.state and not other) or (before.state, after.state) == ("unknown", "in_order"):
        return None
    return Transition(
        account=account,
        at=now,
        was=before.state,
        state=after.state,
        registered=after.registered if after.state != "unreachable" else None,
        desired=after.desired,
        last_ok=before.last_ok,
        ours=ours,
        error=after.error,
    )


def reason_to_leave(
    watch: Watch, *, was_ours: bool, was_removed: bool, ours: bool, flaw: str | None, accepted: bool
) -> str | None:
    """Return why the guard leaves a slot that is not in order as it is, None where it may take it back.

    Args:
        watch: What is known of the account.
        was_ours: Whether the audit says that we registered it.
        was_removed: Whether the audit says that we deregistered it since.
        ours: Whether the URL that stands is an older one of ours.
        flaw: Why the desired URL can certainly not be registered.
        accepted: Whether a listener accepts the desired URL's token, as far as that is known.
    """
    if watch.state == "given_up":
        return "it was taken too often; settle who owns the slot, then: upcall apply --replace"
    if watch.state not in {"drifted", "none"}:
        return "nothing says that it is not in order"
    if ours:
        return "an older URL of ours stands there: upcall apply"
    if was_removed or not (was_ours or watch.last_ok is not None):
        return "the slot was not ours before: upcall apply --replace"
    if flaw is not None:
        return flaw
    return None if accepted else "no listener accepts the token of its url: upcall doctor"


def pause_seconds(every_seconds: float, chance: float) -> float:
    """Return how long to wait for the next round: a tenth more or less, so that many guards do not come together.

    Args:
        every_seconds: How long on average.
        chance: A random number of [0, 1).
    """
    return every_seconds * (1 - _JITTER + 2 * _JITTER * chance)


def text_of(transition: Transition) -> str:
    """Write a transition in one line for a person: what happened, what it means, what to type; tokens are masked."""
    what = _TEXTS[transition.state](transition)
    return f"{transition.account}: {what}"


def _in_order(transition: Transition) -> str:
    gap = f"; before, it last was at {_when(transition.last_ok)}" if transition.last_ok is not None else ""
    if transition.was == "unreachable":
        return "can be read again, and is in order."
    how = "the slot was taken back" if transition.taken_back else "in order again"
    return f"{how}{gap}. What was sent elsewhere meanwhile: upcall outages."


def _drifted(transition: Transition) -> str:
    stands = _shown(transition.registered)
    if transition.ours:
        return f"an older URL of ours is registered, {stands}. To bring it in order: upcall apply {transition.account}."
    return (
        f"callbacks go to {stands} and not to {_shown(transition.desired)}{_since(transition)}. To take the slot back:"
        f" upcall apply {transition.account} --replace."
    )


def _none(transition: Transition) -> str:
    todo = f"To register: upcall apply {transition.account}."
    return f"nothing is registered, so callbacks are lost{_since(transition)}. {todo}"


def _unreachable(transition: Transition) -> str:
    return f"could not be read {UNREAD_ROUNDS} rounds in a row: {transition.error} To see why: upcall doctor."


def _given_up(transition: Transition) -> str:
    taker = urlsplit(transition.registered).netloc.rpartition("@")[2] if transition.registered else None
    return (
        f"taken {MOST_THEFTS} times within a day, now {f'by {taker}' if taker else 'to register nothing'}. The guard"
        f" gives up: find out who writes there, stop it, then: upcall apply {transition.account} --replace."
    )


_TEXTS: Final = {
    "in_order": _in_order,
    "drifted": _drifted,
    "none": _none,
    "unreachable": _unreachable,
    "given_up": _given_up,
}


def _shown(url: str | None) -> str:
    return mask_url_token(url) if url else "nothing"


def _since(transition: Transition) -> str:
    if transition.last_ok is None:
        return ""
    return f", since {_when(transition.last_ok)} at the earliest"


def _when(micros: int) -> str:
    """Write a time to the second, as people read it."""
    return f"{text_of_micros(micros).partition('.')[0]}Z"


def _unread(watch: Watch, error: str, now: int) -> Watch:
    unread = watch.unread + 1
    if unread < UNREAD_ROUNDS or watch.state == "unreachable":
        return msgspec.structs.replace(watch, unread=unread, error=error)
    return msgspec.structs.replace(
        watch, state="unreachable", behind=watch.state, since=now, unread=unread, error=error
    )


def _recent(thefts: tuple[int, ...], now: int) -> tuple[int, ...]:
    return tuple(at for at in thefts if now - at < THEFT_MICROS)


def _state(url: str | None, before: State, *, is_well: bool, given_up: bool) -> State:
    if is_well:
        return "in_order"
    if before == "given_up" or given_up:
        return "given_up"
    return "none" if url is None else "drifted"
