"""Where the sandbox's callbacks may go: each form in which a URL can be written or resolved, through the whole sandbox.

A URL is registered over the API where the API takes it, a callback is announced, the real poster sends it, and the
control API says what became of it. What must not be connected to is a listening socket that would notice.
"""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import re
import socket
import ssl

import httpx2
import pytest
import trustme

from upcall.outbound import GuardedPoster, Targets
from upcall.sandbox import ManualClock, Sandbox

ACCOUNT = "0000123456-00001"
OTHER_ACCOUNT = "0000123456-00002"
NAME = "listener.example"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
NOT_ALLOWED = "{host} was not sent to: {address} port {port} is not one that was allowed at start-up."
ODD_FORM = "{host} was not sent to: it is an address in an odd form."
ODD_ADDRESS = "{host} was not sent to: {address} is an address in an odd form."
NOT_A_HOST = "The URL was not sent to: its host is not a name in ASCII, nor an address."
HAS_A_USER = "The URL was not sent to: it holds a user name."
UNREADABLE = "The URL was not sent to: it cannot be read."
HAS_CONTROLS = "The URL was not sent to: it holds control characters, or blanks around it."


class World:
    """A sandbox on a clock that the test moves, its log, and a client that is logged in."""

    def __init__(self, **options):
        self.lines = []
        self.sandbox = Sandbox(clock=ManualClock(), seed=1, log=self.lines.append, **options)
        transport = httpx2.ASGITransport(self.sandbox, client=("127.0.0.1", 1))
        self.client = httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1")
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self):
        await self._stack.enter_async_context(self.sandbox)
        await self._stack.enter_async_context(self.client)
        token = await self.client.post(
            "/api/ts/v1/oauth2/token",
            auth=httpx2.BasicAuth("sandbox", "sandbox"),
            data={"grant_type": "client_credentials"},
        )
        self.client.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
        login = await self.client.post("/api/m2m/v1/session/login", json={"username": "sandbox", "password": "sandbox"})
        self.client.headers["VZ-M2M-Token"] = login.json()["sessionToken"]
        self.lines.clear()
        return self

    async def __aexit__(self, *raised):
        await self._stack.__aexit__(*raised)

    async def register(self, url, account=ACCOUNT):
        """Register a listener over the API; return the answer's status."""
        answer = await self.client.post(f"/api/fota/v2/callbacks/{account}", json={"url": url})
        return answer.status_code

    async def announce(self, account=ACCOUNT):
        """Have a callback made, and its first try ended; return it as the control API shows it."""
        made = (await self.client.post(f"/_sandbox/announce/{account}")).json()["id"]
        await self.sandbox.advance(0)
        return await self.tried(made, 1)

    async def tried(self, number, tries):
        """Wait until so many tries of a callback have ended, or no more will; return it as the control API shows it."""
        async with asyncio.timeout(80):
            while True:
                shown = (await self.client.get("/_sandbox/deliveries")).json()[number - 1]
                if len(shown["attempts"]) >= tries or shown["next_at"] is None:
                    return shown
                await self.sandbox.settle()

    def refusals(self):
        return [line for line in self.lines if "refused" in line]


def hint_for(why):
    """Return what to do about a refusal: what can be allowed, else what is wrong with the URL."""
    if "was allowed at start-up" in why:
        return "Allow a target with --deliver-to HOST[:PORT]."
    return "Write the address plainly, such as 192.0.2.1." if "odd form" in why else "Correct the URL."


def assert_refused(shown, why, lines):
    """Check that a callback is done with after one try, with a named error and a reason, and that one line says so."""
    (attempt,) = shown["attempts"]
    assert (attempt["number"], attempt.get("status"), attempt["error"]) == (1, None, "target")
    assert attempt["why"] == why
    assert (shown["state"], shown["acknowledged"], shown["next_at"]) == ("refused", False, None)
    (line,) = (line for line in lines if "refused" in line)
    assert line.endswith(f" refused: {why} {hint_for(why)}")
    assert line.isprintable()
    assert "token-of-the-listener" not in line


