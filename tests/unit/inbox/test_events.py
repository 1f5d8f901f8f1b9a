"""A stored callback as its handlers receive it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.inbox import Origin, stored_event
from upcall.inbox.events import projected_event
from upcall.testing import callback
from upcall.thingspace import parse_callback

DIGEST = "0123456789abcdef" * 4


@given(body=st.binary() | st.builds(callback), number=st.integers(1, 2**62), at=st.integers(0, 2**62))
def test_any_body_makes_an_event_that_knows_where_it_is_kept(body, number, at):
    """Whatever was stored reaches a handler as an event with its number, its receipt and its bytes."""
    event = stored_event(number, at, None, DIGEST, body)
    assert (event.id, event.received_at, event.raw) == (number, at, body)
    assert event.devices == parse_callback(body).devices


def test_the_key_is_the_callbacks_own():
    """The key is the callback's digest and number: nothing that the body or its reader may change is in it."""
    assert stored_event(1, 5, None, DIGEST, callback()).key == f"{DIGEST[:32]}-1"
    assert stored_event(1, 6, "0000000001-00001", DIGEST, b"what was blanked").key == f"{DIGEST[:32]}-1"
    assert stored_event(2, 5, None, DIGEST, callback()).key == f"{DIGEST[:32]}-2"


def test_the_tokens_account_stands_in():
    """Where the body names no account the token's is the event's; where it names one, that one is."""
    unnamed, named = b'{"type":"upgradeProgress"}', callback(account="0000000001-00001")
    assert stored_event(1, 5, "0000000009-00001", DIGEST, unnamed).account == "0000000009-00001"
    assert stored_event(1, 5, "0000000009-00001", DIGEST, named).account == "0000000001-00001"


@pytest.mark.parametrize("origin", list(Origin))
def test_where_it_came_from(origin):
    """An event tells its origin; what the provider did not write says nothing of the provider's schema."""
    body = b'{"type":"registration.drift","odd":1}'
    for event in (stored_event(1, 5, None, DIGEST, body, origin), projected_event(body, DIGEST, origin)):
        assert (event.origin, event.kind) == (origin, "registration.drift")
        assert bool(event.drift) is (origin == Origin.RECEIVED)
