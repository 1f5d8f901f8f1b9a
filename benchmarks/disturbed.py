"""Measure how long acknowledgements take while something else is at the store.

    uv run --all-extras benchmarks/disturbed.py

One listener on a store that holds many callbacks already, and a sender with 16 connections that never pauses. Beside it
run, one after the other and each again and again: nothing, a backup, a retention, a worker whose handler burns a core,
and an export. Each row is out of one run on one store.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filling import fill, read_up
from receive import TOKEN, machine, own_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
UPCALL = [sys.executable, "-m", "upcall"]
BURNER = """
from upcall import Upcall

app = Upcall()


@app.on(max_attempts=1)
def burn(event):
    sum(i * i for i in range(20_000))
"""


@contextlib.contextmanager
def running(words: list[str], place: Path, *, until: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a command beside what follows, and end it."""
    environment = own_environment() | {"UPCALL_STATE_DIR": str(place / "state")}
    with (place / "log.txt").open("a") as log:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=place)
        try:
            if until is not None:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line.startswith(until):
                    raise SystemExit(f"{words} did not start: {(place / 'log.txt').read_text()[-2000:]}")
                process.url = line.split()[1]  # type: ignore[attr-defined]
            yield process
        finally:
            process.terminate()
            process.wait(timeout=60)


def again_and_again(words: list[str], place: Path, stop: threading.Event, codes: list[int | None]) -> None:
    """Run a command over and over until told to stop; note how each run ended, None where it was cut off."""
    while not stop.is_set():
        (place / "copy.db").unlink(missing_ok=True)
        with running(words, place) as process:
            while process.poll() is None and not stop.wait(0.05):
                pass
            codes.append(process.returncode)


@contextlib.contextmanager
def disturbed(words: list[str] | None, place: Path) -> Iterator[None]:
    """Keep a command busy beside what follows, None for nothing."""
    stop = threading.Event()
    codes: list[int | None] = []
    thread = threading.Thread(target=again_and_again, args=(words, place, stop, codes)) if words else None
    if thread:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if thread:
            thread.join()
    if any(codes):
        raise SystemExit(f"{words} ended with {codes}: {(place / 'log.txt').read_text()[-2000:]}")


def send(url: str, name: str, seconds: float) -> dict[str, float]:
    """Send for a while, and return what came back."""
    load = [sys.executable, str(HERE / "load.py"), url, "--name", name, "--connections", "16"]
    output = subprocess.run([*load, "--seconds", str(seconds)], check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output)
    return result


def disturbances(store: str) -> dict[str, list[str] | None]:
    """Return what runs beside the listener, by name."""
    of = ["--store", store]
    return {
        "nothing": None,
        "a backup": [*UPCALL, "store", "backup", "copy.db", *of],
        "retention": [*UPCALL, "store", "prune", "--body-days", "30", "--record-days", "365", *of],
        "a handler that burns a core": [*UPCALL, "work", "burner:app", "--concurrency", "4", *of],
        "an export of everything": [*UPCALL, "events", "export", "--output", "copy.db", *of],
    }


TRACES = {
    "retention": "SELECT max(body IS NULL) AND count(*) > sum(body IS NULL) FROM callbacks WHERE id <= {rows}",
    "a handler that burns a core": "SELECT count(*) FROM work WHERE subscriber LIKE '%burn' AND state = 'done'",
}
"""What shows that a disturbance had something to do, to the end."""


def count(store: Path, query: str) -> int:
    """Return what a query of a store counts."""
    with contextlib.closing(sqlite3.connect(store)) as connection:
        return int(connection.execute(query).fetchone()[0])


def main() -> None:
    """Measure, and print a row for each disturbance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each is measured [10]")
    parser.add_argument("--rows", type=int, default=300_000, help="what the store holds before [300000]")
    parser.add_argument("--dir", default="/var/tmp", help="where the store lies: a real disk, not memory [/var/tmp]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.seconds <= 0 or options.rows < 1:
        parser.error("--seconds and --rows must be positive")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="upcall-benchmark-") as text:
        place = Path(text)
        (place / "burner.py").write_text(BURNER)
        store = place / "inbox.db"
        fill(store, options.rows, days_old=100)
        listen = [*UPCALL, "listen", "--port", "0", "--store", str(store), "--token", TOKEN]
        with running(listen, place, until="ready ") as listener:
            for name, words in disturbances(str(store)).items():
                read_up(store)  # what came before: commands do so first, and here nobody else finds the time
                with disturbed(words, place):
                    result = send(listener.url, name.replace(" ", "-"), options.seconds)  # type: ignore[attr-defined]
                if result["refused"] or result["lost_connections"]:
                    raise SystemExit(f"with {name}: {result}")
                if (query := TRACES.get(name)) and not count(store, query.format(rows=options.rows)):
                    raise SystemExit(f"{name} left no trace: too few --rows, or --seconds?")
                rows.append({"beside": name, **result})
                print(f"beside {name}: {result['requests_per_second']:,.0f}/s", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({"machine": machine(), "rows": options.rows, "figures": rows}))
        return
    print(f"{'beside':<30} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'p99.9 ms':>9} {'longest ms':>10}")
    for row in rows:
        print(
            f"{row['beside']:<30} {row['requests_per_second']:>10,.0f} {row['p50_ms']:>8.2f} {row['p99_ms']:>8.2f}"
            f" {row['p999_ms']:>9.2f} {row['longest_ms']:>10.2f}"
        )


if __name__ == "__main__":
    main()
