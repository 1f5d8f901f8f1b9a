"""What holds of every exchange, whatever the provider answers, however calls interleave, and on a clock of our own."""

from __future__ import annotations

import base64
import itertools
import json
import logging
import subprocess
import sys
import tempfile
from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import event, given, settings
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
from upcall.client.effects import Send, Wait
from upcall.client.failures import Failure
from upcall.client.latch import LoginLatch, Refusal, Verdict
from upcall.client.retry import RetryPolicy
from upcall.client.tokenstore import TokenStore
from upcall.errors import (
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
    """Leave out what is slow and tested elsewhere: the log, the disk's word, and a hash that is slow on purpose."""
    log = logging.getLogger("upcall.client")
    level = log.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statefile.os, "fsync", lambda _: None)
        patch.setattr(statefile, "_FINGERPRINT_ROUNDS", 1)
        log.setLevel(logging.CRITICAL)
        yield
    log.setLevel(level)


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
ABSURD = [Asked(text) for text in ("", "-1", "1.5", "1e3", "0x10", "soon", "inf", "nan", "²", "5, 5", "Tue, 99 N")]
ABSURD += [
    Asked("9" * 400, seconds=1e9),
    Asked("Fri, 31 Dec 9999 23:59:59 GMT", seconds=1e9),
    Asked(" 007 ", seconds=7),
]
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
_failures = st.builds(
    Failure, reason=st.just("gone"), sent=st.booleans(), permanent=st.sampled_from([False] * 5 + [True])
)


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
        "chances": st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4),
        "busy_until": st.sampled_from([0.0, 0.0, 0.3]),  # how long another process takes to log in
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
        self.budget, self.timeout, self.sent = budget, timeout, []
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
        self.reply, self.error = _outcome(self.world, exchange.log_in() if call is None else exchange.run(call))
        return self

    @property
    def waits(self):
        """When each wait began, and how long it was to be."""
        return [(at, effect.seconds) for at, effect in self.world.effects if isinstance(effect, Wait)]

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


def _outcome(world, flow):
    try:
        return world.run(flow), None
    except ThingSpaceError as error:
        return None, error


def _busy(latch, is_busy):
    """Let another process be logging in for a while."""
    claim = latch.claim
    latch.claim = lambda *who, **how: Refusal(Verdict.BUSY, "path") if is_busy() else claim(*who, **how)
    return latch


def _well(request):
    document = {"access_token": "b", "sessionToken": "s", "success": True, "id": "c1", "url": URLS[0]}
    return Answer(status=200, body=json.dumps(document).encode())


@settings(max_examples=300)
@given(call=_call, steps=st.lists(_steps, max_size=14), limits=_limits)
def test_no_wait_of_a_call_ends_beyond_its_budget(kit, call, steps, limits):
    """Whatever is answered, and however slowly, no wait ends later than the budget, nor is any request left to it."""
    play = Play(kit, steps, **limits).run(call)
    for at, seconds in play.waits:
        assert seconds >= 0
        assert at + seconds - play.began <= play.budget + NEARLY_NOTHING
    assert sum(seconds for _, seconds in play.waits) <= play.budget + NEARLY_NOTHING
    for at, effect in play.world.effects:
        if isinstance(effect, Send):
            left = play.budget - (at - play.began)
            assert 0 < effect.timeout_seconds <= min(play.timeout, max(1.0, left)) + NEARLY_NOTHING
    if play.error is not None:
        assert play.error.elapsed_seconds == pytest.approx(play.world.now - play.began)


@settings(max_examples=300)
@given(call=_call, steps=st.lists(_steps, max_size=14), limits=_limits)
def test_nothing_leaves_before_retry_after_is_over(kit, call, steps, limits):
    """An answer that asks to be left alone is followed by silence for as long, or by an error that says how long."""
    play = Play(kit, steps, **limits).run(call)
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


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.99])
def test_waiting_for_another_process_ends_with_the_budget(kit, chance):
    """A call that waits for another process's login does not begin a wait that its budget cannot pay for."""
    play = Play(kit, [], cold=True, budget=1.0, chances=[chance], busy_until=1e9).run(LIST)
    assert play.sent[-1].request.path == TOKEN_PATH
    assert max(at + seconds for at, seconds in play.waits) <= play.began + play.budget + NEARLY_NOTHING


