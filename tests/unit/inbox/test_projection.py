"""Bringing the read model forward: by several processes at once, and past what was taken out."""

from __future__ import annotations

import sqlite3

import pytest

from upcall.errors import StoreError
from upcall.inbox import Arrival, Selection, Trust, open_inbox
from upcall.inbox.sqlite import digests, projection
from upcall.testing import callback


@pytest.fixture
def inbox(tmp_path):
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as opened:
        yield opened


def report(number, **facts):
    body = callback(campaign_id="c1", devices={f"d{number}": "Accepted"}, **facts)
    return Arrival(body=body + b" " * number, received_at=1_800_000_000_000_000 + number)


def test_who_comes_second_drops_what_it_read(inbox, monkeypatch):
    """Where another process took the same callbacks in between, they are counted once; the loser says to go on."""
    inbox.append([report(n) for n in range(5)])
    others = []

    def parse(*facts, real=projection.projected_event):
        if not others:
            with open_inbox(str(inbox.path)) as other:
                others.append(None)
                others[0] = other.project()
        return real(*facts)

    monkeypatch.setattr(projection, "projected_event", parse)
    assert inbox.project() == 5
    assert others == [5]
    assert inbox.project() == 0
    assert inbox.campaign("c1")[0].callbacks == 5


def test_parsing_locks_nothing(inbox, monkeypatch):
    """While bodies are parsed a listener writes: the lock is taken for what was made of them only."""
    inbox.append([report(1)])

    def parse(*facts, real=projection.projected_event):
        inbox.append([report(2)])
        monkeypatch.undo()
        return real(*facts)

    monkeypatch.setattr(projection, "projected_event", parse)
    assert [inbox.project(), inbox.project(), inbox.project()] == [1, 1, 0]


def test_a_release_ahead_of_the_read_model_waits_for_it(inbox):
    """What was released is folded once, in the order of release, though the read model was far behind."""
    quarantined = [Arrival(body=report(n).body, received_at=n, trust=Trust.QUARANTINED) for n in (1, 2)]
    inbox.append([*quarantined, report(3), report(4)])
    inbox.release_quarantined(Selection(ids=(2,)), 9)
    inbox.release_quarantined(Selection(ids=(1,)), 9)
    assert [inbox.project(limit=1) for _ in range(7)] == [1, 1, 1, 1, 1, 1, 0]
    assert inbox.campaign("c1")[0].callbacks == 4
    assert inbox.campaign("c1")[0].first_at == 1


def test_dropped_bodies_are_told_apart_by_their_digests(inbox):
    """Callbacks whose bodies were dropped before they were read are not taken for copies of one another."""
    inbox.append([Arrival(body=bytes([n]), received_at=n, trust=Trust.QUARANTINED) for n in range(3)])
    inbox.drop_quarantined(Selection(), 9)
    inbox.project()
    assert {record.duplicate for record in inbox.callbacks()} == {"first"}
    assert [record.key for record in inbox.callbacks()] == [record.digest[:32] for record in inbox.callbacks()]


def test_what_cannot_be_opened_leaves_no_connection(inbox, monkeypatch):
    """An appender or an inbox that fails to open closes what it had opened, and says which store."""
    opened = []
    real = sqlite3.connect

    def connect(*args, **options):
        opened.append(real(*args, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", connect)
    monkeypatch.setattr(digests, "_LEAVE_OUT_COPIES", "CREATE nonsense")
    with pytest.raises(StoreError, match=r"inbox\.db cannot be used"):
        inbox.appender()
    inbox._connection.execute("PRAGMA user_version = 1")
    with pytest.raises(StoreError, match="has schema 1"):
        open_inbox(str(inbox.path))
    assert len(opened) == 2
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
