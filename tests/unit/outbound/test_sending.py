"""Posts over real sockets: connections that are kept, that end, that hang, and that are given up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import threading

import pytest
import trustme

from upcall.errors import DeliveryError, TargetRefusedError

from .conftest import OK, answer_ok, reset, silent, until

LARGE = bytes(6 << 20)
"""More than the buffers of two sockets hold."""


async def fails(posting):
    """Return the kind of the failure that a post ends in."""
    with pytest.raises(DeliveryError) as failed:
        await posting
    assert "secret" not in str(failed.value)
    return failed.value.kind


def resolves_to(*addresses):
    async def resolve(host, port):
        return list(addresses)

    return resolve


class TestReuse:
    async def test_one_after_the_other(self, serve, make):
        """Posts one after the other share a connection."""
        receiver, poster = await serve(), make()
        for number in range(5):
            assert (await poster.post(receiver.url, b"%d" % number, {})).status == 200
        assert receiver.connections == 1
        assert [body for _, body in receiver.requests] == [b"0", b"1", b"2", b"3", b"4"]

    async def test_many_at_once(self, serve, make):
        """Two hundred posts at once have a connection each, every answer is that of its request, and all are kept."""
        together = asyncio.Barrier(200)

        async def echo(receiver, reader, writer):
            while True:
                _, body = await receiver.request(reader)
                if len(receiver.requests) <= 200:
                    await together.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

        receiver, poster = await serve(echo), make()
        for _ in range(2):
            posts = (poster.post(receiver.url, b"%d" % number, {}) for number in range(200))
            answers = await asyncio.gather(*posts)
            assert [answer.body for answer in answers] == [b"%d" % number for number in range(200)]
        assert (receiver.connections, len(poster._pool)) == (200, 200)

    async def test_the_one_used_last_is_taken_first(self, serve, make):
        """Connections that are not needed any more are left alone, and so come to their end."""

        async def numbered(receiver, reader, writer):
            name = b"%d" % receiver.connections
            while True:
                await receiver.request(reader)
                await both.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + name)

        both = asyncio.Barrier(2)
        receiver, poster = await serve(numbered), make()
        first = await asyncio.gather(*(poster.post(receiver.url, b"", {}) for _ in range(2)))
        both = asyncio.Barrier(1)
        names = {(await poster.post(receiver.url, b"", {})).body for _ in range(5)}
        assert (len({answer.body for answer in first}), len(names)) == (2, 1)

    async def test_receivers_are_apart(self, serve, make):
        """A connection is used for the receiver that it leads to."""
        one, other, poster = await serve(), await serve(), make()
        for receiver in (one, other, one, other):
            await poster.post(receiver.url, b"", {})
        assert [(len(receiver.requests), receiver.connections) for receiver in (one, other)] == [(2, 1), (2, 1)]

    async def test_idle_connections_are_dropped(self, serve, make):
        """A connection that nothing is sent on is closed after a while."""
        receiver, poster = await serve(), make()
        poster._pool._keep_alive_seconds = 0.05
        await poster.post(receiver.url, b"", {})
        assert len(poster._pool) == 1
        await until(lambda: receiver.open == 0 and len(poster._pool) == 0)
        await poster.post(receiver.url, b"", {})
        assert receiver.connections == 2

    @pytest.mark.parametrize("last", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale"])
    async def test_what_came_since_the_loop_last_looked(self, make, last):
        """A connection that its peer closed or wrote to is not used, even if the loop has not heard of it yet."""
        served, seen = threading.Event(), []

        def serve(listening):
            for ending in (last, b""):
                connection, _ = listening.accept()
                with connection:
                    seen.append(connection.recv(65536))
                    connection.sendall(OK)
                    may_end.wait(5)
                    connection.sendall(ending)
                    if not ending:
                        connection.shutdown(socket.SHUT_WR)
                    served.set()
                    over.wait(5)

        may_end, over = threading.Event(), threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            thread = threading.Thread(target=serve, args=(listening,), daemon=True)
            thread.start()
            poster, url = make(), f"http://127.0.0.1:{listening.getsockname()[1]}/"
            assert (await poster.post(url, b"1", {})).body == b"ok"
            may_end.set()
            assert served.wait(5)  # the loop stands still meanwhile, as with a handler that computes
            over.set()
            assert (await poster.post(url, b"2", {})).body == b"ok"
            await asyncio.to_thread(thread.join)
        assert [request[-1:] for request in seen] == [b"1", b"2"]

    @pytest.mark.parametrize("unasked", [b"", b"x", OK])
    async def test_what_nobody_asked_for(self, serve, make, unasked):
        """A connection that its peer closes or writes to, while nothing is asked of it, is closed."""

        async def talks(receiver, reader, writer):
            await receiver.request(reader)
            writer.write(OK)
            await may_talk.wait()
            writer.write(unasked)
            if unasked:
                await reader.read()

        may_talk = asyncio.Event()
        receiver, poster = await serve(talks), make()
        await poster.post(receiver.url, b"", {})
        may_talk.set()
        await until(lambda: receiver.open == 0 and len(poster._pool) == 0)
        assert poster._pool._idle == {}

    async def test_a_request_is_written_once(self, serve, make):
        """Where a kept connection ends instead of an answer, the post fails: it may have been received."""

        async def once(receiver, reader, writer):
            await receiver.request(reader)
            writer.write(OK)
            await receiver.request(reader)

        receiver, poster = await serve(once), make()
        await poster.post(receiver.url, b"1", {})
        assert await fails(poster.post(receiver.url, b"2", {})) == "reset"
        assert [body for _, body in receiver.requests] == [b"1", b"2"]
        assert (await poster.post(receiver.url, b"3", {})).status == 200

    @pytest.mark.parametrize(
        "answer",
        [
            OK + b"more",
            OK + OK,
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        ],
    )
    async def test_what_cannot_be_kept(self, serve, make, answer):
        """A connection whose answer was its last, or was followed by anything, is not used again."""

        async def serves(receiver, reader, writer):
            while True:
                await receiver.request(reader)
                writer.write(answer)

        receiver, poster = await serve(serves), make()
        for _ in range(2):
            assert (await poster.post(receiver.url, b"", {})).body == b"ok"
        assert receiver.connections == 2
        await until(lambda: receiver.open == 0)

    async def test_an_answer_before_the_request_was_read(self, serve, make):
        """An early answer counts, and a connection with half a request on it is not kept."""

        async def hasty(receiver, reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            await wait.wait()

        wait = asyncio.Event()
        receiver, poster = await serve(hasty), make()
        assert (await poster.post(receiver.url, LARGE, {})).status == 413
        await until(lambda: len(poster._pool) == 0)
        wait.set()

    async def test_large_bodies(self, serve, make):
        """A body of any size arrives whole."""
        receiver, poster = await serve(), make()
        body = bytes(range(256)) * 32768
        assert (await poster.post(receiver.url, body, {})).status == 200
        assert receiver.requests[0][1] == body


class TestEndings:
    @pytest.mark.parametrize("end", ["close", "reset"])
    async def test_at_every_byte(self, serve, make, end):
        """An answer that breaks off at any byte is a failure, and the post after it is not touched by it."""

        async def breaks(receiver, reader, writer):
            await receiver.request(reader)
            writer.write(OK[: len(receiver.requests) - 1])
            if end == "reset":
                reset(writer)

        receiver, poster = await serve(breaks), make()
        kinds = [await fails(poster.post(receiver.url, b"x", {})) for _ in OK]
        assert kinds[0] == "reset"
        assert set(kinds[1:]) <= ({"reset", "protocol"} if end == "reset" else {"protocol"})
        assert (await poster.post(receiver.url, b"x", {})).body == b"ok"
        assert len(poster._pool) <= 1

    @pytest.mark.parametrize("end", [reset, lambda writer: None])
    async def test_before_the_request(self, serve, make, end):
        """A receiver that hangs up at once, or in the middle of a request, is a failure."""

        async def hangs_up(receiver, reader, writer):
            if receiver.connections == 2:
                await reader.readexactly(10)
            end(writer)

        receiver, poster = await serve(hangs_up), make()
        for _ in range(2):
            assert await fails(poster.post(receiver.url, LARGE, {})) == "reset"
        await until(lambda: len(poster._pool) == 0)

    async def test_a_receiver_that_sends_no_more(self, serve, make):
        """A receiver that closes its half of the connection will not answer, though it may still read."""

        async def half(receiver, reader, writer):
            await reader.readexactly(1)
            writer.write_eof()
            writer.transport.pause_reading()
            await asyncio.Event().wait()

        receiver, poster = await serve(half), make()
        assert await fails(poster.post(receiver.url, LARGE, {})) == "reset"

    async def test_the_end_of_the_connection_as_that_of_the_body(self, serve, make):
        """A body without a length ends with its connection."""

        async def old(receiver, reader, writer):
            await receiver.request(reader)
            for part in (b"HTTP/1.0 200 OK\r\n\r\n", b"he", b"llo"):
                writer.write(part)
                await writer.drain()

        receiver, poster = await serve(old), make()
        for _ in range(2):
            assert (await poster.post(receiver.url, b"", {})).body == b"hello"
        assert receiver.connections == 2


class TestDeadlines:
    @pytest.mark.parametrize(
        "drip",
        [b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 9000, OK[:-1]],
    )
    async def test_answers_without_an_end(self, serve, make, drip):
        """An answer that is never whole fails at the deadline, however much of it comes."""

        async def drips(receiver, reader, writer):
            await receiver.request(reader)
            for place in range(len(drip)):
                if reader.at_eof() or writer.is_closing():
                    break
                writer.write(drip[place : place + 1])
                await asyncio.sleep(0)
            await reader.read()

        receiver, poster = await serve(drips), make(total_timeout_seconds=0.1)
        assert await fails(poster.post(receiver.url, b"", {})) == "timeout"
        await until(lambda: receiver.open == 0 and len(poster._pool) == 0)

    async def test_each_has_its_own(self, serve, make):
        """One timer serves all posts: those that are answered are not touched when others are over their time."""
        hold = asyncio.Event()

        async def some(receiver, reader, writer):
            while True:
                _, body = await receiver.request(reader)
                if body == b"hold":
                    await hold.wait()
                writer.write(OK)

        receiver, poster = await serve(some), make(total_timeout_seconds=0.3)
        held = [asyncio.ensure_future(poster.post(receiver.url, b"hold", {})) for _ in range(3)]
        while not all(one.done() for one in held):
            assert (await poster.post(receiver.url, b"", {})).status == 200
        assert {await fails(one) for one in held} == {"timeout"}
        assert (await poster.post(receiver.url, b"", {})).status == 200

    async def test_resolving_and_connecting(self, serve, make):
        """A name server, or a handshake, that takes for ever fails at the time for connecting."""

        async def resolve(host, port):
            await asyncio.Event().wait()

        receiver = await serve(silent)
        poster = make(resolve=resolve, connect_timeout_seconds=0.05)
        assert await fails(poster.post("http://a.example/", b"", {})) == "timeout"
        poster = make(connect_timeout_seconds=0.05)
        assert await fails(poster.post(f"https://127.0.0.1:{receiver.port}/", b"", {})) == "timeout"
        await until(lambda: receiver.open == 0)


class TestGivenUp:
    @pytest.mark.parametrize("handle", [silent, answer_ok])
    async def test_cancelled_at_any_time(self, serve, make, handle):
        """A post that is cancelled leaves no connection with an answer to come."""
        receiver, poster = await serve(handle), make()
        for turns in range(12):
            post = asyncio.ensure_future(poster.post(receiver.url, b"x", {}))
            for _ in range(turns):
                await asyncio.sleep(0)
            post.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                assert (await post).status == 200
        if handle is silent:
            await until(lambda: receiver.open == 0 and len(poster._pool) == 0)
        else:
            assert (await poster.post(receiver.url, b"last", {})).body == b"ok"
            await until(lambda: receiver.open == len(poster._pool) == 1)

    @pytest.mark.parametrize("answer", [OK, b"no answer"])
    async def test_cancelled_while_its_answer_comes_in(self, serve, make, caplog, answer):
        """An answer, or a failure, that nobody waits for any more is forgotten in silence."""
        receiver, poster = await serve(silent), make()
        post = asyncio.ensure_future(poster.post(receiver.url, b"x", {}))
        await until(lambda: receiver.requests)
        (connection,) = poster._pool._all
        connection.data_received(answer)
        post.cancel()  # in the same turn of the loop: the post has not woken up
        with pytest.raises(asyncio.CancelledError):
            await post
        del post
        gc.collect()
        assert not caplog.records
        assert connection.is_usable is (answer == OK)

    async def test_closed_with_posts_under_way(self, serve, make):
        """Closing fails what waits for an answer or for a connection, and leaves no connection; a later post works."""
        resolving = asyncio.Event()

        async def resolve(host, port):
            resolving.set()
            await asyncio.Event().wait()

        async def later(receiver, reader, writer):
            await (silent if receiver.connections <= 20 else answer_ok)(receiver, reader, writer)

        receiver, poster = await serve(later), make(resolve=resolve)
        posts = [asyncio.ensure_future(poster.post(receiver.url, b"x", {})) for _ in range(20)]
        posts.append(asyncio.ensure_future(poster.post("http://a.example/", b"x", {})))
        await until(lambda: len(receiver.requests) == 20 and resolving.is_set())
        await poster.aclose()
        assert len(poster._pool) == 0
        assert [await fails(post) for post in posts] == ["reset"] * 20 + ["timeout"]
        await until(lambda: receiver.open == 0)
        assert (await poster.post(receiver.url, b"x", {})).status == 200

    async def test_closed_twice(self, make):
        """Closing what is closed, or was never open, does nothing."""
        poster = make()
        await poster.aclose()
        await poster.aclose()


class TestAddresses:
    async def test_the_next_of_a_hosts_addresses(self, serve, make):
        """Where one address refuses, the next is tried, in the order of the answer."""
        receiver = await serve()
        poster = make(resolve=resolves_to("127.0.0.3", "127.0.0.2", "127.0.0.1"))
        assert (await poster.post(f"http://a.example:{receiver.port}/", b"", {})).status == 200

    async def test_an_address_that_hangs(self, serve, make):
        """An address that does not answer takes its share of the time, and leaves the rest to the others."""
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("a.example").configure_cert(context)
        receiver = await serve(ssl=context)
        hanging = await serve(silent, host="127.0.0.2", port=receiver.port)
        with authority.cert_pem.tempfile() as trust:
            poster = make(resolve=resolves_to("127.0.0.2", "127.0.0.1"), connect_timeout_seconds=2.0, trust=trust)
        answer = await poster.post(f"https://a.example:{receiver.port}/", b"", {})
        assert (answer.status, hanging.connections) == (200, 1)
        await until(lambda: hanging.open == 0)

    async def test_none_that_listens(self, make, unused_tcp_port):
        """Where none of the addresses can be reached, the failure says so."""
        poster = make(resolve=resolves_to("127.0.0.2", "127.0.0.1"))
        with pytest.raises(
            DeliveryError, match=r"POST to http://a\.example:\d+ failed: Connection refused\."
        ) as failed:
            await poster.post(f"http://a.example:{unused_tcp_port}/secret", b"", {})
        assert failed.value.kind == "connect"

    async def test_a_name_that_nobody_can_look_up(self, make):
        """A name that is none fails like one that does not resolve."""
        assert await fails(make().post(f"http://{'a' * 64}.example/secret", b"", {})) in {"target", "connect"}
        assert await fails(make().post("http://no.such.host.invalid/secret", b"", {})) == "connect"

    async def test_ipv6(self, serve, make):
        """An IPv6 address in a URL is connected to, and named in brackets."""
        try:
            receiver = await serve(host="::1")
        except OSError:
            pytest.skip("no IPv6 on this machine")
        assert (await make().post(f"http://[::1]:{receiver.port}/", b"", {})).status == 200
        assert f"Host: [::1]:{receiver.port}\r\n".encode() in receiver.requests[0][0]


class TestTls:
    @pytest.fixture
    def authority(self):
        return trustme.CA()

    @pytest.fixture
    def context(self, authority):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("a.example", "127.0.0.1").configure_cert(context)
        return context

    @pytest.fixture
    def trusting(self, make, authority, tmp_path):
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")

        def trusting(**options):
            return make(trust=str(tmp_path / "ca.pem"), **options)

        return trusting

    async def test_kept_and_closed(self, serve, context, trusting):
        """Encrypted connections are kept, dropped and closed like others; the address may be the name."""
        receiver, poster = await serve(ssl=context), trusting()
        poster._pool._keep_alive_seconds = 0.1
        for _ in range(3):
            assert (await poster.post(receiver.url, b"x" * 100_000, {})).body == b"ok"
        assert receiver.connections == 1
        await until(lambda: receiver.open == 0 and len(poster._pool) == 0)

    async def test_whom_is_asked_for(self, serve, context, trusting):
        """The host's name is what the handshake asks for, whatever its address."""
        names = []
        context.sni_callback = lambda _socket, name, _context: names.append(name)
        receiver, poster = await serve(ssl=context), trusting(resolve=resolves_to("127.0.0.1"))
        assert (await poster.post(f"https://A.example.:{receiver.port}/", b"", {})).status == 200
        assert names == ["a.example"]

    async def test_endings(self, serve, context, trusting):
        """A receiver that ends an encrypted connection in any way, at any time, is a failure."""

        async def ends(receiver, reader, writer):
            await receiver.request(reader)
            writer.write(OK[: 5 * (len(receiver.requests) // 2)])
            if len(receiver.requests) % 2:
                await writer.drain()
                reset(writer)

        receiver, poster = await serve(ends, ssl=context), trusting()
        kinds = {await fails(poster.post(receiver.url, b"x", {})) for _ in range(8)}
        assert kinds <= {"reset", "protocol", "tls"}
        await until(lambda: len(poster._pool) == 0)

    async def test_cancelled(self, serve, context, trusting):
        """A post that is cancelled in a handshake, or behind it, leaves no connection."""
        receiver, poster = await serve(silent, ssl=context), trusting()
        for turns in range(0, 60, 5):
            post = asyncio.ensure_future(poster.post(receiver.url, b"x", {}))
            for _ in range(turns):
                await asyncio.sleep(0)
            post.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await post
        await until(lambda: receiver.open == 0 and len(poster._pool) == 0)

    async def test_no_tls_there(self, serve, trusting):
        """A receiver that does not encrypt is no receiver for https."""

        async def plain(receiver, reader, writer):
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        receiver = await serve(plain)
        assert await fails(trusting().post(f"https://127.0.0.1:{receiver.port}/", b"", {})) in {"tls", "connect"}


class TestHeaders:
    @pytest.mark.parametrize(
        "headers",
        [
            {"X": "a\r\nHost: b"},
            {"X": "a\nb"},
            {"X": "a\rb"},
            {"X": "a\0b"},
            {"X\r\nY": "a"},
            {"X:": "a"},
            {"": "a"},
            {"X Y": "a"},
            {"Host": "b.example"},
            {"content-length": "0"},
            {"Transfer-Encoding": "chunked"},
            {"X": "\ud800"},
        ],
    )
    async def test_injection(self, serve, make, headers):
        """A header that would be more than one header, or says where a request ends, is not sent."""
        receiver, poster = await serve(), make()
        assert await fails(poster.post(receiver.url, b"", headers)) == "protocol"
        assert receiver.connections == 0

    async def test_user_names(self, serve, make):
        """A user name in a URL is refused: some readers take it for the host."""
        receiver, poster = await serve(), make()
        with pytest.raises(TargetRefusedError):
            await poster.post(f"http://127.0.0.1@127.0.0.1:{receiver.port}/", b"", {})
        assert receiver.connections == 0

    async def test_urls_are_remembered_within_bounds(self, serve, make):
        """However many URLs there are, what is remembered of them stays small."""
        receiver, poster = await serve(), make()
        for number in range(600):
            await poster.post(f"{receiver.url}/{number}", b"", {})
        assert len(poster._destinations) <= 256
        assert receiver.connections == 1
