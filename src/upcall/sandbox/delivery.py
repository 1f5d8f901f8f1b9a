"""The delivery engine: sends callbacks as the provider does, and enters every try in the ledger."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit, urlunsplit

from upcall.errors import DeliveryError
from upcall.redact import mask_url_token
from upcall.sandbox.faults import REORDER_SECONDS, Faults
from upcall.sandbox.ledger import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from upcall.sandbox.clock import Agenda
    from upcall.sandbox.ledger import Ledger, Message
    from upcall.sandbox.messages import Callback
    from upcall.sandbox.persistence import Store
    from upcall.sandbox.profiles import Profile

__all__ = ["HEADERS", "MAX_IN_FLIGHT", "DeliveryEngine", "Posted", "Poster"]

HEADERS: Final = {"Content-Type": "application/json", "User-Agent": "Verizon's callback service"}
"""What every try carries. Source: measured on a sister service (observed)."""

MAX_IN_FLIGHT: Final = 16
"""Requests that one account's listener gets at a time, so that a slow one starves nobody else."""

_GRACE_SECONDS: Final = 2.0
_BROKEN_OFF_SECONDS: Final = 5.0
"""After so long a try is made again that could not be entered, such as on a full disk."""


class Posted(Protocol):
    """Say what the engine reads of an answer."""

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        ...


class Poster(Protocol):
    """Send one POST; `upcall.outbound.GuardedPoster` does."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Posted:
        """Send a body and return the answer.

        Raises:
            DeliveryError: No answer came, or the target is not allowed.
        """
        ...


class _Lane:
    """Hold what waits for one account's listener."""

    def __init__(self) -> None:
        self.waiting: deque[Message] = deque()
        self.running = 0
        self.held: Message | None = None


