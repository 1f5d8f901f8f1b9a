"""Tokens, sessions, lock-out and listeners of the sandbox."""

from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from upcall.sandbox.state import LOCK_OUT_AT, SESSION_IDLE_SECONDS, TOKEN_SECONDS, AccessState

NOW = 1_700_000_000.0


def new_state():
    return AccessState(), Random(1)


def test_same_token_within_the_hour():
    """A client that asks again within the hour gets the same token, with fewer seconds left."""
    state, random = new_state()
    first, seconds = state.issue_token("sandbox", NOW, random)
    again, fewer = state.issue_token("sandbox", NOW + 600, random)
    assert again.token == first.token
    assert (seconds, fewer) == (3600, 3000)


def test_new_token_after_the_hour():
    """A token is refused from its hour's end on, and the next request yields another."""
    state, random = new_state()
    first, _ = state.issue_token("sandbox", NOW, random)
    assert state.is_bearer(first.token, NOW + TOKEN_SECONDS - 1)
    assert not state.is_bearer(first.token, NOW + TOKEN_SECONDS)
    second, _ = state.issue_token("sandbox", NOW + TOKEN_SECONDS, random)
    assert second.token != first.token


def test_revoked_token_is_dead():
    """Revoking kills the token at once, and the next request yields a new one."""
    state, random = new_state()
    first, _ = state.issue_token("sandbox", NOW, random)
    assert not state.revoke_token("sandbox", "another")
    assert state.revoke_token("sandbox", first.token)
    assert not state.is_bearer(first.token, NOW)
    assert state.issue_token("sandbox", NOW, random)[0].token != first.token


def test_session_dies_of_idleness_only():
    """Use extends a session; twenty idle minutes end it."""
    state, random = new_state()
    token = state.log_in("sandbox", "sandbox", NOW, random).session_token
    moment = NOW
    for _ in range(5):
        moment += SESSION_IDLE_SECONDS - 1
        assert state.use_session(token, moment).error is None
    assert state.use_session(token, moment + SESSION_IDLE_SECONDS).error == "Expired"


def test_words_for_bad_sessions():
    """A missing, a malformed and an unknown session token are told apart as the provider's codes do."""
    state, _ = new_state()
    assert state.use_session("", NOW).error == "Format"
    assert state.use_session("no-uuid", NOW).error == "Invalid"
    assert state.use_session("6f1c0a3e-0000-4000-8000-000000000000", NOW).error == "Expired"


def test_log_out_ends_the_session():
    """A session that was logged out is refused."""
    state, random = new_state()
    token = state.log_in("sandbox", "sandbox", NOW, random).session_token
    assert state.log_out(token)
    assert state.use_session(token, NOW).error == "Expired"


def test_five_refusals_in_a_row_lock():
    """The fifth refused login in a row locks the user name, and the right password no longer helps."""
    state, random = new_state()
    locked = [state.log_in("sandbox", "wrong", NOW, random).locked for _ in range(LOCK_OUT_AT)]
    assert locked == [False] * (LOCK_OUT_AT - 1) + [True]
    assert state.log_in("sandbox", "sandbox", NOW, random).session_token is None
    assert state.unlock("sandbox")
    assert state.log_in("sandbox", "sandbox", NOW, random).session_token


def test_a_good_login_resets_the_count():
    """Refusals that are not in a row do not lock."""
    state, random = new_state()
    for _ in range(3):
        for _ in range(LOCK_OUT_AT - 1):
            assert not state.log_in("sandbox", "wrong", NOW, random).locked
        assert state.log_in("sandbox", "sandbox", NOW, random).session_token


def test_refusals_are_counted_by_user_name():
    """One user name's refusals do not lock another."""
    state, random = new_state()
    for _ in range(LOCK_OUT_AT):
        state.log_in("somebody", "wrong", NOW, random)
    assert state.log_in("sandbox", "sandbox", NOW, random).session_token


def test_registering_replaces():
    """One listener an account and API version: the last writer has it."""
    state, _ = new_state()
    assert state.register("a", "https://one/") is None
    assert state.register("a", "https://two/") == "https://one/"
    state.register("a", "https://v3/", "v3")
    assert (state.listener("a"), state.listener("a", "v3"), state.listener("b")) == (
        "https://two/",
        "https://v3/",
        None,
    )
    assert state.deregister("a")
    assert not state.deregister("a")
    assert state.listener("a", "v3") == "https://v3/"


def test_repr_hides_credentials():
    """Credentials do not show in a log."""
    assert "sandbox" not in repr(AccessState().credentials)


@given(
    refused=st.integers(0, 7),
    urls=st.dictionaries(st.text(), st.text(), max_size=5),
    elapsed=st.floats(0, 5000),
)
def test_survives_a_round_trip(refused, urls, elapsed):
    """What is written to a state file and read again decides everything alike."""
    state, random = new_state()
    bearer, _ = state.issue_token("sandbox", NOW, random)
    session = state.log_in("sandbox", "sandbox", NOW, random).session_token
    for _ in range(refused):
        state.log_in("other", "wrong", NOW, random)
    for account, url in urls.items():
        state.register(account, url)
    copy = AccessState()
    copy.restore(msgspec.json.decode(msgspec.json.encode(state.to_dict())))
    assert copy.to_dict() == state.to_dict()
    assert copy.is_bearer(bearer.token, NOW + elapsed) == state.is_bearer(bearer.token, NOW + elapsed)
    assert copy.use_session(session, NOW + elapsed) == state.use_session(session, NOW + elapsed)
    assert {account: copy.listener(account) for account in urls} == urls
