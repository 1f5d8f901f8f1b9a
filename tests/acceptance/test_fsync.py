"""Every 200 follows an fsync that returned.

A kill cannot show it: what a killed process wrote is still in the kernel's memory. So the system calls are looked at.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

REQUESTS = 200
CALLS = "read,recvfrom,write,writev,sendto,sendmsg,pwrite64,pwritev,fsync,fdatasync"

COMMIT_MARK = slice(4, 8)
"""Where a frame of the write-ahead log says that a commit ends with it (https://www.sqlite.org/fileformat2.html)."""


class Call(NamedTuple):
    """Hold one system call; `start` and `end` are the lines of the trace at which it began and returned."""

    name: str
    target: str
    data: bytes
    result: int
    start: int
    end: int


_UNFINISHED = re.compile(r"(\d+) +(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)$")
_CALL = re.compile(r"(\w+)\(\d+<((?:\\x[0-9a-f]{2})+|TCP\w*:\[[^]]*\])>(.*)\) += (-?\d+)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def read_trace(lines):
    """Return the calls that returned, in the order in which they did.

    Threads interleave: a call that another line interrupts is finished where it is resumed.
    """
    calls = []
    begun = {}
    for number, line in enumerate(lines):
        if unfinished := _UNFINISHED.match(line):
            begun[unfinished[1]] = (number, unfinished[2])
            continue
        process, _, text = line.partition(" ")
        start = number
        if (resumed := _RESUMED.match(line)) and process in begun:
            start, beginning = begun.pop(process)
            text = beginning + resumed[2]
        if call := _CALL.match(text.strip()):
            name, target, arguments, result = call.groups()
            data = b"".join(_plain(found) for found in _STRING.findall(arguments))
            calls.append(Call(name, _plain(target).decode(), data, int(result), start, number))
    return calls


def _plain(text):
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()


def early_answers(calls, marker):
    """Return what was answered 200 before an fsync of its commit had returned, and how many answers were looked at.

    Args:
        calls: From `read_trace`.
        marker: What to find in a body, with one group that tells it from the others.
    """
    written = [_commits(calls, marker), _spooled(calls, marker)]
    syncs = [call for call in calls if call.name in {"fsync", "fdatasync"} and call.result == 0]
    asked = defaultdict(bytes)
    early = []
    answers = 0
    for call in sorted(calls, key=lambda call: call.start):
        if not call.target.startswith("TCP"):
            continue
        if call.name in {"read", "recvfrom"}:
            asked[call.target] += call.data
        elif call.data.startswith(b"HTTP/1.1 200"):
            (serial,) = marker.findall(asked.pop(call.target))
            answers += 1
            kept = [files[serial] for files in written if serial in files]
            if not any(_is_synced(place, syncs, call.start) for place in kept):
                early.append(serial)
    return early, answers


def _is_synced(written, syncs, before):
    """Tell whether an fsync of a file began after it was written to, and returned before an answer left."""
    line, target = written
    return any(sync.target == target and line < sync.start and sync.end < before for sync in syncs)


def _commits(calls, marker):
    """Return for each marker the line at which the commit that holds it was written to its end, and the file."""
    committed = {}
    pending = []
    is_last = False
    for call in calls:
        if call.name != "pwrite64" or not call.target.endswith("-wal"):
            continue
        if len(call.data) == 24:  # a frame's head; its page follows
            is_last = any(call.data[COMMIT_MARK])
            continue
        pending += marker.findall(call.data)
        if is_last:
            for serial in pending:
                committed.setdefault(serial, (call.end, call.target))
            pending = []
    return committed


def _spooled(calls, marker):
    """Return the same for what was written to the spool."""
    written = {}
    for call in calls:
        if call.name == "write" and call.target.endswith(".spool"):
            for serial in marker.findall(call.data[: call.result]):
                written.setdefault(serial, (call.end, call.target))
    return written


MARKER = re.compile(rb"marker-(\d+)!")


def hexed(text):
    return "".join(f"\\x{byte:02x}" for byte in text)


def frame(process, page, *, last=True):
    """Return how a frame of the log looks in a trace."""
    head = bytes(4) + (b"\0\0\0\1" if last else bytes(4)) + bytes(16)
    return [
        f'{process} pwrite64(5<{hexed(b"/x/i.db-wal")}>, "{hexed(data)}", {len(data)}, 0) = {len(data)}'
        for data in (head, page)
    ]


ASK = f'1 read(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, "{hexed(b"POST marker-7!")}", 99) = 14'
ANSWER = f'1 write(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, "{hexed(b"HTTP/1.1 200 OK")}", 15) = 15'
SYNC = f"2 fdatasync(5<{hexed(b'/x/i.db-wal')}>) = 0"
SYNC_BEGINS, SYNC_ENDS = f"{SYNC[:-5]} <unfinished ...>", "2 <... fdatasync resumed>) = 0"
PAGE = b"...marker-7!..."


def spooled(name, call, result):
    """Return how a write to the spool, or an fsync of it, looks in a trace."""
    data = f', "{hexed(PAGE)}", {len(PAGE)}' if call == "write" else ""
    return f"2 {call}(6<{hexed(name)}>{data}) = {result}"


SPOOLED, SPOOL_SYNC = spooled(b"/s/1.spool", "write", len(PAGE)), spooled(b"/s/1.spool", "fdatasync", 0)


@pytest.mark.parametrize(
    ("trace", "early"),
    [
        ([ASK, *frame(2, PAGE), SYNC, ANSWER], []),
        ([ASK, *frame(2, PAGE), SYNC_BEGINS, SYNC_ENDS, ANSWER], []),
        # A process number of fewer digits is set off by more spaces.
        ([ASK, *frame(2, PAGE), SYNC_BEGINS.replace("2 ", "2     "), SYNC_ENDS.replace("2 ", "2     "), ANSWER], []),
        ([ASK, *frame(2, PAGE, last=False), *frame(2, b"..."), SYNC, ANSWER], []),
        # The answer before the fsync, before its return, or without any.
        ([ASK, *frame(2, PAGE), ANSWER, SYNC], [b"7"]),
        ([ASK, *frame(2, PAGE), SYNC_BEGINS, ANSWER, SYNC_ENDS], [b"7"]),
        ([ASK, *frame(2, PAGE), ANSWER], [b"7"]),
        # An fsync that failed, began before the write, came before the commit's last frame, or was of another file.
        ([ASK, *frame(2, PAGE), SYNC.replace("= 0", "= -1 EIO (Input/output error)"), ANSWER], [b"7"]),
        ([ASK, SYNC_BEGINS, *frame(3, PAGE), SYNC_ENDS, ANSWER], [b"7"]),
        ([ASK, *frame(2, PAGE, last=False), SYNC, *frame(2, b"..."), ANSWER], [b"7"]),
        ([ASK, *frame(2, PAGE), SYNC.replace(hexed(b"-wal"), ""), ANSWER], [b"7"]),
        # Nothing written at all.
        ([ASK, SYNC, ANSWER], [b"7"]),
        # The spool in the store's place: the same fsync of the same file, after all of it was written.
        ([ASK, SPOOLED, SPOOL_SYNC, ANSWER], []),
        ([ASK, *frame(2, PAGE), SPOOLED, SPOOL_SYNC, ANSWER], []),
        ([ASK, SPOOLED, ANSWER, SPOOL_SYNC], [b"7"]),
        ([ASK, SPOOL_SYNC, SPOOLED, ANSWER], [b"7"]),
        ([ASK, SPOOLED, SYNC, ANSWER], [b"7"]),
        ([ASK, SPOOLED, spooled(b"/s/2.spool", "fdatasync", 0), ANSWER], [b"7"]),
        ([ASK, spooled(b"/s/1.spool", "write", 5), SPOOL_SYNC, ANSWER], [b"7"]),
    ],
)
def test_the_trace_is_read_rightly(trace, early):
    """What this file's other tests rest on sees an answer that came too early, in each way in which it can."""
    assert early_answers(read_trace(trace), MARKER) == (early, 1)


def end_traced(listener):
    """End the listener that strace watches; strace itself lets no signal end it."""
    parent = listener.process.pid
    (child,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    os.kill(int(child), signal.SIGTERM)
    assert listener.wait() == 0


@pytest.fixture
def traced(upcall, sender, tmp_path):
    """Return a function that sends marked bodies to a listener under strace and gives back the trace."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not here: apt-get install strace")
    if subprocess.run([strace, "-o", "/dev/null", "true"], check=False, capture_output=True).returncode:
        pytest.skip("strace may not trace here")
    trace = tmp_path / "trace"

    async def run(count, *, padding=700, during=contextlib.nullcontext, **options):
        wrapper = [strace, "-f", "-q", "-xx", "-yy", "-s", "8192", "-e", f"trace={CALLS}", "-o", str(trace)]
        listener = upcall.listen(wrapper=wrapper, **options)
        running = sender(listener.port, connections=8)
        with during():
            await running.send(
                b'{"type": "marker-%d!", "padding": "%s"}' % (number, b"x" * padding) for number in range(count)
            )
        assert len(running.acknowledged) == count
        end_traced(listener)
        return read_trace(trace.read_text().splitlines())

    return run


async def test_every_200_follows_an_fsync_that_returned(traced):
    """For each answer: its commit was written, then an fsync of that file began and returned 0, then it left."""
    assert early_answers(await traced(REQUESTS), MARKER) == ([], REQUESTS)


UNSAFE = """
import sys
from upcall.inbox.sqlite import append

durable = append.connect

def careless(*arguments, **options):
    connection = durable(*arguments, **options)
    connection.execute("PRAGMA synchronous = OFF")
    return connection

append.connect = careless
from upcall.cli.main import run
sys.exit(run())
"""
UNSAFE_SPOOL = """
import sys
from upcall.inbox import segment

segment.sync_file = lambda descriptor: None
from upcall.cli.main import run
sys.exit(run())
"""


async def test_a_listener_without_fsync_is_caught(traced):
    """The same look at a listener whose appender does not wait for the disk finds early answers."""
    early, answers = early_answers(await traced(20, program=("-c", UNSAFE)), MARKER)
    assert answers == 20
    assert len(early) > 10


@pytest.fixture
def store_locked(upcall):
    """Return a context in which the listener cannot write to its store."""

    @contextlib.contextmanager
    def locked():
        with contextlib.closing(sqlite3.connect(upcall.path, timeout=100, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            finally:
                connection.rollback()

    return locked


async def test_every_200_follows_an_fsync_of_the_spool(traced, store_locked):
    """While the store is locked: its group was written to the spool, an fsync of that returned 0, then it left."""
    calls = await traced(REQUESTS, padding=100, during=store_locked)
    assert len(_spooled(calls, MARKER)) == REQUESTS
    assert early_answers(calls, MARKER) == ([], REQUESTS)


async def test_a_spool_without_fsync_is_caught(traced, store_locked):
    """The same look at a listener whose spool does not wait for the disk finds early answers."""
    calls = await traced(20, padding=100, during=store_locked, program=("-c", UNSAFE_SPOOL))
    early, answers = early_answers(calls, MARKER)
    assert answers == 20
    assert len(early) > 10
