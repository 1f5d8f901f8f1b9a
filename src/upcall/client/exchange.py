"""One call from beginning to end, without I/O: authenticate, send, classify, wait, read back, replay, parse.

A flow is a generator that yields effects (send this, wait so long, wait for that flight) and receives what became of
them. Two small drivers carry the effects out, one for threads and one for asyncio, and a test can be a third one,
with a clock of its own.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from upcall.client import failures
from upcall.client.answers import MAX_REQUEST_ID, Answer, Complaint, UnreadableError, is_success, read_complaint
from upcall.client.authenticator import Authenticator
from upcall.client.effects import Clock, Flow, Reply, Request, Send, Wait
from upcall.client.events import CallEvent, EventHook, EventKind, Observer
from upcall.client.failures import Failure, Tally
from upcall.client.operations import Auth, Call, Operation
from upcall.client.retry import RETRY_STATUSES, retry_after_seconds
from upcall.client.tokenstore import BEARER, SESSION
from upcall.client.trip import Limits, Trip
from upcall.errors import SettingsError, ThingSpaceError
from upcall.thingspace import is_loopback_host

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upcall.client.auth import Token
    from upcall.client.latch import LoginLatch
    from upcall.client.tokenstore import TokenStore
    from upcall.settings import Credentials

__all__ = ["Exchange"]

T = TypeVar("T")


class Exchange:
    """Hold what the calls of one client share, and make the flow of each call.

    Args:
        base_url: The provider's root.
        credentials: Who calls.
        limits: What a call may spend.
        latch: Counts refused logins.
        clock: Where time and chance come from.
        user_agent: What we call ourselves.
        token_store: Keeps tokens on disk, None where they are not kept.
        event_hooks: Whom to tell what happens, beside the log.
    """

    def __init__(
        self,
        *,
        base_url: str,
        credentials: Credentials,
        limits: Limits,
        latch: LoginLatch,
        clock: Clock,
        user_agent: str,
        token_store: TokenStore | None = None,
        event_hooks: Iterable[EventHook] = (),
    ) -> None:
        self.base_url = base_url
        self.credentials = credentials
        self.limits = limits
        self.clock = clock
        self.user_agent = user_agent
        self.auth: Authenticator = Authenticator(self, latch, token_store)
        self._observer = Observer(event_hooks, self._secrets)
        self._missing = {session: credentials.missing(session=session) for session in (False, True)}
        self._unusable = credentials.unusable()

    # --- A call ------------------------------------------------------------------------------------------------------

    def run(self, call: Call[T], *, limits: Limits | None = None, trip: Trip | None = None) -> Flow[Reply[T]]:
        """Make one call.

        Args:
            call: What to do.
            limits: What it may spend, None for the client's.
            trip: Where to count it, for a call that is made on behalf of another: both share one budget.

        Raises:
            ThingSpaceError: It did not succeed.
            SettingsError: Credentials are missing.
        """
        operation = call.operation
        self._require(operation.auth)
        if trip is None:
            trip = Trip(limits or self.limits, self.clock.monotonic(), operation.name)
        while True:
            bearer, session = yield from self.auth.tokens(operation.auth, trip)
            trip.attempts += 1
            request = self._request(call, bearer, session)
            self.tell("sent", call, trip, headers=request.headers)
            sent_at = self.clock.monotonic()
            outcome = yield Send(request, trip.timeout(sent_at))
            self._tell_outcome(call, trip, outcome)
            if isinstance(outcome, Answer):
                if self._is_reply(operation, outcome):
                    yield from self.auth.used(session, sent_at)
                    return self._reply(call, outcome, trip)
                if (yield from self._drop_refused(call, outcome, trip, bearer, session)):
                    continue
            wait = self._wait_before_retry(operation, outcome, trip)
            if wait is None:
                raise self._error(operation, outcome, trip)
            trip.retries += 1
            self.tell("waiting", call, trip, reason=_reason(outcome), wait_seconds=wait)
            yield Wait(wait)
            if call.read_back is not None and _is_ambiguous(outcome):
                settled = yield from self._read_back(call, trip, outcome)
                if settled is not None:
                    return settled

    def log_in(self, *, fresh: bool = False) -> Flow[None]:
        """Fetch both tokens, unless good ones are held.

        Args:
            fresh: Drop those that are held first.

        Raises:
            ThingSpaceError: The provider refused or did not answer.
            SettingsError: Credentials are missing.
        """
        self._require(Auth.BOTH)
        if fresh:
            yield from self.auth.forget()
        yield from self.auth.tokens(Auth.BOTH, Trip(self.limits, self.clock.monotonic()))

    def log_out(self) -> Flow[None]:
        """End the session that is held, if there is one; a fixed session token is left alone."""
        yield from self.auth.end_session()

    def tally(self, trip: Trip, outcome: Answer | Failure | None = None) -> Tally:
        """Sum up what a failed call cost."""
        elapsed = self.clock.monotonic() - trip.started
        retry_after = _retry_after(outcome, self.clock.wall()) if isinstance(outcome, Answer) else 0.0
        return Tally(
            base_url=self.base_url,
            attempts=trip.attempts,
            elapsed_seconds=elapsed,
            secrets=self._secrets(),
            retry_after_seconds=retry_after or None,
            left_seconds=trip.limits.policy.max_elapsed_seconds - elapsed,
        )

    def tell(
        self,
        kind: EventKind,
        call: Call[Any],
        trip: Trip,
        *,
        headers: dict[str, str] | None = None,
        status: int | None = None,
        request_id: str | None = None,
        reason: str | None = None,
        wait_seconds: float | None = None,
    ) -> None:
        """Tell the log and the hooks what happens to a call; secrets in what is told are blanked."""
        if not self._observer.wants(kind):
            return
        self._observer.tell(
            CallEvent(
                kind=kind,
                operation=call.operation.name,
                method=call.operation.method,
                url=self._root(call.operation) + call.shown_path,
                attempt=trip.attempts,
                status=status,
                request_id=self._observer.scrub(request_id)[:MAX_REQUEST_ID] if request_id else None,
                headers=self._observer.headers(headers) if headers else {},
                reason=self._observer.scrub(reason) if reason else None,
                wait_seconds=wait_seconds,
                elapsed_seconds=self.clock.monotonic() - trip.started,
            )
        )

    def _tell_outcome(self, call: Call[Any], trip: Trip, outcome: Answer | Failure) -> None:
        if isinstance(outcome, Failure):
            self.tell("lost", call, trip, reason=outcome.reason)
        elif self._observer.wants("answered"):
            self.tell(
                "answered",
                call,
                trip,
                headers=outcome.headers,
                status=outcome.status,
                request_id=outcome.request_id,
                reason=outcome.flaw,
            )

    def _require(self, auth: Auth) -> None:
        if auth is Auth.NONE:
            return
        if missing := self._missing[auth is Auth.BOTH]:
            hint = "Set them in the environment, each also as …_FILE with the path of a file that holds it."
            if table := self.credentials.table:
                hint = f"[credentials.{table}] of the settings file says where each is read from: set them there."
            if is_loopback_host(urlsplit(self.base_url).hostname or ""):
                hint += " Those of upcall sandbox are the word sandbox, each of them."
            raise SettingsError(f"Credentials are missing: {', '.join(missing)}.", hint=hint)
        if self._unusable:
            names = ", ".join(self._unusable)
            raise SettingsError(f"{names} cannot be sent: it holds characters that no request can carry.")

    def _request(self, call: Call[Any], bearer: Token | None, session: Token | None) -> Request:
        headers = {"Accept": "application/json", "User-Agent": self.user_agent}
        if call.body is not None:
            headers["Content-Type"] = call.content_type
        if call.operation.auth is Auth.BASIC:
            headers["Authorization"] = f"Basic {self._basic()}"
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer.value}"
        if session is not None:
            headers["VZ-M2M-Token"] = session.value
        return Request(
            method=call.operation.method,
            root=self._root(call.operation),
            path=call.path,
            headers=headers,
            body=call.body,
        )

    def _root(self, operation: Operation[Any]) -> str:
        return self.base_url.removesuffix("/api") if operation.at_root else self.base_url

    def _basic(self) -> str:
        pair = f"{self.credentials.client_id}:{self.credentials.client_secret}"
        # What cannot be sent is refused before; its traces are looked for in logs all the same.
        return base64.b64encode(pair.encode("utf-8", "surrogatepass")).decode()

    def _secrets(self) -> tuple[str, ...]:
        """Return what no text may show."""
        own = self.credentials
        known = {own.client_secret, own.password, own.session_token, *self.auth.held}
        if own.client_id and own.client_secret:
            known.add(self._basic())
        return tuple(secret for secret in known if secret)

    def _is_reply(self, operation: Operation[Any], answer: Answer) -> bool:
        """Tell whether an answer is to be read: one that was cut off is like none where asking again is safe."""
        return operation.accepts(answer) and not (answer.flaw == "cut" and operation.retry_safe)

    def _reply(self, call: Call[T], answer: Answer, trip: Trip) -> Reply[T]:
        operation = call.operation
        if answer.flaw is not None and (is_success(answer) or not operation.judged_by_status):
            raise failures.undecodable(operation, answer, "", self.tally(trip))
        try:
            parsed = operation.read(answer)
        except UnreadableError as error:
            raise failures.undecodable(operation, answer, str(error), self.tally(trip)) from None
        if trip.read_back and call.read_back is not None:
            parsed = call.read_back.mark(parsed)
        return self._made(parsed, answer, trip)

    def _made(self, parsed: T, answer: Answer, trip: Trip) -> Reply[T]:
        elapsed = self.clock.monotonic() - trip.started
        return Reply(parsed=parsed, answer=answer, attempts=trip.attempts, elapsed_seconds=elapsed)

    # --- What to do after an answer that is no result -----------------------------------------------------------------

    def _read_back(self, call: Call[T], trip: Trip, lost: Answer | Failure) -> Flow[Reply[T] | None]:
        """Find out whether a write was carried out whose answer was lost; None where it was not."""
        read_back = call.read_back
        assert read_back is not None
        trip.read_back = True
        self.tell("read_back", call, trip)
        try:
            reply = yield from self.run(read_back.call, trip=trip.part())
        except ThingSpaceError as error:
            answer = lost if isinstance(lost, Answer) else None
            raise failures.unconfirmed(call.operation, answer, error, self.tally(trip)) from None
        settled = read_back.settle(reply.parsed)
        return None if settled is None else self._made(settled, reply.answer, trip)

    def _drop_refused(
        self, call: Call[Any], answer: Answer, trip: Trip, bearer: Token | None, session: Token | None
    ) -> Flow[bool]:
        """Drop the token that an answer refuses, and tell whether the request is worth sending again."""
        for kind in _suspects(call.operation, answer):
            token = bearer if kind == BEARER else session
            if token is None or not trip.may_replay(kind, stored=token.stored):
                continue
            dropped = yield from self.auth.drop(kind, token)
            if dropped:
                trip.note_replay(kind, stored=token.stored)
                self.tell("token_dropped", call, trip, status=answer.status, reason=f"{kind} token")
                return True
        return False

    def _wait_before_retry(self, operation: Operation[Any], outcome: Answer | Failure, trip: Trip) -> float | None:
        retry_after = 0.0
        if isinstance(outcome, Failure):
            if outcome.permanent or (outcome.sent and not operation.retry_safe):
                return None
        else:
            if not operation.retry_safe or not (outcome.status in RETRY_STATUSES or _is_cut_success(outcome)):
                return None
            retry_after = _retry_after(outcome, self.clock.wall())
        return trip.limits.policy.wait_seconds(
            retries=trip.retries,
            elapsed_seconds=self.clock.monotonic() - trip.started,
            chance=self.clock.chance(),
            retry_after=retry_after,
        )

    def _error(self, operation: Operation[Any], outcome: Answer | Failure, trip: Trip) -> ThingSpaceError:
        tally = self.tally(trip, outcome)
        if isinstance(outcome, Failure):
            return failures.unreached(operation, outcome, tally)
        if operation.accepts(outcome):
            return failures.undecodable(operation, outcome, "", tally)
        return failures.answered(operation, outcome, tally, self.credentials)


def _retry_after(answer: Answer, wall_now: float) -> float:
    return retry_after_seconds(answer.headers.get("retry-after"), wall_now=wall_now)


def _is_ambiguous(outcome: Answer | Failure) -> bool:
    """Tell whether a request may have been carried out without our knowing."""
    return outcome.sent if isinstance(outcome, Failure) else _is_cut_success(outcome)


def _is_cut_success(answer: Answer) -> bool:
    """Tell whether a result was on its way: an error whose body was cut off is that error."""
    return answer.flaw == "cut" and is_success(answer)


def _reason(outcome: Answer | Failure) -> str:
    return outcome.reason if isinstance(outcome, Failure) else f"status {outcome.status}"


def _suspects(operation: Operation[Any], answer: Answer) -> tuple[str, ...]:
    """Return the tokens that an answer may be refusing, the likelier first.

    Source: Connectivity Management error pages; an expired and a wrong bearer token look the same (documented).
        Which status a dead session gets is unknown; 400 and 401 were inferred.
    """
    if operation.auth not in {Auth.BEARER, Auth.BOTH} or answer.status not in {400, 401, 403}:
        return ()
    complaint = read_complaint(answer)
    if operation.auth is Auth.BEARER:
        return (BEARER,) if _refuses_bearer(answer, complaint) else ()
    if complaint.names_session():
        return (SESSION,)
    if _refuses_bearer(answer, complaint):
        return (BEARER,)
    is_bare = complaint.shape in {"none", "xml"} and answer.status in {401, 403}
    return (SESSION, BEARER) if is_bare else ()


def _refuses_bearer(answer: Answer, complaint: Complaint) -> bool:
    return answer.status == 401 and complaint.shape in {"fault", "oauth"}  # noqa: PLR2004
