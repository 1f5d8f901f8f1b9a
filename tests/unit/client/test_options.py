"""Options of a client and of a call, raw responses, and what a result says of a lost answer."""

from __future__ import annotations

import pickle
from datetime import timedelta

import httpx2
import pytest

from upcall import AsyncThingSpaceClient, FotaV2SuccessResult, NoAnswerError, ThingSpaceClient
from upcall.errors import SettingsError

ACCOUNT = "0000123456-00001"
URL = "https://host/x"
BOTH = pytest.mark.parametrize("kind", [ThingSpaceClient, AsyncThingSpaceClient])


@BOTH
def test_options_come_from_arguments_then_variables_then_the_file(kind, monkeypatch, tmp_path):
    """An argument stands before a variable, a variable before the settings file, the file before the default."""
    path = tmp_path / "upcall.toml"
    path.write_text("[client]\ntimeout_seconds = 1\nmax_retries = 1\nmax_elapsed_seconds = 1\n")
    monkeypatch.setenv("UPCALL_MAX_RETRIES", "2")
    monkeypatch.setenv("UPCALL_MAX_ELAPSED_SECONDS", "2")
    limits = kind(config=path, max_elapsed_seconds=3)._exchange.limits
    assert (limits.timeout_seconds, limits.policy.max_retries, limits.policy.max_elapsed_seconds) == (1, 2, 3)
    assert kind()._exchange.limits.timeout_seconds == 30.0


@BOTH
def test_a_number_out_of_range_is_the_settings_fault_where_it_stands_there(kind, monkeypatch):
    """A variable of a wrong number is a SettingsError that names what to correct."""
    monkeypatch.setenv("UPCALL_TIMEOUT_SECONDS", "-1")
    with pytest.raises(SettingsError, match=r"timeout_seconds must be more than 0.*UPCALL_TIMEOUT_SECONDS"):
        kind()


@BOTH
def test_the_environment_is_chosen_by_name(kind, monkeypatch):
    """A variable or an argument names one of the provider's environments; both ways at once contradict."""
    monkeypatch.setenv("THINGSPACE_ENVIRONMENT", "staging")
    assert kind().base_url == "https://staging.thingspace.verizon.com/api"
    assert kind(base_url="https://host/api").base_url == "https://host/api"
    assert kind(environment="production").base_url == "https://thingspace.verizon.com/api"
    with pytest.raises(SettingsError, match="both given"):
        kind(environment="qa", base_url="https://host/api")


def test_a_call_may_set_its_own_budget(client, provider):
    """A call's options are good for that call alone."""
    provider.script.extend([503, 503])
    with pytest.raises(Exception, match="503") as caught:
        client.callbacks.list_registered_callbacks(ACCOUNT, max_retries=0)
    assert caught.value.attempts == 1
    assert client.callbacks.list_registered_callbacks(ACCOUNT).url == URL


def test_a_call_passes_its_timeout_to_the_wire(client, provider, monkeypatch):
    """What a call sets is what the request gets."""
    client.login()
    seen = []
    wire = client._driver._wire
    send = wire.send
    monkeypatch.setattr(wire, "send", lambda request, seconds: seen.append(seconds) or send(request, seconds))
    client.callbacks.list_registered_callbacks(ACCOUNT, timeout_seconds=7.5)
    client.callbacks.list_registered_callbacks(ACCOUNT)
    assert seen == [7.5, 30.0]


@pytest.mark.parametrize("options", [{"timeout": 5}, {"timeout_seconds": 0}, {"max_retries": -1}])
def test_an_option_that_is_none_or_out_of_range_sends_nothing(client, provider, options):
    """A typo in an option's name, or a number that means nothing, is refused before any request."""
    with pytest.raises((TypeError, ValueError)):
        client.callbacks.list_registered_callbacks(ACCOUNT, **options)
    assert provider.requests == []


def test_a_raw_response_holds_the_answer_beside_the_result(client, provider):
    """Status, headers, request id, cost and the parsed result, and no header in its repr."""
    provider.script.extend([503, (200, {"url": URL}, {"X-Request-Id": "r-1", "X-Other": "canary-header"})])
    raw = client.callbacks.with_raw_response.register_callback(ACCOUNT, {"url": URL})
    assert (raw.status, raw.request_id, raw.attempts, raw.parsed.url) == (200, "r-1", 2, URL)
    assert raw.headers["x-other"] == "canary-header"
    assert isinstance(raw.elapsed, timedelta)
    assert "canary" not in repr(raw)


