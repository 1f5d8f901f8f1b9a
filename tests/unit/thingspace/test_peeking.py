"""`peek_account` without building the document: it says what the whole reading says, of bodies of any size."""

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from upcall.thingspace import decoding, parse_callback, peek_account, peeking
from upcall.thingspace.decoding import MAX_DEPTH, nests_too_deeply

EIGHT_MEBIBYTES = 8 * 1024 * 1024
KEYS = st.sampled_from(
    [
        *("accountName", "account", "aname", "type", "notificationType", "firmwareList", "deviceList", "password"),
        *("upgradeScheduled", "upgradeProgress", "upgradeFinished", "somethingNew", "", '"', "\\", "a.b"),
    ]
)
TEXTS = st.sampled_from(["A", "B", " A ", "", " ", "[[", '"{', "\\", "é"]) | KEYS
SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
MESSAGES = st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, SCALARS, max_size=3), max_size=8)


def filled(unit: bytes, *, head: bytes = b'{"l":[', tail: bytes = b"null]}") -> bytes:
    return head + unit * ((EIGHT_MEBIBYTES - 200) // len(unit)) + tail


LARGE = {
    "devices": (filled(b'{"deviceId":"1"},', head=b'{"upgradeProgress":{"deviceList":[', tail=b"1]}}"), None),
    "account at the end": (filled(b'{"deviceId":"1"},', tail=b'1],"accountName":"A"}'), "A"),
    "account is a number": (filled(b'{"deviceId":"1"},', tail=b'1],"accountName":7}'), "7"),
    "account in the element": (filled(b"{},", head=b'{"upgradeFinished":{"l":[', tail=b'1],"aname":"A"}}'), "A"),
    "element of an unknown kind": (filled(b"{},", head=b'{"type":"new","new":[{"l":[', tail=b'1],"aname":"A"}]}'), "A"),
    "account is an object": (filled(b"[],", head=b'{"aname":"A","accountName":{"l":[', tail=b"1]}}"), "A"),
    "many members": (filled(b'"a":1,', head=b"{", tail=b'"account":"A"}'), "A"),
    "a list": (filled(b"{},", head=b"[", tail=b"1]"), None),
    "one text": (filled(b"[", head=b'{"account":"A","x":"', tail=b'"}'), "A"),
    "nearly too deep": (filled(b"[" * 126 + b"]" * 126 + b","), None),
    "byte order mark": (b"\xef\xbb\xbf" + filled(b"{},", tail=b'1],"account":"A"}'), "A"),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_body_is_judged_without_being_built(name, monkeypatch):
    """A large body costs the listener neither the time nor the memory of its document, wherever its account stands."""
    monkeypatch.delattr(peeking, "load_json")
    body, account = LARGE[name]
    assert peek_account(body) == (True, account)


@given(MESSAGES | VALUES)
@example({"type": "upgradeProgress", "upgradeProgress": {"deviceList": []}, "upgradeFinished": {"account": "A"}})
@example({"accountName": ["A"], "aname": "B"})
def test_strict_json_is_never_built_and_reads_the_same(document):
    """Of strict JSON the quick reading decides always, and names the account that a handler will see."""
    body = json.dumps(document, ensure_ascii=False).encode()
    assert peeking._peek_quickly(body) == (True, parse_callback(body).account) == peeking._peek_fully(body)


def depth_of(value) -> int:
    if not isinstance(value, (dict, list)):
        return 0
    children = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth_of, children), default=0)


@pytest.mark.parametrize("leaves", [0, 2, 400_000])
@given(value=VALUES, levels=st.integers(MAX_DEPTH - 8, MAX_DEPTH + 2))
def test_depth_is_told_from_the_text(leaves, value, levels):
    """A text is too deep exactly where its document is, however brackets, quotes and backslashes stand in strings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_MANY_LEAVES", leaves)
        wrapped = [{"[": value}, value, [], [[]], '"]]"', "\\"]
        for level in range(levels - 2):
            wrapped = ["[\\", wrapped, "]"] if level % 2 else {"\\": wrapped}
        text = msgspec.json.encode(wrapped)
        assert nests_too_deeply(text) == (depth_of(wrapped) > MAX_DEPTH)
