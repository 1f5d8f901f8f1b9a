"""``upcall callbacks``, ``login`` and ``whoami``: output, exit codes, and what they refuse."""

from __future__ import annotations

import json
from functools import partial

import httpx2
import pytest

import upcall.client
from upcall.cli.main import run

ACCOUNT = "0000123456-00001"
OLD, NEW = "https://host/old", "https://host/new"


@pytest.fixture
def registered(provider, monkeypatch, client_test_kit):
    """Answer as one account's registration does; the dict holds it under "url"."""
    state = {"url": None}

    def api(request):
        if request.method == "DELETE":
            state["url"] = None
            return httpx2.Response(200, json={"success": state.get("success", True)})
        if request.method in {"POST", "PUT"}:
            state["url"] = state.get("stolen") or json.loads(request.content)["url"]
            return httpx2.Response(200, json=json.loads(request.content))
        if "refused" in request.url.path:
            return httpx2.Response(400, json={"errorCode": "INVALID_PARAMETER", "errorMessage": "Inactive account"})
        return httpx2.Response(200, json={"url": state["url"]} if state["url"] else None)

    provider.script.extend([api] * 20)
    credentials = client_test_kit.CREDENTIALS
    for name in ("client_id", "client_secret", "username", "password"):
        monkeypatch.setenv(f"THINGSPACE_{name.upper()}", getattr(credentials, name))
    monkeypatch.setenv("THINGSPACE_BASE_URL", client_test_kit.BASE_URL)
    made = partial(upcall.client.ThingSpaceClient, transport=httpx2.MockTransport(provider))
    monkeypatch.setattr(upcall.client, "ThingSpaceClient", made)
    return state


@pytest.fixture
def command(registered, capsys):
    """Run a command and return its exit code, the lines of its stdout, and its stderr."""

    def call(*words):
        code = run([*words])
        captured = capsys.readouterr()
        assert "canary" not in captured.out + captured.err
        assert "Traceback" not in captured.err
        return code, captured.out.splitlines(), captured.err

    return call


def _json(lines):
    return [json.loads(line) for line in lines]


def test_show_with_none_registered_is_0_and_null(command):
    """Nothing registered is an answer, not an error."""
    code, lines, _ = command("callbacks", "show", ACCOUNT, "--json")
    assert (code, _json(lines)) == (0, [{"account": ACCOUNT, "url": None}])
    code, lines, _ = command("callbacks", "show", ACCOUNT)
    assert (code, lines[1]) == (0, f"{ACCOUNT}  none registered")


def test_one_account_that_fails_does_not_stop_the_rest(command, registered):
    """Every account has its line, in order, and the exit code says that one failed."""
    registered["url"] = OLD
    code, lines, stderr = command("callbacks", "show", "a", "refused", "b", "--json")
    first, second, third = _json(lines)
    assert (code, first, third) == (4, {"account": "a", "url": OLD}, {"account": "b", "url": OLD})
    assert second["account"] == "refused"
    assert second["error"]["error_code"] == "INVALID_PARAMETER"
    assert "upcall: refused: ThingSpace answered" in stderr
    code, lines, _ = command("callbacks", "show", "refused", "b")
    assert (code, len(lines)) == (4, 2)


def test_register_reads_writes_and_reads_back(command, registered, provider):
    """A registration where there was none says what stands now."""
    code, lines, _ = command("callbacks", "register", ACCOUNT, "--url", NEW)
    assert (code, lines, registered["url"]) == (0, [f"{ACCOUNT}  {NEW}"], NEW)
    assert [request.method for request in provider.calls] == ["GET", "POST", "GET"]


def test_register_over_another_url_needs_replace(command, registered):
    """The URL that stands there is named and left alone, unless --replace is given."""
    registered["url"] = OLD
    code, lines, stderr = command("callbacks", "register", ACCOUNT, "--url", NEW)
    assert (code, lines, registered["url"]) == (1, [], OLD)
    assert OLD in stderr
    assert "--replace" in stderr
    code, lines, _ = command("callbacks", "register", ACCOUNT, "--url", NEW, "--json")
    assert (code, _json(lines)) == (1, [{"account": ACCOUNT, "url": OLD, "registered": False}])
    code, lines, _ = command("callbacks", "register", ACCOUNT, "--url", NEW, "--replace", "--json")
    assert (code, _json(lines)) == (0, [{"account": ACCOUNT, "url": NEW, "registered": True, "displaced": OLD}])


def test_register_of_the_same_url_is_fine(command, registered):
    """Doing it twice is doing it once."""
    registered["url"] = NEW
    code, lines, _ = command("callbacks", "register", ACCOUNT, "--url", NEW, "--json")
    assert (code, _json(lines)[0]["displaced"]) == (0, None)


def test_a_write_that_does_not_stand_is_said(command, registered):
    """When another URL is read back, the answer is no."""
    registered["stolen"] = "https://thief/x"
    code, _, stderr = command("callbacks", "register", ACCOUNT, "--url", NEW)
    assert code == 1
    assert "https://thief/x is registered" in stderr


