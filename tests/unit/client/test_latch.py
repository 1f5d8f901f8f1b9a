"""The login latch: a refused login is not sent again, by this process or the next."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall import CredentialsError, LoginLatchedError
from upcall.client import latch as latch_module
from upcall.client.latch import MAX_REFUSALS, Claim, Entry, LoginLatch, Pending, Refusal, Verdict, decide
from upcall.errors import SettingsError
from upcall.settings import Credentials

ACCOUNT = "0000123456-00001"
ROOT = "http://localhost/api"


def _with_password(password):
    return Credentials(client_id="id-1", client_secret="canary-secret", username="user", password=password)


def _claim(latch, password="wrong", user="user", root=ROOT):
    return latch.claim(root, user, password, hold_seconds=60.0)


@pytest.fixture
def latch(tmp_path):
    return LoginLatch(tmp_path / "state")


@pytest.fixture(autouse=True)
def _forget_memory():
    yield
    latch_module._counted_in_memory.clear()
    latch_module._held_claims.clear()


def test_a_refused_login_is_not_sent_again(make_client, provider):
    """Ten calls with a wrong password are one login, in one client and across new ones."""
    provider.password = "another"
    with pytest.raises(CredentialsError, match="five refusals") as caught:
        make_client().callbacks.list_registered_callbacks(ACCOUNT)
    assert caught.value.status_code == 401
    for _ in range(9):
        with pytest.raises(LoginLatchedError, match="upcall login --reset"):
            make_client().callbacks.list_registered_callbacks(ACCOUNT)
    assert provider.logins == 1


def test_two_passwords_and_no_more(make_client, provider):
    """A second password is tried once; a third is not sent, nor is the right one until the latch is reset."""
    for password in ("wrong-1", "wrong-1", "wrong-2", "wrong-3", "canary-password"):
        with pytest.raises(CredentialsError):
            make_client(credentials=_with_password(password)).login()
    assert provider.logins == MAX_REFUSALS
    client = make_client()
    assert client.login_latch().latched
    client.reset_login_latch()
    client.login()
    assert (provider.logins, client.login_latch().refusals) == (3, 0)


def test_a_login_that_succeeds_forgets_the_refusals(make_client, provider):
    """The provider locks at five in a row, so a success begins the count anew."""
    with pytest.raises(CredentialsError):
        make_client(credentials=_with_password("wrong-1")).login()
    client = make_client()
    client.login()
    assert client.login_latch().refusals == 0


@pytest.mark.parametrize("step", [(400, b""), (401, b"<html>"), (403, {"error": "x"}), (400, {"errorCode": "X"})])
def test_what_counts_as_a_refusal(client, provider, step):
    """Each 400, 401 or 403 of the login itself counts, whatever its body says."""
    provider.login_script.append(step)
    with pytest.raises(CredentialsError):
        client.login()
    assert client.login_latch().refusals == 1


@pytest.mark.parametrize("step", [429, 500, 503, 404, (200, b"<html>"), (400, {"fault": {"code": "900906"}})])
def test_what_does_not_count_as_a_refusal(client, provider, step):
    """An answer that does not judge the password does not count, and the next call logs in."""
    provider.login_script.append(step)
    with pytest.raises(Exception, match="login"):
        client.login()
    assert client.login_latch().refusals == 0
    client.login()


def test_the_count_survives_the_process(latch, tmp_path):
    """Another process is refused the same password."""
    latch.refused(_claim(latch))
    script = (
        "import sys, pathlib; from upcall.client.latch import LoginLatch;"
        "print(LoginLatch(pathlib.Path(sys.argv[1])).claim(*sys.argv[2:], hold_seconds=1.0).verdict.name)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "state"), ROOT, "user", "wrong"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "SAME_PASSWORD\n"


def test_users_and_roots_are_counted_apart(latch):
    """What one user name does at one base URL says nothing of another."""
    latch.refused(_claim(latch))
    assert isinstance(_claim(latch), Refusal)
    assert isinstance(_claim(latch, user="other"), Claim)
    assert isinstance(_claim(latch, root="https://elsewhere/api"), Claim)


def test_one_login_of_a_password_is_in_the_air_at_a_time(latch):
    """Ten that begin together do not spend ten refusals: the others wait for the outcome of the first."""
    first = _claim(latch)
    waiting = _claim(latch)
    assert isinstance(first, Claim)
    assert waiting == Refusal(Verdict.BUSY, str(latch.path))
    latch.release(first)
    assert isinstance(_claim(latch), Claim)


def test_clients_that_begin_together_send_one_wrong_login(make_client, provider):
    """Eight clients in eight threads with one wrong password spend one refusal."""
    provider.password = "another"
    clients = [make_client() for _ in range(8)]
    gate = threading.Barrier(8)

    def log_in(client):
        gate.wait()
        with pytest.raises(CredentialsError):
            client.login()

    threads = [threading.Thread(target=log_in, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert provider.logins == 1


def test_a_claim_of_a_process_that_died_is_void(latch):
    """A login that was killed half way does not stop the next one."""
    script = (
        "import sys, os, pathlib; from upcall.client.latch import LoginLatch;"
        "LoginLatch(pathlib.Path(sys.argv[1])).claim(*sys.argv[2:], hold_seconds=600.0); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(latch.path.parent), ROOT, "user", "wrong"], check=False)
    assert b'"pid"' in latch.path.read_bytes()
    assert isinstance(_claim(latch), Claim)


def test_the_file_is_the_owners_and_holds_no_secret(latch):
    """Mode 0600 in a directory of mode 0700, and neither password nor user name inside."""
    latch.refused(_claim(latch, password="canary-password", user="canary-user"))
    assert stat.S_IMODE(latch.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(latch.path.parent.stat().st_mode) == 0o700
    assert b"canary" not in latch.path.read_bytes()
    assert [path.name for path in latch.path.parent.iterdir() if path.suffix == ".tmp"] == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"salt": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_file_stops_logins_and_says_what_to_do(make_client, provider, content):
    """A count that cannot be read may be two, so nothing is sent until it is reset."""
    client = make_client()
    path = client._latch.path
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(LoginLatchedError, match=r"damaged.*upcall login --reset") as caught:
        client.login()
    assert str(path) in str(caught.value)
    assert (provider.logins, client.login_latch().latched) == (0, True)
    client.reset_login_latch()
    client.login()


def test_a_state_directory_that_cannot_be_written_counts_in_memory(make_client, provider, tmp_path):
    """Without a place to write the client works, and within the process the count holds."""
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    provider.password = "another"
    for _ in range(3):
        with pytest.raises(CredentialsError):
            make_client(state_dir=blocked / "state").login()
    assert provider.logins == 1
    client = make_client(state_dir=blocked / "state")
    client.reset_login_latch()
    provider.password = "canary-password"
    client.login()


def test_a_reset_that_cannot_be_written_says_so(make_client, provider, monkeypatch):
    """Resetting a count that stays as it is must not look like success."""
    client = make_client()
    provider.password = "another"
    with pytest.raises(CredentialsError):
        client.login()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SettingsError, match="No space left on device"):
        client.reset_login_latch()


def test_a_login_kept_waiting_by_another_process_gives_up_within_its_budget(client_test_kit, tmp_path):
    """Somebody else's login that never ends costs no more than the call's own budget."""
    latch = LoginLatch(tmp_path)
    _claim(latch, password="canary-password")
    world = client_test_kit.World(_accept, latch=latch)
    with pytest.raises(Exception, match="another process is logging in"):
        world.run(world.exchange.log_in())
    assert sum(world.waits) <= 61


def _accept(request):
    from upcall.client.answers import Answer

    return Answer(
        status=200,
        body=b'{"access_token": "canary-bearer"}' if "oauth2" in request.url else b'{"sessionToken": "canary-session"}',
    )


_prints = st.sampled_from("abc")
_entries = st.builds(
    lambda refused, pending: Entry(tuple(refused), tuple(Pending(str(n), p, 1, 0.0) for n, p in enumerate(pending))),
    st.lists(_prints, max_size=4),
    st.lists(_prints, max_size=4),
)


@given(entry=_entries, fingerprint=_prints, alive=st.booleans())
def test_a_login_is_free_only_while_fewer_than_two_can_be_refused(entry, fingerprint, alive):
    """Refusals and logins begun, killed ones and the new one included, never exceed two; none is sent again."""
    verdict = decide(entry, fingerprint, is_alive=lambda _: alive)
    in_the_air = entry.pending if alive else ()
    if verdict is Verdict.FREE:
        assert len(entry.refused) + len(entry.pending) + 1 <= MAX_REFUSALS
        assert fingerprint not in entry.refused
        assert all(pending.fingerprint != fingerprint for pending in in_the_air)
    else:
        assert entry.refused or entry.pending


@given(st.lists(st.tuples(_prints, st.sampled_from(["refused", "release"])), max_size=12))
def test_no_run_of_logins_is_refused_more_than_twice(outcomes):
    """However passwords and outcomes follow each other, without a success the provider refuses two at most."""
    entry = Entry()
    for fingerprint, outcome in outcomes:
        if decide(entry, fingerprint, is_alive=lambda _: True) is Verdict.FREE and outcome == "refused":
            entry = Entry((*entry.refused, fingerprint))
    assert len(entry.refused) <= MAX_REFUSALS
    assert len(set(entry.refused)) == len(entry.refused)


def test_a_user_name_that_is_no_text(latch):
    """A variable whose bytes are no UTF-8 has a state too: `upcall whoami` shows it and names the variable."""
    assert latch.state(ROOT, "user\udcff", "wrong\udcff").latched is False
