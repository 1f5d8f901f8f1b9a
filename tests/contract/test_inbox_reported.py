"""Callbacks that are made of the provider's reports, and the real ones that come late after all."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from upcall.inbox import EVERYTHING, Lessee, Reported, Retention, Selection, Trust
from upcall.testing import callback
from upcall.thingspace import normalize_device

per_example_store = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

ACCOUNT = "0000123456-00001"
OTHER = "0000999999-00001"
UNNAMED = b'{"type":"upgradeProgress","upgradeProgress":{"id":"c1","deviceList":[{"deviceId":"d1","status":"%s"}]}}'
numbers = itertools.count(1)


def reported(device_id="d1", status="UpgradeSuccess", *, account=ACCOUNT, campaign_id="c1", body=None):
    """Return what a report says of a device, or of its campaign."""
    facts = {"devices": {device_id: status}} if device_id else {"kind": "upgradeFinished", "status": status}
    body = body or callback(account=account, campaign_id=campaign_id, **facts)
    return Reported(account=account, campaign_id=campaign_id, device_id=device_id, status=status, body=body)


def real(make, devices=None, *, account=ACCOUNT, campaign_id="c1", at=None, trust=Trust.ACCEPTED, **facts):
    """Return an arrival that says so, in bytes that no other has."""
    body = callback(account=account, campaign_id=campaign_id, devices=devices, **facts) + b" " * next(numbers)
    return make.arrival(body, make.now if at is None else at, trust=trust)


def appended(inbox, *arrivals):
    """Keep arrivals, and return the number of the last one's callback."""
    return inbox.append(arrivals)[-1].callback_id


def works(inbox, callback_id):
    """Return by subscriber and device the state of its work and what it merged with."""
    return {
        (work.subscriber, work.device_id): (work.state, work.merged_with) for work in inbox.work(callback_id)
    }  # fmt: skip


@pytest.fixture
def told(inbox, make):
    """Keep a report of a device that both kinds of subscribers are enrolled for; return its callback."""
    make.enrolled(inbox, make.devices(), make.whole())
    (number,) = inbox.append_reported([reported()], make.now)
    make.enrolled(inbox, make.devices(), make.whole())
    return number


