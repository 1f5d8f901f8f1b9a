"""What `docs/operations.md` tells a tired engineer to type exists, and every command of these groups is in it."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from upcall.cli.main import app

DOCUMENT = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
TREE = typer.main.get_command(app)
TYPED = sorted(set(re.findall(r"`(upcall [^`]+)`", DOCUMENT) + re.findall(r"^\$ (upcall .+)$", DOCUMENT, re.MULTILINE)))
GROUPS = ("events", "dead", "quarantine", "campaigns", "store")


def find(words):
    """Return the command that some words name, and the words after its name."""
    command = TREE
    while words and hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("text", TYPED)
def test_what_is_to_be_typed_exists(text):
    """Each command in the document names a command that there is, with options that it takes."""
    command, rest = find(shlex.split(text.partition("&&")[0])[1:])
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= options


@pytest.mark.parametrize("group", GROUPS)
def test_every_command_is_told_of(group):
    """Each command of the groups that look, decide and keep appears in the document."""
    for name in TREE.commands[group].commands:
        assert f"upcall {group} {name}" in DOCUMENT


@pytest.mark.parametrize("group", GROUPS)
def test_every_command_teaches(group):
    """Each command and each of its options says what it does."""
    for command in TREE.commands[group].commands.values():
        assert command.help
        for parameter in command.params:
            assert parameter.help, (command.name, parameter.name)


def test_links_within_the_document():
    """Each link to a heading finds it."""
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in re.findall(r"^###? .+$", DOCUMENT, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", DOCUMENT)) <= headings
