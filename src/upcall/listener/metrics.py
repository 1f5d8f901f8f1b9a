"""The listener's figures in Prometheus' text form; prometheus_client is named here only.

No label carries a device identifier, a token, an account or a URL: what is scraped is kept for years by somebody else.
"""

from __future__ import annotations

import hashlib
import itertools
from pathlib import PurePath
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from upcall.inbox import SubscriberRecord
from upcall.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric

    from upcall.listener.stats import Histogram, ListenerState, ListenerStats

__all__ = ["CONTENT_TYPE", "StoreFigures", "exposition", "subscriber_label"]

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_NAMED_BY_ADDRESS: Final = frozenset({"forward", "forward-raw", "exec", "jsonl"})
_HASH_CHARACTERS: Final = 8

_COUNTERS: Final = (
    ("received", "Callback requests whose head was whole, whatever became of them."),
    ("acknowledged", "Callbacks answered 200, each on disk before its answer left."),
    ("duplicates", "Acknowledged callbacks that were further deliveries of one already kept."),
    ("spooled", "Acknowledged callbacks that went to the spool because the store did not take them."),
    ("quarantined", "Acknowledged callbacks that handlers do not see until they are released."),
    ("unlisted", "Acknowledged callbacks from a source that is not on the provider's published list."),
    ("cut_short", "Bodies whose sender went away in the middle; not acknowledged."),
)

_REFUSALS: Final = (
    ("unknown_token", "unknown_token"),
    ("too_large", "too_large"),
    ("bad_request", "bad_request"),
    ("timeout", "timed_out"),
    ("source", "refused_source"),
    ("connection_cap", "capped"),
    ("not_stored", "not_stored"),
    ("quarantine_full", "quota"),
    ("busy", "busy"),
)
"""Each reason's label, and the counter that it is read from."""


class StoreFigures(msgspec.Struct, frozen=True):
    """Hold what was read from the store, all at one moment; a figure that the store does not have is None.

    Args:
        subscribers: How far each subscriber is.
        quarantine_bytes: What the quarantine holds.
        newest_at: When the newest callback was first received, in UTC microseconds.
        store_bytes: How large the store is on disk.
        free_bytes: How much room its file system has left for this user.
    """

    subscribers: tuple[SubscriberRecord, ...]
    quarantine_bytes: int
    newest_at: int | None = None
    store_bytes: int | None = None
    free_bytes: int | None = None


def exposition(
    stats: ListenerStats,
    state: ListenerState,
    store: StoreFigures | None,
    now: float,
    *,
    more: Callable[[], Iterable[Metric]] = tuple,
) -> bytes:
    """Write all figures as Prometheus reads them.

    Args:
        stats: What the listener counted.
        state: How it stands.
        store: What the store said, None where it could not be read.
        now: The time, in seconds since 1970.
        more: Returns what else is to be shown, of what runs beside the listener.
    """
    registry = CollectorRegistry()
    registry.register(_Figures(stats, state, store, now, more))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def subscriber_label(name: str) -> str:
    """Return what stands for a subscriber in a label: its name, or for one named by an address less than that.

    A forward's URL may be a secret in itself, and so may a command's arguments: only the host or the file's name is
    left of them, and a part of the name's SHA-256 that tells two apart.
    """
    kind, mark, address = name.partition(":")
    if not mark or kind not in _NAMED_BY_ADDRESS:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARACTERS]
    return f"{kind}:{_short(kind, address)}#{digest}"


def _short(kind: str, address: str) -> str:
    if kind.startswith("forward"):
        try:
            return urlsplit(address).hostname or ""
        except ValueError:
            return ""
    command = address.split(maxsplit=1)[0] if kind == "exec" and address.strip() else address
    return PurePath(command).name


