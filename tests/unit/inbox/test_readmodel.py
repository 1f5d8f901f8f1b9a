"""The read model's rules: no order of arrival moves a state back."""

from __future__ import annotations

from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.inbox.readmodel import (
    duplicate_guess,
    fold_campaign,
    fold_device,
    fold_drift,
    is_campaign_news,
    is_news,
)
from upcall.inbox.values import DriftRecord
from upcall.thingspace import (
    CallbackEvent,
    CampaignState,
    DeviceState,
    DeviceUpdate,
    campaign_rank,
    device_rank,
    is_final_campaign,
    is_final_device,
    normalize_campaign,
    normalize_device,
    parse_time,
)

DEVICE_WORDS = [*(state.value for state in DeviceState), "UpgradedFailed", "Rejected", "Word of its own", "Another"]
CAMPAIGN_WORDS = [*(state.value for state in CampaignState), "Queued", "CampaignRequestQueued", "Odd", None]
FINAL = [state.value for state in DeviceState if is_final_device(state)]


def updates(words=DEVICE_WORDS):
    times = st.none() | st.integers(1, 28).map(lambda day: parse_time(f"2026-01-{day:02}T00:00:00Z"))
    return st.builds(
        DeviceUpdate,
        device_id=st.just("d1"),
        status=st.none() | st.sampled_from(words),
        reason=st.none() | st.sampled_from(["r1", "r2"]),
        time=times,
    )


def fold_all(said):
    known, states = None, []
    for number, update in enumerate(said):
        known = fold_device(known, update, 1_800_000_000_000_000 + number)
        states.append(known)
    return states


def rank(record):
    return -2 if record.status is None else device_rank(record.status)


@given(said=st.lists(updates(), min_size=1, max_size=8))
def test_no_message_moves_a_device_back(said):
    """Whatever comes, in whatever order, a device's state only goes further."""
    ranks = [rank(state) for state in fold_all(said)]
    assert ranks == sorted(ranks)


@given(
    said=st.lists(updates(), min_size=1, max_size=8), final=st.sampled_from(FINAL), more=st.lists(updates(), max_size=6)
)
def test_a_final_state_never_changes(said, final, more):
    """Once a device has a final state, its status, reason and time stay; only a contradiction may be added."""
    states = fold_all([*said, DeviceUpdate(device_id="d1", status=final), *more])
    settled = next(index for index, state in enumerate(states) if state.status and is_final_device(state.status))
    first = states[settled]
    for state in states[settled:]:
        assert (state.status, state.reason, state.updated_at) == (first.status, first.reason, first.updated_at)


@given(said=st.lists(updates(FINAL), min_size=1, max_size=6))
def test_the_first_contradiction_is_kept(said):
    """A second final word that does not agree stands beside the first for good, whatever comes later."""
    words = [update.status for update in said if update.status]
    state = fold_all(said)[-1]
    others = [word for word in words if normalize_device(word) != normalize_device(words[0])]
    assert (state.status, state.contradiction) == ((words[0] if words else None), (others[0] if others else None))


def test_spellings_of_one_state_do_not_contradict():
    """The provider's second spelling of the same final state is no contradiction."""
    said = [DeviceUpdate(device_id="d1", status=word) for word in ("UpgradeFailed", "UpgradedFailed")]
    assert fold_all(said)[-1].contradiction is None


@given(data=st.data())
def test_repeated_messages_change_nothing(data):
    """Messages with the provider's times may come again, in any order: the device stays as it was."""
    said = data.draw(st.lists(updates(), min_size=1, max_size=5, unique_by=lambda update: update.time))
    said = [update for update in said if update.time and update.status]
    again = data.draw(st.permutations(said))
    if said:
        states = fold_all([*said, *again])
        before = states[len(said) - 1]
        assert (states[-1].status, states[-1].updated_at) == (before.status, before.updated_at)


STORY = [
    DeviceUpdate(device_id="d1", status=word, time=parse_time(f"2026-01-0{day}T00:00:00Z"))
    for day, word in enumerate(
        ["Accepted", "NoDeviceDataFromNetwork", "ReceivedDeviceDataFromNetwork", "UpgradePending", "UpgradeSuccess"], 1
    )
]


