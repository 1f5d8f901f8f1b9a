"""What every inbox does over the years: retention, forgetting a device, marks, checks, copies."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest

from upcall.errors import StoreError, UpcallError
from upcall.inbox import EVERYTHING, Note, Pruned, Retention, Selection, State, Subscription, Trust, stored_event

DAY_SECONDS = 86_400.0
DEVICE = "490154203237518"


def pruned(inbox, retention, now, limit=500):
    """Prune until nothing is left to prune; return the sums, and what the last step kept."""
    sums = [0, 0, 0]
    for _ in range(100):
        step = inbox.prune(retention, now, limit=limit)
        sums = [one + other for one, other in zip(sums, (step.bodies, step.callbacks, step.campaigns), strict=True)]
        if not step.more:
            return (*sums, step.kept)
    raise AssertionError("prune never ends")


@pytest.fixture
def aged(inbox, make):
    """One callback of each fate at day 0, and a young one: 1 done, 2 dead, 3 pending, 4 quarantined, 5 dropped from
    there, 6 given up, 7 unwanted, 8 leased, 9 young and done.
    """
    fates = ["done", "dead", "pending", "quarantined", "dropped", "given up", "unwanted", "leased"]
    for number, fate in enumerate(fates):
        trust = Trust.QUARANTINED if fate in {"quarantined", "dropped"} else Trust.ACCEPTED
        report = make.report(at=make.now, campaign_id=f"c{number}", devices={"d1": "Accepted"})
        inbox.append([msgspec.structs.replace(report, trust=trust)])
    inbox.append([make.report(at=make.now + 100 * make.day, campaign_id="young", devices={"d1": "Accepted"})])
    inbox.drop_quarantined(Selection(ids=(5,)), make.now)
    make.read_up(inbox)
    make.enrolled(inbox, Subscription("handler", lambda event: [] if event.campaign_id == "c6" else [""]))
    items = {item.callback_id: item for item in make.take(inbox, lease_seconds=1000 * DAY_SECONDS)}
    make.settle(inbox, [items[1], items[9]])
    make.settle(inbox, [items[2], items[6]], "dead")
    make.settle(inbox, [items[3]], "pending", due_at=make.now)
    inbox.drop_dead(Selection(ids=(6,)), make.now)
    return inbox


class TestPrune:
    def test_only_what_is_over_loses_its_body(self, aged, make):
        """Past their time bodies go, but for those of work undone or dead, and of callbacks in quarantine."""
        before = aged.callbacks()
        retention = Retention(body_seconds=90 * DAY_SECONDS)
        assert pruned(aged, retention, make.now + 91 * make.day) == (3, 0, 0, 4)
        after = aged.callbacks()
        assert [record.id for record in after if record.body is None] == [1, 5, 6, 7]
        for old, new in zip(before, after, strict=True):
            gone = {"body": None, "body_bytes": None} if new.body is None else {}
            assert new == msgspec.structs.replace(old, **gone)
        assert aged.check() == []

    def test_before_their_time_all_stay(self, aged, make):
        """Nothing is removed, and nothing is kept beyond its time, before that time has come."""
        step = aged.prune(Retention(body_seconds=90 * DAY_SECONDS), make.now + 90 * make.day)
        assert step == Pruned(bodies=0, callbacks=0, campaigns=0, kept=0, more=False)

    def test_what_ends_later_goes_later(self, aged, make):
        """A body that stayed because of its work goes once the work is over."""
        retention = Retention(body_seconds=90 * DAY_SECONDS)
        pruned(aged, retention, make.now + 91 * make.day)
        aged.release(["owner"], make.now)
        make.settle(aged, make.take(aged, now=make.now + 1), now=make.now + 1)
        aged.drop_dead(EVERYTHING, make.now)
        aged.drop_quarantined(EVERYTHING, make.now)
        assert pruned(aged, retention, make.now + 91 * make.day) == (3, 0, 0, 0)
        assert [record.id for record in aged.callbacks() if record.body is not None] == [9]

    def test_whole_callbacks_go_after_their_bodies(self, aged, make):
        """Past the second time all that is over goes whole, with its work and what it told; what is not over stays."""
        retention = Retention(body_seconds=90 * DAY_SECONDS, record_seconds=400 * DAY_SECONDS)
        pruned(aged, retention, make.now + 100 * make.day)
        bodies, callbacks, campaigns, kept = pruned(aged, retention, make.now + 401 * make.day)
        assert (bodies, callbacks, kept) == (1, 4, 4)  # the young one's body is past its time by then too
        assert [record.id for record in aged.callbacks()] == [2, 3, 4, 8, 9]
        assert aged.callback(1) is None
        assert (aged.deliveries(1), aged.work(1)) == ([], [])
        assert [letter.callback_id for letter in aged.dead()] == [2]
        assert aged.ledger().stored == 5
        assert campaigns == 6  # c0 to c7 but the two that were in quarantine
        assert [campaign.campaign_id for campaign in aged.campaigns()] == ["young"]
        assert aged.campaign("c0") is None
        assert aged.check() == []

    def test_a_campaign_stays_as_long_as_it_is_spoken_of(self, inbox, make):
        """Campaigns and devices go by their last word, not by their first."""
        inbox.append(
            [
                make.report(at=make.now + day * make.day, campaign_id="c1", devices={"d1": "Accepted"})
                for day in (0, 300)
            ]
        )
        make.read_up(inbox)
        make.enrolled(inbox, Subscription("handler", lambda event: []))
        retention = Retention(record_seconds=400 * DAY_SECONDS)
        assert pruned(inbox, retention, make.now + 401 * make.day)[1:] == (1, 0, 0)
        assert len(inbox.campaign("c1")[1]) == 1
        assert pruned(inbox, retention, make.now + 701 * make.day)[1:] == (1, 1, 0)
        assert inbox.campaigns() == []

    def test_records_are_never_removed_before_bodies(self, aged, make):
        """Where the second time is set shorter than the first, the first stands for both."""
        retention = Retention(body_seconds=90 * DAY_SECONDS, record_seconds=1)
        assert pruned(aged, retention, make.now + 89 * make.day)[:3] == (0, 0, 0)
        assert aged.ledger().stored == 9

    def test_what_somebody_has_not_read_stays(self, inbox, make):
        """A callback that one of the subscribers has not looked at keeps its body, whatever the others did."""
        inbox.append(make.arrivals(2))
        make.read_up(inbox)
        make.enrolled(inbox, make.whole("quick"))
        inbox.subscribe(["slow"], make.now)
        inbox.append([make.arrival(b"unread")])
        make.read_up(inbox)
        make.enrolled(inbox, make.whole("quick"))
        make.settle(inbox, make.take(inbox, "quick"))
        assert pruned(inbox, Retention(body_seconds=1), make.now + make.day) == (2, 0, 0, 1)
        assert inbox.callback(3).body == b"unread"

    def test_what_nobody_reads_stays(self, inbox, make):
        """A store without subscribers loses nothing: its first ones are given all of it."""
        inbox.append(make.arrivals(3))
        make.read_up(inbox)
        assert pruned(inbox, Retention(body_seconds=1, record_seconds=1), make.now + make.day) == (0, 0, 0, 3)
        make.enrolled(inbox)
        assert len(make.take(inbox)) == 3

    def test_what_was_released_and_not_read_stays(self, inbox, make):
        """A released callback that is waiting for a handler keeps its body."""
        inbox.append([make.arrival(trust=Trust.QUARANTINED)])
        make.read_up(inbox)
        make.enrolled(inbox)
        inbox.release_quarantined(EVERYTHING, make.now)
        make.read_up(inbox)
        assert pruned(inbox, Retention(body_seconds=1), make.now + make.day) == (0, 0, 0, 1)
        make.enrolled(inbox)
        assert len(make.take(inbox)) == 1

    def test_small_steps_remove_what_one_large_step_does(self, aged, make):
        """A step removes no more than it may, and says whether another would remove more."""
        retention = Retention(body_seconds=90 * DAY_SECONDS, record_seconds=400 * DAY_SECONDS)
        for day in (100, 401):
            for _ in range(100):
                step = aged.prune(retention, make.now + day * make.day, limit=1)
                assert max(step.bodies, step.callbacks, step.campaigns) <= 1
                if not step.more:
                    break
            assert not step.more
        assert [record.id for record in aged.callbacks()] == [2, 3, 4, 8, 9]
        assert aged.check() == []

    def test_a_copy_is_recognised_though_the_body_is_gone(self, inbox, make):
        """Within the window a copy is one more delivery of a callback whose body is gone: it is not run again."""
        inbox.append([make.arrival(b"once")])
        make.read_up(inbox)
        make.enrolled(inbox)
        make.settle(inbox, make.take(inbox))
        assert pruned(inbox, Retention(body_seconds=1), make.now + make.minute)[0] == 1
        (copy,) = inbox.append([make.arrival(b"once", at=make.now + 20 * make.minute)])
        assert (copy.callback_id, copy.is_new) == (1, False)
        assert inbox.callback(1).body is None
        make.enrolled(inbox)
        assert make.take(inbox) == []

    def test_no_retention_is_so_short_that_copies_run_again(self, inbox, make):
        """Whatever is asked, a callback is there for as long as copies of it are still expected."""
        inbox.append([make.arrival(b"once")])
        make.read_up(inbox)
        make.enrolled(inbox)
        make.settle(inbox, make.take(inbox))
        pruned(inbox, Retention(body_seconds=0, record_seconds=0), make.now + make.minute)
        (copy,) = inbox.append([make.arrival(b"once", at=make.now + 20 * make.minute)])
        assert not copy.is_new

    def test_what_the_read_model_has_not_taken_in_stays(self, inbox, make):
        """A body is not removed before what it says of its campaign is known."""
        inbox.append([make.report(campaign_id="c1", devices={"d1": "UpgradeSuccess"})])
        make.enrolled(inbox)
        make.settle(inbox, make.take(inbox))
        inbox.prune(Retention(body_seconds=1, record_seconds=1), make.now + make.day)
        make.read_up(inbox)
        assert [device.status for device in inbox.campaign("c1")[1]] == ["UpgradeSuccess"]

    def test_numbers_of_what_is_gone_are_not_used_again(self, inbox, make):
        """A callback that was removed keeps its number to itself."""
        inbox.append(make.arrivals(2))
        make.read_up(inbox)
        make.enrolled(inbox)
        make.settle(inbox, make.take(inbox))
        assert pruned(inbox, Retention(body_seconds=1, record_seconds=1), make.now + make.day)[1] == 2
        (receipt,) = inbox.append([make.arrival(b"new", at=make.now + make.day)])
        assert receipt.callback_id == 3
        make.enrolled(inbox)
        assert [item.body for item in make.take(inbox, now=make.now + make.day)] == [b"new"]


def forgotten(inbox, device_id, now, limit=200):
    """Forget a device step by step; return the sums and the number of steps."""
    sums, after, steps = [0, 0, 0, 0], 0, 0
    while after is not None:
        step = inbox.forget(device_id, now, after=after, limit=limit)
        sums = [a + b for a, b in zip(sums, (step.looked_at, step.bodies, step.work, step.devices), strict=True)]
        assert step.next_id is None or step.next_id > after
        after, steps = step.next_id, steps + 1
    return (*sums, steps)


class TestForget:
    @pytest.fixture
    def inbox(self, store, make):
        inbox = store.open()
        other = "990000862471854"
        inbox.append(
            [
                make.report(campaign_id="c1", devices={DEVICE: "UpgradeFailed", other: "Accepted"}),
                make.arrival(b"no json, yet " + DEVICE.encode() + b" twice: " + DEVICE.encode() + b" \xff"),
                make.report(campaign_id="c2", devices={other: "Accepted"}),
                make.arrival(DEVICE.encode(), trust=Trust.QUARANTINED),
                make.report(campaign_id="c2", kind="upgradeFinished", devices={DEVICE: "Accepted"}),
            ]
        )
        make.read_up(inbox)
        make.enrolled(inbox, make.whole(), make.devices())
        return inbox

    @pytest.mark.parametrize("limit", [1, 2, 200])
    def test_the_identifier_is_gone_from_everything(self, inbox, make, limit):
        """After the last step no body, work, error or campaign names the device, and all else is as it was."""
        items = make.take(inbox, "handler", "device-handler")
        make.settle(inbox, items, "dead", error=f"KeyError: '{DEVICE}'\n  in {DEVICE}")
        inbox.replay(Selection(ids=(2,)), make.now, reason="fixed")
        before = {record.id: record for record in inbox.callbacks()}
        looked_at, bodies, work, devices, steps = forgotten(inbox, DEVICE, make.now, limit)
        assert (looked_at, bodies, work, devices) == (5, 4, 2, 2)
        assert steps == -(-5 // limit)
        for record in inbox.callbacks():
            old = before[record.id]
            blanked = old.body.replace(DEVICE.encode(), b"*" * len(DEVICE))
            assert record == msgspec.structs.replace(old, body=blanked)
        shown = repr([[inbox.work(number), inbox.callback(number)] for number in range(1, 6)] + inbox.dead())
        shown += repr([inbox.campaign(name) for name in ("c1", "c2")] + inbox.campaigns() + inbox.drift())
        assert DEVICE not in shown
        assert f"KeyError: '{'*' * 15}'" in inbox.dead()[0].error
        assert [w.device_id for number in (1, 5) for w in inbox.work(number)] == ["990000862471854", "", ""]
        assert [device.device_id for device in inbox.campaign("c1")[1]] == ["990000862471854"]
        assert inbox.check() == []

    def test_notes_that_name_it_go(self, inbox, make):
        """How far something is, as a note with the device in it says, is found out again; other notes stay."""
        longer = f"{DEVICE}0"
        for number, named in enumerate(({"last": DEVICE}, {"met": ["x", DEVICE]}, {"last": longer}, {DEVICE[:-1]: 1})):
            inbox.put_note(Note(topic="reconcile", key=f"{number}", at=make.now, document=named))
        forgotten(inbox, DEVICE, make.now)
        assert [note.key for note in inbox.notes("reconcile")] == ["2", "3"]

    def test_the_key_that_handlers_see_stays(self, store, make):
        """An attempt after the device was forgotten, and the one that enrolled it, have the key of the first."""
        inbox = store.open()
        arrival = make.report(devices={DEVICE: "UpgradeFailed"})
        inbox.append([arrival, msgspec.structs.replace(arrival, origin="reconciled", received_at=make.now + make.day)])
        make.read_up(inbox)
        enrolled = []
        make.enrolled(inbox, Subscription("handler", lambda event: enrolled.append(event.key) or [""]))

        def keys():
            items = make.take(inbox)
            make.settle(inbox, items, "pending", due_at=make.now)
            return [stored_event(i.callback_id, i.received_at, i.account, i.digest, i.body).key for i in items]

        first = keys()
        assert forgotten(inbox, DEVICE, make.now)[1] == 2
        assert keys() == first == enrolled
        assert first == [f"{hashlib.sha256(arrival.body).hexdigest()[:32]}-{number}" for number in (1, 2)]

    def test_forgetting_again_finds_nothing(self, inbox, make):
        """What is forgotten is forgotten: a second run changes nothing."""
        forgotten(inbox, DEVICE, make.now)
        before = [inbox.callbacks(), inbox.campaigns(), inbox.dead()]
        assert forgotten(inbox, DEVICE, make.now) == (5, 0, 0, 0, 1)
        assert [inbox.callbacks(), inbox.campaigns(), inbox.dead()] == before

    def test_a_copy_of_what_was_blanked_is_still_a_copy(self, inbox, make):
        """The digest is the original's, so that a copy brings no forgotten body back within the window."""
        body = inbox.callback(1).body
        forgotten(inbox, DEVICE, make.now)
        (copy,) = inbox.append([make.arrival(body, at=make.now + make.minute)])
        assert (copy.callback_id, copy.is_new) == (1, False)
        assert DEVICE.encode() not in inbox.callback(1).body

    def test_no_other_device_is_touched(self, inbox, make):
        """A device that was never named is forgotten without a trace."""
        before = [inbox.callbacks(), inbox.campaigns(), [inbox.work(number) for number in range(1, 6)]]
        assert forgotten(inbox, "356938035643809", make.now) == (5, 0, 0, 0, 1)
        assert [inbox.callbacks(), inbox.campaigns(), [inbox.work(number) for number in range(1, 6)]] == before

    def test_an_identifier_is_not_looked_for_within_a_longer_one(self, inbox, make):
        """Device identifiers compare exactly: what only contains the identifier is another one, and stays."""
        body = json.dumps({"deviceId": f"{DEVICE}9", "number": int(f"1{DEVICE}"), "note": f"x{DEVICE}"}).encode()
        inbox.append([make.arrival(body)])
        assert forgotten(inbox, DEVICE, make.now)[1] == 4
        assert inbox.callback(6).body == body

    @pytest.mark.parametrize("named", [b'{"imei":%s}', b'{"imei":"%s"}', b'{"a":[%s,1]}', b"%s", b"imei=%s;"])
    def test_an_identifier_is_found_however_it_is_written(self, inbox, make, named):
        """As a number, as a text or outside of any JSON: where the identifier stands alone it is blanked."""
        inbox.append([make.arrival(named % DEVICE.encode())])
        assert forgotten(inbox, DEVICE, make.now)[1] == 5
        assert inbox.callback(6).body == named % (b"*" * 15)

    def test_an_identifier_is_found_behind_escapes(self, inbox, make):
        """Where JSON writes some of its characters as escapes the identifier is blanked all the same."""
        escaped = b"\\u0034" + DEVICE[1:8].encode() + b"\\u0033" + DEVICE[9:].encode()
        assert json.loads(b'"%s"' % escaped) == DEVICE
        inbox.append([make.arrival(b'{"imei":"%s","n":1}' % escaped)])
        assert forgotten(inbox, DEVICE, make.now)[1] == 5
        assert inbox.callback(6).body == b'{"imei":"%s","n":1}' % (b"*" * len(escaped))

    def test_no_identifier_is_no_device(self, inbox, make):
        """An empty identifier names nothing, and blanks nothing."""
        before = inbox.callbacks()
        assert forgotten(inbox, "", make.now)[1:4] == (0, 0, 0)
        assert inbox.callbacks() == before

    def test_the_owner_of_removed_work_changes_nothing(self, inbox, make):
        """A worker that is at the device's work when it is forgotten ends nothing."""
        items = [item for item in make.take(inbox, "device-handler") if item.device_id == DEVICE]
        forgotten(inbox, DEVICE, make.now)
        make.settle(inbox, items, "dead", error="late")
        with inbox.finish(items[0].id, "owner", make.now) as transaction:
            assert transaction is None
        assert inbox.dead() == []

    def test_an_empty_store(self, store, make):
        """Where nothing is kept the first step is the last."""
        with store.fresh() as fresh:
            assert forgotten(fresh.open(), DEVICE, make.now) == (0, 0, 0, 0, 1)


