"""Odd, broken and hostile bodies: each is answered by the table of docs/receiving.md and kept byte for byte."""

import base64
import contextlib
import gzip
import hashlib
import json
import random

import pytest

from upcall.inbox import open_inbox

from .conftest import TOKEN
from .sockets import Connection, chunked, memory, post

MIB = 2**20
CAP = 8 * MIB
GZIPPED = gzip.compress(b'{"type": "upgradeProgress"}', mtime=0)

ACCEPTED = {
    "one object": b'{"type": "upgradeProgress"}',
    "white space around it": b' \r\n\t{"a": 1}\n\n',
    "duplicate keys": b'{"accountName": "A-1", "accountName": "A-2", "type": 1, "type": 2}',
    "a huge number": b'{"a": ' + b"9" * 5000 + b"}",
    "a huge exponent": b'{"a": 1e99999}',
    "a long text": b'{"a": "' + b"long " * 100_000 + b'"}',
    "nested as deep as a person would": b'{"a":' * 50 + b"1" + b"}" * 50,
    "half a surrogate": b'{"a": "\\ud800"}',
    "a list": b"[1, 2]",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a number": b"42",
    "what ends chunks": b"\r\n\r\n0\r\n\r\n",
    "a control character, escaped": b'{"a": "\\u0000"}',
}
QUARANTINED = {
    "nothing": b"",
    "spaces": b" " * 1000,
    "gzip": GZIPPED,
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "half a document": b'{"type": "upgradePro',
    "two documents": b'{"a": 1}{"b": 2}',
    "a web page": b"<html><body>Bad Gateway</body></html>",
    "a form": b"type=upgradeProgress&accountName=0000123456-00001",
    "nested without end": b"[" * 100_000,
    "nested too deeply": b"[" * 100_000 + b"]" * 100_000,
    "objects nested too deeply": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "zeros": b"\0" * 1000,
    "random": random.Random(4).randbytes(100_000),
}


def brief(body):
    """Return what stands for a body: a failing test should not print mebibytes."""
    return body if len(body) < 100 else f"{len(body)} bytes, {hashlib.sha256(body).hexdigest()}"


def kept(upcall):
    """Return what the store keeps, by `brief`: how often each was delivered, and its trust."""
    with open_inbox(upcall.store) as inbox:
        return {brief(record.body): (record.deliveries, str(record.trust)) for record in inbox.callbacks()}


def listed(upcall):
    """Return what `events list` shows, by its bytes."""
    found = {}
    for callback in upcall.json("events", "list", "--limit", "0"):
        raw = base64.b64decode(callback["raw_base64"]) if "raw_base64" in callback else callback["raw"].encode()
        found[raw] = (callback["deliveries"], callback["trust"])
    return found


def test_every_body_is_acknowledged_and_kept(upcall):
    """Whatever a body is, in one piece, in chunks or in single bytes, it is acknowledged and kept as it is."""
    listener = upcall.listen()
    bodies = [*ACCEPTED.values(), *QUARANTINED.values()]
    with Connection(listener.port) as connection:
        for body in bodies:
            assert connection.ask(post(body)) == 200
            assert connection.ask(chunked(body, 10_000)) == 200
            assert connection.ask(post(body, "Content-Encoding: gzip", "Content-Type: */*")) == 200
        for byte in chunked(GZIPPED, 1):
            connection.send(bytes([byte]))
        assert connection.answer() == 200
    expected = dict.fromkeys(ACCEPTED.values(), (3, "accepted")) | dict.fromkeys(
        QUARANTINED.values(), (3, "quarantined")
    )
    expected[GZIPPED] = (4, "quarantined")
    assert kept(upcall) == {brief(body): facts for body, facts in expected.items()}
    assert "Traceback" not in listener.errors.read_text()


def test_every_body_is_shown_as_it_came(upcall):
    """`events list --json` gives each body back byte for byte, in base64 where it is no UTF-8."""
    listener = upcall.listen()
    bodies = [body for body in [*ACCEPTED.values(), *QUARANTINED.values()] if len(body) < 10_000]
    with Connection(listener.port) as connection:
        assert {connection.ask(post(body)) for body in bodies} == {200}
    assert set(listed(upcall)) == set(bodies)


