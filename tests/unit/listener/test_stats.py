"""What the listener counts, and the line that it leaves behind."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.listener.stats import COMMIT_ROWS, SECONDS, Histogram, ListenerState, ListenerStats


def test_a_value_on_a_bound_counts_below_it():
    """A bucket takes its own bound, as Prometheus reads it, and what is over every bound has a bucket of its own."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.total == 7.5
    assert histogram.count == 5


@given(st.lists(st.floats(min_value=0, max_value=1e6)))
def test_no_value_is_left_out(values):
    """Each value is counted once, in the bucket of the smallest bound that is not under it."""
    histogram = Histogram(SECONDS)
    for value in values:
        histogram.observe(value)
    assert histogram.count == len(values)
    for index, bound in enumerate(SECONDS):
        assert sum(histogram.counts[: index + 1]) == sum(value <= bound for value in values)


def test_listeners_do_not_share_their_counts():
    """Two listeners in one process count apart."""
    one, other = ListenerStats(), ListenerStats()
    one.observe_commit(0.003, 17)
    one.observe_answer(0.004)
    assert (other.commits, other.commit_rows.count, other.answer_seconds.count) == (0, 0, 0)


def test_a_commit_is_counted_by_its_time_and_its_size():
    """A commit counts in both histograms, an answer in its own, each in the bucket that takes it."""
    stats = ListenerStats()
    stats.observe_commit(0.003, 17)
    stats.observe_answer(99.0)
    assert stats.commits == 1
    assert stats.commit_seconds.counts[SECONDS.index(0.005)] == 1
    assert stats.commit_rows.counts[COMMIT_ROWS.index(32.0)] == 1
    assert stats.commit_rows.total == 17
    assert stats.answer_seconds.counts[-1] == 1
    assert stats.answer_seconds.total == 99.0


def test_the_line_leaves_out_what_never_happened():
    """The line at the end is short where nothing unusual happened, and names the three refusals that matter most."""
    line = ListenerStats(acknowledged=3, new=2, quarantined=1).line()
    assert line == (
        "acknowledged 3 (new 2, in quarantine 1); refused 0 with a wrong token, 0 too large, 0 not stored;"
        " 0 cut short by their sender"
    )


@pytest.mark.parametrize(
    ("counter", "words"),
    [
        ("spooled", "7 by way of the spool"),
        ("quota", "7 for the full quarantine"),
        ("busy", "7 for want of memory"),
        ("bad_request", "7 not HTTP"),
        ("timed_out", "7 too slow"),
        ("refused_source", "7 from elsewhere"),
        ("capped", "7 over the connection cap"),
        ("unknown_token", "7 with a wrong token"),
        ("too_large", "7 too large"),
        ("not_stored", "7 not stored"),
        ("cut_short", "7 cut short"),
    ],
)
def test_the_line_tells_everything_that_was_not_acknowledged(counter, words):
    """Whatever was refused, dropped or spooled is in the line with its number."""
    assert words in ListenerStats(**{counter: 7}).line()


@pytest.mark.parametrize(
    ("state", "ready"),
    [
        (ListenerState(), True),
        (ListenerState(spooling=True, store="locked"), True),
        (ListenerState(draining=True), False),
        (ListenerState(can_keep=False), False),
    ],
)
def test_ready_means_that_a_callback_would_be_kept(state, ready):
    """A spool that stands in for the store is as good as the store; a drain and no place at all are not."""
    assert state.is_ready is ready


def test_a_state_does_not_change():
    """A state is of one moment."""
    with pytest.raises(AttributeError):
        ListenerState().spooling = True
    assert msgspec.structs.asdict(ListenerState())["store"] == "ok"
