"""A ThingSpace that fits in a mock transport, and worlds with a clock of their own, for one flow or for many."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
from collections import Counter, deque
from types import SimpleNamespace

import httpx2
import pytest

from upcall.client import AsyncThingSpaceClient, ThingSpaceClient
from upcall.client.answers import Answer
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
WALL_BEGAN = 1_700_000_000.0
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


def make_exchange(clock, *, latch=None, credentials=CREDENTIALS, limits=None, token_store=None):
    return Exchange(
        base_url=BASE_URL,
        credentials=credentials,
        limits=limits or Limits(),
        latch=latch or NoLatch(),
        clock=clock,
        user_agent="upcall/test",
        token_store=token_store,
    )


class World:
    """Drive flows without threads, sockets or time: a clock that only waits move, and answers from a function.

    `effects` holds what the flows asked for, each with the time at which they did.
    """

    def __init__(
        self,
        answer,
        *,
        policy=None,
        latch=None,
        credentials=CREDENTIALS,
        chance=lambda: 0.5,
        timeout_seconds=30.0,
    ):
        self.now = 1000.0
        self.answer = answer
        self.waits = []
        self.effects = []
        self.exchange = make_exchange(
            Clock(monotonic=lambda: self.now, wall=lambda: WALL_BEGAN + self.now, chance=chance),
            latch=latch,
            credentials=credentials,
            limits=Limits(timeout_seconds=timeout_seconds, policy=policy or RetryPolicy()),
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
        self.effects.append((self.now, effect))
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


class Job:
    """One flow that an `Interleaving` steps, on behalf of somebody, and what it came to."""

    def __init__(self, flow, who, ended):
        self.flow, self.who, self.ended = flow, who, ended
        self.effect = self.value = self.result = self.error = None
        self.state = "ready"
        self.wakes_at = float("inf")

    def is_ready(self, now):
        is_landed = self.state == "joining" and self.effect.flight.done()
        return self.state in {"ready", "sending"} or is_landed or now >= self.wakes_at


class Interleaving:
    """Step many flows in an order that a schedule chooses: what threads, tasks and processes come down to.

    A request's arrival at the provider is a step of its own, so that tokens can die between any two. Only waits move
    the clock, and only when there is nothing else to do.

    Args:
        answer: Answers a request of somebody; with None it stays in the air until `reply`.
        schedule: Numbers that choose who goes next, again and again.
    """

    def __init__(self, answer, schedule=(0,)):
        self.answer = answer
        self.now = 1000.0
        self.clock = Clock(monotonic=lambda: self.now, wall=lambda: WALL_BEGAN + self.now, chance=lambda: 0.5)
        self.jobs = []
        self._schedule = itertools.cycle(schedule)

    def spawn(self, flow, who=None, ended=lambda: None):
        self.jobs.append(Job(flow, who, ended))
        return self.jobs[-1]

    def turn(self):
        """Take one step; tell whether there was one to take."""
        ready = [job for job in self.jobs if job.is_ready(self.now)]
        if ready:
            self._step(ready[next(self._schedule) % len(ready)])
        return bool(ready)

    def settle(self):
        """Go on as far as it goes without waiting."""
        while self.turn():
            pass

    def pass_time(self):
        """Move the clock to the end of the next wait; tell whether somebody waits."""
        wakes_at = min((job.wakes_at for job in self.jobs), default=float("inf"))
        if wakes_at < float("inf"):
            self.now = max(self.now, wakes_at)
        return wakes_at < float("inf")

    def run(self):
        """Go on until all have ended."""
        while self.jobs:
            assert self.turn() or self.pass_time(), "what they wait for never comes"

    def reply(self, job, outcome):
        """Give a request that is in the air its outcome."""
        job.value, job.state = outcome, "ready"

    def stop(self, job):
        """End a flow from outside, as the cancelling of a task does, which learns first what a function returned."""
        if job.state == "ready" and isinstance(job.effect, Do):
            with contextlib.suppress(StopIteration):
                job.flow.send(job.value)
        job.flow.close()
        self._end(job)

    def _step(self, job):
        if job.state == "sending":
            outcome = self.answer(job.effect.request, job.who)
            job.state = "in the air"
            if outcome is not None:
                self.reply(job, outcome)
            return
        if job.state == "joining":
            job.value = job.effect.flight.result(0) if job.effect.flight.done() else TimeoutError()
        try:
            job.effect = job.flow.send(job.value)
        except StopIteration as end:
            job.result = end.value
            self._end(job)
        except Exception as error:  # noqa: BLE001 - the test judges it
            job.error = error
            self._end(job)
        else:
            self._begin(job)

    def _begin(self, job):
        job.state, job.value, job.wakes_at = "ready", None, float("inf")
        match job.effect:
            case Send():
                job.state = "sending"
            case Wait(seconds):
                job.state, job.wakes_at = "waiting", self.now + seconds
            case Launch(flow, ended):
                self.spawn(flow, job.who, ended)
                self._step(job)  # no driver can be stopped in between
            case Join(_, timeout_seconds):
                job.state, job.wakes_at = "joining", self.now + timeout_seconds
            case Do(function):
                job.value = function()

    def _end(self, job):
        self.jobs.remove(job)
        job.state = "ended"
        job.ended()


class Life:
    """A token as the provider knows it."""

    def __init__(self, kind, owner, now):
        self.kind, self.owner, self.issued_at, self.used_at = kind, owner, now, now
        self.is_killed = False

    def is_over(self, now):
        is_old = now >= self.issued_at + 3600 if self.kind == "bearer" else now > self.used_at + 1200
        return self.is_killed or is_old


class Gateway:
    """Issue tokens and judge them as the provider does, on the exchange's own requests, and answer calls 200.

    Args:
        now: Tells the time: bearer tokens live an hour, sessions 20 minutes without use.
        is_same_within_the_hour: Whether asking for a bearer token again brings the one that lives, as documented.
    """

    def __init__(self, now=lambda: 0.0, *, is_same_within_the_hour=True):
        self.now = now
        self.is_same_within_the_hour = is_same_within_the_hour
        self.lives = {}
        self.issued = Counter()
        self.deaths = Counter()

    def __call__(self, request, who=None):
        if request.path == "/ts/v1/oauth2/token":
            return self._issue("bearer", request.headers["Authorization"])
        bearer = self.lives.get(request.headers["Authorization"].removeprefix("Bearer "))
        if bearer is None or bearer.kind != "bearer" or bearer.is_over(self.now()):
            return answer_of(DEAD_BEARER)
        if request.path == "/m2m/v1/session/login":
            return self._issue("session", request.body)
        session = self.lives.get(request.headers["VZ-M2M-Token"])
        if session is None or session.kind != "session" or session.is_over(self.now()):
            return answer_of(DEAD_SESSION)
        session.used_at = self.now()
        return answer_of((200, {"url": "https://host/x"}))

    def kill(self, kind, owner=None):
        """End the tokens of a kind that live, all or somebody's, and count that as one death."""
        doomed = [life for life in self._living(kind) if owner in {None, life.owner}]
        for life in doomed:
            life.is_killed = True
        self.deaths[kind] += bool(doomed)

    def _living(self, kind):
        return [life for life in self.lives.values() if life.kind == kind and not life.is_over(self.now())]

    def _issue(self, kind, owner):
        self.issued[kind] += 1
        own = {value: life for value, life in self.lives.items() if life in self._living(kind) and life.owner == owner}
        if kind == "bearer" and own and self.is_same_within_the_hour:
            value, life = own.popitem()
        else:
            value, life = f"{kind}-{self.issued[kind]}", Life(kind, owner, self.now())
            self.lives[value] = life
        if kind == "session":
            return answer_of((200, {"sessionToken": value}))
        return answer_of((200, {"access_token": value, "expires_in": 3600 - (self.now() - life.issued_at)}))


def answer_of(step):
    status, document = step
    return Answer(status=status, body=json.dumps(document).encode())


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
    return SimpleNamespace(
        World=World,
        Provider=Provider,
        NoLatch=NoLatch,
        Interleaving=Interleaving,
        Gateway=Gateway,
        make_exchange=make_exchange,
        answer_of=answer_of,
        CREDENTIALS=CREDENTIALS,
        BASE_URL=BASE_URL,
        DEAD_BEARER=DEAD_BEARER,
        DEAD_SESSION=DEAD_SESSION,
    )
