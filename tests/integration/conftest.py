"""A server of raw sockets that plays ThingSpace's tokens properly and answers everything else as a test says."""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import socket
import socketserver
import struct
import threading

import msgspec
import pytest

from upcall import AsyncThingSpaceClient, ThingSpaceClient
from upcall.errors import ThingSpaceError
from upcall.settings import Credentials

ACCOUNT = "0000123456-00001"
URL = "https://listener.example.com:50559/callbacks/one"
CREDENTIALS = Credentials(
    client_id="canary.client.id",
    client_secret="k3y-canary-of-the-client",
    username="canary.user",
    password="pw&canary-" * 3,
)
BASIC = base64.b64encode(f"{CREDENTIALS.client_id}:{CREDENTIALS.client_secret}".encode()).decode()
SESSION_LOGIN = {"username": CREDENTIALS.username, "password": CREDENTIALS.password}


class OddServer(socketserver.ThreadingTCPServer):
    """Answer on 127.0.0.1, a thread a connection, byte for byte what the script says.

    An answer is a sequence of steps: bytes to send; ``close`` or ``reset`` to end the connection so; ``hold`` to say
    nothing more until the client goes away; a function of this server that returns bytes or makes them one by one.
    The connection stays open for the next request unless a step ends it. The last answer of a script repeats.
    """

    allow_reuse_address = True
    daemon_threads = True
    credentials = CREDENTIALS

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Connection)
        self.base_url = f"http://127.0.0.1:{self.server_address[1]}/api"
        self._count = itertools.count(1)
        self._lock = threading.Lock()
        self.play(())

    def play(self, *script):
        """Begin anew with one answer or more: nothing asked, no token issued."""
        self._script = list(script)
        self.calls, self.issued, self.complaints = [], [], []
        return self

    def secrets(self):
        """Return all that no output may show: what the client was given, and every token that it was issued."""
        given = {"client secret": self.credentials.client_secret, "password": self.credentials.password, "Basic": BASIC}
        return given | {f"token {number}": token for number, token in enumerate(self.issued, 1)}

    def answer(self, method, path, headers, body):
        with self._lock:
            if path == "/api/ts/v1/oauth2/token":
                return self._issue("access_token", headers.get("authorization") == f"Basic {BASIC}")
            bearers = {f"Bearer {token}" for token in self.issued}
            if path == "/api/m2m/v1/session/login":
                return self._issue(
                    "sessionToken", headers.get("authorization") in bearers and json.loads(body) == SESSION_LOGIN
                )
            if path == f"/api/fota/v2/callbacks/{ACCOUNT}":
                self.calls.append(method)
                if headers.get("authorization") not in bearers or headers.get("vz-m2m-token") not in self.issued:
                    self.complaints.append(f"{method} {path} came without its tokens")
                return self._script.pop(0) if len(self._script) > 1 else self._script[0]
            self.complaints.append(f"{method} {path} is nothing that the client was to ask for")
        return (b"HTTP/1.1 404 Odd\r\nContent-Length: 0\r\n\r\n",)

    def handle_error(self, request, client_address):
        self.complaints.append("the server itself failed")

    def _issue(self, member, is_admitted):
        if not is_admitted:
            self.complaints.append(f"no {member} for such a request")
        token = f"{next(self._count):04}-{member}-canary-{os.urandom(8).hex()}"
        self.issued.append(token)
        document = json.dumps({member: token, "expires_in": 3600}).encode()
        return (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(document), document),)


class _Connection(socketserver.StreamRequestHandler):
    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle(self):
        with contextlib.suppress(OSError):
            while line := self.rfile.readline():
                method, path, _ = line.decode("ascii").split(" ")
                headers = {}
                while (field := self.rfile.readline().decode("latin-1").strip()) != "":
                    name, _, value = field.partition(":")
                    headers[name.lower()] = value.strip()
                body = self.rfile.read(int(headers.get("content-length", 0)))
                for step in self.server.answer(method, path, headers, body):
                    if not self._perform(step):
                        return

    def _perform(self, step):
        if callable(step):
            step = step(self.server)
        match step:
            case "close":
                return False
            case "hold":
                return bool(self.rfile.read(1))
            case "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                os.close(self.connection.detach())
                return False
        for chunk in [step] if isinstance(step, bytes) else step:
            self.connection.sendall(chunk)
        return True


@pytest.fixture(scope="module")
def odd_server():
    """One server for a module; its threads end with their connections."""
    with OddServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Caller:
    """Call the server with a client of its own each time, of either flavour, that does not retry unless told to."""

    def __init__(self, flavour, server, directory):
        self.server = server
        self._flavour = flavour
        self._settings = {
            "base_url": server.base_url,
            "credentials": server.credentials,
            "state_dir": directory,
            "max_retries": 0,
        }

    def outcomes(self, *operations, **options):
        """Make calls one after the other; return what each came to, errors with their tracebacks."""
        if self._flavour == "async":
            return asyncio.run(self._async_outcomes(operations, self._settings | options))
        found = []
        with ThingSpaceClient(**self._settings | options) as client:
            _without_jitter(client)
            for operation in operations:
                try:
                    found.append(_begin(client.callbacks, operation))
                except ThingSpaceError as raised:
                    found.append(raised)
        return found

    def result(self, operation, **options):
        """Make one call that is to succeed."""
        (outcome,) = self.outcomes(operation, **options)
        if isinstance(outcome, ThingSpaceError):
            raise outcome
        return outcome

    async def _async_outcomes(self, operations, options):
        found = []
        async with AsyncThingSpaceClient(**options) as client:
            _without_jitter(client)
            for operation in operations:
                try:
                    found.append(await _begin(client.callbacks, operation))
                except ThingSpaceError as raised:
                    found.append(raised)
        return found


def _without_jitter(client):
    """Let retries wait as long as the provider asks, and no longer."""
    exchange = client._exchange
    exchange.clock = msgspec.structs.replace(exchange.clock, chance=lambda: 0.0)


def _begin(callbacks, operation):
    match operation:
        case "list":
            return callbacks.list_registered_callbacks(ACCOUNT)
        case "register":
            return callbacks.register_callback(ACCOUNT, {"url": URL})
        case "update":
            return callbacks.update_callback(ACCOUNT, {"url": URL})
    return callbacks.deregister_callback(ACCOUNT)


@pytest.fixture(params=["sync", "async"])
def odd_caller(request, odd_server, tmp_path):
    """Both clients in turn; afterwards, that the server got no request which ThingSpace would not have expected."""
    yield Caller(request.param, odd_server, tmp_path)
    assert odd_server.complaints == []
