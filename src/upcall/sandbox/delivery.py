"""The delivery engine: sends callbacks as the schedule says, and enters every try in the ledger."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import lru_cache, partial
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from upcall.errors import DeliveryError
from upcall.redact import mask_url_token
from upcall.sandbox.clock import OWNER
from upcall.sandbox.ledger import Attempt
from upcall.sandbox.schedule import Schedule, Verdict, is_acknowledgement
from upcall.sandbox.sending import Sender

if TYPE_CHECKING:
    from collections.abc import Callable

    from upcall.sandbox.clock import Agenda, Entry
    from upcall.sandbox.faults import Fortune
    from upcall.sandbox.ledger import Ledger, Message
    from upcall.sandbox.messages import Callback
    from upcall.sandbox.persistence import Store
    from upcall.sandbox.sending import Poster
    from upcall.thingspace import Profile

__all__ = ["DeliveryEngine", "Target"]

_GRACE_SECONDS: Final = 2.0
_BROKEN_OFF_SECONDS: Final = 5.0
"""After so long a try is made again that could not be entered, such as on a full disk."""

_HANGING_SECONDS: Final = 1.0
"""How long, in real time, a request may be in the air before a manual clock is moved on without its answer."""


class Target(NamedTuple):
    """Say where a try goes.

    Args:
        url: The URL.
        fault: ``stale_listener`` or ``stolen`` where a fault chose it.
    """

    url: str
    fault: str | None = None


class _Lane:
    """Hold what waits for one listener.

    Args:
        name: Its scheme, host and port; empty where nobody is registered.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: deque[_Live] = deque()
        self.running = 0
        self.entered = 0
        """Up to which put the store must be flushed before the next one leaves: the order stays as it is."""


class _Live:
    """Be a callback that is not done with.

    Args:
        message: What the ledger holds of it.
    """

    __slots__ = ("entry", "message", "numbers")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.entry: Entry | None = None
        self.numbers: set[int] = set()
        """Its tries that are in the air."""


class _Try:
    """Be one try in the air.

    Args:
        live: The callback.
        number: Which of its tries this is.
        target: Where it goes; None where nobody is registered.
        lane: Whose place it takes; None for a copy, which takes none.
    """

    __slots__ = ("is_again", "lane", "live", "message", "number", "target")

    def __init__(self, live: _Live, number: int, target: Target | None, lane: _Lane | None) -> None:
        self.live = live
        self.message = live.message
        self.number = number
        self.target = target
        self.lane = lane
        self.is_again = live.message.acknowledged


