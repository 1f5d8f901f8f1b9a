"""What an output shows of passwords, tokens and devices."""

import json

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from upcall.redact import BLANK, blank_password, blank_told_password, mask_device, mask_token, mask_url_token, scrub

SECRET = "hunter2"
KEYS = ["password", "Password", "PASSWORD", r"p\u0061ssword", r"\u0050\u0041SSWORD"]

TEXTS = st.text(max_size=12) | st.sampled_from(
    ["username", 'password": "x', r"\"password\": \"x\"", "password", '"', "\\", 'x"password', "é", "\u2028", "\ud800"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXTS.filter(lambda key: key.lower() != "password"), inner, max_size=4)
    ),
    max_leaves=15,
)
"""Any JSON in which no member is named password, however much of it looks so."""

SECRETS = st.text(min_size=1, max_size=20) | st.sampled_from(['a"b', "a\\", 'x", "y": "z', "é\ud800", "\\u0022"])


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
@example({'x"password': "kept", "reason": '"password": "kept"'}, True, None)
def test_body_without_a_password_is_untouched(value, ascii_only, indent):
    """A body in which no member is a password comes back byte for byte."""
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    assert blank_password(body) == body


@given(st.binary(max_size=60))
def test_noise_is_untouched(body):
    """Bytes that are no message come back as they are."""
    assume(b"password" not in body.lower())
    assert blank_password(body) == body


@pytest.mark.parametrize("key", KEYS)
@given(before=VALUES, secret=SECRETS, after=VALUES, ascii_only=st.booleans(), gap=st.sampled_from(["", " ", " \n\t"]))
def test_password_is_replaced_and_nothing_else(*, key, before, secret, after, ascii_only, gap):
    """The password's value becomes a blank; every byte outside it stays, wherever the member stands."""

    def text(value):
        return json.dumps(value, ensure_ascii=ascii_only)

    def body(value):
        inner = f'[{text(before)}, {{"a": {text(before)}, "{key}"{gap}:{gap}{value}, "b": {text(after)}}}]'
        return inner.encode("utf-8", "surrogatepass")

    assert blank_password(body(text(secret))) == body(f'"{BLANK}"')


@given(st.dictionaries(st.sampled_from(["password", "username", "PASSWORD", "x"]), VALUES | SECRETS), VALUES)
def test_blanking_twice_changes_nothing_more(message, value):
    """What has been blanked stays as it is, and is JSON as before."""
    once = blank_password(json.dumps([message, value]).encode())
    assert blank_password(once) == once
    json.loads(once)


@pytest.mark.parametrize(
    "value",
    [
        "12345678",
        "-1.5e3",
        "NaN",
        "true",
        '{"value": "hunter2", "more": ["hunter2", {"x": "}"}]}',
        '["hunter2", "]"]',
        '"hun\\"ter2\\\\"',
        '"hunter2\nhunter2"',
    ],
)
def test_password_of_any_type_is_blanked(value):
    """A password that is a number, an object or a list is a password too."""
    body = f'{{"username": "u", "password": {value}, "type": "firmwareList"}}'
    assert blank_password(body.encode()) == b'{"username": "u", "password": "***", "type": "firmwareList"}'


@pytest.mark.parametrize("value", ['""', "null", "[]", "{}", '"***"'])
def test_empty_password_is_left(value):
    """Where there is no password there is nothing to blank."""
    body = f'{{"password": {value}, "x": 1}}'.encode()
    assert blank_password(body) == body


@pytest.mark.parametrize(
    "body",
    [
        '{"password": "hunter2',
        '{"password": "hunter2\\',
        '{"password": hunter2',
        '{"password": ["hunter2", {"a": "hunter2"',
        '{"a": "cut " off", "password": "hunter2", "b": 1}',
        'garbage " {"password":"hunter2"}',
        r'{"\q": 1, "password": "hunter2"}',
        '<p>{"PassWord" : "hunter2"}</p>',
        '{"password": "a", "password": "hunter2"}, {"password": "hunter2"}',
        '{"password": ' + '{"a":' * 5000 + '"hunter2"' + "}" * 5001,
        '{"x":' * 5000 + '{"password": "hunter2"}',
        '{"n":' + "9" * 5000 + ',"password": "hunter2"}',
        '{"password": [' + "9" * 5000 + ', "hunter2"]}',
    ],
)
def test_damaged_body_shows_no_password(body):
    """A body that was cut off or is no JSON shows its password no more than a whole one."""
    assert b"hunter2" in body.encode()
    assert b"hunter2" not in blank_password(body.encode())
    assert b"hunter2" not in blank_password(b"\xff" + body.encode())
    assert b"hunter2" not in blank_password(b"\0" + body.encode())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_password_in_another_encoding(encoding):
    """What the parser reads in another encoding is blanked in it."""
    body = '{"é": "ü", "password": "hunter2", "x": ["é"]}'.encode(encoding)
    blanked = blank_password(body)
    assert json.loads(blanked) == {"é": "ü", "password": BLANK, "x": ["é"]}
    assert "hunter2" not in blanked.decode(encoding)


