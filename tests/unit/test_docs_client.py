"""docs/client.md names everything that the client has: each name, option, variable, error and field."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from pathlib import Path

import msgspec
import pytest

import upcall
import upcall.client
import upcall.errors
from upcall import AsyncThingSpaceClient, Credentials, ThingSpaceClient, ThingSpaceError
from upcall.client import AccountResult, CallEvent, CallOptions, LatchState, RawResponse
from upcall.client.retry import RETRY_STATUSES, RetryPolicy
from upcall.client.trip import Limits
from upcall.settings import CREDENTIAL_FIELDS, Account, config_path, default_store, read_settings, state_dir
from upcall.settings.tables import Client, References
from upcall.thingspace import ENVIRONMENTS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
PARTS = {part.partition("\n")[0]: part for part in re.split(r"^## ", DOCUMENT, flags=re.MULTILINE)[1:]}
WORDS = set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", DOCUMENT))
RESULTS = [
    "CallbackSummary",
    "Credentials",
    "FotaV2CallbackRegistrationRequest",
    "FotaV2CallbackRegistrationResult",
    "FotaV2SuccessResult",
]


class Asked(dict):
    """Stand for an environment in which nothing is set, and note what is asked of it."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def get(self, name, default=None):
        self.names.add(name)
        return default


def words_of(part):
    """Return what stands in backticks in a part, or in its programs."""
    return set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", PARTS[part]))


def rows_of(part):
    """Return the cells of each row of a part's tables, without the first backticks."""
    rows = re.findall(r"^\| (.*) \|$", PARTS[part], flags=re.MULTILINE)
    return {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in (row.split("|") for row in rows)}


