"""What holds of the SQLite backend beyond the contract."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from upcall.errors import StoreError
from upcall.inbox import Arrival, Outcome, Selection, State, Subscription, TokenRecord, Trust, open_inbox
from upcall.inbox.sqlite import connection

WANTS_ALL = Subscription("handler", lambda event: [""])


@pytest.fixture
def inbox(tmp_path):
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as opened:
        yield opened


def test_a_number_is_not_given_again_after_its_callback_was_removed(inbox):
    """A callback that retention removes takes its number with it: the next one has a higher number."""
    inbox.append([Arrival(body=b"1", received_at=1), Arrival(body=b"2", received_at=1)])
    inbox._connection.execute("DELETE FROM callbacks WHERE id = 2")
    assert inbox.append([Arrival(body=b"3", received_at=1)])[0].callback_id == 3


def test_a_body_that_retention_removed(inbox):
    """A callback without its body is still listed, is nobody's new work, and does not stop the read model."""
    inbox.append([Arrival(body=b"1", received_at=1)])
    inbox._connection.execute("UPDATE callbacks SET body = NULL")
    inbox.subscribe(["handler"], 1)
    assert inbox.enroll([WANTS_ALL], 1) == (1, [])
    assert inbox.project() == 1
    assert inbox.callbacks()[0].body is None
    assert inbox.work(1) == []


def test_what_was_released_can_be_over_while_a_backlog_before_it_waits(inbox):
    """A release is taken before a long backlog is through: its callback is done, and is found beyond it."""
    inbox.append([Arrival(body=b"%d" % number, received_at=1) for number in range(1, 10)])
    inbox.append([Arrival(body=b"held", received_at=1, trust=Trust.QUARANTINED)])
    inbox.release_quarantined(Selection(), 1)
    inbox.project()
    inbox.subscribe(["handler"], 1)
    assert inbox.enroll([WANTS_ALL], 1, limit=2) == (2, [])
    items = inbox.claim(["handler"], "owner", 1, lease_seconds=1, limit=10)
    inbox.settle([Outcome(item.id, "done") for item in items], "owner", 1)
    found = {state: [record.id for record in inbox.callbacks(Selection(state=state))] for state in State}
    assert {state: numbers for state, numbers in found.items() if numbers} == {
        "done": [1, 10],
        "pending": [*range(2, 10)],
    }
    assert [record.state for record in inbox.callbacks()] == ["done", *["pending"] * 8, "done"]


def plan(inbox, call):
    """Return the query plans of the statements that a call runs on the table of work."""
    statements = []
    inbox._connection.set_trace_callback(statements.append)
    call()
    inbox._connection.set_trace_callback(None)
    return [
        row[3]
        for sql in statements
        if "work" in sql and sql.lstrip().startswith(("SELECT", "UPDATE", "WITH"))
        for row in inbox._connection.execute(f"EXPLAIN QUERY PLAN {sql}")
    ]


def test_looking_for_work_does_not_read_what_is_done(inbox):
    """Finding due work searches an index of open work by subscriber; it reads neither done work nor others' backlog."""
    inbox.append([Arrival(body=bytes([n]), received_at=1) for n in range(20)])
    inbox.subscribe(["handler"], 1)
    inbox.enroll([WANTS_ALL], 1)
    items = inbox.claim(["handler"], "owner", 1, lease_seconds=1, limit=10)
    inbox.settle([Outcome(item.id, "done") for item in items], "owner", 1)
    steps = plan(inbox, lambda: inbox.claim(["handler", "gone"], "owner", 1, lease_seconds=1, limit=5))
    steps += plan(inbox, lambda: inbox.next_due(["handler"]))
    assert any("work_ready (subscriber=? AND due_at<?)" in step for step in steps)
    assert any("work_order (subscriber=? AND order_key>?)" in step for step in steps)
    assert not [step for step in steps if step.startswith("SCAN") and step != "SCAN orders"]


def test_looking_for_copies_searches_its_half_hours_only(inbox):
    """An append looks its digest up among those of three half hours, however many callbacks are stored."""
    appender = inbox.appender()
    statements = []
    appender._connection.set_trace_callback(statements.append)
    appender.stage([Arrival(body=b"x", received_at=1)] * 2)
    appender._connection.set_trace_callback(None)
    appender.rollback()
    details = [
        row[3]
        for sql in statements
        if "callbacks" in sql and "deliveries" not in sql
        for row in appender._connection.execute(f"EXPLAIN QUERY PLAN {sql}")
    ]
    appender.close()
    filed = [detail for detail in details if detail.startswith("SEARCH d ")]
    assert len(filed) >= 3
    assert all("(bucket=? AND head=?)" in search for search in filed)
    scans = {detail for detail in details if detail.startswith("SCAN")}
    assert not [scan for scan in scans if scan.split()[1] in {"c", "d", "callbacks", "digests"}]


