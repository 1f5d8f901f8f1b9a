"""Kill the listener and the worker at each marked point, many times, and account for every callback.

    uv run --all-extras benchmarks/kill.py --kills 1000

The same engine as `upcall prove` and tests/acceptance/test_kill_matrix.py, with as many kills as one has patience for.
Each line is a run in a directory of its own: so many kills at one point under traffic, then the account. Ends with 1
where anything acknowledged is not stored exactly once, is neither handled nor dead, or took effect twice.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from upcall.cli.proof.kills import prove_point
from upcall.cli.proof.ledger import Ledger, total
from upcall.failpoints import POINTS

BATCH = 25


def batches(points: list[str], kills: int) -> list[tuple[str, int]]:
    """Share the kills among the points, in runs of at most `BATCH`."""
    found = []
    for index, point in enumerate(points):
        left = kills // len(points) + (index < kills % len(points))
        while left > 0:
            found.append((point, min(left, BATCH)))
            left -= BATCH
    return found


def one(around: str, point: str, kills: int, seed: int) -> tuple[str, int, Ledger]:
    """Run one batch in a directory that is removed afterwards."""
    with tempfile.TemporaryDirectory(dir=around, prefix="upcall-kill-") as place:
        run, ledger = prove_point(Path(place), point, kills, seed)
        return point, run.kills[point], ledger


def go(options: argparse.Namespace) -> dict[str, Any]:
    """Run all batches, several at a time."""
    began = time.monotonic()
    kills: dict[str, int] = {}
    ledgers = []
    plan = batches(options.points, options.kills)
    with ProcessPoolExecutor(options.jobs) as pool:
        waiting = [
            pool.submit(one, options.dir, point, count, options.seed + number)
            for number, (point, count) in enumerate(plan)
        ]
        for done in as_completed(waiting):
            point, count, ledger = done.result()
            kills[point] = kills.get(point, 0) + count
            ledgers.append(ledger)
            print(
                f"[{sum(kills.values())}/{options.kills}] {point} x {count}: {ledger}"
                f"{''.join(f'; {fault}' for fault in ledger.faults)}",
                file=sys.stderr,
                flush=True,
            )
    account = total(ledgers)
    return {
        "held": all(ledger.holds for ledger in ledgers),
        "kills": kills,
        "seconds": round(time.monotonic() - began, 1),
        **account.document(),
    }


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="in all [1000]")
    parser.add_argument("--points", nargs="+", choices=POINTS, default=list(POINTS), help="where [everywhere]")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time [2]")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="what the moments are drawn from [the time]")
    parser.add_argument("--dir", default="/var/tmp", help="where the stores lie [/var/tmp]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.kills < 1 or options.jobs < 1:
        parser.error("--kills and --jobs must be positive")
    return options


def main() -> None:
    """Kill, and print the account."""
    options = parse()
    print(f"seed {options.seed}", file=sys.stderr)
    found = go(options)
    if options.json:
        print(json.dumps(found))
    else:
        print(f"{sum(found['kills'].values())} kills in {found['seconds']:.0f} s: {found['kills']}")
        for name in ("acknowledged", "stored", "handled", "dead", "lost", "doubled", "effects", "redone"):
            print(f"{name:>14} {found[name]:>12,}")
        print("held" if found["held"] else "DID NOT HOLD")
    raise SystemExit(0 if found["held"] else 1)


if __name__ == "__main__":
    main()
