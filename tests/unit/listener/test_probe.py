"""The proof of who listens: what is asked, what is answered, and what never is."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.inbox import open_inbox
from upcall.listener import Gate, ListenerApp, Reception, Sources, parse_tokens
from upcall.listener.connections import Connections
from upcall.listener.gate import Token
from upcall.listener.probe import nonce_of, prove, proves
from upcall.listener.service import CallbackService
from upcall.listener.sources import Source
from upcall.thingspace import CALLBACK_SOURCES

from .wire import Line, Wire

TOKEN = "t" * 20
OTHER = "o" * 20
PATH = f"/callbacks/{TOKEN}"
NONCE = "nonce_of-16chars"
LISTED = CALLBACK_SOURCES.values[0]
PROXY = "10.0.0.7"
STRANGER = "198.51.100.1"
PROVED = {"proof", "source", "listed", "time"}

QUERIES = {
    f"?probe={NONCE}": True,
    f"?a=b&probe={NONCE}&c": True,
    f"?probe={'A' * 64}": True,
    "": False,
    "?": False,
    "?probe": False,
    "?probe=": False,
    f"?probe={'A' * 15}": False,
    f"?probe={'A' * 65}": False,
    f"?probe={NONCE}%0A": False,
    "?probe=%4eonce_of-16chars": False,
    f"?probe=short&probe={NONCE}": False,
    f"?Probe={NONCE}": False,
    f"?xprobe={NONCE}": False,
    f"?probe={NONCE}#": False,
    f"?{'a' * 2000}&probe={NONCE}": False,
}


@pytest.fixture(params=["wire", "asgi"])
async def ask(request, tmp_path):
    """Return what asks a listener behind one proxy, in both forms that there are, and returns status and body."""
    sources = Sources([PROXY])
    with open_inbox(str(tmp_path / "1.db"), create=True) as inbox:
        reception = Reception(inbox.appender, Gate(parse_tokens([TOKEN, OTHER])))
        over = over_wire if request.param == "wire" else over_asgi

        async def ask(path, *, method="GET", peer=STRANGER, forwarded=None):
            return await over(reception, sources, (method, path, peer, forwarded))

        ask.inbox, ask.stats = inbox, reception.stats
        yield ask
        await reception.aclose()


async def over_wire(reception, sources, request):
    method, path, peer, forwarded = request
    connections = Connections(CallbackService(reception, sources), sources, reception.stats)
    line = Line.__new__(Line)
    line.wire, line.protocol = Wire(peer), connections()
    line.protocol.connection_made(line.wire)
    named = f"X-Forwarded-For: {forwarded}\r\n" if forwarded else ""
    line.send(f"{method} {path} HTTP/1.1\r\n{named}\r\n".encode())
    head, _, body = line.wire.written.partition(b"\r\n\r\n")
    line.protocol.connection_lost(None)
    return int(head.split(b" ")[1]), body


async def over_asgi(reception, sources, request):
    method, path, peer, forwarded = request
    sent = []
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    path, _, query = path.partition("?")

    async def receive():
        raise AssertionError("nobody reads a body here")

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": headers, "client": (peer, 1)}
    await ListenerApp(reception, sources=sources)(scope | {"query_string": query.encode()}, receive, send)
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize("query", QUERIES)
async def test_what_asks_for_a_proof(ask, query):
    """A GET with one nonce of 16 to 64 plain characters is answered with a proof; any other looks as it did."""
    status, body = await ask(PATH + query)
    assert status == 200
    assert (set(json.loads(body)) == PROVED) if QUERIES[query] else body == b""


async def test_the_answer_proves_the_token_and_tells_the_time(ask):
    """Who knows the token can verify the proof, nobody else's token gives it, and the clock is the listener's own."""
    _, body = await ask(f"{PATH}?probe={NONCE}")
    said = json.loads(body)
    assert proves(said["proof"], TOKEN, NONCE.encode())
    assert not proves(said["proof"], OTHER, NONCE.encode())
    assert not proves(said["proof"], TOKEN, b"another-nonce-16")
    assert abs((datetime.fromisoformat(said["time"]) - datetime.now(UTC)).total_seconds()) < 60
    assert NONCE not in body.decode()
    assert TOKEN not in body.decode()


@pytest.mark.parametrize(
    ("peer", "forwarded", "source", "listed"),
    [
        (STRANGER, None, STRANGER, False),
        (STRANGER, LISTED, STRANGER, False),
        (PROXY, LISTED, LISTED, True),
        (PROXY, f"{LISTED}, {STRANGER}", STRANGER, False),
        (PROXY, '"><script>', PROXY, False),
        ("127.0.0.1", LISTED, "127.0.0.1", None),
    ],
)
async def test_the_answer_says_whom_it_takes_the_asker_for(ask, peer, forwarded, source, listed):
    """The source is found as that of a callback is: a header counts from a declared proxy only."""
    _, body = await ask(f"{PATH}?probe={NONCE}", peer=peer, forwarded=forwarded)
    assert (json.loads(body)["source"], json.loads(body)["listed"]) == (source, listed)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_without_a_live_token_there_is_no_proof(ask, method):
    """A stranger learns nothing from a probe: 404, as ever, and it is counted."""
    assert await ask(f"/callbacks/wrong?probe={NONCE}", method=method) == (404, b'{"error":"not found"}')
    assert ask.stats.unknown_token == 1


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("PUT", 405), ("DELETE", 405)])
async def test_only_get_is_a_probe(ask, method, status):
    """Other methods are answered as without a probe, and no probe is counted or kept as a callback."""
    answered, body = await ask(f"{PATH}?probe={NONCE}", method=method)
    assert answered == status
    assert b"proof" not in body
    assert ask.stats.received == 0
    assert ask.inbox.callbacks() == []


@given(st.binary(max_size=200) | st.builds(lambda nonce: b"/x?probe=" + nonce, st.binary(max_size=70)))
def test_no_target_breaks_it_and_none_is_repeated(target):
    """Any bytes are a probe or none; what is answered is as long whatever was asked, and holds nothing of it."""
    nonce = nonce_of(target)
    if nonce is None:
        return
    assert 16 <= len(nonce) <= 64
    assert nonce in target
    made = prove(Token(TOKEN), nonce, Source("192.0.2.7", listed=False, evidence=""), 1_800_000_000.0)
    assert nonce not in made.body
    assert len(made.body) == len(prove(Token(TOKEN), b"0" * 16, Source("192.0.2.7", False, ""), 0.0).body)


@given(st.text(), st.binary(min_size=16, max_size=64))
def test_no_text_is_a_proof_by_chance(proof, nonce):
    """Whatever an answer gives as its proof is compared without raising, and is none."""
    assert not proves(proof, TOKEN, nonce)
