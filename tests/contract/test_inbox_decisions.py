"""What every inbox does when a person decides: replay, drop, release, forget a subscriber."""

from __future__ import annotations

import msgspec
import pytest

from upcall.inbox import EVERYTHING, ReplayRecord, Retention, Selection, State, Subscription, Trust


@pytest.fixture
def ended(inbox, make):
    """An inbox with callbacks 1 done, 2 dead, 3 dropped, 4 pending, 5 leased, 6 with devices done and dead."""
    inbox.append(make.arrivals(5))
    inbox.append([make.report(campaign_id="c1", devices={"d1": "Accepted", "d2": "Accepted"})])
    make.read_up(inbox)
    make.enrolled(inbox, Subscription("handler", lambda event: [d.device_id for d in event.devices] or [""]))
    items = make.take(inbox, lease_seconds=3600)
    make.settle(inbox, [items[0], items[5]], now=make.now + 1)
    make.settle(inbox, [items[1], items[2], items[6]], "dead", now=make.now + 2, error="trace")
    make.settle(inbox, [items[3]], "pending", due_at=make.now + make.day)
    inbox.drop_dead(Selection(ids=(3,)), make.now + 3)
    return inbox


def states(inbox, *numbers):
    return [work.state for number in numbers or range(1, 7) for work in inbox.work(number)]


