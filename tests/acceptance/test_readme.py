"""The README's snippets run as they are printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from upcall.cli.processes import Server, clean_environment

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block(word):
    (found,) = [text for text in BLOCKS if word in text]
    return found


@pytest.fixture
def environment(tmp_path):
    return clean_environment(UPCALL_STATE_DIR=str(tmp_path / "state"))


def test_the_first_two_blocks_are_the_demo_and_the_tests():
    """A newcomer who copies the README's first two commands runs the demo, then every test."""
    commands = re.findall(r"```\n(.*?)```", README, re.DOTALL)[:2]
    start = "python3 -m venv .venv && .venv/bin/pip install -q uv && .venv/bin/uv run --all-extras"

    assert commands == [f"{start} upcall demo\n", f"{start} pytest\n"]


def test_the_client_registers_and_reads_back(tmp_path, environment):
    """The client's ten lines, with credentials from the environment, print the URL that they registered."""
    sandbox = Server("sandbox", ["sandbox", "--port", "0"], environment, tmp_path / "sandbox.log")
    try:
        names = ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD")
        credentials = {f"THINGSPACE_{name}": "sandbox" for name in names}
        ran = subprocess.run(
            [sys.executable, "-c", block("ThingSpaceClient()")],
            env=environment | credentials | {"THINGSPACE_BASE_URL": sandbox.url},
            capture_output=True,
            text=True,
            timeout=200,
            check=True,
        )
    finally:
        sandbox.stop()

    assert ran.stdout == "https://fleet.example.com:50559/callbacks/TOKEN\n"


def test_the_test_of_the_handler_passes(tmp_path, environment):
    """The handler's ten lines as `mymodule`, and the test's ten lines beside it, pass under plain pytest."""
    (tmp_path / "mymodule.py").write_text(block("app = Upcall()"), encoding="utf-8")
    (tmp_path / "test_mymodule.py").write_text(block("def test_failures"), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", str(tmp_path)],
        env=environment | {"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout
    assert "1 passed" in ran.stdout


def test_every_command_stands_in_the_readme():
    """Every command of the command line is named in the README."""
    from upcall.cli.main import app

    groups = {group.name for group in app.registered_groups}
    commands = {command.name for command in app.registered_commands}
    missing = [name for name in groups | commands if f"upcall {name}" not in README]

    assert missing == []
