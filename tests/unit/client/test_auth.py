"""The two tokens: who fetches, who waits, what is dropped, what is kept."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upcall import CredentialsError, NoAnswerError, UndecodableAnswerError
from upcall.client import operations
from upcall.client.answers import Answer
from upcall.client.auth import Seat, Token, TokenSlot, refresh_delay_seconds
from upcall.client.effects import Do, Join, Launch, Send, Wait
from upcall.client.wire import open_async_wire
from upcall.errors import SettingsError
from upcall.settings import Credentials

ACCOUNT = "0000123456-00001"
SDK_LIKE = Credentials(client_id="id-1", client_secret="canary-secret", session_token="canary-session-0")


def _fetch(slot, value, *, now=0.0, lifetime=3600.0):
    seat = slot.take(now)
    assert isinstance(seat, Seat)
    assert seat.leads
    slot.land(seat.flight, value, asked_at=now, lifetime_seconds=lifetime)


def test_both_tokens_are_fetched_at_the_first_call_and_kept(client, provider):
    """One token request and one login serve all calls that follow."""
    assert provider.requests == []
    for _ in range(3):
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (provider.token_requests, provider.logins, len(provider.calls)) == (1, 1, 3)
    token, login = provider.requests[:2]
    assert token.headers["authorization"].startswith("Basic ")
    assert token.content == b"grant_type=client_credentials"
    assert login.headers["authorization"] == "Bearer canary-bearer-1"


@pytest.mark.parametrize(
    ("lifetime", "delay"), [(3600.0, 3570.0), (60.0, 30.0), (40.0, 20.0), (10.0, 5.0), (float("inf"), float("inf"))]
)
def test_a_token_is_replaced_before_its_end(lifetime, delay):
    """A bearer token is refreshed at 30 s before its end, and a short-lived one at half its life."""
    assert refresh_delay_seconds(lifetime) == delay
    slot = TokenSlot()
    _fetch(slot, "a", now=100.0, lifetime=lifetime)
    if delay < float("inf"):
        assert isinstance(slot.take(100.0 + delay - 0.01), Token)
        assert isinstance(slot.take(100.0 + delay), Seat)


def test_the_same_token_again_is_kept_until_it_is_refused():
    """An early refresh that brings the same token, as the provider does within the hour, is not repeated."""
    slot = TokenSlot()
    _fetch(slot, "a", now=0.0)
    _fetch(slot, "a", now=3570.0)
    assert isinstance(slot.take(1e9), Token)
    slot.drop("a")
    assert isinstance(slot.take(1e9), Seat)


def test_only_the_token_that_failed_is_dropped():
    """A late refusal of an old token leaves the new one alone."""
    slot = TokenSlot()
    _fetch(slot, "a")
    slot.drop("a")
    _fetch(slot, "b")
    slot.drop("a")
    taken = slot.take(0.0)
    assert isinstance(taken, Token)
    assert taken.value == "b"


def test_a_session_is_kept_alive_by_use_and_replaced_after_20_idle_minutes():
    """Each use extends a session; one that is known to be idle too long is not sent at all."""
    slot = TokenSlot(max_idle_seconds=1200.0)
    _fetch(slot, "s", now=0.0)
    slot.touch("s", at=1000.0)
    assert isinstance(slot.take(2200.0), Token)
    assert isinstance(slot.take(2200.1), Seat)


def test_one_leads_and_the_rest_wait_for_the_same_flight():
    """While a fetch is in the air nobody begins another."""
    slot = TokenSlot()
    seats = [slot.take(0.0) for _ in range(5)]
    assert [seat.leads for seat in seats] == [True, False, False, False, False]
    assert len({id(seat.flight) for seat in seats}) == 1


def test_a_waiter_that_is_cancelled_does_not_end_the_flight():
    """A flight that is on its way ignores cancel()."""
    seat = TokenSlot().take(0.0)
    assert not seat.flight.cancel()


def test_an_abandoned_flight_makes_a_waiter_the_leader():
    """When a leader is stopped, whoever comes next leads another flight."""
    slot = TokenSlot()
    first = slot.take(0.0)
    slot.abandon(first.flight)
    slot.abandon(first.flight)
    assert first.flight.result(0) is None
    assert slot.take(0.0).leads


def test_no_token_shows_in_a_repr():
    """Neither token, slot nor request shows its secrets."""
    slot = TokenSlot(fixed="canary")
    request = operations.log_in("user", "canary")
    assert "canary" not in f"{slot!r} {slot.peek()!r} {request!r} {operations.IssuedToken('canary', 1.0)!r}"


def test_a_dead_bearer_is_replaced_and_the_call_replayed(client, provider):
    """The gateway's 401 costs one token request; the session is left alone."""
    client.callbacks.list_registered_callbacks(ACCOUNT)
    provider.kill_bearer()
    client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (provider.token_requests, provider.logins) == (2, 1)
    assert client.waits == []


