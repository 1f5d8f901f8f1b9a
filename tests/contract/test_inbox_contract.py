"""What every inbox must do, whatever keeps it: arrivals, copies, subscribers, leases."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from upcall.errors import StoreError
from upcall.inbox import Subscription, Trust, stored_event
from upcall.inbox.values import UNENDED

per_example_store = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


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
            make.enrolled(inbox)
            make.read_up(inbox)
            assert [record.body for record in inbox.callbacks()] == bodies
            assert [item.body for item in make.take(inbox)] == bodies

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

    def test_an_appender_has_one_transaction_at_a_time(self, inbox, make):
        """Staging twice is refused and loses nothing; a commit and a rollback of nothing are no errors."""
        appender = inbox.appender()
        try:
            appender.stage(make.arrivals(2))
            with pytest.raises(StoreError, match="stages once") as raised:
                appender.stage([make.arrival(b"more")])
            assert type(raised.value) is StoreError
            appender.commit()
            appender.commit()
            appender.rollback()
        finally:
            appender.close()
        assert len(inbox.callbacks()) == 2

    def test_closing_again_is_no_error(self, store, make):
        """An inbox and an appender may be closed twice."""
        inbox = store.open()
        appender = inbox.appender()
        for _ in range(2):
            appender.close()
            inbox.close()

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
        make.enrolled(inbox)
        items = make.take(inbox)
        keys = {stored_event(i.callback_id, i.received_at, i.account, i.digest, i.body).key for i in items}
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

    @pytest.mark.parametrize("store", ["sqlite"], indirect=True)
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
        make.enrolled(inbox, make.whole("one"), make.whole("other"))
        assert len(make.take(inbox, "one")) == len(make.take(inbox, "other")) == 3

    def test_a_later_subscriber_begins_where_the_most_advanced_stands(self, inbox, make):
        """A handler that is added later is not run through history."""
        inbox.append(make.arrivals(3))
        inbox.subscribe(["ahead", "behind"], make.now)
        inbox.enroll([make.whole("behind")], make.now, limit=1)
        make.enrolled(inbox, make.whole("ahead"))
        inbox.append([make.arrival(b"new")])
        make.enrolled(inbox, make.whole("added"))
        assert [item.body for item in make.take(inbox, "added")] == [b"new"]

    def test_a_renamed_handler_does_not_run_history_again(self, inbox, make):
        """A renamed handler receives what its old name had not been given, and nothing else."""
        inbox.append([make.arrival(b"old")])
        make.enrolled(inbox, make.whole("old_name"))
        make.settle(inbox, make.take(inbox, "old_name"))
        inbox.append([make.arrival(b"while away")])
        make.enrolled(inbox, make.whole("new_name"))
        assert [item.body for item in make.take(inbox, "new_name")] == [b"while away"]

    def test_subscribing_again_moves_nothing(self, inbox, make):
        """A worker that starts again neither repeats nor skips."""
        inbox.append(make.arrivals(4))
        subscription = make.whole()
        inbox.subscribe([subscription.name], make.now)
        assert inbox.enroll([subscription], make.now, limit=2) == (2, [])
        inbox.subscribe([subscription.name], make.now)
        make.enrolled(inbox, subscription)
        assert len(make.take(inbox)) == 4
        assert inbox.enroll([subscription], make.now) == (0, [])

    def test_enroll_takes_the_oldest_up_to_its_limit(self, inbox, make):
        """One step looks at no more callbacks than it was allowed, the oldest first."""
        ids = [receipt.callback_id for receipt in inbox.append(make.arrivals(5))]
        inbox.subscribe(["handler"], make.now)
        assert [inbox.enroll([make.whole()], make.now, limit=2)[0] for _ in range(4)] == [2, 2, 1, 0]
        assert [item.callback_id for item in make.take(inbox)] == ids

    def test_nobody_to_enroll_for(self, inbox, make):
        """Without subscriptions there is nothing to look at, and no end to look for."""
        inbox.append(make.arrivals(1))
        assert inbox.enroll([], make.now) == (0, [])
        assert inbox.ledger().unread == 1

    def test_a_subscriber_that_is_not_known_gets_nothing(self, inbox, make):
        """Who never subscribed, or was forgotten while the callbacks were read, has no work made for it."""
        inbox.append(make.arrivals(2))
        assert inbox.enroll([make.whole("never")], make.now) == (0, [])
        inbox.subscribe(["handler"], make.now)

        def wants(event):
            inbox.unsubscribe("handler")
            return [""]

        inbox.enroll([Subscription("handler", wants)], make.now)
        assert [inbox.work(number) for number in (1, 2)] == [[], []]
        assert inbox.subscribers() == []

    def test_a_wish_that_fails_leaves_the_callback_unread(self, inbox, make):
        """Where a subscriber's own code raises nothing is noted: the callback is looked at again."""
        inbox.append(make.arrivals(1))
        inbox.subscribe(["handler"], make.now)
        with pytest.raises(ZeroDivisionError):
            inbox.enroll([Subscription("handler", lambda event: 1 // 0)], make.now)
        make.enrolled(inbox)
        assert len(make.take(inbox)) == 1

    def test_what_nobody_wants_is_no_work(self, inbox, make):
        """A callback that no handler asked for stays stored, and counts as read."""
        (receipt,) = inbox.append([make.arrival()])
        make.enrolled(inbox, Subscription("picky", lambda event: []))
        assert inbox.work(receipt.callback_id) == []
        assert inbox.callback(receipt.callback_id).state == "stored"
        assert inbox.ledger().unread == 0

    def test_devices_are_work_of_their_own(self, inbox, make):
        """A handler that takes devices gets one piece of work a device, even where the message repeats one."""
        (receipt,) = inbox.append([make.report(devices={"d1": "UpgradeFailed", "d2": "UpgradeFailed"})])
        twice = Subscription("device-handler", lambda event: ["d1", "d2", "d1"])
        make.enrolled(inbox, twice)
        assert [work.device_id for work in inbox.work(receipt.callback_id)] == ["d1", "d2"]

    def test_one_devices_end_is_not_the_others(self, inbox, make):
        """Done, failed and given up are each device's own: the one that failed is tried again alone."""
        (receipt,) = inbox.append([make.report(devices={"d1": "Accepted", "d2": "Accepted", "d3": "Accepted"})])
        make.enrolled(inbox, make.devices())
        one, two, three = sorted(make.take(inbox, "device-handler"), key=lambda item: item.device_id)
        make.settle(inbox, [one])
        make.settle(inbox, [two], "pending", due_at=make.now + 5)
        make.settle(inbox, [three], "dead", error="no")
        assert [w.state for w in inbox.work(receipt.callback_id)] == ["done", "pending", "dead"]
        (again,) = make.take(inbox, "device-handler", now=make.now + make.day)
        assert (again.device_id, again.attempt) == ("d2", 2)

    def test_quarantined_callbacks_are_nobodys_work(self, inbox, make):
        """No handler sees a callback in quarantine."""
        inbox.append([make.arrival(trust=Trust.QUARANTINED, evidence="no JSON"), make.arrival(b"fine")])
        make.enrolled(inbox)
        assert [item.body for item in make.take(inbox)] == [b"fine"]

    def test_two_workers_that_enroll_the_same_at_once_make_one_work(self, store, make):
        """A worker that is overtaken while it reads does not make work again that the other has already done."""
        one, other = store.open(), store.open()
        one.append(make.arrivals(3))
        one.subscribe(["handler"], make.now)
        overtaken = []

        def wants(event):
            if not overtaken:
                overtaken.append(other.enroll([make.whole()], make.now)[0])
                make.settle(other, make.take(other))
            return [""]

        assert one.enroll([Subscription("handler", wants)], make.now) == (3, [])
        assert overtaken == [3]
        assert make.take(one) == []
        assert [work.state for record in one.callbacks() for work in one.work(record.id)] == ["done"] * 3

    def test_an_overtaken_worker_moves_nobody_back(self, store, make):
        """A worker that was slow to read does not set back how far the subscriber has come."""
        one, other = store.open(), store.open()
        one.append(make.arrivals(5))
        one.subscribe(["handler"], make.now)

        def wants(event):
            other.enroll([make.whole()], make.now)
            return [""]

        assert one.enroll([Subscription("handler", wants)], make.now, limit=1) == (1, [])
        assert one.enroll([make.whole()], make.now) == (0, [])
        assert len(make.take(one)) == 5

    def test_a_worker_with_fewer_handlers_leaves_the_others_theirs(self, store, make):
        """Of two programs on one store, the one with fewer handlers takes nothing from the other's."""
        small, large = store.open(), store.open()
        small.append(make.arrivals(3))
        make.enrolled(small, make.whole("shared"))
        assert len(make.take(small, "shared", limit=2)) == 2
        large.subscribe(["shared", "own"], make.now)
        large.append([make.arrival(b"next")])
        make.enrolled(small, make.whole("shared"))
        make.enrolled(large, make.whole("shared"), make.whole("own"))
        items = make.take(large, "shared", "own", owner="large")
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
            make.enrolled(inboxes[number], make.whole("one"), make.whole("other"))
            return make.take(inboxes[number], "one", "other", owner=str(number), limit=3)

        with ThreadPoolExecutor(4) as threads:
            claimed = [item.id for items in threads.map(work, range(4)) for item in items]
        claimed += [item.id for item in make.take(inboxes[0], "one", "other")]
        assert len(claimed) == len(set(claimed)) == 10


class TestLeases:
    @pytest.fixture
    def inbox(self, store, make):
        inbox = store.open()
        inbox.append(make.arrivals(3))
        make.enrolled(inbox)
        return inbox

    def test_an_item_says_all_that_a_handler_needs(self, store, make):
        """A claimed item carries the callback's body, its receipt and its token's account."""
        inbox = store.open()
        (receipt,) = inbox.append([make.arrival(b"body", at=make.now - 5, account="0000123456-00001")])
        make.enrolled(inbox)
        (item,) = make.take(inbox)
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
            for item in make.take(which, owner=owner, limit=1)
        ]
        assert [owner for owner, _ in claimed] == ["one", "other", "one"]
        assert len({work_id for _, work_id in claimed}) == 3
        assert sorted(inbox.owners()) == ["one", "other"]

    def test_a_lease_that_ran_out_is_anybodys(self, store, inbox, make):
        """Work whose worker shows no sign of life is claimed by another once the lease is over, not before."""
        other = store.open()
        held = make.take(inbox, owner="gone", lease_seconds=30)
        assert make.take(other, now=make.now + 30 * make.second - 1) == []
        again = make.take(other, now=make.now + 30 * make.second)
        assert [(i.id, i.attempt) for i in again] == [(i.id, 2) for i in held]

    def test_a_renewed_lease_lasts_on(self, store, inbox, make):
        """A sign of life extends the owner's leases, and nobody else's sign does."""
        other = store.open()
        held = make.take(inbox, owner="slow", lease_seconds=30)
        soon, late = make.now + 20 * make.second, make.now + 40 * make.second
        inbox.renew([item.id for item in held[:2]], "slow", soon, lease_seconds=30)
        other.renew([held[2].id], "somebody", soon, lease_seconds=30)
        assert [item.id for item in make.take(other, now=late)] == [held[2].id]

    @pytest.mark.parametrize("state", ["done", "pending", "dead"])
    def test_an_owner_that_lost_its_lease_changes_nothing(self, store, inbox, make, state):
        """The late word of a worker that was taken for dead does not touch what the new owner does."""
        other = store.open()
        lost = make.take(inbox, owner="slow", lease_seconds=1)
        held = make.take(other, owner="new", now=make.now + make.second)
        make.settle(inbox, lost, state, owner="slow", due_at=make.now, error="late")
        assert make.take(inbox, now=make.now + make.second) == []
        assert {inbox.work(item.callback_id)[0].state for item in held} == {"leased"}
        make.settle(other, held, owner="new")
        assert {inbox.work(item.callback_id)[0].state for item in held} == {"done"}
        inbox.renew([item.id for item in lost], "slow", make.now, lease_seconds=1)
        make.settle(inbox, lost, state, owner="slow", error="later")
        assert {(w.state, w.error) for i in held for w in inbox.work(i.callback_id)} == {("done", None)}

    def test_an_owner_whose_work_was_given_back_changes_nothing(self, inbox, make):
        """After a release the old owner's word counts for nothing, even before the work is claimed again."""
        held = make.take(inbox, owner="gone")
        inbox.release(["gone"], make.now)
        make.settle(inbox, held, owner="gone")
        assert [item.attempt for item in make.take(inbox)] == [2, 2, 2]

    def test_release_gives_back_at_once_and_only_that_owners(self, inbox, make):
        """Work of an owner that is known to be gone need not wait for its lease; everybody else keeps theirs."""
        (gone,) = make.take(inbox, owner="gone", limit=1)
        (kept,) = make.take(inbox, owner="kept", limit=1)
        assert inbox.release(["gone", "never seen"], make.now) == 1
        assert inbox.owners() == ["kept"]
        assert kept.id not in {item.id for item in make.take(inbox)}
        assert inbox.release([], make.now) == 0
        assert inbox.work(gone.callback_id)[0].attempts == 2

    def test_an_attempt_that_was_stopped_need_not_count(self, inbox, make):
        """A worker that is told to end gives its work back as if it had not begun: restarts use up no attempts."""
        (item,) = make.take(inbox, limit=1)
        assert inbox.release(["owner"], make.now, uncounted=True) == 1
        assert inbox.work(item.callback_id)[0].attempts == 0

    def test_release_does_not_bring_ended_work_back(self, inbox, make):
        """What is done or dead stays so when its worker goes away."""
        one, two, _ = make.take(inbox)
        make.settle(inbox, [one])
        make.settle(inbox, [two], "dead")
        assert inbox.release(["owner"], make.now) == 1
        assert len(make.take(inbox)) == 1

    def test_work_to_be_tried_again_waits_for_its_time(self, inbox, make):
        """A retry is claimed when it is due and not before, and the store can say when that is."""
        items = make.take(inbox)
        make.settle(inbox, items[:1], "pending", due_at=make.now + 100, error="trace")
        make.settle(inbox, items[1:])
        assert inbox.next_due(["handler"]) == make.now + 100
        assert make.take(inbox, now=make.now + 99) == []
        (work,) = inbox.work(items[0].callback_id)
        assert (work.state, work.due_at, work.error) == ("pending", make.now + 100, "trace")
        (again,) = make.take(inbox, now=make.now + 100)
        assert (again.id, again.attempt) == (items[0].id, 2)

    def test_done_work_is_over(self, inbox, make):
        """Work that ended is never handed out again and is due never."""
        make.settle(inbox, make.take(inbox))
        assert make.take(inbox, now=make.now + 1000 * make.day) == []
        assert inbox.next_due(["handler"]) is None
        assert {record.state for record in inbox.callbacks()} == {"done"}

    def test_dead_work_is_kept_with_its_reason(self, inbox, make):
        """Work that was given up is never handed out again, and is listed with the failure and the tries."""
        items = make.take(inbox)
        make.settle(inbox, items[:2], "dead", now=make.now + 7, error="Traceback: no")
        assert make.take(inbox, now=make.now + 1000 * make.day, limit=2)[0].id == items[2].id
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
        make.enrolled(inbox)
        make.read_up(inbox)
        make.settle(inbox, make.take(inbox), "dead")
        assert [(d.kind, d.account, d.campaign_id) for d in inbox.dead()] == [
            ("upgradeProgress", "0000123456-00001", None),
            ("upgradeProgress", "0000000001-00001", "c1"),
        ]

    def test_only_the_named_subscribers_work_is_claimed(self, inbox, make):
        """A worker is given its own handlers' work; what belongs to a handler that is gone waits."""
        assert make.take(inbox, "another") == []
        assert make.take(inbox, "another", "handler", limit=1)
        assert inbox.next_due(["another"]) is None

    def test_one_subscribers_backlog_does_not_hold_up_another(self, store, make):
        """Subscribers take turns: what one has left undone does not stand before the others' new work."""
        inbox = store.open()
        inbox.append(make.arrivals(50))
        make.enrolled(inbox, make.whole("slow"))
        inbox.append([make.arrival(b"new")])
        make.enrolled(inbox, make.whole("slow"), make.whole("quick"))
        items = make.take(inbox, "slow", "quick", limit=4)
        assert [item.subscriber for item in items].count("quick") == 1

    def test_nothing_is_claimed_twice_by_one_claim(self, inbox, make):
        """A name given twice, no name and no limit each give what they say."""
        assert len(make.take(inbox, "handler", "handler")) == 3
        inbox.release(["owner"], make.now)
        assert inbox.claim([], "owner", make.now, lease_seconds=30, limit=5) == []
        assert make.take(inbox, limit=0) == []

    def test_a_claim_takes_the_oldest_up_to_its_limit(self, inbox, make):
        """A worker is given no more than it can do, in the order of receipt."""
        order = [make.take(inbox, limit=2), make.take(inbox, limit=2), make.take(inbox, limit=2)]
        assert [[item.callback_id for item in items] for items in order] == [[1, 2], [3], []]


class TestClocks:
    """The wall clock of a machine is set back now and then, by seconds or by days."""

    @pytest.fixture
    def inbox(self, store, make):
        inbox = store.open()
        inbox.append(make.arrivals(3))
        make.enrolled(inbox)
        return inbox

    def test_work_that_was_due_is_due(self, inbox, make):
        """Work that was made before the clock was set back by a day does not wait for that day to pass again."""
        assert len(make.take(inbox, now=make.now - make.day)) == 3

    def test_a_retry_waits_for_as_long_as_it_had_to(self, inbox, make):
        """A retry in five minutes is one in five minutes though the clock was set back: not at once, not in a day."""
        make.settle(inbox, make.take(inbox), "pending", due_at=make.now + 5 * make.minute)
        earlier = make.now - make.day
        assert make.take(inbox, now=earlier) == []
        assert make.take(inbox, now=earlier + 3 * make.minute) == []
        assert len(make.take(inbox, now=earlier + 6 * make.minute)) == 3

    def test_a_lease_is_not_taken_from_its_owner(self, store, inbox, make):
        """A clock that is set back ends no lease: the owner that shows signs of life goes on holding its work."""
        other, earlier = store.open(), make.now - make.day
        held = make.take(inbox, owner="slow")
        assert make.take(other, owner="other", now=earlier) == []
        for number in range(10):
            at = earlier + number * 10 * make.second
            inbox.renew([item.id for item in held], "slow", at, lease_seconds=30)
            assert make.take(other, owner="other", now=at) == []
        make.settle(inbox, held, owner="slow", now=earlier + 2 * make.minute)
        assert {record.state for record in inbox.callbacks()} == {"done"}

    def test_work_of_a_dead_owner_is_not_lost_for_the_day(self, store, inbox, make):
        """Work whose owner died before the clock was set back is taken over within a minute or so."""
        make.take(inbox, owner="gone")
        make.take(store.open(), owner="other", now=make.now - make.day)
        assert len(make.take(store.open(), owner="other", now=make.now - make.day + 2 * make.minute)) == 3

    def test_clocks_that_differ_by_seconds_take_nothing(self, store, inbox, make):
        """Two processes whose clocks were read a moment apart do not take that for a clock set back."""
        make.take(inbox, owner="one", now=make.now + 2 * make.second)
        assert make.take(store.open(), owner="other", now=make.now - 20 * make.second) == []
        assert make.take(store.open(), owner="other", now=make.now + 31 * make.second) == []
        assert len(make.take(store.open(), owner="other", now=make.now + 32 * make.second)) == 3

    def test_a_clock_set_forward_takes_over_and_loses_nothing(self, store, inbox, make):
        """A clock that is set forward ends leases early at worst: the work is done once more, and none is lost."""
        held = make.take(inbox, owner="one")
        again = make.take(store.open(), owner="other", now=make.now + make.day)
        assert [item.id for item in again] == [item.id for item in held]
        make.settle(inbox, held, owner="one", now=make.now + make.day)
        assert {record.state for record in inbox.callbacks()} == {"pending"}
        make.settle(inbox, again, owner="other", now=make.now + make.day)
        assert {record.state for record in inbox.callbacks()} == {"done"}

    def test_arrivals_of_an_earlier_time_are_handed_out(self, inbox, make):
        """Callbacks that came while the clock stood a day back are work as any others."""
        (receipt,) = inbox.append([make.arrival(b"earlier", at=make.now - make.day)])
        make.enrolled(inbox, now=make.now - make.day)
        items = make.take(inbox, now=make.now - make.day)
        assert items[-1].callback_id == receipt.callback_id
        assert len(items) == 4


class TestUnended:
    @pytest.fixture
    def inbox(self, store, make):
        inbox = store.open()
        inbox.append(make.arrivals(4))
        make.enrolled(inbox)
        return inbox

    def test_work_that_was_never_started_is_not_unended(self, inbox, make):
        """A first attempt is nobody's leftover, and neither is one that was stopped before it counted."""
        items = make.take(inbox)
        inbox.release(["owner"], make.now, uncounted=True)
        assert [item.unended for item in items + make.take(inbox)] == [False] * 8

    def test_work_whose_end_was_recorded_is_not_unended(self, inbox, make):
        """A failure that was written down is no mystery: the next attempt is an ordinary one."""
        make.settle(inbox, make.take(inbox), "pending", error="trace")
        assert [(item.attempt, item.unended) for item in make.take(inbox)] == [(2, False)] * 4

    def test_work_of_a_dead_owner_is_unended(self, inbox, make):
        """Work that was given back because its owner died says so, in its error and to who claims it next."""
        make.take(inbox)
        inbox.release(["owner"], make.now)
        assert {work.error for number in (1, 2, 3, 4) for work in inbox.work(number)} == {UNENDED}
        assert [(item.attempt, item.unended) for item in make.take(inbox)] == [(2, True)] * 4

    def test_work_whose_lease_ran_out_is_unended(self, store, inbox, make):
        """Work that is taken over because its owner was silent is told as such."""
        make.take(inbox, owner="silent", lease_seconds=1)
        items = make.take(store.open(), owner="next", now=make.now + make.second)
        assert [(item.attempt, item.unended) for item in items] == [(2, True)] * 4

    def test_an_end_that_is_recorded_clears_it(self, inbox, make):
        """Unended work that then fails as others do, or is done, is unended no longer."""
        make.take(inbox)
        inbox.release(["owner"], make.now)
        items = make.take(inbox)
        make.settle(inbox, items[:2], "pending", error="trace")
        make.settle(inbox, items[2:])
        assert [item.unended for item in make.take(inbox)] == [False, False]
        assert inbox.work(4)[0].error is None

    def test_unended_work_comes_alone_where_that_is_asked(self, inbox, make):
        """What may have ended a process is handed out with no other work, until all of it has had its turn."""
        make.take(inbox, limit=2)
        inbox.release(["owner"], make.now)
        seen = {}
        while items := inbox.claim(["handler"], "owner", make.now, lease_seconds=30, limit=10, unended_alone=True):
            assert len(items) == 1 or not any(item.unended for item in items)
            seen |= {item.callback_id: item.unended for item in items}
        assert seen == {1: True, 2: True, 3: False, 4: False}