class DeliveryEngine:
    """Send callbacks under a profile, with faults.

    Args:
        ledger: Where every try is entered.
        store: What must have been flushed before a callback leaves.
        agenda: What waits for the next try.
        profile: When a callback is tried again.
        speed: What retry gaps and fault delays are divided by; deadlines keep real time.
        faults: What goes wrong on purpose.
        seed: What decides when it does.
        poster: What sends.
        listener_of: Returns an account's registered URL, asked at each try.
        log: Takes one line for a person.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: Store,
        agenda: Agenda,
        profile: Profile,
        speed: float,
        faults: Faults,
        seed: int,
        poster: Poster,
        listener_of: Callable[[str], str | None],
        log: Callable[[str], None],
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._agenda = agenda
        self._profile = profile
        self._speed = speed
        self._faults = faults
        self._seed = seed
        self._poster = poster
        self._listener_of = listener_of
        self._log = log
        self._lanes: dict[str, _Lane] = {}
        self._in_flight: dict[int, set[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: set[tuple[str, str]] = set()
        self._closed = False

    def resume(self) -> None:
        """Go on with the callbacks of an earlier run that were not done with."""
        for message in self._ledger.unfinished():
            # A try that was interrupted is made again: whether it arrived is not known.
            message.started = len(message.attempts)
            self._plan(message, message.next_at or 0.0)

    def submit(self, callback: Callback) -> Message:
        """Take over a callback: enter it, and send it unless a fault says otherwise."""
        now = self._agenda.clock.now()
        message = self._ledger.add(callback, now)
        fortune = self._faults.draw(self._random("fault", message))
        lane = self._lane(message.account)
        if fortune.drop:
            self._finish(message, "dropped")
        elif fortune.reorder and lane.held is None:
            lane.held = message
            self._plan(message, now + REORDER_SECONDS / self._speed)
            return message
        else:
            self._plan(message, now + fortune.delay_seconds / self._speed)
        if lane.held is not None and not fortune.drop:
            held, lane.held = lane.held, None
            self._plan(held, message.next_at or now)
        return message

    async def settle(self) -> None:
        """Wait until no request is in the air."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def close(self) -> None:
        """Start nothing more, give the requests in the air a moment, then let go of them."""
        self._closed = True
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=_GRACE_SECONDS)
        for task in set(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _plan(self, message: Message, when: float) -> None:
        message.next_at = when
        self._ledger.keep(message)
        self._agenda.at(when, partial(self._queue, message, when))

    def _queue(self, message: Message, when: float) -> None:
        if message.next_at != when:
            return  # planned anew since: another callback overtook it
        lane = self._lane(message.account)
        if lane.held is message:
            lane.held = None
        lane.waiting.append(message)
        self._pump(lane)

    def _pump(self, lane: _Lane) -> None:
        while lane.waiting and lane.running < MAX_IN_FLIGHT and not self._closed:
            lane.running += 1
            self._start(lane.waiting.popleft(), lane)

    def _start(self, message: Message, lane: _Lane | None) -> None:
        """Start a try; a `lane` gets its place back when it ends."""
        message.started += 1
        number = message.started
        self._in_flight.setdefault(message.id, set()).add(number)
        task = asyncio.create_task(self._try(message, number))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, message, number, lane))

    def _ended(self, message: Message, number: int, lane: _Lane | None, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if lane is not None:
            lane.running -= 1
            self._pump(lane)
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._log(f"callback {message.id} broke off: {type(error).__name__}: {error}")
        in_flight = self._in_flight.get(message.id, set())
        in_flight.discard(number)
        if message.next_at is not None and not in_flight:
            self._in_flight.pop(message.id, None)
            message.started = len(message.attempts)
            self._plan(message, self._agenda.clock.now() + _BROKEN_OFF_SECONDS)

    async def _try(self, message: Message, number: int) -> None:
        # What is sent must not be forgotten: a restart would make it anew, with other bytes.
        await self._store.flush()
        url = self._listener_of(message.account)
        if url is None:
            self._in_flight.pop(message.id, None)
            self._finish(message, "lost")
            self._tell(message, "", "lost: no listener is registered")
        else:
            await self._send(message, number, url)
        await self._store.flush()

    async def _send(self, message: Message, number: int, url: str) -> None:
        clock = self._agenda.clock
        started = clock.now()
        if self._profile.silence_seconds is not None:
            self._agenda.at(started + self._profile.silence_seconds, partial(self._silent, message, number))
        again = message.acknowledged
        status: int | None = None
        error: str | None = None
        try:
            status = (await self._poster.post(url, self._ledger.body(message), HEADERS)).status
        except DeliveryError as failure:
            error = failure.kind
        duration = clock.now() - started
        message.attempts.append(
            Attempt(number=number, at=started, duration_seconds=duration, status=status, error=error, duplicate=again)
        )
        self._tell_attempt(message, url, message.attempts[-1])
        self._decide(message, number, message.attempts[-1])

    def _silent(self, message: Message, number: int) -> None:
        """Send a second copy where a try has been unanswered for too long."""
        waiting = number in self._in_flight.get(message.id, ())
        if waiting and not message.acknowledged and message.started < self._profile.max_attempts:
            self._start(message, None)

    def _decide(self, message: Message, number: int, attempt: Attempt) -> None:
        """Say what follows when a try has ended."""
        if attempt.status is not None and 200 <= attempt.status < 300:  # noqa: PLR2004 - any 2xx acknowledges
            message.acknowledged = True
            message.state = "acknowledged"
        in_flight = self._in_flight[message.id]
        in_flight.discard(number)
        if in_flight:
            self._ledger.keep(message)
            return
        del self._in_flight[message.id]
        if message.acknowledged:
            self._after_acknowledgement(message)
        elif attempt.error == "target":
            self._finish(message, "refused")
        else:
            self._after_failure(message)

    def _after_acknowledgement(self, message: Message) -> None:
        wait_seconds = self._faults.draw(self._random("fault", message)).duplicate_seconds
        if wait_seconds is None or any(attempt.duplicate for attempt in message.attempts):
            self._finish(message, "acknowledged")
        else:
            self._plan(message, self._agenda.clock.now() + wait_seconds / self._speed)

    def _after_failure(self, message: Message) -> None:
        gap = self._profile.gap_seconds(message.started, self._random("gap", message))
        if gap is None:
            self._finish(message, "failed")
        else:
            self._plan(message, self._agenda.clock.now() + gap / self._speed)

    def _finish(self, message: Message, state: str) -> None:
        message.state = state
        message.next_at = None
        self._ledger.keep(message)

    def _lane(self, account: str) -> _Lane:
        return self._lanes.setdefault(account, _Lane())

    def _random(self, purpose: str, message: Message) -> Random:
        # By the message's number, not by the order of events: the same seed gives the same faults at any speed.
        return Random(f"{self._seed}/{purpose}/{message.id}/{message.started if purpose == 'gap' else 0}")  # noqa: S311

    def _tell_attempt(self, message: Message, url: str, attempt: Attempt) -> None:
        shown = _shown(url)
        if attempt.error == "target":
            self._tell(message, shown, "refused: the target is not one that --deliver-to or loopback allows")
            return
        outcome = attempt.status if attempt.status is not None else attempt.error
        note = ", again on purpose" if attempt.duplicate else ""
        self._log(
            f"callback {message.id} {message.type} to {shown} try {attempt.number}{note}:"
            f" {outcome} in {attempt.duration_seconds * 1000:.0f} ms"
        )

    def _tell(self, message: Message, target: str, what: str) -> None:
        """Say once for each account and target what every one of its callbacks would repeat."""
        if (message.account, target) not in self._told:
            self._told.add((message.account, target))
            self._log(f"callback {message.id} {message.type} for {message.account} {target or '-'} {what}")


def _shown(url: str) -> str:
    """Return a URL for a log line, without its token and without a user name."""
    parts = urlsplit(mask_url_token(url))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
