"""What a listener does for its store beside receiving, over a real store and a real spool."""

import asyncio
import logging
import sqlite3
import threading
from contextlib import closing

import pytest

from upcall.errors import StoreError
from upcall.inbox import SCHEMA_VERSION, Arrival, Selection, Trust, open_inbox, store_version
from upcall.inbox.spool import Spool
from upcall.listener import Gate, Reception, Sources, parse_tokens, upkeep
from upcall.listener.upkeep import LOOK_SECONDS, Upkeep, is_old
from upcall.testing import callback

TOKEN = "t" * 20
HERE = Sources().peer("127.0.0.1").source
BODY = callback(devices={"d1": "UpgradeSuccess"})


class Clock:
    """Stand still until it is told to move."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Store:
    """Hold an inbox that hands on what the upkeep does with it, fails when told to, and waits when told to."""

    def __init__(self, inbox):
        self._inbox = inbox
        self.url = inbox.url
        self.error = None
        self.tried = 0
        self.projecting = threading.Event()
        self.may_project = threading.Event()
        self.may_project.set()

    def quarantined_bytes(self):
        return self._inbox.quarantined_bytes()

    def project(self, *, limit):
        self.tried += 1
        self.projecting.set()
        assert self.may_project.wait(20)
        if self.error:
            raise self.error
        return self._inbox.project(limit=limit)


async def until(condition):
    """Wait, for ten seconds at most, until something holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in a thread
            await asyncio.sleep(0.002)


@pytest.fixture
def looker(inbox):
    """Return an inbox of the test's own over the same store."""
    with open_inbox(inbox.url) as opened:
        yield opened


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def reception(inbox, spool):
    opened = Reception(inbox.appender, Gate(parse_tokens([TOKEN])), spool=spool)
    yield opened
    await opened.aclose()


@pytest.fixture
def store(inbox):
    return Store(inbox)


@pytest.fixture
async def kept(store, reception, clock, monkeypatch):
    """Return an upkeep that has begun, and does not wait long."""
    monkeypatch.setattr(upkeep, "PROJECTION_PAUSE_SECONDS", 0.005)
    made = Upkeep(store, reception, monotonic=clock)
    made.begin()
    yield made
    store.may_project.set()
    await made.aclose()


async def test_the_read_model_follows(kept, looker):
    """What is kept shows its kind a moment later, with nobody looking."""
    looker.append([Arrival(body=BODY, received_at=1)])
    await until(lambda: looker.callbacks()[0].kind == "upgradeProgress")


async def test_a_backlog_is_taken_without_pauses(kept, store, looker, monkeypatch):
    """While there is more to project, no step waits for the next: pauses an hour long are not taken."""
    monkeypatch.setattr(upkeep, "PROJECTION_BATCH", 1)
    store.may_project.clear()
    store.projecting.clear()
    await asyncio.to_thread(store.projecting.wait, 20)
    monkeypatch.setattr(upkeep, "PROJECTION_PAUSE_SECONDS", 3600.0)
    looker.append([Arrival(body=BODY + b" " * number, received_at=1) for number in range(5)])
    store.may_project.set()
    await until(lambda: all(record.kind for record in looker.callbacks()))


async def test_the_quota_knows_what_others_put_and_dropped(kept, reception, looker, clock):
    """The quota counts what was in quarantine before the start, and what somebody drops while the listener runs."""
    await until(lambda: reception.state.store == "ok")
    looker.append([Arrival(body=b"not JSON", received_at=1, trust=Trust.QUARANTINED)])
    clock.now += LOOK_SECONDS
    await until(lambda: reception.quarantined_bytes == len(b"not JSON"))
    assert looker.drop_quarantined(Selection(), 2) == 1
    clock.now += LOOK_SECONDS
    await until(lambda: reception.quarantined_bytes == 0)


async def test_a_look_is_not_taken_at_each_step(kept, reception, looker, store):
    """Between two looks the store is not asked: counting the quarantine is not free."""
    await until(lambda: store.tried)
    looker.append([Arrival(body=b"not JSON", received_at=1, trust=Trust.QUARANTINED)])
    tried = store.tried
    await until(lambda: store.tried > tried + 3)
    assert reception.quarantined_bytes == 0


async def test_what_another_listener_left_is_imported(kept, looker, clock, tmp_path, store):
    """What a listener that died left in the spool, after this one began, comes into the store without a callback."""
    await until(lambda: store.tried)
    other = Spool(tmp_path / "spool")
    other.append([Arrival(body=BODY, received_at=1)])
    other.close()
    clock.now += LOOK_SECONDS
    await until(lambda: [record.body for record in looker.callbacks()] == [BODY])


