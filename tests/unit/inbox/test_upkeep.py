"""Retention, forgetting and checking of an SQLite store, beyond the contract."""

from __future__ import annotations

import json
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.inbox import Arrival, Outcome, Retention, Selection, Subscription, open_inbox
from upcall.inbox.blanking import Blank
from upcall.testing import callback

DAY = 86_400_000_000
NOW = 1_800_000_000_000_000
EVERY = Subscription("handler", lambda event: [""])
DEVICES = Subscription("devices", lambda event: [device.device_id for device in event.devices])
IMEI = "356938035643809"


@pytest.fixture
def inbox(tmp_path):
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as opened:
        yield opened


def pruned(inbox, now, **days):
    steps = []
    retention = Retention(**{f"{name}_seconds": count * 86_400 for name, count in days.items()})
    while not steps or steps[-1].more:
        steps.append(inbox.prune(retention, now, limit=100))
    return steps


def test_what_has_to_stay_is_passed_over_once(filled):
    """A series of steps looks at what stays once: the next step begins where the last one ended."""
    inbox = filled(20_000, micros_apart=60_000_000)
    statements = []
    inbox._connection.set_trace_callback(statements.append)
    steps = pruned(inbox, 1_700_000_000_000_000 + 20_000 * 60_000_000 + DAY, body=2, record=400)
    inbox._connection.set_trace_callback(None)
    assert sum(step.bodies for step in steps) > 15_000
    assert len({step.kept for step in steps}) == 1
    assert sum("SELECT count(*)" in sql for sql in statements) == 2
    looks = [sql.split("AND e.received_at <")[0] for sql in statements if "body_gone = " in sql and "LIMIT" in sql]
    assert len(looks) > 300
    assert len(set(looks)) <= len(steps) + 4
    assert inbox.check() == []


def test_what_ended_between_two_steps_goes_in_the_same_series(filled):
    """A callback that had to stay when the steps passed it, and need not any more, is not forgotten by them."""
    inbox = filled(1000)
    inbox._connection.execute("UPDATE callbacks SET trust = 'accepted'")
    last = 1_700_000_000_000_000 + 1000 * 60_000_000
    assert inbox.prune(Retention(body_seconds=0), last, limit=10).more
    inbox._connection.execute("UPDATE work SET state = 'done'")
    pruned(inbox, last, body=0)
    assert inbox.callback(2).body is None


def test_whole_callbacks_go_with_and_without_their_bodies(filled):
    """A step that is full of callbacks without a body leaves those with one to the next, and none out."""
    inbox = filled(1000)
    inbox._connection.execute("DELETE FROM work WHERE state <> 'done'")
    inbox._connection.execute("UPDATE callbacks SET trust = 'accepted'")
    inbox._connection.execute("UPDATE callbacks SET body = NULL WHERE id <= 200")
    inbox._connection.execute("UPDATE events SET body_gone = 1 WHERE callback_id <= 200")
    steps = pruned(inbox, NOW * 2, body=0, record=0)
    assert [step.callbacks for step in steps] == [100] * 9
    assert len(inbox.callbacks()) == 100


def test_another_retention_begins_again(filled):
    """Steps of one retention do not hide from another what they had passed."""
    inbox = filled(1000)
    last = 1_700_000_000_000_000 + 1000 * 60_000_000
    assert inbox.prune(Retention(body_seconds=0), last, limit=10).more
    assert inbox.prune(Retention(body_seconds=600), last, limit=10).bodies == 10
    assert inbox.prune(Retention(body_seconds=0, record_seconds=3600), last, limit=2000).callbacks > 800


def test_small_steps_remove_a_campaign_with_very_many_devices(inbox):
    """A campaign's devices go some at a time, and the campaign with the last of them."""
    inbox.append([Arrival(body=callback(devices={f"d{n}": "Accepted" for n in range(5000)}), received_at=NOW)])
    inbox.project()
    steps = pruned(inbox, NOW + 500 * DAY, body=90, record=400)
    assert [step.campaigns for step in steps] == [0, 0, 1]
    assert inbox.campaigns() == []
    assert inbox._connection.execute("SELECT count(*) FROM devices").fetchone() == (0,)


def test_half_hours_that_are_gone_are_forgotten(filled):
    """The table that turns times into numbers shrinks with the callbacks."""
    inbox = filled(2000)
    inbox._connection.execute("DELETE FROM work WHERE state <> 'done'")
    inbox._connection.execute("UPDATE callbacks SET trust = 'accepted'")
    pruned(inbox, NOW * 2, body=0, record=0)
    (left,) = inbox._connection.execute("SELECT count(*) FROM spans").fetchone()
    assert [record.id for record in inbox.callbacks()] == list(range(1901, 2001))
    assert left <= 5


@pytest.mark.parametrize(
    ("body", "blanked"),
    [
        (b'{"deviceId":"356938035643809"}', b'{"deviceId":"***************"}'),
        (b'{"deviceId": 356938035643809 }', b'{"deviceId": *************** }'),
        (b'{"deviceId":"\\u0033569380356\\u00343809"}', b'{"deviceId":"' + b"*" * 25 + b'"}'),
        (b'["3569380356438091","1356938035643809","x356938035643809"]', None),
        (b"\xff\xfe356938035643809\x00", b"\xff\xfe***************\x00"),
        (b"356938035643809,356938035643809", b"***************,***************"),
    ],
)  # fmt: skip
def test_an_identifier_is_blanked_where_it_stands_alone(inbox, body, blanked):
    """Every other byte stays, longer identifiers too; escapes and numbers are found, and broken bytes survive."""
    inbox.append([Arrival(body=body, received_at=NOW)])
    assert inbox.forget(IMEI, NOW).bodies == (blanked is not None)
    assert len(inbox.callback(1).body) == len(body)
    assert inbox.callback(1).body == (body if blanked is None else blanked)
    assert inbox.check() == []


