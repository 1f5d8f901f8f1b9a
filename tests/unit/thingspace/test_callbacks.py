"""What `parse_callback` makes of messages in the known shapes, and of those that differ from them."""

import copy
import json
import pickle

import pytest

from upcall.thingspace import CALLBACK_KINDS, CallbackEvent, DeviceUpdate, normalize_kind, parse_callback

ACCOUNT = "0000123456-00001"

V1_NEW_FIRMWARE = {
    "accountName": ACCOUNT,
    "participantName": "p",
    "type": "firmwareList",
    "username": "user",
    "password": "hunter2",
    "firmwareList": [
        {
            "firmwareName": "FOTA_Verizon_Model-A_00-To-01_HF",
            "participantName": "p",
            "launchDate": "2020-08-31",
            "releaseNote": "fixes",
            "model": "Model-A",
            "make": "Verizon",
            "fromVersion": "FOTA_00",
            "toVersion": "FOTA_01",
        }
    ],
    "upgradeScheduled": {},
    "upgradeProgress": {},
    "upgradeFinished": None,
}

V2_NEW_SOFTWARE = {
    "accountName": ACCOUNT,
    "type": "firmwareList",
    "softwareList": [
        {
            "softwareName": "FOTA_Verizon_Model-A_02To03_HF",
            "launchDate": "2020-08-31",
            "releaseNote": "",
            "model": "Model-A",
            "make": "Verizon",
            "distributionType": "HTTP",
            "devicePlatformId": "IoT",
        }
    ],
}

V2_PROGRESS = {
    "accountName": ACCOUNT,
    "type": "upgradeProgress",
    "firmwareList": [],
    "upgradeScheduled": {},
    "upgradeProgress": {
        "id": "17ac9ff4-cb4d-4b47-a0e8-e7a1b2bfd3b4",
        "campaignName": "Smart FOTA - test 4",
        "softwareName": "FOTA_Verizon_Model-A_02To03_HF",
        "softwareFrom": "FOTA_02",
        "softwareTo": "FOTA_03",
        "distributionType": "HTTP",
        "make": "Verizon",
        "model": "Model-A",
        "startDate": "2020-08-21",
        "endDate": "2020-08-22",
        "downloadAfterDate": "2020-08-21",
        "downloadTimeWindowList": [{"startTime": 3, "endTime": 4}],
        "installAfterDate": "2020-08-21",
        "installTimeWindowList": [{"startTime": 5, "endTime": 6}],
        "status": "CampaignScheduled",
        "deviceList": [
            {"deviceId": "990013907835573", "status": "UpgradeSuccess", "resultReason": "DownloadInstallSucceeded"},
            {"deviceId": "990013907884259", "status": "UpgradeFailed", "resultReason": "Uknown device error."},
        ],
    },
    "upgradeFinished": {},
}


def parse(message: object, **changes: object) -> CallbackEvent:
    if changes:
        assert isinstance(message, dict)
        message = message | changes
    return parse_callback(json.dumps(message))


def in_progress(**members: object) -> CallbackEvent:
    return parse({"accountName": ACCOUNT, "type": "upgradeProgress", "upgradeProgress": members})


def test_v1_announcement_reads_without_drift():
    """The documented V1 message is understood in full, its empty elements and its credentials included."""
    event = parse(V1_NEW_FIRMWARE)
    assert (event.kind, event.account, event.drift, event.extra) == ("firmwareList", ACCOUNT, (), {})
    (software,) = event.software
    assert (software.name, software.make, software.model) == ("FOTA_Verizon_Model-A_00-To-01_HF", "Verizon", "Model-A")
    assert (software.from_version, software.to_version, software.launch_date) == ("FOTA_00", "FOTA_01", "2020-08-31")
    assert (software.release_note, software.extra) == ("fixes", {"participantName": "p"})


def test_v2_announcement_reads_without_drift():
    """The reconstructed V2 announcement is understood, and what has no field is kept beside the software."""
    event = parse(V2_NEW_SOFTWARE)
    assert (event.kind, event.drift) == ("firmwareList", ())
    assert event.software[0].name == "FOTA_Verizon_Model-A_02To03_HF"
    assert event.software[0].extra == {"distributionType": "HTTP", "devicePlatformId": "IoT"}


def test_v2_progress_reads_without_drift():
    """The reconstructed V2 message gives campaign, status and devices, and nothing in it is called drift."""
    event = parse(V2_PROGRESS)
    assert (event.drift, event.extra, event.software) == ((), {}, ())
    assert event.campaign_id == "17ac9ff4-cb4d-4b47-a0e8-e7a1b2bfd3b4"
    assert (event.campaign_name, event.campaign_status) == ("Smart FOTA - test 4", "CampaignScheduled")
    assert event.devices == (
        DeviceUpdate(device_id="990013907835573", status="UpgradeSuccess", reason="DownloadInstallSucceeded"),
        DeviceUpdate(device_id="990013907884259", status="UpgradeFailed", reason="Uknown device error."),
    )


