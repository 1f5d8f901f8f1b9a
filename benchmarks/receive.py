"""Measure durable receiving: our listener, a typical receiver and a server that keeps nothing, in turn.

    uv run --all-extras --group bench benchmarks/receive.py

Each measurement starts its server anew with an empty store, sends distinct callbacks of 905 bytes over keep-alive
connections, and counts what the store holds afterwards: a store that holds another number than were answered 200 ends
the run. Rounds are interleaved and the medians compared, because absolute figures drift from minute to minute.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
TOKEN = "benchmark-token-benchmark"
CASES = {
    "upcall": "our listener (SQLite, group commit)",
    "full": "the same on a store that holds --rows callbacks already",
    "typical": "FastAPI + SQLAlchemy + SQLite (WAL, FULL), a commit a request",
    "tuned": "the same through one database connection",
    "bare": "a bare ASGI app that keeps nothing",
}
DEFAULT_CASES = ("upcall", "typical", "bare")
FULL: list[Path] = []
"""Where the store lies that is full already."""


def command(case: str, store: Path) -> tuple[list[str], dict[str, str]]:
    """Return how to start a case's server: its words and its own variables."""
    if case in {"upcall", "full"}:
        listen = [sys.executable, "-m", "upcall", "listen", "--port", "0"]
        return [*listen, "--store", f"sqlite:///{store}", "--token", TOKEN], {}
    variables = {"BENCHMARK_STORE": str(store), "BENCHMARK_TOKEN": TOKEN}
    if case == "tuned":
        variables["BENCHMARK_ONE_CONNECTION"] = "1"
    return [sys.executable, str(HERE / "peers.py"), "bare" if case == "bare" else "typical"], variables


def own_environment() -> dict[str, str]:
    """Return this process's variables but for Upcall's: the caller's own settings would change what is measured."""
    return {name: value for name, value in os.environ.items() if not name.startswith("UPCALL_")}


@contextlib.contextmanager
def server(case: str, store: Path) -> Iterator[str]:
    """Run a case's server; yields its URL."""
    words, variables = command(case, store)
    environment = own_environment() | variables
    with (store.parent / "server.log").open("w+") as log:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("ready "):
                log.seek(0)
                raise SystemExit(f"the server of {case!r} did not start:\n{log.read()[-2000:]}")
            yield line.split()[1]
        finally:
            process.terminate()
            process.wait(timeout=60)


def stored(case: str, store: Path) -> int | None:
    """Count what a case's store holds, None where it keeps nothing."""
    if case == "bare":
        return None
    with contextlib.closing(sqlite3.connect(store)) as connection:
        return int(connection.execute("SELECT count(*) FROM callbacks").fetchone()[0])


@contextlib.contextmanager
def place_for(case: str, directory: str | None) -> Iterator[Path]:
    """Give a case a directory of its own; the store that is full already is made once, and kept until the end."""
    if case == "full":
        yield FULL[0]
        return
    with tempfile.TemporaryDirectory(dir=directory, prefix="upcall-benchmark-") as place:
        yield Path(place)


def measure(case: str, connections: int, *, seconds: float, directory: str | None) -> dict[str, float]:
    """Measure one case at so many connections, on a store of its own."""
    with place_for(case, directory) as place:
        store = place / "inbox.db"
        before = stored(case, store) if store.exists() else 0
        with server(case, store) as url:
            load = [sys.executable, str(HERE / "load.py"), url]
            load += ["--connections", str(connections), "--seconds", str(seconds), "--name", f"run-{time.time_ns()}"]
            output = subprocess.run(load, check=True, capture_output=True, text=True, timeout=seconds + 90).stdout
        result: dict[str, float] = json.loads(output)
        held = stored(case, store)
        if held is not None and held - (before or 0) != result["acknowledged"]:
            raise SystemExit(f"{case} answered {result['acknowledged']} with 200 and holds {held - (before or 0)} more")
        if result["refused"] or result["lost_connections"]:
            raise SystemExit(f"{case} refused {result['refused']} and dropped {result['lost_connections']}")
        return result


