"""Taking a new token into use: each step, and every place where it may be interrupted."""

import contextlib

import msgspec
import pytest

from upcall.errors import SettingsError, StartError
from upcall.inbox import TokenRecord, Uptime, open_inbox
from upcall.listener import Token
from upcall.registration import targets_of
from upcall.registration.outages import STALE_SECONDS
from upcall.registration.rotation import (
    begin_rotation,
    keep_seconds,
    rotate,
    wait_until_accepted,
)
from upcall.settings import Account
from upcall.thingspace import PROFILES

NOW = 1_800_000_000_000_000
SECOND = 1_000_000
A, B = "0000000001-00001", "0000000002-00001"
OLD = "o" * 20
URL = "https://fleet.example.com/callbacks/{token}"
ACCOUNTS = [Account(name=A, url=URL), Account(name=B, url=URL)]


class Stopped(BaseException):
    """Stand for a process that is killed."""


class World:
    """Hold a store, a provider of two slots, a listener that beats, and a clock that moves when somebody waits."""

    def __init__(self, inbox):
        self.inbox = inbox
        self.now = NOW
        self.slots = dict.fromkeys((A, B), URL.format(token=OLD))
        self.listens = True
        self.beats = 0
        self.stop_before = None
        self.calls = 0

    def clock(self):
        return self.now

    def wait(self, seconds):
        """Let time pass; the listener takes what the store holds, and says so."""
        self.now += int(seconds * SECOND)
        if self.listens:
            self.beat()

    def beat(self):
        accepted = [record for record in self.inbox.tokens() if record.state != "retired"]
        ids = tuple(Token(record.token).id for record in accepted)
        self.inbox.beat(Uptime(listener="l", began_at=NOW, last_at=self.now, tokens=ids, url="http://here"))

    def targets(self, records):
        return targets_of(ACCOUNTS, records)

    def step(self):
        self.calls += 1
        if self.calls == self.stop_before:
            raise Stopped

    @contextlib.contextmanager
    def point(self, targets, rotations, listeners):
        for target in targets:
            self.step()
            self.slots[target.account] = target.url
            self.step()
        yield True

    def run(self, point=None):
        return rotate(self.inbox, self.targets, point or self.point, keep=1800.0, now=self.clock, sleep=self.wait)

    def states(self):
        return {record.token: record.state for record in self.inbox.tokens()}


@pytest.fixture
def world(tmp_path):
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as inbox:
        inbox.add_token(TokenRecord(OLD, (A, B)), NOW)
        world = World(inbox)
        world.beat()
        yield world


def test_a_whole_rotation(world):
    """The new token is everywhere, the old one good for as long as was asked, and its end is told."""
    done = world.run()
    (new,) = [token for token in world.states() if token != OLD]
    assert world.states() == {OLD: "retiring", new: "live"}
    assert world.slots == dict.fromkeys((A, B), URL.format(token=new))
    assert done.listeners == 1
    assert done.retire_at == world.now + 1800 * SECOND
    assert new not in repr(done)
    assert OLD not in repr(done)


def test_the_provider_hears_of_it_when_the_listener_accepts(world):
    """Until every living listener has the token in its heartbeat, nothing is written at the provider."""
    world.listens = False
    with pytest.raises(StartError, match="http://here has not taken the new token within"):
        wait_until_accepted(
            world.inbox,
            begin_rotation(world.inbox, world.targets(world.inbox.tokens()), NOW),
            now=lambda: NOW,
            sleep=lambda seconds: None,
            wait_seconds=0.0,
        )
    assert world.slots[A] == URL.format(token=OLD)
    world.listens = True
    assert world.run().retire_at is not None


def test_a_listener_that_is_gone_is_not_waited_for(world):
    """A heartbeat that ended, or is old, holds nobody up: whoever starts reads the store's tokens first."""
    world.inbox.beat(Uptime(listener="gone", began_at=NOW - 9, last_at=NOW - 8, ended=True))
    world.inbox.beat(Uptime(listener="killed", began_at=NOW - 9, last_at=NOW - 60 * SECOND))
    assert world.run().listeners == 1


def test_a_listener_for_others_is_not_waited_for(world):
    """One that takes none of the old tokens takes none of the new ones; what comes next for it is its own affair."""
    world.inbox.add_token(TokenRecord("token-of-another-file", ("0000123456-00077",)), NOW)
    world.inbox.add_token(TokenRecord("next-of-another-file", ("0000123456-00077",), "next"), NOW)
    other = Uptime(listener="other", began_at=NOW, last_at=NOW, tokens=(Token("token-of-another-file").id,))
    world.inbox.beat(other)
    done = world.run()
    assert done.listeners == 1
    assert len(done.rotations) == 1
    assert world.states()["next-of-another-file"] == "next"


