"""The listener as a bare ASGI application."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from upcall.errors import StoreError
from upcall.inbox import Arrival
from upcall.listener.intake import Intake

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from upcall.inbox import Inbox
    from upcall.listener.gate import Gate, Token

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    Answer = tuple[dict[str, Any], dict[str, Any]]

__all__ = ["MAX_BODY_BYTES", "ListenerApp", "ListenerStats"]

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""A body over this is refused with 413, never cut."""

_DISCARD_FACTOR: Final = 8

_PREFIX: Final = "/callbacks/"


class ListenerStats(msgspec.Struct):
    """Count what the listener did since it started.

    Args:
        acknowledged: Answered 200 after the fsync.
        new: Of those, callbacks that were not kept before.
        quarantined: Of those, bodies that handlers do not see.
        unknown_token: Answered 404.
        too_large: Answered 413.
        not_stored: Answered 503.
        cut_short: Bodies whose client went away in the middle.
    """

    acknowledged: int = 0
    new: int = 0
    quarantined: int = 0
    unknown_token: int = 0
    too_large: int = 0
    not_stored: int = 0
    cut_short: int = 0


def _answer(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> Answer:
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    return (
        {"type": "http.response.start", "status": status, "headers": fields},
        {"type": "http.response.body", "body": body},
    )


_OK: Final = _answer(200, b'{"received":true}')
_ALIVE: Final = _answer(200, b"")
_NOT_FOUND: Final = _answer(404, b'{"error":"not found"}')
_BAD_METHOD: Final = _answer(405, b'{"error":"method not allowed"}', (b"allow", b"POST, GET, HEAD"))
# Part of the body may be unread: the connection cannot be used again.
_TOO_LARGE: Final = _answer(413, b'{"error":"body too large"}', (b"connection", b"close"))
_NOT_STORED: Final = _answer(503, b'{"error":"not stored, send again"}', (b"retry-after", b"1"))


class _ClientGoneError(Exception):
    """Say that the client went away before its body was whole."""


class ListenerApp:
    """Receive ``POST /callbacks/{token}``: size, token, durable append, answer.

    Args:
        inbox: Where callbacks are kept.
        gate: The live tokens.
        max_body_bytes: Bodies over this are refused with 413.
    """

    def __init__(self, inbox: Inbox, gate: Gate, *, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._inbox = inbox
        self._gate = gate
        self._max_body_bytes = max_body_bytes
        self._intake: Intake | None = None
        self.stats: ListenerStats = ListenerStats()

    @property
    def is_idle(self) -> bool:
        """Tell whether no request waits for the store."""
        return self._intake is None or self._intake.is_idle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request; lifespan is optional."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            try:
                start, body = await self._respond(scope, receive)
            except _ClientGoneError:
                self.stats.cut_short += 1
                return
            await send(start)
            await send(body)
        else:
            raise RuntimeError(f"the listener does not speak {scope['type']}")

    async def aclose(self) -> None:
        """Finish what waits and close the store's write path; the inbox stays the caller's."""
        if self._intake is not None:
            await self._intake.close()
            self._intake = None

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _respond(self, scope: Scope, receive: Receive) -> Answer:
        path: str = scope["path"]
        # Mounted under a prefix, an application sees the whole path and is told the prefix.
        path = path.removeprefix(scope.get("root_path") or "")
        token = self._gate.admit(path[len(_PREFIX) :]) if path.startswith(_PREFIX) else None
        if token is None:
            self.stats.unknown_token += 1
            return _NOT_FOUND
        if scope["method"] != "POST":
            return _ALIVE if scope["method"] in {"GET", "HEAD"} else _BAD_METHOD
        body = await self._read(receive)
        if body is None:
            self.stats.too_large += 1
            return _TOO_LARGE
        return await self._keep(scope, token, body)

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the body, None where it is over the cap.

        A body over the cap is read on and thrown away, up to a bound, so that its client hears the answer instead of
        a reset connection.
        """
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            whole: bytes = message.get("body", b"")
            return whole if len(whole) <= self._max_body_bytes else None
        chunks: list[bytes] = []
        size = 0
        while message["type"] == "http.request":
            chunk = message.get("body", b"")
            size += len(chunk)
            if size <= self._max_body_bytes:
                chunks.append(chunk)
            else:
                chunks.clear()
            if not message.get("more_body") or size > self._max_body_bytes * _DISCARD_FACTOR:
                return b"".join(chunks) if size <= self._max_body_bytes else None
            message = await receive()
        raise _ClientGoneError

    async def _keep(self, scope: Scope, token: Token, body: bytes) -> Answer:
        verdict = self._gate.judge(token, body)
        client = scope.get("client")
        arrival = Arrival(
            body=body,
            received_at=time.time_ns() // 1000,
            peer=client[0] if client else "",
            trust=verdict.trust,
            evidence=verdict.evidence,
            token_id=token.id,
            account=next(iter(token.accounts)) if len(token.accounts) == 1 else None,
        )
        try:
            if self._intake is None:
                self._intake = Intake(self._inbox.appender())
            receipt = await self._intake.take(arrival)
        except StoreError:
            self.stats.not_stored += 1
            return _NOT_STORED
        self.stats.acknowledged += 1
        self.stats.new += receipt.is_new
        self.stats.quarantined += verdict.evidence is not None
        return _OK
