"""Measure our client and the official SDK, in turn, each in an environment of its own.

    uv run --all-extras --group bench benchmarks/client.py

Two throw-away environments are made: this project without its extras, and the SDK. Both clients call one server on
loopback that answers from memory, in a process of its own; each measurement is a fresh process (`client_worker.py`).
The server counts too: where it answered another number of calls than a client made, the run ends. Rounds are
interleaved and compared one by one, because absolute figures drift from minute to minute.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
WORKER = str(HERE / "client_worker.py")
SDK = "sdksio-verizon-apis-sdk"
SDK_VERSION = "2.0.0"
PEERS = {"upcall": "this project, base install", "sdk": f"{SDK} {SDK_VERSION}"}
IN_FLIGHT = (1, 16, 64)
CALLS = (("upcall", "sync", 1), ("sdk", "sync", 1), *(("upcall", "async", count) for count in IN_FLIGHT))
FRESH_PROCESSES = 9
"""How many processes an import is timed in, at least: what slows one of them slows not all, so the least counts."""
IMPORTS = {
    "upcall": {
        "bare_ms": "pass",
        "import_ms": "import upcall",
        "make_ms": "from upcall import Credentials, ThingSpaceClient\n"
        "ThingSpaceClient(base_url='http://127.0.0.1/api', credentials=Credentials(\n"
        "    client_id='id', client_secret='secret', username='user', password='password'))",
    },
    "sdk": {
        "bare_ms": "pass",
        "import_ms": "import verizon",
        "make_ms": "from verizon.http.auth.thingspace_oauth import ThingspaceOauthCredentials\n"
        "from verizon.http.auth.vz_m2m_token import VZM2mTokenCredentials\n"
        "from verizon.verizon_client import VerizonClient\n"
        "VerizonClient(\n"
        "    thingspace_oauth_credentials=ThingspaceOauthCredentials(oauth_client_id='id', oauth_client_secret='s'),\n"
        "    vz_m2m_token_credentials=VZM2mTokenCredentials(vz_m2m_token='session'))",
    },
}
ABOVE_BARE = ("import_ms", "make_ms")
"""What is said without the time that an interpreter takes to do nothing."""
FIGURES = {
    "import_ms": "import the package alone, ms",
    "make_ms": "import and make the client, ms",
    "first_ms": "first statement to first answer, ms",
    "peak_mib": "peak memory by then, MiB",
    "sync_per_second": "sync, calls/s",
    "sync_cpu_us": "sync, CPU a call, us",
    **{
        f"async_{count}_{figure}": f"async, {count} in flight, {title}"
        for count in IN_FLIGHT
        for figure, title in (("per_second", "calls/s"), ("cpu_us", "CPU a call, us"))
    },
}


class Target(NamedTuple):
    """Say what a figure of ours is compared with, and what should come of it.

    Args:
        name: What the ratio is of.
        mine: Our figure.
        theirs: The SDK's.
        must: What it must reach.
        aim: What it should reach.
        at_least: Whether more is better.
    """

    name: str
    mine: str
    theirs: str
    must: float | None = None
    aim: float | None = None
    at_least: bool = False


TARGETS = (
    Target("import and make the client", "make_ms", "make_ms", 0.6, 0.3),
    Target("first statement to first answer", "first_ms", "first_ms"),
    Target("peak memory by then", "peak_mib", "peak_mib"),
    Target("sync, calls/s", "sync_per_second", "sync_per_second", 1.6, 2.9, at_least=True),
    Target("sync, CPU a call", "sync_cpu_us", "sync_cpu_us", 0.6, 0.3),
    Target("async, 1 in flight, of sync calls/s", "async_1_per_second", "sync_per_second", at_least=True),
    Target("async, 16 in flight, of sync calls/s", "async_16_per_second", "sync_per_second", 1.2, at_least=True),
    Target("async, 64 in flight, of sync calls/s", "async_64_per_second", "sync_per_second", 1.0, at_least=True),
    Target("async, 1 in flight, of sync CPU a call", "async_1_cpu_us", "sync_cpu_us"),
    Target("async, 16 in flight, of sync CPU a call", "async_16_cpu_us", "sync_cpu_us"),
    Target("async, 64 in flight, of sync CPU a call", "async_64_cpu_us", "sync_cpu_us"),
)
INSTALLED = Target("installed with it, itself aside (a count)", "", "", 10, 8)


class Spread(NamedTuple):
    """Hold what a run found, and between which figures its rounds lay."""

    value: float
    low: float
    high: float


class Samples:
    """Gather the figures of each round, by client and name."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[float]] = {}

    def add(self, peer: str, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._found.setdefault((peer, name), []).append(value)

    def has(self, peer: str, name: str) -> bool:
        return (peer, name) in self._found

    def figure(self, peer: str, name: str) -> Spread:
        rounds = self._rounds(peer, name)
        return Spread(self._value(peer, name), min(rounds), max(rounds))

    def ratio(self, mine: str, theirs: str) -> Spread:
        """Compare round by round; of processes that were timed, the fastest of all."""
        pairs = zip(self._rounds("upcall", mine), self._rounds("sdk", theirs), strict=True)
        rounds = [ours / other for ours, other in pairs]
        value = statistics.median(rounds)
        if mine in ABOVE_BARE:
            value = self._value("upcall", mine) / self._value("sdk", theirs)
        return Spread(value, min(rounds), max(rounds))

    def _value(self, peer: str, name: str) -> float:
        if name in ABOVE_BARE:
            return min(self._found[peer, name]) - min(self._found[peer, "bare_ms"])
        return statistics.median(self._found[peer, name])

    def _rounds(self, peer: str, name: str) -> list[float]:
        if name in ABOVE_BARE:
            pairs = zip(self._found[peer, name], self._found[peer, "bare_ms"], strict=True)
            return [whole - bare for whole, bare in pairs]
        return self._found[peer, name]


class Peer(NamedTuple):
    """Hold a client's environment.

    Args:
        python: Its interpreter.
        version: The client's version.
        installed: What was installed with it, itself aside.
    """

    python: str
    version: str
    installed: list[str]


def find_uv() -> str:
    """Return the uv beside this interpreter, else the one on PATH, else the one that `uv run` says it is."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv") or os.environ.get("UV")
    if found is None:
        raise SystemExit("There is no uv beside this Python or on PATH, and the environments are made with it.")
    return found


def prepare(place: Path) -> dict[str, Peer]:
    """Make the two environments, compiled."""
    uv, peers = find_uv(), {}
    # A directory is built once and remembered, so it says that it may have changed. Its own pinned versions are found
    # from where it lies, and must not reach the SDK's environment.
    sources = {
        "upcall": (["--reinstall-package", "upcall", "."], HERE.parent),
        "sdk": ([f"{SDK}=={SDK_VERSION}"], place),
    }
    for peer, (words, where) in sources.items():
        _say(f"installing {PEERS[peer]}")
        python = str(place / peer / "bin" / "python")
        _install(peer, [uv, "venv", "--python", sys.executable, str(place / peer)], where)
        _install(peer, [uv, "pip", "install", "--compile-bytecode", "--python", python, *words], where)
        listed = _install(peer, [uv, "pip", "list", "--format", "json", "--python", python], where)
        versions = {entry["name"]: entry["version"] for entry in json.loads(listed)}
        version = versions.pop("upcall" if peer == "upcall" else SDK)
        peers[peer] = Peer(python, version, [f"{name} {found}" for name, found in sorted(versions.items())])
    return peers


def _install(peer: str, words: list[str], where: Path) -> str:
    try:
        done = subprocess.run(
            [*words, "--quiet", "--color", "never"], cwd=where, capture_output=True, text=True, timeout=300, check=False
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(f"Installing {PEERS[peer]} took more than 300 seconds.") from None
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise SystemExit(f"Cannot install {PEERS[peer]} (which needs a network, or uv's cache filled): {said[:400]}")
    return done.stdout


def clean_environment(place: Path) -> dict[str, str]:
    """Return the variables of a measured process: nothing of the caller's that either client or Python would read."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(place), "LANG": "C.UTF-8"}


class Bench:
    """Run measured processes against the server, and see that both counted the same.

    Args:
        place: Where the processes run.
        peers: The two environments.
        url: The server's.
    """

    def __init__(self, place: Path, peers: dict[str, Peer], url: str) -> None:
        self._place, self._peers, self._url = place, peers, url
        self._environment = clean_environment(place)

    def worker(self, mode: str, peer: str, seconds: float = 0.0, in_flight: int = 0) -> dict[str, Any]:
        """Run one client for a while; returns its figures."""
        before = self._answered()
        words = [WORKER, mode, peer, self._url, str(seconds), str(in_flight)]
        result: dict[str, Any] = json.loads(self._run(peer, words, timeout=seconds + 60))
        answered, calls = self._answered() - before, result.pop("calls")
        if answered != calls:
            raise SystemExit(f"{peer} counted {calls} calls ({mode}) and the server answered {answered}.")
        return result

    def process_ms(self, peer: str, statement: str) -> float:
        """Time a process from its start until a statement is done: what Python clears away afterwards is left out."""
        began = time.perf_counter()
        self._run(peer, ["-c", f"{statement}\nimport os; os._exit(0)"], timeout=60)
        return 1000 * (time.perf_counter() - began)

    def _run(self, peer: str, words: list[str], *, timeout: float) -> str:
        command = [self._peers[peer].python, "-P", *words]
        about = f"{peer} ({' '.join(' '.join(words).split())[-120:]})"
        try:
            done = subprocess.run(
                command,
                cwd=self._place,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SystemExit(f"{about} did not end within {timeout:.0f} seconds.") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
            raise SystemExit(f"{about} failed: {lines[-1]}")
        return done.stdout

    def _answered(self) -> int:
        connection = http.client.HTTPConnection(self._url.split("/")[2], timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/answered")
            return int(json.load(connection.getresponse()).get("callbacks", 0))


def measure_start(bench: Bench, samples: Samples, *, processes: int, firsts: int) -> None:
    """Measure one round of imports and of first answers."""
    least: dict[tuple[str, str], float] = {}
    for _ in range(processes):
        for what in IMPORTS["upcall"]:
            for peer in PEERS:
                took = bench.process_ms(peer, IMPORTS[peer][what])
                least[peer, what] = min(took, least.get((peer, what), took))
    for (peer, what), took in least.items():
        samples.add(peer, {what: took})
    found: dict[str, list[dict[str, float]]] = {peer: [] for peer in PEERS}
    for _ in range(firsts):
        for peer in PEERS:
            found[peer].append(bench.worker("first", peer))
    for peer, results in found.items():
        samples.add(peer, {name: statistics.median(result[name] for result in results) for name in results[0]})


def measure_calls(bench: Bench, samples: Samples, peer: str, *, mode: str, in_flight: int, seconds: float) -> str:
    """Measure one client for a while; returns a line of what came out."""
    result = bench.worker(mode, peer, seconds, in_flight)
    prefix = "sync" if mode == "sync" else f"async_{in_flight}"
    samples.add(peer, {f"{prefix}_{name}": value for name, value in result.items()})
    return f"{peer}, {mode}, {in_flight} in flight: {result['per_second']:,.0f}/s, {result['cpu_us']:.0f} us a call"


def measure(bench: Bench, options: argparse.Namespace) -> Samples:
    """Measure everything, round by round."""
    samples = Samples()
    total = options.rounds * (1 + len(CALLS))
    processes = max(options.processes, -(-FRESH_PROCESSES // options.rounds))
    for peer in PEERS:  # Once without counting: what is not compiled yet, and the disk's cache.
        bench.process_ms(peer, IMPORTS[peer]["make_ms"])
        bench.worker("first", peer)
    for turn in range(options.rounds):
        at = turn * (1 + len(CALLS)) + 1
        measure_start(bench, samples, processes=processes, firsts=options.processes)
        _say(f"[{at}/{total}] round {turn + 1}, imports and first answers")
        for number, (peer, mode, in_flight) in enumerate(CALLS, at + 1):
            line = measure_calls(bench, samples, peer, mode=mode, in_flight=in_flight, seconds=options.seconds)
            _say(f"[{number}/{total}] round {turn + 1}, {line}")
    return samples


def profile(bench: Bench, seconds: float) -> dict[str, Any]:
    """Say where the processor time of our calls goes."""
    _say("profiling")
    return {
        "sync": bench.worker("profile", "upcall", seconds, 0),
        "async, 16 in flight": bench.worker("profile", "upcall", seconds, 16),
    }


def _response(body: dict[str, Any], status: str = "200 OK") -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


READY = {
    b"POST /api/ts/v1/oauth2/token": (
        "tokens",
        _response({"access_token": "bearer", "scope": "ts.application.rw", "expires_in": 3600, "token_type": "Bearer"}),
    ),
    b"POST /api/m2m/v1/session/login": ("logins", _response({"sessionToken": "session-token"})),
    b"GET /api/fota/v2/callbacks/0000123456-00001": ("callbacks", _response({"url": "https://host.example/listener"})),
}
"""What is counted and what is answered, by the first line of a request."""


class Answers(asyncio.Protocol):
    """Answer as ThingSpace does, from memory, on a connection that stays.

    Args:
        answered: Counts what was answered on all connections.
    """

    def __init__(self, answered: Counter[str]) -> None:
        self.answered = answered
        self.buffer = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            _, _, after = head.partition(b"\r\ncontent-length:")
            whole = end + 4 + int(after.partition(b"\r\n")[0] or 0)
            if len(self.buffer) < whole:
                return
            line = self.buffer[:end].partition(b" HTTP/1.1\r\n")[0]
            self.buffer = self.buffer[whole:]
            self.transport.write(self.answer(line))

    def answer(self, line: bytes) -> bytes:
        if line == b"GET /answered":
            return _response(self.answered)
        name, response = READY.get(line) or ("unknown", _response({"fault": "unknown path"}, "404 Not Found"))
        self.answered[name] += 1
        return response


async def serve() -> None:
    """Serve until standard input ends, which it does with the process that started this one."""
    answered: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Answers(answered), "127.0.0.1", 0)
    print(f"ready http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/api", flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)


def run_server() -> None:
    """Serve on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve())
    else:
        uvloop.run(serve())


@contextlib.contextmanager
def server(place: Path) -> Iterator[str]:
    """Run the server; yields its URL."""
    words = [sys.executable, str(HERE / "client.py"), "--serve"]
    pipe = subprocess.PIPE
    with (
        (place / "server.log").open("w+") as log,
        subprocess.Popen(
            words, stdin=pipe, stdout=pipe, stderr=log, text=True, cwd=place, env=clean_environment(place)
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("ready "):
                log.seek(0)
                raise SystemExit(f"The server did not start: {' '.join(log.read().split())[-400:]}")
            yield line.split()[1]
        finally:
            process.kill()


def verdict(target: Target, value: float) -> str:
    """Say which of a target's figures was reached."""
    for name, figure in (("aim", target.aim), ("must", target.must)):
        if figure is not None and (value >= figure if target.at_least else value <= figure):
            return name
    return "-" if target.must is None else "MISSED"


def compare(samples: Samples, peers: dict[str, Peer]) -> list[dict[str, Any]]:
    """Return the ratios, and the count of what is installed, beside their targets."""
    count = float(len(peers["upcall"].installed))
    found = [(target, samples.ratio(target.mine, target.theirs)) for target in TARGETS]
    found.append((INSTALLED, Spread(count, count, count)))
    return [
        {
            "ratio": target.name,
            **spread._asdict(),
            "must": target.must,
            "aim": target.aim,
            "better": "more" if target.at_least else "less",
            "reached": verdict(target, spread.value),
        }
        for target, spread in found
    ]


def machine() -> dict[str, Any]:
    """Describe where this runs, as far as it matters."""
    return {
        "cores": os.cpu_count(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
    }


def print_tables(document: dict[str, Any]) -> None:
    """Print what a run found for people."""
    about = ", ".join(f"{name} {value}" for name, value in document["machine"].items())
    rounds = f"{document['rounds']} rounds of {document['seconds']:g} s, the least and the most of them in brackets"
    print(f"{about}; {rounds}\n")
    for peer, text in PEERS.items():
        installed = document["peers"][peer]["installed"]
        print(f"{peer}: {text}, and {len(installed)} installed with it: {', '.join(installed)}")
    print(f"\n{'':<40}{'upcall':>28}{'sdk':>28}")
    for name, title in FIGURES.items():
        row = document["figures"][name]
        cells = [_cell(row[peer]) if peer in row else "-" for peer in PEERS]
        print(f"{title:<40}" + "".join(f"{cell:>28}" for cell in cells))
    print(f"\n{'of the SDK':<42}{'this run':>9}{'rounds':>14}{'must':>7}{'aim':>6}  reached")
    for row in document["ratios"]:
        between = "" if row["low"] == row["high"] else f"{row['low']:.2f} to {row['high']:.2f}"
        must, aim = ("-" if row[name] is None else f"{row[name]:g}" for name in ("must", "aim"))
        value = f"{row['value']:.0f}" if row["ratio"] == INSTALLED.name else f"{row['value']:.2f}"
        print(f"{row['ratio']:<42}{value:>9}{between:>14}{must:>7}{aim:>6}  {row['reached']}")
    for name, found in document.get("profile", {}).items():
        print_profile(name, found)


def print_profile(name: str, found: dict[str, Any]) -> None:
    """Print where the processor time of a call goes."""
    about = f"{found['cpu_us']:.0f} us under the profiler, which weighs on small functions"
    print(f"\nour CPU time of a call, {name} ({about})")
    print("  " + ", ".join(f"{group} {share:.1%}" for group, share in found["groups"].items()))
    print(f"{'share':>9}{'entered a call':>16}  function")
    for row in found["heaviest"]:
        print(f"{row['share']:>9.1%}{row['entered_per_call']:>16.1f}  {row['function']}")


def _cell(figure: dict[str, float]) -> str:
    digits = 1 if figure["value"] < 100 else 0
    value, low, high = (f"{figure[name]:,.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, help="how long each measurement calls [2]")
    parser.add_argument("--rounds", type=int, help="how often each is repeated [5]")
    parser.add_argument("--quick", action="store_true", help="three rounds of 0.3 seconds: half a minute, and rough")
    parser.add_argument("--profile", action="store_true", help="add where the CPU time of our calls goes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    seconds, rounds, options.processes = (0.3, 3, 1) if options.quick else (2.0, 5, 3)
    options.seconds = seconds if options.seconds is None else options.seconds
    options.rounds = rounds if options.rounds is None else options.rounds
    if not 0 < options.seconds <= 60 or not 1 <= options.rounds <= 100:
        parser.error("--seconds must be of 0 to 60, and --rounds of 1 to 100")
    return options


def run(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Return all that a run finds."""
    peers = prepare(place)
    with server(place) as url:
        bench = Bench(place, peers, url)
        samples = measure(bench, options)
        profiles = profile(bench, options.seconds) if options.profile else None
    document = {
        "machine": machine(),
        "at": time.strftime("%Y-%m-%d"),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "peers": {name: {"version": peer.version, "installed": peer.installed} for name, peer in peers.items()},
        "figures": {
            figure: {peer: samples.figure(peer, figure)._asdict() for peer in PEERS if samples.has(peer, figure)}
            for figure in FIGURES
        },
        "ratios": compare(samples, peers),
    }
    return document if profiles is None else document | {"profile": profiles}


def main() -> None:
    """Measure, and print the figures and their ratios."""
    options = parse()
    if options.serve:
        run_server()
        return
    # What is started is stopped, and what is written removed, however this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="upcall-benchmark-", ignore_cleanup_errors=True) as place:
        document = run(options, Path(place))
    if options.json:
        print(json.dumps(document))
    else:
        print_tables(document)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
