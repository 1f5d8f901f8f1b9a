"""The sandbox: state, campaigns, deliveries and their ASGI application in one object."""

from __future__ import annotations

import asyncio
import secrets
import time
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Self

import msgspec

from upcall.errors import SettingsError, StartError
from upcall.outbound import GuardedPoster, Targets
from upcall.sandbox import routes
from upcall.sandbox.clock import Agenda, Clock, RealClock
from upcall.sandbox.delivery import DeliveryEngine, Poster
from upcall.sandbox.faults import Faults
from upcall.sandbox.http import RequestError, fault, read_request, send_answer
from upcall.sandbox.ledger import Ledger, Message
from upcall.sandbox.persistence import Memory, StateFile
from upcall.sandbox.profiles import profile_named
from upcall.sandbox.runner import CampaignRunner
from upcall.sandbox.state import AccessState, Credentials
from upcall.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from upcall.sandbox.http import Answer, Receive, Scope, Send
    from upcall.sandbox.messages import Callback
    from upcall.sandbox.persistence import Saved, Store

__all__ = ["Sandbox", "SandboxSettings", "create_app"]


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
        profile: ``documented`` or ``observed``.
        speed: What campaigns, retry gaps and fault delays are divided by.
        seed: What decides devices' fates and faults; None picks one, or keeps that of the state file.
        faults: What goes wrong on purpose.
        allow_http: Whether loopback listeners may register with plain http.
        deliver_to: ``HOST[:PORT]`` that callbacks may go to beside loopback.
        trust: A PEM file of certificates that listeners' certificates are checked against too.
        state: A file that survives the process; None keeps nothing.
        credentials: What callers must present.
        clock: What tells the time.
        poster: What sends callbacks; None sends them over the network, guarded.
        log: Takes a line for each request and each delivery.

    Raises:
        SettingsError: A name is unknown or a value out of range.
        StartError: The state file cannot be used.
    """

    version: str = __version__

    def __init__(
        self,
        *,
        profile: str = "documented",
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
    ) -> None:
        chosen = profile_named(profile)
        if not 0 < speed < float("inf"):
            raise SettingsError(f"The speed is {speed}.", hint="Give a number above 0, such as 3600.")
        targets = Targets.parse(deliver_to)
        self._guarded = GuardedPoster(
            targets,
            connect_timeout_seconds=chosen.connect_timeout_seconds,
            total_timeout_seconds=chosen.answer_timeout_seconds,
            trust=trust,
        )
        self.clock: Clock | RealClock = clock or RealClock()
        self.secrets: SystemRandom = SystemRandom()
        self.faults: Faults = faults or Faults()
        self.log = log
        self.agenda: Agenda = Agenda(self.clock)
        self.access: AccessState = AccessState(credentials)
        self.store: Store = StateFile(state) if state is not None else Memory()
        saved = self.store.load()
        self.options: SandboxSettings = SandboxSettings(
            profile=profile, speed=speed, seed=self._chosen_seed(seed, saved), allow_http=allow_http
        )
        try:
            self._restore(saved, chosen_poster=poster or self._guarded)
        except (msgspec.DecodeError, KeyError, ValueError) as error:
            raise StartError(f"The state file {state} holds what this version cannot read: {error}.") from None
        self._running: asyncio.Task[None] | None = None

    def _restore(self, saved: Saved, *, chosen_poster: Poster) -> None:
        self.ledger: Ledger = Ledger(self.store, saved)
        if "access" in saved:
            self.access.restore(msgspec.json.decode(saved["access"]["state"]))
        self._engine = DeliveryEngine(
            ledger=self.ledger,
            store=self.store,
            agenda=self.agenda,
            profile=profile_named(self.options.profile),
            speed=self.options.speed,
            faults=self.faults,
            seed=self.options.seed,
            poster=chosen_poster,
            listener_of=self.access.listener,
            log=self.log,
        )
        self.campaigns: CampaignRunner = CampaignRunner(
            store=self.store, agenda=self.agenda, submit=self._engine.submit, speed=self.options.speed, saved=saved
        )

    def _chosen_seed(self, seed: int | None, saved: Saved) -> int:
        kept = saved.get("sandbox", {}).get("seed")
        if seed is None:
            seed = int(kept) if kept is not None else secrets.randbelow(1_000_000)
        self.store.put("sandbox", "seed", str(seed).encode())
        return seed

    async def start(self) -> None:
        """Go on with what the state file holds, and begin to move campaigns and deliveries."""
        if self._running is None:
            await self.store.flush()
            self._engine.resume()
            self.campaigns.resume()
            self._running = asyncio.create_task(self.agenda.run())
            self._running.add_done_callback(self._agenda_ended)

    def _agenda_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log(f"campaigns and deliveries stand still: {type(error).__name__}: {error}")

    async def stop(self) -> None:
        """Let requests in the air end, keep everything, and close what is open."""
        if self._running is None:
            return
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
        """Wait until no callback is in the air, for tests that move the clock themselves."""
        await self._engine.settle()

    def keep_access(self) -> None:
        """Keep tokens, sessions and listeners with the next flush."""
        self.store.put("access", "state", msgspec.json.encode(self.access.to_dict()))

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
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        try:
            answer = await self._answer(scope, receive)
        except ConnectionError:
            return
        await send_answer(answer, send)
        elapsed = (time.monotonic() - started) * 1000
        path = scope["path"].encode("unicode_escape").decode("ascii")
        if path.rstrip("/") != "/_sandbox":
            self.log(f"{scope['method']} {path} {answer.status} in {elapsed:.1f} ms")

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        try:
            return await routes.answer(self, await read_request(scope, receive))
        except RequestError as refused:
            return refused.answer
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - a gateway answers every request, and the line says what broke
            self.log(f"{scope['method']} {scope['path']} broke: {type(error).__name__}: {error}")
            return fault(500, "101500", "Internal Server Error", "The sandbox could not answer; its log says why")


def create_app(**options: Any) -> Sandbox:
    """Return a sandbox as an ASGI application, for any ASGI server.

    Args:
        options: What `Sandbox` takes.
    """
    return Sandbox(**options)