def listening_everywhere():
    """Return a socket that listens on every address of this machine, of both families where there are both."""
    try:
        return socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except (OSError, ValueError):
        return socket.create_server(("0.0.0.0", 0))


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


class Trap:
    """Listens on every address of this machine, and counts who came."""

    def __init__(self):
        self._socket = listening_everywhere()
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]

    def connections(self):
        """Return how many connections wait to be accepted; the system makes them without this process's help."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.accept()[0].close()
                count += 1
        return count

    def close(self):
        self._socket.close()


@pytest.fixture
def trap():
    made = Trap()
    yield made
    made.close()


def test_the_trap_notices(trap):
    """The socket that stands where nothing may arrive notices a connection to it, in either family."""
    socket.create_connection(("127.0.0.1", trap.port)).close()
    assert trap.connections() == 1
    assert trap.connections() == 0


# --- Addresses -------------------------------------------------------------------------------------------------------

NOT_OURS = {
    "private 10/8": "10.120.102.183",
    "private 172.16/12": "172.16.0.1",
    "private 172.31": "172.31.255.254",
    "private 192.168/16": "192.168.1.1",
    "shared 100.64/10": "100.64.0.1",
    "link-local": "169.254.1.1",
    "metadata": "169.254.169.254",
    "metadata of containers": "169.254.170.2",
    "unspecified": "0.0.0.0",
    "this network": "0.0.0.1",
    "multicast": "224.0.0.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "public": "8.8.8.8",
    "next to loopback": "128.0.0.1",
    "IPv6 unspecified": "[::]",
    "IPv6 private": "[fd00::1]",
    "IPv6 link-local": "[fe80::1]",
    "IPv6 metadata": "[fd00:ec2::254]",
    "IPv6 multicast": "[ff02::1]",
    "IPv6 of this machine's group": "[ff01::1]",
    "IPv6 site-local": "[fec0::1]",
    "IPv6 documentation": "[2001:db8::1]",
    "IPv6 next to loopback": "[::2]",
    "IPv4-compatible loopback": "[::127.0.0.1]",
    "NAT64 of loopback": "[64:ff9b::7f00:1]",
    "NAT64 of loopback, dotted": "[64:ff9b::127.0.0.1]",
    "NAT64 of a network's own": "[64:ff9b:1::7f00:1]",
    "6to4 of loopback": "[2002:7f00:1::]",
    "6to4 of a private address": "[2002:a00:1::1]",
    "Teredo of loopback": "[2001:0:7f00:1::1]",
    "IPv4-translated loopback": "[::ffff:0:127.0.0.1]",
    "written in full": "[0000:0000:0000:0000:0000:0000:0000:0000]",
}


@pytest.mark.parametrize("host", NOT_OURS.values(), ids=NOT_OURS)
async def test_addresses_that_were_not_allowed(host, trap):
    """An address that was not named at start-up is refused by name, with its port, and nothing is connected to."""
    bare = host.strip("[]")
    async with World() as world:
        assert await world.register(f"https://{host}:{trap.port}/callbacks/token-of-the-listener") == 200
        shown = await world.announce()
        assert_refused(
            shown, NOT_ALLOWED.format(host=bare, address=ipaddress.ip_address(bare), port=trap.port), world.lines
        )
    assert trap.connections() == 0


ODD_HOSTS = {
    "decimal": "2130706433",
    "octal": "0177.0.0.1",
    "octal in one": "017700000001",
    "hexadecimal": "0x7f.0.0.1",
    "hexadecimal in one": "0x7f000001",
    "hexadecimal and short": "0x7f.1",
    "hexadecimal in upper case": "0X7F.1",
    "short": "127.1",
    "shorter": "127.0.1",
    "zero": "0",
    "leading zeros": "127.0.0.01",
    "a number too large": "127.0.0.256",
    "five numbers": "127.0.0.0.1",
    "trailing dot": "127.0.0.1.",
    "trailing dot, short": "127.1.",
    "private, decimal": "167772161",
    "private, trailing dot": "10.0.0.1.",
    "metadata, hexadecimal": "0xa9fea9fe",
}


@pytest.mark.parametrize("host", ODD_HOSTS.values(), ids=ODD_HOSTS)
async def test_addresses_in_odd_forms(host, trap):
    """Loopback, or any address, in a form that readers understand differently is refused: loopback itself is not."""
    async with World() as world:
        assert await world.register(f"https://{host}:{trap.port}/callbacks/token-of-the-listener") == 200
        assert_refused(await world.announce(), ODD_FORM.format(host=host.lower()), world.lines)
    assert trap.connections() == 0


ODD_ADDRESSES = {
    "mapped loopback": "::ffff:127.0.0.1",
    "mapped loopback in hexadecimal": "::ffff:7f00:1",
    "mapped loopback in upper case": "::FFFF:7F00:1",
    "mapped loopback in full": "0:0:0:0:0:ffff:7f00:0001",
    "mapped private": "::ffff:10.0.0.1",
    "mapped metadata": "::ffff:169.254.169.254",
    "a zone": "fe80::1%lo",
    "an escaped zone": "fe80::1%25lo",
    "loopback with a zone": "::1%lo",
    "loopback with an escaped zone": "::1%251",
}


@pytest.mark.parametrize("bare", ODD_ADDRESSES.values(), ids=ODD_ADDRESSES)
async def test_ipv6_addresses_in_odd_forms(bare, trap):
    """An IPv4 address within an IPv6 one, or an address with a zone, is refused whatever it leads to."""
    async with World() as world:
        assert await world.register(f"https://[{bare}]:{trap.port}/callbacks/token-of-the-listener") == 200
        host = bare.lower()
        assert_refused(
            await world.announce(), ODD_ADDRESS.format(host=host, address=ipaddress.ip_address(host)), world.lines
        )
    assert trap.connections() == 0


async def test_no_name_is_looked_up_for_an_address(trap):
    """What any reader would take for an address is never given to a resolver, which might read it its own way."""
    asked = []

    async def resolve(host, port):
        asked.append(host)
        return ["127.0.0.1"]

    poster = GuardedPoster(Targets.parse(()), resolve=resolve)
    async with poster, World(poster=poster) as world:
        for host in (*NOT_OURS.values(), *ODD_HOSTS.values(), *(f"[{bare}]" for bare in ODD_ADDRESSES.values())):
            await world.register(f"https://{host}:{trap.port}/callbacks/token-of-the-listener")
            assert (await world.announce())["state"] == "refused"
    assert asked == []
    assert trap.connections() == 0


# --- URLs ------------------------------------------------------------------------------------------------------------

ODD_URLS = {
    "user": ("https://user@127.0.0.1:{port}/", 400, HAS_A_USER),
    "user and password": ("https://user:hidden-word@127.0.0.1:{port}/", 400, HAS_A_USER),
    "loopback as the user": ("https://127.0.0.1:{port}@10.0.0.1/", 400, HAS_A_USER),
    "empty user": ("https://@127.0.0.1:{port}/", 400, HAS_A_USER),
    "backslash": ("https://127.0.0.1\\@10.0.0.1:{port}/", 400, HAS_A_USER),
    "backslash as a slash": ("https://127.0.0.1\\.example:{port}/", 400, NOT_A_HOST),
    "percent-encoded digits": ("https://%31%32%37.0.0.1:{port}/", 200, NOT_A_HOST),
    "percent-encoded dots": ("https://127%2e0%2e0%2e1:{port}/", 200, NOT_A_HOST),
    "percent-encoded name": ("https://%6cocalhost:{port}/", 200, NOT_A_HOST),
    "full-width digits": ("https://\uff11\uff12\uff17.0.0.1:{port}/", 400, NOT_A_HOST),
    "circled digits": ("https://\u2460\u2461\u2466.0.0.1:{port}/", 400, NOT_A_HOST),
    "ideographic full stops": ("https://127\u30020\u30020\u30021:{port}/", 400, NOT_A_HOST),
    "full-width name": ("https://\uff4cocalhost:{port}/", 400, NOT_A_HOST),
    "long s": ("https://localho\u017ft:{port}/", 400, NOT_A_HOST),
    "a name in another alphabet": ("https://b\xfccher.example:{port}/", 400, NOT_A_HOST),
    "port above the last": ("https://127.0.0.1:65536/", 400, UNREADABLE),
    "port far above": ("https://127.0.0.1:99999/", 400, UNREADABLE),
    "port below zero": ("https://127.0.0.1:-1/", 400, UNREADABLE),
    "port that is no number": ("https://127.0.0.1:port/", 400, UNREADABLE),
    "port in full-width digits": ("https://127.0.0.1:\uff18\uff10/", 400, UNREADABLE),
    "line feed": ("https://127.0.0.1:{port}/\nHost: other", 400, HAS_CONTROLS),
    "line feed in the host": ("https://127.0\n.0.1:{port}/", 400, HAS_CONTROLS),
    "blank before": (" https://127.0.0.1:{port}/", 400, HAS_CONTROLS),
    "another scheme": ("ftp://127.0.0.1:{port}/", 400, "The URL was not sent to: it is not http or https with a host."),
    "no host": ("https:///callbacks", 400, "The URL was not sent to: it is not http or https with a host."),
}


@pytest.mark.parametrize(("url", "status", "why"), ODD_URLS.values(), ids=ODD_URLS)
async def test_urls_in_odd_forms(url, status, why, trap):
    """A URL that readers take for different things is not registered, or not sent to; both say so."""
    url = url.format(port=trap.port)
    async with World() as world:
        assert await world.register(url) == status
        world.sandbox.register(ACCOUNT, url)  # such as a state file of an older version may hold
        assert_refused(await world.announce(), why, world.lines)
        assert "hidden-word" not in world.refusals()[0]
    assert trap.connections() == 0


async def test_port_0():
    """Port 0 is nobody's: it is not registered, and not sent to."""
    url = "https://127.0.0.1:0/callbacks/token-of-the-listener"
    async with World() as world:
        assert await world.register(url) == 400
        world.sandbox.register(ACCOUNT, url)
        shown = await world.announce()
        assert (shown["state"], shown["attempts"][0]["error"]) == ("refused", "target")


