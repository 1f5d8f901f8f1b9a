"""Receivers that do as they are told, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time

import pytest
import uvloop

from upcall.outbound import GuardedPoster, Targets

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def pytest_asyncio_loop_factories(config, item):
    """Run each test on the loop of the workers, and on Python's own."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


async def until(condition, seconds=30.0):
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.001)


class Receiver:
    """A server whose every connection is handled as the test says."""

    def __init__(self, handle):
        self._handle = handle
        self._tasks = set()
        self.connections = 0
        self.open = 0
        self.requests = []

    async def accept(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self.connections += 1
        self.open += 1
        try:
            await self._handle(self, reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.open -= 1
            writer.transport.abort()

    async def request(self, reader):
        """Read a request and keep it."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.requests.append((head, await reader.readexactly(length)))
        return self.requests[-1]

    async def aclose(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def answer_ok(receiver, reader, writer):
    """Answer each request."""
    while True:
        await receiver.request(reader)
        writer.write(OK)


async def silent(receiver, reader, writer):
    """Take a request and never answer."""
    await receiver.request(reader)
    await reader.read()


def reset(writer):
    """Have the connection closed by a reset."""
    number = os.dup(writer.get_extra_info("socket").fileno())
    with socket.socket(fileno=number) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.fixture
async def serve():
    """Start a receiver on loopback."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(handle=answer_ok, *, host="127.0.0.1", port=0, ssl=None):
            receiver = Receiver(handle)
            server = await asyncio.start_server(receiver.accept, host, port, ssl=ssl, limit=1 << 24)
            stack.push_async_callback(receiver.aclose)
            stack.callback(server.close)
            receiver.port = server.sockets[0].getsockname()[1]
            receiver.url = f"{'https' if ssl else 'http'}://127.0.0.1:{receiver.port}/callbacks/secret-token"
            return receiver

        yield start


@pytest.fixture
async def make():
    """Make a poster that keeps connections for long; it is closed at the end, and nothing of it is left."""
    made = []

    def poster(**options):
        made.append(GuardedPoster(Targets(), **options))
        made[-1]._pool._keep_alive_seconds = 60
        return made[-1]

    yield poster
    for one in made:
        await one.aclose()
        assert len(one._pool) == 0
        assert one._pool._timer is None
