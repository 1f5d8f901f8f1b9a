"""What an outage is said to have lost is what the sandbox lost in it, on the virtual clock."""

import pytest

from upcall import Upcall
from upcall.inbox import Uptime, open_inbox
from upcall.registration import away_spans, find_outages, repeats
from upcall.thingspace import PROFILES

ACCOUNT = "0000123456-00001"
SECOND = 1_000_000


class Place:
    """Hold a sandbox and a listener whose uptimes are kept as it comes and goes."""

    def __init__(self, sandbox, listener):
        self.sandbox = sandbox
        self.listener = listener
        self.url = listener._inbox.url
        self._began = self.now()

    def now(self):
        return int(self.sandbox.now.timestamp() * 1e6)

    def goes_away(self, seconds):
        """Be out of reach for so long."""
        self.beat()
        with self.listener.away():
            self.sandbox.advance(seconds)
        self._began = self.now()

    def beat(self):
        with open_inbox(self.url) as inbox:
            inbox.beat(Uptime(listener=str(self._began), began_at=self._began, last_at=self.now(), ended=True))

    def found(self, profile):
        self.beat()
        with open_inbox(self.url) as inbox:
            return find_outages(away_spans(inbox.uptimes(), self.now()), {}, profile, self.now())


@pytest.fixture
def place(thingspace_sandbox, upcall_listener):
    return Place(thingspace_sandbox, upcall_listener(Upcall(), account=ACCOUNT))


@pytest.mark.parametrize(
    "windows",
    [
        [(10, 12)],
        [(10, 20)],
        [(10, 40)],
        [(5, 4), (10, 4), (15, 4), (20, 4)],
        [(10, 25), (50, 3), (60, 16)],
    ],
    ids=str,
)
def test_what_is_said_to_be_lost_is_what_is_lost(place, windows):
    """No callback is lost that was first sent outside of what is named, and none within it came through."""
    sandbox = place.sandbox
    campaign = sandbox.schedule_campaign(ACCOUNT, devices=300, hours=2.0)
    began = place.now()
    for start, minutes in windows:
        sandbox.advance((began + start * 60 * SECOND - place.now()) / 1e6)
        place.goes_away(minutes * 60)
    sandbox.run_until(campaign.ended)
    named = [part for outage in place.found(PROFILES["documented"]) for part in outage.lost]
    messages = sandbox.deliveries()
    lost = {message.id for message in messages if not message.acknowledged}
    within = {
        message.id
        for message in messages
        if any(part.start <= message.attempts[0].at * 1e6 < part.end for part in named)
    }
    assert lost == within
    assert bool(lost) == (windows != [(10, 12)])


def test_what_comes_again_is_shown(place):
    """Deliveries that the listener had acknowledged and that came again show after how long they did."""
    sandbox = place.sandbox
    sandbox.set_faults(duplicate=1.0)
    campaign = sandbox.schedule_campaign(ACCOUNT, devices=20, hours=0.5)
    sandbox.run_until(campaign.ended)
    with open_inbox(place.url) as inbox:
        found = repeats(inbox.repeat_intervals())
    assert sum(each.count for each in found) == len(sandbox.deliveries())
