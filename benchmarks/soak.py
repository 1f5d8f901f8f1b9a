"""Twenty minutes of traffic with handlers, a forward, a file and restarts: memory flat, nothing lost.

    uv run --all-extras benchmarks/soak.py

A listener; a worker with three handlers, some of whose attempts fail; a second worker that forwards each callback to a
loopback sink and appends it to a file. In the first half one after the other is ended, by SIGTERM or SIGKILL in turn,
and started again; in the second half they run on, and show whether they grow. Every 30 seconds a line tells the rate,
the resident memory of each process, the backlog and p99. Ends with 1 where anything acknowledged is lost, doubled, not
forwarded or not in the file, or where memory grows: after its first three minutes, in which SQLite's cache fills, the
resident memory of a process may not rise by more than `MOST_GROWTH` MiB a minute (least squares over all its lives
together, each life about its own mean). Runs of less than ten minutes are too short for that: there no life may end
more than `MOST_RISE` MiB above what it took after its first 10 seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop

from upcall.cli.proof.bodies import serial_of
from upcall.cli.proof.children import Child, wait_until
from upcall.cli.proof.run import Run

if TYPE_CHECKING:
    from upcall.inbox import SubscriberRecord

SUBSCRIBERS = 5
"""Three handlers, a forward, a file."""
MOST_GROWTH = 0.5
"""MiB a minute."""
MOST_RISE = 8.0
"""MiB within one life, of a run that is too short to tell a slope."""
MOST_MEMORY = 512.0
"""MiB, of any process at any time."""
WARM_UP_SECONDS = 180.0
SETTLED_SECONDS = 10.0
SAMPLE_SECONDS = 2.0
REPORT_SECONDS = 30.0
SHORTEST_FOR_GROWTH = 10.0
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Sink:
    """Answer each forwarded callback 200 from a thread of its own, and note its serial number."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.url = ""
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()), daemon=True)
        self._thread.start()
        self._ready.wait()

    def close(self) -> None:
        assert self._loop is not None
        assert self._over is not None
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def take(self, body: bytes) -> None:
        """Note a CloudEvent; its data is the body as JSON, which is written again as it was sent."""
        data = msgspec.json.decode(body).get("data")
        serial = serial_of(msgspec.json.encode(data))
        if serial is not None:
            count(self.seen, serial)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await self._loop.create_server(lambda: _SinkConnection(self), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/events"
        self._ready.set()
        await self._over.wait()
        server.close()


class _SinkConnection(asyncio.Protocol):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP's is one
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._buffer, 0, end)
            stop = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < stop:
                return
            body, self._buffer = self._buffer[end + 4 : stop], self._buffer[stop:]
            self._sink.take(body)
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def count(counts: bytearray, serial: int) -> None:
    """Count a serial number, as far as a byte goes."""
    if serial >= len(counts):
        counts.extend(bytes(serial + 65_536 - len(counts)))
    counts[serial] = min(counts[serial] + 1, 255)


class Memory:
    """Hold the resident memory of a role's processes, life by life."""

    def __init__(self) -> None:
        self.lives: list[list[tuple[float, float]]] = []
        self.most = 0.0
        self.last = 0.0
        self.rise: float | None = None
        self._settled: float | None = None
        self._pid = 0
        self._began = 0.0

    def sample(self, child: Child | None) -> None:
        """Look at a process now."""
        if child is None or child.has_ended:
            return
        if child.pid != self._pid:
            self._pid, self._began = child.pid, time.monotonic()
            self._settled = None
            self.lives.append([])
        mebibytes = resident(child.pid)
        if mebibytes is None:
            return
        self.last, self.most = mebibytes, max(self.most, mebibytes)
        age = time.monotonic() - self._began
        if age > SETTLED_SECONDS:
            self._settled = mebibytes if self._settled is None else self._settled
            self.rise = max(self.rise or 0.0, mebibytes - self._settled)
        if age > WARM_UP_SECONDS:
            self.lives[-1].append((age / 60, mebibytes))

    def slope(self) -> float:
        """Return by how many MiB a minute it rises: least squares, each life about its own mean."""
        above = below = 0.0
        for life in self.lives:
            if not life:
                continue
            mean_age = sum(age for age, _ in life) / len(life)
            mean_size = sum(size for _, size in life) / len(life)
            above += sum((age - mean_age) * (size - mean_size) for age, size in life)
            below += sum((age - mean_age) ** 2 for age, _ in life)
        return above / below if below else 0.0