@pytest.mark.parametrize("kind", CALLBACK_KINDS)
def test_kind_ignores_case(kind):
    """The case of a type's value is not known, so any case names the same kind."""
    assert {normalize_kind(kind.upper()), normalize_kind(kind.lower()), normalize_kind(kind)} == {kind}
    assert parse({"type": f" {kind.swapcase()} "}).kind == kind


def test_older_spellings_of_a_new_firmware():
    """`notificationType: newFirmware`, seen with an early client, is the same announcement."""
    event = parse({"accountName": ACCOUNT, "notificationType": "newFirmware", "firmwareList": [{"firmwareName": "F"}]})
    assert (event.kind, event.software[0].name, event.drift) == ("firmwareList", "F", ())


@pytest.mark.parametrize("kind", CALLBACK_KINDS[1:])
def test_kind_is_read_from_the_filled_element(kind):
    """A message that names no type is of the kind whose element is filled."""
    elements = {name: {} for name in CALLBACK_KINDS[1:]} | {kind: {"upgradeId": "c"}}
    event = parse({"accountName": ACCOUNT, "firmwareList": [], **elements})
    assert (event.kind, event.campaign_id, event.drift) == (kind, "c", ())


def test_unknown_kind_is_kept_and_reported():
    """A type that nobody documented stays text, its own element is read, and drift says so."""
    event = parse({"type": "upgradeRolledBack", "upgradeRolledBack": {"campaignId": "c", "deviceIds": ["1"]}})
    assert (event.kind, event.campaign_id, event.devices[0].device_id) == ("upgradeRolledBack", "c", "1")
    assert event.drift == ("$.type: unknown kind 'upgradeRolledBack'",)


def test_missing_kind_is_reported():
    """A message without a type and without a filled element has no kind, which is drift and no error."""
    event = parse({"accountName": ACCOUNT})
    assert (event.kind, event.account, event.drift) == (None, ACCOUNT, ("$.type: missing",))


@pytest.mark.parametrize("none", [None, "", "  ", [], {}])
@pytest.mark.parametrize("name", ["accountName", "upgradeScheduled", "upgradeFinished", "firmwareList", "surprise"])
def test_every_kind_of_nothing_reads_alike(name, none):
    """null, blank text, [], {} and absent say the same."""
    without = {key: value for key, value in V2_PROGRESS.items() if key != name}
    expected, event = parse(without), parse(without, **{name: none})
    assert (event.account, event.devices, event.drift, event.extra, event.key) == (
        expected.account,
        expected.devices,
        expected.drift,
        expected.extra,
        expected.key,
    )


@pytest.mark.parametrize("none", [None, "", [], {}])
@pytest.mark.parametrize("name", ["id", "status", "deviceList", "campaignName", "updatedTime", "surprise"])
def test_every_kind_of_nothing_reads_alike_in_an_element(name, none):
    """Within an element too, null, "", [], {} and absent say the same."""
    element = {key: value for key, value in V2_PROGRESS["upgradeProgress"].items() if key != name}
    expected, event = in_progress(**element), in_progress(**element, **{name: none})
    assert (event.campaign_id, event.campaign_status, event.devices) == (
        expected.campaign_id,
        expected.campaign_status,
        expected.devices,
    )
    assert (event.drift, event.extra) == ((), {})


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ({"campaignId": "1", "upgradeId": "2", "id": "3"}, "1"),
        ({"upgradeId": "2", "id": "3"}, "2"),
        ({"id": "3"}, "3"),
        ({"campaignId": None, "upgradeId": "", "id": 3}, "3"),
        ({"id": "x", "campaignId": "1"}, "1"),
    ],
)
def test_campaign_id_keys_are_read_in_order(ids, expected):
    """The order is campaignId, upgradeId, id; an id that was not read is not lost."""
    event = in_progress(**ids)
    assert event.campaign_id == expected
    others = [str(value) for value in ids.values() if value and str(value) != expected]
    assert sorted(event.extra.values()) == sorted(others)
    assert len(event.drift) == len(others)


def test_devices_at_the_top_level():
    """A flat message has its campaign and its devices beside the type."""
    flat = {key: value for key, value in V2_PROGRESS.items() if not isinstance(value, dict)}
    event, nested = parse(flat | V2_PROGRESS["upgradeProgress"]), parse(V2_PROGRESS)
    assert (event.campaign_id, event.devices, event.drift, event.extra) == (nested.campaign_id, nested.devices, (), {})
    assert event.key == nested.key


