"""Measure the sandbox: what it delivers and answers beside bare aiohttp, how soon it is ready, and what it needs.

    uv run --all-extras --group bench benchmarks/sandbox.py

Deliveries: the sandbox's engine and a bare aiohttp loop post the same bodies to one sink on loopback, a process of its
own, with as many in flight, in turn. Calls: `upcall sandbox` and a bare aiohttp server answer the same GET to the same
connections. Ready: from the start of the process to the line that says so. Memory: of a sandbox that holds a campaign
of many devices. Truth: a campaign of many devices with every fault of the delivery but `drop`, received by
`upcall listen`, whose view must equal the sandbox's for every device. Rounds are interleaved and medians compared.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop
from forward import ask, sink
from receive import machine, own_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCOUNT = "0000123456-00001"
URL = "https://10.120.102.183:50559/callbacks/a"
FAULTS = (
    "delay=0.1,duplicate=0.1,reorder=0.1,refuse_once=0.05,cut_body=0.02,slow_body=0.0005,forged_forward=0.1,"
    "stale_listener=0.5"
)
CASES = {"bare": "a bare aiohttp loop", "sandbox": "the sandbox", "state": "the sandbox with --state"}
_ANSWER = json.dumps({"url": URL}, separators=(",", ":"))


def bodies(count: int) -> list[bytes]:
    """Make so many callbacks, each of another device."""
    from upcall.testing import callback

    return [callback(devices={f"99001390{number:07d}": "UpgradeSuccess"}) for number in range(count)]


# --- Deliveries ------------------------------------------------------------------------------------------------------


async def post_bare(url: str, count: int) -> float:
    """Post from a bare aiohttp loop; return the seconds that it took."""
    import aiohttp

    from upcall.sandbox.sending import HEADERS
    from upcall.thingspace import PROFILES

    made = bodies(count)
    waiting = iter(made)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def post() -> None:
            for body in waiting:
                async with session.post(url, data=body, headers=HEADERS) as response:
                    await response.read()

        began = time.perf_counter()
        await asyncio.gather(*(post() for _ in range(PROFILES["documented"].concurrency)))
        return time.perf_counter() - began


async def deliver(url: str, count: int, state: Path | None) -> float:
    """Have the sandbox deliver; return the seconds that it took."""
    from upcall.sandbox import Sandbox
    from upcall.sandbox.messages import Callback

    made = [Callback(ACCOUNT, "upgradeProgress", None, body) for body in bodies(count)]
    async with Sandbox(allow_http=True, state=state) as sandbox:
        sandbox.register(ACCOUNT, url)
        began = time.perf_counter()
        messages = [sandbox.deliver(callback) for callback in made]
        await asyncio.sleep(0)
        while not all(message.is_settled for message in messages):  # noqa: ASYNC110 - nothing tells of the last one
            await asyncio.sleep(0.01)
        seconds = time.perf_counter() - began
        if {message.state for message in messages} != {"acknowledged"}:
            raise SystemExit("not every callback was acknowledged")
        return seconds


def measure_deliveries(case: str, count: int, directory: str) -> float:
    """Return the deliveries a second of one case."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="upcall-benchmark-") as place, sink() as url:
        words = [sys.executable, __file__, "--child", case, url, str(count), str(Path(place) / "state")]
        ended = subprocess.run(words, check=True, capture_output=True, text=True, timeout=600, env=own_environment())
        host, _, port = url.removeprefix("http://").partition(":")
        received = asyncio.run(ask(host, int(port)))
        if received != count:
            raise SystemExit(f"{case}: of {count} callbacks the sink received {received}")
        return count / float(ended.stdout)


# --- Calls -----------------------------------------------------------------------------------------------------------


def serve_bare() -> None:
    """Answer every GET from a bare aiohttp server."""
    from aiohttp import web

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=_ANSWER, content_type="application/json")

    app = web.Application()
    app.router.add_get("/api/fota/v2/callbacks/{account}", answer)

    async def run() -> None:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"ready http://127.0.0.1:{runner.addresses[0][1]}/api", flush=True)
        await asyncio.Event().wait()

    uvloop.run(run())


@contextlib.contextmanager
def server(case: str, *options: str) -> Iterator[tuple[str, subprocess.Popen[str], float]]:
    """Run a server; yields its base URL, its process and the seconds until it was ready."""
    words = [sys.executable, __file__, "--bare-server"]
    if case != "bare":
        words = [sys.executable, "-m", "upcall", "sandbox", "--port", "0", "--quiet", *options]
    with tempfile.TemporaryFile("w+") as log:  # with faults on it has a line for each try that they hit
        began = time.perf_counter()
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True, env=own_environment())
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("ready "):
                log.seek(0)
                raise SystemExit(f"the server of {case!r} did not start: {log.read()}")
            yield line.split()[1], process, time.perf_counter() - began
        finally:
            process.terminate()
            process.wait(timeout=60)


