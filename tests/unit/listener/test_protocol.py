"""HTTP as the listener reads it off a connection, and what it answers."""

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.listener.answers import answer
from upcall.listener.connections import Limits

from .wire import MOST, OK, Keeper, Line, chunked, in_pieces, post

OFFER = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
EXPECT = "Expect: 100-continue"


@pytest.fixture
def line():
    return Line()


@pytest.fixture
async def slow():
    """Return a connection whose requests are answered when the test says so."""
    return Line(Keeper(at_once=False))


async def turn(times=4):
    """Let the loop take a turn or two."""
    for _ in range(times):
        await asyncio.sleep(0)


# one request


@pytest.mark.parametrize(
    "request_",
    [post(b"{}"), chunked(b"{", b"}"), post(b"{}", *OFFER), chunked(b"{", b"}", headers=OFFER)],
    ids=["length", "chunks", "offer", "offer and chunks"],
)
def test_cut_at_every_byte(request_):
    """Wherever a request is cut in two, and when each byte comes alone, it is the same request."""
    for at in range(1, len(request_)):
        line = Line().send(request_[:at], request_[at:])
        assert (line.statuses, line.keeper.seen) == ([200], [("POST", "/x", b"{}", None)])
    line = Line().send(*in_pieces(request_, [1]))
    assert (line.statuses, line.keeper.seen) == ([200], [("POST", "/x", b"{}", None)])


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/x?y=z", "/x"),
        ("/%78", "/x"),
        ("/x%2Fy", "/x/y"),
        ("/%", "/%"),
        ("/%ff", "/\ufffd"),
        ("http://localhost/x?y", "/x"),
        ("http://localhost:80/x/y", "/x/y"),
        ("http://localhost", "/"),
        ("/x#y", "/x"),
        ("//x", "//x"),
    ],
)
def test_the_path_of_a_target(line, target, path):
    """The query is no part of the path, percent signs are read, and the form that proxies are sent is understood."""
    line.send(post(path=target))
    assert [seen[1].partition("#")[0] for seen in line.keeper.seen] == [path]


def test_a_long_path_is_not_decoded(line):
    """A path of a mebibyte of percent signs costs a stranger a mebibyte, and the listener next to nothing."""
    line.send(post(path="/" + "%41" * 300_000))
    assert line.keeper.seen[0][1].startswith("/%41")


def test_an_asterisk_names_nothing(line):
    """`OPTIONS *` is a request like any other for a path that is not there."""
    line.send(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (line.statuses, line.keeper.seen[0][:2]) == ([200], ("OPTIONS", "/"))


def test_head_has_no_body(line):
    """HEAD is answered with the length of the body and without it; the next answer is not taken for that body."""
    line.send(b"HEAD /gone HTTP/1.1\r\n\r\n", post())
    head, _, rest = line.wire.written.partition(b"\r\n\r\n")
    assert b"Content-Length: 4" in head
    assert rest.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("request_", "closes"),
    [
        (post(), False),
        (post(b"", "Connection: close"), True),
        (post(b"", "Connection: Close"), True),
        (post(b"", "Connection: foo, close"), True),
        (post(version="1.0"), True),
        (post(b"", "Connection: keep-alive", version="1.0"), False),
        (post(b"", *OFFER), False),
        (post(b"", "Connection: close, Upgrade", "Upgrade: h2c"), True),
    ],
)
def test_who_ends_the_connection(line, request_, closes):
    """A connection goes on or ends as HTTP/1.0 and 1.1 have it, and the answer says so where it ends."""
    line.send(request_)
    assert line.statuses == [200]
    assert (b"Connection: close" in line.wire.written) is closes
    assert line.wire.is_half_closed is closes


def test_empty_lines_before_a_request(line):
    """What some clients send behind a body, an empty line, is not taken for a request."""
    line.send(b"\r\n\r\n" + post(b"1") + b"\r\n", post(b"2"))
    assert (line.statuses, line.bodies) == ([200, 200], [b"1", b"2"])


