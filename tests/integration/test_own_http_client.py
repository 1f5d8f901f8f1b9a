"""A user's own httpx2 client or transport, over real sockets: certificates, proxies, HTTP/2, compression, connections.

What is to hold for the client's own connections too is asked of both.
"""

import ast
import asyncio
import base64
import contextlib
import gzip
import inspect
import itertools
import json
import logging
import os
import select
import socket
import socketserver
import ssl
import threading
import traceback
import tracemalloc
import zlib
from collections import Counter, deque
from typing import NamedTuple
from urllib.parse import urlsplit

import hpack
import httpx2
import hypercorn
import msgspec
import pytest
import trustme
from hypercorn.asyncio import serve

from upcall import AsyncThingSpaceClient, ThingSpaceClient
from upcall.client.wire.reading import MAX_BODY_BYTES
from upcall.errors import (
    AnsweredError,
    NoAnswerError,
    RequestNotSentError,
    SettingsError,
    ThingSpaceError,
    UndecodableAnswerError,
    UpcallError,
)
from upcall.settings import Credentials

ACCOUNT = "0000123456-00001"
URL = "https://listener.example.com:50559/callbacks/one"
NAME = "thingspace.example"
"""A name that no resolver knows: a proxy does."""
CREDENTIALS = Credentials(
    client_id="own-client", client_secret="client-canary-secret", username="own-user", password="pw-canary-of-the-user"
)
BASIC = base64.b64encode(f"{CREDENTIALS.client_id}:{CREDENTIALS.client_secret}".encode()).decode()
CALLBACKS = f"/api/fota/v2/callbacks/{ACCOUNT}"
SECONDS = 10
ENOUGH = 20
"""Who does not give up after so many refusals is let in: its test fails by that, and ends."""


# --- A ThingSpace --------------------------------------------------------------------------------------------------


class Received(NamedTuple):
    """A request as it came; `connection` counts the connections of a server from 1."""

    method: str
    path: str
    headers: dict
    connection: int
    version: str


class World:
    """Play ThingSpace: tokens, and one account's listener. What should not have come is a complaint."""

    def __init__(self):
        self.requests, self.issued, self.complaints = [], [], []
        self.registered = URL
        self._count = itertools.count(1)
        self._lock = threading.Lock()

    @property
    def calls(self):
        """Return the requests behind the tokens."""
        return [request for request in self.requests if "/fota/" in request.path]

    @property
    def secrets(self):
        return [CREDENTIALS.client_secret, CREDENTIALS.password, BASIC, *self.issued]

    def answer(self, method, path, headers, body, *, connection=0, version="1.1"):
        """Return a status and a document."""
        with self._lock:
            self.requests.append(Received(method, path, headers, connection, version))
            if path == "/api/ts/v1/oauth2/token":
                return self._issue("access_token", headers.get("authorization") == f"Basic {BASIC}")
            is_admitted = headers.get("authorization") in {f"Bearer {token}" for token in self.issued}
            if path == "/api/m2m/v1/session/login":
                return self._issue("sessionToken", is_admitted and json.loads(body)["password"] == CREDENTIALS.password)
            if not is_admitted or headers.get("vz-m2m-token") not in self.issued:
                self.complaints.append(f"{method} {path} came without its tokens")
            return self._call(method, path, body)

    def _issue(self, member, is_admitted):
        if not is_admitted:
            self.complaints.append(f"no {member} for such a request")
        self.issued.append(f"{member}-canary-{next(self._count)}-{os.urandom(8).hex()}")
        return 200, {member: self.issued[-1], "expires_in": 3600}

    def _call(self, method, path, body):
        if path.startswith("/api/fota/v2/campaigns/"):
            return 200, {"id": "campaign-1"}
        if not path.startswith("/api/fota/v2/callbacks/"):
            self.complaints.append(f"{method} {path} is nothing that was to be asked for")
            return 404, {}
        if method == "DELETE":
            self.registered = None
            return 200, {"success": True}
        if method != "GET":
            self.registered = json.loads(body)["url"]
        return 200, {"url": self.registered} if self.registered else {}


