"""The disk that the power-loss tests rest on loses what was not synced, and keeps what was."""

import importlib.util
import random
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("power_disk", Path(__file__).with_name("disk.py"))
disk = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(disk)

ROOT, FILE, OTHER, PLACE = 1, 7, 8, 9


def record(operation, file=0, *, at=0, data=b"", thread=1):
    return disk.Record(operation, thread, file, at, data)


CREATE = record("C", FILE, data=b"/name")
HELLO = record("W", FILE, data=b"hello")
SYNC = [record("B", FILE), record("E", FILE)]


@pytest.fixture
def left(tmp_path):
    """Return a function that says what a cut after some records leaves: content by name."""
    place = tmp_path / "disk"
    place.mkdir()
    (place / "old").write_bytes(b"old")
    root = place.stat().st_ino

    def left(*records, luck=None, cut="cut"):
        machine = disk.Disk(place)
        machine.follow(entry._replace(file=root) if entry.file == ROOT else entry for entry in records)
        machine.lay_out(tmp_path / cut, luck)
        return {
            str(path.relative_to(tmp_path / cut)): path.read_bytes() if path.is_file() else None
            for path in (tmp_path / cut).rglob("*")
        }

    return left


NAMED = [record("B", ROOT), record("E", ROOT)]


@pytest.mark.parametrize(
    ("records", "kept"),
    [
        # A name without its directory's sync, and content without the file's.
        ([CREATE, HELLO, *SYNC], {}),
        ([CREATE, HELLO, *NAMED], {"name": b""}),
        ([CREATE, HELLO, *SYNC, *NAMED], {"name": b"hello"}),
        ([CREATE, *NAMED, HELLO, *SYNC], {"name": b"hello"}),
        # What comes while an fsync runs is not in it, and one that did not return kept nothing.
        ([CREATE, *NAMED, SYNC[0], HELLO, SYNC[1]], {"name": b""}),
        ([CREATE, *NAMED, HELLO, SYNC[0]], {"name": b""}),
        ([CREATE, *NAMED, HELLO, SYNC[0], record("W", FILE, at=0, data=b"J"), SYNC[1]], {"name": b"hello"}),
        # Two threads' fsyncs cross.
        (
            [CREATE, *NAMED, SYNC[0], HELLO, record("B", FILE, thread=2), SYNC[1], record("E", FILE, thread=2)],
            {"name": b"hello"},
        ),
        ([CREATE, *NAMED, HELLO, *SYNC, record("T", FILE, at=2)], {"name": b"hello"}),
        ([CREATE, *NAMED, HELLO, *SYNC, record("T", FILE, at=2), *SYNC], {"name": b"he"}),
        ([CREATE, *NAMED, record("W", FILE, at=3, data=b"x"), *SYNC], {"name": b"\0\0\0x"}),
        # An fsync that failed takes what it was to write, whatever a later one says; what is written anew is there.
        ([CREATE, *NAMED, HELLO, record("F", FILE), *SYNC], {"name": b""}),
        ([CREATE, *NAMED, HELLO, record("F", FILE), HELLO, *SYNC], {"name": b"hello"}),
        (
            [CREATE, *NAMED, HELLO, record("F", FILE), record("W", FILE, at=5, data=b"!"), *SYNC],
            {"name": b"\0\0\0\0\0!"},
        ),
        # A number of a file is used again for another; both have a content of their own.
        (
            [CREATE, HELLO, *SYNC, *NAMED, record("U", data=b"/name"), record("C", FILE, data=b"/second"), *NAMED],
            {"second": b""},
        ),
        ([CREATE, HELLO, *SYNC, *NAMED, record("U", data=b"/name")], {"name": b"hello"}),
        ([CREATE, HELLO, *SYNC, *NAMED, record("R", data=b"/name\0/new")], {"name": b"hello"}),
        ([CREATE, HELLO, *SYNC, *NAMED, record("R", data=b"/name\0/new"), *NAMED], {"new": b"hello"}),
        # Directories are names too.
        ([record("D", PLACE, data=b"/in"), record("C", FILE, data=b"/in/name"), HELLO, *SYNC], {}),
        (
            [
                record("D", PLACE, data=b"/in"),
                record("C", FILE, data=b"/in/name"),
                *NAMED,
            ],
            {"in": None},
        ),
        (
            [
                record("D", PLACE, data=b"/in"),
                record("C", FILE, data=b"/in/name"),
                record("B", PLACE),
                record("E", PLACE),
                *NAMED,
            ],
            {"in": None, "in/name": b""},
        ),
    ],
)
def test_only_what_was_synced_is_left(left, records, kept):
    """Content needs the file's fsync, a name its directory's, each begun after the change."""
    assert left(*records) == {"old": b"old"} | kept


def test_luck_keeps_some_of_the_rest(left):
    """With luck parts of writes and of names stay, never anything that was not written."""
    written = [CREATE, *NAMED, record("W", FILE, data=b"A" * 512 + b"B" * 512), record("C", OTHER, data=b"/more")]
    found = [left(*written, luck=random.Random(seed), cut=f"cut-{seed}") for seed in range(40)]
    assert {content["name"] for content in found} == {b"", b"A" * 512, bytes(512) + b"B" * 512, b"A" * 512 + b"B" * 512}
    assert {"more" in content for content in found} == {True, False}


def test_a_log_that_a_kill_cut_off_is_read_up_to_there(tmp_path):
    """An entry that is not whole is none."""
    whole = disk.HEAD.pack(ord("W"), 1, FILE, 3, 5) + b"hello"
    for cut in range(1, len(whole) + 1):
        (tmp_path / "log").write_bytes(whole + whole[:cut])
        found = disk.read_log(tmp_path / "log")
        assert found == [disk.Record("W", 1, FILE, 3, b"hello")] * (1 + (cut == len(whole)))


def test_answers_belong_to_what_was_asked_on_their_connection():
    """Requests that come in pieces, connections that cross, and refusals are told apart."""
    import re

    traffic = disk.Traffic(re.compile(rb"marker-(\d+)!"))
    traffic.follow(
        [
            record("A", 4),
            record("A", 5),
            record("I", 4, data=b"POST mark"),
            record("I", 5, data=b"POST marker-2!"),
            record("I", 4, data=b"er-1!"),
            record("O", 5, data=b"HTTP/1.1 200 OK\r\n\r\n"),
            record("I", 5, data=b"POST marker-3!"),
            record("O", 5, data=b"HTTP/1.1 503 No\r\n\r\n"),
        ]
    )
    assert traffic.acknowledged == [b"2"]
    traffic.follow([record("O", 4, data=b"HTTP/1.1 200 OK\r\n\r\n"), record("A", 5)])
    assert traffic.acknowledged == [b"2", b"1"]
    with pytest.raises(AssertionError, match="nothing that was asked"):
        traffic.follow([record("O", 5, data=b"HTTP/1.1 200 OK\r\n\r\n")])
