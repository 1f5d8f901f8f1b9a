"""What holds of every exchange, whatever the provider answers, however calls interleave, and on a clock of our own."""

from __future__ import annotations

import itertools
import json
import logging
import tempfile
from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from upcall.client import operations, statefile
from upcall.client.answers import Answer
from upcall.client.failures import Failure
from upcall.client.latch import LoginLatch, Refusal, Verdict
from upcall.client.retry import RetryPolicy
from upcall.client.tokenstore import TokenStore
from upcall.errors import (
    AnsweredError,
    CredentialsError,
    LoginLatchedError,
    NoAnswerError,
    ThingSpaceError,
    UndecodableAnswerError,
)
from upcall.settings import Credentials

ACCOUNT = "0000123456-00001"
URLS = ("https://host/a", "https://host/b")
LIST = operations.list_registered_callbacks(ACCOUNT)
REGISTER = operations.register_callback(ACCOUNT, {"url": URLS[0]})
UPDATE = operations.update_callback(ACCOUNT, {"url": URLS[1]})
DEREGISTER = operations.deregister_callback(ACCOUNT)
SCHEDULE = operations.schedule_campaign_firmware_upgrade(ACCOUNT, {"campaignName": "June"})
CALLS = (LIST, REGISTER, UPDATE, DEREGISTER, SCHEDULE, operations.get_campaign_information(ACCOUNT, "c1"))

TOKEN_PATH, LOGIN_PATH = "/ts/v1/oauth2/token", "/m2m/v1/session/login"
PASSWORDS = ("one", "two", "three")
NEARLY_NOTHING = 1e-6


