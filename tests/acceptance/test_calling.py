"""The commands that call the provider, as processes, against a sandbox: many accounts, settings, kept tokens, logs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from .terminal import run_on_a_terminal

ACCOUNT = "0000123456-00001"
URL = "https://fleet.example.com:50559/callbacks/a"
OTHER = "https://fleet.example.com:50559/callbacks/b"
FLEET = [f"0000123456-{number:05}" for number in range(200)]


@pytest.fixture
def sandbox(upcall):
    """Start a sandbox and point every command of `upcall` at it."""
    server = upcall.start("sandbox", "--port", "0").wait_until_ready()
    names = ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD")
    upcall.environment |= {"THINGSPACE_BASE_URL": server.url} | {f"THINGSPACE_{name}": "sandbox" for name in names}
    return server


@pytest.fixture
def logins(sandbox):
    """Count the logins that the sandbox has seen: it logs a line a request."""
    return lambda: sandbox.errors.read_text().count("/session/login")


@pytest.fixture
def command(upcall, sandbox):
    """Run a command to its end and return its exit code, its JSON lines, and its stderr."""

    def run(*words, **environment):
        ended = upcall.run(*words, "--json", **environment)
        return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()], ended.stderr

    return run


def test_ten_runs_in_a_row_log_in_once(command, logins):
    """With a token store one login serves ten commands, and `whoami` says until when."""
    for _ in range(10):
        assert command("callbacks", "show", ACCOUNT, UPCALL_TOKEN_STORE="1")[0] == 0
    assert logins() == 1
    _, (document,), _ = command("whoami", UPCALL_TOKEN_STORE="1")
    assert [(token["kind"], token["origin"]) for token in document["tokens"]] == [
        ("bearer", "store"),
        ("session", "store"),
    ]
    assert all(token["ends_at"].endswith("Z") for token in document["tokens"])
    assert command("whoami")[1][0]["tokens"] == []


def test_ten_runs_at_once_log_in_once(upcall, sandbox, logins):
    """Ten commands that start together share one login too: nine wait for the tenth, and use its session."""
    environment = upcall.environment | {"UPCALL_TOKEN_STORE": "yes"}
    words = [sys.executable, "-m", "upcall", "callbacks", "show", ACCOUNT]
    running = [
        subprocess.Popen(words, env=environment, cwd=upcall.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(10)
    ]
    ended = [(process.communicate(timeout=200), process.returncode) for process in running]
    assert [code for _, code in ended] == [0] * 10, ended
    assert logins() == 1


def test_login_looks_anew_and_keeps_what_it_got(command, logins):
    """`upcall login` is asked whether the credentials are right, so a session on disk does not answer for it."""
    for expected in (1, 2):
        code, (document,), _ = command("login", UPCALL_TOKEN_STORE="1")
        assert (code, document["session"], logins()) == (0, "issued", expected)
    command("callbacks", "show", ACCOUNT, UPCALL_TOKEN_STORE="1")
    assert logins() == 2


def _settings(upcall, text):
    (upcall.directory / "upcall.toml").write_text(text)


def test_two_hundred_accounts_of_a_settings_file(upcall, command, logins):
    """`--all` takes every account of upcall.toml: register, show, in the file's order, with one login a command."""
    _settings(upcall, "".join(f'[[accounts]]\nname = "{name}"\nurl = "{URL}-{name}"\n' for name in FLEET))
    code, lines, stderr = command("callbacks", "register", "--all")
    assert (code, stderr) == (0, "")
    assert [line["account"] for line in lines] == FLEET
    assert {line["displaced"] for line in lines} == {None}
    code, lines, _ = command("callbacks", "show", "--all")
    urls = {name: f"{URL}-{name}" for name in FLEET}
    assert (code, lines) == (
        0,
        [{"account": name, "url": url, "desired": url, "in_order": True} for name, url in urls.items()],
    )
    assert logins() == 2


def test_several_accounts_of_which_one_is_taken(command):
    """An account with another URL is left alone and named; the others are registered; the answer is no."""
    assert command("callbacks", "register", "b", "--url", OTHER)[0] == 0
    code, lines, stderr = command("callbacks", "register", "a", "b", "c", "--url", URL)
    assert code == 1
    assert {line["account"]: line["registered"] for line in lines} == {"a": True, "b": False, "c": True}
    assert f"{OTHER} is registered for b" in stderr
    code, lines, _ = command("callbacks", "register", "a", "b", "c", "--url", URL, "--replace")
    assert (code, [line["displaced"] for line in lines]) == (0, [None, OTHER, None])
    code, lines, _ = command("callbacks", "update", "a", "b", "--url", OTHER)
    assert (code, [line["displaced"] for line in lines]) == (0, [URL, URL])
    code, lines, _ = command("callbacks", "deregister", "a", "b", "c", "--yes")
    assert (code, [line["displaced"] for line in lines]) == (0, [OTHER, OTHER, URL])


