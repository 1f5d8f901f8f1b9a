"""`upcall prove`: on a machine whose settings would mislead it, proved; with a row taken away behind its back, not."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from upcall.failpoints import POINTS

HOSTILE = {
    "THINGSPACE_BASE_URL": "https://thingspace.example.invalid/api",
    "THINGSPACE_CLIENT_SECRET": "else",
    "UPCALL_STORE": "postgresql://nowhere/",
    "UPCALL_TOKENS": "too-short",
    "HTTP_PROXY": "http://127.0.0.1:9",
}


def words(directory, *more):
    return [sys.executable, "-m", "upcall", "prove", "--quick", "--dir", str(directory), *more]


def environment(directory):
    return os.environ | HOSTILE | {"UPCALL_STATE_DIR": str(directory / "not-mine")}


@contextlib.contextmanager
def proving(directory, *more):
    """Run a proof whose progress is read while it goes on; nothing of it is left at the end."""
    process = subprocess.Popen(
        words(directory, *more),
        env=environment(directory),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def read_until(process, text):
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"it never said {text!r}")


@pytest.mark.timeout(400)
def test_a_quick_proof(tmp_path):
    """Everything holds: each point was killed at, the spool was used, and the account balances; nothing is left."""
    run = subprocess.run(
        words(tmp_path, "--json"), env=environment(tmp_path), capture_output=True, text=True, timeout=380, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout)
    assert found["proved"] is True
    assert (found["lost"], found["doubled"], found["strangers"], found["problems"]) == (0, 0, 0, [])
    assert found["acknowledged"] == found["stored"] == found["handled"] + found["dead"] + found["quarantined"] > 1000
    assert found["kills"] == dict.fromkeys(POINTS, 1)
    assert min(found["spooled"], found["dead"], found["quarantined"], found["effects"]) > 0
    assert found["disk"]["fsync_ms"] > 0
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["p999_ms"]
    assert {check["outcome"] for check in found["checks"]} <= {"held", "skipped"}
    assert len(run.stderr.splitlines()) == len(found["checks"]) + 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(400)
def test_a_row_that_disappears(tmp_path):
    """Somebody deletes a stored callback in the middle: the proof calls it lost, says so last, and exits 1."""
    with proving(tmp_path, "--keep") as process:
        read_until(process, "backup under load")
        (store,) = tmp_path.glob("upcall-prove-*/main/store/inbox.db")
        with contextlib.closing(sqlite3.connect(store, timeout=10)) as connection, connection:
            connection.execute("DELETE FROM work WHERE callback_id = 7")
            assert connection.execute("DELETE FROM callbacks WHERE id = 7").rowcount == 1
        said, _ = process.communicate(timeout=380)
        assert process.returncode == 1, said
    lines = said.splitlines()
    assert "lost 1" in lines[0]
    assert lines[-1].startswith("NOT PROVED: ")
    assert "1 acknowledged and not stored: number " in lines[-1]
    kept = [Path(line.removeprefix("the data lies in ")) for line in lines if line.startswith("the data lies in ")]
    assert (kept[0] / "main" / "store" / "inbox.db").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["one fsync takes", "flood"])
def test_an_interrupted_proof_leaves_nothing_behind(tmp_path, number, moment):
    """A proof that a signal ends takes its processes and its data along, and says 130."""
    with proving(tmp_path) as process:
        read_until(process, moment)
        process.send_signal(number)
        said, complained = process.communicate(timeout=100)
        assert (process.returncode, said) == (130, "")
        assert "Traceback" not in complained
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("directory", "words_expected"),
    [("/dev/shm", "lies in memory"), ("/nowhere/at/all", "cannot be written to")],
)
def test_a_place_that_is_no_disk(directory, words_expected, tmp_path):
    """Memory proves nothing about what survives, and a directory that is not there holds nothing: one line, exit 2."""
    if directory == "/dev/shm" and not Path(directory).is_dir():
        pytest.skip("this machine has no /dev/shm")
    run = subprocess.run(
        words(directory), env=environment(tmp_path), capture_output=True, text=True, timeout=200, check=False
    )
    assert (run.returncode, run.stdout, len(run.stderr.splitlines())) == (2, "", 1)
    assert words_expected in run.stderr