def test_a_dead_session_is_replaced_and_the_call_replayed(client, provider):
    """A SessionToken error costs one login; the bearer token is left alone."""
    client.callbacks.list_registered_callbacks(ACCOUNT)
    provider.kill_session()
    client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (provider.token_requests, provider.logins) == (1, 2)


def test_both_tokens_dead_at_once_are_both_replaced(client, provider):
    """One call survives the end of both tokens, with one replay for each."""
    client.callbacks.list_registered_callbacks(ACCOUNT)
    provider.kill_bearer()
    provider.kill_session()
    client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (provider.token_requests, provider.logins, len(provider.calls)) == (2, 2, 4)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_dead_session_is_known_by_its_code_under_any_status(client, provider, status):
    """Which status a dead session gets is not documented, so its code decides."""
    client.callbacks.list_registered_callbacks(ACCOUNT)
    provider.script.append((status, {"errorCode": "REQUEST_FAILED.SessionToken.Expired", "errorMessage": "x"}))
    client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (provider.token_requests, provider.logins) == (1, 2)


@pytest.mark.parametrize("step", [(401, b""), (403, b"<am:fault><am:code>404</am:code></am:fault>"), (401, b"<html>")])
def test_a_bare_refusal_tries_the_session_first_and_then_the_bearer(client, provider, step):
    """A 401 or 403 that does not say which token it means costs one replay for each, and then it is raised."""
    provider.script.extend([step, (200, {"url": "https://host/x"})])
    client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (provider.token_requests, provider.logins) == (1, 2)
    provider.script.extend([step] * 3)
    with pytest.raises(CredentialsError) as caught:
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (caught.value.status_code, caught.value.attempts) == (step[0], 3)
    assert provider.token_requests == 2


def test_a_refusal_that_is_no_tokens_fault_is_not_replayed(client, provider):
    """An account that these credentials may not touch is said so at once."""
    provider.script.append((403, {"errorCode": "INVALID_ACCESS", "errorMessage": "no"}))
    with pytest.raises(CredentialsError) as caught:
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (caught.value.attempts, caught.value.error_code, provider.logins) == (1, "INVALID_ACCESS", 1)


def test_a_token_that_keeps_failing_is_replayed_once(client, provider, dead_session):
    """A session that is refused right after its login ends the call: no loop."""
    provider.script.extend([dead_session] * 9)
    with pytest.raises(CredentialsError):
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (len(provider.calls), provider.logins) == (2, 2)


def test_a_given_session_token_is_used_and_never_replaced(make_client, provider):
    """With a fixed session token no login is ever sent, and its end is told with the way out."""
    provider.live["session"] = "canary-session-0"
    client = make_client(credentials=SDK_LIKE)
    client.callbacks.list_registered_callbacks(ACCOUNT)
    provider.kill_session()
    with pytest.raises(CredentialsError, match="THINGSPACE_SESSION_TOKEN"):
        client.callbacks.list_registered_callbacks(ACCOUNT)
    client.logout()
    assert provider.logins == 0


def test_a_login_whose_bearer_died_is_not_a_refused_login(client, provider):
    """The gateway's refusal of a login judges the bearer token: it is replaced and the login sent again."""
    client.callbacks.list_registered_callbacks(ACCOUNT)
    client.logout()
    provider.kill_bearer()
    client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (provider.token_requests, provider.logins, client.login_latch().refusals) == (2, 2, 0)


def test_refused_client_credentials_are_told_as_such(client, provider):
    """A wrong client secret names its variables, and no login is tried."""
    provider.token_script.append((401, {"error": "invalid_client", "error_description": "no"}))
    with pytest.raises(CredentialsError, match="THINGSPACE_CLIENT_SECRET") as caught:
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (caught.value.operation, caught.value.error_code, provider.logins) == ("request_token", "invalid_client", 0)