def test_devices_beside_an_element():
    """A list of devices beside the element that names the campaign belongs to it."""
    event = parse(
        {
            "accountName": ACCOUNT,
            "type": "upgradeProgress",
            "upgradeProgress": {"status": "CampaignScheduled"},
            "campaignId": "c",
            "deviceList": [{"deviceId": "1", "status": "Accepted"}],
        }
    )
    assert (event.campaign_id, event.campaign_status) == ("c", "CampaignScheduled")
    assert ([device.device_id for device in event.devices], event.drift, event.extra) == (["1"], (), {})


def test_id_beside_an_element_is_not_taken_for_a_campaign():
    """Next to a filled element `id` may be the message's own, so it is kept aside and reported."""
    event = parse({"type": "upgradeProgress", "id": "m", "upgradeProgress": {"status": "CampaignEnded"}})
    assert (event.campaign_id, event.extra, event.drift) == (None, {"id": "m"}, ("$.id: beside an element",))


@pytest.mark.parametrize("nested", [True, False])
def test_one_flat_device(nested):
    """A message about one device without a list: the status is the device's, not the campaign's."""
    members = {"upgradeId": "c", "deviceId": "990013907835573", "status": "UpgradeFailed", "resultReason": "Other"}
    event = in_progress(**members) if nested else parse({"type": "upgradeProgress", **members})
    assert (event.campaign_id, event.campaign_status) == ("c", None)
    assert event.devices == (DeviceUpdate(device_id="990013907835573", status="UpgradeFailed", reason="Other"),)
    assert (event.drift, event.extra) == ((), {})


def test_flat_device_beside_a_campaign():
    """A device in the envelope has its own status, and the element keeps the campaign's."""
    event = parse(
        {
            "type": "upgradeProgress",
            "deviceId": "1",
            "status": "UpgradeSuccess",
            "upgradeProgress": {"id": "c", "status": "CampaignScheduled"},
        }
    )
    assert (event.devices[0].state, event.campaign_status, event.drift) == ("UpgradeSuccess", "CampaignScheduled", ())


@pytest.mark.parametrize("key", ["deviceList", "devices", "deviceIds", "deviceId", "imei"])
def test_bare_device_ids(key):
    """A list may hold the ids alone, as texts or as numbers, under any of the names seen in the API."""
    event = in_progress(upgradeId="c", **{key: ["990013907835573", 990013907884259, " ", None]})
    assert [device.device_id for device in event.devices] == ["990013907835573", "990013907884259"]
    assert (event.drift, event.extra) == ((), {})


def test_long_ids_survive_as_numbers():
    """An ICCID of 20 digits that comes as a number is not rounded."""
    assert in_progress(deviceIds=[89148000001234567890]).devices[0].device_id == "89148000001234567890"


def test_second_list_of_devices_is_kept():
    """Only one list is read; another one, or another single device, is kept and reported."""
    event = in_progress(deviceList=[{"deviceId": "1"}], deviceIds=["1", "2"], imei="3")
    assert [device.device_id for device in event.devices] == ["1"]
    assert event.extra == {"$.upgradeProgress.deviceIds": ["1", "2"], "$.upgradeProgress.imei": "3"}
    assert len(event.drift) == 2


def test_device_object_in_place_of_a_list():
    """A single object where a list of devices is expected is a list of one."""
    assert in_progress(deviceList={"deviceId": "1"}).devices == (DeviceUpdate(device_id="1"),)


def test_device_without_an_id_is_kept():
    """A device entry that names no device is kept whole under its path."""
    event = in_progress(deviceList=[{"deviceId": "1"}, {"status": "Accepted"}, True])
    assert len(event.devices) == 1
    assert event.extra == {
        "$.upgradeProgress.deviceList[1]": {"status": "Accepted"},
        "$.upgradeProgress.deviceList[2]": True,
    }
    assert event.drift == (
        "$.upgradeProgress.deviceList[1]: no device id",
        "$.upgradeProgress.deviceList[2]: no device id",
    )


def test_unknown_device_members_and_statuses():
    """An unknown member stays with its device, an unknown status stays its status, and drift names both."""
    event = in_progress(deviceList=[{"deviceId": "1", "status": "Melted", "iccid": "8", "nextAttemptTime": "soon"}])
    (device,) = event.devices
    assert (device.status, device.state, device.extra) == (
        "Melted",
        "Melted",
        {"iccid": "8", "nextAttemptTime": "soon"},
    )
    assert sorted(event.drift) == [
        "$.upgradeProgress.deviceList[0].iccid: unknown member",
        "$.upgradeProgress.deviceList[0].status: unknown status 'Melted'",
    ]


