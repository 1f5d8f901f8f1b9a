"""What arrives over HTTP is what is kept, however it was put on the wire."""

import contextlib
import itertools

import pytest

from .sockets import Connection, memory, post, talk

OFFER = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
CHUNKED = post(b"", *OFFER).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")


@pytest.mark.parametrize(
    ("parts", "bodies"),
    [
        ([post(b'{"a": 1}', *OFFER)], ['{"a": 1}']),
        ([post(b'{"a": 1}', *OFFER)[:-8], b'{"a":', b" 1}"], ['{"a": 1}']),
        ([CHUNKED + b"3\r\n{}\n\r\n0\r\n\r\n", post(b"[]")], ["{}\n", "[]"]),
        (
            [post(b'{"a": 1}', *OFFER) + post(b'{"a": 2}', *OFFER) + post(b'{"a": 3}')],
            [f'{{"a": {n}}}' for n in (1, 2, 3)],
        ),
    ],
    ids=["at once", "in pieces", "in chunks", "pipelined"],
)
def test_an_offer_of_http2_costs_no_body(upcall, parts, bodies):
    """A sender that offers HTTP/2 over plain http, as Java's does, is answered in HTTP/1.1, and its body is kept."""
    listener = upcall.listen()
    assert talk(listener.port, parts) == [200] * len(bodies)
    assert [callback["raw"] for callback in upcall.json("events", "list")] == bodies


def test_what_is_no_request_is_refused(upcall):
    """Neither CONNECT nor an offer with garbage after it takes the listener along."""
    listener = upcall.listen()
    assert talk(listener.port, [b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n"]) == [400]
    assert talk(listener.port, [post(b"[]", *OFFER), b"\0\0\0"]) == [200, 400]
    assert talk(listener.port, [post(b"{}")]) == [200]


@pytest.mark.parametrize("start", [b"POST /", b"POST / HTTP/1.1\r\nX-Long: "], ids=["line", "header"])
def test_a_head_without_end(upcall, start):
    """A stranger's endless request line or header is refused after about a mebibyte, not kept until memory ends."""
    listener = upcall.listen()
    before = memory(listener)
    with Connection(listener.port) as connection, contextlib.suppress(OSError):
        for part in itertools.chain([start], itertools.repeat(b"x" * 2**20, 64)):
            connection.send(part)
    with Connection(listener.port) as connection:
        assert connection.ask(start + b"x" * 2**20) == 431
        assert connection.is_ended()
    assert memory(listener) - before < 16
    assert talk(listener.port, [post(b"{}")]) == [200]


def test_a_long_head_that_ends(upcall):
    """Many headers, though a quarter of a mebibyte, cost no callback."""
    listener = upcall.listen()
    headers = [f"X-Header-{number}: {'x' * 50}" for number in range(4000)]
    assert talk(listener.port, [post(b"{}", *headers)]) == [200]
    assert [callback["raw"] for callback in upcall.json("events", "list")] == ["{}"]


def test_a_client_that_said_all_that_it_will(upcall):
    """Requests of a client that has closed its own side are all kept and answered before the other is closed."""
    listener = upcall.listen()
    bodies = [b'{"serial": %d}' % serial for serial in range(40)]
    assert talk(listener.port, map(post, bodies)) == [200] * 40
    assert [callback["raw"].encode() for callback in upcall.json("events", "list", "--limit", "0")] == bodies


def test_nobody_stays_behind_an_answer_that_ends_the_connection(upcall):
    """Whatever a client sends behind its last request, its connection is gone within seconds, not held for ever."""
    listener = upcall.listen("--max-per-source", "256")
    ends = [
        post(b"", "Connection: close") + b"X",
        post(b"{}", "Expect: 100-continue", path="/callbacks/unknown") + post(b"{}", path="/callbacks/unknown"),
        b"CONNECT localhost:80 HTTP/1.1\r\n\r\n" + post(b"{}"),
    ]
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(Connection(listener.port)) for _ in range(255)]
        for connection, end in zip(held, itertools.cycle(ends)):
            connection.send(end)
        assert {len(connection.answers()) for connection in held} == {1}

        def is_free():
            with Connection(listener.port) as first, Connection(listener.port) as second:
                return second.ask(post(b"{}")) == 200 and first.ask(post(b"{}")) == 200

        upcall.until(is_free, 10)
