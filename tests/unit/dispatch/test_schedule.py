"""When failed work runs again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.dispatch import RetrySchedule, retry_delay_seconds

YEAR = 365 * 24 * 3600
SECONDS = st.floats(0, YEAR)
SCHEDULES = st.builds(
    RetrySchedule, max_attempts=st.integers(1, 10**6), backoff_seconds=SECONDS, max_backoff_seconds=SECONDS
)
FRACTIONS = st.floats(0, 1)


@given(schedule=SCHEDULES, attempt=st.integers(1, 10**6), fraction=FRACTIONS)
def test_a_wait_lies_between_half_and_all_of_its_bound(schedule, attempt, fraction):
    """No wait is over the cap or under half of its step, and the attempts end where they should."""
    delay = retry_delay_seconds(schedule, attempt, fraction)
    if attempt >= schedule.max_attempts:
        assert delay is None
        return
    bound = min(schedule.max_backoff_seconds, schedule.backoff_seconds * 2.0 ** min(attempt - 1, 60))
    assert bound / 2 <= delay <= bound <= schedule.max_backoff_seconds


@given(schedule=SCHEDULES, attempt=st.integers(1, 10**5), fraction=FRACTIONS)
def test_waits_grow(schedule, attempt, fraction):
    """With the same luck the next wait is never the shorter one."""
    one, other = (retry_delay_seconds(schedule, number, fraction) for number in (attempt, attempt + 1))
    if one is not None and other is not None:
        assert one <= other


def test_the_default_waits():
    """A handler is tried twelve times, with waits that double from one second up to ten minutes."""
    waits = [retry_delay_seconds(RetrySchedule(), attempt, 1.0) for attempt in range(1, 13)]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, None]


@pytest.mark.parametrize(
    "figures",
    [
        {"max_attempts": 0},
        {"max_attempts": -1},
        {"backoff_seconds": -0.1},
        {"backoff_seconds": math.nan},
        {"backoff_seconds": math.inf},
        {"max_backoff_seconds": -1},
        {"max_backoff_seconds": math.nan},
        {"max_backoff_seconds": 1e300},
    ],
)
def test_figures_out_of_range(figures):
    """A figure that gives no wait is refused when the handler is registered, by name and value."""
    with pytest.raises(ValueError, match=next(iter(figures))):
        RetrySchedule(**figures)
