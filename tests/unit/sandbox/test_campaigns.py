"""Campaign plans and the callbacks that they make."""

from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.sandbox import messages
from upcall.sandbox.campaigns import Campaign, CampaignRequest, Progress, SandboxOptions
from upcall.sandbox.fleet import FLEET_SIZE, fleet, imei, new_versions
from upcall.sandbox.planning import FAILURE_REASONS, SUCCESS_REASON, new_campaign
from upcall.thingspace import (
    campaign_transitions,
    device_transitions,
    is_final_campaign,
    is_final_device,
    normalize_campaign,
    normalize_device,
    parse_callback,
)

ACCOUNT = "0000123456-00001"
REQUEST = CampaignRequest(
    campaign_name="June",
    software_name="FOTA_01To02",
    software_from="01",
    software_to="02",
    distribution_type="HTTP",
    start_date="2026-06-01",
    end_date="2026-06-08",
)


def draw(devices, seed=1, busy=(), **options):
    return new_campaign(
        REQUEST,
        [imei(number) for number in range(devices)],
        account=ACCOUNT,
        now=0.0,
        options=SandboxOptions(**options),
        busy=busy,
        ids=Random(seed),
        random=Random(seed),
    )


campaigns = st.builds(
    draw, st.integers(1, 60), st.integers(), hours=st.floats(0.001, 1000), failing=st.none() | st.integers(0, 10)
)


@given(campaigns, st.data())
def test_every_device_is_final_within_the_hours(campaign, data):
    """However a campaign falls out, it ends and every device is final within its virtual time."""
    progress = Progress(campaign)
    while progress.next_at() is not None:
        progress.advance()
    assert progress.status == "CampaignEnded"
    assert all(is_final_device(device.status) for device in progress.devices.values())
    assert len(progress.devices) == len(campaign.intake)


@given(campaigns, st.floats(0.001, 1000))
def test_steps_are_in_order_and_in_time(campaign, hours):
    """Steps follow each other in time and none lies beyond the virtual hours."""
    campaign = draw(len(campaign.intake), hours=hours)
    times = [step.at for step in campaign.steps]
    assert times == sorted(times)
    assert times[0] == 0.0
    assert times[-1] <= hours * 3600


@given(campaigns)
def test_transitions_are_legal(campaign):
    """No device and no campaign makes a change that the provider's lifecycle does not know."""
    progress = Progress(campaign)
    devices = {device.device_id: [device.status] for device in campaign.intake}
    words = [progress.status]
    while progress.next_at() is not None:
        step = progress.advance()
        (words if step.device_id is None else devices[step.device_id]).append(step.status)
    for history in devices.values():
        for before, after in pairwise(map(normalize_device, history)):
            assert after in device_transitions(before)
    for before, after in pairwise(map(normalize_campaign, words)):
        assert after in campaign_transitions(before)


@given(campaigns, st.data())
def test_stopping_ends_everything(campaign, data):
    """Cancelling or aborting at any moment makes every device and the campaign final, by legal changes."""
    progress = Progress(campaign)
    for _ in range(data.draw(st.integers(0, len(campaign.steps) - 1))):
        progress.advance()
    queued = progress.status in {"CampaignRequestPending", "CampaignQueued"}
    before = {device.device_id: device.status for device in progress.devices.values()}
    for change in progress.stop():
        if change.device_id:
            assert normalize_device(change.status) in device_transitions(normalize_device(before[change.device_id]))
    assert progress.status == ("CampaignCancelled" if queued else "CampaignAborted")
    assert all(is_final_device(device.status) for device in progress.devices.values())
    assert progress.next_at() is None


def test_same_seed_same_fate():
    """A seed decides the identifier, the rejections, the times and the results."""
    assert draw(50, seed=7) == draw(50, seed=7)
    assert draw(50, seed=7) != draw(50, seed=8)


@pytest.mark.parametrize(("failing", "rejected"), [(0, 0), (3, 2), (10, 0), (0, 10)])
def test_wished_counts_are_kept(failing, rejected):
    """A request that wishes for failures and rejections gets exactly so many."""
    campaign = draw(10, failing=failing, rejected=rejected)
    failed = [step for step in campaign.steps if step.status == "UpgradeFailed"]
    assert len(failed) == failing
    assert all(step.reason in FAILURE_REASONS for step in failed)
    assert sum(device.status == "DeviceRejected" for device in campaign.intake) == rejected
    assert sum(step.reason == SUCCESS_REASON for step in campaign.steps) == 10 - failing - rejected


def test_unsound_devices_are_rejected():
    """What is no IMEI, and what another campaign still has, is rejected with the documented reason."""
    campaign = new_campaign(
        REQUEST,
        ["99", imei(1), imei(2)],
        account=ACCOUNT,
        now=0.0,
        options=SandboxOptions(rejected=0),
        busy={imei(1)},
        ids=Random(1),
        random=Random(1),
    )
    assert [device.reason for device in campaign.intake] == [
        "Invalid IMEI",
        "Device is already in another upgrade",
        None,
    ]


@given(campaigns)
def test_messages_parse_without_drift(campaign):
    """Every callback that the sandbox can send is read by our own parser with nothing left over."""
    progress = Progress(campaign)
    sent = list(messages.scheduled(campaign, "CampaignQueued", campaign.intake))
    while progress.next_at() is not None:
        step = progress.advance()
        if step.device_id is not None:
            sent.append(messages.progress(campaign, progress.status, progress.devices[step.device_id]))
    sent.append(messages.finished(campaign, progress.status))
    for callback in sent:
        event = parse_callback(callback.body)
        assert event.drift == ()
        assert event.extra == {}
        assert (event.kind, event.account, event.campaign_id) == (callback.type, ACCOUNT, campaign.id)
    last = {update.device_id: update.status for each in sent for update in parse_callback(each.body).devices}
    assert last == {device.device_id: device.status for device in progress.devices.values()}
    assert is_final_campaign(parse_callback(sent[-1].body).campaign_status)


def test_scheduled_callbacks_hold_a_thousand_devices():
    """A large campaign is announced in messages of at most a thousand devices, with all of them."""
    campaign = draw(2500)
    events = [
        parse_callback(callback.body) for callback in messages.scheduled(campaign, "CampaignQueued", campaign.intake)
    ]
    assert [len(event.devices) for event in events] == [1000, 1000, 500]


def test_elements_that_do_not_apply_are_empty():
    """A callback carries all four elements; only the one that its type names is filled."""
    body = msgspec.json.decode(messages.finished(draw(1), "CampaignEnded").body)
    assert (body["firmwareList"], body["upgradeScheduled"], body["upgradeProgress"]) == ([], {}, {})
    assert body["upgradeFinished"]["status"] == "CampaignEnded"


def test_announcement_parses():
    """The callback that tells of new versions is read without drift."""
    event = parse_callback(messages.announcement(ACCOUNT, new_versions()).body)
    assert (event.kind, event.drift, len(event.software)) == ("firmwareList", (), 2)


def test_campaign_survives_a_round_trip():
    """A campaign that was written to a state file is the same when it is read."""
    campaign = draw(20)
    assert msgspec.json.decode(msgspec.json.encode(campaign), type=Campaign) == campaign


def test_fleet():
    """Each account has its own devices, the same each time, with sound check digits."""
    devices = fleet(ACCOUNT)
    assert len(set(devices)) == FLEET_SIZE
    assert devices == fleet(ACCOUNT) != fleet("other")
    for device in devices:
        digits = [int(digit) for digit in device]
        luhn = sum(digits[0::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])
        assert luhn % 10 == 0