@pytest.mark.parametrize("length", [3, 4, 5])
def test_every_order_of_a_devices_story_ends_alike(length):
    """A device ends in the state that happened last, in whichever order its messages come."""
    endings = {
        (state.status, state.updated_at)
        for order in permutations(STORY[:length])
        for state in [fold_all(order)[-1]]
    }  # fmt: skip
    assert endings == {(STORY[length - 1].status, STORY[length - 1].time.micros)}


def test_a_device_without_a_word_says_nothing():
    """A message that lists a device without a status does not wipe out what is known."""
    known, after = fold_all([DeviceUpdate(device_id="d1", status="Accepted"), DeviceUpdate(device_id="d1")])
    assert after == msgspec.structs.replace(known, last_at=known.last_at + 1)


def test_the_receipt_stands_in_for_a_time_that_cannot_be_read():
    """A device's time is the provider's where it can be read, else the callback's receipt."""
    unread = DeviceUpdate(device_id="d1", status="Accepted", time=parse_time("some day"))
    assert fold_device(None, unread, 7).updated_at == 7
    assert fold_device(None, STORY[0], 7).updated_at == STORY[0].time.micros


@given(words=st.lists(st.sampled_from(CAMPAIGN_WORDS), min_size=1, max_size=8))
def test_no_message_moves_a_campaign_back(words):
    """A campaign's state only goes further, a final one stays, and each callback is counted."""
    known, ranks = None, []
    for number, word in enumerate(words):
        before = known
        known = fold_campaign(known, CallbackEvent(campaign_id="c1", campaign_status=word), 100 - number)
        ranks.append(-2 if known.status is None else campaign_rank(known.status))
        if (
            before
            and before.status
            and not {c for c in CampaignState if campaign_rank(c) > campaign_rank(before.status)}
        ):
            assert normalize_campaign(known.status) == normalize_campaign(before.status)
    assert ranks == sorted(ranks)
    assert known.callbacks == len(words)
    assert (known.first_at, known.last_at) == (101 - len(words), 100)


def test_a_campaign_keeps_its_name():
    """A message that names no campaign does not take the name away."""
    named = fold_campaign(None, CallbackEvent(campaign_id="c1", campaign_name="spring"), 1)
    assert fold_campaign(named, CallbackEvent(campaign_id="c1"), 2).name == "spring"


@given(at=st.integers(-(10**16), 10**16), gap=st.integers(-(10**13), 10**13), window=st.integers(0, 10**12))
def test_guesses_at_duplicates(at, gap, window):
    """What nobody said before is first; the same within the window is a redelivery, beyond it a repeat."""
    assert duplicate_guess(at, None, window) == "first"
    assert duplicate_guess(at, at - gap, window) == ("redelivery" if abs(gap) <= window else "repeat")


def story(updates):
    """Fold words about one device, each with the receipt that it came with."""
    known = None
    for at, update in updates:
        known = fold_device(known, update, at)
    return known


@given(data=st.data())
def test_no_order_and_no_repetition_changes_how_a_device_ends(data):
    """Where one final word was said, any order and any repetition of the same callbacks end with it, and alike."""
    words = data.draw(st.lists(updates([word for word in DEVICE_WORDS if not is_final_device(word)]), max_size=5))
    final = DeviceUpdate(device_id="d1", status=data.draw(st.sampled_from(FINAL)))
    came = [(1_800_000_000_000_000 + at, update) for at, update in enumerate([*words, final])]
    again = data.draw(st.permutations([*came, *data.draw(st.lists(st.sampled_from(came), max_size=5))]))
    one, other = story(came), story(again)
    assert other.status == final.status
    assert (other.contradiction, one.contradiction) == (None, None)
    assert (other.first_at, other.last_at) == (one.first_at, one.last_at)
    assert (other.first_status is None) == (one.first_status is None)


@given(words=st.lists(st.sampled_from(CAMPAIGN_WORDS), min_size=1, max_size=6), data=st.data())
def test_no_order_changes_how_a_campaign_ends(words, data):
    """Where callbacks agree on the final word of a campaign, it ends with that word in whichever order they come."""
    final = [word for word in words if word and is_final_campaign(word)]

    def ending(said):
        known = None
        for word, at in said:
            known = fold_campaign(known, CallbackEvent(campaign_id="c1", campaign_status=word), at)
        return known

    came = [(word, at) for at, word in enumerate(words)]
    one, other = ending(came), ending(data.draw(st.permutations(came)))
    assert (one.first_at, one.last_at, one.callbacks) == (other.first_at, other.last_at, other.callbacks)
    if len({normalize_campaign(word) for word in final}) == 1:
        assert normalize_campaign(one.status) == normalize_campaign(other.status) == normalize_campaign(final[0])
        assert one.contradiction is other.contradiction is None
    elif final:
        assert one.contradiction is not None
        assert other.contradiction is not None


