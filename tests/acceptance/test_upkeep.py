"""What a real listener does for its store beside receiving."""

import contextlib
import os
import sqlite3

from upcall.inbox import Arrival, Trust, open_inbox

from .sockets import Connection, post


def test_an_older_store_is_upgraded_while_it_receives(upcall):
    """A listener on a store of an older release acknowledges, upgrades it, and then runs the handlers."""
    with open_inbox(upcall.store, create=True) as inbox:
        inbox.append([Arrival(body=b"1", received_at=1)])
    with contextlib.closing(sqlite3.connect(upcall.path)) as connection:
        connection.execute("PRAGMA user_version = 1")
    upcall.handlers(
        "@app.on()\ndef note(event):\n    with (HERE / 'notes').open('a') as f: f.write(event.raw.decode() + '\\n')\n"
    )
    listener = upcall.listen("handlers:app")
    with Connection(listener.port) as connection:
        assert connection.ask(post(b"2")) == 200
    upcall.until(lambda: upcall.read("notes") == ["1", "2"])
    assert listener.end() == 0
    assert "was upgraded from schema 1 to 3" in listener.errors.read_text()


def test_the_quota_counts_what_was_there_before(upcall):
    """A listener refuses what its store's quarantine has no room for, and nothing else, although it saw none of it."""
    with open_inbox(upcall.store, create=True) as inbox:
        inbox.append([Arrival(body=os.urandom(2**20), received_at=1, trust=Trust.QUARANTINED)])
    listener = upcall.listen("--quarantine-mb", "1")
    with Connection(listener.port) as connection:
        upcall.until(lambda: connection.ask(post(os.urandom(9))) == 503)
        assert connection.ask(post(b"{}")) == 200