class TestReplay:
    def test_all_that_ended_is_pending_again(self, ended, make):
        """Done, dead and dropped work runs again, as if it were new; what is not over is left alone."""
        assert ended.replay(EVERYTHING, make.now + 9, reason="fixed") == 5
        assert states(ended) == ["pending", "pending", "pending", "pending", "leased", "pending", "pending"]
        for number in (1, 2, 3, 6):
            for work in ended.work(number):
                assert (work.attempts, work.due_at, work.finished_at) == (0, make.now + 9, None)
        items = make.take(ended, now=make.now + 9)
        assert [(item.callback_id, item.attempt) for item in items] == [(1, 1), (2, 1), (3, 1), (6, 1), (6, 1)]

    def test_how_it_had_ended_is_kept(self, ended, make):
        """Each replay says when and why it was, and what the work had come to by then, oldest first."""
        ended.replay(Selection(ids=(1, 2, 3)), make.now + 9, reason="the first")
        kept = [
            (r.replayed_at, r.reason, r.state, r.attempts, r.error)
            for n in (1, 2, 3)
            for w in ended.work(n)
            for r in w.replays
        ]
        assert kept == [
            (make.now + 9, "the first", "done", 1, None),
            (make.now + 9, "the first", "dead", 1, "trace"),
            (make.now + 9, "the first", "dropped", 1, "trace"),
        ]
        for _ in range(2):
            make.settle(ended, make.take(ended, now=make.now + 10)[:1], "pending", due_at=make.now)
        make.settle(
            ended, [i for i in make.take(ended, now=make.now + 10) if i.callback_id == 1], "dead", error="again"
        )
        ended.release(["owner"], make.now)
        ended.replay(Selection(ids=(1,)), make.now + 11, reason="the second")
        (work,) = ended.work(1)
        assert [(r.reason, r.state, r.attempts, r.error) for r in work.replays] == [
            ("the first", "done", 1, None),
            ("the second", "dead", 3, "again"),
        ]
        assert isinstance(work.replays[0], ReplayRecord)

    def test_replayed_work_ends_as_any_other(self, ended, make):
        """Work that was replayed is done once it is done, and its past is still there."""
        ended.replay(Selection(ids=(2,)), make.now, reason="fixed")
        make.settle(ended, make.take(ended), now=make.now + 5)
        (work,) = ended.work(2)
        assert (work.state, work.finished_at, len(work.replays)) == ("done", make.now + 5, 1)
        assert ended.callback(2).state == "done"

    def test_nothing_is_replayed_twice_by_calling_again(self, ended, make):
        """Calling until nothing is left takes each piece once, however small the steps are, oldest first."""
        taken = []
        while count := ended.replay(EVERYTHING, make.now + 9, reason="fixed", limit=2):
            taken.append(count)
            make.take(ended, owner="another", now=make.now + 9, limit=1)
        assert taken == [2, 2, 1]
        assert all(len(w.replays) == 1 for number in (1, 2, 3, 6) for w in ended.work(number))

    def test_a_limit_takes_the_oldest(self, ended, make):
        """A limited replay begins with the callbacks that were received first."""
        assert ended.replay(EVERYTHING, make.now, reason="fixed", limit=2) == 2
        assert states(ended, 1, 2, 3) == ["pending", "pending", "dropped"]

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            ({}, 5),
            ({"ids": (1, 4, 6)}, 3),
            ({"after": 2}, 3),
            ({"before": 3}, 2),
            ({"campaign_id": "c1"}, 2),
            ({"kind": "upgradeProgress"}, 5),
            ({"account": "0000123456-00001"}, 2),
            ({"state": State.DEAD}, 3),
            ({"state": State.DONE}, 1),
            ({"state": State.DROPPED}, 1),
            ({"given_up": True, "device_id": "d2"}, 1),
            ({"state": State.PENDING}, 0),
            ({"device_id": "d2"}, 1),
            ({"subscriber": "handler", "campaign_id": "c1", "device_id": "d1"}, 1),
            ({"subscriber": "another"}, 0),
        ],
    )
    def test_replayable_counts_what_replay_takes(self, ended, make, asked, expected):
        """The count that a person is shown first is the number of pieces that run again."""
        assert ended.replayable(Selection(**asked)) == expected
        assert ended.replay(Selection(**asked), make.now, reason="fixed") == expected
        assert ended.replayable(Selection(**asked)) == 0

    def test_what_has_no_body_is_not_replayed(self, ended, make):
        """A callback whose body retention removed is not handed on again: there is nothing to hand on."""
        ended.prune(Retention(body_seconds=1), make.now + make.day)
        assert [record.body is None for record in ended.callbacks()] == [True, False, True, False, False, False]
        assert ended.replayable(EVERYTHING) == 3
        assert ended.replay(EVERYTHING, make.now, reason="fixed") == 3
        assert states(ended, 1, 3) == ["done", "dropped"]

    def test_what_a_forgotten_subscriber_did_is_not_replayed(self, ended, make):
        """Nobody would do the work of a subscriber that was forgotten: it is left as it was."""
        ended.subscribe(["another"], make.now)
        ended.unsubscribe("handler")
        assert ended.replayable(EVERYTHING) == 0
        assert ended.replay(EVERYTHING, make.now, reason="fixed") == 0
        assert states(ended) == ["done", "dropped", "done"]

    @pytest.mark.parametrize("state", [State.DONE, State.DEAD])
    def test_small_steps_by_state_take_all_that_was_counted(self, inbox, make, state):
        """A callback whose first piece is pending again keeps none of its other pieces from being replayed."""
        inbox.append([make.report(devices={"d1": "Accepted", "d2": "Accepted", "d3": "Accepted"})])
        make.read_up(inbox)
        make.enrolled(inbox, make.devices())
        make.settle(inbox, make.take(inbox, "device-handler"), state.value)
        selection, taken = Selection(state=state), 0
        assert inbox.replayable(selection) == 3
        while count := inbox.replay(selection, make.now, reason="fixed", limit=2):
            taken += count
        assert taken == 3

    def test_the_oldest_callbacks_come_first_whenever_their_work_was_made(self, inbox, make):
        """A limited replay begins with the callback received first, also where a later one's work is older."""
        inbox.append(make.arrivals(1))
        inbox.append([make.arrival(b"held", trust=Trust.QUARANTINED), *make.arrivals(3)[2:]])
        make.enrolled(inbox, make.whole())
        inbox.release_quarantined(EVERYTHING, make.now)
        make.enrolled(inbox, make.whole())
        make.settle(inbox, make.take(inbox))
        assert states(inbox) == ["done", "done", "done"]
        for expected in (["pending", "done", "done"], ["pending", "pending", "done"]):
            assert inbox.replay(Selection(subscriber="handler"), make.now, reason="fixed", limit=1) == 1
            assert states(inbox) == expected

    def test_a_replay_by_state_that_finds_nothing(self, inbox, make):
        """Nothing to replay is no error, whatever was asked about."""
        inbox.append(make.arrivals(1))
        assert inbox.replay(Selection(state=State.DEAD), make.now, reason="fixed", limit=0) == 0
        assert inbox.replay(Selection(state=State.DEAD), make.now, reason="fixed") == 0

    def test_a_replay_is_no_business_of_the_last_owner(self, ended, make):
        """The late word of an owner from before the replay changes nothing."""
        (item,) = [
            item for item in make.take(ended, owner="late", now=make.now + 2 * make.day) if item.callback_id == 4
        ]
        make.settle(ended, [item], owner="late")
        ended.replay(Selection(ids=(4,)), make.now, reason="fixed")
        make.settle(ended, [item], "dead", owner="late")
        with ended.finish(item.id, "late", make.now) as transaction:
            assert transaction is None
        assert states(ended, 4) == ["pending"]