@pytest.mark.parametrize("extra", ["X-Nothing:", "X-Nothing: ", "X-Tab:\t1\t"])
def test_a_header_without_a_value_hides_no_other(extra):
    """An empty header before the proxy's own does not swallow it."""
    line = Line(trusted=["192.0.2.7"]).send(post(b"", extra, "X-Forwarded-For: 198.51.100.1", extra))
    assert line.keeper.seen[0][3] == "198.51.100.1"


def test_several_forwarding_headers_are_one(line):
    """Several lines of X-Forwarded-For are read as one, in their order."""
    line.send(post(b"", "X-Forwarded-For: 1.1.1.1, 2.2.2.2", "x-forwarded-for: 3.3.3.3"))
    assert line.keeper.seen[0][3] == "1.1.1.1, 2.2.2.2,3.3.3.3"


@pytest.mark.parametrize("trailer", ["X-Forwarded-For: 6.6.6.6", "Expect: 100-continue", "A: b"])
def test_trailers_say_nothing(line, trailer):
    """What stands behind a chunked body changes neither who sent it nor how long it was."""
    line.send(chunked(b"{}", trailers=[trailer]), post(b"[]"))
    assert line.keeper.seen == [("POST", "/x", b"{}", None), ("POST", "/x", b"[]", None)]
    assert b"close" not in line.wire.written


def test_chunk_extensions_say_nothing(line):
    """What may stand behind a chunk's length is read over."""
    line.send(b'POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\n{\r\n1;c="d;e"\r\n}\r\n0;f\r\n\r\n')
    assert (line.statuses, line.bodies) == ([200], [b"{}"])


@pytest.mark.parametrize(
    "request_",
    [
        b"\0\0\0",
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"post /x HTTP/1.1\r\n\r\n",
        b"POST /x HTTP/1.9\r\n\r\n",
        b"POST x HTTP/1.1\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /x HTTP/1.1\nContent-Length: 0\n\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 0\n\r\n",
        b"POST /x HTTP/1.1\r\nA: b\rc\r\n\r\n",
        b"POST /x HTTP/1.1\r\nA: b\nc\r\n\r\n",
        b"POST /x HTTP/1.1\r\nA: b\0c\r\n\r\n",
        b"POST /x HTTP/1.1\r\nA\0: b\r\n\r\n",
        b"POST /x\0 HTTP/1.1\r\n\r\n",
        b"POST /x\xff HTTP/1.1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length : 0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1",
        b"POST /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12",
        b"POST /x HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n1",
        b"POST /x HTTP/1.1\r\nContent-Length:\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: +1\r\n\r\n1",
        b"POST /x HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n0123456789",
        b"POST /x HTTP/1.1\r\nContent-Length: 18446744073709551617\r\n\r\n1",
        b"POST /x HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n1\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\n1\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a\nb\r\n1\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n12\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n1",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n1\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
    ],
)
def test_what_two_readers_could_read_in_two_ways(line, request_):
    """What is no HTTP, or has two lengths or two ends, is refused whole: no proxy in front can be led to disagree."""
    line.send(request_, post(b"smuggled"))
    assert (line.statuses, line.bodies, line.stats.bad_request) == ([400], [], 1)
    assert line.wire.is_half_closed


# several on one connection


async def test_pipelined_requests_are_answered_in_their_order(slow):
    """Requests that come together are handed on one after the other, and answered in that order."""
    slow.send(post(b"1") + post(b"2", path="/gone") + chunked(b"3") + post(b"4"))
    assert slow.bodies == [b"1"]
    for done in ([200, 404], [200, 404, 200], [200, 404, 200, 200]):
        slow.keeper.answer()
        await turn()
        assert slow.statuses == done
    assert slow.bodies == [b"1", b"3", b"4"]


async def test_no_more_is_read_while_many_wait(slow):
    """A client that sends ahead is read no further than sixteen requests, and on when they were answered."""
    slow.send(post(b"0"), *(post(b"%d" % number) for number in range(1, 16)))
    assert slow.wire.is_reading_on
    slow.send(post(b"16"))
    assert not slow.wire.is_reading_on
    slow.keeper.answer()
    await turn()
    assert slow.wire.is_reading_on
    for _ in range(16):
        slow.keeper.answer()
        await turn()
    assert slow.bodies == [b"%d" % number for number in range(17)]


