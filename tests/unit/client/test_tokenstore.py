"""Tokens on disk: shared by runs, private to their owner, dropped when refused."""

from __future__ import annotations

import stat

import pytest

from upcall.client.auth import Token
from upcall.client.latch import Verdict
from upcall.client.tokenstore import BEARER, SESSION, StoredToken, TokenStore
from upcall.errors import CredentialsError, LoginLatchedError, NoAnswerError
from upcall.settings import Credentials

ACCOUNT = "0000123456-00001"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "tokens.json"


def test_the_next_run_logs_in_no_more(make_client, provider, path):
    """A second client uses what the first one fetched, and renews nothing."""
    make_client(token_store=True).callbacks.list_registered_callbacks(ACCOUNT)
    make_client(token_store=path).callbacks.list_registered_callbacks(ACCOUNT)
    assert (provider.token_requests, provider.logins, len(provider.calls)) == (1, 1, 2)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_nothing_is_kept_unless_asked_for(client, path):
    """Tokens on disk are an option that is off."""
    client.login()
    assert client.token_store is None
    assert not path.exists()


async def test_the_async_client_shares_the_file(make_client, make_async_client, provider):
    """Both flavours read and write the same tokens."""
    make_client(token_store=True).login()
    async with make_async_client(token_store=True) as client:
        await client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (provider.token_requests, provider.logins) == (1, 1)


def test_a_refused_token_leaves_the_file(make_client, provider):
    """A token on disk that the provider refuses is replaced there too, by one replay."""
    make_client(token_store=True).login()
    provider.kill_session()
    provider.kill_bearer()
    make_client(token_store=True).callbacks.list_registered_callbacks(ACCOUNT)
    make_client(token_store=True).callbacks.list_registered_callbacks(ACCOUNT)
    assert (provider.token_requests, provider.logins) == (2, 2)


def test_other_credentials_do_not_get_the_tokens(make_client, provider, client_test_kit):
    """A wrong password does not seem right because a good session lies on disk."""
    make_client(token_store=True).login()
    wrong = Credentials(client_id="id-1", client_secret="canary-secret", username="user", password="wrong")
    with pytest.raises(CredentialsError):
        make_client(token_store=True, credentials=wrong).callbacks.list_registered_callbacks(ACCOUNT)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"salt": 1}'])
def test_a_damaged_file_is_as_good_as_none(make_client, provider, path, content):
    """Tokens can be had again: nothing is asked of the user."""
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(0o600)
    make_client(token_store=True).login()
    make_client(token_store=True).login()
    assert provider.logins == 1


def test_a_file_that_others_can_read_is_not_believed(make_client, provider, path):
    """A store that is not private is replaced by one that is."""
    make_client(token_store=True).login()
    path.chmod(0o640)
    make_client(token_store=True).login()
    assert provider.logins == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written_stops_nothing(make_client, tmp_path, caplog):
    """Tokens that cannot be kept are used all the same, and the log says so."""
    (tmp_path / "file").touch()
    make_client(token_store=tmp_path / "file" / "tokens.json").login()
    assert "tokens are not kept" in caplog.text


def test_logging_out_forgets_the_session_on_disk(make_client, provider, path):
    """A client that never logged in itself ends the session that lies on disk."""
    make_client(token_store=True).login()
    provider.script.append(200)
    make_client(token_store=True).logout()
    assert provider.requests[-1].url.path.endswith("/session/logout")
    make_client(token_store=True).login()
    assert (provider.token_requests, provider.logins) == (1, 2)


def test_logging_out_of_nothing_sends_nothing(make_client, provider):
    """Without a session there is nothing to end."""
    make_client(token_store=True).logout()
    make_client().logout()
    assert provider.requests == []


def test_states_say_which_tokens_live_and_until_when(make_client, client_test_kit):
    """Held in memory, kept on disk, given: each says so, and shows nothing."""
    client = make_client(token_store=True)
    assert client.token_states() == ()
    client.login()
    assert [(state.kind, state.origin) for state in client.token_states()] == [
        ("bearer", "memory"),
        ("session", "memory"),
    ]
    kept = make_client(token_store=True).token_states()
    assert [(state.kind, state.origin) for state in kept] == [("bearer", "store"), ("session", "store")]
    assert kept[0].ends_at - kept[1].ends_at == pytest.approx(3600 - 1200, abs=5)
    given = make_client(credentials=Credentials(client_id="i", client_secret="s", session_token="canary-given"))
    assert [(state.kind, state.origin) for state in given.token_states()] == [("session", "given")]
    assert "canary" not in repr((client.token_states(), kept, given.token_states()))


def test_a_token_is_dropped_and_touched_only_while_it_is_the_one(path, client_test_kit):
    """A late refusal, or a late use, of an old token leaves the new one alone."""
    store = TokenStore(path, "https://host/api", client_test_kit.CREDENTIALS)
    store.save(SESSION, StoredToken("new", 10.0))
    store.drop(SESSION, Token("old"))
    store.touch(SESSION, Token("old"), 99.0)
    assert store.load(SESSION) == StoredToken("new", 10.0)
    store.touch(SESSION, Token("new"), 99.0)
    assert store.load(SESSION).used_at == 99.0
    store.drop(SESSION, Token("new"))
    assert (store.load(SESSION), store.load(BEARER)) == (None, None)
    assert "new" not in repr(StoredToken("new", 10.0))


def test_a_login_without_an_answer_counts_where_its_password_was_never_accepted(make_client, provider):
    """Two logins whose answers were lost may have been two refusals: a third is not sent until it is reset."""
    import httpx2

    client = make_client()
    for _ in range(2):
        provider.login_script.append(httpx2.ReadTimeout("x"))
        with pytest.raises(NoAnswerError):
            client.login()
    with pytest.raises(LoginLatchedError, match=r"got no answer.*upcall login --reset"):
        client.login()
    assert provider.logins == 2
    assert client.login_latch().unanswered == 2
    assert client.login_latch().reason == Verdict.UNANSWERED.value
    client.reset_login_latch()
    client.login()


def test_a_login_without_an_answer_does_not_count_where_its_password_was_accepted(make_client, provider):
    """An outage of the login endpoint does not lock out a server whose password is known to be good."""
    import httpx2

    make_client().login()
    for _ in range(4):
        provider.login_script.append(httpx2.ReadTimeout("x"))
        with pytest.raises(NoAnswerError):
            make_client().login()
    assert make_client().login_latch().unanswered == 0
    make_client().login()
    assert provider.logins == 6