def client(base_url: str, place: Path) -> Any:
    """Make a client of a sandbox."""
    from upcall import Credentials, ThingSpaceClient

    credentials = Credentials(client_id="sandbox", client_secret="sandbox", username="sandbox", password="sandbox")
    return ThingSpaceClient(base_url=base_url, credentials=credentials, allow_http=True, state_dir=place)


def headers_for(base_url: str) -> dict[str, str]:
    """Log in and register a listener, by plain calls; return the headers of further ones."""

    def call(path: str, body: bytes, **headers: str) -> Any:
        request = urllib.request.Request(base_url + path, body, {"Content-Type": "application/json", **headers})
        return json.load(urllib.request.urlopen(request, timeout=10))

    basic = {"Authorization": "Basic c2FuZGJveDpzYW5kYm94"}
    token = call("/ts/v1/oauth2/token", b"grant_type=client_credentials", **basic)["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    login = json.dumps({"username": "sandbox", "password": "sandbox"}).encode()
    headers["VZ-M2M-Token"] = call("/m2m/v1/session/login", login, **headers)["sessionToken"]
    call(f"/fota/v2/callbacks/{ACCOUNT}", json.dumps({"url": URL}).encode(), **headers)
    return headers


async def call_for(base_url: str, headers: dict[str, str], connections: int, seconds: float) -> float:
    """Send GETs on so many connections; return the answers a second."""
    host, _, port = base_url.removeprefix("http://").removesuffix("/api").partition(":")
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET /api/fota/v2/callbacks/{ACCOUNT} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode()
    until = time.perf_counter() + seconds
    answered = 0

    async def connection() -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection(host, int(port))
        while time.perf_counter() < until:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not head.startswith(b"http/1.1 200"):
                raise SystemExit(f"{base_url} answered {head[:40]!r}")
            await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
            answered += 1
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(connections)))
    return answered / (time.perf_counter() - began)


def measure_calls(case: str, connections: int, seconds: float) -> tuple[float, float]:
    """Return one case's calls a second, and how soon its server was ready."""
    with server(case) as (base_url, _, ready_seconds):
        headers = {} if case == "bare" else headers_for(base_url)
        return uvloop.run(call_for(base_url, headers, connections, seconds)), ready_seconds


# --- Many devices ----------------------------------------------------------------------------------------------------


