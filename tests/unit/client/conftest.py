"""A ThingSpace that fits in a mock transport, and a world with a clock of its own."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from types import SimpleNamespace

import httpx2
import pytest

from upcall.client import AsyncThingSpaceClient, ThingSpaceClient
from upcall.client.effects import Clock, Do, Join, Launch, Send, Wait
from upcall.client.exchange import Exchange
from upcall.client.latch import LoginLatch
from upcall.client.retry import RetryPolicy
from upcall.client.trip import Limits
from upcall.settings import Credentials

BASE_URL = "http://localhost/api"
CREDENTIALS = Credentials(client_id="id-1", client_secret="canary-secret", username="user", password="canary-password")
DEAD_BEARER = (401, {"fault": {"code": "900901", "message": "Invalid Credentials"}})
DEAD_SESSION = (401, {"errorCode": "UnifiedWebService.REQUEST_FAILED.SessionToken.Expired", "errorMessage": "expired"})
REFUSED_LOGIN = (401, {"errorCode": "UnifiedWebService.INPUT_INVALID.Password.Invalid", "errorMessage": "no"})


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(("THINGSPACE_", "UPCALL_", "VZ_M2M")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("UPCALL_STATE_DIR", str(tmp_path / "state"))


class Provider:
    """Issue tokens, honour those that are alive, and answer calls with what a test scripts.

    `script` holds the answers of the API calls to come, each a status, a (status, body) or (status, body, headers), an
    exception, or a function of the request; an empty script answers 200 with a registered URL.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.requests = []
        self.token_requests = 0
        self.logins = 0
        self.live = {}
        self.expires_in = 3600
        self.script = deque()
        self.token_script = deque()
        self.login_script = deque()
        self.password = "canary-password"

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        with self.lock:
            self.requests.append(request)
            if request.url.path.endswith("/oauth2/token"):
                return self._token()
            if request.url.path.endswith("/session/login"):
                return self._login(request)
            return self._api(request)

    def kill_bearer(self):
        self.live.pop("bearer", None)

    def kill_session(self):
        self.live.pop("session", None)

    @property
    def calls(self):
        return [request for request in self.requests if "/fota/" in request.url.path]

    def _token(self):
        self.token_requests += 1
        if self.token_script:
            return _response(self.token_script.popleft())
        # Within the hour the same token is issued again, as the provider documents.
        token = self.live.setdefault("bearer", f"canary-bearer-{self.token_requests}")
        return _response((200, {"access_token": token, "expires_in": self.expires_in, "token_type": "Bearer"}))

    def _login(self, request):
        if request.headers.get("authorization") != f"Bearer {self.live.get('bearer')}":
            return _response(DEAD_BEARER)
        self.logins += 1
        if self.login_script:
            return _response(self.login_script.popleft())
        if json.loads(request.content)["password"] != self.password:
            return _response(REFUSED_LOGIN)
        self.live["session"] = f"canary-session-{self.logins}"
        return _response((200, {"sessionToken": self.live["session"]}))

    def _api(self, request):
        if request.headers.get("authorization") != f"Bearer {self.live.get('bearer')}":
            return _response(DEAD_BEARER)
        if request.headers.get("vz-m2m-token") != self.live.get("session"):
            return _response(DEAD_SESSION)
        step = self.script.popleft() if self.script else (200, {"url": "https://host/x"})
        return _response(step(request) if callable(step) and not isinstance(step, type) else step)


def _response(step):
    if isinstance(step, httpx2.Response):
        return step
    if isinstance(step, Exception):
        raise step
    status, body, headers = (*((step,) if isinstance(step, int) else step), None, None)[:3]
    if body is None or isinstance(body, bytes):
        return httpx2.Response(status, content=body or b"", headers=headers)
    return httpx2.Response(status, json=body, headers=headers)


@pytest.fixture
def provider():
    return Provider()


@pytest.fixture
def make_client(provider):
    """Make sync clients of the provider whose waits pass at once."""
    made = []

    def make(**options):
        options = {"credentials": CREDENTIALS, "base_url": BASE_URL} | options
        if "http_client" not in options:
            options.setdefault("transport", httpx2.MockTransport(provider))
        client = ThingSpaceClient(**options)
        client.waits = []
        client._driver.sleep = client.waits.append
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(make_client):
    return make_client()


@pytest.fixture
def make_async_client(provider):
    def make(**options):
        options = {"credentials": CREDENTIALS, "base_url": BASE_URL} | options
        options.setdefault("transport", httpx2.MockTransport(provider))
        client = AsyncThingSpaceClient(**options)
        client.waits = []

        async def sleep(seconds):
            client.waits.append(seconds)

        client._driver.sleep = sleep
        return client

    return make


class World:
    """Drive flows without threads, sockets or time: a clock that only waits move, and answers from a function."""

    def __init__(self, answer, *, policy=None, latch=None, credentials=CREDENTIALS, chance=lambda: 0.5):
        self.now = 1000.0
        self.answer = answer
        self.waits = []
        self.exchange = Exchange(
            base_url=BASE_URL,
            credentials=credentials,
            limits=Limits(policy=policy or RetryPolicy()),
            latch=latch or NoLatch(),
            clock=Clock(monotonic=lambda: self.now, wall=lambda: 1_700_000_000.0 + self.now, chance=chance),
            user_agent="upcall/test",
        )

    def run(self, flow):
        value = None
        while True:
            try:
                effect = flow.send(value)
            except StopIteration as end:
                return end.value
            value = self.perform(effect)

    def perform(self, effect):
        match effect:
            case Send():
                return self.answer(effect.request)
            case Wait():
                self.waits.append(effect.seconds)
                self.now += effect.seconds
            case Launch():
                self.run(effect.flow)
            case Join():
                return effect.flight.result(0)
            case Do():
                return effect.function()
        return None


class NoLatch(LoginLatch):
    """Let every login pass, and count what it is told."""

    def __init__(self):
        self.told = []

    def claim(self, base_url, username, password, *, hold_seconds):
        from upcall.client.latch import Claim

        return Claim("key", "fingerprint", "id")

    def succeeded(self, claim):
        self.told.append("succeeded")

    def refused(self, claim):
        self.told.append("refused")

    def release(self, claim):
        self.told.append("released")

    def unanswered(self, claim):
        self.told.append("unanswered")


@pytest.fixture
def make_world():
    return World


@pytest.fixture
def dead_bearer():
    return DEAD_BEARER


@pytest.fixture
def dead_session():
    return DEAD_SESSION


@pytest.fixture(scope="session")
def client_test_kit():
    """The classes of this file, for property tests, which make one of each for every example."""
    return SimpleNamespace(World=World, Provider=Provider, NoLatch=NoLatch, CREDENTIALS=CREDENTIALS, BASE_URL=BASE_URL)
