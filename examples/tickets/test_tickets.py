"""The tickets on whole campaigns: pytest with ``upcall[sandbox]`` installed is all that this needs."""

import asyncio

import pytest
import tickets

ACCOUNT = "0000123456-00001"


@pytest.fixture(autouse=True)
def _empty_desk():
    tickets.desk.clear()
    tickets.campaigns.clear()


def test_failures_open_tickets(thingspace_sandbox, upcall_listener):
    """Each device that fails gets one ticket, and nothing is lost."""
    listener = upcall_listener(tickets.app, account=ACCOUNT)
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=25, failing=2)
    thingspace_sandbox.run_until(campaign.ended)
    assert len(tickets.desk) == 2
    assert tickets.campaigns == {campaign.id: "CampaignEnded"}
    assert listener.ledger().lost == 0


def test_rejected_devices_open_tickets(thingspace_sandbox, upcall_listener):
    """A device that the provider does not take is told of at once."""
    upcall_listener(tickets.app, account=ACCOUNT)
    thingspace_sandbox.schedule_campaign(ACCOUNT, devices=10, rejected=3)
    thingspace_sandbox.advance(1)
    assert len(tickets.desk) == 3


def test_copies_and_disorder_open_no_more_tickets(thingspace_sandbox, upcall_listener):
    """What the provider sends twice, late or in another order opens each ticket once."""
    listener = upcall_listener(tickets.app, account=ACCOUNT)
    thingspace_sandbox.set_faults(duplicate=0.5, reorder=0.3, delay=0.3, refuse_once=0.2, cut_body=0.2)
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=40, failing=10)
    thingspace_sandbox.run_until(campaign.ended)
    ledger = listener.ledger()
    assert len(tickets.desk) == 10
    assert (ledger.lost, ledger.sent) == (0, ledger.stored)
    assert ledger.redelivered > 0


def test_twelve_minutes_away_lose_nothing(thingspace_sandbox, upcall_listener):
    """The provider is documented to try for fifteen minutes: a restart of twelve loses no ticket."""
    listener = upcall_listener(tickets.app, account=ACCOUNT)
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=25, failing=5)
    thingspace_sandbox.advance(20 * 60)
    with listener.away():
        thingspace_sandbox.advance(12 * 60)
    thingspace_sandbox.run_until(campaign.ended)
    assert len(tickets.desk) == 5
    assert listener.ledger().lost == 0


def test_an_hour_away_loses_what_is_known(thingspace_sandbox, upcall_listener):
    """A longer outage loses callbacks: the sandbox says which, and the truth says what became of the devices."""
    listener = upcall_listener(tickets.app, account=ACCOUNT)
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=25, failing=5)
    with listener.away():
        thingspace_sandbox.run_until(campaign.ended)
    assert listener.ledger().lost == len(thingspace_sandbox.deliveries(campaign=campaign))
    assert tickets.desk == {}
    assert campaign.counts() == {"UpgradeSuccess": 20, "UpgradeFailed": 5}


def test_a_desk_that_is_down_is_tried_again(thingspace_sandbox, upcall_listener, monkeypatch):
    """A handler that fails runs again later; the retries are not waited for."""
    calls = []

    def refuse_first(key, text):
        calls.append(key)
        if calls.count(key) == 1:
            raise ConnectionError("the desk is down")
        tickets.desk[key] = text

    monkeypatch.setattr(tickets, "file_ticket", refuse_first)
    listener = upcall_listener(tickets.app, account=ACCOUNT)
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=10, failing=2)
    thingspace_sandbox.run_until(campaign.ended)
    assert (len(calls), len(tickets.desk)) == (4, 2)
    assert listener.ledger().dead == 0


def test_another_system_takes_the_listener(thingspace_sandbox, upcall_listener):
    """One listener an account: who registers last has it, and the campaign goes on without this one."""
    listener = upcall_listener(tickets.app, account=ACCOUNT)
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=10, failing=10)
    thingspace_sandbox.advance(10)
    with thingspace_sandbox.client() as client:
        client.callbacks.register_callback(ACCOUNT, {"url": "https://laptop.example/callbacks/somebody-else"})
    thingspace_sandbox.run_until(campaign.ended)
    assert tickets.desk == {}
    assert listener.ledger().lost == len(thingspace_sandbox.deliveries(campaign=campaign)) - 1


def test_in_asyncio(async_thingspace_sandbox, upcall_listener):
    """The same in asyncio: what moves the clock is awaited."""
    upcall_listener(tickets.app, account=ACCOUNT)

    async def campaign_of_failures():
        campaign = async_thingspace_sandbox.schedule_campaign(ACCOUNT, devices=25, failing=2)
        await async_thingspace_sandbox.run_until(campaign.ended)
        async with async_thingspace_sandbox.client() as client:
            report = await client.campaigns_v2.get_campaign_information(ACCOUNT, campaign.id)
        return report["status"]

    assert asyncio.run(campaign_of_failures()) == "CampaignEnded"
    assert len(tickets.desk) == 2
