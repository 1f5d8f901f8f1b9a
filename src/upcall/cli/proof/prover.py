"""The steps of ``upcall prove``, one after the other, and what they come to."""

from __future__ import annotations

import contextlib
import functools
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.cli.proof import strangers, trouble
from upcall.cli.proof.checks import Check, NotHeldError, Report, SkippedError
from upcall.cli.proof.kills import kill_at
from upcall.cli.proof.ledger import total
from upcall.cli.proof.run import Run
from upcall.cli.proof.sender import Latencies
from upcall.errors import UpcallError
from upcall.failpoints import POINTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from upcall.cli.proof.disk import Disk
    from upcall.cli.proof.hostile import Drips
    from upcall.cli.proof.ledger import Ledger

__all__ = ["Plan", "prove_here"]

_WORDS: Final = {"held": "ok:", "failed": "FAILED:", "skipped": "skipped:"}


class Plan(msgspec.Struct, frozen=True):
    """Say how much is tried.

    Args:
        seconds: How long the flood lasts.
        kills: Kills at each point.
        outage_seconds: How long the store fails, each time.
        drips: Which slow connections are waited for.
        seed: What the moments of the kills are drawn from.
    """

    seconds: float
    kills: int
    outage_seconds: float = 2.0
    drips: tuple[str, ...] = ("body", "head", "silent")
    seed: int = 1


def prove_here(directory: Path, disk: Disk, plan: Plan, say: Callable[[str], None]) -> Report:
    """Take every step in a directory.

    Args:
        directory: An empty one, on the disk that is meant.
        disk: What is known of that disk.
        plan: How much is tried.
        say: Shows a line of progress.

    Raises:
        UpcallError: A process does not start, or the run was brought so low that no account can be made.
    """
    began = time.monotonic()
    prover = _Prover(directory, plan, say)
    report = prover.go(disk)
    return msgspec.structs.replace(report, seconds=time.monotonic() - began)


class _Prover:
    def __init__(self, directory: Path, plan: Plan, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._plan = plan
        self._say = say
        self._chance = random.Random(plan.seed)  # noqa: S311 - no secret depends on it
        self._checks: list[Check] = []
        self._others: list[tuple[Run, Ledger]] = []

    def go(self, disk: Disk) -> Report:
        main = self._directory / "main"
        main.mkdir()
        with Run(main) as run:
            self._meet_strangers(run)
            for point in POINTS:
                self._step(f"kill at {point}", functools.partial(self._kill, run, point))
            self._bring_trouble(run)
            self._step("a full disk", self._fill_a_disk)
            self._step("all work done", lambda: self._finish(run))
            ledger = run.account()
        return self._report(run, ledger, disk)

    def _meet_strangers(self, run: Run) -> None:
        """Take the steps that need the listener to live on, while slow connections wait for their deadlines."""
        plan = self._plan
        with _drips(run) as drips:
            self._step("flood", lambda: trouble.flood(run, plan.seconds))
            self._step("a crowd of connections", lambda: strangers.connection_crowd(run))
            self._step("forged source", lambda: strangers.forged_source(run))
            self._step("bodies that are none", lambda: strangers.bodies_that_are_none(run))
            self._step("backup under load", lambda: trouble.backup(run))
            self._step("slow connections", lambda: strangers.drips_end(run, drips, kinds=plan.drips))
        for kind in ("head", "silent"):
            if kind not in plan.drips:
                self._note(Check(f"slow connections ({kind})", "skipped", "takes 20 s; leave --quick out", 0.0))

    def _bring_trouble(self, run: Run) -> None:
        seconds = self._plan.outage_seconds
        self._step("store locked", lambda: trouble.locked_store(run, seconds))
        self._step("store moved away", lambda: trouble.moved_store(run, seconds))
        self._step("store cannot grow", lambda: trouble.store_cannot_grow(run, seconds))
        self._step("SIGTERM under load", lambda: trouble.stops(run))

    def _kill(self, run: Run, point: str) -> str:
        before = run.restarts
        kill_at(run, point, self._plan.kills, self._chance)
        return f"killed {run.kills[point]}, started {run.restarts - before} more"

    def _fill_a_disk(self) -> str:
        said, run, ledger = trouble.full_disk(self._directory, self._plan.outage_seconds)
        self._others.append((run, ledger))
        return said

    def _finish(self, run: Run) -> str:
        run.drain()
        with run.inbox() as inbox:
            problems = inbox.check()
        if problems:
            raise NotHeldError(f"the store is not sound: {'; '.join(problems[:3])}")
        return "nothing left to do; the store is sound"

    def _step(self, name: str, work: Callable[[], str]) -> None:
        """Take a step; what it finds wrong is noted, and the next one follows."""
        began = time.monotonic()
        try:
            outcome, detail = "held", work()
        except SkippedError as reason:
            outcome, detail = "skipped", str(reason)
        except (NotHeldError, UpcallError, OSError) as problem:
            outcome, detail = "failed", str(problem)
        self._note(Check(name, outcome, detail, round(time.monotonic() - began, 2)))

    def _note(self, check: Check) -> None:
        self._checks.append(check)
        self._say(f"[{check.seconds:5.1f} s] {check.name}: {_WORDS[check.outcome]} {check.detail}")

    def _report(self, run: Run, ledger: Ledger, disk: Disk) -> Report:
        runs = [run, *(other for other, _ in self._others)]
        took = Latencies([seconds for one in runs for seconds in one.sender.timings])
        kills: Counter[str] = Counter()
        refused: Counter[str] = Counter()
        for one in runs:
            kills.update(one.kills)
            refused.update({f"{status}, sent again": n for status, n in one.sender.statuses.items() if status >= 400})  # noqa: PLR2004 - HTTP's own
        refused.update(run.refused)
        return Report(
            ledger=total([ledger, *(other for _, other in self._others)]),
            checks=tuple(self._checks),
            disk=disk,
            refused=dict(refused),
            kills=dict(kills),
            spooled=sum(one.spooled for one in runs),
            restarts=sum(one.restarts for one in runs),
            p50_ms=took.milliseconds(0.5),
            p99_ms=took.milliseconds(0.99),
            p999_ms=took.milliseconds(0.999),
            seconds=0.0,
        )


@contextlib.contextmanager
def _drips(run: Run) -> Iterator[Drips | None]:
    drips = strangers.begin_drips(run)
    try:
        yield drips
    finally:
        if drips is not None:
            drips.close()
