"""docs/sandbox.md and docs/testing.md say what the code does: names, tables, files and snippets."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from upcall.sandbox import FAULT_NAMES, load_faults
from upcall.sandbox.faults import API_FAULTS, DELIVERY_FAULTS, REGISTRATION_FAULTS
from upcall.sandbox.ledger import Attempt
from upcall.sandbox.models import FINAL_STATES
from upcall.sandbox.routes import ROUTES
from upcall.settings import read_profile
from upcall.testing import AsyncSandboxHarness, SandboxCampaign, SandboxHarness
from upcall.testing.listener import Ledger, ListenerHarness
from upcall.thingspace import PROFILES

DOCS = Path(__file__).parents[2] / "docs"
SANDBOX, TESTING = ((DOCS / name).read_text(encoding="utf-8") for name in ("sandbox.md", "testing.md"))


def section(document, heading):
    return re.split(r"^## ", document.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text):
    return dict(re.findall(r"^\| `?(.*?)`? \| (.*?) \|", text, re.MULTILINE))


def test_the_table_of_faults():
    """Each fault stands in the table with the code's own words, and no other does."""
    table = {name: what for name, what in rows(section(SANDBOX, "Faults")).items() if name != "fault"}
    table = {name: what for name, what in table.items() if set(name) != {"-"}}
    assert table == DELIVERY_FAULTS | API_FAULTS | REGISTRATION_FAULTS
    assert tuple(table) == FAULT_NAMES


def test_the_control_calls():
    """Each control call stands in the table with its method, and no other does."""
    calls = set()
    for cell in re.findall(r"^\| (.*?`/?.*?) \|", section(SANDBOX, "Control"), re.MULTILINE):
        path = None
        for method, named in re.findall(r"`([A-Z]+) (/_sandbox\S*|…)`", cell):
            path = named.rstrip("/") if named != "…" else path
            calls.add((method, re.sub(r"\{.*?\}", "{}", path)))
    wanted = {
        (route.method, re.sub(r"\{.*?\}", "{}", route.path)) for route in ROUTES if route.path.startswith("/_sandbox")
    }
    assert calls == wanted


def test_states_and_members_are_named():
    """Every final state of a callback, and every member of a try, is explained."""
    for state in FINAL_STATES:
        assert f"`{state}`" in section(SANDBOX, "Callbacks and their delivery")
    for member in Attempt.__struct_fields__:
        assert f"`{member}`" in section(SANDBOX, "Control")


def test_the_profiles():
    """The built-in profiles are those of the table."""
    assert set(PROFILES) < set(rows(section(SANDBOX, "Callbacks and their delivery")))


@pytest.mark.parametrize(("number", "load"), [(0, read_profile), (1, load_faults)])
def test_the_files_that_are_shown(tmp_path, number, load):
    """The profile and the faults that the document shows can be used as they stand."""
    path = tmp_path / "shown.toml"
    path.write_text(re.findall(r"```toml\n(.*?)```", SANDBOX, re.DOTALL)[number])
    assert load(str(path))


@pytest.mark.parametrize(
    ("heading", "class_"), [("`upcall_listener`", ListenerHarness), ("`thingspace_sandbox`", SandboxHarness)]
)
def test_the_fixtures_have_what_is_told(heading, class_):
    """Every method in the table is there; every one that is there is in the table, but for what the fixtures call."""
    told = set()
    for names in re.findall(r"^\| (`.*?`) \|", section(TESTING, heading), re.MULTILINE):
        told |= set(re.findall(r"`(\w+)", names))
    own = {name for name in vars(class_) if not name.startswith("_")}
    assert own - {"join", "drain_news", "take", "unseen_dead", "close"} == told


def test_what_else_is_told():
    """A campaign's methods, the ledger's counts, and what the asynchronous twin has."""
    campaign = {name for name in vars(SandboxCampaign) if not name.startswith("_")}
    for name in (*campaign, "ended", "id", "account"):
        assert f"`{name}" in section(TESTING, "`thingspace_sandbox`")
    counts = re.findall(r"`(\w+)`", next(line for line in TESTING.splitlines() if "`ledger()`" in line))
    assert {"sent", "lost", "stored"} <= set(counts) <= {*Ledger.__struct_fields__, "redelivered"}
    twin = {name for name in dir(AsyncSandboxHarness) if not name.startswith("_")}
    assert twin < {name for name in dir(SandboxHarness) if not name.startswith("_")}


def test_the_snippets_of_testing_pass(tmp_path):
    """The tests that the document shows pass as they stand, in one module."""
    module = tmp_path / "test_shown.py"
    module.write_text("\n".join(re.findall(r"```python\n(.*?)```", TESTING, re.DOTALL)))
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", str(module)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=tmp_path,
    )
    assert ended.stdout.splitlines()[-1].startswith("4 passed"), ended.stdout + ended.stderr