class _Figures(Collector):
    """Give one moment's figures to the registry."""

    def __init__(
        self,
        stats: ListenerStats,
        state: ListenerState,
        store: StoreFigures | None,
        now: float,
        more: Callable[[], Iterable[Metric]],
    ) -> None:
        self._more = more
        self._stats = stats
        self._state = state
        self._store = store
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """Yield every family, in the order of the documentation."""
        yield from self._counted()
        yield from self._standing()
        yield _gauge("store_up", "Whether the store could be read for these figures.", self._store is not None)
        newest = max(self._stats.last_received_at, (self._store and self._store.newest_at) or 0)
        if newest:
            yield _gauge("last_received_timestamp_seconds", "When a callback last came, since 1970.", newest / 1e6)
        if self._store is not None:
            yield from _stored(self._store, self._now)
        yield from self._more()

    def _counted(self) -> Iterator[Metric]:
        stats = self._stats
        for name, text in _COUNTERS:
            yield CounterMetricFamily(f"upcall_{name}", text, value=getattr(stats, name))
        refused = CounterMetricFamily(
            "upcall_refused", "Requests and connections refused, by reason.", labels=["reason"]
        )
        for reason, counter in _REFUSALS:
            refused.add_metric([reason], getattr(stats, counter))
        yield refused
        yield _histogram("commit_seconds", "How long commits to the store took.", stats.commit_seconds)
        yield _histogram("commit_rows", "How many callbacks shared a commit.", stats.commit_rows)
        yield _histogram("answer_seconds", "How long answers took, from the whole head on.", stats.answer_seconds)

    def _standing(self) -> Iterator[Metric]:
        state = self._state
        build = GaugeMetricFamily("upcall_build_info", "Which Upcall this is; always 1.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield _gauge("ready", "What /readyz says: 1 for 200, 0 for 503.", state.is_ready)
        yield _gauge("spooling", "Whether callbacks go to the spool in place of the store.", state.spooling)
        yield _gauge("spool_records", "Callbacks that wait in the spool.", state.spool_records)
        yield _gauge("spool_bytes", "What the spool takes on disk.", state.spool_bytes)
        yield _gauge("connections", "Open connections.", state.connections)
        yield _gauge("uptime_seconds", "For how long this listener has been serving.", state.uptime_seconds)
        yield _gauge("quarantine_limit_bytes", "What the quarantine may hold.", state.quarantine_limit_bytes)


def _stored(store: StoreFigures, now: float) -> Iterator[Metric]:
    yield _gauge("quarantine_bytes", "What the quarantine holds.", store.quarantine_bytes)
    if store.store_bytes is not None:
        yield _gauge("store_bytes", "How large the store is on disk.", store.store_bytes)
    if store.free_bytes is not None:
        yield _gauge("store_free_bytes", "Room left on the store's file system.", store.free_bytes)
    ages = [_age(record, now) for record in store.subscribers]
    yield _gauge(
        "oldest_undone_seconds", "Age of the oldest callback that a subscriber is not done with.", max(ages, default=0)
    )
    unread = _by_subscriber("unread", "Callbacks that the subscriber has not looked at.")
    pending = _by_subscriber("pending", "Its work that waits, or that somebody is at.")
    dead = _by_subscriber("dead", "Its work that was given up: dead letters.")
    oldest = _by_subscriber("oldest_seconds", "Age of the oldest callback that it is not done with.")
    done = _by_subscriber("done", "Its attempts that ended well.", CounterMetricFamily)
    failed = _by_subscriber("failed", "Its attempts that failed, whatever became of their work.", CounterMetricFamily)
    for record, age in zip(store.subscribers, ages, strict=True):
        label = [subscriber_label(record.name)]
        unread.add_metric(label, record.unread)
        pending.add_metric(label, record.pending + record.leased)
        dead.add_metric(label, record.dead)
        oldest.add_metric(label, age)
        done.add_metric(label, record.done)
        failed.add_metric(label, record.failed)
    yield from (unread, pending, dead, oldest, done, failed)


def _age(record: SubscriberRecord, now: float) -> float:
    """Return the age of what a subscriber is not done with; a clock set back makes nothing younger than now."""
    return 0.0 if record.oldest_at is None else max(0.0, now - record.oldest_at / 1e6)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"upcall_{name}", text, value=float(value))


def _by_subscriber(
    name: str, text: str, family: type[GaugeMetricFamily | CounterMetricFamily] = GaugeMetricFamily
) -> GaugeMetricFamily | CounterMetricFamily:
    return family(f"upcall_subscriber_{name}", text, labels=["subscriber"])


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
    buckets = list(zip(bounds, itertools.accumulate(histogram.counts), strict=True))
    return HistogramMetricFamily(f"upcall_{name}", text, buckets=buckets, sum_value=histogram.total)
