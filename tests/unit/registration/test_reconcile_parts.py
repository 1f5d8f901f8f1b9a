"""What decides in reconciling: how pages are read, which come next, what is chosen, named, kept, and how fast."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall import parse_callback
from upcall.inbox import CampaignRecord, DeviceRecord
from upcall.registration import Span
from upcall.registration.reconcile.bodies import campaign_reported, device_reported
from upcall.registration.reconcile.choosing import DAY_MICROS, choose, is_open, window_start
from upcall.registration.reconcile.comparing import (
    compare,
    compare_campaign,
    missing_devices,
    not_recoverable,
    skipped_states,
)
from upcall.registration.reconcile.pace import Pace
from upcall.registration.reconcile.pages import (
    DevicePage,
    ReportedCampaign,
    ReportedDevice,
    read_campaigns,
    read_devices,
)
from upcall.registration.reconcile.progress import RESUME_MICROS, Found, Position, goes_on, merged
from upcall.registration.reconcile.values import Contradiction, MissingReport, SilentDevice
from upcall.registration.reconcile.walking import Walk
from upcall.sandbox import messages
from upcall.sandbox.campaigns import Campaign, CampaignRequest, DeviceStatus
from upcall.thingspace import parse_time

ACCOUNT = "0000123456-00001"
NOW = parse_time("2026-11-23T12:00:00Z").micros
SINCE = NOW - DAY_MICROS
MEMBERS = {"startDate": "2026-11-20", "endDate": "2026-11-27"}


def reported(status="CampaignScheduled", **members):
    return ReportedCampaign("c", status, {"id": "c", "status": status, **MEMBERS, **members})


def told(status="CampaignScheduled", *, last_at=0, devices=None):
    """Return a campaign as callbacks tell it."""
    return CampaignRecord("c", ACCOUNT, None, status, 0, last_at, 1, devices or {})


def device(device_id="d", status="Accepted", last_at=NOW):
    """Return a device as callbacks tell it."""
    return DeviceRecord(device_id, status, None, last_at, last_at=last_at)


def page_of(*ids, more=True, last=None):
    return DevicePage(devices=tuple(ReportedDevice(name, "Accepted") for name in ids), has_more=more, last_seen=last)


# --- Pages -----------------------------------------------------------------------------------------------------------


def test_a_page_of_devices_is_read_as_it_is_documented():
    """Devices, their reasons, the total and where to go on from."""
    page = read_devices(
        {
            "totalDevice": 2,
            "hasMoreData": True,
            "lastSeenDeviceId": "2",
            "maxPageSize": 10,
            "deviceList": [
                {"deviceId": "1", "status": "Accepted", "resultReason": ""},
                {"deviceId": "2", "status": "UpgradeFailed", "resultReason": "Other"},
            ],
        }
    )
    assert page.devices == (ReportedDevice("1", "Accepted"), ReportedDevice("2", "UpgradeFailed", "Other"))
    assert (page.total, page.has_more, page.last_seen, page.unreadable) == (2, True, "2", 0)


@pytest.mark.parametrize("document", [{}, {"deviceList": None}, {"deviceList": [], "hasMoreData": None}])
def test_a_page_without_devices_is_the_last_one(document):
    """A list that is null, empty or not there holds nothing, and nothing comes after it."""
    page = read_devices(document)
    assert (page.devices, page.has_more, page.last_seen, page.unreadable) == ((), False, None, 0)


@pytest.mark.parametrize("document", [{}, {"campaignList": None}, {"campaignList": "", "hasMoreData": False}])
def test_a_page_without_campaigns_is_the_last_one(document):
    """The provider's model says that the list may be null."""
    page = read_campaigns(document)
    assert (page.campaigns, page.has_more, page.last_seen, page.unreadable) == ((), False, None, 0)