@pytest.mark.parametrize("call", [REGISTER, UPDATE, DEREGISTER])
def test_a_read_back_that_is_told_to_return_later_says_when(kit, call):
    """A write in doubt whose reading back is put off beyond the budget is raised at once, with the seconds."""
    steps = [Step(Failure(reason="gone", sent=True)), Step(Answer(status=429), Asked("90", seconds=90.0))]
    play = Play(kit, steps, cold=False).run(call)
    assert [exchanged.request.method for exchanged in play.sent[1:]] == ["GET"]
    assert play.error.retry_after_seconds == 90.0
    assert "read back" in play.error.hint


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
    """After a lost or cut answer a GET leaves and no write; what is said to stand stands, or the doubt is told."""
    registry = Registry(kit, fates, standing)
    policy = RetryPolicy(max_retries=retries, max_elapsed_seconds=1e6)
    world = kit.World(registry, policy=policy)
    for call, wanted in writes:
        registry.sent.clear()
        reply, error = _outcome(world, world.exchange.run(call))
        registry.flush()
        if reply is not None:
            assert reply.parsed.read_back is registry.was_in_doubt
            assert reply.parsed.success if wanted is None else reply.parsed.url == wanted
            assert registry.standing == wanted
        elif registry.is_in_doubt:
            assert isinstance(error, NoAnswerError | UndecodableAnswerError)
            assert "read back" in error.hint


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


TURNED_AWAY = {
    "bearer": Answer(status=401, body=BODIES[5]),
    "session": Answer(status=400, body=BODIES[4]),
    "one of them": Answer(status=401),
    "one of them, in XML": Answer(status=403, body=BODIES[7]),
}


@given(refusals=st.lists(st.sampled_from(sorted(TURNED_AWAY)), max_size=7), call=st.sampled_from(CALLS))
def test_a_call_is_replayed_once_for_each_token(kit, refusals, call):
    """Tokens that are refused again and again cost one replay each; where none is named, the session's is the first."""
    play = Play(kit, [], cold=False)
    answers = iter(refusals)

    def answer(request):
        refusal = next(answers, None) if "/fota/" in request.path else None
        return _well(request) if refusal is None else TURNED_AWAY[refusal]

    play.world.answer = answer
    play.run(call)
    left, attempts = {"bearer", "session"}, 1
    for refusal in refusals:
        named = (refusal,) if refusal in {"bearer", "session"} else ("session", "bearer")
        suspects = [kind for kind in named if kind in left]
        if not suspects:
            assert isinstance(play.error, ThingSpaceError)
            assert play.error.attempts == attempts
            return
        left.remove(suspects[0])
        attempts += 1
    assert play.reply.attempts == attempts


# --- The login latch --------------------------------------------------------------------------------------------------

USERS = ("anna", "berta")
REFUSALS = (
    Answer(status=400, body=b'{"errorCode": "UnifiedWebService.INPUT_INVALID.Password.Invalid"}'),
    Answer(status=401, body=b'{"errorCode": "x", "errorMessage": "no"}'),
    Answer(status=401, body=b"<html>"),
    Answer(status=403),
)
PASSING = (
    Failure(reason="gone", sent=False, permanent=True),
    *(Answer(status=status) for status in (404, 408, 429, 500, 502, 503, 504)),
    Answer(status=200, body=b"<html>"),
    Answer(status=200, body=b'{"sessionTok', flaw="cut"),
    Answer(status=400, body=b'{"fault": {"code": "900906"}}'),
)
ACCEPTED = Answer(status=200, body=b'{"sessionToken": "s"}')
UNSENT = Failure(reason="gone", sent=False)
LOST = Failure(reason="gone", sent=True)
NO_PROCESS = 2**22 + 1
_index = st.integers(0, 11)


class User:
    """What the provider may hold against a user name since its last success, and what is known of its passwords."""

    def __init__(self):
        self.unanswered, self.refused, self.accepted = 0, set(), None

    @property
    def spent(self):
        return len(self.refused) + self.unanswered

    def accept(self, login):
        """Forget what was held against the user name when this login was claimed: what came later may come after."""
        refused, unanswered = login.before
        self.refused -= refused
        self.unanswered = max(0, self.unanswered - unanswered)
        self.accepted = login.password


