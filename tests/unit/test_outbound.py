"""The guarded POST: what it reaches, what it refuses, and what it makes of answers."""

import asyncio
import contextlib
import ipaddress
import socket
import ssl

import pytest

from upcall.errors import DeliveryError, SettingsError, TargetRefusedError
from upcall.outbound import GuardedPoster, OwnTarget, Targets

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Listener:
    """A server on loopback that answers every request with the bytes it was given."""

    def __init__(self, answer):
        self.answer = answer
        self.requests = []
        self.connections = 0

    async def serve(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(
                    next(line.split(b":")[1] for line in head.lower().split(b"\r\n") if b"content-length" in line)
                )
                self.requests.append((head, await reader.readexactly(length)))
                for part in self.answer:
                    if isinstance(part, asyncio.Event):
                        await part.wait()
                    else:
                        writer.write(part)
                        await writer.drain()
                if self.answer != [OK]:
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def listening(*answer, ssl_context=None):
    listener = Listener(list(answer) or [OK])
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0, ssl=ssl_context)
    listener.port = server.sockets[0].getsockname()[1]
    listener.url = f"http://127.0.0.1:{listener.port}/callbacks/token"
    try:
        yield listener
    finally:
        server.close()
        for part in listener.answer:
            if isinstance(part, asyncio.Event):
                part.set()


def resolves_to(*addresses):
    async def resolve(host, port):
        return list(addresses)

    return resolve


async def post(url, targets=None, body=b"{}", headers=None, **options):
    async with GuardedPoster(targets or Targets(), **options) as poster:
        return await poster.post(url, body, headers or {"Content-Type": "application/json"})


async def test_reaches_loopback():
    """A listener on this machine gets the bytes and exactly the headers that it was sent."""
    async with listening() as listener:
        answer = await post(
            listener.url, body=b"\x00raw", headers={"Content-Type": "application/json", "User-Agent": "x"}
        )
    assert (answer.status, answer.body, answer.truncated) == (200, b"ok", False)
    assert answer.elapsed_seconds > 0
    head, body = listener.requests[0]
    assert body == b"\x00raw"
    names = {line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:] if line}
    assert names == {b"host", b"content-type", b"user-agent", b"content-length"}


async def test_connections_are_kept():
    """Many callbacks to one listener share a connection."""
    async with listening() as listener, GuardedPoster(Targets()) as poster:
        for _ in range(5):
            await poster.post(listener.url, b"{}", {})
    assert (listener.connections, len(listener.requests)) == (1, 5)


@pytest.mark.parametrize(
    "host",
    [
        "10.120.102.183",
        "192.168.1.1",
        "172.16.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "8.8.8.8",
        "[::]",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "[fd00::1]",
        "[2001:db8::1]",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::a00:1]",
        "[2002:a00:1::]",
    ],
)
async def test_addresses_are_refused(host):
    """An address that was not allowed at start-up is refused by name, and nothing is sent."""
    with pytest.raises(TargetRefusedError) as refused:
        await post(f"http://{host}/callbacks/secret")
    assert refused.value.kind == "target"
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "127.1",
        "127.0.0.01",
        "127.0.0.1.",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::1%251]",
    ],
)
async def test_odd_forms_are_refused(host):
    """Loopback in a form that readers understand differently is refused, though loopback is allowed."""
    async with listening() as listener:
        with pytest.raises(TargetRefusedError):
            await post(f"http://{host}:{listener.port}/")
    assert listener.connections == 0


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/", "file:///etc/passwd", "http://", "http://[::1", "http://127.0.0.1:99999/", "x"]
)
async def test_urls_are_refused(url):
    """What is not http or https with a host and a port is refused."""
    with pytest.raises(TargetRefusedError):
        await post(url)


