"""What the registration room keeps: tokens' lives, uptimes, the journal, notes, and what deliveries tell."""

from __future__ import annotations

import msgspec
import pytest

from upcall.inbox import (
    JournalEntry,
    ListedDelivery,
    Note,
    Reported,
    Retention,
    TokenRecord,
    Uptime,
)
from upcall.testing import callback

ACCOUNT = "0000000001-00001"
OTHER = "0000000002-00001"


def lives(inbox):
    return [(record.token, record.state, record.retire_at) for record in inbox.tokens()]


def entry(at, topic="registration", account=ACCOUNT, **document):
    return JournalEntry(topic=topic, at=at, account=account, document=document)


def listed(make, body, at, *, account=ACCOUNT, is_listed=True, source="192.0.2.7"):
    return make.arrival(body, at, account=account, listed=is_listed, source=source)


class TestTokenLives:
    def test_a_token_comes_back_as_it_was_kept(self, store, make):
        """A token that is about to take another's place says so after a restart, and when it was made."""
        first = store.open()
        first.add_token(TokenRecord("a" * 20, (ACCOUNT,)), make.now)
        first.add_token(TokenRecord("b" * 20, (ACCOUNT,), state="next", created_at=7), make.now + 1)
        first.close()
        assert store.open().tokens() == [
            TokenRecord("a" * 20, (ACCOUNT,), created_at=make.now),
            TokenRecord("b" * 20, (ACCOUNT,), state="next", created_at=make.now + 1),
        ]

    def test_they_are_in_the_order_in_which_they_were_made(self, inbox, make):
        """Whoever reads the tokens sees the oldest first, whatever became of it."""
        for at, token in ((2, "b"), (1, "c"), (2, "a")):
            inbox.add_token(TokenRecord(token * 20, ()), make.now + at)
        inbox.set_token("c" * 20, state="retired", retire_at=None, now=make.now + 3)
        assert [record.token[0] for record in inbox.tokens()] == ["c", "a", "b"]

    def test_a_token_lives_and_is_retired(self, inbox, make):
        """A token is live, then retiring until its time, then retired; another's life does not change with it."""
        inbox.add_token(TokenRecord("a", (ACCOUNT,)), make.now)
        inbox.add_token(TokenRecord("b", (ACCOUNT,), state="next"), make.now + 1)
        inbox.set_token("b", state="live", retire_at=None, now=make.now + 2)
        inbox.set_token("a", state="retiring", retire_at=make.now + make.minute, now=make.now + 2)
        assert lives(inbox) == [("a", "retiring", make.now + make.minute), ("b", "live", None)]
        for _ in range(2):  # a second time changes nothing
            inbox.set_token("a", state="retired", retire_at=None, now=make.now + 3)
            assert lives(inbox) == [("a", "retired", None), ("b", "live", None)]
        assert [record.accounts for record in inbox.tokens()] == [(ACCOUNT,), (ACCOUNT,)]

    def test_a_token_that_is_not_there_is_left_alone(self, inbox, make):
        """The life of a token that the store does not have changes nothing, and no token appears."""
        inbox.set_token("a", state="live", retire_at=None, now=make.now)
        assert inbox.tokens() == []


