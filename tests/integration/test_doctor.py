"""The doctor: each fault is named by one failing check, and where there is none everything is well.

Everything is real: a listener behind TLS with certificates made here, the store that it writes to, a sandbox as the
provider. Only the name of the listener is resolved by the test.
"""

import contextlib
import datetime as dt
import itertools
import json
import os
import socket
import ssl
import threading
import time
import types
from email.utils import formatdate

import httpx2
import msgspec
import pytest
import trustme

import upcall.listener.service
from upcall.errors import SettingsError
from upcall.inbox import Arrival, TokenRecord, Uptime, open_inbox
from upcall.inbox.spool import Spool
from upcall.listener import Gate, Reception, Sources, Token
from upcall.listener.connections import Connections
from upcall.listener.server import bind, serving
from upcall.listener.service import CallbackService
from upcall.registration import Target
from upcall.registration.doctor import CHECKS, PREFLIGHT, Case, Limits, Looker, examine, preflight
from upcall.registration.doctor.looking import resolve
from upcall.settings import Credentials, read_settings
from upcall.testing.loop import LoopThread
from upcall.testing.sandbox import CREDENTIALS
from upcall.testing.transport import InProcess
from upcall.thingspace import CALLBACK_SOURCES

ACCOUNT = "0000123456-00001"
OTHER = "0000123456-00002"
TOKEN = "token-of-the-listener"
STRANGE = "token-of-somebody-else"
HOST = "listener.example"
LISTED = CALLBACK_SOURCES.values[0]
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def stranger():
    """Return an authority that nobody knows."""
    return trustme.CA()


@pytest.fixture(scope="module")
def leaf(authority):
    return authority.issue_cert(HOST)


def server_context(leaf):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context


def serving_pem(directory, *blobs):
    """Return a context that serves just these certificates, the key's among them."""
    path = directory / "served.pem"
    path.write_bytes(b"".join(blob.bytes() for blob in blobs))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


class Listener:
    """A listener of the product in this process, over a store of its own, behind TLS.

    Args:
        store: The store.
        tls: What TLS needs.
        proxies: The proxies that it trusts.
    """

    def __init__(self, store, tls, proxies=()):
        self._loop = LoopThread("doctor's listener")
        self._stack = contextlib.AsyncExitStack()
        self.port = self._loop.run(self._begin(store, tls, proxies))

    async def _begin(self, store, tls, proxies):
        inbox = self._stack.enter_context(open_inbox(store))
        sources = Sources(proxies)
        reception = Reception(inbox.appender, Gate([Token(TOKEN)]))
        self._stack.push_async_callback(reception.aclose)
        connections = Connections(CallbackService(reception, sources), sources, reception.stats)
        listening = bind("127.0.0.1", 0)
        await self._stack.enter_async_context(serving(connections, listening, tls=tls))
        return listening.getsockname()[1]

    def close(self):
        self._loop.run(self._stack.aclose())
        self._loop.close()


class Something:
    """What answers in the place of a listener: the same bytes to everybody, or none.

    Args:
        tls: What TLS needs, None for plain HTTP.
        answer: What it says; nothing closes the connection.
    """

    def __init__(self, tls, answer=OK):
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._tls = tls
        self._answer = answer
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while True:
            try:
                accepted, _ = self._listening.accept()
            except OSError:
                return
            with accepted, contextlib.suppress(OSError):
                accepted.settimeout(10)
                connection = self._tls.wrap_socket(accepted, server_side=True) if self._tls else accepted
                with connection:
                    connection.recv(4096)
                    connection.sendall(self._answer)

    def close(self):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)


class Dated(httpx2.BaseTransport):
    """The way to a sandbox whose answers say what time it is, as the provider's do."""

    def __init__(self, inner, skew):
        self._inner = inner
        self._skew = skew

    def handle_request(self, request):
        response = self._inner.handle_request(request)
        response.headers["Date"] = formatdate(time.time() + self._skew, usegmt=True)
        return response


