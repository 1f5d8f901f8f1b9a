"""From a transition to whoever must know: the log, the subscribers, and the URL that the settings name."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from upcall.client.retry import RETRY_STATUSES, RetryPolicy, retry_after_seconds
from upcall.errors import DeliveryError, SettingsError
from upcall.inbox import Arrival, Origin
from upcall.outbound import GuardedPoster, OwnTarget
from upcall.redact import mask_url_token
from upcall.registration.watching import text_of
from upcall.thingspace import text_of_micros

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from upcall.inbox import Inbox
    from upcall.outbound import Answer
    from upcall.registration.figures import GuardFigures
    from upcall.registration.watching import Transition

__all__ = ["EVENT_KIND", "Alerts", "Poster", "event_body"]

EVENT_KIND: Final = "registration.drift"
"""The kind of the callback that subscribers get."""

POLICY: Final = RetryPolicy(max_retries=4, max_elapsed_seconds=90.0, backoff_seconds=1.0, max_backoff_seconds=15.0)
"""How often one alert is tried."""

_TIMEOUT_SECONDS: Final = 15.0
_HEADERS: Final = {"Content-Type": "application/json", "User-Agent": "Upcall"}
_LEVELS: Final = {"in_order": logging.INFO, "given_up": logging.ERROR}

_log = logging.getLogger("upcall.guard")


class Poster:
    """POST alerts to the URL that the operator named, one after the other; it never fails its caller.

    Args:
        url: Where to.
        figures: Counts what did not arrive.
        sleep: Waits between tries.
        chance: A random number of [0, 1), for the waits.
        wall: Seconds since 1970.

    Raises:
        SettingsError: The URL cannot be read.
    """

    def __init__(
        self,
        url: str,
        figures: GuardFigures,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
    ) -> None:
        try:
            target = OwnTarget.of(url)
            self._host = urlsplit(url).hostname or ""
        except ValueError as error:
            raise SettingsError(f"The alerts' URL cannot be read: {error}.", hint="Correct [alerts] url.") from None
        self._url = url
        self._figures = figures
        self._sleep = sleep
        self._chance = chance
        self._wall = wall
        self._poster = GuardedPoster(target, total_timeout_seconds=_TIMEOUT_SECONDS)
        self._in_order = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def post(self, text: str) -> None:
        """Send one alert, in its turn, beside what goes on."""
        task = asyncio.get_running_loop().create_task(self._post(text))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self, *, patience_seconds: float) -> None:
        """Wait so long for what is under way, then give it up, and close the connections."""
        tasks = set(self._tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=patience_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            if late:
                self._figures.failed_alerts += len(late)
                _log.error(
                    "%d alerts did not reach %s before the end: what they say is in this log", len(late), self._host
                )
        await self._poster.aclose()

    async def _post(self, text: str) -> None:
        async with self._in_order:
            trouble = await self._tried(json.dumps({"text": text}).encode())
        if trouble is not None:
            self._figures.failed_alerts += 1
            _log.error("an alert did not reach %s: %s", self._host, trouble)

    async def _tried(self, body: bytes) -> str | None:
        """Try to send a body; return what stood in its way at the last try."""
        elapsed, retries = 0.0, 0
        while True:
            answer: Answer | None = None
            try:
                answer = await self._poster.post(self._url, body, _HEADERS)
            except DeliveryError as error:
                trouble, again = str(error), error.kind != "target"
            else:
                if 200 <= answer.status < 300:  # noqa: PLR2004 - any 2xx
                    return None
                trouble, again = f"it answered {answer.status}", answer.status in RETRY_STATUSES
            wait = self._wait(answer, retries, elapsed) if again else None
            if wait is None:
                return trouble
            await self._sleep(wait)
            elapsed, retries = elapsed + wait, retries + 1

    def _wait(self, answer: Answer | None, retries: int, elapsed: float) -> float | None:
        asked = retry_after_seconds(answer.retry_after, wall_now=self._wall()) if answer is not None else 0.0
        return POLICY.wait_seconds(retries=retries, elapsed_seconds=elapsed, chance=self._chance(), retry_after=asked)


class Alerts:
    """Tell everybody who is to know of a transition.

    Args:
        inbox: Where subscribers find it.
        figures: Counts what was told.
        poster: Posts it to the alerts' URL, None for none.
    """

    def __init__(self, inbox: Inbox, figures: GuardFigures, *, poster: Poster | None = None) -> None:
        self._inbox = inbox
        self._figures = figures
        self._poster = poster

    def tell(self, transition: Transition) -> str:
        """Tell of a transition, and return its text; a store that fails keeps nobody else from knowing."""
        text = text_of(transition)
        self._figures.transitions += 1
        _log.log(
            _LEVELS.get(transition.state, logging.WARNING),
            "%s",
            text,
            extra={"upcall_fields": {"account": transition.account, "state": transition.state}},
        )
        if self._poster is not None:
            self._poster.post(f"Upcall: {text}")
        try:
            self._inbox.append([_arrival(transition, text)])
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the store, the guard goes on
            _log.error("subscribers do not hear of it: %s", error)
        return text

    async def aclose(self, *, patience_seconds: float = 0.5) -> None:
        """Wait so long for alerts that are under way."""
        if self._poster is not None:
            await self._poster.aclose(patience_seconds=patience_seconds)


def event_body(transition: Transition, text: str) -> bytes:
    """Return the callback's body that subscribers get; its URLs have their tokens masked."""
    document: dict[str, Any] = {
        "type": EVENT_KIND,
        "accountName": transition.account,
        "state": transition.state,
        "was": transition.was,
        "registered": _masked(transition.registered),
        "desired": _masked(transition.desired),
        "takenBack": transition.taken_back,
        "at": text_of_micros(transition.at),
        "lastInOrder": None if transition.last_ok is None else text_of_micros(transition.last_ok),
        "text": text,
    }
    return json.dumps(document).encode()


def _arrival(transition: Transition, text: str) -> Arrival:
    return Arrival(
        body=event_body(transition, text),
        received_at=transition.at,
        evidence="the guard says so",
        account=transition.account,
        origin=Origin.GUARD,
    )


def _masked(url: str | None) -> str | None:
    return mask_url_token(url) if url else None
