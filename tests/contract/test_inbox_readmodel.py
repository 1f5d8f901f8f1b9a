"""What every inbox makes of its callbacks: campaigns, devices, guesses at duplicates, drift."""

from __future__ import annotations

import json

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from upcall.inbox import EVERYTHING, Selection, Trust
from upcall.testing import callback

per_example_store = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])

WORDS = ("Accepted", "UpgradePending", "UpgradeFailed", "UpgradeSuccess", "Odd word", "NoDeviceDataFromNetwork")
REPORTS = st.builds(
    callback,
    st.sampled_from(["upgradeScheduled", "upgradeProgress", "upgradeFinished"]),
    campaign_id=st.sampled_from(["c1", "c2"]),
    account=st.sampled_from(["0000000001-00001", "0000000002-00001"]),
    status=st.sampled_from(["CampaignQueued", "CampaignScheduled", "CampaignEnded", "Odd"]),
    devices=st.dictionaries(st.sampled_from(["d1", "d2", "d3"]), st.sampled_from(WORDS)),
)


class TestReadModel:
    def state_of(self, inbox):
        return (
            [(r.id, r.kind, r.account, r.campaign_id, r.key, r.duplicate, r.duplicate_of) for r in inbox.callbacks()],
            inbox.campaigns(),
            [inbox.campaign(campaign_id) for campaign_id in ("c1", "c2")],
        )

    @per_example_store
    @given(
        steps=st.lists(
            st.one_of(st.binary(max_size=8), REPORTS, st.integers(1, 3)), max_size=20
        )
    )  # fmt: skip
    def test_any_interleaving_of_append_and_project_gives_the_fresh_fold(self, store, make, steps):
        """Whoever brings the read model forward, whenever and from wherever, it ends as one fold of all callbacks."""
        with store.fresh() as gradual, store.fresh() as fresh:
            inboxes = [gradual.open(), gradual.open()]
            at_once = fresh.open()
            for number, step in enumerate(steps):
                if isinstance(step, int):
                    inboxes[number % 2].project(limit=step)
                    continue
                trust = Trust.QUARANTINED if step[:1] == b"q" else Trust.ACCEPTED
                arrival = make.arrival(step, at=make.now + number * 7 * make.minute, trust=trust)
                inboxes[0].append([arrival])
                at_once.append([arrival])
            make.read_up(inboxes[1])
            make.read_up(at_once)
            assert self.state_of(inboxes[0]) == self.state_of(at_once)

    def test_projecting_says_how_far_it_came(self, inbox, make):
        """A step takes no more callbacks than it was allowed, and says 0 when the read model is up to date."""
        inbox.append(make.arrivals(5))
        assert [inbox.project(limit=2) for _ in range(4)] == [2, 2, 1, 0]

    def test_projecting_ends_where_it_is_told(self, inbox, make):
        """Who names the newest callback comes to an end there, whatever comes after it."""
        inbox.append(make.arrivals(5))
        assert [inbox.project(limit=2, upto=3) for _ in range(3)] == [2, 1, 0]
        assert [record.kind is not None for record in inbox.callbacks()] == [True] * 3 + [False] * 2
        assert [inbox.project(upto=2), inbox.project(upto=0), inbox.project(upto=9)] == [0, 0, 2]

    def test_what_is_released_behind_the_end_waits_for_it(self, inbox, make):
        """A release is folded in once its callback is, and not before; nor is one that was released after it."""
        reports = [make.arrival(callback(campaign_id=name), trust=Trust.QUARANTINED) for name in ("c1", "c2")]
        inbox.append([*make.arrivals(1), *reports])
        for number in (3, 2):
            inbox.release_quarantined(Selection(ids=(number,)), make.now)
        inbox.project(upto=2)
        assert (inbox.project(upto=2), inbox.campaigns()) == (0, [])
        assert inbox.project() > 0
        assert inbox.project() == 0
        assert {campaign.campaign_id for campaign in inbox.campaigns()} == {"c1", "c2"}

    def test_a_campaign_as_its_callbacks_tell_it(self, inbox, make):
        """A campaign shows its newest status, its span, and each device's own status in the provider's words."""
        inbox.append(
            [
                make.report(
                    campaign_id="c1", kind="upgradeScheduled", status="CampaignScheduled", devices={"d1": "Accepted"}
                ),
                make.report(
                    at=make.now + 9,
                    campaign_id="c1",
                    kind="upgradeFinished",
                    status="CampaignEnded",
                    devices={"d1": "UpgradeSuccess", "d2": "UpgradedFailed"},
                ),
            ]
        )
        make.read_up(inbox)
        (campaign,) = inbox.campaigns()
        assert (campaign.campaign_id, campaign.status, campaign.callbacks) == ("c1", "CampaignEnded", 2)
        assert (campaign.first_at, campaign.last_at) == (make.now, make.now + 9)
        assert campaign.devices == {"UpgradeSuccess": 1, "UpgradedFailed": 1}
        assert inbox.campaign("c1")[0] == campaign
        assert [(d.device_id, d.status) for d in inbox.campaign("c1")[1]] == [
            ("d1", "UpgradeSuccess"),
            ("d2", "UpgradedFailed"),
        ]

    def test_campaigns_come_in_the_order_of_their_last_word(self, inbox, make):
        """The campaign last heard of stands last, and a limit keeps the newest."""
        for minute, campaign_id in enumerate(["c1", "c2", "c3", "c1"]):
            inbox.append(
                [make.report(at=make.now + minute * make.minute, campaign_id=campaign_id, status=f"S{minute}")]
            )
        make.read_up(inbox)
        assert [campaign.campaign_id for campaign in inbox.campaigns()] == ["c2", "c3", "c1"]
        assert [campaign.campaign_id for campaign in inbox.campaigns(limit=1)] == ["c1"]

    def test_quarantined_callbacks_say_nothing_of_campaigns(self, inbox, make):
        """What is in quarantine is listed with what it says, and changes no campaign."""
        arrival = make.report(campaign_id="c1", devices={"d1": "UpgradeSuccess"})
        inbox.append([msgspec.structs.replace(arrival, trust=Trust.QUARANTINED, evidence="names another account")])
        make.read_up(inbox)
        assert inbox.campaigns() == []
        assert inbox.callbacks()[0].campaign_id == "c1"

    def test_guesses_at_duplicates_name_what_they_repeat(self, inbox, make):
        """The same said again in other bytes is a redelivery soon after and a repeat later, and drops no work."""
        said = callback(campaign_id="c1", devices={"d1": "UpgradeFailed"})
        spaced = said.replace(b", ", b",  ")
        inbox.append([make.arrival(said), make.arrival(spaced, at=make.now + make.minute)])
        inbox.append([make.arrival(said, at=make.now + 20 * make.day), make.report(campaign_id="c2")])
        make.read_up(inbox)
        assert [(r.duplicate, r.duplicate_of) for r in inbox.callbacks()] == [
            ("first", None),
            ("redelivery", 1),
            ("repeat", 2),
            ("first", None),
        ]
        make.enrolled(inbox)
        assert len(make.take(inbox)) == 4


