"""What a gap can have lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.inbox import JournalEntry, Uptime
from upcall.registration.outages import (
    ALIVE_MICROS,
    STALE_SECONDS,
    Repeats,
    Span,
    away_spans,
    elsewhere_spans,
    find_outages,
    living,
    repeats,
)
from upcall.thingspace import PROFILES, Profile

MINUTE = 60_000_000
SECOND = 1_000_000
NOON = 1_800_000_000_000_000
DOCUMENTED, OBSERVED = PROFILES["documented"], PROFILES["observed"]
INSTANT = Profile(name="instant", gaps_seconds=((300.0, 300.0),) * 3, answer_timeout_seconds=1e-6)
"""The documented ladder where each refusal is told at once."""


def at(minutes):
    return NOON + round(minutes * MINUTE)


def span(start, end, *, is_open=False):
    return Span(at(start), at(end), is_open)


def up(start, end, **more):
    return Uptime(listener=f"{start}", began_at=at(start), last_at=at(end), **more)


def found(away, profile, now=1000.0):
    return find_outages([span(*one) for one in away], {}, profile, at(now))


def lost_minutes(outage):
    return [((part.start - NOON) / MINUTE, (part.end - NOON) / MINUTE) for part in outage.lost]


def test_away_is_what_no_uptime_covers():
    """Uptimes of several listeners that touch or overlap are one; what lies between is an outage."""
    spans = away_spans([up(0, 10), up(5, 20), up(20, 21), up(30, 40, ended=True)], at(40))
    assert spans == [span(21, 30)]


def test_a_listener_that_has_just_beaten_is_there():
    """The last heartbeat may be a few seconds old; only then is the listener away, since that beat."""
    uptimes = [up(0, 10)]
    assert away_spans(uptimes, at(10) + ALIVE_MICROS) == []
    assert away_spans(uptimes, at(10) + ALIVE_MICROS + 1) == [Span(at(10), at(10) + ALIVE_MICROS + 1, is_open=True)]
    assert away_spans([], at(10)) == []


@pytest.mark.parametrize(("minutes", "lost"), [(3, []), (12, []), (15, []), (20, [(0, 5)]), (40, [(0, 25)])], ids=str)
def test_the_documented_ladder(minutes, lost):
    """One outage shorter than the ladder loses nothing; of a longer one, what was first sent early enough is lost."""
    (outage,) = found([(0, minutes)], INSTANT)
    assert lost_minutes(outage) == lost


def test_a_refusal_is_nearly_final_under_the_observed_profile():
    """With one more try after about 1.3 seconds, all but the last second of an outage can be lost."""
    (outage,) = found([(0, 10)], OBSERVED)
    assert outage.lost_micros == 10 * MINUTE - int(1.15 * SECOND)
    (short,) = find_outages([Span(NOON, NOON + SECOND)], {}, OBSERVED, at(99))
    assert short.lost == ()


def test_short_outages_line_up():
    """Four short outages, five minutes apart, meet all four tries of what was first sent in the first of them."""
    first, *rest = found([(0, 1), (5, 6), (10, 11), (15, 16)], INSTANT)
    assert lost_minutes(first) == [(0, 1)]
    assert [outage.lost for outage in rest] == [(), (), ()]
    assert all(outage.lost == () for outage in found([(0, 1), (5, 6), (10, 11)], INSTANT))


def test_a_current_outage_says_how_long_there_is_time():
    """What is left of the provider's tries is counted for what was first sent at the beginning."""
    (outage,) = find_outages([span(0, 7, is_open=True)], {}, INSTANT, at(7))
    assert (outage.is_current, outage.attempts_left, outage.safe_until) == (True, 2, at(15))
    assert outage.lost == ()
    (late,) = find_outages([span(0, 22, is_open=True)], {}, INSTANT, at(22))
    assert (late.attempts_left, late.safe_until) == (0, None)
    assert lost_minutes(late) == [(0, 7)]


