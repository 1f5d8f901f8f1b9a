"""docs/settings.md shows a whole settings file that is sound, and everything that one may hold."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from upcall.settings import Account, Settings, SettingsProblem, read_accounts, read_settings
from upcall.settings.file import SettingsFile
from upcall.settings.tables import File, References

DOCUMENT = (Path(__file__).parents[3] / "docs" / "settings.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)[1]
WHOLE = re.sub(r"^# (?=\w+ = )", "", EXAMPLE, flags=re.MULTILINE)
"""The example with everything that stands in it as a comment."""

SECRETS = {"alert-url": "https://hooks.example.com/x", "east-secret": "a-secret", "east-password": "a-password"}


@pytest.fixture
def directory(tmp_path):
    """Lay the example down, with the files that it names."""
    for name, value in {"upcall.toml": EXAMPLE, **SECRETS}.items():
        (tmp_path / name).write_text(f"{value}\n", encoding="utf-8")
    return tmp_path


def keys_of(kind):
    """Return the tables of a settings file with what may stand in each."""
    tables = {field.name: field.type for field in msgspec.structs.fields(kind)}
    tables |= {"accounts": Account, "credentials": References}
    return {name: set(table.__struct_fields__) for name, table in tables.items()}


def test_the_example_is_sound(directory):
    """Who begins with the example as it stands gets what its comments say."""
    environ = {"EAST_CLIENT_ID": "an-id", "EAST_USERNAME": "a-user"}
    settings = read_settings(environ, config=directory / "upcall.toml")
    assert settings.alert_url == SECRETS["alert-url"]
    first, second = settings.accounts
    assert settings.credentials_of(first).missing() == ()
    assert (second.credentials, second.labels) == (None, ())
    assert read_accounts(directory / "upcall.toml") == settings.accounts


def test_the_example_shows_every_key():
    """Each table and key that may be there is there, as a comment where another stands for it, and no other is."""
    document = tomllib.loads(WHOLE)
    shown = {name: set(table) for name, table in document.items() if isinstance(table, dict)}
    shown["accounts"] = set().union(*document["accounts"])
    shown["credentials"] = set(document["credentials"]["east"])
    assert shown == keys_of(File)


def test_what_stands_as_a_comment_can_be_used_in_its_place():
    """All of it at once is wrong only where the comments say that one of two is enough."""
    problems = SettingsFile(Path("upcall.toml"), WHOLE).problems()
    assert {problem.hint for problem in problems} == {"Give one of them."}


def test_the_example_shows_the_defaults():
    """A value that the page gives as the default is what a file without it means."""
    shown = tomllib.loads(EXAMPLE)
    assert File().delivery.profile == shown["delivery"]["profile"]
    for name in ("guard", "reconcile"):
        default = msgspec.to_builtins(getattr(File(), name))
        assert {key: value for key, value in shown[name].items() if default[key] is not None}.items() <= default.items()


def test_the_error_that_is_shown(tmp_path):
    """The page's error is what such a file gives."""
    path = tmp_path / "upcall.toml"
    path.write_text("\n" * 10 + "[guard]\nevery_second = 1\n")
    problem = read_settings({}, config=path, lenient=True).problems[0]
    assert f"is wrong at line {problem.line}: {problem.text}. {problem.hint}" in DOCUMENT
    for name in SettingsProblem.__struct_fields__:
        assert f"`{name}`" in DOCUMENT
    assert "problems" in Settings.__struct_fields__


def test_the_program_prints_what_the_page_says(directory):
    """The program of the page, word for word, prints what stands behind its prints."""
    program = re.search(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)[1]
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    told = [line for text in re.findall(r"print\(.*\)  # (.*)", program) for line in text.split(" / ")]
    assert ran.stdout.splitlines() == told
