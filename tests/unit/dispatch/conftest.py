"""A store with a clock of its own, and workers that keep that clock."""

from __future__ import annotations

import pytest

from upcall.dispatch import HandlerTable, Worker
from upcall.inbox import Arrival, open_inbox
from upcall.testing import callback

NOW = 1_800_000_000_000_000


class World:
    """One store, one clock; a worker of its own for each call of `worker`."""

    def __init__(self, path):
        self.path = path
        self.url = f"sqlite:///{path}"
        self.inbox = open_inbox(self.url, create=True)
        self.now = NOW
        self.table = HandlerTable()
        self._opened = []

    def open(self):
        self._opened.append(open_inbox(self.url))
        return self._opened[-1]

    def append(self, *bodies, **fields):
        return self.inbox.append([Arrival(body=body, received_at=self.now, **fields) for body in bodies])

    def report(self, devices=None, **facts):
        return self.append(callback(devices=devices, **facts))

    def worker(self, inbox=None, handlers=None, **options):
        options = {"now": lambda: self.now, "fraction": lambda: 1.0, "poll_seconds": 0.001, **options}
        return Worker(inbox or self.inbox, self.table.handlers if handlers is None else handlers, **options)

    def states(self, callback_id=1):
        return {
            (work.subscriber.rpartition(".")[2], work.device_id): work.state for work in self.inbox.work(callback_id)
        }

    def close(self):
        for inbox in [self.inbox, *self._opened]:
            inbox.close()


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "inbox.db")
    yield made
    made.close()
