"""Who sent a callback, and whose it may be, as a real listener tells it."""

import os
from urllib.parse import urlsplit

import pytest

from upcall.thingspace import CALLBACK_SOURCES

from .conftest import TOKEN
from .sockets import Connection, post

LISTED = CALLBACK_SOURCES.values[0]
STRANGER = "198.51.100.1"


def sent(upcall, listener, *forwarded):
    """Send a callback and return the status, and what is known of its source."""
    body = b'{"number": %d}' % len(sent.__dict__.setdefault("all", []))
    sent.all.append(body)
    with Connection(listener.port) as connection:
        status = connection.ask(post(body, *(f"X-Forwarded-For: {line}" for line in forwarded)))
    newest = upcall.json("events", "list", "--limit", "1")
    if status != 200:
        return status, None, None
    (shown,) = upcall.json("events", "show", str(newest[-1]["id"]))
    assert shown["raw"].encode() == body
    (delivery,) = shown["received"]
    assert delivery["peer"] == "127.0.0.1"
    return status, delivery["source"], delivery["listed"]


def test_a_forged_header_is_nothing(upcall):
    """Without a trusted proxy the TCP peer is the source, whatever the header claims."""
    listener = upcall.listen()
    assert sent(upcall, listener, LISTED)[2] is None
    (shown,) = upcall.json("events", "show", "1")
    assert LISTED not in str(shown)


def test_behind_a_proxy_the_source_is_kept_and_flagged(upcall):
    """Behind a trusted proxy its word is kept with each callback; an unlisted source is flagged, and not refused."""
    listener = upcall.listen("--trusted-proxy", "127.0.0.1")
    assert sent(upcall, listener, LISTED) == (200, LISTED, True)
    assert sent(upcall, listener, LISTED, STRANGER) == (200, STRANGER, False)
    assert sent(upcall, listener, f"{LISTED}, garbage")[::2] == (200, False)


def test_refusing_what_is_not_listed(upcall):
    """Told to refuse, the listener answers 403 to all but listed sources, and keeps nothing of it."""
    listener = upcall.listen("--trusted-proxy", "127.0.0.1", "--refuse-unlisted")
    assert sent(upcall, listener, f"{STRANGER}, {LISTED}") == (200, LISTED, True)
    assert sent(upcall, listener, f"{LISTED}, {STRANGER}")[0] == 403
    assert sent(upcall, listener)[0] == 403
    assert len(upcall.json("events", "list")) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--trusted-proxy", "0.0.0.0/0"), "anybody could forge a source"),
        (("--trusted-proxy", "proxy.example"), "no address and no network"),
        (("--refuse-unlisted",), "would refuse every callback"),
        (("--refuse-unlisted", "--host", "::1"), "would refuse every callback"),
        (("--token", "short"), "at least 16 characters"),
        (("--admin", "\u00b2"), "no HOST:PORT"),
        (("--config", "none.toml"), "There is no settings file none.toml"),
        (("--config", os.devnull), "names no account"),
        (("--account", "A-1", "--token", f"A-2={TOKEN}"), "account A-1 is expected, and each token names another one"),
        (("--tls-key", "key.pem"), "plain HTTP would be spoken. Name the certificate"),
        (("UPCALL_TOKENS=",), "UPCALL_TOKENS holds no token. Write TOKEN"),
        (("UPCALL_TOKENS=,",), "UPCALL_TOKENS holds no token"),
        (("UPCALL_TOKENS_FILE=",), "UPCALL_TOKENS_FILE holds no token"),
        ((f"UPCALL_TOKENS_FILE={os.devnull}",), f"names {os.devnull}, which holds no token"),
    ],
)
def test_settings_that_make_a_check_meaningless(upcall, words, says):
    """What would trust or refuse everybody is refused at the start, in one line that says what to do."""
    variables = dict(word.split("=") for word in words if word.startswith("UPCALL_"))
    words = [word for word in words if not word.startswith("UPCALL_")]
    ended = upcall.run("listen", "--port", "0", "--store", upcall.store, *words, **variables)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert says in ended.stderr
    assert ended.stderr.count("\n") == 1


def trust(upcall, listener, *accounts):
    """Send a callback of each account, and return what is thought of it."""
    with Connection(listener.port) as connection:
        for account in accounts:
            assert connection.ask(post(b'{"accountName": "%s"}' % account.encode())) == 200
    return {record["account"]: record["trust"] for record in upcall.json("events", "list")}


def test_the_accounts_of_a_settings_file(upcall):
    """With `--config` the file's accounts and those of `--account` are accepted, and all others go into quarantine."""
    (upcall.directory / "fleet.toml").write_text('[[accounts]]\nname = "A-1"\n\n[[accounts]]\nname = "A-2"\n')
    listener = upcall.listen("--config", "fleet.toml", "--account", "A-3")
    told = trust(upcall, listener, "A-1", "A-2", "A-3", "A-4")
    assert told == {"A-1": "accepted", "A-2": "accepted", "A-3": "accepted", "A-4": "quarantined"}


def test_an_account_that_is_added(upcall):
    """After a restart with one account more, the URL that was registered for the first goes on, for both."""
    words = ("listen", "--port", "0", "--store", upcall.store, "--account", "A-1")
    listener = upcall.start(*words).wait_until_ready()
    path = urlsplit(listener.url).path
    assert listener.end() == 0
    listener = upcall.start(*words, "--account", "A-2").wait_until_ready()
    assert urlsplit(listener.url).path == path
    with Connection(listener.port) as connection:
        for number in (1, 2, 3):
            assert connection.ask(post(b'{"accountName": "A-%d"}' % number, path=path)) == 200
    told = {record["account"]: record["trust"] for record in upcall.json("events", "list")}
    assert told == {"A-1": "accepted", "A-2": "accepted", "A-3": "quarantined"}


def test_a_settings_file_that_lies_about_is_nothing(upcall):
    """Without `--config` every account is accepted, whatever file lies here or stands in the environment."""
    file = upcall.directory / "upcall.toml"
    file.write_text('[[accounts]]\nname = "A-1"\n')
    upcall.environment["UPCALL_CONFIG"] = str(file)
    assert trust(upcall, upcall.listen(), "A-1", "A-2") == {"A-1": "accepted", "A-2": "accepted"}
