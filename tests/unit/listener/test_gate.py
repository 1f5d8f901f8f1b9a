"""Who may deliver, and what handlers may see."""

import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.errors import SettingsError
from upcall.inbox import Trust
from upcall.listener import Gate, Token, gate, generate_token, parse_tokens
from upcall.thingspace import parse_callback

FIRST, SECOND, THIRD = "a" * 20, "b" * 20, "c" * 20
OURS = "0000123456-00001"
OWNED = Token(FIRST, frozenset({OURS}))
OPEN = Token(SECOND)


def test_every_live_token_is_admitted():
    """While tokens rotate, each live one opens the gate, and as itself."""
    tokens = parse_tokens([FIRST, f"{OURS}={SECOND}", THIRD])
    assert [Gate(tokens).admit(secret) for secret in (FIRST, SECOND, THIRD)] == tokens


@pytest.mark.parametrize("secret", ["", "a", FIRST[:-1], FIRST + "a", FIRST.upper(), "é", "\udcff", FIRST + "/"])
def test_anything_else_is_not(secret):
    """A text that is no live token, however near, admits nobody."""
    assert Gate([Token(FIRST)]).admit(secret) is None


@pytest.mark.parametrize("secret", [FIRST, SECOND, THIRD, "wrong"])
def test_a_comparison_tells_nothing_by_its_time(monkeypatch, secret):
    """Every live token is compared, in constant time and at one length, whichever matches or none."""
    compared = []
    constant_time = hmac.compare_digest

    def compare(known, offered):
        compared.append((len(known), len(offered)))
        return constant_time(known, offered)

    monkeypatch.setattr(gate.hmac, "compare_digest", compare)
    Gate(parse_tokens([FIRST, SECOND, THIRD])).admit(secret)
    assert compared == [(32, 32)] * 3


def test_a_gate_needs_a_token():
    """A listener without a token would refuse everything: it says so at the start."""
    with pytest.raises(SettingsError, match="at least one token"):
        Gate([])


def test_a_token_is_not_shown():
    """Neither `repr` nor the id that the store keeps lets anybody deliver."""
    token = Token("s3cret-s3cret-s3cret")
    assert "s3cret" not in repr(token)
    assert token.secret not in token.id
    assert len(token.id) == 12
    assert token.id != Token("s3cret-s3cret-s3cres").id


@pytest.mark.parametrize(
    "body",
    [
        b'{"accountName": "0000123456-00001", "type": "upgradeProgress"}',
        b'{"type": "upgradeProgress"}',
        b'{"accountName": null}',
        b'{"accountName": ""}',
        b'{"type": "somethingNew", "x": {"y": 1}}',
        b"[]",
        b"{}",
        b"null",
        b"42",
        b'"text"',
        b'{"accountName": {"nested": true}}',
    ],
)
def test_nothing_that_is_absent_or_new_is_distrusted(body):
    """A missing account, an unknown kind and JSON of another shape are accepted: the schema is not public."""
    names_ours = OURS.encode() in body
    evidence = "names the token's account" if names_ours else "names no account"
    assert Gate([OWNED]).judge(OWNED, body) == gate.Verdict(Trust.ACCEPTED, evidence)


def test_another_account_than_the_tokens_is_quarantined():
    """A body that names somebody else's account is kept from handlers, and the evidence names that account."""
    verdict = Gate([OWNED]).judge(OWNED, b'{"accountName": "0000999999-00001"}')
    assert verdict.trust is Trust.QUARANTINED
    assert "0000999999-00001" in verdict.evidence


def test_a_token_of_all_accounts_contradicts_none():
    """A token that belongs to no account in particular accepts every account, and says that it asked nothing."""
    verdict = Gate([OPEN]).judge(OPEN, b'{"accountName": "0000999999-00001"}')
    assert verdict == gate.Verdict(Trust.ACCEPTED, "the token is for every account")


