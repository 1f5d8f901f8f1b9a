"""What the checks of this machine come to: the store, the spool, the listener, the last callback. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from upcall.listener.reception import QUARANTINE_BYTES
from upcall.registration.doctor.results import Finding, failed, ok, skipped, unknown, warning
from upcall.registration.outages import living

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upcall.inbox import ListedDelivery, Uptime
    from upcall.registration.doctor.keeping import SpoolSight, StoreSight

__all__ = ["SCARCE_BYTES", "last_callback", "listener", "of_store"]

SCARCE_BYTES: Final = 512 * 1024**2
"""With less room than this on its disk, a store or a spool is about to fail."""
_QUARANTINE_WARNS: Final = 0.8
_SECOND: Final = 1_000_000
_NOT_READ: Final = "; too large to be read whole here: upcall store check"


def of_store(sight: StoreSight, now: int) -> dict[str, Finding]:
    """Judge the store, its spool and its listeners.

    Args:
        sight: What was seen.
        now: The time, UTC microseconds.
    """
    return {
        "store": _store(sight),
        "spool": _spool(sight.spool, is_served=bool(living(sight.uptimes, now))),
        "listener": listener(sight.uptimes, now),
    }


def listener(uptimes: Sequence[Uptime], now: int) -> Finding:
    """Judge whether a listener of this store accepts callbacks."""
    if accepting := living(uptimes, now):
        where = ", ".join(uptime.url or uptime.listener for uptime in accepting)
        # One that was killed just now looks alive until its next sign of life is overdue.
        age = max(0, now - max(uptime.last_at for uptime in accepting)) / _SECOND
        since = _when(min(uptime.began_at for uptime in accepting))
        return ok(f"accepting since {since}: {where}; last sign of life {age:.0f} s ago")
    if not uptimes:
        return unknown("no listener has used this store in the last days")
    last = max(uptimes, key=lambda uptime: uptime.last_at)
    how = "was stopped" if last.ended else "gave its last sign of life"
    return failed(f"the last one {how} at {_when(last.last_at)}")


def last_callback(found: ListedDelivery | None, now: int) -> Finding:
    """Judge when a callback last came from an address that the provider publishes; never is no failure."""
    if found is None:
        return unknown("none came yet from an address that the provider publishes")
    days = (now - found.received_at) / (86_400 * _SECOND)
    return ok(f"{_when(found.received_at)}, {days:.0f} days ago, from {found.source}")


def _store(sight: StoreSight) -> Finding:
    if sight.is_missing:
        return _no_store(sight)
    if sight.error is not None:
        return failed(sight.error)
    if sight.problems:
        more = f" (and {len(sight.problems) - 1} more)" if len(sight.problems) > 1 else ""
        return failed(f"{sight.problems[0]}{more}", "See all of it: upcall store check. Then: upcall store restore")
    return _room(sight) or ok(f"{sight.url}{'' if sight.was_read else _NOT_READ}")


def _no_store(sight: StoreSight) -> Finding:
    where = f"there is no store at {sight.url}"
    if sight.is_named:
        return failed(where, "Correct --store or UPCALL_STORE, or start upcall listen, which makes it.")
    return skipped(f"{where}, and none is named: this machine does not receive")


def _room(sight: StoreSight) -> Finding | None:
    """Return what is said of a store that is about to be full, None where it is not."""
    if sight.free_bytes is not None and sight.free_bytes < SCARCE_BYTES:
        return warning(f"only {_mebibytes(sight.free_bytes)} are free on its disk", "Make room: upcall store prune")
    if sight.quarantine_bytes > QUARANTINE_BYTES * _QUARANTINE_WARNS:
        held = _mebibytes(sight.quarantine_bytes)
        return warning(f"its quarantine holds {held}, and is nearly full", "Look through it: upcall quarantine list")
    return None


def _spool(sight: SpoolSight, *, is_served: bool) -> Finding:
    if sight.error is not None:
        return failed(sight.error)
    if sight.damaged:
        return failed(
            f"spool file {sight.damaged[0]} holds what cannot be read, or cannot be read at all",
            "Keep a copy of it, and see: upcall store check",
        )
    if sight.waiting:
        todo = "See why the store takes nothing: upcall store check" if is_served else "Start it: upcall listen"
        return warning(f"{sight.waiting} callbacks wait in it for a listener that imports them", todo)
    if sight.free_bytes is not None and sight.free_bytes < SCARCE_BYTES:
        return warning(f"only {_mebibytes(sight.free_bytes)} are free on its disk")
    return ok(sight.directory)


def _when(micros: int) -> str:
    return datetime.fromtimestamp(micros / _SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _mebibytes(count: int) -> str:
    return f"{count / 1024**2:.0f} MiB"