def medians(results: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    return {name: statistics.median(result[name] for result in results) for name in results[0]}


def ratios(table: dict[tuple[str, int], dict[str, float]], counts: list[int]) -> list[dict[str, Any]]:
    """Return the ratios that docs/performance.md speaks of, as far as this run measured them."""
    found: list[dict[str, Any]] = []

    def add(name: str, figure: str, mine: tuple[str, int], theirs: tuple[str, int]) -> None:
        if mine in table and theirs in table:
            found.append({"ratio": name, "value": table[mine][figure] / table[theirs][figure]})

    rate, slow = "requests_per_second", "p99_ms"
    for count in sorted(counts, reverse=True):
        at = f"{count} connection{'s' if count != 1 else ''}"
        add(f"durable receive, {at}, of the typical", rate, ("upcall", count), ("typical", count))
        add(f"durable receive, {at}, of the typical through one connection", rate, ("upcall", count), ("tuned", count))
        add(f"durable receive, {at}, of a server that keeps nothing", rate, ("upcall", count), ("bare", count))
        add(
            f"cost of a receive, {at}, store full already, of one on an empty store",
            rate,
            ("upcall", count),
            ("full", count),
        )
        add(f"p99 durable of p99 bare, {at}", slow, ("upcall", count), ("bare", count))
    return found


def machine() -> dict[str, Any]:
    """Describe where this runs, as far as it matters."""
    return {
        "cores": os.cpu_count(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.machine()}",
    }


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each measurement sends [3]")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is repeated; medians are compared [3]")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64], help="how many at once [1 16 64]")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=DEFAULT_CASES, help="what to measure")
    parser.add_argument("--rows", type=int, default=5_000_000, help="what the store of --cases full holds [5000000]")
    parser.add_argument("--dir", default="/var/tmp", help="where the stores lie: a real disk, not memory [/var/tmp]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.seconds <= 0 or options.rounds < 1 or min(options.connections) < 1:
        parser.error("--seconds, --rounds and --connections must be positive")
    return options


def main() -> None:
    """Measure, and print the figures and their ratios."""
    options = parse()
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="upcall-benchmark-full-") as place:
        if "full" in options.cases:
            from filling import fill

            fill(Path(place) / "inbox.db", options.rows)
            FULL.append(Path(place))
        report(options)


def report(options: argparse.Namespace) -> None:
    """Measure each case in turn, and print."""
    results: dict[tuple[str, int], list[dict[str, float]]] = {}
    total = options.rounds * len(options.connections) * len(options.cases)
    for turn in range(options.rounds):
        for count in options.connections:
            for case in options.cases:
                result = measure(case, count, seconds=options.seconds, directory=options.dir)
                results.setdefault((case, count), []).append(result)
                done = sum(map(len, results.values()))
                print(
                    f"[{done}/{total}] round {turn + 1}, {count} connections, {case}:"
                    f" {result['requests_per_second']:,.0f}/s, p99 {result['p99_ms']:.1f} ms",
                    file=sys.stderr,
                    flush=True,
                )
    table = {place: medians(runs) for place, runs in results.items()}
    compared = ratios(table, options.connections)
    if options.json:
        figures = [{"case": case, "connections": count, **row} for (case, count), row in table.items()]
        document = {"machine": machine(), "rounds": options.rounds, "seconds": options.seconds}
        print(json.dumps({**document, "at": time.strftime("%Y-%m-%d"), "figures": figures, "ratios": compared}))
        return
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print(f"{'connections':>11}  {'receiver':<10} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'sender CPU':>10}")
    for (case, count), row in sorted(table.items(), key=lambda item: item[0][1]):
        print(
            f"{count:>11}  {case:<10} {row['requests_per_second']:>10,.0f} {row['p50_ms']:>8.2f} {row['p99_ms']:>8.2f}"
            f" {row['sender_cpu']:>10.2f}"
        )
    for case in options.cases:
        print(f"  {case}: {CASES[case]}")
    for entry in compared:
        print(f"{entry['value']:>8.2f}  {entry['ratio']}")


if __name__ == "__main__":
    main()
