"""`upcall plan`, `apply` and `guard`, by real processes against a real sandbox."""

import json
import signal
import socket
import time

import pytest

from upcall.redact import mask_url_token

from .terminal import run_on_a_terminal

A, B = "0000123456-00001", "0000123456-00002"
GIVEN = "a-token-of-this-very-test"
TEMPLATE = "https://127.0.0.1:1/callbacks/{token}"
URL = TEMPLATE.replace("{token}", GIVEN)
THEIRS = "https://127.0.0.1:2/theirs"
NAMES = ("client_id", "client_secret", "username", "password")


def tables(names, *, sets=()):
    """Write accounts, called for by these sets of credentials in turn."""
    text = ""
    for number, name in enumerate(names):
        text += f'[[accounts]]\nname = "{name}"\nurl = "{TEMPLATE}"\n'
        text += f'credentials = "{sets[number % len(sets)]}"\n' if sets else ""
    references = "".join(f'{name}_env = "FLEET_{name.upper()}"\n' for name in NAMES)
    return text + "".join(f"[credentials.{which}]\n{references}" for which in sets)


class Site:
    """Be a sandbox, and the commands of one who looks after its accounts."""

    def __init__(self, upcall):
        self.upcall = upcall
        self.sandbox = upcall.start("sandbox", "--port", "0").wait_until_ready()
        upcall.environment |= {f"THINGSPACE_{name.upper()}": "sandbox" for name in NAMES}
        upcall.environment |= {f"FLEET_{name.upper()}": "sandbox" for name in NAMES}
        upcall.environment |= {"THINGSPACE_BASE_URL": self.sandbox.url, "UPCALL_TOKENS": GIVEN}
        self.config = upcall.directory / "upcall.toml"
        self.config.write_text(tables([A, B]))

    def run(self, *words):
        """Run a command, and return its exit code and its documents by account."""
        ended = self.upcall.run(*words, "--json")
        assert "Traceback" not in ended.stderr
        documents = [json.loads(line) for line in ended.stdout.splitlines()]
        return ended.returncode, {document["account"]: document for document in documents}

    def steal(self, account, url=THEIRS):
        assert self.upcall.run("callbacks", "register", account, "--url", url, "--replace").returncode == 0

    def logins(self):
        """Count the logins that the sandbox has seen: it logs a line a request."""
        return self.sandbox.errors.read_text().count("/session/login")


@pytest.fixture
def site(upcall):
    return Site(upcall)


def test_from_a_plan_to_an_order_that_stays(site):
    """Plan, apply, theft, guard and its way back, each with the exit code that a script goes by."""
    assert site.run("plan")[0] == 1
    code, said = site.run("apply", "--yes")
    assert (code, {one["outcome"] for one in said.values()}) == (0, {"done"})
    assert site.run("plan")[0] == 0
    code, said = site.run("guard", "--once")
    assert (code, said[A]["state"], said[A]["registered"]) == (0, "in_order", URL)

    site.steal(A)
    code, said = site.run("guard", "--once")
    assert (code, said[A]["state"], said[A]["registered"], said[B]["state"]) == (1, "drifted", THEIRS, "in_order")
    assert site.run("guard", "--once")[0] == 1
    code, said = site.run("apply", "--yes")
    assert (code, said[A]["outcome"], said[B]["outcome"]) == (1, "refused", "none")
    code, said = site.run("guard", "--once", "--reassert")
    assert (code, said[A]["state"], said[A]["registered"], said[A]["taken_back"]) == (0, "in_order", URL, True)
    assert site.run("plan")[0] == 0
    listed = site.upcall.run("events", "list", "--json").stdout.splitlines()
    events = [json.loads(one["raw"]) for one in map(json.loads, listed) if one["origin"] == "guard"]
    assert [event["state"] for event in events] == ["drifted", "in_order"]


def test_a_provider_that_is_away_is_exit_4(site):
    """What could not be read is neither in order nor drift."""
    site.sandbox.end()
    site.upcall.environment |= {"UPCALL_MAX_RETRIES": "0"}
    assert site.run("plan")[0] == 4
    assert site.run("apply", "--yes")[0] == 4
    code, said = site.run("guard", "--once")
    assert (code, said[A]["state"], said[A]["registered"]) == (4, "unread", None), "nobody takes it for in order"


def test_without_a_terminal_apply_wants_yes(site):
    """Nothing is written by a script that did not say so."""
    ended = site.upcall.run("apply")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "To go ahead: --yes" in ended.stderr


def test_five_hundred_accounts_by_two_sets_of_credentials(site):
    """A whole fleet is read in one bar, with one login a set, and in the file's order."""
    names = [f"0000123456-{number:05}" for number in range(500)]
    site.config.write_text(tables(names, sets=("east", "west")))
    code, data, seen = run_on_a_terminal(["plan", "--json"], site.upcall.environment, site.upcall.directory)
    assert code == 1
    assert [json.loads(line)["account"] for line in data.splitlines()] == names
    assert "reading" in seen
    assert "/500" in seen
    assert site.logins() == 2


def test_the_guard_tells_changes_and_ends_at_once(site):
    """One line a change on stdout while it runs, and a signal ends it."""
    assert site.run("apply", "--yes")[0] == 0
    guard = site.upcall.start("guard", "--every", "1", "--json")
    site.upcall.until(lambda: "watching 2 accounts" in guard.errors.read_text())
    site.steal(B)
    change = json.loads(guard.next_line())
    assert (change["account"], change["from"], change["to"]) == (B, "in_order", "drifted")
    assert change["registered"] == mask_url_token(THEIRS), "what a server prints ends in a log"
    site.steal(B, URL)
    assert json.loads(guard.next_line())["to"] == "in_order"
    assert guard.end() == 0
    assert GIVEN not in guard.errors.read_text()


def test_a_guard_ends_while_the_provider_is_silent(site):
    """A provider that takes the connection and says nothing holds up nobody who stops the guard."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        site.upcall.environment |= {"THINGSPACE_BASE_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/api"}
        guard = site.upcall.start("guard")
        connection, _ = silent.accept()
        began = time.monotonic()
        assert guard.end(signal.SIGTERM) == 0
        took = time.monotonic() - began
        connection.close()
    assert took < 15  # a second, on a machine without other work


def test_a_guard_without_credentials_does_not_begin(site):
    """A service that can never look says which variables are missing, and exits as for wrong settings."""
    for name in NAMES:
        del site.upcall.environment[f"THINGSPACE_{name.upper()}"]
    ended = site.upcall.run("guard")
    assert ended.returncode == 2
    assert "THINGSPACE_CLIENT_ID" in ended.stderr


def test_a_mistyped_store_is_not_made(site):
    """A guard beside a store that nobody uses would watch nothing: one that is named has to be there."""
    mistyped = site.upcall.directory / "mistyped" / "inbox.db"
    for command in (("guard", "--once"), ("apply", "--yes")):
        ended = site.upcall.run(*command, "--store", f"sqlite:///{mistyped}")
        assert ended.returncode == 3
        assert "there is no store at" in ended.stderr
    assert not mistyped.parent.exists()
