"""Schedules to the second, on a clock that the test moves: every profile, every fault, every kind of listener.

What is expected is worked out from the numbers that profiles and faults publish. Where chance decides, it is drawn here
from the same seed by the name that the draw has, which is part of what a seed promises.
"""

import asyncio
import heapq
import json
import threading
from random import Random
from types import SimpleNamespace

import pytest

from upcall.errors import DeliveryError
from upcall.sandbox import ManualClock, Profile, Sandbox
from upcall.sandbox.faults import STOLEN_URL, Faults, Script, parse_faults
from upcall.sandbox.messages import announcement
from upcall.sandbox.planning import new_campaign

ACCOUNT = "0000123456-00001"
OTHER_ACCOUNT = "0000123456-00002"
URL = "https://listener.example:50559/callbacks/token-of-the-listener"
OLD_URL = "https://listener.example:50559/callbacks/token-of-the-one-before"
SEED = 7
NEVER_SECONDS = 1e9
LONG_SECONDS = 20_000.0

PATIENT = Profile(
    name="patient",
    gaps_seconds=((10.0, 10.0), (20.0, 40.0)),
    connect_timeout_seconds=1.0,
    answer_timeout_seconds=5.0,
)
EAGER = Profile(
    name="eager",
    gaps_seconds=((10.0, 10.0), (20.0, 40.0)),
    silence_seconds=2.5,
    connect_timeout_seconds=1.0,
    answer_timeout_seconds=9.0,
)
PROFILES = {"documented": "documented", "observed": "observed", "patient": PATIENT, "eager": EAGER}
GAPS = {"documented": [(300, 300)] * 3, "observed": [(1.15, 1.7)], "patient": [(10, 10), (20, 40)]}
GAPS["eager"] = GAPS["patient"]


# --- Ways of a listener ----------------------------------------------------------------------------------------------


async def accepts(world, request):
    return 200


async def refuses(world, request):
    return 503


async def hangs(world, request):
    await world.sandbox.agenda.sleep(NEVER_SECONDS)


async def dawdles(world, request):
    await world.sandbox.agenda.sleep(6.0)
    return 200


WAYS = {way.__name__: way for way in (accepts, refuses, hangs, dawdles)}


def refuses_within(start, end, refusal=503):
    """Refuse, or be out of reach, from one time up to another."""

    async def way(world, request):
        if not start <= request.at < end:
            return 200
        if isinstance(refusal, Exception):
            raise refusal
        return refusal

    return way


def by_host(**ways):
    """Have each host its own way, by its name's first label."""

    async def way(world, request):
        host = request.url.partition("://")[2].partition(".")[0].lower()
        return await ways[host](world, request)

    return way


async def at_once(world):
    pass


def connects_after(seconds):
    async def connects(world):
        await world.sandbox.agenda.sleep(seconds)

    return connects


class World:
    """A sandbox, its clock, and the listener that it posts to, all in this process."""

    def __init__(
        self, way=accepts, profile="documented", faults="", *, connects=at_once, clock=None, requests=None, **options
    ):
        self.clock = clock or ManualClock(0.0)
        self.way = way
        self.connects = connects
        self.requests = [] if requests is None else requests
        self.lines = []
        self.sandbox = Sandbox(
            clock=self.clock,
            poster=self,
            profile=PROFILES.get(profile, profile) if isinstance(profile, str) else profile,
            faults=parse_faults(faults) if isinstance(faults, str) else faults,
            seed=SEED,
            log=self.lines.append,
            **options,
        )

    async def __aenter__(self):
        await self.sandbox.start()
        return self

    async def __aexit__(self, *_):
        await self.sandbox.stop()

    async def post(self, url, body, headers, *, parts=None, on_connected=None):
        request = SimpleNamespace(at=self.clock.now(), url=url, body=body, headers=dict(headers), arrived=b"")
        self.requests.append(request)
        await self.connects(self)
        on_connected()
        if parts is None:
            request.arrived = body
        else:
            async for part in parts:
                request.arrived += part
        if len(request.arrived) < len(body):
            raise DeliveryError("the connection ended in the middle of the body", kind="reset")
        return SimpleNamespace(status=await self.way(self, request))

    def register(self, url=URL, account=ACCOUNT):
        self.sandbox.register(account, url)

    def submit(self, account=ACCOUNT):
        return self.sandbox.deliver(announcement(account, [{"number": len(self.sandbox.ledger) + 1}]))

    async def until(self, when):
        await self.sandbox.advance(when - self.clock.now())

    async def submit_at(self, *times, account=ACCOUNT):
        """Submit callbacks at times of the clock; return them."""
        made = []
        for at in times:
            await self.until(at)
            made.append(self.submit(account))
        return made

    async def to_the_end(self):
        """Let everything happen that is planned."""
        await self.until(self.clock.now() + LONG_SECONDS)
        assert self.sandbox.agenda.next_due() is None
        return self

    async def kill(self):
        """End the sandbox as a kill does: what is in the air is gone, and nothing more is written."""
        await self.sandbox.store.flush()
        self.sandbox._engine._closed = True  # what waits for a place does not begin now
        await self.sandbox._engine.abandon()
        self.sandbox.store._connection.close()

    def sent(self):
        """Return when each callback was sent, and its number."""
        return [(request.at, number_of(request)) for request in self.requests]


def number_of(request):
    return json.loads(request.body)["firmwareList"][0]["number"]


# --- What is expected ------------------------------------------------------------------------------------------------


def gap(profile, message_id, tries):
    """Return the wait after so many tries that failed."""
    shortest, longest = GAPS[profile][tries - 1]
    return shortest + (longest - shortest) * Random(f"{SEED}/gap/{message_id}/{tries}").random()


def fortune(faults, message_id=1):
    return parse_faults(faults).fortune(ACCOUNT, 0.0, Random(f"{SEED}/fault/{message_id}"))


def names_of(profile, faults="", message_id=1):
    """Return what the expressions of a ladder may name."""
    met = fortune(faults, message_id)
    gaps = {f"g{tries}": gap(profile, message_id, tries) for tries in range(1, len(GAPS[profile]) + 1)}
    return gaps | {"late": met.delay_seconds, "again": met.duplicate_seconds}


def ladder(text, **names):
    """Read a ladder: when each try began and ended, what came of it, ``*`` for one sent again on purpose, the state.

    ``0..6=200 6+again..12+again=200* acknowledged`` is a try from 0 to 6, and one more after it.
    """
    *tries, state = text.split()
    read = []
    for number, one in enumerate(tries, 1):
        span, _, outcome = one.partition("=")
        start, _, end = span.partition("..")
        answer = outcome.rstrip("*")
        read.append(
            SimpleNamespace(
                number=number,
                at=eval(start, names),
                ended_at=eval(end or start, names),
                status=int(answer) if answer.isdigit() else None,
                error=None if answer.isdigit() else answer,
                duplicate=outcome.endswith("*"),
            )
        )
    return read, state


