"""The listener as a bare ASGI application, to mount in a server of your own.

``upcall listen`` does not run through it: its own protocol (`upcall.listener.protocol`) has the deadlines and caps that
no ASGI server has.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from upcall.listener.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from upcall.listener.gate import Token
    from upcall.listener.reception import Reception

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    Answer = tuple[dict[str, Any], dict[str, Any]]

__all__ = ["ListenerApp"]

_DISCARD_FACTOR: Final = 8


def _answer(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> Answer:
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    return (
        {"type": "http.response.start", "status": status, "headers": fields},
        {"type": "http.response.body", "body": body},
    )


_ALIVE: Final = _answer(200, b"")
_NOT_FOUND: Final = _answer(404, b'{"error":"not found"}')
_REFUSED: Final = _answer(403, b'{"error":"refused"}')
_BAD_METHOD: Final = _answer(405, b'{"error":"method not allowed"}', (b"allow", b"POST, GET, HEAD"))
# Part of the body may be unread: the connection cannot be used again.
_TOO_LARGE: Final = _answer(413, b'{"error":"body too large"}', (b"connection", b"close"))
_KEPT: Final = {
    200: _answer(200, b'{"received":true}'),
    503: _answer(503, b'{"error":"not stored, send again"}', (b"retry-after", b"1")),
}


class _ClientGoneError(Exception):
    """Say that the client went away before its body was whole."""


class ListenerApp:
    """Receive ``POST /callbacks/{token}``: size, address, token, durable append, answer.

    Args:
        reception: Admits and keeps.
        sources: Tells who sent a callback.
    """

    def __init__(self, reception: Reception, *, sources: Sources | None = None) -> None:
        self._reception = reception
        self._sources = sources or Sources()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request; lifespan is optional."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            try:
                start, body = await self._respond(scope, receive)
            except _ClientGoneError:
                self._reception.stats.cut_short += 1
                return
            await send(start)
            await send(body)
        else:
            raise RuntimeError(f"the listener does not speak {scope['type']}")

    async def aclose(self) -> None:
        """Finish what waits and close the store's write path; the inbox stays the caller's."""
        await self._reception.aclose()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._reception.begin()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _respond(self, scope: Scope, receive: Receive) -> Answer:
        stats = self._reception.stats
        path: str = scope["path"]
        # Mounted under a prefix, an application sees the whole path and is told the prefix.
        token = self._reception.admit(path.removeprefix(scope.get("root_path") or ""))
        if token is None:
            stats.unknown_token += 1
            return _NOT_FOUND
        if scope["method"] != "POST":
            return _ALIVE if scope["method"] in {"GET", "HEAD"} else _BAD_METHOD
        stats.received += 1
        body = await self._read(receive)
        if body is None:
            stats.too_large += 1
            return _TOO_LARGE
        return await self._keep(scope, token, body)

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the body, None where it is over the cap.

        A body over the cap is read on and thrown away, up to a bound, so that its client hears the answer instead of
        a reset connection.
        """
        most = self._reception.max_body_bytes
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            whole: bytes = message.get("body", b"")
            return whole if len(whole) <= most else None
        chunks: list[bytes] = []
        size = 0
        while message["type"] == "http.request":
            chunk = message.get("body", b"")
            size += len(chunk)
            if size <= most:
                chunks.append(chunk)
            else:
                chunks.clear()
            if not message.get("more_body") or size > most * _DISCARD_FACTOR:
                return b"".join(chunks) if size <= most else None
            message = await receive()
        raise _ClientGoneError

    async def _keep(self, scope: Scope, token: Token, body: bytes) -> Answer:
        client = scope.get("client")
        peer = self._sources.peer(client[0] if client else "")
        source = self._sources.of(peer, _forwarded(scope) if peer.is_proxy else None)
        if self._sources.refuses(source):
            self._reception.stats.refused_source += 1
            return _REFUSED
        kept: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def answered(status: int) -> None:
            if not kept.done():  # else its client went away
                kept.set_result(status)

        self._reception.take(token, body, peer.address, source, answered)
        return _KEPT[await kept]


def _forwarded(scope: Scope) -> str | None:
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return ",".join(values) or None
