"""What every inbox says of what it holds: callbacks and their states, selections, counts, subscribers, tokens."""

from __future__ import annotations

import hashlib
import itertools

import msgspec
import pytest

from upcall.errors import StoreError
from upcall.inbox import EVERYTHING, Retention, Selection, State, Subscription, TokenRecord, Trust


def ids(records):
    return [record.id for record in records]


class TestCallbacks:
    def test_a_record_says_all_that_is_known(self, inbox, make):
        """A callback is shown with its receipt, its verdict and its evidence, and what the parser made of it."""
        arrival = make.report(campaign_id="c1", account="0000000001-00001", kind="upgradeFinished")
        inbox.append(
            [msgspec.structs.replace(arrival, trust=Trust.CONFIRMED, evidence="the report", origin="reconciled")]
        )
        make.read_up(inbox)
        record = inbox.callback(1)
        assert (record.id, record.received_at, record.deliveries, record.state) == (1, make.now, 1, "stored")
        assert (record.account, record.kind, record.campaign_id) == ("0000000001-00001", "upgradeFinished", "c1")
        assert (record.trust, record.evidence, record.origin) == ("confirmed", "the report", "reconciled")
        assert (record.duplicate, record.duplicate_of) == ("first", None)
        assert record.key
        assert (record.body, record.body_bytes) == (arrival.body, len(arrival.body))
        assert record.digest == hashlib.sha256(arrival.body).hexdigest()
        assert inbox.callbacks() == [record]

    def test_bodies_are_left_out_where_nobody_asked_for_them(self, inbox, make):
        """A list without bodies says how long they are, and all else that a list with bodies says."""
        inbox.append([make.arrival(b"12345"), make.arrival(b"")])
        with_bodies, without = inbox.callbacks(), inbox.callbacks(bodies=False)
        assert [record.body for record in without] == [None, None]
        assert [record.body_bytes for record in without] == [5, 0]
        assert [msgspec.structs.replace(record, body=None) for record in with_bodies] == without

    def test_each_delivery_is_shown_with_where_it_came_from(self, inbox, make):
        """Peer, source, its place on the list and token are each delivery's own; the source is the peer at least."""
        inbox.append([make.arrival(peer="192.0.2.1", source="198.51.100.7", listed=True, token_id="t1")])
        inbox.append(
            [make.arrival(at=make.now + 1, peer="192.0.2.2", source="198.51.100.8", listed=False, token_id="t2")]
        )
        inbox.append([make.arrival(at=make.now + 2, peer="192.0.2.3")])
        shown = [
            (d.received_at - make.now, d.peer, d.source, d.listed, d.token_id, d.answer) for d in inbox.deliveries(1)
        ]
        assert shown == [
            (0, "192.0.2.1", "198.51.100.7", True, "t1", 200),
            (1, "192.0.2.2", "198.51.100.8", False, "t2", 200),
            (2, "192.0.2.3", "192.0.2.3", None, "", 200),
        ]
        assert inbox.callback(1).deliveries == 3

    @pytest.mark.parametrize("number", [0, -1, 2, (1 << 63) - 1, -(1 << 63)])
    def test_any_number_may_be_asked_for(self, inbox, make, number):
        """A number that no callback has, however large, gives nothing and no error."""
        inbox.append([make.arrival()])
        assert inbox.callback(number) is None
        assert (inbox.work(number), inbox.deliveries(number)) == ([], [])
        assert ids(inbox.callbacks(Selection(ids=(number, 1)))) == [1]
        assert ids(inbox.callbacks(Selection(after=number))) == ([1] if number <= 0 else [])
        assert ids(inbox.callbacks(Selection(before=number))) == ([1] if number >= 0 else [])

    def test_what_is_not_there(self, inbox):
        """Asking for what the store does not hold gives nothing, and no error."""
        assert inbox.callback(1) is None
        assert inbox.campaign("c1") is None
        assert inbox.next_due(["handler"]) is None
        assert inbox.quarantined_bytes() == 0
        for found in (
            inbox.work(1), inbox.deliveries(1), inbox.callbacks(), inbox.dead(), inbox.campaigns(), inbox.drift(),
            inbox.tokens(), inbox.owners(), inbox.subscribers(), inbox.check(),
        ):  # fmt: skip
            assert found == []