@pytest.fixture(autouse=True, scope="module")
def _quick():
    """Leave out what is slow and said elsewhere: the log, and a hash that takes its time on purpose."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statefile, "_FINGERPRINT_ROUNDS", 1)
        patch.setattr(logging.getLogger("upcall.client"), "level", logging.CRITICAL)
        yield


@pytest.fixture(scope="module")
def kit(client_test_kit):
    return client_test_kit


# --- One call, whatever is answered -----------------------------------------------------------------------------------


class Asked:
    """A Retry-After header, and the seconds for which it asks when it arrives at a time of day."""

    def __init__(self, text=None, *, seconds=0.0, date_in=None):
        self._text, self._seconds, self._date_in = text, seconds, date_in

    def __repr__(self):
        return f"Asked({self._text!r}, seconds={self._seconds}, date_in={self._date_in})"

    def header(self, wall):
        return self._text if self._date_in is None else formatdate(int(wall) + self._date_in, usegmt=True)

    def seconds(self, wall):
        return self._seconds if self._date_in is None else max(0.0, int(wall) + self._date_in - wall)


NOTHING_ASKED = Asked()
ABSURD = [Asked(text) for text in ("", "-1", "1.5", "1e3", "0x10", "soon", "inf", "nan", "²", "5, 5", "Tue, 99 Nov")]
ABSURD += [Asked("9" * 400, seconds=1e9), Asked("Fri, 31 Dec 9999 23:59:59 GMT", seconds=1e9), Asked(" 007 ", seconds=7)]
_asked = st.one_of(
    st.just(NOTHING_ASKED),
    st.integers(0, 90).map(lambda seconds: Asked(str(seconds), seconds=seconds)),
    st.integers(-30, 90).map(lambda seconds: Asked(date_in=seconds)),
    st.sampled_from(ABSURD),
)

BODIES = (
    b"",
    b"<html>",
    b'{"url": 1}',
    b'{"errorCode": "INVALID_PARAMETER", "errorMessage": "no"}',
    b'{"errorCode": "REQUEST_FAILED.SessionToken.Expired", "errorMessage": "x"}',
    b'{"fault": {"code": "900901", "message": "Invalid Credentials"}}',
    b'{"error": "invalid_client"}',
    b"<am:fault><am:code>404</am:code></am:fault>",
)
STATUSES = (200, 204, 301, 400, 401, 403, 404, 408, 409, 429, 429, 500, 501, 502, 503, 503, 504, 599)
_answers = st.builds(
    Answer,
    status=st.sampled_from(STATUSES),
    body=st.sampled_from(BODIES),
    flaw=st.sampled_from([None, None, None, "cut", "garbled", "too_large"]),
)
_failures = st.builds(Failure, reason=st.just("gone"), sent=st.booleans(), permanent=st.sampled_from([False] * 5 + [True]))


class Step:
    """What becomes of one request, None for all well, and which share of its timeout that takes."""

    def __init__(self, outcome=None, asked=NOTHING_ASKED, share=0.0):
        self.outcome, self.asked, self.share = outcome, asked, share

    def __repr__(self):
        return f"Step({self.outcome!r}, {self.asked}, {self.share})"


_steps = st.builds(
    Step,
    st.one_of(st.none(), _answers, _answers, _failures),
    _asked,
    st.sampled_from([0.0, 0.0, 0.01, 0.3, 1.0]),
)
_call = st.sampled_from((*CALLS, None))  # None is a login
_limits = st.fixed_dictionaries(
    {
        "cold": st.booleans(),
        "budget": st.floats(0.5, 120),
        "retries": st.integers(0, 6),
        "timeout": st.floats(0.1, 40),
    }
)


class Exchanged:
    """One request, when it left, and what came of it when."""

    def __init__(self, request, at):
        self.request, self.left_at = request, at
        self.outcome = self.asked = self.ended_at = None

    @property
    def is_refused_token(self):
        return isinstance(self.outcome, Answer) and self.outcome.status in {400, 401, 403}


class Play:
    """One call against a script of steps, with a record of what went over the wire; a cold one has no tokens yet."""

    def __init__(self, kit, steps, *, cold, budget=60.0, retries=3, timeout=30.0, chances=(0.5,), busy_until=0.0):
        policy = RetryPolicy(max_retries=retries, max_elapsed_seconds=budget)
        self.budget, self.sent = budget, []
        self._steps, chance = iter(()), itertools.cycle(chances)
        self.world = kit.World(
            self._answer,
            policy=policy,
            timeout_seconds=timeout,
            chance=lambda: next(chance),
            latch=_busy(kit.NoLatch(), lambda: self.world.now < self.began + busy_until),
        )
        self.began = float("-inf")
        if not cold:
            self.world.run(self.world.exchange.log_in())
        self.began, self._steps = self.world.now, iter(steps)
        self.sent.clear()
        self.world.effects.clear()
        self.reply = self.error = None

    def run(self, call):
        exchange = self.world.exchange
        try:
            self.reply = self.world.run(exchange.log_in() if call is None else exchange.run(call))
        except ThingSpaceError as error:
            self.error = error
        return self

    @property
    def waits(self):
        """When each wait began, and how long it was to be."""
        return [(at, effect.seconds) for at, effect in self.world.effects if type(effect).__name__ == "Wait"]

    def _answer(self, request):
        world, step = self.world, next(self._steps, Step())
        exchanged = Exchanged(request, world.now)
        self.sent.append(exchanged)
        world.now += step.share * world.effects[-1][1].timeout_seconds
        outcome = _well(request) if step.outcome is None else step.outcome
        exchanged.asked = 0.0
        if isinstance(outcome, Answer) and outcome.status >= 300 and outcome.status != 404:  # which may be a result
            wall = world.exchange.clock.wall()
            exchanged.asked, header = step.asked.seconds(wall), step.asked.header(wall)
            outcome = Answer(
                status=outcome.status,
                body=outcome.body,
                flaw=outcome.flaw,
                headers={} if header is None else {"retry-after": header},
            )
        exchanged.outcome, exchanged.ended_at = outcome, world.now
        return outcome


def _busy(latch, is_busy):
    """Let another process be logging in for a while."""
    claim = latch.claim
    latch.claim = lambda *who, **how: Refusal(Verdict.BUSY, "path") if is_busy() else claim(*who, **how)
    return latch


def _well(request):
    document = {"access_token": "b", "sessionToken": "s", "success": True, "id": "c1", "url": URLS[0]}
    return Answer(status=200, body=json.dumps(document).encode())


@settings(max_examples=300)
@given(
    call=_call,
    steps=st.lists(_steps, max_size=14),
    limits=_limits,
    chances=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4),
    busy_until=st.sampled_from([0.0, 0.0, 0.3, 1e9]),
)
def test_no_wait_of_a_call_ends_beyond_its_budget(kit, call, steps, limits, chances, busy_until):
    """Whatever is answered, and however slowly, no wait ends later than the budget, nor is any request left to it."""
    play = Play(kit, steps, chances=chances, busy_until=busy_until, **limits).run(call)
    for at, seconds in play.waits:
        assert 0 <= seconds
        assert at + seconds - play.began <= play.budget + NEARLY_NOTHING
    assert sum(seconds for _, seconds in play.waits) <= play.budget + NEARLY_NOTHING
    for at, effect in play.world.effects:
        if hasattr(effect, "request"):
            left = play.budget - (at - play.began)
            assert 0 < effect.timeout_seconds <= min(limits["timeout"], max(1.0, left)) + NEARLY_NOTHING
    if play.error is not None:
        assert play.error.elapsed_seconds == pytest.approx(play.world.now - play.began)


@settings(max_examples=300)
@example(
    call=REGISTER,
    steps=[Step(Failure(reason="gone", sent=True)), Step(Answer(status=429), Asked("90", seconds=90.0))],
    limits={"cold": False, "budget": 60.0, "retries": 3, "timeout": 30.0},
    chance=0.0,
)
@given(call=_call, steps=st.lists(_steps, max_size=14), limits=_limits, chance=st.floats(0, 1, exclude_max=True))
def test_nothing_leaves_before_retry_after_is_over(kit, call, steps, limits, chance):
    """An answer that asks to be left alone is followed by silence for as long, or by an error that says for how long."""
    play = Play(kit, steps, chances=[chance], **limits).run(call)
    for answered, following in itertools.pairwise(play.sent):
        if not answered.is_refused_token:
            assert following.left_at >= answered.ended_at + answered.asked - NEARLY_NOTHING
    if not play.sent:
        return
    last = play.sent[-1]
    left = play.budget - (last.ended_at - play.began)
    if last.is_refused_token or last.asked <= max(0.0, left) + NEARLY_NOTHING:
        return
    event("asked for more than was left")
    assert play.world.now == last.ended_at
    assert play.error.retry_after_seconds >= min(last.asked, 1e6) - NEARLY_NOTHING
    assert "max_elapsed_seconds" in str(play.error)


@settings(max_examples=200)
@given(call=st.sampled_from([SCHEDULE, LIST, None]), steps=st.lists(_steps, max_size=14), cold=st.booleans())
def test_what_must_not_happen_twice_is_not_sent_twice(kit, call, steps, cold):
    """A campaign or a login that may have been received is never sent again by the same call, whatever was answered."""
    play = Play(kit, steps, cold=cold, retries=6, budget=1e6).run(call)
    for path in (LOGIN_PATH, SCHEDULE.path):
        own = [exchanged for exchanged in play.sent if exchanged.request.path == path]
        again = [exchanged.outcome for exchanged in own[:-1]]
        assert all(_never_arrived(outcome) or _was_turned_away(outcome, path) for outcome in again)


def _never_arrived(outcome):
    return isinstance(outcome, Failure) and not outcome.sent


def _was_turned_away(outcome, path):
    """Tell whether a token was refused, so that nothing was done; a login that succeeded may be followed by another."""
    if isinstance(outcome, Failure):
        return False
    if path == LOGIN_PATH:
        return outcome.status == 200 or (outcome.status == 401 and b"fault" in outcome.body)
    is_told = b"SessionToken" in outcome.body or b"fault" in outcome.body or b"invalid_client" in outcome.body
    is_bare = outcome.status in {401, 403} and b"errorCode" not in outcome.body
    return outcome.status in {400, 401, 403} and (is_told or is_bare)


# --- Writes whose answer is lost --------------------------------------------------------------------------------------

FATES = ("well", "lost", "cut", "unsent", "busy", "bearer", "session")
_fates = st.tuples(st.sampled_from(FATES), st.sampled_from(["now", "never", "late"]))


class Registry:
    """One account's registration at a provider that carries out a write whose answer is lost, or does not, or later.

    Args:
        fates: What becomes of each request, a GET or a write, and whether a write that goes wrong is carried out.
    """

    def __init__(self, kit, fates, standing):
        self.kit, self.standing = kit, standing
        self._fates = itertools.chain(fates, itertools.repeat(("well", "now")))
        self._late = []
        self.sent = []  # the method, and what became of it, of each request of the call under way

    def __call__(self, request):
        if request.path in {TOKEN_PATH, LOGIN_PATH}:
            return _well(request)
        fate, carried_out = next(self._fates)
        is_write = request.method != "GET"
        self._check(is_write)
        self.sent.append((request.method, fate))
        self.flush()
        if fate in {"bearer", "session"}:
            return self.kit.answer_of(self.kit.DEAD_BEARER if fate == "bearer" else self.kit.DEAD_SESSION)
        if is_write and fate != "unsent":
            self._write(request, "now" if fate == "well" else carried_out)
        return self._outcome(request.method, fate)

    def flush(self):
        """Carry out what was late."""
        for url in self._late:
            self.standing = url
        self._late.clear()

    @property
    def is_in_doubt(self):
        """Tell whether a write may have been carried out, and nobody has looked since."""
        for method, fate in reversed(self.sent):
            if method == "GET" and fate == "well":
                return False
            if method != "GET" and fate in {"lost", "cut"}:
                return True
        return False

    @property
    def was_in_doubt(self):
        return any(method != "GET" and fate in {"lost", "cut"} for method, fate in self.sent)

    def _check(self, is_write):
        assert not (is_write and self.is_in_doubt), "a write was repeated that nobody had read back"

    def _write(self, request, carried_out):
        url = None if request.method == "DELETE" else json.loads(request.body)["url"]
        if carried_out == "now":
            self.standing = url
        elif carried_out == "late":
            self._late.append(url)

    def _outcome(self, method, fate):
        if fate in {"lost", "unsent"}:
            return Failure(reason="gone", sent=fate == "lost")
        if fate == "busy":
            return Answer(status=503)
        if method == "DELETE":
            body = b'{"success": true}'
        else:
            body = json.dumps({"url": self.standing}).encode() if self.standing else b""
        return Answer(status=200, body=body[:-3] if fate == "cut" else body, flaw="cut" if fate == "cut" else None)


_writes = st.one_of(
    st.just((DEREGISTER, None)),
    *(
        st.just((make(ACCOUNT, {"url": url}), url))
        for make in (operations.register_callback, operations.update_callback)
        for url in URLS
    ),
)


@settings(max_examples=400)
@given(
    standing=st.sampled_from([None, *URLS]),
    writes=st.lists(_writes, min_size=1, max_size=3),
    fates=st.lists(_fates, max_size=16),
    retries=st.integers(0, 4),
)
def test_a_write_without_an_answer_is_read_back_before_it_is_repeated(kit, standing, writes, fates, retries):
    """After a lost or cut answer a GET leaves and no write; what is said to have succeeded stands, or the doubt is told."""
    registry = Registry(kit, fates, standing)
    policy = RetryPolicy(max_retries=retries, max_elapsed_seconds=1e6)
    world = kit.World(registry, policy=policy)
    for call, wanted in writes:
        registry.sent.clear()
        try:
            result = world.run(world.exchange.run(call)).parsed
        except ThingSpaceError as error:
            if registry.is_in_doubt:
                event("failed in doubt")
                assert isinstance(error, NoAnswerError | UndecodableAnswerError)
                assert "read back" in error.hint
        else:
            event(f"succeeded, read back: {result.read_back}")
            assert result.read_back is registry.was_in_doubt
            assert result.success if wanted is None else result.url == wanted
            registry.flush()
            assert registry.standing == wanted
        registry.flush()


# --- Many calls at once -----------------------------------------------------------------------------------------------

_turns = st.integers(0, 120)
_bursts = st.fixed_dictionaries(
    {
        "calls": st.integers(1, 10),
        "dies_at": st.dictionaries(st.sampled_from(["bearer", "session"]), _turns),
        "stops_at": st.lists(_turns, max_size=3),
    }
)
_schedule = st.binary(min_size=97, max_size=97)


@settings(max_examples=300)
@given(bursts=st.lists(_bursts, min_size=1, max_size=3), schedule=_schedule)
def test_each_death_costs_one_refresh_and_no_call(kit, bursts, schedule):
    """At whichever step a token dies under any interleaving, it is fetched once, every call succeeds, and nobody waits.

    Each call meets at most one death of each token, for which it has one replay each; some are cancelled on the way.
    """
    gateway = kit.Gateway()
    mill = kit.Interleaving(gateway, schedule)
    exchange = kit.make_exchange(mill.clock)
    for burst in bursts:
        before = sum(gateway.deaths.values())
        jobs = [mill.spawn(exchange.run(LIST)) for _ in range(burst["calls"])]
        for turn in itertools.count():
            for kind in (kind for kind, at in burst["dies_at"].items() if at == turn):
                gateway.kill(kind)
            running = [job for job in jobs if job in mill.jobs]
            if turn in burst["stops_at"] and running:
                mill.stop(running[turn % len(running)])
            if not mill.turn():
                break
        assert mill.jobs == []
        died = sum(gateway.deaths.values()) - before
        for job in jobs:
            assert job.error is None
            assert job.result is None or job.result.attempts <= 1 + died
        alone = mill.spawn(exchange.run(LIST))  # meets the death that came too late for the others
        mill.run()
        assert alone.error is None
    assert mill.now == 1000.0
    assert gateway.issued == {kind: 1 + gateway.deaths[kind] for kind in ("bearer", "session")}