def shifted(tries, seconds):
    for one in tries:
        one.at += seconds
        one.ended_at += seconds
    return tries


def check(message, tries, state, faults_of=lambda _: ()):
    """Compare a callback's tries with a ladder: what is not a time exactly, times to a nanosecond."""
    assert [
        (attempt.number, attempt.status, attempt.error, attempt.duplicate, attempt.faults)
        for attempt in message.attempts
    ] == [(one.number, one.status, one.error, one.duplicate, faults_of(one.number)) for one in tries]
    assert [attempt.at for attempt in message.attempts] == exactly(one.at for one in tries)
    assert [attempt.at + attempt.duration_seconds for attempt in message.attempts] == exactly(
        one.ended_at for one in tries
    )
    assert (message.state, message.acknowledged) == (state, state == "acknowledged")
    assert message.next_at is None


def exactly(times):
    return pytest.approx(list(times), rel=0, abs=1e-9)


def number_hit(profile, fault, tries):
    """Return the try that a fault hits: the first, or for `refuse_once` the first 2xx, while the profile has more."""
    if fault in {"cut_body", "slow_body"}:
        return 1
    answered = [one for one in tries if one.status == 200]
    if fault != "refuse_once" or not answered:
        return None
    begun = sum(one.at <= answered[0].ended_at for one in tries)
    return answered[0].number if begun <= len(GAPS[profile]) else None


# The columns: a listener that accepts, one that refuses, one that never answers, one that answers after 6 s.
LADDERS = {
    ("documented", ""): (
        "0=200 acknowledged",
        "0=503 300=503 600=503 900=503 failed",
        "0..30=timeout 330..360=timeout 660..690=timeout 990..1020=timeout failed",
        "0..6=200 acknowledged",
    ),
    ("documented", "duplicate"): (
        "0=200 again=200* acknowledged",
        "0=503 300=503 600=503 900=503 failed",
        "0..30=timeout 330..360=timeout 660..690=timeout 990..1020=timeout failed",
        "0..6=200 6+again..12+again=200* acknowledged",
    ),
    ("documented", "refuse_once"): (
        "0=200 300=200 acknowledged",
        "0=503 300=503 600=503 900=503 failed",
        "0..30=timeout 330..360=timeout 660..690=timeout 990..1020=timeout failed",
        "0..6=200 306..312=200 acknowledged",
    ),
    ("documented", "cut_body"): (
        "0=reset 300=200 acknowledged",
        "0=reset 300=503 600=503 900=503 failed",
        "0=reset 300..330=timeout 630..660=timeout 960..990=timeout failed",
        "0=reset 300..306=200 acknowledged",
    ),
    ("documented", "slow_body"): (
        "0..2=200 acknowledged",
        "0..2=503 302=503 602=503 902=503 failed",
        "0..30=timeout 330..360=timeout 660..690=timeout 990..1020=timeout failed",
        "0..8=200 acknowledged",
    ),
    ("observed", ""): (
        "0=200 acknowledged",
        "0=503 g1=503 failed",
        "0..30=timeout 4..34=timeout failed",
        "0..6=200 4..10=200 acknowledged",
    ),
    ("observed", "duplicate"): (
        "0=200 again=200* acknowledged",
        "0=503 g1=503 failed",
        "0..30=timeout 4..34=timeout failed",
        "0..6=200 4..10=200 6+again..12+again=200* acknowledged",
    ),
    ("observed", "refuse_once"): (
        "0=200 g1=200 acknowledged",
        "0=503 g1=503 failed",
        "0..30=timeout 4..34=timeout failed",
        "0..6=200 4..10=200 acknowledged",
    ),
    ("observed", "cut_body"): (
        "0=reset g1=200 acknowledged",
        "0=reset g1=503 failed",
        "0=reset g1..g1+30=timeout failed",
        "0=reset g1..g1+6=200 acknowledged",
    ),
    ("observed", "slow_body"): (
        "0..2=200 acknowledged",
        "0..2=503 2+g1=503 failed",
        "0..30=timeout 4..34=timeout failed",
        "0..8=200 4..10=200 acknowledged",
    ),
    ("patient", ""): (
        "0=200 acknowledged",
        "0=503 10=503 10+g2=503 failed",
        "0..5=timeout 15..20=timeout 20+g2..25+g2=timeout failed",
        "0..5=timeout 15..20=timeout 20+g2..25+g2=timeout failed",
    ),
    ("patient", "duplicate"): (
        "0=200 again=200* acknowledged",
        "0=503 10=503 10+g2=503 failed",
        "0..5=timeout 15..20=timeout 20+g2..25+g2=timeout failed",
        "0..5=timeout 15..20=timeout 20+g2..25+g2=timeout failed",
    ),
    ("patient", "refuse_once"): (
        "0=200 10=200 acknowledged",
        "0=503 10=503 10+g2=503 failed",
        "0..5=timeout 15..20=timeout 20+g2..25+g2=timeout failed",
        "0..5=timeout 15..20=timeout 20+g2..25+g2=timeout failed",
    ),
    ("patient", "cut_body"): (
        "0=reset 10=200 acknowledged",
        "0=reset 10=503 10+g2=503 failed",
        "0=reset 10..15=timeout 15+g2..20+g2=timeout failed",
        "0=reset 10..15=timeout 15+g2..20+g2=timeout failed",
    ),
    ("patient", "slow_body"): (
        "0..2=200 acknowledged",
        "0..2=503 12=503 12+g2=503 failed",
        "0..5=timeout 15..20=timeout 20+g2..25+g2=timeout failed",
        "0..5=timeout 15..20=timeout 20+g2..25+g2=timeout failed",
    ),
    ("eager", ""): (
        "0=200 acknowledged",
        "0=503 10=503 10+g2=503 failed",
        "0..9=timeout 2.5..11.5=timeout 5..14=timeout failed",
        "0..6=200 2.5..8.5=200 5..11=200 acknowledged",
    ),
    ("eager", "duplicate"): (
        "0=200 again=200* acknowledged",
        "0=503 10=503 10+g2=503 failed",
        "0..9=timeout 2.5..11.5=timeout 5..14=timeout failed",
        "0..6=200 2.5..8.5=200 5..11=200 6+again..12+again=200* acknowledged",
    ),
    ("eager", "refuse_once"): (
        "0=200 10=200 acknowledged",
        "0=503 10=503 10+g2=503 failed",
        "0..9=timeout 2.5..11.5=timeout 5..14=timeout failed",
        "0..6=200 2.5..8.5=200 5..11=200 acknowledged",
    ),
    ("eager", "cut_body"): (
        "0=reset 10=200 acknowledged",
        "0=reset 10=503 10+g2=503 failed",
        "0=reset 10..19=timeout 12.5..21.5=timeout failed",
        "0=reset 10..16=200 12.5..18.5=200 acknowledged",
    ),
    ("eager", "slow_body"): (
        "0..2=200 acknowledged",
        "0..2=503 12=503 12+g2=503 failed",
        "0..9=timeout 2.5..11.5=timeout 5..14=timeout failed",
        "0..8=200 2.5..8.5=200 5..11=200 acknowledged",
    ),
}
CELLS = [
    pytest.param(profile, fault, way, text, id=f"{profile}-{fault or 'nothing'}-{way}")
    for (profile, fault), row in LADDERS.items()
    for way, text in zip(WAYS, row, strict=True)
]
FAULTLESS = [
    pytest.param(profile, way, text, id=f"{profile}-{way}")
    for (profile, fault), row in LADDERS.items()
    for way, text in zip(WAYS, row, strict=True)
    if not fault
]
every_profile = pytest.mark.parametrize("profile", PROFILES)