class DeliveryEngine:
    """Send callbacks under a profile, with faults.

    Args:
        ledger: Where every try is entered.
        store: What must have been flushed before a callback leaves.
        agenda: What waits for the next try.
        profile: When a callback is tried again.
        speed: What retry gaps and fault delays are divided by; deadlines keep real time.
        fortune_of: Returns what a callback meets, asked once a callback.
        seed: What picks the waits.
        poster: What sends.
        target_of: Returns where an account's callback goes now, None where nobody is registered; asked at each try.
        log: Takes one line for a person.
        warn: Takes a line that nobody should miss; None gives it to `log`.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: Store,
        agenda: Agenda,
        profile: Profile,
        speed: float,
        fortune_of: Callable[[Message], Fortune],
        seed: int,
        poster: Poster,
        target_of: Callable[[Message], Target | None],
        log: Callable[[str], None],
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._agenda = agenda
        self._profile = profile
        self._schedule = Schedule(profile, speed)
        self._sender = Sender(poster, agenda, profile)
        self._fortune_of = fortune_of
        self._seed = seed
        self._target_of = target_of
        self._log = log
        self._warn = warn or log
        self._lanes: dict[str, _Lane] = {}
        self._held: dict[str, _Live] = {}
        self._in_the_air: dict[_Try, asyncio.Task[None]] = {}
        self._hanging: set[object] = set()
        self._flushing: asyncio.Future[None] | None = None
        self._silent_until: dict[str, float] = {}
        self._closed = False

    def resume(self) -> None:
        """Go on with the callbacks of an earlier run that were not done with."""
        for message in self._ledger.unfinished():
            # A try that was interrupted is made again: whether it arrived is not known.
            message.started = max((attempt.number for attempt in message.attempts), default=0)
            live = _Live(message)
            if self._schedule.is_overtaken(message):
                self._held.setdefault(message.account, live)
            self._plan(live, message.next_at or 0.0)

    def submit(self, callback: Callback) -> Message:
        """Take over a callback: enter it, and send it unless a fault says otherwise."""
        now = self._agenda.clock.now()
        message = self._ledger.add(callback, now)
        message.fortune = self._fortune_of(message)
        live, held = _Live(message), self._held.get(message.account)
        is_overtaken = message.fortune.reorder and held is None
        verdict = self._schedule.first(message.fortune, now, is_overtaken=is_overtaken)
        self._follow(live, verdict)
        if verdict.next_at is None:
            self._tell(message, "dropped on purpose", self._warn)  # it overtakes nobody
        elif is_overtaken:
            self._held[message.account] = live
        elif held is not None:
            del self._held[message.account]
            self._plan(held, min(verdict.next_at, held.message.next_at or verdict.next_at))
        return message

    def listener_changed(self, account: str) -> None:
        """Let an account's callbacks that wait for a listener go to the one that is registered now."""
        for lane in list(self._lanes.values()):
            moving = [live for live in lane.waiting if live.message.account == account]
            if moving:
                lane.waiting = deque(live for live in lane.waiting if live.message.account != account)
                for live in moving:
                    self._queue(live)

    async def settle(self) -> None:
        """Wait until no request is in the air, but those that sleep by the agenda or hang.

        Where nothing ends for a second of real time, those in the air are not waited for again: their deadlines end
        them.
        """
        while True:
            self._agenda.stirred.clear()
            self._hanging &= self._sender.posting
            awake = self._in_the_air.keys() - self._agenda.asleep() - self._hanging
            if not awake:
                return
            try:
                async with asyncio.timeout(_HANGING_SECONDS):
                    await self._agenda.stirred.wait()
            except TimeoutError:
                self._hanging |= awake & self._sender.posting

    async def close(self) -> None:
        """Start nothing more, give the requests in the air a moment, then let go of them."""
        self._closed = True
        if self._in_the_air and not self._agenda.clock.is_manual:  # whose deadlines nobody would reach
            await asyncio.wait(self._in_the_air.values(), timeout=_GRACE_SECONDS)
        await self.abandon()

    def detach(self) -> None:
        """Write nothing any more, whatever still ends: a reset has forgotten it."""
        self._closed = True
        self._ledger.detach()

    async def abandon(self) -> None:
        """Start nothing more, and let go of the requests in the air."""
        self._closed = True
        tasks = list(self._in_the_air.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # when a callback is due

    def _plan(self, live: _Live, when: float) -> None:
        if live.entry is not None:
            live.entry.cancel()
        live.message.next_at = when
        self._ledger.keep(live.message)
        live.entry = self._agenda.at(when, partial(self._due, live))

    def _follow(self, live: _Live, verdict: Verdict) -> None:
        """Do what the schedule said."""
        if verdict.state is not None:
            live.message.state = verdict.state
        if verdict.next_at is None:
            live.message.next_at = None
            self._ledger.keep(live.message)
        else:
            self._plan(live, verdict.next_at)

    def _due(self, live: _Live) -> None:
        if self._held.get(live.message.account) is live:
            del self._held[live.message.account]
        self._queue(live)

    def _queue(self, live: _Live) -> None:
        target = self._target_of(live.message)
        name = "" if target is None else _origin(target.url)
        lane = self._lanes.setdefault(name, _Lane(name))
        lane.waiting.append(live)
        self._pump(lane)

    def _pump(self, lane: _Lane) -> None:
        """Start what has a place; what now goes to another listener waits for a place there."""
        while lane.waiting and lane.running < self._profile.concurrency and not self._closed:
            live = lane.waiting.popleft()
            target = self._target_of(live.message)
            if target is not None and _origin(target.url) != lane.name:
                self._queue(live)
                continue
            lane.running += 1
            lane.entered = max(lane.entered, self._ledger.entered(live.message))
            self._start(live, target, lane)
        if not lane.waiting and not lane.running:
            self._lanes.pop(lane.name, None)

    # a try

    def _start(self, live: _Live, target: Target | None, lane: _Lane | None) -> None:
        live.message.started += 1
        flight = _Try(live, live.message.started, target, lane)
        live.numbers.add(flight.number)
        task = asyncio.create_task(self._run(flight, 0 if lane is None else lane.entered))
        self._in_the_air[flight] = task
        task.add_done_callback(partial(self._ended, flight))

    def _ended(self, flight: _Try, task: asyncio.Task[None]) -> None:
        del self._in_the_air[flight]
        self._agenda.stirred.set()
        flight.live.numbers.discard(flight.number)
        if flight.lane is not None:
            flight.lane.running -= 1
            self._pump(flight.lane)
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._say_what_broke("callbacks wait", error)
        if flight.message.next_at is not None and not flight.live.numbers:
            flight.message.started = len(flight.message.attempts)
            self._plan(flight.live, self._agenda.clock.now() + _BROKEN_OFF_SECONDS)

    async def _run(self, flight: _Try, entered: int) -> None:
        OWNER.set(flight)
        # What is sent must not be forgotten: a restart would make it anew, with other bytes.
        await self._store.flush(entered)
        if flight.lane is None and flight.message.acknowledged:
            flight.message.started -= 1  # a copy that is not wanted any more
        elif flight.target is None:
            self._no_listener(flight)
        else:
            await self._send(flight, flight.target)
        self.flush_soon()

    def _no_listener(self, flight: _Try) -> None:
        message = flight.message
        flight.live.numbers.discard(flight.number)
        if flight.live.numbers:
            return
        if message.acknowledged:  # the copy that a fault wanted has nowhere to go
            self._follow(flight.live, Verdict(message.state))
        else:
            self._follow(flight.live, Verdict("lost"))
            self._tell(message, "lost: no listener is registered", self._warn)

    async def _send(self, flight: _Try, target: Target) -> None:
        message, clock = flight.message, self._agenda.clock
        started, faults = clock.now(), _faults_of(flight, target)
        silence = self._watch_silence(flight, started)
        status: int | None = None
        failure: DeliveryError | None = None
        try:
            if target.fault == "stolen":
                status = 200  # the system that took the slot answers what is not for it all the same
            else:
                status = await self._sender.send(target.url, self._ledger.body(message), faults)
        except DeliveryError as error:
            failure = error
        finally:
            if silence is not None:
                silence.cancel()
        attempt = Attempt(
            number=flight.number,
            url=_shown(target.url),
            at=started,
            duration_seconds=clock.now() - started,
            status=status,
            error=None if failure is None else failure.kind,
            why=None if failure is None else failure.message,
            duplicate=flight.is_again,
            faults=faults,
        )
        if self._schedule.refuses(message, attempt):
            attempt = msgspec.structs.replace(attempt, faults=("refuse_once", *faults))
        self._enter(flight, target, attempt)
        self._tell_attempt(flight, attempt, failure)

    def _watch_silence(self, flight: _Try, started: float) -> Entry | None:
        if self._profile.silence_seconds is None:
            return None
        return self._agenda.at(started + self._profile.silence_seconds, partial(self._silent, flight))

    def _silent(self, flight: _Try) -> None:
        """Send a second copy where a try has been unanswered for too long."""
        if self._schedule.after_silence(flight.message, is_waiting=flight in self._in_the_air):
            self._start(flight.live, self._target_of(flight.message), None)

    def _enter(self, flight: _Try, target: Target, attempt: Attempt) -> None:
        """Enter a try in the ledger, and say what follows."""
        live, message, now = flight.live, flight.message, self._agenda.clock.now()
        message.attempts.append(attempt)
        live.numbers.discard(flight.number)
        if message.acknowledged:
            if attempt.duplicate:  # the copy that a fault wanted; one that silence earned changes nothing
                message.next_at = None
            self._ledger.keep(message)
        elif is_acknowledgement(attempt) and "refuse_once" not in attempt.faults:
            message.acknowledged = True
            message.state = "stolen" if target.fault == "stolen" else "acknowledged"
            self._follow(live, self._schedule.after_acknowledgement(message, now))
        elif not live.numbers:
            self._follow(live, self._schedule.after_try(message, attempt, now, self._random(message)))
        else:
            self._ledger.keep(message)

    def flush_soon(self) -> None:
        """Keep what has changed without holding anybody up: a try that is forgotten is made again."""
        if self._flushing is None:
            self._flushing = asyncio.ensure_future(self._store.flush())
            self._flushing.add_done_callback(self._flushed)

    def _flushed(self, flushing: asyncio.Future[None]) -> None:
        self._flushing = None
        if flushing.cancelled() or self._closed:
            return
        if (error := flushing.exception()) is not None:
            self._say_what_broke("what became of callbacks is not kept yet", error)
            flushing.get_loop().call_later(_BROKEN_OFF_SECONDS, self._flush_rest)
        else:
            self._flush_rest()

    def _flush_rest(self) -> None:
        """Keep what has changed since a flush began."""
        if not self._closed and not self._store.is_kept():
            self.flush_soon()

    def _say_what_broke(self, what: str, error: BaseException) -> None:
        """Say it once in a while, however many wait for the same disk."""
        text, now = f"{what}: {type(error).__name__}: {error}", time.monotonic()
        if now >= self._silent_until.get(text, now):
            self._silent_until[text] = now + _BROKEN_OFF_SECONDS
            self._warn(text)

    def _random(self, message: Message) -> Random:
        # By the message's number, not by the order of events: the same seed gives the same waits at any speed.
        return Random(f"{self._seed}/gap/{message.id}/{message.started}")  # noqa: S311

    def _tell_attempt(self, flight: _Try, attempt: Attempt, failure: DeliveryError | None) -> None:
        """Say in one line what came of a try, and what follows."""
        took = f"in {attempt.duration_seconds * 1000:.0f} ms"
        if failure is None:
            outcome = f"{attempt.status} {took}"
        elif failure.kind == "target":
            outcome = f"refused: {failure}"
        else:
            outcome = f"{failure.kind}: {_reason(failure)} {took}"
        notes = ", ".join([*attempt.faults, *(["again on purpose"] if attempt.duplicate else [])])
        self._tell(
            flight.message,
            f"to {attempt.url} try {attempt.number} of {self._profile.max_attempts}{notes and f' ({notes})'}:"
            f" {outcome}{self._what_follows(flight, attempt)}",
            self._log if is_acknowledgement(attempt) and "refuse_once" not in attempt.faults else self._warn,
        )

    def _what_follows(self, flight: _Try, attempt: Attempt) -> str:
        message = flight.message
        if message.state == "failed":
            return "; given up"
        if message.acknowledged or attempt.error == "target" or flight.live.numbers or message.next_at is None:
            return ""
        return f"; again in {max(0.0, message.next_at - self._agenda.clock.now()):.1f} s"

    def _tell(self, message: Message, what: str, tell: Callable[[str], None]) -> None:
        about = f" {message.about}" if message.about else ""
        tell(f"callback {message.id} {message.account} {message.type}{about} {what}")


def _reason(failure: DeliveryError) -> str:
    """Return why a POST failed, without where it went."""
    return failure.message.partition(" failed: ")[2].rstrip(".") or failure.message


def _faults_of(flight: _Try, target: Target) -> tuple[str, ...]:
    """Return the names of the faults that a try meets on its way."""
    fortune, is_first = flight.message.fortune, flight.number == 1
    hit = {
        "cut_body": fortune.cut_body and is_first,
        "slow_body": fortune.slow_body and is_first,
        "forged_forward": fortune.forged_forward,
    }
    names = tuple(name for name, is_hit in hit.items() if is_hit)
    return names if target.fault is None else (*names, target.fault)


def _origin(url: str) -> str:
    """Return scheme, host and port: one listener serves them all, whatever the path."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return url  # nobody can be sent to it
    return f"{parts.scheme}://{parts.hostname}:{port}"


@lru_cache(maxsize=256)
def _shown(url: str) -> str:
    """Return a URL for a log line, without its token and without a user name."""
    return mask_url_token(url).encode("unicode_escape").decode("ascii")
