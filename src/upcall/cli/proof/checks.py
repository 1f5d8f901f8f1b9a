"""What each step of a proof found, and the report that they make together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from upcall.cli.proof.disk import Disk
from upcall.cli.proof.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Check", "NotHeldError", "Report", "SkippedError", "require"]


class NotHeldError(Exception):
    """Say what a step found wrong."""


class SkippedError(Exception):
    """Say why a step cannot be taken here."""


def require(condition: bool, problem: str) -> None:
    """Insist.

    Raises:
        NotHeldError: It does not hold.
    """
    if not condition:
        raise NotHeldError(problem)


class Check(msgspec.Struct, frozen=True):
    """Say what became of one step.

    Args:
        name: The step.
        outcome: ``held``, ``failed`` or ``skipped``.
        detail: What was seen, what is wrong, or why it was skipped.
        seconds: How long it took.
    """

    name: str
    outcome: str
    detail: str
    seconds: float


class Report(msgspec.Struct, frozen=True):
    """Hold what a proof came to.

    Args:
        ledger: The account.
        checks: The steps, in order.
        disk: What it all lay on.
        refused: Answers other than 200, and why they were given, with how many there were.
        kills: How often a process was killed at which point.
        spooled: Callbacks that the spool kept while the store could not.
        restarts: How often a process was started again.
        p50_ms: What half of the acknowledgements took at most.
        p99_ms: The same for 99 of 100.
        p999_ms: The same for 999 of 1,000.
        seconds: How long it all took.
        directory: Where the data lies, None where it was removed.
    """

    ledger: Ledger
    checks: tuple[Check, ...]
    disk: Disk
    refused: dict[str, int]
    kills: dict[str, int]
    spooled: int
    restarts: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    seconds: float
    directory: str | None = None

    @property
    def problems(self) -> list[str]:
        """Return what is wrong, nothing where the proof holds."""
        found = [f"{check.name}: {check.detail}" for check in self.checks if check.outcome == "failed"]
        found += self.ledger.faults
        if not self.ledger.holds and not self.ledger.faults:
            found.append("the account does not balance")
        if not self.ledger.acknowledged:
            found.append("nothing was acknowledged")
        return found

    @property
    def skipped(self) -> list[str]:
        """Return what was not looked at, and why."""
        return [f"{check.name} ({check.detail})" for check in self.checks if check.outcome == "skipped"]

    @property
    def proved(self) -> bool:
        """Tell whether nothing was found wrong."""
        return not self.problems

    def document(self) -> dict[str, Any]:
        """Return the report as JSON's types."""
        ledger = self.ledger.document()
        del ledger["faults"]
        return {
            "proved": self.proved,
            "problems": self.problems,
            **ledger,
            "refused": self.refused,
            "p50_ms": round(self.p50_ms, 2),
            "p99_ms": round(self.p99_ms, 2),
            "p999_ms": round(self.p999_ms, 2),
            "spooled": self.spooled,
            "restarts": self.restarts,
            "kills": self.kills,
            "skipped": self.skipped,
            "checks": [msgspec.to_builtins(check) for check in self.checks],
            "disk": msgspec.to_builtins(self.disk),
            "seconds": round(self.seconds, 1),
            "directory": self.directory,
        }

    def lines(self) -> Iterator[str]:
        """Yield the lines that a person reads at the end."""
        reasons = ", ".join(f"{count:,} {why}" for why, count in self.refused.items()) or "none"
        yield f"{self.ledger}; refused {sum(self.refused.values()):,} ({reasons})"
        yield (
            f"acknowledged within {self.p50_ms:.1f} ms (half), {self.p99_ms:.1f} ms (99 of 100),"
            f" {self.p999_ms:.1f} ms (999 of 1,000); an fsync takes {self.disk.fsync_ms:.2f} ms"
            f" on {self.disk.file_system}"
        )
        once = "" if self.ledger.doubled else ", each once"
        yield (
            f"{sum(self.kills.values())} kills at {len(self.kills)} points, {self.restarts} restarts;"
            f" spool used for {self.spooled:,} callbacks;"
            f" {self.ledger.effects:,} transactional effects{once}; {self.ledger.redone:,} plain ones done again"
        )
        yield f"skipped: {'; '.join(self.skipped) or 'nothing'}"
        if self.directory:
            yield f"the data lies in {self.directory}"
        yield "PROVED" if self.proved else f"NOT PROVED: {'; '.join(self.problems)}"
