"""What every inbox promises ordered subscribers: one piece of a campaign at a time, in the order of receipt."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from upcall.inbox import EVERYTHING, Selection, Subscription, Trust

ONE, OTHER = "0000000001-00001", "0000000002-00001"


def numbers(items):
    return [item.callback_id for item in items]


@pytest.fixture
def three(store, make):
    """An inbox with three callbacks about one campaign, as work of one ordered subscriber."""
    inbox = store.open()
    inbox.append([make.report(at=make.now + number, campaign_id="c1") for number in range(3) for _ in range(1)])
    inbox.append([make.report(at=make.now + make.day * number, campaign_id="c1") for number in (1, 2)])
    make.enrolled(inbox, make.whole(ordered=True))
    return inbox


class TestOneAtATime:
    def test_a_claim_hands_out_the_earliest_alone(self, three, make):
        """Of a campaign's work one claim hands out one piece, the earliest, whatever its limit is."""
        assert numbers(make.take(three)) == [1]
        assert make.take(three) == []

    @pytest.mark.parametrize("end", ["done", "dead"])
    def test_the_next_waits_until_it_is_done_or_dead(self, three, make, end):
        """The end of a piece, one way or the other, lets the next one go, and no other than the next."""
        seen = []
        while items := make.take(three):
            seen += numbers(items)
            make.settle(three, items, end)
        assert seen == [1, 2, 3]

    def test_other_workers_wait_too(self, store, three, make):
        """Another worker on the store is not handed the second piece while the first is at work."""
        other = store.open()
        held = make.take(three, owner="one")
        assert make.take(other, owner="other") == []
        make.settle(three, held, owner="one")
        assert numbers(make.take(other, owner="other")) == [2]
        assert make.take(three, owner="one") == []

    def test_a_retry_holds_the_later_ones_back(self, three, make):
        """A piece that is to be tried again keeps its place: nothing overtakes it while it waits for its time."""
        items = make.take(three)
        make.settle(three, items, "pending", due_at=make.now + 100)
        assert make.take(three, now=make.now + 99) == []
        assert [(i.callback_id, i.attempt) for i in make.take(three, now=make.now + 100)] == [(1, 2)]

    def test_the_next_is_due_when_the_earliest_is(self, three, make):
        """What waits behind a retry is not due: a worker that asks sleeps until the retry is."""
        items = make.take(three)
        assert three.next_due(["handler"]) == make.now + 30 * make.second
        make.settle(three, items, "pending", due_at=make.now + 5 * make.minute)
        assert three.next_due(["handler"]) == make.now + 5 * make.minute
        items = make.take(three, now=make.now + 5 * make.minute)
        make.settle(three, items)
        assert three.next_due(["handler"]) <= make.now + 5 * make.minute

    def test_a_lease_that_ran_out_does_not_break_the_order(self, store, three, make):
        """When a worker is gone its piece is handed out again before any later one."""
        make.take(three, owner="gone", lease_seconds=30)
        later = make.now + 31 * make.second
        assert [(i.callback_id, i.attempt) for i in make.take(store.open(), now=later)] == [(1, 2)]

    def test_a_piece_that_was_given_back_comes_first(self, three, make):
        """A worker that stops gives back the earliest piece, and that is the one handed out next."""
        make.take(three, owner="stops")
        three.release(["stops"], make.now, uncounted=True)
        assert [(i.callback_id, i.attempt) for i in make.take(three)] == [(1, 1)]

    def test_workers_in_threads_keep_the_order(self, store, three, make):
        """Several workers that claim at once never hold two pieces of one campaign, and end them in their order."""
        inboxes = [store.open() for _ in range(4)]
        ended, holding = [], threading.Semaphore(1)
        start = threading.Barrier(4)

        def work(number):
            start.wait()
            while len(ended) < 3:
                for item in make.take(inboxes[number], owner=str(number)):
                    assert holding.acquire(blocking=False)
                    ended.append(item.callback_id)
                    holding.release()
                    make.settle(inboxes[number], [item], owner=str(number))

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work, range(4)))
        assert ended == [1, 2, 3]


