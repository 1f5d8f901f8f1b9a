"""The admin port's answers, asked without a server, over a real store."""

import asyncio
import json
import logging
import os
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from upcall.errors import StoreError
from upcall.inbox import Arrival, Outcome, Subscription, Trust, open_inbox
from upcall.listener.admin import FIGURES_SECONDS, Admin, _on_disk
from upcall.listener.metrics import subscriber_label
from upcall.listener.stats import ListenerState, ListenerStats
from upcall.version import __version__

SECOND = 1_000_000
NOW = 1_800_000_000
IMEI = "990013907835573"


class Place:
    """Hold an admin, what it is told, and its clocks.

    Args:
        url: The store.
    """

    def __init__(self, url):
        self.url = url
        self.stats = ListenerStats()
        self.state = ListenerState()
        self.monotonic = 0.0
        self.opened = 0
        self.may_open = threading.Event()
        self.may_open.set()
        self.admin = Admin(
            self.stats,
            self._open,
            state=lambda: self.state,
            now=lambda: NOW,
            monotonic=lambda: self.monotonic,
            patience_seconds=20.0,
        )

    def _open(self):
        self.opened += 1
        assert self.may_open.wait(20)
        return open_inbox(self.url)

    async def scrape(self, method="GET"):
        """Return every sample, by its name and the values of its labels."""
        status, content_type, body = await self.admin.respond(method, "/metrics")
        assert status == 200
        assert content_type.startswith("text/plain; version=")
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }


@pytest.fixture
async def place(inbox):
    made = Place(inbox.url)
    yield made
    made.may_open.set()
    await made.admin.aclose()


async def test_health_is_the_process(place):
    """While the process lives /healthz says so, whatever else is wrong."""
    place.state = ListenerState(draining=True, can_keep=False, store="gone")
    assert await place.admin.respond("GET", "/healthz") == (200, "text/plain; charset=utf-8", b"ok\n")


@pytest.mark.parametrize(
    ("state", "status", "document"),
    [
        (ListenerState(), 200, {"ready": True, "spooling": False, "draining": False, "store": "ok"}),
        (
            ListenerState(spooling=True, store="locked"),
            200,
            {"ready": True, "spooling": True, "draining": False, "store": "locked"},
        ),
        (ListenerState(draining=True), 503, {"ready": False, "spooling": False, "draining": True, "store": "ok"}),
        (
            ListenerState(spooling=True, can_keep=False, store="full"),
            503,
            {"ready": False, "spooling": True, "draining": False, "store": "full"},
        ),
    ],
)
async def test_readiness(place, state, status, document):
    """A listener is ready while it can keep callbacks, in the spool too, and not while it drains."""
    place.state = state
    answered, content_type, body = await place.admin.respond("GET", "/readyz")
    assert (answered, content_type, json.loads(body)) == (status, "application/json", document)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/readyz?verbose", 200),
        ("GET", "/callbacks/whatever", 404),
        ("GET", "/metrics/", 404),
        ("GET", "", 404),
        ("POST", "/healthz", 405),
        ("DELETE", "/nothing", 405),
    ],
)
async def test_what_is_not_there(place, method, path, status):
    """Only the listed paths are answered, with or without a query, and only to GET and HEAD."""
    assert (await place.admin.respond(method, path))[0] == status


async def test_head_is_answered_as_get_is(place):
    """HEAD tells what GET would; leaving the body out is the server's."""
    for path in ("/", "/healthz", "/readyz", "/nothing"):
        assert await place.admin.respond("HEAD", path) == await place.admin.respond("GET", path)
    assert (await place.admin.respond("HEAD", "/metrics"))[0] == 200


async def test_the_list_of_paths_is_true(place):
    """Each path that the root lists is answered."""
    _, _, body = await place.admin.respond("GET", "/")
    for path in body.decode().split():
        assert (await place.admin.respond("GET", path))[0] == 200


async def test_every_counter_is_shown(place):
    """What the listener counted is what Prometheus reads, refusals by their reason."""
    counters = {
        "received": "upcall_received_total",
        "acknowledged": "upcall_acknowledged_total",
        "duplicates": "upcall_duplicates_total",
        "spooled": "upcall_spooled_total",
        "quarantined": "upcall_quarantined_total",
        "unlisted": "upcall_unlisted_total",
        "cut_short": "upcall_cut_short_total",
    }
    reasons = {
        "unknown_token": "unknown_token",
        "too_large": "too_large",
        "bad_request": "bad_request",
        "timed_out": "timeout",
        "refused_source": "source",
        "capped": "connection_cap",
        "not_stored": "not_stored",
        "quota": "quarantine_full",
        "busy": "busy",
    }
    for number, counter in enumerate([*counters, *reasons], 1):
        setattr(place.stats, counter, number)
    samples = await place.scrape()
    found = [samples[name,] for name in counters.values()]
    found += [samples["upcall_refused_total", reason] for reason in reasons.values()]
    assert found == list(range(1, len(found) + 1))