# --- One callback ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("profile", "fault", "way", "text"), CELLS)
async def test_ladders(profile, fault, way, text):
    """A callback's tries begin and end when the profile and the fault say, with what came of each, and no others."""
    tries, state = ladder(text, **names_of(profile, fault))

    hit = number_hit(profile, fault, tries)

    def faults_of(number):
        return (fault,) if number == hit else ()

    async with World(WAYS[way], profile, fault) as world:
        world.register()
        message = world.submit()
        await world.to_the_end()
        check(message, tries, state, faults_of)
        assert [request.at for request in world.requests] == exactly(sorted(one.at for one in tries))


@pytest.mark.parametrize(("profile", "way", "text"), FAULTLESS)
async def test_delay(profile, way, text):
    """A delayed callback has the ladder of any other, as late as its fortune says, which is 5 to 120 s."""
    tries, state = ladder(text, **names_of(profile))
    late = fortune("delay").delay_seconds
    async with World(WAYS[way], profile, "delay") as world:
        world.register()
        message = world.submit()
        await world.to_the_end()
        check(message, shifted(tries, late), state)
    assert 5.0 <= late <= 120.0


@pytest.mark.parametrize(("profile", "way", "text"), FAULTLESS)
async def test_reorder_alone(profile, way, text):
    """A callback that nothing overtakes has the ladder of any other, a minute late."""
    tries, state = ladder(text, **names_of(profile))
    async with World(WAYS[way], profile, "reorder") as world:
        world.register()
        message = world.submit()
        await world.to_the_end()
        check(message, shifted(tries, 60.0), state)


@pytest.mark.parametrize(("profile", "way", "text"), FAULTLESS)
async def test_forged_forward(profile, way, text):
    """A forged source changes no time, and every try carries it beside the headers that all tries have."""
    tries, state = ladder(text, **names_of(profile))
    headers = {"Content-Type": "application/json", "User-Agent": "Verizon's callback service"}
    for fault, added in (("", {}), ("forged_forward", {"X-Forwarded-For": "3.87.163.45"})):
        async with World(WAYS[way], profile, fault) as world:
            world.register()
            message = world.submit()
            await world.to_the_end()
            check(message, tries, state, lambda _, fault=fault: (fault,) if fault else ())
            assert [request.headers for request in world.requests] == [headers | added] * len(tries)


@every_profile
@pytest.mark.parametrize("way", WAYS)
async def test_drop(profile, way):
    """A dropped callback is never sent, whatever the listener would have done."""
    async with World(WAYS[way], profile, "drop") as world:
        world.register()
        message = world.submit()
        await world.to_the_end()
        check(message, [], "dropped")
        assert world.requests == []


