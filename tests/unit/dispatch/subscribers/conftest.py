"""Events to hand on, and a receiver to hand them to."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from aiohttp import web

from upcall.inbox import stored_event
from upcall.testing import callback

RECEIVED_AT = 1_800_000_000_000_000


@pytest.fixture
def event():
    """Make a stored event of a body."""

    def make(body=None, *, number=7, account="0000000001-00001", origin="received", **facts):
        raw = callback(**facts) if body is None else body
        return stored_event(number, RECEIVED_AT, account, hashlib.sha256(raw).hexdigest(), raw, origin)

    return make


class Receiver:
    """A real server that keeps what it was sent and answers as told."""

    def __init__(self):
        self.requests = []
        self.answers = []
        self.hold = None

    async def handle(self, request):
        self.requests.append((request.path_qs, dict(request.headers), await request.read()))
        if self.hold is not None:
            await self.hold.wait()
        status, headers, body = self.answers.pop(0) if self.answers else (204, {}, b"")
        return web.Response(status=status, headers=headers, body=body)


@pytest.fixture
async def receiver():
    made = Receiver()
    made.hold = None
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    if made.hold is not None:
        made.hold.set()
    await runner.cleanup()
    await asyncio.sleep(0)
