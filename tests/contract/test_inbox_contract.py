"""What every inbox must do, whatever keeps it."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from upcall.inbox import Outcome, Subscription, TokenRecord, Trust, stored_event
from upcall.testing import callback

per_example_store = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def take(inbox, make, *names, owner="owner", now=None, lease_seconds=30.0, limit=1000):
    return inbox.claim(
        names or ("handler",), owner, make.now if now is None else now, lease_seconds=lease_seconds, limit=limit
    )


def enrolled(inbox, make, *subscriptions):
    subscriptions = subscriptions or (make.whole(),)
    inbox.subscribe([subscription.name for subscription in subscriptions], make.now)
    while inbox.enroll(subscriptions, make.now):
        pass


def settle(inbox, items, state="done", *, owner="owner", now=0, due_at=0, error=None):
    inbox.settle([Outcome(item.id, state, due_at, error) for item in items], owner, now)


def read_up(inbox):
    while inbox.project():
        pass


class TestAppend:
    def test_each_arrival_has_its_receipt_in_order(self, inbox, make):
        """An append answers with one receipt an arrival, and callbacks are numbered in the order of receipt."""
        receipts = inbox.append(make.arrivals(5))
        ids = [receipt.callback_id for receipt in receipts]
        assert all(receipt.is_new for receipt in receipts)
        assert all(one < other for one, other in pairwise(ids))
        assert [record.id for record in inbox.callbacks()] == ids

    def test_nothing_to_append(self, inbox):
        """An empty batch is no error and stores nothing."""
        assert inbox.append([]) == []
        assert inbox.ledger().stored == 0

    def test_what_was_appended_outlives_the_inbox(self, store, make):
        """A callback that was appended is there for the next process, with all that was known of it."""
        first = store.open()
        (receipt,) = first.append([make.arrival(b"kept", peer="192.0.2.1", token_id="t1", account="0000123456-00001")])
        first.close()
        again = store.open()
        record = again.callback(receipt.callback_id)
        assert (record.body, record.received_at, record.account) == (b"kept", make.now, "0000123456-00001")
        (delivery,) = again.deliveries(receipt.callback_id)
        assert (delivery.received_at, delivery.peer, delivery.token_id, delivery.answer) == (
            make.now, "192.0.2.1", "t1", 200,
        )  # fmt: skip

    @per_example_store
    @given(bodies=st.lists(st.binary(max_size=200), min_size=1, max_size=6, unique=True))
    def test_any_bytes_are_kept_as_they_came(self, store, make, bodies):
        """A body is kept byte for byte whatever it holds, before and after it was read."""
        with store.fresh() as fresh:
            inbox = fresh.open()
            inbox.append([make.arrival(body) for body in bodies])
            assert [record.body for record in inbox.callbacks()] == bodies
            enrolled(inbox, make)
            read_up(inbox)
            assert [record.body for record in inbox.callbacks()] == bodies
            assert [item.body for item in take(inbox, make)] == bodies

    @pytest.mark.parametrize(
        "body", [b"", b"\0", b"\xff\xfe" * 40, Random(1).randbytes(1 << 20)], ids=["none", "nul", "ff", "1M"]
    )
    def test_awkward_bodies_are_kept_as_they_came(self, inbox, make, body):
        """No bytes, a NUL, no UTF-8 and a mebibyte of noise are each kept byte for byte."""
        (receipt,) = inbox.append([make.arrival(body)])
        assert inbox.callback(receipt.callback_id).body == body

    def test_staged_arrivals_are_kept_at_the_commit_only(self, store, make):
        """What is staged is nobody's until the commit, and a rollback leaves nothing of it."""
        inbox, appender = store.open(), store.open().appender()
        try:
            appender.stage(make.arrivals(2))
            assert inbox.callbacks() == []
            appender.rollback()
            receipts = appender.stage(make.arrivals(3))
            appender.commit()
        finally:
            appender.close()
        assert [record.id for record in inbox.callbacks()] == [receipt.callback_id for receipt in receipts]

    def test_a_second_writer_is_told_to_wait(self, store, make):
        """While another writer is at it, staging without waiting answers None and stages nothing."""
        inbox = store.open()
        one, other = inbox.appender(), inbox.appender()
        try:
            one.stage(make.arrivals(1))
            assert other.stage(make.arrivals(1)) is None
            one.commit()
            (receipt,) = other.stage(make.arrivals(1))
            other.commit()
        finally:
            one.close()
            other.close()
        assert not receipt.is_new

    def test_numbers_are_not_used_again(self, store, make):
        """A number stands for one callback for good, over any number of processes."""
        seen = []
        for round_ in range(3):
            inbox = store.open()
            seen += [r.callback_id for r in inbox.append(make.arrivals(2, at=make.now + round_ * make.day))]
            inbox.close()
        assert all(one < other for one, other in pairwise(seen))