async def test_a_url_that_nobody_can_read():
    """A URL whose brackets do not match stops nothing: its callbacks are refused, and the others go on."""
    async with World() as world:
        assert await world.register("https://[::1/callbacks") == 400
        world.sandbox.register(ACCOUNT, "https://[::1/callbacks")
        assert_refused(await world.announce(), UNREADABLE, world.lines)
        assert (await world.announce(OTHER_ACCOUNT))["state"] == "lost"


async def test_plain_http_is_for_loopback_only(trap):
    """With plain http allowed, no form of another address, and no odd form of loopback, is registered with it."""
    async with World(allow_http=True) as world:
        hosts = [*NOT_OURS.values(), *ODD_HOSTS.values(), NAME, "localhost.example", "127.0.0.1.example"]
        for host in hosts:
            assert await world.register(f"http://{host}:{trap.port}/callbacks/token-of-the-listener") == 400
        assert (await world.client.get(f"/api/fota/v2/callbacks/{ACCOUNT}")).content == b""


# --- What is said ----------------------------------------------------------------------------------------------------


async def test_each_is_said(trap):
    """Each callback that a target refuses has its readable line, without the token."""
    url = f"https://10.0.0.1:{trap.port}/callbacks/token-of-the-listener"
    async with World() as world:
        await world.register(url)
        await world.register(url, OTHER_ACCOUNT)
        for account in (ACCOUNT, OTHER_ACCOUNT, ACCOUNT):
            assert (await world.announce(account))["state"] == "refused"
        said = (
            f"firmwareList 2 packages to https://10.0.0.1:{trap.port}/callbacks/toke*** try 1 of 4: refused: 10.0.0.1"
            f" was not sent to: 10.0.0.1 port {trap.port} is not one that was allowed at start-up. Allow a target with"
            " --deliver-to HOST[:PORT]."
        )
        assert [line.partition(" ")[2] for line in world.refusals()] == [
            f"callback 1 {ACCOUNT} {said}",
            f"callback 2 {OTHER_ACCOUNT} {said}",
            f"callback 3 {ACCOUNT} {said}",
        ]