class TestUptimes:
    def test_an_uptime_comes_back_as_it_was_kept(self, store, make):
        """Whoever looks after a restart reads the heartbeat whole."""
        kept = Uptime(
            listener="host 12 ab",
            began_at=make.now,
            last_at=make.now + 5,
            ended=True,
            tokens=("tok1", "tok 2"),
            given=True,
            url="https://upcall.example.com/callbacks",
        )
        first = store.open()
        first.beat(kept)
        first.close()
        assert store.open().uptimes() == [kept]

    def test_a_beat_takes_the_last_ones_place(self, inbox, make):
        """A listener has one uptime, however often it beats; another listener has its own."""
        for second in range(3):
            at = make.now + second * make.second
            inbox.beat(Uptime(listener="a", began_at=make.now, last_at=at))
            inbox.beat(Uptime(listener="b", began_at=make.now - 1, last_at=at, tokens=(str(second),)))
        assert [(uptime.listener, uptime.last_at - make.now, uptime.tokens) for uptime in inbox.uptimes()] == [
            ("b", 2 * make.second, ("2",)),
            ("a", 2 * make.second, ()),
        ]

    def test_those_that_reach_past_a_time(self, inbox, make):
        """Uptimes are asked for by where they end: one that began long before, and goes on, counts."""
        for name, began_at, last_at in (("a", 1, 4), ("b", 0, 9), ("c", 6, 7), ("d", 5, 5)):
            inbox.beat(Uptime(listener=name, began_at=make.now + began_at, last_at=make.now + last_at))
        assert [uptime.listener for uptime in inbox.uptimes(since=make.now + 5)] == ["b", "c"]
        assert [uptime.listener for uptime in inbox.uptimes()] == ["b", "a", "d", "c"]
        assert inbox.uptimes(since=2**70) == []

    def test_a_beat_waits_for_nobody_and_holds_nobody_up(self, store, make):
        """A heartbeat beside an appender and a reader leaves both their work."""
        inbox, reader = store.open(), store.open()
        appender = inbox.appender()
        inbox.beat(Uptime(listener="a", began_at=1, last_at=1))
        appender.stage(make.arrivals(1))
        appender.commit()
        appender.close()
        assert (len(reader.uptimes()), reader.ledger().stored) == (1, 1)


class TestJournal:
    def test_entries_come_back_in_order(self, store, make):
        """The journal keeps what was done, whole and in the order in which it was recorded, over a restart."""
        document = {"action": "update", "before": None, "after": "https://x", "n": [1, 2.5, True, {"é": "\n"}]}
        first = store.open()
        numbers = [
            first.record(JournalEntry(topic="registration", at=make.now + 1, account=ACCOUNT, document=document)),
            first.record(entry(make.now)),
        ]
        first.close()
        assert numbers == sorted(set(numbers))
        assert store.open().journal("registration") == [
            JournalEntry(topic="registration", at=make.now + 1, account=ACCOUNT, document=document, id=numbers[0]),
            JournalEntry(topic="registration", at=make.now, account=ACCOUNT, id=numbers[1]),
        ]

    def test_what_is_asked_for(self, inbox, make):
        """A topic, an account, a time and a number of the newest entries narrow what is read."""
        for number in range(6):
            inbox.record(entry(make.now + number, account=(ACCOUNT, OTHER)[number % 2], n=number))
        inbox.record(entry(make.now, topic="guard", account="", n=6))

        def found(topic="registration", **asked):
            return [each.document["n"] for each in inbox.journal(topic, **asked)]

        assert found() == [0, 1, 2, 3, 4, 5]
        assert found(limit=2) == [4, 5]
        assert found(account=OTHER) == [1, 3, 5]
        assert found(account=ACCOUNT, since=make.now + 2) == [2, 4]
        assert found(account=ACCOUNT, since=make.now + 2, limit=1) == [4]
        assert found("guard") == found("guard", account="") == [6]
        assert found("nothing") == found("guard", account=ACCOUNT) == found(since=2**70) == []

    def test_what_is_not_json_is_refused(self, inbox, make):
        """A document that could not be read back is refused, and nothing is recorded."""
        with pytest.raises(TypeError):
            inbox.record(entry(make.now, what=object()))
        assert inbox.journal("registration") == []

    def test_what_was_recorded_does_not_change(self, inbox, make):
        """Whoever holds a document may go on changing it: the journal keeps what it was."""
        document = {"accounts": ["a"]}
        inbox.record(JournalEntry(topic="guard", at=make.now, document=document))
        document["accounts"].append("b")
        inbox.journal("guard")[0].document["accounts"].append("c")
        assert inbox.journal("guard")[0].document == {"accounts": ["a"]}


