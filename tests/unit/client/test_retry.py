"""When a call is tried again, how long it waits, and when it gives up."""

from __future__ import annotations

import math
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall import AnsweredError, NoAnswerError, RequestNotSentError, ThingSpaceError
from upcall.client import operations
from upcall.client.answers import Answer
from upcall.client.failures import Failure
from upcall.client.retry import RETRY_STATUSES, RetryPolicy, retry_after_seconds

ACCOUNT = "0000123456-00001"
NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0.0),
        ("", 0.0),
        ("0", 0.0),
        (" 120 ", 120.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("Tue, 14 Nov 2023 22:14:50 -0000", 90.0),
        ("-5", 0.0),
        ("1.5", 0.0),
        ("soon", 0.0),
        ("²", 0.0),
        ("9" * 5000, 1e9),
        ("Tue, 99 Nov 2023 99:99:99 GMT", 0.0),
    ],
)
def test_both_forms_of_retry_after_are_read(header, seconds):
    """Seconds and dates are read; what is neither counts as absent."""
    assert retry_after_seconds(header, wall_now=NOW) == seconds


@given(st.text(max_size=40))
def test_no_retry_after_header_fails(header):
    """Whatever a server writes there is a wait of 0 or more."""
    assert retry_after_seconds(header, wall_now=NOW) >= 0


@given(
    retries=st.integers(0, 2000),
    elapsed=st.floats(0, 100),
    chance=st.floats(0, 1, exclude_max=True),
    retry_after=st.floats(0, 1e6),
    budget=st.floats(0.1, 100),
)
def test_a_wait_is_never_before_retry_after_nor_past_the_budget(retries, elapsed, chance, retry_after, budget):
    """A wait lies between what the provider asked for and what is left, or there is none."""
    policy = RetryPolicy(max_retries=5, max_elapsed_seconds=budget)
    wait = policy.wait_seconds(retries=retries, elapsed_seconds=elapsed, chance=chance, retry_after=retry_after)
    if wait is None:
        assert retries >= 5 or elapsed >= budget or elapsed + retry_after + chance * 8.0 > budget
    else:
        assert retry_after <= wait <= budget - elapsed
        assert wait <= retry_after + 8.0


@pytest.mark.parametrize(
    "options", [{"max_retries": -1}, {"max_elapsed_seconds": 0}, {"max_elapsed_seconds": math.nan}]
)
def test_a_policy_without_sense_is_refused(options):
    """Numbers out of range are refused where they are given."""
    with pytest.raises(ValueError, match="must be"):
        RetryPolicy(**options)


