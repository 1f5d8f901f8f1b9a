"""What a call tells while it runs, and what neither the log nor a hook ever sees."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from upcall.client import CallEvent
from upcall.client.events import Observer, shown_headers
from upcall.redact import BLANK
from upcall.settings import Credentials

ACCOUNT = "0000123456-00001"
URL = "https://host/canary-url-token"


@pytest.fixture
def events():
    return []


@pytest.fixture
def told(make_client, events):
    """A client whose events land in `events`."""
    return make_client(event_hooks=[events.append])


def test_a_hook_hears_each_step_of_a_call(told, events, provider):
    """Tokens, requests, waits and answers come in order, with the facts of each."""
    provider.script.extend([(503, b"", {"X-Request-Id": "r-1"}), (200, {"url": URL})])
    told.callbacks.list_registered_callbacks(ACCOUNT)
    kinds = [event.kind for event in events if event.operation == "list_registered_callbacks"]
    assert kinds == ["sent", "answered", "waiting", "sent", "answered"]
    assert [event.kind for event in events if event.kind in {"token_fetched", "logged_in"}] == [
        "token_fetched",
        "logged_in",
    ]
    answered = next(event for event in events if event.status == 503)
    assert (answered.request_id, answered.attempt, answered.method) == ("r-1", 1, "GET")
    assert answered.url.endswith(f"/fota/v2/callbacks/{ACCOUNT}")
    waiting = next(event for event in events if event.kind == "waiting")
    assert (waiting.reason, waiting.wait_seconds) == ("status 503", told.waits[0])


def test_lost_answers_and_dead_tokens_are_told(told, events, provider):
    """A lost answer, the reading back after it, a dropped token and a refused login each have their event."""
    told.login()
    provider.script.append(httpx2.ReadTimeout("x"))
    told.callbacks.register_callback(ACCOUNT, {"url": "https://host/x"})
    provider.kill_session()
    told.callbacks.list_registered_callbacks(ACCOUNT)
    kinds = {event.kind for event in events}
    assert kinds >= {"lost", "read_back", "token_dropped"}
    assert next(event for event in events if event.kind == "token_dropped").reason == "session token"


def test_a_refused_login_is_told(told, events, provider):
    """The event of a refused login has its status."""
    provider.password = "another"
    with pytest.raises(Exception, match="login"):
        told.login()
    assert [event.status for event in events if event.kind == "login_refused"] == [401]


def test_a_hook_that_raises_breaks_no_call(make_client, caplog):
    """A mistake in a hook is logged with its trace, and the call goes on."""

    def broken(event):
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR, "upcall.client"):
        assert make_client(event_hooks=[broken]).callbacks.list_registered_callbacks(ACCOUNT).url
    assert "ZeroDivisionError" in caplog.text
    assert "event hook" in caplog.text


async def test_the_async_client_tells_the_same(make_async_client, events):
    """Hooks are called in the event loop."""
    async with make_async_client(event_hooks=[events.append]) as client:
        await client.callbacks.list_registered_callbacks(ACCOUNT)
    assert [event.kind for event in events][-2:] == ["sent", "answered"]


def test_the_log_tells_what_happens_by_level(client, provider, caplog):
    """Requests at DEBUG, tokens at INFO, waits at WARNING; the event hangs on the record for structured logs."""
    provider.script.append(503)
    with caplog.at_level(logging.DEBUG, "upcall.client"):
        client.callbacks.list_registered_callbacks(ACCOUNT)
    levels = {record.call_event.kind: record.levelname for record in caplog.records}
    assert levels["sent"] == levels["answered"] == "DEBUG"
    assert levels["token_fetched"] == levels["logged_in"] == "INFO"
    assert levels["waiting"] == "WARNING"
    assert all(isinstance(record.call_event, CallEvent) for record in caplog.records)
    assert "list_registered_callbacks waiting: GET http://localhost/api/fota/v2/callbacks/" in caplog.text


def test_nothing_secret_is_told(told, events, provider, caplog):
    """Headers outside the allow-list, bodies, tokens, and secrets that an answer echoes stay out."""
    echo = {"X-Request-Id": "canary-session-1 canary-secret", "Set-Cookie": "id=1", "Server": "canary-bearer-1"}
    provider.script.append((200, {"url": URL}, echo))
    with caplog.at_level(logging.DEBUG):
        told.callbacks.register_callback(ACCOUNT, {"url": URL})
    assert "canary" not in caplog.text + repr(events)
    sent = next(event for event in events if event.method == "POST" and event.operation == "register_callback")
    assert sent.headers["authorization"] == sent.headers["vz-m2m-token"] == BLANK
    assert sent.headers["accept"] == "application/json"


def test_a_device_in_a_query_is_not_told(told, events, provider):
    """A page of devices is asked for by the last one's identifier, which is personal data."""
    provider.script.append((200, {}))
    told.software_management_reports_v2.get_campaign_device_status(ACCOUNT, "c", "990013907835573")
    assert "990013907835573" not in repr(events)