def test_update_prints_what_it_displaced(command, registered):
    """The URL that loses its place is named."""
    registered["url"] = OLD
    code, lines, _ = command("callbacks", "update", ACCOUNT, "--url", NEW)
    assert (code, lines) == (0, [f"{ACCOUNT}  {NEW}, in place of {OLD}"])
    code, lines, _ = command("callbacks", "update", ACCOUNT, "--url", OLD, "--json")
    assert (code, _json(lines)) == (0, [{"account": ACCOUNT, "url": OLD, "displaced": NEW}])


def test_deregister_asks_or_takes_yes(command, registered, monkeypatch):
    """Without a terminal it needs --yes; on one it asks, and no leaves the URL alone."""
    registered["url"] = OLD
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    code, _, stderr = command("callbacks", "deregister", ACCOUNT)
    assert (code, registered["url"]) == (2, OLD)
    assert "--yes" in stderr
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    code, _, stderr = command("callbacks", "deregister", ACCOUNT)
    assert (code, registered["url"]) == (1, OLD)
    assert OLD in stderr
    code, lines, _ = command("callbacks", "deregister", ACCOUNT, "--yes")
    assert (code, lines, registered["url"]) == (0, [f"{ACCOUNT}  none registered, in place of {OLD}"], None)
    registered["success"] = False
    code, lines, _ = command("callbacks", "deregister", ACCOUNT, "--yes", "--json")
    assert (code, _json(lines)) == (1, [{"account": ACCOUNT, "success": False, "displaced": None}])


@pytest.mark.parametrize(
    "words",
    [
        ("show", ""),
        ("register", ACCOUNT, "--url", "http://localhost/x"),
        ("register", ACCOUNT, "--url", "http://192.0.2.1/x", "--allow-http"),
        ("update", "..", "--url", NEW),
        ("deregister", " ", "--yes"),
        ("register", ACCOUNT),
    ],
)
def test_what_cannot_be_right_is_usage(command, provider, words):
    """A local check ends with exit code 2 and one clear line, before any login."""
    code, lines, stderr = command("callbacks", *words)
    assert (code, lines, stderr.count("\n"), provider.requests) == (2, [], 1, [])


def test_allow_http_admits_this_machine(command, registered):
    """A sandbox may be given a plain http listener on loopback."""
    code, _, _ = command("callbacks", "register", ACCOUNT, "--url", "http://127.0.0.1:1/x", "--allow-http")
    assert (code, registered["url"]) == (0, "http://127.0.0.1:1/x")


def test_login_says_what_was_accepted(command, provider):
    """Both tokens are fetched once."""
    code, lines, _ = command("login", "--json")
    assert (code, _json(lines)[0]["session"], provider.logins) == (0, "issued", 1)
    assert command("login")[:2] == (0, ["http://localhost/api accepts the client id and the login."])


def test_login_with_a_given_session_token_sends_no_login(command, provider, monkeypatch):
    """A session token that was given is neither checked nor replaced, and that is said."""
    monkeypatch.setenv("THINGSPACE_SESSION_TOKEN", "canary-session")
    code, lines, _ = command("login")
    assert (code, provider.logins) == (0, 0)
    assert "not checked" in lines[0]


def test_a_refused_login_is_4_and_latched_until_reset(command, provider):
    """The second try is refused here, whoami shows it, and --reset logs in anew."""
    provider.password = "another"
    assert command("login")[0] == 4
    code, _, stderr = command("login")
    assert (code, provider.logins) == (4, 1)
    assert "upcall login --reset" in stderr
    state = _json(command("whoami", "--json")[1])[0]["login_latch"]
    assert (state["refusals"], state["latched"]) == (1, True)
    assert "with this password" in state["reason"]
    provider.password = "canary-password"
    assert command("login", "--reset")[0] == 0
    assert _json(command("whoami", "--json")[1])[0]["login_latch"]["refusals"] == 0


def test_whoami_names_sources_and_no_secret(command, provider, monkeypatch, tmp_path):
    """Which credentials are set, from which variable, what is missing, and nothing of their values."""
    monkeypatch.delenv("THINGSPACE_PASSWORD")
    (tmp_path / "password").write_text("canary-password")
    monkeypatch.setenv("THINGSPACE_PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.delenv("THINGSPACE_CLIENT_SECRET")
    code, lines, stderr = command("whoami")
    assert (code, provider.requests) == (0, [])
    assert any(line.split() == ["password", "THINGSPACE_PASSWORD_FILE"] for line in lines)
    assert "still needs THINGSPACE_CLIENT_SECRET" in stderr
    document = _json(command("whoami", "--json")[1])[0]
    assert document["credentials"]["client_secret"] is None
    assert document["missing"] == ["THINGSPACE_CLIENT_SECRET"]


def test_missing_credentials_are_usage(command, monkeypatch):
    """A command without credentials names the variables."""
    monkeypatch.delenv("THINGSPACE_PASSWORD")
    code, _, stderr = command("callbacks", "show", ACCOUNT)
    assert code == 2
    assert "THINGSPACE_PASSWORD" in stderr
