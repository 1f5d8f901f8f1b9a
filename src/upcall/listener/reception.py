"""What becomes of a callback, whatever brought it: token, verdict, durable append, count.

The ASGI application and the protocol of ``upcall listen`` speak HTTP; what they have read comes here.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from upcall.errors import StoreError
from upcall.inbox import Arrival, Trust
from upcall.listener.intake import Intake
from upcall.listener.stats import ListenerState, ListenerStats

if TYPE_CHECKING:
    from collections.abc import Callable

    from upcall.inbox import Appender, Receipt
    from upcall.inbox.spool import Spool
    from upcall.listener.gate import Gate, Token
    from upcall.listener.sources import Source

    Answered = Callable[[int], None]

__all__ = ["MAX_BODY_BYTES", "QUARANTINE_BYTES", "Reception"]

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""A body over this is refused with 413, never cut."""
QUARANTINE_BYTES: Final = 1024**3
"""How much the quarantine may hold: what is sent by strangers must not fill the disk."""

_PREFIX: Final = "/callbacks/"

_log = logging.getLogger("upcall.listener")


class Reception:
    """Admit, judge and keep callbacks, and count what became of them.

    Used on one event loop.

    Args:
        open_appender: Opens the store's write path.
        gate: The live tokens.
        spool: Where callbacks go while the store fails, None for nowhere.
        max_body_bytes: Bodies over this are refused.
        quarantine_bytes: How much the quarantine may hold.
    """

    def __init__(
        self,
        open_appender: Callable[[], Appender],
        gate: Gate,
        *,
        spool: Spool | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
        quarantine_bytes: int = QUARANTINE_BYTES,
    ) -> None:
        self._open_appender = open_appender
        self._gate = gate
        self._spool = spool
        self._quarantine_bytes = quarantine_bytes
        self._intake: Intake | None = None
        self._began = time.monotonic()
        self.max_body_bytes: int = max_body_bytes
        self.quarantined_bytes: int = 0
        self._told_of_quota = False
        self.draining: bool = False
        self.count_connections: Callable[[], int] = lambda: 0
        self.stats: ListenerStats = ListenerStats()

    @property
    def is_idle(self) -> bool:
        """Tell whether no request waits for the store."""
        return self._intake is None or self._intake.is_idle

    @property
    def state(self) -> ListenerState:
        """Say how the listener stands."""
        intake = self._intake
        return ListenerState(
            spooling=intake is not None and intake.spooling,
            spool_records=self._spool.records if self._spool else 0,
            spool_bytes=self._spool.size_bytes if self._spool else 0,
            draining=self.draining,
            can_keep=intake is None or intake.can_keep,
            connections=self.count_connections(),
            uptime_seconds=time.monotonic() - self._began,
            quarantine_limit_bytes=self._quarantine_bytes,
            store=(intake and intake.trouble) or "ok",
        )

    def begin(self) -> None:
        """Begin to import what an earlier process left in the spool, without waiting for a callback."""
        self._begun()

    def look_for_spool(self) -> None:
        """Import what another listener, which is gone, left in the spool."""
        self._begun().look_for_spool()

    def quarantine_holds(self, held_bytes: int) -> None:
        """Take over what the quarantine holds in truth: others fill it, release and drop."""
        if held_bytes < self.quarantined_bytes:
            self._told_of_quota = False
        self.quarantined_bytes = held_bytes

    @property
    def tokens(self) -> tuple[Token, ...]:
        """Return the live tokens."""
        return self._gate.tokens

    def use(self, gate: Gate) -> None:
        """Accept other tokens from now on; what was admitted stays admitted."""
        self._gate = gate

    def admit(self, path: str) -> Token | None:
        """Return the live token that a path names."""
        return self._gate.admit(path[len(_PREFIX) :]) if path.startswith(_PREFIX) else None

    def take(self, token: Token, body: bytes, peer: str, source: Source, answered: Answered) -> None:
        """Keep a callback.

        Args:
            token: What it came through.
            body: Its body, byte for byte.
            peer: The TCP peer's address.
            source: Who sent it.
            answered: Called with the status of the answer: 200 once the callback is on disk, else 503.
        """
        verdict = self._gate.judge(token, body)
        quarantined = verdict.trust is Trust.QUARANTINED
        if quarantined and self.quarantined_bytes + len(body) > self._quarantine_bytes:
            self._tell_of_quota()
            answered(503)
            return
        address = source.address
        arrival = Arrival(
            body=body,
            received_at=time.time_ns() // 1000,
            peer=peer,
            source=address if address != peer else "",
            listed=source.listed,
            trust=verdict.trust,
            evidence=f"{verdict.evidence}; {source.evidence}",
            token_id=token.id,
            account=token.account,
        )

        def done(receipt: Receipt | StoreError) -> None:
            if isinstance(receipt, StoreError):
                self.stats.not_stored += 1
                answered(503)
                return
            self._count(receipt, arrival, quarantined=quarantined)
            answered(200)

        (self._intake or self._begun()).take(arrival, done)

    async def aclose(self) -> None:
        """Finish what waits and close the store's write path."""
        if self._intake is not None:
            intake, self._intake = self._intake, None
            await intake.close()

    def _begun(self) -> Intake:
        if self._intake is None:
            self._intake = Intake(self._open_appender, spool=self._spool, stats=self.stats)
        return self._intake

    def _tell_of_quota(self) -> None:
        """Count what the full quarantine refuses, and say so once, until somebody has made room."""
        self.stats.quota += 1
        if not self._told_of_quota:
            self._told_of_quota = True
            _log.error("the quarantine is full: what belongs there is answered 503. See: upcall quarantine list")

    def _count(self, receipt: Receipt, arrival: Any, *, quarantined: bool) -> None:
        stats = self.stats
        stats.acknowledged += 1
        if receipt.spooled:
            stats.spooled += 1
        elif receipt.is_new:
            stats.new += 1
        else:
            stats.duplicates += 1
        if quarantined:
            stats.quarantined += 1
            self.quarantined_bytes += len(arrival.body) if receipt.is_new else 0
        if arrival.listed is False:
            stats.unlisted += 1
        stats.last_received_at = arrival.received_at