@pytest.mark.parametrize(
    "unit", [b'"', b'\\"', b'"password":', b'{"password":', b'"password":[', b"\\u", b'"a":"b",', b" "]
)
def test_blanking_is_linear(unit, cpu_seconds):
    """The largest body that the listener takes is blanked in seconds, whatever it repeats."""
    body = b'{"password":"x",' + unit * (1024 * 1024 // len(unit))
    assert cpu_seconds(blank_password, body) < 5


MARK = "hunter2"
QUOTED = {
    "as it came": lambda raw: raw.decode(),
    "bytes": repr,
    "text": lambda raw: repr(raw.decode()),
    "a dict": lambda raw: str(json.loads(raw)),
    "in JSON": lambda raw: json.dumps({"body": raw.decode()}),
    "in JSON in JSON": lambda raw: json.dumps(json.dumps({"body": raw.decode()})),
    "JSON of bytes": lambda raw: json.dumps(repr(raw)),
    "pairs": lambda raw: str(list(json.loads(raw).items())),
    "pairs in text": lambda raw: repr(str(list(json.loads(raw).items()))),
    "a list of words": lambda raw: repr([repr(json.loads(raw))]),
}


@given(
    before=st.text(st.sampled_from("\\\"'{}[]:,\n pé")),
    after=st.text(st.sampled_from("\\\"'{}[]:,\n pé")),
    how=st.sampled_from(list(QUOTED)),
    key=st.sampled_from(["password", "Password"]),
)
def test_told_password_is_blanked(before, after, how, key):
    """However a text quotes a callback, nothing of the password in it is left, and what stands before it is."""
    raw = json.dumps({"username": "fleet", key: before + MARK + after, "status": "ok"}).encode()
    told = blank_told_password(f"ValueError: {QUOTED[how](raw)}")
    assert MARK not in told
    assert "fleet" in told


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("Login(password='hunter2', url='u')", "Login(password=\"***\", url='u')"),
        ("{'password': b'hunter2', 'a': 1}", "{'password': \"***\", 'a': 1}"),
        ("{'password': 2, 'a': 1}", "{'password': \"***\", 'a': 1}"),
        ("body was 'user=u&password=hunter2&a=1'", "body was 'user=u&password=\"***\"&a=1'"),
        ('b\'{"password":"hunt', 'b\'{"password":"***"'),
        ("{'password': ['hunter2']}\nValueError", "{'password': \"***\"\nValueError"),
        ("headers: [('password', 'hunter2'), ('a', 1)]", "headers: [('password', \"***\"), ('a', 1)]"),
        ('no \'password\', "password": "hunter2"', 'no \'password\', "password": "***"'),
        ("'password', password='hunter two'", "'password', password=\"***\""),
        ("KeyError: 'password'", "KeyError: 'password'"),
        ('File "h.py", line 3\n  raise ValueError(body["password"])\nValueError', None),
    ],
)
def test_told_forms(told, shown):
    """A password is blanked as a keyword, in a form, and where the text was cut; a traceback stays readable."""
    assert blank_told_password(told) == (told if shown is None else shown)


@pytest.mark.parametrize("unit", ["password\\", "password ", "password:", '"password": "\\', "\\\\'"])
def test_blanking_told_is_linear(unit, cpu_seconds):
    """A text that was made to be slow to read is not."""
    assert cpu_seconds(blank_told_password, unit * 50_000) < 5


@given(st.text(max_size=60))
def test_token_shows_a_quarter_at_most(token):
    """A masked token shows its first four characters, and never more than a quarter of it."""
    masked = mask_token(token)
    assert masked.endswith(BLANK)
    shown = masked.removesuffix(BLANK)
    assert token.startswith(shown)
    assert len(shown) == min(4, len(token) // 4)


TOKEN = "t0ken-t0ken-t0ken-t0ken"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        (f"https://host:8443/callbacks/{TOKEN}", "https://host:8443/callbacks/t0ke***"),
        (f"https://host/callbacks/{TOKEN}/", "https://host/callbacks/t0ke***/"),
        (f"https://host/{TOKEN}?{TOKEN}#{TOKEN}", "https://host/t0ke***"),
        (f"https://{TOKEN}:{TOKEN}@host/x", "https://host/***"),
        (f"https://host?{TOKEN}", "https://host"),
        (f"https://host/?token={TOKEN}", "https://host/"),
        (f"/callbacks/{TOKEN}", "/callbacks/t0ke***"),
        (f"https://[{TOKEN}", BLANK),
        ("https://host", "https://host"),
        ("", ""),
    ],
)
def test_url_shows_no_token(url, masked):
    """A masked URL shows where callbacks go, and not the token that lets them in."""
    assert mask_url_token(url) == masked


@given(st.text(max_size=20), st.text(max_size=10))
def test_any_text_can_be_masked_as_a_url(start, end):
    """Masking a URL never fails, and the last segment is masked whatever stands around it."""
    mask_url_token(start)
    assert TOKEN not in mask_url_token(f"https://host/{start}/{TOKEN}")
    assert TOKEN not in mask_url_token(f"https://host/{TOKEN}?{end}")


@given(st.text(max_size=20))
def test_device_shows_four_characters(device_id):
    """A log shows the last four characters of a device's identifier and no others."""
    masked = mask_device(device_id)
    assert masked == (device_id if len(device_id) <= 4 else f"…{device_id[-4:]}")
    assert len(masked) <= 5


@given(
    st.text(alphabet="abc*", max_size=40),
    st.lists(st.text(alphabet="abc", min_size=4, max_size=8), max_size=4),
)
def test_every_character_that_a_secret_covers_is_blanked_and_no_other(text, secrets):
    """Secrets may overlap or lie within each other, in any order: exactly what one of them covers is blanked."""
    covered = set()
    for secret in secrets:
        covered |= {
            start + index
            for start in range(len(text))
            if text.startswith(secret, start)
            for index in range(len(secret))
        }
    shown = "".join(character for index, character in enumerate(text) if index not in covered)
    assert (scrub(text, secrets) or "").replace("*", "") == shown.replace("*", "")
    assert scrub(text, secrets) == scrub(text, reversed(secrets))
