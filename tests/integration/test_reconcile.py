"""Gaps filled against the sandbox: what an outage, a thief or a fault loses, the provider's reports still tell."""

from collections import Counter

import pytest

from upcall import Upcall
from upcall.testing import ListenerHarness, SandboxHarness

ACCOUNT = "0000123456-00001"
OTHER = "0000123456-00002"


@pytest.fixture
def heard():
    """What the handlers were called for: device, state and origin, each time."""
    return []


@pytest.fixture
def app(heard):
    app = Upcall()
    app.on_device()(lambda event, device: heard.append((device.device_id, device.status, event.origin)))
    return app


def told(listener, campaign):
    """Return what the listener's store tells of a campaign."""
    return listener.status(campaign.id), listener.devices(campaign.id)


def truth(campaign):
    return campaign.status(), campaign.devices()


def reconcile(sandbox, listener, *accounts, **options):
    with sandbox.client() as client:
        return listener.reconcile(client, *accounts, **options)


def test_an_outage_in_the_middle_of_a_campaign(thingspace_sandbox, upcall_listener, app, heard):
    """What was lost is filled in while the campaign goes on; late retries and what follows are each heard of once."""
    listener = upcall_listener(app, account=ACCOUNT)
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=200, failing=20, rejected=10)
    thingspace_sandbox.advance(600)
    with listener.away():
        thingspace_sandbox.advance(2400)
    assert told(listener, campaign) != truth(campaign)
    before = len(heard)
    (result,) = reconcile(thingspace_sandbox, listener)
    assert told(listener, campaign) == truth(campaign)
    listener.drain()
    # Each device whose state differed is heard of once, in its present state.
    assert Counter(device for device, _, origin in heard[before:] if origin == "reconciled") == Counter(
        {device: 1 for device, _, _ in heard[before:]}
    )
    assert len(heard) - before == result.differed > 100
    thingspace_sandbox.run_until(campaign.ended)
    assert told(listener, campaign) == truth(campaign)
    assert set(Counter((device, status) for device, status, _ in heard).values()) == {1}
    assert reconcile(thingspace_sandbox, listener)[0].differed == 0


def test_callbacks_that_were_never_sent(thingspace_sandbox, upcall_listener, app, heard):
    """What is dropped on the way stands in the reports, and every device's end is heard of once."""
    listener = upcall_listener(app, account=ACCOUNT)
    thingspace_sandbox.set_faults(drop=0.3, duplicate=0.2, reorder=0.2)
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=100, failing=20, rejected=10)
    thingspace_sandbox.run_until(campaign.ended)
    (result,) = reconcile(thingspace_sandbox, listener)
    listener.drain()
    assert result.differed > 0
    assert told(listener, campaign) == truth(campaign)
    ends = Counter((device, status) for device, status, _ in heard if campaign.devices()[device] == status)
    assert ends == Counter(campaign.devices().items())


def test_a_campaign_that_went_to_a_thief(thingspace_sandbox, upcall_listener, app, heard):
    """While another URL was registered nothing came: the campaign is named as silent, and read."""
    listener = upcall_listener(app, account=ACCOUNT)
    thingspace_sandbox.register(ACCOUNT, "https://thief.example/callbacks")
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=30, failing=3)
    thingspace_sandbox.run_until(campaign.ended)
    assert listener.callbacks() == []
    (result,) = reconcile(thingspace_sandbox, listener)
    listener.drain()
    assert (result.silent_campaigns, result.differed, result.campaigns_differed) == ((campaign.id,), 30, 1)
    assert told(listener, campaign) == truth(campaign)
    assert sorted((device, status) for device, status, _ in heard) == sorted(campaign.devices().items())


def test_announcements_are_not_made_up(thingspace_sandbox, upcall_listener, app):
    """No report holds them: what was announced in an outage stays lost, and the result says so."""
    listener = upcall_listener(app, account=ACCOUNT)
    with listener.away():
        thingspace_sandbox.announce(ACCOUNT)
        thingspace_sandbox.advance(2400)
    (result,) = reconcile(thingspace_sandbox, listener)
    assert listener.callbacks() == []
    assert "Announcements of new software" in result.not_recoverable[0]


def test_a_dry_run_counts_and_keeps_nothing(thingspace_sandbox, upcall_listener, app, heard):
    """It tells what would be kept; neither the store nor a handler sees any of it."""
    listener = upcall_listener(app, account=ACCOUNT)
    thingspace_sandbox.set_faults(drop=1)
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=10)
    thingspace_sandbox.run_until(campaign.ended)
    assert reconcile(thingspace_sandbox, listener, dry_run=True)[0].differed == 10
    listener.drain()
    assert (listener.callbacks(), heard) == ([], [])


def test_a_cancelled_campaign(thingspace_sandbox, upcall_listener, app):
    """A campaign that was aborted while nobody listened ends here too, with all its devices."""
    listener = upcall_listener(app, account=ACCOUNT)
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=50)
    thingspace_sandbox.advance(1800)
    with listener.away():
        thingspace_sandbox.cancel_campaign(campaign)
        thingspace_sandbox.advance(2400)
    reconcile(thingspace_sandbox, listener)
    assert told(listener, campaign) == truth(campaign)
    assert campaign.status() == "CampaignAborted"


def test_the_provider_s_own_faults(thingspace_sandbox, upcall_listener, app):
    """Sessions that die between pages are renewed behind the calls, and nothing is read twice."""
    listener = upcall_listener(app)
    campaigns = [thingspace_sandbox.schedule_campaign(name, devices=1500) for name in (ACCOUNT, OTHER)]
    with listener.away():
        thingspace_sandbox.advance(1)
    thingspace_sandbox.set_faults(session_dead=0.3, unauthorized=0.1)
    with pytest.raises(ValueError, match="name the accounts"):
        reconcile(thingspace_sandbox, listener)
    results = reconcile(thingspace_sandbox, listener, ACCOUNT, OTHER)
    assert [(result.devices, result.errors) for result in results] == [(1500, ()), (1500, ())]
    assert [told(listener, campaign) for campaign in campaigns] == [truth(campaign) for campaign in campaigns]


@pytest.mark.timeout(600)
def test_forty_minutes_away_from_ten_thousand_devices(app, heard):
    """Done when: the store tells the sandbox's truth, and each device whose state differed was handled once."""
    with SandboxHarness(profile="documented") as sandbox, ListenerHarness(app, account=ACCOUNT) as listener:
        sandbox.join(listener)

        def advance(seconds):
            # Handlers run afterwards, all at once: after each callback they would take minutes.
            sandbox._loop.run(sandbox._sandbox.advance(seconds))

        campaign = sandbox.schedule_campaign(ACCOUNT, devices=10_000, failing=700, rejected=300, hours=3)
        advance(10 * 60)
        with listener.away():
            advance(40 * 60)
        listener.drain()
        before, lost = dict(told(listener, campaign)[1]), len(heard)
        (result,) = reconcile(sandbox, listener)
        assert told(listener, campaign) == truth(campaign)
        listener.drain()
        differed = {device: state for device, state in campaign.devices().items() if before.get(device) != state}
        assert (result.devices, result.differed, result.errors) == (10_000, len(differed), ())
        assert sorted(heard[lost:]) == sorted((device, state, "reconciled") for device, state in differed.items())
        assert len(differed) > 3_000
        # What the ladder still brings is handled for no state that was heard of, and the campaign goes on.
        advance(20 * 60)
        listener.drain()
        assert told(listener, campaign) == truth(campaign)
        assert set(Counter((device, state) for device, state, _ in heard).values()) == {1}
        assert reconcile(sandbox, listener)[0].differed == 0
