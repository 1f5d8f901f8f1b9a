"""What is admitted and what is answered: one for our own protocol and for an ASGI server."""

import asyncio
import logging

import msgspec
import pytest

from upcall.inbox import open_inbox
from upcall.listener import Gate, ListenerApp, Reception, Sources, parse_tokens
from upcall.listener.connections import Connections
from upcall.listener.service import CallbackService
from upcall.thingspace import CALLBACK_SOURCES

from .wire import Line, Wire

TOKEN = "t" * 20
PATH = f"/callbacks/{TOKEN}"
MOST = 1000
LISTED = CALLBACK_SOURCES.values[0]
PROXY = "10.0.0.7"
STRANGER = "198.51.100.1"
COUNTED = [name for name, value in msgspec.structs.asdict(Reception(None, Gate(parse_tokens([TOKEN]))).stats).items()
           if isinstance(value, int) and name != "last_received_at"]  # fmt: skip

CASES = {
    "kept": ("POST", PATH, PROXY, LISTED, b"{}", 200, "new"),
    "kept in quarantine": ("POST", PATH, PROXY, LISTED, b"no JSON", 200, "quarantined"),
    "at the cap": ("POST", PATH, PROXY, LISTED, b"0" * MOST, 200, "new"),
    "looked at": ("GET", PATH, PROXY, LISTED, b"", 200, None),
    "no token": ("POST", "/callbacks/wrong", PROXY, LISTED, b"{}", 404, "unknown_token"),
    "no token, and all else wrong too": ("PUT", "/wrong", STRANGER, None, b"x" * MOST * 2, 404, "unknown_token"),
    "another method": ("PUT", PATH, PROXY, LISTED, b"{}", 405, None),
    "another method, from elsewhere": ("PUT", PATH, STRANGER, None, b"x" * MOST * 2, 405, None),
    "from elsewhere": ("POST", PATH, STRANGER, None, b"{}", 403, "refused_source"),
    "from elsewhere, by its proxy": ("POST", PATH, PROXY, STRANGER, b"{}", 403, "refused_source"),
    "from elsewhere, and forged": ("POST", PATH, STRANGER, LISTED, b"{}", 403, "refused_source"),
    "from elsewhere, and too large": ("POST", PATH, STRANGER, None, b"x" * MOST * 2, 403, "refused_source"),
    "too large": ("POST", PATH, PROXY, LISTED, b"x" * (MOST + 1), 413, "too_large"),
}


@pytest.fixture
async def twins(tmp_path):
    """Return the same listener twice, each over a store of its own: behind our protocol, and as an ASGI application."""
    gate = Gate(parse_tokens([TOKEN]))
    sources = Sources([PROXY], refuse_unlisted=True)
    with open_inbox(str(tmp_path / "1.db"), create=True) as one, open_inbox(str(tmp_path / "2.db"), create=True) as two:
        receptions = [Reception(inbox.appender, gate, max_body_bytes=MOST) for inbox in (one, two)]
        yield OverWire(receptions[0], sources), OverAsgi(receptions[1], sources)
        for reception in receptions:
            await reception.aclose()


class OverWire:
    """Ask through the protocol of ``upcall listen``."""

    def __init__(self, reception, sources):
        self.reception = reception
        self.connections = Connections(CallbackService(reception, sources), sources, reception.stats)

    async def ask(self, method, path, peer, forwarded, body):
        line = Line.__new__(Line)
        line.wire = Wire(peer)
        line.protocol = self.connections()
        line.protocol.connection_made(line.wire)
        named = f"X-Forwarded-For: {forwarded}\r\n" if forwarded else ""
        line.send(f"{method} {path} HTTP/1.1\r\n{named}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        async with asyncio.timeout(60):
            while not line.wire.written:  # noqa: ASYNC110 - what it waits for happens in a thread
                await asyncio.sleep(0.002)
        head, _, said = line.wire.written.partition(b"\r\n\r\n")
        status, *headers = head.decode().lower().split("\r\n")
        line.protocol.connection_lost(None)
        return int(status.split(" ")[1]), sorted(headers), said


class OverAsgi:
    """Ask as an ASGI server does."""

    def __init__(self, reception, sources):
        self.reception = reception
        self.app = ListenerApp(reception, sources=sources)
        self.read = 0

    async def ask(self, method, path, peer, forwarded, body):
        headers = [(b"content-length", b"%d" % len(body))]
        headers += [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
        sent = []

        async def receive():
            self.read += 1
            return {"type": "http.request", "body": body}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "headers": headers, "client": (peer, 1)}
        await self.app(scope, receive, send)
        start, said = sent
        lines = sorted(f"{name.decode()}: {value.decode().lower()}" for name, value in start["headers"])
        return start["status"], lines, said["body"]


@pytest.mark.parametrize("case", CASES)
async def test_both_forms_answer_and_count_alike(twins, case):
    """The same request gets the same answer, to the header, and moves the same counters, whatever brings it."""
    *request, status, counter = CASES[case]
    over_wire, over_asgi = [await form.ask(*request) for form in twins]
    assert over_wire == over_asgi
    assert over_wire[0] == status
    counted = [{name for name in COUNTED if getattr(form.reception.stats, name) == 1} for form in twins]
    assert counted[0] == counted[1]
    assert counter in counted[0] if counter else counted[0] == set()


@pytest.mark.parametrize(
    ("method", "path", "peer"),
    [("POST", "/callbacks/wrong", PROXY), ("PUT", PATH, PROXY), ("GET", PATH, PROXY), ("POST", PATH, STRANGER)],
)
async def test_a_refused_head_has_no_body_read(twins, method, path, peer):
    """An ASGI server is asked for no byte of a body that nobody wants."""
    _, asgi = twins
    await asgi.ask(method, path, peer, None, b"{}")
    assert asgi.read == 0
    await asgi.ask("POST", PATH, PROXY, LISTED, b"{}")
    assert asgi.read == 1


async def test_a_proxy_that_nobody_declared_is_told_of_once(twins, caplog):
    """Where a peer that is no trusted proxy names a source, one line says so, and only where the option is there."""
    wire, asgi = twins
    with caplog.at_level(logging.WARNING, "upcall.listener"):
        await asgi.ask("POST", PATH, STRANGER, LISTED, b"{}")
        assert caplog.messages == []
        for _ in range(2):
            await wire.ask("POST", PATH, STRANGER, LISTED, b"{}")
    (said,) = caplog.messages
    assert said.endswith(f"--trusted-proxy {STRANGER}")


@pytest.mark.parametrize("length", [b"", b"-1", b"1e9", b"\xb2", b"7", b"9" * 5000])
async def test_what_a_length_says(twins, length):
    """No length in a head breaks anything: one that is over the cap is believed, and all else is counted."""
    _, asgi = twins
    sent = []
    parts = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.request", "body": b"}"}])

    async def receive():
        return next(parts)

    async def send(message):
        sent.append(message)

    headers = [(b"content-length", length)]
    await asgi.app({"type": "http", "method": "POST", "path": PATH, "headers": headers, "client": (LISTED, 1)},
                   receive, send)  # fmt: skip
    assert sent[0]["status"] == (413 if len(length) > 20 else 200)
