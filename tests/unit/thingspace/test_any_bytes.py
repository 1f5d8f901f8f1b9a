"""`parse_callback` and `peek_account` over any bytes whatever: total, in agreement, and linear."""

import json
import sys

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from upcall.thingspace import CallbackEvent, parse_callback, peek_account
from upcall.thingspace.decoding import MAX_DEPTH

ACCOUNT = "0000123456-00001"

WORDS = st.sampled_from(
    [
        *("type", "notificationType", "accountName", "account", "aname", "username", "password"),
        *("firmwareList", "softwareList", "upgradeScheduled", "upgradeProgress", "upgradeFinished", "firmwareName"),
        *("campaignId", "upgradeId", "id", "campaignName", "status", "updatedTime", "timestamp", "2021-06-03"),
        *("deviceList", "devices", "deviceIds", "deviceId", "imei", "resultReason", "reason"),
        *("UpgradeSuccess", "CampaignEnded"),
    ]
)
TEXTS = WORDS | st.text(max_size=8) | st.sampled_from(["\ud800", "a\udfffb", " ", "\0", "é", "\U0001f600"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=6),
    max_leaves=25,
)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])

DEVICE = st.fixed_dictionaries({}, optional=dict.fromkeys(("deviceId", "imei", "status", "resultReason"), SCALARS))
ELEMENT = st.fixed_dictionaries(
    {},
    optional={
        "id": SCALARS,
        "upgradeId": SCALARS,
        "accountName": SCALARS,
        "status": SCALARS,
        "deviceList": st.lists(DEVICE | SCALARS, max_size=3) | JSON,
        "deviceId": SCALARS,
    },
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "type": SCALARS,
        "accountName": SCALARS,
        "account": SCALARS,
        "firmwareList": JSON,
        "upgradeProgress": ELEMENT | st.lists(ELEMENT, max_size=2) | JSON,
        "upgradeFinished": ELEMENT | JSON,
        "id": SCALARS,
        "deviceList": JSON,
    },
)


@st.composite
def bodies(draw):
    """Bytes of every degree of likeness to a message: real shapes, any JSON, damaged JSON, noise."""
    text = json.dumps(draw(MESSAGE | JSON), ensure_ascii=draw(st.booleans()))
    body = text.encode(draw(ENCODINGS), "surrogatepass")
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=3)) + body[at + draw(st.integers(0, 3)) :]
    return draw(st.binary(max_size=40)) if draw(st.integers(0, 19)) == 0 else body


def nested(depth: int, tail: bytes = b"") -> bytes:
    """Nest that many containers, the outermost being the message."""
    return b'{"accountName":"A","x":' + b"[" * (depth - 1) + tail + b"]" * (depth - 1) + b"}"