def test_the_first_and_the_last_word_are_those_of_the_receipts():
    """A callback that is folded late, at its release, is still the first one that came."""
    said = [
        (20, DeviceUpdate(device_id="d1", status="UpgradePending")),
        (30, DeviceUpdate(device_id="d1")),
        (10, DeviceUpdate(device_id="d1", status="Accepted")),
    ]
    known = story(said)
    assert (known.first_at, known.first_status) == (10, "Accepted")
    assert (known.last_at, known.last_status) == (30, "UpgradePending")
    assert known.status == "UpgradePending"


def test_drift_counts_callbacks_and_keeps_the_ends():
    """One way to differ is counted, with the first callback that showed it and the last."""
    known = fold_drift(fold_drift(None, "$.odd: unknown", 3, 30), "$.odd: unknown", 5, 50)
    assert known == DriftRecord("$.odd: unknown", 2, 3, 30, 5, 50)


class TestNews:
    """Whether a report says what callbacks have not said: see `upcall.inbox.Inbox.append_reported`."""

    def known(self, *words):
        return fold_all([DeviceUpdate(device_id="d1", status=word) for word in words])[-1] if words else None

    def campaign(self, *words):
        known = None
        for word in words:
            known = fold_campaign(known, CallbackEvent(campaign_id="c1", campaign_status=word), 1)
        return known

    @pytest.mark.parametrize(
        ("said", "status", "is_it"),
        [
            ([], "Accepted", True),
            ([None], "Accepted", True),
            (["UpgradeFailed"], "UpgradedFailed", False),
            (["Odd word"], "Odd word", False),
            (["UpgradeSuccess"], "UpgradeFailed", True),
            (["UpgradeSuccess"], "UpgradePending", False),
            (["UpgradeSuccess"], "Odd word", False),
            (["Accepted"], "UpgradePending", True),
            (["ReceivedDeviceDataFromNetwork"], "RequestToFotaServerFailed", True),
            (["UpgradePending"], "Accepted", False),
            (["UpgradePending"], "Odd word", False),
            (["Odd word"], "Another", True),
            (["Odd word"], "Accepted", True),
            (["UpgradeSuccess", "UpgradeFailed"], "UpgradeFailed", False),
            (["UpgradeSuccess", "UpgradeFailed", "DeviceRejected"], "Rejected", False),
        ],
    )
    def test_of_a_device(self, said, status, is_it):
        """A report is news where it goes further, or ends a device in another way than any callback has told."""
        assert is_news(self.known(*said), status) is is_it

    @pytest.mark.parametrize(
        ("said", "status", "is_it"),
        [
            ([], "CampaignScheduled", True),
            ([None], "CampaignScheduled", True),
            (["CampaignQueued"], "CampaignRequestQueued", False),
            (["CampaignQueued"], "CampaignEnded", True),
            (["CampaignEnded"], "CampaignScheduled", False),
            (["CampaignEnded"], "CampaignAborted", True),
            (["CampaignEnded", "CampaignAborted"], "CampaignAborted", False),
            (["CampaignScheduled"], "Odd", False),
            (["Odd"], "Odder", True),
        ],
    )
    def test_of_a_campaign(self, said, status, is_it):
        """The same holds of a campaign, by its own states."""
        assert is_campaign_news(self.campaign(*said), status) is is_it

    @given(said=st.lists(updates(), max_size=6), status=st.sampled_from(DEVICE_WORDS))
    def test_what_is_news_changes_what_is_known(self, said, status):
        """News moves a device on, or contradicts its end; what no callback would have changed is none."""
        known = fold_all(said)[-1] if said else None
        at = 1_900_000_000_000_000
        after = fold_device(known, DeviceUpdate(device_id="d1", status=status), at)
        if is_news(known, status):
            words = (after.status, after.contradiction, after.last_status)
            assert normalize_device(status) in {normalize_device(word) for word in words if word}
            assert not is_news(after, status)
        else:
            assert normalize_device(after.status) == normalize_device(known.status)