class TestCopies:
    @pytest.mark.parametrize("minutes", [0, 5, 30, -5, -30])
    def test_copies_within_the_window_are_one_callback(self, inbox, make, minutes):
        """A byte-equal delivery up to 30 minutes from the first, on either side, is one more delivery of it."""
        (first,) = inbox.append([make.arrival()])
        (copy,) = inbox.append([make.arrival(at=make.now + minutes * make.minute, peer="192.0.2.9", token_id="t2")])
        assert (copy.callback_id, copy.is_new) == (first.callback_id, False)
        assert inbox.callback(first.callback_id).deliveries == 2
        assert ("192.0.2.9", "t2") in {(d.peer, d.token_id) for d in inbox.deliveries(first.callback_id)}

    @pytest.mark.parametrize("gap", [30 * 60 * 1_000_000 + 1, -(30 * 60 * 1_000_000 + 1), 20 * 24 * 3600 * 1_000_000])
    def test_copies_beyond_the_window_are_callbacks_of_their_own(self, inbox, make, gap):
        """The same body outside the window of the first is another callback."""
        (first,) = inbox.append([make.arrival()])
        (later,) = inbox.append([make.arrival(at=make.now + gap)])
        assert later.is_new
        assert later.callback_id != first.callback_id

    def test_the_window_counts_from_the_first_delivery(self, inbox, make):
        """A body that keeps coming is not one callback for ever: the window does not move with each copy."""
        verdicts = [
            inbox.append([make.arrival(at=make.now + minutes * make.minute)])[0].is_new for minutes in (0, 25, 50, 75)
        ]
        assert verdicts == [True, False, True, False]

    def test_the_same_body_on_day_0_and_day_20_is_work_twice(self, inbox, make):
        """A body that comes again after 20 days reaches the handler again, under another key."""
        inbox.append([make.report()])
        inbox.append([make.report(at=make.now + 20 * make.day)])
        enrolled(inbox, make)
        items = take(inbox, make)
        keys = {stored_event(i.callback_id, i.received_at, i.account, i.body).key for i in items}
        assert len(items) == len(keys) == 2

    def test_a_thousand_copies_in_one_batch(self, inbox, make):
        """A thousand copies in one append are one callback with a thousand deliveries."""
        receipts = inbox.append([make.arrival()] * 1000)
        assert [receipt.is_new for receipt in receipts] == [True] + [False] * 999
        assert (inbox.ledger().stored, inbox.ledger().deliveries) == (1, 1000)

    def test_a_thousand_copies_from_eight_threads(self, store, make):
        """Copies that several threads append at once are one callback."""
        inbox = store.open()
        start = threading.Barrier(8)

        def send(_):
            start.wait()
            appender = inbox.appender()
            try:
                for _ in range(25):
                    assert appender.stage([make.arrival()] * 5, wait_seconds=20) is not None
                    appender.commit()
            finally:
                appender.close()

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(send, range(8)))
        assert (inbox.ledger().stored, inbox.ledger().deliveries) == (1, 1000)

    def test_copies_from_four_processes(self, store, make):
        """Copies that several processes append at once, each creating the store if it must, are one callback."""
        script = (
            "import sys\n"
            "from upcall.inbox import Arrival, open_inbox\n"
            "sys.stdin.read()\n"
            "with open_inbox(sys.argv[1], create=True) as inbox:\n"
            "    for n in range(10):\n"
            f"        inbox.append([Arrival(body=b'the same', received_at={make.now})] * 25)\n"
        )
        processes = [
            subprocess.Popen([sys.executable, "-c", script, store.url], stdin=subprocess.PIPE) for _ in range(4)
        ]
        for process in processes:
            process.stdin.close()
        assert [process.wait(60) for process in processes] == [0] * 4
        ledger = store.open().ledger()
        assert (ledger.stored, ledger.deliveries) == (1, 1000)

    @pytest.mark.parametrize("first", [Trust.ACCEPTED, Trust.QUARANTINED])
    def test_quarantined_and_accepted_are_never_copies(self, inbox, make, first):
        """Nobody's quarantined copy can take an honest callback's place, nor the other way round."""
        second = Trust.QUARANTINED if first is Trust.ACCEPTED else Trust.ACCEPTED
        receipts = inbox.append([make.arrival(trust=trust) for trust in (first, second, first, second)])
        assert [receipt.is_new for receipt in receipts] == [True, True, False, False]
        assert receipts[2].callback_id == receipts[0].callback_id
        assert receipts[3].callback_id == receipts[1].callback_id

    def test_confirmed_and_accepted_are_copies(self, inbox, make):
        """A callback that the provider's reports confirm is the one that was accepted."""
        receipts = inbox.append([make.arrival(), make.arrival(trust=Trust.CONFIRMED)])
        assert [receipt.is_new for receipt in receipts] == [True, False]