async def test_garbage_after_a_request_is_answered_after_it(slow):
    """A request that came whole is kept and answered first, though its connection then turns out not to speak HTTP."""
    slow.send(post(b"1"), b"\0\0")
    assert slow.statuses == []
    slow.keeper.answer()
    await turn()
    assert (slow.statuses, slow.bodies, slow.wire.is_half_closed) == ([200, 400], [b"1"], True)


@pytest.mark.parametrize(
    "last",
    [
        post(b"", "Connection: close"),
        post(b"{}", EXPECT, path="/gone"),
        post(b"x" * (MOST + 1)),
        b"CONNECT localhost:80 HTTP/1.1\r\n\r\n",
        post(b"", *["Connection: a"] * 101),
    ],
    ids=["close", "not expected", "too large", "CONNECT", "too many"],
)
@pytest.mark.parametrize("more", [post(b"more"), b"\0", b"GET /gone HTTP/1.1\r\n\r\n"])
def test_nothing_follows_the_last_request(line, last, more):
    """What comes behind an answer that ends the connection is no request, and does not keep the connection open."""
    alone = Line().send(last)
    line.send(last + more, more)
    assert line.statuses == alone.statuses
    assert line.stats.bad_request == alone.stats.bad_request
    assert b"more" not in line.bodies
    line.connections.sweep(line.protocol._deadline)
    assert line.wire.is_aborted, "the connection would stay for ever"


async def test_a_half_closed_client_hears_every_answer(slow):
    """A client that has sent all that it will, and said so, is answered all of it before the connection ends."""
    slow.send(post(b"1") + post(b"2") + post(b"3"))
    assert slow.protocol.eof_received() is True
    for number in range(3):
        assert not slow.wire.is_half_closed
        slow.keeper.answer()
        await turn()
        assert slow.statuses == [200] * (number + 1)
    assert slow.wire.is_half_closed
    assert slow.wire.written.count(b"Connection: close") == 1


def test_a_client_that_ends_between_two_requests(line):
    """A connection that its client ended with nothing under way is closed."""
    line.send(post())
    assert not line.protocol.eof_received()


def test_a_client_that_is_gone_in_the_middle(line):
    """Half a body is no callback; it is counted as cut short by its sender."""
    line.send(post(b"{}")[:-1])
    assert not line.protocol.eof_received()
    line.hang_up()
    assert (line.bodies, line.stats.cut_short, line.connections.open) == ([], 1, set())


async def test_a_client_that_is_gone_before_its_answer(slow):
    """The answer to a client that did not wait goes nowhere, and does no harm."""
    slow.send(post(b"1") + post(b"2"))
    slow.hang_up()
    slow.keeper.answer()
    await turn()
    assert (slow.bodies, slow.statuses) == ([b"1"], [])


async def test_a_client_that_reads_no_answers_is_read_no_further():
    """Answers that nobody reads do not fill the memory: no more requests are read until they are."""
    line = Line(Keeper(at_once=False), high_water=300)
    line.send(b"".join(post(b"%d" % number) for number in range(40)))
    while line.keeper.waiting:
        line.keeper.answer()
        await turn()
    assert len(line.statuses) == 40
    assert not line.wire.is_reading_on, "fewer than sixteen wait, and still nobody reads the answers"
    line.wire.drained()
    assert line.wire.is_reading_on


# refusing


@pytest.mark.parametrize("size", [MOST + 1, 5 * MOST])
@pytest.mark.parametrize("coded", [post, chunked])
def test_a_body_over_the_cap(line, coded, size):
    """A body over the cap is refused with 413 however its length is told; nothing of it is kept; then it ends."""
    line.send(*in_pieces(coded(b"x" * size), [500]))
    assert (line.statuses, line.bodies, line.stats.too_large) == ([413], [], 1)
    assert line.wire.is_half_closed


@pytest.mark.parametrize("coded", [post, chunked])
def test_a_body_at_the_cap(line, coded):
    """The cap itself still fits, in one piece and in many."""
    line.send(coded(b"x" * MOST), *in_pieces(coded(b"y" * MOST), [7]))
    assert (line.statuses, line.bodies) == ([200, 200], [b"x" * MOST, b"y" * MOST])


