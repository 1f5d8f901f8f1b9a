"""The pytest plugin that users get."""

import pytest

from upcall import Upcall
from upcall.testing import callback
from upcall.thingspace import parse_callback

ACCOUNT = "0000123456-00001"


def test_a_handler_runs_for_each_failed_device_once(upcall_listener):
    """The README's test works: one callback with two failures calls the handler twice, a copy of it no more."""
    app = Upcall()
    tickets = []
    app.on_device("UpgradeFailed")(lambda event, device: tickets.append(device.device_id))
    listener = upcall_listener(app, account=ACCOUNT)
    body = callback(devices={"1": "UpgradeFailed", "2": "UpgradeSuccess", "3": "UpgradeFailed"})

    assert [listener.receive(body), listener.receive(body)] == [200, 200]
    listener.drain()

    assert sorted(tickets) == ["1", "3"]
    ledger = listener.ledger()
    assert (ledger.stored, ledger.redelivered, ledger.handled, ledger.dead) == (1, 1, 1, 0)


def test_drain_takes_every_retry_without_waiting(upcall_listener):
    """A handler that fails for ever ends in the dead letters at once, though its retries are minutes apart."""
    app = Upcall()
    attempts = []

    @app.on(max_attempts=5, backoff_seconds=600)
    def refuse(event):
        attempts.append(event.key)
        raise RuntimeError("no")

    listener = upcall_listener(app)
    listener.receive(callback())
    listener.drain()

    assert len(attempts) == 5
    assert len(set(attempts)) == 1
    (dead,) = listener.dead()
    assert dead.attempts == 5
    assert "RuntimeError: no" in dead.error


async def test_the_listener_works_inside_an_async_test(upcall_listener):
    """A test that has a running loop can use the same synchronous listener, with async handlers."""
    app = Upcall()
    seen = []

    @app.on("upgradeProgress")
    async def note(event):
        seen.append(event.campaign_id)

    listener = upcall_listener(app)
    listener.receive(callback(campaign_id="c-1"))
    listener.drain()

    assert seen == ["c-1"]


def test_a_foreign_account_reaches_no_handler(upcall_listener):
    """A callback that names another account than the token's is kept in quarantine and no handler sees it."""
    app = Upcall()
    app.on()(lambda event: pytest.fail("a quarantined callback reached a handler"))
    listener = upcall_listener(app, account=ACCOUNT)

    assert listener.receive(callback(account="9999999999-00009")) == 200
    listener.drain()

    (record,) = listener.callbacks()
    assert (record.state, record.trust) == ("quarantined", "quarantined")


@pytest.mark.parametrize("kind", ["firmwareList", "upgradeScheduled", "upgradeProgress", "upgradeFinished"])
def test_made_callbacks_are_in_the_known_shape(kind):
    """What `callback` makes is read without drift, for each of the four types."""
    event = parse_callback(callback(kind, devices={"1": "UpgradePending"}))

    assert event.kind == kind
    assert event.drift == ()