@given(device=st.text(min_size=1, max_size=12), other=st.text(max_size=12))
def test_any_identifier_is_found_as_json_writes_it(device, other):
    """Whatever characters an identifier has, a body that JSON wrote with it names it no more, and is as long."""
    body = json.dumps({"a": other, "deviceId": device, "b": [device]}, ensure_ascii=False).encode("utf-8", "replace")
    blanked = Blank(device).bytes(body)
    assert len(blanked) == len(body)
    if device.isalnum() and device.isascii() and device not in {"a", "b", "deviceId"}:
        said = json.loads(blanked)
        assert said["deviceId"] == said["b"][0] == "*" * len(device)


def test_what_handlers_failed_with_names_the_device_no_more(inbox):
    """An identifier goes from tracebacks and from what was kept of them at a replay; other work stays."""
    inbox.append([Arrival(body=callback(devices={IMEI: "Accepted", "other": "Accepted"}), received_at=NOW)])
    inbox.project()
    inbox.subscribe(["handler", "devices"], NOW)
    inbox.enroll([EVERY, DEVICES], NOW)
    items = inbox.claim(["handler", "devices"], "me", NOW, lease_seconds=9, limit=9)
    inbox.settle([Outcome(item.id, "dead", error=f"no {IMEI} here") for item in items], "me", NOW)
    inbox.replay(Selection(subscriber="handler"), NOW, reason="again")
    assert inbox.forget(IMEI, NOW).work == 1
    (other, whole) = inbox.work(1)
    assert (other.device_id, other.error) == ("other", f"no {'*' * 15} here")
    assert whole.replays[0].error == f"no {'*' * 15} here"
    assert inbox.check() == []


def test_no_file_of_the_store_holds_what_was_forgotten(inbox, tmp_path):
    """After the last step neither the store nor its log holds the identifier's bytes."""
    for number in range(50):
        body = callback(campaign_id=f"c{number}", devices={IMEI: "Accepted"})
        inbox.append([Arrival(body=body, received_at=NOW + number)])
    while inbox.project():
        pass
    inbox.subscribe(["devices"], NOW)
    inbox.enroll([DEVICES], NOW)
    step = inbox.forget(IMEI, NOW, limit=20)
    while step.next_id is not None:
        step = inbox.forget(IMEI, NOW, after=step.next_id, limit=20)
    for file in tmp_path.iterdir():
        assert IMEI.encode() not in file.read_bytes(), file
    assert inbox.check() == []


def test_looking_for_a_device_that_is_nowhere_writes_nothing(filled):
    """Steps that find nothing take no lock: a listener is not held up by them."""
    inbox = filled(500)
    other = sqlite3.connect(inbox.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert inbox.forget(IMEI, NOW, limit=100).next_id == 100
    other.rollback()
    other.close()


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        ("UPDATE callbacks SET body = x'ff' WHERE id = 1", "the body of callback 1 is not the one that was received"),
        ("UPDATE callbacks SET trust = 'odd' WHERE id = 1", "callback 1 has trust 'odd', which is none"),
        ("UPDATE work SET state = 'odd' WHERE id = 1", "work 1 has state 'odd', which is none"),
        ("UPDATE work SET state = 'leased' WHERE id = 1", "work 1 is leased to nobody"),
        ("UPDATE work SET callback_id = 99 WHERE id = 1", "work 1 is for callback 99, which is not there"),
        ("UPDATE subscribers SET cursor = 99", "subscriber handler stands at callback 99, and there are 3"),
        ("UPDATE cursors SET position = 99", "the read model stands at callback 99, and there are 3"),
        ("DELETE FROM events WHERE callback_id = 2", "callback 2 is behind the read model, but not in it"),
        ("INSERT INTO replays VALUES (1, 77, 0, '', '', 0, '')", "a replay of work 77, which is not there"),
        ("INSERT INTO releases VALUES (1, 77, 0)", "a release of callback 77, which is not there"),
        ("INSERT INTO deliveries VALUES (1, 77, 0, '', '', 1, '', 0)", "deliveries of callback 77, which is not there"),
        ("DELETE FROM callbacks WHERE id = 3", "an event of callback 3, which is not there"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(inbox, sql, line):
    """Each way in which rows can disagree is found, and named with their numbers."""
    inbox.append([Arrival(body=bytes([n]), received_at=NOW) for n in range(3)])
    inbox.project()
    inbox.subscribe(["handler"], NOW)
    inbox.enroll([EVERY], NOW)
    assert inbox.check() == []
    inbox._connection.execute(sql)
    assert line in inbox.check()


def test_many_wrong_bodies_are_counted(inbox):
    """A store full of trouble is told in a few lines."""
    inbox.append([Arrival(body=b"%d" % n, received_at=NOW) for n in range(100)])
    inbox._connection.execute("UPDATE callbacks SET body = x'00'")
    lines = inbox.check()
    assert lines[-1] == "so are the bodies of 80 more"
    assert len(lines) == 21


def test_a_damaged_file_is_named(inbox, tmp_path):
    """Pages that are not what SQLite wrote are found and said to be damage."""
    inbox.append([Arrival(body=b"%d" % n * 500, received_at=NOW) for n in range(200)] * 2)
    inbox.close()
    path = tmp_path / "inbox.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA writable_schema = ON")
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'deliveries_of'").fetchone()
    connection.close()
    content = bytearray(path.read_bytes())
    content[(root - 1) * 4096 + 100 : root * 4096] = b"\x55" * 3996
    path.write_bytes(content)
    with open_inbox(str(path)) as damaged:
        assert any("the file is damaged" in line for line in damaged.check())
