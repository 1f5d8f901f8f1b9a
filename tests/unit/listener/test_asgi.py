"""The listener as an ASGI application: what it answers, and what is on disk by then."""

import asyncio
import contextlib
import sqlite3
import time

import pytest

from upcall.errors import StoreError
from upcall.listener import Token, intake

TOKEN = "t" * 20
PATH = f"/callbacks/{TOKEN}"
BODY = b'{"accountName": "0000123456-00001", "type": "upgradeProgress"}'


def stored(inbox):
    return [record.body for record in inbox.callbacks()]


async def until(condition):
    """Wait, for ten seconds at most, until something holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in a thread
            await asyncio.sleep(0.002)


async def ask(app, messages, *, path=PATH, method="POST", **scope):
    """Speak bare ASGI; returns what the application sent."""
    sent = []
    waiting = iter(messages)

    async def receive():
        return next(waiting)

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": method, "path": path, "headers": [], **scope}, receive, send)
    return sent


async def test_acknowledged_only_after_the_commit(client, disk, inbox):
    """The answer leaves when the commit has returned, not before."""
    request = asyncio.ensure_future(client.post(PATH, content=BODY))
    await until(lambda: disk.groups)
    done, _ = await asyncio.wait({request}, timeout=0.05)
    assert not done
    assert stored(inbox) == []
    disk.may_commit.set()
    answer = await request
    assert (answer.status_code, answer.content) == (200, b'{"received":true}')
    assert stored(inbox) == [BODY]


async def test_what_is_kept_beside_the_body(client, disk, inbox, listener):
    """Who sent it, through which token and when are kept, the token itself is not."""
    disk.may_commit.set()
    before = time.time_ns() // 1000
    await client.post(PATH, content=BODY)
    (delivery,) = inbox.deliveries(1)
    assert (delivery.peer, delivery.token_id, delivery.answer) == ("192.0.2.7", Token(TOKEN).id, 200)
    assert before <= delivery.received_at <= time.time_ns() // 1000


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff\xfe\x00\x80", b" " * 1000, b"{" * 900])
async def test_any_body_is_kept_byte_for_byte(client, disk, inbox, listener, body):
    """Nothing that fits is refused for what it says, and not a byte of it changes."""
    disk.may_commit.set()
    assert (await client.post(PATH, content=body)).status_code == 200
    assert stored(inbox) == [body]


async def test_quarantine_is_acknowledged_and_counted(client, disk, inbox, reception):
    """The sender of a body that nobody can read hears the same answer; the store holds why handlers do not see it."""
    disk.may_commit.set()
    assert (await client.post(PATH, content=b"no JSON")).content == b'{"received":true}'
    (record,) = inbox.callbacks()
    assert record.trust == "quarantined"
    assert record.evidence == "the body is not JSON; from an address that is not listed"
    assert (reception.stats.acknowledged, reception.stats.quarantined) == (1, 1)


async def test_copies_are_one_callback(client, disk, inbox, reception):
    """Parallel copies are all acknowledged and are one callback; one of them counts as new."""
    disk.may_commit.set()
    answers = await asyncio.gather(*(client.post(PATH, content=BODY) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert [record.deliveries for record in inbox.callbacks()] == [50]
    assert (reception.stats.acknowledged, reception.stats.new) == (50, 1)


async def test_requests_that_wait_share_a_commit(client, disk, inbox):
    """While one group is on its way to the disk all others gather, and the next commit takes them together."""
    requests = [asyncio.ensure_future(client.post(PATH, content=b"0"))]
    await until(lambda: disk.groups == [1])
    requests += [asyncio.ensure_future(client.post(PATH, content=b"%d" % number)) for number in range(1, 300)]
    await asyncio.wait(requests, timeout=0.2)
    disk.may_commit.set()
    assert {answer.status_code for answer in await asyncio.gather(*requests)} == {200}
    assert disk.commits <= 4
    assert len(stored(inbox)) == 300


@pytest.mark.parametrize("size", [1001, 5000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_cap(client, disk, reception, size, chunked):
    """A body over the cap is refused with 413 however its length is told, and nothing of it is kept."""

    async def chunks():
        for _ in range(size // 77 + 1):
            yield b"x" * 77

    answer = await client.post(PATH, content=chunks() if chunked else b"x" * size)
    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"
    assert (disk.groups, reception.stats.too_large) == ([], 1)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_at_the_cap(client, disk, inbox, chunked):
    """The cap itself still fits, in one piece and in many."""
    disk.may_commit.set()

    async def chunks():
        for _ in range(10):
            yield b"x" * 100

    assert (await client.post(PATH, content=chunks() if chunked else b"x" * 1000)).status_code == 200
    assert stored(inbox) == [b"x" * 1000]


async def test_a_flood_is_not_read_to_its_end(listener):
    """A body far over the cap is answered before it ends: reading on for politeness has a bound."""

    def endless():
        while True:
            yield {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    start, _ = await ask(listener, endless())
    assert start["status"] == 413


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_live_url_can_be_looked_at(client, reception, method):
    """GET and HEAD say that a URL is live, and keep nothing."""
    answer = await client.request(method, PATH)
    assert (answer.status_code, answer.content) == (200, b"")
    assert reception.stats.acknowledged == 0


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods(client, method):
    """Another method than POST, GET and HEAD is refused, and told which there are."""
    answer = await client.request(method, PATH)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, GET, HEAD")


@pytest.mark.parametrize("method", ["POST", "GET", "HEAD", "PUT"])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/callbacks",
        "/callbacks/",
        "/callbacks/wrong",
        f"/callbacks/{TOKEN}x",
        f"{PATH}/",
        f"{PATH}/more",
        f"/callbacks//{TOKEN}",
        f"/CALLBACKS/{TOKEN}",
        f"/{TOKEN}",
        f"/callbacks/{TOKEN[:-1]}%E9",
        f"/callbacks/{TOKEN}%00",
        f"/callbacks/{TOKEN}%2F",
    ],
)
async def test_every_other_path_is_not_there(client, inbox, reception, method, path):
    """Without a live token there is nothing to see, whatever the method: 404, counted, nothing stored."""
    answer = await client.request(method, path, content=BODY)
    assert answer.status_code == 404
    assert (stored(inbox), reception.stats.unknown_token) == ([], 1)


async def test_a_token_that_a_proxy_encoded(client, disk, inbox):
    """Percent-encoding a letter does not change a URL (RFC 3986, 6.2.2.2), so it does not lose a callback."""
    disk.may_commit.set()
    assert (await client.post(f"/callbacks/%74{TOKEN[1:]}?source=x", content=BODY)).status_code == 200
    assert stored(inbox) == [BODY]


async def test_mounted_under_a_prefix(disk, inbox, listener):
    """Mounted in another application the prefix is not part of the path, and is not demanded either."""
    disk.may_commit.set()
    for root, path in (("/hooks", f"/hooks{PATH}"), ("/hooks", PATH), ("", PATH)):
        whole = {"type": "http.request", "body": BODY}
        assert (await ask(listener, [whole], root_path=root, path=path))[0]["status"] == 200


async def test_a_client_that_leaves_in_the_middle(disk, inbox, listener, reception):
    """Half a body is not a callback: nothing is stored, nothing answered."""
    half = {"type": "http.request", "body": BODY[:10], "more_body": True}
    assert await ask(listener, [half, {"type": "http.disconnect"}]) == []
    assert (stored(inbox), disk.groups, reception.stats.cut_short) == ([], [], 1)


async def test_a_client_that_leaves_before_the_answer(client, disk, inbox):
    """A whole body is kept although its client did not wait, and those beside it are answered."""
    gone = asyncio.ensure_future(client.post(PATH, content=b'"gone"'))
    other = asyncio.ensure_future(client.post(PATH, content=b'"other"'))
    await until(lambda: disk.groups)
    gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gone
    disk.may_commit.set()
    assert (await other).status_code == 200
    assert sorted(stored(inbox)) == [b'"gone"', b'"other"']


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("open_error", StoreError("the disk is full.")),
        ("stage_error", StoreError("the disk is full.")),
        ("stage_error", OSError(28, "No space left on device")),
        ("commit_error", StoreError("the disk is full.")),
        ("commit_error", OSError(28, "No space left on device")),
    ],
)
async def test_a_store_that_fails(client, disk, reception, where, error):
    """A callback that cannot be kept is refused with 503 and a time to come again, and counts as nothing else."""
    disk.may_commit.set()
    setattr(disk, where, error)
    answers = await asyncio.gather(*(client.post(PATH, content=b"%d" % number) for number in range(5)))
    assert {(answer.status_code, answer.headers["retry-after"]) for answer in answers} == {(503, "1")}
    assert disk.commits == 0
    assert (reception.stats.not_stored, reception.stats.acknowledged, reception.stats.new) == (5, 0, 0)


async def test_a_store_that_fails_and_recovers(client, disk, inbox):
    """After a failure the next callback is kept: one bad commit does not end the service."""
    disk.may_commit.set()
    disk.commit_error = StoreError("the disk is full.")
    assert (await client.post(PATH, content=b"1")).status_code == 503
    disk.commit_error = None
    assert (await client.post(PATH, content=b"1")).status_code == 200
    assert stored(inbox) == [b"1"]


@pytest.fixture
def other_writer(inbox):
    """Hold the store's write lock through another connection, as another process does."""
    with contextlib.closing(sqlite3.connect(inbox.path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


async def test_another_writer_is_waited_for(client, disk, inbox, other_writer):
    """A callback that comes while another process writes is kept as soon as that process is done."""
    disk.may_commit.set()
    request = asyncio.ensure_future(client.post(PATH, content=BODY))
    await until(lambda: disk.groups)
    # The loop is free meanwhile.
    assert (await client.get(PATH)).status_code == 200
    other_writer.execute("COMMIT")
    assert (await request).status_code == 200
    assert stored(inbox) == [BODY]


async def test_another_writer_is_not_waited_for_without_end(client, disk, inbox, other_writer, monkeypatch):
    """Once the sender would send again anyway it hears 503, and is welcome when the other process is done."""
    disk.may_commit.set()
    monkeypatch.setattr(intake, "LONE_WAIT_SECONDS", 0.05)
    assert (await client.post(PATH, content=BODY)).status_code == 503
    other_writer.execute("COMMIT")
    assert (await client.post(PATH, content=BODY)).status_code == 200
    assert stored(inbox) == [BODY]


async def test_idle_only_after_a_quiet_moment(client, disk, reception):
    """The time between two requests of a stream is not spare time: other work waits for a real pause."""
    assert reception.is_idle
    request = asyncio.ensure_future(client.post(PATH, content=BODY))
    await until(lambda: disk.groups)
    assert not reception.is_idle
    disk.may_commit.set()
    await request
    assert not reception.is_idle
    await until(lambda: reception.is_idle)


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
async def test_what_it_does_not_speak(listener, kind):
    """What is no request is refused as ASGI asks: with an error, not with silence."""
    with pytest.raises(RuntimeError, match=f"does not speak {kind}"):
        await ask(listener, [], type=kind)