class TestAppending:
    def test_news_is_a_callback(self, inbox, make):
        """What the provider reports is kept as a callback that says where it is from, and is known at once."""
        report = reported()
        (number,) = inbox.append_reported([report], make.now)
        make.read_up(inbox)
        record = inbox.callback(number)
        assert (record.origin, record.trust, record.evidence) == (
            "reconciled", "confirmed", "the provider's report says so",
        )  # fmt: skip
        assert (record.body, record.received_at, record.account) == (report.body, make.now, ACCOUNT)
        (delivery,) = inbox.deliveries(number)
        assert (delivery.peer, delivery.token_id, delivery.listed, delivery.answer) == ("", "", None, 0)
        assert [(device.device_id, device.status) for device in inbox.campaign("c1")[1]] == [("d1", "UpgradeSuccess")]
        assert inbox.check() == []

    def test_handlers_are_told_where_it_is_from(self, inbox, make):
        """Work of a reconciled callback has its origin, claimed or leased as it is made."""
        inbox.append_reported([reported(), reported("d2")], make.now)
        appended(inbox, real(make))
        inbox.subscribe(["handler"], make.now)
        lessee = Lessee("owner", 30.0, {"handler": 1})
        _, leased = inbox.enroll([make.whole()], make.now, lessee=lessee)
        assert [item.origin for item in leased + make.take(inbox)] == ["reconciled", "reconciled", "received"]

    def test_subscribers_see_where_it_is_from(self, inbox, make):
        """A subscriber is asked about an event that says its origin."""
        seen = []
        asked = make.whole()
        subscription = type(asked)("handler", lambda event: seen.append((event.origin, event.drift)) or [])
        inbox.append_reported([reported(body=b'{"type":"of its own"}')], make.now)
        inbox.append([make.arrival(b'{"type":"of its own"}', origin="guard")])
        make.enrolled(inbox, subscription)
        assert seen == [("reconciled", ()), ("guard", ())]

    def test_nothing_is_no_news(self, inbox, make):
        """Nothing reported is no error; a report without a word says nothing."""
        assert inbox.append_reported([], make.now) == []
        assert inbox.append_reported([reported(status="")], make.now) == [None]
        assert inbox.callbacks() == []

    def test_a_dry_run_keeps_nothing(self, inbox, make):
        """A dry run tells what would be kept, and keeps nothing."""
        appended(inbox, real(make, {"d1": "UpgradeSuccess"}))
        asked = [reported(), reported("d2"), reported("d2"), reported("d3"), reported("d3", "Accepted")]
        assert inbox.append_reported(asked, make.now, dry_run=True) == [None, 0, None, 0, None]
        assert len(inbox.callbacks()) == 1
        assert inbox.append_reported(asked, make.now) == [None, 2, None, 3, None]

    def test_what_callbacks_said_is_no_news(self, inbox, make):
        """What a real callback said, though nobody has read it yet, is not said again."""
        appended(inbox, real(make, {"d1": "UpgradedFailed", "d2": "UpgradePending"}, status="CampaignRequestQueued"))
        same = [reported("d1", "UpgradeFailed"), reported("d2", "Accepted"), reported("", "CampaignQueued")]
        assert inbox.append_reported(same, make.now) == [None] * 3
        more = [reported("d1", "UpgradeSuccess"), reported("d2", "UpgradeFailed"), reported("", "CampaignEnded")]
        assert inbox.append_reported(more, make.now) == [2, 3, 4]

    @pytest.mark.parametrize("account", [None, ACCOUNT])
    def test_what_a_callback_without_an_account_said_is_no_news(self, inbox, make, account):
        """A callback that names no account is of the token's, or of whoever has the campaign."""
        appended(inbox, make.arrival(UNNAMED % b"UpgradeSuccess", account=account))
        assert inbox.append_reported([reported(), reported(status="UpgradeFailed")], make.now) == [None, 2]

    def test_another_account_says_nothing_of_this_one(self, inbox, make):
        """A campaign of that name of another account's is another campaign."""
        appended(inbox, real(make, {"d1": "UpgradeSuccess"}, account=OTHER))
        assert inbox.append_reported([reported()], make.now) == [2]

    def test_what_waits_in_quarantine_said_nothing(self, inbox, make):
        """A quarantined callback is nobody's word until it is released."""
        appended(inbox, real(make, {"d1": "UpgradeSuccess"}, trust=Trust.QUARANTINED))
        assert inbox.append_reported([reported()], make.now, dry_run=True) == [0]
        inbox.release_quarantined(EVERYTHING, make.now)
        assert inbox.append_reported([reported()], make.now) == [None]

    def test_what_was_reported_is_no_news(self, store, make):
        """A report is news once: in one call, in the next, in another process, and after a real callback merged."""
        inbox = store.open()
        assert inbox.append_reported([reported(), reported(status="upgrade success")], make.now) == [1, None]
        make.enrolled(inbox)
        appended(inbox, real(make, {"d1": "UpgradeSuccess"}))
        make.enrolled(inbox)
        for each in (inbox, store.open()):
            assert each.append_reported([reported()], make.now + make.day) == [None]

    def test_each_state_on_the_way_is_news(self, inbox, make):
        """Reports that go further are each news, as callbacks would be."""
        words = ["Accepted", "UpgradePending", "UpgradePending", "Accepted", "UpgradeSuccess", "UpgradeFailed"]
        found = inbox.append_reported([reported(status=word) for word in words], make.now)
        assert found == [1, 2, None, None, 3, 4]
        make.read_up(inbox)
        ((device,),) = (inbox.campaign("c1")[1],)
        assert (device.status, device.contradiction) == ("UpgradeSuccess", "UpgradeFailed")

    def test_many_at_once(self, inbox, make):
        """However many are reported, each is answered in its place."""
        appended(inbox, real(make, {f"d{n}": "UpgradeSuccess" for n in range(0, 1000, 3)}))
        found = inbox.append_reported([reported(f"d{n}") for n in range(1000)], make.now)
        assert [n for n, number in enumerate(found) if number is None] == list(range(0, 1000, 3))
        kept = [number for number in found if number is not None]
        assert kept == list(range(2, 2 + len(kept)))
        assert inbox.ledger().stored == 1 + len(kept)
        assert inbox.check() == []

    def test_a_real_one_that_came_in_between(self, store, make):
        """A callback that comes between a comparison and the append is not said again."""
        inbox, listener = store.open(), store.open().appender()
        assert inbox.append_reported([reported()], make.now, dry_run=True) == [0]
        listener.stage([real(make, {"d1": "UpgradeSuccess"})])
        listener.commit()
        listener.close()
        assert inbox.append_reported([reported(), reported("d2")], make.now) == [None, 2]

    def test_it_is_there_for_the_next_process(self, store, make):
        """What was kept, and what it said, outlives the inbox that kept it."""
        inbox = store.open()
        inbox.append_reported([reported()], make.now)
        inbox.close()
        again = store.open()
        assert again.callback(1).origin == "reconciled"
        assert again.append_reported([reported()], make.now) == [None]

    def test_drift_is_the_providers_alone(self, inbox, make):
        """What is made of reports and what the guard says teach nothing of the provider's schema."""
        odd = callback("upgradeProgress", campaign_id="c1", devices={"d1": "Odd word"})
        inbox.append_reported([reported(body=odd)], make.now)
        inbox.append([make.arrival(odd, origin="guard")])
        make.read_up(inbox)
        assert inbox.drift() == []
        assert [(record.kind, record.account, record.campaign_id) for record in inbox.callbacks()] == [
            ("upgradeProgress", ACCOUNT, "c1")
        ] * 2
        (campaign,) = inbox.campaigns()
        assert campaign.callbacks == 1  # the guard's word is none on campaigns
        appended(inbox, make.arrival(odd))
        make.read_up(inbox)
        assert len(inbox.drift()) == 1


