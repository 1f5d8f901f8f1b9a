"""Who may start next, and how much is claimed ahead."""

from __future__ import annotations

import pytest

from upcall.dispatch import Handler
from upcall.dispatch import lanes as module
from upcall.dispatch.lanes import Lane, calls_running, claim_groups, free_slots, starts


def lane(name, *, limit=16, waiting=0, running=0, ours=False):
    made = Lane(Handler(name, print, is_ours=ours), limit)
    made.waiting.extend([None] * waiting)
    made.running = running
    return made


def started(lanes, concurrency):
    """Start all that can; return in which order."""
    order = []
    for one in starts(lanes, lambda lane: free_slots(lane, concurrency, calls_running(lanes)) > 0):
        order.append(one.handler.name)
        one.waiting.popleft()
        one.running += 1
    return "".join(order)


class TestSlots:
    def test_turns(self):
        """Subscribers take their slots in turn, until there are none left."""
        assert started([lane("a", waiting=9), lane("b", waiting=9), lane("c", waiting=1)], 6) == "abcaba"

    def test_own_limits(self):
        """A subscriber runs no more than it may, and leaves the rest to the others."""
        assert started([lane("a", limit=1, waiting=9), lane("b", waiting=9)], 4) == "abbb"

    def test_nobody_takes_them_all(self):
        """A subscriber that runs nothing may start one, even where another has taken every slot."""
        slow, quick = lane("s", waiting=9, running=4), lane("q", waiting=9)
        assert started([slow, quick], 4) == "q"
        assert free_slots(quick, 4, 5) == 0

    def test_ours_have_their_own(self):
        """Subscribers without code neither take a handler's slot nor wait for one."""
        assert started([lane("a", waiting=9, running=2), lane("f", limit=3, waiting=9, ours=True)], 2) == "fff"

    def test_who_may_not_start(self):
        """A subscriber that may not start now holds up nobody."""
        a, b = lane("a", waiting=2), lane("b", waiting=1)
        order = []
        for one in starts([a, b], lambda one: one is b):
            order.append(one)
            one.waiting.popleft()
        assert order == [b]


class TestClaiming:
    def test_first_claim(self):
        """At first as much is claimed as can start, and as much again to go on with."""
        (group,) = claim_groups([lane("a", limit=4)], 16, 0.0)
        assert group[1] == 8

    def test_nothing_while_half_of_it_waits(self):
        """Nothing is claimed while there is enough to go on with."""
        assert list(claim_groups([lane("a", limit=4, waiting=3, running=4)], 16, 0.0)) == []
        ((_, limit),) = claim_groups([lane("a", limit=4, waiting=2, running=4)], 16, 0.0)
        assert limit == 2

    def test_those_that_want_as_much_claim_together(self):
        """Two that want about as much claim at once, no more than the one that wants less; others by themselves."""
        many = [lane("a", limit=8), lane("b", limit=9), lane("c", limit=1)]
        groups = [([one.handler.name for one in group], limit) for group, limit in claim_groups(many, 64, 0.0)]
        assert groups == [(["a", "b"], 16), (["c"], 2)]

    def test_quick_ones_claim_further_ahead(self):
        """What is used up quickly is claimed in ever larger pieces, up to a limit."""
        quick, now = lane("q"), 0.0
        for _ in range(20):
            wanted = quick.wanted(16, now)
            quick.filled(wanted, wanted, now)
            now += 0.01
        assert quick.ahead == module.MOST_AHEAD

    def test_slow_ones_claim_less_ahead(self):
        """What takes long is claimed as it is started: whoever else has time may have the rest."""
        slow, now = lane("s"), 0.0
        for _ in range(20):
            slow.filled(1, 1, now)
            now += 10.0
            slow.wanted(16, now)
        assert slow.ahead == 0
        assert slow.wanted(1, now) == 1

    def test_a_claim_that_found_little_tells_nothing(self):
        """That there was little to do does not mean that it is done quickly."""
        idle = lane("i")
        for _ in range(5):
            idle.filled(1, 32, 0.0)
            idle.wanted(16, 0.001)
        assert idle.ahead == 16

    @pytest.mark.parametrize(("pieces", "size", "ahead"), [(512, 8 << 20, 512), (512, 64 << 20, 64), (1, 1 << 30, 1)])
    def test_large_bodies(self, pieces, size, ahead):
        """Of large bodies fewer are held."""
        heavy = lane("h")
        heavy.ahead = 512
        heavy.weighed(pieces, size)
        assert heavy.ahead == ahead