ODD = {
    "empty": b"",
    "blanks": b" \n\t",
    "nul": b"\0",
    "nuls": b"\0" * 64,
    "lone quote": b'"',
    "not utf-8": b'{"x":"\xff\xfe","accountName":"A"}',
    "latin-1 key": b'{"\xe9":1,"accountName":"A"}',
    "surrogate bytes": b'{"x":"\xed\xa0\x80","accountName":"A"}',
    "surrogate escape": rb'{"\ud800":"\udc00","accountName":"\ud800"}',
    "surrogate everywhere": rb'{"type":"\ud800","accountName":"A","deviceList":[{"deviceId":"\udfff","\ud800":1}]}',
    "bom": b'\xef\xbb\xbf{"accountName":"A"}',
    "utf-16": '{"accountName":"A"}'.encode("utf-16"),
    "utf-32": '{"accountName":"A"}'.encode("utf-32"),
    "control character": b'{"accountName":"A","reason":"line\nline\0"}',
    "trailing nul": b'{"accountName":"A"}\0',
    "two documents": b'{"accountName":"A"}{"accountName":"B"}',
    "trailing comma": b'{"accountName":"A",}',
    "duplicate account": b'{"accountName":"B","accountName":"A"}',
    "duplicate account, last null": b'{"accountName":"B","accountName":null}',
    "duplicate account, last a number": b'{"accountName":"B","accountName":1}',
    "blank account": b'{"accountName":"  ","account":"A"}',
    "account in blanks": b'{"accountName":"\\t A \\n"}',
    "account as a number": b'{"accountName":242078689}',
    "account as a boolean": b'{"accountName":true,"aname":"A"}',
    "escaped account key": rb'{"account\u004eame":"A"}',
    "huge integer": b'{"accountName":"A","id":' + b"9" * 5000 + b"}",
    "huge integer as the account": b'{"accountName":' + b"9" * 5000 + b"}",
    "huge device id": b'{"deviceIds":[' + b"9" * 5000 + b"," + b"8" * 5000 + b"]}",
    "number out of range": b'{"accountName":"A","id":1e999,"n":-1e999}',
    "not a number": b'{"accountName":"A","id":NaN,"n":[Infinity,-Infinity]}',
    "deepest": nested(MAX_DEPTH),
    "deepest, filled": nested(MAX_DEPTH, b'"x"'),
    "one too deep": nested(MAX_DEPTH + 1),
    "as deep as the stack": nested(960),
    "very deep": nested(100_000),
    "very deep, unclosed": b"[" * 100_000,
    "very deep objects": b'{"a":' * 100_000,
    "very deep in utf-16": ("[" * 100_000 + "]" * 100_000).encode("utf-16"),
    "as deep as the stack, not strict": nested(960, b"NaN"),
    "long unknown kind": b'{"type":"' + b"x" * 100_000 + b'"}',
    "long key": b'{"' + b"k" * 100_000 + b'":1}',
    "long status": b'{"deviceList":[{"deviceId":"1","status":"' + b"s" * 100_000 + b'"}]}',
    "html": b"<html><body>502 Bad Gateway</body></html>",
}


def check(body: bytes) -> CallbackEvent:
    """Assert all that holds of any body."""
    event = parse_callback(body)
    assert isinstance(event, CallbackEvent)
    assert event.raw == body
    assert peek_account(body) == (event.undecodable is None, event.account)
    assert len(event.key) == 32
    assert parse_callback(body).key == event.key
    assert len(event.drift) <= 32
    assert all(line.isprintable() and len(line) < 400 for line in event.drift)
    assert len(repr(event)) < 5 * len(body) + 1000
    # Every store can keep it: no half characters, nothing beyond JSON, nothing too deep.
    fields = {name: getattr(event, name) for name in event.__struct_fields__ if name != "raw"}
    msgspec.json.encode(fields)
    json.dumps(event.extra, allow_nan=False)
    return event


@given(bodies())
@example(b"{}")
def test_any_body_is_an_event_and_the_peek_agrees(body):
    """Whatever arrives becomes an event, and trust is decided on the same account that a handler will see."""
    check(body)


@given(st.binary(max_size=200))
def test_noise_is_an_event(body):
    """Random bytes become an event too."""
    check(body)


@pytest.mark.parametrize("name", ODD)
def test_odd_bodies(name):
    """Each body that is known to trouble a JSON reader becomes an event."""
    check(ODD[name])