class TestDropDead:
    def test_dead_work_that_is_given_up_stays_visible(self, ended, make):
        """A dropped dead letter is no letter any more, and its work still tells how it failed."""
        assert [letter.callback_id for letter in ended.dead()] == [2, 6]
        assert ended.drop_dead(Selection(subscriber="handler"), make.now) == 2
        assert ended.dead() == []
        (work,) = ended.work(2)
        assert (work.state, work.error, work.attempts) == ("dropped", "trace", 1)
        assert [ended.callback(number).state for number in (2, 3, 6)] == ["dropped"] * 3
        assert ended.next_due(["handler"]) is not None
        assert {item.callback_id for item in make.take(ended, now=make.now + make.day)} == {4, 5}

    def test_only_what_is_dead_and_meant_is_dropped(self, ended, make):
        """Done and open work is not dropped, nor what the selection does not mean."""
        assert ended.drop_dead(Selection(ids=(1, 4, 5)), make.now) == 0
        assert ended.drop_dead(Selection(device_id="d2"), make.now) == 1
        assert [letter.callback_id for letter in ended.dead()] == [2]

    def test_a_limit_takes_the_oldest(self, ended, make):
        """Small steps begin with the oldest, and come to an end."""
        assert [ended.drop_dead(EVERYTHING, make.now, limit=1) for _ in range(3)] == [1, 1, 0]


class TestDeadLetters:
    def test_dead_letters_come_oldest_first_and_a_limit_keeps_the_newest(self, ended):
        """The list reads from old to new, and is cut at its old end."""
        assert [(d.callback_id, d.device_id) for d in ended.dead()] == [(2, ""), (6, "d2")]
        assert [d.callback_id for d in ended.dead(limit=1)] == [6]
        assert [d.callback_id for d in ended.dead(Selection(before=6))] == [2]


@pytest.fixture
def quarantine(inbox, make):
    """An inbox with accepted callbacks 1 and 3 that were handled, and quarantined ones 2 and 4 that name a campaign."""
    reports = [make.report(campaign_id=f"c{n}", devices={f"d{n}": "UpgradeSuccess"}) for n in (1, 2, 3, 4)]
    inbox.append(
        [
            msgspec.structs.replace(report, trust=Trust.QUARANTINED, evidence="names another account")
            if n % 2
            else report
            for n, report in enumerate(reports)
        ]
    )
    make.read_up(inbox)
    make.enrolled(inbox)
    make.settle(inbox, make.take(inbox))
    return inbox