async def test_a_refusal_is_final(trap):
    """A callback that a target refused is not tried again, and can be asked for by its state."""
    async with World() as world:
        await world.register(f"https://10.0.0.1:{trap.port}/callbacks/token-of-the-listener")
        shown = await world.announce()
        await world.sandbox.advance(100_000)
        assert (await world.client.get("/_sandbox/deliveries?state=refused")).json() == [shown]
        assert (await world.client.get("/_sandbox/deliveries?state=failed")).json() == []


async def test_by_the_clock_that_runs_by_itself(trap):
    """Under the real clock a refusal is entered and said in the same way."""
    said = asyncio.Event()
    lines = []

    def log(line):
        lines.append(line)
        if "refused" in line:
            said.set()

    async with Sandbox(seed=1, log=log) as sandbox:
        transport = httpx2.ASGITransport(sandbox, client=("127.0.0.1", 1))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            sandbox.register(ACCOUNT, f"https://127.1:{trap.port}/callbacks/token-of-the-listener")
            await client.post(f"/_sandbox/announce/{ACCOUNT}")
            async with asyncio.timeout(80):
                await said.wait()
            await sandbox.settle()
            (shown,) = (await client.get("/_sandbox/deliveries")).json()
    assert_refused(shown, ODD_FORM.format(host="127.1"), lines)
    assert trap.connections() == 0


