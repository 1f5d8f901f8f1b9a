"""``upcall plan``, ``apply`` and ``callbacks show``: output, exit codes, and what they refuse."""

from __future__ import annotations

import json

import pytest

import upcall.client
from upcall.cli.main import run
from upcall.inbox import open_inbox

A, B, C = "0000123456-00001", "0000123456-00002", "0000123456-00003"
TOKEN = "token-of-this-very-test"
TEMPLATE = "https://127.0.0.1:1/callbacks/{token}"
URL = TEMPLATE.replace("{token}", TOKEN)
THEIRS = "https://another.example:50559/callbacks"
FLEET = f"""
[[accounts]]
name = "{A}"
url = "{TEMPLATE}"
labels = ["east", "lab"]

[[accounts]]
name = "{B}"
url = "{TEMPLATE}"
credentials = "west"
labels = ["west"]

[[accounts]]
name = "{C}"

[credentials.west]
client_id_env = "THINGSPACE_CLIENT_ID"
client_secret_env = "THINGSPACE_CLIENT_SECRET"
username_env = "THINGSPACE_USERNAME"
password_env = "THINGSPACE_PASSWORD"
"""


@pytest.fixture
def sandbox(thingspace_sandbox, monkeypatch, tmp_path):
    """A ThingSpace that every command of this test calls, a settings file, and no token but the given one."""
    for name in ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"THINGSPACE_{name}", "sandbox")
    monkeypatch.setenv("UPCALL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("UPCALL_TOKENS", TOKEN)
    monkeypatch.setenv("THINGSPACE_BASE_URL", "http://127.0.0.1/api")
    monkeypatch.delenv("UPCALL_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "upcall.toml").write_text(FLEET)

    def make(**options):
        return thingspace_sandbox.client(max_retries=0, **options)

    monkeypatch.setattr(upcall.client, "ThingSpaceClient", make)
    return thingspace_sandbox


@pytest.fixture
def command(sandbox, capsys):
    """Run a command and return its exit code, the lines of its stdout, and its stderr."""

    def call(*words):
        code = run([*words])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out.splitlines(), captured.err

    return call


@pytest.fixture
def documents(command):
    def call(*words):
        code, lines, stderr = command(*words, "--json")
        return code, {document["account"]: document for document in map(json.loads, lines)}, stderr

    return call


def stands(sandbox, account=A):
    with sandbox.client() as client:
        return client.callbacks.list_registered_callbacks(account).url


def test_plan_shows_what_differs_and_writes_nothing(command, documents, sandbox):
    """A line an account in JSON, a table of what differs for a person, exit 1 where anything does."""
    sandbox.register(B, THEIRS)
    code, said, stderr = documents("plan")
    assert code == 1
    assert said[A] == {
        "account": A,
        "action": "register",
        "registered": None,
        "desired": URL,
        "ours": False,
        "differs": True,
        "note": None,
        "error": None,
        "credentials": None,
        "labels": ["east", "lab"],
    }
    assert (said[B]["action"], said[B]["registered"], said[B]["credentials"]) == ("replace", THEIRS, "west")
    assert (said[C]["action"], said[C]["differs"]) == ("none", False)
    assert "1 of 3 accounts in order" in stderr
    code, lines, _ = command("plan")
    assert [line.split()[:2] for line in lines] == [
        ["ACCOUNT", "ACTION"],
        [A, "register"],
        [B, "replace"],
        [C, "none"],
    ]
    assert (stands(sandbox, A), stands(sandbox, B)) == (None, THEIRS)


def test_a_plan_needs_no_store_and_makes_none(command, tmp_path):
    """Who only looks leaves nothing behind, and where nothing differs it says so with 0."""
    assert command("plan", "--label", "east")[0] == 1
    assert not (tmp_path / "state" / "inbox.db").exists()
    assert command("apply", "--label", "east", "--yes")[0] == 0
    code, lines, stderr = command("plan", "--label", "east")
    assert (code, lines) == (0, [])
    assert "1 account, all in order." in stderr


def test_a_plan_that_cannot_read_an_account_exits_4(documents, sandbox):
    """What is not known is not in order, and it is not the plan's no either."""
    sandbox.set_faults(A, server_error=1.0)
    code, said, stderr = documents("plan")
    assert (code, said[A]["action"], said[B]["action"]) == (4, "unknown", "register")
    assert said[A]["error"]["status_code"] in {500, 502, 503}
    assert f"upcall: {A}: " in stderr


def test_a_template_without_a_token_says_what_to_do(documents, monkeypatch):
    """Where neither a store nor the environment has a token, no URL can be made: that is a no, with the way out."""
    monkeypatch.delenv("UPCALL_TOKENS")
    code, said, stderr = documents("plan")
    assert (code, said[A]["action"], said[A]["desired"]) == (1, "unknown", None)
    assert "upcall listen --config" in stderr
    code, said, _ = documents("apply", "--yes")
    assert (code, said[A]["outcome"]) == (1, "refused")


def test_apply_makes_it_so_and_can_be_repeated(documents, command, sandbox):
    """Each account is written by its own credentials and read back; a second run writes nothing."""
    code, said, _ = documents("apply", "--yes")
    assert (code, said[A]["outcome"], said[B]["outcome"], said[C]["outcome"]) == (0, "done", "done", "none")
    assert (said[A]["stands"], stands(sandbox, B)) == (URL, URL)
    code, said, _ = documents("apply", "--yes")
    assert (code, {document["outcome"] for document in said.values()}) == (0, {"none"})
    code, _, stderr = command("apply", "--yes")
    assert code == 0
    assert "3 accounts, all in order." in stderr


def test_apply_leaves_what_is_not_ours_without_replace(documents, command, sandbox):
    """The other account is written all the same, the refusal is named, and the exit code says so."""
    sandbox.register(B, THEIRS)
    code, said, stderr = documents("apply", "--yes")
    assert (code, said[A]["outcome"], said[B]["outcome"]) == (1, "done", "refused")
    assert said[B]["error"]["kind"] == "refused"
    assert "To take its place: --replace" in stderr
    code, lines, _ = command("apply", "--yes", "--replace")
    assert code == 0
    assert lines[-1] == f"{B}  {URL}, in place of {THEIRS}"


def test_apply_asks_and_no_is_no(command, sandbox, monkeypatch):
    """On a terminal it shows the plan and asks; without one it needs --yes."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    code, lines, stderr = command("apply")
    assert (code, lines) == (2, [])
    assert "--yes" in stderr
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda text, **_: asked.append(text))
    code, lines, stderr = command("apply")
    assert (code, stands(sandbox), asked) == (1, None, ["Register 2?"])
    assert "Nothing was written" in stderr
    assert [line.split()[:2] for line in lines[1:3]] == [[A, "register"], [B, "register"]]
    monkeypatch.setattr("typer.confirm", lambda text, **_: True)
    assert command("apply")[0] == 0


def test_apply_refuses_on_what_is_certain_and_warns_of_the_rest(documents, sandbox, tmp_path):
    """A URL that is not https is refused before any write; one that this machine cannot reach is a warning."""
    code, said, stderr = documents("apply", "--yes", "--label", "east")
    assert (code, said[A]["outcome"]) == (0, "done")
    assert f"upcall: warning: connect of {A}" in stderr
    (tmp_path / "upcall.toml").write_text(FLEET.replace("https://127", "http://127"))
    code, said, stderr = documents("apply", "--yes", "--label", "east")
    assert (code, said[A]["outcome"], stands(sandbox)) == (1, "refused", URL)
    assert "https" in said[A]["error"]["message"]


def test_strict_refuses_on_what_only_this_machine_sees(documents, sandbox):
    """With --strict nothing is written that could not be reached from here."""
    code, said, _ = documents("apply", "--yes", "--strict")
    assert (code, said[A]["outcome"], stands(sandbox)) == (1, "refused", None)


def test_apply_that_fails_for_one_exits_4_and_does_the_rest(documents, sandbox):
    """The provider's trouble with one account weighs more than a no, and is that account's alone."""
    sandbox.set_faults(A, server_error=1.0)
    code, said, _ = documents("apply", "--yes")
    assert (code, said[A]["outcome"], said[B]["outcome"]) == (4, "failed", "done")
    assert said[A]["error"]["kind"] == "AnsweredError"


def test_prune_takes_away_what_left_the_file(documents, command, sandbox, tmp_path):
    """Only --prune deregisters, only what we registered, and never beside a choice of accounts."""
    assert documents("apply", "--yes")[0] == 0
    alone = FLEET.replace(f'name = "{A}"', 'name = "0000123456-00009"')
    (tmp_path / "upcall.toml").write_text(alone)
    assert A not in documents("plan")[1]
    code, said, _ = documents("plan", "--prune")
    assert (code, said[A]["action"], said[A]["desired"]) == (1, "deregister", None)
    assert command("plan", "--prune", "--label", "west")[0] == 2
    assert command("apply", B, "--prune", "--yes")[0] == 2
    code, said, _ = documents("apply", "--prune", "--yes")
    assert (code, said[A]["outcome"], stands(sandbox)) == (0, "done", None)
    assert documents("apply", "--prune", "--yes")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plan", "0000999999-00001"), "does not list the account"),
        (("plan", "--label", "nowhere"), "its labels are east, lab, west"),
        (("plan", "--config", "none.toml"), "There is no settings file"),
        (("plan", "--store", "sqlite:////nowhere/inbox.db"), "nowhere/inbox.db"),
    ],
)
def test_what_cannot_be_meant_is_an_error_of_usage(command, words, said):
    """A wrong account, label, file or store is named, and nothing is called."""
    code, lines, stderr = command(*words)
    assert code in {2, 3}
    assert lines == []
    assert said in stderr


def test_without_a_settings_file_it_is_said_where_desires_stand(command, tmp_path):
    """Somebody who has not read the documents is told about [[accounts]]."""
    (tmp_path / "upcall.toml").unlink()
    code, _, stderr = command("plan")
    assert code == 2
    assert "[[accounts]]" in stderr


def test_tokens_come_from_the_store_where_none_are_given(documents, monkeypatch, tmp_path):
    """What a listener generated is what is registered."""
    from upcall.inbox import TokenRecord

    monkeypatch.delenv("UPCALL_TOKENS")
    store = f"sqlite:///{tmp_path / 'other.db'}"
    with open_inbox(store, create=True) as inbox:
        inbox.add_token(TokenRecord("the-token-of-a-listener", (A, B, C)), 1)
    _, said, _ = documents("plan", "--store", store)
    assert said[A]["desired"] == TEMPLATE.replace("{token}", "the-token-of-a-listener")


def test_show_says_whether_each_slot_is_as_desired(documents, command, sandbox):
    """`callbacks show --all` reads every slot, and compares those that the file gives a URL."""
    sandbox.register(A, URL)
    sandbox.register(B, THEIRS)
    sandbox.register(C, THEIRS)
    code, said, _ = documents("callbacks", "show", "--all")
    assert code == 0
    assert said[A] == {"account": A, "url": URL, "desired": URL, "in_order": True}
    assert said[B] == {"account": B, "url": THEIRS, "desired": URL, "in_order": False}
    assert said[C] == {"account": C, "url": THEIRS}
    _, lines, _ = command("callbacks", "show", "--all")
    assert [line.split()[-1] for line in lines] == ["DESIRED", "yes", "no", THEIRS]
    _, lines, _ = command("callbacks", "show", C)
    assert lines[0].split() == ["ACCOUNT", "URL"]


def test_show_without_a_token_does_not_know(documents, monkeypatch):
    """Where the desired URL cannot be made, nothing is said of it, and what stands is shown."""
    monkeypatch.delenv("UPCALL_TOKENS")
    _, said, _ = documents("callbacks", "show", A)
    assert said[A] == {"account": A, "url": None, "desired": None, "in_order": None}


def test_one_login_a_set_of_credentials(sandbox, command, monkeypatch):
    """Each set has one client, and so one session, however many accounts it calls for."""
    made = []
    make = upcall.client.ThingSpaceClient

    def counted(**options):
        made.append(options["credentials"])
        return make(**options)

    monkeypatch.setattr(upcall.client, "ThingSpaceClient", counted)
    command("plan")
    assert len(made) == 2


def test_the_history_tells_who_wrote_what(command, sandbox):
    """The audit is for people: what stood, what stands, by which command of whom, and how it ended."""
    sandbox.register(B, THEIRS)
    assert command("apply", "--yes", "--replace")[0] == 0
    code, lines, _ = command("callbacks", "history", B, "--json")
    begun, ended = map(json.loads, lines)
    assert (code, begun["outcome"], ended["outcome"]) == (0, "begun", "done")
    assert (ended["by"], ended["action"], ended["before"], ended["after"]) == ("apply", "replace", THEIRS, URL)
    assert "@" in ended["who"]