@every_profile
@pytest.mark.parametrize("fault", ["", "duplicate", "refuse_once", "cut_body", "slow_body", "delay", "forged_forward"])
async def test_every_try_carries_the_same_bytes(profile, fault):
    """All tries carry the bytes that were made once, and only a cut one carries the first half of them."""
    async with World(refuses, profile, fault) as world:
        world.register()
        message = world.submit()
        body = world.sandbox.ledger.body(message)
        await world.to_the_end()
    first = body[: len(body) // 2] if fault == "cut_body" else body
    count = len(GAPS[profile]) + 1
    assert [request.arrived for request in world.requests] == [first] + [body] * (count - 1)


@every_profile
async def test_no_listener(profile):
    """With nobody registered a callback is lost at once."""
    async with World(accepts, profile) as world:
        message = world.submit()
        await world.until(0.0)
        check(message, [], "lost")
        assert world.requests == []


@pytest.mark.parametrize("move", ["steps", "to_next", "one"])
@every_profile
async def test_how_the_clock_is_moved(profile, move):
    """However the clock is moved, everything happens at the same times."""
    faults = "delay=0.4,duplicate=0.4,refuse_once=0.3,cut_body=0.3,slow_body=0.3,reorder=0.3"

    async def sent(move):
        async with World(dawdles, profile, faults) as world:
            world.register()
            for _ in range(20):
                world.submit()
            if move == "to_next":
                while await world.sandbox.advance_to_next():
                    pass
            for _ in range(3000 if move == "steps" else 0):
                await world.sandbox.advance(1.75)
            await world.to_the_end()
            return world.sent()

    times = await sent("one")
    assert len(times) >= 20
    assert await sent(move) == times


# --- Callbacks that overtake -----------------------------------------------------------------------------------------


@every_profile
async def test_reorder_two(profile):
    """The account's next callback overtakes the one that waits, which leaves right behind it."""
    async with World(accepts, profile, "reorder") as world:
        world.register()
        messages = await world.submit_at(0.0, 10.0, 25.0, 31.5)
        await world.to_the_end()
        assert world.sent() == [(10.0, 2), (10.0, 1), (31.5, 4), (31.5, 3)]
        assert [message.state for message in messages] == ["acknowledged"] * 4


async def test_reorder_with_a_state_file(tmp_path):
    """One overtakes another also where the state file has known of that one for long."""
    async with World(accepts, "documented", "reorder", state=tmp_path / "state") as world:
        world.register()
        await world.submit_at(0.0)
        await world.sandbox.store.flush()
        await world.submit_at(10.0)
        await world.to_the_end()
        assert world.sent() == [(10.0, 2), (10.0, 1)]


async def test_reorder_and_the_ladder():
    """Both keep their ladders, from when they left."""
    async with World(refuses, "documented", "reorder") as world:
        world.register()
        await world.submit_at(0.0, 10.0)
        await world.to_the_end()
        assert world.sent() == [(at, number) for at in (10.0, 310.0, 610.0, 910.0) for number in (2, 1)]


async def test_reorder_is_an_accounts_own():
    """A callback of another account overtakes nobody."""
    async with World(accepts, "documented", "reorder") as world:
        world.register()
        world.register(account=OTHER_ACCOUNT)
        await world.submit_at(0.0)
        await world.submit_at(10.0, account=OTHER_ACCOUNT)
        await world.submit_at(20.0)
        await world.to_the_end()
        assert world.sent() == [(20.0, 3), (20.0, 1), (70.0, 2)]


async def test_reorder_and_delay():
    """One that waits to be overtaken leaves behind the delayed one, however late that is."""
    faults = Faults({"reorder": 1.0}, script=(Script(after_seconds=5.0, faults={"delay": 1.0}),))
    late = faults.fortune(ACCOUNT, 10.0, Random(f"{SEED}/fault/2")).delay_seconds
    async with World(accepts, "documented", faults) as world:
        world.register()
        await world.submit_at(0.0, 10.0)
        await world.to_the_end()
        assert world.sent() == [(10.0 + late, 2), (10.0 + late, 1)]


async def test_what_is_dropped_overtakes_nobody():
    """A callback that waits to be overtaken waits on where the next one is dropped."""
    faults = Faults({"reorder": 1.0}, script=(Script(after_seconds=5.0, for_seconds=10.0, faults={"drop": 1.0}),))
    async with World(accepts, "documented", faults) as world:
        world.register()
        messages = await world.submit_at(0.0, 10.0, 20.0)
        await world.to_the_end()
        assert world.sent() == [(20.0, 3), (20.0, 1)]
        assert messages[1].state == "dropped"


# --- Mixed answers ---------------------------------------------------------------------------------------------------


def in_turn(*ways):
    async def way(world, request):
        return await ways[len(world.requests) - 1](world, request)

    return way


@pytest.mark.parametrize(
    ("profile", "ways", "text"),
    [
        ("documented", (refuses, hangs, accepts), "0=503 300..330=timeout 630=200 acknowledged"),
        ("documented", (refuses, refuses, refuses, dawdles), "0=503 300=503 600=503 900..906=200 acknowledged"),
        ("observed", (refuses, hangs), "0=503 g1..g1+30=timeout failed"),
        ("observed", (refuses, dawdles), "0=503 g1..g1+6=200 acknowledged"),
        ("patient", (hangs, refuses, accepts), "0..5=timeout 15=503 15+g2=200 acknowledged"),
        ("eager", (refuses, hangs, refuses), "0=503 10..19=timeout 12.5=503 failed"),
    ],
)
async def test_listeners_that_change_their_mind(profile, ways, text):
    """Each try counts by itself: what follows is the profile's answer to what came last."""
    tries, state = ladder(text, **names_of(profile))
    async with World(in_turn(*ways), profile) as world:
        world.register()
        message = world.submit()
        await world.to_the_end()
        message.attempts.sort(key=lambda attempt: attempt.number)
        check(message, tries, state)


@pytest.mark.parametrize(
    ("profile", "ways", "answers"),
    [
        ("observed", (hangs, refuses), [(2, 4.0, 4.0), (1, 0.0, 30.0)]),
        ("observed", (dawdles, refuses), [(2, 4.0, 4.0), (1, 0.0, 6.0)]),
        ("observed", (hangs, accepts), [(2, 4.0, 4.0), (1, 0.0, 30.0)]),
        ("eager", (hangs, refuses, refuses), [(2, 2.5, 2.5), (1, 0.0, 9.0), (3, 9.0, 9.0)]),
    ],
)
async def test_a_refused_copy_waits_for_the_first(profile, ways, answers):
    """While a try is unanswered nothing but silence earns another; tries are entered in the order of their ends."""
    async with World(in_turn(*ways), profile) as world:
        world.register()
        message = world.submit()
        await world.to_the_end()
        if len(answers) == 3:
            third = 9.0 + gap("eager", 1, 2)
            answers = [*answers[:2], (3, third, third)]
        assert [
            (one.number, one.at, pytest.approx(one.at + one.duration_seconds, rel=0, abs=1e-9))
            for one in message.attempts
        ] == answers
        assert message.state == ("failed" if 200 not in {one.status for one in message.attempts} else "acknowledged")


async def test_refuse_once_is_about_the_first_2xx():
    """The first 2xx is taken for a refusal, also where refusals came before it."""
    async with World(in_turn(refuses, accepts, accepts), "documented", "refuse_once") as world:
        world.register()
        message = world.submit()
        await world.to_the_end()
        assert [(request.at, one.status) for request, one in zip(world.requests, message.attempts, strict=True)] == [
            (0.0, 503),
            (300.0, 200),
            (600.0, 200),
        ]
        assert message.state == "acknowledged"


async def test_refuse_once_needs_a_second_try():
    """Under a profile with a single try the first 2xx counts: a fault refuses once, and not for good."""
    async with World(accepts, Profile(name="once", gaps_seconds=()), "refuse_once") as world:
        world.register()
        message = world.submit()
        await world.to_the_end()
        assert ([request.at for request in world.requests], message.state) == ([0.0], "acknowledged")


async def test_a_copy_without_a_listener():
    """Where the listener goes while a try is unanswered, the copy has nowhere to go, and the late answer counts."""
    async with World(dawdles, "observed") as world:
        world.register()
        message = world.submit()
        await world.until(1.0)
        world.sandbox.access.deregister(ACCOUNT, now=1.0)
        await world.to_the_end()
        assert not [line for line in world.lines if "broke off" in line]
        check(message, *ladder("0..6=200 acknowledged"))


# --- Deadlines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "connects", "way", "text", "why"),
    [
        (
            "documented",
            connects_after(NEVER_SECONDS),
            accepts,
            "0..10=timeout 310..320=timeout 620..630=timeout 930..940=timeout failed",
            "no connection was made",
        ),
        ("observed", connects_after(NEVER_SECONDS), accepts, "0..10=timeout 4..14=timeout failed", "no connection"),
        (
            "patient",
            connects_after(NEVER_SECONDS),
            accepts,
            "0..1=timeout 11..12=timeout 12+g2..13+g2=timeout failed",
            "no connection was made",
        ),
        (
            "eager",
            connects_after(NEVER_SECONDS),
            accepts,
            "0..1=timeout 11..12=timeout 12+g2..13+g2=timeout failed",
            "no connection was made",
        ),
        (
            "documented",
            connects_after(9.5),
            hangs,
            "0..30=timeout 330..360=timeout 660..690=timeout 990..1020=timeout failed",
            "no whole answer came",
        ),
        ("observed", connects_after(9.5), hangs, "0..30=timeout 4..34=timeout failed", "no whole answer came"),
        (
            "patient",
            connects_after(0.5),
            hangs,
            "0..5=timeout 15..20=timeout 20+g2..25+g2=timeout failed",
            "no whole answer came",
        ),
        ("documented", connects_after(9.5), accepts, "0..9.5=200 acknowledged", None),
        ("documented", connects_after(9.5), dawdles, "0..15.5=200 acknowledged", None),
        ("observed", connects_after(3.5), accepts, "0..3.5=200 acknowledged", None),
        ("observed", connects_after(4.5), accepts, "0..4.5=200 4..8.5=200 acknowledged", None),
    ],
)
@pytest.mark.parametrize("speed", [1.0, 600.0])
async def test_deadlines(*, profile, connects, way, text, why, speed):
    """Connecting and answering have their deadlines as steps of the clock, from the start of the try, at any speed."""
    tries, state = ladder(text, **names_of(profile))
    async with World(way, profile, connects=connects, speed=speed) as world:
        world.register()
        message = world.submit()
        await world.to_the_end()
        if speed == 1.0:
            check(message, tries, state)
        durations = [one.ended_at - one.at for one in tries]
        assert [attempt.duration_seconds for attempt in message.attempts] == exactly(durations)
        assert all(why in attempt.why for attempt in message.attempts if why)


