"""The server's own decisions; what it does with sockets stands in the integration tests."""

import asyncio
import logging

import pytest

from upcall.sandbox.serving import _tells_more_than_a_cut


@pytest.mark.parametrize(
    ("error", "told"), [(asyncio.CancelledError("timeout"), False), (RuntimeError("a mistake"), True), (None, True)]
)
def test_a_request_that_was_cut_off_has_no_traceback(error, told):
    """At the end of the drain each request that is still being read is cancelled; mistakes are told as ever."""
    info = (type(error), error, None) if error else None
    record = logging.LogRecord("uvicorn.error", logging.ERROR, __file__, 1, "Exception in ASGI application", (), info)
    assert _tells_more_than_a_cut(record) is told