class Failing:
    """A connection whose commit fails as a full disk makes it fail, once."""

    def __init__(self, connection):
        self._connection = connection
        self.failures = [sqlite3.OperationalError("disk I/O error")]

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def commit(self):
        if self.failures:
            raise self.failures.pop()
        self._connection.commit()


def test_a_commit_that_fails_keeps_nothing_and_can_be_tried_again(inbox):
    """A group whose commit failed is not stored in part, and the next group is stored."""
    appender = inbox.appender()
    appender._connection = Failing(appender._connection)
    appender.stage([Arrival(body=b"1", received_at=1)])
    with pytest.raises(StoreError, match="disk I/O error"):
        appender.commit()
    assert inbox.callbacks() == []
    (receipt,) = appender.stage([Arrival(body=b"1", received_at=1)])
    appender.commit()
    appender.close()
    assert receipt.is_new
    assert len(inbox.callbacks()) == 1


def test_an_arrival_that_cannot_be_staged_leaves_no_transaction(inbox):
    """A group of which one arrival cannot be written is not written at all, and the store is free again."""
    appender = inbox.appender()
    with pytest.raises(StoreError):
        appender.stage([Arrival(body=b"1", received_at=1), Arrival(body=b"2", received_at=1, peer=object())])
    assert [receipt.is_new for receipt in inbox.append([Arrival(body=b"1", received_at=1)])] == [True]
    appender.close()


def test_a_begin_that_fails_otherwise_is_not_waited_for(inbox):
    """Only a store that is busy is waited for; any other failure is reported at once."""
    appender = inbox.appender()
    appender.stage([])
    with pytest.raises(StoreError, match="within a transaction"):
        appender.unmark("segment")
    appender.close()


def test_turning_the_log_on_is_tried_again_while_another_process_does_it():
    """SQLite fails one of two processes that turn the log on together at once; the store's opening does not."""
    busy = sqlite3.OperationalError("database is locked")
    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
    other = sqlite3.OperationalError("disk I/O error")
    other.sqlite_errorcode = sqlite3.SQLITE_IOERR
    failures = [busy, busy]

    class Connection(sqlite3.Connection):
        def execute(self, sql, *args):
            if failures:
                raise failures.pop()
            return super().execute(sql, *args)

    with contextlib.closing(sqlite3.connect(":memory:", factory=Connection)) as connected:
        assert connection._write_ahead(connected) == "memory"
        failures.append(other)
        with pytest.raises(sqlite3.OperationalError, match="disk"):
            connection._write_ahead(connected)


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("again", [False, True], ids=["deleted", "replaced"])
def test_nothing_is_written_to_files_that_are_gone(inbox, tmp_path, suffix, again):
    """A store that was deleted or replaced while in use takes no arrival: it would be gone when its file is closed."""
    appender = inbox.appender()
    appender.stage([Arrival(body=b"1", received_at=1)])
    appender.commit()
    file = tmp_path / f"inbox.db{suffix}"
    file.rename(tmp_path / "elsewhere")
    if again:
        file.touch()
    for _ in range(2):
        with pytest.raises(StoreError, match="deleted or replaced"):
            appender.stage([Arrival(body=b"2", received_at=1)])
    file.unlink(missing_ok=True)
    (tmp_path / "elsewhere").rename(file)
    appender.stage([Arrival(body=b"3", received_at=1)])
    appender.commit()
    appender.close()
    assert [callback.body for callback in inbox.callbacks()] == [b"1", b"3"]


def test_a_token_for_an_account_whose_name_holds_a_space(inbox):
    """A generated token comes back with the account names that it was kept with."""
    for record in (TokenRecord("a", ("A 1", "A-2")), TokenRecord("b", ())):
        inbox.add_token(record, 0)
    assert inbox.tokens() == [TokenRecord("a", ("A 1", "A-2")), TokenRecord("b", ())]


@pytest.mark.parametrize("number", [1 << 70, -(1 << 70), 1 << 63, -(1 << 63)])
def test_numbers_that_sqlite_cannot_hold(inbox, number):
    """A number or a time that is too large for the store is one that nothing has, not an error."""
    inbox.append([Arrival(body=b"1", received_at=1)])
    for _ in range(2):
        assert inbox.callback(number) is None
        assert (inbox.work(number), inbox.deliveries(number)) == ([], [])
        assert inbox.callbacks(Selection(ids=(number,))) == []
        assert len(inbox.callbacks(Selection(after=number))) == (number < 0)
        assert len(inbox.callbacks(Selection(before=number))) == (number > 0)
        assert len(inbox.callbacks(Selection(since=number))) == (number < 0)
        assert len(inbox.callbacks(Selection(until=number))) == (number > 0)
        inbox.project()