class TestCopies:
    def test_equal_reports_are_two_callbacks(self, inbox, make):
        """Two reports that are kept in the same bytes are not deliveries of one callback."""
        same = [reported("d1", body=b"{}"), reported("d2", body=b"{}")]
        assert inbox.append_reported(same, make.now) == [1, 2]
        assert [record.deliveries for record in inbox.callbacks()] == [1, 1]

    def test_a_real_one_in_the_same_bytes(self, store, make):
        """A real callback in a report's very bytes is a callback of its own, and so is a copy of it one of its."""
        inbox, listener = store.open(), store.open().appender()
        listener.stage([make.arrival()])
        listener.commit()
        (number,) = inbox.append_reported([reported()], make.now)
        make.enrolled(inbox)
        for expected in ((3, True), (3, False)):
            (receipt,) = listener.stage([make.arrival(reported().body)])
            listener.commit()
            assert (receipt.callback_id, receipt.is_new) == expected
        (receipt,) = listener.stage([make.arrival()])
        assert not receipt.is_new
        listener.commit()
        listener.close()
        make.enrolled(inbox)
        assert works(inbox, 3) == {("handler", ""): ("done", number)}
        assert inbox.append([make.arrival(reported().body)])[0].callback_id == 3
        make.read_up(inbox)
        assert inbox.check() == []

    def test_what_the_guard_says_twice(self, inbox, make):
        """The guard's words are copies of each other only, within the window."""
        body = b'{"type":"registration.drift"}'
        kept = inbox.append(
            [make.arrival(body), make.arrival(body, origin="guard"), make.arrival(body, origin="guard")]
        )
        assert [receipt.callback_id for receipt in kept] == [1, 2, 2]