def test_what_a_clock_told_that_was_ahead_counts_for_nothing():
    """After a clock was set back a listener is known by what it told since, and what comes later is no outage."""
    uptimes = [up(0, 10), up(60, 70), up(20, 21)]
    assert away_spans(uptimes, at(21)) == [span(10, 20)]
    assert [uptime.last_at for uptime in living(uptimes, at(21))] == [at(21)]


def test_after_a_theft_the_old_url_is_served_for_a_while():
    """Callbacks go on to whoever had the slot for the minutes that were seen after a change."""
    theft = {"registered": "https://theirs.example/c", "ours": False}
    transitions = [transition(5, "A-1", "drifted", last_ok=0, **theft), transition(6, "A-1", "in_order")]
    assert elsewhere_spans(transitions, at(7)) == {"A-1": [Span(at(0), at(6) + round(STALE_SECONDS * SECOND))]}
    (still,) = find_outages([], elsewhere_spans(transitions, at(7)), DOCUMENTED, at(7))
    assert not still.is_current
    older = [transition(5, "A-1", "drifted", registered="https://ours.example/old", ours=True), transitions[1]]
    assert elsewhere_spans(older, at(7)) == {"A-1": [span(5, 6)]}


def transition(minute, account, to, last_ok=None, **more):
    document = {"to": to, **more} if last_ok is None else {"to": to, "last_ok": at(last_ok), **more}
    return JournalEntry(topic="guard", at=at(minute), account=account, document=document)


def test_a_slot_that_was_elsewhere_loses_everything():
    """From the last look at which all was well to the first one after, every callback may have gone elsewhere."""
    transitions = [
        transition(5, "A-1", "drifted", last_ok=0),
        transition(10, "A-1", "given_up"),
        transition(12, "A-2", "none"),
        transition(20, "A-1", "in_order"),
        transition(21, "A-1", "in_order"),
    ]
    spans = elsewhere_spans(transitions, at(30))
    assert spans == {"A-1": [span(0, 20)], "A-2": [span(12, 30, is_open=True)]}
    first, second = find_outages([], spans, DOCUMENTED, at(30))
    assert (first.account, first.is_current, first.lost) == ("A-1", False, (span(0, 20),))
    assert (second.account, second.is_current) == ("A-2", True)


minutes = st.integers(0, 60)
windows = st.lists(st.tuples(minutes, st.integers(1, 20)), min_size=1, max_size=6)


@given(windows, st.lists(st.integers(1, 15), max_size=3), minutes)
def test_nothing_is_called_safe_that_was_lost(lengths, gaps, sent):
    """Whenever each try of a callback meets an outage, its first try lies in what can be lost, and else it does not."""
    away = away_spans(
        [Uptime(listener="0", began_at=at(-1), last_at=at(-1)), *_between(lengths), up(200, 201)], at(201)
    )
    profile = Profile(
        name="p", gaps_seconds=tuple((gap * 60.0, gap * 60.0) for gap in gaps), answer_timeout_seconds=1e-6
    )
    tries = [at(sent + sum(gaps[:number])) for number in range(len(gaps) + 1)]
    is_lost = all(any(one.start <= each < one.end for one in away) for each in tries)
    told = any(
        part.start <= at(sent) < part.end for each in find_outages(away, {}, profile, at(999)) for part in each.lost
    )
    assert told == is_lost


def _between(lengths):
    """Return uptimes that leave gaps of given lengths at given minutes."""
    down = {minute for start, length in lengths for minute in range(start, start + length)}
    return [up(minute, minute + 1) for minute in range(-1, 200) if minute not in down]


def test_repeats_are_grouped():
    """Intervals that are about the same are counted together, under the median of them."""
    fast = [1_300_000, 1_200_000, 1_400_000]
    assert repeats([*fast, 300 * SECOND, 301 * SECOND, 4 * SECOND]) == [
        Repeats(1_300_000, 3),
        Repeats(4 * SECOND, 1),
        Repeats(301 * SECOND, 2),
    ]
    assert repeats([]) == []
