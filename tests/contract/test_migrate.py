"""The programs of docs/migrate.md run as they stand, each with its own SDK or with Upcall, and print the same lines.

What the document says gets better is measured here too, on both sides.
"""

from __future__ import annotations

import http.server
import inspect
import itertools
import json
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from upcall import (
    AnsweredError,
    CallbackSummary,
    Credentials,
    CredentialsError,
    FotaV2ResultException,
    FotaV2SuccessResult,
    ThingSpaceClient,
    UndecodableAnswerError,
    errors,
)
from upcall.cli.processes import clean_environment

DOCUMENT = (Path(__file__).parents[2] / "docs" / "migrate.md").read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"^## (\w+: .*?)\n.*?```python\n(.*?)```", DOCUMENT, re.DOTALL | re.MULTILINE))
AFTER = PROGRAMS.pop("After: Upcall")
NAMES = DOCUMENT.partition("## Names")[2].partition("## What gets better")[0]
BETTER = dict(re.findall(r"^\| (.*?) \| (.*?) \|", DOCUMENT.partition("## What gets better")[2], re.MULTILINE))
INSTALLED_SDK = "2.0.0"
ACCOUNT = "0000123456-00001"
ONE, TWO = "https://fleet.example.com:50559/callbacks/ONE", "https://fleet.example.com:50559/callbacks/TWO"
SANDBOX = {
    "THINGSPACE_OAUTH_OAUTH_CLIENT_ID": "sandbox",
    "THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET": "sandbox",
    "THINGSPACE_USERNAME": "sandbox",
    "THINGSPACE_PASSWORD": "sandbox",
}
PREAMBLE = """\
from verizon.configuration import Configuration, Environment
for server, url in Configuration.environments[Environment.PRODUCTION].items():
    root = url.replace("https://thingspace.verizon.com/api", {root!r})
    Configuration.environments[Environment.PRODUCTION][server] = root
"""
"""An SDK knows no root but its own, so its servers are renamed before the program begins."""


@pytest.fixture(scope="module")
def python_of(request):
    """Return what gives a Python with a version of the SDK: this one, or one in an environment made for it."""
    pythons = {INSTALLED_SDK: sys.executable}

    def python_of(version):
        if version not in pythons:
            # Only here: who looks at the installed version alone needs no uv.
            make_environment = request.getfixturevalue("make_environment")
            pythons[version] = make_environment(f"sdksio-verizon-apis-sdk=={version}")
        return pythons[version]

    return python_of


