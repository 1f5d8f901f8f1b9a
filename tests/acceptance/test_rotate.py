"""`upcall rotate` and `upcall outages`, by real processes."""

import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from upcall.inbox import Uptime, open_inbox

ACCOUNT = "0000123456-00001"
SANDBOX = {f"THINGSPACE_{name}": "sandbox" for name in ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD")}


def control(sandbox, path):
    with urllib.request.urlopen(sandbox.url.removesuffix("/api") + path, timeout=200) as answer:
        return json.load(answer)


class Site:
    """Be a sandbox, a listener with a token of its own, and a settings file that names both."""

    def __init__(self, upcall, faults="drop=0"):
        self.upcall = upcall
        options = ("--port", "0", "--allow-http", "--speed", "60", "--seed", "7", "--quiet", "--faults", faults)
        self.sandbox = upcall.start("sandbox", *options).wait_until_ready()
        words = ("listen", "--port", "0", "--store", upcall.store, "--account", ACCOUNT)
        self.listener = upcall.start(*words).wait_until_ready()
        self.config = upcall.directory / "fleet.toml"
        url = self.listener.url.rpartition("/")[0] + "/{token}"
        self.config.write_text(f'[[accounts]]\nname = "{ACCOUNT}"\nurl = "{url}"\n')

    def run(self, *words):
        return self.upcall.run(
            *words,
            "--config",
            str(self.config),
            **SANDBOX,
            THINGSPACE_BASE_URL=self.sandbox.url,
            UPCALL_ALLOW_HTTP="1",
        )

    def documents(self, *words, code=0):
        ended = self.run(*words, "--json")
        assert ended.returncode == code, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]

    def registered(self):
        (shown,) = self.documents("callbacks", "show", ACCOUNT)
        return shown["url"]

    def registers_by_hand(self, account):
        """List an account without a URL, and give it the listener's."""
        with self.config.open("a") as file:
            file.write(f'[[accounts]]\nname = "{account}"\n')
        self.run("callbacks", "register", account, "--url", self.listener.url)

    def rotate(self, *words, code=0):
        return self.documents("rotate", "--store", self.upcall.store, *words, code=code)


def test_a_rotation_under_load(upcall):
    """While a campaign reports, and the old URL is still used, every try is answered 200 and everything is stored."""
    site = Site(upcall, "stale_listener=1,refuse_once=0.1")
    before = site.listener.url
    assert site.run("callbacks", "register", ACCOUNT, "--url", before).returncode == 0
    with ThreadPoolExecutor() as pool:
        words = ("simulate", "--account", ACCOUNT, "--devices", "300", "--hours", "0.25")
        simulated = pool.submit(upcall.run, *words, **SANDBOX, THINGSPACE_BASE_URL=site.sandbox.url)
        upcall.until(lambda: len(control(site.sandbox, "/_sandbox/deliveries")) > 60)
        token, account, end = site.rotate()
        assert simulated.result().returncode == 0
    assert token["listeners"] == 1
    assert (account["outcome"], account["url"]) == ("done", site.registered())
    assert account["url"] != before
    assert end["done"]
    upcall.until(lambda: all(each["next_at"] is None for each in control(site.sandbox, "/_sandbox/deliveries")), 60)
    messages = control(site.sandbox, "/_sandbox/deliveries")
    tries = [attempt for message in messages for attempt in message["attempts"]]
    assert {attempt["status"] for attempt in tries} == {200}
    assert len({attempt["url"] for attempt in tries}) == 2
    assert len(upcall.json("events", "list", "--limit", "0")) == len(messages)


def test_the_old_token_is_retired_by_the_listener(upcall):
    """Once its time is over the old URL is refused, with nobody doing anything."""
    site = Site(upcall)
    old = site.listener.url
    site.run("callbacks", "register", ACCOUNT, "--url", old)
    site.rotate("--keep", "1s")
    upcall.until(lambda: _status(old) == 404, 30)
    assert _status(site.registered()) == 200


def _status(url):
    try:
        with urllib.request.urlopen(url, timeout=100) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_slot_that_is_somebody_elses_is_left_alone(upcall):
    """A rotation takes nobody's place: it says so, exits 1, and the old token ends all the same."""
    site = Site(upcall)
    theirs = "http://127.0.0.1:9/theirs"
    site.run("callbacks", "register", ACCOUNT, "--url", theirs)
    _, account, end = site.rotate(code=1)
    assert (account["outcome"], account["url"]) == ("refused", theirs)
    assert end["done"]
    assert site.registered() == theirs


