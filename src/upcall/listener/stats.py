"""What the listener counts, and how it stands: plain figures, written on one thread, read by whoever asks."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import msgspec

__all__ = ["COMMIT_ROWS", "SECONDS", "Histogram", "ListenerState", "ListenerStats"]

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds for durations: from a fast disk's fsync to past the provider's patience."""

COMMIT_ROWS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
"""Upper bounds for how many callbacks share a commit."""


class Histogram(msgspec.Struct):
    """Count values by fixed upper bounds, each included in its own bucket.

    Args:
        bounds: The upper bounds, ascending.
        counts: How many values fell into each bucket; the last one is for those over every bound. Empty for none yet.
        total: The sum of all values.
    """

    bounds: tuple[float, ...]
    counts: list[int] = msgspec.field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        if not self.counts:
            self.counts = [0] * (len(self.bounds) + 1)

    @property
    def count(self) -> int:
        """Return how many values were observed."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


def _seconds() -> Histogram:
    return Histogram(SECONDS)


def _rows() -> Histogram:
    return Histogram(COMMIT_ROWS)


class ListenerStats(msgspec.Struct):
    """Count what the listener did since it started.

    Args:
        received: Callback requests whose head was whole, whatever became of them.
        acknowledged: Answered 200 after the fsync: the sum of new, duplicates and spooled.
        new: Of those, callbacks that were not kept before.
        duplicates: Of those, further deliveries of callbacks already kept.
        spooled: Of those, callbacks that went to the spool; whether they are new shows when they are imported.
        quarantined: Of the acknowledged, callbacks that handlers do not see.
        unlisted: Of the acknowledged, callbacks from a source that is not on the provider's published list.
        unknown_token: Answered 404.
        too_large: Answered 413.
        bad_request: Answered 400.
        timed_out: Answered 408, or closed by a deadline.
        refused_source: Answered 403.
        capped: Connections closed by the cap per source.
        not_stored: Answered 503 because neither store nor spool took the callback.
        quota: Answered 503 because the quarantine is full.
        busy: Answered 503 because the bodies that came at once took all the memory that they may.
        cut_short: Bodies whose client went away in the middle.
        commits: Transactions committed.
        last_received_at: When the last callback was acknowledged, in UTC microseconds; 0 for never.
        commit_seconds: How long commits took.
        commit_rows: How many callbacks shared a commit.
        answer_seconds: How long answers took, from the whole head to the answer.
    """

    received: int = 0
    acknowledged: int = 0
    new: int = 0
    duplicates: int = 0
    spooled: int = 0
    quarantined: int = 0
    unlisted: int = 0
    unknown_token: int = 0
    too_large: int = 0
    bad_request: int = 0
    timed_out: int = 0
    refused_source: int = 0
    capped: int = 0
    not_stored: int = 0
    quota: int = 0
    busy: int = 0
    cut_short: int = 0
    commits: int = 0
    last_received_at: int = 0
    commit_seconds: Histogram = msgspec.field(default_factory=_seconds)
    commit_rows: Histogram = msgspec.field(default_factory=_rows)
    answer_seconds: Histogram = msgspec.field(default_factory=_seconds)

    def observe_commit(self, seconds: float, rows: int) -> None:
        """Count one commit: how long it took and how many callbacks shared it."""
        self.commits += 1
        self.commit_seconds.observe(seconds)
        self.commit_rows.observe(rows)

    def observe_answer(self, seconds: float) -> None:
        """Count one answer: how long it took from the whole head on. Called for each request."""
        answers = self.answer_seconds
        answers.counts[bisect_left(SECONDS, seconds)] += 1
        answers.total += seconds

    def line(self) -> str:
        """Say in one line what the listener did since it started."""
        kept = [f"new {self.new}", f"in quarantine {self.quarantined}", *_some(self.spooled, "by way of the spool")]
        refused = [
            f"{self.unknown_token} with a wrong token",
            f"{self.too_large} too large",
            f"{self.not_stored} not stored",
            *_some(self.quota, "for the full quarantine"),
            *_some(self.busy, "for want of memory"),
            *_some(self.bad_request, "not HTTP"),
            *_some(self.timed_out, "too slow"),
            *_some(self.refused_source, "from elsewhere"),
            *_some(self.capped, "over the connection cap"),
        ]
        return (
            f"acknowledged {self.acknowledged} ({', '.join(kept)}); refused {', '.join(refused)};"
            f" {self.cut_short} cut short by their sender"
        )


def _some(number: int, words: str) -> list[str]:
    """Return a part of the line that only matters where it happened."""
    return [f"{number} {words}"] if number else []


class ListenerState(msgspec.Struct, frozen=True):
    """Say how a listener stands at this moment.

    Args:
        spooling: Whether arrivals go to the spool in place of the store.
        spool_records: How many callbacks wait in the spool.
        spool_bytes: How many bytes the spool takes on disk.
        draining: Whether it is stopping: nothing new is accepted.
        can_keep: Whether the store or the spool takes callbacks.
        connections: How many connections are open.
        uptime_seconds: For how long it has been serving.
        store: ``ok``, else in a few words why the store does not take all callbacks.
        quarantine_limit_bytes: How much the quarantine may hold.
    """

    spooling: bool = False
    spool_records: int = 0
    spool_bytes: int = 0
    draining: bool = False
    can_keep: bool = True
    connections: int = 0
    uptime_seconds: float = 0.0
    store: str = "ok"
    quarantine_limit_bytes: int = 0

    @property
    def is_ready(self) -> bool:
        """Tell whether callbacks may be sent here: they would be kept, in the store or in the spool."""
        return self.can_keep and not self.draining