class TestStates:
    def test_without_subscribers_nothing_is_waited_for(self, inbox, make):
        """Where nobody reads, what came is stored and not pending, asked about in either way."""
        inbox.append(make.arrivals(3))
        for _ in range(2):  # found behind what the read model has taken in, and by it
            assert [record.state for record in inbox.callbacks()] == ["stored"] * 3
            assert inbox.callbacks(Selection(state=State.PENDING)) == []
            assert ids(inbox.callbacks(Selection(state=State.STORED))) == [1, 2, 3]
            make.read_up(inbox)

    def test_nothing_is_over_before_every_subscriber_has_looked(self, inbox, make):
        """What one handler is done with, gave up or does not want is pending while another has it before it."""
        inbox.append([make.arrival(body) for body in (b"done", b"dead", b"dropped", b"unwanted", b"released")])
        inbox.append([make.arrival(b"held", trust=Trust.QUARANTINED)])
        quick = Subscription("quick", lambda event: [] if event.raw == b"unwanted" else [""])
        inbox.subscribe(["quick", "slow"], make.now)
        make.enrolled(inbox, quick)
        items = {item.body: item for item in make.take(inbox, "quick")}
        make.settle(inbox, [items[b"done"], items[b"released"]])
        make.settle(inbox, [items[b"dead"], items[b"dropped"]], "dead")
        inbox.drop_dead(Selection(ids=(3,)), make.now)
        for is_read_up in (False, True):  # found by what the read model has taken in, and behind it
            assert [record.state for record in inbox.callbacks()] == ["pending"] * 5 + ["quarantined"]
            assert ids(inbox.callbacks(Selection(state=State.PENDING))) == [1, 2, 3, 4, 5]
            assert ids(inbox.callbacks(Selection(state=State.PENDING, ids=(2, 4, 6)))) == [2, 4]
            assert ids(inbox.callbacks(Selection(state=State.PENDING), limit=2, oldest=True)) == [1, 2]
            assert ids(inbox.callbacks(Selection(state=State.PENDING, given_up=True))) == [2]
            assert [letter.callback_id for letter in inbox.dead()] == [2]
            assert (inbox.ledger().unread, inbox.ledger().quarantined) == (5, 1)
            if not is_read_up:
                make.read_up(inbox)
        make.enrolled(inbox, Subscription("slow", lambda event: []))
        over = ["done", "dead", "dropped", "stored", "done", "quarantined"]
        assert [record.state for record in inbox.callbacks()] == over
        for number, state in enumerate(over, 1):
            assert number in ids(inbox.callbacks(Selection(state=State(state))))
        inbox.release_quarantined(EVERYTHING, make.now)
        make.enrolled(inbox, quick)
        make.settle(inbox, make.take(inbox, "quick"))
        assert ids(inbox.callbacks(Selection(state=State.PENDING))) == [6]
        make.enrolled(inbox, Subscription("slow", lambda event: []))
        assert ids(inbox.callbacks(Selection(state=State.DONE))) == [1, 5, 6]

    def test_states_say_what_became_of_a_callback(self, inbox, make):
        """A callback is stored, pending, done, dead or quarantined."""
        inbox.append(make.arrivals(2))
        inbox.append([make.arrival(trust=Trust.QUARANTINED, evidence="why")])
        inbox.append([make.report(devices={"d1": "Accepted", "d2": "Accepted"})])
        assert [record.state for record in inbox.callbacks()] == ["stored", "stored", "quarantined", "stored"]
        make.enrolled(inbox, Subscription("h", lambda event: [d.device_id for d in event.devices] or [""]))
        assert [record.state for record in inbox.callbacks()] == ["pending", "pending", "quarantined", "pending"]
        one, two, three, four = make.take(inbox, "h")
        assert inbox.callback(two.callback_id).state == "pending"
        make.settle(inbox, [one, three])
        make.settle(inbox, [four], "dead")
        assert [record.state for record in inbox.callbacks()] == ["done", "pending", "quarantined", "dead"]
        assert inbox.callback(3).evidence == "why"

    @pytest.mark.parametrize(
        "ends", list(itertools.combinations_with_replacement(["dead", "dropped", "pending", "leased", "done"], 2))
    )
    def test_of_several_ends_the_worst_is_the_callbacks(self, inbox, make, ends):
        """Work left to do makes a callback pending, else dead work makes it dead, else dropped work dropped."""
        inbox.append([make.arrival()])
        make.enrolled(inbox, make.whole("one"), make.whole("other"))
        for name, end in zip(("one", "other"), ends, strict=True):
            if end != "pending":
                items = make.take(inbox, name)
            if end not in {"pending", "leased"}:
                make.settle(inbox, items, "dead" if end == "dropped" else end)
            if end == "dropped":
                inbox.drop_dead(Selection(subscriber=name), make.now)
        assert [work.state for work in inbox.work(1)] == list(ends)
        found = {"pending" if end == "leased" else end for end in ends}
        expected = next(state for state in ("pending", "dead", "dropped", "done") if state in found)
        assert inbox.callback(1).state == expected
        assert [record.state for record in inbox.callbacks(Selection(state=State(expected)))] == [expected]
        ledger = inbox.ledger()
        assert getattr(ledger, "handled" if expected == "done" else expected) == ledger.stored == 1
        assert len(inbox.callbacks(Selection(given_up=True))) == ("dead" in ends)
        assert len(inbox.dead()) == ends.count("dead")

    def test_dropped_from_the_quarantine_and_released(self, inbox, make):
        """What was dropped from the quarantine is dropped for good; what was released is a callback like any other."""
        inbox.append([make.arrival(body, trust=Trust.QUARANTINED) for body in (b"one", b"two", b"three")])
        inbox.drop_quarantined(Selection(ids=(1,)), make.now)
        inbox.release_quarantined(Selection(ids=(2,)), make.now)
        assert [record.state for record in inbox.callbacks()] == ["dropped", "stored", "quarantined"]
        make.enrolled(inbox)
        assert [record.state for record in inbox.callbacks()] == ["dropped", "pending", "quarantined"]


