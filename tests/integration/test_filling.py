"""Gaps are filled by themselves: after an outage that can have lost something, and on a schedule."""

import msgspec
import pytest

from upcall import Upcall
from upcall.inbox import Note, Uptime, open_inbox
from upcall.inbox.stores import store_path
from upcall.registration import filling
from upcall.registration.filling import GapFiller, what_is_due
from upcall.registration.outages import Outage, Span
from upcall.settings import Account, Credentials, ReconcileSettings, read_settings

ACCOUNT = "0000123456-00001"
MINUTE = 60_000_000
NOW = 1_800_000_000_000_000


def outage(start, end, *, lost=True, is_current=False):
    span = Span(NOW + start * MINUTE, NOW + end * MINUTE)
    return Outage(kind="away", span=span, lost=(span,) if lost else (), is_current=is_current)


@pytest.mark.parametrize(
    ("outages", "since"),
    [
        ([outage(-40, -10)], -40),
        ([outage(-90, -70), outage(-40, -10)], -90),
        ([outage(-90, -70), outage(-40, -10, lost=False)], -90),
        ([outage(-40, -10, lost=False)], None),
        ([outage(-40, 0, is_current=True)], None),
        ([outage(-200, -130)], None),
        ([], None),
    ],
)
def test_an_outage_is_a_reason(outages, since):
    """Only one that can have lost something, that is over, and that no run has read since."""
    due = what_is_due(outages, NOW - 120 * MINUTE, NOW, after_outage=True, every_seconds=None)
    assert (due and due.since) == (None if since is None else NOW + since * MINUTE)
    assert what_is_due(outages, NOW - 120 * MINUTE, NOW, after_outage=False, every_seconds=None) is None


def test_an_outage_whose_end_is_to_come_is_no_reason_yet():
    """What a clock that was ahead has told, and a slot whose old URL is still served, wait for their time."""
    ahead = [outage(-40, 10)]
    assert what_is_due(ahead, NOW - 120 * MINUTE, NOW, after_outage=True, every_seconds=None) is None
    assert what_is_due(ahead, NOW, NOW + 10 * MINUTE, after_outage=True, every_seconds=None).since == NOW - 40 * MINUTE


def test_a_schedule_is_a_reason():
    """So long after the last run the next one is due, whatever happened."""
    filled = NOW - 60 * MINUTE
    assert what_is_due([], filled, NOW, after_outage=False, every_seconds=3601) is None
    assert what_is_due([], filled, NOW, after_outage=False, every_seconds=3600).since is None


class Place:
    """Hold a sandbox, a listener with its store, and a gap filler in the sandbox's time."""

    def __init__(self, sandbox, listener, **wishes):
        self.sandbox = sandbox
        self.listener = listener
        self.url = listener._inbox.url
        settings = msgspec.structs.replace(
            read_settings({}),
            accounts=(Account(name=ACCOUNT),),
            state_dir=store_path(self.url).parent,
            reconcile=ReconcileSettings(requests_per_second=1000.0, **wishes),
        )
        self.filler = GapFiller(settings, self.url, now=self.now, make_client=lambda name: sandbox.client())

    def now(self):
        return int(self.sandbox.now.timestamp() * 1e6)

    def listens(self, since, until):
        with open_inbox(self.url) as inbox:
            inbox.beat(Uptime(listener=str(since), began_at=since, last_at=until, ended=True))

    def is_equal(self, campaign):
        with open_inbox(self.url) as inbox:
            while inbox.project():
                pass
            _, devices = inbox.campaign(campaign.id)
        told = {device.device_id: device.status for device in devices}
        return told == campaign.devices()


@pytest.fixture
def seen():
    return []


@pytest.fixture
def app(seen):
    made = Upcall()

    @made.on_device("UpgradeSuccess", "UpgradeFailed")
    def note(event, device):
        seen.append((device.device_id, device.state, event.origin))

    return made


