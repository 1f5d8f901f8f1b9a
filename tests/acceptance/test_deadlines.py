"""Slow and many connections, on real sockets: each is ended in its time, and good callbacks pass meanwhile."""

import asyncio
import contextlib
import itertools
import ssl
import time

import pytest
import trustme

from upcall.inbox import open_inbox
from upcall.listener import Gate, Reception, Sources, parse_tokens
from upcall.listener.connections import Connections, Limits
from upcall.listener.door import TlsDoor
from upcall.listener.server import bind, serving
from upcall.listener.service import CallbackService

from .conftest import TOKEN
from .sockets import Connection, post

SHORT = Limits(
    first_byte_seconds=0.3, head_seconds=0.4, body_seconds=0.8, grace_seconds=0.2, min_body_rate=1000, idle_seconds=0.5
)
HEAD = post(b"x" * 100_000)[:-100_000]


class Listener:
    """Hold a listener in this process.

    Args:
        connections: Its connections.
        listening: Its socket.
    """

    def __init__(self, connections, listening):
        self.connections = connections
        self.stats = connections.stats
        self.port = listening.getsockname()[1]

    async def open(self, **tls):
        return await asyncio.open_connection("127.0.0.1", self.port, **tls)


@contextlib.asynccontextmanager
async def listening_with(path, limits):
    """Run a listener over a store, with limits of its own, that looks for slow connections all the time."""
    sources = Sources()
    with open_inbox(str(path), create=True) as inbox:
        reception = Reception(inbox.appender, Gate(parse_tokens([TOKEN])))
        connections = Connections(CallbackService(reception, sources), sources, reception.stats, limits=limits)
        socket_ = bind("127.0.0.1", 0)
        async with serving(connections, socket_):
            watching = asyncio.ensure_future(connections.watch(every_seconds=0.01))
            yield Listener(connections, socket_)
            watching.cancel()
        await reception.aclose()


@pytest.fixture
async def short(tmp_path):
    async with listening_with(tmp_path / "inbox.db", SHORT) as listener:
        yield listener


async def ended(listener, first, dripped):
    """Send a beginning, then drip bytes; return what came back and how long the connection lived."""
    began = time.monotonic()
    reader, writer = await listener.open()
    writer.write(first)

    async def drip():
        for byte in itertools.cycle(dripped):
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)  # what is tested is a slow client

    dripping = asyncio.ensure_future(drip())
    try:
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(reader.read(), 20), time.monotonic() - began
        return b"", time.monotonic() - began
    finally:
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        writer.transport.abort()


@pytest.mark.parametrize(
    ("first", "dripped", "answered", "seconds"),
    [
        (b"", b"", b"", SHORT.first_byte_seconds),
        (b"P", b"", b"", SHORT.head_seconds),
        (b"POST / HTTP/1.1\r\nX-Long: ", b"x", b" 408 ", SHORT.head_seconds),
        (b"\r\n", b"\r\n", b"", SHORT.head_seconds),
        (HEAD, b"", b" 408 ", SHORT.grace_seconds),
        (HEAD, b"x", b" 408 ", SHORT.grace_seconds),
        (HEAD + b"x" * 99_000, b"x", b" 408 ", SHORT.body_seconds),
        (post(b"{}"), b"", b" 200 ", SHORT.idle_seconds),
    ],
    ids=["silent", "stalled", "dripped head", "empty lines", "no body", "dripped body", "long body", "idle"],
)
async def test_a_slow_connection_is_ended(short, first, dripped, answered, seconds):
    """Whatever a slow client does, its connection ends when its time is up, and is told so where it had asked."""
    said, lived = await ended(short, first, dripped)
    assert answered in said
    assert bool(answered) == bool(said) or b"408" in said
    assert seconds - 0.05 <= lived < seconds + 10
    async with asyncio.timeout(80):
        while short.connections.open:  # noqa: ASYNC110 - the listener looks now and then
            await asyncio.sleep(0.01)
    assert short.stats.timed_out == (answered != b" 200 ")


async def test_a_slow_handshake_is_ended(tmp_path):
    """A connection that never shakes hands counts against its address from the start, and is ended in its time."""
    authority = trustme.CA()
    tls, trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(tls)
    authority.configure_trust(trust)
    async with listening_with(tmp_path / "inbox.db", Limits(per_source=3)) as plain:
        listening = bind("127.0.0.1", 0)
        door = TlsDoor(plain.connections, listening, tls, handshake_seconds=0.5)
        behind = Listener(plain.connections, listening)
        silent = [await behind.open() for _ in range(3)]
        over = await behind.open()
        assert await over[0].read() == b""
        assert plain.stats.capped == 1
        for reader, _ in silent:
            assert await asyncio.wait_for(reader.read(), 20) == b""
        assert plain.connections.expected == set()
        reader, writer = await behind.open(ssl=trust, server_hostname="localhost")
        writer.write(post(b"{}"))
        assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"HTTP/1.1 200 ")
        for _, each in (*silent, over, (reader, writer)):
            each.transport.abort()
        door.close()


def test_good_callbacks_pass_while_three_hundred_hang(upcall):
    """While 300 connections hang in every way there is, good callbacks are answered as ever."""
    listener = upcall.listen("--max-per-source", "400")
    beginnings = [b"", b"P", b"POST / HTTP/1.1\r\nX: ", HEAD, HEAD + b"x" * 5000, b"\r\n", post(b"{}"), b"\x16\x03\x01"]
    with contextlib.ExitStack() as stack:
        hanging = [stack.enter_context(Connection(listener.port)) for _ in range(300)]
        for connection, beginning in zip(hanging, itertools.cycle(beginnings)):
            connection.send(beginning)
        took = []
        good = stack.enter_context(Connection(listener.port))
        for number in range(200):
            began = time.monotonic()
            assert good.ask(post(b'{"good": %d}' % number)) == 200
            took.append(time.monotonic() - began)
            hanging[number].send(b"\r\n" if number % 8 == 5 else b"x")  # they drip on
    took.sort()
    assert took[100] < 0.2
    assert took[198] < 1.0


@pytest.mark.parametrize("proxy", [False, True])
def test_the_cap_on_one_address(upcall, proxy):
    """One address may hold 256 connections, and the next is closed unread; a trusted proxy may hold more."""
    listener = upcall.listen("--max-per-source", "256", *(("--trusted-proxy", "127.0.0.1") if proxy else ()))
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(Connection(listener.port)) for _ in range(256)]
        assert held[-1].ask(post(b"{}")) == 200  # all before it were accepted
        over = stack.enter_context(Connection(listener.port))
        if proxy:
            assert over.ask(post(b"[]")) == 200
        else:
            assert over.is_ended()
            held.pop().socket.close()

            def is_free():
                with Connection(listener.port) as again, contextlib.suppress(OSError):
                    return again.ask(post(b"[]")) == 200

            upcall.until(is_free, 10)