@pytest.fixture
def mixed(inbox, make):
    """Six callbacks that differ in all that a selection asks about; 1 and 3 to 6 are work, of two subscribers."""
    minute = make.minute
    inbox.append(
        [
            make.report(campaign_id="c1", account="0000000001-00001", devices={"d1": "Accepted", "d2": "Accepted"}),
            make.arrival(b"no json", at=make.now + minute, account="0000000002-00001", trust=Trust.QUARANTINED),
            make.report(at=make.now + 2 * minute, campaign_id="c2", account="0000000001-00001", kind="upgradeFinished"),
            make.report(
                at=make.now + 3 * minute, campaign_id="c2", account="0000000002-00001", devices={"d1": "Accepted"}
            ),
            make.arrival(b"nobody's", at=make.now + 4 * minute),
            make.report(at=make.now + 5 * minute, campaign_id="c1", kind="Novel", account="0000000001-00001"),
        ]
    )
    make.read_up(inbox)
    make.enrolled(inbox, make.whole("whole"), make.devices("devices"))
    items = make.take(inbox, "whole", "devices")
    make.settle(inbox, [item for item in items if item.callback_id in {1, 3}])
    make.settle(inbox, [item for item in items if item.callback_id == 4], "dead", error="no")
    return inbox


SELECTIONS = [
    ({}, [1, 2, 3, 4, 5, 6]),
    ({"ids": (5, 1, 77)}, [1, 5]),
    ({"after": 4}, [5, 6]),
    ({"before": 3}, [1, 2]),
    ({"after": 1, "before": 5}, [2, 3, 4]),
    ({"after": 4, "before": 5}, []),
    ({"since": 3}, [4, 5, 6]),
    ({"until": 3}, [1, 2, 3]),
    ({"since": 1, "until": 2}, [2]),
    ({"account": "0000000001-00001"}, [1, 3, 6]),
    ({"account": "0000000002-00001"}, [2, 4]),
    ({"account": "nobody"}, []),
    ({"kind": "upgradeFinished"}, [3]),
    ({"kind": "upgradeProgress"}, [1, 4]),
    ({"kind": "Novel"}, [6]),
    ({"campaign_id": "c2"}, [3, 4]),
    ({"state": State.QUARANTINED}, [2]),
    ({"state": State.DONE}, [1, 3]),
    ({"state": State.DEAD}, [4]),
    ({"state": State.PENDING}, [5, 6]),
    ({"state": State.STORED}, []),
    ({"state": State.DROPPED}, []),
    ({"subscriber": "whole"}, [1, 3, 4, 5, 6]),
    ({"subscriber": "devices"}, [1, 4]),
    ({"subscriber": "nobody"}, []),
    ({"device_id": "d1"}, [1, 4]),
    ({"device_id": "d2"}, [1]),
    ({"subscriber": "whole", "device_id": "d1"}, []),
    ({"subscriber": "devices", "device_id": "d1", "state": State.DEAD}, [4]),
    ({"campaign_id": "c2", "account": "0000000001-00001"}, [3]),
    ({"campaign_id": "c1", "kind": "upgradeProgress", "since": 0, "until": 5, "state": State.DONE}, [1]),
]


