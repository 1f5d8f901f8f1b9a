"""Answers, however their bytes are cut, and what is no answer."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.outbound.response import MAX_HEAD_BYTES, MalformedAnswerError, ResponseReader

CAP = 100


def read(pieces, cap=CAP):
    """Feed pieces until the answer is whole, then what else came with the last one."""
    reader = ResponseReader(cap)
    for piece in pieces:
        if reader.feed(piece):
            break
    return reader


def seen(reader):
    return (reader.is_complete, reader.status, reader.body, reader.is_truncated, reader.retry_after)


def cut(data, places):
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: x\r\n\r\nhello",
    "nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nLater: 1\r\n\r\n",
    "continue": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "hints": b"HTTP/1.1 103 Hints\r\nRetry-After: 1\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
    "retry": b"HTTP/1.1 429 Slow\r\nretry-AFTER: 17\r\nContent-Length: 0\r\n\r\n",
    "over the cap": b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n" + b"x" * 200,
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
    "sloppy": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
}


class TestCuts:
    @pytest.mark.parametrize("name", ANSWERS)
    def test_byte_by_byte(self, name):
        """An answer that drips in reads as one that comes at once."""
        data = ANSWERS[name]
        whole = read([data])
        assert whole.is_complete
        assert seen(read([data[place : place + 1] for place in range(len(data))])) == seen(whole)

    @given(name=st.sampled_from(sorted(ANSWERS)), places=st.lists(st.integers(0, 400), max_size=6))
    def test_any_cut(self, name, places):
        """An answer reads the same wherever its bytes are cut."""
        assert seen(read(cut(ANSWERS[name], places))) == seen(read([ANSWERS[name]]))

    @given(
        status=st.integers(200, 599).filter(lambda status: status not in {204, 304}),
        body=st.binary(max_size=150),
        sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
        places=st.lists(st.integers(0, 2000), max_size=8),
        interim=st.integers(0, 3),
        framing=st.sampled_from(["length", "chunked", "close"]),
    )
    def test_any_answer(self, *, status, body, sizes, places, interim, framing):
        """Status and body arrive as they were sent, in every framing, and the connection is kept where it may be."""
        head = b"HTTP/1.1 102 Processing\r\n\r\n" * interim + b"HTTP/1.1 %d Some\r\n" % status
        if framing == "length":
            data = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        elif framing == "close":
            data = head + b"\r\n" + body
        else:
            data = head + b"Transfer-Encoding: gzip, Chunked\r\n\r\n"
            left, turn = body, 0
            while left:
                size = sizes[turn % len(sizes)]
                data += b"%x\r\n%b\r\n" % (len(left[:size]), left[:size])
                left, turn = left[size:], turn + 1
            data += b"0\r\n\r\n"
        reader = read(cut(data, places))
        if framing == "close" and not reader.is_complete:
            assert reader.end()
        assert seen(reader) == (True, status, body[:CAP], len(body) > CAP, None)
        assert reader.keeps_alive is (framing != "close" and len(body) <= CAP)

    @given(pieces=st.lists(st.binary(max_size=60), max_size=20), begins=st.booleans())
    def test_any_bytes(self, pieces, begins):
        """Whatever comes is an answer, the beginning of one, or refused."""
        reader = ResponseReader(CAP)
        try:
            for piece in [b"HTTP/1.1 200 OK\r\n"] * begins + pieces:
                if reader.feed(piece):
                    break
        except MalformedAnswerError:
            assert not reader.is_complete
        assert len(reader.body) <= CAP

    def test_what_comes_before_the_answer(self):
        """Nothing that a 1xx says is said by the answer."""
        reader = read([b"HTTP/1.1 103 Hints\r\nRetry-After: 1\r\nContent-Length: 3\r\n\r\nHTTP/1.1 503 No\r\n\r\nbody"])
        assert reader.end()
        assert seen(reader) == (True, 503, b"body", False, None)


class TestReuse:
    @pytest.mark.parametrize(
        ("answer", "keeps"),
        [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
            (b"HTTP/1.1 204 No\r\n\r\n", True),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", True),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", False),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\nmore", False),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore", False),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nH", False),
            (b"HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\nmore", False),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 1\r\n\r\nx", False),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n" + b"x" * 101, False),
        ],
    )
    def test_what_is_kept(self, answer, keeps):
        """A connection is kept only behind an answer with an end, and nothing behind that."""
        reader = read([answer])
        assert (reader.is_complete, reader.status in {200, 204}, reader.keeps_alive) == (True, True, keeps)

    def test_the_answer_is_the_first(self):
        """A second answer changes nothing of the first."""
        reader = read([ANSWERS["length"] + b"HTTP/1.1 500 No\r\nRetry-After: 3\r\nContent-Length: 1\r\n\r\nx"])
        assert seen(reader) == (True, 200, b"hello", False, None)

    @pytest.mark.parametrize(("size", "truncated"), [(CAP - 1, False), (CAP, False), (CAP + 1, True)])
    def test_the_cap(self, size, truncated):
        """A body of the cap's size is whole, and one byte more is too much."""
        reader = read([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, b"x" * size])
        assert seen(reader) == (True, 200, b"x" * min(size, CAP), truncated, None)


