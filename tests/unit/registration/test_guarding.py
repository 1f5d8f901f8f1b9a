"""A guard that runs by itself in a thread: it ends at once when asked, and nothing that fails ends it."""

import asyncio
import logging
import socket
import threading

import pytest

from upcall.inbox import TokenRecord, open_inbox
from upcall.registration.callers import Callers
from upcall.registration.guarding import GuardThread
from upcall.settings import Account, Credentials, Settings

A = "0000123456-00001"
TEMPLATE = "https://fleet.example:50559/callbacks/{token}"
SANDBOX = Credentials(client_id="sandbox", client_secret="sandbox", username="sandbox", password="sandbox")


@pytest.fixture
def store(tmp_path):
    url = f"sqlite:///{tmp_path / 'inbox.db'}"
    with open_inbox(url, create=True) as inbox:
        inbox.add_token(TokenRecord("token-of-this-very-store", ()), 1)
    return url


@pytest.fixture
def make_thread(tmp_path, store):
    made = []

    def make(credentials=SANDBOX, *, url=store, **options):
        settings = Settings(
            credentials=credentials, state_dir=tmp_path / "state", accounts=(Account(name=A, url=TEMPLATE),)
        )
        made.append(GuardThread(settings, url, every_seconds=300.0, **options))
        made[-1].start()
        return made[-1]

    yield make
    for thread in made:
        thread.stop(within_seconds=10)
        assert not thread._thread.is_alive()


@pytest.fixture
def silent(monkeypatch):
    """A provider that takes connections and says nothing; tells when one came."""
    listening = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("THINGSPACE_BASE_URL", f"http://127.0.0.1:{listening.getsockname()[1]}/api")
    came = threading.Event()
    held = []

    def accept():
        try:
            held.append(listening.accept())
        except OSError:
            return
        came.set()

    thread = threading.Thread(target=accept)
    thread.start()
    yield came
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()
    for connection, _ in held:
        connection.close()


def test_it_ends_at_once_while_the_provider_is_silent(make_thread, silent):
    """Whoever stops a listener does not wait for a provider that does not answer."""
    thread = make_thread()
    assert silent.wait(30)
    thread.stop(within_seconds=10)
    assert not thread._thread.is_alive()


def test_a_provider_that_is_not_there_costs_rounds_and_nothing_else(make_thread, monkeypatch):
    """The first round is made at once, and its trouble is that account's, not the thread's."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("THINGSPACE_BASE_URL", f"http://127.0.0.1:{port}/api")
    monkeypatch.setenv("UPCALL_MAX_RETRIES", "0")
    seen, came = [], threading.Event()
    thread = make_thread(on_round=lambda found: (seen.extend(found), came.set()))
    assert came.wait(30)
    assert (seen[0].account, seen[0].watch.unread) == (A, 1)
    assert thread.figures.rounds == 1
    assert thread.figures.accounts == {"unknown": 1}


def test_without_credentials_it_says_so_and_ends(make_thread, caplog):
    """A guard that can never make a round says why, once; the listener beside it goes on."""
    caplog.set_level(logging.ERROR, "upcall.guard")
    thread = make_thread(Credentials())
    thread._thread.join(30)
    assert not thread._thread.is_alive()
    assert "the guard has ended: Credentials are missing" in caplog.text


def test_it_waits_for_a_store_that_is_not_there_yet(make_thread, tmp_path):
    """A store that the listener beside it is about to upgrade is waited for, and stopping does not wait for it."""
    heard, waiting = [], threading.Event()

    class Heard(logging.Handler):
        def emit(self, record):
            heard.append(record.getMessage())
            waiting.set()

    handler = Heard()
    logging.getLogger("upcall.guard").addHandler(handler)
    try:
        thread = make_thread(url=f"sqlite:///{tmp_path / 'none.db'}")
        assert waiting.wait(30)
    finally:
        logging.getLogger("upcall.guard").removeHandler(handler)
    assert "waits for the store" in heard[0]
    assert thread.figures.failed_rounds >= 1
    thread.stop(within_seconds=10)
    assert not thread._thread.is_alive()


def test_stopping_twice_is_stopping_once(make_thread, silent):
    """A second stop, or one of a thread that has ended, does nothing."""
    thread = make_thread()
    thread.stop(within_seconds=10)
    thread.stop()


async def test_a_call_that_hangs_costs_its_own_account_only():
    """When a round's time is over, what has ended counts, and what has not is missing: no round waits for ever."""

    class Client:
        async def aclose(self):
            pass

    async def call(client, account):
        if account == "hangs":
            await asyncio.Event().wait()
        return account

    callers = Callers(lambda name: Client(), max_concurrency=2)
    ends = await callers.each(dict.fromkeys(("hangs", "one", "two")), call, within_seconds=0.01)
    await callers.aclose()
    assert {account: end.result for account, end in ends.items()} == {"one": "one", "two": "two"}
