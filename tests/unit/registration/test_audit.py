"""The audit: what is written there, and what is concluded from it."""

import threading

import pytest

from upcall.inbox import JournalEntry, TokenRecord, open_inbox
from upcall.registration import Audit, History, read_desired, read_elsewhere
from upcall.registration.audit import TOPIC, operator
from upcall.registration.outages import STALE_SECONDS
from upcall.settings import Account

A, B = "0000123456-00001", "0000123456-00002"
ONE, TWO = "https://fleet.example/one", "https://fleet.example/two"


@pytest.fixture
def inbox(tmp_path):
    with open_inbox(f"sqlite:///{tmp_path / 'inbox.db'}", create=True) as opened:
        yield opened


@pytest.fixture
def audit(inbox):
    return Audit(inbox, "apply", now=lambda: 1_000, who="ann@host")


def write(audit, account, outcome, *, before=None, after=ONE, **more):
    action = "deregister" if after is None else "register"
    writing = audit.begun(account, action, before=before, after=after, credentials="east")
    if outcome is not None:
        writing.ended(outcome, **more)


def test_each_write_says_who_what_when_before_after_and_how_it_ended(inbox, audit):
    """The audit alone tells what was done: one entry before the write, one after it."""
    write(audit, A, "differs", before=TWO, stands="https://another.example/x")
    begun, ended = inbox.journal(TOPIC)
    assert (begun.account, begun.at) == (A, 1_000)
    expected = {
        "action": "register",
        "before": TWO,
        "after": ONE,
        "by": "apply",
        "who": "ann@host",
        "credentials": "east",
    }
    assert begun.document == expected | {"outcome": "begun"}
    assert ended.document == expected | {"outcome": "differs", "stands": "https://another.example/x"}


def test_history_knows_what_we_wrote_for_whom(inbox, audit):
    """A URL is ours for the account that we wrote it for, a write whose end nobody saw included."""
    write(audit, A, "done")
    write(audit, A, None, after=TWO)
    write(audit, B, "failed", after=ONE, error="no answer")
    assert History.of(inbox).written == {A: {ONE, TWO}, B: {ONE}}
    assert History.of(None).written == {}


def test_a_write_that_was_refused_never_stood(inbox, audit):
    """What the provider refused makes nothing ours; what was written before it, and after it, is."""
    write(audit, A, "failed", error="400", refused=True)
    assert (History.of(inbox).written[A], History.of(inbox).registered()) == (set(), {})
    write(audit, A, "done", after=TWO)
    write(audit, A, "failed", before=TWO, error="400", refused=True)
    assert History.of(inbox).written == {A: {TWO}}
    assert History.of(inbox).registered() == {A: "east"}
    write(audit, A, "failed", before=TWO, after=None, error="400", refused=True)
    assert History.of(inbox).registered() == {A: "east"}


def test_what_was_deregistered_is_not_pruned_again(inbox, audit):
    """Only a removal that stood ends an account's registration; one whose end nobody saw is done again."""
    write(audit, A, "done")
    write(audit, B, "done")
    write(audit, A, "done", before=ONE, after=None)
    write(audit, B, None, before=ONE, after=None)
    assert History.of(inbox).registered() == {B: "east"}
    write(audit, A, "done")
    assert History.of(inbox).registered() == {A: "east", B: "east"}


def test_accounts_that_the_file_no_longer_lists_are_gone(inbox, audit):
    """Those that we registered are remembered with who called for them, those that we did not are nobody's business."""
    write(audit, A, "done")
    write(audit, B, "done")
    assert read_desired([Account(name=B, url=ONE)], inbox).gone() == {A: "east"}


def test_several_threads_may_write(inbox, audit):
    """Accounts are written at once, and each write has its two entries."""
    threads = [threading.Thread(target=write, args=(audit, f"account-{number}", "done")) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(inbox.journal(TOPIC)) == 16


def test_the_operator_is_a_person_and_a_machine(monkeypatch):
    """A container's user without a name is no reason to fail."""
    assert "@" in operator()
    monkeypatch.setattr("getpass.getuser", lambda: (_ for _ in ()).throw(KeyError("uid not found: 1000")))
    assert operator().startswith("somebody@")


def seen(inbox, at, to, **more):
    inbox.record(JournalEntry(topic="guard", at=at, account=A, document={"to": to, **more}))


def test_a_write_that_was_read_back_ends_the_time_elsewhere(inbox, audit):
    """Without a guard that looks again the audit knows it: callbacks come to us again."""
    seen(inbox, 100, "drifted", registered=TWO, desired=ONE, last_ok=50)
    assert [span.is_open for span in read_elsewhere(inbox, 2_000)[A]] == [True]
    write(audit, A, "differs", before=TWO, stands=TWO)
    assert [span.is_open for span in read_elsewhere(inbox, 2_000, A)[A]] == [True]
    write(audit, A, "done", before=TWO)
    ((start, end, is_open),) = [(span.start, span.end, span.is_open) for span in read_elsewhere(inbox, 2_000)[A]]
    assert (start, end, is_open) == (50, 1_000 + STALE_SECONDS * 1e6, False)


@pytest.mark.parametrize(("state", "elsewhere"), [("live", False), ("retiring", False), ("retired", True)])
def test_an_older_url_of_ours_is_elsewhere_once_its_token_is_retired(inbox, state, elsewhere):
    """As long as a listener accepts its token, callbacks come to us by it."""
    inbox.add_token(TokenRecord("token-of-today", (A,)), 1)
    inbox.add_token(TokenRecord("token-of-before", (A,)), 1)
    inbox.set_token("token-of-before", state=state, retire_at=None, now=2)
    url = "https://fleet.example/callbacks/{}"
    told = {"registered": url.format("token-of-before"), "desired": url.format("token-of-today"), "ours": True}
    seen(inbox, 100, "drifted", **told)
    assert bool(read_elsewhere(inbox, 2_000)) == elsewhere
    seen(inbox, 200, "drifted", **(told | {"registered": told["registered"].replace("fleet", "old")}))
    assert read_elsewhere(inbox, 2_000), "another host is elsewhere"