class TestMarks:
    @pytest.fixture
    def appender(self, inbox):
        appender = inbox.appender()
        yield appender
        appender.close()

    def test_a_mark_is_kept_with_its_rows(self, store, inbox, make, appender):
        """After the commit the position is there for whoever asks, with what was staged under it."""
        assert appender.marked("segment") == 0
        appender.stage(make.arrivals(3), mark=("segment", 300))
        appender.commit()
        assert len(inbox.callbacks()) == 3
        other = store.open().appender()
        assert (appender.marked("segment"), other.marked("segment"), other.marked("another")) == (300, 300, 0)
        other.close()

    def test_a_mark_goes_with_a_rollback(self, inbox, make, appender):
        """What was not committed was not imported: the position is where it was before."""
        appender.stage(make.arrivals(1), mark=("segment", 100))
        appender.commit()
        appender.stage([make.arrival(b"more")], mark=("segment", 200))
        appender.rollback()
        assert appender.marked("segment") == 100
        assert len(inbox.callbacks()) == 1

    def test_an_appender_that_is_closed_or_lost_commits_nothing(self, store, inbox, make):
        """A process that ends between staging and committing leaves neither rows nor mark, and nobody locked out."""
        lost = inbox.appender()
        lost.stage(make.arrivals(2), mark=("segment", 200))
        lost.close()
        again = store.open().appender()
        assert again.marked("segment") == 0
        assert again.stage(make.arrivals(2), mark=("segment", 200)) is not None
        again.commit()
        again.close()
        assert inbox.ledger().deliveries == 2

    def test_marks_are_each_names_own(self, make, appender):
        """Positions of several names stand beside each other, and each can be forgotten alone."""
        for name, position in (("one", 1), ("other", 2), ("one", 3)):
            appender.stage([make.arrival(name.encode())], mark=(name, position))
            appender.commit()
        assert (appender.marked("one"), appender.marked("other")) == (3, 2)
        appender.unmark("one")
        appender.unmark("never")
        assert (appender.marked("one"), appender.marked("other")) == (0, 2)

    def test_a_mark_alone(self, inbox, appender):
        """A position may move on without rows: a damaged stretch is passed by too."""
        assert appender.stage([], mark=("segment", 7)) == []
        appender.commit()
        assert appender.marked("segment") == 7
        assert inbox.callbacks() == []

    def test_no_mark_is_no_subscriber(self, inbox, make, appender):
        """Names of marks are their own: none of them is anybody's progress."""
        for name in ("projection", "handler"):
            appender.stage([make.arrival(name.encode())], mark=(name, 1000))
            appender.commit()
        make.read_up(inbox)
        make.enrolled(inbox)
        assert len(make.take(inbox)) == 2
        assert {record.kind for record in inbox.callbacks()} == {None}
        assert all(record.key for record in inbox.callbacks())


