"""docs/receiving.md says what the code does."""

import re
from pathlib import Path

import msgspec
import pytest

from upcall.inbox.values import REDELIVERY_WINDOW_MICROS
from upcall.listener import answers, asgi, intake, protocol, reception, server, service, sources, upkeep
from upcall.listener.answers import Answer
from upcall.listener.connections import Limits

TEXT = (Path(__file__).parents[3] / "docs" / "receiving.md").read_text()


def rows(heading):
    """Return the cells of the table under a heading."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def answers_of(module):
    """Return the constant answers that a module gives, as pairs of status and body."""
    for value in vars(module).values():
        for answer in value.values() if isinstance(value, dict) else [value]:
            if isinstance(answer, Answer):
                yield answer.status, answer.keep.partition(b"\r\n\r\n")[2].decode()


def test_every_answer_stands_in_the_table():
    """The table of answers has each answer that the listener can give, with its body, and no other."""
    documented = {(int(status), body.lstrip("`").partition("`")[0]) for status, body, *_ in rows("Answers")}
    existing = {*answers_of(asgi), *answers_of(protocol), *answers_of(service), (100, "")}
    assert documented == existing


def figure(text):
    """Return the figure at the beginning of a cell, with its unit taken into account."""
    number, unit = re.match(r"([\d,]+)(?: (MiB|GiB))?", text).groups()
    return int(number.replace(",", "")) * {None: 1, "MiB": 2**20, "GiB": 2**30}[unit]


def test_every_limit_stands_in_the_table():
    """The table of limits has each limit, with its default, and the caps beside them."""
    documented = {name.strip("`"): figure(value) for name, value, _ in rows("Deadlines and caps")}
    caps = {
        "body": reception.MAX_BODY_BYTES,
        "pipelined requests": protocol._PIPELINED,
        "after the last answer": protocol._LINGER_SECONDS,
    }
    assert documented == msgspec.structs.asdict(Limits()) | caps


@pytest.mark.parametrize(
    "sentence",
    [
        f"the store has {intake.STORE_WAIT_SECONDS:g} s",
        f"your own ASGI server ({intake.LONE_WAIT_SECONDS:g} s only",
        f"asks its store every {upkeep.LOOK_SECONDS:g} s",
        f"no more than {intake.MAX_GROUP_BYTES // 2**20} MiB share a commit",
        f"more than {protocol._MOST_KEPT} headers",
        f"within {REDELIVERY_WINDOW_MICROS // 60_000_000} minutes",
        f"After {server.DRAIN_SECONDS:g} s what is left is cut",
        f"holds {reception.QUARANTINE_BYTES // 2**30} GiB of bodies",
        f"{server._FILES_KEPT} fewer than this process may open",
        f"{sources._MAX_HOPS}\nhops are read",
        f"wider than /{sources._WIDEST[4]} (IPv6: /{sources._WIDEST[6]})",
        f"locked for {intake.STORE_WAIT_SECONDS:g} s",
    ],
)
def test_figures_in_sentences(sentence):
    """Figures that stand in sentences are those of the code."""
    assert sentence in TEXT
    assert intake.RECOVERY_SECONDS == 0.25, "'four times a second'"
    assert answers.DISCARD_FACTOR == 8, "'up to eight times'"