class Login:
    """Somebody's login: on its way from its first request until the provider's word."""

    def __init__(self, name, password):
        self.name, self.password = name, password
        self.is_on_its_way = False
        self.before = None
        self.job = None


class LatchMachine(RuleBasedStateMachine):
    """Processes that log in with right and wrong passwords, all at once, over one state directory.

    Args:
        kit: The classes of `conftest`.
    """

    def __init__(self, kit):
        super().__init__()
        self.kit = kit
        self.directory = tempfile.TemporaryDirectory()
        self.latches = [LoginLatch(Path(self.directory.name)) for _ in range(3)]
        self.mill = kit.Interleaving(self.answer)
        self.users = {name: User() for name in USERS}
        self.logins = []

    def teardown(self):
        for job in list(self.mill.jobs):
            self.mill.stop(job)
        self.directory.cleanup()

    def answer(self, request, login):
        if request.path == TOKEN_PATH:
            return _well(request)
        user = self.users[login.name]
        assert json.loads(request.body) == {"username": login.name, "password": login.password}
        assert login.password not in user.refused, "a refused password was sent again"
        assert user.spent + len(self.rivals(login)) < 2, "a login was sent that may be the third refusal"
        login.is_on_its_way = True
        login.before = login.before or (set(user.refused), user.unanswered)
        return None

    def rivals(self, login):
        """Return the other logins of a user name that are on their way."""
        return [other for other in self.on_their_way(login.name) if other is not login]

    def on_their_way(self, name):
        return [login for login in self.logins if login.name == name and login.is_on_its_way]

    @property
    def in_the_air(self):
        return [job for job in self.mill.jobs if job.state == "in the air"]

    def deliver(self, job, outcome, *, is_over=True):
        job.who.is_on_its_way = not is_over
        self.mill.reply(job, outcome)
        self.mill.settle()

    # what happens

    @rule(process=st.integers(0, 2), name=st.sampled_from(USERS), password=st.sampled_from(PASSWORDS))
    def log_in(self, process, name, password):
        user = self.users[name]
        login = Login(name, password)
        rivals = self.rivals(login)
        self.logins.append(login)
        credentials = Credentials(client_id="id-1", client_secret="s", username=name, password=password)
        exchange = self.kit.make_exchange(self.mill.clock, latch=self.latches[process], credentials=credentials)
        login.job = self.mill.spawn(exchange.log_in(), login)
        self.mill.settle()
        if password in user.refused or user.spent >= 2:
            assert isinstance(login.job.error, LoginLatchedError)
            assert "upcall login --reset" in login.job.error.hint
            assert self.latches[0].state(self.kit.BASE_URL, name, password).latched
        else:
            must_wait = user.spent + len(rivals) >= 2 or any(rival.password == password for rival in rivals)
            assert login.job.error is None
            assert login.is_on_its_way is not must_wait

    @precondition(lambda self: self.in_the_air)
    @rule(index=_index)
    def accept(self, index):
        job = self.in_the_air[index % len(self.in_the_air)]
        self.users[job.who.name].accept(job.who)
        self.deliver(job, ACCEPTED)
        assert job.who.job.error is None

    @precondition(lambda self: self.in_the_air)
    @rule(index=_index, outcome=st.sampled_from(REFUSALS))
    def refuse(self, index, outcome):
        job = self.in_the_air[index % len(self.in_the_air)]
        user = self.users[job.who.name]
        user.refused.add(job.who.password)
        self.deliver(job, outcome)
        assert isinstance(job.who.job.error, CredentialsError)

    @precondition(lambda self: self.in_the_air)
    @rule(index=_index)
    def lose(self, index):
        job = self.in_the_air[index % len(self.in_the_air)]
        self.count_unanswered(job.who)
        self.deliver(job, LOST)
        assert isinstance(job.who.job.error, NoAnswerError)

    @precondition(lambda self: self.in_the_air)
    @rule(index=_index, outcome=st.sampled_from(PASSING))
    def say_nothing_of_the_password(self, index, outcome):
        job = self.in_the_air[index % len(self.in_the_air)]
        self.deliver(job, outcome)
        assert isinstance(job.who.job.error, ThingSpaceError)

    @precondition(lambda self: self.in_the_air)
    @rule(index=_index, outcome=st.sampled_from([UNSENT, "dead bearer"]))
    def turn_away(self, index, outcome):
        job = self.in_the_air[index % len(self.in_the_air)]
        answer = self.kit.answer_of(self.kit.DEAD_BEARER) if outcome == "dead bearer" else outcome
        self.deliver(job, answer, is_over=False)
        self.see_who_gave_up()

    @precondition(lambda self: any(job.state == "waiting" for job in self.mill.jobs))
    @rule()
    def wait(self):
        self.mill.pass_time()
        self.mill.settle()
        self.see_who_gave_up()

    @rule(process=st.integers(0, 2), name=st.sampled_from(USERS))
    def reset(self, process, name):
        if not self.on_their_way(name):
            self.latches[process].reset(self.kit.BASE_URL, name)
            self.users[name] = User()

    def count_unanswered(self, login):
        user = self.users[login.name]
        if user.accepted != login.password:
            user.unanswered += 1

    def see_who_gave_up(self):
        going_on = {id(job.who) for job in self.mill.jobs}
        for login in self.logins:
            login.is_on_its_way &= id(login) in going_on

    @invariant()
    def the_count_is_the_same_for_all_processes(self):
        for name in USERS:
            states = [latch.state(self.kit.BASE_URL, name, None) for latch in self.latches]
            assert states[0] == states[1] == states[2]


