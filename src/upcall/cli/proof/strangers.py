"""Steps of a proof: what comes to a public port that is no good callback."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from upcall.cli.proof.bodies import make
from upcall.cli.proof.checks import SkippedError, require
from upcall.cli.proof.hostile import JUNK, OTHER_HOST, Drips, ask, crowd, other_host_works
from upcall.inbox import Selection
from upcall.listener.connections import Limits
from upcall.listener.reception import MAX_BODY_BYTES
from upcall.thingspace import CALLBACK_SOURCES

if TYPE_CHECKING:
    from upcall.cli.proof.run import Run

__all__ = ["begin_drips", "bodies_that_are_none", "connection_crowd", "drips_end", "forged_source"]

DRIPS: Final = 8
CROWD: Final = 300
GOOD_RATE: Final = 300.0
QUICKLY_MS: Final = 1000.0
_SLACK_SECONDS: Final = 4.0
"""The listener looks once a second, and gives a refused client two more to read its answer."""
_POLL_SECONDS: Final = 0.05


def begin_drips(run: Run) -> Drips | None:
    """Open connections that send nothing, or a byte a second; None where this machine has no second address."""
    return Drips(run.port, run.path, each=DRIPS) if other_host_works(run.port) else None


def drips_end(run: Run, drips: Drips | None, *, kinds: tuple[str, ...]) -> str:
    """Wait until the drips are closed by their deadlines, while good callbacks are acknowledged."""
    if drips is None:
        raise SkippedError(f"this machine does not speak from {OTHER_HOST}")
    limits = Limits()
    deadlines = {"silent": limits.first_byte_seconds, "head": limits.head_seconds, "body": limits.grace_seconds + 1}
    since = run.sender.measured
    run.sender.flow(GOOD_RATE)
    run.sender.reaches(100)
    found = []
    for kind in sorted(kinds, key=deadlines.__getitem__):
        most = deadlines[kind] + _SLACK_SECONDS
        seconds = _await_end(drips, kind, most)
        require(seconds is not None, f"a connection that dripped ({kind}) was still open after {most:.0f} s")
        found.append(f"{kind} {seconds:.0f} s")
    run.sender.settle()
    worst = run.sender.latencies(since).milliseconds(0.999)
    require(worst < QUICKLY_MS, f"good callbacks took {worst:.0f} ms meanwhile (999 of 1,000)")
    return f"closed after: {', '.join(found)}; good callbacks took {worst:.0f} ms meanwhile (999 of 1,000)"


def _await_end(drips: Drips, kind: str, most: float) -> float | None:
    deadline = time.monotonic() + most
    while (seconds := drips.slowest(kind)) is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return seconds


def connection_crowd(run: Run) -> str:
    """Open more connections from one source than are allowed; others must pass meanwhile."""
    if not other_host_works(run.port):
        raise SkippedError(f"this machine does not speak from {OTHER_HOST}")
    most = Limits().per_source
    run.sender.flow(GOOD_RATE)
    with crowd(run.port, CROWD) as closed:
        run.sender.reaches(50)
        require(closed >= CROWD - most, f"of {CROWD} connections from one source only {closed} were closed")
    run.sender.settle()
    return f"{closed} of {CROWD} connections of one source closed at once; another source's callbacks passed"


def forged_source(run: Run) -> str:
    """Claim to be the provider; without a trusted proxy the claim must count for nothing."""
    claimed = CALLBACK_SOURCES.values[0]
    serial = run.sender.take_serial()
    body = make(serial)
    status = ask(run.port, _request(run.path, body, f"X-Forwarded-For: {claimed}\r\n"))
    require(status == 200, f"the callback was answered {status}")  # noqa: PLR2004 - HTTP's own
    run.sender.acknowledge(serial)
    with run.inbox() as inbox:
        found = [record for record in inbox.callbacks(limit=100) if record.body == body]
        require(len(found) == 1, "the callback is not in the store")
        (delivery,) = inbox.deliveries(found[0].id)
    require(delivery.source == "127.0.0.1", f"the store says that it came from {delivery.source}")
    require(not delivery.listed, "the store says that it came from a listed address")
    return f"X-Forwarded-For: {claimed} was not believed; the store names the peer"


def bodies_that_are_none(run: Run) -> str:
    """Send what is no callback: refused with nothing kept, or kept byte for byte in quarantine."""
    before = _stored(run)
    refused = {
        "a body over the cap": (413, _request(run.path, b"x" * (MAX_BODY_BYTES + 1))),
        "a length over the cap": (413, _head(run.path, 2**40, "Expect: 100-continue\r\n")),
        "an unknown token": (404, _request("/callbacks/not-the-token-of-this-run", make(0))),
        "bytes that are no HTTP": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n"),
        "a head without end": (431, b"POST / HTTP/1.1\r\nX: " + b"x" * 2 * Limits().max_head_bytes),
    }
    for what, (status, request) in refused.items():
        answered = ask(run.port, request)
        require(answered == status, f"{what} was answered {answered}, not {status}")
        run.refused[what] = 1
    require(_stored(run) == before, "something that was refused is in the store")
    for body in JUNK:
        answered = ask(run.port, _request(run.path, body))
        require(answered == 200, f"a body that is no callback was answered {answered}")  # noqa: PLR2004 - HTTP's own
        run.junk.append(body)
    return f"{len(refused)} kinds refused, nothing of them kept; {len(JUNK)} kinds of garbage kept in quarantine"


def _stored(run: Run) -> int:
    with contextlib.closing(run.inbox()) as inbox:
        newest = inbox.callbacks(Selection(), limit=1, bodies=False)
    return newest[0].id if newest else 0


def _head(path: str, length: int, more: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{more}\r\n".encode()


def _request(path: str, body: bytes, more: str = "") -> bytes:
    return _head(path, len(body), more) + body