class TestSelections:
    @pytest.mark.parametrize(("asked", "expected"), SELECTIONS, ids=[repr(asked) for asked, _ in SELECTIONS])
    def test_each_filter_alone_and_with_others(self, mixed, make, asked, expected):
        """A selection means the callbacks that fit all that it asks, and what it leaves out is not asked about."""
        moments = {name: make.now + asked[name] * make.minute for name in ("since", "until") if name in asked}
        selection = Selection(**asked | moments)
        assert ids(mixed.callbacks(selection)) == expected
        assert ids(mixed.callbacks(selection, bodies=False)) == expected
        assert ids(mixed.callbacks(selection, limit=2)) == expected[-2:]
        assert ids(mixed.callbacks(selection, limit=2, oldest=True)) == expected[:2]
        assert ids(mixed.callbacks(selection, oldest=True)) == expected

    @pytest.mark.parametrize("first", range(0, len(SELECTIONS), 5))
    def test_any_two_filters_mean_what_both_mean(self, mixed, make, first):
        """A selection of two filters means the callbacks that each of them means."""
        for (one, found), (other, also) in itertools.product(SELECTIONS[first : first + 5], SELECTIONS):
            if one.keys() & other.keys() or {"subscriber", "device_id"} <= one.keys() | other.keys():
                continue
            asked = one | other
            moments = {name: make.now + asked[name] * make.minute for name in ("since", "until") if name in asked}
            assert ids(mixed.callbacks(Selection(**asked | moments))) == sorted({*found} & {*also}), asked

    @pytest.mark.parametrize(("asked", "expected"), SELECTIONS, ids=[repr(asked) for asked, _ in SELECTIONS])
    def test_dead_letters_are_found_the_same_way(self, mixed, make, asked, expected):
        """A selection means the dead letters of the callbacks, subscribers and devices that it names."""
        moments = {name: make.now + asked[name] * make.minute for name in ("since", "until") if name in asked}
        letters = [
            (letter.callback_id, letter.subscriber, letter.device_id)
            for letter in mixed.dead(Selection(**asked | moments))
        ]
        all_letters = [(4, "whole", ""), (4, "devices", "d1")]
        assert sorted(letters) == sorted(
            letter
            for letter in all_letters
            if letter[0] in expected
            and asked.get("subscriber", letter[1]) == letter[1]
            and asked.get("device_id", letter[2]) == letter[2]
        )

    @pytest.mark.parametrize("page", [1, 2, 3, 7])
    def test_pages_forward_and_backward_are_the_whole(self, inbox, make, page):
        """Page by page, from the oldest on or from the newest back, the list is what it is at once."""
        inbox.append(make.arrivals(7))
        forward, backward = [], []
        while found := inbox.callbacks(Selection(after=forward[-1] if forward else 0), limit=page, oldest=True):
            forward += ids(found)
        while found := inbox.callbacks(Selection(before=backward[0] if backward else 0), limit=page):
            backward = ids(found) + backward
        assert forward == backward == ids(inbox.callbacks(EVERYTHING))

    def test_the_tokens_account_stands_in_where_the_message_names_none(self, inbox, make):
        """A callback belongs to the account that it names, before the one whose token it came through."""
        inbox.append([make.arrival(b"no json", account="0000000002-00001")])
        inbox.append([msgspec.structs.replace(make.report(account="0000000001-00001"), account="0000000002-00001")])
        make.read_up(inbox)
        assert ids(inbox.callbacks(Selection(account="0000000002-00001"))) == [1]
        assert ids(inbox.callbacks(Selection(account="0000000001-00001"))) == [2]


