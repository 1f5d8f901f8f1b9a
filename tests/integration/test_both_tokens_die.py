"""Tokens that die under a hundred calls in flight: real clients, real connections, and a sandbox that counts."""

import asyncio
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvicorn

from upcall import AsyncThingSpaceClient, ThingSpaceClient
from upcall.sandbox import Sandbox
from upcall.settings import Credentials

CALLS = 100
PATIENCE_SECONDS = 100
"""How long a hundred threads may take to be there at once, on a machine that has other work."""
WAVES = ("0000123456-00001", "0000123456-00002", "0000123456-00003")
URL = "https://listener.example.com:50559/callbacks/one"
CREDENTIALS = Credentials(client_id="sandbox", client_secret="sandbox", username="sandbox", password="sandbox")
TOKEN_PATH, LOGIN_PATH = "/api/ts/v1/oauth2/token", "/api/m2m/v1/session/login"

HOW_THEY_DIE = {
    "the bearer alone": [{"bearer"}],
    "the session alone": [{"session"}],
    "both before anybody was judged": [{"bearer", "session"}],
    "the session for half of them and then the bearer": [{"session"}, {"bearer"}],
    "the bearer for half of them and then the session": [{"bearer"}, {"session"}],
}


class Held:
    """One request of a wave, until it may be answered."""

    def __init__(self, scope, receive):
        self.scope, self.receive = scope, receive
        self.messages = []
        self.may_answer = asyncio.Event()

    async def keep(self, message):
        self.messages.append(message)


class Turnstile:
    """A sandbox whose calls come in waves, one for each account.

    The first hundred calls of an account are held until all are there. Then the tokens that they carry die, and the
    sandbox judges the calls; nobody gets an answer before all have been judged. Whatever follows is let through.
    """

    def __init__(self, deaths):
        self.sandbox = Sandbox(seed=1)
        self.deaths = deaths
        self.waves = {account: [] for account in WAVES}
        self.answers = Counter()
        self.carried = []  # the tokens of each wave
        for account in WAVES:
            self.sandbox.access.register(account, URL)

    async def __call__(self, scope, receive, send):
        async def count(message):
            if message["type"] == "http.response.start":
                self.answers[scope["path"], message["status"]] += 1
            await send(message)

        wave = self.waves.get(scope["path"].rpartition("/")[2])
        if wave is None or len(wave) == CALLS:
            await self.sandbox(scope, receive, count)
            return
        held = Held(scope, receive)
        wave.append(held)
        if len(wave) == CALLS:
            await self.judge(wave)
        await held.may_answer.wait()
        for message in held.messages:
            await count(message)

    async def judge(self, wave):
        share = CALLS // len(self.deaths)
        for number, kinds in enumerate(self.deaths):
            self.kill(kinds, wave)
            for held in wave[number * share : (number + 1) * share]:
                await self.sandbox(held.scope, held.receive, held.keep)
        for held in wave:
            held.may_answer.set()

    def kill(self, kinds, wave):
        bearers = {_header(held, b"authorization").removeprefix("Bearer ") for held in wave}
        sessions = {_header(held, b"vz-m2m-token") for held in wave}
        assert (len(bearers), len(sessions)) == (1, 1)
        if "bearer" in kinds:
            assert self.sandbox.access.revoke_token("sandbox", bearers.pop())
        if "session" in kinds:
            assert self.sandbox.access.log_out(sessions.pop())

    def count(self, path, status=None):
        return sum(n for (where, what), n in self.answers.items() if where == path and status in {None, what})


def _header(held, name):
    return dict(held.scope["headers"])[name].decode()


class Server:
    """A real server on loopback for one turnstile after another."""

    def __init__(self):
        self.turnstile = None
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.base_url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/api"
        config = uvicorn.Config(
            self, log_level="critical", lifespan="off", loop="asyncio", timeout_keep_alive=PATIENCE_SECONDS
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))

    async def __call__(self, scope, receive, send):
        await self.turnstile(scope, receive, send)


@pytest.fixture(scope="module")
def server():
    server = Server()
    server.thread.start()
    yield server
    server.server.should_exit = True
    server.thread.join()


@pytest.fixture(params=HOW_THEY_DIE.values(), ids=HOW_THEY_DIE.keys())
def turnstile(request, server):
    server.turnstile = Turnstile(request.param)
    return server.turnstile


@pytest.fixture
def options(server, tmp_path):
    """Retries are off, so that a call succeeds by its replays or not at all."""
    return {
        "base_url": server.base_url,
        "credentials": CREDENTIALS,
        "state_dir": tmp_path,
        "max_retries": 0,
        "timeout_seconds": PATIENCE_SECONDS,
        "max_elapsed_seconds": 2 * PATIENCE_SECONDS,
    }


def _call(callbacks, number, account):
    """Read in one call, write in the next."""
    if number % 2:
        return callbacks.update_callback(account, {"url": URL})
    return callbacks.list_registered_callbacks(account)


def _check(turnstile, waves):
    """One refresh of each token that died, in each wave; a login may find its bearer token dead once."""
    died = set().union(*turnstile.deaths)
    assert turnstile.count(TOKEN_PATH) == turnstile.count(TOKEN_PATH, 200) == 1 + waves * ("bearer" in died)
    assert turnstile.count(LOGIN_PATH, 200) == 1 + waves * ("session" in died)
    assert turnstile.count(LOGIN_PATH) - turnstile.count(LOGIN_PATH, 200) <= waves * (len(turnstile.deaths) - 1)
    for account in WAVES[:waves]:
        path = f"/api/fota/v2/callbacks/{account}"
        assert turnstile.count(path, 200) == CALLS
        assert turnstile.count(path) <= CALLS * (1 + len(died))


def test_a_hundred_threads_survive_the_death_of_their_tokens(turnstile, options):
    """Twice in a row tokens die under 100 threads: each is fetched once a death, and every call succeeds."""
    with ThingSpaceClient(**options) as client, ThreadPoolExecutor(CALLS) as pool:

        def call(number):
            return [_call(client.callbacks, number, account).url for account in WAVES[:2]]

        assert list(pool.map(call, range(CALLS))) == [[URL, URL]] * CALLS
    _check(turnstile, waves=2)


def test_a_hundred_tasks_in_each_of_two_event_loops_survive_it(turnstile, options):
    """Tokens die under 100 tasks of one event loop, and twice under 100 of the next, of one client: the same holds."""
    client = AsyncThingSpaceClient(**options)

    async def burst(accounts):
        for account in accounts:
            results = await asyncio.gather(*(_call(client.callbacks, number, account) for number in range(CALLS)))
            assert [result.url for result in results] == [URL] * CALLS

    asyncio.run(burst(WAVES[:1]))
    asyncio.run(burst(WAVES[1:]))
    _check(turnstile, waves=3)