class TestWhatIsOrdered:
    def test_each_campaign_of_each_account_has_its_own_order(self, inbox, make):
        """Campaigns do not wait for each other, nor do two accounts' campaigns of one name."""
        inbox.append(
            [
                make.report(campaign_id="c1", account=ONE),
                make.report(campaign_id="c1", account=ONE, status="CampaignEnded"),
                make.report(campaign_id="c1", account=OTHER),
                make.report(campaign_id="c2", account=ONE),
            ]
        )
        make.enrolled(inbox, make.whole(ordered=True))
        assert numbers(make.take(inbox)) == [1, 3, 4]

    def test_the_tokens_account_orders_what_names_none(self, inbox, make):
        """Two accounts' messages that name only the campaign are told apart by the tokens that they came through."""
        body = b'{"type":"upgradeProgress","upgradeProgress":{"id":"c1","status":"%s"}}'
        inbox.append([make.arrival(body % b"CampaignScheduled", account=ONE)])
        inbox.append([make.arrival(body % b"CampaignEnded", account=ONE)])
        inbox.append([make.arrival(body % b"CampaignStarted", account=OTHER)])
        make.enrolled(inbox, make.whole(ordered=True))
        assert numbers(make.take(inbox)) == [1, 3]

    def test_work_without_a_campaign_is_unordered(self, inbox, make):
        """A callback that names no campaign waits for nothing, and nothing waits for it."""
        inbox.append([make.report(campaign_id="c1"), *make.arrivals(3)])
        make.enrolled(inbox, make.whole(ordered=True))
        assert numbers(make.take(inbox)) == [1, 2, 3, 4]

    def test_subscribers_wait_for_their_own_work_only(self, inbox, make):
        """An unordered subscriber takes all at once, and an ordered one waits for nobody else's work."""
        inbox.append(
            [make.report(campaign_id="c1", status=status) for status in ("CampaignScheduled", "CampaignEnded")]
        )
        make.enrolled(inbox, make.whole("one", ordered=True), make.whole("other", ordered=True), make.whole("free"))
        items = make.take(inbox, "one", "other", "free")
        assert sorted((item.subscriber, item.callback_id) for item in items) == [
            ("free", 1), ("free", 2), ("one", 1), ("other", 1),
        ]  # fmt: skip
        make.settle(inbox, [item for item in items if item.subscriber == "one"])
        assert [(i.subscriber, i.callback_id) for i in make.take(inbox, "one", "other")] == [("one", 2)]

    def test_devices_come_in_their_order_in_the_callback(self, inbox, make):
        """Ordered work per device goes one device at a time, in the order in which the callback names them."""
        inbox.append([make.report(campaign_id="c1", devices={"d3": "Accepted", "d1": "Accepted", "d2": "Accepted"})])
        inbox.append([make.report(campaign_id="c1", devices={"d1": "UpgradeSuccess"})])
        make.enrolled(inbox, make.devices(ordered=True))
        seen = []
        while items := make.take(inbox, "device-handler"):
            assert len(items) == 1
            seen += [(item.callback_id, item.device_id) for item in items]
            make.settle(inbox, items)
        assert seen == [(1, "d3"), (1, "d1"), (1, "d2"), (2, "d1")]

    def test_a_limit_is_filled_across_campaigns(self, inbox, make):
        """Work that has to wait does not take the place of work that may go."""
        inbox.append([make.report(campaign_id="c1", status=f"S{number}") for number in range(20)])
        inbox.append([make.report(campaign_id=f"c{number}") for number in (2, 3, 4)])
        make.enrolled(inbox, make.whole(ordered=True))
        assert len(make.take(inbox, limit=3)) == 3
        assert len(make.take(inbox, limit=3)) == 1

    def test_the_order_is_of_receipt_where_the_clock_was_set_back(self, inbox, make):
        """What came later is later, though the clock said that it came earlier."""
        inbox.append([make.report(campaign_id="c1", status="CampaignScheduled")])
        inbox.append([make.report(at=make.now - make.day, campaign_id="c1", status="CampaignEnded")])
        make.enrolled(inbox, make.whole(ordered=True))
        assert numbers(make.take(inbox)) == [1]


