"""`read_typical` makes the event that the reader of any shape makes, or leaves the message to it."""

import json

import pytest
from hypothesis import event as note
from hypothesis import example, given
from hypothesis import strategies as st

from upcall.thingspace import callbacks
from upcall.thingspace.typical import read_typical

KINDS = ("upgradeScheduled", "upgradeProgress", "upgradeFinished")
WORDS = st.sampled_from(
    [
        *("CampaignScheduled", "Queued", "campaign ended", "InProgress", "CampaignStarted", "CampaignEnded"),
        *("UpgradeSuccess", "UpgradedFailed", "upgradePending", "DownloadCompleted", "Accepted", "x" * 65),
    ]
)
BLANKS = st.sampled_from(["", " ", "\t\n", "\x1c"])
TEXTS = WORDS | BLANKS | st.text(max_size=6) | st.builds("{}{}{}".format, BLANKS, WORDS, BLANKS)
IDS = st.sampled_from(["990013907835573", "e3a1c9d2", " 1 ", "2"])
TIMES = st.sampled_from(
    [
        *("2026-05-01T12:00:00Z", " 2026-05-01T12:00:00.5+02:00 ", "2021-06-03 00:03:56.079 +0000 UTC", "2026-05-01"),
        *("Mon, 02 Jan 2006 15:04:05 MST", "", None),
    ]
)
ODD_TIMES = st.sampled_from(["yesterday", "0001-01-01T00:00:00+01:00"])
ODD = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.just([]) | st.just({}) | st.just(["a"])
)

DEVICE = {"status": TEXTS | st.none(), "resultReason": TEXTS, "updatedTime": TIMES}
DEVICES = st.lists(st.fixed_dictionaries({"deviceId": IDS}, optional=DEVICE), max_size=4)
WINDOWS = st.lists(st.dictionaries(TEXTS, st.none() | st.integers() | TEXTS, max_size=2), max_size=2)
ELEMENT = {
    "campaignName": TEXTS,
    "softwareName": TEXTS,
    "softwareFrom": TEXTS,
    "startDate": TEXTS,
    "downloadTimeWindowList": WINDOWS,
    "status": TEXTS,
    "deviceList": st.none() | DEVICES,
    "updatedTime": TIMES,
}
CAMPAIGN = st.sampled_from(["id", "campaignId", "upgradeId"]).flatmap(
    lambda name: st.fixed_dictionaries({name: IDS}, optional=ELEMENT)
)
ODD_DEVICE = {name: values | ODD | ODD_TIMES for name, values in ({"deviceId": TEXTS, "imei": IDS} | DEVICE).items()}
ODD_DEVICES = st.lists(st.fixed_dictionaries({}, optional=ODD_DEVICE), max_size=3)
ODD_ELEMENT = {name: values | ODD | ODD_TIMES for name, values in ELEMENT.items()} | {"deviceList": ODD_DEVICES | ODD}
ODD_IDS = dict.fromkeys(("id", "campaignId", "upgradeId", "imei", "x"), IDS | TEXTS | ODD)
ODD_CAMPAIGN = st.fixed_dictionaries({}, optional=ODD_ELEMENT | ODD_IDS)
EMPTY = st.none() | st.just({}) | st.just([]) | st.just("")


@st.composite
def messages(draw):
    """Messages of a campaign: about half in the known shape, the others a little off it."""
    kind = draw(st.sampled_from(KINDS))
    message = {"type": kind, "accountName": draw(TEXTS), kind: draw(CAMPAIGN)}
    for name in sorted({*KINDS, "firmwareList", "softwareList"} - {kind}):
        if draw(st.booleans()):
            empty = draw(st.none() | st.just([] if name.endswith("List") else {}))
            message[name] = draw(EMPTY) if draw(st.integers(0, 9)) == 0 else empty
    oddity = draw(st.sampled_from([None] * 4 + ["element", "envelope", "type"]))
    if oddity == "element":
        message[kind] = draw(ODD_CAMPAIGN)
    elif oddity == "envelope":
        message |= draw(st.dictionaries(st.sampled_from(["username", "password", "id", "status", "x"]), TEXTS | ODD))
    elif oddity == "type":
        message["type"] = draw(st.sampled_from([*KINDS, kind.upper(), f" {kind}", "other", None]))
    return {name: message[name] for name in draw(st.permutations(sorted(message)))}


