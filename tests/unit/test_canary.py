"""The watch over secrets itself: each way to leak is seen, and what may be shown is not taken for a leak.

The leaks are those of a run of pytest of its own, with the watch of this one and tests that leak on purpose.
"""

from __future__ import annotations

import ast
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import Future
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import msgspec
import pytest

import upcall.client
from upcall.client import AsyncThingSpaceClient, ThingSpaceClient, auth, effects, operations, tokenstore
from upcall.client.answers import Answer
from upcall.client.failures import Tally
from upcall.client.latch import LoginLatch
from upcall.client.operations.base import ReadBack
from upcall.client.raw import RawResponse
from upcall.errors import SettingsError
from upcall.sandbox.state import Credentials as SandboxCredentials
from upcall.settings import Credentials

WATCH = Path(__file__).parents[1] / "canary.py"
ACCOUNT = "0000123456-00001"

# --- Each way to leak ------------------------------------------------------------------------------------------------

CONFTEST = f"""
import importlib.util, os

os.environ.pop("UPCALL_LOG_FILE", None)  # the one in which the watch of the outer run reads

def pytest_configure(config):
    spec = importlib.util.spec_from_file_location("watch_over_secrets", {str(WATCH)!r})
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config.pluginmanager.register(module.Plugin())
"""

MODULE = r'''
import base64, json, logging, os, pathlib, random, subprocess, sys, uuid
import pytest
import upcall
from upcall.client.auth import Token, TokenSlot
from upcall.errors import NoAnswerError, SettingsError, UpcallError
from upcall.sandbox.state import AccessState
from upcall.settings import Credentials

SECRET = "canary-of-a-test"
SAY = f"print(1); print({SECRET!r})"

log = logging.getLogger("watched")


class Sly:
    def __str__(self):
        return "nothing"

    def __repr__(self):
        return SECRET


def product(source):
    """Make a function that stands in the product."""
    names = {"SettingsError": SettingsError}
    exec(compile(source, str(pathlib.Path(upcall.__file__).with_name("made_up.py")), "exec"), names)
    return names["f"]


def child(code, **options):
    return subprocess.Popen([sys.executable, "-c", code], text=True, **options)


def client(**credentials):
    return upcall.ThingSpaceClient(credentials=Credentials(**credentials))


def hold(value):
    slot = TokenSlot()
    slot.adopt(slot.take(0.0).flight, Token(value))


@pytest.fixture(autouse=True)
def plain():
    """A secret of each test that looks like any other identifier."""
    global PLAIN
    PLAIN = f"5f0c7a1e-{uuid.uuid4()}"


@pytest.fixture
def untidy():
    yield
    print(SECRET)
'''