def test_a_token_of_several_accounts_accepts_each():
    """A token may belong to several accounts; one that is not among them is a contradiction."""
    token = Token(FIRST, frozenset({"A-1", "A-2"}))
    trusts = [Gate([token]).judge(token, b'{"accountName": "A-%d"}' % number).trust for number in (1, 2, 3)]
    assert trusts == [Trust.ACCEPTED, Trust.ACCEPTED, Trust.QUARANTINED]


@pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00", b"{", b"hello", b"<html></html>", b'{"a": 1'])
def test_what_is_no_json_is_quarantined(body):
    """An undecodable body is kept, but no handler sees it."""
    verdict = Gate([OPEN]).judge(OPEN, body)
    assert verdict.trust is Trust.QUARANTINED
    assert "JSON" in verdict.evidence


def test_evidence_does_not_grow_with_the_body():
    """A body cannot write at length, or in control characters, into what an operator reads."""
    verdict = Gate([OWNED]).judge(OWNED, b'{"accountName": "\\u001b[31m%s"}' % (b"x" * 10_000))
    assert len(verdict.evidence) < 200
    assert verdict.evidence.isprintable()


@given(st.binary())
def test_no_bytes_break_it(body):
    """Any bytes get a verdict, and only those that `parse_callback` cannot decode count as undecodable."""
    verdict = Gate([OPEN]).judge(OPEN, body)
    assert (verdict.trust is Trust.QUARANTINED) == (parse_callback(body).undecodable is not None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["accountName", "type"]) | st.text(), inner),
)


@given(JSON)
def test_no_json_breaks_it(document):
    """Any JSON is judged, and one is in quarantine only where its event names another account."""
    body = json.dumps(document).encode()
    verdict = Gate([OWNED]).judge(OWNED, body)
    assert (verdict.trust is Trust.QUARANTINED) == (parse_callback(body).account not in {None, OURS})


def test_generated_tokens():
    """A generated token is one that may be given back, and never the same twice."""
    made = {generate_token() for _ in range(100)}
    assert len(made) == 100
    assert len(parse_tokens(made)) == 100


def test_tokens_as_they_are_given():
    """A token takes the account before its equals sign, else the accounts of the command line, else all."""
    assert parse_tokens([f"A-1={FIRST}", SECOND], ["B-1", "B-2"]) == [
        Token(FIRST, frozenset({"A-1"})),
        Token(SECOND, frozenset({"B-1", "B-2"})),
    ]
    assert parse_tokens([FIRST])[0].accounts == frozenset()


def test_every_account_that_is_expected_has_a_token():
    """An account beside tokens that all name others would be ignored in silence; it is refused and named."""
    assert len(parse_tokens([f"A-1={FIRST}", f"A-2={SECOND}"], ["A-1"])) == 2
    assert len(parse_tokens([f"A-1={FIRST}", SECOND], ["B-1"])) == 2
    with pytest.raises(SettingsError, match=r"account B-1 is expected.* Add B-1=TOKEN"):
        parse_tokens([f"A-1={FIRST}"], ["A-1", "B-1"])


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["short"], "at least 16 characters"),
        ([""], "at least 16 characters"),
        (["A-1="], "at least 16 characters"),
        ([FIRST + "/x"], "at least 16 characters out of"),
        ([FIRST + " x"], "at least 16 characters out of"),
        ([FIRST + "é"], "at least 16 characters out of"),
        ([FIRST + "%41"], "at least 16 characters out of"),
        ([FIRST, f"A-1={FIRST}"], "given twice"),
        ([f"={FIRST}"], "account must not be ''"),
    ],
)
def test_tokens_that_cannot_be_used(texts, says):
    """A token that could be guessed, cannot stand in a path or comes twice is refused, and is not shown."""
    with pytest.raises(SettingsError, match=says) as caught:
        parse_tokens(texts)
    assert FIRST not in str(caught.value)
