"""A wall clock that jumps: work neither waits for ever nor is handed out twice at once."""

from __future__ import annotations

import pytest

from upcall.inbox import Arrival, Outcome, Subscription, open_inbox
from upcall.inbox.sqlite.clock import TOLERANCE_MICROS

SECOND = 1_000_000
HOUR = 3600 * SECOND
NOW = 1_800_000_000 * SECOND
EVERY = Subscription("handler", lambda event: [""])


@pytest.fixture
def inbox(tmp_path):
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as opened:
        opened.append([Arrival(body=bytes([n]), received_at=1) for n in range(2)])
        opened.subscribe(["handler"], NOW)
        opened.enroll([EVERY], NOW)
        yield opened


def claim(inbox, now, owner="me", limit=10):
    return [item.callback_id for item in inbox.claim(["handler"], owner, now, lease_seconds=30, limit=limit)]


def test_a_retry_waits_for_as_long_as_it_had_to(inbox):
    """After the clock was set back a retry that was 10 minutes away is 10 minutes away."""
    (item, _) = inbox.claim(["handler"], "me", NOW, lease_seconds=30, limit=2)
    inbox.settle([Outcome(item.id, "pending", due_at=NOW + 600 * SECOND)], "me", NOW)
    back = NOW - 24 * HOUR
    assert claim(inbox, back) == []
    assert claim(inbox, back + 599 * SECOND) == [2]
    assert claim(inbox, back + 600 * SECOND, "other") == [1]


def test_a_dead_owners_lease_ends_within_a_minute(inbox):
    """A lease that was taken before the clock was set back does not last until the old time comes again."""
    assert claim(inbox, NOW) == [1, 2]
    back = NOW - 24 * HOUR
    assert claim(inbox, back, "other") == []
    assert claim(inbox, back + 61 * SECOND, "other") == [1, 2]


def test_an_owner_that_lives_keeps_its_lease(inbox):
    """Setting the clock back takes nothing from an owner that renews: no second one is given its work."""
    items = inbox.claim(["handler"], "me", NOW, lease_seconds=30, limit=10)
    back = NOW - 24 * HOUR
    for step in range(0, 120, 15):
        assert claim(inbox, back + step * SECOND, "other") == []
        inbox.renew([item.id for item in items], "me", back + step * SECOND, lease_seconds=30)


def test_work_that_was_due_stays_due(inbox):
    """What was due before the clock was set back is due afterwards."""
    assert claim(inbox, NOW - 24 * HOUR) == [1, 2]


def test_clocks_that_differ_a_little_move_nothing(inbox):
    """Processes that read their clocks before they waited for one another do not hand work out early."""
    (item, _) = inbox.claim(["handler"], "me", NOW, lease_seconds=30, limit=2)
    inbox.settle([Outcome(item.id, "pending", due_at=NOW + HOUR)], "me", NOW)
    inbox.enroll([EVERY], NOW - TOLERANCE_MICROS)
    inbox.release(["me"], NOW - TOLERANCE_MICROS)
    assert claim(inbox, NOW - TOLERANCE_MICROS) == [2]
    assert inbox.next_due(["handler"]) == NOW - TOLERANCE_MICROS + 30 * SECOND
    assert inbox.work(1)[0].due_at == NOW + HOUR


def test_a_clock_that_went_ahead_and_came_back(inbox):
    """After an hour that did not happen, work goes on as if it had not."""
    assert claim(inbox, NOW + HOUR, limit=1) == [1]
    assert claim(inbox, NOW, "other") == [2]
    assert claim(inbox, NOW + 61 * SECOND, "other") == [1, 2]
