"""The delivery engine under each profile and each fault, with a clock that the test moves."""

import asyncio
import hashlib
import itertools
from random import Random
from types import SimpleNamespace

import pytest

from upcall.errors import DeliveryError, SettingsError, TargetRefusedError
from upcall.sandbox.clock import Agenda, ManualClock
from upcall.sandbox.delivery import DeliveryEngine, Target
from upcall.sandbox.faults import Faults, parse_faults
from upcall.sandbox.ledger import Ledger
from upcall.sandbox.messages import Callback
from upcall.sandbox.persistence import Memory
from upcall.settings import read_profile

ACCOUNT = "0000123456-00001"
MAX_IN_FLIGHT = 16
URL = "https://listener.example/callbacks/secret-token-of-the-listener"
START = 1_000.0


class FakePoster:
    """Answers as told; notes when each body was sent."""

    def __init__(self, clock, answers):
        self.clock = clock
        self.answers = itertools.chain(answers, itertools.repeat(200))
        self.sent = []
        self.late = 200

    async def post(self, url, body, headers, **_):
        self.sent.append(SimpleNamespace(at=self.clock.now() - START, url=url, body=body, headers=dict(headers)))
        answer = next(self.answers)
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            answer = self.late
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(status=answer)


class Rig:
    """An engine, its clock and what it posts to."""

    def __init__(self, *answers, profile="documented", speed=1.0, faults="", seed=1, listeners=None):
        self.clock = ManualClock(START)
        self.agenda = Agenda(self.clock)
        self.ledger = Ledger(Memory())
        self.poster = FakePoster(self.clock, answers)
        self.lines = []
        self.listeners = {ACCOUNT: URL} if listeners is None else listeners
        self.engine = DeliveryEngine(
            ledger=self.ledger,
            store=Memory(),
            agenda=self.agenda,
            profile=read_profile(profile),
            speed=speed,
            fortune_of=lambda message: parse_faults(faults).fortune(
                message.account, 0.0, Random(f"{seed}/{message.id}")
            ),
            seed=seed,
            poster=self.poster,
            target_of=lambda message: Target(url) if (url := self.listeners.get(message.account)) else None,
            log=self.lines.append,
        )

    def submit(self, name="one", account=ACCOUNT):
        return self.engine.submit(Callback(account, "upgradeProgress", "c", name.encode()))

    async def run(self, seconds=100_000.0):
        """Let everything happen that falls due within so many seconds."""
        end = self.clock.now() + seconds
        while True:
            self.agenda.run_due()
            await ticks()
            due = self.agenda.next_due()
            if due is None or due > end:
                break
            self.clock.move_to(due)
        self.clock.move_to(end)

    @property
    def times(self):
        return [sent.at for sent in self.poster.sent]


async def ticks():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_acknowledged_at_once():
    """A callback that is answered 2xx is sent once and recorded as acknowledged."""
    rig = Rig(204)
    message = rig.submit()
    await rig.run()
    assert rig.times == [0.0]
    assert (message.state, message.acknowledged, message.next_at) == ("acknowledged", True, None)
    assert message.sha256 == hashlib.sha256(b"one").hexdigest()
    assert [(attempt.number, attempt.status) for attempt in message.attempts] == [(1, 204)]


@pytest.mark.parametrize("answer", [500, 404, 302, DeliveryError("no", kind="reset")])
async def test_documented_ladder(answer):
    """Under `documented` a callback gets four tries, five minutes apart, with the same bytes and headers."""
    rig = Rig(*[answer] * 9)
    message = rig.submit()
    await rig.run()
    assert rig.times == [0.0, 300.0, 600.0, 900.0]
    assert message.state == "failed"
    assert len({(sent.body, tuple(sent.headers.items())) for sent in rig.poster.sent}) == 1


async def test_documented_stops_at_the_first_acknowledgement():
    """A retry that is acknowledged is the last."""
    rig = Rig(503, 200)
    message = rig.submit()
    await rig.run()
    assert rig.times == [0.0, 300.0]
    assert message.state == "acknowledged"


async def test_speed_divides_the_gaps():
    """At speed 600 five minutes are half a second."""
    rig = Rig(500, 500, 500, 500, speed=600.0)
    rig.submit()
    await rig.run()
    assert rig.times == pytest.approx([0.0, 0.5, 1.0, 1.5])