class TestDecisions:
    def test_a_replayed_piece_goes_before_the_later_ones(self, three, make):
        """What is replayed takes its old place: later pieces that have not begun wait for it."""
        make.settle(three, make.take(three))
        three.replay(Selection(ids=(1,)), make.now, reason="again")
        assert numbers(make.take(three)) == [1]
        assert make.take(three) == []

    def test_all_replayed_come_in_their_order_again(self, three, make):
        """A campaign that is replayed as a whole runs again in the order of receipt."""
        while items := make.take(three):
            make.settle(three, items, "dead")
        assert three.replay(EVERYTHING, make.now, reason="again") == 3
        seen = []
        while items := make.take(three):
            seen += numbers(items)
            make.settle(three, items)
        assert seen == [1, 2, 3]

    def test_a_dropped_dead_letter_holds_nothing_back(self, three, make):
        """A dead letter that is given up for good is out of the order, as it was while it was dead."""
        make.settle(three, make.take(three), "dead")
        three.drop_dead(EVERYTHING, make.now)
        assert numbers(make.take(three)) == [2]

    def test_released_callbacks_come_at_their_release(self, inbox, make):
        """A callback that was released takes its place behind what was handed out as work before."""
        first = make.report(campaign_id="c1", status="CampaignScheduled")
        inbox.append([msgspec.structs.replace(first, trust=Trust.QUARANTINED)])
        inbox.append([make.report(campaign_id="c1", status="CampaignStarted")])
        make.enrolled(inbox, make.whole(ordered=True))
        inbox.release_quarantined(EVERYTHING, make.now)
        make.enrolled(inbox, make.whole(ordered=True))
        inbox.append([make.report(campaign_id="c1", status="CampaignEnded")])
        make.enrolled(inbox, make.whole(ordered=True))
        seen = []
        while items := make.take(inbox):
            seen += numbers(items)
            make.settle(inbox, items)
        assert seen == [2, 1, 3]

    def test_several_released_come_in_the_order_of_their_release(self, inbox, make):
        """Callbacks are handed out as they were released, not as they were received."""
        for number in range(3):
            report = make.report(campaign_id="c1", status=f"S{number}")
            inbox.append([msgspec.structs.replace(report, trust=Trust.QUARANTINED)])
        make.enrolled(inbox, make.whole(ordered=True))
        for number in (2, 3, 1):
            inbox.release_quarantined(Selection(ids=(number,)), make.now)
        make.enrolled(inbox, make.whole(ordered=True))
        seen = []
        while items := make.take(inbox):
            seen += numbers(items)
            make.settle(inbox, items)
        assert seen == [2, 3, 1]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    campaigns=st.lists(st.sampled_from(["c1", "c2", None]), min_size=1, max_size=8),
    ends=st.lists(st.sampled_from(["done", "dead", "pending"]), max_size=12),
    batch=st.integers(1, 3),
)
def test_any_ends_keep_each_campaigns_order(store, make, campaigns, ends, batch):
    """Whatever the ends, nothing of a campaign is handed out before all that came earlier is done or dead."""
    with store.fresh() as fresh:
        inbox = fresh.open()
        subscription = Subscription("handler", lambda event: [""], ordered=True)
        for number, campaign_id in enumerate(campaigns):
            inbox.append(
                [
                    make.report(campaign_id=campaign_id, status=f"S{number}")
                    if campaign_id
                    else make.arrival(b"%d" % number)
                ]
            )
            if number % batch == 0:
                make.enrolled(inbox, subscription)
        make.enrolled(inbox, subscription)
        over, order = set(), iter(ends)
        while items := make.take(inbox, limit=2):
            for item in items:
                own = campaigns[item.callback_id - 1]
                earlier = {n for n, other in enumerate(campaigns[: item.callback_id - 1], 1) if own and other == own}
                assert earlier <= over
            for item in items:
                end = next(order, "done")
                make.settle(inbox, [item], end, due_at=make.now)
                over |= {item.callback_id} if end != "pending" else set()
        assert over == set(range(1, len(campaigns) + 1))
