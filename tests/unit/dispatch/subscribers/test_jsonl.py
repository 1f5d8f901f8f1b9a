"""Files of events: whole lines, on disk, rotated and never lost."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat

import pytest

from upcall.dispatch.subscribers.jsonl import JsonlFile


@pytest.fixture
async def path(tmp_path):
    return tmp_path / "events.jsonl"


@pytest.fixture
async def make(path):
    made = []

    def open_file(**options):
        made.append(JsonlFile(path, **options))
        return made[-1]

    yield open_file
    for one in made:
        await one.aclose()


def numbers(path):
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


async def test_a_line_each(path, make, event):
    """Each event is a line; the file is its owner's alone."""
    file = make()
    for number in range(1, 4):
        await file(event(number=number))
    assert numbers(path) == [1, 2, 3]
    assert path.read_text().endswith("\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_one_fsync_for_all_that_wait(path, make, event, monkeypatch):
    """Events that come together share a write and an fsync, and none returns before it."""
    synced = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: (synced.append(len(numbers(path))), real(file)))
    file = make()
    await asyncio.gather(*(file(event(number=number)) for number in range(100)))
    assert synced == [100]
    assert sorted(numbers(path)) == list(range(100))


async def test_rotation(path, make, event):
    """A file that is full is set aside under the next free number, and nothing is lost or removed."""
    file = make(max_bytes=1)
    (path.parent / "events.jsonl.1").write_text("somebody else's")
    for number in range(1, 4):
        await file(event(number=number))
    assert numbers(path) == [3]
    assert (path.parent / "events.jsonl.1").read_text() == "somebody else's"
    assert [numbers(path.parent / f"events.jsonl.{n}") for n in (2, 3)] == [[1], [2]]


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
async def test_a_file_that_is_taken_away(path, make, event, how):
    """A file that somebody rotated, removed or replaced is opened anew."""
    file = make()
    await file(event(number=1))
    if how == "moved":
        path.rename(path.with_suffix(".old"))
    else:
        path.unlink()
        if how == "replaced":
            path.touch()
    await file(event(number=2))
    assert numbers(path) == [2]


async def test_a_torn_line(path, make, event):
    """A line that a crash tore is closed, and the next one stands by itself."""
    path.write_text('{"id": 1}\n{"id": 2, "ra')
    await make()(event(number=3))
    lines = path.read_text().splitlines()
    assert lines[:2] == ['{"id": 1}', '{"id": 2, "ra']
    assert json.loads(lines[2])["id"] == 3


async def test_a_full_disk(path, make, event, monkeypatch):
    """What cannot be written fails, leaves no half line, and is written when there is room."""
    file = make()
    await file(event(number=1))
    real, calls = os.write, []

    def write(descriptor, data):
        calls.append(1)
        if len(calls) == 1:
            return real(descriptor, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError, match="cannot be written: No space left"):
            await file(event(number=2))
    assert numbers(path) == [1]
    await file(event(number=2))
    assert numbers(path) == [1, 2]


async def test_two_writers(path, make, event):
    """Two workers append to one file, rotation included, and each line is whole and there once."""
    files = [make(max_bytes=3000), make(max_bytes=3000)]
    await asyncio.gather(*(files[number % 2](event(number=number)) for number in range(60)))
    for number in range(60, 80):
        await files[number % 2](event(number=number))
    found = [number for one in path.parent.glob("events.jsonl*") for number in numbers(one)]
    assert sorted(found) == list(range(80))


async def test_one_that_is_cancelled(path, make, event):
    """A call that is cancelled while it waits harms no other."""
    file = make()
    first = asyncio.ensure_future(file(event(number=1)))
    second = asyncio.ensure_future(file(event(number=2)))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert 2 in numbers(path)