# --- Listeners that are reached --------------------------------------------------------------------------------------


class Listener:
    """An encrypted server on every address of this machine, that notes requests and whom they asked for."""

    def __init__(self, context, answer=OK):
        self._context = context
        self.answer = answer
        self.heads = []
        self.server_names = []
        self._tasks = {}
        if context is not None:
            context.sni_callback = lambda _socket, name, _context: self.server_names.append(name)

    async def __aenter__(self):
        listening = listening_everywhere()
        self._server = await asyncio.start_server(self._accept, sock=listening, ssl=self._context)
        self.port = listening.getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for writer in self._tasks.values():
            writer.transport.abort()
        await asyncio.gather(*self._tasks)

    async def _accept(self, reader, writer):
        self._tasks[asyncio.current_task()] = writer
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            await self.serve(reader, writer)
            await writer.drain()
        writer.close()

    async def serve(self, reader, writer):
        """Read a request and answer it."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        self.heads.append(head.decode("ascii"))
        writer.write(self.answer)

    @property
    def hosts(self):
        """Return what the requests said in their ``Host``, without the port."""
        names = [head.partition("\r\nHost: ")[2].partition("\r\n")[0] for head in self.heads]
        return [name.removesuffix(f":{self.port}") for name in names]


def server_context(authority, *identities, **options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*identities, **options).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def trust(authority, tmp_path):
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def own_address():
    """Return an address of this machine that is not loopback; no packet is sent for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("this machine has no network")
        return asking.getsockname()[0]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        pytest.param("[::1]", marks=ipv6),
        pytest.param("[0:0:0:0:0:0:0:1]", marks=ipv6),
    ],
)
async def test_loopback_is_reached(host, authority, trust):
    """Loopback in its own form is reached without being named."""
    bare = host.strip("[]")
    async with Listener(server_context(authority, bare)) as listener, World(trust=trust) as world:
        assert await world.register(f"https://{host}:{listener.port}/callbacks/token-of-the-listener") == 200
        shown = await world.announce()
        assert (shown["state"], shown["attempts"][0].get("why")) == ("acknowledged", None)
        assert listener.hosts == [host]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "LocalHost"])