def test_unknown_campaign_status():
    """A campaign status that nobody documented is kept as it is and reported."""
    event = in_progress(id="c", status="CampaignPaused")
    assert event.campaign_status == "CampaignPaused"
    assert event.drift == ("$.upgradeProgress.status: unknown status 'CampaignPaused'",)


def test_unknown_members_are_kept_by_their_path():
    """What the parser cannot place is neither lost nor an error."""
    event = parse(V2_PROGRESS, requestId="r", upgradeProgress={"id": "c", "wave": 2, "reason": "why"})
    assert event.extra == {"requestId": "r", "$.upgradeProgress.wave": 2, "$.upgradeProgress.reason": "why"}
    assert set(event.drift) == {
        "$.requestId: unknown member",
        "$.upgradeProgress.wave: unknown member",
        "$.upgradeProgress.reason: unknown member",
    }


@pytest.mark.parametrize("wrong", [{"a": 1}, ["a", "b"], True])
@pytest.mark.parametrize("name", ["type", "accountName", "campaignId", "status", "campaignName", "updatedTime"])
def test_known_member_of_a_wrong_type_is_kept(name, wrong):
    """A known member that is no text is kept and reported rather than silently dropped."""
    event = parse({"type": "upgradeProgress", "deviceIds": ["1"], name: wrong})
    assert event.extra == {name: wrong}
    assert any(line.startswith(f"$.{name}: ") for line in event.drift)


@pytest.mark.parametrize("entry", [{"status": ["x"]}, {"resultReason": {"a": 1}}, {"updateTime": False}])
def test_known_device_member_of_a_wrong_type_is_kept(entry):
    """The same holds within a device, whose id is still read."""
    event = in_progress(deviceList=[{"deviceId": "1"} | entry])
    ((name, value),) = entry.items()
    assert event.devices == (DeviceUpdate(device_id="1"),)
    assert event.extra == {f"$.upgradeProgress.deviceList[0].{name}": value}


@pytest.mark.parametrize("wrapped", [False, True])
def test_element_as_a_list_of_one(wrapped):
    """An element that is a list of one object is that object."""
    element = V2_PROGRESS["upgradeProgress"]
    event = parse(V2_PROGRESS, upgradeProgress=[element] if wrapped else element)
    assert (event.devices, event.drift) == (parse(V2_PROGRESS).devices, ())


def test_element_as_a_list_of_many():
    """An element with several campaigns is kept whole, because an event speaks of one."""
    many = [{"id": "a"}, {"id": "b"}]
    event = parse({"type": "upgradeProgress", "upgradeProgress": many})
    assert (event.campaign_id, event.extra) == (None, {"upgradeProgress": many})
    assert event.drift == ("$.upgradeProgress: an array in place of an object",)


def test_two_filled_elements():
    """The element that the type names is read, and another filled one is kept."""
    event = parse({"type": "upgradeFinished", "upgradeProgress": {"id": "a"}, "upgradeFinished": {"id": "b"}})
    assert (event.campaign_id, event.extra) == ("b", {"upgradeProgress": {"id": "a"}})
    assert event.drift == ("$.upgradeProgress: filled beside $.upgradeFinished",)


def test_element_of_another_kind():
    """Where only another element than the type's is filled, it is read and the difference reported."""
    event = parse({"type": "upgradeFinished", "upgradeProgress": {"id": "a"}})
    assert (event.kind, event.campaign_id) == ("upgradeFinished", "a")
    assert event.drift == ("$.upgradeProgress: filled in a message of type upgradeFinished",)


def test_account_that_contradicts_itself():
    """The envelope's account is the message's; another one in the element is kept and reported."""
    event = in_progress(id="c", accountName="9999999999-00001")
    assert (event.account, event.extra) == (ACCOUNT, {"$.upgradeProgress.accountName": "9999999999-00001"})
    assert len(event.drift) == 1


@pytest.mark.parametrize("key", ["accountName", "account", "aname"])
def test_account_keys(key):
    """The account is read under each of the names that the API gives it, without surrounding blanks."""
    assert parse({"type": "firmwareList", key: f" {ACCOUNT}\n"}).account == ACCOUNT
    assert parse({"upgradeProgress": {"id": "c", "accountName": ACCOUNT}}).account == ACCOUNT


