"""The listener as a bare ASGI application, to mount in a server of your own.

``upcall listen`` does not run through it: its own protocol (`upcall.listener.protocol`) has the deadlines and caps that
no ASGI server has. What is admitted and what is answered is one for both (`upcall.listener.service`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from upcall.listener.answers import DISCARD_FACTOR, TOO_LARGE, Answer
from upcall.listener.service import CallbackService
from upcall.listener.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping

    from upcall.listener.reception import Reception
    from upcall.listener.service import Admitted

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

__all__ = ["ListenerApp"]

_LENGTH_DIGITS: Final = 20
"""What is longer is over any cap by these alone."""


class _ClientGoneError(Exception):
    """Say that the client went away before its body was whole."""


class ListenerApp:
    """Receive ``POST /callbacks/{token}``: token, method, source, body, durable append, answer.

    Args:
        reception: Judges and keeps.
        sources: Tells who sent a callback.
    """

    def __init__(self, reception: Reception, *, sources: Sources | None = None) -> None:
        self._reception = reception
        self._sources = sources or Sources()
        self._service = CallbackService(reception, self._sources)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request; whoever mounts it sees to lifespan."""
        if scope["type"] != "http":
            raise RuntimeError(f"the listener does not speak {scope['type']}")
        try:
            reply = await self._respond(scope, receive)
        except _ClientGoneError:
            self._reception.stats.cut_short += 1
            return
        for message in _messages(reply):
            await send(message)

    async def aclose(self) -> None:
        """Finish what waits and close the store's write path; the inbox stays the caller's."""
        await self._reception.aclose()

    async def _respond(self, scope: Scope, receive: Receive) -> Answer:
        client = scope.get("client")
        peer = self._sources.peer(client[0] if client else "")
        # Mounted under a prefix, an application sees the whole path and is told the prefix.
        path = scope["path"].removeprefix(scope.get("root_path") or "")
        forwarded = b",".join(_values(scope, b"x-forwarded-for")).decode("latin-1") if peer.is_proxy else ""
        query = b"?" + scope.get("query_string", b"")
        admitted = self._service.admit(scope["method"].encode(), path, peer, forwarded or None, query)
        if isinstance(admitted, Answer):
            return admitted
        body = await self._read(receive, _length(scope))
        if body is None:
            self._reception.stats.too_large += 1
            return TOO_LARGE
        return await self._kept(admitted, body)

    async def _read(self, receive: Receive, length: int) -> bytes | None:
        """Return the body, None where it is over the cap.

        A body over the cap is read on and thrown away, up to a bound, so that its client hears the answer instead of
        a reset connection.
        """
        most = self._service.max_body_bytes
        is_over = length > most
        chunks: list[bytes] = []
        size = 0
        while (message := await receive())["type"] == "http.request":
            chunk = message.get("body", b"")
            size += len(chunk)
            is_over = is_over or size > most
            if is_over:
                chunks.clear()
            else:
                chunks.append(chunk)
            if not message.get("more_body") or size > most * DISCARD_FACTOR:
                return None if is_over else b"".join(chunks)
        raise _ClientGoneError

    async def _kept(self, admitted: Admitted, body: bytes) -> Answer:
        kept: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def reply(answered: Answer) -> None:
            if not kept.done():  # else its client went away
                kept.set_result(answered)

        self._service.keep(admitted, body, reply)
        return await kept


def _messages(reply: Answer) -> Iterator[dict[str, Any]]:
    """Return an answer as ASGI sends it."""
    closing = [(b"connection", b"close")] if reply is TOO_LARGE else []
    yield {"type": "http.response.start", "status": reply.status, "headers": [*reply.headers, *closing]}
    yield {"type": "http.response.body", "body": reply.body}


def _values(scope: Scope, wanted: bytes) -> list[bytes]:
    return [value for name, value in scope["headers"] if name == wanted]


def _length(scope: Scope) -> int:
    """Return the length that a body is said to have, 0 where nothing readable is said."""
    said = b"".join(_values(scope, b"content-length"))
    return int(said[:_LENGTH_DIGITS]) if said.isdigit() else 0
