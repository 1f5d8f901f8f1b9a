"""The intake at its end."""

import asyncio

import pytest

from upcall.errors import StoreError
from upcall.inbox import Arrival, open_inbox
from upcall.listener import Intake


async def test_what_comes_while_it_closes_is_refused_and_what_waited_is_kept(tmp_path):
    """An arrival during the close is told so at once, instead of waiting for ever; the one before it is on disk."""
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as inbox:
        intake = Intake(inbox.appender())
        waited = intake.take(Arrival(body=b"{}", received_at=1))
        closing = asyncio.ensure_future(intake.close())
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="closing"):
            await intake.take(Arrival(body=b"[]", received_at=2))
        await closing

        assert (await waited).is_new
        assert [record.body for record in inbox.callbacks()] == [b"{}"]