def test_no_run_of_logins_is_refused_more_than_twice(kit):
    """Whatever processes, passwords and answers there are, the provider can refuse two logins of a user name, not more.

    An answer that is lost may have been a refusal; a success forgets what came before it, a reset everything.
    """
    run_state_machine_as_test(lambda: LatchMachine(kit), settings=settings(max_examples=60, stateful_step_count=40))


@pytest.mark.parametrize("flaw", ["cut", "garbled", "too_large"])
@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refusal_counts_whatever_became_of_its_body(kit, tmp_path, status, flaw):
    """The status says that a login was refused: that its body came broken is no reason to send the password again."""
    sent = []

    def answer(request):
        sent.append(request.path)
        return _well(request) if request.path == TOKEN_PATH else Answer(status=status, body=b"{", flaw=flaw)

    world = kit.World(answer, latch=LoginLatch(tmp_path))
    errors = [_outcome(world, world.exchange.log_in())[1] for _ in range(3)]
    assert sent.count(LOGIN_PATH) == 1
    assert [type(error) for error in errors] == [CredentialsError, LoginLatchedError, LoginLatchedError]


def test_a_login_that_was_killed_counts_as_unanswered(tmp_path):
    """A login whose process is killed may have been refused: after two of them no restart sends a third."""
    script = (
        "import os, pathlib, sys; from upcall.client.latch import Claim, LoginLatch;"
        "claim = LoginLatch(pathlib.Path(sys.argv[1])).claim('https://h/api', 'anna', 'one', hold_seconds=90.0);"
        "os._exit(9 if isinstance(claim, Claim) else 0)"
    )
    codes = [subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode for _ in range(4)]
    assert codes == [9, 9, 0, 0]


# --- Tokens on disk ---------------------------------------------------------------------------------------------------

MINE = Credentials(client_id="id-1", client_secret="s-1", username="anna", password="one")
OTHER_SECRET = Credentials(client_id="id-1", client_secret="s-2", username="anna", password="one")
OTHER_PASSWORD = Credentials(client_id="id-1", client_secret="s-1", username="anna", password="two")
OTHER_USER = Credentials(client_id="id-1", client_secret="s-1", username="berta", password="one")
CALLERS = (MINE, MINE, OTHER_SECRET, OTHER_PASSWORD, OTHER_USER)
REFRESH_SECONDS, IDLE_SECONDS, TOUCH_SECONDS = 3570, 1200, 60


class Process:
    """A client that was started, and the tokens that it has carried and seen refused."""

    def __init__(self, kit, clock, directory, credentials):
        self.credentials = credentials
        self.carried, self.refused = set(), set()
        self.exchange = kit.make_exchange(
            clock,
            latch=LoginLatch(directory / "latch"),
            credentials=credentials,
            token_store=TokenStore(directory / "tokens.json", kit.BASE_URL, credentials),
        )