async def test_observed_has_one_retry():
    """Under `observed` a refusal earns one more try after 1.15 to 1.7 s, and then nothing."""
    gaps = set()
    for seed in range(10):
        rig = Rig(503, 503, 503, profile="observed", seed=seed)
        message = rig.submit()
        await rig.run()
        assert len(rig.times) == 2
        assert 1.15 <= rig.times[1] <= 1.7
        assert message.state == "failed"
        gaps.add(rig.times[1])
    assert len(gaps) > 1


async def test_observed_sends_a_copy_after_silence():
    """Under `observed` four seconds of silence earn a second copy while the first still runs, and then nothing."""
    silent = asyncio.Event()
    rig = Rig(silent, 200, profile="observed", speed=600.0)
    message = rig.submit()
    await rig.run(3.9)
    assert rig.times == [0.0]
    await rig.run(60)
    assert rig.times == pytest.approx([0.0, 4.0])
    assert rig.poster.sent[0].body == rig.poster.sent[1].body
    silent.set()
    await rig.run()
    assert len(rig.times) == 2
    assert (message.state, len(message.attempts)) == ("acknowledged", 2)


async def test_observed_late_answer_counts():
    """The first request's late answer acknowledges, though the copy was refused."""
    first = asyncio.Event()
    rig = Rig(first, 503, profile="observed")
    message = rig.submit()
    await rig.run(5)
    assert not message.acknowledged
    first.set()
    await rig.run()
    assert (message.state, len(rig.times)) == ("acknowledged", 2)


async def test_observed_copy_uses_up_the_retry():
    """A refusal that comes after the copy earns no third try."""
    first = asyncio.Event()
    rig = Rig(first, 503, profile="observed")
    rig.poster.late = DeliveryError("cut", kind="reset")
    message = rig.submit()
    await rig.run(5)
    first.set()
    await rig.run()
    assert (message.state, len(rig.times)) == ("failed", 2)


async def test_documented_knows_no_silence():
    """Under `documented` a slow answer is waited for."""
    silent = asyncio.Event()
    rig = Rig(silent)
    message = rig.submit()
    await rig.run(29)
    assert rig.times == [0.0]
    silent.set()
    await rig.run()
    assert message.state == "acknowledged"


async def test_lost_without_a_listener():
    """With nobody registered a callback is lost, and stays lost when somebody registers."""
    rig = Rig(listeners={})
    message = rig.submit()
    await rig.run()
    rig.listeners[ACCOUNT] = URL
    await rig.run()
    assert (message.state, message.attempts, rig.times) == ("lost", [], [])


async def test_listener_is_looked_up_at_each_try():
    """A retry goes to the URL that is registered by then."""
    rig = Rig(500, 200)
    rig.submit()
    await rig.run(1)
    rig.listeners[ACCOUNT] = "https://elsewhere/"
    await rig.run()
    assert [sent.url for sent in rig.poster.sent] == [URL, "https://elsewhere/"]


async def test_refused_target_is_not_tried_again():
    """A URL that may not be sent to is recorded, not retried, and told."""
    rig = Rig(*[TargetRefusedError("no", kind="target")] * 9)
    messages = [rig.submit(str(number)) for number in range(5)]
    await rig.run()
    assert {message.state for message in messages} == {"refused"}
    assert len(rig.times) == 5
    assert len(rig.lines) == 5


async def test_lines_hide_the_token():
    """The line for a try shows neither the listener's token nor the body."""
    rig = Rig(200)
    rig.submit("secret body")
    await rig.run()
    assert "secret" not in rig.lines[0].replace("secr***", "")
    assert "try 1" in rig.lines[0]


async def test_lines_hide_credentials():
    """A user name and a password in a listener's URL do not show in a line."""
    rig = Rig(200, listeners={ACCOUNT: "https://user:hidden@listener.example/callbacks/abcdefghijkl"})
    rig.submit()
    await rig.run()
    assert "hidden" not in rig.lines[0]
    assert "https://listener.example/callbacks/abc***" in rig.lines[0]