class TestMerging:
    def test_a_late_callback_merges(self, inbox, make, told):
        """Who was told by the reconciled callback is not called for the late real one, by device or as a whole."""
        number = appended(inbox, real(make, {"d1": "UpgradeSuccess"}))
        make.enrolled(inbox, make.devices(), make.whole(), now=make.now + 5)
        assert works(inbox, number) == {("device-handler", "d1"): ("done", told), ("handler", ""): ("done", told)}
        for work in inbox.work(number):
            assert (work.attempts, work.finished_at, work.error, work.replays) == (0, make.now + 5, None, ())
        record = inbox.callback(number)
        assert (record.state, record.origin, record.trust) == ("done", "received", "accepted")
        assert [item.callback_id for item in make.take(inbox, "handler", "device-handler")] == [told] * 2
        assert [(one.pending, one.done, one.failed) for one in inbox.subscribers()] == [(0, 0, 0)] * 2
        assert inbox.check() == []

    def test_each_subscriber_in_its_own_time(self, store, make):
        """A subscriber that enrolls much later merges with the same callback, and a repeat is handed on to both."""
        inbox, other = store.open(), store.open()
        inbox.subscribe(["device-handler", "handler"], make.now)
        (told,) = inbox.append_reported([reported()], make.now)
        make.enrolled(inbox, make.devices())
        first = appended(inbox, real(make, {"d1": "UpgradeSuccess"}))
        again = appended(inbox, real(make, {"d1": "UpgradeSuccess"}))
        make.enrolled(inbox, make.devices())
        make.enrolled(other, make.whole())
        assert works(inbox, first) == {("device-handler", "d1"): ("done", told), ("handler", ""): ("done", told)}
        assert works(inbox, again) == {("device-handler", "d1"): ("pending", None), ("handler", ""): ("pending", None)}

    @pytest.mark.parametrize("limit", [1, 2, 100])
    def test_one_that_is_behind_gets_the_reconciled_one_first(self, inbox, make, limit):
        """Whoever has looked at neither is called for the reconciled one only, however large its steps are."""
        inbox.subscribe(["device-handler", "handler"], make.now)
        (told,) = inbox.append_reported([reported()], make.now)
        late = appended(inbox, real(make, {"d1": "UpgradeSuccess"}))
        while inbox.enroll([make.devices(), make.whole()], make.now, limit=limit)[0]:
            pass
        assert set(works(inbox, told).values()) == {("pending", None)}
        assert set(works(inbox, late).values()) == {("done", told)}

    def test_one_that_came_later_was_told_nothing(self, inbox, make, told):
        """A subscriber that begins behind the reconciled callback is called for the real one."""
        make.enrolled(inbox, make.whole("new"))
        number = appended(inbox, real(make, {"d1": "UpgradeSuccess"}))
        make.enrolled(inbox, make.whole(), make.whole("new"))
        assert works(inbox, number) == {("handler", ""): ("done", told), ("new", ""): ("pending", None)}

    def test_one_that_did_not_want_it_was_told_nothing(self, inbox, make):
        """Who wants another kind of callback than the reconciled one was is called for the real one."""
        subscription = make.whole()
        finished = type(subscription)("finished", lambda event: [""] if event.kind == "upgradeFinished" else [])
        inbox.subscribe(["finished"], make.now)
        inbox.append_reported([reported()], make.now)
        number = appended(inbox, real(make, {"d1": "UpgradeSuccess"}, kind="upgradeFinished"))
        make.enrolled(inbox, finished)
        assert works(inbox, number) == {("finished", ""): ("pending", None)}

    def test_of_two_devices_one_was_reported(self, inbox, make, told):
        """Only the reported device's work merges; who takes whole callbacks is called, for it says more."""
        number = appended(inbox, real(make, {"d1": "UpgradeSuccess", "d2": "UpgradeSuccess"}))
        make.enrolled(inbox, make.devices(), make.whole())
        assert works(inbox, number) == {
            ("device-handler", "d1"): ("done", told),
            ("device-handler", "d2"): ("pending", None),
            ("handler", ""): ("pending", None),
        }
        assert inbox.callback(number).state == "pending"
        again = appended(inbox, real(make, {"d1": "UpgradeSuccess"}))
        make.enrolled(inbox, make.devices(), make.whole())
        assert {state for state, _ in works(inbox, again).values()} == {"pending"}

    def test_of_two_devices_both_were_reported(self, inbox, make, told):
        """A callback of several devices merges as a whole where each was reported, and names the last report."""
        (second,) = inbox.append_reported([reported("d2", "UpgradeFailed")], make.now)
        make.enrolled(inbox, make.devices(), make.whole())
        number = appended(inbox, real(make, {"d2": "UpgradedFailed", "d1": "UpgradeSuccess"}))
        make.enrolled(inbox, make.devices(), make.whole())
        assert works(inbox, number) == {
            ("device-handler", "d1"): ("done", told),
            ("device-handler", "d2"): ("done", second),
            ("handler", ""): ("done", second),
        }

    def test_a_campaigns_own_state(self, inbox, make):
        """A callback that names no device merges by the campaign's state."""
        inbox.subscribe(["handler"], make.now)
        (number,) = inbox.append_reported([reported("", "CampaignEnded")], make.now)
        same, other = (appended(inbox, real(make, status=word)) for word in ("Ended", "CampaignScheduled"))
        make.enrolled(inbox)
        assert works(inbox, same) == {("handler", ""): ("done", number)}
        assert works(inbox, other) == {("handler", ""): ("pending", None)}

    def test_a_campaigns_end_is_not_swallowed(self, inbox, make, told):
        """A callback of reported devices that also says that the campaign is over merges once that is reported too."""
        first = appended(inbox, real(make, {"d1": "UpgradeSuccess"}, status="CampaignEnded"))
        make.enrolled(inbox, make.devices(), make.whole())
        assert works(inbox, first) == {("device-handler", "d1"): ("done", told), ("handler", ""): ("pending", None)}
        inbox.append_reported([reported("d2"), reported("", "CampaignAborted")], make.now)
        make.enrolled(inbox, make.devices(), make.whole())
        second = appended(inbox, real(make, {"d2": "UpgradeSuccess"}, status="CampaignAborted"))
        make.enrolled(inbox, make.devices(), make.whole())
        assert {state for state, _ in works(inbox, second).values()} == {"done"}

    @pytest.mark.parametrize("word", ["UpgradeFailed", "Accepted", "Odd word"])
    def test_another_state_is_no_repeat(self, inbox, make, told, word):
        """A callback that says anything else of the device is handed on."""
        number = appended(inbox, real(make, {"d1": word}))
        make.enrolled(inbox, make.devices(), make.whole())
        assert set(works(inbox, number).values()) == {("pending", None)}

    @pytest.mark.parametrize(
        ("body", "account", "merges"),
        [
            (UNNAMED % b"UpgradeSuccess", None, True),
            (UNNAMED % b"UpgradeSuccess", ACCOUNT, True),
            (UNNAMED % b"UpgradeSuccess", OTHER, False),
            (callback(account=OTHER, campaign_id="c1", devices={"d1": "UpgradeSuccess"}), None, False),
            (callback(account=ACCOUNT, campaign_id="c2", devices={"d1": "UpgradeSuccess"}), None, False),
        ],
    )
    def test_of_whose_campaign(self, inbox, make, told, body, account, merges):  # noqa: PLR0917 - pytest names them
        """It merges where it is of the same account, or names none and came through a token of all."""
        number = appended(inbox, make.arrival(body, account=account))
        make.enrolled(inbox, make.devices(), make.whole())
        assert set(works(inbox, number).values()) == {("done", told) if merges else ("pending", None)}

    @pytest.mark.parametrize("origin", ["guard", "reconciled"])
    def test_only_what_the_provider_sent_merges(self, inbox, make, told, origin):
        """What Upcall itself says is no late callback."""
        number = appended(inbox, make.arrival(reported().body + b" ", origin=origin))
        make.enrolled(inbox, make.devices(), make.whole())
        assert set(works(inbox, number).values()) == {("pending", None)}

    def test_what_was_there_before_the_report(self, inbox, make):
        """A callback from before the report that nobody has looked at is handed on: it says what was then."""
        inbox.subscribe(["handler"], make.now)
        before = appended(inbox, real(make, {"d1": "Odd word"}, at=make.now - make.day))
        appended(inbox, real(make, {"d1": "Another"}))
        (told,) = inbox.append_reported([reported(status="Odd word")], make.now)
        make.enrolled(inbox)
        assert works(inbox, before) == works(inbox, told) == {("handler", ""): ("pending", None)}

    def test_what_was_released_merges(self, inbox, make):
        """A callback that lay in quarantine while it was reported merges at its release."""
        inbox.subscribe(["device-handler", "handler"], make.now)
        number = appended(inbox, real(make, {"d1": "UpgradeSuccess"}, trust=Trust.QUARANTINED))
        (told,) = inbox.append_reported([reported()], make.now)
        make.enrolled(inbox, make.devices(), make.whole())
        inbox.release_quarantined(EVERYTHING, make.now)
        make.enrolled(inbox, make.devices(), make.whole())
        assert set(works(inbox, number).values()) == {("done", told)}

    def test_a_redelivery_stays_merged(self, inbox, make, told):
        """A copy of the late callback is one more delivery of it, and no work."""
        arrival = real(make, {"d1": "UpgradeSuccess"})
        number = appended(inbox, arrival)
        make.enrolled(inbox, make.devices(), make.whole())
        assert inbox.append([arrival])[0].callback_id == number
        make.enrolled(inbox, make.devices(), make.whole())
        assert set(works(inbox, number).values()) == {("done", told)}
        assert inbox.callback(number).deliveries == 2

    @pytest.mark.parametrize("state", ["done", "dead", "pending"])
    def test_whatever_became_of_the_reconciled_one(self, inbox, make, told, state):
        """It merges whether the earlier work is done, dead or waits: there is one place to look at."""
        make.settle(inbox, make.take(inbox, "handler", "device-handler"), state, due_at=make.now + make.day)
        number = appended(inbox, real(make, {"d1": "UpgradeSuccess"}))
        make.enrolled(inbox, make.devices(), make.whole())
        assert set(works(inbox, number).values()) == {("done", told)}

    def test_one_that_was_forgotten_and_came_back_was_told_nothing(self, inbox, make, told):
        """A subscriber whose work was forgotten with it is called for the real one."""
        inbox.unsubscribe("handler")
        make.enrolled(inbox)
        number = appended(inbox, real(make, {"d1": "UpgradeSuccess"}))
        make.enrolled(inbox)
        assert works(inbox, number) == {("handler", ""): ("pending", None)}

    def test_merged_work_takes_no_room(self, inbox, make, told):
        """What is leased as it is made is what is to be done."""
        appended(inbox, real(make, {"d1": "UpgradeSuccess"}))
        number = appended(inbox, real(make, {"d2": "UpgradeSuccess"}))
        lessee = Lessee("owner", 30.0, {"handler": 1, "device-handler": 1})
        _, items = inbox.enroll([make.devices(), make.whole()], make.now, lessee=lessee)
        assert sorted((item.callback_id, item.subscriber) for item in items) == [
            (number, "device-handler"), (number, "handler"),
        ]  # fmt: skip

    def test_merged_work_holds_up_no_order(self, inbox, make):
        """Ordered work behind it is handed out as if it had been done."""
        ordered = make.whole(ordered=True)
        inbox.subscribe(["handler"], make.now)
        inbox.append_reported([reported()], make.now)
        appended(inbox, real(make, {"d1": "UpgradeSuccess"}))
        number = appended(inbox, real(make, {"d2": "UpgradeSuccess"}))
        make.enrolled(inbox, ordered)
        assert [item.callback_id for item in make.take(inbox)] == [1]
        inbox.release(["owner"], make.now)
        make.settle(inbox, make.take(inbox))
        assert [item.callback_id for item in make.take(inbox)] == [number]

    def test_merged_work_can_be_replayed(self, inbox, make, told):
        """A person may have it handled all the same; it is no longer merged then, and its history says what it was."""
        number = appended(inbox, real(make, {"d1": "UpgradeSuccess"}))
        make.enrolled(inbox, make.devices(), make.whole())
        assert inbox.replay(Selection(ids=(number,)), make.now, reason="by hand") == 2
        items = [item for item in make.take(inbox, "handler", "device-handler") if item.callback_id == number]
        assert [(item.attempt, item.unended) for item in items] == [(1, False)] * 2
        make.settle(inbox, items)
        for work in inbox.work(number):
            assert (work.state, work.merged_with, work.attempts) == ("done", None, 1)
            assert [(replay.state, replay.attempts) for replay in work.replays] == [("done", 0)]

    def test_merged_work_of_an_ordered_subscriber_is_replayed_in_order(self, inbox, make):
        """Replayed, it takes its place in its campaign again."""
        ordered = make.whole(ordered=True)
        inbox.subscribe(["handler"], make.now)
        inbox.append_reported([reported()], make.now)
        number = appended(inbox, real(make, {"d1": "UpgradeSuccess"}))
        make.enrolled(inbox, ordered)
        inbox.replay(Selection(ids=(number,)), make.now, reason="by hand")
        assert [item.callback_id for item in make.take(inbox)] == [1]