@pytest.mark.parametrize("body", [b"", b"<html>", {"token": "x"}, {"access_token": ""}, {"access_token": "a\nb"}, [1]])
def test_a_token_answer_without_a_usable_token_raises(client, provider, body):
    """A token that no header can carry is refused where it is issued."""
    provider.token_script.append((200, body))
    with pytest.raises(UndecodableAnswerError):
        client.callbacks.list_registered_callbacks(ACCOUNT)


@pytest.mark.parametrize("expires_in", [None, "3600", "x", -1, 0, 1e400, [], True])
def test_any_lifetime_in_a_token_answer_is_survived(make_client, provider, expires_in):
    """An absent or absurd expires_in reads as the documented hour, and never as one login a call."""
    provider.expires_in = expires_in if expires_in != float("inf") else "1e400"
    client = make_client()
    client.callbacks.list_registered_callbacks(ACCOUNT)
    client.callbacks.list_registered_callbacks(ACCOUNT)
    assert provider.logins == 1


def test_missing_credentials_are_named_at_the_first_call(make_client, provider):
    """Construction asks for nothing; the first call names every variable that is not set."""
    client = make_client(credentials=Credentials(client_id="x"))
    with pytest.raises(SettingsError, match="THINGSPACE_CLIENT_SECRET, THINGSPACE_USERNAME, THINGSPACE_PASSWORD"):
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert provider.requests == []


@pytest.mark.parametrize(
    "credentials",
    [
        Credentials(client_id="a", client_secret="b", session_token="x\ny"),
        Credentials(client_id="a\udcff", client_secret="b", session_token="x"),
    ],
)
def test_credentials_that_no_request_can_carry_are_named(make_client, credentials):
    """A value with a line break or broken text names its variable, and is not shown."""
    with pytest.raises(SettingsError, match="cannot be sent"):
        make_client(credentials=credentials).callbacks.list_registered_callbacks(ACCOUNT)


def test_logout_ends_the_session_and_the_next_call_begins_another(client, provider):
    """After a logout the token is forgotten."""
    client.login()
    provider.requests.clear()
    client.logout()
    assert provider.requests[0].url.path == "/api/m2m/v1/session/logout"
    client.callbacks.list_registered_callbacks(ACCOUNT)
    assert provider.logins == 2


def test_32_threads_that_begin_together_fetch_each_token_once(client, provider):
    """Single flight in threads: one token request and one login, and every call succeeds."""
    gate = threading.Barrier(32)

    def call(_):
        gate.wait()
        return client.callbacks.list_registered_callbacks(ACCOUNT).url

    with ThreadPoolExecutor(32) as pool:
        assert set(pool.map(call, range(32))) == {"https://host/x"}
    assert (provider.token_requests, provider.logins) == (1, 1)


def test_32_threads_whose_tokens_both_die_replace_each_once(client, provider):
    """When both tokens die under 32 threads, each is replaced once."""
    client.login()
    provider.kill_bearer()
    provider.kill_session()
    gate = threading.Barrier(32)

    def call(_):
        gate.wait()
        client.callbacks.list_registered_callbacks(ACCOUNT)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(call, range(32)))
    assert (provider.token_requests, provider.logins) == (2, 2)


def test_threads_that_wait_get_the_leaders_refusal(client, provider):
    """A refused login is one login, whoever waited for it, and each gets an error of its own."""
    provider.password = "another"
    gate = threading.Barrier(8)
    errors = []

    def call():
        gate.wait()
        try:
            client.callbacks.list_registered_callbacks(ACCOUNT)
        except CredentialsError as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(errors), len({id(error) for error in errors}), provider.logins) == (8, 8, 1)


def test_tasks_in_two_event_loops_in_a_row_fetch_each_token_once(make_async_client, provider):
    """Single flight in asyncio, with one client across two loops, whose connections end with their loop."""
    client = make_async_client()

    async def burst():
        await asyncio.gather(*(client.callbacks.list_registered_callbacks(ACCOUNT) for _ in range(50)))

    asyncio.run(burst())
    assert client._driver._loops == {}
    provider.kill_session()
    provider.kill_bearer()
    asyncio.run(burst())
    assert (provider.token_requests, provider.logins, client._driver._loops) == (2, 2, {})


class _SlowLogin(httpx2.AsyncBaseTransport):
    """Hold each login until a test lets it go on."""

    def __init__(self, provider):
        self.provider = provider
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def handle_async_request(self, request):
        if request.url.path.endswith("/login"):
            self.begun.set()
            await self.go.wait()
        return self.provider(request)


