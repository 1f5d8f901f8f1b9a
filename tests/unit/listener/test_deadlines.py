"""Deadlines and caps, on a clock that the test moves."""

import pytest

from upcall.listener import protocol
from upcall.listener.connections import Limits

from .wire import MOST, Clock, Keeper, Line, chunked, post

LIMITS = Limits(
    first_byte_seconds=20,
    head_seconds=10,
    body_seconds=60,
    grace_seconds=5,
    min_body_rate=100,
    idle_seconds=75,
    per_source=3,
    connections=5,
)
HEAD = b"POST /x HTTP/1.1\r\nContent-Length: 1000\r\n\r\n"


@pytest.fixture
def clock(monkeypatch):
    held = Clock()
    monkeypatch.setattr(protocol, "time", held)
    return held


@pytest.fixture
def line(clock):
    return Line(limits=LIMITS)


def later(line, clock, seconds):
    """Let time pass, with a sweep at its end."""
    clock.now += seconds
    line.connections.sweep(clock.now)


def lives_for(line, clock, seconds):
    """Check that a connection is left alone until then, and ended then."""
    later(line, clock, seconds - 0.01)
    assert not line.wire.is_over
    assert 408 not in line.statuses
    later(line, clock, 0.02)
    return line.wire.is_aborted or line.statuses == [408]


def test_a_silent_connection(line, clock):
    """A connection that says nothing is closed after the time for its first byte, without an answer."""
    assert lives_for(line, clock, 20)
    assert (line.wire.is_aborted, line.statuses, line.stats.timed_out) == (True, [], 1)


def test_a_dripped_head(line, clock):
    """A head that comes a byte a second has the time of a head, counted from its first byte."""
    clock.now += 19
    line.send(b"P")
    for byte in HEAD[1:10]:
        later(line, clock, 1)
        line.send(bytes([byte]))
    assert line.statuses == []
    later(line, clock, 1.1)
    assert (line.statuses, line.stats.timed_out, line.wire.is_half_closed) == ([408], 1, True)


def test_dripped_empty_lines(line, clock):
    """Empty lines before a request do not put its deadline off."""
    for _ in range(9):
        line.send(b"\r\n")
        later(line, clock, 1)
    assert not line.wire.is_over
    line.send(b"\r\n")
    later(line, clock, 1.1)
    assert (line.wire.is_aborted, line.stats.timed_out) == (True, 1)


def test_a_dripped_body(line, clock):
    """A body that comes at less than the minimum rate is given up after its first seconds of grace."""
    line.send(HEAD)
    assert lives_for(line, clock, 5)
    assert (line.statuses, line.stats.timed_out) == ([408], 1)


def test_a_body_at_the_minimum_rate(line, clock):
    """A body that is slow, but not too slow, is taken."""
    line.send(HEAD)
    for _ in range(10):
        later(line, clock, 1)
        line.send(b"x" * 100)
    assert (line.statuses, line.stats.timed_out) == ([200], 0)


def test_a_stall_after_a_good_beginning(line, clock):
    """The rate is of the whole body: a good beginning buys time, and only as much as it was worth."""
    line.send(HEAD, b"x" * 300)
    assert lives_for(line, clock, 8)


def test_a_body_has_a_time_in_all(clock):
    """However large a body is, and above the minimum rate, it has an end."""
    line = Line(limits=LIMITS)
    line.keeper.max_body_bytes = 10**6
    line.send(b"POST /x HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")
    for _ in range(59):
        later(line, clock, 1)
        line.send(b"x" * 200)
    assert line.statuses == []
    later(line, clock, 1.1)
    assert line.statuses == [408]