class TestEnds:
    @pytest.mark.parametrize(
        ("begin", "is_whole"),
        [
            (b"HTTP/1.0 200 OK\r\n\r\nhel", True),
            (b"HTTP/1.1 200 OK\r\n\r\n", True),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nhel", True),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", False),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n", False),
            (b"HTTP/1.1 200 OK\r\nContent-Type: x\r\n", False),
            (b"HTTP/1.1 100 Continue\r\n\r\n", False),
            (b"", False),
        ],
    )
    def test_where_a_connection_ends(self, begin, is_whole):
        """The end of the connection ends a body without a length, and breaks off anything else."""
        reader = read([begin] if begin else [])
        assert not reader.is_complete
        assert reader.end() is is_whole
        assert not reader.keeps_alive


class TestRefused:
    @pytest.mark.parametrize(
        "data",
        [
            b"SSH-2.0-OpenSSH\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 000 No\r\n\r\n",
            b"HTTP/1.1 99 No\r\n\r\n",
            b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nanything",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        ],
    )
    def test_what_is_no_answer(self, data):
        """What is not HTTP, or contradicts itself, is refused."""
        with pytest.raises(MalformedAnswerError):
            read([data])

    @pytest.mark.parametrize("size", [1000, MAX_HEAD_BYTES + 500_000])
    @pytest.mark.parametrize(
        ("begin", "more"),
        [
            (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
            (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
            (b"HTTP/1.1 200 OK\r\nA: ", b"x"),
            (b"HTTP/1.1 200 ", b"x"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ", b"x"),
        ],
    )
    def test_endless(self, begin, more, size):
        """What never comes to an end is refused after a bounded number of bytes, in whatever pieces it comes."""
        piece = more * (size // len(more))
        with pytest.raises(MalformedAnswerError):
            read([begin, *[piece] * (2 * MAX_HEAD_BYTES // len(piece) + 2)])

    @pytest.mark.parametrize(("size", "is_fine"), [(MAX_HEAD_BYTES - 100, True), (MAX_HEAD_BYTES + 1, False)])
    def test_the_size_of_heads(self, size, is_fine):
        """The bound on heads is the same whether they come at once or in pieces."""
        data = b"HTTP/1.1 200 OK\r\nA: %b\r\nContent-Length: 0\r\n\r\n" % (b"x" * size)
        for pieces in ([data], cut(data, range(0, len(data), 5000))):
            if is_fine:
                assert read(pieces).is_complete
            else:
                with pytest.raises(MalformedAnswerError):
                    read(pieces)