class TestQuarantine:
    def test_quarantined_bytes_are_those_of_the_bodies(self, quarantine, make):
        """The quota is measured in bytes of bodies that are in quarantine: what leaves it frees its share."""
        one, other = (len(quarantine.callback(number).body) for number in (2, 4))
        assert quarantine.quarantined_bytes() == one + other
        quarantine.release_quarantined(Selection(ids=(2,)), make.now)
        assert quarantine.quarantined_bytes() == other
        quarantine.drop_quarantined(Selection(ids=(4,)), make.now)
        assert quarantine.quarantined_bytes() == 0

    def test_a_copy_of_a_quarantined_callback_takes_no_room(self, inbox, make):
        """Sending the same again within the window does not use up the quota."""
        inbox.append([make.arrival(b"12345", trust=Trust.QUARANTINED)] * 10)
        assert inbox.quarantined_bytes() == 5

    def test_released_callbacks_reach_the_handlers(self, quarantine, make):
        """What is released is handed to those who had passed it by, once, and is trusted from then on."""
        before = quarantine.callback(2)
        assert quarantine.release_quarantined(Selection(ids=(2,)), make.now) == 1
        after = quarantine.callback(2)
        assert after == msgspec.structs.replace(before, trust="accepted", state="pending", evidence=after.evidence)
        assert after.evidence == "names another account; released by hand"
        make.enrolled(quarantine)
        make.enrolled(quarantine)
        items = make.take(quarantine)
        assert [(item.callback_id, item.body) for item in items] == [(2, before.body)]
        make.settle(quarantine, items)
        make.enrolled(quarantine)
        assert make.take(quarantine) == []
        assert [record.state for record in quarantine.callbacks()] == ["done", "done", "done", "quarantined"]

    def test_released_before_anybody_looked_it_is_handed_out_once(self, inbox, make):
        """A callback that is released before the handlers came to it reaches them once all the same."""
        inbox.append([make.arrival(b"early", trust=Trust.QUARANTINED), make.arrival(b"other")])
        inbox.subscribe(["handler"], make.now)
        inbox.release_quarantined(EVERYTHING, make.now)
        assert inbox.enroll([make.whole()], make.now) == (2, [])
        items = make.take(inbox)
        assert sorted(item.body for item in items) == [b"early", b"other"]
        make.settle(inbox, items)
        make.enrolled(inbox)
        assert make.take(inbox) == []

    def test_each_subscriber_is_given_it_in_its_own_time(self, quarantine, make):
        """Of two subscribers each gets what was released, though one looks later; one that is added later does not."""
        quarantine.subscribe(["late"], make.now)
        quarantine.release_quarantined(EVERYTHING, make.now)
        make.enrolled(quarantine, make.whole("handler"))
        assert [item.callback_id for item in make.take(quarantine, "handler", "late")] == [2, 4]
        make.enrolled(quarantine, make.whole("late"))
        assert [item.callback_id for item in make.take(quarantine, "handler", "late")] == [2, 4]
        make.enrolled(quarantine, make.whole("newcomer"))
        assert make.take(quarantine, "newcomer") == []

    def test_the_first_subscribers_are_given_what_was_released_before(self, inbox, make):
        """A store that nobody has read yet keeps what was released for its first subscribers."""
        inbox.append([make.arrival(b"one", trust=Trust.QUARANTINED), make.arrival(b"two")])
        inbox.release_quarantined(EVERYTHING, make.now)
        make.enrolled(inbox)
        assert sorted(item.body for item in make.take(inbox)) == [b"one", b"two"]

    def test_enroll_counts_what_was_released(self, quarantine, make):
        """Released callbacks count among those looked at, so that who calls until nothing is left misses none."""
        quarantine.release_quarantined(EVERYTHING, make.now)
        assert [quarantine.enroll([make.whole()], make.now, limit=1)[0] for _ in range(3)] == [1, 1, 0]

    def test_campaigns_learn_of_it_at_its_release(self, quarantine, make):
        """A quarantined callback tells nothing of its campaign until it is released, and then what it says."""
        assert {campaign.campaign_id for campaign in quarantine.campaigns()} == {"c1", "c3"}
        quarantine.release_quarantined(Selection(ids=(2,)), make.now)
        make.read_up(quarantine)
        assert {campaign.campaign_id for campaign in quarantine.campaigns()} == {"c1", "c2", "c3"}
        assert quarantine.campaign("c2")[0].callbacks == 1
        assert [device.status for device in quarantine.campaign("c2")[1]] == ["UpgradeSuccess"]
        make.read_up(quarantine)
        assert quarantine.campaign("c2")[0].callbacks == 1

    def test_released_before_it_was_read_it_is_folded_once(self, inbox, make):
        """A callback that is released before the read model came to it counts once in its campaign."""
        inbox.append([msgspec.structs.replace(make.report(campaign_id="c1"), trust=Trust.QUARANTINED)])
        inbox.release_quarantined(EVERYTHING, make.now)
        make.read_up(inbox)
        assert [(campaign.campaign_id, campaign.callbacks) for campaign in inbox.campaigns()] == [("c1", 1)]
        assert inbox.callback(1).campaign_id == "c1"

    def test_dropped_callbacks_leave_their_facts(self, quarantine, make):
        """A drop removes the body only: digest, evidence, deliveries and what it said stay."""
        before = quarantine.callback(4)
        assert quarantine.drop_quarantined(Selection(ids=(4,)), make.now) == 1
        after = quarantine.callback(4)
        assert after == msgspec.structs.replace(before, state="dropped", body=None, body_bytes=None)
        assert len(quarantine.deliveries(4)) == 1
        assert quarantine.check() == []

    def test_a_dropped_callback_is_over(self, quarantine, make):
        """What was dropped is neither released nor dropped again, and no handler ever sees it."""
        quarantine.drop_quarantined(EVERYTHING, make.now)
        assert quarantine.release_quarantined(EVERYTHING, make.now) == 0
        assert quarantine.drop_quarantined(EVERYTHING, make.now) == 0
        make.enrolled(quarantine, make.whole(), make.whole("other"))
        assert make.take(quarantine, "handler", "other") == []

    def test_only_what_is_in_quarantine_is_dropped_or_released(self, quarantine, make):
        """A decision about the quarantine touches nothing else, whatever was selected."""
        before = [quarantine.callback(number) for number in (1, 3)]
        assert quarantine.drop_quarantined(Selection(ids=(1, 3)), make.now) == 0
        assert quarantine.release_quarantined(Selection(ids=(1, 3)), make.now) == 0
        assert quarantine.drop_quarantined(Selection(state=State.DONE), make.now) == 0
        assert quarantine.drop_quarantined(EVERYTHING, make.now) == 2
        assert [quarantine.callback(number) for number in (1, 3)] == before
        assert quarantine.release_quarantined(EVERYTHING, make.now) == 0

    @pytest.mark.parametrize("decide", ["release_quarantined", "drop_quarantined"])
    def test_a_limit_takes_the_oldest(self, quarantine, make, decide):
        """Small steps begin with the oldest, and come to an end."""
        assert getattr(quarantine, decide)(EVERYTHING, make.now, limit=1) == 1
        assert quarantine.callback(2).state != "quarantined"
        assert quarantine.callback(4).state == "quarantined"
        assert [getattr(quarantine, decide)(EVERYTHING, make.now, limit=1) for _ in range(2)] == [1, 0]

    @pytest.mark.parametrize("decide", ["release_quarantined", "drop_quarantined"])
    @pytest.mark.parametrize(
        "asked", [{"campaign_id": "c2"}, {"ids": (2,)}, {"before": 3}, {"state": State.QUARANTINED, "before": 4}]
    )
    def test_what_is_decided_about_is_selected(self, quarantine, make, decide, asked):
        """A decision is about the callbacks that the selection means."""
        assert getattr(quarantine, decide)(Selection(**asked), make.now) == 1
        assert quarantine.callback(2).state != "quarantined"

    def test_a_quarantined_copy_of_a_released_callback_is_a_callback_of_its_own(self, inbox, make):
        """What the gate doubts again is not taken for the callback that a person vouched for."""
        inbox.append([make.arrival(trust=Trust.QUARANTINED)])
        inbox.release_quarantined(EVERYTHING, make.now)
        (doubted,) = inbox.append([make.arrival(trust=Trust.QUARANTINED)])
        (honest,) = inbox.append([make.arrival()])
        assert (doubted.is_new, honest.is_new, honest.callback_id) == (True, False, 1)

    def test_a_copy_of_a_dropped_callback_is_one_more_delivery(self, inbox, make):
        """What was dropped stays dropped when it is sent again within the window."""
        inbox.append([make.arrival(trust=Trust.QUARANTINED)])
        inbox.drop_quarantined(EVERYTHING, make.now)
        (copy,) = inbox.append([make.arrival(at=make.now + make.minute, trust=Trust.QUARANTINED)])
        assert (copy.callback_id, copy.is_new) == (1, False)
        record = inbox.callback(1)
        assert (record.state, record.deliveries, record.body) == ("dropped", 2, None)


