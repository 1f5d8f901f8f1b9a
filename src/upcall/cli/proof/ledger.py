"""The account of a proof: what was seen at each place, and what follows from it. Pure: no file is read here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from upcall.cli.proof.bodies import wants_device, wants_exact
from upcall.cli.proof.sender import ACKNOWLEDGED

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DEAD", "DONE", "OTHER", "Ledger", "Observed", "reconcile", "total"]

OTHER: Final = 1
DONE: Final = 2
DEAD: Final = 3
_SHOWN: Final = 5


class Observed(msgspec.Struct, frozen=True):
    """Hold what was seen of each callback, by its serial number.

    Args:
        sent: `SENT` or `ACKNOWLEDGED` of the sender, 0 for what was not sent.
        stored: How many rows of the store hold exactly its bytes.
        states: How its row stands: `DONE`, `DEAD`, or `OTHER`; 0 where there is none.
        notes: How often the plain handler wrote it down.
        devices: How often the device handler did.
        effects: How many rows the transactional handler added for it.
        junk_acknowledged: Bodies that are no callbacks, and were answered 200.
        junk_kept: Of those, how many are kept byte for byte, in quarantine.
        strangers: Rows of bytes that nobody sent.
    """

    sent: bytes | bytearray
    stored: bytearray
    states: bytearray
    notes: bytearray
    devices: bytearray
    effects: bytearray
    junk_acknowledged: int = 0
    junk_kept: int = 0
    strangers: int = 0


class Ledger(msgspec.Struct, frozen=True):
    """Account for every callback of a proof.

    Args:
        sent: Distinct callbacks that were sent.
        acknowledged: Of those, answered 200.
        stored: Callbacks in the store, each counted once.
        handled: Of those, every handler that wanted them did its work.
        dead: Of those, given up by a handler, and among the dead letters.
        quarantined: Of those, no callbacks at all, kept in quarantine.
        lost: Acknowledged and not stored; or stored, and neither handled nor dead; or done by the store's word, with
            nothing to show for it.
        doubled: Effects of the transactional handler that happened more than once, and callbacks stored more than once.
        effects: Effects of the transactional handler.
        redone: How often the plain handlers did again what they had done: at least once means this may happen.
        strangers: Rows of bytes that nobody sent.
        faults: What is wrong, a line each, with some of the serial numbers.
    """

    sent: int = 0
    acknowledged: int = 0
    stored: int = 0
    handled: int = 0
    dead: int = 0
    quarantined: int = 0
    lost: int = 0
    doubled: int = 0
    effects: int = 0
    redone: int = 0
    strangers: int = 0
    faults: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Tell whether everything acknowledged is there once, and is handled or dead."""
        whole = self.acknowledged == self.stored == self.handled + self.dead + self.quarantined
        return whole and not (self.lost or self.doubled or self.strangers or self.faults)

    def document(self) -> dict[str, Any]:
        """Return the ledger as JSON's types."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]  # a struct becomes a dict

    def __str__(self) -> str:
        """Return the line that a manager reads."""
        return (
            f"acknowledged {self.acknowledged:,} = stored {self.stored:,} = handled {self.handled:,}"
            f" + dead {self.dead:,} + quarantined {self.quarantined:,}; lost {self.lost:,}; doubled {self.doubled:,}"
            if self.holds
            else f"acknowledged {self.acknowledged:,}, stored {self.stored:,}, handled {self.handled:,},"
            f" dead {self.dead:,}, quarantined {self.quarantined:,}; lost {self.lost:,}; doubled {self.doubled:,}"
        )


class _Faults:
    """Collect serial numbers under what is wrong with them."""

    def __init__(self) -> None:
        self._found: dict[str, list[int]] = {}

    def add(self, what: str, serial: int) -> None:
        self._found.setdefault(what, []).append(serial)

    def count(self) -> int:
        return len({serial for serials in self._found.values() for serial in serials})

    def lines(self) -> Iterator[str]:
        for what, serials in self._found.items():
            shown = ", ".join(map(str, serials[:_SHOWN])) + (", …" if len(serials) > _SHOWN else "")
            yield f"{len(serials)} {what}: number {shown}"


def reconcile(seen: Observed) -> Ledger:
    """Say what follows from what was seen."""
    lost, doubled = _Faults(), _Faults()
    for serial, sent in enumerate(seen.sent):
        if sent or seen.stored[serial]:
            _look_for_loss(seen, serial, lost)
            _look_for_doubles(seen, serial, doubled)
    junk_lost = seen.junk_acknowledged - seen.junk_kept
    faults = [*lost.lines(), *doubled.lines()]
    if junk_lost:
        faults.append(f"{junk_lost} bodies that are no callbacks were acknowledged and are not in quarantine as sent")
    if seen.strangers:
        faults.append(f"{seen.strangers} rows hold bytes that nobody sent")
    wanted = sum(1 for states in seen.states if states)
    return Ledger(
        sent=len(seen.sent) - seen.sent.count(0) + seen.junk_acknowledged,
        acknowledged=seen.sent.count(ACKNOWLEDGED) + seen.junk_acknowledged,
        stored=wanted + seen.junk_kept,
        handled=seen.states.count(DONE),
        dead=seen.states.count(DEAD),
        quarantined=seen.junk_kept,
        lost=lost.count() + junk_lost,
        doubled=doubled.count(),
        effects=sum(seen.effects),
        redone=sum(count - 1 for counts in (seen.notes, seen.devices) for count in counts if count > 1),
        strangers=seen.strangers,
        faults=tuple(faults),
    )


def _look_for_loss(seen: Observed, serial: int, lost: _Faults) -> None:
    if not seen.stored[serial]:
        if seen.sent[serial] == ACKNOWLEDGED:
            lost.add("acknowledged and not stored", serial)
        return
    if seen.states[serial] not in {DONE, DEAD}:
        lost.add("stored, and neither handled nor dead", serial)
    if seen.states[serial] != DONE:
        return
    if not seen.notes[serial]:
        lost.add("done, and its handler never ran", serial)
    if wants_device(serial) and not seen.devices[serial]:
        lost.add("done, and the handler of its device never ran", serial)
    if wants_exact(serial) and not seen.effects[serial]:
        lost.add("done, without the effect of its transaction", serial)


def _look_for_doubles(seen: Observed, serial: int, doubled: _Faults) -> None:
    if seen.stored[serial] > 1:
        doubled.add("stored more than once", serial)
    if seen.effects[serial] > 1:
        doubled.add("with the effect of their transaction more than once", serial)


def total(ledgers: list[Ledger]) -> Ledger:
    """Add the accounts of several stores."""
    sums = {
        name: sum(getattr(ledger, name) for ledger in ledgers) for name in Ledger.__struct_fields__ if name != "faults"
    }
    return Ledger(**sums, faults=tuple(fault for ledger in ledgers for fault in ledger.faults))
