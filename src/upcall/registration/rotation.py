"""Taking a new token into use while callbacks arrive, so that none is refused.

The new token is accepted before the provider hears of it, the old one for as long as the provider may still use it.
Each step is found done or undone in the store, so that a rotation that was interrupted goes on where it stood:
1. a token in state ``next`` stands in the store;
2. every listener that lives has it in its heartbeat;
3. the provider has its URL for every account, read back;
4. the old token is ``retiring``, and then the new one ``live``; the listener retires the old one when its time is over.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.errors import SettingsError, StartError
from upcall.inbox import TokenRecord
from upcall.inbox.owners import dead_owners
from upcall.listener import Token, generate_token
from upcall.registration.outages import STALE_SECONDS, living

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from upcall.inbox import Inbox, Uptime
    from upcall.registration.desired import Target
    from upcall.thingspace import Profile

__all__ = [
    "ACCEPT_SECONDS",
    "Rotated",
    "Rotation",
    "begin_rotation",
    "keep_seconds",
    "pairs_of",
    "rotate",
    "wait_until_accepted",
]

ACCEPT_SECONDS: Final = 60.0
"""How long a listener that lives may take to accept a new token: it looks every few seconds."""

_DOUBTFUL_MICROS: Final = 600_000_000
"""A listener that did not end and last beat within this may only be late."""
_MARGIN_SECONDS: Final = 60.0
_AGAIN_SECONDS: Final = 0.2


class Rotation(msgspec.Struct, frozen=True):
    """Hold one token that takes the place of others; `repr` shows none.

    Args:
        following: The one that is accepted already and comes into use.
        olds: The live ones that it takes the place of.
        resumed: Whether an earlier run had begun with it.
    """

    following: TokenRecord
    olds: tuple[TokenRecord, ...]
    resumed: bool = False

    def __repr__(self) -> str:
        return f"Rotation({self.id}, in the place of {', '.join(Token(old.token).id for old in self.olds)})"

    @property
    def id(self) -> str:
        """Return what stands for the new token, as it does in callbacks' ``token_id``."""
        return Token(self.following.token).id

    def conclude(self, inbox: Inbox, retire_at: int, now: int) -> None:
        """Let the old ones retire, and make the new one live.

        In this order: whoever is interrupted in between has a token that comes next, and is not done.

        Args:
            inbox: The store.
            retire_at: When the old ones are over, UTC microseconds.
            now: The time.
        """
        for old in self.olds:
            inbox.set_token(old.token, state="retiring", retire_at=retire_at, now=now)
        inbox.set_token(self.following.token, state="live", retire_at=None, now=now)


def keep_seconds(profile: Profile) -> float:
    """Return how long an old token must be accepted after the provider was told of a new one.

    What is still sent to the old URL minutes after the change may be tried again for as long as the profile says.

    Args:
        profile: When the provider tries again.
    """
    return STALE_SECONDS + profile.longest_seconds + _MARGIN_SECONDS


def pairs_of(records: Sequence[TokenRecord], targets: Sequence[Target]) -> list[Rotation]:
    """Return which tokens a rotation that is under way replaces; nothing where none is.

    Args:
        records: The store's tokens.
        targets: What each account should have registered.
    """
    used = {secret for target in targets for secret in target.tokens}
    names = {target.account for target in targets}
    live = [record for record in records if record.state == "live" and record.token in used]
    return [
        Rotation(
            following,
            tuple(old for old in live if set(old.accounts) == set(following.accounts)),
            resumed=True,
        )
        for following in records
        if following.state == "next" and (not following.accounts or not names.isdisjoint(following.accounts))
    ]


def begin_rotation(inbox: Inbox, targets: Sequence[Target], now: int) -> list[Rotation]:
    """Put a token that comes next beside each live one that the targets use, unless one is there.

    Args:
        inbox: The store.
        targets: What each account should have registered; those whose URL takes no token are left alone.
        now: The time, UTC microseconds.
    """
    records = inbox.tokens()
    rotations = pairs_of(records, targets)
    begun = {frozenset(rotation.following.accounts) for rotation in rotations}
    used = {secret for target in targets for secret in target.tokens}
    groups: dict[frozenset[str], list[TokenRecord]] = {}
    for record in records:
        if record.state == "live" and record.token in used:
            groups.setdefault(frozenset(record.accounts), []).append(record)
    for accounts, olds in groups.items():
        if accounts not in begun:
            following = TokenRecord(generate_token(), olds[0].accounts, state="next", created_at=now)
            inbox.add_token(following, now)
            rotations.append(Rotation(following, tuple(olds)))
    return rotations


