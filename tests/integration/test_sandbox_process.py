"""The sandbox as a process: its ready line, its signals, its kills, and real deliveries."""

import contextlib
import hashlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter

import pytest

from upcall.thingspace import is_final_device

ACCOUNT = "0000123456-00001"


class Process:
    """`upcall sandbox` in a process of its own."""

    def __init__(self, directory, *options):
        self.errors = (directory / f"stderr-{time.monotonic_ns()}").open("w+")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("THINGSPACE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "upcall", "sandbox", "--port", "0", "--allow-http", *options],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=directory,
            env=environment,
        )
        line = self.process.stdout.readline()
        assert line.startswith("ready "), self.stderr()
        self.base_url = line.split()[1]
        self.headers = {}

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read()

    def call(self, method, path, body=None, headers=None):
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        root = self.base_url if not path.startswith("/_sandbox") else self.base_url.removesuffix("/api")
        request = urllib.request.Request(root + path, data, self.headers | (headers or {}), method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            raw = answer.read()
        return json.loads(raw) if raw else None

    def log_in(self):
        basic = {"Authorization": "Basic c2FuZGJveDpzYW5kYm94"}
        token = self.call("POST", "/ts/v1/oauth2/token", b"grant_type=client_credentials", basic)["access_token"]
        self.headers = {"Authorization": f"Bearer {token}"}
        user = {"username": "sandbox", "password": "sandbox"}
        self.headers["VZ-M2M-Token"] = self.call("POST", "/m2m/v1/session/login", user)["sessionToken"]
        return self

    def register(self, url):
        self.call("POST", f"/fota/v2/callbacks/{ACCOUNT}", {"url": url})

    def schedule(self, devices, **sandbox):
        return self.call(
            "POST",
            f"/fota/v2/campaigns/{ACCOUNT}",
            {
                "softwareName": "s",
                "softwareFrom": "1",
                "softwareTo": "2",
                "distributionType": "HTTP",
                "startDate": "2026-06-01",
                "endDate": "2026-06-08",
                "deviceList": [f"99001390{number:07d}" for number in range(devices)],
                "_sandbox": sandbox,
            },
        )["id"]

    def wait_for(self, path, condition, seconds=20.0):
        deadline = time.monotonic() + seconds
        while not condition(found := self.call("GET", path)):
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        status = self.process.wait(10)
        self.process.stdout.close()
        return status


@pytest.fixture
def start(tmp_path):
    """Start sandboxes, and end those that a test leaves running."""
    processes = []

    def make(*options):
        processes.append(Process(tmp_path, *options))
        return processes[-1]

    yield make
    for each in processes:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait(10)
        each.process.stdout.close()
        each.errors.close()


class Listener(http.server.ThreadingHTTPServer):
    """Takes callbacks on loopback, keeps every body, and answers all with one status."""

    daemon_threads = True

    def __init__(self, status):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = status
        self.bodies = []
        self.arrived = threading.Condition()
        self.url = f"http://127.0.0.1:{self.server_port}/callbacks/token-of-a-listener"

    def wait_for(self, count, seconds):
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.bodies) >= count, seconds), len(self.bodies)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.arrived:
            self.server.bodies.append(body)
            self.server.arrived.notify_all()
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def listening(status=200):
    with Listener(status) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield listener
        finally:
            listener.shutdown()
            thread.join()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals(start, number, status):
    """A sandbox that SIGTERM stops exits 0, one that Ctrl-C stops exits 130, and neither leaves a traceback."""
    sandbox = start()
    assert sandbox.call("GET", "/_sandbox/")["sandbox"] is True
    assert sandbox.end(number) == status
    assert "Traceback" not in sandbox.stderr()


def test_port_in_use(start, tmp_path):
    """A port that is taken is one clear line and exit code 3, and the state file is not touched."""
    port = start().base_url.rsplit(":", 1)[1].removesuffix("/api")
    second = subprocess.run(
        [sys.executable, "-m", "upcall", "sandbox", "--port", port, "--state", str(tmp_path / "state")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (second.returncode, second.stdout) == (3, "")
    assert len(second.stderr.splitlines()) == 1
    assert f"127.0.0.1 port {port}: the port is in use" in second.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["--faults", "eclipse=1"], 2),
        (["--profile", "none"], 2),
        (["--speed", "0"], 2),
        (["--deliver-to", "a b"], 2),
        (["--trust", "missing.pem"], 2),
        (["--port", "70000"], 2),
        (["--state", "/nonexistent/state"], 3),
        (["--host", "192.0.2.1"], 3),
    ],
)
def test_wrong_options(tmp_path, options, status):
    """A wrong option is one clear line and the right exit code, without a traceback."""
    ended = subprocess.run(
        [sys.executable, "-m", "upcall", "sandbox", "--port", "0", *options],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=tmp_path,
    )
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (status, "", 1)


def test_a_connection_is_reset_on_purpose(start):
    """Under the fault `reset` a connection ends without a byte; the control calls and the lines tell of it."""
    sandbox = start("--faults", "reset")
    with pytest.raises(ConnectionError):
        sandbox.call("GET", f"/fota/v2/callbacks/{ACCOUNT}")
    assert sandbox.call("GET", "/_sandbox/faults")["all"] == {"reset": 1.0}
    sandbox.call("DELETE", "/_sandbox/faults")
    sandbox.log_in().register("https://listener.example/callbacks/a")
    assert f"GET /api/fota/v2/callbacks/{ACCOUNT} connection ended without an answer" in sandbox.stderr()


