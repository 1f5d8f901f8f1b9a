"""docs/handlers.md: its programs run, and it names every option, variable and format that there is."""

from __future__ import annotations

import inspect
import json
import re
import sqlite3
from pathlib import Path

import pytest

from upcall.dispatch import HandlerTable, Worker, session
from upcall.dispatch.subscribers import execute, forward, jsonl, options
from upcall.dispatch.subscribers.document import event_json
from upcall.dispatch.subscribers.forward import cloud_event
from upcall.inbox import EVERYTHING, stored_event
from upcall.testing import callback

DOCUMENT = (Path(__file__).parents[3] / "docs" / "handlers.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```", DOCUMENT, flags=re.MULTILINE | re.DOTALL)


def run(program, world):
    """Run a program of the document, and then its handlers over the world's store."""
    names = {"__name__": "handlers"}
    exec(compile(program, "docs/handlers.md", "exec"), names)
    world.table = names["app"]
    return names


async def test_the_first_program(world):
    """The first program hands on, waits and gives up as the document says."""
    names = run(PROGRAMS[0], world)
    world.report({"1": "Accepted"}, kind="upgradeFinished", campaign_id="c1")
    world.report({"990001": "UpgradeFailed", "2": "UpgradeFailed"})
    await world.worker().drain()
    assert sorted(note[1] for note in names["notes"]) == ["2", "c1"]
    assert [letter.device_id for letter in world.inbox.dead()] == ["990001"]


async def test_what_the_guard_says(world):
    """The handler of `registration.drift` finds what the document names, and only where the guard says it."""
    names = run(PROGRAMS[1], world)
    said = {"type": "registration.drift", "accountName": "0000123456-00001", "state": "lost", "registered": "https://a"}
    for origin in ("guard", "received"):
        world.append(json.dumps(said).encode(), origin=origin)
    await world.worker().drain()
    assert names["pages"] == [("0000123456-00001", "lost", "https://a")]


async def test_idempotent_by_key(world, tmp_path, monkeypatch):
    """The recipe has one effect for each callback and device, however often they are handed on."""
    monkeypatch.chdir(tmp_path)
    names = run(PROGRAMS[2], world)
    world.report({"1": "UpgradeFailed", "2": "UpgradeFailed"})
    for _ in range(2):
        await world.worker().drain()
        assert world.inbox.replay(EVERYTHING, world.now, reason="again") == 2
    rows = names["tickets"].execute("SELECT device FROM tickets").fetchall()
    names["tickets"].close()
    assert sorted(rows) == [("1",), ("2",)]


async def test_transactional(world):
    """The transactional program counts each device's failure once."""
    run(PROGRAMS[3], world)
    world.report({"1": "UpgradeFailed", "2": "UpgradeFailed"})
    world.report({"1": "UpgradeFailed"}, campaign_id="another")
    await world.worker().drain()
    connection = sqlite3.connect(world.path)
    rows = connection.execute("SELECT device, n FROM failures ORDER BY 1").fetchall()
    connection.close()
    assert rows == [("1", 2), ("2", 1)]
    assert len(PROGRAMS) == 5  # the last one is run by tests/unit/test_app.py


@pytest.mark.parametrize("decorator", [HandlerTable.on, HandlerTable.on_device])
def test_options(decorator):
    """The table of options holds each of them with its default."""
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", DOCUMENT, flags=re.MULTILINE))
    parameters = inspect.signature(decorator).parameters.values()
    known = {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}
    assert rows.keys() == known.keys()
    for name, default in known.items():
        if default is not None:
            assert rows[name].strip(" `") == str(default)


def test_figures():
    """Counts, sizes and times in the document are the program's."""
    lease = inspect.signature(Worker).parameters["lease_seconds"].default
    for figure in (
        f"leased for {lease:g} seconds, and a living worker renews its leases every {session.HEARTBEAT_SECONDS:g}.",
        f"| {options.FORWARDS_IN_FLIGHT} | {options.FORWARD_SCHEDULE.max_attempts},",
        f"| {options.COMMANDS_AT_ONCE} | {options.COMMAND_SCHEDULE.max_attempts},",
        f"| {options.FILE_SCHEDULE.max_attempts},",
        f"none within {forward.TOTAL_TIMEOUT_SECONDS:g} seconds",
        f"more than {forward.MAX_RESPONSE_BYTES // 1024} KiB",
        f"After {execute.TIMEOUT_SECONDS:g} seconds",
        f"last {execute.MAX_STDERR_BYTES} bytes",
        f"at {jsonl.MAX_BYTES >> 20} MiB",
    ):
        assert figure in DOCUMENT


def test_formats():
    """The objects shown have the members that are sent, in their order."""
    event = stored_event(
        7, 1_800_000_000_000_000, None, "ab" * 32, callback(devices={"100000000000001": "UpgradeFailed"})
    )
    (shown,) = re.findall(r"^```json\n(.*?)^```", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
    shown, sent = json.loads(shown), json.loads(event_json(event))
    assert (list(shown), list(shown["devices"][0])) == (list(sent), list(sent["devices"][0]))
    (request,) = re.findall(r"^```http\n(.*?)^```", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
    head, _, body = request.partition("\n\n")
    assert list(json.loads(body)) == list(json.loads(cloud_event(event)))
    assert "application/cloudevents+json" in head


def test_variables():
    """Each variable of ours that a subscriber reads or sets is named."""
    for name in ("UPCALL_FORWARD_SECRET", "UPCALL_FORWARD_SECRET_FILE", *(f"{prefix}*" for prefix in execute._OURS)):
        assert f"`{name}`" in DOCUMENT
    for fact in ("ID", "KEY", "KIND", "ORIGIN", "ACCOUNT", "CAMPAIGN_ID"):
        assert f"`UPCALL_EVENT_{fact}`" in DOCUMENT