class World:
    """All that the doctor looks at, sound until a test breaks something."""

    def __init__(self, directory, sandbox, authority, leaf):
        self.directory = directory
        self.sandbox = sandbox
        self.authority = authority
        self.store = f"sqlite:///{directory / 'inbox.db'}"
        self.stack = contextlib.ExitStack()
        self.trust = self.stack.enter_context(authority.cert_pem.tempfile())
        with open_inbox(self.store, create=True) as inbox:
            inbox.add_token(TokenRecord(TOKEN, ()), micros())
            inbox.append([arrival(LISTED)])
        self.serve(Listener(self.store, server_context(leaf)))
        self.beat()
        self.accounts = [{"name": ACCOUNT, "url": f"https://{HOST}:{self.port}/callbacks/{{token}}"}]
        self.registered = self.url()
        self.credentials = CREDENTIALS
        self.base_url = "http://127.0.0.1/api"
        self.skew = 0.0
        self.transport = None
        self.case = {}
        self.look = {"resolver": lambda _: ["127.0.0.1"]}
        self.logins = 0
        self.tables = []

    def serve(self, server):
        """Let this answer where the URL leads to."""
        self.stack.callback(server.close)
        self.port = server.port
        return self

    def move(self, server):
        """Let this answer in the place of the listener, and the URL lead there."""
        self.serve(server)
        self.accounts[0]["url"] = f"https://{HOST}:{self.port}/callbacks/{{token}}"
        self.registered = self.url()

    def url(self, token=TOKEN):
        return self.accounts[0]["url"].replace("{token}", token)

    def beat(self, *, age=0.0, **facts):
        """Let the listener have given a sign of life so many seconds ago."""
        at = micros() - round(age * 1e6)
        uptime = Uptime(listener="the one", began_at=at - 1_000_000, last_at=at, tokens=(Token(TOKEN).id,))
        with open_inbox(self.store) as inbox:
            inbox.beat(msgspec.structs.replace(uptime, **facts))

    def settings(self):
        path = self.directory / "upcall.toml"
        tables = [
            "\n".join(["[[accounts]]", *(f"{key} = {json.dumps(value)}" for key, value in account.items())])
            for account in self.accounts
        ]
        path.write_text("\n".join([*self.tables, *tables]))
        return read_settings({"UPCALL_STATE_DIR": str(self.directory / "state")}, config=path, lenient=True)

    def client(self, name, hook):
        del name
        inner = self.transport or InProcess(self.sandbox._sandbox, self.sandbox._loop)
        return self.sandbox.client(
            credentials=self.credentials,
            base_url=self.base_url,
            transport=Dated(inner, self.skew),
            state_dir=self.directory / "state",
            event_hooks=[hook, self._count],
            max_retries=0,
        )

    def _count(self, event):
        self.logins += event.operation == "login" and event.kind == "sent"

    def examined(self):
        """Return what the doctor says."""
        if self.registered:
            self.sandbox.register(self.accounts[0]["name"] if self.accounts else ACCOUNT, self.registered)
        case = {
            "settings": self.settings(),
            "store": self.store,
            "is_store_named": True,
            "spool": self.spool,
        } | self.case
        looker = Looker(trust=self.trust, **self.look)
        return examine(Case(**case), looker, make_client=self.client)

    @property
    def spool(self):
        return self.directory / "spool"


def micros():
    return time.time_ns() // 1000


def arrival(source):
    body = json.dumps({"accountName": ACCOUNT, "type": "upgradeProgress"}).encode()
    return Arrival(body, received_at=micros(), peer=source, listed=True, account=ACCOUNT)


@pytest.fixture
def world(tmp_path, thingspace_sandbox, authority, leaf):
    made = World(tmp_path, thingspace_sandbox, authority, leaf)
    with made.stack:
        yield made


def named(results, status):
    return [result.name for result in results if result.status == status]


def told(results, name):
    (result,) = (result for result in results if result.name == name)
    return result


# no fault


def test_without_a_fault_all_is_well(world):
    """Where everything is sound each check says so, but for the port, which a sandbox does not mind."""
    results = world.examined()
    assert {result.name: result.found for result in results if result.status != "ok"} == {
        "port": "a sandbox takes any port"
    }
    assert [result.name for result in results] == list(CHECKS)
    assert world.logins == 1


def test_no_text_shows_a_token(world):
    """What the doctor says can be sent to somebody: no token of a URL stands in it."""
    world.registered = world.url(STRANGE)
    results = world.examined()
    assert TOKEN not in repr(results)
    assert STRANGE not in repr(results)
    assert f"https://{HOST}:{world.port}/callbacks/toke***" in told(results, "registered").found


