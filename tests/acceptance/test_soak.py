"""The soak in a form that CI bears, and handlers that fail one time in five across deaths of their worker."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from upcall.cli.proof.bodies import wants_device
from upcall.cli.proof.run import Run

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"
SECONDS = 60
RATE = 250
RESTART_SECONDS = 8
"""Each of the three is ended once, by SIGKILL too, and each has a life of half a minute to look at."""


@pytest.mark.timeout(400)
def test_a_minute_of_soak(tmp_path):
    """With handlers, a forward, a file and restarts of everything: nothing is lost, doubled or left out, and no process
    grows after its first seconds.
    """
    words = ["--minutes", str(SECONDS / 60), "--rate", str(RATE), "--connections", "16"]
    words += ["--restart-seconds", str(RESTART_SECONDS)]
    ended = subprocess.run(
        [sys.executable, str(SOAK), *words, "--dir", str(tmp_path), "--json"],
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout)
    assert (found["held"], found["lost"], found["doubled"]) == (True, 0, 0)
    assert found["acknowledged"] == found["stored"] == found["forwarded"] == found["filed"]
    assert found["acknowledged"] > RATE * SECONDS / 2
    assert min(found["restarts"].values()) > 0
    assert None not in found["memory_rise_mib"].values(), "no life was long enough to tell"


@pytest.mark.timeout(400)
def test_failing_handlers_across_deaths_of_their_worker(tmp_path):
    """One attempt in five fails and the worker is killed again and again: handled and dead make up what is stored."""
    chance = random.Random(11)
    with Run(tmp_path) as run:
        run.sender.flow(500)
        for _ in range(6):
            run.sender.reaches(chance.randint(50, 400))
            assert run.worker.end(signal.SIGKILL) == -signal.SIGKILL
            run.start_worker()
        run.drain()
        ledger = run.account()
        with run.inbox() as inbox:
            given_up = {letter.callback_id for letter in inbox.dead() if letter.subscriber.endswith(".note_device")}
            counts = inbox.ledger()
        noted = {int(line) for line in (run.effects / "devices").read_text().splitlines()}
    assert ledger.faults == ()
    assert ledger.stored == ledger.acknowledged == ledger.handled + ledger.dead
    assert (counts.stored, counts.handled, counts.dead) == (ledger.stored, ledger.handled, ledger.dead)
    wanted = [serial for serial in range(ledger.sent) if wants_device(serial)]
    assert len(wanted) - len(noted) <= len(given_up)
    assert noted <= set(wanted)