LEAKS = r'''
def test_log_message():
    "a marked value in the log record of watched"
    log.debug("%s", SECRET)

def test_log_argument():
    "a marked value in the argument of a log record of watched"
    log.info("%s", Sly())

def test_log_argument_by_name():
    "a marked value in the argument of a log record of watched"
    log.info("%(x)s", {"x": "nothing", "y": SECRET})

def test_log_extra():
    "a marked value in the argument of a log record of watched"
    log.info("x", extra={"more": [SECRET]})

def test_log_trace():
    "a marked value in the trace in a log record of watched"
    try:
        raise ValueError(SECRET)
    except ValueError:
        log.exception("x")

def test_logger_that_stands_alone():
    "a marked value in the log record of alone"
    alone = logging.getLogger("alone")
    alone.propagate = False
    alone.setLevel(logging.CRITICAL)
    alone.debug(SECRET)

def test_error():
    "a marked value in the text of SettingsError"
    SettingsError(SECRET)

def test_error_that_lives_on():
    "a marked value in the text of SettingsError"
    global kept
    kept = SettingsError(SECRET)

def test_hint():
    "a marked value in the text of SettingsError"
    SettingsError("x", hint=SECRET)

def test_repr():
    "a marked value in the repr of Odd"
    class Odd(UpcallError):
        __repr__ = Sly.__repr__
    Odd("x")

def test_pickle():
    "a marked value in the pickle of NoAnswerError"
    NoAnswerError("x", error_message=SECRET)

def test_local_name():
    "a marked value in the trace of SettingsError, as given in f"
    f = product("def f(given): raise SettingsError('x')")
    with pytest.raises(SettingsError):
        f(SECRET)

def test_local_name_where_nobody_keeps_the_error():
    "a marked value in the trace of SettingsError, as given in f"
    f = product("def f(given): raise SettingsError('x')")
    try:
        f(SECRET)
    except SettingsError:
        pass

def test_cause():
    "a marked value in the trace of SettingsError, as mine in inner"
    f = product("""
def inner(mine):
    raise LookupError("x")
def f(mine):
    try:
        inner(mine)
    except LookupError as error:
        mine = None
        raise SettingsError("x") from error
""")
    with pytest.raises(SettingsError):
        f([SECRET])

def test_error_of_another_kind():
    "a marked value in the text of LookupError"
    with pytest.raises(LookupError):
        product("def f(given): raise LookupError(given)")(SECRET)

def test_file(tmp_path):
    "a marked value in the file test_file0/a/b"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text("x" * 9000 + SECRET)

def test_file_that_is_no_text(tmp_path):
    "a marked value in the file test_file_that_is_no_text0/a"
    (tmp_path / "a").write_bytes(b"\xff\x00" + SECRET.encode())

def test_name_of_a_file(tmp_path):
    "a marked value in the name of a file"
    (tmp_path / SECRET).touch()

def test_stdout():
    "a marked value in the captured stdout"
    print(SECRET)

def test_stderr():
    "a marked value in the captured stderr"
    print(SECRET, file=sys.stderr)

def test_stdout_that_was_taken(capsys):
    "a marked value in the captured stdout"
    print(SECRET)
    capsys.readouterr()

def test_stdout_of_a_child():
    "a marked value in the stdout of `python"
    subprocess.run([sys.executable, "-c", SAY], capture_output=True)

def test_stderr_of_a_child():
    "a marked value in the stderr of `python"
    subprocess.run([sys.executable, "-c", f"raise SystemExit({SECRET!r})"], stderr=subprocess.PIPE)

def test_line_of_a_child():
    "a marked value in the stdout of `python"
    with child(SAY, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.readline()

def test_lines_of_a_child():
    "a marked value in the stdout of `python"
    with child(SAY, stdout=subprocess.PIPE) as process:
        list(process.stdout)

def test_pieces_of_a_child():
    "a marked value in the stdout of `python"
    with child(SAY, stdout=subprocess.PIPE) as process:
        while process.stdout.read(5):
            pass

def test_log_of_a_child():
    "a marked value in the log of `python"
    child(f"import os; open(os.environ['UPCALL_LOG_FILE'], 'w').write({SECRET!r})", env={}).wait()

def test_what_a_child_is_given():
    "the value of THINGSPACE_PASSWORD in the stdout of `python"
    code = "import os; print(os.environ['THINGSPACE_PASSWORD'])"
    with child(code, env={"THINGSPACE_PASSWORD": PLAIN}, stdout=subprocess.PIPE) as process:
        process.communicate()

def test_token():
    "a token in the captured stdout"
    hold(PLAIN)
    print(PLAIN)

def test_token_before_it_is_known():
    "a token in the captured stdout"
    print(PLAIN)
    hold(PLAIN)

def test_password():
    "the password in the captured stdout"
    client(password=PLAIN)
    print(PLAIN)

def test_client_secret():
    "the client secret in the captured stdout"
    client(client_secret=PLAIN)
    print(PLAIN)

def test_given_session_token():
    "the given session token in the captured stdout"
    client(session_token=PLAIN)
    print(PLAIN)

def test_basic_pair():
    "the Basic pair in the captured stdout"
    client(client_id="i", client_secret=PLAIN)
    print(base64.b64encode(f"i:{PLAIN}".encode()))

def test_bearer_token_of_the_sandbox():
    "a bearer token of the sandbox in the captured stdout"
    print(AccessState().issue_token("sandbox", 0.0, random)[0].token)

def test_session_token_of_the_sandbox():
    "a session token of the sandbox in the captured stdout"
    print(AccessState().log_in("sandbox", "sandbox", 0.0, random).session_token)

def test_authorization_of_somebody_else():
    "an Authorization header in the captured stdout"
    print({"Authorization": f"Bearer {PLAIN}"})

def test_session_header_of_somebody_else():
    "a VZ-M2M-Token header in the captured stdout"
    print([(b"VZ-M2M-Token", PLAIN.encode())])

def test_answer_to_somebody_else():
    "an issued token in the captured stdout"
    print(json.dumps({"sessionToken": PLAIN}))

def test_teardown(untidy):
    "a marked value in the captured stdout"
'''

