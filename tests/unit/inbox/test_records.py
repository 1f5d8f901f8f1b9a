"""What the registration room keeps in an SQLite store, beyond the contract."""

from __future__ import annotations

import sqlite3

import pytest

from upcall.errors import StoreError
from upcall.inbox import Arrival, JournalEntry, Note, Retention, Subscription, TokenRecord, Uptime, open_inbox
from upcall.inbox.sqlite import deliveries
from upcall.testing import callback

NOW = 1_800_000_000_000_000
DAY = 86_400_000_000
ACCOUNT = "0000000001-00001"
UPTIME = Uptime(listener="a", began_at=1, last_at=2)


@pytest.fixture
def inbox(tmp_path):
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as opened:
        yield opened


def levels(inbox, act):
    """Return the levels of `PRAGMA synchronous` that something commits with, and the one that it leaves."""
    found = []

    def note(sql):
        if sql.startswith("COMMIT"):
            found.append(level[-1])
        elif sql.startswith("PRAGMA synchronous ="):
            level.append(sql.split()[-1])

    (before,) = inbox._connection.execute("PRAGMA synchronous").fetchone()
    level = [str(before)]
    inbox._connection.set_trace_callback(note)
    act()
    inbox._connection.set_trace_callback(None)
    assert inbox._connection.execute("PRAGMA synchronous").fetchone() == (before,)
    return found


def report(inbox, device_id, callback_id):
    inbox._connection.execute(
        "INSERT INTO upcall_reported (campaign_id, device_id, state, account, callback_id)"
        " VALUES ('c', ?, 's', 'a', ?)",
        (device_id, callback_id),
    )


def reported(inbox):
    return inbox._connection.execute("SELECT device_id, callback_id FROM upcall_reported ORDER BY 1").fetchall()


def test_a_heartbeat_does_not_wait_for_the_disk(inbox):
    """A beat leaves it to the next callback's commit to reach the disk: the listener is not held up by it."""
    assert levels(inbox, lambda: inbox.beat(UPTIME)) == ["NORMAL"]


def test_a_heartbeat_that_fails_leaves_the_connection_as_it_was(inbox):
    """After a beat that could not be kept the connection's commits wait for the disk as before."""
    inbox._connection.execute("DROP TABLE upcall_uptimes")
    with pytest.raises(StoreError):
        inbox.beat(UPTIME)
    assert inbox._connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_an_entry_is_on_disk(tmp_path, inbox):
    """What is recorded for an audit waits for the disk even where a worker's commits do not."""
    with open_inbox(str(tmp_path / "inbox.db"), relaxed=True) as relaxed:
        assert levels(relaxed, lambda: relaxed.record(JournalEntry(topic="registration", at=1))) == ["FULL"]
    assert len(inbox.journal("registration")) == 1


def test_what_was_reported_goes_with_its_callback(inbox):
    """Retention removes what was reported with the callback that said so, and leaves the rest."""
    inbox.append([Arrival(body=callback(campaign_id="c"), received_at=at) for at in (NOW, NOW + DAY)])
    report(inbox, "d1", 1)
    report(inbox, "d2", 2)
    inbox.project()
    inbox.subscribe(["handler"], NOW)
    inbox.enroll([Subscription("handler", lambda event: [])], NOW)
    retention = Retention(body_seconds=60, record_seconds=3600)
    while inbox.prune(retention, NOW + DAY).more:
        pass
    assert reported(inbox) == [("d2", 2)]
    assert inbox.check() == []


def test_what_was_reported_of_a_device_is_forgotten(inbox):
    """A device that is forgotten is forgotten in what the provider reported of it too, also with the last step only."""
    inbox.append([Arrival(body=b"%d" % number, received_at=NOW) for number in range(5)])
    for device_id in ("356938035643809", "356938035643817"):
        report(inbox, device_id, 1)
    step = inbox.forget("356938035643809", NOW, limit=2)
    assert reported(inbox) == [("356938035643817", 1)]
    report(inbox, "356938035643809", 1)
    while step.next_id is not None:
        step = inbox.forget("356938035643809", NOW, after=step.next_id, limit=2)
    assert reported(inbox) == [("356938035643817", 1)]


def test_a_copy_and_what_is_restored_have_it_all(tmp_path, inbox):
    """A backup holds the lives of tokens, uptimes, the journal and notes."""
    inbox.add_token(TokenRecord("a", (ACCOUNT,), state="retiring", retire_at=NOW), 1)
    inbox.beat(UPTIME)
    inbox.record(JournalEntry(topic="guard", at=1))
    inbox.put_note(Note(topic="guard", key="a", at=1))
    inbox.backup(tmp_path / "copy.db")
    with open_inbox(str(tmp_path / "copy.db")) as copy:
        assert copy.tokens() == [TokenRecord("a", (ACCOUNT,), state="retiring", retire_at=NOW, created_at=1)]
        assert copy.uptimes() == [UPTIME]
        assert (len(copy.journal("guard")), len(copy.notes("guard"))) == (1, 1)


def test_a_tokens_end_is_kept_once(inbox):
    """When a token was retired is known for good: to retire it again does not move that, to revive it does."""

    def retired_at():
        return inbox._connection.execute("SELECT retired_at FROM tokens").fetchone()[0]

    inbox.add_token(TokenRecord("a", ()), 1)
    seen = []
    for state, now in (("retiring", 2), ("retired", 3), ("retired", 4), ("live", 5)):
        inbox.set_token("a", state=state, retire_at=None, now=now)
        seen.append(retired_at())
    assert seen == [None, 3, 3, None]


def test_a_state_that_is_none_is_told(tmp_path, inbox):
    """A token in a state that no release knows is trouble that `check` names, without the token."""
    inbox.add_token(TokenRecord("s" * 32, ()), 1)
    other = sqlite3.connect(tmp_path / "inbox.db")
    with other:
        other.execute("UPDATE tokens SET state = 'lost'")
    other.close()
    assert inbox.check() == ["a token has state 'lost', which is none"]


def test_the_last_listed_delivery_among_very_many(inbox, monkeypatch):
    """Of more callbacks than are looked at the older ones are not: then nothing is known, until another one comes."""
    monkeypatch.setattr(deliveries, "LOOKED_AT", 3)
    inbox.append([Arrival(body=b"0", received_at=NOW, listed=True, account=ACCOUNT)])
    inbox.append([Arrival(body=b"%d" % number, received_at=NOW, account=ACCOUNT) for number in range(1, 4)])
    inbox.project()
    assert inbox.last_listed(ACCOUNT) is None
    inbox.append([Arrival(body=b"4", received_at=NOW, listed=True, account=ACCOUNT)])
    assert inbox.last_listed(ACCOUNT) is not None
