"""What is served: callbacks on the one port, the admin pages on the other."""

from __future__ import annotations

import asyncio
import logging
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from upcall.listener.answers import FAILED, Answer, answer
from upcall.listener.probe import nonce_of, prove

if TYPE_CHECKING:
    from collections.abc import Callable

    from upcall.listener.gate import Token
    from upcall.listener.reception import Reception
    from upcall.listener.request import Request
    from upcall.listener.sources import Peer, Source, Sources

__all__ = ["AdminService", "Admitted", "CallbackService", "Pages"]

_ALIVE: Final = answer(200, b"")
_NOT_FOUND: Final = answer(404, b'{"error":"not found"}')
_REFUSED: Final = answer(403, b'{"error":"refused"}')
_BAD_METHOD: Final = answer(405, b'{"error":"method not allowed"}', "Allow: POST, GET, HEAD")
_KEPT: Final = {
    200: answer(200, b'{"received":true}'),
    503: answer(503, b'{"error":"not stored, send again"}', "Retry-After: 1"),
}

_log = logging.getLogger("upcall.listener")


class Admitted(NamedTuple):
    """Say what a callback's head told: its body is wanted."""

    token: Token
    source: Source
    peer: Peer


class CallbackService:
    """Answer on the callback path: token, method, source, body, durable append, answer.

    What brings the requests, our own protocol or somebody's ASGI server, only reads bodies and writes answers.

    Args:
        reception: Judges and keeps.
        sources: Tells who sent a callback.
    """

    def __init__(self, reception: Reception, sources: Sources) -> None:
        self._reception = reception
        self._sources = sources
        self._told_of_proxy = False
        self.max_body_bytes: int = reception.max_body_bytes

    def admit(
        self, method: bytes, path: str, peer: Peer, forwarded: str | None, target: bytes = b""
    ) -> Admitted | Answer:
        """Decide by a request's head whether its body is wanted.

        Args:
            method: The method.
            path: The path, decoded, without the query.
            peer: The connection's other end.
            forwarded: The request's ``X-Forwarded-For``, several joined by commas in their order.
            target: The target as it came, or as much of it as holds the query: a GET may be a probe.

        Returns:
            What the head told, for `keep`; or the answer, and then the body is nobody's.
        """
        stats = self._reception.stats
        token = self._reception.admit(path)
        if token is None:
            stats.unknown_token += 1
            return _NOT_FOUND
        if method != b"POST":
            return self._look(method, token, peer, forwarded, target)
        stats.received += 1
        if forwarded is not None and not peer.is_proxy:
            self._tell_of_proxy(peer.address)
        source = self._sources.of(peer, forwarded)
        if self._sources.refuses(source):
            stats.refused_source += 1
            return _REFUSED
        return Admitted(token, source, peer)

    def keep(self, admitted: Admitted, body: bytes, reply: Callable[[Answer], None]) -> None:
        """Keep a callback, and answer once it is on disk."""
        token, source, peer = admitted
        self._reception.take(token, body, peer.address, source, lambda status: reply(_KEPT[status]))

    def begin(self, request: Request) -> Answer | None:
        """Look at a request's head."""
        admitted = self.admit(request.method, request.path, request.peer, request.forwarded, request.target)
        if isinstance(admitted, Answer):
            return admitted
        request.admitted = admitted
        return None

    def finish(self, request: Request, body: bytes, reply: Callable[[Answer], None]) -> None:
        """Keep a callback, and answer once it is on disk."""
        self.keep(request.admitted, body, reply)

    def _look(self, method: bytes, token: Token, peer: Peer, forwarded: str | None, target: bytes) -> Answer:
        """Answer somebody who knows a token and brings no callback."""
        if method == b"GET" and (nonce := nonce_of(target)) is not None:
            return prove(token, nonce, self._sources.of(peer, forwarded), time.time())
        return _ALIVE if method in {b"GET", b"HEAD"} else _BAD_METHOD

    def _tell_of_proxy(self, address: str) -> None:
        """Say once that somebody names another source and is not believed: a proxy nobody declared, or a forger."""
        if not self._told_of_proxy:
            self._told_of_proxy = True
            _log.warning(
                "%s is not believed when it names a source in X-Forwarded-For; if it is your proxy: --trusted-proxy %s",
                address,
                address,
            )


class Pages(Protocol):
    """Make the pages of an admin port."""

    async def respond(self, method: str, path: str) -> tuple[int, str, bytes]:
        """Return the status, the content type and the body of one answer."""
        ...


class AdminService:
    """Answer on the admin port.

    Args:
        admin: Makes the pages.
    """

    def __init__(self, admin: Pages) -> None:
        self._admin = admin
        self._tasks: set[asyncio.Task[None]] = set()
        self.max_body_bytes: int = 0

    def begin(self, request: Request) -> Answer | None:  # noqa: ARG002 - every page is made later
        """Look at a request's head."""
        return None

    def finish(self, request: Request, body: bytes, reply: Callable[[Answer], None]) -> None:  # noqa: ARG002 - no page takes one
        """Make a page, and answer with it."""
        task = asyncio.ensure_future(self._answer(request, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Request, reply: Callable[[Answer], None]) -> None:
        made = FAILED
        try:
            status, content_type, page = await self._admin.respond(request.method.decode("ascii"), request.path)
            allow = ("Allow: GET, HEAD",) if status == HTTPStatus.METHOD_NOT_ALLOWED else ()
            made = answer(status, page, *allow, content_type=content_type)
        finally:
            reply(made)