class TestUnsubscribe:
    def test_a_forgotten_subscriber_leaves_what_is_done(self, inbox, make):
        """Open and dead work goes with its subscriber and is counted; what it did stays on record, and others' work."""
        inbox.append(make.arrivals(5))
        make.enrolled(inbox, make.whole("goes"), make.whole("stays"))
        items = make.take(inbox, "goes", limit=4)
        make.settle(inbox, items[:1])
        make.settle(inbox, items[1:2], "dead")
        make.settle(inbox, items[2:3], "pending", due_at=make.now + make.day)
        assert inbox.unsubscribe("goes") == 4
        assert [[(w.subscriber, w.state) for w in inbox.work(number)] for number in (1, 2)] == [
            [("goes", "done"), ("stays", "pending")],
            [("stays", "pending")],
        ]
        assert [record.name for record in inbox.subscribers()] == ["stays"]
        assert inbox.owners() == []
        assert inbox.dead() == []
        assert make.take(inbox, "goes", now=make.now + make.day) == []
        assert len(make.take(inbox, "stays")) == 5
        assert inbox.unsubscribe("goes") == 0
        assert inbox.check() == []

    def test_the_owner_of_forgotten_work_changes_nothing(self, inbox, make):
        """A worker that is at work of a subscriber that was forgotten ends nothing and writes nothing."""
        inbox.append(make.arrivals(1))
        make.enrolled(inbox)
        (item,) = make.take(inbox)
        inbox.unsubscribe("handler")
        inbox.renew([item.id], "owner", make.now, lease_seconds=30)
        make.settle(inbox, [item])
        with inbox.finish(item.id, "owner", make.now) as transaction:
            assert transaction is None
        assert inbox.work(1) == []

    def test_the_same_name_again_is_a_new_subscriber(self, inbox, make):
        """A name that was forgotten and comes back begins where the others stand, without its old work."""
        inbox.append(make.arrivals(2))
        make.enrolled(inbox, make.whole("goes"), make.whole("stays"))
        inbox.unsubscribe("goes")
        inbox.append([make.arrival(b"new")])
        make.enrolled(inbox, make.whole("goes"), make.whole("stays"))
        assert [item.body for item in make.take(inbox, "goes")] == [b"new"]

    def test_forgetting_the_last_one_does_not_run_history_again(self, inbox, make):
        """Where nobody is left the place is remembered: whoever comes next gets what came, or was released, since."""
        inbox.append([*make.arrivals(2), make.arrival(b"held", trust=Trust.QUARANTINED)])
        inbox.release_quarantined(EVERYTHING, make.now)
        make.enrolled(inbox, make.whole("goes"))
        make.settle(inbox, make.take(inbox, "goes"))
        inbox.append([make.arrival(b"later", trust=Trust.QUARANTINED)])
        inbox.unsubscribe("goes")
        make.read_up(inbox)
        assert (inbox.ledger().handled, inbox.ledger().unread) == (3, 0)
        assert inbox.prune(Retention(body_seconds=1), make.now + make.day).bodies == 3
        inbox.append([make.arrival(b"new")])
        inbox.release_quarantined(EVERYTHING, make.now)
        make.enrolled(inbox, make.whole("comes"))
        assert sorted(item.body for item in make.take(inbox, "comes")) == [b"later", b"new"]

    def test_what_the_last_one_had_not_read_is_unread(self, inbox, make):
        """What nobody looked at before the last subscriber was forgotten is counted, kept, and the next one's."""
        inbox.append(make.arrivals(3))
        inbox.subscribe(["goes"], make.now)
        inbox.enroll([make.whole("goes")], make.now, limit=2)
        make.settle(inbox, make.take(inbox, "goes"))
        inbox.unsubscribe("goes")
        make.read_up(inbox)
        assert (inbox.ledger().handled, inbox.ledger().unread) == (2, 1)
        assert inbox.prune(Retention(body_seconds=1), make.now + make.day).bodies == 2
        make.enrolled(inbox, make.whole("comes"))
        assert [item.callback_id for item in make.take(inbox, "comes")] == [3]

    def test_a_forgotten_one_that_was_ahead_still_marks_the_place(self, inbox, make):
        """A renamed handler does not run history again because another handler is behind."""
        inbox.append(make.arrivals(3))
        inbox.subscribe(["behind", "ahead"], make.now)
        inbox.enroll([make.whole("behind")], make.now, limit=1)
        make.enrolled(inbox, make.whole("ahead"))
        inbox.unsubscribe("ahead")
        make.enrolled(inbox, make.whole("renamed"))
        assert make.take(inbox, "renamed") == []

    def test_a_subscriber_that_is_not_there_is_forgotten_already(self, inbox):
        """Forgetting a name that nobody has is no error."""
        assert inbox.unsubscribe("nobody") == 0