class TestNotes:
    def test_a_note_takes_the_last_ones_place(self, store, make):
        """What is known is kept over a restart, once under each key, by key, and of its topic only."""
        first = store.open()
        first.put_note(Note(topic="guard", key=OTHER, at=make.now, document={"state": "ok"}))
        first.put_note(Note(topic="guard", key=ACCOUNT, at=make.now, document={"state": "ok"}))
        first.put_note(Note(topic="guard", key=ACCOUNT, at=make.now + 1, document={"state": "drifted"}))
        first.put_note(Note(topic="reconcile", key=ACCOUNT, at=make.now))
        first.close()
        inbox = store.open()
        assert inbox.notes("guard") == [
            Note(topic="guard", key=ACCOUNT, at=make.now + 1, document={"state": "drifted"}),
            Note(topic="guard", key=OTHER, at=make.now, document={"state": "ok"}),
        ]
        assert [note.key for note in inbox.notes("reconcile")] == [ACCOUNT]
        assert inbox.notes("nothing") == []

    def test_a_note_is_removed(self, inbox, make):
        """A note that is dropped is gone, another one stays, and one that is not there may be dropped."""
        for topic in ("guard", "reconcile"):
            inbox.put_note(Note(topic=topic, key="a", at=make.now))
        for _ in range(2):
            inbox.drop_note("guard", "a")
        assert inbox.notes("guard") == []
        assert len(inbox.notes("reconcile")) == 1