async def test_an_answer_at_the_deadline_is_too_late():
    """An answer that comes in the moment of its deadline does not count, one just before it does."""
    for seconds, expected in ((30.0, "timeout"), (29.999, None)):

        async def answers(world, request, seconds=seconds):
            await world.sandbox.agenda.sleep(seconds)
            return 200

        async with World(answers, Profile(name="once", gaps_seconds=())) as world:
            world.register()
            message = world.submit()
            await world.to_the_end()
            assert [attempt.error for attempt in message.attempts] == [expected]


@pytest.mark.parametrize("fault", ["", "slow_body"])
async def test_deadlines_over_the_network(fault):
    """A listener behind a real socket that never answers is given up at the deadline, and tried again after the gap."""

    async def never(reader, writer):
        while await reader.read(65536):
            pass
        writer.close()

    profile = Profile(
        name="short", gaps_seconds=((10.0, 10.0),), connect_timeout_seconds=1.0, answer_timeout_seconds=1.1
    )
    server = await asyncio.start_server(never, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with Sandbox(
            clock=ManualClock(0.0), profile=profile, faults=parse_faults(fault), seed=SEED, allow_http=True
        ) as sandbox:
            sandbox.register(ACCOUNT, f"http://127.0.0.1:{port}/callbacks/token")
            message = sandbox.deliver(announcement(ACCOUNT, []))
            await sandbox.advance(100.0)
            assert [(one.at, one.error) for one in message.attempts] == [(0.0, "timeout"), (11.1, "timeout")]
            assert [one.duration_seconds for one in message.attempts] == exactly([1.1, 1.1])
            assert message.state == "failed"
    finally:
        server.close()


# --- Speed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "fault", "way", "text"),
    [
        ("documented", "", refuses, "0=503 5=503 10=503 15=503 failed"),
        ("documented", "", hangs, "0..30=timeout 35..65=timeout 70..100=timeout 105..135=timeout failed"),
        ("documented", "", dawdles, "0..6=200 acknowledged"),
        ("documented", "delay", accepts, "late/60=200 acknowledged"),
        ("documented", "delay", refuses, "late/60=503 late/60+5=503 late/60+10=503 late/60+15=503 failed"),
        ("documented", "reorder", accepts, "1=200 acknowledged"),
        ("documented", "duplicate", accepts, "0=200 again/60=200* acknowledged"),
        ("documented", "duplicate", dawdles, "0..6=200 6+again/60..12+again/60=200* acknowledged"),
        ("documented", "refuse_once", accepts, "0=200 5=200 acknowledged"),
        ("documented", "cut_body", accepts, "0=reset 5=200 acknowledged"),
        ("documented", "slow_body", accepts, "0..2=200 acknowledged"),
        ("observed", "", refuses, "0=503 g1/60=503 failed"),
        ("observed", "", hangs, "0..30=timeout 4..34=timeout failed"),
        ("observed", "", dawdles, "0..6=200 4..10=200 acknowledged"),
        ("observed", "slow_body", dawdles, "0..8=200 4..10=200 acknowledged"),
        ("eager", "", hangs, "0..9=timeout 2.5..11.5=timeout 5..14=timeout failed"),
        ("patient", "", hangs, "0..5=timeout 5+10/60..10+10/60=timeout 10+(10+g2)/60..15+(10+g2)/60=timeout failed"),
    ],
)
async def test_speed(profile, fault, way, text):
    """Speed divides gaps and the waits that faults make; silence, deadlines and a slow body keep their seconds."""
    tries, state = ladder(text, **names_of(profile, fault))

    hit = number_hit(profile, fault, tries)

    def faults_of(number):
        return (fault,) if number == hit else ()

    async with World(way, profile, fault, speed=60.0) as world:
        world.register()
        message = world.submit()
        await world.to_the_end()
        check(message, tries, state, faults_of)


async def test_slow_motion():
    """A speed under one makes gaps longer."""
    async with World(refuses, "documented", speed=0.5) as world:
        world.register()
        world.submit()
        await world.to_the_end()
        assert [request.at for request in world.requests] == [0.0, 600.0, 1200.0, 1800.0]


# --- Listeners that change -------------------------------------------------------------------------------------------


def is_stale(message_id, attempts):
    """Tell whether a try in the ten minutes after a change goes to the old URL."""
    return Random(f"{SEED}/stale/{message_id}/{attempts}").random() < 0.5


@pytest.mark.parametrize("speed", [1.0, 60.0])
@every_profile
async def test_stale_listener(profile, speed):
    """For ten virtual minutes after a change every second callback or so goes to the old URL, then none."""
    changed_at, seconds = 1000.0, 600.0 / speed
    times = [changed_at + seconds * number / 20 for number in range(-5, 30)]
    async with World(accepts, profile, "stale_listener", speed=speed) as world:
        world.register(OLD_URL)
        messages = await world.submit_at(*times[:5])
        await world.until(changed_at)
        world.register()
        messages += await world.submit_at(*times[5:])
        await world.to_the_end()
    stale = {
        message.id
        for at, message in zip(times, messages, strict=True)
        if changed_at <= at < changed_at + seconds and is_stale(message.id, 0)
    }
    assert 3 <= len(stale) <= 17
    old = stale | {message.id for message in messages[:5]}
    assert world.sent() == [(at, message.id) for at, message in zip(times, messages, strict=True)]
    assert {number_of(request) for request in world.requests if request.url == OLD_URL} == old
    assert {message.id for message in messages if message.attempts[0].faults == ("stale_listener",)} == stale
    assert {message.state for message in messages} == {"acknowledged"}


async def test_stale_listener_and_the_ladder():
    """Each try of the ladder is drawn for itself, by how many tries ended before it."""
    async with World(refuses, "documented", "stale_listener") as world:
        world.register(OLD_URL)
        messages = [world.submit() for _ in range(12)]
        await world.until(100.0)
        world.register()
        await world.to_the_end()
    for message in messages:
        stale = [False, is_stale(message.id, 1), is_stale(message.id, 2), False]
        assert [one.at for one in message.attempts] == [0.0, 300.0, 600.0, 900.0]
        assert [one.faults for one in message.attempts] == [("stale_listener",) if hit else () for hit in stale]
        urls = [request.url for request in world.requests if number_of(request) == message.id]
        assert urls == [OLD_URL, *(OLD_URL if hit else URL for hit in stale[1:3]), URL]