class TestLedger:
    def test_the_ledger_counts_as_it_defines(self, inbox, make):
        """Each count of the ledger is what its definition says, recounted from single callbacks."""
        inbox.append([*make.arrivals(6), make.arrival(b"q", trust=Trust.QUARANTINED), *make.arrivals(2)])
        subscriptions = [Subscription("some", lambda event: [""] if b"0" not in event.raw else []), make.whole("all")]
        inbox.subscribe(["some", "all"], make.now)
        inbox.enroll(subscriptions, make.now, limit=5)
        items = make.take(inbox, "some", "all")
        make.settle(inbox, [item for item in items if item.callback_id in {1, 2}])
        make.settle(inbox, [item for item in items if item.callback_id == 3], "dead")
        make.settle(inbox, [item for item in items if item.callback_id == 4 and item.subscriber == "all"], "dead")
        ledger = inbox.ledger()
        assert msgspec.to_builtins(ledger) == {
            "stored": 7,
            "deliveries": 9,
            "quarantined": 1,
            "dropped": 0,
            "unread": 1,
            "pending": 2,
            "handled": 2,
            "dead": 1,
            "unwanted": 0,
        }
        assert ledger.redelivered == 2

    def test_each_callback_is_counted_once_and_the_worst_counts(self, inbox, make):
        """Quarantined, dropped, pending, unread, dead, handled, unwanted: the first that fits is the callback's."""
        inbox.append([make.arrival(body) for body in (b"dead", b"pending", b"handled", b"unwanted", b"ahead")])
        inbox.append([make.arrival(body, trust=Trust.QUARANTINED) for body in (b"kept", b"dropped")])
        inbox.drop_quarantined(Selection(ids=(7,)), make.now)
        quick = Subscription("quick", lambda event: [] if event.raw == b"unwanted" else [""])
        slow = Subscription("slow", lambda event: [])
        inbox.subscribe(["quick", "slow"], make.now)
        inbox.enroll([quick, slow], make.now, limit=4)
        make.enrolled(inbox, quick)
        items = {item.body: item for item in make.take(inbox, "quick")}
        make.settle(inbox, [items[b"handled"], items[b"ahead"]])
        make.settle(inbox, [items[b"dead"]], "dead")

        def counts():
            told = msgspec.to_builtins(inbox.ledger())
            assert sum(told.values()) - told["stored"] - told["deliveries"] == told["stored"] == 7
            return [
                told[name] for name in ("quarantined", "dropped", "dead", "pending", "unread", "handled", "unwanted")
            ]

        assert counts() == [1, 1, 1, 1, 1, 1, 1]  # what is done for one is unread while another has not looked
        make.enrolled(inbox, quick, slow)
        assert counts() == [1, 1, 1, 1, 0, 2, 1]
        inbox.release_quarantined(EVERYTHING, make.now)
        assert counts() == [0, 1, 1, 1, 1, 2, 1]
        make.enrolled(inbox, quick, slow)
        assert counts() == [0, 1, 1, 2, 0, 2, 1]

    def test_without_subscribers_all_is_unread(self, inbox, make):
        """A store that nobody reads counts what handlers could see as unread."""
        inbox.append([*make.arrivals(3), make.arrival(b"q", trust=Trust.QUARANTINED)])
        assert (inbox.ledger().unread, inbox.ledger().quarantined) == (3, 1)

    def test_what_a_handler_that_is_gone_has_not_read_is_unread_until_it_is_forgotten(self, inbox, make):
        """A handler that was taken out of service is missed in the count, until somebody says that it is gone."""
        make.enrolled(inbox, make.whole("stays"), make.whole("goes"))
        inbox.append(make.arrivals(3))
        make.enrolled(inbox, make.whole("stays"))
        make.settle(inbox, make.take(inbox, "stays"))
        assert (inbox.ledger().unread, inbox.ledger().handled) == (3, 0)
        inbox.unsubscribe("goes")
        assert (inbox.ledger().unread, inbox.ledger().handled) == (0, 3)