async def test_histograms_add_up(place):
    """A histogram's buckets are cumulative, and its sum and count are those of what was observed."""
    for seconds, rows in ((0.0004, 1), (0.003, 3), (99.0, 9000)):
        place.stats.observe_commit(seconds, rows)
        place.stats.observe_answer(seconds)
    samples = await place.scrape()
    for name in ("commit_seconds", "answer_seconds"):
        assert [samples[f"upcall_{name}_bucket", bound] for bound in ("0.0005", "0.0025", "0.005", "10.0", "+Inf")] == [
            1, 1, 2, 2, 3,
        ]  # fmt: skip
        assert samples[f"upcall_{name}_sum",] == pytest.approx(99.0034)
        assert samples[f"upcall_{name}_count",] == 3
    assert samples["upcall_commit_rows_bucket", "4.0"] == 2
    assert samples["upcall_commit_rows_sum",] == 9004


async def test_how_the_listener_stands(place):
    """The spool's depth, the connections, readiness, uptime and the version are there to alert on."""
    place.state = ListenerState(
        spooling=True,
        spool_records=5,
        spool_bytes=600,
        draining=True,
        connections=7,
        uptime_seconds=8.5,
        quarantine_limit_bytes=900,
    )
    samples = await place.scrape()
    assert samples["upcall_spooling",] == 1
    assert samples["upcall_spool_records",] == 5
    assert samples["upcall_spool_bytes",] == 600
    assert samples["upcall_ready",] == 0
    assert samples["upcall_connections",] == 7
    assert samples["upcall_uptime_seconds",] == 8.5
    assert samples["upcall_quarantine_limit_bytes",] == 900
    assert samples["upcall_build_info", __version__] == 1
    assert samples["process_open_fds",] > 0


async def test_how_far_each_subscriber_is(place, inbox):
    """What is unread, waits, failed, or was given up is shown for each subscriber, with the age of the oldest."""
    bodies = [json.dumps({"campaignId": f"c{number}"}).encode() for number in range(3)]
    for number, body in enumerate(bodies):
        inbox.append([Arrival(body=body, received_at=(NOW - 100 + number) * SECOND)])
    inbox.subscribe(["early", "late"], NOW * SECOND)
    inbox.enroll([Subscription("early", lambda event: [""])], NOW * SECOND)
    first, *_ = inbox.claim(["early"], "owner", NOW * SECOND, lease_seconds=60, limit=2)
    inbox.settle([Outcome(first.id, "dead", error="no")], "owner", NOW * SECOND)
    samples = await place.scrape()
    assert samples["upcall_subscriber_unread", "early"] == 0
    assert samples["upcall_subscriber_pending", "early"] == 2  # the leased one is not done either
    assert samples["upcall_subscriber_dead", "early"] == 1
    assert samples["upcall_subscriber_oldest_seconds", "early"] == 99
    assert samples["upcall_subscriber_done_total", "early"] == 0
    assert samples["upcall_subscriber_failed_total", "early"] == 1
    assert samples["upcall_subscriber_unread", "late"] == 3
    assert samples["upcall_subscriber_oldest_seconds", "late"] == 100
    assert samples["upcall_oldest_undone_seconds",] == 100


def test_a_store_behind_a_link(tmp_path):
    """A link to a store shows the figures of the store, its log included."""
    target = tmp_path / "big disk" / "inbox.db"
    target.parent.mkdir()
    with open_inbox(str(target), create=True) as inbox:
        inbox.append([Arrival(body=b"x" * 10_000, received_at=1)])
        link = tmp_path / "inbox.db"
        link.symlink_to(target)
        size, room = _on_disk(f"sqlite:///{link}")
        assert size == target.stat().st_size + target.with_name("inbox.db-wal").stat().st_size
        assert room == pytest.approx(os.statvfs(target).f_bavail * os.statvfs(target).f_frsize, rel=0.5)


async def test_what_lies_on_the_disk(place, inbox):
    """The store's size with its log, the room beside it, and what the quarantine holds are there to alert on."""
    inbox.append([Arrival(body=b"x" * 1000, received_at=1, trust=Trust.QUARANTINED, evidence="the body is not JSON")])
    samples = await place.scrape()
    path = inbox.path
    assert samples["upcall_store_bytes",] == path.stat().st_size + path.with_name(path.name + "-wal").stat().st_size
    room = os.statvfs(path)
    assert samples["upcall_store_free_bytes",] == pytest.approx(room.f_bavail * room.f_frsize, rel=0.5)
    assert samples["upcall_quarantine_bytes",] == 1000
    assert samples["upcall_store_up",] == 1
    assert samples["upcall_oldest_undone_seconds",] == 0


async def test_the_last_callback_is_known_after_a_restart(place, inbox):
    """When the last callback came is told by the listener, and by the store where the listener has had none yet."""
    assert ("upcall_last_received_timestamp_seconds",) not in await place.scrape()
    inbox.append([Arrival(body=b"1", received_at=7 * SECOND)])
    place.monotonic += FIGURES_SECONDS
    assert (await place.scrape())["upcall_last_received_timestamp_seconds",] == 7
    place.stats.last_received_at = 9 * SECOND
    assert (await place.scrape())["upcall_last_received_timestamp_seconds",] == 9