async def test_stale_listener_and_silence():
    """The copy that silence earns goes where its first try went: none has ended between them."""
    async with World(hangs, "observed", "stale_listener") as world:
        world.register(OLD_URL)
        world.register()
        messages = [world.submit() for _ in range(12)]
        await world.to_the_end()
    for message in messages:
        url = OLD_URL if is_stale(message.id, 0) else URL
        assert [(request.at, request.url) for request in world.requests if number_of(request) == message.id] == [
            (0.0, url),
            (4.0, url),
        ]


async def test_stale_listener_after_a_removal():
    """A removed listener still gets every second callback or so; the others are lost."""
    async with World(accepts, "documented", "stale_listener") as world:
        world.register()
        world.sandbox.access.deregister(ACCOUNT, now=0.0)
        messages = await world.submit_at(*(50.0 * number for number in range(15)))
        await world.to_the_end()
    stale = [message.id for message in messages if message.created_at < 600.0 and is_stale(message.id, 0)]
    assert [number_of(request) for request in world.requests] == stale
    assert [message.id for message in messages if message.state == "lost"] == [
        message.id for message in messages if message.id not in stale
    ]


def theft_seconds(registration=1):
    """Return how long after its registration a listener is displaced, by the number of the registration."""
    return parse_faults("stolen").stolen_seconds(ACCOUNT, 0.0, Random(f"{SEED}/stolen/{ACCOUNT}/{registration}"))


@pytest.mark.parametrize("speed", [1.0, 60.0])
@every_profile
async def test_stolen(profile, speed):
    """From 1 to 10 virtual minutes after its registration on, another system takes what is for the listener."""
    stolen_at = theft_seconds() / speed
    assert 60.0 <= theft_seconds() <= 600.0
    times = [stolen_at * number / 10 for number in range(20)]
    async with World(accepts, profile, "stolen", speed=speed) as world:
        world.register()
        messages = await world.submit_at(*times)
        await world.to_the_end()
    assert world.sent() == [(at, number) for number, at in enumerate(times[:10], 1)]
    assert [message.state for message in messages] == ["acknowledged"] * 10 + ["stolen"] * 10
    attempts = [(one.at, one.duration_seconds, one.status, one.faults) for m in messages[10:] for one in m.attempts]
    assert attempts == [(at, 0.0, 200, ("stolen",)) for at in times[10:]]


@pytest.mark.parametrize("profile", ["documented", "observed", "patient"])
async def test_stolen_between_tries(profile):
    """A callback that the listener refused goes to the other system where the slot is taken before its next try."""
    stolen_at, wait = theft_seconds(), gap(profile, 1, 1)
    async with World(refuses, profile, "stolen") as world:
        world.register()
        (message,) = await world.submit_at(stolen_at - wait / 2)
        await world.to_the_end()
    assert [(one.at, one.status, one.faults) for one in message.attempts] == [
        (stolen_at - wait / 2, 503, ()),
        (stolen_at - wait / 2 + wait, 200, ("stolen",)),
    ]
    assert (message.state, len(world.requests)) == ("stolen", 1)


async def test_a_registration_anew_is_stolen_anew():
    """Who registers again has the slot until the new registration's own time is over."""
    first, second = theft_seconds(1), 30.0 + theft_seconds(2)
    assert first != second
    async with World(accepts, "documented", "stolen") as world:
        world.register()
        await world.until(30.0)
        world.register()
        await world.until(second - 0.001)
        assert world.sandbox.access.listener(ACCOUNT) == URL
        await world.until(second)
        assert world.sandbox.access.listener(ACCOUNT) == STOLEN_URL
        await world.to_the_end()
        assert len([line for line in world.lines if "stolen" in line]) == 1


async def test_stolen_and_stale():
    """After a theft, a listener that the sandbox still takes for registered gets its share for ten minutes."""
    stolen_at = theft_seconds()
    times = [stolen_at + 40.0 * number for number in range(25)]
    async with World(accepts, "documented", "stolen,stale_listener") as world:
        world.register()
        messages = await world.submit_at(*times)
        await world.to_the_end()
    for at, message in zip(times, messages, strict=True):
        is_ours = at - stolen_at < 600.0 and is_stale(message.id, 0)
        assert (message.state, message.attempts[0].faults) == (
            ("acknowledged", ("stale_listener",)) if is_ours else ("stolen", ("stolen",))
        )


async def test_a_stolen_copy_does_not_undo_the_acknowledgement():
    """A callback that its listener acknowledged stays so, though another system took the copy that a fault sent."""
    stolen_at = theft_seconds()
    async with World(accepts, "documented", "stolen,duplicate") as world:
        world.register()
        (message,) = await world.submit_at(stolen_at - 0.5)
        await world.to_the_end()
        assert [one.faults for one in message.attempts] == [(), ("stolen",)]
        assert message.state == "acknowledged"


# --- Outages ---------------------------------------------------------------------------------------------------------

OUT_OF_REACH = DeliveryError("POST failed: Connection refused.", kind="connect")


async def through_an_outage(profile, *, every, last, start, end, refusal):
    """Submit callbacks before, in and after an outage; return what is expected of each, and what came of it."""
    async with World(refuses_within(start, end, refusal), profile) as world:
        world.register()
        messages = await world.submit_at(*(every * number for number in range(int(last / every))))
        await world.to_the_end()
    expected = {}
    for message in messages:
        tries = [message.created_at]
        for number in range(1, len(GAPS[profile]) + 1):
            tries.append(tries[-1] + gap(profile, message.id, number))
        expected[message.id] = next((at for at in tries if not start <= at < end), None)
    found = {
        message.id: message.attempts[-1].at if message.state == "acknowledged" else None
        for message in messages
        if message.state in {"acknowledged", "failed"}
    }
    return expected, found


@pytest.mark.parametrize("refusal", [503, OUT_OF_REACH], ids=["refused", "unreachable"])
async def test_an_outage_of_12_minutes(refusal):
    """Under `documented` 12 minutes without the listener lose nothing: each callback arrives at its first try after."""
    expected, found = await through_an_outage(
        "documented", every=7.0, last=2400.0, start=600.0, end=1320.0, refusal=refusal
    )
    assert None not in expected.values()
    assert found == expected


@pytest.mark.parametrize("refusal", [503, OUT_OF_REACH], ids=["refused", "unreachable"])
async def test_an_outage_of_20_minutes(refusal):
    """Under `documented` 20 minutes lose exactly what was first sent in their first five: all four tries fall in."""
    expected, found = await through_an_outage(
        "documented", every=7.0, last=2800.0, start=600.0, end=1800.0, refusal=refusal
    )
    lost = {number for number, at in expected.items() if at is None}
    assert lost == {number for number in expected if 600.0 <= 7.0 * (number - 1) < 900.0}
    assert len(lost) == 43
    assert found == expected