def first_line(name):
    """Return the first line of a public name's docstring, or of the string behind an alias."""
    value = getattr(upcall.client if name in upcall.client.__all__ else upcall, name)
    if isinstance(value, type):
        return inspect.getdoc(value).splitlines()[0]
    for path in Path(upcall.client.__file__).parent.rglob("*.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for node, text in itertools.pairwise(body):
            if isinstance(node, ast.AnnAssign) and node.target.id == name:
                return text.value.value
    raise AssertionError(f"{name} has no text")


def public_members(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


def errors_under(kind):
    return {kind, *(error for below in kind.__subclasses__() for error in errors_under(below))}


def test_reference_has_each_name_with_its_first_line():
    """The reference lists the client's public names and the results, each with what its docstring says first."""
    rows = rows_of("Reference")
    listed = {name: cells[0] for name, cells in rows.items() if name not in {"name", "---"}}
    assert listed == {name: first_line(name) for name in sorted([*upcall.client.__all__, *RESULTS])}
    assert list(listed) == sorted(listed)


def test_each_name_of_the_reference_comes_from_where_it_says():
    """What is in `upcall` is imported from there, everything else from `upcall.client`."""
    for name in rows_of("Reference"):
        if name not in {"name", "---"}:
            assert hasattr(upcall if name in upcall.__all__ else upcall.client, name)


def test_error_tree_is_the_one_of_the_code():
    """Every error that a client's user meets stands in the tree, under its base, with what its docstring says first."""
    lines = re.findall(r"^([│├└─ ]*)([A-Z]\w+) {2,}(.*)$", PARTS["Errors"], flags=re.MULTILINE)
    drawn, bases = {}, []
    for indent, name, text in lines:
        del bases[len(indent) // 4 :]
        drawn[name] = (bases[-1] if bases else "Exception", text)
        bases.append(name)
    met = {upcall.errors.UpcallError, upcall.errors.SettingsError, *errors_under(ThingSpaceError)}
    assert drawn == {error.__name__: (error.__base__.__name__, error.__doc__.splitlines()[0]) for error in met}


@pytest.mark.parametrize("kind", [ThingSpaceClient, AsyncThingSpaceClient])
def test_options_are_those_of_the_clients(kind):
    """The table of options is the signature of both clients, nothing more and nothing less."""
    options = set(inspect.signature(kind).parameters)
    assert set(rows_of("Options")) - {"option", "---"} == options


def test_defaults_are_those_of_the_code():
    """The numbers in the table are what a client does that is told nothing."""
    rows = rows_of("Options")
    assert rows["timeout_seconds"][2].startswith(f"{Limits().timeout_seconds:g} s ")
    assert rows["max_retries"][2].startswith(f"{RetryPolicy().max_retries} ")
    assert rows["max_elapsed_seconds"][2].startswith(f"{RetryPolicy().max_elapsed_seconds:g} s ")
    assert rows["config"][1] == ""


def test_each_variable_is_told():
    """Every variable that the settings ask the environment for is on the page; a `…_FILE` by its rule."""
    asked = Asked()
    read_settings(asked)
    for read in (state_dir, default_store, config_path):
        read(asked)
    own = {name for name in asked.names if name.startswith(("THINGSPACE_", "UPCALL_", "VZ_", "XDG_"))}
    assert {f"THINGSPACE_{name.upper()}" for name in CREDENTIAL_FIELDS} <= own
    assert {name for name in own if name.removesuffix("_FILE") not in WORDS} == set()
    assert "`_FILE`" in PARTS["Credentials"]
    told = {
        word for word in words_of("Options") | words_of("Credentials") if word.startswith(("THINGSPACE_", "UPCALL_"))
    }
    assert told <= own


def test_each_variable_stands_in_the_row_of_its_option():
    """An option's variable is its name in capitals, behind `UPCALL_` or, for where it calls, `THINGSPACE_`."""
    for option, (variable, *_) in rows_of("Options").items():
        name = re.match(r"`([A-Z_]+)`", variable)
        assert name is None or name[1].partition("_")[2] == option.upper()


def test_each_member_of_the_settings_file_is_told():
    """What of the settings file concerns a client is on the page, the client's own table in its column."""
    assert {cells[1].strip("`") for cells in rows_of("Options").values()} >= set(Client.__struct_fields__)
    assert {"[client]", "[[accounts]]", "[credentials.east]"} <= set(re.findall(r"^\[.*\]$", DOCUMENT, re.MULTILINE))
    example = re.search(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)[1]
    assert set(msgspec.toml.decode(example)["accounts"][0]) <= set(Account.__struct_fields__)
    assert {name for name in References.__struct_fields__ if f"`{name}`" not in PARTS["Options"]} == set()


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("The options of one call", set(CallOptions.__annotations__)),
        ("Raw responses", set(RawResponse.__struct_fields__)),
        ("Two hundred accounts", set(AccountResult.__struct_fields__) | {"max_concurrency", "on_result"}),
        ("Logging and event hooks", set(CallEvent.__struct_fields__)),
        ("The login latch", {"reason", "latched"} & set(LatchState.__struct_fields__)),
        ("Errors", set(vars(ThingSpaceError()))),
        ("Where it calls", set(ENVIRONMENTS)),
        ("Credentials", set(Credentials.__struct_fields__)),
    ],
)
def test_each_part_names_what_belongs_to_it(part, names):
    """Options, fields and attributes stand in the part that is about them."""
    assert names - words_of(part) == set()


def test_event_kinds_are_told():
    """Every kind of event is on the page, and none that there is not."""
    kinds = re.search(r"The kinds are (.*?)\. An", PARTS["Logging and event hooks"].replace("\n", " "))[1]
    from typing import get_args

    from upcall.client.events import EventKind

    assert set(re.findall(r"`(\w+)`", kinds)) == set(get_args(EventKind))


def test_repeated_statuses_are_told():
    """The statuses that are tried again are the code's."""
    told = re.search(r"the statuses ([\d, and\n]+)", PARTS["Retries and budgets"])[1]
    assert {int(number) for number in re.findall(r"\d{3}", told)} == RETRY_STATUSES


def test_each_method_is_told():
    """Whatever a client and its callbacks can do is on the page."""
    callbacks = upcall.SoftwareManagementCallbacksV2Controller
    wanted = public_members(ThingSpaceClient) | public_members(AsyncThingSpaceClient) | public_members(callbacks)
    assert wanted - WORDS == set()


def test_each_command_is_told():
    """Every `upcall callbacks` command, and login and whoami, stand with what to type."""
    from upcall.cli.callbacks import app

    commands = [f"callbacks {command.name or command.callback.__name__}" for command in app.registered_commands]
    lines = PARTS["On the command line"].splitlines()
    for command in [*commands, "login", "whoami"]:
        assert any(line.startswith(f"upcall {command} ") for line in lines), command


def test_exit_codes_are_those_of_the_errors():
    """The exit codes on the page are those that the errors carry."""
    text = " ".join(PARTS["On the command line"].split())
    assert f"{upcall.errors.SettingsError.exit_code} usage or settings" in text
    assert f"{upcall.errors.StartError.exit_code} could not start" in text
    assert f"{ThingSpaceError.exit_code} the provider refused or did not answer" in text
