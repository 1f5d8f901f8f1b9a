"""Put a guard together from the settings, and run it: by itself, or in a thread beside a listener."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from upcall.inbox import open_inbox
from upcall.registration.alerts import Alerts, Poster
from upcall.registration.callers import Callers, clients_of
from upcall.registration.doctor import Limits, Looker, concluded, preflight
from upcall.registration.figures import GuardFigures
from upcall.registration.guard import Guard, watch
from upcall.registration.reading import read_desired
from upcall.thingspace import is_loopback_host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from upcall.client import AsyncThingSpaceClient
    from upcall.inbox import Inbox
    from upcall.listener import Token
    from upcall.registration.desired import Target
    from upcall.registration.guard import Seen
    from upcall.settings import Settings

__all__ = ["GuardThread", "is_local", "open_guard"]

_LOOK: Final = Limits(
    resolve_seconds=3.0,
    connect_seconds=3.0,
    handshake_seconds=3.0,
    answer_seconds=5.0,
    url_seconds=10.0,
    run_seconds=20.0,
    addresses=2,
)
"""What a look may take before a slot is taken back: callbacks go elsewhere meanwhile, and other writers wait."""

_log = logging.getLogger("upcall.guard")


def _now() -> int:
    return time.time_ns() // 1000


@contextlib.asynccontextmanager
async def open_guard(
    settings: Settings,
    inbox: Inbox,
    given: Sequence[Token] = (),
    *,
    figures: GuardFigures | None = None,
    reassert: bool | None = None,
    strict: bool = False,
    make_looker: Callable[[], Looker] = lambda: Looker(limits=_LOOK),
    wait_seconds: float = 0.0,
    patience_seconds: float = 0.5,
    max_concurrency: int = 8,
    make_client: Callable[[str | None], AsyncThingSpaceClient] | None = None,
    now: Callable[[], int] = _now,
) -> AsyncIterator[Guard]:
    """Give a guard over the accounts of the settings file; at the end close what it calls with.

    Args:
        settings: What the environment and the settings file say.
        inbox: The store.
        given: The tokens that the environment gives, in the place of the store's.
        figures: What it counts, None for figures of its own.
        reassert: Take back a slot that was ours; None for what the settings say.
        strict: Leave a slot, too, whose URL does not look right from this machine.
        make_looker: Makes what looks at URLs before they are written again.
        wait_seconds: How long a round waits for another writer.
        patience_seconds: How long the end waits for alerts that are under way.
        max_concurrency: How many calls at once.
        make_client: Makes the client of a ``[credentials.…]`` table, None for one by the settings.
        now: Returns the time, UTC microseconds.

    Raises:
        SettingsError: The alerts' URL cannot be read.
    """
    figures = figures if figures is not None else GuardFigures()
    if settings.alert_source and not settings.alert_url:
        _log.warning("alerts are posted nowhere: [alerts] names %s, which holds nothing", settings.alert_source)
    poster = Poster(settings.alert_url, figures) if settings.alert_url else None
    alerts = Alerts(inbox, figures, poster=poster)
    callers = Callers(make_client or clients_of(settings), max_concurrency=max_concurrency)
    try:
        yield Guard(
            inbox,
            callers,
            partial(read_desired, settings.accounts, inbox, given),
            alerts,
            figures=figures,
            state_dir=settings.state_dir,
            reassert=settings.guard.reassert if reassert is None else reassert,
            allow_http=bool(settings.allow_http),
            now=now,
            wait_seconds=wait_seconds,
            preflight=partial(_preflight, settings, make_looker, strict=strict),
        )
    finally:
        await alerts.aclose(patience_seconds=patience_seconds)
        await callers.aclose()


def is_local(settings: Settings) -> bool:
    """Tell whether the provider is a sandbox on this machine, for which other addresses and ports are right."""
    return is_loopback_host(urlsplit(settings.base_url or "").hostname or "")


async def _preflight(
    settings: Settings, make_looker: Callable[[], Looker], targets: Sequence[Target], *, strict: bool
) -> Mapping[str, str]:
    """Look at URLs that are to be written again; return which must not be, and warn of the rest."""
    results = await asyncio.to_thread(
        preflight, targets, make_looker(), local=is_local(settings), allow_http=bool(settings.allow_http)
    )
    found = concluded(results, strict=strict)
    for warning in found.warnings:
        _log.warning("%s", warning)
    return found.refusals


class GuardThread:
    """Run a guard in a thread with an event loop of its own: a round that waits for the provider delays no callback.

    Args:
        settings: What the environment and the settings file say, all their accounts.
        store: The store's URL; it is opened in the thread, again and again until it can be.
        given: The tokens that the listener was given, in the place of the store's.
        every_seconds: How long from one round to the next; None for what the settings say.
        reassert: Take back a slot that was ours; None for what the settings say.
        on_round: Called in the thread with what each round saw.
    """

    def __init__(
        self,
        settings: Settings,
        store: str,
        given: Sequence[Token] = (),
        *,
        every_seconds: float | None = None,
        reassert: bool | None = None,
        on_round: Callable[[list[Seen]], object] = lambda _: None,
    ) -> None:
        self.figures: GuardFigures = GuardFigures()
        self._settings = settings
        self._store = store
        self._given = tuple(given)
        self._every_seconds = settings.guard.every_seconds if every_seconds is None else every_seconds
        self._reassert = reassert
        self._on_round = on_round
        self._thread = threading.Thread(target=self._run, name="upcall-guard", daemon=True)
        self._begun = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the first round is made at once."""
        self._thread.start()

    def stop(self, *, within_seconds: float = 1.0) -> None:
        """End, whatever is under way, and wait for it so long."""
        if not self._thread.is_alive():
            return
        self._begun.wait(within_seconds)
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(within_seconds)

    def _run(self) -> None:
        try:
            with contextlib.suppress(asyncio.CancelledError):
                asyncio.run(self._main())
        except Exception as error:  # noqa: BLE001 - the listener beside it goes on
            _log.error("the guard has ended: %s", error)
        finally:
            self._begun.set()

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._begun.set()
        with await self._opened() as inbox:
            async with open_guard(
                self._settings, inbox, self._given, figures=self.figures, reassert=self._reassert
            ) as guard:
                await watch(guard, every_seconds=self._every_seconds, on_round=self._on_round)

    async def _opened(self) -> Inbox:
        """Open the store, as soon as it is there in this release's schema: the listener beside it may upgrade it."""
        trouble = ""
        while True:
            try:
                return open_inbox(self._store)
            except Exception as error:  # noqa: BLE001 - whatever it is, it may pass
                self.figures.failed_rounds += 1
                if str(error) != trouble:
                    trouble = str(error)
                    _log.warning("the guard waits for the store: %s", error)
            await asyncio.sleep(5.0)
