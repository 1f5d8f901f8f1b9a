"""What a listener does for its store beside receiving: upgrade it, and in quiet moments look after it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final

from upcall.inbox import SCHEMA_VERSION, store_version, upgrade_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from upcall.inbox import Inbox
    from upcall.listener.reception import Reception

__all__ = ["Upkeep", "is_old"]

PROJECTION_PAUSE_SECONDS: Final = 0.2
PROJECTION_BATCH: Final = 100
LOOK_SECONDS: Final = 10.0
"""How often the listener asks what the quarantine and the spool hold: others release and drop, and others die."""
_TROUBLE_FACTOR: Final = 10
"""How much longer than the pause what failed waits before it is tried again."""

_log = logging.getLogger("upcall.listener")


def is_old(url: str) -> bool:
    """Tell whether an older Upcall wrote a store: then it is to be upgraded before anything else uses it.

    Raises:
        SettingsError: The URL names no backend that there is.
        StoreError: What is there is no inbox, cannot be read, or was written by a newer Upcall.
    """
    return (store_version(url) or SCHEMA_VERSION) < SCHEMA_VERSION


class Upkeep:
    """Look after a listener's store, whatever goes wrong, until it is closed.

    It upgrades an old store while the spool accepts. Then it imports what another listener, which is gone, left in the
    spool, asks what the quarantine holds, and keeps the read model near while no request waits. Used on the
    listener's event loop; what takes time runs in a thread, where it holds up no request.

    Args:
        inbox: The store. Nobody else may use this one between `begin` and the end of `aclose`.
        reception: What receives for it.
        upgrade: Whether the store is an old one.
        on_upgraded: Called in a thread once it is none any more; again later where that fails.
        monotonic: Returns the time by which looks are apart, in seconds.
    """

    def __init__(
        self,
        inbox: Inbox,
        reception: Reception,
        *,
        upgrade: bool = False,
        on_upgraded: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inbox = inbox
        self._reception = reception
        self._is_old = upgrade
        self._on_upgraded = on_upgraded
        self._monotonic = monotonic
        self._looked_at: float | None = None
        self._trouble = ""
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin, on the running loop."""
        self._task = asyncio.ensure_future(self._run())

    async def aclose(self) -> None:
        """End, once the step that is under way has; from then on the inbox is the caller's."""
        self._closing.set()
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while not self._closing.is_set():
            pause = await self._step()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause)

    async def _step(self) -> float:
        """Do what is due, and return how many seconds there is time until the next step."""
        try:
            if self._is_old:
                await self._upgrade()
            await self._look()
            taken = await self._project()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again: nobody else would
            if str(error) != self._trouble:  # once, not with each attempt
                self._trouble = str(error)
                _log.warning("the %s waits: %s", "upgrade" if self._is_old else "read model", error)
            return PROJECTION_PAUSE_SECONDS * _TROUBLE_FACTOR
        self._trouble = ""
        return 0.0 if taken else PROJECTION_PAUSE_SECONDS

    async def _upgrade(self) -> None:
        url = self._inbox.url
        if not self._trouble:
            _log.warning("store %s is of an older Upcall: callbacks go to the spool while it is upgraded", url)
        before, after = await asyncio.to_thread(upgrade_store, url)
        if before < after:
            _log.warning("store %s was upgraded from schema %d to %d", url, before, after)
        await asyncio.to_thread(self._on_upgraded)
        self._is_old = False

    async def _look(self) -> None:
        """Look now and then at what other processes change."""
        now = self._monotonic()
        if self._looked_at is not None and now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        self._reception.look_for_spool()
        held = await asyncio.to_thread(self._inbox.quarantined_bytes)
        if not self._reception.state.spooling:  # what lies in the spool is not in that figure
            self._reception.quarantine_holds(held)

    async def _project(self) -> int:
        """Bring the read model a step nearer, unless requests wait; return how many callbacks it took."""
        if not self._reception.is_idle:
            return 0
        # In a thread: where another process holds the store's write lock, requests go on being read.
        return await asyncio.to_thread(self._inbox.project, limit=PROJECTION_BATCH)