def resident_mebibytes(process: subprocess.Popen[str]) -> float:
    """Return the memory of a process."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not say how much memory a process has")


def measure_memory(devices: int, place: Path) -> tuple[float, float]:
    """Return the memory of a sandbox that has just started, and with a campaign of so many devices."""
    from upcall.cli.simulate import _campaign

    with server("sandbox", "--clock", "manual") as (base_url, process, _), client(base_url, place) as calls:
        empty = resident_mebibytes(process)
        calls.campaigns_v2.schedule_campaign_firmware_upgrade(ACCOUNT, _campaign(devices, 1.0, 1))
        return empty, resident_mebibytes(process)


def measure_truth(devices: int, speed: float, directory: str) -> dict[str, Any]:
    """Run a campaign with every fault of the delivery but one; return what it took and what came of it."""
    from upcall.cli.simulate import run_campaign
    from upcall.inbox import open_inbox

    options = ("--allow-http", "--speed", str(speed), "--seed", "7", "--faults", FAULTS)
    with (
        tempfile.TemporaryDirectory(dir=directory, prefix="upcall-benchmark-") as name,
        server("sandbox", *options) as (base_url, process, _),
        (Path(name) / "listener.log").open("w") as log,
    ):
        place = Path(name)
        store = f"sqlite:///{place / 'inbox.db'}"
        listen = [sys.executable, "-m", "upcall", "listen", "--port", "0", "--store", store, "--token", "t" * 32]
        listener = subprocess.Popen(listen, stdout=subprocess.PIPE, stderr=log, text=True, env=own_environment())
        try:
            assert listener.stdout is not None
            url = listener.stdout.readline().split()[1]
            with client(base_url, place) as calls:
                calls.callbacks.register_callback(ACCOUNT, {"url": url})
                began = time.perf_counter()
                truth = run_campaign(calls, ACCOUNT, devices=devices, seed=3)
            messages = _settled(base_url)
            seconds = time.perf_counter() - began
            memory = resident_mebibytes(process)
        finally:
            listener.terminate()
            listener.wait(timeout=60)
        with open_inbox(store) as inbox:
            while inbox.project():
                pass
            found = inbox.campaign(truth["campaign_id"])
        seen = {device.device_id: device.status for device in (found[1] if found else ())}
        true = {device["device_id"]: device["status"] for device in truth["devices"]}
        tries = sum(len(message["attempts"]) for message in messages)
        return {
            "devices": devices,
            "callbacks": len(messages),
            "tries": tries,
            "acknowledged": sum(message["state"] == "acknowledged" for message in messages),
            "tries_per_second": tries / seconds,
            "seconds": seconds,
            "sandbox_mebibytes": memory,
            "states_equal": seen == true and len(true) == devices,
        }


def _settled(base_url: str) -> list[dict[str, Any]]:
    """Return every message, once nothing more is sent."""
    url = f"{base_url.removesuffix('/api')}/_sandbox/deliveries"
    while True:
        with urllib.request.urlopen(url, timeout=120) as answer:
            messages: list[dict[str, Any]] = json.load(answer)
        if all(message["next_at"] is None for message in messages):
            return messages
        time.sleep(1)


# --- The report ------------------------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="callbacks that each measurement delivers [10000]")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each measurement calls [3]")
    parser.add_argument("--connections", type=int, default=16, help="connections that call [16]")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is repeated; medians are compared [3]")
    parser.add_argument("--devices", type=int, default=100_000, help="devices of the campaigns [100000]")
    parser.add_argument("--speed", type=float, default=20.0, help="how fast the campaign with faults runs [20]")
    parser.add_argument("--dir", default="/var/tmp", help="where stores lie: a real disk, not memory [/var/tmp]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--child", nargs=4, metavar=("CASE", "URL", "COUNT", "STATE"), help=argparse.SUPPRESS)
    parser.add_argument("--bare-server", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_child(case: str, url: str, count: str, state: str) -> float:
    """Deliver in this process; return the seconds that it took."""
    if case == "bare":
        return uvloop.run(post_bare(url, int(count)))
    return uvloop.run(deliver(url, int(count), Path(state) if case == "state" else None))


def main() -> None:
    """Measure, and print the figures and their ratios."""
    options = parse()
    if options.bare_server:
        serve_bare()
    if options.child:
        print(run_child(*options.child))
        return
    print(json.dumps(measured(options)) if options.json else text(measured(options)))


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything."""
    rounds: list[dict[str, float]] = []
    for turn in range(options.rounds):
        found = {case: measure_deliveries(case, options.count, options.dir) for case in CASES}
        for case in ("bare", "sandbox"):
            calls, ready = measure_calls(case, options.connections, options.seconds)
            found |= {f"{case} calls": calls, f"{case} ready": ready}
        rounds.append(found)
        shown = ", ".join(f"{name} {value:,.2f}" for name, value in found.items())
        print(f"[{turn + 1}/{options.rounds}] {shown}", file=sys.stderr, flush=True)
    figures = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}

    def ratio(above: str, below: str) -> float:
        return statistics.median(one[above] / one[below] for one in rounds)

    with tempfile.TemporaryDirectory() as place:
        empty, full = measure_memory(options.devices, Path(place))
    return {
        "machine": machine(),
        "at": time.strftime("%Y-%m-%d"),
        "rounds": options.rounds,
        "deliveries_per_second": {case: figures[case] for case in CASES},
        "calls_per_second": {case: figures[f"{case} calls"] for case in ("bare", "sandbox")},
        "ready_seconds": {case: figures[f"{case} ready"] for case in ("bare", "sandbox")},
        "ratios": {
            "deliveries": ratio("sandbox", "bare"),
            "deliveries with --state": ratio("state", "bare"),
            "calls": ratio("sandbox calls", "bare calls"),
            "ready": ratio("sandbox ready", "bare ready"),
        },
        "mebibytes": {"empty": empty, f"with {options.devices} devices": full},
        "truth": measure_truth(options.devices, options.speed, options.dir),
    }


def text(document: dict[str, Any]) -> str:
    """Return the figures for a person."""
    lines = [", ".join(f"{name} {value}" for name, value in document["machine"].items())]
    for name in ("deliveries_per_second", "calls_per_second", "ready_seconds", "mebibytes"):
        shown = ", ".join(
            f"{case} {value:,.{2 if name == 'ready_seconds' else 0}f}" for case, value in document[name].items()
        )
        lines.append(f"{name}: {shown}")
    lines += [f"{value:>8.2f}  {name}: the sandbox, of bare aiohttp" for name, value in document["ratios"].items()]
    return "\n".join([*lines, f"truth: {json.dumps(document['truth'])}"])


if __name__ == "__main__":
    main()