def test_times_are_read_and_odd_ones_reported():
    """A time is read where one is given; one in no known format is kept as text and reported."""
    event = in_progress(id="c", updatedTime="2021-06-03 00:03:56.079 +0000 UTC", deviceList=[])
    assert event.time is not None
    assert (event.time.micros, event.time.zone_assumed, event.drift) == (1622678636079000, False, ())
    odd = in_progress(id="c", deviceList=[{"deviceId": "1", "updateTime": "yesterday"}])
    assert odd.devices[0].time is not None
    assert (odd.devices[0].time.text, odd.devices[0].time.micros) == ("yesterday", None)
    assert odd.drift == ("$.upgradeProgress.deviceList[0].updateTime: a time in no known format",)


def test_drift_is_bounded_and_shows_no_device():
    """Drift is meant to be shared: a bounded number of short lines, without the digits that identify a device."""
    devices = [{"deviceId": str(n), "status": f"IMEI 99001390783557{n} {'x' * 100}"} for n in range(500)]
    event = in_progress(deviceList=[*devices, {"990013907835573": "Accepted"}])
    assert len(event.drift) == 32
    assert max(map(len, event.drift)) < 160
    lines = "".join(in_progress(**{"990013907835573\x1b[2J": "Accepted", "k" * 9000: 1}).drift)
    assert "99001390" not in lines + "".join(event.drift)
    assert lines.isprintable()
    assert len(lines) < 250


@pytest.mark.parametrize(
    "message",
    [
        V1_NEW_FIRMWARE,
        {"Password": "hunter2"},
        {"upgradeProgress": {"id": "c", "password": "hunter2", "inner": [{"PASSWORD": "hunter2", "kept": 1}]}},
        {
            "deviceList": [
                {"deviceId": "1", "password": "hunter2", "more": {"password": "hunter2"}},
                {"password": "hunter2"},
            ]
        },
        {"firmwareList": [{"firmwareName": "F", "password": "hunter2"}, [{"password": "hunter2"}]]},
        {"type": "password", "password": {"id": "hunter2", "hunter2": "hunter2"}},
        {"type": "Password", "Password": {"id": "hunter2", "hunter2": "hunter2"}},
        [{"password": "hunter2"}],
    ],
)
def test_passwords_stay_in_the_raw_body_alone(message):
    """A password is in no part of an event but its raw body, and not in what prints an event."""
    event = parse(message)
    seen = (event.extra, event.drift, event.devices, event.software, event.account, event.campaign_id)
    assert "hunter2" not in f"{seen!r} {event!r} {event} {event.__rich_repr__()}"
    assert b"hunter2" in event.raw


def test_repr_is_one_short_line():
    """Printing an event shows what it is about, not its body nor its devices."""
    shown = repr(parse(V2_PROGRESS))
    assert len(shown) < 300
    assert "upgradeProgress" in shown
    assert "devices=2" in shown
    assert "990013907" not in shown


def test_event_survives_pickle_and_copy():
    """An event can be handed to another process."""
    event = parse(V2_PROGRESS, surprise={"a": [1]})
    assert pickle.loads(pickle.dumps(event)) == event
    assert copy.deepcopy(event) == event


def test_key_is_the_same_for_what_says_the_same():
    """Spelling, order of members and empty elements do not change the key; what is said of a device does."""
    base = parse(V2_PROGRESS)
    assert parse(dict(reversed(V2_PROGRESS.items())), type="UPGRADEPROGRESS", upgradeScheduled=None).key == base.key
    assert base.raw != parse(V2_PROGRESS, type="UPGRADEPROGRESS").raw
    changed = copy.deepcopy(V2_PROGRESS)
    changed["upgradeProgress"]["deviceList"][0]["status"] = "UpgradeFailed"
    assert parse(changed).key != base.key


def test_key_tells_announcements_for_two_models_apart():
    """Two announcements that differ in the model alone are two."""
    other = copy.deepcopy(V2_NEW_SOFTWARE)
    other["softwareList"][0]["model"] = "Model-B"
    assert parse(V2_NEW_SOFTWARE).key != parse(other).key


def test_key_of_what_says_nothing_known_is_of_its_bytes():
    """Messages without campaign, device or software are told apart by their bytes."""
    assert parse({"type": "firmwareList", "n": 1}).key != parse({"type": "firmwareList", "n": 2}).key
    assert parse_callback(b"<html>").key != parse_callback(b"<html> ").key


@pytest.mark.parametrize("document", [[], [1], "text", 7, 1.5, True, None])
def test_json_that_is_no_object(document):
    """JSON of another type is decodable and wholly drift."""
    event = parse(document)
    assert (event.undecodable, event.extra, len(event.drift)) == (None, {"$": document}, 1)
    assert event.drift[0].endswith("in place of an object")
