"""Measure draining: a worker with handlers that do nothing, over a store that our listener has just filled.

    uv run --all-extras --group bench benchmarks/drain.py

Each round fills a store through a real listener at 64 connections, which gives the rate of receiving, and drains a copy
of it with each kind of handler in a process of its own, as `upcall work --until-idle` does. A drain that did not hand
on every callback, or left one undone, ends the run. Rounds are interleaved and the medians compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from load import body_template
from receive import HERE, machine, server

CONNECTIONS = 64
GROUP = 64
CASES = {
    "async": "an async handler",
    "sync": "a plain handler, in threads",
    "device": "an async handler of devices, one a callback",
    "filtered": "an async handler of one kind",
    "transactional": "a transactional handler that writes nothing",
}
DEFAULT_CASES = ("async", "sync", "device")


def handlers(case: str, seen: list[None]) -> Any:
    """Return a table with a case's handler."""
    from upcall.dispatch import HandlerTable

    table = HandlerTable()
    note = seen.append
    if case == "sync":

        @table.on()
        def plain(_: Any) -> None:
            note(None)
    elif case == "device":

        @table.on_device()
        async def on_device(_: Any, __: Any) -> None:
            note(None)
    elif case == "transactional":

        @table.on(transactional=True)
        def writes(_: Any, __: Any) -> None:
            note(None)
    else:

        @table.on(*(["upgradeProgress"] if case == "filtered" else []))
        async def asynchronous(_: Any) -> None:
            note(None)

    return table.handlers


def drain(case: str, store: str) -> dict[str, float]:
    """Drain a store in this process."""
    from upcall.app import run_on_fast_loop
    from upcall.dispatch import Worker
    from upcall.inbox import open_inbox

    seen: list[None] = []
    with open_inbox(store, relaxed=True) as inbox:
        worker = Worker(inbox, handlers(case, seen))
        began, cpu = time.perf_counter(), time.process_time()
        run_on_fast_loop(worker.drain())
        seconds, busy = time.perf_counter() - began, time.process_time() - cpu
    return {"seconds": seconds, "cpu": busy / seconds, "called": len(seen), "done": worker.stats.done}


def received(store: Path, seconds: float) -> float:
    """Fill a store through a listener; return callbacks a second."""
    with server("upcall", store) as url:
        load = [sys.executable, str(HERE / "load.py"), url, "--connections", str(CONNECTIONS)]
        load += ["--seconds", str(seconds)]
        output = subprocess.run(load, check=True, capture_output=True, text=True, timeout=seconds + 90).stdout
    return float(json.loads(output)["requests_per_second"])


def appended(store: Path, count: int) -> float:
    """Fill a store through its appender, in groups, without HTTP; return callbacks a second."""
    from upcall.inbox import Arrival, open_inbox

    before, after = body_template("append")
    at = time.time_ns() // 1000
    bodies = [b"%b%016d%b" % (before, number, after) for number in range(count)]
    with open_inbox(f"sqlite:///{store}", create=True) as inbox, contextlib.closing(inbox.appender()) as appender:
        began = time.perf_counter()
        for start in range(0, count, GROUP):
            appender.stage([Arrival(body=body, received_at=at) for body in bodies[start : start + GROUP]])
            appender.commit()
        return count / (time.perf_counter() - began)


def measure(case: str, filled: Path, count: int) -> dict[str, float]:
    """Drain a copy of a filled store with a case's handler, in a process of its own."""
    store = filled.with_name(f"{case}.db")
    shutil.copy(filled, store)
    command = [sys.executable, str(Path(__file__)), "--child", case, f"sqlite:///{store}"]
    done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout)
    store.unlink()
    if not done["called"] == done["done"] == count:
        raise SystemExit(f"{case}: of {count} callbacks {done['called']} were handed on and {done['done']} done")
    return {"callbacks_per_second": count / done["seconds"], "cpu": done["cpu"], "callbacks": count}


def a_round(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Fill a store and drain it with each kind of handler."""
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="upcall-benchmark-") as place:
        store = Path(place) / "inbox.db"
        rate = appended(store, options.append) if options.append else received(store, options.seconds)
        with contextlib.closing(sqlite3.connect(store)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            count = int(connection.execute("SELECT count(*) FROM callbacks").fetchone()[0])
        base = {"callbacks_per_second": rate, "cpu": 0.0, "callbacks": count}
        return {"base": base} | {case: measure(case, store, count) for case in options.cases}


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each round receives [2]")
    parser.add_argument("--append", type=int, default=0, help="fill with so many callbacks without a listener")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is repeated; medians are compared [3]")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=DEFAULT_CASES, help="what to measure")
    parser.add_argument("--dir", default="/var/tmp", help="where the stores lie: a real disk, not memory [/var/tmp]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--child", nargs=2, metavar=("CASE", "STORE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, and print the rates and their ratios."""
    options = parse()
    if options.child:
        print(json.dumps(drain(*options.child)))
        return
    rounds = []
    for turn in range(options.rounds):
        rounds.append(a_round(options))
        rates = ", ".join(f"{case} {row['callbacks_per_second']:,.0f}/s" for case, row in rounds[-1].items())
        print(f"[{turn + 1}/{options.rounds}] {rates}", file=sys.stderr, flush=True)
    table = {
        case: {name: statistics.median(one[case][name] for one in rounds) for name in rounds[0][case]}
        for case in rounds[0]
    }
    base = "append in groups of 64" if options.append else "durable receive, 64 connections"
    ratios = [
        {
            "ratio": f"drain with {CASES[case]} that does nothing, of {base}",
            "value": statistics.median(
                one[case]["callbacks_per_second"] / one["base"]["callbacks_per_second"] for one in rounds
            ),
        }
        for case in options.cases
    ]
    if options.json:
        figures = [{"case": case, **row} for case, row in table.items()]
        document = {"machine": machine(), "rounds": options.rounds, "base": base, "at": time.strftime("%Y-%m-%d")}
        print(json.dumps({**document, "figures": figures, "ratios": ratios}))
        return
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    for case, row in table.items():
        name = base if case == "base" else CASES[case]
        print(f"{row['callbacks_per_second']:>10,.0f}/s  {row['cpu']:>5.2f} CPU  {name}")
    for entry in ratios:
        print(f"{entry['value']:>8.2f}  {entry['ratio']}")


if __name__ == "__main__":
    main()