class TestSubscriberRecords:
    def test_how_far_each_subscriber_is(self, inbox, make):
        """Unread, pending, leased, dead, done and failed are each subscriber's own, and so is its oldest undone."""
        inbox.append([make.arrival(b"%d" % number, at=make.now + number) for number in range(6)])
        inbox.subscribe(["slow", "quick", "new"], make.now)
        inbox.enroll([make.whole("slow"), make.whole("quick")], make.now, limit=2)
        make.enrolled(inbox, make.whole("quick"))
        items = make.take(inbox, "quick", limit=4)
        make.settle(inbox, items[:2])
        make.settle(inbox, items[2:3], "dead")
        told = {record.name: record for record in inbox.subscribers()}
        assert [record.name for record in inbox.subscribers()] == ["new", "quick", "slow"]
        assert msgspec.structs.astuple(told["new"])[1:] == (6, 0, 0, 0, make.now, 0, 0)
        assert msgspec.structs.astuple(told["slow"])[1:] == (4, 2, 0, 0, make.now, 0, 0)
        assert msgspec.structs.astuple(told["quick"])[1:] == (0, 2, 1, 1, make.now + 3, 2, 1)

    def test_a_subscriber_that_is_done_has_no_oldest(self, inbox, make):
        """A subscriber with nothing to do is not late."""
        inbox.append(make.arrivals(2))
        make.enrolled(inbox)
        make.settle(inbox, make.take(inbox))
        (record,) = inbox.subscribers()
        assert msgspec.structs.astuple(record) == ("handler", 0, 0, 0, 0, None, 2, 0)

    def test_ends_are_counted_by_how_they_came(self, inbox, make):
        """Each attempt that ended counts as done or failed, those before a retry or a dead letter as failed."""

        def counts():
            (record,) = inbox.subscribers()
            return record.done, record.failed

        inbox.append(make.arrivals(4))
        make.enrolled(inbox)
        first, second, third, fourth = make.take(inbox)
        make.settle(inbox, [first])
        make.settle(inbox, [second], "pending", error="trace")
        make.settle(inbox, [third], "dead", error="trace")
        assert counts() == (1, 2)
        with inbox.finish(fourth.id, "owner", make.now):
            pass
        make.settle(inbox, make.take(inbox))
        assert counts() == (3, 2)
        inbox.drop_dead(EVERYTHING, make.now)
        inbox.replay(EVERYTHING, make.now, reason="again")
        assert counts() == (3, 2)
        make.settle(inbox, make.take(inbox, limit=2))
        assert counts() == (5, 2)

    def test_what_did_not_end_is_not_counted(self, store, inbox, make):
        """Work that is given back, whose worker died, or whose lease was lost has neither ended well nor failed."""
        inbox.append(make.arrivals(2))
        make.enrolled(inbox)
        for owner in ("stopped", "died"):
            make.take(inbox, owner=owner)
            assert inbox.release([owner], make.now, uncounted=owner == "stopped") == 2
        late = make.take(inbox, owner="late", lease_seconds=1)
        make.settle(inbox, make.take(inbox, now=make.now + make.minute)[:1], now=make.now + make.minute)
        make.settle(inbox, late, owner="late", now=make.now + make.minute)
        make.settle(inbox, late, "dead", owner="late", now=make.now + make.minute)
        with pytest.raises(ZeroDivisionError), inbox.finish(late[1].id, "owner", make.now + make.minute):
            raise ZeroDivisionError
        (record,) = store.open().subscribers()
        assert (record.done, record.failed, record.leased) == (1, 0, 1)

    def test_counts_never_go_back(self, inbox, make):
        """Retention and forgetting a device take nothing off what was counted; a name that comes back counts anew."""
        inbox.append([make.report(devices={"d1": "UpgradeFailed"}), *make.arrivals(2)])
        make.enrolled(inbox)
        items = make.take(inbox)
        make.settle(inbox, items[:2])
        make.settle(inbox, items[2:], "dead", error="trace d1")
        inbox.drop_dead(EVERYTHING, make.now)
        make.read_up(inbox)
        inbox.forget("d1", make.now)
        assert inbox.prune(Retention(body_seconds=1, record_seconds=1), make.now + make.day).callbacks == 3
        (record,) = inbox.subscribers()
        assert (record.done, record.failed) == (2, 1)
        inbox.unsubscribe("handler")
        inbox.subscribe(["handler"], make.now)
        (record,) = inbox.subscribers()
        assert (record.done, record.failed) == (0, 0)

    def test_a_callback_is_unread_from_its_release(self, inbox, make):
        """What no handler may see is nobody's backlog; from its release on it is everybody's."""
        inbox.append([make.arrival(trust=Trust.QUARANTINED)])
        make.enrolled(inbox, make.whole("one"), make.whole("other"))
        assert [(record.unread, record.oldest_at) for record in inbox.subscribers()] == [(0, None)] * 2
        inbox.release_quarantined(EVERYTHING, make.now + make.minute)
        assert [(record.unread, record.oldest_at) for record in inbox.subscribers()] == [(1, make.now)] * 2
        make.enrolled(inbox, make.whole("one"))
        assert [(record.unread, record.pending) for record in inbox.subscribers()] == [(0, 1), (1, 0)]


class TestTokens:
    def test_tokens_are_kept(self, store, make):
        """A token that was generated for the store is there after a restart, with its accounts."""
        first = store.open()
        first.add_token(TokenRecord("t" * 32, ()), make.now)
        first.add_token(TokenRecord("u" * 32, ("0000000001-00001", "0000000002-00001")), make.now + 1)
        first.close()
        assert store.open().tokens() == [
            TokenRecord("t" * 32, (), created_at=make.now),
            TokenRecord("u" * 32, ("0000000001-00001", "0000000002-00001"), created_at=make.now + 1),
        ]

    def test_a_token_that_is_there_is_refused(self, inbox, make):
        """A token is kept once: who adds it again is told so, and the first one's accounts stay."""
        inbox.add_token(TokenRecord("t" * 32, ("0000000001-00001",)), make.now)
        with pytest.raises(StoreError, match="has this token already") as raised:
            inbox.add_token(TokenRecord("t" * 32, ()), make.now + 1)
        assert type(raised.value) is StoreError
        assert inbox.tokens() == [TokenRecord("t" * 32, ("0000000001-00001",), created_at=make.now)]