async def test_a_cancelled_leader_does_not_stop_the_login_that_others_wait_for(make_async_client, provider):
    """The caller who began a login is cancelled; the login goes on and serves the one who waited."""
    slow = _SlowLogin(provider)
    async with make_async_client(transport=slow) as client:
        leader = asyncio.create_task(client.callbacks.list_registered_callbacks(ACCOUNT))
        await slow.begun.wait()
        waiter = asyncio.create_task(client.callbacks.list_registered_callbacks(ACCOUNT))
        await asyncio.sleep(0)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        slow.go.set()
        assert (await waiter).url == "https://host/x"
    assert provider.logins == 1


async def test_a_refusal_is_counted_though_its_caller_has_gone(make_async_client, provider):
    """An impatient caller cannot hide a refused login from the latch."""
    provider.password = "another"
    slow = _SlowLogin(provider)
    async with make_async_client(transport=slow) as client:
        leader = asyncio.create_task(client.callbacks.list_registered_callbacks(ACCOUNT))
        await slow.begun.wait()
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        slow.go.set()
        with pytest.raises(CredentialsError):
            await client.callbacks.list_registered_callbacks(ACCOUNT)
        assert (client.login_latch().refusals, provider.logins) == (1, 1)


def test_a_login_cut_short_by_the_end_of_its_loop_leaves_no_claim(make_async_client, make_client, provider):
    """When a loop ends in the middle of a login, the next caller logs in at once."""
    client = make_async_client()

    async def begin():
        slow = _SlowLogin(provider)
        client._driver._make_wire = lambda: open_async_wire(client.base_url, slow, None)
        task = asyncio.create_task(client.callbacks.list_registered_callbacks(ACCOUNT))
        await slow.begun.wait()
        return task

    asyncio.run(begin())
    other = make_client()
    other.callbacks.list_registered_callbacks(ACCOUNT)
    assert (provider.logins, other.waits) == (1, [])


def test_a_login_that_gets_no_answer_is_not_repeated(client, provider):
    """A login that may have been counted by the provider is never sent again behind the caller's back."""
    provider.login_script.append(httpx2.ReadTimeout("x"))
    with pytest.raises(NoAnswerError) as caught:
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (caught.value.operation, provider.logins, client.login_latch().refusals) == ("login", 1, 0)


class _Mill:
    """Step many flows in any order: what every interleaving of threads and tasks comes down to."""

    def __init__(self, world, provider, chooser):
        self.world, self.provider, self.chooser = world, provider, chooser
        self.ready = []
        self.finished = 0

    def spawn(self, flow, *, value=None):
        self.ready.append((flow, value, None))

    def turn(self):
        ready = [entry for entry in self.ready if entry[2] is None or entry[2].done()]
        entry = ready[self.chooser(len(ready))]
        self.ready.remove(entry)
        flow, value, flight = entry
        try:
            effect = flow.send(flight.result(0) if flight else value)
        except StopIteration:
            self.finished += 1
            return
        match effect:
            case Join():
                self.ready.append((flow, None, effect.flight))
            case Launch():
                self.spawn(effect.flow)
                self.spawn(flow)
            case Send():
                response = self.provider(
                    httpx2.Request(
                        effect.request.method,
                        effect.request.url,
                        headers=effect.request.headers,
                        content=effect.request.body,
                    )
                )
                self.spawn(flow, value=Answer(status=response.status_code, body=response.read()))
            case Do():
                self.spawn(flow, value=effect.function())
            case Wait():
                raise AssertionError("nothing should have to wait")


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 2**32), calls=st.integers(2, 12), dead=st.sets(st.sampled_from(["bearer", "session"])))
def test_any_interleaving_replaces_a_dead_token_once(make_world_at_import, seed, calls, dead):
    """However the steps of many calls interleave, each dead token is fetched once and every call succeeds."""
    world, provider = make_world_at_import()
    chance = random.Random(seed)
    call = operations.list_registered_callbacks(ACCOUNT)
    mill = _Mill(world, provider, chance.randrange)
    for _ in range(2):
        for _ in range(calls):
            mill.spawn(world.exchange.run(call))
        while mill.ready:
            mill.turn()
        for name in dead:
            provider.live.pop(name, None)
    assert provider.token_requests == 1 + ("bearer" in dead)
    assert provider.logins == 1 + ("session" in dead)


@pytest.fixture(scope="module")
def make_world_at_import(request):
    """Make worlds and providers for a property test, which cannot ask for function-scoped fixtures."""
    module = request.getfixturevalue("client_test_kit")
    return lambda: (module.World(None), module.Provider())
