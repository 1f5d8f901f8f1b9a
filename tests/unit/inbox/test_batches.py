"""What is parsed in one go is bounded, however large callbacks are."""

import pytest

from upcall.inbox import Arrival, Subscription, open_inbox
from upcall.inbox.sqlite import connection


@pytest.fixture
def inbox(tmp_path, monkeypatch):
    """Hold five callbacks of 11 bytes, where 20 bytes are a batch."""
    monkeypatch.setattr(connection, "BATCH_BYTES", 20)
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as opened:
        opened.append([Arrival(body=b'{"id": "%d"}' % number, received_at=number) for number in range(5)])
        yield opened


def test_a_look_takes_large_callbacks_in_small_steps(inbox):
    """A step of the read model ends where its bodies weigh a batch: while it runs a listener cannot write."""
    assert [inbox.project(), inbox.project(), inbox.project(), inbox.project()] == [2, 2, 1, 0]
    assert [record.id for record in inbox.callbacks()] == [1, 2, 3, 4, 5]


def test_a_worker_takes_large_callbacks_in_small_steps(inbox):
    """Enrolling ends where the bodies weigh a batch, goes on behind it, and leaves nothing out."""
    everything = [Subscription("all", lambda _: ("",))]
    inbox.subscribe(["all"], 0)
    assert [inbox.enroll(everything, 0)[0] for _ in range(4)] == [2, 2, 1, 0]
    claimed = inbox.claim(["all"], "owner", 0, lease_seconds=1, limit=10)
    assert [item.callback_id for item in claimed] == [1, 2, 3, 4, 5]


def test_a_callback_larger_than_a_batch_is_taken(inbox):
    """One body that weighs more than a batch does not stop the read model."""
    inbox.append([Arrival(body=b"x" * 100, received_at=9)])
    assert [inbox.project() for _ in range(5)] == [2, 2, 2, 0, 0]
