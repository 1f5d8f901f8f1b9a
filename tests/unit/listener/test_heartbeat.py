"""The listener's sign of life, and the tokens that it takes over from its store, over a real store."""

import asyncio
import logging

import pytest

from upcall.errors import StoreError
from upcall.inbox import TokenRecord, open_inbox
from upcall.listener import Gate, Reception
from upcall.listener import heartbeat as module
from upcall.listener.heartbeat import Heartbeat
from upcall.listener.tokens import StoreTokens

NOW = 1_800_000_000_000_000
SECOND = 1_000_000
OLD, NEW = "o" * 20, "n" * 20


class Clock:
    """Stand still until it is told to move."""

    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def looker(inbox):
    """Return an inbox of the test's own over the same store."""
    with open_inbox(inbox.url) as opened:
        yield opened


@pytest.fixture
def tokens(looker):
    looker.add_token(TokenRecord(OLD, ()), NOW)
    return StoreTokens()


@pytest.fixture
async def reception(inbox, looker, tokens):
    opened = Reception(inbox.appender, Gate(tokens.begin(looker)))
    yield opened
    await opened.aclose()


@pytest.fixture
def beating(inbox, reception, tokens, clock):
    return Heartbeat(lambda: open_inbox(inbox.url), reception, tokens=tokens, url="http://here", now=clock)


async def until(condition):
    """Wait, for ten seconds at most, until something holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in a thread
            await asyncio.sleep(0.002)


def accepted(reception):
    return [token.secret for token in reception.tokens]


async def test_one_uptime_a_listener(beating, looker, clock, reception):
    """However often it beats, a listener that goes on has one uptime, which says where it is and what it accepts."""
    for _ in range(3):
        await beating.beat()
        clock.now += 5 * SECOND
    (uptime,) = looker.uptimes()
    assert (uptime.began_at, uptime.last_at, uptime.ended) == (NOW, NOW + 10 * SECOND, False)
    assert (uptime.tokens, uptime.given, uptime.url) == ((reception.tokens[0].id,), False, "http://here")
    assert OLD not in str(uptime)


async def test_the_end_is_exact(beating, looker, clock):
    """A listener that stops in order says when, not when it last beat."""
    beating.begin()
    await until(looker.uptimes)
    clock.now += 3 * SECOND
    await beating.aclose()
    (uptime,) = looker.uptimes()
    assert (uptime.last_at, uptime.ended) == (NOW + 3 * SECOND, True)


async def test_it_beats_again_and_again(beating, looker, clock, monkeypatch):
    """Nobody has to ask for the next beat."""
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.001)
    beating.begin()
    await until(looker.uptimes)
    clock.now += 7 * SECOND
    await until(lambda: looker.uptimes()[0].last_at > NOW)
    await beating.aclose()


async def test_refusing_is_an_outage(beating, looker, clock, reception):
    """What cannot be kept anywhere is refused: that ends the uptime, and another one begins when it is over."""
    await beating.beat()
    clock.now += 5 * SECOND
    reception.stats.not_stored += 1
    await beating.beat()
    clock.now += 5 * SECOND
    await beating.beat()
    first, second = looker.uptimes()
    assert (first.last_at, second.began_at) == (NOW, NOW + 10 * SECOND)
    assert first.listener != second.listener


async def test_a_process_that_was_frozen_was_away(beating, looker, clock):
    """A machine that slept accepted nothing meanwhile, whatever the beat before and the beat after it say."""
    await beating.beat()
    clock.now += 2400 * SECOND
    await beating.beat()
    first, second = looker.uptimes()
    assert (first.last_at, second.began_at) == (NOW, NOW + 2400 * SECOND)


async def test_a_clock_that_was_set_back_begins_anew(beating, looker, clock):
    """What was told by a clock that was ahead is another uptime, which nobody believes."""
    await beating.beat()
    clock.now -= 3600 * SECOND
    await beating.beat()
    assert {(uptime.began_at, uptime.last_at) for uptime in looker.uptimes()} == {
        (NOW, NOW),
        (NOW - 3600 * SECOND, NOW - 3600 * SECOND),
    }


async def test_a_store_that_takes_long_is_no_outage(beating, looker, clock, inbox):
    """While a beat waits for the store the listener accepts; that the next one is late says nothing."""

    def slowly():
        clock.now += 60 * SECOND
        return open_inbox(inbox.url)

    beating._inbox_factory = slowly
    for _ in range(3):
        await beating.beat()
        clock.now += 5 * SECOND
    assert len(looker.uptimes()) == 1


async def test_a_store_that_fails_for_a_while_is_no_outage(beating, looker, clock, caplog):
    """The spool accepts meanwhile: the uptime goes on, and the log says once why the heartbeat waits."""
    await beating.beat()
    opened, beating._inbox_factory = beating._inbox_factory, _broken
    for _ in range(3):
        clock.now += 5 * SECOND
        await beating.beat()
    beating._inbox_factory = opened
    await beating.beat()
    (uptime,) = looker.uptimes()
    assert (uptime.began_at, uptime.last_at) == (NOW, NOW + 15 * SECOND)
    assert [record.message for record in caplog.records] == ["the heartbeat waits: no store"]


def _broken():
    raise StoreError("no store")


async def test_a_new_token_is_accepted_and_told(beating, looker, reception):
    """A token that comes next is accepted with the beat that finds it, and stands in the uptime at once."""
    await beating.beat()
    looker.add_token(TokenRecord(NEW, (), state="next"), NOW + 1)
    await beating.beat()
    assert accepted(reception) == [OLD, NEW]
    (uptime,) = looker.uptimes()
    assert uptime.tokens == tuple(token.id for token in reception.tokens)


async def test_the_listener_retires_what_is_over(beating, looker, clock, reception, caplog):
    """A retiring token is accepted until its time, and no longer; it is shown nowhere."""
    caplog.set_level(logging.INFO)
    looker.add_token(TokenRecord(NEW, ()), NOW + 1)
    looker.set_token(OLD, state="retiring", retire_at=NOW + 60 * SECOND, now=NOW)
    await beating.beat()
    assert accepted(reception) == [NEW, OLD]
    clock.now = NOW + 60 * SECOND - 1
    await beating.beat()
    assert reception.admit(f"/callbacks/{OLD}") is not None
    clock.now += 1
    await beating.beat()
    assert reception.admit(f"/callbacks/{OLD}") is None
    assert {record.token: record.state for record in looker.tokens()} == {OLD: "retired", NEW: "live"}
    assert "is retired" in caplog.text
    assert OLD not in caplog.text


async def test_given_tokens_stay(inbox, looker, reception, clock):
    """Where tokens were given, the store's are not looked at, and the uptime says so."""
    beating = Heartbeat(lambda: open_inbox(inbox.url), reception, now=clock)
    looker.add_token(TokenRecord(NEW, ()), NOW + 1)
    await beating.beat()
    assert accepted(reception) == [OLD]
    assert looker.uptimes()[0].given


async def test_a_store_without_tokens_locks_nobody_out(beating, inbox, reception, tmp_path):
    """Where the store lost its tokens, as one that was made anew, what was accepted goes on being accepted."""
    with open_inbox(str(tmp_path / "other.db"), create=True) as other:
        beating._inbox_factory = lambda: open_inbox(other.url)
        await beating.beat()
    assert accepted(reception) == [OLD]
