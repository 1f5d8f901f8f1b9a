"""Any sequence of what can happen to an inbox, beside a model of it in plain Python."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from upcall.inbox import Arrival, Outcome, Subscription, Trust
from upcall.testing import callback

SECOND = 1_000_000
WINDOW = 30 * 60 * SECOND
LEASE_SECONDS = 30

BODIES = [
    b"",
    b"no json",
    callback(campaign_id="c1", devices={"d1": "Accepted", "d2": "UpgradeFailed"}),
    callback(campaign_id="c1", devices={"d2": "UpgradeSuccess"}),
]
DEVICES = {BODIES[2]: ["d1", "d2"], BODIES[3]: ["d2"]}
SUBSCRIPTIONS = {
    "whole": Subscription("whole", lambda event: [""]),
    "devices": Subscription("devices", lambda event: [device.device_id for device in event.devices]),
}
OWNERS = ("one", "other")


class Work:
    """One piece of work as the model knows it."""

    def __init__(self, due_at):
        self.state, self.due_at, self.attempts, self.owner = "pending", due_at, 0, None


class InboxMachine(RuleBasedStateMachine):
    """Two workers and a listener on one store, with crashes and a clock that moves either way."""

    def __init__(self, store):
        super().__init__()
        self.store = store
        self.inbox = store.open()
        self.now = 1_800_000_000 * SECOND
        self.callbacks = {}  # number: (body, received_at, is_quarantined)
        self.deliveries = 0
        self.cursors = {}
        self.work = {}  # (callback, subscriber, device): Work
        self.keys = {}  # a claimed item's id: its key above
        self.held = {owner: [] for owner in OWNERS}  # what each owner believes to hold
        self.ended = set()

    def teardown(self):
        self.finish()
        self.store.close()

    @initialize()
    def begin(self):
        self.subscribe("whole")

    # what happens

    @rule(body=st.sampled_from(BODIES), quarantined=st.booleans(), copies=st.integers(1, 3))
    def append(self, body, quarantined, copies):
        trust = Trust.QUARANTINED if quarantined else Trust.ACCEPTED
        receipts = self.inbox.append([Arrival(body=body, received_at=self.now, trust=trust)] * copies)
        for receipt in receipts:
            known = [
                number
                for number, (kept, at, kept_quarantined) in self.callbacks.items()
                if (kept, kept_quarantined) == (body, quarantined) and abs(at - self.now) <= WINDOW
            ]
            assert receipt.is_new == (not known)
            if known:
                assert receipt.callback_id == min(known)
            else:
                assert receipt.callback_id > max(self.callbacks, default=0)
                self.callbacks[receipt.callback_id] = (body, self.now, quarantined)
            self.deliveries += 1

    @rule(name=st.sampled_from(sorted(SUBSCRIPTIONS)))
    def subscribe(self, name):
        self.inbox.subscribe([name], self.now)
        self.cursors.setdefault(name, max(self.cursors.values(), default=0))

    @rule(limit=st.sampled_from([1, 2, 100]))
    def enroll(self, limit):
        names = sorted(self.cursors)
        looked_at = self.inbox.enroll([SUBSCRIPTIONS[name] for name in names], self.now, limit=limit)
        start = min(self.cursors.values())
        rows = [number for number in sorted(self.callbacks) if number > start][:limit]
        assert looked_at == len(rows)
        for number in rows:
            body, _, quarantined = self.callbacks[number]
            for name in names:
                if number > self.cursors[name] and not quarantined:
                    for device_id in [""] if name == "whole" else DEVICES.get(body, []):
                        self.work[number, name, device_id] = Work(self.now)
        if rows:
            self.cursors = {name: max(cursor, rows[-1]) for name, cursor in self.cursors.items()}

    @rule(owner=st.sampled_from(OWNERS), limit=st.integers(1, 4), names=st.sets(st.sampled_from(sorted(SUBSCRIPTIONS))))
    def claim(self, owner, limit, names):
        items = self.inbox.claim(sorted(names), owner, self.now, lease_seconds=LEASE_SECONDS, limit=limit)
        due = {
            key: work
            for key, work in self.work.items()
            if key[1] in names and work.state in {"pending", "leased"} and work.due_at <= self.now
        }
        assert len(items) == min(limit, len(due))
        for item in items:
            key = (item.callback_id, item.subscriber, item.device_id)
            work = due.pop(key)
            work.state, work.owner, work.attempts = "leased", owner, work.attempts + 1
            work.due_at = self.now + LEASE_SECONDS * SECOND
            assert (item.attempt, item.body) == (work.attempts, self.callbacks[item.callback_id][0])
            assert self.keys.setdefault(item.id, key) == key
            self.held[owner].append(item.id)

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), state=st.sampled_from(["done", "done", "pending", "dead"]), wait=st.integers(0, 90))
    def settle(self, data, state, wait):
        owner = data.draw(st.sampled_from([owner for owner in OWNERS if self.held[owner]]))
        item_id = data.draw(st.sampled_from(self.held[owner]))
        self.held[owner].remove(item_id)
        due_at = self.now + wait * SECOND
        self.inbox.settle([Outcome(item_id, state, due_at, "trace")], owner, self.now)
        work = self.work[self.keys[item_id]]
        if (work.state, work.owner) == ("leased", owner):
            work.state, work.due_at, work.owner = state, due_at, None
            if state != "pending":
                assert self.keys[item_id] not in self.ended
                self.ended.add(self.keys[item_id])

    @rule(owner=st.sampled_from(OWNERS))
    def renew(self, owner):
        self.inbox.renew(self.held[owner], owner, self.now, lease_seconds=LEASE_SECONDS)
        for item_id in self.held[owner]:
            work = self.work[self.keys[item_id]]
            if (work.state, work.owner) == ("leased", owner):
                work.due_at = self.now + LEASE_SECONDS * SECOND

    @rule(owner=st.sampled_from(OWNERS))
    def release(self, owner):
        leased = [work for work in self.work.values() if (work.state, work.owner) == ("leased", owner)]
        assert self.inbox.release([owner], self.now) == len(leased)
        for work in leased:
            work.state, work.owner, work.due_at = "pending", None, self.now

    @rule(owner=st.sampled_from(OWNERS))
    def crash(self, owner):
        """A process ends without a word: what it held stays leased, and it remembers nothing."""
        self.held[owner].clear()
        self.inbox.close()
        self.inbox = self.store.open()

    @rule(seconds=st.sampled_from([1, 29, 31, 31 * 60, 20 * 24 * 3600, -5, -31 * 60]))
    def move_the_clock(self, seconds):
        self.now += seconds * SECOND

    @rule()
    def project(self):
        self.inbox.project(limit=2)

    # what must hold

    @invariant()
    def nothing_accepted_is_lost(self):
        kept = {record.id: (record.body, record.received_at, record.trust) for record in self.inbox.callbacks()}
        assert kept == {
            number: (body, at, "quarantined" if quarantined else "accepted")
            for number, (body, at, quarantined) in self.callbacks.items()
        }

    @invariant()
    def work_stands_as_the_model_says(self):
        kept = {
            (number, work.subscriber, work.device_id): (work.state, work.attempts)
            for number in self.callbacks
            for work in self.inbox.work(number)
        }
        assert kept == {key: (work.state, work.attempts) for key, work in self.work.items()}
        assert set(self.inbox.owners()) == {work.owner for work in self.work.values() if work.owner}

    @invariant()
    def the_ledger_adds_up(self):
        states = {}
        for (number, _, _), work in self.work.items():
            states.setdefault(number, set()).add("open" if work.state in {"pending", "leased"} else work.state)
        seen = max(self.cursors.values(), default=0)
        ledger = self.inbox.ledger()
        assert (ledger.stored, ledger.deliveries) == (len(self.callbacks), self.deliveries)
        assert ledger.quarantined == sum(quarantined for _, _, quarantined in self.callbacks.values())
        assert ledger.handled == sum(found == {"done"} for found in states.values())
        assert ledger.pending == sum("open" in found for found in states.values())
        assert ledger.dead == sum("dead" in found for found in states.values())
        assert ledger.unread == sum(number > seen and not kept[2] for number, kept in self.callbacks.items())

    def finish(self):
        """Owners that behave bring every callback to its end for every subscriber."""
        names = sorted(self.cursors)
        if not names:
            return
        while self.inbox.enroll([SUBSCRIPTIONS[name] for name in names], self.now):
            pass
        self.now = max([self.now, *(work.due_at for work in self.work.values())])
        while items := self.inbox.claim(names, "last", self.now, lease_seconds=LEASE_SECONDS, limit=100):
            self.inbox.settle([Outcome(item.id, "done") for item in items], "last", self.now)
            again = {(item.callback_id, item.subscriber, item.device_id) for item in items} & self.ended
            assert not again
        states = {work.state for number in self.callbacks for work in self.inbox.work(number)}
        assert states <= {"done", "dead"}
        assert self.inbox.next_due(names) is None
        ledger = self.inbox.ledger()
        assert (ledger.pending, ledger.unread) == (0, 0)


def test_any_sequence_of_events(store):
    """Nothing accepted is lost, and each callback ends done or dead once for each subscriber, whatever happens."""
    run_state_machine_as_test(
        lambda: InboxMachine(store.fresh()), settings=settings(max_examples=150, stateful_step_count=40)
    )