class TestSubscribers:
    def test_the_first_subscribers_begin_at_the_start(self, inbox, make):
        """A listener may have run for days before the handlers are written: they receive all of it, each of them."""
        inbox.append(make.arrivals(3))
        enrolled(inbox, make, make.whole("one"), make.whole("other"))
        assert len(take(inbox, make, "one")) == len(take(inbox, make, "other")) == 3

    def test_a_later_subscriber_begins_where_the_most_advanced_stands(self, inbox, make):
        """A handler that is added later is not run through history."""
        inbox.append(make.arrivals(3))
        inbox.subscribe(["ahead", "behind"], make.now)
        inbox.enroll([make.whole("behind")], make.now, limit=1)
        enrolled(inbox, make, make.whole("ahead"))
        inbox.append([make.arrival(b"new")])
        enrolled(inbox, make, make.whole("added"))
        assert [item.body for item in take(inbox, make, "added")] == [b"new"]

    def test_a_renamed_handler_does_not_run_history_again(self, inbox, make):
        """A renamed handler receives what its old name had not been given, and nothing else."""
        inbox.append([make.arrival(b"old")])
        enrolled(inbox, make, make.whole("old_name"))
        settle(inbox, take(inbox, make, "old_name"))
        inbox.append([make.arrival(b"while away")])
        enrolled(inbox, make, make.whole("new_name"))
        assert [item.body for item in take(inbox, make, "new_name")] == [b"while away"]

    def test_subscribing_again_moves_nothing(self, inbox, make):
        """A worker that starts again neither repeats nor skips."""
        inbox.append(make.arrivals(4))
        subscription = make.whole()
        inbox.subscribe([subscription.name], make.now)
        assert inbox.enroll([subscription], make.now, limit=2) == 2
        inbox.subscribe([subscription.name], make.now)
        enrolled(inbox, make, subscription)
        assert len(take(inbox, make)) == 4
        assert inbox.enroll([subscription], make.now) == 0

    def test_enroll_takes_the_oldest_up_to_its_limit(self, inbox, make):
        """One step looks at no more callbacks than it was allowed, the oldest first."""
        ids = [receipt.callback_id for receipt in inbox.append(make.arrivals(5))]
        inbox.subscribe(["handler"], make.now)
        assert [inbox.enroll([make.whole()], make.now, limit=2) for _ in range(4)] == [2, 2, 1, 0]
        assert [item.callback_id for item in take(inbox, make)] == ids

    def test_nobody_to_enroll_for(self, inbox, make):
        """Without subscriptions there is nothing to look at, and no end to look for."""
        inbox.append(make.arrivals(1))
        assert inbox.enroll([], make.now) == 0
        assert inbox.ledger().unread == 1

    def test_what_nobody_wants_is_no_work(self, inbox, make):
        """A callback that no handler asked for stays stored, and counts as read."""
        (receipt,) = inbox.append([make.arrival()])
        enrolled(inbox, make, Subscription("picky", lambda event: []))
        assert inbox.work(receipt.callback_id) == []
        assert inbox.callback(receipt.callback_id).state == "stored"
        assert inbox.ledger().unread == 0

    def test_devices_are_work_of_their_own(self, inbox, make):
        """A handler that takes devices gets one piece of work a device, even where the message repeats one."""
        (receipt,) = inbox.append([make.report(devices={"d1": "UpgradeFailed", "d2": "UpgradeFailed"})])
        twice = Subscription("device-handler", lambda event: ["d1", "d2", "d1"])
        enrolled(inbox, make, twice)
        assert [work.device_id for work in inbox.work(receipt.callback_id)] == ["d1", "d2"]

    def test_one_devices_end_is_not_the_others(self, inbox, make):
        """Done, failed and given up are each device's own: the one that failed is tried again alone."""
        (receipt,) = inbox.append([make.report(devices={"d1": "Accepted", "d2": "Accepted", "d3": "Accepted"})])
        enrolled(inbox, make, make.devices())
        one, two, three = sorted(take(inbox, make, "device-handler"), key=lambda item: item.device_id)
        settle(inbox, [one])
        settle(inbox, [two], "pending", due_at=make.now + 5)
        settle(inbox, [three], "dead", error="no")
        assert [w.state for w in inbox.work(receipt.callback_id)] == ["done", "pending", "dead"]
        (again,) = take(inbox, make, "device-handler", now=make.now + make.day)
        assert (again.device_id, again.attempt) == ("d2", 2)

    def test_quarantined_callbacks_are_nobodys_work(self, inbox, make):
        """No handler sees a callback in quarantine."""
        inbox.append([make.arrival(trust=Trust.QUARANTINED, evidence="no JSON"), make.arrival(b"fine")])
        enrolled(inbox, make)
        assert [item.body for item in take(inbox, make)] == [b"fine"]

    def test_two_workers_that_enroll_the_same_at_once_make_one_work(self, store, make):
        """A worker that is overtaken while it reads does not make work again that the other has already done."""
        one, other = store.open(), store.open()
        one.append(make.arrivals(3))
        one.subscribe(["handler"], make.now)
        overtaken = []

        def wants(event):
            if not overtaken:
                overtaken.append(other.enroll([make.whole()], make.now))
                settle(other, take(other, make))
            return [""]

        assert one.enroll([Subscription("handler", wants)], make.now) == 3
        assert overtaken == [3]
        assert take(one, make) == []
        assert [work.state for record in one.callbacks() for work in one.work(record.id)] == ["done"] * 3

    def test_an_overtaken_worker_moves_nobody_back(self, store, make):
        """A worker that was slow to read does not set back how far the subscriber has come."""
        one, other = store.open(), store.open()
        one.append(make.arrivals(5))
        one.subscribe(["handler"], make.now)

        def wants(event):
            other.enroll([make.whole()], make.now)
            return [""]

        assert one.enroll([Subscription("handler", wants)], make.now, limit=1) == 1
        assert one.enroll([make.whole()], make.now) == 0
        assert len(take(one, make)) == 5

    def test_a_worker_with_fewer_handlers_leaves_the_others_theirs(self, store, make):
        """Of two programs on one store, the one with fewer handlers takes nothing from the other's."""
        small, large = store.open(), store.open()
        small.append(make.arrivals(3))
        enrolled(small, make, make.whole("shared"))
        assert len(take(small, make, "shared", limit=2)) == 2
        large.subscribe(["shared", "own"], make.now)
        large.append([make.arrival(b"next")])
        enrolled(small, make, make.whole("shared"))
        enrolled(large, make, make.whole("shared"), make.whole("own"))
        items = take(large, make, "shared", "own", owner="large")
        assert sorted((item.subscriber, item.callback_id) for item in items) == [
            ("own", 4),
            ("shared", 3),
            ("shared", 4),
        ]

    def test_workers_that_subscribe_at_once_agree(self, store, make):
        """Workers that start together all begin at the store's start, and share the work."""
        store.open().append(make.arrivals(5))
        inboxes = [store.open() for _ in range(4)]
        start = threading.Barrier(4)

        def work(number):
            start.wait()
            enrolled(inboxes[number], make, make.whole("one"), make.whole("other"))
            return take(inboxes[number], make, "one", "other", owner=str(number), limit=3)

        with ThreadPoolExecutor(4) as threads:
            claimed = [item.id for items in threads.map(work, range(4)) for item in items]
        claimed += [item.id for item in take(inboxes[0], make, "one", "other")]
        assert len(claimed) == len(set(claimed)) == 10