class TestUpkeep:
    def test_what_was_merged_grows_old(self, inbox, make, told):
        """Retention takes the reconciled and the merged callback as any other, and what is said then is said anew."""
        appended(inbox, real(make, {"d1": "UpgradeSuccess"}))
        make.enrolled(inbox, make.devices(), make.whole())
        make.settle(inbox, make.take(inbox, "handler", "device-handler"))
        make.read_up(inbox)
        later = make.now + 500 * make.day
        while inbox.prune(Retention(), later).more:
            pass
        assert inbox.callbacks() == []
        assert inbox.check() == []
        number = appended(inbox, real(make, {"d1": "UpgradeSuccess"}, at=later))
        make.enrolled(inbox, make.devices(), make.whole(), now=later)
        assert set(works(inbox, number).values()) == {("pending", None)}

    def test_a_body_that_is_gone_still_merges(self, inbox, make, told):
        """Of a reconciled callback that has lost its body to retention it is still known who was told."""
        make.settle(inbox, make.take(inbox, "handler", "device-handler"))
        make.read_up(inbox)
        later = make.now + 100 * make.day
        assert inbox.prune(Retention(), later).bodies == 1
        number = appended(inbox, real(make, {"d1": "UpgradeSuccess"}, at=later))
        make.enrolled(inbox, make.devices(), make.whole(), now=later)
        assert set(works(inbox, number).values()) == {("done", told)}

    def test_a_device_that_was_forgotten(self, inbox, make):
        """What was reported of a forgotten device is forgotten: nothing merges with it any more."""
        make.enrolled(inbox, make.devices(), make.whole())
        inbox.append_reported([reported("100000000000001"), reported("100000000000002")], make.now)
        make.enrolled(inbox, make.devices(), make.whole())
        inbox.forget("100000000000001", make.now)
        late = [appended(inbox, real(make, {f"10000000000000{n}": "UpgradeSuccess"})) for n in (1, 2)]
        make.enrolled(inbox, make.devices(), make.whole())
        assert [{state for state, _ in works(inbox, number).values()} for number in late] == [{"pending"}, {"done"}]
        assert inbox.check() == []

    def test_merged_callbacks_are_handled_ones(self, inbox, make, told):
        """The ledger counts a callback whose only work is merged among those that were handled."""
        appended(inbox, real(make, {"d1": "UpgradeSuccess"}))
        make.enrolled(inbox, make.devices(), make.whole())
        ledger = inbox.ledger()
        assert (ledger.stored, ledger.handled, ledger.pending, ledger.unread) == (2, 1, 1, 0)


