"""The kill matrix: end the listener or the worker at a marked point, under traffic, and start it again."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Final

from upcall.cli.proof.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from upcall.cli.proof.ledger import Ledger

__all__ = ["KILL_RATE", "kill_at", "prove_point"]

KILL_RATE: Final = 1200.0
"""Callbacks a second while the listener is killed: the handlers keep up."""
_RATE_WITHOUT_WORKER: Final = 400.0
"""The same while the worker is killed, and dead half of the time."""

_MOST_PASSAGES: Final = {
    "accept": 60,
    "headers": 300,
    "body": 300,
    "before_insert": 60,
    "before_commit": 60,
    "after_commit": 60,
    "spooled": 30,
    "mid_handler": 150,
    "before_done": 150,
}
"""How far into its life a process may get. The commits are passed once a group."""

_KILLS_AN_OUTAGE: Final = 3
_IMPORT_CUT: Final = 0.5
_MOST_EXACT: Final = 10
"""The same for a worker with the transactional handler alone, as every other one is that is killed."""
_OF_WORKER: Final = frozenset({"mid_handler", "before_done"})


def kill_at(
    run: Run, point: str, kills: int, chance: random.Random, *, killed: Callable[[int], None] = lambda _: None
) -> None:
    """Kill the process that passes a point, so often; at the end both run, and nothing new is sent.

    Args:
        run: What runs.
        point: One of `upcall.failpoints.POINTS`.
        kills: How often.
        chance: Says at which passage.
        killed: Called after each kill with how many there were.

    Raises:
        UpcallError: A process did not reach the point, or ended otherwise than by SIGKILL.
    """
    of_worker = point in _OF_WORKER
    run.sender.flow(_RATE_WITHOUT_WORKER if of_worker else KILL_RATE)
    running = run.worker if of_worker else run.listener
    if running is not None:
        running.kill()
    done = 0
    while done < kills:
        turns = min(_KILLS_AN_OUTAGE, kills - done) if point == "spooled" else 1
        with run.store_locked() if point == "spooled" else contextlib.nullcontext():
            for _ in range(turns):
                exact = of_worker and done % 2 == 0
                passage = chance.randint(1, _MOST_EXACT if exact else _MOST_PASSAGES[point])
                run.start_doomed(point, passage, worker=of_worker, exact=exact).await_kill(point)
                done += 1
                killed(done)
            if point == "spooled":
                run.count_spool()
        if point == "spooled":
            _import(run, chance)
    run.kills[point] = run.kills.get(point, 0) + kills
    run.restarts += kills
    run.ensure_up()
    run.sender.settle()


def _import(run: Run, chance: random.Random) -> None:
    """Let the next listener take what the killed one left in the spool; half of the time, kill the first that tries."""
    if chance.random() < _IMPORT_CUT:
        run.start_listener().kill()
        run.restarts += 1
    listener = run.start_listener()
    run.await_import()
    listener.kill()


def prove_point(
    directory: Path, point: str, kills: int, seed: int, *, killed: Callable[[int], None] = lambda _: None
) -> tuple[Run, Ledger]:
    """Run the kill matrix's line for one point in a directory of its own, and account for it.

    Returns:
        The run, which is over, and the account.
    """
    with Run(directory) as run:
        kill_at(run, point, kills, random.Random(seed), killed=killed)  # noqa: S311 - no secret depends on it
        run.drain()
        return run, run.account()
