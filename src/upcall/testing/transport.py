"""Calls of a client to a sandbox without a port: an httpx2 transport over the sandbox's ASGI application."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2

if TYPE_CHECKING:
    from upcall.sandbox import Sandbox
    from upcall.testing.loop import LoopThread

__all__ = ["AsyncInProcess", "InProcess"]


class InProcess(httpx2.BaseTransport):
    """Hand requests to a sandbox that runs in another thread.

    Args:
        sandbox: The application.
        loop: Where it runs.
    """

    def __init__(self, sandbox: Sandbox, loop: LoopThread) -> None:
        self._sandbox = httpx2.ASGITransport(sandbox)
        self._loop = loop

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request."""
        return self._loop.run(_answer(self._sandbox, request, request.read()))


class AsyncInProcess(httpx2.AsyncBaseTransport):
    """Do the same for a caller in asyncio.

    Args:
        sandbox: The application.
        loop: Where it runs.
    """

    def __init__(self, sandbox: Sandbox, loop: LoopThread) -> None:
        self._sandbox = httpx2.ASGITransport(sandbox)
        self._loop = loop

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request."""
        return await self._loop.run_for(_answer(self._sandbox, request, await request.aread()))


async def _answer(sandbox: httpx2.ASGITransport, request: httpx2.Request, body: bytes) -> httpx2.Response:
    """Answer a request whole: neither its stream nor the answer's may cross from one loop to another."""
    copy = httpx2.Request(request.method, request.url, headers=request.headers, content=body)
    try:
        response = await sandbox.handle_async_request(copy)
        content = await response.aread()
    except ConnectionError as error:
        raise httpx2.ReadError(str(error), request=request) from error
    return httpx2.Response(response.status_code, headers=response.headers, content=content, request=request)
