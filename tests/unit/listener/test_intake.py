"""The intake: one commit for many, the spool where the store fails, and its end."""

import asyncio
import errno
import os
from pathlib import Path

import pytest

from upcall.errors import StoreError
from upcall.inbox import Arrival
from upcall.inbox.framing import HEADER_BYTES
from upcall.inbox.spool import UNREADABLE_SECONDS, Spool
from upcall.listener import Intake

FULL = StoreError("the disk is full.")


def arrival(text):
    return Arrival(body=text.encode(), received_at=1)


def stored(inbox):
    return [record.body.decode() for record in inbox.callbacks()]


async def until(condition):
    """Wait until something holds that happens in a thread, which tells nobody."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)


async def kept(intake, text):
    """Hand an arrival in and return what became of it."""
    outcome = asyncio.get_running_loop().create_future()
    intake.take(arrival(text), outcome.set_result)
    return await asyncio.wait_for(outcome, 10)


async def test_what_comes_while_it_closes_is_refused_and_what_waited_is_kept(inbox):
    """An arrival during the close is told so at once, instead of waiting for ever; the one before it is on disk."""
    intake = Intake(inbox.appender)
    waited = asyncio.ensure_future(kept(intake, "{}"))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(intake.close())
    await asyncio.sleep(0)
    assert "closing" in str(await kept(intake, "[]"))
    await closing
    assert (await waited).is_new
    assert stored(inbox) == ["{}"]


async def test_each_waiting_one_is_told_of_a_failure(disk):
    """Without a spool, a commit that fails is told to everybody in its group, and the next group is tried afresh."""
    disk.may_commit.set()
    disk.commit_error = FULL
    intake = Intake(disk.appender)
    outcomes = await asyncio.gather(*(kept(intake, str(number)) for number in range(5)))
    assert [str(outcome) for outcome in outcomes] == ["the disk is full."] * 5
    assert not intake.can_keep
    disk.commit_error = None
    assert (await kept(intake, "after")).is_new
    assert intake.can_keep
    await intake.close()


async def test_the_spool_takes_over_and_gives_back(disk, inbox, spool):
    """Where the store fails, the spool acknowledges in its place; once it works again, all is there, in order."""
    disk.may_commit.set()
    disk.commit_error = FULL
    intake = Intake(disk.appender, spool=spool)
    first = await kept(intake, "1")
    assert (first.spooled, intake.spooling, intake.can_keep, intake.trouble) == (True, True, True, str(FULL))
    assert (await kept(intake, "2")).spooled
    disk.commit_error = None
    await until(lambda: not intake.spooling)
    assert not (await kept(intake, "3")).spooled
    assert (stored(inbox), intake.trouble) == (["1", "2", "3"], None)
    await intake.close()


async def test_what_an_earlier_process_spooled_comes_first(inbox, disk, tmp_path, spool):
    """A new process imports what its predecessor acknowledged before it puts anything new into the store."""
    spool.append([arrival("old 1"), arrival("old 2")])
    spool.close()
    disk.may_commit.set()
    intake = Intake(disk.appender, spool=type(spool)(spool.directory))
    assert (await kept(intake, "new")).spooled
    await until(lambda: not intake.spooling)
    assert stored(inbox) == ["old 1", "old 2", "new"]
    await intake.close()


async def test_neither_store_nor_spool(disk, spool, tmp_path):
    """When both fail the answer says so, names both, and the listener says that it can keep nothing."""
    disk.may_commit.set()
    disk.commit_error = FULL
    spool.directory.parent.mkdir(parents=True, exist_ok=True)
    spool.directory.write_text("in the way")
    intake = Intake(disk.appender, spool=spool)
    outcome = await kept(intake, "1")
    assert isinstance(outcome, StoreError)
    assert "disk is full" in str(outcome)
    assert "the spool" in str(outcome)
    assert not intake.can_keep
    await intake.close()


async def test_what_could_keep_nothing_finds_out_by_itself_that_it_can(disk, spool, monkeypatch):
    """Where neither took a callback, a balancer sends no more: so it is tried again without one."""
    disk.may_commit.set()
    disk.commit_error = FULL
    intake = Intake(disk.appender, spool=spool)
    with monkeypatch.context() as broken:
        broken.setattr(spool, "append", lambda arrivals: (_ for _ in ()).throw(FULL))
        assert isinstance(await kept(intake, "lost"), StoreError)
        assert not intake.can_keep
    disk.commit_error = None
    await until(lambda: intake.can_keep)
    await intake.close()


@pytest.fixture
def unreadable(monkeypatch):
    """Return the names of files that a failing disk does not give back, behind the byte that each names."""
    names = {}
    real = os.pread

    def pread(descriptor, size, offset):
        if offset >= names.get(Path(f"/proc/self/fd/{descriptor}").readlink().name, float("inf")):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    return names


def left_behind(directory, text):
    """Spool an arrival as a process would that is gone, and return its file."""
    spool = Spool(directory)
    spool.append([arrival(text)])
    spool.close()
    return max(directory.iterdir())


@pytest.mark.parametrize("first_bad", [0, HEADER_BYTES])
async def test_a_spool_file_that_cannot_be_read_holds_up_nobody(disk, inbox, unreadable, caplog, first_bad):
    """It is said once and left; those behind it and new arrivals go to the store, on the connection that it had.

    Once it can be read it is imported as well.
    """
    directory = inbox.path.parent / "spool"
    broken = left_behind(directory, "broken")
    left_behind(directory, "behind")
    unreadable[broken.name] = first_bad
    now = 0.0
    disk.may_commit.set()
    intake = Intake(disk.appender, spool=Spool(directory, clock=lambda: now))
    await until(lambda: not intake.spooling)
    assert not (await kept(intake, "new")).spooled
    assert stored(inbox) == ["behind", "new"]
    assert [path.name for path in directory.iterdir()] == [broken.name]
    assert broken.name in intake.trouble

    now += UNREADABLE_SECONDS
    intake.look_for_spool()
    assert not (await kept(intake, "newer")).spooled
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    assert disk.opened == 1

    now += UNREADABLE_SECONDS
    unreadable.clear()
    intake.look_for_spool()
    await until(lambda: intake.trouble is None)
    assert stored(inbox) == ["behind", "new", "newer", "broken"]
    assert list(directory.iterdir()) == []
    await intake.close()


async def test_what_cannot_be_read_of_its_own_segment_is_counted_and_left(disk, inbox, spool, unreadable):
    """A listener that cannot read what it spooled itself goes on with another file; the gauge still shows the first."""
    disk.may_commit.set()
    disk.commit_error = FULL
    intake = Intake(disk.appender, spool=spool)
    assert (await kept(intake, "1")).spooled
    (path,) = spool.directory.iterdir()
    unreadable[path.name] = HEADER_BYTES
    disk.commit_error = None
    await until(lambda: not intake.spooling)
    assert not (await kept(intake, "2")).spooled
    disk.commit_error = FULL
    assert (await kept(intake, "3")).spooled
    disk.commit_error = None
    await until(lambda: not intake.spooling)
    assert (stored(inbox), spool.records) == (["2", "3"], 1)
    await intake.close()