class TokenStoreMachine(RuleBasedStateMachine):
    """Processes of several callers that share one file of tokens, while tokens die and the file comes to harm.

    Args:
        kit: The classes of `conftest`.
    """

    def __init__(self, kit):
        super().__init__()
        self.kit = kit
        self.home = tempfile.TemporaryDirectory()
        self.directory = Path(self.home.name)
        self.path = self.directory / "tokens.json"
        self.mill = kit.Interleaving(self.answer)
        self.gateway = None
        self.processes = []
        self.refused = set()
        self.kept = {}  # the credentials and the kind: the token that is on disk
        self.shown = set()  # tokens that others could have read or written

    def teardown(self):
        self.home.cleanup()

    @initialize(is_same_within_the_hour=st.booleans())
    def begin(self, is_same_within_the_hour):
        self.gateway = self.kit.Gateway(lambda: self.mill.now, is_same_within_the_hour=is_same_within_the_hour)

    def answer(self, request, process):
        carried = {
            kind: value
            for kind, value in (
                ("bearer", request.headers["Authorization"].removeprefix("Bearer ")),
                ("session", request.headers.get("VZ-M2M-Token")),
            )
            if value in self.gateway.lives
        }
        for kind, value in carried.items():
            self.check_use(process, kind, value)
            process.carried.add(value)
        answer = self.gateway(request, process)
        kind = {TOKEN_PATH: "bearer", LOGIN_PATH: "session"}.get(request.path)
        if answer.status == 401:
            self.note_refusal(process, "bearer" if b"fault" in answer.body else "session", carried)
        elif kind is not None:
            self.check_need(process, kind)
            self.note_issue(
                process, kind, json.loads(answer.body)["access_token" if kind == "bearer" else "sessionToken"]
            )
        return answer

    def check_use(self, process, kind, value):
        """No token leaves that was another caller's, was refused before, or is known to be over."""
        life = self.gateway.lives[value]
        assert life.owner == self.owner(process.credentials, kind), "another caller's token"
        assert value not in process.refused, "a token was used again that was refused"
        is_dropped = (process.credentials, value) in self.refused
        assert value in process.carried or not is_dropped, "a token was loaded that another process had dropped"
        assert value in process.carried or (process.credentials, value) not in self.shown, "a shown file was believed"
        if kind == "session":
            assert self.mill.now <= life.used_at + IDLE_SECONDS, "an idle session was used"
        elif not self.gateway.is_same_within_the_hour:
            assert self.mill.now < life.issued_at + REFRESH_SECONDS, "a bearer token was used past its refresh time"

    def check_need(self, process, kind):
        """No token is fetched while a good one lies on disk; the time of a session's last use there may be stale."""
        value = self.kept.get((process.credentials, kind))
        if value is None:
            return
        life = self.gateway.lives[value]
        is_good = not life.is_over(self.mill.now) and self.mill.now < (
            life.issued_at + REFRESH_SECONDS if kind == "bearer" else life.used_at + IDLE_SECONDS - TOUCH_SECONDS
        )
        assert not is_good, "a token was fetched though a good one was kept"

    def note_refusal(self, process, kind, carried):
        value = carried[kind]
        process.refused.add(value)
        self.refused.add((process.credentials, value))
        self.kept = {key: kept for key, kept in self.kept.items() if (key[0], kept) != (process.credentials, value)}

    def note_issue(self, process, kind, value):
        # Of callers with the same names and other secrets, the last one's tokens are kept.
        names = (process.credentials.client_id, process.credentials.username)
        self.kept = {
            (who, each): kept
            for (who, each), kept in self.kept.items()
            if who == process.credentials or (who.client_id, who.username) != names
        }
        self.kept[process.credentials, kind] = value
        self.shown.discard((process.credentials, value))

    @staticmethod
    def owner(credentials, kind):
        if kind == "session":
            return operations.log_in(credentials.username, credentials.password).body
        pair = f"{credentials.client_id}:{credentials.client_secret}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    # what happens

    @rule(credentials=st.sampled_from(CALLERS))
    def start(self, credentials):
        self.processes.append(Process(self.kit, self.mill.clock, self.directory, credentials))
        self.call(-1)

    @precondition(lambda self: self.processes)
    @rule(index=st.integers(0, 30))
    def call(self, index):
        process = self.processes[index % len(self.processes)]
        job = self.mill.spawn(process.exchange.run(LIST), process)
        self.mill.run()
        # The token on disk may have died as well as the one that was held: it does not use up the replay.
        assert job.error is None

    @rule(seconds=st.sampled_from([1, 30, 59, 61, 600, 1141, 1199, 1200, 1201, 1800, 2400, 3569, 3571, 3601]))
    def let_time_pass(self, seconds):
        self.mill.now += seconds

    @precondition(lambda self: self.processes)
    @rule(index=st.integers(0, 30), kind=st.sampled_from(["bearer", "session"]))
    def kill(self, index, kind):
        self.gateway.kill(kind, self.owner(self.processes[index % len(self.processes)].credentials, kind))

    @precondition(lambda self: self.path.exists())
    @rule(content=st.sampled_from([b"", b"{", b"[]", b'{"salt": 1}', b"\xff", None]))
    def damage(self, content):
        raw = self.path.read_bytes()
        self.path.write_bytes(raw[:-5] if content is None else content)
        self.kept.clear()

    @precondition(lambda self: self.path.exists())
    @rule(mode=st.sampled_from([0o640, 0o604, 0o660, 0o620]))
    def show_to_others(self, mode):
        self.path.chmod(mode)
        self.shown |= {(credentials, value) for (credentials, _), value in self.kept.items()}
        self.kept.clear()

    @invariant()
    def the_file_holds_what_was_issued_and_nothing_that_was_refused(self):
        for credentials, kind in itertools.product(set(CALLERS), ("bearer", "session")):
            stored = TokenStore(self.path, self.kit.BASE_URL, credentials).load(kind)
            kept = self.kept.get((credentials, kind))
            assert kept in {None, stored and stored.value}
            assert stored is None or (credentials, stored.value) not in self.refused
        assert not self.kept or self.path.stat().st_mode & 0o077 == 0


