"""What each gap can have lost, computed from heartbeats and the delivery profile; no I/O.

ThingSpace tries a callback a few times and then never again. So an outage shorter than its ladder of tries loses
nothing, and a longer one loses what was first sent in its beginning; several short ones may line up. A slot that was
somebody else's loses all that was sent meanwhile: the other one acknowledged it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from upcall.inbox import JournalEntry, Uptime
    from upcall.thingspace import Profile

__all__ = [
    "ALIVE_MICROS",
    "STALE_SECONDS",
    "Outage",
    "Repeats",
    "Span",
    "away_spans",
    "elsewhere_spans",
    "find_outages",
    "living",
    "repeats",
]

ALIVE_MICROS: Final = 20_000_000
"""A listener whose last heartbeat is older is away: four heartbeats."""

STALE_SECONDS: Final = 14 * 60.0
"""How long after a change callbacks may still be sent to the old URL.

Source: 9.5 to 14 minutes were measured on a sister service, mixed with the new registration (observed).
"""

_SECOND: Final = 1_000_000
_CLUSTER_RATIO: Final = 1.5
_CLUSTER_MICROS: Final = 500_000
"""Two intervals closer than this, or by that factor, are shown as one."""


class Span(msgspec.Struct, frozen=True, order=True):
    """Hold a length of time.

    Args:
        start: Its beginning, UTC microseconds.
        end: Its end, which does not belong to it.
        is_open: Whether it goes on, and its end is only now.
    """

    start: int
    end: int
    is_open: bool = False

    @property
    def micros(self) -> int:
        """Return how long it is."""
        return self.end - self.start


class Outage(msgspec.Struct, frozen=True, kw_only=True):
    """Describe one window in which callbacks can have been lost.

    Args:
        kind: ``away`` (no listener accepted) or ``elsewhere`` (the slot was empty, or somebody else's).
        account: Whose slot it was, empty for a listener that was away for all.
        span: From when to when; the end of a current one is now.
        is_current: Whether it is going on.
        lost: When callbacks that can be lost by now were first sent.
        attempts_left: How many tries the provider has left, at least, for what was first sent as a current one began.
        safe_until: Back before then, a current one loses nothing more; None where it is not one, or too late.
    """

    kind: str
    account: str = ""
    span: Span
    is_current: bool = False
    lost: tuple[Span, ...] = ()
    attempts_left: int | None = None
    safe_until: int | None = None

    @property
    def lost_micros(self) -> int:
        """Return how much time of first tries can be lost."""
        return sum(span.micros for span in self.lost)


class Repeats(msgspec.Struct, frozen=True):
    """Count deliveries that came again after about the same time.

    Args:
        micros: That time, the median of them.
        count: How many.
    """

    micros: int
    count: int


def living(uptimes: Iterable[Uptime], now: int) -> list[Uptime]:
    """Return the listeners that accept callbacks now, as far as their heartbeats tell.

    One that last beat later than now was beating by a clock that was ahead: nothing is known of it.
    """
    return [uptime for uptime in uptimes if not uptime.ended and abs(now - uptime.last_at) <= ALIVE_MICROS]


def away_spans(uptimes: Iterable[Uptime], now: int) -> list[Span]:
    """Return when no listener accepted callbacks: between heartbeats, and since the last one if that is long ago.

    Args:
        uptimes: What the store's heartbeats tell, in the order of their beginnings.
        now: The time.
    """
    up = _joined(
        Span(uptime.began_at, max(uptime.began_at, uptime.last_at))
        for uptime in uptimes
        if uptime.last_at <= now + ALIVE_MICROS  # else by a clock that was ahead
    )
    away = [Span(before.end, after.start) for before, after in pairwise(up)]
    if up and now - up[-1].end > ALIVE_MICROS:
        away.append(Span(up[-1].end, now, is_open=True))
    return away


def elsewhere_spans(transitions: Iterable[JournalEntry], now: int) -> dict[str, list[Span]]:
    """Return for each account when its slot was not ours, as far as the guard saw it.

    A window begins with the last look at which all was well, and ends with the first one at which it was well again;
    where another URL stood, not before callbacks are no more sent to it, which may be later than now.

    Args:
        transitions: The guard's journal, oldest first.
        now: The time, until which an open window reaches.
    """
    began: dict[str, int] = {}
    others: set[str] = set()
    found: dict[str, list[Span]] = {}
    for entry in transitions:
        state = entry.document.get("to")
        if state == "in_order" and entry.account in began:
            end = entry.at + (int(STALE_SECONDS * _SECOND) if entry.account in others else 0)
            found.setdefault(entry.account, []).append(Span(began.pop(entry.account), end))
            others.discard(entry.account)
        elif state in {"drifted", "none", "given_up"}:
            last_ok = entry.document.get("last_ok")
            began.setdefault(entry.account, last_ok if isinstance(last_ok, int) else entry.at)
            if entry.document.get("registered") and not entry.document.get("ours"):
                others.add(entry.account)
    for account, start in began.items():
        found.setdefault(account, []).append(Span(start, now, is_open=True))
    return {account: [span for span in spans if span.micros > 0] for account, spans in found.items()}


def find_outages(away: Sequence[Span], elsewhere: dict[str, list[Span]], profile: Profile, now: int) -> list[Outage]:
    """Return every window with what the profile's tries can have lost in it, oldest first.

    Args:
        away: When no listener accepted, see `away_spans`.
        elsewhere: When an account's slot was not ours, see `elsewhere_spans`.
        profile: When the provider tries again.
        now: The time.
    """
    lost = _lost(away, profile)
    found = [_away(span, lost, profile, now) for span in away]
    found += [
        Outage(
            kind="elsewhere", account=account, span=span, is_current=span.is_open, lost=(Span(span.start, span.end),)
        )
        for account, spans in elsewhere.items()
        for span in spans
    ]
    return sorted(found, key=lambda outage: (outage.span, outage.kind, outage.account))


def repeats(intervals: Iterable[int]) -> list[Repeats]:
    """Group the intervals after which deliveries came again.

    Args:
        intervals: In microseconds, in any order.
    """
    groups: list[list[int]] = []
    for interval in sorted(intervals):
        if groups and interval <= max(groups[-1][-1] * _CLUSTER_RATIO, groups[-1][-1] + _CLUSTER_MICROS):
            groups[-1].append(interval)
        else:
            groups.append([interval])
    return [Repeats(group[len(group) // 2], len(group)) for group in groups]


def _away(span: Span, lost: Sequence[Span], profile: Profile, now: int) -> Outage:
    within = tuple(_cut(lost, span))
    if not span.is_open:
        return Outage(kind="away", span=span, lost=within)
    offsets = [0, *(int(earliest * _SECOND) for earliest, _ in profile.ladder_seconds())]
    last = int(([(0.0, 0.0), *profile.ladder_seconds()][-1][0]) * _SECOND)
    safe_until = span.start + last
    return Outage(
        kind="away",
        span=span,
        is_current=True,
        lost=within,
        attempts_left=sum(span.start + offset > now for offset in offsets),
        safe_until=safe_until if safe_until > now else None,
    )


def _lost(away: Sequence[Span], profile: Profile) -> list[Span]:
    """Return when callbacks were first sent of which every try can have met a listener that was away."""
    lost = list(away)
    for earliest, latest in profile.ladder_seconds():
        early, late = int(earliest * _SECOND), int(latest * _SECOND)
        met = _joined(sorted(Span(span.start - late, span.end - early) for span in away))
        lost = [part for span in lost for part in _cut(met, span)]
    return lost


def _cut(spans: Iterable[Span], within: Span) -> list[Span]:
    """Return the parts of spans that lie within another."""
    cut = (Span(max(span.start, within.start), min(span.end, within.end)) for span in spans)
    return [span for span in cut if span.micros > 0]


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Join spans that touch or overlap; they are in the order of their beginnings."""
    joined: list[Span] = []
    for span in sorted(spans):
        if joined and span.start <= joined[-1].end:
            joined[-1] = Span(joined[-1].start, max(joined[-1].end, span.end))
        else:
            joined.append(span)
    return joined
