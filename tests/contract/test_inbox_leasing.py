"""What every inbox promises a worker that enrolls and leases in one step."""

from __future__ import annotations

import pytest

from upcall.inbox import Lessee, Outcome, Trust


@pytest.fixture
def lease(make):
    """Enroll and lease, as a worker does."""

    def enroll(inbox, *subscriptions, room, owner="owner", now=make.now, limit=1000):
        inbox.subscribe([subscription.name for subscription in subscriptions], now)
        return inbox.enroll(subscriptions, now, limit=limit, lessee=Lessee(owner, 30, room))

    return enroll


def pieces(items):
    return [(item.subscriber, item.callback_id, item.device_id) for item in items]


class TestLeasedAtOnce:
    def test_what_there_is_room_for(self, inbox, make, lease):
        """Of new work the oldest is leased, as much as there is room for; the rest is there to be claimed."""
        inbox.append(make.arrivals(5))
        looked_at, items = lease(inbox, make.whole(), room={"handler": 3})
        assert looked_at == 5
        assert pieces(items) == [("handler", number, "") for number in (1, 2, 3)]
        assert [item.callback_id for item in make.take(inbox, owner="other")] == [4, 5]

    def test_it_is_the_owners_as_claimed_work_is(self, inbox, make, lease):
        """What was leased counts one attempt, carries its body, and stays the owner's until the lease ends."""
        inbox.append([make.report(account="a1")])
        _, (item,) = lease(inbox, make.whole(), room={"handler": 9})
        record = inbox.callback(1)
        assert (item.attempt, item.unended, item.body, item.account) == (1, False, record.body, None)
        assert item.received_at == record.received_at
        assert inbox.owners() == ["owner"]
        assert make.take(inbox, owner="other", now=make.now + 29 * make.second) == []
        (taken,) = make.take(inbox, owner="other", now=make.now + 31 * make.second)
        assert (taken.id, taken.attempt, taken.unended) == (item.id, 2, True)

    def test_its_end_is_recorded(self, inbox, make, lease):
        """What was leased so is settled as what was claimed is, by its owner alone."""
        inbox.append(make.arrivals(2))
        _, items = lease(inbox, make.whole(), room={"handler": 9})
        make.settle(inbox, items, owner="other")
        assert inbox.ledger().pending == 2
        make.settle(inbox, items[:1])
        inbox.settle([Outcome(items[1].id, "pending", make.now, "trace")], "owner", make.now)
        assert [inbox.callback(number).state for number in (1, 2)] == ["done", "pending"]

    def test_no_room_no_lease(self, inbox, make, lease):
        """Of a subscriber that has no room, or is not named, nothing is leased, and all is enrolled."""
        inbox.append(make.arrivals(2))
        looked_at, items = lease(inbox, make.whole("one"), make.whole("two"), room={"one": 0})
        assert (looked_at, items) == (2, [])
        assert len(make.take(inbox, "one", "two")) == 4

    def test_room_is_each_subscribers_own(self, inbox, make, lease):
        """What one subscriber has room for is no other's."""
        inbox.append(make.arrivals(3))
        _, items = lease(inbox, make.whole("one"), make.whole("two"), room={"one": 1, "two": 2})
        assert sorted(pieces(items)) == [("one", 1, ""), ("two", 1, ""), ("two", 2, "")]

    def test_devices_are_counted_one_by_one(self, inbox, make, lease):
        """Work for devices takes room by the device, and a device that is named twice is one piece."""
        inbox.append([make.report(devices={"d1": "Accepted", "d2": "Accepted", "d3": "Accepted"})])
        _, items = lease(inbox, make.devices(), room={"device-handler": 2})
        assert pieces(items) == [("device-handler", 1, "d1"), ("device-handler", 1, "d2")]

    def test_what_has_an_order_waits_in_it(self, inbox, make, lease):
        """Ordered work of a campaign is not leased: a claim hands out its first piece, and no other."""
        inbox.append([make.report(campaign_id="c1", devices={"d": word}) for word in ("Accepted", "UpgradeSuccess")])
        inbox.append(make.arrivals(1))
        _, items = lease(inbox, make.whole(ordered=True), room={"handler": 9})
        assert pieces(items) == [("handler", 3, "")]
        assert pieces(make.take(inbox)) == [("handler", 1, "")]

    def test_quarantined_callbacks_are_nobodys(self, inbox, make, lease):
        """A callback in quarantine is passed by and not leased."""
        inbox.append([make.arrival(trust=Trust.QUARANTINED)])
        assert lease(inbox, make.whole(), room={"handler": 9}) == (1, [])

    def test_two_workers_get_different_work(self, store, make, lease):
        """What one worker has enrolled another does not enroll again."""
        one, other = store.open(), store.open()
        one.append(make.arrivals(4))
        _, first = lease(one, make.whole(), room={"handler": 9}, owner="one", limit=2)
        _, second = lease(other, make.whole(), room={"handler": 9}, owner="other")
        assert pieces(first + second) == [("handler", number, "") for number in (1, 2, 3, 4)]
        assert lease(one, make.whole(), room={"handler": 9}, owner="one") == (0, [])

    def test_many_at_once(self, inbox, make, lease):
        """A large step makes each piece of work once, whatever its size is."""
        inbox.append(make.arrivals(333))
        _, items = lease(inbox, make.whole(), room={"handler": 200})
        assert [item.callback_id for item in items] == list(range(1, 201))
        assert len({item.id for item in items}) == 200
        assert [item.callback_id for item in make.take(inbox)] == list(range(201, 334))
