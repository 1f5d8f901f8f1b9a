"""Delivery profiles: when each try can begin, and when the last one is over."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.thingspace import PROFILES, Profile

SECONDS = st.floats(0.0, 10_000.0)


@st.composite
def profiles(draw):
    """Any sound profile."""
    answer = draw(st.floats(0.5, 100.0))
    gaps = draw(st.lists(st.tuples(SECONDS, SECONDS).map(sorted).map(tuple), max_size=5))
    silence = draw(st.none() | st.floats(0.1, answer * 0.99))
    return Profile(name="any", gaps_seconds=tuple(gaps), silence_seconds=silence, answer_timeout_seconds=answer)


def run(profile, random):
    """Play one callback that nobody acknowledges; return when each try began, and when the last one ended."""
    began, ends, at = [0.0], [], 0.0
    while True:
        is_silent = profile.silence_seconds is not None and random.random() < 0.5
        seconds = profile.answer_timeout_seconds * (1 if is_silent else random.random())
        ends.append(at + seconds)
        is_left = len(began) < profile.max_attempts
        if is_left and profile.silence_seconds is not None and seconds > profile.silence_seconds:
            at += profile.silence_seconds
        elif is_left:
            at = max(ends) + profile.gap_seconds(len(began), random)
        else:
            return began, max(ends)
        began.append(at)


@given(profile=profiles(), seed=st.integers())
def test_each_try_begins_within_its_bounds(profile, seed):
    """Whatever a listener does but acknowledge, no try comes before or after what the ladder says."""
    began, end = run(profile, Random(seed))
    for at, (earliest, latest) in zip(began[1:], profile.ladder_seconds(), strict=True):
        assert earliest <= at + 1e-6
        assert at <= latest + 1e-6
    assert end <= profile.longest_seconds + 1e-6


@pytest.mark.parametrize(
    ("name", "ladder", "longest"),
    [
        ("documented", ((300.0, 330.0), (600.0, 660.0), (900.0, 990.0)), 1020.0),
        ("observed", ((1.15, 5.7),), 35.7),
    ],
)
def test_the_ladders_of_the_known_profiles(name, ladder, longest):
    """A try that hangs until its time is up puts off the next one; one that is refused does not."""
    profile = PROFILES[name]
    assert profile.ladder_seconds() == tuple(pytest.approx(bounds) for bounds in ladder)
    assert profile.longest_seconds == pytest.approx(longest)


def test_one_try_only():
    """Without further tries there is no ladder, and all is over when the only try is."""
    profile = Profile(name="once", gaps_seconds=(), answer_timeout_seconds=7.0)
    assert profile.ladder_seconds() == ()
    assert profile.longest_seconds == 7.0