class TestLeases:
    @pytest.fixture
    def inbox(self, store, make):
        inbox = store.open()
        inbox.append(make.arrivals(3))
        enrolled(inbox, make)
        return inbox

    def test_an_item_says_all_that_a_handler_needs(self, store, make):
        """A claimed item carries the callback's body, its receipt and its token's account."""
        inbox = store.open()
        (receipt,) = inbox.append([make.arrival(b"body", at=make.now - 5, account="0000123456-00001")])
        enrolled(inbox, make)
        (item,) = take(inbox, make)
        assert (item.subscriber, item.device_id, item.attempt) == ("handler", "", 1)
        assert (item.callback_id, item.received_at) == (receipt.callback_id, make.now - 5)
        assert (item.account, item.body) == ("0000123456-00001", b"body")

    def test_no_two_owners_at_once(self, store, inbox, make):
        """Two workers that claim in turn are never given the same work."""
        other = store.open()
        claimed = [
            (owner, item.id)
            for _ in range(2)
            for owner, which in (("one", inbox), ("other", other))
            for item in take(which, make, owner=owner, limit=1)
        ]
        assert [owner for owner, _ in claimed] == ["one", "other", "one"]
        assert len({work_id for _, work_id in claimed}) == 3
        assert sorted(inbox.owners()) == ["one", "other"]

    def test_a_lease_that_ran_out_is_anybodys(self, store, inbox, make):
        """Work whose worker shows no sign of life is claimed by another once the lease is over, not before."""
        other = store.open()
        held = take(inbox, make, owner="gone", lease_seconds=30)
        assert take(other, make, now=make.now + 30 * make.second - 1) == []
        again = take(other, make, now=make.now + 30 * make.second)
        assert [(i.id, i.attempt) for i in again] == [(i.id, 2) for i in held]

    def test_a_renewed_lease_lasts_on(self, store, inbox, make):
        """A sign of life extends the owner's leases, and nobody else's sign does."""
        other = store.open()
        held = take(inbox, make, owner="slow", lease_seconds=30)
        soon, late = make.now + 20 * make.second, make.now + 40 * make.second
        inbox.renew([item.id for item in held[:2]], "slow", soon, lease_seconds=30)
        other.renew([held[2].id], "somebody", soon, lease_seconds=30)
        assert [item.id for item in take(other, make, now=late)] == [held[2].id]

    @pytest.mark.parametrize("state", ["done", "pending", "dead"])
    def test_an_owner_that_lost_its_lease_changes_nothing(self, store, inbox, make, state):
        """The late word of a worker that was taken for dead does not touch what the new owner does."""
        other = store.open()
        lost = take(inbox, make, owner="slow", lease_seconds=1)
        held = take(other, make, owner="new", now=make.now + make.second)
        settle(inbox, lost, state, owner="slow", due_at=make.now, error="late")
        assert take(inbox, make, now=make.now + make.second) == []
        assert {inbox.work(item.callback_id)[0].state for item in held} == {"leased"}
        settle(other, held, owner="new")
        assert {inbox.work(item.callback_id)[0].state for item in held} == {"done"}
        inbox.renew([item.id for item in lost], "slow", make.now, lease_seconds=1)
        settle(inbox, lost, state, owner="slow", error="later")
        assert {(w.state, w.error) for i in held for w in inbox.work(i.callback_id)} == {("done", None)}

    def test_an_owner_whose_work_was_given_back_changes_nothing(self, inbox, make):
        """After a release the old owner's word counts for nothing, even before the work is claimed again."""
        held = take(inbox, make, owner="gone")
        inbox.release(["gone"], make.now)
        settle(inbox, held, owner="gone")
        assert [item.attempt for item in take(inbox, make)] == [2, 2, 2]

    def test_release_gives_back_at_once_and_only_that_owners(self, inbox, make):
        """Work of an owner that is known to be gone need not wait for its lease; everybody else keeps theirs."""
        (gone,) = take(inbox, make, owner="gone", limit=1)
        (kept,) = take(inbox, make, owner="kept", limit=1)
        assert inbox.release(["gone", "never seen"], make.now) == 1
        assert inbox.owners() == ["kept"]
        assert kept.id not in {item.id for item in take(inbox, make)}
        assert inbox.release([], make.now) == 0
        assert inbox.work(gone.callback_id)[0].attempts == 2

    def test_an_attempt_that_was_stopped_need_not_count(self, inbox, make):
        """A worker that is told to end gives its work back as if it had not begun: restarts use up no attempts."""
        (item,) = take(inbox, make, limit=1)
        assert inbox.release(["owner"], make.now, uncounted=True) == 1
        assert inbox.work(item.callback_id)[0].attempts == 0

    def test_release_does_not_bring_ended_work_back(self, inbox, make):
        """What is done or dead stays so when its worker goes away."""
        one, two, _ = take(inbox, make)
        settle(inbox, [one])
        settle(inbox, [two], "dead")
        assert inbox.release(["owner"], make.now) == 1
        assert len(take(inbox, make)) == 1

    def test_work_to_be_tried_again_waits_for_its_time(self, inbox, make):
        """A retry is claimed when it is due and not before, and the store can say when that is."""
        items = take(inbox, make)
        settle(inbox, items[:1], "pending", due_at=make.now + 100, error="trace")
        settle(inbox, items[1:])
        assert inbox.next_due(["handler"]) == make.now + 100
        assert take(inbox, make, now=make.now + 99) == []
        (work,) = inbox.work(items[0].callback_id)
        assert (work.state, work.due_at, work.error) == ("pending", make.now + 100, "trace")
        (again,) = take(inbox, make, now=make.now + 100)
        assert (again.id, again.attempt) == (items[0].id, 2)

    def test_done_work_is_over(self, inbox, make):
        """Work that ended is never handed out again and is due never."""
        settle(inbox, take(inbox, make))
        assert take(inbox, make, now=make.now + 1000 * make.day) == []
        assert inbox.next_due(["handler"]) is None
        assert {record.state for record in inbox.callbacks()} == {"done"}

    def test_dead_work_is_kept_with_its_reason(self, inbox, make):
        """Work that was given up is never handed out again, and is listed with the failure and the tries."""
        items = take(inbox, make)
        settle(inbox, items[:2], "dead", now=make.now + 7, error="Traceback: no")
        assert take(inbox, make, now=make.now + 1000 * make.day, limit=2)[0].id == items[2].id
        letters = inbox.dead()
        assert [letter.callback_id for letter in letters] == [item.callback_id for item in items[:2]]
        assert {(d.subscriber, d.attempts, d.error, d.finished_at) for d in letters} == {
            ("handler", 1, "Traceback: no", make.now + 7)
        }
        assert [letter.callback_id for letter in inbox.dead(limit=1)] == [items[1].callback_id]
        assert inbox.callback(items[0].callback_id).state == "dead"

    def test_a_dead_letter_names_the_callbacks_account_and_kind(self, store, make):
        """A dead letter says what it was about; the token's account stands in where the body names none."""
        inbox = store.open()
        inbox.append(
            [make.arrival(account="0000123456-00001"), make.report(campaign_id="c1", account="0000000001-00001")]
        )
        enrolled(inbox, make)
        read_up(inbox)
        settle(inbox, take(inbox, make), "dead")
        assert [(d.kind, d.account, d.campaign_id) for d in inbox.dead()] == [
            ("upgradeProgress", "0000123456-00001", None),
            ("upgradeProgress", "0000000001-00001", "c1"),
        ]

    def test_only_the_named_subscribers_work_is_claimed(self, inbox, make):
        """A worker is given its own handlers' work; what belongs to a handler that is gone waits."""
        assert take(inbox, make, "another") == []
        assert take(inbox, make, "another", "handler", limit=1)
        assert inbox.next_due(["another"]) is None

    def test_one_subscribers_backlog_does_not_hold_up_another(self, store, make):
        """Subscribers take turns: what one has left undone does not stand before the others' new work."""
        inbox = store.open()
        inbox.append(make.arrivals(50))
        enrolled(inbox, make, make.whole("slow"))
        inbox.append([make.arrival(b"new")])
        enrolled(inbox, make, make.whole("slow"), make.whole("quick"))
        items = take(inbox, make, "slow", "quick", limit=4)
        assert [item.subscriber for item in items].count("quick") == 1

    def test_a_claim_takes_the_oldest_up_to_its_limit(self, inbox, make):
        """A worker is given no more than it can do, in the order of receipt."""
        order = [take(inbox, make, limit=2), take(inbox, make, limit=2), take(inbox, make, limit=2)]
        assert [[item.callback_id for item in items] for items in order] == [[1, 2], [3], []]

    def test_a_clock_set_back_loses_nothing(self, inbox, make):
        """Work that was enrolled before the clock was set back is still handed out, once the clock is there again."""
        assert take(inbox, make, now=make.now - make.day) == []
        assert len(take(inbox, make)) == 3