def test_a_manual_clock_is_stepped(start):
    """A process with a manual clock delivers a campaign of days in no time, to a real listener, and not before."""
    with listening() as listener:
        sandbox = start("--clock", "manual", "--profile", "observed").log_in()
        sandbox.register(listener.url)
        campaign_id = sandbox.schedule(5, hours=72, rejected=0)
        assert sandbox.call("GET", "/_sandbox/deliveries") == []
        assert sandbox.call("POST", "/_sandbox/clock", {"to_next": True})["next_due"] is not None
        assert len(listener.bodies) == 1
        sandbox.call("POST", "/_sandbox/clock", {"advance_seconds": 72 * 3600})
        assert len(listener.bodies) == 12
        truth = sandbox.call("GET", f"/_sandbox/truth/{campaign_id}")
        assert (truth["ended"], truth["final"]) == (True, True)


def test_a_listener_that_hangs_does_not_hold_the_clock(start):
    """Deadlines are steps of a manual clock: a listener that never answers is given up by them, in seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sandbox = start("--clock", "manual", "--profile", "observed").log_in()
        sandbox.register(f"http://127.0.0.1:{silent.getsockname()[1]}/callbacks/a")
        sandbox.call("POST", f"/_sandbox/announce/{ACCOUNT}")
        now = sandbox.call("POST", "/_sandbox/clock", {"advance_seconds": 60})["now"]
        (message,) = sandbox.call("GET", "/_sandbox/deliveries")
    assert message["state"] == "failed"
    tries = [
        (attempt["at"] - now + 60, attempt["duration_seconds"], attempt["error"]) for attempt in message["attempts"]
    ]
    assert tries == [(pytest.approx(0), 30.0, "timeout"), (pytest.approx(4), 30.0, "timeout")]


def test_files_of_faults_and_profiles(start, tmp_path):
    """A profile and faults from files are what the sandbox then says that it runs with."""
    (tmp_path / "mine.toml").write_text("gaps_seconds = [1]\n")
    (tmp_path / "faults.toml").write_text("[all]\ndelay = 0.5\n")
    sandbox = start("--profile", "mine.toml", "--faults", "faults.toml")
    banner = sandbox.call("GET", "/_sandbox/")
    assert (banner["profile"], banner["faults"]["all"], banner["clock"]) == ("mine", {"delay": 0.5}, "real")


def test_delivers_to_a_listener(start):
    """A campaign's callbacks reach a listener over the network; the first leaves within a second at any speed."""
    sandbox = start("--speed", "1", "--seed", "1").log_in()
    with listening() as listener:
        sandbox.register(listener.url)
        campaign_id = sandbox.schedule(5)
        listener.wait_for(1, seconds=1.0)
        assert json.loads(listener.bodies[0])["type"] == "upgradeScheduled"
        path = f"/_sandbox/deliveries?campaign={campaign_id}"
        entries = sandbox.wait_for(path, lambda found: found[0]["acknowledged"])
    assert entries[0]["attempts"][0]["status"] == 200
    assert "token-of-a-listener" not in sandbox.stderr()


def test_retries_carry_the_same_bytes(start):
    """A refusing listener gets each callback once for each try of the profile, byte for byte the same."""
    sandbox = start("--speed", "36000", "--seed", "1").log_in()
    with listening(503) as listener:
        sandbox.register(listener.url)
        sandbox.schedule(3, rejected=0)
        sandbox.wait_for(
            "/_sandbox/deliveries",
            lambda found: len(found) == 8 and all(entry["state"] == "failed" for entry in found),
        )
    assert Counter(Counter(listener.bodies).values()) == {4: 8}


def test_state_survives_sigkill(start, tmp_path):
    """Killed in the middle of a campaign and started again, a sandbox knows everybody and sends what it still owes."""
    options = ("--state", str(tmp_path / "state"), "--speed", "1800", "--profile", "observed")
    first = start(*options, "--seed", "7").log_in()
    with listening() as listener:
        first.register(listener.url)
        campaign_id = first.schedule(30)
        listener.wait_for(10, seconds=20.0)
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
        second = start(*options)
        second.headers = first.headers
        assert second.call("GET", f"/fota/v2/callbacks/{ACCOUNT}") == {"url": listener.url}
        assert second.call("GET", "/_sandbox/")["seed"] == 7
        truth = second.wait_for(f"/_sandbox/truth/{campaign_id}", lambda found: found["ended"])
        entries = second.wait_for(
            "/_sandbox/deliveries", lambda found: all(entry["next_at"] is None for entry in found)
        )
    assert all(entry["acknowledged"] for entry in entries)
    assert {hashlib.sha256(body).hexdigest() for body in listener.bodies} == {entry["sha256"] for entry in entries}
    told = {}
    for body in listener.bodies:
        message = json.loads(body)
        for device in message[message["type"]]["deviceList"]:
            if not is_final_device(told.get(device["deviceId"], "")):
                told[device["deviceId"]] = device["status"]
    assert told == {device["device_id"]: device["status"] for device in truth["devices"]}


def test_one_sandbox_a_state_file(start, tmp_path):
    """A second sandbox on a state file that is in use is refused with one line."""
    options = ("--state", str(tmp_path / "state"))
    start(*options)
    ended = subprocess.run(
        [sys.executable, "-m", "upcall", "sandbox", "--port", "0", *options],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (3, "", 1)
    assert "another sandbox has it open" in ended.stderr