class Server(socketserver.ThreadingTCPServer):
    """Serve a world by HTTP/1.1, over TLS where a context is given; connections stay open.

    Steps are taken, one each, by the calls to come: ``hang up`` closes the connection behind the request's head;
    ``carry out`` closes it in the place of an answer; a function makes the answer's head and body of the document.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, context=None):
        super().__init__(("127.0.0.1", 0), _Connection)
        self.context = context
        self.world = World()
        self.steps = deque()
        self.before_answer = lambda: None
        self.idle_seconds = SECONDS
        self.port = self.server_address[1]
        self.base_url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}/api"
        self.refused = []
        self.numbers = itertools.count(1)
        self.open = self.most = 0
        self._change = threading.Condition()
        threading.Thread(target=self.serve_forever, args=(0.02,), name="server", daemon=True).start()

    def count(self, change):
        with self._change:
            self.open += change
            self.most = max(self.most, self.open)
            self._change.notify_all()

    def is_left(self):
        """Wait until no connection is open; tell whether that came to pass."""
        with self._change:
            return self._change.wait_for(lambda: self.open == 0, self.idle_seconds)

    def handle_error(self, request, client_address):
        self.world.complaints.append(f"the server itself failed: {traceback.format_exc(limit=-1)}")


class _Connection(socketserver.StreamRequestHandler):
    def setup(self):
        self.request.settimeout(self.server.idle_seconds)
        if self.server.context is not None:
            self.request = self.server.context.wrap_socket(
                self.request, server_side=True, do_handshake_on_connect=False
            )
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = next(self.server.numbers)
        self.server.count(1)

    def finish(self):
        with contextlib.suppress(OSError):
            super().finish()
        self.connection.close()
        self.server.count(-1)

    def handle(self):
        with contextlib.suppress(OSError):
            if self.server.context is None or self._has_shaken_hands():
                while line := self.rfile.readline():
                    if not self._answer(*line.decode("ascii").split(" ")[:2]):
                        return

    def _has_shaken_hands(self):
        try:
            self.connection.do_handshake()
        except OSError as error:
            self.server.refused.append(str(error))
            if len(self.server.refused) > ENOUGH:
                self.server.context.verify_mode = ssl.CERT_NONE
            # Whoever is refused shall be able to read why: a close with bytes unread would be a reset.
            self.connection.shutdown(socket.SHUT_WR)
            while self.connection.recv(1024):
                pass
            return False
        return True

    def _answer(self, method, path):
        headers = {}
        while (field := self.rfile.readline().decode("latin-1").strip()) != "":
            name, _, value = field.partition(":")
            headers[name.lower()] = value.strip()
        steps = self.server.steps
        step = steps.popleft() if steps and "/fota/" in path else None
        if step == "hang up":
            self.server.world.requests.append(Received(method, path, headers, self.number, "1.1"))
            return False
        body = self.rfile.read(int(headers.get("content-length", 0)))
        status, document = self.server.world.answer(method, path, headers, body, connection=self.number)
        if step == "carry out":
            return False
        self.server.before_answer()
        raw = json.dumps(document).encode()
        status, fields, raw = step(raw) if step else (status, (), raw)
        is_last = headers.get("connection") == "close"
        fields = [*fields, "Connection: close"] if is_last else fields
        head = [f"HTTP/1.1 {status} Said", *fields, f"Content-Length: {len(raw)}", "", ""]
        self.wfile.write("\r\n".join(head).encode() + raw)
        return not is_last


@pytest.fixture
def serving():
    """Make servers for one test; afterwards nobody is connected to them, and nothing was wrong with what they got."""
    servers = []

    def make(context=None):
        servers.append(Server(context))
        return servers[-1]

    yield make
    for server in servers:
        assert server.is_left(), "a connection was left open"
        server.shutdown()
        server.server_close()
        assert server.world.complaints == []


# --- Callers -------------------------------------------------------------------------------------------------------


class Caller:
    """Call with a client of its own each time, sync or async, whose retries do not wait.

    What is in `own` makes an httpx2 client for it; steps are functions of the client.
    """

    def __init__(self, flavour, directory):
        self.flavour = flavour
        self._settings = {"credentials": CREDENTIALS, "state_dir": directory}

    def outcomes(self, base_url, *steps, own=None, **options):
        """Do the steps one after the other; return what each came to, an error of ours or a result."""
        options = self._settings | {"base_url": base_url} | options
        if self.flavour == "async":
            return asyncio.run(self._async_outcomes(steps, own, options))
        with contextlib.ExitStack() as stack:
            if own is not None:
                options["http_client"] = stack.enter_context(httpx2.Client(**own))
            client = stack.enter_context(ThingSpaceClient(**options))
            _without_jitter(client)
            return [_outcome(step, client) for step in steps]

    def outcome(self, base_url, *steps, **options):
        """Return what the last step came to; where none is given, it is to look what is registered."""
        return self.outcomes(base_url, *steps or [show], **options)[-1]

    def result(self, base_url, *steps, **options):
        """Return the result of the last step, which is to succeed."""
        outcome = self.outcome(base_url, *steps, **options)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def _async_outcomes(self, steps, own, options):
        async with contextlib.AsyncExitStack() as stack:
            if own is not None:
                options["http_client"] = await stack.enter_async_context(httpx2.AsyncClient(**own))
            client = await stack.enter_async_context(AsyncThingSpaceClient(**options))
            _without_jitter(client)
            return [await _async_outcome(step, client) for step in steps]


def _without_jitter(client):
    exchange = client._exchange
    exchange.clock = msgspec.structs.replace(exchange.clock, chance=lambda: 0.0)


def _outcome(step, client):
    try:
        return step(client)
    except UpcallError as error:
        return error


async def _async_outcome(step, client):
    try:
        made = step(client)
        return await made if inspect.isawaitable(made) else made
    except UpcallError as error:
        return error


def show(client):
    return client.callbacks.list_registered_callbacks(ACCOUNT)


def log_in(client):
    return client.login()


def schedule(client):
    return client.campaigns_v2.schedule_campaign_firmware_upgrade(ACCOUNT, {"campaignName": "once"})


WRITES = {
    "POST": lambda client: client.callbacks.register_callback(ACCOUNT, {"url": f"{URL}/new"}),
    "PUT": lambda client: client.callbacks.update_callback(ACCOUNT, {"url": f"{URL}/new"}),
    "DELETE": lambda client: client.callbacks.deregister_callback(ACCOUNT),
}


@pytest.fixture(params=["sync", "async"])
def caller(request, tmp_path):
    return Caller(request.param, tmp_path / "state")


@pytest.fixture(params=[None, {}], ids=["built-in", "own"])
def own(request):
    """No httpx2 client of the user's, and a plain one."""
    return request.param


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith(("SSL_CERT_", "THINGSPACE_", "UPCALL_", "VZ_M2M")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("UPCALL_STATE_DIR", str(tmp_path / "state"))


def shown(error):
    """Return all that an error shows."""
    return "\n".join([str(error), repr(error), repr(vars(error)), *traceback.format_exception(error)])


# --- Certificates --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority):
    return authority.issue_cert("127.0.0.1", "0.0.0.0", NAME)


@pytest.fixture
def server_context(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


@pytest.fixture
def trust(authority):
    """A context that a user would make: it trusts our authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def secure(serving, server_context):
    """A ThingSpace behind TLS, whose certificate only our authority vouches for."""
    return serving(server_context)


@pytest.fixture
def trusted_by_variable(authority, monkeypatch, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))


def test_an_unknown_authority_is_refused_once_and_by_name(secure, caller, own):
    """A certificate that nobody vouches for ends the call at once, and the error says that it is the certificate."""
    error = caller.outcome(secure.base_url, own=own)
    assert type(error) is RequestNotSentError
    assert "certificate" in error.message
    assert error.attempts == 1
    assert secure.world.requests == []


def test_a_certificate_for_another_host_is_refused_once_and_by_name(serving, authority, caller, trust):
    """A trusted certificate of somebody else's is refused like an untrusted one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    server = serving(context)
    error = caller.outcome(server.base_url, own={"verify": trust})
    assert type(error) is RequestNotSentError
    assert "certificate" in error.message
    assert error.attempts == 1
    assert server.world.requests == []


@pytest.mark.usefixtures("trusted_by_variable")
def test_ssl_cert_file_names_the_authority(secure, caller, own):
    """A company's own authority needs one variable, and no httpx2 client."""
    assert caller.result(secure.base_url, own=own).url == URL


def test_a_context_of_ones_own_names_the_authority(secure, caller, trust):
    """What a user's client trusts is trusted."""
    assert caller.result(secure.base_url, own={"verify": trust}).url == URL


def test_an_ssl_cert_file_that_is_not_there_is_named(caller, monkeypatch, tmp_path):
    """A variable that names no file is a setting to correct, not a traceback of the TLS library."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere.pem"))
    error = caller.outcome("https://127.0.0.1:9/api")
    assert type(error) is SettingsError
    assert "SSL_CERT_FILE" in str(error)


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS-1.2", "TLS-1.3"])
def mutual(request, serving, server_context, authority):
    """A ThingSpace that wants to see the client's certificate.

    By TLS 1.2 it says so within the handshake, by TLS 1.3 when the client believes that the handshake is over.
    """
    authority.configure_trust(server_context)
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.maximum_version = request.param
    return serving(server_context)


@pytest.mark.usefixtures("trusted_by_variable")
def test_without_a_certificate_of_its_own_the_client_is_refused(mutual, caller, own):
    """A server that demands mutual TLS gets no secret, and the error passes on what TLS says about it."""
    error = caller.outcome(mutual.base_url, own=own, max_retries=1)
    assert isinstance(error, (RequestNotSentError, NoAnswerError))
    assert "certificate" in error.message or "handshake" in error.message
    assert len(mutual.refused) <= error.attempts
    assert mutual.world.requests == []


def test_mutual_tls_takes_a_context_with_the_clients_certificate(mutual, caller, trust, authority, tmp_path):
    """A user's context with its chain loaded is all that mutual TLS needs."""
    pair = authority.issue_cert("fleet@client.example")
    pair.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    trust.load_cert_chain(tmp_path / "client.pem")
    assert caller.result(mutual.base_url, own={"verify": trust}).url == URL
    assert mutual.refused == []


# --- Proxies -------------------------------------------------------------------------------------------------------

PROXY_USER = "proxy-user"
PROXY_PASSWORD = "proxy-canary-password"
PROXY_BASIC = base64.b64encode(f"{PROXY_USER}:{PROXY_PASSWORD}".encode()).decode()


class Proxy(socketserver.ThreadingTCPServer):
    """Forward plain requests and tunnels, all of them to one server of ours, for whoever shows the password."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, target):
        super().__init__(("127.0.0.1", 0), _Forwarding)
        self.target = target
        self.seen = []
        threading.Thread(target=self.serve_forever, args=(0.02,), name="proxy", daemon=True).start()

    def url(self, password=PROXY_PASSWORD):
        return f"http://{PROXY_USER}:{password}@127.0.0.1:{self.server_address[1]}"


class _Forwarding(socketserver.StreamRequestHandler):
    timeout = SECONDS
    rbufsize = 0  # what comes behind the head is not for us

    def handle(self):
        with contextlib.suppress(OSError):
            method, target, _ = self.rfile.readline().decode("ascii").split(" ")
            fields = list(iter(lambda: self.rfile.readline().decode("latin-1").strip(), ""))
            self.server.seen.append(f"{method} {target}")
            if f"Proxy-Authorization: Basic {PROXY_BASIC}" not in fields:
                self.wfile.write(b"HTTP/1.1 407 Who Are You\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", self.server.target.port), SECONDS) as there:
                if method == "CONNECT":
                    self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
                else:
                    kept = [field for field in fields if not field.lower().startswith(("proxy-", "connection:"))]
                    head = [f"{method} {urlsplit(target).path} HTTP/1.1", *kept, "Connection: close", "", ""]
                    there.sendall("\r\n".join(head).encode("latin-1"))
                self._carry({self.connection: there, there: self.connection})

    def _carry(self, ways):
        """Carry bytes both ways until one side ends."""
        while ready := select.select(list(ways), [], [], SECONDS)[0]:
            for side in ready:
                piece = side.recv(65536)
                if not piece:
                    return
                ways[side].sendall(piece)


@pytest.fixture
def forwarding():
    """Make proxies for one test."""
    with contextlib.ExitStack() as stack:

        def make(target):
            proxy = stack.enter_context(Proxy(target))
            stack.callback(proxy.shutdown)
            return proxy

        yield make


@pytest.fixture
def proxy(secure, forwarding):
    """A proxy in front of the ThingSpace behind TLS."""
    return forwarding(secure)


@pytest.mark.usefixtures("trusted_by_variable")
def test_https_proxy_leads_to_a_host_that_only_the_proxy_knows(proxy, caller, monkeypatch):
    """The provider is reached through the proxy of the environment, whose password stays between us and the proxy."""
    monkeypatch.setenv("HTTPS_PROXY", proxy.url())
    assert caller.result(f"https://{NAME}/api").url == URL
    assert proxy.seen == [f"CONNECT {NAME}:443"]
    assert not any("proxy-authorization" in request.headers for request in proxy.target.world.requests)


@pytest.mark.usefixtures("trusted_by_variable")
@pytest.mark.parametrize(("exempt", "tunnels"), [("", 1), ("elsewhere.example", 1), ("0.0.0.0", 0), ("*", 0)])
def test_no_proxy_is_honoured(exempt, tunnels, proxy, caller, monkeypatch):
    """A host that is exempt is called directly, any other through the proxy."""
    monkeypatch.setenv("HTTPS_PROXY", proxy.url())
    monkeypatch.setenv("NO_PROXY", exempt)
    # An address that is not called loopback, and leads there.
    assert caller.result(f"https://0.0.0.0:{proxy.target.port}/api").url == URL
    assert len(proxy.seen) == tunnels


def test_a_client_with_a_proxy_tunnels_https(proxy, caller, trust):
    """The proxy of a user's client is used where the environment names none."""
    assert caller.result(f"https://{NAME}/api", own={"proxy": proxy.url(), "verify": trust}).url == URL
    assert proxy.seen == [f"CONNECT {NAME}:443"]


def test_a_client_with_a_proxy_forwards_plain_http(serving, forwarding, caller):
    """What a user's client says of proxies holds for loopback too, and no request loses its body on the way."""
    server = serving()
    proxy = forwarding(server)
    assert caller.result(server.base_url, WRITES["POST"], own={"proxy": proxy.url()}).url == f"{URL}/new"
    assert proxy.seen[-1] == f"POST http://127.0.0.1:{server.port}{CALLBACKS}"
    assert server.world.calls[-1].headers["authorization"].startswith("Bearer ")
    assert "proxy-authorization" not in server.world.calls[-1].headers


WRONG_PASSWORD = f"{PROXY_PASSWORD}-wrong"


@pytest.fixture(params=["variable", "client"])
def misled(request, proxy, trust, monkeypatch):
    """What makes an httpx2 client, or none, where its proxy or that of the environment has a wrong password."""
    if request.param == "client":
        return {"proxy": proxy.url(WRONG_PASSWORD), "verify": trust}
    monkeypatch.setenv("HTTPS_PROXY", proxy.url(WRONG_PASSWORD))
    return None


@pytest.mark.usefixtures("trusted_by_variable")
def test_a_proxy_that_refuses_is_named_and_its_password_is_not(misled, proxy, caller, caplog):
    """Neither the error nor any log shows the proxy's password, in clear or as it is sent; nothing left for the API."""
    caplog.set_level(logging.DEBUG)
    error = caller.outcome(f"https://{NAME}/api", own=misled, max_retries=1)
    assert type(error) is RequestNotSentError
    assert "407" in error.message
    assert proxy.target.world.requests == []
    sent = base64.b64encode(f"{PROXY_USER}:{WRONG_PASSWORD}".encode()).decode()
    assert [secret for secret in (PROXY_PASSWORD, sent) if secret in shown(error) + caplog.text] == []


@pytest.mark.usefixtures("trusted_by_variable")
def test_a_proxys_password_is_in_no_log_of_a_call_that_succeeds(proxy, caller, monkeypatch, caplog):
    """At DEBUG the libraries below us tell how they connect, and neither the proxy's password nor a secret of ours."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url())
    assert caller.result(f"https://{NAME}/api").url == URL
    assert "start_tls" in caplog.text
    assert [
        secret for secret in (PROXY_PASSWORD, PROXY_BASIC, *proxy.target.world.secrets) if secret in caplog.text
    ] == []


@pytest.mark.parametrize(
    "variable",
    [
        f"http://{PROXY_USER}:{PROXY_PASSWORD}/unescaped@proxy.example:3128",
        f"http://{PROXY_USER}:{PROXY_PASSWORD}@[::1",
        f"ftp://{PROXY_USER}:{PROXY_PASSWORD}@proxy.example",
        f"socks5://{PROXY_USER}:{PROXY_PASSWORD}@proxy.example",
    ],
)
def test_a_proxy_variable_that_cannot_be_used_is_named_without_its_password(variable, caller, monkeypatch, caplog):
    """A slip in HTTPS_PROXY is a setting to correct, and the error shows no part of the password."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HTTPS_PROXY", variable)
    error = caller.outcome(f"https://{NAME}/api")
    assert type(error) is SettingsError
    assert "HTTPS_PROXY" in str(error)
    assert PROXY_PASSWORD not in shown(error) + caplog.text


# --- HTTP/2 --------------------------------------------------------------------------------------------------------


class SecondServer:
    """Serve a world by HTTP/2 over TLS, in a thread with an event loop of its own."""

    def __init__(self, certificate, directory):
        self.world = World()
        certificate.private_key_and_cert_chain_pem.write_to_path(directory / "server.pem")
        listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.base_url = f"https://127.0.0.1:{listening.getsockname()[1]}/api"
        self._config = hypercorn.Config.from_mapping(
            bind=[f"fd://{listening.detach()}"],
            certfile=str(directory / "server.pem"),
            keyfile=str(directory / "server.pem"),
            alpn_protocols=["h2"],
            errorlog=None,
        )
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="second server")

    def __enter__(self):
        self._thread.start()
        assert self._is_up.wait(SECONDS)
        return self

    def __exit__(self, *failure):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        assert self.world.complaints == []

    async def _serve(self):
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        await serve(self._app, self._config, shutdown_trigger=self._end.wait)

    async def _app(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            self._is_up.set()  # it listened before: who connects from here on is served
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await answer_by_asgi(self.world, scope, receive, send)


async def answer_by_asgi(world, scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in scope["headers"]}
    status, document = world.answer(scope["method"], scope["path"], headers, body, version=scope["http_version"])
    raw = json.dumps(document).encode()
    length = [(b"content-length", b"%d" % len(raw))]
    await send({"type": "http.response.start", "status": status, "headers": length})
    await send({"type": "http.response.body", "body": raw})


@pytest.fixture
def second(certificate, tmp_path):
    with SecondServer(certificate, tmp_path) as server:
        yield server


def test_a_client_may_speak_http_2(second, caller, trust):
    """Reading, writing and both tokens go by HTTP/2 where a user's client asks for it."""
    steps = show, *WRITES.values()
    found, created, updated, removed = caller.outcomes(second.base_url, *steps, own={"http2": True, "verify": trust})
    assert (found.url, created.url, updated.url, removed.success) == (URL, f"{URL}/new", f"{URL}/new", True)
    assert {request.version for request in second.world.requests} == {"2"}
    assert len(second.world.requests) == 6


def test_many_accounts_share_one_http_2_connection(second, caller, trust):
    """Calls at the same time are streams of one connection, and each gets its own answer.

    In threads one at a time: httpcore2's sync HTTP/2 garbles headers now and then when threads share a connection.
    """
    accounts = [f"0000123456-{number:05}" for number in range(1, 51)]
    own = {"http2": True, "verify": trust, "limits": httpx2.Limits(max_connections=1)}

    def read(client):
        at_once = 1 if isinstance(client, ThingSpaceClient) else 8
        return client.callbacks.list_many(accounts, max_concurrency=at_once)

    results = caller.result(second.base_url, read, own=own)
    assert [one.account for one in results if one.error is None] == accounts
    asked = Counter(request.path.rpartition("/")[2] for request in second.world.calls)
    assert asked == Counter(accounts)
    assert {request.version for request in second.world.calls} == {"2"}


def test_no_log_of_http_2_shows_a_secret(second, caller, trust, caplog):
    """HPACK logs headers as they are and as they are packed; at DEBUG neither holds a token or the client secret."""
    caplog.set_level(logging.DEBUG)
    assert caller.result(second.base_url, own={"http2": True, "verify": trust}).url == URL
    ours = [record for record in caplog.records if record.threadName != "second server"]
    assert {"hpack.hpack", "httpcore2.http2", "httpx2"} <= {record.name for record in ours}
    text = caplog.text + "\n".join(unpacked(ours))
    assert [secret for secret in second.world.secrets if secret in text] == []


def unpacked(records):
    """Read the headers that an HTTP/2 client sent from its log, as anybody could."""
    decoder = hpack.Decoder()
    for record in records:
        what, _, block = record.getMessage().partition(" header block to ")
        if record.name == "hpack.hpack" and what == "Encoded" and block.startswith("b"):
            yield from (f"{name}: {value}" for name, value in decoder.decode(ast.literal_eval(block)))


# --- Transports, and clients with a mind of their own --------------------------------------------------------------


class Counting(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """A user's own transport: it counts, fails where it is told to, and hands on to a world."""

    def __init__(self, world, *failures):
        self.world = world
        self.failures = deque(failures)
        self.count = 0
        self.is_closed = False

    def handle_request(self, request):
        self.count += 1
        if self.failures:
            raise self.failures.popleft()
        headers = {name.lower(): value for name, value in request.headers.items()}
        status, document = self.world.answer(request.method, request.url.path, headers, request.read())
        return httpx2.Response(status, json=document)

    async def handle_async_request(self, request):
        await request.aread()
        return self.handle_request(request)

    def close(self):
        self.is_closed = True

    async def aclose(self):
        self.close()


@pytest.fixture
def world():
    world = World()
    yield world
    assert world.complaints == []


LOCAL = "http://127.0.0.1:9/api"
"""Where nothing listens."""


def test_a_mock_transport_stands_in_for_the_network(world, caller):
    """httpx2's own mock answers both clients."""
    mock = httpx2.MockTransport(Counting(world).handle_request)
    assert caller.result(LOCAL, WRITES["POST"], transport=mock).url == f"{URL}/new"
    assert [request.method for request in world.calls] == ["POST"]


async def test_an_asgi_transport_stands_in_for_the_network(world, tmp_path):
    """An application in the same process answers without a socket."""

    async def app(scope, receive, send):
        await answer_by_asgi(world, scope, receive, send)

    settings = {"base_url": LOCAL, "credentials": CREDENTIALS, "state_dir": tmp_path}
    async with AsyncThingSpaceClient(transport=httpx2.ASGITransport(app), **settings) as client:
        assert (await client.callbacks.list_registered_callbacks(ACCOUNT)).url == URL


def test_a_transport_of_ones_own_is_used_and_closed(world, caller):
    """Whatever keeps httpx2's two interfaces will do; it is the client's to close."""
    own = Counting(world)
    assert caller.result(LOCAL, transport=own).url == URL
    assert own.count == 3
    assert own.is_closed


def test_a_transport_of_httpx2_brings_its_own_options(secure, caller, trust):
    """The transport that httpx2 itself uses may be given with what a user wants of it, here whom it trusts."""
    kind = httpx2.HTTPTransport if caller.flavour == "sync" else httpx2.AsyncHTTPTransport
    assert caller.result(secure.base_url, transport=kind(verify=trust)).url == URL


@pytest.mark.parametrize(
    "failure",
    [
        OSError("the transport's own failure"),
        RuntimeError("the transport's own failure"),
        httpx2.StreamClosed(),
        ssl.SSLError(1, "the transport's own failure"),
    ],
    ids=lambda failure: type(failure).__name__,
)
@pytest.mark.parametrize("sent_before", [0, 2], ids=["for a token", "for a call"])
def test_what_a_transport_raises_on_its_own_account_reaches_the_caller(failure, sent_before, world, caller):
    """A failure that httpx2 has no name for ends the call, whichever request it befell; none is sent in its place."""
    transport = Counting(world)

    def fail(client):
        transport.failures.extend([failure] * ENOUGH)
        return show(client)

    steps = [log_in, fail] if sent_before else [fail]
    with pytest.raises((type(failure), ThingSpaceError)):
        caller.result(LOCAL, *steps, transport=transport, max_retries=0)
    assert transport.count == sent_before + 1


def redirected(raw):
    return 302, [f"Location: {CALLBACKS}/elsewhere", "Set-Cookie: session=of-the-server"], raw


def test_a_clients_own_habits_do_not_touch_our_requests(serving, caller):
    """A user's client may have auth, headers and a base URL: each request carries our tokens and goes where we say."""
    server = serving()
    own = {
        "auth": ("somebody", "else"),
        "base_url": "http://127.0.0.1:9/elsewhere",
        "headers": {"Authorization": "Basic of-the-user", "VZ-M2M-Token": "of-the-user", "X-Trace": "of-the-user"},
        "cookies": {"affinity": "of-the-user"},
        "timeout": 0.000_001,
        "follow_redirects": True,
    }
    assert caller.result(server.base_url, WRITES["PUT"], own=own).url == f"{URL}/new"
    for request in server.world.requests:
        assert request.headers["authorization"].startswith(("Basic " + BASIC, "Bearer "))
        assert request.headers["x-trace"] == "of-the-user"
        assert request.headers["cookie"] == "affinity=of-the-user"
    assert server.world.calls[0].headers["vz-m2m-token"] == server.world.issued[1]


def test_no_redirect_is_followed_whatever_the_client_would_do(serving, caller):
    """Tokens go to no address that an answer names: a redirect is an error, also where a user's client follows them."""
    server = serving()
    server.steps.append(redirected)
    error = caller.outcome(server.base_url, own={"follow_redirects": True})
    assert type(error) is AnsweredError
    assert error.status_code == 302
    assert [request.path for request in server.world.calls] == [CALLBACKS]


def test_a_client_of_the_users_stays_open(serving, tmp_path):
    """Who made a client closes it: it serves on after ours is closed, and other clients of ours at the same time."""
    server = serving()
    settings = {"base_url": server.base_url, "credentials": CREDENTIALS, "state_dir": tmp_path}
    with httpx2.Client() as http:
        with ThingSpaceClient(http_client=http, **settings) as one:
            with ThingSpaceClient(http_client=http, **settings) as other:
                assert show(one).url == show(other).url == URL
            assert show(one).url == URL
        assert not http.is_closed
        with ThingSpaceClient(http_client=http, **settings) as third:
            assert show(third).url == URL
    assert {request.connection for request in server.world.requests} == {1}


async def test_an_async_client_of_the_users_stays_open(serving, tmp_path):
    """The same in asyncio."""
    server = serving()
    settings = {"base_url": server.base_url, "credentials": CREDENTIALS, "state_dir": tmp_path}
    async with httpx2.AsyncClient() as http:
        for _ in range(2):
            async with AsyncThingSpaceClient(http_client=http, **settings) as client:
                assert (await show(client)).url == URL
            assert not http.is_closed
    assert {request.connection for request in server.world.requests} == {1}


# --- A connection that the server closes as we send ----------------------------------------------------------------


def raced(server):
    """Tell whether the first of the calls went out on a connection that had served before."""
    first = server.world.calls[0]
    return first.connection in {request.connection for request in server.world.requests if "/fota/" not in request.path}


def test_reading_survives_a_connection_that_closes_as_we_send(serving, caller, own):
    """A kept connection may end at any moment; who reads does not learn of it."""
    server = serving()
    server.steps += ["hang up", "hang up"]
    found = caller.result(server.base_url, log_in, show, own=own)
    assert found.url == URL
    assert raced(server)
    assert len(server.world.calls) == 3


@pytest.mark.parametrize("step", ["hang up", "carry out"])
@pytest.mark.parametrize("method", WRITES)
def test_writing_reads_back_where_the_connection_closed_as_we_sent(method, step, serving, caller, own):
    """A write whose connection ended is made again only where reading shows that it was not carried out."""
    server = serving()
    server.steps.append(step)
    result = caller.result(server.base_url, log_in, WRITES[method], own=own)
    assert result.read_back
    assert server.world.registered == (None if method == "DELETE" else f"{URL}/new")
    assert raced(server)
    again = [method] if step == "hang up" else []
    assert [request.method for request in server.world.calls] == [method, "GET", *again]


@pytest.mark.parametrize("step", ["hang up", "carry out"])
def test_scheduling_is_never_repeated(step, serving, caller, own):
    """A campaign that may have been scheduled is not scheduled again: the caller is told that nobody knows."""
    server = serving()
    server.steps.append(step)
    error = caller.outcome(server.base_url, log_in, schedule, own=own)
    assert type(error) is NoAnswerError
    assert error.attempts == 1
    assert raced(server)
    assert len(server.world.calls) == 1


# --- Compressed answers --------------------------------------------------------------------------------------------


def compressed(encoding, compress):
    """Make an answer's head and body."""
    return lambda raw: (200, [f"Content-Encoding: {encoding}"], compress(raw))


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("GZip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)],
)
def test_compressed_answers_are_read(encoding, compress, serving, caller, own):
    """Both gzip and deflate are decoded, whoever makes the connection."""
    server = serving()
    server.steps.append(compressed(encoding, compress))
    assert caller.result(server.base_url, own=own).url == URL


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("br", lambda raw: b"\x1b\x10\x00 no brotli"), ("compress", lambda raw: b"\x1f\x9d\x90"), ("gzip", bytes)],
)
def test_an_encoding_that_nobody_asked_for_is_told_as_unreadable(encoding, compress, serving, caller, own):
    """What cannot be decompressed is an error of ours with its status, and is not taken for an empty answer."""
    server = serving()
    server.steps.append(compressed(encoding, compress))
    error = caller.outcome(server.base_url, own=own)
    assert type(error) is UndecodableAnswerError
    assert error.status_code == 200