class TestReading:
    def test_callbacks_are_found_by_what_they_say(self, inbox, make):
        """The list can be narrowed by account, kind and campaign, and cut to the newest."""
        inbox.append(
            [
                make.report(campaign_id="c1", account="0000000001-00001"),
                make.report(campaign_id="c2", account="0000000001-00001", kind="upgradeFinished"),
                make.report(campaign_id="c2", account="0000000002-00001"),
                make.arrival(b"no json", account="0000000002-00001"),
            ]
        )
        read_up(inbox)

        def found(**filters):
            return [record.id for record in inbox.callbacks(**filters)]

        assert found() == [1, 2, 3, 4]
        assert found(limit=2) == [3, 4]
        assert found(after=2) == [3, 4]
        assert found(after=1, limit=1) == [4]
        assert found(account="0000000002-00001") == [3, 4]
        assert found(kind="upgradeFinished") == [2]
        assert found(campaign_id="c2", account="0000000001-00001") == [2]
        assert found(kind="nothing") == []

    def test_states_say_what_became_of_a_callback(self, inbox, make):
        """A callback is stored, pending, done, dead or quarantined, and any device given up makes it dead."""
        inbox.append(make.arrivals(2))
        inbox.append([make.arrival(trust=Trust.QUARANTINED, evidence="why")])
        inbox.append([make.report(devices={"d1": "Accepted", "d2": "Accepted"})])
        assert [record.state for record in inbox.callbacks()] == ["stored", "stored", "quarantined", "stored"]
        enrolled(inbox, make, Subscription("h", lambda event: [d.device_id for d in event.devices] or [""]))
        assert [record.state for record in inbox.callbacks()] == ["pending", "pending", "quarantined", "pending"]
        one, two, three, four = take(inbox, make, "h")
        assert inbox.callback(two.callback_id).state == "pending"
        settle(inbox, [one, three])
        settle(inbox, [four], "dead")
        assert [record.state for record in inbox.callbacks()] == ["done", "pending", "quarantined", "dead"]
        assert inbox.callback(3).evidence == "why"

    def test_what_is_not_there(self, inbox):
        """Asking for what the store does not hold gives nothing, and no error."""
        assert inbox.callback(1) is None
        assert inbox.campaign("c1") is None
        assert inbox.work(1) == []
        assert inbox.deliveries(1) == []
        assert (inbox.callbacks(), inbox.dead(), inbox.campaigns(), inbox.tokens(), inbox.owners()) == (
            [],
            [],
            [],
            [],
            [],
        )
        assert inbox.next_due(["handler"]) is None

    def test_the_ledger_counts_as_it_defines(self, inbox, make):
        """Each count of the ledger is what its definition says, recounted from single callbacks."""
        inbox.append([*make.arrivals(6), make.arrival(b"q", trust=Trust.QUARANTINED), *make.arrivals(2)])
        subscriptions = [Subscription("some", lambda event: [""] if b"0" not in event.raw else []), make.whole("all")]
        inbox.subscribe(["some", "all"], make.now)
        inbox.enroll(subscriptions, make.now, limit=5)
        items = take(inbox, make, "some", "all")
        settle(inbox, [item for item in items if item.callback_id in {1, 2}])
        settle(inbox, [item for item in items if item.callback_id == 3], "dead")
        settle(inbox, [item for item in items if item.callback_id == 4 and item.subscriber == "all"], "dead")
        ledger = inbox.ledger()
        assert msgspec.to_builtins(ledger) == {
            "stored": 7,
            "deliveries": 9,
            "quarantined": 1,
            "handled": 2,
            "pending": 2,
            "dead": 2,
            "unread": 1,
        }
        assert ledger.redelivered == 2

    def test_a_handler_that_is_gone_leaves_nothing_unread(self, inbox, make):
        """What one handler has looked at is read, even where another's program has been taken out of service."""
        enrolled(inbox, make, make.whole("stays"), make.whole("goes"))
        inbox.append(make.arrivals(3))
        assert inbox.ledger().unread == 3
        enrolled(inbox, make, make.whole("stays"))
        assert inbox.ledger().unread == 0

    def test_tokens_are_kept(self, store, make):
        """A token that was generated for the store is there after a restart, with its accounts."""
        first = store.open()
        first.add_token(TokenRecord("t" * 32, ()), make.now)
        first.add_token(TokenRecord("u" * 32, ("0000000001-00001", "0000000002-00001")), make.now + 1)
        first.close()
        assert store.open().tokens() == [
            TokenRecord("t" * 32, ()),
            TokenRecord("u" * 32, ("0000000001-00001", "0000000002-00001")),
        ]


