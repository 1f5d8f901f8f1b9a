"""Drive an httpx2 client: the user's own, or one around a transport of his, or one that obeys proxy variables.

The one module that names httpx2.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import httpx2

from upcall.client.wire.reading import Body, lost

if TYPE_CHECKING:
    from upcall.client.answers import Answer
    from upcall.client.effects import Request
    from upcall.client.failures import Failure

__all__ = ["AsyncGivenWire", "GivenWire", "make_async_client", "make_client"]

_ERRORS = (httpx2.RequestError, httpx2.InvalidURL, OSError)


def make_client(transport: httpx2.BaseTransport | None, *, trust_env: bool) -> httpx2.Client:
    """Make a client of our own."""
    return httpx2.Client(transport=transport, trust_env=trust_env)


def make_async_client(transport: httpx2.AsyncBaseTransport | None, *, trust_env: bool) -> httpx2.AsyncClient:
    """Make a client of our own for asyncio."""
    return httpx2.AsyncClient(transport=transport, trust_env=trust_env)


class GivenWire:
    """Send requests from threads.

    Args:
        client: What sends them.
        is_ours: Whether to close it.
    """

    def __init__(self, client: httpx2.Client, *, is_ours: bool) -> None:
        if not isinstance(client, httpx2.Client):
            raise TypeError(f"http_client must be an httpx2.Client, not {type(client).__name__}")
        self._client = client
        self._is_ours = is_ours

    def send(self, request: Request, timeout_seconds: float) -> Answer | Failure:
        """Send a request and read its answer."""
        body = Body(timeout_seconds)
        response: httpx2.Response | None = None
        try:
            wire = self._client.build_request(
                request.method, request.url, headers=request.headers, content=request.body, timeout=timeout_seconds
            )
            # Auth of the client's own would take the place of ours.
            response = self._client.send(wire, stream=True, auth=None, follow_redirects=False)
            with contextlib.closing(response):
                for chunk in response.iter_bytes():
                    if body.is_full(chunk):
                        break
        except _ERRORS as error:
            if response is None:
                return lost(error)
            body.flaw = "garbled" if isinstance(error, httpx2.DecodingError) else "cut"
        return body.decoded(response.status_code, response.headers.raw)

    def close(self) -> None:
        """Close the connections, unless they are the user's."""
        if self._is_ours:
            self._client.close()


class AsyncGivenWire:
    """Send requests from one event loop.

    Args:
        client: What sends them.
        is_ours: Whether to close it.
    """

    def __init__(self, client: httpx2.AsyncClient, *, is_ours: bool) -> None:
        if not isinstance(client, httpx2.AsyncClient):
            raise TypeError(f"http_client must be an httpx2.AsyncClient, not {type(client).__name__}")
        self._client = client
        self._is_ours = is_ours

    async def send(self, request: Request, timeout_seconds: float) -> Answer | Failure:
        """Send a request and read its answer."""
        body = Body(timeout_seconds)
        response: httpx2.Response | None = None
        try:
            wire = self._client.build_request(
                request.method, request.url, headers=request.headers, content=request.body, timeout=timeout_seconds
            )
            response = await self._client.send(wire, stream=True, auth=None, follow_redirects=False)
            async with contextlib.aclosing(response):
                async for chunk in response.aiter_bytes():
                    if body.is_full(chunk):
                        break
        except _ERRORS as error:
            if response is None:
                return lost(error)
            body.flaw = "garbled" if isinstance(error, httpx2.DecodingError) else "cut"
        return body.decoded(response.status_code, response.headers.raw)

    async def aclose(self) -> None:
        """Close the connections, unless they are the user's."""
        if self._is_ours:
            await self._client.aclose()
