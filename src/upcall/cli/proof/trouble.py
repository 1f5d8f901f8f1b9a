"""Steps of a proof: the store fails in several ways, the listener is stopped, a backup runs, all under traffic."""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import TYPE_CHECKING, Final

from upcall.cli.proof.audit import rows_of
from upcall.cli.proof.checks import SkippedError, require
from upcall.cli.proof.children import wait_until
from upcall.cli.proof.disk import small_disk
from upcall.cli.proof.kills import KILL_RATE
from upcall.cli.proof.run import Run
from upcall.cli.proof.sender import ACKNOWLEDGED
from upcall.inbox import open_inbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from upcall.cli.proof.ledger import Ledger

__all__ = ["backup", "flood", "full_disk", "locked_store", "moved_store", "stops", "store_cannot_grow"]

QUICKLY_MS: Final = 1000.0
STOPS: Final = 2
_GROWTH_BYTES: Final = 4 * 1024 * 1024
_SMALL_DISK: Final = "96m"
"""The write-ahead log alone may take 64 MiB."""
_CHUNK: Final = 64 * 1024


def flood(run: Run, seconds: float) -> str:
    """Send as fast as answers come."""
    since, before, began = run.sender.measured, run.sender.acknowledged, time.monotonic()
    run.sender.flow()
    time.sleep(seconds)
    run.sender.settle()
    rate = (run.sender.acknowledged - before) / (time.monotonic() - began)
    took = run.sender.latencies(since)
    return f"{len(took):,} callbacks, {rate:,.0f}/s, p99 {took.milliseconds(0.99):.1f} ms"


def stops(run: Run) -> str:
    """End the listener with SIGTERM under load: whatever it kept it must have answered."""
    for _ in range(STOPS):
        run.sender.flow()
        run.sender.reaches(500)
        listener = run.listener
        assert listener is not None
        code = listener.end()
        require(code == 0, f"the listener ended with {code}")
        unanswered = run.sender.hold()
        kept = rows_of(run.store, unanswered)
        require(not kept, f"{len(kept)} callbacks were kept and not answered, such as number {kept[:1]}")
        run.start_listener()
        run.restarts += 1
        run.sender.settle()
    return f"{STOPS} times; exit 0, and no callback kept without an answer"


def backup(run: Run) -> str:
    """Copy the store while callbacks come in: the copy is sound and holds what was acknowledged before."""
    target = run.directory / "backup.db"
    since = run.sender.measured
    known = [serial for serial, state in enumerate(run.sender.states) if state == ACKNOWLEDGED]
    run.sender.flow(KILL_RATE)
    run.sender.reaches(10)
    with run.inbox() as inbox:
        inbox.backup(target)
    run.sender.settle()
    worst = run.sender.latencies(since).milliseconds(0.999)
    require(worst < QUICKLY_MS, f"acknowledgements took {worst:.0f} ms meanwhile (999 of 1,000)")
    with open_inbox(f"sqlite:///{target}") as copy:
        problems = copy.check()
    require(not problems, f"the copy is not sound: {problems[:1]}")
    missing = len(known) - len(rows_of(target, known))
    require(not missing, f"the copy lacks {missing} callbacks that were acknowledged before it began")
    target.unlink()
    return f"sound, with {len(known):,} callbacks acknowledged before; {worst:.0f} ms meanwhile (999 of 1,000)"


def locked_store(run: Run, seconds: float) -> str:
    """Hold the store's write lock as another program might."""
    return _outage(run, seconds, run.store_locked)


def moved_store(run: Run, seconds: float) -> str:
    """Take the store's directory away, and bring it back."""
    return _outage(run, seconds, lambda: _moved(run.store_directory))


def store_cannot_grow(run: Run, seconds: float) -> str:
    """Forbid the listener's process to make its files longer: each write past a few MiB fails."""
    import resource

    if not hasattr(resource, "prlimit"):
        raise SkippedError("this system has no prlimit")
    return _outage(run, seconds, lambda: _no_growth(run))


def _outage(run: Run, seconds: float, trouble: Callable[[], AbstractContextManager[None]]) -> str:
    """Cause trouble under traffic: acknowledgements go on, the spool fills, and is imported when it is over."""
    since = run.sender.measured
    run.sender.flow(KILL_RATE)
    run.sender.reaches(50)
    with trouble():
        wait_until(lambda: run.spool_records() > 0, "a callback in the spool")
        time.sleep(seconds)
        run.sender.settle()
        kept = run.count_spool()
    run.sender.flow(KILL_RATE)
    run.await_import()
    run.sender.settle()
    worst = run.sender.latencies(since).milliseconds(0.999)
    refused = run.sender.statuses[503]
    require(not refused, f"{refused} callbacks were refused with 503")
    return f"{kept:,} callbacks kept by the spool and imported; {worst:.0f} ms meanwhile (999 of 1,000)"


@contextlib.contextmanager
def _moved(directory: Path) -> Iterator[None]:
    away = directory.with_name(f"{directory.name}-away")
    directory.rename(away)
    try:
        yield
    finally:
        away.rename(directory)


@contextlib.contextmanager
def _no_growth(run: Run) -> Iterator[None]:
    import resource

    assert run.listener is not None
    pid = run.listener.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (_GROWTH_BYTES, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


def full_disk(directory: Path, seconds: float) -> tuple[str, Run, Ledger]:
    """Fill the disk that a store lies on, and make room again.

    Returns:
        What was seen, the run, which is over, and its account.
    """
    mount = directory / "small-disk"
    with small_disk(mount, _SMALL_DISK) as why:
        if why is not None:
            raise SkippedError(why)
        (directory / "small").mkdir()
        with Run(directory / "small", store_directory=mount / "store") as run:
            ballast = mount / "ballast"
            try:
                said = _outage(run, seconds, lambda: _filled(ballast))
            finally:
                ballast.unlink(missing_ok=True)
            run.drain()
            ledger = run.account()
        shutil.rmtree(mount / "store")
    return said, run, ledger


@contextlib.contextmanager
def _filled(ballast: Path) -> Iterator[None]:
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * _CHUNK)
    try:
        yield
    finally:
        ballast.unlink()