def test_chunks_without_a_body_are_no_body(line, clock):
    """The bytes of chunk extensions do not count as a body's: they buy no time."""
    line.send(b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(5):
        later(line, clock, 1)
        line.send(b"1;" + b"e" * 500 + b"\r\nx\r\n")
    later(line, clock, 0.1)
    assert line.statuses == [408]


@pytest.mark.parametrize(("path", "length", "status"), [("/gone", 1000, 404), ("/x", MOST + 1, 413)])
def test_a_refused_body_that_does_not_come(line, clock, path, length, status):
    """A head that is refused is told why within a second, not that it is slow, where its body does not come."""
    line.send(f"POST {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
    later(line, clock, 0.99)
    assert (line.statuses, line.wire.is_over) == ([], False)
    later(line, clock, 0.02)
    assert (line.statuses, line.stats.timed_out, line.wire.is_half_closed) == ([status], 0, True)


def test_a_refused_body_has_the_same_deadlines(line, clock):
    """What is thrown away must come as fast as what is kept, and has no more time; its end is its own answer."""
    line.send(b"POST /gone HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")
    for _ in range(59):
        line.send(b"x" * 100)
        later(line, clock, 1)
    assert line.statuses == []
    later(line, clock, 1.1)
    assert (line.statuses, line.stats.timed_out, line.wire.is_half_closed) == ([404], 0, True)


def test_an_idle_connection(line, clock):
    """A connection between two requests is kept for its idle time, and its end is nobody's fault."""
    line.send(post())
    assert lives_for(line, clock, 75)
    assert (line.wire.is_aborted, line.stats.timed_out) == (True, 0)


def test_a_request_in_idle_time_begins_anew(line, clock):
    """Each request of a connection has the whole time of a head, and the idle time begins anew behind it."""
    line.send(post())
    later(line, clock, 74)
    line.send(b"P")
    later(line, clock, 9)
    line.send(post()[1:])
    assert line.statuses == [200, 200]
    later(line, clock, 74)
    assert not line.wire.is_over
    later(line, clock, 2)
    assert line.wire.is_aborted


def test_an_answer_has_no_deadline_here(clock):
    """Who waits for the disk is not cut off: the store and the spool have deadlines of their own."""
    line = Line(Keeper(at_once=False), limits=LIMITS).send(post(b"1"))
    later(line, clock, 10_000)
    assert not line.wire.is_over
    line.keeper.answer()
    assert line.statuses == [200]


def test_a_pipelined_body_has_its_time_from_its_turn_on(clock):
    """A second request that is still coming while the first is answered is held to the clock after that."""
    line = Line(Keeper(at_once=False), limits=LIMITS).send(post(b"1"), HEAD)
    later(line, clock, 100)
    line.keeper.answer()
    later(line, clock, 4.9)
    assert line.statuses == [200]
    later(line, clock, 0.2)
    assert line.statuses == [200, 408]


def test_a_client_that_keeps_sending_after_its_end(line, clock):
    """Behind the last answer a client may send for a moment more, and is then cut off."""
    line.send(b"\0")
    assert (line.statuses, line.wire.is_half_closed) == ([400], True)
    later(line, clock, 1.9)
    line.send(b"x" * 100)
    assert not line.wire.is_aborted
    later(line, clock, 0.2)
    assert line.wire.is_aborted
    assert line.stats.timed_out == 0


@pytest.mark.parametrize("end", [b"\0", post(b"", "Connection: close"), post(b"x" * (MOST + 1)), chunked(b"x" * 2000)])
def test_no_end_is_put_off(line, clock, end):
    """However a connection ends, and whatever its client sends then, it is gone two seconds later."""
    line.send(end, end, b"\0", post(), b"\r\n")
    later(line, clock, 2.1)
    assert line.wire.is_aborted


def test_so_many_from_one_address(line):
    """One address may hold so many connections; the next is closed unread, and another address is not touched."""
    lines = [line, *(Line(shared=line.connections) for _ in range(2))]
    over = Line(shared=line.connections)
    assert (over.wire.is_aborted, line.stats.capped) == (True, 1)
    assert over.send(post()).statuses == []
    other = Line(shared=line.connections, peer="192.0.2.8")
    assert not other.wire.is_over
    over.hang_up()
    lines.pop().hang_up()
    assert not Line(shared=line.connections).wire.is_over
    assert Line(shared=line.connections).wire.is_aborted


def test_a_site_of_ipv6_is_one_address(clock):
    """Of IPv6 the first 64 bits count: who has one address there has all of them."""
    first = Line(limits=LIMITS, peer="2001:db8::1")
    for number in (2, 3):
        assert not Line(shared=first.connections, peer=f"2001:db8::{number}").wire.is_over
    assert Line(shared=first.connections, peer="2001:db8::ffff").wire.is_aborted
    assert not Line(shared=first.connections, peer="2001:db8:0:1::1").wire.is_over


def test_a_trusted_proxy_is_not_counted(clock):
    """Everybody comes from the proxy's address: the cap on one address does not apply to it, that on all does."""
    lines = [Line(limits=LIMITS, trusted=["192.0.2.7"])]
    lines += [Line(shared=lines[0].connections) for _ in range(4)]
    assert not any(line.wire.is_over for line in lines)
    assert Line(shared=lines[0].connections).wire.is_aborted
    lines.pop().hang_up()
    assert not Line(shared=lines[0].connections).wire.is_over


def test_connections_that_ended_leave_nothing(line):
    """What is counted of a connection is forgotten with it, so that no address fills the memory."""
    for number in range(50):
        Line(shared=line.connections, peer=f"198.51.100.{number}").send(post()).hang_up()
    line.hang_up().hang_up()
    assert (line.connections.open, line.connections._from) == (set(), {})


def test_the_promised_figures():
    """The limits are those that are promised."""
    limits = Limits()
    assert (limits.first_byte_seconds, limits.idle_seconds, limits.per_source) == (20, 75, 256)
    assert limits.min_body_rate * (limits.body_seconds - limits.grace_seconds) < 8 * 1024 * 1024