class TestRepeatIntervals:
    def test_each_further_delivery_is_compared_with_the_one_before(self, inbox, make):
        """The provider's pauses are those between the deliveries of one callback, the oldest first."""
        for body, at in ((b"1", 0), (b"2", 1), (b"1", 60), (b"3", 70), (b"2", 91), (b"1", 240)):
            inbox.append([make.arrival(body, make.now + at * make.second)])
        assert [interval // make.second for interval in inbox.repeat_intervals()] == [60, 90, 180]

    def test_what_is_asked_for(self, inbox, make):
        """A time and a number narrow it to the newest; what came before them is still what is compared with."""
        for at in (0, 60, 180, 360):
            inbox.append([make.arrival(b"1", make.now + at * make.second)])
        since = make.now + 180 * make.second
        assert [interval // make.second for interval in inbox.repeat_intervals(since=since)] == [120, 180]
        assert [interval // make.second for interval in inbox.repeat_intervals(limit=1)] == [180]
        assert inbox.repeat_intervals(since=2**70) == []

    def test_deliveries_that_were_kept_out_of_order(self, inbox, make):
        """A delivery that waited in the spool is compared with the one that came before it, not with the one kept."""
        for at in (100, 160, 40):
            inbox.append([make.arrival(b"1", make.now + at * make.second)])
        assert inbox.repeat_intervals() == [60 * make.second, 60 * make.second]

    def test_without_repeats_there_are_none(self, inbox, make):
        """Callbacks that came once have no interval, whatever time lies between them."""
        inbox.append(make.arrivals(3))
        assert inbox.repeat_intervals() == []


class TestLastListed:
    def test_the_last_one_counts(self, inbox, make):
        """Of an account's callbacks the last one from a listed address is told, with that address."""
        inbox.append([listed(make, b"1", make.now), listed(make, b"2", make.now + 1, source="192.0.2.8")])
        inbox.append(
            [listed(make, b"3", make.now + 2, is_listed=False), listed(make, b"4", make.now + 3, is_listed=None)]
        )
        inbox.append([listed(make, b"5", make.now + 9, account=OTHER)])
        assert inbox.last_listed(ACCOUNT) == ListedDelivery(make.now + 1, "192.0.2.8")
        make.read_up(inbox)
        assert inbox.last_listed(ACCOUNT) == ListedDelivery(make.now + 1, "192.0.2.8")
        assert inbox.last_listed("0000000003-00001") is None

    def test_the_account_is_the_messages(self, inbox, make):
        """A token of several accounts tells nothing: what the callback itself names counts once it is read."""
        report = make.report(make.now, account=ACCOUNT)
        inbox.append([msgspec.structs.replace(report, listed=True, peer="192.0.2.9")])
        make.read_up(inbox)
        assert inbox.last_listed(ACCOUNT) == ListedDelivery(make.now, "192.0.2.9")

    @pytest.mark.parametrize("first", [True, False, None])
    def test_a_copy_counts(self, inbox, make, first):
        """A callback that is delivered again from a listed address is the last one, whoever sent it first."""
        inbox.append([listed(make, b"1", make.now, is_listed=first)])
        inbox.append([listed(make, b"2", make.now + make.minute)])
        inbox.append([listed(make, b"1", make.now + 2 * make.minute, source="192.0.2.8")])
        inbox.append([listed(make, b"1", make.now + 3 * make.minute, is_listed=False)])
        expected = ListedDelivery(make.now + 2 * make.minute, "192.0.2.8")
        assert inbox.last_listed(ACCOUNT) == expected
        make.read_up(inbox)
        assert inbox.last_listed(ACCOUNT) == expected

    def test_nobody_looked(self, inbox, make):
        """Where no address was compared with the list nothing is known, and nothing is said."""
        inbox.append([listed(make, b"1", make.now, is_listed=None)])
        assert inbox.last_listed(ACCOUNT) is None


class TestUpkeep:
    RETENTION = Retention(body_seconds=86_400.0, record_seconds=86_400.0)

    def test_what_is_past_its_time_is_removed_in_small_steps(self, inbox, make):
        """Retention takes old uptimes and entries a few at a time, and leaves young ones, notes and tokens."""
        for number in range(5):
            inbox.beat(Uptime(listener=f"old {number}", began_at=1, last_at=make.now - 2 * make.day))
            inbox.record(entry(make.now - 2 * make.day))
        inbox.beat(Uptime(listener="young", began_at=1, last_at=make.now))
        inbox.record(entry(make.now))
        inbox.put_note(Note(topic="guard", key="a", at=1))
        inbox.add_token(TokenRecord("a", ()), 1)
        left = []
        while inbox.prune(self.RETENTION, make.now, limit=2).more:
            left.append((len(inbox.uptimes()), len(inbox.journal("registration"))))
        assert left == [(4, 4), (2, 2)]
        assert [uptime.listener for uptime in inbox.uptimes()] == ["young"]
        assert [each.at for each in inbox.journal("registration")] == [make.now]
        assert (len(inbox.notes("guard")), len(inbox.tokens())) == (1, 1)
        assert inbox.check() == []

    def test_a_number_is_not_given_twice(self, inbox, make):
        """An entry that was removed leaves its number to nobody: numbers only grow."""
        first = inbox.record(entry(make.now - 2 * make.day))
        while inbox.prune(self.RETENTION, make.now).more:
            pass
        assert inbox.journal("registration") == []
        assert inbox.record(entry(make.now)) > first

    def test_nothing_of_it_is_a_callback(self, inbox, make):
        """What the registration room keeps is in no count of callbacks, and check finds all well."""
        inbox.append(make.arrivals(1))
        before = inbox.ledger()
        inbox.beat(Uptime(listener="a", began_at=1, last_at=1))
        inbox.record(entry(make.now))
        inbox.put_note(Note(topic="guard", key="a", at=1))
        assert inbox.ledger() == before
        assert inbox.check() == []


class TestReported:
    IMEI = "356938035643809"

    @pytest.fixture
    def told(self, make):
        """Return a report of a device and one of another, for a day of the test."""

        def told(day=0):
            at = make.now + day * make.day
            return [
                Reported(
                    account=ACCOUNT,
                    campaign_id="c1",
                    device_id=device_id,
                    status="UpgradeSuccess",
                    body=callback(account=ACCOUNT, campaign_id="c1", devices={device_id: "UpgradeSuccess"}),
                )
                for device_id in (self.IMEI, "356938035643817")
            ], at

        return told

    def test_a_device_that_was_forgotten_was_not_reported_either(self, inbox, told):
        """Once a device is forgotten nothing tells that it was ever reported: the next report is news, and only its."""
        assert None not in inbox.append_reported(*told())
        assert inbox.append_reported(*told(1)) == [None, None]
        step = inbox.forget(self.IMEI, told()[1])
        while step.next_id is not None:
            step = inbox.forget(self.IMEI, told()[1], after=step.next_id)
        again, other = inbox.append_reported(*told(2))
        assert (again is not None, other) == (True, None)
        assert inbox.check() == []

    def test_what_is_past_its_time_was_not_reported(self, inbox, told, make):
        """What was reported goes with its callback and its campaign: much later the same is news again."""
        first = inbox.append_reported(*told())
        make.read_up(inbox)
        make.enrolled(inbox)
        make.settle(inbox, make.take(inbox))
        retention = Retention(body_seconds=86_400.0, record_seconds=86_400.0)
        while inbox.prune(retention, make.now + 9 * make.day).more:
            pass
        assert inbox.ledger().stored == 0
        again = inbox.append_reported(*told(9))
        assert None not in again
        assert not set(first) & set(again)
        assert inbox.check() == []