async def test_every_operation_has_its_raw_twin_in_asyncio_too(make_async_client, provider):
    """The raw controllers offer every operation, under the same name."""
    async with make_async_client() as client:
        raw = client.callbacks.with_raw_response
        assert (await raw.list_registered_callbacks(ACCOUNT)).parsed.url == URL
        assert (await raw.update_callback(ACCOUNT, {"url": URL}, max_retries=0)).status == 200
        provider.script.extend([(200, {"id": "c"})] * 3)
        assert (await client.campaigns_v2.with_raw_response.schedule_campaign_firmware_upgrade(ACCOUNT, {})).parsed
        assert (await client.campaigns_v2.with_raw_response.get_campaign_information(ACCOUNT, "c")).status == 200
        reports = client.software_management_reports_v2.with_raw_response
        assert (await reports.get_campaign_device_status(ACCOUNT, "c")).parsed == {"id": "c"}
        provider.script.extend([(200, {"id": "c"}), (200, [{"id": "c"}])])
        assert (await reports.get_campaign_history_by_status(ACCOUNT, max_retries=0)).parsed == {"id": "c"}
        assert (await reports.get_device_firmware_upgrade_history(ACCOUNT, "9900")).parsed == [{"id": "c"}]


def test_a_lost_write_is_read_back_before_it_is_written_again(client, provider):
    """Where the write was carried out, one read settles it, and the result says so."""
    provider.script.append(httpx2.ReadTimeout("x"))
    result = client.callbacks.register_callback(ACCOUNT, {"url": URL})
    assert (result.url, result.read_back) == (URL, True)
    assert [request.method for request in provider.calls] == ["POST", "GET"]


def test_a_lost_write_that_was_not_carried_out_is_written_again(client, provider):
    """Where something else stands, the write is repeated, and the result says that it was read back."""
    provider.script.extend([httpx2.ReadTimeout("x"), (200, {"url": "https://host/old"}), (200, {"url": URL})])
    result = client.callbacks.update_callback(ACCOUNT, {"url": URL})
    assert (result.url, result.read_back) == (URL, True)
    assert [request.method for request in provider.calls] == ["PUT", "GET", "PUT"]


def test_a_lost_removal_is_read_back_too(client, provider):
    """None registered means that the removal was carried out."""
    provider.script.extend([httpx2.ReadTimeout("x"), (200, b"")])
    assert client.callbacks.deregister_callback(ACCOUNT) == FotaV2SuccessResult(success=True, read_back=True)


def test_a_lost_write_that_cannot_be_read_back_says_both(client, provider):
    """When reading back fails as well, the error is the write's and tells of the reading."""
    provider.script.extend([httpx2.ReadTimeout("x"), 403, 403, 403])
    with pytest.raises(NoAnswerError, match=r"register_callback was sent.*could not be read back.*403") as caught:
        client.callbacks.register_callback(ACCOUNT, {"url": URL})
    assert pickle.loads(pickle.dumps(caught.value)).operation == "register_callback"


def test_an_answered_write_says_nothing_of_reading_back(client):
    """The usual result has no such mark, and prints as the document does."""
    result = client.callbacks.register_callback(ACCOUNT, {"url": URL})
    assert not result.read_back
    assert repr(result) == f"FotaV2CallbackRegistrationResult(url='{URL}')"


def test_a_wait_longer_than_the_budget_is_said_at_once(client, provider):
    """Retry-After beyond what is left raises without a wait, with how long it was."""
    provider.script.append((429, b"", {"Retry-After": "3600"}))
    with pytest.raises(Exception, match=r"left alone for 3600 s.*leaves 60 s") as caught:
        client.callbacks.list_registered_callbacks(ACCOUNT)
    assert (caught.value.retry_after_seconds, caught.value.attempts, client.waits) == (3600.0, 1, [])


def test_a_fresh_login_asks_for_both_tokens_again(client, provider):
    """To see whether credentials are right, tokens that are held are dropped first."""
    client.login()
    client.login()
    assert (provider.token_requests, provider.logins) == (1, 1)
    client.login(fresh=True)
    assert (provider.token_requests, provider.logins) == (2, 2)


@BOTH
def test_two_wires_contradict_each_other(kind):
    """A transport and a client of the user's are one too many: neither is ignored in silence."""
    with pytest.raises(SettingsError, match="transport and http_client are both given"):
        kind(transport=object(), http_client=object())


def test_an_error_of_a_token_names_the_call_that_needed_it(client, provider):
    """Who calls register_callback learns why it came to nothing, and that it was the token."""
    provider.token_script.append((401, {"error": "invalid_client"}))
    with pytest.raises(
        Exception, match=r"^register_callback needs a token\. ThingSpace answered request_token"
    ) as caught:
        client.callbacks.register_callback(ACCOUNT, {"url": URL})
    assert caught.value.operation == "request_token"
