"""An inbox, a listener over it, and a disk that waits for the test."""

import threading

import httpx2
import pytest

from upcall.inbox import open_inbox
from upcall.inbox.spool import Spool
from upcall.listener import Gate, ListenerApp, Reception, parse_tokens


class Disk:
    """Stand for an inbox whose commits wait until the test lets them, or fail when it says so."""

    def __init__(self, inbox):
        self._inbox = inbox
        self.may_commit = threading.Event()
        self.commits = 0
        self.opened = 0
        self.groups = []
        self.stage_error = None
        self.commit_error = None
        self.open_error = None

    def appender(self):
        if self.open_error:
            raise self.open_error
        self.opened += 1
        self._appender = self._inbox.appender()
        return self

    def stage(self, arrivals, *, wait_seconds=0.0, mark=None):
        if self.stage_error:
            raise self.stage_error
        self.groups.append(len(arrivals))
        return self._appender.stage(arrivals, wait_seconds=wait_seconds, mark=mark)

    def commit(self):
        assert self.may_commit.wait(20)
        if self.commit_error:
            self._appender.rollback()
            raise self.commit_error
        self._appender.commit()
        self.commits += 1

    def rollback(self):
        self._appender.rollback()

    def marked(self, name):
        return self._appender.marked(name)

    def unmark(self, name):
        self._appender.unmark(name)

    def close(self):
        self._appender.close()


@pytest.fixture
def inbox(tmp_path):
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as opened:
        yield opened


@pytest.fixture
def disk(inbox):
    return Disk(inbox)


@pytest.fixture
async def reception(disk):
    """Return a reception with a body cap of 1,000 bytes over the disk, and no spool."""
    opened = Reception(disk.appender, Gate(parse_tokens(["t" * 20])), max_body_bytes=1000)
    yield opened
    disk.may_commit.set()
    await opened.aclose()


@pytest.fixture
def listener(reception):
    """Return the reception as an ASGI application."""
    return ListenerApp(reception)


@pytest.fixture
async def client(listener):
    transport = httpx2.ASGITransport(app=listener, client=("192.0.2.7", 1234))
    async with httpx2.AsyncClient(transport=transport, base_url="http://listener") as opened:
        yield opened


@pytest.fixture
def spool(tmp_path):
    """Return a spool beside the store; its directory is not there yet."""
    return Spool(tmp_path / "spool")
