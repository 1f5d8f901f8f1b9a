"""A token is rotated while a campaign reports: nothing is refused and nothing is lost, on the virtual clock."""

import contextlib
from functools import partial

import pytest

from upcall import Upcall
from upcall.inbox import TokenRecord, open_inbox
from upcall.listener.heartbeat import BEAT_SECONDS, Heartbeat
from upcall.listener.tokens import StoreTokens
from upcall.registration import Audit, carry_out, drive, read_desired, step_of, targets_of
from upcall.registration.rotation import keep_seconds, rotate
from upcall.settings import Account
from upcall.testing.listener import PATH
from upcall.thingspace import PROFILES

ACCOUNT = "0000123456-00001"
OLD = PATH.rpartition("/")[2]
PROFILE = PROFILES["documented"]


class Rotating:
    """Hold a sandbox, a listener that beats in the sandbox's time, and its store."""

    def __init__(self, sandbox, listener, inbox):
        self.sandbox = sandbox
        self.listener = listener
        self.inbox = inbox
        self.accounts = [Account(name=ACCOUNT, url=listener.url.replace(OLD, "{token}"))]
        self.heartbeat = Heartbeat(
            lambda: open_inbox(inbox.url),
            listener._listener._reception,
            tokens=StoreTokens((ACCOUNT,)),
            now=self.now,
        )

    def now(self):
        return int(self.sandbox.now.timestamp() * 1e6)

    def wait(self, seconds):
        """Let time pass; the listener beats as often as it does."""
        for _ in range(max(1, round(seconds / BEAT_SECONDS))):
            self.sandbox.advance(BEAT_SECONDS)
            self.listener._loop.run(self.heartbeat.beat())

    @contextlib.contextmanager
    def point(self, client, targets, rotations, listeners):
        desired = read_desired(self.accounts, self.inbox)
        audit = Audit(self.inbox, "rotate", now=self.now)
        (target,) = targets
        decide = partial(step_of, target, ours=desired.ours)
        applied = drive(carry_out(ACCOUNT, decide, lambda step: None, audit), client)
        yield applied.outcome == "done"

    def rotate(self):
        with self.sandbox.client() as client:
            return rotate(
                self.inbox,
                partial(targets_of, self.accounts),
                partial(self.point, client),
                keep=keep_seconds(PROFILE),
                now=self.now,
                sleep=self.wait,
            )

    def states(self):
        return {record.token: record.state for record in self.inbox.tokens()}


@pytest.fixture
def rotating(thingspace_sandbox, upcall_listener):
    listener = upcall_listener(Upcall(), account=ACCOUNT)
    with open_inbox(listener._inbox.url) as inbox:
        inbox.add_token(TokenRecord(OLD, (ACCOUNT,)), 1)
        yield Rotating(thingspace_sandbox, listener, inbox)


def test_under_load_nothing_is_refused_and_nothing_lost(rotating):
    """The old URL goes on being served for ten minutes, with retries behind that: each finds a live token."""
    sandbox = rotating.sandbox
    sandbox.set_faults(stale_listener=1.0, refuse_once=0.2, duplicate=0.1)
    campaign = sandbox.schedule_campaign(ACCOUNT, devices=300, hours=2)
    rotating.wait(20 * 60)
    done = rotating.rotate()
    changed_at = sandbox.now.timestamp()
    while not campaign.ended():
        rotating.wait(60)
    tries = [attempt for message in sandbox.deliveries() for attempt in message.attempts]
    (new,) = [secret for secret in rotating.states() if secret != OLD]
    by_old = [attempt for attempt in tries if attempt.at > changed_at and f"/{OLD[:4]}" in attempt.url]
    assert len(by_old) > 20, "the old URL was not used after the change, and the test shows nothing"
    assert max(attempt.at for attempt in by_old) - changed_at > 300
    assert {attempt.status for attempt in tries} == {200}
    assert rotating.listener.ledger().lost == 0
    assert rotating.states() == {OLD: "retired", new: "live"}
    assert done.retire_at < rotating.now()


def test_the_old_token_ends_by_itself(rotating):
    """Until its time the old token opens the door, and from then on nobody has to close it."""
    rotating.wait(BEAT_SECONDS)
    done = rotating.rotate()
    body = {"type": "upgradeProgress", "accountName": ACCOUNT}
    rotating.wait((done.retire_at - rotating.now()) / 1e6 - BEAT_SECONDS)
    assert rotating.listener.receive(body) == 200
    rotating.wait(2 * BEAT_SECONDS)
    assert rotating.listener.receive(body) == 404
