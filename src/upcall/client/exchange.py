"""One call from beginning to end, without I/O: authenticate, send, classify, wait, replay, parse.

A flow is a generator that yields effects (send this, wait so long, wait for that flight) and receives what became of
them. Two small drivers in `transport` carry the effects out, one for threads and one for asyncio, and a test can be a
third one, with a clock of its own.
"""

from __future__ import annotations

import base64
import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from upcall.client import failures, operations
from upcall.client.answers import Answer, Complaint, UnreadableError, read_complaint
from upcall.client.auth import SESSION_IDLE_SECONDS, Flight, Seat, Token, TokenSlot
from upcall.client.effects import Clock, Do, Flow, Join, Launch, Reply, Request, Send, Wait
from upcall.client.failures import Failure, Tally
from upcall.client.latch import Claim, LoginLatch, Refusal, Verdict
from upcall.client.operations import Auth, Call, Operation
from upcall.client.retry import RETRY_STATUSES, RetryPolicy, retry_after_seconds
from upcall.errors import LoginLatchedError, SettingsError, ThingSpaceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from upcall.settings import Credentials

__all__ = ["Exchange"]

T = TypeVar("T")

_SHORTEST_TIMEOUT: Final = 1.0
"""A request that is sent at the end of its budget is still given a second: a write cut short is the worst outcome."""
_LOGIN_POLL_SECONDS: Final = 0.1
_BEARER, _SESSION = "bearer", "session"


