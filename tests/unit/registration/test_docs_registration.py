"""docs/registration.md says what the code does: actions, states, metrics, figures and options."""

import re
from pathlib import Path
from typing import get_args

import pytest
import typer

from upcall.cli.main import app
from upcall.registration.alerts import POLICY
from upcall.registration.figures import STATES, GuardFigures, families
from upcall.registration.lock import WAIT_SECONDS
from upcall.registration.planning import Action
from upcall.registration.watching import MOST_THEFTS, THEFT_MICROS, UNREAD_ROUNDS
from upcall.settings.values import GuardSettings

PAGE = (Path(__file__).parents[3] / "docs" / "registration.md").read_text(encoding="utf-8")
PARTS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def words(part):
    return " ".join(PARTS[part].split())


def first_column(part):
    return re.findall(r"^\| `([^`]+)` \|", PARTS[part], re.MULTILINE)


def test_each_action_of_a_plan_is_told():
    """The table has every action, and no other."""
    assert first_column("Plan and apply") == list(get_args(Action))


def test_each_state_of_the_guard_is_told():
    """The table has every state that an account can be in after a look."""
    assert set(first_column("Guard")) | {"unknown"} == set(STATES)


def test_the_figures_of_the_text_are_the_code_s():
    """How often, how long and how many are told as they are."""
    assert WAIT_SECONDS == 10
    assert "longer than ten seconds" in words("Plan and apply")
    assert (GuardSettings().every_seconds, UNREAD_ROUNDS, MOST_THEFTS, THEFT_MICROS) == (300.0, 3, 3, 86_400_000_000)
    assert "every five minutes" in words("Guard")
    assert "three rounds in a row" in words("Guard")
    assert "at the third time within 24 hours" in words("Guard")
    assert POLICY.max_retries + 1 == 5
    assert "is tried five times" in words("Guard")


def test_each_metric_is_told():
    """Whoever writes an alert finds every name."""
    text = words("Guard")
    for family in families(GuardFigures()):
        name = family.name.removeprefix("upcall_registration_")
        assert family.name in text or f"`{name}`" in text, name


@pytest.mark.parametrize(
    ("command", "part"), [("plan", "Plan and apply"), ("apply", "Plan and apply"), ("guard", "Guard")]
)
def test_each_option_of_its_own_is_told(command, part):
    """An option that only this command has stands on the page."""
    common = {"--help", "--json", "--config", "--store", "--allow-http", "--max-concurrency", "--no-reassert"}
    told = PARTS[part] + PARTS["Desired state"]
    options = {
        option
        for parameter in typer.main.get_command(app).commands[command].params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--")
    }
    assert {option for option in options - common if option not in told} == set()
