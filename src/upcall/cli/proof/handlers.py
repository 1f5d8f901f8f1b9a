"""The handlers that a proof runs: at least once, for each device, and exactly once; some fail on purpose.

What they did stands in files and in a table of the store's, so that their word is not taken from the work table.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Final

from upcall.app import Upcall
from upcall.cli.proof.bodies import ALWAYS_FAILS, DEVICE_WORD, EXACT_KIND, serial_of

if TYPE_CHECKING:
    from upcall.inbox import Transaction
    from upcall.thingspace import CallbackEvent, DeviceUpdate

__all__ = ["DEVICES", "DIRECTORY_VARIABLE", "EFFECTS", "NOTES", "app", "exact"]

DIRECTORY_VARIABLE: Final = "UPCALL_PROOF_DIR"
NOTES: Final = "notes"
DEVICES: Final = "devices"
EFFECTS: Final = "proof_effects"
"""The files, and the table, that the handlers write to: a serial number each time."""

FAILURE_RATE: Final = 0.2
FLAKY_EVERY: Final = 5

app: Upcall = Upcall()
exact: Upcall = Upcall()
"""The transactional handler alone: whatever its worker is killed at, it is killed in a transaction."""
_files: dict[str, int] = {}


class ProofError(Exception):
    """Stand for what goes wrong in a handler."""


@app.on(max_attempts=4, backoff_seconds=0.1, max_backoff_seconds=0.2)
async def note(event: CallbackEvent) -> None:
    """Write down each callback; a fifth of them at the second or third attempt, and one in a thousand never."""
    serial = _serial(event)
    if serial % 1000 == ALWAYS_FAILS:
        raise ProofError("this one always fails")
    if serial % FLAKY_EVERY == 1:
        _fail_at_times()
    _append(NOTES, serial)


@app.on_device(DEVICE_WORD, max_attempts=6, backoff_seconds=0.1, max_backoff_seconds=0.2)
def note_device(event: CallbackEvent, device: DeviceUpdate) -> None:  # noqa: ARG001 - the event knows the number
    """Write down each failed device; one attempt in five fails."""
    _fail_at_times()
    _append(DEVICES, _serial(event))


@app.on(EXACT_KIND, transactional=True, max_attempts=6, backoff_seconds=0.1, max_backoff_seconds=0.2)
@exact.on(EXACT_KIND, transactional=True, max_attempts=6, backoff_seconds=0.1, max_backoff_seconds=0.2)
def count(event: CallbackEvent, transaction: Transaction) -> None:
    """Add a row to a table of our own; one attempt in five fails after it did."""
    transaction.execute(f"INSERT INTO {EFFECTS} (serial) VALUES (?)", (_serial(event),))  # noqa: S608 - a constant
    _fail_at_times()


def _serial(event: CallbackEvent) -> int:
    serial = serial_of(event.raw)
    if serial is None:
        raise ProofError("the handler was given bytes that nobody sent")
    return serial


def _fail_at_times() -> None:
    if random.random() < FAILURE_RATE:  # noqa: S311 - no secret depends on it
        raise ProofError("one attempt in five fails")


def _append(name: str, serial: int) -> None:
    if name not in _files:
        path = Path(os.environ[DIRECTORY_VARIABLE]) / name
        _files[name] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.write(_files[name], b"%d\n" % serial)