def test_a_body_over_the_cap_is_read_on_only_so_far(line):
    """A refused body is read on for politeness, so that its client hears the answer, and no further than eight caps."""
    head, body = post(b"x" * 100 * MOST)[: -100 * MOST], b"x" * MOST
    line.send(head, *[body] * 8)
    assert line.statuses == []
    line.send(body)
    assert line.statuses == [413]
    line.send(*[body] * 1000)
    assert line.statuses == [413]


def test_bodies_together_hold_no_more_than_they_may():
    """Bodies on all connections share one budget: past it a request gets 503, and what is answered gives room again."""
    keeper = Keeper(at_once=False)
    first = Line(keeper, limits=Limits(held_bytes=MOST))
    first.send(post(b"x" * 900))
    second = Line(keeper, shared=first.connections).send(post(b"y" * 200))
    third = Line(keeper, shared=first.connections).send(post(b"z" * 100)[:-1])
    assert (second.statuses, second.stats.busy, second.wire.is_half_closed) == ([503], 1, True)
    third.hang_up()
    assert first.connections.held_bytes == 900
    keeper.answer()
    assert (first.statuses, first.connections.held_bytes) == ([200], 0)
    assert Line(keeper, shared=first.connections).send(post(b"y" * 1000)).statuses == []


def test_chunks_in_http_1_0_end_the_connection(line):
    """A request of HTTP/1.0 that says it comes in chunks is the last of its connection: two readers could disagree."""
    line.send(chunked(b"x").replace(b"HTTP/1.1", b"HTTP/1.0\r\nConnection: keep-alive"))
    assert line.wire.is_half_closed


def test_a_refused_head_holds_no_body(line):
    """The body of a request that its head refused is not kept in memory while it comes."""
    line.send(post(b"x" * MOST, path="/gone")[:-1])
    assert (line.protocol._request.size, line.protocol._request.body) == (MOST - 1, b"")


