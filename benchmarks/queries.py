"""Measure what commands and workers ask of a store, where it holds five million callbacks and where it holds few.

    uv run --all-extras benchmarks/queries.py

The callbacks are of 20 accounts, three kinds and a campaign for every thousand; a handler has done one in ten, gave up
on one in ten thousand, and twenty wait; one in a thousand is in quarantine, and some of those were dropped. Each
question is asked ten times, each time with a connection of its own, as a command has; the medians stand beside each
other. It takes some minutes, nearly all of them to fill the store.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filling import read_up
from receive import machine

from upcall.inbox import EVERYTHING, Arrival, Outcome, Retention, Selection, State, Subscription, Trust, open_inbox
from upcall.testing import callback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from upcall.inbox import Inbox

KINDS = ("upgradeScheduled", "upgradeProgress", "upgradeFinished", "upgradeProgress")
A_CAMPAIGN = 1000
GROUP = 10_000
WAITING = 20
LEAST_ROWS = 40_000
TIMES = 10
SECOND = 1_000_000
NOW = time.time_ns() // 1000
WANTS_FEW = Subscription("handler", lambda event: [""] if event.raw.endswith(b"0}") else [])


def arrival(number: int, rows: int) -> Arrival:
    """Return one callback; each comes a tenth of a second after the one before."""
    campaign = number // A_CAMPAIGN
    body = callback(
        KINDS[campaign % len(KINDS)],
        account=f"00001234{campaign % 20:02}-00001",
        campaign_id=f"campaign-{campaign:06}",
        devices={f"device-{number}": "DownloadCompleted"},
    )
    return Arrival(
        body=body[:-1] + b',"n":%d}' % number,
        received_at=NOW - (rows - number) * SECOND // 10,
        trust=Trust.QUARANTINED if number % 1000 == 7 else Trust.ACCEPTED,
    )


def fill(store: Path, rows: int) -> None:
    """Make a store that holds so many callbacks, read up, with work that is done, dead and waiting."""
    with open_inbox(f"sqlite:///{store}", create=True, relaxed=True) as inbox:
        with contextlib.closing(inbox.appender()) as appender:
            for first in range(0, rows, GROUP):
                appender.stage([arrival(number, rows) for number in range(first, min(first + GROUP, rows))])
                appender.commit()
                say("filling", first + GROUP, rows)
        print(file=sys.stderr)
        read_up(store, WANTS_FEW, now=NOW)
        finish(inbox, rows)


def finish(inbox: Inbox, rows: int) -> None:
    """Do the handler's work but for the last of it, and drop some of what failed."""
    done = 0
    while left := rows // 10 - WAITING - done:
        items = inbox.claim([WANTS_FEW.name], "me", NOW, lease_seconds=60, limit=min(990, left))
        if not items:
            raise SystemExit(f"{left} pieces of work are not to be had")
        ends = [Outcome(item.id, "dead" if item.id % 1000 == 0 else "done", error="no") for item in items]
        inbox.settle(ends, "me", NOW)
        done += len(items)
        say("working", done, rows // 10)
    print(file=sys.stderr)
    inbox.drop_quarantined(EVERYTHING, NOW, limit=rows // 2000)
    inbox.drop_dead(EVERYTHING, NOW, limit=rows // 20_000)
    campaign = inbox.campaign(f"campaign-{rows // 2 // A_CAMPAIGN:06}")
    if campaign is None or not A_CAMPAIGN - 2 <= len(campaign[1]) <= A_CAMPAIGN:
        raise SystemExit("the campaign in the middle is not there")


def say(what: str, done: int, of: int) -> None:
    """Say how far it is."""
    print(f"\r{what} {min(done, of):,}/{of:,}   ", end="", file=sys.stderr, flush=True)


def questions(rows: int) -> dict[str, Callable[[Inbox], Any]]:
    """Return what is asked, by what a person would call it."""
    campaign, account = f"campaign-{rows // 2 // A_CAMPAIGN:06}", "0000123407-00001"
    old = NOW - rows * SECOND // 20

    def listed(**asked: Any) -> Callable[[Inbox], Any]:
        return lambda inbox: inbox.callbacks(Selection(**asked), limit=20, bodies=False)

    return {
        "events list": listed(),
        "events list --before, in the middle": listed(before=rows // 2),
        "events list --account": listed(account=account),
        "events list --kind": listed(kind="upgradeFinished"),
        "events list --campaign": listed(campaign_id=campaign),
        "events list --account --kind, which never meet": listed(account=account, kind="upgradeFinished"),
        "events list --since --until, in the middle": listed(since=old, until=old + 60 * SECOND),
        "events list --until --account, in the middle": listed(until=old, account=account),
        **{f"events list --state {state}": listed(state=state) for state in State},
        "events show": lambda inbox: (inbox.callback(rows // 2), inbox.work(rows // 2), inbox.deliveries(rows // 2)),
        "dead list": lambda inbox: inbox.dead(limit=20),
        "campaigns list": lambda inbox: inbox.campaigns(limit=20),
        "campaigns show, a thousand devices": lambda inbox: inbox.campaign(campaign),
        "what a scrape asks": lambda inbox: (inbox.subscribers(), inbox.quarantined_bytes()),
        "events replay of a campaign, counted": lambda inbox: inbox.replayable(Selection(campaign_id=campaign)),
        "a worker's look at what is due": lambda inbox: inbox.next_due([WANTS_FEW.name]),
        "a worker's claim": lambda inbox: inbox.claim([WANTS_FEW.name], "me", NOW, lease_seconds=60, limit=100),
        "a step of retention": lambda inbox: inbox.prune(Retention(body_seconds=60, record_seconds=10**9), NOW),
    }


def asked(store: Path, ask: Callable[[Inbox], Any], *, empty: bool) -> float:
    """Return the milliseconds that a question takes, the median of some."""
    took = []
    for _ in range(TIMES):
        with open_inbox(f"sqlite:///{store}") as inbox:
            began = time.perf_counter()
            found = ask(inbox)
            took.append((time.perf_counter() - began) * 1000)
            if not found and not empty:
                raise SystemExit("a question that was to be answered found nothing")
            inbox.release(["me"], NOW, uncounted=True)
    return statistics.median(took)


def measure(sizes: Iterable[int], directory: str) -> dict[str, list[float]]:
    """Fill a store of each size, and ask all of each; return the milliseconds."""
    table: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=directory, prefix="upcall-benchmark-") as place:
        for rows in sizes:
            store = Path(place) / f"{rows}.db"
            room = shutil.disk_usage(place).free
            if room < rows * 3000:
                raise SystemExit(f"{place} has {room >> 30} GiB free; {rows:,} callbacks need {rows * 3000 >> 30}.")
            fill(store, rows)
            for name, ask in questions(rows).items():
                table.setdefault(name, []).append(asked(store, ask, empty="never meet" in name))
    return table


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=2, default=[50_000, 5_000_000], help="of the two [50000 5000000]")
    parser.add_argument("--dir", default="/var/tmp", help="where the stores lie: a real disk, not memory [/var/tmp]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if min(options.rows) < LEAST_ROWS:
        parser.error(f"--rows must be {LEAST_ROWS} or more, for some of everything")
    return options


def main() -> None:
    """Measure, and print the milliseconds."""
    options = parse()
    table = measure(options.rows, options.dir)
    if options.json:
        figures = [{"question": name, "ms": took} for name, took in table.items()]
        print(
            json.dumps(
                {"machine": machine(), "rows": options.rows, "at": time.strftime("%Y-%m-%d"), "figures": figures}
            )
        )
        return
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print(f"{'':<46}" + "".join(f"{f'{rows:,} rows':>18}" for rows in options.rows))
    for name, took in table.items():
        print(f"{name:<46}" + "".join(f"{ms:>15.2f} ms" for ms in took))


if __name__ == "__main__":
    main()