def test_processes_share_good_tokens_and_no_others(kit):
    """Over one file, a token is fetched once for all of a caller's processes, dropped for all, and for nobody else."""
    run_state_machine_as_test(
        lambda: TokenStoreMachine(kit), settings=settings(max_examples=80, stateful_step_count=40)
    )


@pytest.mark.parametrize("kind", ["bearer", "session"])
def test_a_token_of_the_file_that_is_refused_is_dropped_though_it_is_the_second(kit, kind, tmp_path):
    """A process whose own token and the one on disk have both died leaves neither of them to others."""
    gateway = kit.Gateway()
    mill = kit.Interleaving(gateway)
    first, second = (Process(kit, mill.clock, tmp_path, MINE) for _ in range(2))
    for process in (first, second, first):
        mill.spawn(process.exchange.run(LIST))
        mill.run()
        gateway.kill(kind)
    stored = TokenStore(tmp_path / "tokens.json", kit.BASE_URL, MINE).load(kind)
    assert stored is None or stored.value == f"{kind}-3"


@settings(max_examples=100)
@given(
    processes=st.integers(2, 5),
    calls=st.integers(1, 3),
    dies_at=st.dictionaries(st.sampled_from(["bearer", "session"]), st.integers(0, 200)),
    schedule=_schedule,
)
def test_processes_that_share_a_file_log_in_once_for_all(kit, processes, calls, dies_at, schedule):
    """Of any number of processes that start together, and lose a session together, one logs in, at whatever step."""
    gateway = kit.Gateway()
    mill = kit.Interleaving(gateway, schedule)
    with tempfile.TemporaryDirectory() as home:
        exchanges = [Process(kit, mill.clock, Path(home), MINE).exchange for _ in range(processes)]
        jobs = [mill.spawn(exchange.run(LIST)) for exchange in exchanges for _ in range(calls)]
        for turn in itertools.count():
            for kind in (kind for kind, at in dies_at.items() if at == turn):
                gateway.kill(kind)
            if not mill.jobs:
                break
            assert mill.turn() or mill.pass_time()
        jobs += [mill.spawn(exchange.run(LIST)) for exchange in exchanges]
        mill.run()
    assert [job.error for job in jobs if job.error is not None] == []
    assert gateway.issued["session"] == 1 + gateway.deaths["session"]
    assert gateway.issued["bearer"] <= processes * (1 + gateway.deaths["bearer"])