@pytest.mark.parametrize("start", [b"POST /", b"POST / HTTP/1.1\r\nX-Long: ", b"POST / HTTP/1.1\r\n" + b"A: b\r\n" * 9])
def test_a_head_over_its_cap(start):
    """A head that does not end is refused with 431 once it is over its cap, in whatever it does not end."""
    line = Line(limits=Limits(max_head_bytes=2000)).send(start)
    pieces = 0
    while not line.statuses:
        line.send(b"x" * 100)
        pieces += 1
    assert (line.statuses, pieces) == ([431], (2000 - len(start)) // 100 + 1)


@pytest.mark.parametrize("path", ["/x", "/gone"])
@pytest.mark.parametrize(
    "end", [b"0\r\nX-Long: ", b"2\r\n{}\r\n0\r\nX-Long: ", b"1;ext="], ids=["trailer", "after a body", "extension"]
)
def test_what_stands_behind_a_body_has_the_same_cap(path, end):
    """A trailer or an extension without end is refused too, whatever the token: the parser would keep all of it."""
    line = Line(limits=Limits(max_head_bytes=2000))
    line.send(f"POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + end)
    for _ in range(30):
        line.send(b"x" * 100)
    assert (line.statuses, line.bodies) == ([431], [])


def test_a_long_body_is_no_long_head():
    """The cap on heads does not touch a body that comes in large or in many pieces."""
    line = Line(limits=Limits(max_head_bytes=200))
    line.send(*in_pieces(post(b"x" * MOST), [250]), *in_pieces(chunked(*[b"yy"] * 400), [90]))
    assert line.statuses == [200, 200]


@pytest.mark.parametrize("header", ["X-Forwarded-For: 1", "Connection: a"])
def test_a_head_of_nothing_else_than_what_is_kept(line, header):
    """The headers that are kept may not be many: a stranger's mebibyte of them would take many mebibytes."""
    line.send(post(b"{}", *[header] * 60))
    assert line.statuses == [200]
    line.send(post(b"{}", *[header] * 101))
    assert line.statuses == [200, 431]


def test_a_mistake_of_ours_is_answered(line, caplog):
    """Where the service fails unexpectedly its client hears 500 at once, the log says why, and others go on."""
    line.keeper.error = RuntimeError("a mistake")
    with caplog.at_level(logging.ERROR):
        line.send(post(b"1"))
    assert line.statuses == [500]
    assert "a mistake" in caplog.text
    line.keeper.error = None
    line.send(post(b"2"))
    assert line.statuses == [500, 200]


# leave to send a body


@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
def test_leave_is_given(line, value):
    """A client that asks for leave to send its body is given it once, then answered."""
    request = post(b"{}", f"Expect: {value}")
    line.send(request[:-2])
    assert line.statuses == [100]
    line.send(request[-2:])
    assert (line.statuses, line.bodies) == ([100, 200], [b"{}"])


@pytest.mark.parametrize("request_", [post(b"{}", EXPECT, version="1.0"), post(b"{}", "Expect: 200-ok")])
def test_leave_is_not_given_to_who_does_not_understand_it(line, request_):
    """HTTP/1.0 knows no leave, and another expectation is none of ours: the body is read and answered as ever."""
    line.send(request_[:-2])
    assert line.statuses == []
    line.send(request_[-2:])
    assert line.statuses == [200]


@pytest.mark.parametrize(("path", "size", "status"), [("/gone", 2, 404), ("/x", MOST + 1, 413)])
def test_leave_is_refused(line, path, size, status):
    """A client that asks for leave to send what is refused anyway hears that in its place, and the connection ends."""
    line.send(post(b"x" * size, EXPECT, path=path)[:-size])
    assert (line.statuses, line.wire.is_half_closed) == ([status], True)


@pytest.mark.parametrize(("path", "heard"), [("/x", [200, 100]), ("/gone", [200, 404])])
async def test_leave_in_its_turn(slow, path, heard):
    """Leave for a pipelined request is given, or refused, after the answers before it."""
    slow.send(post(b"1") + post(b"{}", EXPECT, path=path)[:-2])
    assert slow.statuses == []
    slow.keeper.answer()
    await turn()
    assert slow.statuses == heard


async def test_leave_is_not_asked_any_more(slow):
    """A client that has begun its body before its turn came needs no leave any more."""
    request = post(b"{}", EXPECT)
    slow.send(post(b"1") + request[:-1])
    slow.keeper.answer()
    await turn()
    assert slow.statuses == [200]
    slow.send(request[-1:])
    slow.keeper.answer()
    assert slow.statuses == [200, 200]


# the end


async def test_a_drain_answers_what_was_accepted(slow):
    """Asked to end, each request that was read is answered, and the last answer ends its connection."""
    slow.send(post(b"1") + post(b"2"))
    draining = asyncio.ensure_future(slow.connections.drain(idle_seconds=0, seconds=10))
    await turn()
    for _ in range(2):
        assert not slow.wire.is_over
        slow.keeper.answer()
        await turn()
    assert (slow.statuses, slow.wire.is_half_closed) == ([200, 200], True)
    assert slow.wire.written.count(b"Connection: close") == 1
    slow.hang_up()
    assert await draining == 0


async def test_a_drain_takes_a_request_that_has_begun(slow):
    """A request that has come in part when the drain begins, behind another one, may come whole and is answered."""
    slow.send(post(b"1"), post(b"2")[:-1])
    slow.connections.draining = True
    slow.keeper.answer()
    slow.send(b"2")
    slow.keeper.answer()
    assert (slow.statuses, slow.bodies, slow.wire.is_half_closed) == ([200, 200], [b"1", b"2"], True)


async def test_a_drain_ends_idle_connections(line):
    """A connection with nothing under way is closed after a moment, not kept for its idle time."""
    line.send(post())
    draining = asyncio.ensure_future(line.connections.drain(idle_seconds=0, seconds=10))
    await turn()
    assert line.wire.is_aborted
    line.hang_up()
    assert await draining == 0


async def test_a_drain_waits_for_an_answer_that_is_on_its_way():
    """A connection whose client is still reading its answer is not cut off from the rest of it."""
    line = Line(high_water=10)
    line.send(post())
    draining = asyncio.ensure_future(line.connections.drain(idle_seconds=0, seconds=10))
    await turn()
    assert not line.wire.is_aborted
    line.wire.drained()
    async with asyncio.timeout(60):
        while not line.wire.is_aborted:  # noqa: ASYNC110 - the drain looks now and then
            await asyncio.sleep(0.005)
    line.hang_up()
    assert await draining == 0


async def test_a_drain_has_an_end(slow):
    """A request that never becomes whole, and one whose answer never comes, are cut and counted."""
    dripping = Line(shared=slow.connections).send(post(b"{}")[:-1])
    slow.send(post(b"1"))
    assert await slow.connections.drain(idle_seconds=0, seconds=0.03) == 2
    assert slow.wire.is_aborted
    assert dripping.wire.is_aborted


def test_the_log_hears_of_each_answer():
    """Each answered request is told with its status, those that were no request included."""
    heard = []
    line = Line(log=lambda request, status, seconds: heard.append((request.method, status, request.size)))
    line.send(post(b"{}"), post(b"{}", path="/gone"), b"\0")
    assert heard == [(b"POST", 200, 2), (b"POST", 404, 2), (b"", 400, 0)]


# any bytes

BODIES = st.binary(max_size=30)
HEADERS = st.sampled_from([(), OFFER, ("X-Forwarded-For: 1.1.1.1",), ("X-Empty:", "Expect: nothing")])
REQUESTS = st.one_of(
    st.builds(lambda body, headers, path: post(body, *headers, path=path), BODIES, HEADERS, st.just("/x")),
    st.builds(
        lambda pieces, headers, trailers: chunked(*pieces, headers=headers, trailers=trailers),
        st.lists(BODIES, max_size=4),
        HEADERS,
        st.sampled_from([(), ("X-Forwarded-For: 6.6.6.6",)]),
    ),
    st.just(post(b"{}", path="/gone")),
    st.just(b"GET /gone HTTP/1.1\r\n\r\n"),
    st.just(b"HEAD /x HTTP/1.1\r\n\r\n"),
    st.just(post(b"x" * (MOST + 1))),
    st.just(post(b"last", "Connection: close")),
    st.just(b"\r\n"),
)


async def spoken(parts):
    """Send parts, answer everything, and return what was handed on and written."""
    line = Line(Keeper(at_once=False))
    for part in parts:
        line.send(part)
    while line.keeper.waiting:
        line.keeper.answer()
        await turn(10)  # a refused request takes one, and there may be eight
    return line.keeper.seen, line.wire.written, line.wire.is_half_closed


@given(st.lists(REQUESTS, max_size=8), st.lists(st.integers(1, 200), min_size=1, max_size=5))
async def test_how_requests_are_cut_changes_nothing(requests, sizes):
    """Any requests in any pieces are handed on, and answered, as they are when each comes in one piece."""
    whole = b"".join(requests)
    assert await spoken(in_pieces(whole, sizes)) == await spoken([whole])


@given(st.lists(st.binary(max_size=60) | REQUESTS, max_size=6), st.booleans())
async def test_no_bytes_break_it(parts, ends):
    """Whatever comes, nothing raises; each connection ends within its deadlines; what is no HTTP hears 400."""
    line = Line().send(*parts)
    if ends:
        line.protocol.eof_received()
    assert set(line.statuses) <= {100, 200, 400, 404, 408, 413, 431}
    for _ in range(3):
        line.connections.sweep(line.protocol._deadline + 1000)
    assert line.wire.is_aborted
    assert line.protocol._answering is None


def test_an_answer_holds_nothing_of_the_request():
    """An answer is constant: it reflects neither path nor header, and says its own length."""
    made = answer(404, b'{"error":"not found"}')
    assert b"Content-Length: 21\r\n" in made.keep
    assert made.keep.endswith(b"\r\n\r\n" + b'{"error":"not found"}')
    assert made.head_close.endswith(b"Connection: close\r\n\r\n")
    assert OK.wire(head=False, close=True) == OK.close