FINE = r"""
def test_record_that_a_filter_holds_back():
    logger = logging.getLogger("filtered")
    logger.addFilter(lambda record: False)
    logger.warning(SECRET)

def test_secrets_that_are_only_held():
    hold(PLAIN)
    client(client_id="i", client_secret=PLAIN, password=PLAIN, session_token=PLAIN)
    print(hash(SECRET))

def test_local_name_of_a_test():
    own = SECRET
    with pytest.raises(SettingsError):
        product("def f(): raise SettingsError('x')")()

def test_error_of_a_test():
    with pytest.raises(ValueError):
        raise ValueError(SECRET)

def test_token_store(tmp_path):
    (tmp_path / "tokens.json").write_text(SECRET)

def test_what_is_blanked():
    print({"Authorization": "Bearer ***", "VZ-M2M-Token": "***", "sessionToken": "***"})

def test_words():
    print("Bearer authentication-is-what-it-says; Basic knowledge; VZ-M2M-Token: in a header")

def test_values_that_are_part_of_any_text():
    client(client_id="i", client_secret="secret", password="password")
    hold("t")
    print("the secret, the password, the token")

def test_credentials_of_the_sandbox():
    client(client_id="sandbox", client_secret="sandbox", password="sandbox")
    print("sandbox")

def test_levels_are_as_they_were(caplog):
    log.debug("too low")
    log.warning("high enough")
    assert caplog.messages == ["high enough"]
"""