BOMB_BYTES = 8 * MAX_BODY_BYTES


@pytest.fixture(scope="module", params=["gzip", "deflate"])
def bomb(request):
    raw = json.dumps({"url": URL}).encode().ljust(BOMB_BYTES)
    made = gzip.compress(raw) if request.param == "gzip" else zlib.compress(raw)
    return compressed(request.param, lambda _: made)


def test_a_bomb_is_cut_at_the_cap(bomb, serving, caller, own):
    """An answer that inflates without end costs some times the cap in memory, and is an error."""
    server = serving()
    server.steps.append(bomb)
    tracemalloc.start()
    try:
        error = caller.outcome(server.base_url, own=own)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(error) is UndecodableAnswerError
    assert "larger" in str(error)
    assert peak < BOMB_BYTES / 2


# --- Many at once --------------------------------------------------------------------------------------------------

CALLERS = 100
PATIENCE_SECONDS = 60
"""How long a hundred threads may take to be there at once, on a machine that has other work."""


class Gate:
    """Hold answers back until so many are asked for at once."""

    def __init__(self, count):
        self._left = count
        self._lock = threading.Lock()
        self._is_open = threading.Event()

    def __call__(self):
        with self._lock:
            self._left -= 1
        if self._left <= 0:
            self._is_open.set()
        assert self._is_open.wait(PATIENCE_SECONDS)


