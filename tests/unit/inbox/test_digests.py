"""Copies are recognised wherever their digests lie: in memory, filed, or appended by somebody else."""

import contextlib
import itertools
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upcall.inbox import Arrival, Retention, Subscription, Trust, open_inbox
from upcall.inbox.sqlite import digests
from upcall.inbox.values import REDELIVERY_WINDOW_MICROS

MINUTE = 60 * 1_000_000
NOW = 1_800_000_000_000_000


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    monkeypatch.setattr(digests, "FILE_FROM", 2)
    monkeypatch.setattr(digests, "BINS", 3)


def expected(kept, arrival):
    """Return the first callback that an arrival is a copy of, as the contract says it."""
    return next(
        (
            number
            for number, (body, trust, at) in sorted(kept.items())
            if (body, trust) == (arrival.body, arrival.trust)
            and abs(at - arrival.received_at) <= REDELIVERY_WINDOW_MICROS
        ),
        None,
    )


arrivals = st.builds(
    Arrival,
    body=st.integers(0, 9).map(lambda number: b"%d" % number),
    received_at=st.integers(-100, 100).map(lambda minutes: NOW + minutes * MINUTE),
    trust=st.sampled_from([Trust.ACCEPTED, Trust.QUARANTINED]),
)
steps = st.tuples(
    st.integers(0, 1), st.lists(arrivals, max_size=6), st.sampled_from(["commit", "commit", "roll back", "begin anew"])
)
stores = itertools.count()


@settings(max_examples=150)
@given(steps=st.lists(steps, max_size=12))
def test_any_appends_of_two_appenders(tmp_path_factory, steps):
    """Whoever appends what and when, kept or rolled back: one body within its window is one callback."""
    url = f"sqlite:///{tmp_path_factory.getbasetemp() / f'digests-{next(stores)}.db'}"
    with open_inbox(url, create=True) as inbox:
        appenders = [inbox.appender(), inbox.appender()]
        kept = {}
        for which, group, end in steps:
            if end == "begin anew":
                appenders[which].close()
                appenders[which] = inbox.appender()
            appender, draft = appenders[which], dict(kept)
            for arrival, receipt in zip(group, appender.stage(group), strict=True):
                known = expected(draft, arrival)
                assert receipt.is_new is (known is None)
                assert known in {None, receipt.callback_id}
                draft.setdefault(receipt.callback_id, (arrival.body, arrival.trust, arrival.received_at))
            if end == "roll back":
                appender.rollback()
            else:
                appender.commit()
                kept = draft
        for appender in appenders:
            appender.close()
        assert {record.id: record.body for record in inbox.callbacks()} == {
            number: body for number, (body, _, _) in kept.items()
        }
        assert inbox.check() == []


def filed(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM digests").fetchone()[0]


def test_digests_are_filed_in_steps_and_removed_with_their_callbacks(tmp_path):
    """What is filed stays no longer than its callback."""
    path = tmp_path / "inbox.db"
    with open_inbox(str(path), create=True) as inbox:
        inbox.subscribe(["handler"], NOW)
        appender = inbox.appender()
        for number in range(8):
            appender.stage([Arrival(body=b"%d" % number, received_at=NOW)])
            appender.commit()
        appender.close()
        assert 0 < filed(path) < 8
        while inbox.project() or inbox.enroll([], NOW)[0]:
            pass
        inbox.unsubscribe("handler")
        inbox.subscribe(["other"], NOW)
        inbox.enroll([Subscription("other", lambda event: [])], NOW)
        later = NOW + 1000 * 24 * 60 * MINUTE
        while inbox.prune(Retention(), later).more:
            pass
        assert (inbox.callbacks(), filed(path)) == ([], 0)


def test_processes_that_end_early_file_all_the_same(tmp_path, monkeypatch):
    """Where each process ends before it has filed every bin, the next one need not read all that ever came."""
    monkeypatch.setattr(digests, "FILE_FROM", 10)
    path = tmp_path / "inbox.db"
    with open_inbox(str(path), create=True) as inbox:
        numbers = itertools.count()
        for _ in range(40):
            appender = inbox.appender()
            for number in itertools.islice(numbers, 9):
                appender.stage([Arrival(body=b"%d" % number, received_at=NOW)])
                appender.commit()
            appender.close()
        appender = inbox.appender()
        held = sum(map(len, appender._digests._bins))
        assert 0 < held < 2 * digests.BINS * digests.FILE_FROM + 9
        assert filed(path) >= 360 - held
        assert not any(receipt.is_new for receipt in appender.stage([Arrival(body=b"0", received_at=NOW)]))
        appender.rollback()
        appender.close()


def test_a_commit_that_fails_files_nothing(tmp_path):
    """Digests that were about to be filed with a failed commit are known as before."""
    path = tmp_path / "inbox.db"
    with open_inbox(str(path), create=True) as inbox:
        appender = inbox.appender()
        group = [Arrival(body=b"%d" % number, received_at=NOW) for number in range(4)]
        appender.stage(group)
        appender._digests.file()
        appender.rollback()
        assert (filed(path), inbox.callbacks()) == (0, [])
        assert all(receipt.is_new for receipt in appender.stage(group))
        appender.commit()
        assert not any(receipt.is_new for receipt in appender.stage(group))
        appender.close()
