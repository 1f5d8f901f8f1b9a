"""Many accounts: so many at once, one error does not stop the rest, results in order."""

from __future__ import annotations

import asyncio
import json
import threading
from functools import partial

import httpx2
import pytest

from upcall import FotaV2ResultException
from upcall.client.many import run_many, run_many_async
from upcall.errors import CredentialsError, SettingsError
from upcall.settings import Credentials

ACCOUNTS = [f"0000123456-{number:05}" for number in range(20)]
BAD = ACCOUNTS[7]


def _account(request):
    return request.url.path.rpartition("/")[2]


@pytest.fixture
def by_account(provider):
    """Answer each account with a URL of its own, and one with an error."""

    def answer(request):
        if _account(request) == BAD:
            return httpx2.Response(400, json={"errorCode": "INVALID_PARAMETER", "errorMessage": "Inactive account"})
        return httpx2.Response(200, json={"url": f"https://host/{_account(request)}"})

    provider.script.extend([answer] * 1000)


def _check(results):
    assert [result.account for result in results] == ACCOUNTS
    for result in results:
        if result.account == BAD:
            assert isinstance(result.error, FotaV2ResultException)
            assert result.result is None
        else:
            assert result.error is None
            assert result.result.url == f"https://host/{result.account}"


def test_one_error_does_not_stop_the_rest(client, by_account):
    """Each account has its result or its error, in the order given."""
    _check(client.callbacks.list_many(ACCOUNTS))


async def test_one_error_does_not_stop_the_rest_in_asyncio(make_async_client, by_account):
    """The async twin does the same."""
    async with make_async_client() as client:
        _check(await client.callbacks.list_many(iter(ACCOUNTS), max_concurrency=3))
        bodies = {account: {"url": f"https://host/{account}"} for account in ACCOUNTS}
        _check(await client.callbacks.register_many(bodies))


def test_many_registrations_each_with_its_body(client, by_account, provider):
    """Each account gets its own URL."""
    _check(client.callbacks.register_many({account: {"url": f"https://host/{account}"} for account in ACCOUNTS}))
    sent = {_account(request): json.loads(request.content)["url"] for request in provider.calls}
    assert sent == {account: f"https://host/{account}" for account in ACCOUNTS}


def test_an_account_that_cannot_be_one_is_its_own_error(client, by_account, provider):
    """A wrong account among many is told of, and the others are called."""
    results = client.callbacks.list_many([ACCOUNTS[0], 242078689, ".."])
    assert [type(result.error) for result in results] == [type(None), TypeError, ValueError]
    assert len(provider.calls) == 1


def test_no_more_than_so_many_at_once(client, provider):
    """`max_concurrency` is the most that are in flight, and is reached."""
    client.login()
    together, lock, gate = [0, 0], threading.Lock(), threading.Barrier(4)

    def answer(_):
        provider.lock.release()  # the provider of these tests answers one at a time unless told otherwise
        with lock:
            together[0] += 1
            together[1] = max(together)
        gate.wait(10)
        with lock:
            together[0] -= 1
        provider.lock.acquire()
        return httpx2.Response(200, json={"url": "https://host/x"})

    provider.script.extend([answer] * 20)
    assert all(result.error is None for result in client.callbacks.list_many(ACCOUNTS, max_concurrency=4))
    assert together[1] == 4


async def test_no_more_than_so_many_at_once_in_asyncio(make_async_client):
    """The async twin keeps to its number too."""
    together = [0, 0]

    async def answer(request):
        together[0] += 1
        together[1] = max(together)
        await asyncio.sleep(0)
        together[0] -= 1
        return httpx2.Response(
            200, json={"access_token": "canary-bearer", "sessionToken": "canary-session", "url": "https://host/x"}
        )

    async with make_async_client(transport=httpx2.MockTransport(answer)) as client:
        await client.login()
        await client.callbacks.list_many(ACCOUNTS, max_concurrency=3)
    assert together[1] == 3


def test_progress_is_told_in_the_calling_thread(client, by_account):
    """`on_result` sees each result once, as it comes."""
    seen = []
    results = client.callbacks.list_many(
        ACCOUNTS, on_result=lambda result: seen.append((result, threading.current_thread()))
    )
    assert sorted(result.account for result, _ in seen) == ACCOUNTS
    assert {thread for _, thread in seen} == {threading.main_thread()}
    assert {id(result) for result, _ in seen} == {id(result) for result in results}