@st.composite
def bodies(draw):
    """Bodies of such messages, some of them damaged."""
    body = json.dumps(draw(messages()), ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=2)) + body[at + draw(st.integers(0, 2)) :]
    return body


def both(body):
    """Return what the quick reader makes of a body, None where it leaves it, and what the other makes of it."""
    quick = read_typical(body)
    return quick and callbacks._with_body(quick, body), callbacks._parse_fully(body)


def body_of(kind="upgradeProgress", /, element=None, **others):
    element = {"id": "c", "deviceList": [{"deviceId": "1"}]} if element is None else element
    return json.dumps({"accountName": "A", "type": kind, kind: element, **others}).encode()


@given(bodies())
@example(body_of(element={"id": "c", "deviceList": [{"deviceId": str(n), "status": "x"} for n in range(40)]}))
@example(b'{"type":"upgradeProgress","upgradeProgress":{"id":"a"},"upgradeProgress":{"id":"b"}}')
@example(b'{"type":"upgradeProgress","upgradeProgress":{"id":"a"},"type":"upgradeFinished"}')
def test_both_readers_agree(body):
    """Every field of the event, its drift, what is kept beside it and its key are the same from both readers."""
    quick, full = both(body)
    note("left" if quick is None else "read")
    if quick is not None:
        assert quick == full
        assert [repr(quick), quick.extra, quick.drift] == [repr(full), full.extra, full.drift]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["id", "campaignId", "upgradeId"])
def test_known_shapes_are_read_quickly(kind, name):
    """Each kind of campaign message is understood without the slower reader, unknown status words included."""
    devices = [{"deviceId": "1", "status": "NoSuchWord", "resultReason": " r ", "updatedTime": "2026-05-01T12:00:00Z"}]
    element = {name: "c", "campaignName": "", "status": "Odd", "deviceList": devices, "startDate": "2026-05-01"}
    others = {other: {} for other in KINDS if other != kind} | {
        "firmwareList": [],
        "softwareList": None,
        "password": "p",
    }
    quick, full = both(body_of(kind, element, **others))
    assert quick is not None
    assert quick == full
    assert quick.drift == (
        f"$.{kind}.deviceList[0].status: unknown status 'NoSuchWord'",
        f"$.{kind}.status: unknown status 'Odd'",
    )
    assert (quick.campaign_id, quick.devices[0].reason, quick.extra) == ("c", "r", {})


@pytest.mark.parametrize(
    "body",
    {
        "unknown member": body_of(x=1),
        "unknown member of a device": body_of(element={"id": "c", "deviceList": [{"deviceId": "1", "iccid": "2"}]}),
        "number for a text": body_of(element={"id": 7}),
        "two ids": body_of(element={"id": "c", "campaignId": "d"}),
        "blank id": body_of(element={"id": " "}),
        "no id": body_of(element={"deviceList": [{"deviceId": "1"}]}),
        "blank device": body_of(element={"id": "c", "deviceList": [{"deviceId": ""}]}),
        "time in no format": body_of(element={"id": "c", "updatedTime": "soon"}),
        "two elements": body_of(upgradeFinished={"id": "c"}),
        "kind in another case": body_of().replace(b'"type": "upgradeProgress"', b'"type": "UPGRADEPROGRESS"'),
        "no kind": b'{"upgradeProgress":{"id":"c"}}',
        "half character": rb'{"type":"upgradeProgress","upgradeProgress":{"id":"\ud800"}}',
        "not UTF-8": b'{"type":"upgradeProgress","upgradeProgress":{"id":"\xff"}}',
        "no object": b"[]",
    }.values(),
)
def test_what_differs_is_left(body):
    """A message that differs from the known shape in anything is read member by member."""
    quick, _ = both(body)
    assert quick is None