# what is in order too, or works and should not stay so


def test_two_sets_of_credentials_log_in_once_each(world):
    """However many accounts there are, a set of credentials costs one login, and each account has its results."""
    world.accounts += [{"name": OTHER, "url": world.accounts[0]["url"], "credentials": "east"}]
    world.tables = ["[credentials.east]", 'username_env = "X"']
    world.sandbox.register(OTHER, world.url())
    results = world.examined()
    assert named(results, "failed") == []
    assert world.logins == 2
    assert [(each.credentials, each.status) for each in results if each.name == "session"] == [
        (None, "ok"),
        ("east", "ok"),
    ]
    assert [each.account for each in results if each.name == "round-trip"] == [ACCOUNT, OTHER]


def test_a_latched_login_is_not_sent(world):
    """What the provider refused before is refused here: the doctor spends none of the five refusals on it again."""
    world.credentials = msgspec.structs.replace(CREDENTIALS, password="wrong")
    world.examined()
    assert world.logins == 1
    results = world.examined()
    assert world.logins == 1
    assert named(results, "failed") == ["session"]
    assert "No login was sent" in told(results, "session").found


def test_without_credentials_the_rest_is_checked(world):
    """Credentials that are not set are no failure: what needs them is skipped and names the variables."""
    world.credentials = Credentials(client_id="sandbox")
    results = world.examined()
    assert named(results, "failed") == []
    assert told(results, "bearer").found == (
        "nothing was sent: THINGSPACE_CLIENT_SECRET, THINGSPACE_USERNAME, THINGSPACE_PASSWORD not set"
    )
    assert told(results, "registered").found == "because bearer was skipped"
    assert told(results, "round-trip").status == "ok"


def test_without_a_settings_file_what_is_registered_is_looked_at(world):
    """An account that is only named has the URL looked at that the provider has for it."""
    world.accounts, world.case = [], {"accounts": (ACCOUNT,)}
    world.registered = f"https://{HOST}:{world.port}/callbacks/{TOKEN}"
    results = world.examined()
    assert named(results, "failed") == named(results, "warning") == []
    assert "as it is registered" in told(results, "url-form").found
    assert told(results, "round-trip").status == "ok"


def test_a_url_that_is_given_takes_the_files_place(world):
    """A new URL can be looked at before it is registered; what is registered differs from it, and that is told."""
    world.case = {"accounts": (ACCOUNT,), "url": f"https://{HOST}:{world.port}/callbacks/{{token}}?new=1"}
    results = world.examined()
    assert named(results, "failed") == ["registered"]
    assert told(results, "round-trip").status == "ok"


def test_a_machine_without_a_store_looks_at_the_rest(world):
    """From a laptop the provider and the URL are looked at, and what lies on the listener's machine is skipped."""
    world.accounts[0]["url"] = world.url()
    world.case = {"store": f"sqlite:///{world.directory / 'elsewhere.db'}", "is_store_named": False}
    results = world.examined()
    assert named(results, "failed") == named(results, "warning") == []
    assert {each.name for each in results if each.status == "skipped"} == {
        "store",
        "listener",
        "last-callback",
        "port",
    }
    assert told(results, "tokens").found == "the listener proved that it knows it"


def test_without_accounts_the_machine_and_the_provider_are_looked_at(world):
    """With no account there is still a machine, a provider and a login to check."""
    world.accounts, world.registered = [], None
    results = world.examined()
    assert [each.name for each in results] == [
        "settings",
        "provider",
        "clock",
        "store",
        "spool",
        "listener",
        "bearer",
        "session",
    ]
    assert named(results, "ok") == [each.name for each in results]


def test_a_run_has_an_end(world):
    """Once the time for a run is over no URL is looked at any more, and the report says so."""
    world.look |= {"limits": Limits(run_seconds=0.0)}
    results = world.examined()
    assert named(results, "failed") == []
    assert told(results, "dns").found == "the time that a run may take was over"
    assert told(results, "round-trip").found == "because dns was skipped"