class TestDevices:
    def history(self, inbox, make, *words, device_id="d1"):
        for number, word in enumerate(words):
            report = make.report(
                at=make.now + number * make.minute, campaign_id="c1", status=f"S{number}", devices={device_id: word}
            )
            inbox.append([report])
        make.read_up(inbox)
        return {device.device_id: device for device in inbox.campaign("c1")[1]}[device_id]

    def test_first_and_last_words_are_kept_beside_the_state(self, inbox, make):
        """A device shows when it was first and last named and with which words, whatever state it stands in."""
        device = self.history(inbox, make, "Accepted", "UpgradeSuccess", "UpgradePending")
        assert (device.status, device.first_status, device.last_status) == (
            "UpgradeSuccess",
            "Accepted",
            "UpgradePending",
        )
        assert (device.first_at, device.last_at) == (make.now, make.now + 2 * make.minute)

    def test_a_device_named_once_has_its_first_word_for_its_last(self, inbox, make):
        """The only word about a device is its first and its last."""
        device = self.history(inbox, make, "Accepted")
        assert (device.first_status, device.last_status, device.first_at, device.last_at) == (
            "Accepted", "Accepted", make.now, make.now,
        )  # fmt: skip

    def test_a_final_state_never_moves_back(self, inbox, make):
        """A late message about an earlier state changes no final state, and is no contradiction."""
        device = self.history(inbox, make, "UpgradeFailed", "UpgradePending", "Accepted")
        assert (device.status, device.contradiction, device.updated_at) == ("UpgradeFailed", None, make.now)

    def test_a_second_final_word_is_kept_beside_the_first(self, inbox, make):
        """Two final words that do not agree are both there: the first stands, the other is its contradiction."""
        device = self.history(inbox, make, "UpgradeSuccess", "UpgradeFailed")
        assert (device.status, device.contradiction) == ("UpgradeSuccess", "UpgradeFailed")
        assert [campaign.contradicting for campaign in inbox.campaigns()] == [1]

    def test_the_same_final_word_again_contradicts_nothing(self, inbox, make):
        """The same said again, in either spelling, is no contradiction."""
        device = self.history(inbox, make, "UpgradeFailed", "UpgradeFailed")
        assert device.contradiction is None

    def test_devices_are_each_campaigns_own(self, inbox, make):
        """What one campaign says of a device is nothing that another says of it."""
        inbox.append([make.report(campaign_id="c1", devices={"d1": "UpgradeSuccess"})])
        inbox.append([make.report(campaign_id="c2", devices={"d1": "Accepted"})])
        make.read_up(inbox)
        assert [inbox.campaign(name)[1][0].status for name in ("c1", "c2")] == ["UpgradeSuccess", "Accepted"]

    @per_example_store
    @given(order=st.permutations([0, 0, 1, 2, 3, 3]))
    def test_any_order_and_repetition_ends_in_the_same_states(self, store, make, order):
        """However the callbacks of a campaign are shuffled and repeated, its devices end where they end in order."""
        words = ["Accepted", "UpgradePending", "UpgradePending", "UpgradeSuccess"]
        with store.fresh() as fresh:
            inbox = fresh.open()
            for place, number in enumerate(order):
                inbox.append(
                    [
                        make.report(
                            at=make.now + place * make.day,
                            campaign_id="c1",
                            status=f"S{number}",
                            devices={"d1": words[number]},
                        )
                    ]
                )
                inbox.project(limit=1)
            (device,) = inbox.campaign("c1")[1]
            assert (device.status, device.contradiction) == ("UpgradeSuccess", None)
            assert (device.first_at, device.last_at) == (make.now, make.now + 5 * make.day)


