"""A connection without a socket, a service that says what it was given, and a clock that stands still."""

import asyncio
import itertools

from upcall.listener import ListenerStats, Sources
from upcall.listener.answers import answer
from upcall.listener.connections import Connections, Limits

OK = answer(200, b"ok")
GONE = answer(404, b"gone")
MOST = 1000
PEER = "192.0.2.7"


class Wire(asyncio.Transport):
    """Keep what the protocol writes, and what it did to the connection.

    Args:
        peer: The other end's address.
        high_water: From how many bytes on the client counts as not reading; None for never.
    """

    def __init__(self, peer=PEER, *, high_water=None):
        super().__init__({"peername": (peer, 1) if peer else None})
        self.parts = []
        self.is_reading_on = True
        self.is_half_closed = self.is_aborted = self.is_closed = False
        self.high_water = high_water
        self.unread = 0
        self.protocol = None

    @property
    def written(self):
        return b"".join(self.parts)

    @property
    def is_over(self):
        return self.is_aborted or self.is_closed

    def write(self, data):
        assert not self.is_half_closed, "written after the end"
        assert not self.is_over, "written after the end"
        self.parts.append(bytes(data))
        if self.high_water is not None:
            was, self.unread = self.unread, self.unread + len(data)
            if was <= self.high_water < self.unread:
                self.protocol.pause_writing()

    def drained(self):
        """Let the client read everything."""
        self.unread = 0
        self.protocol.resume_writing()

    def get_write_buffer_size(self):
        return self.unread

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.is_half_closed = True

    def abort(self):
        self.is_aborted = True

    def close(self):
        self.is_closed = True

    def pause_reading(self):
        self.is_reading_on = False

    def resume_reading(self):
        self.is_reading_on = True


class Keeper:
    """Stand for the service: refuse the path /gone by its head, and answer all else at once, or when it is told to.

    Args:
        at_once: Whether to answer at once.
    """

    def __init__(self, *, at_once=True):
        self.max_body_bytes = MOST
        self.at_once = at_once
        self.seen = []
        self.waiting = []
        self.error = None

    @property
    def bodies(self):
        return [body for _, _, body, _ in self.seen]

    def begin(self, request):
        return GONE if request.path == "/gone" else None

    def finish(self, request, body, reply):
        self.seen.append((request.method.decode(), request.path, body, request.forwarded))
        if self.error:
            raise self.error
        self.waiting.append(reply)
        if self.at_once:
            self.answer()

    def answer(self, reply=OK):
        """Answer whoever has waited longest."""
        self.waiting.pop(0)(reply)


class Clock:
    """Stand for the module `time`; it moves when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


class Line:
    """Hold one connection with all that is around it.

    Args:
        keeper: The service.
        limits: What it is held to.
        trusted: The trusted proxies.
        shared: The connections that it is one of, None for new ones.
        wire: Options of the `Wire`.
    """

    def __init__(self, keeper=None, *, limits=None, trusted=(), shared=None, log=None, **wire):
        self.keeper = keeper or Keeper()
        self.connections = shared or Connections(
            self.keeper, Sources(trusted), ListenerStats(), limits=limits or Limits(), log=log
        )
        self.stats = self.connections.stats
        self.wire = Wire(**wire)
        self.protocol = self.wire.protocol = self.connections()
        self.protocol.connection_made(self.wire)

    def send(self, *parts):
        """Let bytes come in."""
        for part in parts:
            self.protocol.data_received(part)
        return self

    def hang_up(self):
        """Let the client be gone."""
        self.protocol.connection_lost(None)
        return self

    @property
    def statuses(self):
        """The statuses of the answers, in their order, 100 included."""
        return [int(part.split(b" ", 1)[0]) for part in self.wire.written.split(b"HTTP/1.1 ")[1:]]

    @property
    def bodies(self):
        """The bodies that were handed on, in their order."""
        return self.keeper.bodies


def post(body=b"", *headers, path="/x", version="1.1"):
    """Return a request with a length."""
    lines = [f"POST {path} HTTP/{version}", "Host: localhost", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def chunked(*pieces, headers=(), trailers=(), path="/x"):
    """Return a request in chunks."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers, "Transfer-Encoding: chunked", "", ""]
    head = "\r\n".join(lines).encode("latin-1")
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece)
    end = "".join(f"{trailer}\r\n" for trailer in trailers).encode("latin-1")
    return head + body + b"0\r\n" + end + b"\r\n"


def in_pieces(data, sizes):
    """Return data cut into pieces of these sizes, over and over."""
    cut, at = [], 0
    for size in itertools.cycle(sizes):
        if at >= len(data):
            return cut
        cut.append(data[at : at + size])
        at += size
    return cut
