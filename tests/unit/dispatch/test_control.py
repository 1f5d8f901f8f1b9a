"""What a handler may raise to say itself what becomes of its work."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle

import pytest

import upcall
from upcall import GiveUp, RetryLater

SECOND = 1_000_000


@pytest.mark.parametrize("error", [RetryLater(3, "busy"), RetryLater(0), GiveUp("no such device"), GiveUp()])
@pytest.mark.parametrize("clone", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_they_survive_pickle_and_copy(error, clone):
    """What crosses to another process arrives with all that it carries."""
    twin = clone(error)
    assert (type(twin), twin.__dict__, str(twin)) == (type(error), error.__dict__, str(error))


@pytest.mark.parametrize("seconds", [-1, math.inf, math.nan, 400 * 86400])
def test_seconds_out_of_range(seconds):
    """A wait that makes no sense is refused where it is written."""
    with pytest.raises(ValueError, match="seconds must be from 0"):
        RetryLater(seconds)


def test_they_are_no_errors_of_ours():
    """A handler that catches Upcall's errors does not catch its own decision."""
    assert not issubclass(RetryLater, upcall.UpcallError)
    assert not issubclass(GiveUp, upcall.UpcallError)


@pytest.mark.parametrize("is_async", [False, True])
async def test_give_up(world, is_async):
    """Work that is given up is a dead letter after its first attempt, with the reason."""

    def plain(event):
        raise GiveUp("no such device")

    async def asynchronous(event):
        plain(event)

    world.table.on(max_attempts=5)(asynchronous if is_async else plain)
    world.append(b"1")
    await world.worker().drain()
    (letter,) = world.inbox.dead()
    assert letter.attempts == 1
    assert letter.error.strip().endswith("GiveUp: no such device")


@pytest.mark.parametrize(("asked", "waited"), [(0, 8), (3, 8), (100, 100)])
async def test_retry_later(world, asked, waited):
    """A wait that was asked for makes the schedule's longer, never shorter."""
    world.table.on(backoff_seconds=8)(lambda event: (_ for _ in ()).throw(RetryLater(asked, "busy")))
    world.append(b"1")
    await world.worker().drain()
    assert world.inbox.next_due([world.table.handlers[0].name]) == world.now + waited * SECOND
    assert world.inbox.work(1)[0].attempts == 1


async def test_retry_later_counts(world):
    """Asking to be tried again counts as an attempt, and ends in the dead letters at last."""

    @world.table.on(max_attempts=3, backoff_seconds=0)
    async def handler(event):
        await asyncio.sleep(0)
        raise RetryLater(0, "busy")

    world.append(b"1")
    await world.worker().drain()
    (letter,) = world.inbox.dead()
    assert letter.attempts == 3
    assert "busy" in letter.error


@pytest.mark.parametrize(
    ("held", "waited"), [(math.inf, 365 * 86_400), (1e30, 365 * 86_400), (math.nan, 8), (-5, 8), ("soon", 8), (None, 8)]
)
async def test_a_wait_that_is_none(world, held, waited):
    """Whatever a handler puts into its wait, the work is tried again: within a year, or as scheduled."""

    @world.table.on(backoff_seconds=8)
    def handler(event):
        error = RetryLater(0)
        error.seconds = held
        raise error

    world.append(b"1")
    await asyncio.wait_for(world.worker().drain(), 20)
    assert world.inbox.next_due([world.table.handlers[0].name]) == world.now + waited * SECOND
