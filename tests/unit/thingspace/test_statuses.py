"""One state for each of the provider's many spellings, and which state may follow which."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.thingspace import (
    CampaignState,
    DeviceState,
    campaign_rank,
    campaign_transitions,
    device_rank,
    device_transitions,
    is_final_campaign,
    is_final_device,
    is_known_device_word,
    normalize_campaign,
    normalize_device,
)

CAMPAIGN_WORDS = {
    # The V2 pages, the SDK's enum, V3's addition.
    "CampaignRequestPending": CampaignState.REQUEST_PENDING,
    "CampaignRequestFailed": CampaignState.REQUEST_FAILED,
    "CampaignQueued": CampaignState.QUEUED,
    "CampaignRequestQueued": CampaignState.QUEUED,
    "CampaignScheduled": CampaignState.SCHEDULED,
    "CampaignPreScheduled": CampaignState.PRE_SCHEDULED,
    "CampaignFailed": CampaignState.FAILED,
    "CampaignEnded": CampaignState.ENDED,
    "CampaignCancelled": CampaignState.CANCELLED,
    "CampaignAborted": CampaignState.ABORTED,
    "In Progress": CampaignState.IN_PROGRESS,
    # V1's enum, and the bare word in the SDK's example of the dates call.
    "RequestPending": CampaignState.REQUEST_PENDING,
    "Queued": CampaignState.QUEUED,
    "RequestFailed": CampaignState.REQUEST_FAILED,
    "InProgress": CampaignState.IN_PROGRESS,
    "Finished": CampaignState.ENDED,
    "UpgradeFailed": CampaignState.FAILED,
}
DEVICE_WORDS = {
    "Accepted": DeviceState.ACCEPTED,
    "DeviceRejected": DeviceState.REJECTED,
    "UpgradePending": DeviceState.UPGRADE_PENDING,
    "UpgradeFailed": DeviceState.UPGRADE_FAILED,
    "UpgradedFailed": DeviceState.UPGRADE_FAILED,
    "UpgradeSuccess": DeviceState.UPGRADE_SUCCESS,
    "CampaignCancelled": DeviceState.CANCELLED,
    "CampaignAborted": DeviceState.ABORTED,
    # V3.
    "NoDeviceDataFromNetwork": DeviceState.NO_DATA_FROM_NETWORK,
    "ReceivedDeviceDataFromNetwork": DeviceState.DATA_FROM_NETWORK,
    "RequestToFotaServerFailed": DeviceState.REQUEST_FAILED,
    "UpgradeScheduled": DeviceState.UPGRADE_SCHEDULED,
}
FINAL_CAMPAIGNS = {"CampaignRequestFailed", "CampaignFailed", "CampaignEnded", "CampaignCancelled", "CampaignAborted"}
FINAL_DEVICES = {"DeviceRejected", "UpgradeFailed", "UpgradeSuccess", "CampaignCancelled", "CampaignAborted"}


def spellings(word):
    return {word, word.upper(), word.lower(), f" {word} ", word.replace("Request", "Request_"), f"{word}."}


@pytest.mark.parametrize(("word", "state"), CAMPAIGN_WORDS.items())
def test_campaign_words(word, state):
    """Each campaign status that a page, an enum or an example prints has its state, in any case and spacing."""
    assert {normalize_campaign(spelling) for spelling in spellings(word)} == {state}


@pytest.mark.parametrize(("word", "state"), DEVICE_WORDS.items())
def test_device_words(word, state):
    """Each device status that a page prints has its state, in any case and spacing."""
    assert {normalize_device(spelling) for spelling in spellings(word)} == {state}
    assert all(map(is_known_device_word, spellings(word)))


@given(st.text(max_size=80))
def test_unknown_words_stay_what_they_are(word):
    """A word that nobody documented comes back as it went in, is not final, and has no rank."""
    campaign, device = normalize_campaign(word), normalize_device(word)
    if not isinstance(campaign, CampaignState):
        assert (campaign, campaign_rank(word), is_final_campaign(word)) == (word, -1, False)
    if not isinstance(device, DeviceState):
        assert (device, device_rank(word), is_final_device(word)) == (word, -1, False)
    assert is_known_device_word(word) == isinstance(device, DeviceState)


@pytest.mark.parametrize("word", ["", "x" * 1_000_000, "UpgradeSuccess" + " " * 100, "Success", "Campaign", "Request"])
def test_words_that_are_no_state(word):
    """Nothing, very long text, and the word of a licence call are no state."""
    assert (normalize_campaign(word), normalize_device(word)) == (word, word)


@pytest.mark.parametrize("state", [*CampaignState, *DeviceState])
def test_states_are_their_own_words(state):
    """A state is a text that normalises to itself, so it can be stored and read back."""
    normalize = normalize_campaign if isinstance(state, CampaignState) else normalize_device
    assert normalize(str(state)) is state
    assert normalize(normalize(state.lower())) is state


def test_final_states():
    """The final states are those after which nothing happens to the campaign or device."""
    assert {str(state) for state in CampaignState if is_final_campaign(state)} == FINAL_CAMPAIGNS
    assert {str(state) for state in DeviceState if is_final_device(state)} == FINAL_DEVICES


@pytest.mark.parametrize(
    ("states", "transitions", "rank", "is_final"),
    [
        (CampaignState, campaign_transitions, campaign_rank, is_final_campaign),
        (DeviceState, device_transitions, device_rank, is_final_device),
    ],
)
def test_transitions_agree_with_ranks(states, transitions, rank, is_final):
    """What may follow is further along and never the other way round; nothing follows a final state."""
    finals = {state for state in states if is_final(state)}
    assert len({rank(state) for state in finals}) == 1
    for state in states:
        following = transitions(state)
        if state in finals:
            assert following == frozenset()
        else:
            assert following >= finals
            assert following == {other for other in states if rank(other) > rank(state)}
        for other in following:
            assert state not in transitions(other)
            assert transitions(other) < following


def test_the_documented_ways():
    """The ways that the lifecycle pages draw are legal."""
    campaign = [CampaignState(f"Campaign{step}") for step in ("RequestPending", "Queued", "Scheduled", "Ended")]
    device = [DeviceState(step) for step in ("Accepted", "UpgradePending", "UpgradeSuccess")]
    network = [DeviceState(step) for step in ("NoDeviceDataFromNetwork", "ReceivedDeviceDataFromNetwork")]
    assert all(later in campaign_transitions(state) for state, later in pairwise(campaign))
    assert all(later in device_transitions(state) for state, later in pairwise(device))
    assert network[1] in device_transitions(network[0])
    assert CampaignState.SCHEDULED in campaign_transitions(CampaignState.REQUEST_PENDING)