def test_numbers_stand_in_for_texts():
    """An identifier, a state or a total of the other type is read by its digits, and a truth value by its word."""
    page = read_devices(
        {
            "hasMoreData": "true",
            "lastSeenDeviceId": 990013907835573,
            "totalDevice": "12",
            "deviceList": [{"deviceId": 990013907835573, "status": 7}],
        }
    )
    assert page.devices == (ReportedDevice("990013907835573", "7"),)
    assert (page.has_more, page.last_seen, page.total) == (True, "990013907835573", 12)
    assert not read_devices({"hasMoreData": "False"}).has_more
    (campaign,) = read_campaigns({"campaignList": {"id": 12, "status": None}, "hasMoreData": 1}).campaigns
    assert (campaign.campaign_id, campaign.status) == ("12", None)


def test_what_names_nothing_is_counted():
    """An entry without a device, without a state, or of another type is left out, and its number is known."""
    entries = [{"deviceId": "1", "status": "Accepted"}, {"deviceId": "2"}, {"status": "Accepted"}, "3", None, 4]
    page = read_devices({"deviceList": entries})
    assert ([one.device_id for one in page.devices], page.unreadable) == (["1"], 5)
    assert read_campaigns({"campaignList": [{"status": "CampaignEnded"}, "c"]}).unreadable == 2


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_any_members_make_a_page(value):
    """Whatever a page's members are, it is read: an odd one holds nothing."""
    for name in ("deviceList", "campaignList", "hasMoreData", "lastSeenDeviceId", "lastSeenCampaignId", "totalDevice"):
        assert read_devices({name: value}).devices == ()
        assert read_campaigns({name: value}).campaigns == ()


# --- From page to page -----------------------------------------------------------------------------------------------


def walk_through(pages, start="0"):
    """Walk through what `pages` answers for each position, and return the positions and the walk."""
    walk, positions = Walk(start), []
    while not walk.is_over:
        positions.append(walk.position)
        walk.take(pages(walk.position, len(positions)))
    return positions, walk


def test_a_walk_goes_on_from_where_the_provider_says():
    """The provider's own last seen counts, whatever a page's size is and whatever its last entry is."""
    pages = {"0": page_of("a", "b", last="x"), "x": page_of("c", last="y"), "y": page_of(more=False)}
    positions, walk = walk_through(lambda position, _: pages[position])
    assert (positions, walk.trouble) == (["0", "x", "y"], None)


def test_without_a_last_seen_the_last_entry_stands_in():
    """A page that says that there is more and not from where is gone on from by its last device."""
    pages = {"0": page_of("a", "b"), "b": page_of("c", more=False)}
    positions, walk = walk_through(lambda position, _: pages[position])
    assert (positions, walk.trouble) == (["0", "b"], None)


def test_more_of_nothing_ends_with_the_reason():
    """An empty page that says that there is more, and not from where, is the end, and it is said."""
    positions, walk = walk_through(lambda position, _: page_of())
    assert positions == ["0"]
    assert "that there is more, and not from where" in walk.trouble


def test_a_circle_is_left():
    """A page that leads back to one that was read ends the walk, and it is said."""
    pages = {"0": page_of("a", last="x"), "x": page_of("b", last="0")}
    positions, walk = walk_through(lambda position, _: pages[position])
    assert (positions, walk.trouble) == (["0", "x"], "sends after 2 entries to a page that was read before")


def test_the_same_page_under_new_names_is_left():
    """A provider that answers with the same devices for ever, under a new place each time, is not believed."""
    positions, walk = walk_through(lambda _, number: page_of("a", "b", last=f"p{number}"))
    assert len(positions) == 4
    assert walk.trouble == "goes on after 2 entries with pages that hold nothing new"


def test_a_filtered_page_may_be_empty():
    """A page or two without anything are gone through, where the provider says from where on."""
    pages = {"0": page_of(last="1"), "1": page_of(last="2"), "2": page_of("a", more=False)}
    positions, walk = walk_through(lambda position, _: pages[position])
    assert (positions, walk.trouble) == (["0", "1", "2"], None)


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from("abcdef"), max_size=3), st.booleans(), st.sampled_from([None, "x", "y", "z"])
        ),
        min_size=1,
        max_size=20,
    )
)
def test_every_walk_ends(answers):
    """Whatever a provider answers, over and over, the walk comes to an end, and counts each device once."""
    walk, taken, rounds = Walk("0"), 0, 0
    while not walk.is_over:
        ids, more, last = answers[rounds % len(answers)]
        taken += walk.take(page_of(*ids, more=more, last=last))
        rounds += 1
        assert rounds < 100
    assert taken <= 6