@pytest.mark.parametrize("refusal", [503, OUT_OF_REACH], ids=["refused", "unreachable"])
async def test_an_outage_of_10_seconds(refusal):
    """Under `observed` 10 seconds lose exactly the callbacks whose two tries both fall into them."""
    expected, found = await through_an_outage("observed", every=0.3, last=30.0, start=10.0, end=20.0, refusal=refusal)
    lost = {number for number, at in expected.items() if at is None}
    assert 20 <= len(lost) <= 30
    assert found == expected


@pytest.mark.parametrize("profile", ["patient", "eager"])
async def test_an_outage_of_a_minute(profile):
    """Under a profile of one's own an outage loses exactly the callbacks all of whose tries fall into it."""
    expected, found = await through_an_outage(profile, every=0.7, last=120.0, start=20.0, end=80.0, refusal=503)
    assert 10 <= list(expected.values()).count(None) <= 60
    assert found == expected


# --- Listeners beside each other -------------------------------------------------------------------------------------


def narrow(concurrency, silence=None, answer=30.0):
    return Profile(
        name="narrow",
        gaps_seconds=(),
        silence_seconds=silence,
        answer_timeout_seconds=answer,
        concurrency=concurrency,
    )


@pytest.mark.parametrize("profile", ["documented", "observed"])
async def test_one_listener_cannot_starve_another(profile):
    """A listener that never answers takes sixteen requests at a time; another gets each of its callbacks on time."""
    async with World(by_host(a=hangs, b=accepts), profile) as world:
        world.register("https://a.example/callbacks/token-of-a")
        world.register("https://b.example/callbacks/token-of-b", OTHER_ACCOUNT)
        times = [float(number) for number in range(100)]
        for at in times:
            await world.submit_at(at)
            await world.submit_at(at, account=OTHER_ACCOUNT)
        await world.until(150.0)
        slots = [0.0] * 16
        starts = []
        for at in times:
            starts.append(max(at, heapq.heappop(slots)))
            heapq.heappush(slots, starts[-1] + 30.0)
        first = {}
        for request in world.requests:
            first.setdefault((request.url[8], number_of(request)), request.at)
        began = {"a": [], "b": []}
        for (host, _), at in first.items():
            began[host].append(at)
        assert began["b"] == times
        assert began["a"] == [at for at in starts if at <= 150.0]
        await world.to_the_end()


@pytest.mark.parametrize(
    "other",
    [
        "https://shared.example/callbacks/token-of-b",
        "https://shared.example/another/path?with=query",
        "https://SHARED.example/callbacks/token-of-b",
        "https://shared.example:443/callbacks/token-of-b",
    ],
)
async def test_accounts_share_a_listener(other):
    """Two accounts with one host and port have its places together, whatever else their URLs say."""
    async with World(by_host(shared=dawdles), narrow(2)) as world:
        world.register("https://shared.example/callbacks/token-of-a")
        world.register(other, OTHER_ACCOUNT)
        for account in (ACCOUNT, OTHER_ACCOUNT, ACCOUNT, OTHER_ACCOUNT, OTHER_ACCOUNT):
            world.submit(account)
        await world.to_the_end()
        assert world.sent() == [(0.0, 1), (0.0, 2), (6.0, 3), (6.0, 4), (12.0, 5)]


@pytest.mark.parametrize(
    "other", ["https://other.example/callbacks/token-of-b", "https://shared.example:8443/callbacks/token-of-b"]
)
async def test_accounts_with_listeners_of_their_own(other):
    """Another host, or another port, has places of its own."""
    async with World(by_host(shared=dawdles, other=dawdles), narrow(1)) as world:
        world.register("https://shared.example/callbacks/token-of-a")
        world.register(other, OTHER_ACCOUNT)
        for account in (ACCOUNT, OTHER_ACCOUNT, ACCOUNT, OTHER_ACCOUNT):
            world.submit(account)
        await world.to_the_end()
        assert world.sent() == [(0.0, 1), (0.0, 2), (6.0, 3), (6.0, 4)]


async def test_copies_take_no_places():
    """The copies that silence earns start at once, and the next callback takes its place when the first try ends."""
    profile = Profile(
        name="narrow", gaps_seconds=((5.0, 5.0),), silence_seconds=2.0, answer_timeout_seconds=9.0, concurrency=1
    )
    async with World(hangs, profile) as world:
        world.register()
        for _ in range(3):
            world.submit()
        await world.to_the_end()
        assert world.sent() == [(0.0, 1), (2.0, 1), (9.0, 2), (11.0, 2), (18.0, 3), (20.0, 3)]


async def test_places_are_those_of_the_listener_that_is_sent_to():
    """A callback that waited for a place at one listener needs one at the other, where that is registered meanwhile."""
    async with World(by_host(first=dawdles, second=dawdles), narrow(1)) as world:
        world.register("https://first.example/callbacks/token-of-the-listener")
        world.submit()
        world.submit()
        await world.until(1.0)
        world.register("https://second.example/callbacks/token-of-the-listener")
        await world.submit_at(5.0)
        await world.to_the_end()
        starts = sorted(request.at for request in world.requests if "second" in request.url)
        assert len(starts) == 2
        assert starts[1] - starts[0] >= 6.0


# --- Kills -----------------------------------------------------------------------------------------------------------


def trace(world):
    """Return everything that was sent and what became of it."""
    return world.sent(), [
        (message.id, message.state, message.started, message.attempts) for message in world.sandbox.ledger
    ]


@pytest.mark.parametrize("killed_at", [0.0, 333.3, 650.0])
@every_profile
async def test_a_kill_between_tries_changes_nothing(profile, killed_at, tmp_path):
    """A sandbox that is killed while nothing is in the air goes on as if it had not been: same times, same draws."""
    faults = "delay=0.3,duplicate=0.3,refuse_once=0.3,cut_body=0.2,drop=0.1,forged_forward=0.2"
    way = refuses_within(100.0, 700.0)
    times = [20.0 * number for number in range(40)]
    async with World(way, profile, faults) as whole:
        whole.register()
        await whole.submit_at(*times)
        await whole.to_the_end()
    world = World(way, profile, faults, state=tmp_path / "state")
    await world.sandbox.start()
    world.register()
    world.sandbox.keep_access()
    await world.submit_at(*(at for at in times if at <= killed_at))
    await world.until(killed_at)
    await world.kill()
    async with World(
        way, profile, faults, state=tmp_path / "state", clock=world.clock, requests=world.requests
    ) as again:
        await again.submit_at(*(at for at in times if at > killed_at))
        await again.to_the_end()
        assert trace(again) == trace(whole)