DEVICES = ("d1", "d2")
WORDS = ("Accepted", "UpgradePending", "UpgradeSuccess", "UpgradeFailed")
SAID = st.dictionaries(st.sampled_from(DEVICES), st.sampled_from(WORDS), min_size=1)
STEPS = st.one_of(
    st.tuples(st.just("real"), SAID),
    st.tuples(st.just("report"), st.lists(st.tuples(st.sampled_from(DEVICES), st.sampled_from(WORDS)), max_size=3)),
    st.tuples(st.just("enroll"), st.tuples(st.sampled_from(["devices", "whole"]), st.sampled_from([1, 2, 100]))),
    st.tuples(st.just("project"), st.integers(1, 3)),
)


class TestAnyOrder:
    @per_example_store
    @given(steps=st.lists(STEPS, max_size=14))
    def test_each_state_is_handled_and_what_was_said_once_each_way_is_handled_once(self, store, make, steps):
        """In any order nothing is lost, and what one callback and one report said reaches each subscriber once."""
        subscriptions = {"devices": make.devices("devices"), "whole": make.whole("whole")}
        with store.fresh() as fresh:
            inboxes = itertools.cycle([fresh.open(), fresh.open()])
            next(inboxes).subscribe(list(subscriptions), make.now)
            said, reports = [], []
            for kind, what in steps:
                inbox = next(inboxes)
                if kind == "real":
                    said.append((appended(inbox, real(make, what)), what))
                elif kind == "report":
                    kept = inbox.append_reported([reported(*fact) for fact in what], make.now)
                    reports += zip(what, kept, strict=True)
                elif kind == "enroll":
                    inbox.enroll([subscriptions[what[0]]], make.now, limit=what[1])
                else:
                    inbox.project(limit=what)
            inbox = next(inboxes)
            make.enrolled(inbox, *subscriptions.values())
            told = said + [(number, dict([fact])) for fact, number in reports if number is not None]
            for fact in itertools.product(DEVICES, WORDS):
                self.check(inbox, fact, said, told, [each for each, _ in reports])
            assert inbox.check() == []

    def check(self, inbox, fact, said, told, reports):
        device_id, _ = fact
        saying = [(number, facts) for number, facts in told if fact in facts.items()]
        by_device, whole = (
            sum(works(inbox, number)[place] == ("pending", None) for number, _ in saying)
            for place in (("devices", device_id), ("whole", ""))
        )
        assert min(by_device, whole) >= bool(saying)
        real_ones = [facts for _, facts in said if fact in facts.items()]
        if len(real_ones) == 1 and fact in reports:
            assert by_device == 1
            assert whole == 1 or len(real_ones[0]) > 1

    @per_example_store
    @given(data=st.data())
    def test_the_read_model_equals_the_truth(self, store, make, data):
        """Whatever callbacks were lost or come late: after a report of everything each device is where it is."""
        paths = {
            device_id: sorted(data.draw(st.lists(st.sampled_from(WORDS[:3]), min_size=1, unique=True)), key=WORDS.index)
            for device_id in ("d1", "d2", "d3")
        }
        came = data.draw(st.permutations([(device_id, word) for device_id, path in paths.items() for word in path]))
        first, late = data.draw(st.integers(0, len(came))), data.draw(st.integers(0, len(came)))
        with store.fresh() as fresh:
            inbox = fresh.open()
            for device_id, word in came[:first]:
                appended(inbox, real(make, {device_id: word}))
            truth = {device_id: path[-1] for device_id, path in paths.items()}
            inbox.append_reported([reported(*fact) for fact in truth.items()], make.now)
            for device_id, word in came[late:]:
                appended(inbox, real(make, {device_id: word}))
            assert inbox.append_reported([reported(*fact) for fact in truth.items()], make.now) == [None] * 3
            make.read_up(inbox)
            found = {device.device_id: normalize_device(device.status) for device in inbox.campaign("c1")[1]}
            assert found == truth