# --- What is handed over ---------------------------------------------------------------------------------------------


def request():
    return CampaignRequest(
        campaign_name="a campaign",
        software_name="to",
        software_from="from",
        software_to="to",
        distribution_type="HTTP",
        start_date="2026-11-20",
        end_date="2026-11-27",
    )


@pytest.mark.parametrize("status", ["Accepted", "DeviceRejected", "UpgradePending", "UpgradeFailed", "UpgradeSuccess"])
def test_a_device_becomes_the_callback_that_would_have_told_it(status):
    """Kind, campaign, state and reason are those that the sandbox's own callback has, and nothing is drift."""
    campaign = Campaign(id="c", account=ACCOUNT, request=request(), scheduled_at=0, intake=(), steps=())
    entry = DeviceStatus("990013907835573", status, "why")
    if status in {"Accepted", "DeviceRejected"}:
        (sent,) = messages.scheduled(campaign, "CampaignScheduled", [entry])
    else:
        sent = messages.progress(campaign, "CampaignScheduled", entry)
    row = ReportedCampaign("c", "CampaignScheduled", {"id": "c", **msgspec.to_builtins(request())})
    made = device_reported(ACCOUNT, row, ReportedDevice("990013907835573", status, "why"))
    event, original = parse_callback(made.body), parse_callback(sent.body)
    assert (event.kind, event.account, event.campaign_id) == (original.kind, ACCOUNT, "c")
    assert (event.campaign_name, event.devices, event.drift) == ("a campaign", original.devices, ())
    assert (made.account, made.campaign_id, made.device_id, made.status) == (ACCOUNT, "c", "990013907835573", status)
    # The campaign's state is the campaign's own callback's to tell.
    assert event.campaign_status is None
    assert json.loads(made.body)[event.kind].keys() <= json.loads(sent.body)[event.kind].keys() | {"distributionType"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("CampaignEnded", "upgradeFinished"),
        ("CampaignAborted", "upgradeFinished"),
        ("CampaignScheduled", "upgradeScheduled"),
        ("CampaignQueued", "upgradeScheduled"),
    ],
)
def test_a_campaign_becomes_a_callback_without_devices(status, kind):
    """A final state is what a finish tells, any other what scheduling does."""
    event = parse_callback(campaign_reported(ACCOUNT, reported(status, make="m", downloadTimeWindowList=[])).body)
    assert (event.kind, event.campaign_id, event.campaign_status) == (kind, "c", status)
    assert (event.devices, event.drift) == ((), ())


def test_a_campaign_without_a_state_is_not_made_up():
    """Where the report does not say how a campaign stands, nothing is handed over."""
    assert campaign_reported(ACCOUNT, reported(None)) is None


def test_a_body_says_no_more_than_the_report():
    """Members that the report lacks are not there, unknown ones are not taken over, and no time is."""
    row = ReportedCampaign("c", None, {"id": "c", "campaignName": None, "secret": "x", "make": "m"})
    document = json.loads(device_reported(ACCOUNT, row, ReportedDevice("d", "UpgradePending")).body)
    assert document["upgradeProgress"] == {
        "id": "c",
        "make": "m",
        "deviceList": [{"deviceId": "d", "status": "UpgradePending", "resultReason": ""}],
    }


# --- What is read ----------------------------------------------------------------------------------------------------

LONG_AGO = {"startDate": "2026-10-01", "endDate": "2026-10-08"}


