"""Uses of the client as a type checker sees them: `tests/unit/test_typing.py` has them checked strictly, not run.

Each `type: ignore` stands where a checker must complain: one that does not makes the test fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, assert_type

import httpx2

import upcall
from upcall import (
    AnsweredError,
    AsyncSoftwareManagementCallbacksV2Controller,
    AsyncThingSpaceClient,
    CallbackSummary,
    Credentials,
    CredentialsError,
    FotaV2CallbackRegistrationRequest,
    FotaV2CallbackRegistrationResult,
    FotaV2ResultException,
    FotaV2SuccessResult,
    LoginLatchedError,
    NoAnswerError,
    RequestNotSentError,
    SoftwareManagementCallbacksV2Controller,
    ThingSpaceClient,
    ThingSpaceError,
    UndecodableAnswerError,
    UpcallError,
)
from upcall.client import (
    AccountResult,
    AsyncCampaignsV2Controller,
    AsyncSoftwareManagementReportsV2Controller,
    CallEvent,
    CallOptions,
    CampaignsV2Controller,
    EventHook,
    LatchState,
    OnResult,
    RawResponse,
    RegistrationBody,
    SoftwareManagementReportsV2Controller,
    TokenState,
)
from upcall.settings import Account, Settings, read_settings

ACCOUNT = "0000123456-00001"
URL = "https://listener.example.com:50559/callbacks/one"
CAMPAIGN = {"campaignName": "spring", "deviceList": ["990013907835573"]}
CREDENTIALS = Credentials(client_id="id", client_secret="secret", username="user", password="password")


# --- Making a client -------------------------------------------------------------------------------------------------


def make_with_nothing() -> ThingSpaceClient:
    """Take everything from the environment."""
    return ThingSpaceClient()


def make_with_everything(http: httpx2.Client, transport: httpx2.BaseTransport) -> list[ThingSpaceClient]:
    """Give every option in each of its types."""
    return [
        ThingSpaceClient(
            credentials=CREDENTIALS,
            environment="staging",
            timeout_seconds=10,
            max_retries=5,
            max_elapsed_seconds=120.5,
            allow_http=False,
            token_store=True,
            event_hooks=[note, Counter()],
            transport=transport,
            state_dir="state",
            config="upcall.toml",
        ),
        ThingSpaceClient(base_url="http://127.0.0.1:8800/api", token_store=Path("tokens.json"), event_hooks=(note,)),
        ThingSpaceClient(http_client=http, token_store="tokens.json", state_dir=Path("state"), config=Path("u.toml")),
        ThingSpaceClient(http_client=httpx2.Client(http2=True, proxy="http://proxy.example:3128")),
        ThingSpaceClient(transport=httpx2.MockTransport(lambda request: httpx2.Response(200))),
        ThingSpaceClient(credentials=None, environment=None, timeout_seconds=None, token_store=None, http_client=None),
    ]


def make_async_with_everything(
    http: httpx2.AsyncClient, transport: httpx2.AsyncBaseTransport, **application: Any
) -> list[AsyncThingSpaceClient]:
    """Give the same options to the other client."""
    return [
        AsyncThingSpaceClient(
            credentials=CREDENTIALS,
            environment="staging",
            timeout_seconds=10,
            max_retries=5,
            max_elapsed_seconds=120.5,
            allow_http=False,
            token_store=True,
            event_hooks=[note, Counter()],
            transport=transport,
            state_dir="state",
            config="upcall.toml",
        ),
        AsyncThingSpaceClient(base_url="http://127.0.0.1:8800/api", token_store=Path("tokens.json")),
        AsyncThingSpaceClient(http_client=http),
        AsyncThingSpaceClient(transport=httpx2.ASGITransport(application["app"])),
        AsyncThingSpaceClient(transport=httpx2.MockTransport(lambda request: httpx2.Response(200))),
    ]


def make_of_settings() -> dict[str, ThingSpaceClient]:
    """Make a client for each account of a settings file, as each may have its own credentials."""
    settings = assert_type(read_settings(config="upcall.toml"), Settings)
    assert_type(settings.accounts, tuple[Account, ...])
    return {one.name: ThingSpaceClient(credentials=settings.credentials_of(one)) for one in settings.accounts}


# --- Being told ------------------------------------------------------------------------------------------------------


def note(event: CallEvent) -> None:
    """Be told as a function."""
    assert_type(event.operation, str)
    assert_type(event.method, str)
    assert_type(event.url, str)
    assert_type(event.attempt, int)
    assert_type(event.status, int | None)
    assert_type(event.request_id, str | None)
    assert_type(event.headers, dict[str, str])
    assert_type(event.reason, str | None)
    assert_type(event.wait_seconds, float | None)
    assert_type(event.elapsed_seconds, float)
    if event.kind == "waiting" and event.wait_seconds is not None:
        print(f"{event.operation} waits for {event.wait_seconds:.1f} s")


class Counter:
    """Be told as an object that can be called."""

    def __init__(self) -> None:
        self.sent = 0

    def __call__(self, event: CallEvent) -> int:
        """Count what was sent; what a hook returns is of no interest."""
        self.sent += event.kind == "sent"
        return self.sent


HOOKS: list[EventHook] = [note, Counter()]


# --- Calls, sync -----------------------------------------------------------------------------------------------------


def call(client: ThingSpaceClient) -> None:
    """Make each of the calls."""
    assert_type(client.callbacks, SoftwareManagementCallbacksV2Controller)
    assert_type(client.software_management_callbacks_v2, SoftwareManagementCallbacksV2Controller)
    callbacks = client.callbacks
    assert_type(callbacks.list_registered_callbacks(ACCOUNT), CallbackSummary)
    assert_type(callbacks.register_callback(ACCOUNT, {"url": URL}), FotaV2CallbackRegistrationResult)
    assert_type(callbacks.update_callback(ACCOUNT, {"url": URL}), FotaV2CallbackRegistrationResult)
    assert_type(callbacks.deregister_callback(ACCOUNT), FotaV2SuccessResult)
    assert_type(callbacks.list_registered_callbacks(account=ACCOUNT), CallbackSummary)
    body = FotaV2CallbackRegistrationRequest(url=URL)
    assert_type(callbacks.register_callback(ACCOUNT, body), FotaV2CallbackRegistrationResult)
    assert_type(callbacks.update_callback(account=ACCOUNT, body=body), FotaV2CallbackRegistrationResult)


def read_results(client: ThingSpaceClient) -> None:
    """Read what the calls return."""
    found = client.callbacks.list_registered_callbacks(ACCOUNT)
    assert_type(found.url, str | None)
    assert_type(found.extra, dict[str, Any])
    registered = client.callbacks.register_callback(ACCOUNT, {"url": URL})
    assert_type(registered.url, str)
    assert_type(registered.read_back, bool)
    assert_type(registered.extra, dict[str, Any])
    removed = client.callbacks.deregister_callback(ACCOUNT)
    assert_type(removed.success, bool)
    assert_type(removed.read_back, bool)


def call_with_options(client: ThingSpaceClient) -> None:
    """Give a call what it may spend, by name or as a dict with a type."""
    options: CallOptions = {"timeout_seconds": 5, "max_retries": 0, "max_elapsed_seconds": 7.5}
    assert_type(client.callbacks.list_registered_callbacks(ACCOUNT, **options), CallbackSummary)
    assert_type(client.callbacks.list_registered_callbacks(ACCOUNT, timeout_seconds=5), CallbackSummary)
    client.callbacks.register_callback(ACCOUNT, {"url": URL}, max_retries=0, max_elapsed_seconds=7.5)
    client.callbacks.update_callback(ACCOUNT, {"url": URL}, timeout_seconds=0.5, max_retries=1)
    client.callbacks.deregister_callback(ACCOUNT, **options)
    client.callbacks.with_raw_response.deregister_callback(ACCOUNT, **options)
    client.callbacks.list_many([ACCOUNT], **options)
    client.campaigns_v2.get_campaign_information(ACCOUNT, "campaign", max_retries=1)


def call_campaigns(client: ThingSpaceClient) -> None:
    """Make the calls beside the callbacks: they take and return plain decoded objects."""
    campaigns = assert_type(client.campaigns_v2, CampaignsV2Controller)
    assert_type(campaigns.schedule_campaign_firmware_upgrade(ACCOUNT, CAMPAIGN), dict[str, Any])
    assert_type(campaigns.get_campaign_information(ACCOUNT, "campaign"), dict[str, Any])
    reports = assert_type(client.software_management_reports_v2, SoftwareManagementReportsV2Controller)
    assert_type(reports.get_campaign_device_status(ACCOUNT, "campaign"), dict[str, Any])
    assert_type(reports.get_campaign_device_status(ACCOUNT, "campaign", "990013907835573"), dict[str, Any])
    assert_type(reports.get_campaign_history_by_status(ACCOUNT), dict[str, Any])
    assert_type(reports.get_campaign_history_by_status(ACCOUNT, "CampaignEnded", "campaign"), dict[str, Any])
    assert_type(reports.get_device_firmware_upgrade_history(ACCOUNT, "990013907835573"), list[dict[str, Any]])


def call_raw(client: ThingSpaceClient) -> None:
    """Ask for the answer beside the result."""
    raw = client.callbacks.with_raw_response
    found = assert_type(raw.list_registered_callbacks(ACCOUNT), RawResponse[CallbackSummary])
    assert_type(found.parsed, CallbackSummary)
    assert_type(found.parsed.url, str | None)
    assert_type(found.status, int)
    assert_type(found.headers, Mapping[str, str])
    assert_type(found.request_id, str | None)
    assert_type(found.elapsed, timedelta)
    assert_type(found.attempts, int)
    assert_type(raw.register_callback(ACCOUNT, {"url": URL}), RawResponse[FotaV2CallbackRegistrationResult])
    assert_type(raw.update_callback(ACCOUNT, {"url": URL}), RawResponse[FotaV2CallbackRegistrationResult])
    assert_type(raw.deregister_callback(ACCOUNT), RawResponse[FotaV2SuccessResult])
    campaigns = client.campaigns_v2.with_raw_response
    assert_type(campaigns.schedule_campaign_firmware_upgrade(ACCOUNT, CAMPAIGN), RawResponse[dict[str, Any]])
    assert_type(campaigns.get_campaign_information(ACCOUNT, "campaign"), RawResponse[dict[str, Any]])
    reports = client.software_management_reports_v2.with_raw_response
    assert_type(reports.get_campaign_device_status(ACCOUNT, "campaign"), RawResponse[dict[str, Any]])
    assert_type(reports.get_campaign_history_by_status(ACCOUNT), RawResponse[dict[str, Any]])
    assert_type(reports.get_device_firmware_upgrade_history(ACCOUNT, "9900"), RawResponse[list[dict[str, Any]]])


def call_for_many(client: ThingSpaceClient) -> list[str]:
    """Call for many accounts at once; a result is there or an error is."""
    found = client.callbacks.list_many(iter([ACCOUNT]), max_concurrency=4, on_result=progress, timeout_seconds=5)
    assert_type(found, list[AccountResult[CallbackSummary]])
    bodies = {ACCOUNT: {"url": URL}}
    registered = client.callbacks.register_many(bodies, max_concurrency=4, on_result=print, max_retries=0)
    assert_type(registered, list[AccountResult[FotaV2CallbackRegistrationResult]])
    client.callbacks.register_many({ACCOUNT: FotaV2CallbackRegistrationRequest(url=URL)})
    mixed: dict[str, RegistrationBody] = {ACCOUNT: {"url": URL}, "other": FotaV2CallbackRegistrationRequest(url=URL)}
    told: OnResult = progress
    client.callbacks.register_many(mixed, on_result=told)
    for one in found:
        assert_type(one.account, str)
        assert_type(one.result, CallbackSummary | None)
        assert_type(one.error, ThingSpaceError | ValueError | TypeError | None)
        if one.result is not None:
            assert_type(one.result.url, str | None)
        elif isinstance(one.error, ThingSpaceError):
            assert_type(one.error.error_code, str | None)
    return [one.account for one in registered if one.error is not None]


def progress(result: AccountResult[Any]) -> None:
    """Be told of each result."""
    print(result.account, "failed" if result.error else "done")


def look_after(client: ThingSpaceClient) -> None:
    """Use what is there beside the calls."""
    client.login()
    client.login(fresh=True)
    client.logout()
    assert_type(client.sandbox_banner(), dict[str, Any] | None)
    assert_type(client.base_url, str)
    assert_type(client.credentials, Credentials)
    assert_type(client.token_store, Path | None)
    latch = assert_type(client.login_latch(), LatchState)
    assert_type(latch.latched, bool)
    assert_type(latch.refusals, int)
    assert_type(latch.unanswered, int)
    assert_type(latch.reason, str | None)
    client.reset_login_latch()
    for state in assert_type(client.token_states(), tuple[TokenState, ...]):
        assert_type(state.kind, str)
        assert_type(state.origin, Literal["given", "memory", "store"])
        assert_type(state.ends_at, float | None)
    client.close()
    with ThingSpaceClient() as other:
        assert_type(other, ThingSpaceClient)


# --- Calls, async ----------------------------------------------------------------------------------------------------


async def call_async(client: AsyncThingSpaceClient) -> None:
    """Make each of the calls."""
    assert_type(client.callbacks, AsyncSoftwareManagementCallbacksV2Controller)
    assert_type(client.software_management_callbacks_v2, AsyncSoftwareManagementCallbacksV2Controller)
    callbacks = client.callbacks
    options: CallOptions = {"timeout_seconds": 5}
    assert_type(await callbacks.list_registered_callbacks(ACCOUNT, **options), CallbackSummary)
    assert_type(await callbacks.register_callback(ACCOUNT, {"url": URL}), FotaV2CallbackRegistrationResult)
    body = FotaV2CallbackRegistrationRequest(url=URL)
    assert_type(await callbacks.update_callback(ACCOUNT, body, max_retries=0), FotaV2CallbackRegistrationResult)
    assert_type(await callbacks.deregister_callback(ACCOUNT, max_elapsed_seconds=7.5), FotaV2SuccessResult)


async def call_async_campaigns(client: AsyncThingSpaceClient) -> None:
    """Make the calls beside the callbacks."""
    campaigns = assert_type(client.campaigns_v2, AsyncCampaignsV2Controller)
    assert_type(await campaigns.schedule_campaign_firmware_upgrade(ACCOUNT, CAMPAIGN), dict[str, Any])
    assert_type(await campaigns.get_campaign_information(ACCOUNT, "campaign"), dict[str, Any])
    reports = assert_type(client.software_management_reports_v2, AsyncSoftwareManagementReportsV2Controller)
    assert_type(await reports.get_campaign_device_status(ACCOUNT, "campaign", None), dict[str, Any])
    assert_type(await reports.get_campaign_history_by_status(ACCOUNT, last_seen_campaign_id=None), dict[str, Any])
    assert_type(await reports.get_device_firmware_upgrade_history(ACCOUNT, "9900"), list[dict[str, Any]])


async def call_async_raw(client: AsyncThingSpaceClient) -> None:
    """Ask for the answer beside the result."""
    raw = client.callbacks.with_raw_response
    assert_type((await raw.list_registered_callbacks(ACCOUNT)).parsed, CallbackSummary)
    assert_type(await raw.register_callback(ACCOUNT, {"url": URL}), RawResponse[FotaV2CallbackRegistrationResult])
    assert_type(await raw.update_callback(ACCOUNT, {"url": URL}), RawResponse[FotaV2CallbackRegistrationResult])
    assert_type(await raw.deregister_callback(ACCOUNT), RawResponse[FotaV2SuccessResult])
    campaigns = client.campaigns_v2.with_raw_response
    assert_type(await campaigns.schedule_campaign_firmware_upgrade(ACCOUNT, CAMPAIGN), RawResponse[dict[str, Any]])
    assert_type(await campaigns.get_campaign_information(ACCOUNT, "campaign"), RawResponse[dict[str, Any]])
    reports = client.software_management_reports_v2.with_raw_response
    assert_type(await reports.get_campaign_device_status(ACCOUNT, "campaign"), RawResponse[dict[str, Any]])
    assert_type(await reports.get_campaign_history_by_status(ACCOUNT, "CampaignEnded"), RawResponse[dict[str, Any]])
    assert_type(await reports.get_device_firmware_upgrade_history(ACCOUNT, "9900"), RawResponse[list[dict[str, Any]]])


async def call_async_for_many(client: AsyncThingSpaceClient) -> None:
    """Call for many accounts at once."""
    found = await client.callbacks.list_many((ACCOUNT,), max_concurrency=4, on_result=progress, timeout_seconds=5)
    assert_type(found, list[AccountResult[CallbackSummary]])
    registered = await client.callbacks.register_many({ACCOUNT: {"url": URL}}, on_result=None)
    assert_type(registered, list[AccountResult[FotaV2CallbackRegistrationResult]])


async def look_after_async(client: AsyncThingSpaceClient) -> None:
    """Use what is there beside the calls."""
    await client.login()
    await client.login(fresh=True)
    await client.logout()
    assert_type(await client.sandbox_banner(), dict[str, Any] | None)
    assert_type(client.login_latch(), LatchState)
    assert_type(client.token_states(), tuple[TokenState, ...])
    client.reset_login_latch()
    await client.aclose()
    async with AsyncThingSpaceClient() as other:
        assert_type(other, AsyncThingSpaceClient)


# --- Errors ----------------------------------------------------------------------------------------------------------


def tell_errors_apart(client: ThingSpaceClient) -> str | None:
    """Tell the errors apart, the narrower ones first, and read the facts that all of them carry."""
    try:
        return client.callbacks.list_registered_callbacks(ACCOUNT).url
    except FotaV2ResultException as error:
        return f"{error.error_code} {error.error_message}"
    except AnsweredError as error:
        assert_type(error.status_code, int | None)
    except LoginLatchedError as error:
        assert_type(error.hint, str | None)
    except (CredentialsError, NoAnswerError, RequestNotSentError, UndecodableAnswerError) as error:
        assert_type(error.attempts, int)
        assert_type(error.elapsed_seconds, float)
    except ThingSpaceError as error:
        assert_type(error.operation, str | None)
        assert_type(error.request_id, str | None)
        assert_type(error.retry_after_seconds, float | None)
    except UpcallError as error:
        assert_type(error.message, str)
        assert_type(error.exit_code, int)
    return None


# --- What must not pass ----------------------------------------------------------------------------------------------


def misuse(client: ThingSpaceClient, event: CallEvent) -> None:
    """Make the slips that a checker is there to find."""
    client.callbacks.list_registered_callbacks(123456)  # type: ignore[arg-type]
    client.callbacks.list_registered_callbacks(None)  # type: ignore[arg-type]
    client.callbacks.list_registered_callbacks(ACCOUNT, timeout=5)  # type: ignore[call-arg]
    client.callbacks.list_registered_callbacks(ACCOUNT, timeout_seconds="5")  # type: ignore[arg-type]
    client.callbacks.with_raw_response.list_registered_callbacks(ACCOUNT, retries=1)  # type: ignore[call-arg]
    client.callbacks.register_callback(ACCOUNT)  # type: ignore[call-arg]
    client.callbacks.register_callback(ACCOUNT, URL)  # type: ignore[arg-type]
    client.callbacks.list_many(ACCOUNT, 8)  # type: ignore[call-arg]
    client.callbacks.list_many([123456])  # type: ignore[list-item]
    client.callbacks.register_many([ACCOUNT])  # type: ignore[arg-type]
    client.callbacks.list_callbacks(ACCOUNT)  # type: ignore[attr-defined]
    client.campaigns_v2.schedule_campaign_firmware_upgrade(ACCOUNT, "spring")  # type: ignore[arg-type]
    options: CallOptions = {"retries": 1}  # type: ignore[typeddict-unknown-key]
    print(options, event.kind == "send")  # type: ignore[comparison-overlap]


def misread(client: ThingSpaceClient) -> None:
    """Read what is not there, or may not be."""
    found = client.callbacks.list_registered_callbacks(ACCOUNT)
    print(found.urls)  # type: ignore[attr-defined]
    print(found.read_back)  # type: ignore[attr-defined]
    print(found.url.lower())  # type: ignore[union-attr]
    found.url = URL  # type: ignore[misc]
    print(client.callbacks.with_raw_response.list_registered_callbacks(ACCOUNT).url)  # type: ignore[attr-defined]
    print(client.callbacks.list_many([ACCOUNT])[0].result.url)  # type: ignore[union-attr]
    print(client.callbacks.list_many([ACCOUNT])[0].error.error_code)  # type: ignore[union-attr]
    print(client.transport)  # type: ignore[attr-defined]
    print(upcall.ThingspaceClient)  # type: ignore[attr-defined]
    print(upcall.client.CallEvents)  # type: ignore[attr-defined]


def make_wrongly(http: httpx2.Client, async_http: httpx2.AsyncClient, transport: httpx2.AsyncBaseTransport) -> None:
    """Make a client of what does not fit it."""
    ThingSpaceClient(CREDENTIALS)  # type: ignore[call-arg]
    ThingSpaceClient(retries=3)  # type: ignore[call-arg]
    ThingSpaceClient(timeout_seconds="10")  # type: ignore[arg-type]
    ThingSpaceClient(credentials="id:secret")  # type: ignore[arg-type]
    ThingSpaceClient(http_client=async_http)  # type: ignore[arg-type]
    ThingSpaceClient(transport=transport)  # type: ignore[arg-type]
    ThingSpaceClient(event_hooks=note)  # type: ignore[arg-type]
    ThingSpaceClient(event_hooks=[make_with_nothing])  # type: ignore[list-item]
    AsyncThingSpaceClient(http_client=http)  # type: ignore[arg-type]
    Credentials("id", "secret")  # type: ignore[call-arg]
    CREDENTIALS.password = "other"  # type: ignore[misc]


async def misuse_async(client: AsyncThingSpaceClient) -> None:
    """Forget to await, or mistake one client for the other."""
    print(client.callbacks.list_registered_callbacks(ACCOUNT).url)  # type: ignore[attr-defined]
    await client.callbacks.list_registered_callbacks(123456)  # type: ignore[arg-type]
    await client.callbacks.deregister_callback(ACCOUNT, timeout=5)  # type: ignore[call-arg]
    print((await client.callbacks.with_raw_response.deregister_callback(ACCOUNT)).success)  # type: ignore[attr-defined]
    client.close()  # type: ignore[attr-defined]
    call(client)  # type: ignore[arg-type]
