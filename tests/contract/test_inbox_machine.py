"""Any sequence of what can happen to an inbox, beside a model of it in plain Python."""

from __future__ import annotations

import contextlib
import itertools

import pytest
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

from upcall.inbox import EVERYTHING, Arrival, Lessee, Outcome, Retention, Selection, State, Subscription, Trust
from upcall.inbox.values import REDELIVERY_WINDOW_MICROS
from upcall.testing import callback

SECOND = 1_000_000
LEASE_SECONDS = 30
CLOCK_TOLERANCE = 60 * SECOND
LONGEST_LEASE = 60 * SECOND
# Not whole seconds: no callback is ever exactly that old, as all else here happens at whole ones.
RETENTION = Retention(body_seconds=3600.5, record_seconds=19 * 86_400.5)

BODIES = [
    b"",
    b"no json",
    callback(campaign_id="c1", devices={"d2": "Accepted", "d1": "UpgradeFailed"}),
    callback(campaign_id="c1", devices={"d2": "UpgradeSuccess"}),
    callback(campaign_id="c2"),
]
DEVICES = {BODIES[2]: ["d2", "d1"], BODIES[3]: ["d2"]}
CAMPAIGNS = {BODIES[2]: "c1", BODIES[3]: "c1", BODIES[4]: "c2"}
SUBSCRIPTIONS = {
    "devices": Subscription("devices", lambda event: [device.device_id for device in event.devices]),
    "ordered": Subscription("ordered", lambda event: [d.device_id for d in event.devices] or [""], ordered=True),
    "whole": Subscription("whole", lambda event: [""]),
}
NAMES = sorted(SUBSCRIPTIONS)
OWNERS = ("one", "other")
ENDS = ["done", "finish", "dead", "pending", "raise"]
OVER = {"done", "dead", "dropped"}
LEDGER = ("quarantined", "dropped", "dead", "pending", "unread", "handled", "unwanted")


def wanted(name, body):
    devices = DEVICES.get(body, [])
    return {"devices": devices, "ordered": devices or [""], "whole": [""]}[name]


class Kept:
    """One callback as the model knows it."""

    def __init__(self, body, at, *, quarantined):
        self.body, self.at, self.quarantined = body, at, quarantined
        self.deliveries, self.dropped, self.has_body = 0, False, True


class Work:
    """One piece of work as the model knows it."""

    def __init__(self, key, number, due_at, order):
        self.key, self.number, self.due_at, self.order = key, number, due_at, order
        self.id, self.state, self.attempts, self.owner = None, "pending", 0, None
        self.unended, self.replays = False, 0

    @property
    def is_open(self):
        return self.state not in OVER