@pytest.mark.parametrize("error", [StoreError("the disk is full."), OSError(5, "EIO"), RuntimeError("nobody knows")])
async def test_no_error_ends_it(kept, looker, store, caplog, error):
    """Whatever fails is said once, tried again, and goes on when it can."""
    with caplog.at_level(logging.WARNING, "upcall.listener"):
        store.error = error
        looker.append([Arrival(body=BODY, received_at=1)])
        tried = store.tried
        await until(lambda: store.tried > tried + 4)
        assert caplog.messages == [f"the read model waits: {error}"]
        store.error = None
        await until(lambda: looker.callbacks()[0].kind)


async def test_it_ends_with_its_step(kept, store):
    """Closing waits for the step that is under way, so that nobody closes the inbox under it, and for no pause."""
    store.may_project.clear()
    store.projecting.clear()
    await asyncio.to_thread(store.projecting.wait, 20)
    closing_ = asyncio.ensure_future(kept.aclose())
    done, _ = await asyncio.wait({closing_}, timeout=0.05)
    assert not done
    store.may_project.set()
    await asyncio.wait_for(closing_, 10)
    tried = store.tried
    await asyncio.sleep(0.02)  # what is tested is that nothing happens
    assert store.tried == tried


async def test_closing_what_never_began(store, reception):
    """Closing an upkeep that was not begun does nothing."""
    await Upkeep(store, reception).aclose()


class TestOldStore:
    """A store that an older Upcall wrote."""

    @pytest.fixture
    def old(self, tmp_path):
        """Return the inbox of such a store, with a callback in it."""
        path = tmp_path / "old.db"
        with open_inbox(str(path), create=True) as inbox:
            inbox.append([Arrival(body=b"1", received_at=1)])
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 1")
        with open_inbox(str(path), accept_old=True) as inbox:
            yield inbox

    async def test_it_is_upgraded_while_the_spool_accepts(self, old, spool, monkeypatch, caplog):
        """Callbacks are acknowledged before, while and after it is upgraded, and come into it in their order."""
        may_upgrade = threading.Event()
        upgrade = upkeep.upgrade_store
        monkeypatch.setattr(upkeep, "upgrade_store", lambda url: (may_upgrade.wait(20), upgrade(url))[1])
        ready = threading.Event()
        reception = Reception(old.appender, Gate(parse_tokens([TOKEN])), spool=spool)
        made = Upkeep(old, reception, upgrade=is_old(old.url), on_upgraded=ready.set)
        made.begin()
        statuses = []
        with caplog.at_level(logging.CRITICAL, "upcall.listener"):
            reception.take(reception.admit(f"/callbacks/{TOKEN}"), b"2", "", HERE, statuses.append)
            await until(lambda: statuses == [200])
            assert reception.state.spooling
            assert not ready.is_set()
            may_upgrade.set()
            assert await asyncio.to_thread(ready.wait, 20)
            await until(lambda: not reception.state.spooling)
            await made.aclose()
            await reception.aclose()
        assert store_version(old.url) == SCHEMA_VERSION
        with open_inbox(old.url) as inbox:
            assert [record.body for record in inbox.callbacks()] == [b"1", b"2"]

    async def test_what_fails_is_tried_again(self, old, reception, monkeypatch, caplog):
        """An upgrade, or what follows it, that fails is said once and tried again; nothing else is done before."""
        monkeypatch.setattr(upkeep, "PROJECTION_PAUSE_SECONDS", 0.001)
        tries = []

        def start():
            tries.append(store_version(old.url))
            if len(tries) < 4:
                raise StoreError("no more files.")

        store = Store(old)
        made = Upkeep(store, reception, upgrade=True, on_upgraded=start)
        with caplog.at_level(logging.WARNING, "upcall.listener"):
            made.begin()
            await until(lambda: store.tried)
            await made.aclose()
        assert tries == [SCHEMA_VERSION] * 4
        assert caplog.messages == [
            f"store {old.url} is of an older Upcall: callbacks go to the spool while it is upgraded",
            f"store {old.url} was upgraded from schema 1 to 3",
            "the upgrade waits: no more files.",
        ]

    def test_what_is_none(self, inbox, tmp_path):
        """A store of this release is not old, and one that is not there is not either."""
        assert not is_old(inbox.url)
        assert not is_old(f"sqlite:///{tmp_path / 'none.db'}")
