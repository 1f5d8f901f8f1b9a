"""The sandbox: state, campaigns, deliveries and their ASGI application in one object."""

from __future__ import annotations

import asyncio
import itertools
import math
import secrets
import time
from functools import partial
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from upcall.errors import SettingsError, StartError, UpcallError
from upcall.outbound import GuardedPoster, Targets
from upcall.sandbox import routes
from upcall.sandbox.clock import Agenda, Clock, ManualClock, RealClock, moment
from upcall.sandbox.delivery import DeliveryEngine, Target
from upcall.sandbox.faults import STALE_SECONDS, STOLEN_URL, Faults, Fortune
from upcall.sandbox.http import RESET_EXTENSION, ConnectionEnded, RequestError, fault, read_request, send_answer
from upcall.sandbox.ledger import Ledger, Message
from upcall.sandbox.persistence import Memory, StateFile
from upcall.sandbox.runner import CampaignRunner
from upcall.sandbox.sending import NO_DEADLINE_SECONDS, Poster
from upcall.sandbox.state import AccessState, Credentials
from upcall.settings import read_profile
from upcall.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from upcall.sandbox.faults import Trouble
    from upcall.sandbox.http import Answer, Receive, Scope, Send
    from upcall.sandbox.messages import Callback
    from upcall.sandbox.persistence import Saved, Store
    from upcall.thingspace import Profile

__all__ = ["Sandbox", "SandboxSettings"]

NO_FAULTS: Final = Fortune()
_SLOWEST: Final = 1e-6
_FASTEST: Final = 1e12
_ERRORS_FROM: Final = 400


class SandboxSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Hold how a sandbox behaves.

    Args:
        profile: ``documented`` or ``observed``: when unacknowledged callbacks are tried again.
        speed: What campaigns, retry gaps and fault delays are divided by.
        seed: What decides devices' fates and faults.
        allow_http: Whether loopback listeners may register with plain http.
    """

    profile: str = "documented"
    speed: float = 1.0
    seed: int = 0
    allow_http: bool = False


class Sandbox:
    """Be a ThingSpace: an ASGI application, and the campaigns and deliveries behind it.

    Use it as an asynchronous context manager, or let a server's lifespan start it.

    Args:
        profile: When callbacks are tried again: ``documented``, ``observed``, the path of a file that ends in
            ``.toml``, or a `Profile`.
        speed: What campaigns, retry gaps and fault delays are divided by.
        seed: What decides devices' fates and faults; None picks one, or keeps that of the state file.
        faults: What goes wrong on purpose.
        allow_http: Whether loopback listeners may register with plain http.
        deliver_to: ``HOST[:PORT]`` that callbacks may go to beside loopback.
        trust: A PEM file of certificates that listeners' certificates are checked against too.
        state: A file that survives the process; None keeps nothing.
        credentials: What callers must present.
        clock: What tells the time; with a `ManualClock` nothing happens before `advance`.
        poster: What sends callbacks; None sends them over the network, guarded.
        log: Takes a line for each request and each delivery that went well.
        warn: Takes a line for each that did not, and for what nobody should miss; None gives it to `log`.

    Raises:
        SettingsError: A name is unknown or a value out of range.
        StartError: The state file cannot be used.
    """

    version: str = __version__
    failure: UpcallError | None = None
    """What went wrong when a server's lifespan stopped it."""

    def __init__(
        self,
        *,
        profile: str | Profile = "documented",
        speed: float = 1.0,
        seed: int | None = None,
        faults: Faults | None = None,
        allow_http: bool = False,
        deliver_to: tuple[str, ...] = (),
        trust: str | None = None,
        state: Path | None = None,
        credentials: Credentials | None = None,
        clock: Clock | None = None,
        poster: Poster | None = None,
        log: Callable[[str], None] = lambda _: None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._profile = read_profile(profile) if isinstance(profile, str) else profile
        if not _SLOWEST <= speed <= _FASTEST:
            raise SettingsError(f"The speed is {speed}.", hint="Give a number above 0, such as 3600.")
        self.clock: Clock = clock or RealClock()
        self._guarded = self._network_poster(Targets.parse(deliver_to), trust)
        self._poster: Poster = poster or self._guarded
        self.secrets: SystemRandom = SystemRandom()
        self.log: Callable[[str], None] = self._timed(log)
        self.warn: Callable[[str], None] = self.log if warn is None else self._timed(warn)
        self.agenda: Agenda = Agenda(self.clock)
        self.agenda.on_error = self._broke
        self.access: AccessState = AccessState(credentials)
        self._calls = itertools.count(1)
        self._moving = asyncio.Lock()
        self._started = self._stopped = False
        self._running: asyncio.Task[None] | None = None
        self.store: Store = StateFile(state) if state is not None else Memory()
        try:
            saved = self.store.load()
            self._check_clock(saved, state)
            self.resets: int = int(saved.get("sandbox", {}).get("resets", 0))
            self.set_faults(faults or Faults())
            self.options: SandboxSettings = SandboxSettings(
                profile=self._profile.name, speed=speed, seed=self._chosen_seed(seed, saved), allow_http=allow_http
            )
            self._restore(saved)
        except (msgspec.DecodeError, KeyError, ValueError) as error:
            self.store.abandon()
            raise StartError(f"The state file {state} holds what this version cannot read: {error}.") from None
        except StartError:
            self.store.abandon()
            raise

    def _check_clock(self, saved: Saved, state: Path | None) -> None:
        """Let a manual clock go on from where it was; the time of day is not what such a file goes on from."""
        kept = saved.get("sandbox", {}).get("now")
        if kept is None:
            return
        if not isinstance(self.clock, ManualClock):
            raise StartError(f"The state file {state} was kept by a manual clock.", hint="Start with --clock manual.")
        self.clock.go_on_from(float(kept))

    def _network_poster(self, targets: Targets, trust: str | None) -> GuardedPoster:
        profile, is_manual = self._profile, self.clock.is_manual
        return GuardedPoster(
            targets,
            connect_timeout_seconds=NO_DEADLINE_SECONDS if is_manual else profile.connect_timeout_seconds,
            total_timeout_seconds=NO_DEADLINE_SECONDS if is_manual else profile.answer_timeout_seconds,
            trust=trust,
        )

    def _restore(self, saved: Saved) -> None:
        self.ledger: Ledger = Ledger(self.store, saved)
        if "access" in saved:
            self.access.restore(msgspec.json.decode(saved["access"]["state"]))
        self._engine = DeliveryEngine(
            ledger=self.ledger,
            store=self.store,
            agenda=self.agenda,
            profile=self._profile,
            speed=self.options.speed,
            fortune_of=self._fortune_of,
            seed=self.options.seed,
            poster=self._poster,
            target_of=self._target_of,
            log=self.log,
            warn=self.warn,
        )
        self.campaigns: CampaignRunner = CampaignRunner(
            store=self.store, agenda=self.agenda, submit=self._engine.submit, speed=self.options.speed, saved=saved
        )

    def _timed(self, tell: Callable[[str], None]) -> Callable[[str], None]:
        """Begin each line with the sandbox's time of day, in UTC."""
        return lambda line: tell(f"{moment(self.clock.now()):%H:%M:%S} {line}")

    def _keep_clock(self) -> None:
        if self.clock.is_manual:
            self.store.put("sandbox", "now", repr(self.clock.now()).encode())

    def _chosen_seed(self, seed: int | None, saved: Saved) -> int:
        kept = saved.get("sandbox", {}).get("seed")
        if seed is None:
            seed = int(kept) if kept is not None else secrets.randbelow(1_000_000)
        self.store.put("sandbox", "seed", str(seed).encode())
        return seed

    async def start(self) -> None:
        """Go on with what the state file holds, and begin to move campaigns and deliveries."""
        if self._stopped:
            raise StartError("This sandbox was stopped.", hint="Make another one; a state file goes on.")
        if not self._started:
            self._started = True
            self._keep_clock()
            await self.store.flush()
            self._engine.resume()
            self.campaigns.resume()
            for account, at in self.access.thefts().items():
                self.agenda.at(at, partial(self._steal, account, at))
            if not self.clock.is_manual:  # then only `advance` lets anything happen
                self._running = asyncio.create_task(self.agenda.run())
                self._running.add_done_callback(self._agenda_ended)

    def _broke(self, error: Exception) -> None:
        self.warn(f"a step of a campaign or a delivery broke: {type(error).__name__}: {error}")

    def _agenda_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.warn(f"campaigns and deliveries stand still: {type(error).__name__}: {error}")

    async def stop(self) -> None:
        """Let requests in the air end, keep everything, and close what is open.

        Raises:
            StoreError: The state file cannot be written.
        """
        if not self._started or self._stopped:
            return
        self._stopped = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
        await self._engine.close()
        await self._guarded.aclose()
        await self.store.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)

    def deliver(self, callback: Callback) -> Message:
        """Send a callback to its account's listener, with everything that the profile and the faults do to it."""
        return self._engine.submit(callback)

    async def settle(self) -> None:
        """Wait until no callback is in the air but those that wait for the clock."""
        await self._engine.settle()

    async def advance(self, seconds: float) -> None:
        """Move a manual clock, and let everything happen that falls due meanwhile: in order, each before the next.

        Args:
            seconds: How far.

        Raises:
            SettingsError: The clock runs by itself.
        """
        if not 0 <= seconds < math.inf:
            raise SettingsError(f"The clock cannot move by {seconds} s.")
        async with self._moving:
            end = self._manual_clock().now() + seconds
            while (due := self.agenda.next_due()) is not None and due <= end:
                await self._move_to(due)
            await self._move_to(end)
            await self.store.flush()

    async def advance_to_next(self) -> bool:
        """Move a manual clock to when the next thing is due, and let it happen; tell whether there was one.

        Raises:
            SettingsError: The clock runs by itself.
        """
        async with self._moving:
            self._manual_clock()
            due = self.agenda.next_due()
            if due is not None:
                await self._move_to(due)
                await self.store.flush()
            return due is not None

    async def _move_to(self, when: float) -> None:
        self._manual_clock().move_to(when)
        self._keep_clock()  # before what falls due: its traces must not be from a time that was not yet
        self.agenda.run_due()
        await self._engine.settle()

    def _manual_clock(self) -> ManualClock:
        if not isinstance(self.clock, ManualClock):
            raise SettingsError("The clock runs by itself.", hint="Start the sandbox with --clock manual.")
        return self.clock

    async def reset(self) -> None:
        """Forget everything but the clock and the faults, as if the sandbox had just been started."""
        before = self._engine
        before.detach()
        self.agenda.clear()
        self.access.clear()
        self.store.clear()
        self.resets += 1
        self.store.put("sandbox", "seed", str(self.options.seed).encode())
        self.store.put("sandbox", "resets", str(self.resets).encode())
        self._keep_clock()
        self._calls = itertools.count(1)
        self._restore({})
        await before.abandon()
        await self.store.flush()

    def set_faults(self, faults: Faults) -> None:
        """Let this go wrong from now on; the times of its scripts begin now."""
        self.faults: Faults = faults
        self._faults_since = self.clock.now()

    def trouble(self, account: str) -> Trouble | None:
        """Return what a call to the API meets, None where nothing goes wrong.

        Args:
            account: Whom it concerns; empty for a token or a login.
        """
        number = next(self._calls)
        if not self.faults:
            return None
        found = self.faults.trouble(account, self._since_faults(), self._draw("call", number))
        return None if found.name is None else found

    def session_dies(self) -> bool:
        """Decide whether the session of a login dies early."""
        return bool(self.faults) and self.faults.session_dies(
            self._since_faults(), self._draw("session", next(self._calls))
        )

    def register(self, account: str, url: str) -> None:
        """Register a listener, in the place of any other."""
        now = self.clock.now()
        self.access.register(account, url, now=now)
        self._changed(account)
        if not self.faults:
            return
        draw = self._draw("stolen", f"{account}/{next(self._calls)}")
        seconds = self.faults.stolen_seconds(account, self._since_faults(), draw)
        if seconds is not None:
            at = now + seconds / self.options.speed
            self.access.plan_theft(account, at)
            self.agenda.at(at, partial(self._steal, account, at))

    def deregister(self, account: str) -> bool:
        """Forget an account's listener; return whether there was one."""
        was_there = self.access.deregister(account, now=self.clock.now())
        self._changed(account)
        return was_there

    def _changed(self, account: str) -> None:
        self.keep_access()
        self._engine.listener_changed(account)

    def _steal(self, account: str, at: float) -> None:
        """Let another system register its own URL, unless the listener has changed meanwhile."""
        if self.access.is_theft_due(account, at):
            self.access.register(account, STOLEN_URL, now=self.clock.now())
            self._changed(account)
            self.warn(f"listener of {account} stolen: {STOLEN_URL} is registered now")

    def _since_faults(self) -> float:
        return (self.clock.now() - self._faults_since) * self.options.speed

    def _draw(self, purpose: str, name: object) -> Random:
        # By name and number, not by the order of events: the same seed gives the same faults at any speed.
        return Random(f"{self.options.seed}/{purpose}/{name}")  # noqa: S311 - reproducible on purpose

    def _fortune_of(self, message: Message) -> Fortune:
        if not self.faults:
            return NO_FAULTS
        return self.faults.fortune(message.account, self._since_faults(), self._draw("fault", message.id))

    def _target_of(self, message: Message) -> Target | None:
        account = message.account
        if self.faults and (old := self.access.displaced(account)) is not None:
            is_recent = (self.clock.now() - old.at) * self.options.speed < STALE_SECONDS
            draw = self._draw("stale", f"{message.id}/{len(message.attempts)}")
            if is_recent and self.faults.is_stale(account, self._since_faults(), draw):
                return Target(old.url, "stolen" if old.url == STOLEN_URL else "stale_listener")
        url = self.access.listener(account)
        return None if url is None else Target(url, "stolen" if url == STOLEN_URL else None)

    def keep_access(self) -> None:
        """Keep tokens, sessions and listeners with the next flush."""
        self.store.put("access", "state", lambda: msgspec.json.encode(self.access.to_dict()))

    def keep_access_soon(self) -> None:
        """Keep tokens, sessions and listeners without waiting for it."""
        self.keep_access()
        self._engine.flush_soon()

    async def keep_access_now(self) -> None:
        """Keep tokens, sessions and listeners before the answer leaves."""
        self.keep_access()
        await self.store.flush()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                try:
                    await self.stop()
                except UpcallError as error:
                    self.failure = error  # for who started the server: it would only show a traceback
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        try:
            answer = await self._answer(scope, receive)
        except ConnectionError:
            return
        except ConnectionEnded:
            self._end_connection(scope)
            return
        await send_answer(answer, send)
        if _shown_path(scope).rstrip("/") != "/_sandbox":
            why = f": {shown}" if (shown := _shown_error(answer)) else ""
            elapsed = (time.monotonic() - started) * 1000
            tell = self.log if answer.status < _ERRORS_FROM and not answer.note else self.warn
            tell(f"{scope['method']} {_shown_path(scope)} {answer.status}{why} in {elapsed:.1f} ms")

    def _end_connection(self, scope: Scope) -> None:
        """End a connection without an answer, where the server can; in one process the caller gets the exception.

        Raises:
            ConnectionResetError: There is no connection.
        """
        self.warn(f"{scope['method']} {_shown_path(scope)} connection ended without an answer")
        extension = scope.get("extensions", {}).get(RESET_EXTENSION)
        if extension is None:
            raise ConnectionResetError("the connection was ended on purpose")
        extension["end"]()

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        try:
            return await routes.answer(self, await read_request(scope, receive))
        except RequestError as refused:
            return refused.answer
        except (ConnectionError, ConnectionEnded):
            raise
        except Exception as error:  # noqa: BLE001 - a gateway answers every request, and the line says what broke
            self.warn(f"{scope['method']} {_shown_path(scope)} broke: {type(error).__name__}: {_escaped(str(error))}")
            return fault(500, "101500", "Internal Server Error", "The sandbox could not answer; its log says why")


def _shown_path(scope: Scope) -> str:
    return _escaped(scope["path"])


def _shown_error(answer: Answer) -> str:
    """Return what an answer refuses with, and what there is to note, in a few words."""
    if answer.status < _ERRORS_FROM or not answer.body.startswith(b"{"):
        return answer.note
    document: dict[str, Any] = msgspec.json.decode(answer.body)
    gateway = document.get("fault", {})
    code = document.get("errorCode") or gateway.get("code") or document.get("error")
    text = document.get("errorMessage") or gateway.get("message") or document.get("error_description")
    return _escaped(f"{code} {text}{answer.note and f' ({answer.note})'}")


def _escaped(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")