def test_refused_credentials_are_not_tried_for_every_account(client, provider):
    """Once the provider refuses who we are, the remaining accounts fail here, and nothing more is sent."""
    provider.token_script.extend([(401, {"error": "invalid_client"})] * 100)
    results = client.callbacks.list_many(ACCOUNTS, max_concurrency=1)
    assert all(isinstance(result.error, CredentialsError) for result in results)
    assert len({id(result.error) for result in results}) == len(ACCOUNTS)
    assert provider.token_requests == 1


REFUSED = CredentialsError("ThingSpace refused the client id.", operation="request_token")


def _sets():
    """Make work for accounts of two sets of credentials, the first of which is refused."""
    calls = []

    def call(account):
        calls.append(account)
        if account.startswith("east"):
            raise REFUSED
        return account

    accounts = [f"{side}-{number}" for number in range(5) for side in ("east", "west")]
    return accounts, call, calls


def _check_sets(results, calls):
    assert {result.account for result in results if result.error} == {f"east-{number}" for number in range(5)}
    assert sum(account.startswith("east") for account in calls) == 1
    assert sum(account.startswith("west") for account in calls) == 5


def test_a_set_of_credentials_that_is_refused_is_refused_for_its_own_accounts():
    """The accounts that another set calls for are called for all the same."""
    accounts, call, calls = _sets()
    work = [(account, partial(call, account)) for account in accounts]
    results = run_many(work, max_concurrency=1, on_result=None, caller_of=lambda account: account[:4])
    _check_sets(results, calls)


async def test_a_set_that_is_refused_is_refused_for_its_own_accounts_in_asyncio():
    """The async twin does the same."""
    accounts, call, calls = _sets()

    async def call_later(account):
        return call(account)

    work = [(account, partial(call_later, account)) for account in accounts]
    results = await run_many_async(work, max_concurrency=1, on_result=None, caller_of=lambda account: account[:4])
    _check_sets(results, calls)


def test_missing_credentials_are_everybodys_error(make_client):
    """What stops every call is raised, and not told twenty times."""
    client = make_client(credentials=Credentials(client_id="i"))
    with pytest.raises(SettingsError, match="THINGSPACE_CLIENT_SECRET"):
        client.callbacks.list_many(ACCOUNTS)


async def test_missing_credentials_are_raised_bare_in_asyncio(make_async_client):
    """No exception group reaches the caller."""
    async with make_async_client(credentials=Credentials(client_id="i")) as client:
        with pytest.raises(SettingsError, match="THINGSPACE_CLIENT_SECRET"):
            await client.callbacks.list_many(ACCOUNTS)


def test_an_interrupt_begins_nothing_more(client, provider):
    """Ctrl-C in the middle ends the run: what waits is not begun."""
    interrupted = threading.Event()

    def second(_):
        interrupted.wait(10)
        return httpx2.Response(200, json={"url": "https://host/x"})

    def interrupt(_):
        interrupted.set()
        raise KeyboardInterrupt

    provider.script.extend([200, second])
    accounts = [f"account-{number}" for number in range(1000)]
    with pytest.raises(KeyboardInterrupt):
        client.callbacks.list_many(accounts, max_concurrency=1, on_result=interrupt)
    assert len(provider.calls) < len(accounts)


@pytest.mark.parametrize("accounts", [[], ACCOUNTS])
def test_a_number_of_none_is_refused_and_no_account_is_no_result(client, by_account, accounts):
    """`max_concurrency` is at least 1; an empty list is an empty list."""
    with pytest.raises(ValueError, match="max_concurrency"):
        client.callbacks.list_many(accounts, max_concurrency=0)
    assert client.callbacks.list_many([]) == []


@pytest.mark.parametrize("options", [{"max_retries": -1}, {"tiemout_seconds": 1}])
def test_options_that_mean_nothing_are_refused_once(client, provider, options):
    """A wrong option is the caller's mistake and no account's: it is raised before any call."""
    with pytest.raises((TypeError, ValueError), match="max_retries"):
        client.callbacks.list_many(ACCOUNTS, **options)
    assert provider.requests == []


async def test_one_account_is_not_many(client, make_async_client, provider):
    """A str is not taken for a list of its characters, nor a list for a mapping."""
    with pytest.raises(TypeError, match="accounts must be several"):
        client.callbacks.list_many(ACCOUNTS[0])
    with pytest.raises(TypeError, match="bodies must be a dict"):
        client.callbacks.register_many([ACCOUNTS[0]])
    async with make_async_client() as twin:
        with pytest.raises(TypeError, match="accounts must be several"):
            await twin.callbacks.list_many(ACCOUNTS[0])
        with pytest.raises(TypeError, match="bodies must be a dict"):
            await twin.callbacks.register_many([ACCOUNTS[0]])
    assert provider.requests == []