async def test_a_try_that_cannot_be_entered_is_made_later(monkeypatch):
    """When the state file cannot be written, nothing is sent that a restart would forget; it is sent later."""
    rig = Rig()
    failures = iter([OSError("disk full")])

    async def flush(until=None):
        for failure in failures:
            raise failure

    monkeypatch.setattr(rig.engine._store, "flush", flush)
    message = rig.submit()
    await rig.run(1)
    assert rig.times == []
    await rig.run()
    assert (message.state, rig.times) == ("acknowledged", [5.0])


async def test_closing_starts_nothing_more():
    """A sandbox that stops lets go of what is in the air and leaves the rest for the next start."""
    rig = Rig(*[asyncio.Event() for _ in range(MAX_IN_FLIGHT)])
    messages = [rig.submit(str(number)) for number in range(MAX_IN_FLIGHT + 5)]
    await rig.run(1)
    for task in list(rig.engine._in_the_air.values()):
        task.cancel()
    await rig.engine.close()
    assert len(rig.times) == MAX_IN_FLIGHT
    assert not rig.engine._in_the_air
    assert all(message.next_at is not None for message in messages)


async def test_one_listener_cannot_starve_another():
    """A listener that never answers holds its own places only."""
    silent = [asyncio.Event() for _ in range(MAX_IN_FLIGHT)]
    rig = Rig(*silent, listeners={"slow": URL, "quick": "https://other.example/callbacks/another-secret"})
    for number in range(MAX_IN_FLIGHT + 5):
        rig.submit(str(number), "slow")
    await rig.run(1)
    assert len(rig.times) == MAX_IN_FLIGHT
    quick = rig.submit("quick", "quick")
    await rig.run(1)
    assert quick.state == "acknowledged"
    for event in silent:
        event.set()
    await rig.run()
    assert all(message.state == "acknowledged" for message in rig.ledger)


async def test_duplicate_fault():
    """An acknowledged callback is sent once more with the same bytes."""
    rig = Rig(faults="duplicate")
    message = rig.submit()
    await rig.run()
    assert [sent.body for sent in rig.poster.sent] == [b"one", b"one"]
    assert 1.0 <= rig.times[1] <= 5.0
    assert (message.state, [attempt.duplicate for attempt in message.attempts]) == ("acknowledged", [False, True])


async def test_duplicate_refused_stays_acknowledged():
    """What becomes of the extra copy does not undo the acknowledgement."""
    rig = Rig(200, 503, faults="duplicate")
    message = rig.submit()
    await rig.run()
    assert (message.state, len(rig.times)) == ("acknowledged", 2)


async def test_delay_fault():
    """A delayed callback leaves late, and once."""
    rig = Rig(faults="delay", speed=10.0)
    rig.submit()
    await rig.run()
    assert len(rig.times) == 1
    assert 0.5 <= rig.times[0] <= 12.0


async def test_drop_fault():
    """A dropped callback is never sent and is recorded as dropped."""
    rig = Rig(faults="drop")
    message = rig.submit()
    await rig.run()
    assert (message.state, rig.times) == ("dropped", [])


async def test_reorder_fault():
    """With reordering always on, every second callback overtakes the one before."""
    rig = Rig(faults="reorder")
    for name in "abcd":
        rig.submit(name)
    await rig.run()
    assert b"".join(sent.body for sent in rig.poster.sent) == b"badc"


async def test_reorder_lets_go():
    """A callback that nothing overtakes leaves after a while all the same."""
    rig = Rig(faults="reorder", speed=2.0)
    message = rig.submit()
    await rig.run()
    assert rig.times == [30.0]
    assert message.state == "acknowledged"


async def test_faults_are_seeded():
    """The same seed drops the same callbacks, and another seed drops others."""

    async def dropped(seed):
        rig = Rig(faults="drop=0.5", seed=seed)
        for number in range(40):
            rig.submit(str(number))
        await rig.run()
        return [message.id for message in rig.ledger if message.state == "dropped"]

    assert await dropped(1) == await dropped(1) != await dropped(2)
    assert 5 < len(await dropped(1)) < 35


def test_fault_texts():
    """A list of faults is read with rates, and an unknown name or rate is refused with those that there are."""
    assert parse_faults(" duplicate=0.5, drop ") == Faults({"duplicate": 0.5, "drop": 1.0})
    assert parse_faults(None) == Faults()
    with pytest.raises(SettingsError, match="Available: delay, drop, duplicate, reorder, refuse_once"):
        parse_faults("eclipse=1")
    for text in ("drop=2", "drop=-1", "drop=x", "drop=", "drop=nan"):
        with pytest.raises(SettingsError, match="from 0 to 1"):
            parse_faults(text)