async def test_names_of_loopback_are_reached(host, authority, trust):
    """A name is a name in any case; the system says that this one is loopback."""
    async with Listener(server_context(authority, "localhost")) as listener, World(trust=trust) as world:
        assert await world.register(f"https://{host}:{listener.port}/callbacks/token-of-the-listener") == 200
        assert (await world.announce())["state"] == "acknowledged"
        assert listener.server_names == ["localhost"]


@pytest.mark.parametrize("host", ["0.0.0.0", pytest.param("[::]", marks=ipv6), "own"])
async def test_what_was_named_is_reached(host, authority, trust):
    """The address that was refused is reached once it is named at start-up, on its port, and on no other."""
    host = own_address() if host == "own" else host
    bare = host.strip("[]")
    async with Listener(server_context(authority, bare)) as listener:
        url = f"https://{host}:{listener.port}/callbacks/token-of-the-listener"
        for deliver_to, expected in [
            ((), "refused"),
            ((f"{host}:{listener.port % 65535 + 1}",), "refused"),
            ((f"{host}:{listener.port}",), "acknowledged"),
            ((bare,), "acknowledged"),
        ]:
            async with World(trust=trust, deliver_to=deliver_to) as world:
                await world.register(url)
                assert (await world.announce())["state"] == expected
        assert listener.hosts == [host, host]


async def test_odd_forms_are_not_made_good_by_naming(trap):
    """What was named stands for its address in one form only: the odd ones of the same address stay refused."""
    async with World(deliver_to=("10.0.0.1", "127.0.0.1", "::ffff:127.0.0.1")) as world:
        for host in ("[::ffff:10.0.0.1]", "167772161", "[::ffff:127.0.0.1]", "127.1"):
            await world.register(f"https://{host}:{trap.port}/callbacks/token-of-the-listener")
            shown = await world.announce()
            assert (shown["state"], shown["attempts"][0]["error"]) == ("refused", "target")
            assert "odd form" in shown["attempts"][0]["why"]
    assert trap.connections() == 0


# --- Names -----------------------------------------------------------------------------------------------------------


