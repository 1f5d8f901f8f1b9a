"""The programs and commands of docs/client.md run as they stand, against a real sandbox."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from upcall import Credentials, ThingSpaceClient, errors
from upcall.cli.processes import clean_environment

DOCUMENT = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
SETTINGS_FILE = re.search(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)[1]
EXPORTS = dict(re.findall(r"(THINGSPACE_\w+)=(\S+)", DOCUMENT.partition("## Sync or async")[0].partition("export ")[2]))
COMMANDS = [
    shlex.split(line, comments=True)
    for line in DOCUMENT.partition("## On the command line")[2].splitlines()
    if line.startswith("upcall ")
]
ACCOUNT = "0000123456-00001"


def _programs():
    """Yield the heading of each program, numbered where it is not the first of its part, and the program."""
    for part in re.split(r"^## ", DOCUMENT, flags=re.MULTILINE)[1:]:
        heading = part.partition("\n")[0]
        for number, text in enumerate(re.findall(r"```python\n(.*?)```", part, re.DOTALL), 1):
            yield (heading if number == 1 else f"{heading}, {number}"), text


PROGRAMS = dict(_programs())
TESTS = {heading: text for heading, text in PROGRAMS.items() if "import pytest" in text}


def printed_by(program):
    """Return the lines that a program must print: what stands behind each `print` to stdout, in order."""
    lines = program.splitlines()
    told = []
    calls = (node for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Call))
    for call in sorted(calls, key=lambda call: call.lineno):
        if getattr(call.func, "id", None) == "print" and not call.keywords:
            told += lines[call.end_lineno - 1][call.end_col_offset :].partition("  # ")[2].split(" / ")
    return told


@pytest.fixture
def run(sandbox, tmp_path):
    """Return what runs a command where the page's settings file lies, with what the page exports."""
    (tmp_path / "upcall.toml").write_text(SETTINGS_FILE, encoding="utf-8")
    secrets = {}
    for table in tomllib.loads(SETTINGS_FILE)["credentials"].values():
        for name, place in table.items():
            if name.endswith("_file"):
                (tmp_path / place).write_text("sandbox\n", encoding="utf-8")
            else:
                secrets[place] = "sandbox"
    own = EXPORTS | {"THINGSPACE_BASE_URL": sandbox, "UPCALL_STATE_DIR": str(tmp_path / "state")}
    environment = clean_environment(**secrets, **own, PATH=os.environ["PATH"])
    credentials = Credentials(**dict.fromkeys(("client_id", "client_secret", "username", "password"), "sandbox"))
    with ThingSpaceClient(base_url=sandbox, credentials=credentials, state_dir=tmp_path / "ours") as client:
        client.callbacks.deregister_callback(ACCOUNT)

    def run(*words):
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
        )

    return run


def test_the_page_exports_what_a_sandbox_wants():
    """A reader who copies the exports can log in at the sandbox of the line above."""
    names = {f"THINGSPACE_{name}" for name in ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD")}
    assert names | {"THINGSPACE_BASE_URL"} == set(EXPORTS)
    assert {EXPORTS[name] for name in names} == {"sandbox"}
    assert f"ready {EXPORTS['THINGSPACE_BASE_URL']}" in DOCUMENT


@pytest.mark.parametrize("heading", [heading for heading in PROGRAMS if heading not in TESTS])
def test_each_program_prints_what_the_page_says(heading, run, tmp_path):
    """A program of the page, word for word, prints what stands behind its prints, and warns of nothing."""
    (tmp_path / "program.py").write_text(PROGRAMS[heading], encoding="utf-8")
    ran = run("-W", "error", "program.py")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == printed_by(PROGRAMS[heading])
    assert "Warning" not in ran.stderr


@pytest.mark.parametrize("heading", TESTS)
def test_each_test_of_the_page_passes(heading, run, tmp_path):
    """A test module of the page, word for word, passes under plain pytest."""
    (tmp_path / "test_page.py").write_text(TESTS[heading], encoding="utf-8")
    ran = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "test_page.py")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


def test_each_command_of_the_page_succeeds(run):
    """The commands of the page, one after the other, do what they say and exit with 0."""
    assert len(COMMANDS) > 5
    for words in COMMANDS:
        ran = run("-m", *words)
        assert ran.returncode == 0, f"{shlex.join(words)}: {ran.stderr}"
        assert ran.stdout


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TypeError("account"), "correct the call: account"),
        (ValueError("url"), "correct the call: url"),
        (errors.SettingsError("missing"), "correct the settings: missing"),
        (errors.RequestNotSentError("refused"), "later"),
        (errors.NoAnswerError("silence"), "what is registered"),
        (errors.UndecodableAnswerError("a page"), "what is registered"),
        (errors.LoginLatchedError("twice"), "tell somebody: twice"),
        (errors.CredentialsError("wrong", operation="login"), "login was refused: wrong"),
        (errors.FotaV2ResultException("400", error_code="X", error_message="y"), "X: y"),
        (errors.AnsweredError("503", status_code=503), "status 503, again in 60 s"),
        (errors.AnsweredError("503", status_code=503, retry_after_seconds=7.0), "status 503, again in 7 s"),
    ],
)
def test_each_error_has_its_example(error, told):
    """The example of the part on errors tells each of them apart, and does what the class allows."""

    class Callbacks:
        callbacks = property(lambda self: self)

        def register_callback(self, account, body):
            raise error

        def list_registered_callbacks(self, account):
            from upcall import CallbackSummary

            return CallbackSummary(url="what is registered")

    scope = {}
    exec(PROGRAMS["Errors"].partition("\n\n\nwith ")[0], scope)
    assert scope["register"](Callbacks(), ACCOUNT, "https://fleet.example.com/one") == told