class TestCampaigns:
    def test_a_final_status_never_moves_back(self, inbox, make):
        """A late message about a campaign that has ended leaves it ended, and is no contradiction."""
        inbox.append(
            [make.report(campaign_id="c1", status=status) for status in ("CampaignEnded", "CampaignScheduled")]
        )
        make.read_up(inbox)
        (campaign,) = inbox.campaigns()
        assert (campaign.status, campaign.contradiction, campaign.callbacks) == ("CampaignEnded", None, 2)

    def test_a_second_final_word_is_kept_beside_the_first(self, inbox, make):
        """Two final words that do not agree are both there: the first stands, the other is its contradiction."""
        inbox.append(
            [make.report(campaign_id="c1", status=status) for status in ("CampaignEnded", "CampaignCancelled")]
        )
        make.read_up(inbox)
        (campaign,) = inbox.campaigns()
        assert (campaign.status, campaign.contradiction) == ("CampaignEnded", "CampaignCancelled")

    def test_two_accounts_campaigns_of_one_name_are_two(self, inbox, make):
        """The account tells campaigns of one name apart, the message's own or else the token's."""
        inbox.append([make.report(campaign_id="c1", account="0000000001-00001")])
        body = json.dumps({"type": "upgradeProgress", "upgradeProgress": {"id": "c1"}}).encode()
        inbox.append([make.arrival(body, at=make.now + 1, account="0000000002-00001")])
        make.read_up(inbox)
        assert [(campaign.campaign_id, campaign.account) for campaign in inbox.campaigns()] == [
            ("c1", "0000000001-00001"),
            ("c1", "0000000002-00001"),
        ]


class TestDrift:
    def test_each_way_of_drifting_is_counted_with_its_first_and_last(self, inbox, make):
        """How often something unexpected was seen, and in which callbacks first and last, most recent last."""
        odd, other = b'{"type":"upgradeProgress","novel":%d}', b'{"type":"upgradeProgress","stranger":1}'
        inbox.append(
            [make.arrival(odd % 1), make.arrival(other, at=make.now + 1), make.arrival(odd % 2, at=make.now + 2)]
        )
        inbox.append([make.report(at=make.now + 3)])
        make.read_up(inbox)
        told = [
            (row.callbacks, row.first_id, row.first_at - make.now, row.last_id, row.last_at - make.now)
            for row in inbox.drift()
        ]
        assert told == [(1, 2, 1, 2, 1), (2, 1, 0, 3, 2)]
        assert ["stranger" in inbox.drift()[0].text, "novel" in inbox.drift()[1].text] == [True, True]

    def test_what_is_known_is_no_drift(self, inbox, make):
        """Callbacks in the known shape leave nothing to report."""
        inbox.append([make.report(devices={"d1": "Accepted"})])
        make.read_up(inbox)
        assert inbox.drift() == []

    def test_copies_and_reading_again_count_once(self, inbox, make):
        """A callback counts once however often it was delivered and the read model was brought forward."""
        inbox.append([make.arrival(b'{"type":"upgradeProgress","novel":1}')] * 3)
        for _ in range(3):
            make.read_up(inbox)
        assert [row.callbacks for row in inbox.drift()] == [1]

    def test_a_released_callbacks_drift_counts_once(self, inbox, make):
        """Neither quarantine nor release counts what a callback taught twice."""
        inbox.append([make.arrival(b'{"type":"upgradeProgress","novel":1}', trust=Trust.QUARANTINED)])
        make.read_up(inbox)
        inbox.release_quarantined(EVERYTHING, make.now)
        make.read_up(inbox)
        assert [row.callbacks for row in inbox.drift()] == [1]