class Resolver:
    """Answers each question with the next of some answers, and notes the questions; the last answer stays."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.asked = []

    async def __call__(self, host, port):
        self.asked.append(host)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextlib.asynccontextmanager
async def resolving(*answers, trust=None, deliver_to=()):
    """Make a sandbox whose poster gets names resolved as told."""
    resolver = Resolver(*answers)
    poster = GuardedPoster(Targets.parse(deliver_to), resolve=resolver, trust=trust)
    async with poster, World(poster=poster) as world:
        world.resolver = resolver
        yield world


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "fd00:ec2::254",
        "fe80::1",
        "::",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::1",
    ],
)
@pytest.mark.parametrize("name", [NAME, "localhost", "LOCALHOST.", "xn--bcher-kva.example"])
async def test_names_that_lead_elsewhere(name, address, trap):
    """A name is what it resolves to, be it called localhost: the refusal names it and the address behind it."""
    async with resolving([address]) as world:
        assert await world.register(f"https://{name}:{trap.port}/callbacks/token-of-the-listener") == 200
        host = name.lower()
        assert_refused(
            await world.announce(), NOT_ALLOWED.format(host=host, address=address, port=trap.port), world.lines
        )
        assert world.resolver.asked == [host]
    assert trap.connections() == 0


@pytest.mark.parametrize("address", ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "fe80::1%lo", "::1%1"])
async def test_names_that_lead_to_odd_addresses(address, trap):
    """An odd address is refused from a resolver as it is in a URL."""
    async with resolving([address]) as world:
        await world.register(f"https://{NAME}:{trap.port}/callbacks/token-of-the-listener")
        assert_refused(
            await world.announce(), ODD_ADDRESS.format(host=NAME, address=ipaddress.ip_address(address)), world.lines
        )
    assert trap.connections() == 0


@pytest.mark.parametrize(
    "addresses",
    [
        ["10.0.0.1", "127.0.0.1"],
        ["127.0.0.1", "10.0.0.1"],
        ["127.0.0.1", "::1", "10.0.0.1"],
        ["::1", "127.0.0.1", "127.0.0.2", "10.0.0.1", "127.0.0.3"],
    ],
)
async def test_names_with_one_address_too_many(addresses, trap):
    """A name with one address that is not allowed is refused, wherever in the answer it stands."""
    async with resolving(addresses) as world:
        await world.register(f"https://{NAME}:{trap.port}/callbacks/token-of-the-listener")
        assert_refused(
            await world.announce(), NOT_ALLOWED.format(host=NAME, address="10.0.0.1", port=trap.port), world.lines
        )
    assert trap.connections() == 0


@pytest.mark.parametrize("answer", [[], OSError("no such name"), socket.gaierror(socket.EAI_NONAME, "Name unknown")])
async def test_names_without_an_address(answer):
    """A name that does not resolve is out of reach, not refused: it is tried again, as an outage of names passes."""
    async with resolving(answer) as world:
        await world.register(f"https://{NAME}/callbacks/token-of-the-listener")
        shown = await world.announce()
        assert (shown["state"], shown["attempts"][0]["error"]) == ("pending", "connect")
        assert NAME in shown["attempts"][0]["why"]
        assert shown["next_at"] == shown["created_at"] + 300.0


async def test_the_address_that_was_checked_is_connected_to(authority, trust):
    """A name is resolved once for a connection: a second answer that leads elsewhere comes too late."""
    async with (
        Listener(server_context(authority, NAME)) as listener,
        resolving(["127.0.0.1"], ["10.0.0.1"], trust=trust) as world,
    ):
        await world.register(f"https://{NAME}:{listener.port}/callbacks/token-of-the-listener")
        assert (await world.announce())["state"] == "acknowledged"
        assert (world.resolver.asked, listener.hosts) == ([NAME], [NAME])


async def test_rebinding_between_tries(authority, trust):
    """A name that leads elsewhere by the next try is refused then, and nothing more is tried."""
    unavailable = OK.replace(b"200 OK", b"503 Unavailable")
    async with (
        Listener(server_context(authority, NAME), unavailable) as listener,
        resolving(["127.0.0.1"], ["10.0.0.1"], trust=trust) as world,
    ):
        await world.register(f"https://{NAME}:{listener.port}/callbacks/token-of-the-listener")
        first = await world.announce()
        assert (first["state"], first["attempts"][0]["status"]) == ("pending", 503)
        await world.sandbox.advance(300)
        shown = await world.tried(1, 2)
        assert (shown["state"], shown["attempts"][1]["error"], shown["next_at"]) == ("refused", "target", None)
        assert shown["attempts"][1]["why"] == NOT_ALLOWED.format(host=NAME, address="10.0.0.1", port=listener.port)
        assert (world.resolver.asked, listener.hosts) == ([NAME, NAME], [NAME])


async def test_rebinding_the_other_way_round(authority, trust):
    """A name that leads to a listener only later refuses what came before, and takes what comes after."""
    async with (
        Listener(server_context(authority, NAME)) as listener,
        resolving(["10.0.0.1"], ["127.0.0.1"], trust=trust) as world,
    ):
        await world.register(f"https://{NAME}:{listener.port}/callbacks/token-of-the-listener")
        refused, taken = await world.announce(), await world.announce()
        assert_refused(refused, NOT_ALLOWED.format(host=NAME, address="10.0.0.1", port=listener.port), world.lines)
        assert (taken["state"], listener.hosts) == ("acknowledged", [NAME])


# --- Redirects -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("elsewhere", ["http://127.0.0.1:{port}/", "//127.0.0.1:{port}/", "http://10.0.0.1:{port}/"])
async def test_redirects_are_not_followed(status, elsewhere, trap):
    """A redirect is an answer like any other but 2xx: it is entered, the callback tried again, nobody else asked."""
    location = elsewhere.format(port=trap.port)
    answer = f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with Listener(None, answer.encode()) as listener, World(allow_http=True) as world:
        await world.register(f"http://127.0.0.1:{listener.port}/callbacks/token-of-the-listener")
        shown = await world.announce()
        assert (shown["state"], shown["attempts"][0]["status"]) == ("pending", status)
        assert shown["next_at"] == shown["created_at"] + 300.0
        await world.sandbox.advance(300)
        assert (await world.tried(1, 2))["attempts"][1]["status"] == status
        assert len(listener.heads) == 2
    assert trap.connections() == 0


# --- Certificates ----------------------------------------------------------------------------------------------------


def days(number):
    return dt.datetime.now(dt.UTC) + dt.timedelta(days=number)


@pytest.mark.parametrize(
    ("identity", "validity", "is_trusted", "why"),
    [
        (NAME, {}, False, "certificate was refused: "),
        ("other.example", {}, True, "certificate was refused: .*listener.example"),
        ("127.0.0.1", {}, True, "certificate was refused: .*listener.example"),
        (NAME, {"not_before": days(-9), "not_after": days(-2)}, True, "certificate was refused: .*expired"),
        (NAME, {"not_before": days(2), "not_after": days(9)}, True, "certificate was refused: .*not yet valid"),
    ],
    ids=["not trusted", "another name", "its address only", "expired", "not yet valid"],
)
async def test_certificates_that_are_refused(*, identity, validity, is_trusted, why, authority, trust):
    """A listener whose certificate does not hold gets nothing; the try says why, and the profile tries again."""
    async with (
        Listener(server_context(authority, identity, **validity)) as listener,
        resolving(["127.0.0.1"], trust=trust if is_trusted else None) as world,
    ):
        await world.register(f"https://{NAME}:{listener.port}/callbacks/token-of-the-listener")
        shown = await world.announce()
        (attempt,) = shown["attempts"]
        assert (shown["state"], attempt.get("status"), attempt["error"]) == ("pending", None, "tls")
        assert attempt["why"].startswith(f"POST to https://{NAME}:{listener.port} failed: the ")
        assert re.search(why, attempt["why"])
        assert "token-of-the-listener" not in attempt["why"]
        assert listener.heads == []
        assert shown["next_at"] == shown["created_at"] + 300.0


@pytest.mark.parametrize("name", [NAME, NAME.upper(), f"{NAME}."])
async def test_the_name_is_asked_for_at_the_address(name, authority, trust):
    """The connection goes to the address that was checked; the handshake asks for the name, as the certificate does."""
    async with (
        Listener(server_context(authority, NAME)) as listener,
        resolving(["127.0.0.1"], trust=trust) as world,
    ):
        await world.register(f"https://{name}:{listener.port}/callbacks/token-of-the-listener")
        assert (await world.announce())["state"] == "acknowledged"
        assert listener.server_names == [NAME]
        assert listener.hosts == [name.lower()]


async def test_the_sandboxs_own_trust(authority, trust):
    """The file of certificates that the sandbox is given makes a listener's good, and nothing else does."""
    async with Listener(server_context(authority, "localhost")) as listener:
        for options, expected in (({}, ("pending", "tls")), ({"trust": trust}, ("acknowledged", None))):
            async with World(**options) as world:
                await world.register(f"https://localhost:{listener.port}/callbacks/token-of-the-listener")
                shown = await world.announce()
                assert (shown["state"], shown["attempts"][0].get("error")) == expected
        assert listener.hosts == ["localhost"]


class PlainListener(Listener):
    """Answers what it takes for a request, as a server that does not encrypt does."""

    async def serve(self, reader, writer):
        self.heads.append(await reader.read(65536))
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


async def test_a_listener_that_does_not_encrypt(trust):
    """A listener that speaks plain http on its https port gets nothing of a callback."""
    async with PlainListener(None) as listener, World(trust=trust) as world:
        await world.register(f"https://127.0.0.1:{listener.port}/callbacks/token-of-the-listener")
        shown = await world.announce()
        assert (shown["state"], shown["attempts"][0]["error"]) == ("pending", "tls")
        assert [b"token-of-the-listener" in came or b"firmwareList" in came for came in listener.heads] == [False]