WORDS = ("Accepted", "UpgradePending", "UpgradeFailed", "UpgradeSuccess", "Odd word", "NoDeviceDataFromNetwork")
REPORTS = st.builds(
    callback,
    st.sampled_from(["upgradeScheduled", "upgradeProgress", "upgradeFinished"]),
    campaign_id=st.sampled_from(["c1", "c2"]),
    account=st.sampled_from(["0000000001-00001", "0000000002-00001"]),
    status=st.sampled_from(["CampaignQueued", "CampaignScheduled", "CampaignEnded", "Odd"]),
    devices=st.dictionaries(st.sampled_from(["d1", "d2", "d3"]), st.sampled_from(WORDS)),
)


class TestReadModel:
    def state_of(self, inbox):
        return (
            [(r.id, r.kind, r.account, r.campaign_id, r.key, r.duplicate, r.duplicate_of) for r in inbox.callbacks()],
            inbox.campaigns(),
            [inbox.campaign(campaign_id) for campaign_id in ("c1", "c2")],
        )

    @per_example_store
    @given(
        steps=st.lists(
            st.one_of(st.binary(max_size=8), REPORTS, st.integers(1, 3)), max_size=20
        )
    )  # fmt: skip
    def test_any_interleaving_of_append_and_project_gives_the_fresh_fold(self, store, make, steps):
        """Whoever brings the read model forward, whenever and from wherever, it ends as one fold of all callbacks."""
        with store.fresh() as gradual, store.fresh() as fresh:
            inboxes = [gradual.open(), gradual.open()]
            at_once = fresh.open()
            for number, step in enumerate(steps):
                if isinstance(step, int):
                    inboxes[number % 2].project(limit=step)
                    continue
                trust = Trust.QUARANTINED if step[:1] == b"q" else Trust.ACCEPTED
                arrival = make.arrival(step, at=make.now + number * 7 * make.minute, trust=trust)
                inboxes[0].append([arrival])
                at_once.append([arrival])
            read_up(inboxes[1])
            read_up(at_once)
            assert self.state_of(inboxes[0]) == self.state_of(at_once)

    def test_projecting_says_how_far_it_came(self, inbox, make):
        """A step takes no more callbacks than it was allowed, and says 0 when the read model is up to date."""
        inbox.append(make.arrivals(5))
        assert [inbox.project(limit=2) for _ in range(4)] == [2, 2, 1, 0]

    def test_a_campaign_as_its_callbacks_tell_it(self, inbox, make):
        """A campaign shows its newest status, its span, and each device's own status in the provider's words."""
        inbox.append(
            [
                make.report(
                    campaign_id="c1", kind="upgradeScheduled", status="CampaignScheduled", devices={"d1": "Accepted"}
                ),
                make.report(
                    at=make.now + 9,
                    campaign_id="c1",
                    kind="upgradeFinished",
                    status="CampaignEnded",
                    devices={"d1": "UpgradeSuccess", "d2": "UpgradedFailed"},
                ),
            ]
        )
        read_up(inbox)
        (campaign,) = inbox.campaigns()
        assert (campaign.campaign_id, campaign.status, campaign.callbacks) == ("c1", "CampaignEnded", 2)
        assert (campaign.first_at, campaign.last_at) == (make.now, make.now + 9)
        assert campaign.devices == {"UpgradeSuccess": 1, "UpgradedFailed": 1}
        assert inbox.campaign("c1")[0] == campaign
        assert [(d.device_id, d.status) for d in inbox.campaign("c1")[1]] == [
            ("d1", "UpgradeSuccess"),
            ("d2", "UpgradedFailed"),
        ]

    def test_campaigns_come_in_the_order_of_their_last_word(self, inbox, make):
        """The campaign last heard of stands last, and a limit keeps the newest."""
        for minute, campaign_id in enumerate(["c1", "c2", "c3", "c1"]):
            inbox.append(
                [make.report(at=make.now + minute * make.minute, campaign_id=campaign_id, status=f"S{minute}")]
            )
        read_up(inbox)
        assert [campaign.campaign_id for campaign in inbox.campaigns()] == ["c2", "c3", "c1"]
        assert [campaign.campaign_id for campaign in inbox.campaigns(limit=1)] == ["c1"]

    def test_quarantined_callbacks_say_nothing_of_campaigns(self, inbox, make):
        """What is in quarantine is listed with what it says, and changes no campaign."""
        arrival = make.report(campaign_id="c1", devices={"d1": "UpgradeSuccess"})
        inbox.append([msgspec.structs.replace(arrival, trust=Trust.QUARANTINED, evidence="names another account")])
        read_up(inbox)
        assert inbox.campaigns() == []
        assert inbox.callbacks()[0].campaign_id == "c1"

    def test_guesses_at_duplicates_name_what_they_repeat(self, inbox, make):
        """The same said again in other bytes is a redelivery soon after and a repeat later, and drops no work."""
        said = callback(campaign_id="c1", devices={"d1": "UpgradeFailed"})
        spaced = said.replace(b", ", b",  ")
        inbox.append([make.arrival(said), make.arrival(spaced, at=make.now + make.minute)])
        inbox.append([make.arrival(said, at=make.now + 20 * make.day), make.report(campaign_id="c2")])
        read_up(inbox)
        assert [(r.duplicate, r.duplicate_of) for r in inbox.callbacks()] == [
            ("first", None),
            ("redelivery", 1),
            ("repeat", 2),
            ("first", None),
        ]
        enrolled(inbox, make)
        assert len(take(inbox, make)) == 4