def test_a_device_in_a_path_is_told_by_its_last_digits(told, events, provider, caplog):
    """A device's history is asked for under its identifier, of which hooks and our log see the last four digits."""
    provider.script.append((200, []))
    with caplog.at_level(logging.DEBUG, "upcall.client"):
        told.software_management_reports_v2.get_device_firmware_upgrade_history(ACCOUNT, "990013907835573")
    logged = [record.getMessage() for record in caplog.records if record.name == "upcall.client"]
    assert "990013907835573" in str(provider.calls[-1].url)
    assert "990013907835573" not in repr(events) + repr(logged)
    assert events[-1].url.endswith("/devices/…5573")


def test_headers_are_shown_by_an_allow_list():
    """A header that nobody thought of is blanked, not shown."""
    shown = shown_headers({"Content-Type": "a", "X-New-Secret": "s", "AUTHORIZATION": "b", "Retry-After": "1"})
    assert shown == {"content-type": "a", "x-new-secret": BLANK, "authorization": BLANK, "retry-after": "1"}


def test_our_secrets_are_blanked_in_the_logs_of_the_libraries_below(client, provider, caplog):
    """What httpx2, its core or the HTTP/2 library log of our headers goes through a filter."""
    client.login()
    with caplog.at_level(logging.DEBUG):
        for name in ("httpx2", "httpcore2.http11", "hpack.hpack"):
            logging.getLogger(name).debug("Adding %s", b"Bearer canary-bearer-1")
            logging.getLogger(name).debug("nothing of ours")
    assert "canary" not in caplog.text
    assert caplog.text.count(BLANK) == 3
    assert caplog.text.count("nothing of ours") == 3


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        ("bearer-1", "Adding xy ***2"),
        ("canary-bearer", "Adding xy ***2"),
        ("canary-bearer-12", "Adding xy ***"),
        ("xy canary", "Adding ***2"),
    ],
)
def test_a_secret_that_overlaps_with_another_client_s_leaves_none_of_it(make_client, caplog, other, shown):
    """Where one client's secret is a part of another's, or shares some of it, the log shows neither's rest."""
    gc.collect()  # clients of other tests have secrets of their own
    clients = [
        make_client(credentials=Credentials(client_id="i", client_secret=secret, username="u", password="p"))
        for secret in (other, "canary-bearer-1") * 5  # asked for their secrets in no order
    ]
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("httpx2").debug("Adding xy canary-bearer-12")
    assert (caplog.messages, len(clients)) == ([shown], 10)


def test_clients_may_be_made_while_a_library_below_logs(caplog):
    """A client that a thread makes never breaks the filter over another thread's log."""
    done = threading.Event()

    def log():
        while not done.is_set():
            logging.getLogger("httpcore2.http11").debug("something")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with caplog.at_level(logging.DEBUG, "httpcore2.http11"), ThreadPoolExecutor(1) as pool:
            noise = pool.submit(log)
            made = [Observer((), tuple) for _ in range(3_000)]
            done.set()
            noise.result()
    finally:
        sys.setswitchinterval(interval)
    assert len(made) == 3_000


def test_a_client_with_an_unusable_secret_does_not_break_the_log_of_others(make_client):
    """The filter over the libraries' logs asks every client for its secrets, also one that can never call."""
    unusable = make_client(credentials=Credentials(client_id="i", client_secret="\udcff", username="u", password="p"))
    make_client().callbacks.list_registered_callbacks(ACCOUNT)
    logging.getLogger("httpcore2.http11").warning("something")
    assert unusable.base_url
