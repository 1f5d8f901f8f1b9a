"""Reports in an SQLite store while a listener and workers write to it: who comes in between, and what a disk does."""

from __future__ import annotations

import sqlite3

import pytest

from upcall.errors import StoreError
from upcall.inbox import Arrival, Reported, Subscription, open_inbox
from upcall.inbox.sqlite import append, reported
from upcall.testing import callback

NOW = 1_800_000_000_000_000
ACCOUNT = "0000123456-00001"
WHOLE = Subscription("whole", lambda event: [""])
DEVICES = Subscription("devices", lambda event: [device.device_id for device in event.devices])


def body(device_id="d1", status="UpgradeSuccess"):
    return callback(campaign_id="c1", account=ACCOUNT, devices={device_id: status})


def report(device_id="d1", status="UpgradeSuccess"):
    return Reported(
        account=ACCOUNT, campaign_id="c1", device_id=device_id, status=status, body=body(device_id, status) + b" "
    )


def real(device_id="d1", status="UpgradeSuccess", *, spaces=0):
    return Arrival(body=body(device_id, status) + b" " * spaces, received_at=NOW)


@pytest.fixture
def inbox(tmp_path):
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as opened:
        yield opened
        append._doubtful.clear()


@pytest.fixture
def listener(inbox):
    with open_inbox(str(inbox.path)) as opened:
        yield opened


def after_each_look(inbox, monkeypatch, happens):
    """Let something happen each time that the read model has been brought up, before the transaction begins."""
    projection = inbox._reports._projection
    catch_up = projection.catch_up

    def caught_up():
        catch_up()
        happens()

    monkeypatch.setattr(projection, "catch_up", caught_up)


def test_what_comes_before_the_transaction_is_known_in_it(inbox, listener, monkeypatch):
    """A real callback that comes after the read model's last step is decided by all the same."""
    after_each_look(inbox, monkeypatch, lambda: listener.append([real()]))
    assert inbox.append_reported([report(), report("d2")], NOW) == [None, 2]
    assert [record.origin for record in inbox.callbacks()] == ["received", "reconciled"]


def test_a_burst_before_the_transaction_is_read_outside_of_it(inbox, listener, monkeypatch):
    """Where more came than a transaction should read, nothing is kept, and it begins again."""
    monkeypatch.setattr(reported, "MOST_BEHIND", 2)
    bursts = [[real(spaces=n) for n in range(3)], [real("d3")]]
    looks = []

    def burst():
        looks.append([record.origin for record in listener.callbacks()])
        if bursts:
            listener.append(bursts.pop(0))

    after_each_look(inbox, monkeypatch, burst)
    assert inbox.append_reported([report(), report("d2")], NOW) == [None, 5]
    assert looks == [[], ["received"] * 3]


def test_a_listener_that_is_always_quicker(inbox, listener, monkeypatch):
    """Who cannot catch up says so and keeps nothing; the store is free again."""
    monkeypatch.setattr(reported, "MOST_BEHIND", 0)
    monkeypatch.setattr(reported, "TRIES", 3)
    came = iter(range(100))
    after_each_look(inbox, monkeypatch, lambda: listener.append([real("d3", spaces=next(came))]))
    with pytest.raises(StoreError, match="faster than they can be read"):
        inbox.append_reported([report()], NOW)
    assert [record.origin for record in inbox.callbacks()] == ["received"] * 3
    assert listener.append([real("d4")])[0].is_new


@pytest.mark.parametrize("relaxed", [True, False])
def test_what_is_reported_is_on_disk(inbox, monkeypatch, relaxed):
    """Its commit waits for the disk, whatever the inbox was opened for, and no other commit does for that."""
    levels = []

    def commit(connection, path, real_one=append.commit_to_disk):
        levels.append(connection.execute("PRAGMA synchronous").fetchone()[0])
        real_one(connection, path)

    monkeypatch.setattr(reported, "commit_to_disk", commit)
    with open_inbox(str(inbox.path), relaxed=relaxed) as worker:
        worker.append_reported([report()], NOW)
        assert levels == [2]
        assert worker._connection.execute("PRAGMA synchronous").fetchone()[0] == (1 if relaxed else 2)


class Failing:
    """A connection whose commit the disk fails."""

    def __init__(self, connection):
        self._connection = connection

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def commit(self):
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error


def test_a_disk_that_fails(inbox, monkeypatch):
    """Nothing is kept where the disk fails, nor is the store trusted before its log was written again."""
    reports = inbox._reports
    monkeypatch.setattr(reports, "_connection", Failing(reports._connection))
    with pytest.raises(StoreError, match="disk I/O error"):
        inbox.append_reported([report()], NOW)
    monkeypatch.undo()
    assert inbox.callbacks() == []
    written = []
    monkeypatch.setattr(append, "write_again", written.append)
    assert inbox.append_reported([report()], NOW) == [1]
    assert inbox.append_reported([report("d2")], NOW) == [2]
    assert written == [inbox.path]


