"""One try: its headers, how its body goes out, and the deadlines that a manual clock keeps."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from upcall.errors import DeliveryError
from upcall.sandbox.clock import OWNER
from upcall.sandbox.faults import FORGED_FORWARD, SLOW_BODY_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from upcall.sandbox.clock import Agenda
    from upcall.thingspace import Profile

__all__ = ["HEADERS", "NO_DEADLINE_SECONDS", "Posted", "Poster", "Sender"]

HEADERS: Final = {"Content-Type": "application/json", "User-Agent": "Verizon's callback service"}
"""What every try carries. Source: measured on a sister service (observed)."""

NO_DEADLINE_SECONDS: Final = 86_400.0
"""What a poster's own deadlines are where the agenda keeps them, in seconds of real time."""

_SLOW_PARTS: Final = 8


class Posted(Protocol):
    """Say what the engine reads of an answer."""

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        ...


class Poster(Protocol):
    """Send one POST; `upcall.outbound.GuardedPoster` does."""

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        parts: AsyncIterator[bytes] | None = None,
        on_connected: Callable[[], None] | None = None,
    ) -> Posted:
        """Send a body and return the answer.

        Args:
            url: Where to.
            body: The bytes.
            headers: What describes them.
            parts: What is sent in the body's place, as it comes; where that is shorter, the connection ends there.
            on_connected: Called once there is a connection.

        Raises:
            DeliveryError: No answer came, or the target is not allowed.
        """
        ...


class Sender:
    """Send tries, each with the faults that it meets.

    Args:
        poster: What sends. Under a real clock it keeps the profile's deadlines itself.
        agenda: What waits, and under a manual clock keeps the deadlines.
        profile: The deadlines.

    Attributes:
        posting: Whose requests are in the air under a manual clock, and not over their deadline.
    """

    def __init__(self, poster: Poster, agenda: Agenda, profile: Profile) -> None:
        self._poster = poster
        self._agenda = agenda
        self._profile = profile
        self.posting: set[object] = set()

    async def send(self, url: str, body: bytes, faults: tuple[str, ...]) -> int:
        """Send a body and return the answer's status.

        Args:
            url: Where to.
            body: The bytes.
            faults: ``cut_body``, ``slow_body``, ``forged_forward``, or none of them.

        Raises:
            DeliveryError: No answer came, or the target is not allowed.
        """
        headers = HEADERS | {"X-Forwarded-For": FORGED_FORWARD} if "forged_forward" in faults else HEADERS
        parts: AsyncIterator[bytes] | None = None
        if "cut_body" in faults:
            parts = _cut(body)
        elif "slow_body" in faults:
            parts = self._dripping(body)
        if self._agenda.clock.is_manual:
            return await self._send_by_agenda(url, body, headers, parts)
        return (await self._poster.post(url, body, headers, parts=parts)).status

    async def _send_by_agenda(
        self, url: str, body: bytes, headers: Mapping[str, str], parts: AsyncIterator[bytes] | None
    ) -> int:
        """Send under a clock that stands still: the deadlines are steps like all others."""
        ended_by, owner = "", OWNER.get()

        def end(why: str) -> None:
            nonlocal ended_by
            ended_by = why
            posting.cancel()
            self.posting.discard(owner)
            self._agenda.rouse(owner)

        now, profile = self._agenda.clock.now(), self._profile
        connecting = self._agenda.at(now + profile.connect_timeout_seconds, partial(end, "no connection was made"))
        answering = self._agenda.at(now + profile.answer_timeout_seconds, partial(end, "no whole answer came"))
        posting = asyncio.ensure_future(
            self._poster.post(url, body, headers, parts=parts, on_connected=connecting.cancel)
        )
        self.posting.add(owner)
        try:
            return (await posting).status
        except asyncio.CancelledError:
            ourselves = asyncio.current_task()
            if not ended_by or (ourselves is not None and ourselves.cancelling()):
                posting.cancel()
                raise
            raise DeliveryError(f"POST failed: {ended_by} within the time allowed.", kind="timeout") from None
        finally:
            self.posting.discard(owner)
            connecting.cancel()
            answering.cancel()

    async def _dripping(self, body: bytes) -> AsyncIterator[bytes]:
        size = -(-len(body) // _SLOW_PARTS)
        for start in range(0, len(body), size):
            await self._agenda.sleep(SLOW_BODY_SECONDS / _SLOW_PARTS)
            yield body[start : start + size]


async def _cut(body: bytes) -> AsyncIterator[bytes]:
    yield body[: len(body) // 2]
