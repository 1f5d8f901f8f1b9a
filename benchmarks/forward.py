"""Measure forwarding over HTTP: a worker with `--forward`, and a bare aiohttp loop that posts the same bytes, in turn.

    uv run --all-extras --group bench benchmarks/forward.py

Both post to one sink on loopback, a process of its own, with 64 in flight. The worker reads, signs, sends and settles a
store that holds the callbacks; the bare loop has its bodies in memory. A round in which the sink did not receive every
one ends the run. Rounds are interleaved and the medians compared. Other work on the machine moves rates more than it
moves the CPU time that a callback takes in the sending process, so that is compared too.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import uvloop
from drain import appended
from receive import machine, own_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

IN_FLIGHT = 64
CASES = {"bare": "a bare aiohttp loop", "forward": "upcall work --forward", "forward-raw": "upcall work --forward-raw"}
SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Sink(asyncio.Protocol):
    """Answer each request 204 and count it."""

    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.left = 0
        self.head = b""

    def data_received(self, data: bytes) -> None:
        answers = b""
        while data:
            if self.left:
                taken = min(self.left, len(data))
                self.left -= taken
                data = data[taken:]
            else:
                self.head += data
                end = self.head.find(b"\r\n\r\n")
                if end < 0:
                    break
                head, data, self.head = self.head[:end].lower(), self.head[end + 4 :], b""
                if b"get /count" in head:
                    body = str(Sink.count).encode()
                    self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))  # type: ignore[attr-defined]
                    return
                self.left = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            if not self.left:
                Sink.count += 1
                answers += _ANSWER
        if answers:
            self.transport.write(answers)  # type: ignore[attr-defined]


async def serve_sink() -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


@contextlib.contextmanager
def sink() -> Iterator[str]:
    """Run a sink; yields its URL."""
    command = [sys.executable, str(Path(__file__)), "--sink"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait(timeout=30)


class Cost(NamedTuple):
    """What sending all of a store took."""

    seconds: float
    cpu_seconds: float


@contextlib.contextmanager
def timed() -> Iterator[list[Cost]]:
    """Measure what the block takes; it is in the list behind it."""
    costs: list[Cost] = []
    began, cpu = time.perf_counter(), time.process_time()
    yield costs
    costs.append(Cost(time.perf_counter() - began, time.process_time() - cpu))


def drain(case: str, store: str, url: str) -> Cost:
    """Forward a store's callbacks with a worker; return what that took."""
    from upcall.app import run_on_fast_loop
    from upcall.dispatch import Worker
    from upcall.dispatch.subscribers import subscribers_from_options
    from upcall.inbox import open_inbox

    urls = {"forward": {"forward": [url]}, "forward-raw": {"forward_raw": [url]}}[case]
    handlers = subscribers_from_options(**urls, environ={"UPCALL_FORWARD_SECRET": SECRET})
    with open_inbox(store, relaxed=True) as inbox:
        worker = Worker(inbox, handlers)
        with timed() as costs:
            run_on_fast_loop(worker.drain())
        return costs[0]


async def post_bare(store: str, url: str) -> Cost:
    """Post what a forward of the store would, without anything around it; return what that took."""
    import aiohttp

    from upcall.dispatch.subscribers.forward import cloud_event
    from upcall.inbox import open_inbox, stored_event

    with open_inbox(store) as inbox:
        records = inbox.callbacks(limit=0)
    bodies = [
        cloud_event(stored_event(record.id, record.received_at, record.account, record.digest, record.body or b""))
        for record in records
    ]
    waiting = iter(bodies)
    headers = {"Content-Type": "application/cloudevents+json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def post() -> None:
            for body in waiting:
                async with session.post(url, data=body, headers=headers) as response:
                    await response.read()

        with timed() as costs:
            await asyncio.gather(*(post() for _ in range(IN_FLIGHT)))
        return costs[0]


def measure(case: str, count: int, directory: str) -> Cost:
    """Fill a store, send all of it to a sink, and return what a request took."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="upcall-benchmark-") as place, sink() as url:
        store = Path(place) / "inbox.db"
        appended(store, count)
        command = [sys.executable, str(Path(__file__)), "--child", case, f"sqlite:///{store}", url]
        output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300, env=own_environment())
        host, _, port = url.removeprefix("http://").partition(":")
        received = asyncio.run(ask(host, int(port)))
        if received != count:
            raise SystemExit(f"{case}: of {count} callbacks the sink received {received}")
        return Cost(*(float(text) / count for text in output.stdout.split()))


async def ask(host: str, port: int) -> int:
    """Return how many requests a sink has received."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET /count HTTP/1.1\r\n\r\n")
    answer = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(int(answer.rpartition(b":")[2]))
    writer.close()
    return int(body)


def run_child(case: str, store: str, url: str) -> Cost:
    """Do one case in this process; return what that took."""
    return uvloop.run(post_bare(store, url)) if case == "bare" else drain(case, store, url)


def ratio(rounds: list[dict[str, Cost]], case: str, field: str) -> dict[str, Any]:
    """Compare a case with the bare loop: its rate, or the requests for the same CPU time."""
    what = "the rate" if field == "seconds" else "requests for the CPU time"
    return {
        "ratio": f"{what}: {CASES[case]}, of {CASES['bare']}, {IN_FLIGHT} in flight",
        "value": statistics.median(getattr(one["bare"], field) / getattr(one[case], field) for one in rounds),
    }


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="how many callbacks each measurement sends [10000]")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is repeated; medians are compared [3]")
    parser.add_argument("--dir", default="/var/tmp", help="where the stores lie: a real disk, not memory [/var/tmp]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--child", nargs=3, metavar=("CASE", "STORE", "URL"), help=argparse.SUPPRESS)
    parser.add_argument("--sink", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, and print the rates and their ratios."""
    options = parse()
    if options.sink:
        uvloop.run(serve_sink())
    if options.child:
        print(*run_child(*options.child))
        return
    rounds: list[dict[str, Cost]] = []
    for turn in range(options.rounds):
        rounds.append({case: measure(case, options.count, options.dir) for case in CASES})
        rates = ", ".join(
            f"{case} {1 / cost.seconds:,.0f}/s {cost.cpu_seconds * 1e6:.0f} us" for case, cost in rounds[-1].items()
        )
        print(f"[{turn + 1}/{options.rounds}] {rates}", file=sys.stderr, flush=True)
    figures: list[dict[str, Any]] = [
        {
            "case": case,
            "requests_per_second": 1 / statistics.median(one[case].seconds for one in rounds),
            "cpu_microseconds": statistics.median(one[case].cpu_seconds for one in rounds) * 1e6,
        }
        for case in CASES
    ]
    ratios = [ratio(rounds, case, field) for case in CASES if case != "bare" for field in Cost._fields]
    if options.json:
        document = {"machine": machine(), "rounds": options.rounds, "count": options.count}
        print(json.dumps({**document, "at": time.strftime("%Y-%m-%d"), "figures": figures, "ratios": ratios}))
        return
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    for row in figures:
        print(f"{row['requests_per_second']:>10,.0f}/s {row['cpu_microseconds']:>6.0f} us CPU  {CASES[row['case']]}")
    for entry in ratios:
        print(f"{entry['value']:>8.2f}  {entry['ratio']}")


if __name__ == "__main__":
    main()