@pytest.mark.parametrize(
    ("profile", "way", "killed_at", "before", "after"),
    [
        (
            "documented",
            hangs,
            10.0,
            [0.0],
            "10..40=timeout 340..370=timeout 670..700=timeout 1000..1030=timeout failed",
        ),
        ("documented", dawdles, 5.0, [0.0], "5..11=200 acknowledged"),
        ("observed", hangs, 2.0, [0.0], "2..32=timeout 6..36=timeout failed"),
        ("observed", hangs, 5.0, [0.0, 4.0], "5..35=timeout 9..39=timeout failed"),
        ("observed", dawdles, 5.0, [0.0, 4.0], "5..11=200 9..15=200 acknowledged"),
        ("patient", hangs, 2.0, [0.0], "2..7=timeout 17..22=timeout 22+g2..27+g2=timeout failed"),
        ("eager", hangs, 3.0, [0.0, 2.5], "3..12=timeout 5.5..14.5=timeout 8..17=timeout failed"),
    ],
)
async def test_a_kill_with_tries_in_the_air(*, profile, way, killed_at, before, after, tmp_path):
    """A try that a kill interrupts is made again at the start, and counts as the one that it was."""
    tries, state = ladder(after, **names_of(profile))
    world = World(way, profile, state=tmp_path / "state")
    await world.sandbox.start()
    world.register()
    world.sandbox.keep_access()
    world.submit()
    await world.until(killed_at)
    await world.kill()
    async with World(way, profile, state=tmp_path / "state", clock=world.clock, requests=world.requests) as again:
        await again.to_the_end()
        (message,) = again.sandbox.ledger
        check(message, tries, state)
        assert [request.at for request in again.requests] == exactly([*before, *(one.at for one in tries)])


async def test_a_slow_disk_moves_no_time(tmp_path, monkeypatch):
    """What is due at a time is sent at that time, however long its state file takes to be written."""
    monkeypatch.setattr("upcall.sandbox.delivery._HANGING_SECONDS", 0.01)
    may_write = threading.Event()
    async with World(refuses, state=tmp_path / "state") as world:
        world.register()
        write = world.sandbox.store._write

        def slowly(*batch):
            may_write.wait(5)
            write(*batch)

        monkeypatch.setattr(world.sandbox.store, "_write", slowly)
        asyncio.get_running_loop().call_later(0.1, may_write.set)
        message = world.submit()
        await world.to_the_end()
        check(message, *ladder("0=503 300=503 600=503 900=503 failed"))


async def test_a_kill_on_the_way_up_the_ladder(tmp_path):
    """Tries that ended before a kill count after it: a callback gets no more of them than its profile says."""
    world = World(in_turn(refuses, refuses, hangs), "documented", state=tmp_path / "state")
    await world.sandbox.start()
    world.register()
    world.sandbox.keep_access()
    world.submit()
    await world.until(610.0)
    await world.kill()
    async with World(refuses, state=tmp_path / "state", clock=world.clock, requests=world.requests) as again:
        await again.to_the_end()
        (message,) = again.sandbox.ledger
        check(message, *ladder("0=503 300=503 610=503 910=503 failed"))
        assert [request.at for request in again.requests] == [0.0, 300.0, 600.0, 610.0, 910.0]


async def test_a_kill_while_the_copy_of_an_acknowledged_one_is_in_the_air(tmp_path):
    """Without faults no try is entered as one that a fault sent, though a kill came between two answers."""
    world = World(dawdles, "observed", state=tmp_path / "state")
    await world.sandbox.start()
    world.register()
    world.sandbox.keep_access()
    world.submit()
    await world.until(7.0)
    await world.kill()
    async with World(dawdles, "observed", state=tmp_path / "state", clock=world.clock) as again:
        await again.to_the_end()
        (message,) = again.sandbox.ledger
        assert (message.state, message.attempts[0].status, message.next_at) == ("acknowledged", 200, None)
        assert [attempt.duplicate for attempt in message.attempts] == [False] * len(message.attempts)


async def test_a_kill_while_one_waits_to_be_overtaken(tmp_path):
    """A callback that waits to be overtaken when its sandbox is killed is overtaken after the restart."""
    world = World(accepts, "documented", "reorder", state=tmp_path / "state")
    await world.sandbox.start()
    world.register()
    world.sandbox.keep_access()
    await world.submit_at(0.0)
    await world.until(5.0)
    await world.kill()
    async with World(accepts, "documented", "reorder", state=tmp_path / "state", clock=world.clock) as again:
        await again.submit_at(10.0)
        await again.to_the_end()
        assert again.sent() == [(10.0, 2), (10.0, 1)]


async def test_a_kill_before_a_theft(tmp_path):
    """A listener that is to be displaced is displaced at its time, though its sandbox was killed before."""
    stolen_at = theft_seconds()
    world = World(accepts, "documented", "stolen", state=tmp_path / "state")
    await world.sandbox.start()
    world.register()
    world.sandbox.keep_access()
    await world.until(stolen_at / 2)
    await world.kill()
    async with World(accepts, "documented", "stolen", state=tmp_path / "state", clock=world.clock) as again:
        first, second = await again.submit_at(stolen_at - 0.001, stolen_at)
        await again.to_the_end()
        assert (first.state, second.state) == ("acknowledged", "stolen")


def june(random):
    """Draw up a campaign of a virtual hour: 30 devices, some rejected, some failing."""
    from upcall.sandbox.campaigns import CampaignRequest, SandboxOptions

    request = CampaignRequest(
        software_name="FOTA_01To02",
        software_from="01",
        software_to="02",
        distribution_type="HTTP",
        start_date="2026-06-01",
        end_date="2026-06-08",
    )
    return new_campaign(
        request,
        [f"9900139000{number:05}" for number in range(30)],
        account=ACCOUNT,
        now=0.0,
        options=SandboxOptions(failing=4, rejected=3),
        busy=(),
        ids=random,
        random=random,
    )


@pytest.mark.parametrize("killed_at", [5.0, 1234.5, 3000.0])
@every_profile
async def test_a_campaign_across_a_kill(profile, killed_at, tmp_path):
    """A campaign that a kill interrupts sends the same bytes at the same times as one that goes through."""
    way = refuses_within(1000.0, 2000.0)

    async def sent(state, killed_at):
        world = World(way, profile, state=state)
        await world.sandbox.start()
        world.register()
        world.sandbox.keep_access()
        world.sandbox.campaigns.add(june(Random(SEED)))
        if killed_at is not None:
            await world.until(killed_at)
            await world.kill()
            world = World(way, profile, state=state, clock=world.clock, requests=world.requests)
            await world.sandbox.start()
        await world.to_the_end()
        await world.sandbox.stop()
        states = [(message.id, message.state, message.attempts) for message in world.sandbox.ledger]
        return [(request.at, request.body) for request in world.requests], states

    requests, states = await sent(tmp_path / "whole", None)
    assert len(states) >= 30
    assert await sent(tmp_path / "killed", killed_at) == (requests, states)
