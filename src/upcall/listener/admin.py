"""The admin port's answers: alive, ready, figures. Free of any server; `Admin.respond` is all that one needs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.errors import SettingsError
from upcall.inbox.stores import store_path
from upcall.listener.metrics import CONTENT_TYPE, StoreFigures, exposition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.core import Metric

    from upcall.inbox import Inbox
    from upcall.listener.stats import ListenerState, ListenerStats

    Answer = tuple[int, str, bytes]

__all__ = ["Admin"]

FIGURES_SECONDS: Final = 5.0
"""For how long figures from the store serve, so that no scraper loads it."""
PATIENCE_SECONDS: Final = 2.0
"""How long a scrape waits for the store: Prometheus gives up after 10 s, and would then have nothing at all."""

_LOOKED_AT: Final = 500
"""So many of the newest callbacks are looked through for one that was received."""

_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"
_PATHS: Final = b"/healthz\n/readyz\n/metrics\n"

_log = logging.getLogger("upcall.listener")


class Admin:
    """Answer ``/healthz``, ``/readyz``, ``/metrics`` and a list of them at ``/``.

    Used on the listener's event loop; the store is read in a thread, through an inbox of its own.

    Args:
        stats: The listener's counters, read as they stand.
        inbox_factory: Opens the store for one reading.
        state: Returns how the listener stands now.
        now: Returns the time in seconds since 1970.
        monotonic: Returns the time that the figures' age is measured by, in seconds.
        patience_seconds: How long a scrape waits for the store.
        more: Returns what else ``/metrics`` shows, of what runs beside the listener.
    """

    def __init__(
        self,
        stats: ListenerStats,
        inbox_factory: Callable[[], Inbox],
        *,
        state: Callable[[], ListenerState],
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        patience_seconds: float = PATIENCE_SECONDS,
        more: Callable[[], Iterable[Metric]] = tuple,
    ) -> None:
        self._more = more
        self._stats = stats
        self._state = state
        self._now = now
        self._patience_seconds = patience_seconds
        self._reader = _StoreReader(inbox_factory, monotonic)

    async def respond(self, method: str, path: str) -> Answer:
        """Answer one request.

        Args:
            method: The method. HEAD is answered as GET is, and the server leaves the body out.
            path: The path, with or without a query.

        Returns:
            The status, the content type and the body. A 405 wants the header ``Allow: GET, HEAD`` beside them.
        """
        if method not in {"GET", "HEAD"}:
            return 405, _TEXT, b"method not allowed\n"
        return await self._get(path.partition("?")[0])

    async def aclose(self) -> None:
        """Wait for a reading of the store that is under way."""
        await self._reader.aclose()

    async def _get(self, path: str) -> Answer:
        if path == "/healthz":
            return 200, _TEXT, b"ok\n"
        if path == "/readyz":
            return self._readiness()
        if path == "/metrics":
            store = await self._reader.figures(self._patience_seconds)
            return 200, CONTENT_TYPE, exposition(self._stats, self._state(), store, self._now(), more=self._more)
        if path == "/":
            return 200, _TEXT, _PATHS
        return 404, _TEXT, b"not found\n"

    def _readiness(self) -> Answer:
        """Say whether callbacks may be sent here: a spool that stands in for the store is as good as the store."""
        state = self._state()
        document = {
            "ready": state.is_ready,
            "spooling": state.spooling,
            "draining": state.draining,
            "store": state.store,
        }
        return 200 if state.is_ready else 503, _JSON, msgspec.json.encode(document) + b"\n"


class _StoreReader:
    """Read the store's figures now and then, in a thread, one reading at a time."""

    def __init__(self, inbox_factory: Callable[[], Inbox], monotonic: Callable[[], float]) -> None:
        self._inbox_factory = inbox_factory
        self._monotonic = monotonic
        self._reading: asyncio.Task[StoreFigures | None] | None = None
        self._latest: StoreFigures | None = None
        self._read_at: float | None = None
        self._failed = False

    async def figures(self, patience_seconds: float) -> StoreFigures | None:
        """Return figures a few seconds old at most, None where the store cannot be read or takes too long."""
        if self._read_at is not None and self._monotonic() - self._read_at < FIGURES_SECONDS:
            return self._latest
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        reading = self._reading
        await asyncio.wait({reading}, timeout=patience_seconds)
        return reading.result() if reading.done() else None

    async def aclose(self) -> None:
        if self._reading is not None:
            await asyncio.wait({self._reading})

    async def _read(self) -> StoreFigures | None:
        try:
            self._latest = await asyncio.to_thread(_look, self._inbox_factory)
            self._failed = False
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the store, the other figures are wanted now
            self._latest = None
            if not self._failed:  # once, not at each scrape
                _log.warning("metrics go without the store's figures: %s", error)
            self._failed = True
        self._read_at = self._monotonic()
        self._reading = None
        return self._latest


def _look(inbox_factory: Callable[[], Inbox]) -> StoreFigures:
    with inbox_factory() as inbox:
        newest = inbox.callbacks(limit=_LOOKED_AT, bodies=False)
        store_bytes, free_bytes = _on_disk(inbox.url)
        return StoreFigures(
            subscribers=tuple(inbox.subscribers()),
            quarantine_bytes=inbox.quarantined_bytes(),
            # What was reconciled, and what the guard says, is no sign that callbacks arrive.
            newest_at=next((one.received_at for one in reversed(newest) if one.origin == "received"), None),
            store_bytes=store_bytes,
            free_bytes=free_bytes,
        )


def _on_disk(url: str) -> tuple[int | None, int | None]:
    """Return a store's size with its log, and the room left beside it; None where it is no file."""
    try:
        path = store_path(url).resolve()  # its log lies beside the file itself
        size = path.stat().st_size
        room = os.statvfs(path)
    except (SettingsError, OSError):
        return None, None
    with contextlib.suppress(FileNotFoundError):
        size += Path(f"{path}-wal").stat().st_size
    return size, room.f_bavail * room.f_frsize