def test_two_that_reconcile_at_once(inbox, listener, monkeypatch):
    """Of two processes that report the same one keeps it."""
    after_each_look(inbox, monkeypatch, lambda: listener.append_reported([report(), report("d2")], NOW))
    assert inbox.append_reported([report(), report("d3")], NOW) == [None, 3]


def statements(inbox, act):
    found = []
    inbox._connection.set_trace_callback(found.append)
    try:
        act()
    finally:
        inbox._connection.set_trace_callback(None)
    return found


def test_where_nothing_was_reported_enrolling_looks_once(inbox):
    """As long as nothing was reported a batch costs one look, however much is in it."""
    inbox.append([real(f"d{n}") for n in range(50)])
    inbox.subscribe(["whole", "devices"], NOW)
    asked = statements(inbox, lambda: inbox.enroll([WHOLE, DEVICES], NOW))
    assert sum("upcall_reported" in statement for statement in asked) == 1


def test_a_campaign_of_which_nothing_was_reported_is_asked_about_once(inbox):
    """Callbacks of other campaigns than the reported ones cost a look a campaign."""
    inbox.append(
        [Arrival(body=callback(campaign_id="c2", devices={f"d{n}": "Odd"}), received_at=NOW) for n in range(9)]
    )
    inbox.append_reported([report()], NOW)
    inbox.subscribe(["whole"], NOW)
    asked = statements(inbox, lambda: inbox.enroll([WHOLE], NOW))
    assert sum("upcall_reported" in statement for statement in asked) == 3


def test_no_look_reads_the_whole_table(inbox):
    """What merges is found by its key, in however long a table."""
    inbox.subscribe(["whole", "devices"], NOW)
    inbox.append_reported([report(f"d{n}") for n in range(500)], NOW)
    inbox.append([real(), Arrival(body=b'{"type":"upgradeProgress","id":"c1","status":"Ended"}', received_at=NOW)])
    asked = statements(inbox, lambda: inbox.enroll([WHOLE, DEVICES], NOW, limit=1000))
    asked += statements(inbox, lambda: inbox.append_reported([report("d9", "UpgradeFailed")], NOW))
    plans = [
        row[3]
        for statement in asked
        if "upcall_reported" in statement and "WHERE" in statement  # the other one asks whether there is any
        for row in inbox._connection.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]
    assert len(plans) > 4
    assert [plan for plan in plans if "SCAN" in plan] == []


def test_a_report_that_comes_while_subscribers_are_asked(inbox, listener):
    """A callback that was read before the report is handed on: nobody has been told by the report yet."""
    numbers = []

    def wants(event):
        if not numbers:
            # Of two words that no order is known of, the last stands: both are news to what callbacks tell.
            listener.append([real(status="Another", spaces=3)])
            numbers.extend(listener.append_reported([report(status="Odd word")], NOW))
        return [""]

    inbox.subscribe(["whole"], NOW)
    inbox.append([real(status="Odd word", spaces=1)])
    subscription = Subscription("whole", wants)
    while inbox.enroll([subscription], NOW)[0]:
        pass
    assert [(work.state, work.merged_with) for n in (1, 2, 3) for work in inbox.work(n)] == [("pending", None)] * 3
    assert numbers == [3]


def test_two_workers_of_one_subscriber(inbox, listener):
    """Where another worker was quicker the late callback is merged once, and its repeat is not."""
    inbox.subscribe(["whole"], NOW)
    inbox.append_reported([report()], NOW)
    inbox.append([real(spaces=1), real(spaces=2)])

    def wants(event):
        listener.enroll([WHOLE], NOW)
        return [""]

    inbox.enroll([Subscription("whole", wants)], NOW)
    found = [[(work.state, work.merged_with) for work in inbox.work(n)] for n in (1, 2, 3)]
    assert found == [[("pending", None)], [("done", 1)], [("pending", None)]]


def test_a_device_forgotten_while_subscribers_are_asked(inbox, listener):
    """Where the report is gone when the work is made, the callback is handed on."""
    inbox.subscribe(["whole"], NOW)
    inbox.append_reported([report("100000000000001")], NOW)
    inbox.enroll([WHOLE], NOW)
    inbox.append([real("100000000000001")])

    def wants(event):
        listener.forget("100000000000001", NOW)
        return [""]

    inbox.enroll([Subscription("whole", wants)], NOW)
    assert [(work.state, work.merged_with) for work in inbox.work(2)] == [("pending", None)]