def test_an_old_token_in_a_slot_that_the_file_does_not_fill(upcall):
    """An account that has the old token registered by hand keeps it from ending, and is named."""
    site = Site(upcall)
    site.run("callbacks", "register", ACCOUNT, "--url", site.listener.url)
    other = "0000123456-00002"
    site.registers_by_hand(other)
    *_, end = site.rotate(code=1)
    assert not end["done"]
    assert _status(site.listener.url) == 200
    assert f"{other} has the old token registered" in site.run("rotate", "--store", upcall.store).stderr
    site.run("callbacks", "register", other, "--url", site.registered(), "--replace")
    assert site.rotate()[-1]["done"]


def test_an_account_that_is_no_longer_ours_is_left_out(upcall):
    """Whoever says so by name need not wait for an account that will never be read, or put right."""
    site = Site(upcall)
    site.run("callbacks", "register", ACCOUNT, "--url", site.listener.url)
    gone = "0000123456-00002"
    site.registers_by_hand(gone)
    assert not site.rotate(code=1)[-1]["done"]
    assert site.rotate("--without-account", gone)[-1]["done"]


def test_a_provider_that_fails_leaves_the_old_token_live(upcall):
    """Where ThingSpace could not be told, exit 4, and the next run goes on with the same token."""
    site = Site(upcall)
    site.run("callbacks", "register", ACCOUNT, "--url", site.listener.url)
    other = site.sandbox.url.replace(str(site.sandbox.port), "9")
    ended = site.upcall.run(
        "rotate", "--config", str(site.config), "--store", upcall.store, "--json", **SANDBOX,
        THINGSPACE_BASE_URL=other, UPCALL_ALLOW_HTTP="1", UPCALL_MAX_RETRIES="0",
    )  # fmt: skip
    assert ended.returncode == 4
    assert json.loads(ended.stdout.splitlines()[-1]) == {"done": False, "old_accepted_until": None}
    token, account, end = site.rotate()
    assert (token["resumed"], account["outcome"], end["done"]) == (True, "done", True)


@pytest.mark.parametrize("where", ["environment", "listener"])
def test_given_tokens_are_rotated_by_hand(upcall, where):
    """Tokens that were given to this process, or to a listener that runs, are not the store's to change."""
    (upcall.directory / "fleet.toml").write_text(
        f'[[accounts]]\nname = "{ACCOUNT}"\nurl = "https://fleet.example.com/callbacks/{{token}}"\n'
    )
    more = {"UPCALL_TOKENS": "a-token-of-the-operator"} if where == "environment" else {}
    upcall.listen()
    upcall.until(lambda: _uptimes(upcall))
    ended = upcall.run("rotate", "--config", "fleet.toml", "--store", upcall.store, **SANDBOX, **more)
    assert ended.returncode == 2
    assert "given" in ended.stderr
    assert "NEW,OLD" in ended.stderr


def _uptimes(upcall):
    with open_inbox(upcall.store) as inbox:
        return inbox.uptimes()


def test_an_outage_that_goes_on(upcall):
    """A listener that was killed shows within seconds, with the tries that are left, and the command exits 1."""
    listener = upcall.listen()
    upcall.until(lambda: _uptimes(upcall))
    listener.kill()
    now = time.time_ns() // 1000
    with open_inbox(upcall.store) as inbox:
        (uptime,) = inbox.uptimes()
        inbox.beat(Uptime(listener=uptime.listener, began_at=now - 9 * 10**8, last_at=now - 6 * 10**8))
    ended = upcall.run("outages", "--store", upcall.store, "--json")
    outage, profile = map(json.loads, ended.stdout.splitlines())
    assert ended.returncode == 1
    assert (outage["current"], outage["to"], outage["attempts_left"], outage["lost"]) == (True, None, 1, [])
    assert (profile["profile"], profile["attempts"]) == ("documented", 4)
    assert upcall.run("outages", "--store", upcall.store, "--since", "1m").returncode == 1, "it began before that"
    said = upcall.run("outages", "--store", upcall.store).stdout
    assert "No listener NOW" in said
    assert "ThingSpace has at least 1 try left" in said
    assert "nothing is lost. Type: upcall listen" in said


def test_a_listener_that_comes_back_ends_the_outage(upcall):
    """Between the end of one listener and the beginning of the next lies a window, which loses nothing if short."""
    upcall.listen().end()
    upcall.listen()
    (outage, _), code = _looked(upcall)
    assert (outage["kind"], outage["current"], outage["lost"], code) == ("away", False, [], 0)
    assert outage["seconds"] < 30


def test_a_store_that_never_had_a_listener(upcall):
    """Nothing is claimed where no heartbeat was kept."""
    with open_inbox(upcall.store, create=True):
        pass
    ended = upcall.run("outages", "--store", upcall.store)
    assert ended.returncode == 0
    assert "nothing is known of outages" in ended.stderr
    assert "No outage" not in ended.stdout


def _looked(upcall):
    upcall.until(lambda: len(_uptimes(upcall)) == 2)
    ended = upcall.run("outages", "--store", upcall.store, "--json")
    return [json.loads(line) for line in ended.stdout.splitlines()], ended.returncode