def resident(pid: int) -> float | None:
    """Return a process's resident memory in MiB, None where it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return None


class Soak:
    """Run it all, and look at it.

    Args:
        run: The listener, the worker, the traffic.
        options: What was asked for.
    """

    def __init__(self, run: Run, options: argparse.Namespace) -> None:
        self.run = run
        self.options = options
        self.sink = Sink()
        self.file = run.directory / "events.jsonl"
        self.memory = {name: Memory() for name in ("listener", "worker", "forwarder")}
        self.restarts = dict.fromkeys(self.memory, 0)
        self.most_backlog = 0
        self.forwarder = self.forward()
        # A subscriber that comes later begins where the others stand: all must be known before the first callback.
        wait_until(lambda: len(self.subscribers()) == SUBSCRIBERS, "all subscribers")

    def forward(self) -> Child:
        words = ["work", "--store", self.run.url, "--forward", self.sink.url, "--jsonl", str(self.file)]
        return self.run.start_other("forwarder", words)

    def children(self) -> dict[str, Child | None]:
        return {"listener": self.run.listener, "worker": self.run.worker, "forwarder": self.forwarder}

    def soak(self) -> None:
        """Send, look, restart, until the time is up."""
        run, options = self.run, self.options
        began = reported = time.monotonic()
        since, acknowledged = run.sender.measured, run.sender.acknowledged
        restart_at = began + options.restart_seconds
        run.sender.flow(options.rate)
        seconds = options.minutes * 60
        while (now := time.monotonic()) - began < seconds:
            for name, child in self.children().items():
                self.memory[name].sample(child)
            if restart_at <= now <= began + seconds / 2:
                self.restart()
                restart_at = now + options.restart_seconds
            if now - reported >= REPORT_SECONDS:
                rate = (run.sender.acknowledged - acknowledged) / (now - reported)
                self.say(now - began, rate, run.sender.latencies(since).milliseconds(0.99))
                reported, since, acknowledged = now, run.sender.measured, run.sender.acknowledged
            time.sleep(min(SAMPLE_SECONDS, options.restart_seconds / 4))

    def restart(self) -> None:
        """End the process whose turn it is, one way or the other, and start it again."""
        turn = sum(self.restarts.values())
        name = list(self.memory)[turn % len(self.memory)]
        number = (signal.SIGKILL, signal.SIGTERM)[turn % 2]
        child = self.children()[name]
        assert child is not None
        code = child.end(number)
        if number == signal.SIGTERM and code:
            raise SystemExit(f"{name} ended with {code} when it was asked to stop")
        print(f"        {name} ended by {number.name}", file=sys.stderr, flush=True)
        if name == "forwarder":
            self.forwarder = self.forward()
        else:
            self.run.ensure_up()
        self.restarts[name] += 1

    def subscribers(self) -> list[SubscriberRecord]:
        with self.run.inbox() as inbox:
            return inbox.subscribers()

    def backlog(self) -> int:
        return sum(one.unread + one.pending + one.leased for one in self.subscribers())

    def say(self, seconds: float, rate: float, p99: float) -> None:
        backlog = self.backlog()
        self.most_backlog = max(self.most_backlog, backlog)
        sizes = ", ".join(f"{name} {memory.last:.0f} MiB" for name, memory in self.memory.items())
        print(
            f"{seconds:6.0f} s  {rate:,.0f}/s  p99 {p99:.1f} ms  backlog {backlog:,}  {sizes}",
            file=sys.stderr,
            flush=True,
        )

    def result(self) -> dict[str, Any]:
        """Wait until all is done, and account for it."""
        self.run.drain(self.options.drain_seconds)
        wait_until(lambda: not self.backlog(), "the forwards", seconds=self.options.drain_seconds, every=0.5)
        ledger = self.run.account()
        filed = self.filed()
        expected = range(self.run.sender.sent)
        forwarded = sum(1 for serial in expected if serial < len(self.sink.seen) and self.sink.seen[serial])
        took = self.run.sender.latencies()
        return {
            **ledger.document(),
            "forwarded": forwarded,
            "filed": sum(1 for serial in expected if serial < len(filed) and filed[serial]),
            "restarts": self.restarts,
            "most_backlog": self.most_backlog,
            "p50_ms": round(took.milliseconds(0.5), 2),
            "p99_ms": round(took.milliseconds(0.99), 2),
            "p999_ms": round(took.milliseconds(0.999), 2),
            "memory_most_mib": {name: round(memory.most, 1) for name, memory in self.memory.items()},
            "memory_rise_mib": {name: memory.rise for name, memory in self.memory.items()},
            "memory_growth_mib_a_minute": {name: round(memory.slope(), 3) for name, memory in self.memory.items()},
        }

    def filed(self) -> bytearray:
        """Count what lies in the file, and in those that were set aside before it, by serial number."""
        counts = bytearray()
        for path in self.file.parent.glob(f"{self.file.name}*"):
            with path.open("rb") as file:
                for line in file:
                    try:
                        raw = msgspec.json.decode(line)["raw"]
                    except msgspec.DecodeError:
                        continue  # a SIGKILL tore it, and it was written again
                    serial = serial_of(raw.encode())
                    if serial is not None:
                        count(counts, serial)
        return counts


def problems(found: dict[str, Any], options: argparse.Namespace) -> list[str]:
    """Say what is wrong with a result."""
    wrong = list(found["faults"])
    whole = found["acknowledged"] == found["stored"] == found["handled"] + found["dead"]
    if not whole or found["lost"] or found["doubled"]:
        wrong.append("the account does not balance")
    wrong += [
        f"{found[name]} of {found['stored']} {name}"
        for name in ("forwarded", "filed")
        if found[name] != found["stored"]
    ]
    for name, most in found["memory_most_mib"].items():
        growth, rise = found["memory_growth_mib_a_minute"][name], found["memory_rise_mib"][name] or 0.0
        if most > MOST_MEMORY:
            wrong.append(f"{name} took {most} MiB")
        if options.minutes >= SHORTEST_FOR_GROWTH and growth > MOST_GROWTH:
            wrong.append(f"the memory of {name} grows by {growth} MiB a minute")
        if options.minutes < SHORTEST_FOR_GROWTH and rise > MOST_RISE:
            wrong.append(f"the memory of {name} rose by {rise:.1f} MiB after its first {SETTLED_SECONDS:g} s")
    return wrong


def soak_in(place: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Soak in a directory, and return what came of it."""
    with Run(place, connections=options.connections) as run:
        soak = Soak(run, options)
        try:
            soak.soak()
            return soak.result()
        finally:
            soak.sink.close()


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="how long [20]")
    parser.add_argument("--rate", type=float, default=2000.0, help="callbacks a second [2000]")
    parser.add_argument("--connections", type=int, default=32, help="of the sender [32]")
    parser.add_argument("--restart-seconds", type=float, default=40.0, help="between two restarts [40]")
    parser.add_argument("--drain-seconds", type=float, default=300.0, help="for the work left at the end [300]")
    parser.add_argument("--dir", default="/var/tmp", help="where the store lies: a real disk, not memory [/var/tmp]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.minutes <= 0 or options.rate <= 0 or options.connections < 1:
        parser.error("--minutes, --rate and --connections must be positive")
    return options


def main() -> None:
    """Soak, and print what came of it."""
    options = parse()
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="upcall-soak-") as place:
        found = soak_in(Path(place), options)
    wrong = problems(found, options)
    found = {"held": not wrong, "problems": wrong, "minutes": options.minutes, "rate": options.rate, **found}
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:>28}  {value}")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