async def test_the_store_is_read_now_and_then(place):
    """Scrapes close together share one reading of the store, and see the listener's own figures as they are."""
    await place.scrape()
    place.stats.acknowledged = 5
    place.monotonic += FIGURES_SECONDS - 0.1
    assert (await place.scrape())["upcall_acknowledged_total",] == 5
    assert place.opened == 1
    place.monotonic += 0.1
    await place.scrape()
    assert place.opened == 2


async def test_scrapes_at_once_share_a_reading(place):
    """However many scrape while the store is slow, it is read once."""
    place.may_open.clear()
    scrapes = [asyncio.create_task(place.scrape()) for _ in range(5)]
    await asyncio.sleep(0)
    place.may_open.set()
    assert [(await scrape)["upcall_store_up",] for scrape in scrapes] == [1] * 5
    assert place.opened == 1


async def test_a_store_that_is_slow_costs_no_scrape(place):
    """A store that does not answer in time leaves its figures out, and its next scrape finds what was read since."""
    place.admin._patience_seconds = 0.01
    place.may_open.clear()
    samples = await place.scrape()
    assert samples["upcall_store_up",] == 0
    assert ("upcall_received_total",) in samples
    assert ("upcall_quarantine_bytes",) not in samples
    place.may_open.set()
    await place.admin.aclose()
    assert (await place.scrape())["upcall_store_up",] == 1
    assert place.opened == 1


@pytest.mark.parametrize("damage", ["gone", "not SQLite"])
async def test_a_store_that_fails_costs_no_scrape(place, inbox, damage, caplog):
    """A store that cannot be read leaves its figures out, says so once, and is read again when it is back."""
    path = inbox.path
    inbox.close()
    kept = path.read_bytes()
    path.unlink()
    if damage == "not SQLite":
        path.write_bytes(b"no database " * 100)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            samples = await place.scrape()
            assert samples["upcall_store_up",] == 0
            assert ("upcall_store_bytes",) not in samples
            place.monotonic += FIGURES_SECONDS
    assert len([record for record in caplog.records if "metrics go without" in record.message]) == 1
    path.write_bytes(kept)
    assert (await place.scrape())["upcall_store_up",] == 1


async def test_a_writer_holds_no_scrape_up(place, inbox):
    """The figures are read while another process holds the store's write lock, at once."""
    inbox._connection.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    samples = await place.scrape()
    inbox._connection.rollback()
    assert samples["upcall_store_up",] == 1
    assert time.monotonic() - started < 5


async def test_a_failure_that_is_no_store_error_is_one_too():
    """A factory that fails in a way that nobody foresaw leaves the figures out like any other."""

    def broken():
        raise RuntimeError("unforeseen")

    admin = Admin(ListenerStats(), broken, state=ListenerState)
    status, _, body = await admin.respond("GET", "/metrics")
    assert status == 200
    assert b"upcall_store_up 0.0" in body


async def test_no_label_tells_what_is_private(place, inbox):
    """Neither a device, an account, a token nor a URL stands in what is scraped."""
    body = json.dumps({"accountName": "0000123456-00001", "campaignId": "c-77", "deviceList": [{"deviceId": IMEI}]})
    inbox.append([Arrival(body=body.encode(), received_at=1, token_id="f00dfeedbeef", account="0000123456-00001")])
    names = [
        "forward:https://user:pw@hooks.example.com/in/s3cret-capability?key=s3cret",
        "forward-raw:http://[::1/s3cret",
        "exec:/usr/local/bin/notify --password s3cret",
        "exec: ",
        "jsonl:/var/lib/acme-s3cret/events.jsonl",
    ]
    inbox.subscribe(names, 1)
    inbox.enroll([Subscription(names[2], lambda event: [device.device_id for device in event.devices])], 1)
    _, _, answer = await place.admin.respond("GET", "/metrics")
    for private in (IMEI, "0000123456", "c-77", "f00dfeedbeef", "s3cret", "://", "user:pw", "/in/"):
        assert private not in answer.decode()
    assert 'upcall_subscriber_unread{subscriber="forward:hooks.example.com#' in answer.decode()


def test_a_label_is_stable_and_tells_subscribers_apart():
    """A handler's label is its name; an address's is short, the same each time, and not another's."""
    assert subscriber_label("handlers.on_progress") == "handlers.on_progress"
    one, other = (f"forward:https://hooks.example.com/{path}" for path in "ab")
    assert subscriber_label(one) == subscriber_label(one) != subscriber_label(other)
    assert subscriber_label("exec:/usr/bin/notify --now").startswith("exec:notify#")
    assert subscriber_label("jsonl:/var/log/events.jsonl").startswith("jsonl:events.jsonl#")


async def test_a_locked_store_is_a_store_error():
    """The store's own errors are taken as what they are: no figures, a scrape all the same."""

    def locked():
        raise StoreError("store x is locked by another process.", hint="Try again.")

    _, _, body = await Admin(ListenerStats(), locked, state=ListenerState).respond("GET", "/metrics")
    assert b"upcall_store_up 0.0" in body
