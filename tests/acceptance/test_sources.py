"""Who sent a callback, as a real listener tells it."""

import pytest

from upcall.thingspace import CALLBACK_SOURCES

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
    ],
)
def test_settings_that_make_a_check_meaningless(upcall, words, says):
    """What would trust or refuse everybody is refused at the start, in one line that says what to do."""
    ended = upcall.run("listen", "--port", "0", "--store", upcall.store, *words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert says in ended.stderr
    assert ended.stderr.count("\n") == 1