def cases(source):
    """Return the names of the tests of a module's source, each with its first string."""
    return {function.name: ast.get_docstring(function) for function in ast.parse(source).body}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Run all that under the watch; return the outcomes of each test, with the line that tells of it."""
    # The directory of no test, whose files the watch of this run does not read, and no pipe, to which it would listen.
    place = tmp_path_factory.mktemp("leaks")
    (place / "conftest.py").write_text(CONFTEST)
    (place / "test_leaks.py").write_text(f"{MODULE}\n{LEAKS}\n{FINE}")
    options = ["-q", "-rA", "-W", "error", *(f"-pno:{name}" for name in ("randomly", "cacheprovider", "asyncio"))]
    with (place / "said.txt").open("w") as said:
        subprocess.run(
            [sys.executable, "-m", "pytest", *options, "test_leaks.py"],
            cwd=place,
            env=os.environ | {"COLUMNS": "500"},
            stdout=said,
            stderr=subprocess.STDOUT,
            timeout=250,
            check=False,
        )
    text = (place / "said.txt").read_text()
    outcomes = {name: [] for name in cases(LEAKS + FINE)}
    for outcome, name, line in re.findall(r"^([A-Z]+) test_leaks\.py::(\w+)(?: - (.*))?$", text, re.MULTILINE):
        outcomes[name].append((outcome, line))
    return outcomes


@pytest.mark.parametrize(("name", "what"), cases(LEAKS).items(), ids=cases(LEAKS))
def test_a_leak_fails_its_test(told, name, what):
    """A secret that comes to light fails the test that showed it, with one line that says which one and where."""
    ((outcome, line),) = [one for one in told[name] if one[0] != "PASSED"]
    assert line.startswith("Failed: A secret leaked: ")
    assert what in line
    assert not re.search("canary-of|5f0c7a1e", line)
    # What is found when the fixtures are gone is pytest's "error", all else its "failure".
    assert outcome == ("ERROR" if "file" in what or "teardown" in name else "FAILED")


@pytest.mark.parametrize("name", cases(FINE))
def test_what_is_no_leak_passes(told, name):
    """A secret that is only held, a word, and what was blanked fail no test."""
    assert [outcome for outcome, _ in told[name]] == ["PASSED"]


def test_this_very_run_is_watched(request):
    """The watch is always on: no option or variable leaves it out."""
    assert request.config.pluginmanager.has_plugin("canary")


# --- What shows itself ------------------------------------------------------------------------------------------------

SECRET = "canary-in-a-value"
TOKEN = auth.Token(SECRET, 1.0, 2.0, 3.0)
CREDENTIALS = Credentials(
    client_id="id-1", client_secret=SECRET, username="user", password=SECRET, session_token=SECRET
)
ANSWER = Answer(status=200, headers={"x": SECRET}, body=SECRET.encode())
REQUEST = effects.Request(method="POST", root="https://h", path="/x", headers={"x": SECRET}, body=SECRET.encode())
CALL = operations.log_in("user", SECRET)
ISSUED = operations.IssuedToken(SECRET, 1.0)


def landed():
    flight = Future()
    flight.set_result(TOKEN)
    return flight


def stored(path):
    return tokenstore.TokenStore(path / "tokens.json", "https://h/api", CREDENTIALS)


HOLDERS = {
    "Credentials": lambda _: CREDENTIALS,
    "Credentials of the sandbox": lambda _: SandboxCredentials(client_secret=SECRET, password=SECRET),
    "Token": lambda _: TOKEN,
    "Seat": lambda _: auth.Seat(landed(), leads=True),
    "TokenSlot": lambda _: auth.TokenSlot(fixed=SECRET),
    "IssuedToken": lambda _: ISSUED,
    "StoredToken": lambda _: tokenstore.StoredToken(SECRET, 1.0, 2.0, 3.0),
    "_Entry": lambda _: tokenstore._Entry("mark", {"bearer": tokenstore.StoredToken(SECRET, 1.0)}),
    "_Document": lambda _: tokenstore._Document("salt", {"key": HOLDERS["_Entry"](None)}),
    "TokenStore": stored,
    "LoginLatch": LoginLatch,
    "Request": lambda _: REQUEST,
    "Send": lambda _: effects.Send(REQUEST, 1.0),
    "Join": lambda _: effects.Join(landed(), 1.0),
    "Launch": lambda _: effects.Launch((SECRET for _ in ()), partial(print, "ended")),
    "Do, of a login": lambda path: effects.Do(partial(LoginLatch(path).claim, "https://h", "user", SECRET)),
    "Do, of a token": lambda path: effects.Do(partial(stored(path).drop, "bearer", SECRET)),
    "Call": lambda _: CALL,
    "ReadBack": lambda _: ReadBack(call=CALL, settle=print, mark=print),
    "Answer": lambda _: ANSWER,
    "Reply, of a token": lambda _: effects.Reply(parsed=ISSUED, answer=ANSWER, attempts=1, elapsed_seconds=1.0),
    "Reply, of a login": lambda _: effects.Reply(parsed=SECRET, answer=ANSWER, attempts=1, elapsed_seconds=1.0),
    "RawResponse": lambda _: RawResponse(
        status=200, headers={"x": SECRET}, request_id=None, elapsed=timedelta(0), attempts=1, parsed=None
    ),
    "Tally": lambda _: Tally(base_url="https://h/api", attempts=1, elapsed_seconds=1.0, secrets=(SECRET,)),
    "ThingSpaceClient": lambda _: ThingSpaceClient(credentials=CREDENTIALS),
    "AsyncThingSpaceClient": lambda _: AsyncThingSpaceClient(credentials=CREDENTIALS),
    "Exchange": lambda _: ThingSpaceClient(credentials=CREDENTIALS)._exchange,
    "Authenticator": lambda _: ThingSpaceClient(credentials=CREDENTIALS)._exchange.auth,
    "Observer": lambda _: ThingSpaceClient(credentials=CREDENTIALS)._exchange._observer,
    "Driver": lambda _: ThingSpaceClient(credentials=CREDENTIALS)._driver,
    "AsyncDriver": lambda _: AsyncThingSpaceClient(credentials=CREDENTIALS)._driver,
}
"""Each thing of the client that holds a secret, with one in it."""

HARMLESS = {
    "AccountResult": "what the user sees: a result, or an error without secrets",
    "CallEvent": "what the user sees: secrets are blanked before it is made",
    "Claim": "fingerprints",
    "Clock": "functions",
    "Complaint": "the provider's words, before they are blanked: see the test of what the provider echoes",
    "Entry": "fingerprints",
    "Failure": "the system's words",
    "LatchState": "numbers and a path",
    "Limits": "numbers",
    "Operation": "a description",
    "Pending": "fingerprints",
    "Refusal": "a reason and a path",
    "RetryPolicy": "numbers",
    "TokenState": "times",
    "Wait": "seconds",
    "_Count": "fingerprints",
}


@pytest.mark.parametrize("name", HOLDERS)
def test_nothing_that_holds_a_secret_shows_it(name, tmp_path):
    """A repr in a debugger, a log or a trace tells what a thing is, and no secret in it."""
    held = HOLDERS[name](tmp_path)
    assert SECRET not in f"{held!r} {held} {[held]} { ({'held': held}) }"


def test_each_kind_of_value_of_the_client_is_judged():
    """A new kind of value says here that it holds no secret, or is shown above to keep it."""
    modules = [import_module(found.name) for found in walk_packages(upcall.client.__path__, "upcall.client.")]
    kinds = {
        kind.__name__
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__module__ == module.__name__
    }
    assert kinds - {name.partition(",")[0] for name in HOLDERS} == HARMLESS.keys()


# --- Where it is hard to keep a secret -------------------------------------------------------------------------------


class Provider(http.server.ThreadingHTTPServer):
    """Issue tokens, and show each caller what it sent: in headers, and in the errors that it is told to answer with."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.base_url = f"http://127.0.0.1:{self.server_port}/api"
        self.refusals = []

    def answer(self, path, headers, body):
        sent = f"{headers['Authorization']} {headers['VZ-M2M-Token']} {body.decode()}"
        shown = {"X-Request-Id": sent, "Server": sent, "Set-Cookie": sent}
        if self.refusals and self.refusals[0][0] in path:
            _, status, shape = self.refusals.pop(0)
            if shape == "fault":
                return status, {"fault": {"code": "900901", "message": sent}}, shown
            return status, {"errorCode": sent, "errorMessage": f"No: {sent}"}, shown
        document = {"access_token": "canary-bearer", "sessionToken": "canary-session"}
        return 200, {"url": "https://host.example/x", "success": True} if "fota" in path else document, shown


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, document, headers = self.server.answer(self.path, self.headers, body)
        raw = json.dumps(document).encode()
        self.send_response(status)
        for name, value in (headers | {"Content-Length": len(raw)}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - http.server names them so

    def log_message(self, *_):
        pass


@pytest.fixture
def provider():
    with Provider() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def command(provider, tmp_path):
    """Run a command against the provider, all of its logs shown; return what came of it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("THINGSPACE_", "UPCALL_", "VZ_"))}
    own |= {
        "THINGSPACE_BASE_URL": provider.base_url,
        "THINGSPACE_CLIENT_ID": "id-1",
        "THINGSPACE_CLIENT_SECRET": "canary-secret",
        "THINGSPACE_USERNAME": "user",
        "THINGSPACE_PASSWORD": "canary-password",
        "UPCALL_MAX_RETRIES": "1",
        "UPCALL_STATE_DIR": str(tmp_path / "state"),
        "UPCALL_TOKEN_STORE": "1",
        "UPCALL_LOG": "debug",
    }

    def run(*words, **environment):
        return subprocess.run(
            [sys.executable, "-m", "upcall", *words],
            env=own | environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    return run


CALLS = {
    "login": ("login", "--json"),
    "show": ("callbacks", "show", ACCOUNT),
    "register": ("callbacks", "register", ACCOUNT, "--url", "https://host.example/y", "--replace"),
    "update": ("callbacks", "update", ACCOUNT, "--url", "https://host.example/y", "--json"),
    "deregister": ("callbacks", "deregister", ACCOUNT, "--yes"),
}


@pytest.mark.parametrize("words", CALLS.values(), ids=CALLS)
def test_no_command_shows_a_secret_at_debug(command, words):
    """What a command prints and logs holds no secret, and neither does `whoami` after it."""
    done = command(*words)
    assert done.returncode in {0, 1}
    assert done.stderr.count("DEBUG upcall.client: ") > 1
    assert done.stderr.count("DEBUG httpcore2") > 1
    assert command("whoami").returncode == 0


@pytest.mark.parametrize(
    ("path", "status"),
    [("oauth2", 400), ("oauth2", 503), ("login", 401), ("login", 503), ("fota", 400), ("fota", 401), ("fota", 503)],
)
def test_no_refused_command_shows_a_secret_that_the_provider_echoes(command, provider, path, status):
    """A provider that repeats the secrets that it was sent does not bring them to light."""
    provider.refusals = [(path, status, "result")] * 4
    refused = command(*CALLS["show"])
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "ThingSpace answered" in refused.stderr
    assert refused.stderr.count("DEBUG upcall.client: ") > 1


class StoppedError(Exception):
    """Something that nobody foresaw."""


def stop(*_, **__):
    raise StoppedError


DISK = [
    (LoginLatch, "claim"),
    (LoginLatch, "succeeded"),
    (tokenstore.TokenStore, "load"),
    (tokenstore.TokenStore, "save"),
    (tokenstore.TokenStore, "touch"),
    (tokenstore.TokenStore, "drop"),
]


@pytest.fixture
def given(provider, tmp_path, monkeypatch):
    """What a client is given that keeps tokens, notes each use of one, and will lose one."""
    monkeypatch.setattr("upcall.client.authenticator._TOUCH_SECONDS", -1.0)
    provider.refusals = [("fota", 401, "fault")]
    credentials = Credentials(
        client_id="id-1", client_secret="canary-secret", username="user", password="canary-password"
    )
    return {
        "base_url": provider.base_url,
        "credentials": credentials,
        "token_store": tmp_path / "tokens.json",
        "state_dir": tmp_path,
    }


@pytest.mark.parametrize(("owner", "name"), DISK, ids=[name for _, name in DISK])
def test_what_breaks_at_the_disk_shows_no_secret(given, monkeypatch, owner, name):
    """An error of the state directory that nobody foresaw reaches the caller with a trace that holds no secret."""
    monkeypatch.setattr(owner, name, stop)
    with ThingSpaceClient(**given) as client, pytest.raises(StoppedError):
        client.callbacks.list_registered_callbacks(ACCOUNT)


@pytest.mark.parametrize("name", ["touch", "drop"])
async def test_what_breaks_at_the_disk_shows_no_secret_in_a_task(given, monkeypatch, name):
    """The same where the disk is seen to in a thread of the event loop's."""
    monkeypatch.setattr(tokenstore.TokenStore, name, stop)
    async with AsyncThingSpaceClient(**given) as client:
        with pytest.raises(StoppedError):
            await client.callbacks.list_registered_callbacks(ACCOUNT)


@pytest.mark.parametrize("kind", [ThingSpaceClient, AsyncThingSpaceClient])
@pytest.mark.parametrize(
    "wrong",
    [
        {"UPCALL_TIMEOUT_SECONDS": "soon"},
        {"UPCALL_CONFIG": "nowhere/upcall.toml"},
        {"THINGSPACE_ENVIRONMENT": "qa", "THINGSPACE_BASE_URL": "https://h.example/api"},
        {"THINGSPACE_ENVIRONMENT": "nowhere"},
        {"THINGSPACE_USERNAME_FILE": "nowhere/secret", "THINGSPACE_USERNAME": ""},
        {"THINGSPACE_PASSWORD_FILE": "secret", "THINGSPACE_PASSWORD": ""},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_setting_shows_no_secret_beside_it(tmp_path, monkeypatch, kind, wrong):
    """An error about one variable has a trace that shows neither the other variables nor a file's bytes."""
    (tmp_path / "secret").write_bytes(b"canary-in-a-file \xff")
    monkeypatch.chdir(tmp_path)
    for name, value in {"CLIENT_SECRET": "canary-secret", "PASSWORD": "canary-password", "USERNAME": "user"}.items():
        monkeypatch.setenv(f"THINGSPACE_{name}", value)
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError):
        kind()
