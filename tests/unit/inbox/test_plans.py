"""No question of the contract reads a whole table, however many rows it has: the plans say so, not the time."""

from __future__ import annotations

import itertools
import sqlite3

import pytest

from upcall.inbox import Lessee, Outcome, Retention, Selection, State, Subscription
from upcall.inbox.sqlite import deliveries

ROWS = 20_000
DAY = 86_400
LAST = 1_700_000_000_000_000 + ROWS * 60_000_000
EVERY = Subscription("handler", lambda event: [""])
ORDERED = Subscription("in-order", lambda event: [""], ordered=True)

SMALL = ("work_leased", "work_given_up", "work_open", "work_dead", "callbacks_quarantined", "callbacks_dropped")
"""Indexes that hold only what waits or what is wrong: to read one whole is to read a backlog, not the store."""

ASKED = {
    "newest": lambda inbox: inbox.callbacks(limit=50),
    "oldest": lambda inbox: inbox.callbacks(limit=50, oldest=True),
    "a page": lambda inbox: inbox.callbacks(Selection(before=9000), limit=50),
    "kind": lambda inbox: inbox.callbacks(Selection(kind="k1"), limit=50),
    "account": lambda inbox: inbox.callbacks(Selection(account="a1"), limit=50),
    "campaign": lambda inbox: inbox.callbacks(Selection(campaign_id="c1"), limit=50),
    "kind and account": lambda inbox: inbox.callbacks(Selection(kind="k1", account="a1"), limit=50),
    "times": lambda inbox: inbox.callbacks(Selection(since=LAST - 10**10, until=LAST - 10**9), limit=50),
    "times of a kind": lambda inbox: inbox.callbacks(Selection(kind="k1", until=LAST - 10**11), limit=50),
    "numbers": lambda inbox: inbox.callbacks(Selection(ids=(5, 6, 7))),
    "a handler's": lambda inbox: inbox.callbacks(Selection(subscriber="handler"), limit=50),
    **{
        f"state {state}": lambda inbox, state=state: inbox.callbacks(Selection(state=state), limit=50)
        for state in State
    },
    "dead of a kind": lambda inbox: inbox.callbacks(Selection(state=State.DEAD, kind="k1"), limit=50),
    "dead letters": lambda inbox: inbox.dead(limit=50),
    "dead letters of a kind": lambda inbox: inbox.dead(Selection(kind="k1"), limit=50),
    "enroll": lambda inbox: inbox.enroll([EVERY], LAST, limit=100),
    "enroll leased": lambda inbox: inbox.enroll([EVERY], LAST, lessee=Lessee("me", 1, {"handler": 9})),
    "claim": lambda inbox: inbox.claim(["handler", "in-order"], "me", LAST, lease_seconds=1, limit=100),
    "settle": lambda inbox: inbox.settle([Outcome(1, "done")], "me", LAST),
    "renew": lambda inbox: inbox.renew([1], "me", LAST, lease_seconds=1),
    "release": lambda inbox: inbox.release(["me"], LAST),
    "owners": lambda inbox: inbox.owners(),
    "next due": lambda inbox: inbox.next_due(["handler"]),
    "unsubscribe": lambda inbox: inbox.unsubscribe("in-order"),
    "subscribers": lambda inbox: inbox.subscribers(),
    "quarantined bytes": lambda inbox: inbox.quarantined_bytes(),
    "replay": lambda inbox: inbox.replay(Selection(kind="k1"), LAST, reason="again", limit=50),
    "drop dead": lambda inbox: inbox.drop_dead(Selection(account="a1"), LAST, limit=50),
    "release quarantined": lambda inbox: inbox.release_quarantined(Selection(account="a1"), LAST, limit=50),
    "drop quarantined": lambda inbox: inbox.drop_quarantined(Selection(), LAST, limit=50),
    "project": lambda inbox: inbox.project(),
    "bodies past their time": lambda inbox: inbox.prune(Retention(body_seconds=DAY), LAST),
    "records past their time": lambda inbox: inbox.prune(Retention(body_seconds=0, record_seconds=DAY), LAST),
    "forget": lambda inbox: inbox.forget("d1", LAST, after=100),
    "campaigns": lambda inbox: inbox.campaigns(limit=20),
    "a campaign": lambda inbox: inbox.campaign("c1"),
    "work": lambda inbox: inbox.work(5),
    "deliveries": lambda inbox: inbox.deliveries(5),
    "last listed": lambda inbox: inbox.last_listed("a1"),
}