@pytest.mark.parametrize(
    "addresses",
    [["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["::ffff:127.0.0.1"], ["169.254.169.254"]],
)
@pytest.mark.parametrize("host", ["localhost", "listener.example", "localhost."])
async def test_rebinding_is_refused(host, addresses):
    """A name with one address that is not allowed is refused, whatever its name and its other addresses."""
    async with listening() as listener:
        with pytest.raises(TargetRefusedError):
            await post(f"http://{host}:{listener.port}/", resolve=resolves_to(*addresses))
    assert listener.connections == 0


async def test_checked_addresses_are_pinned():
    """The connection goes to the address that was checked, resolved once, and keeps the host's name."""
    asked = []

    async def resolve(host, port):
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    async with listening() as listener:
        answer = await post(f"http://listener.example:{listener.port}/", resolve=resolve)
    assert answer.status == 200
    assert asked == ["listener.example"]
    assert f"Host: listener.example:{listener.port}".encode() in listener.requests[0][0]


async def test_each_connection_is_checked():
    """A name that was allowed once is checked again at the next connection."""
    addresses = iter([["127.0.0.1"], ["10.0.0.1"]])

    async def resolve(host, port):
        return next(addresses)

    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with listening(closing) as listener, GuardedPoster(Targets(), resolve=resolve) as poster:
        url = f"http://listener.example:{listener.port}/"
        assert (await poster.post(url, b"", {})).status == 200
        with pytest.raises(TargetRefusedError):
            await poster.post(url, b"", {})


async def test_unresolvable_name():
    """A name without an address is a failure to connect."""
    with pytest.raises(DeliveryError) as failed:
        await post("http://listener.example/secret", resolve=resolves_to())
    assert failed.value.kind == "connect"
    assert "secret" not in str(failed.value)


async def test_redirects_are_answers():
    """A redirect is returned with its status and never followed."""
    async with (
        listening() as other,
        listening(
            f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {other.url}\r\nContent-Length: 0\r\n\r\n".encode()
        ) as listener,
    ):
        answer = await post(listener.url)
    assert answer.status == 307
    assert other.connections == 0


async def test_answers_are_capped():
    """No more of an answer's body is read than the cap, and its status still counts."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
    async with listening(head, b"x" * 100_000, asyncio.Event()) as listener:
        answer = await post(listener.url, max_response_bytes=1000)
    assert (answer.status, len(answer.body), answer.truncated) == (200, 1000, True)


async def test_compressed_answers_stay_compressed():
    """An answer is not decompressed: a small body cannot become a large one."""
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n"
    async with listening(head, b"\x1f\x8b\x08\x00") as listener:
        assert (await post(listener.url)).body == b"\x1f\x8b\x08\x00"


async def test_the_deadline_covers_the_body():
    """An answer whose body never ends fails within the total time."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
    async with listening(head, asyncio.Event()) as listener:
        with pytest.raises(DeliveryError) as failed:
            await post(listener.url, total_timeout_seconds=0.05)
    assert failed.value.kind == "timeout"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((b"",), "reset"),
        ((b"not http at all\r\n\r\n",), "protocol"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",), "protocol"),
    ],
)
async def test_broken_answers(answer, kind):
    """A listener that hangs up, talks nonsense or cuts its answer short is named by kind."""
    async with listening(*answer) as listener:
        with pytest.raises(DeliveryError) as failed:
            await post(listener.url)
    assert failed.value.kind == kind
    assert "token" not in str(failed.value)


async def test_nobody_listens():
    """A closed port is a failure to connect."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DeliveryError) as failed:
        await post(f"http://127.0.0.1:{port}/")
    assert failed.value.kind == "connect"


async def test_proxies_of_the_environment_are_ignored(monkeypatch):
    """A proxy would resolve for itself, past the guard: it is not used."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with listening() as listener:
        assert (await post(listener.url)).status == 200


def test_named_targets():
    """A target allows its address on its port, or on any port where it names none."""
    targets = Targets.parse(["10.0.0.1:8443", "10.0.0.2", "[fd00::1]:443", "fd00::2"], loopback=False)
    allowed = [("10.0.0.1", 8443), ("10.0.0.2", 1), ("fd00::1", 443), ("fd00::2", 9)]
    refused = [("10.0.0.1", 443), ("10.0.0.3", 8443), ("fd00::1", 80), ("127.0.0.1", 80), ("::1", 80)]
    assert all(targets.allows(ipaddress.ip_address(address), port) for address, port in allowed)
    assert not any(targets.allows(ipaddress.ip_address(address), port) for address, port in refused)


def test_named_host_stands_for_its_addresses():
    """A host named at start-up is resolved then, once."""
    targets = Targets.parse(["localhost:80"], loopback=False)
    assert targets.allows(ipaddress.ip_address("127.0.0.1"), 80)
    assert not targets.allows(ipaddress.ip_address("127.0.0.1"), 81)


@pytest.mark.parametrize("text", ["", "http://x", "a/b", "u@h", "h:99999", "h:x", "[::1", "no.such.host.invalid"])
def test_unreadable_targets(text):
    """A target that cannot be read or resolved is one clear line."""
    with pytest.raises(SettingsError):
        Targets.parse([text])


@pytest.fixture(scope="module")
def authority():
    return pytest.importorskip("trustme").CA()


async def test_certificates_are_verified(authority, tmp_path):
    """A certificate is checked against the host's name, and trusted only where its authority is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("listener.example").configure_cert(context)
    trust = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(trust)
    resolve = resolves_to("127.0.0.1")
    async with listening(ssl_context=context) as listener:
        good, other = (f"https://{host}:{listener.port}/" for host in ("listener.example", "other.example"))
        assert (await post(good, trust=str(trust), resolve=resolve)).status == 200
        for url, trusted in ((good, None), (other, str(trust))):
            with pytest.raises(DeliveryError) as failed:
                await post(url, trust=trusted, resolve=resolve)
            assert failed.value.kind == "tls"


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_unreadable_trust(tmp_path, content):
    """A file of certificates that cannot be read is one clear line."""
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    with pytest.raises(SettingsError, match=r"ca\.pem"):
        GuardedPoster(Targets(), trust=str(path))


class TestOwnTarget:
    @pytest.mark.parametrize(
        ("url", "address", "allowed"),
        [
            ("https://receiver.example/", "93.184.216.34", True),
            ("https://receiver.example/", "127.0.0.1", True),
            ("https://receiver.example/", "10.0.0.1", True),
            ("https://receiver.example/", "169.254.169.254", False),
            ("https://receiver.example/", "fe80::1", False),
            ("https://receiver.example/", "fd00:ec2::254", False),
            ("https://receiver.example/", "0.0.0.0", False),
            ("https://receiver.example/", "224.0.0.1", False),
            ("https://169.254.169.254/", "169.254.169.254", True),
            ("http://receiver.example/", "93.184.216.34", False),
            ("http://receiver.example/", "100.64.0.1", True),
            ("http://receiver.example/", "192.168.1.1", True),
            ("http://receiver.example/", "::1", True),
            ("http://receiver.example/", "169.254.169.254", False),
        ],
    )
    def test_where_an_operators_url_may_lead(self, url, address, allowed):
        """An operator's URL reaches any receiver, no cloud's credentials, and nothing far away unencrypted."""
        assert OwnTarget.of(url).allows(ipaddress.ip_address(address), 443) is allowed