def test_after_an_outage(thingspace_sandbox, upcall_listener, app, seen):
    """A listener that was away for forty minutes has each device's state a look after it is back, handled once."""
    listener = upcall_listener(app, account=ACCOUNT)
    place = Place(thingspace_sandbox, listener, after_outage=True)
    began = place.now()
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=40, failing=5, hours=1.0)
    thingspace_sandbox.advance(600)
    left = place.now()
    place.listens(began, left)
    with listener.away():
        thingspace_sandbox.advance(2400)
        assert place.filler.step(), "nothing is due while it is away"
        assert not place.is_equal(campaign)
    place.listens(place.now(), place.now() + 10_000_000)
    assert place.filler.step()
    listener.drain()
    assert place.is_equal(campaign)
    assert "reconciled" in {origin for _, _, origin in seen}
    thingspace_sandbox.run_until(campaign.ended)
    listener.drain()
    assert place.is_equal(campaign)
    assert sorted((device, state) for device, state, _ in seen) == sorted(campaign.devices().items())


def test_it_is_done_once(thingspace_sandbox, upcall_listener, app, monkeypatch):
    """A run that read everything is not made again for the same outage, by another process either."""
    place = Place(thingspace_sandbox, upcall_listener(app, account=ACCOUNT), every_seconds=3600.0)
    calls = []
    reconcile = filling.reconcile_accounts
    monkeypatch.setattr(filling, "reconcile_accounts", lambda *a, **more: calls.append(more) or reconcile(*a, **more))
    assert place.filler.step()
    assert place.filler.step()
    assert len(calls) == 1
    thingspace_sandbox.advance(3600)
    place.filler.step()
    assert len(calls) == 2


def test_what_could_not_be_read_is_tried_again(thingspace_sandbox, upcall_listener, app):
    """A provider that fails leaves the gap to be filled, and the filler says so to whoever runs it."""
    place = Place(thingspace_sandbox, upcall_listener(app, account=ACCOUNT), every_seconds=3600.0)
    place.filler._make_client = lambda name: thingspace_sandbox.client(max_retries=0)
    thingspace_sandbox.set_faults(server_error=1.0)
    assert not place.filler.step()
    thingspace_sandbox.set_faults()
    thingspace_sandbox.advance(300)
    assert place.filler.step()
    with open_inbox(place.url) as inbox:
        assert inbox.notes("reconcile.schedule") == [Note(topic="reconcile.schedule", key=ACCOUNT, at=place.now())]


def test_an_account_that_cannot_be_read_costs_the_others_nothing(thingspace_sandbox, upcall_listener, app, monkeypatch):
    """Only what could not be read is read again."""
    place = Place(thingspace_sandbox, upcall_listener(app, account=ACCOUNT), every_seconds=3600.0)
    place.filler._accounts = {ACCOUNT: None, "0000123456-00002": "wrong"}
    wrong = Credentials(client_id="sandbox", client_secret="wrong", username="sandbox", password="sandbox")
    place.filler._make_client = lambda name: thingspace_sandbox.client(**({"credentials": wrong} if name else {}))
    asked = []
    reconcile = filling.reconcile_accounts
    monkeypatch.setattr(filling, "reconcile_accounts", lambda names, **a: asked.append(names) or reconcile(names, **a))
    assert not place.filler.step()
    assert place.filler.step(), "it is left alone for a while"
    thingspace_sandbox.advance(300)
    assert not place.filler.step()
    assert asked == [[ACCOUNT, "0000123456-00002"], ["0000123456-00002"]]


def test_nothing_is_done_that_was_not_asked_for(thingspace_sandbox, upcall_listener, app):
    """Without [reconcile] in the settings no thread begins."""
    place = Place(thingspace_sandbox, upcall_listener(app, account=ACCOUNT))
    assert not place.filler.is_wanted
    place.filler.start()
    place.filler.stop()
    assert place.filler._thread is None