@pytest.mark.parametrize(
    ("row", "record"),
    [
        pytest.param(reported(), None, id="under way, never heard of"),
        pytest.param(reported(**LONG_AGO), None, id="not final, whatever its dates say"),
        pytest.param(reported(None), None, id="of no state"),
        pytest.param(reported("CampaignEnded"), None, id="ends within the window"),
        pytest.param(reported("CampaignEnded", endDate="2026-11-21"), None, id="ended just before: dates have no zone"),
        pytest.param(reported("CampaignEnded", startDate="2026-11-15", endDate="2026-11-15"), None, id="on demand"),
        pytest.param(reported("CampaignEnded", endDate=None), None, id="of no date"),
        pytest.param(reported("CampaignEnded", endDate="soon"), None, id="of a date that cannot be read"),
        pytest.param(reported("CampaignEnded", **LONG_AGO), told(), id="open as callbacks tell it"),
        pytest.param(reported("CampaignEnded", **LONG_AGO), told(None), id="of no state as callbacks tell it"),
        pytest.param(
            reported("CampaignEnded", **LONG_AGO),
            told("CampaignEnded", devices={"Accepted": 1}),
            id="with open devices",
        ),
        pytest.param(reported("CampaignEnded", **LONG_AGO), told("CampaignAborted"), id="ended otherwise"),
        pytest.param(
            reported("CampaignEnded", **LONG_AGO), told("CampaignEnded", last_at=NOW), id="heard of in the window"
        ),
    ],
)
def test_a_campaign_that_something_can_be_missing_of_is_read(row, record):
    """Whatever is doubtful is read: one too many costs a request, one too few loses a state."""
    assert choose([row], {} if record is None else {"c": record}, SINCE) == [row]


@pytest.mark.parametrize("record", [None, told("CampaignEnded", devices={"UpgradeSuccess": 3})])
def test_what_was_over_before_the_window_is_left_out(record):
    """A campaign that had ended before by its dates, by the provider's word and by ours, costs nothing."""
    known = {} if record is None else {"c": record}
    assert choose([reported("CampaignEnded", **LONG_AGO)], known, SINCE) == []


def test_the_window_begins_a_day_ago_or_with_an_older_outage():
    """Without outages it is a day; the last outage counts where it began earlier, a short one of just now does not."""
    hour = DAY_MICROS // 24
    assert window_start([], NOW) == NOW - DAY_MICROS
    assert window_start([Span(NOW - hour, NOW)], NOW) == NOW - DAY_MICROS
    assert window_start([Span(0, 1), Span(NOW - 50 * hour, NOW - 49 * hour)], NOW) == NOW - 50 * hour


def test_open_is_what_is_not_final():
    """A campaign is open while it, or any of its devices, is not final."""
    assert is_open(told())
    assert is_open(told("CampaignEnded", devices={"UpgradeSuccess": 1, "": 1}))
    assert not is_open(told("CampaignEnded", devices={"UpgradeSuccess": 1, "Accepted": 0}))


# --- What is named ---------------------------------------------------------------------------------------------------


def found_in(page, records):
    return compare("c", page, {record.device_id: record for record in records}, heard_since=SINCE)


def test_silent_is_what_is_not_final_and_not_heard_of():
    """A device that nobody ever told of, or not for long, is silent while the provider is not done with it."""
    page = DevicePage(
        devices=(
            ReportedDevice("never", "UpgradePending"),
            ReportedDevice("long ago", "UpgradePending"),
            ReportedDevice("lately", "UpgradePending"),
            ReportedDevice("done", "UpgradeSuccess"),
        )
    )
    found = found_in(page, [device("long ago", last_at=SINCE - 1), device("lately", last_at=SINCE)])
    assert found.silent == (
        SilentDevice("c", "never", "UpgradePending", None),
        SilentDevice("c", "long ago", "UpgradePending", SINCE - 1),
    )


def test_a_store_of_an_older_release_knows_when_a_device_changed():
    """Where the last word's time was not kept, the last change's stands in."""
    record = DeviceRecord("d", "Accepted", None, NOW)
    assert found_in(page_of("d"), [record]).silent == ()


def test_a_contradiction_is_a_final_state_that_the_report_does_not_say():
    """Another end contradicts, and so does a state before the end; a spelling does not, and news does not."""
    page = DevicePage(
        devices=(
            ReportedDevice("other end", "UpgradeFailed"),
            ReportedDevice("not over", "UpgradePending"),
            ReportedDevice("spelling", "UpgradedFailed"),
            ReportedDevice("news", "UpgradeSuccess"),
        )
    )
    records = [
        device("other end", "UpgradeSuccess"),
        device("not over", "UpgradeSuccess"),
        device("spelling", "UpgradeFailed"),
        device("news", "UpgradePending"),
    ]
    assert found_in(page, records).contradictions == (
        Contradiction("c", "other end", "UpgradeSuccess", "UpgradeFailed"),
        Contradiction("c", "not over", "UpgradeSuccess", "UpgradePending"),
    )
    assert compare_campaign(reported("CampaignAborted"), told("CampaignEnded")).contradictions == (
        Contradiction("c", "", "CampaignEnded", "CampaignAborted"),
    )
    assert compare_campaign(reported("CampaignEnded"), told()) == Found()
    assert compare_campaign(reported("CampaignEnded"), told("Finished")) == Found()