class TestCheck:
    def test_a_store_in_use_is_sound(self, inbox, make):
        """After all that can happen to a callback there is nothing to complain about."""
        inbox.append([*make.arrivals(6), make.report(campaign_id="c1", devices={"d1": "Accepted"})] * 2)
        inbox.append([make.arrival(body, trust=Trust.QUARANTINED) for body in (b"1", b"2", b"3")])
        inbox.release_quarantined(Selection(ids=(8,)), make.now)
        inbox.drop_quarantined(Selection(ids=(9,)), make.now)
        make.read_up(inbox)
        make.enrolled(inbox, make.whole(ordered=True), make.devices())
        items = make.take(inbox, "handler", "device-handler")
        make.settle(inbox, items[:2])
        make.settle(inbox, items[2:4], "dead", error="trace")
        make.settle(inbox, items[4:5], "pending")
        inbox.replay(Selection(state=State.DEAD), make.now, reason="fixed", limit=1)
        inbox.drop_dead(EVERYTHING, make.now)
        assert inbox.check() == []


class TestBackup:
    @pytest.mark.parametrize("store", ["sqlite"], indirect=True)
    def test_a_copy_is_a_store_with_all_that_was_there(self, store, inbox, make, tmp_path):
        """A backup opens as a store that says what the original said, and its parts were counted to the end."""
        from upcall.inbox import open_inbox

        inbox.append(make.arrivals(50))
        make.read_up(inbox)
        make.enrolled(inbox)
        make.settle(inbox, make.take(inbox, limit=5), "dead")
        told = []
        inbox.backup(tmp_path / "copy.db", progress=lambda done, total: told.append((done, total)))
        assert told[-1][0] == told[-1][1]
        with open_inbox(f"sqlite:///{tmp_path / 'copy.db'}") as copy:
            assert copy.callbacks() == inbox.callbacks()
            assert (copy.ledger(), copy.dead(), copy.subscribers()) == (
                inbox.ledger(),
                inbox.dead(),
                inbox.subscribers(),
            )
            assert copy.check() == []

    @pytest.mark.parametrize("store", ["sqlite"], indirect=True)
    def test_an_existing_file_is_left_alone(self, inbox, tmp_path):
        """A backup never writes over what is there."""
        target = tmp_path / "copy.db"
        target.write_bytes(b"somebody's")
        with pytest.raises(UpcallError, match="there already"):
            inbox.backup(target)
        assert target.read_bytes() == b"somebody's"

    @pytest.mark.parametrize("store", ["memory"], indirect=True)
    def test_a_memory_store_says_that_it_cannot(self, inbox, tmp_path):
        """A store that no file could hold says so, and writes none."""
        with pytest.raises(StoreError, match="cannot be backed up"):
            inbox.backup(tmp_path / "copy.db")
        assert not (tmp_path / "copy.db").exists()