def reads(inbox, question):
    """Return the steps by which SQLite answers a question."""
    statements = []
    inbox._connection.set_trace_callback(statements.append)
    question(inbox)
    inbox._connection.set_trace_callback(None)
    asked = [sql for sql in statements if sql.lstrip().startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE"))]
    assert asked
    return reads_of(inbox, *asked)


def reads_of(inbox, *asked):
    """Return the steps by which SQLite carries out statements."""
    plans = sqlite3.connect(inbox.path)
    try:
        return [(sql, row[3]) for sql in asked for row in plans.execute(f"EXPLAIN QUERY PLAN {sql}")]
    finally:
        plans.close()


def whole_tables(steps):
    """Return the steps that read a table, or a large index of one, from its beginning to its end or nearly."""
    scans = tuple(f"SCAN {name}" for name in LARGE)
    return [
        (step, sql)
        for sql, step in steps
        if (step.startswith(scans) and not step.endswith(SMALL)) or "work_1 (callback_id>?" in step
    ]


LARGE = ("callbacks", "c ", "work", "w ", "events", "e ", "deliveries", "d ", "devices", "replays", "r ")


@pytest.mark.parametrize("question", ASKED)
def test_no_question_reads_a_whole_table(filled, question):
    """Each question goes by an index, or by numbers, to the rows that it is about."""
    inbox = filled(2000)
    inbox.subscribe(["in-order"], 1)
    inbox.enroll([EVERY, ORDERED], LAST, limit=50)
    assert whole_tables(reads(inbox, ASKED[question])) == []


def test_a_whole_table_would_be_noticed(filled):
    """The ledger, which may read everything, is found out by the same look."""
    assert whole_tables(reads(filled(2000), lambda inbox: inbox.ledger()))


@pytest.mark.parametrize("filters", [{"kind": "k1"}, {"account": "a1"}, {"campaign_id": "c1"}], ids=str)
def test_a_page_of_what_callbacks_say_is_read_in_order(filled, filters):
    """What callbacks say leads to them in the order of receipt: a page is read, and nothing is sorted."""
    steps = reads(filled(2000), lambda inbox: inbox.callbacks(Selection(**filters), limit=50))
    assert not [step for sql, step in steps if "B-TREE" in step]
    assert [step for sql, step in steps if f"events_{next(iter(filters)).removesuffix('_id')} (" in step]


def test_times_lead_to_a_range_of_numbers(filled):
    """Of a store of many days only the half hours that are asked for are read."""
    inbox = filled(ROWS)
    found = inbox.callbacks(Selection(since=LAST - 3_600_000_000, until=LAST - 1_800_000_000))
    assert [record.id for record in found] == list(range(ROWS - 60, ROWS - 30))
    selection = Selection(since=LAST - 3_600_000_000, until=LAST - 1_800_000_000)
    first, last = inbox._views._finder._span(selection, ROWS)
    assert ROWS - 100 < first <= last <= ROWS


def test_the_rarer_of_two_things_said_leads(filled):
    """Of two filters the one that fewer callbacks pass is gone by, however common the other is."""
    inbox = filled(2000)
    rare = inbox._views._finder._rarest({"account": "a1", "kind": "k1"}, 1, 2000)
    none = inbox._views._finder._rarest({"account": "a1", "kind": "none"}, 1, 2000)
    assert (rare, none) == ("kind", "kind")
    assert inbox._views._finder._rarest({"account": "none", "kind": "k1"}, 1, 2000) == "account"
    steps = reads(inbox, lambda inbox: inbox.callbacks(Selection(account="a1", kind="none"), limit=50))
    assert [step for sql, step in steps if "events_kind (" in step and "DISTINCT" in sql]


@pytest.mark.parametrize("stands_at", [0, ROWS])
def test_a_page_of_a_state_is_found_quickly_wherever_the_handlers_stand(filled, stands_at):
    """Whether a handler stands still while callbacks come, or all have looked, few steps lead to a page of a state."""
    inbox = filled(ROWS)
    inbox.subscribe(["other"], 1)
    inbox._connection.execute("UPDATE subscribers SET cursor = ?", (stands_at,))
    inbox._connection.commit()
    for state, oldest in itertools.product(set(State) - {State.STORED}, (True, False)):
        thousands = []
        inbox._connection.set_progress_handler(lambda done=thousands: done.append(1), 1000)
        inbox.callbacks(Selection(state=state), limit=20, oldest=oldest)
        assert len(thousands) < 10, (state, oldest)


def test_counts_of_a_long_backlog_are_those_of_counting(filled, monkeypatch):
    """A backlog that is counted by its numbers is as long as one that is counted row by row."""
    inbox = filled(2000)
    inbox.subscribe(["new"], 1)
    inbox._connection.execute("UPDATE subscribers SET cursor = 50, name = 'late' WHERE name = 'new'")
    inbox.release_quarantined(Selection(before=1000), 1, limit=3)
    inbox.drop_quarantined(Selection(after=1000), 1, limit=4)
    counted = inbox.subscribers()
    monkeypatch.setattr("upcall.inbox.sqlite.counts.EXACT_ROWS", 10)
    assert inbox.subscribers() == counted
    assert counted[1].unread == 1950 - 20 + 3


@pytest.mark.parametrize("is_listed", [0, 1, None])
def test_the_last_listed_delivery_is_found_among_the_newest(filled, is_listed):
    """However many of an account's callbacks came from who knows where, a bounded number of them is read."""
    inbox = filled(ROWS)
    inbox._connection.execute("UPDATE callbacks SET listed = ?", (is_listed,))
    inbox._connection.execute("UPDATE events SET account = 'a'")
    found = []
    inbox._connection.set_trace_callback(found.append)
    last = inbox.last_listed("a")
    inbox._connection.set_trace_callback(None)
    assert (last is not None) == (is_listed == 1)
    bounded = [sql for sql in found if f"LIMIT {deliveries.LOOKED_AT}" in sql]
    assert len(bounded) == 2
    steps = [step for sql in bounded for _, step in reads_of(inbox, sql)]
    assert any("events_account (account=?" in step for step in steps)
    assert not [step for step in steps if "B-TREE" in step]


@pytest.mark.parametrize(
    ("question", "index"),
    [
        (lambda inbox: inbox.uptimes(since=LAST), "USING INDEX upcall_uptimes_last (last_at>?)"),
        (
            lambda inbox: inbox.journal("guard", account="a1", since=5, limit=9),
            "USING INDEX upcall_journal_topic (topic=?)",
        ),
        (lambda inbox: inbox.notes("guard"), "USING PRIMARY KEY (topic=?)"),
    ],
    ids=["uptimes", "journal", "notes"],
)
def test_what_the_registration_room_keeps_is_found_by_an_index(filled, question, index):
    """What is asked of the journal, the notes and the uptimes leads to their rows."""
    assert [step for sql, step in reads(filled(100), question) if step.startswith("SEARCH") and step.endswith(index)]


def test_repeat_intervals_are_read_from_the_newest_deliveries(filled):
    """Only as many deliveries are read as are asked for, however many there are."""
    inbox = filled(ROWS)
    inbox._connection.execute(
        "INSERT INTO deliveries (callback_id, received_at, peer, token_id, answer)"
        " SELECT id, received_at + 60000000, '', '', 200 FROM callbacks"
    )
    thousands = []
    inbox._connection.set_progress_handler(lambda: thousands.append(1), 1000)
    assert inbox.repeat_intervals(limit=100) == [60_000_000] * 100
    assert inbox.repeat_intervals(since=LAST, limit=ROWS) == [60_000_000] * 2
    assert len(thousands) < 10