def test_nothing_is_written(world):
    """The doctor looks: no callback comes of it, nothing is registered, and no directory is made."""
    with open_inbox(world.store) as inbox:
        before = (inbox.callbacks(), inbox.tokens(), inbox.uptimes(), inbox.journal("registration"))
    world.examined()
    with open_inbox(world.store) as inbox:
        assert (inbox.callbacks(), inbox.tokens(), inbox.uptimes(), inbox.journal("registration")) == before
    assert not world.spool.exists()
    assert world.sandbox.deliveries() == []


def spool_something(directory, times=1):
    spool = Spool(directory)
    for _ in range(times):
        spool.append([arrival(LISTED)])
    spool.close()


def retire(world):
    world.accounts[0]["url"] = world.registered
    with open_inbox(world.store) as inbox:
        inbox.set_token(TOKEN, state="retiring", retire_at=micros() + 10**9, now=micros())


WARNINGS = {
    "clock": lambda world: setattr(world, "skew", 40.5),
    "spool": lambda world: spool_something(world.spool),
    "account-form": lambda world: world.accounts[0].update(name="0000123456-1"),
    "tokens": retire,
    "connect": lambda world: world.look.update(resolver=lambda _: ["127.0.0.2", "127.0.0.1"]),
    "certificate-dates": lambda world: world.move(
        Listener(world.store, server_context(world.authority.issue_cert(HOST, not_after=NOW + 3 * DAY)))
    ),
    "answer-time": lambda world: world.look.update(clock=itertools.count(step=2.0).__next__),
    "registered": lambda world: (setattr(world, "registered", None), world.accounts[0].pop("url")),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_what_works_and_should_not_stay_so_is_a_warning(world, name):
    """What is about to fail is told before it does, with what to do, and fails nothing."""
    WARNINGS[name](world)
    results = world.examined()
    assert named(results, "failed") == []
    assert named(results, "warning") == [name]
    assert told(results, name).todo


def test_what_cannot_be_told_is_no_failure(world):
    """A store that no listener has used yet, and an account that no callback came for, fail nothing."""
    world.case = {"store": f"sqlite:///{world.directory / 'new.db'}", "given": (Token(TOKEN),)}
    with open_inbox(world.case["store"], create=True):
        pass
    results = world.examined()
    assert named(results, "failed") == []
    assert named(results, "unknown") == ["listener", "last-callback"]


def test_a_plain_url_to_this_machine_is_in_order_for_a_sandbox(world):
    """Where a sandbox is the provider a listener without TLS is looked at as any other, but for its certificate."""
    listener = Listener(world.store, None)
    world.serve(listener)
    world.accounts, world.registered = [], f"http://127.0.0.1:{listener.port}/callbacks/{TOKEN}"
    world.case = {"accounts": (ACCOUNT,)}
    results = world.examined()
    assert named(results, "failed") == named(results, "warning") == []
    assert told(results, "certificate-chain").found == "the URL is http, which only a sandbox takes"
    assert told(results, "forwarded-for").status == "ok"


def test_a_name_is_resolved_as_this_machine_does():
    """Without a resolver of the test's own the system's is asked, and tells each address once."""
    assert resolve("127.0.0.1") == ["127.0.0.1"]
    assert set(resolve("localhost")) <= {"127.0.0.1", "::1"}


def test_a_spool_that_cannot_be_read_fails(world):
    """What waits in the spool and cannot be imported is named by its file."""
    spool_something(world.spool, times=2)
    (path,) = world.spool.glob("*.spool")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3] + b"\0" * 8 + data[len(data) // 3 + 8 :])
    results = world.examined()
    assert named(results, "failed") == ["spool"]
    assert f"spool file {path.stem} holds" in told(results, "spool").found


def test_a_preflight_looks_at_the_url_alone(world):
    """Before a write the URL is looked at as the provider would reach it, and nothing else is asked."""
    looker = Looker(trust=world.trust, **world.look)
    target = Target(account=ACCOUNT, url=world.url(), template=world.accounts[0]["url"], tokens=(TOKEN,))
    results = preflight([target], looker, local=True)
    assert [(each.name, each.status) for each in results] == [(name, "ok") for name in PREFLIGHT]
    public = preflight([target], looker)
    assert named(public, "failed") == ["dns"]


def test_an_authority_that_cannot_be_read_is_a_mistake_of_the_caller(tmp_path):
    """What is given with --trust must be certificates."""
    (tmp_path / "no.pem").write_text("nothing")
    for path, why in ((tmp_path / "no.pem", "no certificate in PEM"), (tmp_path / "gone.pem", "No such file")):
        with pytest.raises(SettingsError, match=why):
            Looker(trust=path)


# one fault each: what is broken, which check fails, and what it says

FAULTS = {}


def fault(name, text):
    """Note what breaks a world, which check is to fail, and a part of what it is to find."""

    def note(breaks):
        FAULTS[breaks.__name__] = (breaks, name, text)
        return breaks

    return note


@fault("settings", "upcall.toml:1: there is no `acount`")
def mistake_in_the_settings_file(world, **_):
    world.settings = lambda inner=world.settings: wrong_file(world, inner)


def wrong_file(world, inner):
    inner()
    path = world.directory / "upcall.toml"
    path.write_text(f"acount = 1\n{path.read_text()}")
    return read_settings({"UPCALL_STATE_DIR": str(world.directory / "state")}, config=path, lenient=True)


@fault("settings", "UPCALL_TOKENS holds no token")
def unusable_settings(world, **_):
    world.case |= {"settings": None, "settings_error": "UPCALL_TOKENS holds no token."}


@fault("settings", "no http or https URL")
def unusable_base_url(world, **_):
    world.base_url = "nonsense"


@fault("provider", "refused")
def nobody_at_the_base_url(world, **_):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        world.base_url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
    world.transport = httpx2.HTTPTransport()
    world.stack.callback(world.transport.close)


@fault("provider", "ThingSpace answered request_token with 50")
def provider_in_trouble(world, **_):
    world.sandbox.set_faults(server_error=1.0)


@fault("clock", "400 s ahead of this machine's")
def clock_that_is_behind(world, **_):
    world.skew = 400.5


@fault("bearer", "ThingSpace answered request_token with 401")
def wrong_client_secret(world, **_):
    world.credentials = msgspec.structs.replace(CREDENTIALS, client_secret="wrong")


@fault("session", "ThingSpace answered login with")
def wrong_password(world, **_):
    world.credentials = msgspec.structs.replace(CREDENTIALS, password="wrong")


@fault("session", "the session token that was given is refused")
def dead_session_token(world, **_):
    world.credentials = msgspec.structs.replace(CREDENTIALS, session_token="dead")


@fault("store", "there is no store at")
def store_that_is_not_there(world, **_):
    world.case |= {"store": f"sqlite:///{world.directory / 'elsewhere.db'}", "given": (Token(TOKEN),)}


@fault("store", "is not an SQLite file")
def store_that_is_none(world, **_):
    (world.directory / "text.db").write_text("this is no database\n" * 100)
    world.case |= {"store": f"sqlite:///{world.directory / 'text.db'}"}


@fault("store", "cannot be written by this user")
def store_on_a_disk_that_is_read_only(world, monkeypatch, **_):
    # The superuser may write whatever its mode says, and a mount takes one: the question itself is answered for it.
    may = os.access
    path = world.directory / "inbox.db"
    monkeypatch.setattr("os.access", lambda place, mode: may(place, mode) and not (place == path and mode & os.W_OK))


@fault("spool", "is no directory")
def file_in_the_spools_place(world, **_):
    world.spool.write_text("")


@fault("listener", "the last one gave its last sign of life at")
def heartbeat_that_stopped(world, **_):
    world.beat(age=120.0)


@fault("listener", "the last one was stopped at")
def listener_that_was_stopped(world, **_):
    world.beat(age=120.0, ended=True)
    world.move(Closed())


@fault("account-form", "account must not be")
def account_that_is_none(world, **_):
    world.accounts = []
    world.case |= {"accounts": ("..",), "url": f"https://{HOST}:{world.port}/callbacks/{TOKEN}"}
    world.registered = None


@fault("url-form", "is http")
def url_that_is_not_https(world, **_):
    world.case |= {"accounts": (ACCOUNT,), "url": f"http://{HOST}:{world.port}/callbacks/{{token}}"}


@fault("settings", "is http")
def url_in_the_file_that_is_not_https(world, **_):
    world.accounts[0]["url"] = f"http://{HOST}:{world.port}/callbacks/{{token}}"


@fault("tokens", "no token that fits its url")
def template_without_a_token(world, **_):
    with open_inbox(world.store) as inbox:
        inbox.set_token(TOKEN, state="retired", retire_at=micros(), now=micros())


@fault("tokens", "the listener of this store accepts other tokens")
def token_of_somebody_else(world, **_):
    world.accounts[0]["url"] = world.registered = world.url(STRANGE)


@fault("tokens", f"it was given for {OTHER}")
def token_of_another_account(world, **_):
    world.accounts[0]["url"] = world.registered
    world.case |= {"given": (Token(TOKEN, frozenset({OTHER})),)}


@fault("tokens", "it is retired")
def retired_token(world, **_):
    world.accounts[0]["url"] = world.registered = world.url(STRANGE)
    with open_inbox(world.store) as inbox:
        inbox.add_token(TokenRecord(STRANGE, ()), micros())
        inbox.set_token(STRANGE, state="retired", retire_at=micros(), now=micros())


@fault("dns", "does not resolve: Name or service not known")
def name_that_is_not_there(world, **_):
    def resolver(_):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    world.look |= {"resolver": resolver}


@fault("dns", "it has no address")
def name_without_an_address(world, **_):
    world.look |= {"resolver": lambda _: []}


@fault("dns", "the resolver did not answer in time")
def resolver_that_is_silent(world, **_):
    silence = threading.Event()
    world.stack.callback(silence.set)
    world.look |= {"resolver": lambda _: silence.wait(), "limits": Limits(resolve_seconds=0.05)}


@fault("dns", "leads to what ThingSpace cannot reach: 127.0.0.1 (this machine)")
def name_that_is_not_public(world, **_):
    world.base_url = "https://provider.example/api"


@fault("connect", "refused")
def closed_port(world, **_):
    world.move(Closed())


class Closed:
    """A port that nobody listens on, and that nobody else is given."""

    def __init__(self):
        self._taken = socket.socket()
        self._taken.bind(("127.0.0.1", 0))
        self.port = self._taken.getsockname()[1]
        self.close = self._taken.close


@fault("tls", "what answers there does not speak TLS")
def plain_http(world, **_):
    world.move(Something(None))


@fault("tls", "wants a client certificate")
def client_certificates_wanted(world, leaf, **_):
    context = server_context(leaf)
    context.verify_mode = ssl.CERT_REQUIRED
    world.authority.configure_trust(context)
    world.move(Something(context))


@fault("tls", "closed in the middle of the handshake")
def hang_up_in_the_handshake(world, **_):
    world.move(Something(None, b""))


@fault("tls-version", "1.2 or newer")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def old_tls(world, leaf, **_):
    context = server_context(leaf)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    world.move(Something(context))


@fault("certificate-chain", "the certificate is self-signed")
def self_signed(world, stranger, **_):
    world.move(Something(serving_pem(world.directory, stranger.private_key_pem, stranger.cert_pem)))


@fault("certificate-chain", "lead to no authority that this machine knows")
def unknown_authority(world, stranger, **_):
    world.move(Something(server_context(stranger.create_child_ca().issue_cert(HOST))))


@fault("certificate-chain", "ends at an authority that this machine does not know")
def unknown_root(world, stranger, **_):
    leaf = stranger.issue_cert(HOST)
    world.move(
        Something(serving_pem(world.directory, leaf.private_key_pem, leaf.cert_chain_pems[0], stranger.cert_pem))
    )


@fault("certificate-chain", "its intermediate certificate is missing")
def missing_intermediate(world, **_):
    leaf = world.authority.create_child_ca().issue_cert(HOST)
    world.move(Something(serving_pem(world.directory, leaf.private_key_pem, leaf.cert_chain_pems[0])))


@fault("certificate-dates", "certificate has expired: it holds from")
def expired_certificate(world, **_):
    leaf = world.authority.issue_cert(HOST, not_before=NOW - 9 * DAY, not_after=NOW - DAY)
    world.move(Something(server_context(leaf)))


@fault("certificate-dates", "certificate is not yet valid: it holds from")
def certificate_of_tomorrow(world, **_):
    leaf = world.authority.issue_cert(HOST, not_before=NOW + DAY, not_after=NOW + 90 * DAY)
    world.move(Something(server_context(leaf)))


@fault("certificate-name", "it names other.example, and not listener.example")
def certificate_of_another_host(world, **_):
    world.move(Something(server_context(world.authority.issue_cert("other.example"))))


@fault("redirect", "it answers 301, and leads to https://elsewhere.example")
def redirect(world, leaf, **_):
    location = b"Location: https://elsewhere.example/callbacks/canary-of-a-redirect\r\n"
    world.move(Something(server_context(leaf), b"HTTP/1.1 301 Moved\r\n" + location + b"Content-Length: 0\r\n\r\n"))


@fault("round-trip", "something answers 200 that is no listener of this token")
def something_else_that_answers(world, leaf, **_):
    world.move(Something(server_context(leaf)))


@fault("round-trip", "it answers 404")
def path_that_leads_nowhere(world, leaf, **_):
    world.move(Something(server_context(leaf), b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))


@fault("round-trip", "it answers 502: a proxy whose listener does not answer")
def proxy_alone(world, leaf, **_):
    world.move(Something(server_context(leaf), b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"))


@fault("round-trip", "it answers 403: something before the listener")
def firewall_before_it(world, leaf, **_):
    world.move(Something(server_context(leaf), b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"))


@fault("round-trip", "a listener answered with a proof that is not this token's")
def forged_proof(world, leaf, **_):
    said = json.dumps({"proof": "0" * 64, "source": "127.0.0.1", "listed": None, "time": "2026-01-01T00:00:00Z"})
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(said)}\r\n\r\n"
    world.move(Something(server_context(leaf), (head + said).encode()))


@fault("round-trip", "closed without an answer")
def no_answer_at_all(world, leaf, **_):
    world.look |= {"limits": Limits(objection_seconds=0.05)}
    world.move(Something(server_context(leaf), b""))


@fault("round-trip", "no HTTP answer")
def answer_that_is_no_http(world, leaf, **_):
    world.move(Something(server_context(leaf), b"220 mail.example ESMTP\r\n\r\n"))


@fault("answer-time", "5.0 s, and a callback is sent again after about 4 s")
def slow_answer(world, **_):
    world.look |= {"clock": itertools.count(step=5.0).__next__}


@fault("listener-clock", "the listener's clock is 1000 s behind this machine's")
def listener_of_yesterday(world, monkeypatch, **_):
    late = types.SimpleNamespace(time=lambda: time.time() - 1000)
    monkeypatch.setattr(upcall.listener.service, "time", late)


@fault("forwarded-for", f"it took this machine for {LISTED}, because the request said so")
def listener_that_believes_anybody(world, leaf, **_):
    world.move(Listener(world.store, server_context(leaf), proxies=["127.0.0.0/8"]))


@fault("registered", "nothing is registered")
def nothing_registered(world, **_):
    world.registered = None


@fault("registered", "somebody else's URL stands there: https://thief.example/callbacks/sto***")
def stolen_slot(world, **_):
    world.registered = "https://thief.example/callbacks/stolen-token"


@fault("registered", "an older URL of ours stands there")
def older_url_of_ours(world, **_):
    with open_inbox(world.store) as inbox:
        inbox.add_token(TokenRecord(STRANGE, (), state="retired"), micros())
    world.registered = world.url(STRANGE)


@fault("registered", "it could not be read: ThingSpace answered list_registered_callbacks with 400")
def account_that_the_provider_does_not_know(world, **_):
    world.accounts[0]["name"] = "not an account!"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_named_by_one_failing_check(case, world, leaf, stranger, monkeypatch):
    """Exactly one check fails, the right one; it says what was found, why it matters and what to do."""
    breaks, name, text = FAULTS[case]
    breaks(world, leaf=leaf, stranger=stranger, monkeypatch=monkeypatch)
    results = world.examined()
    assert named(results, "failed") == [name], [each for each in results if each.status == "failed"]
    failing = told(results, name)
    assert text in failing.found
    assert failing.why
    assert failing.todo
    blocked = [result.found for result in results if result.status == "skipped" and result.name != "port"]
    assert all(f"because {name} failed" in found or "no time" in found for found in blocked), blocked


def test_there_are_faults_enough_and_of_all_kinds():
    """Each check has a fault that fails it, but the port, which only warns, and the last callback."""
    assert {name for _, name, _ in FAULTS.values()} == CHECKS.keys() - {"port", "last-callback"}
    assert len(FAULTS) >= 15
