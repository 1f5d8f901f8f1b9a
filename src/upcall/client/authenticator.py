"""The two tokens of a client: fetched, shared, kept, dropped when refused; without I/O.

A login passes the latch, and, where tokens are kept on disk, looks there first and again once it is its turn: of ten
processes that start together one logs in.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from upcall.client import failures, operations
from upcall.client.auth import SESSION_IDLE_SECONDS, Flight, Seat, Token, TokenSlot, refresh_delay_seconds
from upcall.client.effects import Do, Flow, Join, Launch, Wait
from upcall.client.failures import Failure
from upcall.client.latch import Claim, LoginLatch, Refusal, Verdict
from upcall.client.operations import LOGIN, Auth
from upcall.client.tokenstore import BEARER, SESSION, StoredToken, TokenStore
from upcall.errors import LoginLatchedError, NoAnswerError, ThingSpaceError, UpcallError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from upcall.client.exchange import Exchange
    from upcall.client.trip import Trip

__all__ = ["Authenticator", "TokenState"]

_LOGIN_POLL_SECONDS: Final = 0.1
_TOUCH_SECONDS: Final = 60.0
"""How stale the time of last use on disk may be."""


_WAYS_OUT: Final = {
    Verdict.UNKNOWN: "The file {path} is damaged. To forget what it counted:",
    Verdict.UNANSWERED: "Check the way to the provider, and the password; then:",
    Verdict.SAME_PASSWORD: "Give another password, which is sent without more ado; or, to send this one again:",
    Verdict.TWICE: "Correct the user name and the password ({username}, {password}); then:",
}


class TokenState(msgspec.Struct, frozen=True, kw_only=True):
    """Say of one token that it lives, without showing it.

    Args:
        kind: ``bearer`` or ``session``.
        origin: ``given`` by the user, held in ``memory``, or kept in the ``store`` on disk.
        ends_at: When it ends unless it is refused before, in seconds since 1970: a session is extended by each use.
            None where nobody knows, as of a token that was given.
    """

    kind: str
    origin: Literal["given", "memory", "store"]
    ends_at: float | None = None


class Authenticator:
    """Give every call of a client the tokens that it needs.

    Args:
        exchange: Makes the calls that fetch tokens.
        latch: Counts refused logins.
        store: Keeps tokens on disk, None where they are not kept.
    """

    def __init__(self, exchange: Exchange, latch: LoginLatch, store: TokenStore | None) -> None:
        self._exchange = exchange
        self._latch = latch
        self._store = store
        self._touched_at = 0.0
        self.bearer: TokenSlot = TokenSlot()
        self.session: TokenSlot = TokenSlot(
            max_idle_seconds=SESSION_IDLE_SECONDS, fixed=exchange.credentials.session_token or None
        )

    @property
    def held(self) -> tuple[str, ...]:
        """Return the values of the tokens that are or were held, which no text may show."""
        return (*self.bearer.values(), *self.session.values())

    @property
    def store_path(self) -> Path | None:
        """Return the file in which tokens are kept, None where they are not."""
        return self._store.path if self._store is not None else None

    def states(self) -> tuple[TokenState, ...]:
        """Tell which tokens are held, here or on disk, and until when."""
        return tuple(state for kind in (BEARER, SESSION) if (state := self._state(kind)) is not None)

    def tokens(self, auth: Auth, trip: Trip) -> Flow[tuple[Token | None, Token | None]]:
        """Return the tokens that a call must carry, fetching what is not there."""
        if auth is Auth.NONE or auth is Auth.BASIC:
            return None, None
        bearer = yield from self._token(self.bearer, self._fetch_bearer, trip)
        if auth is Auth.BEARER:
            return bearer, None
        session = yield from self._token(self.session, self._fetch_session, trip)
        if self.bearer.peek() is not bearer:  # a login takes time, in which it may have been refused
            bearer = yield from self._token(self.bearer, self._fetch_bearer, trip)
        return bearer, session

    def used(self, session: Token | None, at: float) -> Flow[None]:
        """Note that a session was used, which extends it; on disk once a minute."""
        if session is None:
            return
        self.session.touch(session.value, at)
        if self._store is not None and not self.session.is_fixed and at - self._touched_at > _TOUCH_SECONDS:
            self._touched_at = at
            yield Do(partial(self._store.touch, SESSION, session, self._exchange.clock.wall()))

    def drop(self, kind: str, token: Token | None) -> Flow[bool]:
        """Forget a token that was refused; tell whether another one can be had."""
        slot = self.bearer if kind == BEARER else self.session
        if slot.is_fixed or token is None:
            return False
        if self._store is not None:
            yield Do(partial(self._store.drop, kind, token))
        slot.drop(token.value)
        return True

    def forget(self) -> Flow[None]:
        """Drop both tokens, here and on disk; one that was given stays."""
        for kind, slot in ((BEARER, self.bearer), (SESSION, self.session)):
            yield from self.drop(kind, slot.peek() or (yield from self._stored(kind)))

    def end_session(self) -> Flow[None]:
        """Log out of the session that is held, here or on disk; a fixed session token is left alone."""
        if self.session.is_fixed:
            return
        seat = self.session.take(self._exchange.clock.monotonic())
        if isinstance(seat, Seat):
            if not seat.leads:
                return
            stored = yield from self._stored(SESSION)
            if stored is None:
                self.session.abandon(seat.flight)
                return
            self.session.adopt(seat.flight, stored)
        yield from self._exchange.run(operations.log_out())
        yield from self.drop(SESSION, self.session.peek())

    def _state(self, kind: str) -> TokenState | None:
        slot = self.bearer if kind == BEARER else self.session
        clock = self._exchange.clock
        if slot.is_fixed:
            return TokenState(kind=kind, origin="given")
        ends_at = slot.ends_at(clock.monotonic())
        if ends_at is not None:
            return TokenState(kind=kind, origin="memory", ends_at=clock.wall() + ends_at - clock.monotonic())
        stored = self._store.load(kind) if self._store is not None else None
        if stored is None:
            return None
        ends_at = stored.used_at + SESSION_IDLE_SECONDS if kind == SESSION else stored.expires_at
        return TokenState(kind=kind, origin="store", ends_at=ends_at) if ends_at and ends_at > clock.wall() else None

    # --- Who fetches, who waits --------------------------------------------------------------------------------------

    def _token(self, slot: TokenSlot, fetch: Callable[[Flight, Trip], Flow[None]], trip: Trip) -> Flow[Token]:
        """Take the token of a slot, fetching it or waiting for whoever does."""
        while True:
            seat = slot.take(self._exchange.clock.monotonic())
            if isinstance(seat, Token):
                return seat
            if seat.leads:
                yield from _launch(slot, seat.flight, fetch(seat.flight, trip.part()))
            outcome = yield Join(seat.flight, trip.left(self._exchange.clock.monotonic()))
            if isinstance(outcome, Token):
                return outcome
            if outcome is not None:
                raise self._shared(outcome, seat, trip)

    def _shared(self, outcome: Exception, seat: Seat, trip: Trip) -> Exception:
        if isinstance(outcome, TimeoutError):
            if seat.leads:
                return self._login_timeout("it has not ended", trip, sent=True)
            return self._login_timeout("the login that another call began has not ended", trip)
        # Everybody who waits raises an error of his own: a traceback belongs to one thread.
        if not isinstance(outcome, UpcallError):
            return outcome  # somebody else's exception, such as one of a user's transport: not every one can be copied
        error = copy.copy(outcome)
        if isinstance(error, ThingSpaceError) and trip.purpose:
            error.message = f"{trip.purpose} needs a token. {error.message}"
        return error

    def _login_timeout(self, reason: str, trip: Trip, *, sent: bool = False) -> ThingSpaceError:
        return failures.unreached(LOGIN, Failure(reason=reason, sent=sent), self._exchange.tally(trip))

    # --- Fetching ----------------------------------------------------------------------------------------------------

    def _fetch_bearer(self, flight: Flight, trip: Trip) -> Flow[None]:
        stored = yield from self._stored(BEARER)
        if stored is not None:
            self.bearer.adopt(flight, stored)
            return
        asked_at, asked_wall = self._exchange.clock.monotonic(), self._exchange.clock.wall()
        reply = yield from self._exchange.run(operations.request_token(), trip=trip)
        lifetime = reply.parsed.lifetime_seconds
        if self._store is not None:
            kept = StoredToken(
                reply.parsed.value, asked_wall, asked_wall + refresh_delay_seconds(lifetime), asked_wall + lifetime
            )
            yield Do(partial(self._store.save, BEARER, kept))
        self.bearer.land(flight, reply.parsed.value, asked_at=asked_at, lifetime_seconds=lifetime)
        self._exchange.tell("token_fetched", operations.request_token(), trip, reason="bearer token")

    def _fetch_session(self, flight: Flight, trip: Trip) -> Flow[None]:
        stored = yield from self._stored(SESSION)
        if stored is not None:
            self.session.adopt(flight, stored)
            return
        # The bearer token first: a login is claimed for as long as it takes, and no longer.
        yield from self._token(self.bearer, self._fetch_bearer, trip)
        claim = yield from self._claim_login(trip)
        try:
            # Whoever had the claim before us may have left a session.
            stored = yield from self._stored(SESSION)
        except BaseException:
            self._latch.release(claim)
            raise
        if stored is not None:
            self._latch.release(claim)
            self.session.adopt(flight, stored)
            return
        yield from self._log_in(flight, claim, trip)

    def _log_in(self, flight: Flight, claim: Claim, trip: Trip) -> Flow[None]:
        credentials = self._exchange.credentials
        call = operations.log_in(credentials.username or "", credentials.password or "")
        asked_at, asked_wall = self._exchange.clock.monotonic(), self._exchange.clock.wall()
        try:
            reply = yield from self._exchange.run(call, trip=trip)
        except BaseException as error:
            self._settle(claim, error)
            raise
        if reply.parsed is None:
            yield Do(partial(self._latch.refused, claim))
            self._exchange.tell("login_refused", call, trip, status=reply.answer.status)
            raise failures.login_refused(LOGIN, reply.answer, self._exchange.tally(trip), credentials)
        if self._store is not None:
            yield Do(partial(self._store.save, SESSION, StoredToken(reply.parsed, asked_wall)))
        yield Do(partial(self._latch.succeeded, claim))
        self.session.land(flight, reply.parsed, asked_at=asked_at)
        self._exchange.tell("logged_in", call, trip, reason="session token")

    def _settle(self, claim: Claim, error: BaseException) -> None:
        """End the claim of a login that came to nothing; one that may have been refused is counted as that."""
        judged = isinstance(error, ThingSpaceError) and not isinstance(error, NoAnswerError)
        if judged:
            self._latch.release(claim)
        else:
            self._latch.unanswered(claim)

    def _claim_login(self, trip: Trip) -> Flow[Claim]:
        limits, clock = trip.limits, self._exchange.clock
        hold_seconds = limits.policy.max_elapsed_seconds + limits.timeout_seconds
        while True:
            claimed = yield Do(partial(self._claim, hold_seconds))
            if isinstance(claimed, Claim):
                return claimed
            if claimed.verdict is not Verdict.BUSY:
                raise _latched(claimed, self._exchange)
            left = limits.policy.max_elapsed_seconds - (clock.monotonic() - trip.started)
            if left <= 0:
                raise self._login_timeout("another process is logging in, and has not ended", trip)
            yield Wait(min(left, _LOGIN_POLL_SECONDS * (0.5 + clock.chance())))

    def _claim(self, hold_seconds: float) -> Claim | Refusal:
        credentials = self._exchange.credentials
        return self._latch.claim(
            self._exchange.base_url, credentials.username or "", credentials.password or "", hold_seconds=hold_seconds
        )

    def _stored(self, kind: str) -> Flow[Token | None]:
        """Return the token on disk, where one is kept and seems good."""
        if self._store is None:
            return None
        stored: StoredToken | None = yield Do(partial(self._store.load, kind))
        if stored is None:
            return None
        wall, now = self._exchange.clock.wall(), self._exchange.clock.monotonic()
        idle = wall - stored.used_at
        is_over = stored.refresh_at is not None and wall >= stored.refresh_at
        if is_over or (kind == SESSION and not 0 <= idle <= SESSION_IDLE_SECONDS):
            return None
        return Token(
            stored.value,
            refresh_at=_later(now, stored.refresh_at, wall),
            used_at=now - idle,
            expires_at=_later(now, stored.expires_at, wall),
            stored=True,
        )


def _later(now: float, at: float | None, wall: float) -> float:
    """Carry a wall-clock time over to the monotonic clock; None is never."""
    return float("inf") if at is None else now + at - wall


def _launch(slot: TokenSlot, flight: Flight, fetch: Flow[None]) -> Flow[None]:
    """Send a flight on its way, and see to it that it ends: whoever waits for it must not wait for ever."""
    ended = partial(slot.abandon, flight)
    try:
        yield Launch(_finish(slot, flight, fetch), ended)
    except BaseException:
        ended()
        raise


def _finish(slot: TokenSlot, flight: Flight, fetch: Flow[None]) -> Flow[None]:
    try:
        yield from fetch
    except Exception as error:  # noqa: BLE001 - it is raised where the flight is joined
        slot.fail(flight, error)


def _latched(refusal: Refusal, exchange: Exchange) -> LoginLatchedError:
    names = {field: exchange.credentials.name_of(field) for field in ("username", "password")}
    hint = _WAYS_OUT[refusal.verdict].format(path=refusal.path, **names)
    return LoginLatchedError(
        f"No login was sent to {exchange.base_url}: {refusal.verdict.value}, and five refusals lock the account there.",
        hint=f"{hint} upcall login --reset, or client.reset_login_latch().",
        operation="login",
    )