def test_the_cap(upcall):
    """A body at the cap is kept; one a byte over it is refused with 413 however its length is told, nothing cut."""
    listener = upcall.listen()
    at_the_cap = b'"' + b"x" * (CAP - 2) + b'"'
    for request in (post(at_the_cap + b" "), chunked(at_the_cap + b" ", 100_000)):
        with Connection(listener.port) as connection:
            assert connection.ask(request) == 413
            assert connection.is_ended()
    with Connection(listener.port) as connection:
        assert connection.ask(post(at_the_cap)) == 200
    assert kept(upcall) == {brief(at_the_cap): (1, "accepted")}


@pytest.mark.parametrize("size", [1, 3])
def test_a_body_of_tiny_chunks(upcall, size):
    """A mebibyte in chunks of a byte or three takes a few mebibytes of memory, not one object for each."""
    listener = upcall.listen()
    with Connection(listener.port) as connection:
        assert connection.ask(post(b"{}")) == 200
        before = memory(listener)
        body = b'"' + b"x" * MIB + b'"'
        assert connection.ask(chunked(body, size)) == 200
    assert memory(listener) - before < 24
    assert kept(upcall)[brief(body)] == (1, "accepted")


def test_memory_is_bounded_by_what_is_under_way(upcall):
    """While many large bodies wait for their last byte they take what docs/receiving.md says, and nothing stays."""
    listener = upcall.listen()
    number = 16
    bodies = [b'"%02d' % index + b"x" * (CAP - 4) + b'"' for index in range(number)]
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(Connection(listener.port)) for _ in bodies]
        assert connections[0].ask(post(b"{}")) == 200
        before = memory(listener)
        for connection, body in zip(connections, bodies, strict=True):
            connection.send(post(body)[:-1])
        for connection, body in zip(connections, bodies, strict=True):
            connection.send(body[-1:])
        assert {connection.answer() for connection in connections} == {200}
        assert memory(listener) - before < 2 * number * CAP / MIB + 100
    assert len(kept(upcall)) == number + 1


def test_strangers_take_no_memory(upcall):
    """A body that comes without a live token is thrown away as it comes, and so are its trailers and its headers."""
    listener = upcall.listen()
    before = memory(listener)
    lines = b"X-Forwarded-For: 1\r\n" * 40_000
    hostile = [
        post(b"x" * 6 * CAP, path="/callbacks/unknown"),
        chunked(b"x" * 3 * CAP, 4096, path="/callbacks/unknown"),
        chunked(b"", 1, path="/callbacks/unknown")[:-2] + b"X-Long: " + b"x" * 64 * MIB,
        b"POST /callbacks/unknown HTTP/1.1\r\n" + lines,
    ]
    for request in hostile:
        with Connection(listener.port) as connection:
            with contextlib.suppress(OSError):  # it may be refused before it is whole
                connection.send(request)
            assert connection.answer() in {404, 431, None}
    assert memory(listener) - before < 24
    with Connection(listener.port) as connection:
        assert connection.ask(post(b"{}")) == 200


def test_nothing_that_is_secret_is_said(upcall):
    """Neither log nor access log nor answer repeats a token, a query or a body, whatever comes."""
    listener = upcall.listen("--access-log", "--mask-token")
    with Connection(listener.port) as connection:
        assert connection.ask(post(b'{"password": "s3cret"}', path=f"/callbacks/{TOKEN}?key=hushhush")) == 200
        assert TOKEN.encode() not in connection.head + connection.body
        assert connection.ask(post(b"{}", path=f"/callbacks/{TOKEN}x")) == 404
        assert connection.ask(b"GET //callbacks/" + TOKEN.encode() + b" HTTP/1.1\r\n\r\n") == 404
        assert connection.ask(b"POST /callbacks/" + TOKEN.encode() + b" HTTP/9.9\r\n\r\n") == 400
        assert TOKEN.encode() not in connection.head + connection.body
    assert listener.end() == 0
    said = listener.errors.read_text() + json.dumps(listener.lines)
    assert said.count("upcall.access") == 4
    for secret in (TOKEN, "s3cret", "hushhush"):
        assert secret not in said
