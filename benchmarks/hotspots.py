"""Say where the processor time of receiving, draining and forwarding goes.

    uv run --all-extras --group bench benchmarks/hotspots.py

py-spy looks at a process of each kind 500 times a second while it works, from outside: at which function each thread
stands that is running, not waiting. A share is of all those looks, and belongs to the innermost function of ours, so
what msgspec, uvloop or SQLite do for it counts as its own. Linux may forbid to look at another process
(`kernel.yama.ptrace_scope`); root may always.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drain import appended
from forward import sink
from receive import HERE, command, machine, own_environment

import upcall

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES = {
    "receive": "upcall listen, 64 connections",
    "drain": "a worker whose async handler does nothing",
    "forward": "a worker with --forward, 64 in flight",
}
LOOKS_A_SECOND = 500
HEAVIEST = 12
OURS = f"{Path(upcall.__file__).parent}/"
_FRAME = re.compile(r"(?P<function>.+) \((?P<file>.+?)(:\d+)?\)$")


@contextlib.contextmanager
def running(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a process, and end it."""
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=own_environment()
    )
    try:
        yield process
        if process.poll():
            raise SystemExit(f"{words} ended with {process.returncode}")
    finally:
        process.terminate()
        process.wait(timeout=60)


def look(pid: int, seconds: float, place: Path) -> Counter[tuple[str, ...]]:
    """Look at a process for so long; return how often each stack was met."""
    raw = place / f"{pid}.txt"
    words = ["py-spy", "record", "--pid", str(pid), "--duration", str(int(seconds)), "--rate", str(LOOKS_A_SECOND)]
    words += ["--function", "--full-filenames", "--format", "raw", "--output", str(raw)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if not raw.exists():
        raise SystemExit(f"py-spy saw nothing: {done.stderr.strip() or done.stdout.strip()}")
    stacks: Counter[tuple[str, ...]] = Counter()
    for line in raw.read_text().splitlines():
        frames, _, count = line.rpartition(" ")
        stacks[tuple(frames.split(";"))] += int(count)
    if stacks.total() < seconds * LOOKS_A_SECOND / 10:
        raise SystemExit(f"in {seconds} s it was met at work {stacks.total()} times: it had nothing to do")
    return stacks


def receive(place: Path, seconds: float) -> Counter[tuple[str, ...]]:
    """Look at a listener under load."""
    words, _ = command("upcall", place / "receive.db")
    with running(words) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        with running([sys.executable, str(HERE / "load.py"), url, "--seconds", str(seconds + 2)]):
            time.sleep(1)
            return look(process.pid, seconds, place)


def drain(place: Path, seconds: float) -> Counter[tuple[str, ...]]:
    """Look at a worker that drains a store."""
    appended(place / "drain.db", int(seconds * 60_000))
    with running([sys.executable, str(HERE / "drain.py"), "--child", "async", f"sqlite:///{place}/drain.db"]) as one:
        time.sleep(0.5)  # it imports
        return look(one.pid, seconds - 1, place)


def forward(place: Path, seconds: float) -> Counter[tuple[str, ...]]:
    """Look at a worker that forwards."""
    appended(place / "forward.db", int(seconds * 20_000))
    with sink() as url:
        store = f"sqlite:///{place}/forward.db"
        with running([sys.executable, str(HERE / "forward.py"), "--child", "forward", store, url]) as one:
            time.sleep(0.5)
            return look(one.pid, seconds - 1, place)


LOOKED_AT = {"receive": receive, "drain": drain, "forward": forward}


def owner(stack: tuple[str, ...]) -> tuple[str, str]:
    """Return the file and the function of ours that a stack belongs to, else those of its innermost frame."""
    ours = [frame for frame in stack if OURS in frame]
    found = _FRAME.match(ours[-1] if ours else stack[-1])
    if found is None:
        return "?", stack[-1]
    return found["file"].removeprefix(OURS) if ours else Path(found["file"]).name, found["function"]


def shares(stacks: Counter[tuple[str, ...]]) -> dict[str, Any]:
    """Return which files, and which functions, have which share of the looks."""
    files: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for stack, count in stacks.items():
        file, function = owner(stack)
        files[file] += count
        functions[f"{file} {function}"] += count
    looks = stacks.total()
    return {
        "looks": looks,
        "files": {name: count / looks for name, count in files.most_common(HEAVIEST)},
        "functions": {name: count / looks for name, count in functions.most_common(HEAVIEST)},
    }


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="what to look at")
    parser.add_argument("--seconds", type=int, default=6, help="for how long each [6]")
    parser.add_argument("--dir", default="/var/tmp", help="where the stores lie: a real disk, not memory [/var/tmp]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.seconds < 2:
        parser.error("--seconds must be 2 or more")
    return options


def main() -> None:
    """Look at each, and print the shares."""
    options = parse()
    found = {}
    for case in options.cases:
        print(f"{case} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=options.dir, prefix="upcall-benchmark-") as place:
            found[case] = shares(LOOKED_AT[case](Path(place), options.seconds))
    if options.json:
        print(json.dumps({"machine": machine(), "at": time.strftime("%Y-%m-%d"), "cases": found}))
        return
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    for case, one in found.items():
        print(f"\n{case}: {CASES[case]} ({one['looks']:,} looks)")
        for kind in ("files", "functions"):
            for name, share in one[kind].items():
                print(f"  {share:6.1%}  {name}")
            print()


if __name__ == "__main__":
    main()