@pytest.fixture
def run(sandbox, python_of, tmp_path):
    """Return what runs a program against the sandbox, with the SDK's variables and a user name and a password."""

    def run(heading, *words, **changed):
        version = heading.removeprefix("Before: SDK ") if heading in PROGRAMS else None
        program, own = (AFTER, {"THINGSPACE_BASE_URL": sandbox, "UPCALL_STATE_DIR": str(tmp_path / "state")})
        if version is not None:
            program, own = PREAMBLE.format(root=sandbox) + PROGRAMS[heading], {}
        path = tmp_path / "program.py"
        path.write_text(program, encoding="utf-8")
        return subprocess.run(
            [python_of(version) if version else sys.executable, str(path), *words],
            cwd=tmp_path,
            env=clean_environment(**SANDBOX | own | changed),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    return run


EACH_SDK = pytest.mark.parametrize("heading", PROGRAMS)


def test_there_is_a_program_for_each_kind_of_constructor():
    """The document has a program of SDK 1.x with values, one with credential objects, and one of SDK 2."""
    assert list(PROGRAMS) == ["Before: SDK 1.0.0", "Before: SDK 1.7.0", f"Before: SDK {INSTALLED_SDK}"]


@EACH_SDK
def test_each_program_prints_the_same_lines_before_and_after(heading, run):
    """List, register, update and deregister: what the SDK's program prints, Upcall's prints too."""
    before, after = run(heading, ACCOUNT, ONE, TWO), run("After: Upcall", ACCOUNT, ONE, TWO)
    assert before.stdout == f"registered: None\nregister: {ONE}\nupdate: {TWO}\nderegister: True\n", before.stderr
    assert (after.stdout, after.stderr, after.returncode) == (before.stdout, "", before.returncode)


@EACH_SDK
@pytest.mark.parametrize(
    ("words", "changed", "told"),
    [
        (["not_an_account", ONE, TWO], {}, "refused: INVALID_PARAMETER: Invalid account name format\n"),
        (
            [ACCOUNT, ONE, TWO],
            {"THINGSPACE_USERNAME": "nobody", "THINGSPACE_PASSWORD": "wrong"},
            "failed with status 400\n",
        ),
    ],
    ids=["bad account", "wrong password"],
)
def test_each_program_handles_errors_the_same_before_and_after(heading, run, words, changed, told):
    """What the SDK's program catches, Upcall's catches too, and says in the same words."""
    before, after = run(heading, *words, **changed), run("After: Upcall", *words, **changed)
    assert (before.stderr, before.returncode) == (told, 1)
    assert (after.stdout, after.stderr, after.returncode) == (before.stdout, told, 1)


def test_a_refused_secret_is_caught_after_and_not_before(run):
    """SDK 2.0.0 says of a refused secret neither status nor reason; Upcall's program catches it."""
    wrong = {"THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET": "wrong"}
    before = run(f"Before: SDK {INSTALLED_SDK}", ACCOUNT, ONE, TWO, **wrong)
    after = run("After: Upcall", ACCOUNT, ONE, TWO, **wrong)
    assert "AuthValidationException: [ThingspaceOauth: OAuthToken is undefined or expired.]" in before.stderr
    assert "invalid_client" not in before.stderr
    assert after.stderr == "failed with status 401\n"


# --- The tables of names ----------------------------------------------------------------------------------------------


def test_each_constructor_argument_of_the_sdk_has_its_row():
    """Nothing that a user of SDK 2.0.0 passes to its client is left without a word on what becomes of it."""
    from verizon.http.auth.thingspace_oauth import ThingspaceOauthCredentials
    from verizon.verizon_client import VerizonClient

    arguments = [
        *inspect.signature(VerizonClient).parameters,
        *inspect.signature(ThingspaceOauthCredentials).parameters,
    ]
    passed = {argument for argument in arguments if argument not in {"config", "oauth_token"}}
    assert {argument for argument in passed if f"`{argument}=" not in NAMES} == set()


def test_each_variable_of_the_sdk_has_its_row():
    """Nothing that SDK 2.0.0 reads from the environment is left without a word on whether Upcall reads it."""
    import verizon

    sources = "".join(path.read_text(encoding="utf-8") for path in Path(verizon.__file__).parent.rglob("*.py"))
    variables = set(re.findall(r'getenv\(\s*"(\w+)"', sources))
    others = {variable for variable in variables if variable.startswith("THINGSPACE_OAUTH_1_")}
    assert len(variables) > 10
    assert "`THINGSPACE_OAUTH_1_…`" in NAMES
    assert {variable for variable in variables - others if f"`{variable}`" not in NAMES} == set()


def test_each_name_of_ours_is_one():
    """What the tables tell a user to write instead is an option, a credential or an exception of Upcall."""
    ours = " ".join(row.rpartition(" | ")[2] for row in re.findall(r"^\| (.*) \|$", NAMES, re.MULTILINE))
    options = {*inspect.signature(ThingSpaceClient).parameters, *Credentials.__struct_fields__}
    assert set(re.findall(r"`?\b(\w+)=[^h]", ours)) - options == set()
    assert [name for name in re.findall(r"`(\w+Error|\w+Exception)`", ours) if not hasattr(errors, name)] == []


# --- What gets better ------------------------------------------------------------------------------------------------


class Odd(http.server.ThreadingHTTPServer):
    """Issue tokens properly, answer the callbacks' path as told, and note what was asked there."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answering)
        self.root = f"http://127.0.0.1:{self.server_address[1]}/api"
        self._count = itertools.count(1)
        self.play()

    def play(self, status=200, body=b"", kind="application/json"):
        self.answer, self.asked, self.refused = (status, body, kind), [], set()

    def token(self):
        return f"token-{next(self._count)}"


class _Answering(http.server.BaseHTTPRequestHandler):
    def do(self):
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, body, kind = 200, b"", "application/json"
        if self.path.endswith("/oauth2/token"):
            body = json.dumps(
                {"access_token": self.server.token(), "token_type": "Bearer", "expires_in": 3600}
            ).encode()
        elif self.path.endswith("/session/login"):
            body = json.dumps({"sessionToken": self.server.token()}).encode()
        elif self.headers["Authorization"] in self.server.refused:
            status, body = 401, b'{"fault": {"code": 900901, "message": "Invalid Credentials"}}'
        else:
            self.server.asked.append((self.command, self.path, sent))
            status, body, kind = self.server.answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = do  # noqa: N815 - the base class names them so

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def odd_server():
    with Odd() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def odd(odd_server):
    odd_server.play()
    return odd_server


@pytest.fixture
def before(odd, monkeypatch):
    """Return the callbacks of the installed SDK, calling the odd server."""
    from verizon.configuration import Configuration, Environment
    from verizon.http.auth.thingspace_oauth import ThingspaceOauthCredentials
    from verizon.http.auth.vz_m2m_token import VZM2mTokenCredentials
    from verizon.verizon_client import VerizonClient

    servers = Configuration.environments[Environment.PRODUCTION]
    own = "https://thingspace.verizon.com/api"
    renamed = {server: url.replace(own, odd.root) for server, url in servers.items()}
    monkeypatch.setitem(Configuration.environments, Environment.PRODUCTION, renamed)
    client = VerizonClient(
        thingspace_oauth_credentials=ThingspaceOauthCredentials("id", "secret"),
        vz_m2m_token_credentials=VZM2mTokenCredentials("session"),
    )
    yield client.software_management_callbacks_v2
    client.config.http_client.session.close()


@pytest.fixture
def after(odd, tmp_path):
    """Return Upcall's callbacks, calling the odd server."""
    credentials = Credentials(client_id="id", client_secret="secret", username="user", password="password")
    with ThingSpaceClient(base_url=odd.root, credentials=credentials, state_dir=tmp_path, max_retries=1) as client:
        yield client.callbacks


def came_of(function, *arguments):
    """Return what a call returned, or the exception that it raised."""
    try:
        return function(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what came of it
        return error


def test_every_row_is_measured():
    """No row of the table stands without a test below."""
    source = Path(__file__).read_text(encoding="utf-8")
    rows = [row for row in BETTER if row not in {"what happens", "---"}]
    assert len(rows) > 10
    assert [row for row in rows if f'"{row}"' not in source] == []


def test_nothing_registered(odd, before, after):
    """The row "200, no body, nothing registered"."""
    assert before.list_registered_callbacks(ACCOUNT).body is None
    assert after.list_registered_callbacks(ACCOUNT) == CallbackSummary(url=None)


def test_an_empty_list(odd, before, after):
    """The row "200 `[]`"."""
    odd.play(body=b"[]")
    assert before.list_registered_callbacks(ACCOUNT).body == []
    assert after.list_registered_callbacks(ACCOUNT) == CallbackSummary(url=None)


def test_a_page(odd, before, after, monkeypatch):
    """The row "200 with an HTML page": what the SDK makes of it depends on what else is installed."""
    import jsonpickle

    odd.play(body=b"<html>hello</html>", kind="text/html")
    for readers, body in ((["json"], "<html>hello</html>"), (["json", "yaml"], None)):
        monkeypatch.setattr(jsonpickle.json, "_backend_names", readers)
        assert before.list_registered_callbacks(ACCOUNT).body == body
    assert isinstance(came_of(after.list_registered_callbacks, ACCOUNT), UndecodableAnswerError)


def test_no_content(odd, before, after):
    """The row "204 after DELETE"."""
    odd.play(status=204)
    assert before.deregister_callback(ACCOUNT).body is None
    assert after.deregister_callback(ACCOUNT) == FotaV2SuccessResult(success=True)


def test_a_bad_request_without_json(odd, before, after):
    """The row "400 that is no JSON"."""
    odd.play(status=400, body=b"bad", kind="text/plain")
    theirs, ours = (came_of(side.list_registered_callbacks, ACCOUNT) for side in (before, after))
    with pytest.raises(AttributeError):
        str(theirs)
    assert (type(ours), ours.error_code, "400" in str(ours)) == (FotaV2ResultException, None, True)


def test_a_server_error(odd, before, after):
    """The row "500 with code and message"."""
    odd.play(status=500, body=b'{"errorCode": "INTERNAL", "errorMessage": "sorry"}')
    theirs, ours = (came_of(side.list_registered_callbacks, ACCOUNT) for side in (before, after))
    assert type(theirs).__name__ == "APIException"
    assert not hasattr(theirs, "error_code")
    assert (type(ours), ours.error_code, ours.error_message) == (AnsweredError, "INTERNAL", "sorry")
    assert ours.attempts == 2  # one retry is what this client was given


def test_a_refused_bearer_token(odd, before, after):
    """The row "the bearer token is refused"."""
    for side in (before, after):
        side.list_registered_callbacks(ACCOUNT)
    odd.refused = {f"Bearer token-{number}" for number in range(1000)}
    theirs = came_of(before.list_registered_callbacks, ACCOUNT)
    assert (type(theirs).__name__, theirs.response_code) == ("APIException", 401)
    odd._count = itertools.count(1000)
    assert after.list_registered_callbacks(ACCOUNT) == CallbackSummary(url=None)


def test_a_refused_secret_says_why(sandbox, tmp_path):
    """The row "the OAuth secret is refused"; a test above has the SDK's side."""
    credentials = Credentials(client_id="sandbox", client_secret="wrong", username="sandbox", password="sandbox")
    with ThingSpaceClient(base_url=sandbox, credentials=credentials, state_dir=tmp_path) as client:
        ours = came_of(client.callbacks.list_registered_callbacks, ACCOUNT)
    assert (type(ours), ours.status_code, ours.error_code) == (CredentialsError, 401, "invalid_client")


def test_a_number_for_an_account(odd, before, after):
    """The row "the account is an `int`"."""
    before.list_registered_callbacks(242078689)
    assert [path for _, path, _ in odd.asked] == ["/api/fota/v2/callbacks/242078689"]
    assert isinstance(came_of(after.list_registered_callbacks, 242078689), TypeError)
    assert len(odd.asked) == 1


def test_a_url_without_tls(odd, before, after):
    """The row "the URL is `http://`"."""
    from verizon.models.fota_v2_callback_registration_request import FotaV2CallbackRegistrationRequest

    odd.play(body=b'{"url": "http://fleet.example.com/"}')
    before.register_callback(ACCOUNT, FotaV2CallbackRegistrationRequest("http://fleet.example.com/"))
    assert [json.loads(sent) for _, _, sent in odd.asked] == [{"url": "http://fleet.example.com/"}]
    assert isinstance(came_of(after.register_callback, ACCOUNT, {"url": "http://fleet.example.com/"}), ValueError)
    assert len(odd.asked) == 1


def test_a_text_for_a_body(odd, before, after):
    """The row "the body is a `str`"."""
    came_of(before.register_callback, ACCOUNT, ONE)
    assert [sent for _, _, sent in odd.asked] == [ONE.encode()]
    assert isinstance(came_of(after.register_callback, ACCOUNT, ONE), TypeError)
    assert len(odd.asked) == 1


def test_pickling(odd, before, after):
    """The row "an exception is pickled"."""
    odd.play(status=400, body=b'{"errorCode": "INVALID_PARAMETER", "errorMessage": "no"}')
    theirs, ours = (came_of(side.list_registered_callbacks, ACCOUNT) for side in (before, after))
    with pytest.raises(Exception, match=r"pickle|argument"):
        pickle.loads(pickle.dumps(theirs))
    copy = pickle.loads(pickle.dumps(ours))
    assert (type(copy), vars(copy)) == (type(ours), vars(ours))
