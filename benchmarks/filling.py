"""Stores that hold many callbacks already, made quickly: without an fsync, which the measured listener does itself."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import time
from typing import TYPE_CHECKING

from load import body_template

from upcall.inbox import Arrival, Subscription, open_inbox

if TYPE_CHECKING:
    from pathlib import Path

MICROS = 1_000_000
DAY = 24 * 3600 * MICROS
GROUP = 20_000
WANTS_NONE = Subscription("earlier", lambda event: [])  # noqa: ARG005 - whatever the event says


def fill(store: Path, rows: int, *, days_old: float = 0.0) -> None:
    """Make a store that holds so many callbacks, as a listener would have written them.

    Args:
        store: The file, which must not exist.
        rows: How many.
        days_old: How long ago the newest was received; each is a millisecond older than the next.
    """
    newest = time.time_ns() // 1000 - int(days_old * DAY)
    before, after = body_template("earlier")
    with open_inbox(f"sqlite:///{store}", create=True) as inbox, contextlib.closing(inbox.appender()) as appender:
        appender._connection.execute("PRAGMA synchronous = OFF")  # noqa: SLF001 - nothing here is worth an fsync
        for first in range(0, rows, GROUP):
            numbers = range(first, min(first + GROUP, rows))
            appender.stage(
                [
                    Arrival(body=b"%b%016d%b" % (before, number, after), received_at=newest - (rows - number) * 1000)
                    for number in numbers
                ]
            )
            appender.commit()
            print(f"\rfilling {numbers.stop:,}/{rows:,}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    with contextlib.closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def read_up(store: Path, handler: Subscription = WANTS_NONE, *, now: int | None = None) -> None:
    """Bring a store's read model up to its newest callback, and let a handler look at all of them."""
    taken, now = 0, time.time_ns() // 1000 if now is None else now
    with open_inbox(f"sqlite:///{store}", relaxed=True) as inbox:
        inbox.subscribe([handler.name], now)
        while (read := inbox.project(limit=5000)) + inbox.enroll([handler], now, limit=5000)[0]:
            taken += read
            print(f"\rreading {taken:,}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
