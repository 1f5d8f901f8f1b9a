"""What arrives over HTTP is what is kept, however it was put on the wire."""

import collections
import itertools
import socket
import time

import pytest

from .conftest import TOKEN

OFFER = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"


def post(body, headers=""):
    head = f"POST /callbacks/{TOKEN} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


CHUNKED = post(b"", OFFER).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")


def talk(port, parts):
    """Send parts on one connection, each as a segment of its own, and return the statuses that come back."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)
            time.sleep(0.05)
        answers = b""
        connection.settimeout(0.5)
        try:
            while chunk := connection.recv(65536):
                answers += chunk
        except TimeoutError:
            pass
    return [int(answer.split(b" ", 1)[0]) for answer in answers.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize(
    ("parts", "bodies"),
    [
        ([post(b'{"a": 1}', OFFER)], ['{"a": 1}']),
        ([post(b'{"a": 1}', OFFER)[:-8], b'{"a":', b" 1}"], ['{"a": 1}']),
        ([CHUNKED + b"3\r\n{}\n\r\n0\r\n\r\n", post(b"[]")], ["{}\n", "[]"]),
        (
            [post(b'{"a": 1}', OFFER) + post(b'{"a": 2}', OFFER) + post(b'{"a": 3}')],
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
    assert talk(listener.port, [post(b"[]", OFFER), b"\0\0\0"]) == [200, 400]
    assert talk(listener.port, [post(b"{}")]) == [200]


@pytest.mark.parametrize("start", [b"POST /", b"POST / HTTP/1.1\r\nX-Long: "], ids=["line", "header"])
def test_a_head_without_end(upcall, start):
    """A stranger's endless request line or header is refused after about a mebibyte, not kept until memory ends."""
    listener = upcall.listen()
    with socket.create_connection(("127.0.0.1", listener.port), timeout=10) as connection:
        endless = itertools.chain([start], itertools.repeat(b"x" * 2**20, 64))
        with pytest.raises(OSError, match=r"reset|pipe"):
            collections.deque(map(connection.sendall, endless), maxlen=0)
    assert talk(listener.port, [post(b"{}")]) == [200]


def test_a_long_head_that_ends(upcall):
    """Many headers, though a quarter of a mebibyte, cost no callback."""
    listener = upcall.listen()
    headers = "".join(f"X-Header-{number}: {'x' * 50}\r\n" for number in range(4000))
    assert talk(listener.port, [post(b"{}", headers)]) == [200]
    assert [callback["raw"] for callback in upcall.json("events", "list")] == ["{}"]
