"""The two tokens: who may use the one that is held, who fetches the next, who waits.

No I/O happens here and the time is an argument. A slot's lock is held for the few statements that read or change
the slot, never across a call. A fetch in progress is a flight, which is a `concurrent.futures.Future`: threads can
wait for it, and so can tasks of any event loop. Whoever needs a token when none is good and nothing is in flight
leads the flight.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from typing import Final

import msgspec

__all__ = ["SESSION_IDLE_SECONDS", "Flight", "Seat", "Token", "TokenSlot", "refresh_delay_seconds"]

SESSION_IDLE_SECONDS: Final = 20 * 60.0
"""How long a session token lives unused. Source: "Start connectivity management session" (documented)."""

_EARLY_SECONDS: Final = 30.0
_NEVER: Final = float("inf")
_RETIRED: Final = 4
"""How many tokens are remembered that were replaced: an answer may still echo them."""


class Token(msgspec.Struct, frozen=True):
    """Hold a token; `repr` does not show it.

    Args:
        value: The token.
        refresh_at: When to fetch another one, on the monotonic clock.
        used_at: When it was last used before it was held here.
        expires_at: When it ends.
        stored: Whether it was found on disk.
    """

    value: str
    refresh_at: float = _NEVER
    used_at: float = _NEVER
    expires_at: float = _NEVER
    stored: bool = False

    def __repr__(self) -> str:
        return f"Token(refresh_at={self.refresh_at})"


Flight = Future[Token | Exception | None]
"""A fetch in progress: ends in a token, in why there is none, or in None where its leader was stopped."""


class Seat(msgspec.Struct, frozen=True):
    """Hold a place in a flight.

    Args:
        flight: What to wait for.
        leads: Whether the holder is the one who must fetch.
    """

    flight: Flight
    leads: bool


def refresh_delay_seconds(lifetime_seconds: float) -> float:
    """Return how long after its issue a token is to be replaced, its last 30 seconds being too late."""
    return max(lifetime_seconds - _EARLY_SECONDS, lifetime_seconds / 2)


class TokenSlot:
    """Keep one token for all threads and event loops of a client.

    Args:
        max_idle_seconds: How long the token lives unused.
        fixed: A token that the user gave, which is used and never replaced.
    """

    def __init__(self, *, max_idle_seconds: float = _NEVER, fixed: str | None = None) -> None:
        self._lock = threading.Lock()
        self._max_idle_seconds = max_idle_seconds
        self._token = Token(fixed) if fixed else None
        self._used_at = _NEVER
        self._flight: Flight | None = None
        self._retired: deque[str] = deque(maxlen=_RETIRED)
        self.is_fixed: bool = bool(fixed)

    def take(self, now: float) -> Token | Seat:
        """Return the token, or a seat in the flight that fetches one."""
        with self._lock:
            token = self._token
            if token is not None and (self.is_fixed or self._is_good(token, now)):
                return token
            if self._flight is not None:
                return Seat(self._flight, leads=False)
            flight: Flight = Future()
            # A running future ignores cancel(): a waiter's cancelled task must not end the flight of all others.
            flight.set_running_or_notify_cancel()
            self._flight = flight
            return Seat(flight, leads=True)

    def values(self) -> tuple[str, ...]:
        """Return the values that no text may show: the token's, and those of the last ones before it."""
        with self._lock:
            return (*self._retired, self._token.value) if self._token is not None else tuple(self._retired)

    def peek(self) -> Token | None:
        """Return the token that is held, good or not."""
        with self._lock:
            return self._token

    def ends_at(self, now: float) -> float | None:
        """Return when the token ends that is held, None where there is none, or it has ended, or nobody knows."""
        with self._lock:
            if self._token is None:
                return None
            ends_at = min(self._token.expires_at, self._used_at + self._max_idle_seconds)
        return ends_at if now < ends_at < _NEVER else None

    def land(self, flight: Flight, value: str, *, asked_at: float, lifetime_seconds: float = _NEVER) -> None:
        """End a flight with the token that it fetched.

        Args:
            flight: The flight.
            value: The token.
            asked_at: When the request was made, from which its life is counted.
            lifetime_seconds: How long it lives from then.
        """
        with self._lock:
            held = self._token
            # Within the hour the provider issues the same token again: to ask once more before it is refused is idle.
            unchanged = held is not None and held.value == value
            refresh_at = _NEVER if unchanged else asked_at + refresh_delay_seconds(lifetime_seconds)
        self.adopt(flight, Token(value, refresh_at, asked_at, asked_at + lifetime_seconds))

    def adopt(self, flight: Flight, token: Token) -> None:
        """End a flight with a token that was found elsewhere."""
        with self._lock:
            if self._token is not None:
                self._retired.append(self._token.value)
            self._token, self._used_at = token, token.used_at
            self._leave(flight)
        flight.set_result(token)

    def fail(self, flight: Flight, error: Exception) -> None:
        """End a flight with an error, which everybody who waits for it gets."""
        with self._lock:
            self._leave(flight)
        flight.set_result(error)

    def abandon(self, flight: Flight) -> None:
        """End a flight whose leader was stopped, so that somebody who waits becomes the leader of another."""
        with self._lock:
            self._leave(flight)
        if not flight.done():
            flight.set_result(None)

    def touch(self, value: str | None, at: float) -> None:
        """Note that a token was used, and was not refused."""
        with self._lock:
            if self._token is not None and self._token.value == value:
                self._used_at = max(self._used_at, at)

    def drop(self, value: str | None) -> None:
        """Forget the token that was refused, unless another one has taken its place."""
        with self._lock:
            if not self.is_fixed and self._token is not None and self._token.value == value:
                self._retired.append(self._token.value)
                self._token = None

    def _is_good(self, token: Token, now: float) -> bool:
        return now < token.refresh_at and now - self._used_at <= self._max_idle_seconds

    def _leave(self, flight: Flight) -> None:
        if self._flight is flight:
            self._flight = None
