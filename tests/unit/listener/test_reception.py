"""What becomes of a callback, whatever brought it."""

import asyncio
import logging

import pytest

from upcall.listener import Gate, Reception, Sources, parse_tokens

HERE = Sources().peer("127.0.0.1").source
QUOTA = 20


@pytest.fixture
async def reception(inbox):
    """Return a reception whose quarantine holds next to nothing."""
    opened = Reception(inbox.appender, Gate(parse_tokens(["t" * 20])), quarantine_bytes=QUOTA)
    yield opened
    await opened.aclose()


async def taken(reception, body):
    """Keep a body and return the answer's status."""
    answered = asyncio.get_running_loop().create_future()
    token = reception.admit(f"/callbacks/{'t' * 20}")
    reception.take(token, body, "127.0.0.1", HERE, answered.set_result)
    return await asyncio.wait_for(answered, 10)


async def test_a_full_quarantine_is_told_of_once(reception, caplog):
    """Each refusal for the quota is counted, and one line says so until somebody made room; small ones still fit."""
    caplog.set_level(logging.ERROR, "upcall.listener")
    assert await taken(reception, b"x" * (QUOTA - 1)) == 200
    for number in range(3):
        assert await taken(reception, b"refused %d" % number) == 503
    assert await taken(reception, b"y") == 200
    assert await taken(reception, b"{}") == 200
    assert await taken(reception, b"refused again") == 503
    assert (reception.stats.quota, caplog.text.count("quarantine is full")) == (4, 1)
    reception.quarantine_holds(QUOTA)
    assert await taken(reception, b"nobody made room") == 503
    assert caplog.text.count("quarantine is full") == 1
    reception.quarantine_holds(0)
    assert await taken(reception, b"z" * QUOTA) == 200
    assert await taken(reception, b"full anew") == 503
    assert caplog.text.count("quarantine is full") == 2


async def test_the_quota_is_told(reception):
    """What the quarantine may hold is a figure, so that an alert can compare with it."""
    assert reception.state.quarantine_limit_bytes == QUOTA