class _Trip:
    """Count what one call spends."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.attempts = 0
        self.retries = 0
        self.replayed: set[str] = set()


class Exchange:
    """Hold what the calls of one client share, and make the flow of each call.

    Args:
        base_url: The provider's root.
        credentials: Who calls.
        policy: When to try again.
        timeout_seconds: How long one request may take.
        latch: Counts refused logins.
        clock: Where time and chance come from.
        user_agent: What we call ourselves.
    """

    def __init__(
        self,
        *,
        base_url: str,
        credentials: Credentials,
        policy: RetryPolicy,
        timeout_seconds: float,
        latch: LoginLatch,
        clock: Clock,
        user_agent: str,
    ) -> None:
        self.base_url = base_url
        self.credentials = credentials
        self.policy = policy
        self.timeout_seconds = timeout_seconds
        self.latch = latch
        self.clock = clock
        self.user_agent = user_agent
        self.bearer = TokenSlot()
        self.session = TokenSlot(max_idle_seconds=SESSION_IDLE_SECONDS, fixed=credentials.session_token)

    # --- A call ------------------------------------------------------------------------------------------------------

    def run(self, call: Call[T], *, started: float | None = None) -> Flow[Reply[T]]:
        """Make one call.

        Args:
            call: What to do.
            started: When the call began for which this one is made: both share one budget.

        Raises:
            ThingSpaceError: It did not succeed.
            SettingsError: Credentials are missing.
        """
        self._require(call.operation.auth)
        trip = _Trip(self.clock.monotonic() if started is None else started)
        while True:
            bearer, session = yield from self._tokens(call.operation.auth, trip)
            trip.attempts += 1
            sent_at = self.clock.monotonic()
            outcome = yield Send(self._request(call, bearer, session), self._timeout(trip))
            if isinstance(outcome, Answer) and self._is_reply(call.operation, outcome):
                self.session.touch(session, sent_at)
                return self._reply(call.operation, outcome, trip)
            if isinstance(outcome, Answer) and self._drop_refused(call.operation, outcome, trip, bearer, session):
                continue
            wait = self._wait_before_retry(call.operation, outcome, trip)
            if wait is None:
                raise self._error(call.operation, outcome, trip)
            trip.retries += 1
            yield Wait(wait)

    def log_in(self) -> Flow[None]:
        """Fetch both tokens, unless good ones are held.

        Raises:
            ThingSpaceError: The provider refused or did not answer.
            SettingsError: Credentials are missing.
        """
        self._require(Auth.BOTH)
        yield from self._tokens(Auth.BOTH, _Trip(self.clock.monotonic()))

    def log_out(self) -> Flow[None]:
        """End the session that this client began, if there is one; a fixed session token is left alone."""
        session = self.session.peek()
        if session is None or self.session.is_fixed:
            return
        yield from self.run(operations.log_out())
        self.session.drop(session.value)

    def _require(self, auth: Auth) -> None:
        if auth is Auth.NONE:
            return
        missing = self.credentials.missing()
        if auth in {Auth.BASIC, Auth.BEARER}:
            missing = tuple(name for name in missing if "CLIENT" in name)
        if missing:
            raise SettingsError(
                f"Credentials are missing: {', '.join(missing)}.",
                hint="Set them in the environment, each also as …_FILE with the path of a file that holds it.",
            )
        unusable = self.credentials.unusable()
        if unusable:
            raise SettingsError(f"{', '.join(unusable)} cannot be sent: it holds characters that no request can carry.")

    def _request(self, call: Call[Any], bearer: str | None, session: str | None) -> Request:
        headers = {"Accept": "application/json", "User-Agent": self.user_agent}
        if call.body is not None:
            headers["Content-Type"] = call.content_type
        if call.operation.auth is Auth.BASIC:
            pair = f"{self.credentials.client_id}:{self.credentials.client_secret}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        if session is not None:
            headers["VZ-M2M-Token"] = session
        root = self.base_url.removesuffix("/api") if call.operation.at_root else self.base_url
        return Request(method=call.operation.method, url=f"{root}{call.path}", headers=headers, body=call.body)

    def _is_reply(self, operation: Operation[Any], answer: Answer) -> bool:
        """Tell whether an answer is to be read: one that was cut off is like none where asking again is safe."""
        return operation.accepts(answer) and not (answer.flaw == "cut" and operation.retry_safe)

    def _reply(self, operation: Operation[T], answer: Answer, trip: _Trip) -> Reply[T]:
        tally = self._tally(trip)
        if answer.flaw is not None:
            raise failures.undecodable(operation, answer, "", tally)
        try:
            parsed = operation.read(answer)
        except UnreadableError as error:
            raise failures.undecodable(operation, answer, str(error), tally) from None
        return Reply(parsed=parsed, answer=answer, attempts=tally.attempts, elapsed_seconds=tally.elapsed_seconds)

    # --- What to do after an answer that is no result -----------------------------------------------------------------

    def _drop_refused(
        self, operation: Operation[Any], answer: Answer, trip: _Trip, bearer: str | None, session: str | None
    ) -> bool:
        """Drop the token that an answer refuses, and tell whether the request is worth sending again."""
        for name in _suspects(operation, answer):
            replaceable = name == _BEARER or not self.session.is_fixed
            if replaceable and name not in trip.replayed:
                trip.replayed.add(name)
                if name == _BEARER:
                    self.bearer.drop(bearer)
                else:
                    self.session.drop(session)
                return True
        return False

    def _wait_before_retry(self, operation: Operation[Any], outcome: Answer | Failure, trip: _Trip) -> float | None:
        retry_after = 0.0
        if isinstance(outcome, Failure):
            if outcome.permanent or (outcome.sent and not operation.retry_safe):
                return None
        else:
            if not operation.retry_safe or not (outcome.status in RETRY_STATUSES or outcome.flaw == "cut"):
                return None
            retry_after = retry_after_seconds(outcome.headers.get("retry-after"), wall_now=self.clock.wall())
        return self.policy.wait_seconds(
            retries=trip.retries,
            elapsed_seconds=self._elapsed(trip),
            chance=self.clock.chance(),
            retry_after=retry_after,
        )

    def _error(self, operation: Operation[Any], outcome: Answer | Failure, trip: _Trip) -> ThingSpaceError:
        tally = self._tally(trip)
        if isinstance(outcome, Failure):
            return failures.unreached(operation, outcome, tally)
        if operation.accepts(outcome):
            return failures.undecodable(operation, outcome, "", tally)
        return failures.answered(operation, outcome, tally, fixed_session=self.session.is_fixed)

    def _elapsed(self, trip: _Trip) -> float:
        return self.clock.monotonic() - trip.started

    def _left(self, trip: _Trip) -> float:
        return max(_SHORTEST_TIMEOUT, self.policy.max_elapsed_seconds - self._elapsed(trip))

    def _timeout(self, trip: _Trip) -> float:
        return min(self.timeout_seconds, self._left(trip))

    def _tally(self, trip: _Trip) -> Tally:
        held = [token.value for token in (self.bearer.peek(), self.session.peek()) if token is not None]
        known = (self.credentials.client_secret, self.credentials.password, self.credentials.session_token, *held)
        return Tally(
            base_url=self.base_url,
            attempts=trip.attempts,
            elapsed_seconds=self._elapsed(trip),
            secrets=tuple(secret for secret in known if secret),
        )

    # --- The two tokens ----------------------------------------------------------------------------------------------

    def _tokens(self, auth: Auth, trip: _Trip) -> Flow[tuple[str | None, str | None]]:
        if auth in {Auth.NONE, Auth.BASIC}:
            return None, None
        bearer = yield from self._token(self.bearer, self._fetch_bearer, trip)
        if auth is Auth.BEARER:
            return bearer, None
        session = yield from self._token(self.session, self._fetch_session, trip)
        # A login takes time, in which the bearer token may have been refused and replaced.
        held = self.bearer.peek()
        return held.value if held is not None else bearer, session

    def _token(self, slot: TokenSlot, fetch: Callable[[Flight, float], Flow[None]], trip: _Trip) -> Flow[str]:
        """Take the token of a slot, fetching it or waiting for whoever does."""
        while True:
            seat = slot.take(self.clock.monotonic())
            if isinstance(seat, Token):
                return seat.value
            if seat.leads:
                yield from _launch(slot, seat.flight, fetch(seat.flight, trip.started))
            outcome = yield Join(seat.flight, self._left(trip))
            if isinstance(outcome, Token):
                return outcome.value
            if outcome is not None:
                raise self._shared(outcome, seat, trip)

    def _shared(self, outcome: Exception, seat: Seat, trip: _Trip) -> Exception:
        if isinstance(outcome, TimeoutError):
            waiting = Failure(reason="the login that another call began has not ended", sent=False)
            return failures.unreached(operations.log_in("", "").operation, waiting, self._tally(trip))
        # Everybody who waits raises an error of his own: a traceback belongs to one thread.
        return outcome if seat.leads else copy.copy(outcome)

    def _fetch_bearer(self, flight: Flight, started: float) -> Flow[None]:
        asked_at = self.clock.monotonic()
        reply = yield from self.run(operations.request_token(), started=started)
        issued = reply.parsed
        self.bearer.land(flight, issued.value, asked_at=asked_at, lifetime_seconds=issued.lifetime_seconds)

    def _fetch_session(self, flight: Flight, started: float) -> Flow[None]:
        trip = _Trip(started)
        username, password = self.credentials.username or "", self.credentials.password or ""
        # The bearer token first: a login is claimed for as long as it takes, and no longer.
        yield from self._token(self.bearer, self._fetch_bearer, trip)
        claim = yield from self._claim_login(username, password, trip)
        asked_at = self.clock.monotonic()
        try:
            reply = yield from self.run(operations.log_in(username, password), started=started)
        except BaseException:
            self.latch.release(claim)
            raise
        if reply.parsed is None:
            yield Do(partial(self.latch.refused, claim))
            trip.attempts = reply.attempts
            raise failures.login_refused(operations.log_in("", "").operation, reply.answer, self._tally(trip))
        yield Do(partial(self.latch.succeeded, claim))
        self.session.land(flight, reply.parsed, asked_at=asked_at)

    def _claim_login(self, username: str, password: str, trip: _Trip) -> Flow[Claim]:
        hold_seconds = self.policy.max_elapsed_seconds + self.timeout_seconds
        while True:
            claimed = yield Do(partial(self.latch.claim, self.base_url, username, password, hold_seconds=hold_seconds))
            if isinstance(claimed, Claim):
                return claimed
            if claimed.verdict is not Verdict.BUSY:
                raise _latched(claimed, self.base_url)
            if self._elapsed(trip) >= self.policy.max_elapsed_seconds:
                waiting = Failure(reason="another process is logging in, and has not ended", sent=False)
                raise failures.unreached(operations.log_in("", "").operation, waiting, self._tally(trip))
            yield Wait(_LOGIN_POLL_SECONDS * (0.5 + self.clock.chance()))


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


def _suspects(operation: Operation[Any], answer: Answer) -> tuple[str, ...]:
    """Return the tokens that an answer may be refusing, the likelier first.

    Source: Connectivity Management error pages; an expired and a wrong bearer token look the same (documented).
        Which status a dead session gets is unknown; 400 and 401 were inferred.
    """
    if operation.auth not in {Auth.BEARER, Auth.BOTH} or answer.status not in {400, 401, 403}:
        return ()
    complaint = read_complaint(answer)
    if operation.auth is Auth.BEARER:
        return (_BEARER,) if _refuses_bearer(answer, complaint) else ()
    if complaint.names_session():
        return (_SESSION,)
    if _refuses_bearer(answer, complaint):
        return (_BEARER,)
    is_bare = complaint.shape in {"none", "xml"} and answer.status in {401, 403}
    return (_SESSION, _BEARER) if is_bare else ()


def _refuses_bearer(answer: Answer, complaint: Complaint) -> bool:
    return answer.status == 401 and complaint.shape in {"fault", "oauth"}  # noqa: PLR2004


def _latched(refusal: Refusal, base_url: str) -> LoginLatchedError:
    if refusal.verdict is Verdict.UNKNOWN:
        hint = f"The file {refusal.path} is damaged. To forget what it counted, run: upcall login --reset"
    else:
        hint = "Correct THINGSPACE_USERNAME and THINGSPACE_PASSWORD, then run: upcall login --reset"
    return LoginLatchedError(
        f"No login was sent to {base_url}: {refusal.verdict.value}, and five refusals lock the account there.",
        hint=hint,
        operation="login",
    )