def test_the_jitter_is_full_and_its_ceiling_doubles():
    """A wait lies anywhere between nothing and a ceiling that doubles up to its cap."""
    policy = RetryPolicy(max_retries=9, max_elapsed_seconds=1000)
    waits = [policy.wait_seconds(retries=n, elapsed_seconds=0, chance=1.0) for n in range(7)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert policy.wait_seconds(retries=0, elapsed_seconds=0, chance=0.0) == 0.0


_outcomes = st.one_of(
    st.builds(
        lambda status, after: Answer(status=status, headers={"retry-after": after} if after else {}),
        st.sampled_from([*RETRY_STATUSES, 400, 401, 403, 409, 501]),
        st.sampled_from([None, None, "1", "7", "100", formatdate(1_700_001_010, usegmt=True)]),
    ),
    st.builds(Failure, reason=st.just("x"), sent=st.booleans(), permanent=st.booleans()),
    st.just(Answer(status=200, body=b'{"url": "https://h"}')),
)


@given(
    outcomes=st.lists(_outcomes, min_size=1, max_size=12),
    chance=st.floats(0, 1, exclude_max=True),
    budget=st.floats(0.5, 60),
    retries=st.integers(0, 6),
)
def test_a_call_stays_within_its_budget_whatever_it_meets(client_test_kit, outcomes, chance, budget, retries):
    """The waits of a call sum to no more than its budget, and each is no shorter than the provider asked for."""
    script = list(outcomes)
    asked = []

    def answer(request):
        if "oauth2" in request.url:
            return Answer(status=200, body=b'{"access_token": "canary-bearer"}')
        if "login" in request.url:
            return Answer(status=200, body=b'{"sessionToken": "canary-session"}')
        outcome = script.pop(0) if script else Answer(status=200, body=b'{"url": "https://h"}')
        header = outcome.headers.get("retry-after") if isinstance(outcome, Answer) else None
        asked.append((outcome, retry_after_seconds(header, wall_now=world.exchange.clock.wall())))
        return outcome

    policy = RetryPolicy(max_retries=retries, max_elapsed_seconds=budget)
    world = client_test_kit.World(answer, policy=policy, chance=lambda: chance)
    begun = world.now
    try:
        attempts = world.run(world.exchange.run(operations.list_registered_callbacks(ACCOUNT))).attempts
    except ThingSpaceError as error:
        attempts = error.attempts
    assert attempts == len(asked)
    assert sum(world.waits) <= budget + 1e-9
    assert world.now - begun <= budget + 1e-9
    assert len(world.waits) <= retries
    again = [after for outcome, after in asked[:-1] if not _is_refusal(outcome)]
    assert all(wait >= after - 1e-6 for wait, after in zip(world.waits, again, strict=True))


def _is_refusal(outcome):
    return isinstance(outcome, Answer) and outcome.status in {401, 403}


@pytest.mark.parametrize("status", sorted(RETRY_STATUSES))
@pytest.mark.parametrize("method", ["list_registered_callbacks", "deregister_callback"])
def test_an_error_that_may_pass_is_tried_again(client, provider, status, method):
    """The operations of a callback are repeated after each status that may pass, whatever their verb."""
    provider.script.extend([status, status, (200, {"success": True, "url": "https://h"})])
    getattr(client.callbacks, method)(ACCOUNT)
    assert len(client.waits) == 2


@pytest.mark.parametrize("status", sorted(RETRY_STATUSES))
def test_a_campaign_is_never_scheduled_again_after_an_answer(client, provider, status):
    """Scheduling is not repeated: a 503 may come from a gateway behind which it went through."""
    provider.script.append(status)
    with pytest.raises(AnsweredError) as caught:
        client.campaigns_v2.schedule_campaign_firmware_upgrade(ACCOUNT, {})
    assert (caught.value.attempts, client.waits) == (1, [])


def test_retry_after_beyond_the_budget_is_raised_at_once(client, provider):
    """When the provider asks for more than is left, the caller hears so now and not after a useless wait."""
    provider.script.append((429, b"", {"Retry-After": "61"}))
    with pytest.raises(AnsweredError) as caught:
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (caught.value.status_code, caught.value.attempts, client.waits) == (429, 1, [])


def test_retry_after_is_waited_for(client, provider):
    """A 429 that says when to return is returned to, not earlier."""
    provider.script.append((429, b"", {"Retry-After": "30"}))
    client.callbacks.list_registered_callbacks(ACCOUNT)
    assert 30 <= client.waits[0] <= 30.5


def test_the_token_request_is_repeated_and_the_login_is_not(client, provider):
    """A token request is safe to repeat after an error; a login may have been counted."""
    provider.token_script.extend([503, 500])
    provider.login_script.append(503)
    with pytest.raises(AnsweredError) as caught:
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (caught.value.operation, caught.value.attempts) == ("login", 1)
    assert (provider.token_requests, provider.logins, client.login_latch().refusals) == (3, 1, 0)


def test_no_retries_means_one_attempt(make_client, provider):
    """With max_retries=0 the first error is the last."""
    provider.script.append(503)
    with pytest.raises(AnsweredError):
        make_client(max_retries=0).callbacks.list_registered_callbacks(ACCOUNT)
    assert len(provider.calls) == 1


def test_a_request_at_the_end_of_its_budget_is_given_a_second(client_test_kit):
    """The last request's timeout shrinks to what is left of the budget, and not to nothing."""
    timeouts = []
    world = client_test_kit.World(None, policy=RetryPolicy(max_elapsed_seconds=10.0), chance=lambda: 0.0)
    flow = world.exchange.run(operations.sandbox_banner())
    effect = flow.send(None)
    timeouts.append(effect.timeout_seconds)
    world.now += 9.9
    flow.send(Failure(reason="x", sent=False))
    timeouts.append(flow.send(None).timeout_seconds)
    assert timeouts == [10.0, 1.0]


@pytest.mark.parametrize(("sent", "error"), [(True, NoAnswerError), (False, RequestNotSentError)])
def test_what_was_never_answered_says_how_often_it_was_tried(client_test_kit, sent, error):
    """Giving up tells the attempts and the time that they took."""
    world = client_test_kit.World(lambda _: Failure(reason="gone", sent=sent))
    with pytest.raises(error) as caught:
        world.run(world.exchange.run(operations.sandbox_banner()))
    assert (caught.value.attempts, caught.value.elapsed_seconds) == (4, sum(world.waits))
