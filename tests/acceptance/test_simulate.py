"""`upcall simulate` as users run it: against a sandbox, against what is none, and against nothing."""

import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections import Counter

import pytest

from .terminal import run_on_a_terminal

ACCOUNT = "0000123456-00001"


@pytest.fixture
def environment(tmp_path):
    """Return an environment with the sandbox's credentials and nothing of the caller's."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("THINGSPACE_", "UPCALL_", "VZ_"))}
    names = ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD")
    return own | {f"THINGSPACE_{name}": "sandbox" for name in names} | {"UPCALL_STATE_DIR": str(tmp_path / "state")}


@pytest.fixture
def sandbox(environment, tmp_path):
    """Start a sandbox at an hour a second and return its base URL."""
    with subprocess.Popen(
        [sys.executable, "-m", "upcall", "sandbox", "--port", "0", "--speed", "3600", "--seed", "1", "--quiet"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    ) as process:
        yield process.stdout.readline().split()[1]
        process.terminate()
        assert process.wait(10) == 0


def simulate(environment, base_url, *options):
    return subprocess.run(
        [sys.executable, "-m", "upcall", "simulate", *options],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=environment | {"THINGSPACE_BASE_URL": base_url},
    )


def test_ends_with_the_truth(environment, sandbox):
    """The last line is the truth, in the provider's words; failed devices do not change exit 0."""
    ended = simulate(environment, sandbox, "--account", ACCOUNT, "--devices", "40", "--seed", "5")
    assert ended.returncode == 0, ended.stderr
    truth = json.loads(ended.stdout.splitlines()[-1])
    assert set(truth) == {"campaign_id", "status", "devices"}
    assert truth["status"] == "CampaignEnded"
    counts = Counter(device["status"] for device in truth["devices"])
    assert sum(counts.values()) == 40
    assert set(counts) <= {"UpgradeSuccess", "UpgradeFailed", "DeviceRejected"}
    assert counts["UpgradeFailed"] > 0
    assert f"campaign {truth['campaign_id']}: CampaignEnded" in ended.stdout
    assert f"no listener is registered for {ACCOUNT}" in ended.stderr
    assert "40 of 40 devices final" in ended.stderr
    assert re.search(r"^(\d+) callbacks in 0 tries: \1 lost$", ended.stderr, re.MULTILINE)


def test_on_a_terminal(environment, sandbox, tmp_path):
    """A bar counts the devices, below the campaign's identifier, which is there from the start."""
    words = ["simulate", "--account", ACCOUNT, "--devices", "10", "--hours", "0.5", "--json"]
    code, data, seen = run_on_a_terminal(words, environment | {"THINGSPACE_BASE_URL": sandbox}, tmp_path)
    assert code == 0
    campaign_id = json.loads(data)["campaign_id"]
    assert seen.index(f"campaign {campaign_id}") < seen.index("10/10")


def test_json_is_one_line_and_seeds_repeat(environment, sandbox):
    """With --json the truth is all of stdout, and the same seed has the same devices with the same fates."""
    runs = [
        simulate(
            environment, sandbox, "--account", ACCOUNT, "--devices", "15", "--hours", "0.5", "--seed", "9", "--json"
        )
        for _ in range(2)
    ]
    truths = [json.loads(run.stdout) for run in runs]
    assert all(len(run.stdout.splitlines()) == 1 for run in runs)
    assert truths[0]["devices"] == truths[1]["devices"]
    assert truths[0]["campaign_id"] != truths[1]["campaign_id"]


@pytest.mark.parametrize("options", [("--devices", "0"), ("--devices", "-3"), ("--devices", "x"), (), ("--hours", "0")])
def test_usage_errors(environment, options):
    """A wrong number of devices or hours is a usage error in one line, before anything is called."""
    given = options if "--devices" in options else ("--devices", "1", *options) if options else ()
    ended = simulate(environment, "http://127.0.0.1:9/api", "--account", ACCOUNT, *given)
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (2, "", 1)


def test_refuses_what_is_no_sandbox(environment):
    """A base URL that answers and is no sandbox is refused with exit code 2 and what to do instead."""
    asked = []

    class Anything(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Anything) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        base_url = f"http://127.0.0.1:{server.server_port}/api"
        ended = simulate(environment, base_url, "--account", ACCOUNT, "--devices", "1")
        server.shutdown()
        thread.join()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "is no sandbox" in ended.stderr
    assert "upcall sandbox" in ended.stderr
    assert asked == ["/_sandbox/"]


def test_nothing_answers(environment):
    """A base URL where nothing answers is exit code 4 in one line."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{free.getsockname()[1]}/api"
    ended = simulate(environment, base_url, "--account", ACCOUNT, "--devices", "1")
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (4, "", 1)
    assert f"No sandbox answers at {base_url}: Connection refused. Start one with: upcall sandbox" in ended.stderr


def test_a_base_url_that_lacks_its_end(environment, sandbox):
    """Where the gateway knows no such path, the base URL is what is wrong, not the credentials."""
    ended = simulate(environment, sandbox.removesuffix("/api"), "--account", ACCOUNT, "--devices", "1")
    assert ended.returncode == 4
    assert "900906" in ended.stderr
    assert "Check the base URL, the root that ends in /api" in ended.stderr


def test_a_sandboxs_credentials_are_told(environment, sandbox):
    """Who has none for a sandbox is told what they are."""
    without = {name: value for name, value in environment.items() if not name.startswith("THINGSPACE_")}
    ended = simulate(without, sandbox, "--account", ACCOUNT, "--devices", "1")
    assert ended.returncode == 2
    assert "Those of upcall sandbox are the word sandbox, each of them." in ended.stderr


def test_wrong_account(environment, sandbox):
    """An account name that the API refuses is exit code 4 with the provider's own message."""
    ended = simulate(environment, sandbox, "--account", "a b", "--devices", "1")
    assert ended.returncode == 4
    assert "Invalid account name format" in ended.stderr