def wait_until_accepted(
    inbox: Inbox,
    rotations: Sequence[Rotation],
    *,
    now: Callable[[], int],
    sleep: Callable[[float], None] = time.sleep,
    wait_seconds: float = ACCEPT_SECONDS,
) -> int:
    """Wait until every listener that lives accepts the new tokens; return how many listeners those are.

    A listener for other accounts, which takes none of the old ones, takes none of the new ones either.

    Args:
        inbox: The store, in which they keep their heartbeats.
        rotations: What they are to accept.
        now: Returns the time, UTC microseconds.
        sleep: Waits.
        wait_seconds: How long at most.

    One whose beat is late may still accept, as where the store is held by another process: it is given the same time.

    Raises:
        StartError: One of them does not, in that time.
    """
    began_at = now()
    until = began_at + int(wait_seconds * 1e6)
    while True:
        wanted = {
            uptime: {rotation.id for rotation in rotations if _concerns(rotation, uptime)}
            for uptime in inbox.uptimes(since=began_at - _DOUBTFUL_MICROS)
        }
        uptimes = [uptime for uptime, ids in wanted.items() if ids]
        listeners = living(uptimes, now())
        waiting = [uptime for uptime in listeners if not wanted[uptime].issubset(uptime.tokens)]
        gone = dead_owners([uptime.listener for uptime in uptimes])
        doubtful = [
            uptime for uptime in uptimes if uptime not in listeners and not uptime.ended and uptime.listener not in gone
        ]
        if not waiting and (not doubtful or now() >= until):
            return len(listeners)
        if now() >= until:
            raise StartError(
                f"The listener at {waiting[0].url or waiting[0].listener} has not taken the new token within"
                f" {wait_seconds:g} s; nothing was changed at ThingSpace.",
                hint="Look at its log; then run the same again: it goes on from here.",
            )
        sleep(_AGAIN_SECONDS)


def _concerns(rotation: Rotation, uptime: Uptime) -> bool:
    """Tell whether a listener is to accept a new token: it does one of those whose place it takes."""
    return not rotation.olds or any(Token(old.token).id in uptime.tokens for old in rotation.olds)


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """Say how far a rotation came.

    Args:
        rotations: Which tokens take the place of which.
        listeners: How many living listeners accept the new ones.
        retire_at: When the old ones are over, UTC microseconds; None where the rotation is not done.
    """

    rotations: tuple[Rotation, ...]
    listeners: int
    retire_at: int | None = None


def rotate(
    inbox: Inbox,
    targets_of: Callable[[Sequence[TokenRecord]], Sequence[Target]],
    point: Callable[[Sequence[Target], Sequence[Rotation], int], AbstractContextManager[bool]],
    *,
    keep: float,
    now: Callable[[], int],
    sleep: Callable[[float], None] = time.sleep,
    needs_listener: bool = True,
) -> Rotated:
    """Take new tokens into use, or go on with what an earlier run began.

    Args:
        inbox: The store.
        targets_of: Returns what each account should have registered, given the store's tokens.
        point: Points the provider at the targets it is given, tells whether it did for all, and keeps other writers
            out until the tokens are changed; it is told the rotations, and how many listeners accept the new tokens.
        keep: How long the old tokens are accepted from now on, in seconds; see `keep_seconds`.
        now: Returns the time, UTC microseconds.
        sleep: Waits for listeners.
        needs_listener: Whether nothing is changed at the provider while no listener lives.

    Raises:
        SettingsError: No URL takes a token of the store's.
        StartError: A listener does not accept the new token, or none lives.
    """
    rotations = begin_rotation(inbox, targets_of(inbox.tokens()), now())
    if not rotations:
        raise SettingsError(
            "There is no token to rotate: no account's url in the settings file holds {token}, or the store has none"
            " that fits.",
            hint="Write the url with {token} in the token's place, and start upcall listen --config FILE once.",
        )
    listeners = wait_until_accepted(inbox, rotations, now=now, sleep=sleep)
    if not listeners and needs_listener:
        raise StartError(
            "No listener runs on this store, so none accepts the new token; nothing was changed at ThingSpace.",
            hint="Start upcall listen, or name the listener's store with --store. To go ahead: --without-listener",
        )
    # A writer that comes in between, and still reads the old token as the live one, would register it once more.
    with point(targets_of(_as_concluded(inbox.tokens(), rotations)), rotations, listeners) as is_done:
        if not is_done:
            return Rotated(rotations=tuple(rotations), listeners=listeners)
        retire_at = now() + int(keep * 1e6)
        for rotation in rotations:
            rotation.conclude(inbox, retire_at, now())
    return Rotated(rotations=tuple(rotations), listeners=listeners, retire_at=retire_at)


def _as_concluded(records: Sequence[TokenRecord], rotations: Sequence[Rotation]) -> list[TokenRecord]:
    """Return the store's tokens as they will be, so that what is wanted is the new URL."""
    states = {rotation.following.token: "live" for rotation in rotations}
    states |= {old.token: "retiring" for rotation in rotations for old in rotation.olds}
    return [msgspec.structs.replace(record, state=states.get(record.token, record.state)) for record in records]