def test_unknown_profile():
    """An unknown profile is refused with those that there are."""
    with pytest.raises(SettingsError, match="documented, observed"):
        read_profile("none")


async def test_what_overtakes_at_the_last_moment_doubles_nothing():
    """A callback that is overtaken at the moment at which it would leave by itself is sent once, and leaves no step."""
    rig = Rig(faults="reorder")
    rig.submit("a")
    rig.clock.move_to(START + 60)
    rig.submit("b")
    await rig.run()
    assert b"".join(sent.body for sent in rig.poster.sent) == b"ba"
    rig.submit("c")
    rig.submit("d")
    await rig.run(0)
    assert rig.agenda.next_due() is None


async def test_who_waits_moves_with_the_listener():
    """Callbacks that wait for a place at a listener that hangs go to the one that is registered in its place."""
    hanging = [asyncio.Event() for _ in range(MAX_IN_FLIGHT)]
    rig = Rig(*hanging)
    messages = [rig.submit(str(number)) for number in range(MAX_IN_FLIGHT + 3)]
    await rig.run(1)
    rig.listeners[ACCOUNT] = "https://other.example/callbacks/another-secret"
    rig.engine.listener_changed(ACCOUNT)
    await rig.run(1)
    assert [message.state for message in messages[MAX_IN_FLIGHT:]] == ["acknowledged"] * 3
    assert [sent.url for sent in rig.poster.sent[MAX_IN_FLIGHT:]] == [rig.listeners[ACCOUNT]] * 3
    for event in hanging:
        event.set()
    await rig.run()


async def test_an_answer_in_the_moment_of_the_copy():
    """An answer that comes as the silence ends leaves no copy, no broken try, and no extra callback."""
    answered = asyncio.Event()
    rig = Rig(answered, profile="observed", faults="duplicate")
    message = rig.submit()
    await rig.run(3.9)
    rig.clock.move_to(START + 4)
    answered.set()
    rig.agenda.run_due()  # the copy is started, and the answer is there before it can leave
    await rig.run()
    assert message.state == "acknowledged"
    assert [(attempt.number, attempt.duplicate) for attempt in message.attempts][-1] == (len(message.attempts), True)
    assert [attempt.duplicate for attempt in message.attempts].count(True) == 1
    assert not [line for line in rig.lines if "could not" in line]


async def test_a_line_for_each_try():
    """A line says what was sent about, where to, which try it was, what came of it and what follows."""
    rig = Rig(503, DeliveryError("POST to https://x failed: no answer.", kind="timeout"), 200)
    message = rig.submit()
    message.about = "…3573 UpgradeFailed"
    rig.submit("other", "nobody")
    await rig.run()
    start = (
        f"callback 1 {ACCOUNT} upgradeProgress …3573 UpgradeFailed to https://listener.example/callbacks/secr*** try"
    )
    assert rig.lines == [
        "callback 2 nobody upgradeProgress lost: no listener is registered",
        f"{start} 1 of 4: 503 in 0 ms; again in 300.0 s",
        f"{start} 2 of 4: timeout: no answer in 0 ms; again in 300.0 s",
        f"{start} 3 of 4: 200 in 0 ms",
    ]


async def test_a_line_for_what_is_given_up_and_dropped():
    """The last try says that it was, and what a fault dropped is said too."""
    rig = Rig(500, 500, profile="observed")
    rig.submit()
    await rig.run()
    assert rig.lines[-1].endswith("try 2 of 2: 500 in 0 ms; given up")
    rig = Rig(faults="drop")
    rig.submit()
    assert rig.lines == [f"callback 1 {ACCOUNT} upgradeProgress dropped on purpose"]


async def test_a_step_that_breaks_ends_nothing():
    """What goes wrong with one thing on the agenda is told, and the next one happens."""
    agenda, told, done = Agenda(ManualClock(START)), [], []
    agenda.at(START, lambda: 1 / 0)
    agenda.at(START, lambda: done.append(1))
    agenda.on_error = told.append
    assert agenda.run_due() == 2
    assert (done, [type(error) for error in told]) == ([1], [ZeroDivisionError])
