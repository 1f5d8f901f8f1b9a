"""Reading what a proof left behind: the store, and what the handlers wrote."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Final

from upcall.cli.proof.bodies import serial_of
from upcall.cli.proof.handlers import DEVICES, EFFECTS, NOTES
from upcall.cli.proof.ledger import DEAD, DONE, OTHER, Observed
from upcall.inbox import Selection, State, open_inbox

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from upcall.inbox import CallbackRecord

__all__ = ["create_effects", "observe", "rows_of"]

_PAGE: Final = 2000
_STATES: Final = {State.DONE.value: DONE, State.DEAD.value: DEAD}
_MOST: Final = 255


def create_effects(path: Path) -> None:
    """Make the table that the transactional handler writes to, in a store that exists."""
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as connection, connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS {EFFECTS} (serial INTEGER NOT NULL)")


def observe(store: Path, effects: Path, sent: bytearray, junk: Sequence[bytes]) -> Observed:
    """Look at everything.

    Args:
        store: The store's file.
        effects: The directory that the handlers wrote to.
        sent: What the sender knows of each serial number.
        junk: Bodies that are no callbacks, and were acknowledged.
    """
    size = len(sent)
    stored, states = bytearray(size), bytearray(size)
    waiting, strangers = list(junk), 0
    for record in _records(store):
        serial = serial_of(record.body or b"")
        if serial is not None and serial < size:
            _count(stored, serial)
            states[serial] = _STATES.get(record.state, OTHER)
        elif record.body in waiting and record.state == State.QUARANTINED.value:
            waiting.remove(record.body)
        else:
            strangers += 1
    return Observed(
        sent=sent,
        stored=stored,
        states=states,
        notes=_counts(_lines(effects / NOTES), size),
        devices=_counts(_lines(effects / DEVICES), size),
        effects=_counts(_effects(store), size),
        junk_acknowledged=len(junk),
        junk_kept=len(junk) - len(waiting),
        strangers=strangers,
    )


def rows_of(store: Path, serials: Iterable[int]) -> list[int]:
    """Return those of these serial numbers that the store holds."""
    wanted = set(serials)
    held = (serial_of(record.body or b"") for record in _records(store))
    return sorted(wanted.intersection(serial for serial in held if serial is not None))


def _records(store: Path) -> Iterator[CallbackRecord]:
    after = 0
    with open_inbox(f"sqlite:///{store}") as inbox:
        while page := inbox.callbacks(Selection(after=after), limit=_PAGE, oldest=True):
            yield from page
            after = page[-1].id


def _effects(store: Path) -> Iterator[int]:
    with contextlib.closing(sqlite3.connect(store, timeout=10)) as connection:
        for (serial,) in connection.execute(f"SELECT serial FROM {EFFECTS}"):  # noqa: S608 - a constant
            yield serial


def _lines(path: Path) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            yield int(line)


def _counts(serials: Iterable[int], size: int) -> bytearray:
    counts = bytearray(size)
    for serial in serials:
        _count(counts, serial)
    return counts


def _count(counts: bytearray, serial: int) -> None:
    counts[serial] = min(counts[serial] + 1, _MOST)