def crowd_settings(server, tmp_path):
    server.idle_seconds = 2 * PATIENCE_SECONDS
    return {
        "base_url": server.base_url,
        "credentials": CREDENTIALS,
        "state_dir": tmp_path,
        "timeout_seconds": PATIENCE_SECONDS,
        "max_elapsed_seconds": 2 * PATIENCE_SECONDS,
    }


@pytest.mark.parametrize("callers", [CALLERS, CALLERS + 50])
def test_many_threads_share_at_most_a_hundred_connections(callers, serving, tmp_path):
    """A hundred threads call at once, more wait their turn, each connection is used again, and none is left over."""
    server = serving()
    settings = crowd_settings(server, tmp_path)
    urls = []

    def call():
        urls.extend(show(client).url for _ in range(3))

    with ThingSpaceClient(**settings) as client:
        client.login()
        server.before_answer = Gate(CALLERS)
        threads = [threading.Thread(target=call) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.open <= CALLERS
    assert urls == [URL] * callers * 3
    assert server.most == CALLERS
    made = next(server.numbers) - 1
    assert CALLERS <= made < callers * 3  # a thread that was kept from running finds its connection too old
    assert server.is_left()


async def test_many_tasks_share_at_most_a_hundred_connections(serving, tmp_path):
    """The same in asyncio."""
    server = serving()
    settings = crowd_settings(server, tmp_path)
    async with AsyncThingSpaceClient(**settings) as client:
        await client.login()
        server.before_answer = Gate(CALLERS)
        found = await asyncio.gather(*(show(client) for _ in range(CALLERS + 50)))
        assert server.open <= CALLERS
    assert {one.url for one in found} == {URL}
    assert server.most == CALLERS
    assert await asyncio.to_thread(server.is_left)
