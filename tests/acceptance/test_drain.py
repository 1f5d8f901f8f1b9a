"""The listener's end, and TLS: nobody who was accepted goes without an answer, and a certificate can be renewed."""

import asyncio
import signal
import ssl
import time
from urllib.parse import urlsplit

import pytest
import trustme

from .conftest import TOKEN
from .sockets import Connection, post


class Client(asyncio.Protocol):
    """Send one request after the other on one connection, and note what was said and what was answered."""

    def __init__(self, number):
        self.number = number
        self.sent = 0
        self.answered = 0
        self.was_reset = False
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.say()

    def say(self):
        self.sent += 1
        self.transport.write(post(b'{"serial": "%d-%d"}' % (self.number, self.sent)))

    def data_received(self, data):
        self.answered += data.count(b"HTTP/1.1 200 ")
        if b"Connection: close" not in data:
            self.say()

    def connection_lost(self, exc):
        self.was_reset = exc is not None
        self.ended.set_result(None)


async def test_nobody_accepted_goes_unanswered(upcall):
    """Under load from 32 connections SIGTERM cuts nobody: each request that was sent is answered."""
    listener = upcall.listen()
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda number=number: Client(number), "127.0.0.1", listener.port))[1]
        for number in range(32)
    ]
    async with asyncio.timeout(100):
        while sum(client.answered for client in clients) < 500:  # noqa: ASYNC110 - counted by the protocols
            await asyncio.sleep(0.002)
    listener.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(100):
        await asyncio.gather(*(client.ended for client in clients))
    assert await asyncio.to_thread(listener.wait) == 0
    assert [client.sent - client.answered for client in clients] == [0] * 32
    assert not any(client.was_reset for client in clients)
    assert len(upcall.json("events", "list", "--limit", "0")) == sum(client.answered for client in clients)


def test_a_request_that_has_begun_may_come_whole(upcall):
    """A body that is still coming when the end is asked for is taken, kept and answered; nobody new is accepted."""
    listener = upcall.listen("--admin", "127.0.0.1:0")
    with Connection(listener.port) as connection, Connection(listener.port) as idle:
        assert idle.ask(post(b"{}")) == 200
        request = post(b'{"a": 1}')
        connection.send(request[:-1])
        assert idle.ask(post(b"[]")) == 200  # so that the one before was read too
        listener.process.send_signal(signal.SIGTERM)
        assert idle.is_ended()
        with pytest.raises(OSError, match=r"refused|reset"):
            Connection(listener.port)
        assert connection.ask(request[-1:]) == 200
        assert b"Connection: close" in connection.head
    assert listener.wait() == 0
    assert [callback["raw"] for callback in upcall.json("events", "list")] == ["{}", "[]", '{"a": 1}']


@pytest.mark.parametrize("held", [0, 5])
def test_an_idle_listener_ends_at_once(upcall, held):
    """With nothing under way the end takes no time that anybody would notice, idle connections or none."""
    listener = upcall.listen()
    connections = [Connection(listener.port) for _ in range(held)]
    assert all(connection.ask(post(b"{}")) == 200 for connection in connections)
    began = time.monotonic()
    assert listener.end() == 0
    assert time.monotonic() - began < 10
    for connection in connections:
        connection.socket.close()


def test_who_never_ends_holds_up_nobody(upcall):
    """A body that stops coming does not keep the listener from its end: its sender hears 408 when its time is up."""
    listener = upcall.listen()
    with Connection(listener.port) as connection:
        connection.send(post(b"{}")[:-1])
        with Connection(listener.port) as other:
            assert other.ask(post(b"[]")) == 200
        assert listener.end() == 0
        assert connection.answers() == [408]
    assert "1 too slow" in listener.errors.read_text()


# TLS


class Certificates:
    """Issue certificates for localhost, each of its own authority, in one file.

    Args:
        path: The file.
    """

    def __init__(self, path):
        self.path = path

    def renew(self):
        """Write a new certificate with its key, and return what trusts that one only."""
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        issued.private_key_and_cert_chain_pem.write_to_path(str(self.path))
        trust = ssl.create_default_context()
        authority.configure_trust(trust)
        return trust


@pytest.fixture
def certificates(tmp_path):
    return Certificates(tmp_path / "certificate.pem")


def listen_with_tls(upcall, certificates, *words):
    """Start a listener with TLS."""
    words = ("--tls-cert", str(certificates.path), "--mask-token", *words)
    listener = upcall.start("listen", "--port", "0", "--store", upcall.store, "--token", TOKEN, *words)
    line = listener.next_line()
    assert line is not None, listener.errors.read_text()
    assert line.startswith("ready https://127.0.0.1:")
    listener.port = urlsplit(line.split()[1]).port
    return listener


def test_tls(upcall, certificates):
    """With a certificate the listener speaks https only; what speaks plain HTTP to it does no harm to others."""
    trust = certificates.renew()
    listener = listen_with_tls(upcall, certificates)
    with Connection(listener.port) as plain:
        plain.send(post(b'"plain"'))
        assert plain.is_ended()
    with Connection(listener.port, tls=trust) as connection:
        assert connection.ask(post(b'"secret"')) == 200
        assert connection.ask(post(b'"again"', "Connection: close")) == 200
        assert connection.is_ended()
    with pytest.raises(ssl.SSLError):
        Connection(listener.port, tls=ssl.create_default_context())
    assert listener.end() == 0
    assert [callback["raw"] for callback in upcall.json("events", "list")] == ['"secret"', '"again"']
    assert "Traceback" not in listener.errors.read_text()


def test_a_renewed_certificate(upcall, certificates):
    """SIGHUP makes new connections see a renewed certificate; those that are open go on."""
    first = certificates.renew()
    listener = listen_with_tls(upcall, certificates)
    with Connection(listener.port, tls=first) as connection:
        assert connection.ask(post(b"1")) == 200
        second = certificates.renew()
        listener.process.send_signal(signal.SIGHUP)
        upcall.until(lambda: "the certificate was read again" in listener.errors.read_text())
        with Connection(listener.port, tls=second) as other:
            assert other.ask(post(b"2")) == 200
        with pytest.raises(ssl.SSLError):
            Connection(listener.port, tls=first)
        assert connection.ask(post(b"3")) == 200


def test_a_renewal_that_went_wrong(upcall, certificates, tmp_path):
    """A certificate that does not fit its key leaves the one in use as it is, and the log says so in a line."""
    trust = certificates.renew()
    key = tmp_path / "key.pem"
    key.write_bytes(certificates.path.read_bytes())
    listener = listen_with_tls(upcall, certificates, "--tls-key", str(key))
    certificates.renew()  # with another key in its own file, which is not the one that is used
    listener.process.send_signal(signal.SIGHUP)
    upcall.until(lambda: "the old one stays in use" in listener.errors.read_text())
    with Connection(listener.port, tls=trust) as connection:
        assert connection.ask(post(b"1")) == 200
    assert "Traceback" not in listener.errors.read_text()


def test_a_certificate_that_cannot_be_used(upcall, certificates, tmp_path):
    """A certificate and a key that do not belong together, or are not there, end the start with a line."""
    certificates.renew()
    other = Certificates(tmp_path / "other.pem")
    other.renew()
    base = ("listen", "--port", "0", "--store", upcall.store)
    for words in (
        ("--tls-cert", str(certificates.path), "--tls-key", str(other.path)),
        ("--tls-cert", str(tmp_path / "none.pem")),
    ):
        ended = upcall.run(*base, *words)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "cannot be used" in ended.stderr
        assert ended.stderr.count("\n") == 1
