"""Real processes, always ended, and a sender that speaks HTTP over sockets of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest

TOKEN = "acceptance-canary-token"
START_SECONDS = 100


class Server:
    """Hold a running `upcall` server and what it said.

    Args:
        command: The whole command.
        environment: Its variables.
        cwd: Its working directory.
    """

    def __init__(self, command, environment, cwd):
        self.errors = cwd / f"stderr-{time.monotonic_ns()}.txt"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, cwd=cwd
            )
        self.lines = []
        self._news = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            self._news.put(line)
        self._news.put(None)

    def next_line(self):
        """Return the next line of stdout, None at its end."""
        try:
            return self._news.get(timeout=START_SECONDS)
        except queue.Empty:
            pytest.fail(f"no line within {START_SECONDS} s; stderr: {self.errors.read_text()}")

    def wait_until_ready(self):
        line = self.next_line()
        assert line is not None, self.errors.read_text()
        assert line.startswith("ready http://127.0.0.1:")
        self.url = line.split()[1]
        self.port = urlsplit(self.url).port
        return self

    def kill(self):
        self.end(signal.SIGKILL)

    def end(self, number=signal.SIGTERM):
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self):
        code = self.process.wait(30)
        self._reader.join(30)
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(30)
        self.process.stdout.close()


class Sender:
    """Send bodies, each on one of several keep-alive connections, and note which were acknowledged.

    Args:
        port: The listener's port.
        connections: How many at once.
    """

    def __init__(self, port, *, connections=8):
        self.port = port
        self.connections = connections
        self.acknowledged = []
        self.refused = []
        self.unanswered = []
        self.done = False

    async def send(self, bodies, *, resend=lambda body: False):
        """Send all the bodies; one without an answer is sent again where `resend` says so."""
        waiting = iter(bodies)
        async with asyncio.timeout(200):
            await asyncio.gather(*(self._work(waiting, resend) for _ in range(self.connections)))
        self.done = True

    async def reaches(self, count):
        """Wait until so many were acknowledged, or nothing is left to send."""
        async with asyncio.timeout(200):
            while len(self.acknowledged) < count and not self.done:  # noqa: ASYNC110 - counted on the hot path
                await asyncio.sleep(0.001)

    async def _work(self, waiting, resend):
        streams = None
        for body in waiting:
            while True:
                try:
                    streams = streams or await asyncio.open_connection("127.0.0.1", self.port)
                    status = await self._post(streams, body)
                except (OSError, EOFError):
                    self._drop(streams)
                    streams = None
                    await asyncio.sleep(0.005)  # the listener may be starting again
                    if resend(body):
                        continue
                    self.unanswered.append(body)
                else:
                    (self.acknowledged if status == 200 else self.refused).append(body)
                break
        self._drop(streams)

    async def _post(self, streams, body):
        reader, writer = streams
        head = f"POST /callbacks/{TOKEN} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = next(line.split(b":")[1] for line in answer.split(b"\r\n") if line.lower().startswith(b"content-len"))
        await reader.readexactly(int(length))
        return int(answer.split(b" ", 2)[1])

    def _drop(self, streams):
        if streams is not None:
            with contextlib.suppress(OSError):
                streams[1].transport.abort()


class Upcall:
    """Run `upcall` commands over one store, with nothing of the caller's settings.

    Args:
        directory: Where the store, the state and the handlers lie.
    """

    def __init__(self, directory):
        self.directory = directory
        self.path = directory / "inbox.db"
        self.store = f"sqlite:///{self.path}"
        self.servers = []
        own = {name: value for name, value in os.environ.items() if not name.startswith(("THINGSPACE_", "UPCALL_"))}
        self.environment = own | {"UPCALL_STATE_DIR": str(directory / "state")}

    def start(self, *words, wrapper=(), program=("-m", "upcall")):
        """Start a command that goes on."""
        command = [*wrapper, sys.executable, *program, *words]
        self.servers.append(Server(command, self.environment, self.directory))
        return self.servers[-1]

    def listen(self, *words, port=0, **options):
        """Start a listener and wait until it accepts requests."""
        words = ("listen", *words, "--port", str(port), "--store", self.store, "--token", TOKEN)
        return self.start(*words, **options).wait_until_ready()

    def run(self, *words, **environment):
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "upcall", *words],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            cwd=self.directory,
            env=self.environment | environment,
        )

    def json(self, *words):
        """Run a command that prints JSON lines about the store, and return the documents."""
        ended = self.run(*words, "--store", self.store, "--json")
        assert (ended.returncode, ended.stderr) == (0, "")
        return [json.loads(line) for line in ended.stdout.splitlines()]

    def handlers(self, text):
        """Write the module `handlers`, with `app` and `HERE` in it."""
        head = "import os, time\nfrom pathlib import Path\nfrom upcall import Upcall\n"
        head += "app = Upcall()\nHERE = Path(__file__).parent\n"
        (self.directory / "handlers.py").write_text(head + text)

    def read(self, name):
        """Return the lines of a file that handlers wrote."""
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []

    def until(self, condition, seconds=100):
        """Wait until something holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail("\n".join(server.errors.read_text() for server in self.servers))
            time.sleep(0.01)


@pytest.fixture
def upcall(tmp_path):
    """Return a place to run commands in; what still runs at the end is ended."""
    place = Upcall(tmp_path)
    yield place
    for server in place.servers:
        server.close()


@pytest.fixture
def sender():
    """Return the sender's class."""
    return Sender