def test_no_other_writer_comes_before_the_tokens_are_changed(world):
    """Whoever waits for the lock finds the old token retiring, and does not register it again."""
    seen = {}

    @contextlib.contextmanager
    def point(targets, rotations, listeners):
        yield True
        seen.update(world.states())

    world.run(point)
    assert seen[OLD] == "retiring"
    assert "live" in seen.values()


def test_a_late_beat_is_waited_for(world):
    """A listener whose beat is late may accept all the same: it gets as long as any to take the new token."""
    world.listens = False
    world.now += 21 * SECOND
    seen = []

    def wait(seconds):
        world.now += int(seconds * SECOND)
        if not seen and world.now > NOW + 40 * SECOND:
            seen.append(dict(world.slots))
            world.listens = True
        if world.listens:
            world.beat()

    world.wait = wait
    done = world.run()
    assert (done.listeners, len(seen)) == (1, 1)
    assert seen[0][A] == URL.format(token=OLD), "nothing was written before it had the token"


def test_without_a_listener_nothing_is_changed(world):
    """Where nobody would accept the new token the provider is not told of it, unless that is asked for."""
    world.inbox.beat(Uptime(listener="l", began_at=NOW, last_at=world.now, ended=True))
    world.listens = False
    with pytest.raises(StartError, match="No listener runs on this store"):
        world.run()
    assert world.slots == dict.fromkeys((A, B), URL.format(token=OLD))
    assert sorted(world.states().values()) == ["live", "next"]


@pytest.mark.parametrize("stop_before", range(1, 5))
def test_interrupted_at_the_provider(world, stop_before):
    """Killed before or after any write to the provider, it goes on with the same token and no other is made."""
    world.stop_before = stop_before
    with pytest.raises(Stopped):
        world.run()
    assert world.states()[OLD] == "live"
    done = world.run()
    assert done.rotations[0].resumed
    assert len(world.states()) == 2
    assert sorted(world.states().values()) == ["live", "retiring"]
    assert world.slots[A] == world.slots[B] != URL.format(token=OLD)


@pytest.mark.parametrize("stop_before", [1, 2])
def test_interrupted_at_the_end(world, stop_before, monkeypatch):
    """Killed before the old token retires, or before the new one is live, the next run ends it, and begins no other."""
    set_token, calls = world.inbox.set_token, []

    def stopping(*words, **more):
        calls.append(words)
        if len(calls) == stop_before:
            raise Stopped
        set_token(*words, **more)

    monkeypatch.setattr(world.inbox, "set_token", stopping)
    with pytest.raises(Stopped):
        world.run()
    monkeypatch.undo()
    retires = {record.token: record.retire_at for record in world.inbox.tokens()}[OLD]
    world.now += 60 * SECOND
    world.beat()
    world.run()
    assert sorted(world.states().values()) == ["live", "retiring"]
    if retires is not None:
        assert {record.token: record.retire_at for record in world.inbox.tokens()}[OLD] == retires


def test_a_provider_that_fails_ends_nothing(world):
    """While an account still has the old URL, the old token does not retire; the next run goes on."""
    done = world.run(point=lambda targets, rotations, listeners: contextlib.nullcontext(False))
    assert done.retire_at is None
    assert sorted(world.states().values()) == ["live", "next"]
    assert world.run().retire_at is not None


def test_a_second_rotation_begins_anew(world):
    """When one is done, the next one makes another token; the retiring one goes on until its time."""
    world.run()
    world.run()
    assert sorted(world.states().values()) == ["live", "retiring", "retiring"]


def test_each_account_with_its_own_token(world):
    """Tokens that belong to different accounts are each replaced by one for the same accounts."""
    world.inbox.set_token(OLD, state="retired", retire_at=None, now=NOW)
    for account in (A, B):
        world.inbox.add_token(TokenRecord(account[-8:] * 3, (account,)), NOW)
    world.beat()
    world.run()
    live = [record for record in world.inbox.tokens() if record.state == "live"]
    assert sorted(record.accounts for record in live) == [(A,), (B,)]
    assert world.slots[A] != world.slots[B]


@pytest.mark.parametrize("url", ["https://fleet.example.com/fixed", None])
def test_nothing_to_rotate(world, url):
    """Where no URL takes a token, the error says what to write, and the store is left alone."""
    accounts = [msgspec.structs.replace(account, url=url) for account in ACCOUNTS]
    with pytest.raises(SettingsError, match=r"There is no token to rotate.*\{token\}"):
        rotate(
            world.inbox,
            lambda records: targets_of(accounts, records),
            world.point,
            keep=1.0,
            now=world.clock,
            sleep=world.wait,
        )
    assert world.states() == {OLD: "live"}


def test_how_long_the_old_token_is_kept():
    """Past the 14 minutes in which the old URL was seen in use, and past the ladder that may begin at their end."""
    assert STALE_SECONDS == 14 * 60
    assert keep_seconds(PROFILES["documented"]) >= STALE_SECONDS + 15 * 60
    assert keep_seconds(PROFILES["observed"]) >= STALE_SECONDS + 2
