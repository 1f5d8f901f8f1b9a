"""One HTTP request, as much of it as the listener needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from upcall.listener.answers import Answer
    from upcall.listener.sources import Peer

__all__ = ["Request"]

_MOST_ESCAPED: Final = 8192
"""How long a path with percent signs may be: a longer one is no callback URL, and dear to read."""


class Request:
    """Hold one request while it comes in and is answered.

    Args:
        peer: The connection's other end.
    """

    __slots__ = (
        "admitted",
        "body",
        "expects_continue",
        "forwarded",
        "head",
        "held",
        "keep_alive",
        "length",
        "method",
        "offers_upgrade",
        "peer",
        "refused",
        "size",
        "started_at",
        "target",
    )

    def __init__(self, peer: Peer) -> None:
        self.peer: Peer = peer
        self.method: bytes = b""
        self.target: bytes = b""
        self.forwarded: str | None = None
        self.head: list[tuple[bytes, bytes]] = []
        """The headers that matter here."""
        self.body: bytes | bytearray = b""
        self.size: int = 0
        self.held: int = 0
        """How much of the body is in memory."""
        self.length: int = 0
        self.expects_continue: bool = False
        self.refused: Answer | None = None
        self.keep_alive: bool = True
        self.offers_upgrade: bool = False
        self.started_at: float = 0.0
        """When its head was whole."""
        self.admitted: Any = None
        """What the service made of the head, for its own use."""

    @property
    def path(self) -> str:
        """Return the path, without the query; what is no ASCII names nothing."""
        target = self.target
        if not target.startswith(b"/"):  # the absolute form, which proxies are sent
            target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
        path = target.partition(b"?")[0].decode("ascii", "replace")
        return unquote(path) if "%" in path and len(path) <= _MOST_ESCAPED else path