class Model:
    """What an inbox must be after what happened to it."""

    def __init__(self):
        self.callbacks = {}
        self.last = 0
        self.work = {}  # (callback, subscriber, device): Work, in the order in which it was made
        self.made = itertools.count()
        self.positions = {}  # subscriber: (last callback, how many releases)
        self.forgotten = (0, 0)  # where the furthest stood that was forgotten
        self.tallies = {}  # subscriber: [attempts that ended well, attempts that failed]
        self.releases = []
        self.heard = 0

    # time

    def note(self, now):
        """Open work moves with a clock that was set back: see `TestClocks`."""
        behind = self.heard - now
        if behind <= CLOCK_TOLERANCE:
            self.heard = max(self.heard, now)
            return
        self.heard = now
        for work in self.work.values():
            if work.state == "pending" and work.due_at > now:
                work.due_at = max(now, work.due_at - behind)
            elif work.state == "leased":
                work.due_at = min(work.due_at, now + LONGEST_LEASE)

    # receiving

    def original(self, body, at, *, quarantined):
        return min(
            (
                number
                for number, kept in self.callbacks.items()
                if (kept.body, kept.quarantined) == (body, quarantined)
                and abs(kept.at - at) <= REDELIVERY_WINDOW_MICROS
            ),
            default=None,
        )

    def receive(self, arrival, receipt):
        quarantined = arrival.trust is Trust.QUARANTINED
        known = self.original(arrival.body, arrival.received_at, quarantined=quarantined)
        assert receipt.is_new == (known is None)
        if known is None:
            assert receipt.callback_id > self.last
            self.last = receipt.callback_id
            self.callbacks[self.last] = Kept(arrival.body, arrival.received_at, quarantined=quarantined)
        else:
            assert receipt.callback_id == known
        self.callbacks[receipt.callback_id].deliveries += 1

    # who has read what

    def furthest(self):
        return tuple(map(max, zip(self.forgotten, *self.positions.values(), strict=True)))

    def unread_by(self, name, number):
        return self.unread_from(self.positions[name], number)

    def unread_from(self, position, number):
        cursor, released = position
        if self.callbacks[number].quarantined:
            return False
        return self.releases.index(number) >= released if number in self.releases else number > cursor

    def unread(self, number):
        return any(self.unread_from(position, number) for position in self.positions.values() or [self.forgotten])

    def enroll(self, names, now, limit):
        if not names:
            return 0
        start = min(self.positions[name][0] for name in names)
        since = min(self.positions[name][1] for name in names)
        came = [number for number in sorted(self.callbacks) if number > start][:limit]
        released = [number for number in self.releases[since:] if number in self.callbacks]
        for number in [number for number in came if number not in self.releases] + released:
            for name in names:
                if self.unread_by(name, number) and self.callbacks[number].has_body:
                    self._make(number, name, now)
        end = (came[-1] if came else 0, len(self.releases))
        for name in names:
            self.positions[name] = tuple(map(max, self.positions[name], end))
        return len(came)

    def _make(self, number, name, now):
        body = self.callbacks[number].body
        campaign = CAMPAIGNS.get(body) if SUBSCRIPTIONS[name].ordered else None
        for device_id in wanted(name, body):
            key = (number, name, device_id)
            if key not in self.work:
                self.work[key] = Work(key, next(self.made), now, campaign and (name, campaign))

    # handing out

    def queue(self, name):
        """Return a subscriber's open work, soonest first; of each order only what was made first."""
        begun, queue = set(), []
        for work in sorted(self.work.values(), key=lambda work: work.number):
            if work.key[1] == name and work.is_open and work.order not in begun:
                queue.append(work)
                begun |= {work.order} - {None}
        return sorted(queue, key=lambda work: (work.due_at, work.number))

    def due(self, names, now):
        """Return what may be handed out, the subscribers taking turns."""
        queues = [[work for work in self.queue(name) if work.due_at <= now] for name in names]
        turns = [(turn, work.due_at, work.number, work) for queue in queues for turn, work in enumerate(queue)]
        return [work for *_, work in sorted(turns, key=lambda place: place[:3])]

    def lease(self, work, owner, now):
        work.unended = work.unended or work.state == "leased"
        work.state, work.owner, work.attempts = "leased", owner, work.attempts + 1
        work.due_at = now + LEASE_SECONDS * SECOND

    def held(self, owner):
        return [work for work in self.work.values() if (work.state, work.owner) == ("leased", owner)]

    # what has become of it

    def states_of(self, number):
        return {work.state for work in self.work.values() if work.key[0] == number}

    def state(self, number):
        kept, states = self.callbacks[number], self.states_of(number)
        if kept.quarantined:
            return "dropped" if kept.dropped else "quarantined"
        if states - OVER or any(self.unread_by(name, number) for name in self.positions):
            return "pending"
        return next((state for state in ("dead", "dropped", "done") if state in states), "stored")

    def heading(self, number):
        state = self.state(number)
        if state in {"pending", "stored"} and not self.states_of(number) - OVER and self.unread(number):
            return "unread"
        return {"done": "handled", "stored": "unwanted"}.get(state, state)

    def means(self, selection, work):
        number, name, device_id = work.key
        return (
            number in (selection.ids or {number})
            and selection.subscriber in {None, name}
            and selection.device_id in {None, device_id}
            and selection.state in {None, self.state(number)}
            and (not selection.given_up or "dead" in self.states_of(number))
        )

    def is_over(self, number):
        state = self.state(number)
        return state in {"dropped", "done"} or (state == "stored" and not self.unread(number))

    def prune(self, now):
        for number in [number for number in self.callbacks if self.is_over(number)]:
            age = now - self.callbacks[number].at
            if age > RETENTION.record_seconds * SECOND:
                del self.callbacks[number]
                self.work = {key: work for key, work in self.work.items() if key[0] != number}
            elif age > RETENTION.body_seconds * SECOND:
                self.callbacks[number].has_body = False


