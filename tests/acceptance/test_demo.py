"""`upcall demo`: the whole path, ten times, with its own kill in the middle."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

KEYS = {"sent", "acknowledged", "stored", "redelivered", "handled", "dead", "lost", "restarts", "devices_equal"}
HOSTILE = {
    "THINGSPACE_BASE_URL": "https://thingspace.example.invalid/api",
    "THINGSPACE_CLIENT_ID": "somebody",
    "THINGSPACE_CLIENT_SECRET": "else",
    "THINGSPACE_SESSION_TOKEN": "fixed",
    "UPCALL_STORE": "postgresql://nowhere/",
    "UPCALL_TOKENS": "too-short",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
}


def run_demo(seed, temporary, *words):
    """Run one demo in a temporary directory of its own, in an environment that would mislead it."""
    return subprocess.run(
        [sys.executable, "-m", "upcall", "demo", "--json", "--seed", str(seed), *words],
        env=os.environ | HOSTILE | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


@pytest.mark.timeout(900)
def test_ten_seeds_lose_nothing(tmp_path):
    """Ten demos with ten seeds, each of which kills its listener, lose nothing and agree with the sandbox."""
    with ThreadPoolExecutor(max_workers=3) as pool:
        runs = list(pool.map(lambda seed: run_demo(seed, tmp_path), range(10)))

    for run in runs:
        assert run.returncode == 0, run.stderr
        ledger = json.loads(run.stdout.splitlines()[-1])
        assert set(ledger) == KEYS
        assert ledger["lost"] == ledger["dead"] == 0
        assert ledger["sent"] == ledger["acknowledged"] == ledger["stored"] == ledger["handled"] > 25
        assert ledger["restarts"] == 1
        assert ledger["devices_equal"] is True
    assert sum(json.loads(run.stdout)["redelivered"] for run in runs) > 0
    assert len(list(tmp_path.glob("upcall-demo-*/inbox.db"))) == 10


def test_a_person_reads_a_ledger_and_what_to_type_next(tmp_path):
    """Without --json the demo ends with the ledger, where the data lies, and three commands that work as printed."""
    run = subprocess.run(
        [sys.executable, "-m", "upcall", "demo", "--devices", "5", "--seed", "3", "--keep"],
        env=os.environ | HOSTILE | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert "equal to the sandbox's truth" in run.stdout
    assert "SIGKILL" in run.stderr
    commands = run.stdout.split("Try next\n")[1].splitlines()
    assert len(commands) == 3
    for command in commands:
        words = command.split()[1:]
        looked = subprocess.run([sys.executable, "-m", "upcall", *words], capture_output=True, text=True, check=False)
        assert looked.returncode == 0, looked.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["sandbox of ThingSpace", "listener at", "callback ", "SIGKILL"])
def test_an_interrupted_demo_leaves_no_server_behind(tmp_path, number, moment):
    """A demo that a signal ends takes its sandbox and its listener along, soon, and says 130."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "upcall", "demo", "--devices", "3"],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in demo.stderr:
        if moment in line:
            break
    else:
        pytest.fail(f"no {moment}")
    demo.send_signal(number)
    said, complained = demo.communicate(timeout=250)
    assert (demo.returncode, said) == (130, "")
    assert "Traceback" not in complained
    with pytest.raises(ProcessLookupError):
        os.killpg(demo.pid, 0)


def test_a_campaign_of_one_device_meets_the_kill_too(tmp_path):
    """However short the campaign is, the demo kills its listener before it ends."""
    with ThreadPoolExecutor(max_workers=3) as pool:
        runs = list(pool.map(lambda seed: run_demo(seed, tmp_path, "--devices", "1"), range(3)))

    assert [run.returncode for run in runs] == [0, 0, 0]
    assert [json.loads(run.stdout)["restarts"] for run in runs] == [1, 1, 1]