def test_accounts_with_credentials_of_their_own(upcall, command):
    """An account calls with the table that it names; `whoami` and `login` go through each of them."""
    (upcall.directory / "secret").write_text("sandbox\n")
    table = "".join(f'{name}_file = "secret"\n' for name in ("client_id", "client_secret", "username"))
    _settings(
        upcall,
        f'[[accounts]]\nname = "a"\ncredentials = "east"\n[[accounts]]\nname = "b"\ncredentials = "west"\n'
        f'[credentials.east]\n{table}password_env = "EAST"\n[credentials.west]\n{table}password_env = "WEST"\n',
    )
    passwords = {"EAST": "sandbox", "WEST": "wrong", "THINGSPACE_PASSWORD": "not used"}
    code, (good, bad), _ = command("callbacks", "show", "--all", **passwords)
    assert (code, good) == (4, {"account": "a", "url": None})
    assert bad["error"]["kind"] == "CredentialsError"
    code, (east, west), _ = command("whoami", **passwords)
    assert (code, east["name"], west["name"]) == (0, "east", "west")
    assert (east["accounts"], east["credentials"]["password"]) == (["a"], "EAST")
    code, lines, stderr = command("login", **passwords)
    assert (code, [line["credentials"] for line in lines]) == (4, ["east"])
    assert "(credentials west)" in stderr
    assert "Check secret and WEST" in stderr or "(secret, WEST)" in stderr, "each is named where it is read from"
    shown = upcall.run("whoami", **(passwords | {"EAST": ""}))
    assert "EAST (not set)" in shown.stdout
    assert "a call still needs EAST." in shown.stderr
    missing = upcall.run("callbacks", "show", "a", **(passwords | {"EAST": ""}))
    assert missing.returncode == 2
    assert "Credentials are missing: EAST. [credentials.east] of the settings file" in missing.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["show"], "No account is given."),
        (["show", "--all"], "there is no upcall.toml here"),
        (["show", "--all", "--config", "else.toml"], "no settings file else.toml"),
        (["show", "a", "--all", "--config", "one.toml"], "both given"),
        (["register", "--all", "--config", "one.toml"], "no URL for a"),
        (["register", "--all", "--config", "token.toml"], "upcall apply fills it in"),
        (["register", "--all", "--config", "wrong.toml"], "wrong.toml is wrong at line 2: there is no `nam` in"),
        (["register", "a", "--url", "http://host/x"], "not https"),
        (["register", "a", "--url", "http://127.0.0.1:8080/x"], "--allow-http admits http to this machine"),
        (["show", "a", "--max-concurrency", "0"], "--max-concurrency"),
    ],
)
def test_what_is_missing_is_said_before_any_call(upcall, sandbox, words, complaint):
    """A mistake in the words or the settings ends with 2, one line, and nothing sent."""
    (upcall.directory / "one.toml").write_text('[[accounts]]\nname = "a"\n')
    (upcall.directory / "token.toml").write_text('[[accounts]]\nname = "a"\nurl = "https://host.example/{token}"\n')
    (upcall.directory / "wrong.toml").write_text('[[accounts]]\nnam = "a"\n')
    ended = upcall.run("callbacks", *words)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert complaint in ended.stderr
    assert "POST" not in sandbox.errors.read_text()


def test_progress_is_shown_on_a_terminal_and_only_there(upcall, sandbox):
    """A bar on stderr counts the accounts where a person looks on; stdout is data alone."""
    words = ["callbacks", "show", *FLEET[:40], "--json"]
    code, data, seen = run_on_a_terminal(words, upcall.environment, upcall.directory)
    assert code == 0
    assert "reading" in seen
    assert "/40" in seen
    assert [json.loads(line)["account"] for line in data.splitlines()] == FLEET[:40]


def test_logs_go_where_the_environment_wants_them(upcall, sandbox):
    """UPCALL_LOG sends them to stderr, UPCALL_LOG_FILE to a file, and neither shows a secret or a body."""
    quiet = upcall.run("callbacks", "register", ACCOUNT, "--url", URL)
    assert quiet.stderr == ""
    told = upcall.run("callbacks", "show", ACCOUNT, UPCALL_LOG="debug", UPCALL_LOG_FILE="calls.log")
    assert "list_registered_callbacks answered: GET" in told.stderr
    assert "list_registered_callbacks answered: GET" in (upcall.directory / "calls.log").read_text()
    assert "callbacks/a" not in told.stderr.replace("fota/v2/callbacks/", "")
    assert upcall.run("whoami", UPCALL_LOG="loud").returncode == 2
    assert upcall.run("whoami", UPCALL_LOG_FILE="none/calls.log").returncode == 2