def test_missing_is_what_is_open_and_in_no_page():
    """A device that callbacks told of and the whole report does not hold is named, unless it is final anyway."""
    records = [device("met"), device("missing", "UpgradePending"), device("done", "UpgradeSuccess")]
    met = found_in(page_of("met", "new"), records).met
    assert met == ("met", "new")
    assert missing_devices("c", records, met) == (MissingReport("c", "missing", "UpgradePending"),)


@pytest.mark.parametrize(
    ("before", "now", "skipped"),
    [
        (None, "Accepted", []),
        (None, "DeviceRejected", []),
        (None, "UpgradePending", ["Accepted"]),
        (None, "UpgradeSuccess", ["Accepted", "UpgradePending"]),
        (device(), "UpgradeFailed", ["UpgradePending"]),
        (device(status=None), "UpgradeFailed", ["Accepted", "UpgradePending"]),
        (device(status="UpgradePending"), "UpgradeFailed", []),
        (None, "CampaignAborted", []),
        (None, "a word of tomorrow", []),
    ],
)
def test_states_in_between_are_known_by_the_lifecycle(before, now, skipped):
    """What nobody told of is what the documented way has in between; the campaign's end may come at any time."""
    assert list(skipped_states(before, now)) == skipped


def test_what_cannot_be_recovered_is_said_in_sentences():
    """Announcements of the window stand in no report, and neither do states in between."""
    announcements, states = not_recoverable(since=SINCE, until=NOW, skipped=3)
    assert "between 2026-11-22T12:00:00.000000Z and 2026-11-23T12:00:00.000000Z" in announcements
    assert states.startswith("The states in between of 3 devices:")
    assert len(not_recoverable(since=SINCE, until=NOW, skipped=0)) == 1


# --- Going on, and how fast ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("began", "since", "expected"),
    [
        (NOW, SINCE, True),
        (NOW - 1000, SINCE + 1000, True),
        (NOW - 1000, SINCE + 1001, False),
        (NOW - 1000, SINCE - 1, False),
        (NOW - RESUME_MICROS, SINCE, False),
        (NOW + 1, SINCE, False),
    ],
)
def test_a_run_is_gone_on_with_where_it_is_young_and_means_the_same(began, since, expected):
    """The same time, or the same so long ago, within six hours; else it begins anew."""
    assert goes_on(Position(begun_at=began, since=SINCE), since=since, now=NOW) is expected


def test_a_page_that_is_read_twice_is_found_once():
    """What the first reading found stays: by then, what it handed over is no longer silent."""
    silent = (SilentDevice("c", "d", "UpgradePending", None),)
    first = Found(devices=2, met=("d", "e"), silent=silent)
    second = Found(devices=2, met=("d", "f"), unreadable=1)
    assert merged(first, second) == Found(devices=2, met=("d", "e", "f"), silent=silent, unreadable=1)
    assert merged(first, first) == first


def test_requests_keep_their_distance():
    """At five a second each request waits until 0.2 s after the one before, and none makes up for a pause."""
    clock, sent = [0.0], []

    def sleep(seconds):
        clock[0] += seconds

    pace = Pace(5, monotonic=lambda: clock[0], sleep=sleep)
    for pause in (0, 0, 0.05, 3.0, 0, 0):
        clock[0] += pause
        pace.wait()
        sent.append(round(clock[0], 6))
    assert sent == [0.0, 0.2, 0.4, 3.4, 3.6, 3.8]


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_a_rate_is_a_number_above_zero(rate):
    """A rate that means nothing is refused before anything is sent."""
    with pytest.raises(ValueError, match="requests_per_second"):
        Pace(rate, monotonic=float, sleep=float)