class InboxMachine(RuleBasedStateMachine):
    """Two workers, a listener with a spool and a person on one store, with crashes and a clock that goes either way."""

    def __init__(self, store):
        super().__init__()
        self.store = store
        self.inboxes = {owner: store.open() for owner in OWNERS}
        self.model = Model()
        self.now = 1_800_000_000 * SECOND
        self.keys = {}  # a claimed item's number: which piece it is
        self.claimed = {owner: [] for owner in OWNERS}  # what each owner believes to hold
        self.effects = []
        self.spool = []
        self.segments = 0

    @property
    def inbox(self):
        """Return either connection in turn: what one of them wrote the other must see."""
        self.inboxes = dict(reversed(self.inboxes.items()))
        return next(iter(self.inboxes.values()))

    def teardown(self):
        try:
            self.finish_all()
        finally:
            self.store.close()

    @initialize(names=st.sets(st.sampled_from(NAMES), min_size=1), bodies=st.lists(st.sampled_from(BODIES), min_size=2))
    def begin(self, names, bodies):
        for name in names:
            self.subscribe(name)
        for number, body in enumerate(bodies):
            self.append(body, 2000 * number, quarantined=False, copies=1)
        self.note()

    def note(self):
        """Let store and model hear the time."""
        self.inbox.renew([], "nobody", self.now, lease_seconds=LEASE_SECONDS)
        self.model.note(self.now)

    # receiving

    def arrivals(self, body, late, quarantined, copies):
        trust = Trust.QUARANTINED if quarantined else Trust.ACCEPTED
        return [Arrival(body=body, received_at=self.now - late * SECOND, trust=trust)] * copies

    @rule(
        body=st.sampled_from(BODIES),
        late=st.sampled_from([0, 0, 0, 1, 1000]),
        quarantined=st.booleans(),
        copies=st.integers(1, 2),
    )
    def append(self, body, late, quarantined, copies):
        """Arrivals come in any order, and each may come again."""
        arrivals = self.arrivals(body, late, quarantined, copies)
        for arrival, receipt in zip(arrivals, self.inbox.append(arrivals), strict=True):
            self.model.receive(arrival, receipt)

    @rule(
        body=st.sampled_from(BODIES),
        late=st.sampled_from([0, 5]),
        quarantined=st.booleans(),
        copies=st.integers(0, 3),
        size=st.sampled_from([0, 1, 2, 3]),
        dies=st.sampled_from([None, None, "before_commit", "after_commit", "after_removal"]),
    )
    def spill(self, body, late, quarantined, copies, size, dies):  # noqa: PLR0917 - Hypothesis names them
        """While the store fails, arrivals are acknowledged into the spool; when it is back, they are imported.

        The import goes in steps of some size, and the importer may die at any of them.
        """
        self.spool += self.arrivals(body, late, quarantined, copies)
        if not size:
            return
        name = f"segment-{self.segments}"
        with contextlib.closing(self.inbox.appender()) as appender:
            start = appender.marked(name)
            batch = self.spool[start : start + size]
            if batch:
                receipts = appender.stage(batch, mark=(name, start + len(batch)))
                if dies == "before_commit":
                    return
                appender.commit()
                for arrival, receipt in zip(batch, receipts, strict=True):
                    self.model.receive(arrival, receipt)
            if dies == "after_commit" or start + len(batch) < len(self.spool):
                return
            self.spool, self.segments = [], self.segments + 1
            if dies != "after_removal":
                appender.unmark(name)

    # handing out work

    @rule(name=st.sampled_from(NAMES))
    def subscribe(self, name):
        self.inbox.subscribe([name], self.now)
        self.model.positions.setdefault(name, self.model.furthest())
        self.model.tallies.setdefault(name, [0, 0])

    @rule(limit=st.sampled_from([1, 2, 1000]))
    def enroll(self, limit):
        names = sorted(self.model.positions)
        limit = 1000 if self.model.releases else limit  # how a step shares its limit with releases is the backend's
        looked_at, _ = self.inbox.enroll([SUBSCRIPTIONS[name] for name in names], self.now, limit=limit)
        expected = self.model.enroll(names, self.now, limit)
        assert looked_at == expected or self.model.releases

    @rule(
        owner=st.sampled_from(OWNERS),
        limit=st.integers(1, 4),
        names=st.sets(st.sampled_from(NAMES), min_size=1),
        unended_alone=st.booleans(),
    )
    def claim(self, owner, limit, names, unended_alone):
        due = self.model.due(sorted(names), self.now)
        items = self.inbox.claim(
            sorted(names), owner, self.now, lease_seconds=LEASE_SECONDS, limit=limit, unended_alone=unended_alone
        )
        keys = [(item.callback_id, item.subscriber, item.device_id) for item in items]
        if not any(work.unended or work.state == "leased" for work in due) or not unended_alone:
            assert sorted(keys) == sorted(work.key for work in due[:limit])
        else:
            assert set(keys) <= {work.key for work in due}
            assert 1 <= len(items) <= limit
            assert len(items) == 1 or not any(item.unended for item in items)
        for item, key in zip(items, keys, strict=True):
            self.take_note(owner, item, key)

    def take_note(self, owner, item, key):
        """An owner was given this item, of this piece of work."""
        work = self.model.work[key]
        self.model.lease(work, owner, self.now)
        body = self.model.callbacks[item.callback_id].body
        assert (item.attempt, item.unended, item.body) == (work.attempts, work.unended, body)
        assert work.id in {None, item.id}
        assert self.keys.setdefault(item.id, key) == key
        work.id = item.id
        self.claimed[owner].append(item.id)

    @rule(
        owner=st.sampled_from(OWNERS),
        limit=st.sampled_from([1, 2, 1000]),
        room=st.dictionaries(st.sampled_from(NAMES), st.integers(-1, 3)),
    )
    def enroll_leased(self, owner, limit, room):
        """A worker looks for what is new, and leases at once what it has room for: nothing that was there before."""
        names = sorted(self.model.positions)
        limit = 1000 if self.model.releases else limit
        before = set(self.model.work)
        subscriptions = [SUBSCRIPTIONS[name] for name in names]
        _, items = self.inbox.enroll(subscriptions, self.now, limit=limit, lessee=Lessee(owner, LEASE_SECONDS, room))
        self.model.enroll(names, self.now, limit)
        made = [work for key, work in self.model.work.items() if key not in before and work.order is None]
        for name in names:
            free = [work.key for work in made if work.key[1] == name]
            got = [(item.callback_id, item.subscriber, item.device_id) for item in items if item.subscriber == name]
            room_left = max(0, room.get(name, 0))
            assert len(got) == min(room_left, len(free))
            assert set(got) == set(free[:room_left]) or (self.model.releases and set(got) <= set(free))
        for item in items:
            self.take_note(owner, item, (item.callback_id, item.subscriber, item.device_id))

    def one_claimed(self, data):
        """Draw something that an owner believes to hold."""
        owner = data.draw(st.sampled_from([owner for owner in OWNERS if self.claimed[owner]]))
        return owner, data.draw(st.sampled_from(self.claimed[owner]))

    def held_as(self, owner, item_id):
        """Return the work of a claimed item, None where its owner has lost it."""
        work = self.model.work.get(self.keys[item_id])
        return work if work in self.model.held(owner) and work.id == item_id else None

    def end(self, owner, item_id, how, due_at):
        """An owner says how something ended that it believes to hold, or ends it in a transaction."""
        work = self.held_as(owner, item_id)
        if how in {"finish", "raise"}:
            self.write(owner, item_id, work, raises=how == "raise")
            state, due_at = "done" if how == "finish" else "leased", work and work.due_at
        else:
            state = how
            self.inbox.settle([Outcome(item_id, state, due_at, "trace")], owner, self.now)
        if state != "leased":
            self.claimed[owner].remove(item_id)
            if work is not None:
                self.model.tallies[work.key[1]][state != "done"] += 1
                work.state, work.due_at, work.owner, work.unended = state, due_at, None, False

    def write(self, owner, item_id, work, *, raises):
        """A handler writes through the inbox's transaction: its effect is there once, and only with the end."""
        with contextlib.suppress(ZeroDivisionError), self.inbox.finish(item_id, owner, self.now) as transaction:
            assert (transaction is None) == (work is None)
            if transaction is not None:
                transaction.execute("CREATE TABLE IF NOT EXISTS effects (item INTEGER)")
                assert transaction.execute("SELECT item FROM effects ORDER BY rowid").fetchall() == self.effects
                transaction.execute("INSERT INTO effects VALUES (?)", (item_id,))
            if raises:
                raise ZeroDivisionError
        if work is not None and not raises:
            self.effects.append((item_id,))

    @precondition(lambda self: any(self.claimed.values()))
    @rule(data=st.data(), how=st.sampled_from(ENDS), wait=st.integers(0, 90))
    def end_one(self, data, how, wait):
        owner, item_id = self.one_claimed(data)
        self.end(owner, item_id, how, self.now + wait * SECOND)

    @precondition(lambda self: any(map(self.model.held, OWNERS)))
    @rule(owner=st.sampled_from(OWNERS), what=st.sampled_from(["renew", "crash", "stop", "be known dead"]))
    def live_or_die(self, owner, what):
        """A worker shows a sign of life, ends without a word, gives its work back, or is known to be gone."""
        held = self.model.held(owner)
        if what == "renew":
            self.inbox.renew(self.claimed[owner], owner, self.now, lease_seconds=LEASE_SECONDS)
            for work in held:
                if work.id in self.claimed[owner]:
                    work.due_at = self.now + LEASE_SECONDS * SECOND
            return
        if what == "crash":
            self.claimed[owner].clear()
            self.inboxes[owner].close()
            self.inboxes[owner] = self.store.open()
            return
        uncounted = what == "stop"
        assert self.inbox.release([owner], self.now, uncounted=uncounted) == len(held)
        for work in held:
            work.state, work.owner, work.due_at = "pending", None, self.now
            work.attempts -= uncounted
            work.unended = work.unended or not uncounted

    @rule(owner=st.sampled_from(OWNERS), ends=st.lists(st.sampled_from(ENDS), max_size=6))
    def do_a_round(self, owner, ends):
        """A worker does what a worker does: look for what is new, take some of it, and end what it can."""
        self.enroll(1000)
        self.claim(owner, 6, set(self.model.positions), unended_alone=False)
        for item_id, how in zip(self.claimed[owner][::-1], ends, strict=False):
            self.end(owner, item_id, how, self.now + SECOND)

    @precondition(lambda self: any(map(self.model.held, OWNERS)))
    @rule(owner=st.sampled_from(OWNERS))
    def be_overtaken(self, owner):
        """An owner is silent for too long: another takes its work, and it does not know."""
        self.move_the_clock(LEASE_SECONDS + 1)
        self.claim(next(other for other in OWNERS if other != owner), 4, set(NAMES), unended_alone=False)

    @rule(seconds=st.sampled_from([1, 29, 31, 31 * 60, 2 * 3600, 20 * 24 * 3600, -5, -31 * 60, -24 * 3600]))
    def move_the_clock(self, seconds):
        self.note()
        self.now += seconds * SECOND
        self.note()

    # what a person decides

    def selection(self, data):
        numbers = sorted(self.model.callbacks)
        return data.draw(
            st.one_of(
                st.just(EVERYTHING),
                st.builds(Selection, subscriber=st.sampled_from(NAMES)),
                st.builds(Selection, device_id=st.sampled_from(["", "d1", "d2"])),
                st.builds(Selection, state=st.sampled_from(list(State)), given_up=st.booleans()),
                *([st.builds(Selection, ids=st.tuples(st.sampled_from(numbers)))] if numbers else []),
            )
        )

    def chosen(self, selection, states):
        return [
            work
            for work in self.model.work.values()
            if work.state in states and self.model.means(selection, work) and self.model.callbacks[work.key[0]].has_body
        ]

    @rule(
        data=st.data(),
        what=st.sampled_from(["replay", "replay", "drop dead", "release", "drop quarantined", "unsubscribe"]),
    )
    def decide(self, data, what):
        """A person decides."""
        if what == "replay":
            self.replay(self.selection(data))
        elif what == "drop dead":
            self.drop_dead(self.selection(data))
        elif what == "unsubscribe" and self.model.positions:
            self.unsubscribe(data.draw(st.sampled_from(sorted(self.model.positions))))
        elif self.model.callbacks:
            ids = data.draw(st.sets(st.sampled_from(sorted(self.model.callbacks)), min_size=1))
            self.decide_about_the_quarantine(tuple(ids), drops=what == "drop quarantined")

    def replay(self, selection):
        chosen = [work for work in self.chosen(selection, OVER) if work.key[1] in self.model.positions]
        assert self.inbox.replayable(selection) == len(chosen)
        assert self.inbox.replay(selection, self.now, reason="again") == len(chosen)
        for work in chosen:
            work.state, work.attempts, work.due_at, work.replays = "pending", 0, self.now, work.replays + 1
            work.unended = False

    def drop_dead(self, selection):
        chosen = self.chosen(selection, {"dead"})
        assert self.inbox.drop_dead(selection, self.now) == len(chosen)
        for work in chosen:
            work.state = "dropped"

    def unsubscribe(self, name):
        gone = [
            key for key, work in self.model.work.items() if key[1] == name and (work.is_open or work.state == "dead")
        ]
        assert self.inbox.unsubscribe(name) == len(gone)
        for key in gone:
            del self.model.work[key]
        self.model.forgotten = tuple(map(max, self.model.forgotten, self.model.positions.pop(name)))
        del self.model.tallies[name]

    def decide_about_the_quarantine(self, ids, *, drops):
        chosen = [number for number in sorted(ids) if self.model.state(number) == "quarantined"]
        decide = self.inbox.drop_quarantined if drops else self.inbox.release_quarantined
        assert decide(Selection(ids=ids), self.now) == len(chosen)
        for number in chosen:
            kept = self.model.callbacks[number]
            kept.quarantined, kept.dropped, kept.has_body = drops, drops, not drops
        if not drops:
            self.model.releases += chosen

    # upkeep

    @rule(limit=st.sampled_from([1, 100]), hours=st.sampled_from([0, 0, 2, 20 * 24]))
    def prune(self, limit, hours):
        self.move_the_clock(hours * 3600)
        while self.inbox.project(limit=2):
            pass
        steps = (self.inbox.prune(RETENTION, self.now, limit=limit) for _ in range(1000))
        assert any(not step.more for step in steps)
        self.model.prune(self.now)

    # what must hold

    @invariant()
    def nothing_accepted_is_lost(self):
        told = {
            r.id: (r.body, r.received_at, r.trust, r.deliveries, r.state, r.body_bytes) for r in self.inbox.callbacks()
        }
        assert told == {
            number: (
                kept.body if kept.has_body else None,
                kept.at,
                "quarantined" if kept.quarantined else "accepted",
                kept.deliveries,
                self.model.state(number),
                len(kept.body) if kept.has_body else None,
            )
            for number, kept in self.model.callbacks.items()
        }

    @invariant()
    def work_stands_as_the_model_says(self):
        inbox = self.inbox
        told = {
            (number, work.subscriber, work.device_id): (work.state, work.attempts, len(work.replays))
            for number in self.model.callbacks
            for work in inbox.work(number)
        }
        assert told == {key: (work.state, work.attempts, work.replays) for key, work in self.model.work.items()}
        assert set(inbox.owners()) == {work.owner for work in self.model.work.values() if work.owner}
        due = [work.due_at for name in NAMES for work in self.model.queue(name)]
        assert inbox.next_due(NAMES) == min(due, default=None)

    @invariant()
    def the_counts_add_up(self):
        inbox, model = self.inbox, self.model
        ledger = inbox.ledger()
        headings = [model.heading(number) for number in model.callbacks]
        assert {name: getattr(ledger, name) for name in LEDGER} == {name: headings.count(name) for name in LEDGER}
        assert sum(getattr(ledger, name) for name in LEDGER) == ledger.stored == len(model.callbacks)
        assert ledger.deliveries == sum(kept.deliveries for kept in model.callbacks.values())
        kept = [kept for kept in model.callbacks.values() if kept.quarantined and not kept.dropped]
        assert inbox.quarantined_bytes() == sum(len(each.body) for each in kept)

    @invariant()
    def each_subscriber_is_as_far_as_the_model_says(self):
        model = self.model
        for record in self.inbox.subscribers():
            unread = [kept.at for number, kept in model.callbacks.items() if model.unread_by(record.name, number)]
            own = [work for work in model.work.values() if work.key[1] == record.name]
            undone = unread + [model.callbacks[work.key[0]].at for work in own if work.is_open]
            states = [work.state for work in own]
            assert record.unread == len(unread)
            assert (record.pending, record.leased, record.dead) == tuple(
                map(states.count, ("pending", "leased", "dead"))
            )
            assert record.oldest_at == min(undone, default=None)
            assert [record.done, record.failed] == model.tallies[record.name]

    def finish_all(self):
        """Owners that behave bring every callback to its end for every subscriber, and the store is sound."""
        names = sorted(self.model.positions)
        if not names:
            return
        for _ in self.spool:
            self.spill(b"", 0, quarantined=False, copies=0, size=1, dies=None)
        assert not self.spool
        self.enroll(1000)
        while due := [work.due_at for name in names for work in self.model.queue(name)]:
            self.now = max(self.now, *due)
            self.claim("one", 100, set(names), unended_alone=False)
            done = self.model.held("one")
            assert done
            self.inbox.settle([Outcome(work.id, "done") for work in done], "one", self.now)
            for work in done:
                self.model.tallies[work.key[1]][0] += 1
                work.state, work.owner, work.unended = "done", None, False
        for check in (self.nothing_accepted_is_lost, self.work_stands_as_the_model_says, self.the_counts_add_up):
            check()
        assert {work.state for work in self.model.work.values() if work.key[1] in names} <= OVER
        assert self.inbox.next_due(names) is None
        ledger = self.inbox.ledger()
        assert (ledger.pending, ledger.unread) == (0, 0)
        assert self.inbox.check() == []


@pytest.mark.timeout(600)  # a failure is worth the minutes that it takes to make it short
def test_any_sequence_of_events(store):
    """Nothing accepted is lost, and each callback ends done or dead once for each subscriber, whatever happens."""
    examples = {"sqlite": 100, "memory": 600}[store.backend]
    run_state_machine_as_test(
        lambda: InboxMachine(store.fresh()), settings=settings(max_examples=examples, stateful_step_count=40)
    )
