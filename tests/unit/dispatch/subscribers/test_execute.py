"""Commands: what they are given, and what their end means."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from upcall.dispatch.subscribers.execute import CommandFailedError, Execute


def python(code, *, environ=None, **options):
    return Execute([sys.executable, "-c", code], environ=environ or {"PATH": os.environ["PATH"]}, **options)


def failure(command, event):
    with pytest.raises(CommandFailedError) as caught:
        command(event)
    return str(caught.value)


def test_the_event_on_stdin(tmp_path, event):
    """A command reads the event as one line of JSON."""
    given = event(campaign_id="c1", devices={"100000000000001": "UpgradeFailed"})
    python(f"import sys; open({str(tmp_path / 'out')!r}, 'w').write(sys.stdin.read())")(given)
    text = (tmp_path / "out").read_text()
    assert text.count("\n") == 1
    document = json.loads(text)
    assert document["raw"] == given.raw.decode()
    assert (document["id"], document["key"], document["campaign_id"]) == (7, given.key, "c1")
    assert document["devices"][0]["device_id"] == "100000000000001"
    assert document["devices"][0]["status"] == "UpgradeFailed"


def test_a_body_that_is_no_text(tmp_path, event):
    """A body that is no UTF-8 is there in base64."""
    python(f"import sys; open({str(tmp_path / 'out')!r}, 'w').write(sys.stdin.read())")(event(b"\xff"))
    document = json.loads((tmp_path / "out").read_text())
    assert document["raw_base64"] == "/w=="
    assert "raw" not in document


def test_the_environment(tmp_path, event):
    """A command sees our environment and the event's facts, and none of our secrets."""
    secrets = {"UPCALL_TOKENS": "t", "UPCALL_FORWARD_SECRET": "s", "THINGSPACE_PASSWORD": "p", "VZ_M2M_TOKEN_X": "v"}
    command = python(
        f"import json, os; json.dump(dict(os.environ), open({str(tmp_path / 'out')!r}, 'w'))",
        environ={"PATH": os.environ["PATH"], "LANG": "C", **secrets},
    )
    command(event(kind="upgradeFinished", campaign_id="c1"))
    seen = json.loads((tmp_path / "out").read_text())
    assert not secrets.keys() & seen.keys()
    assert seen["LANG"] == "C"
    assert seen["UPCALL_EVENT_KIND"] == "upgradeFinished"
    assert seen["UPCALL_EVENT_ORIGIN"] == "received"
    assert seen["UPCALL_EVENT_ID"] == "7"
    assert seen["UPCALL_EVENT_CAMPAIGN_ID"] == "c1"


def test_a_large_event_that_is_not_read(event):
    """A command that does not read its stdin is not waited for."""
    python("pass")(event(b" " * 4_000_000))


@pytest.mark.parametrize("code", [1, 75])
def test_a_failure_tells_the_end_of_stderr(event, code):
    """Any other exit than 0 fails, with the last of what the command said."""
    said = failure(python(f"import sys; sys.stderr.write('x' * 9000 + ' the reason'); sys.exit({code})"), event())
    assert f"ended with exit {code}" in said
    assert said.endswith("the reason")
    assert len(said) < 2200


def test_a_signal(event):
    """A command that a signal ended has failed."""
    assert "ended with signal 9" in failure(python("import os; os.kill(os.getpid(), 9)"), event())


def test_a_command_that_is_not_there(tmp_path, event):
    """A command that cannot be started fails with its name."""
    assert "was not started: No such file" in failure(Execute([str(tmp_path / "no")]), event())


def test_the_time_runs_out(tmp_path, event):
    """A command that takes too long is killed with all that it started, and leaves no zombie."""
    pid_file = tmp_path / "pids"
    command = python(
        "import os, subprocess, time, pathlib\n"
        "child = subprocess.Popen(['sleep', '100'])\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(100)",
        timeout_seconds=2.0,
    )
    assert "took longer than 2 s" in failure(command, event())
    for pid in map(int, pid_file.read_text().split()):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and _lives(pid):
            os.sched_yield()  # the kernel ends it; nothing tells when
        assert not _lives(pid)


def test_what_a_command_leaves_running(event):
    """A command that ended is not waited for because of a child that holds its stderr."""
    began = time.monotonic()
    python("import subprocess; subprocess.Popen(['sleep', '30'])", timeout_seconds=25.0)(event())
    assert time.monotonic() - began < 25


def _lives(pid):
    try:
        os.kill(pid, 0)
        # A child of a killed process is init's to reap; a zombie does not run.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_no_zombies(event):
    """Commands that ended, well or not, are reaped."""
    python("pass")(event())
    failure(python("raise SystemExit(1)"), event())
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