@pytest.mark.parametrize(
    ("name", "account"),
    [
        ("surrogate bytes", "A"),
        ("surrogate escape", r"\ud800"),
        ("bom", "A"),
        ("utf-16", "A"),
        ("utf-32", "A"),
        ("control character", "A"),
        ("duplicate account", "A"),
        ("duplicate account, last null", None),
        ("duplicate account, last a number", "1"),
        ("blank account", "A"),
        ("account in blanks", "A"),
        ("account as a number", "242078689"),
        ("account as a boolean", "A"),
        ("escaped account key", "A"),
        ("huge integer", "A"),
        ("number out of range", "A"),
        ("not a number", "A"),
        ("deepest", "A"),
        ("deepest, filled", "A"),
    ],
)
def test_odd_bodies_that_can_be_read(name, account):
    """What can be read leniently is read, because an undecodable callback reaches no handler."""
    event = check(ODD[name])
    assert (event.undecodable, event.account) == (None, account)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("empty", "empty body"),
        ("blanks", "empty body"),
        ("html", "not JSON"),
        ("not utf-8", "not text"),
        ("latin-1 key", "not text"),
        ("two documents", "not JSON"),
        ("trailing comma", "not JSON"),
        ("one too deep", "nested too deeply"),
        ("as deep as the stack", "nested too deeply"),
        ("as deep as the stack, not strict", "nested too deeply"),
        ("very deep", "nested too deeply"),
        ("very deep, unclosed", "nested too deeply"),
        ("very deep in utf-16", "nested too deeply"),
    ],
)
def test_odd_bodies_that_cannot_be_read(name, why):
    """An undecodable body says why, and shows none of itself."""
    event = check(ODD[name])
    assert event.undecodable is not None
    assert why in event.undecodable
    assert "Gateway" not in event.undecodable


def test_huge_ids_are_kept_apart():
    """Two numbers past what Python converts stay two, digit by digit."""
    event = check(ODD["huge device id"])
    assert [device.device_id for device in event.devices] == ["9" * 5000, "8" * 5000]


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, bytes.decode])
def test_every_type_of_body(make):
    """A body may be given as bytes, bytearray, memoryview or text."""
    body = b'{"accountName":"A","type":"firmwareList"}'
    assert parse_callback(make(body)) == parse_callback(body)
    assert peek_account(make(body)) == (True, "A")


@given(st.text(max_size=30))
def test_text_with_half_characters(text):
    """A text that UTF-8 cannot hold is an event as well."""
    event = parse_callback(text)
    assert event.raw == text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("headroom", [15, 30, 60, 120, 240])
@pytest.mark.parametrize("body", [b'{"accountName":"A","type":"upgradeProgress"}', nested(MAX_DEPTH), nested(100_000)])
def test_deep_stack(body, headroom):
    """No RecursionError escapes from either function, however little stack its caller has left."""

    def descend(levels: int) -> tuple[CallbackEvent, tuple[bool, str | None]]:
        return descend(levels - 1) if levels else (parse_callback(body), peek_account(body))

    depth = 0
    frame = sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    event, (_decodable, account) = descend(sys.getrecursionlimit() - depth - headroom)
    assert event.raw == body
    assert account in {"A", None}


def test_a_hundred_thousand_devices(cpu_seconds):
    """The largest messages are read in time linear in their length: well under a second here."""
    devices = [{"deviceId": str(n), "status": "UpgradePending", "resultReason": "Other"} for n in range(100_000)]
    body = json.dumps({"accountName": ACCOUNT, "type": "upgradeProgress", "upgradeProgress": {"deviceList": devices}})
    assert cpu_seconds(parse_callback, body) < 5
    assert cpu_seconds(peek_account, body) < 2
    event = parse_callback(body)
    assert (len(event.devices), event.drift) == (100_000, ())


@pytest.mark.parametrize("unit", [b"[", b"{}", b'{"a":', b'"', b"\\", b'{"password":', b"9", b"\xff", b" "])
def test_eight_mebibytes_of_anything(unit, cpu_seconds):
    """The largest body that the listener takes costs little time, whatever it repeats."""
    body = b'{"deviceList":[' + unit * (8 * 1024 * 1024 // len(unit))
    assert cpu_seconds(peek_account, body) < 5
    assert cpu_seconds(parse_callback, body + b"]}") < 5


@pytest.mark.parametrize("entry", [b"NaN,", b"null,", b'{"deviceId":1,"x":2},', b'{"x":{"password":1}},'])
def test_many_entries(entry, cpu_seconds):
    """Entries that are noted, kept or dropped one by one cost time linear in their number."""
    body = b'{"deviceList":[' + entry * 20_000 + b"null]}"
    assert cpu_seconds(peek_account, body) < 2
    assert cpu_seconds(parse_callback, body) < 5
