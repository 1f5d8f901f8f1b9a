"""Uses of the client that must type-check strictly, and what comes out of each; read by checkers, never run."""

from datetime import timedelta
from typing import Any, assert_type

from upcall import (
    AccountResult,
    AsyncThingSpaceClient,
    CallbackSummary,
    CallEvent,
    CallOptions,
    Credentials,
    FotaV2CallbackRegistrationRequest,
    FotaV2CallbackRegistrationResult,
    FotaV2ResultException,
    FotaV2SuccessResult,
    NoAnswerError,
    RawResponse,
    ThingSpaceClient,
    ThingSpaceError,
)

ACCOUNT = "0000123456-00001"
URL = "https://fleet.example.com:50559/callbacks/TOKEN"


def told(event: CallEvent) -> None:
    assert_type(event.status, int | None)
    assert_type(event.headers, dict[str, str])


def sync() -> None:
    credentials = Credentials(client_id="i", client_secret="s", username="u", password="p")
    with ThingSpaceClient(
        credentials=credentials, timeout_seconds=5, max_retries=0, token_store=True, event_hooks=[told]
    ) as client:
        callbacks = client.software_management_callbacks_v2
        body = FotaV2CallbackRegistrationRequest(url=URL)
        assert_type(callbacks.list_registered_callbacks(ACCOUNT), CallbackSummary)
        assert_type(callbacks.list_registered_callbacks(ACCOUNT).url, str | None)
        assert_type(callbacks.register_callback(ACCOUNT, body), FotaV2CallbackRegistrationResult)
        assert_type(callbacks.update_callback(ACCOUNT, {"url": URL}, max_retries=1), FotaV2CallbackRegistrationResult)
        assert_type(callbacks.update_callback(ACCOUNT, body).read_back, bool)
        assert_type(callbacks.deregister_callback(ACCOUNT, timeout_seconds=1.5), FotaV2SuccessResult)

        raw = client.callbacks.with_raw_response.register_callback(ACCOUNT, body)
        assert_type(raw, RawResponse[FotaV2CallbackRegistrationResult])
        assert_type(raw.parsed.url, str)
        assert_type((raw.status, raw.request_id, raw.elapsed, raw.attempts), tuple[int, str | None, timedelta, int])

        results = client.callbacks.list_many([ACCOUNT], max_concurrency=4, on_result=lambda result: None)
        assert_type(results, list[AccountResult[CallbackSummary]])
        for one in results:
            if one.result is not None:
                assert_type(one.result.url, str | None)
        registered = client.callbacks.register_many({ACCOUNT: body, "other": {"url": URL}})
        assert_type(registered, list[AccountResult[FotaV2CallbackRegistrationResult]])

        options: CallOptions = {"timeout_seconds": 3.0, "max_elapsed_seconds": 10.0}
        assert_type(client.campaigns_v2.get_campaign_information(ACCOUNT, "id", **options), dict[str, Any])
        devices = client.software_management_reports_v2.get_campaign_device_status(ACCOUNT, "id", "0")
        assert_type(devices, dict[str, Any])
        client.login(fresh=True)
        assert_type([state.kind for state in client.token_states()], list[str])
        client.logout()


async def asynchronous() -> None:
    async with AsyncThingSpaceClient(environment="staging") as client:
        assert_type(await client.callbacks.list_registered_callbacks(ACCOUNT), CallbackSummary)
        assert_type(await client.callbacks.deregister_callback(ACCOUNT), FotaV2SuccessResult)
        raw = await client.callbacks.with_raw_response.list_registered_callbacks(ACCOUNT)
        assert_type(raw, RawResponse[CallbackSummary])
        assert_type(await client.callbacks.list_many([ACCOUNT]), list[AccountResult[CallbackSummary]])


def errors(client: ThingSpaceClient) -> str | None:
    try:
        client.callbacks.list_registered_callbacks(ACCOUNT)
    except FotaV2ResultException as error:
        assert_type(error.status_code, int | None)
        return error.error_code
    except NoAnswerError as error:
        return error.hint
    except ThingSpaceError as error:
        assert_type(error.retry_after_seconds, float | None)
        assert_type((error.attempts, error.elapsed_seconds), tuple[int, float])
    return None


def wrong(client: ThingSpaceClient) -> None:
    client.callbacks.list_registered_callbacks(242078689)  # type: ignore[arg-type]
    client.callbacks.list_registered_callbacks(ACCOUNT, timeout=5)  # type: ignore[call-arg]
    print(client.callbacks.list_registered_callbacks(ACCOUNT).uri)  # type: ignore[attr-defined]
    client.callbacks.register_callback(ACCOUNT)  # type: ignore[call-arg]
    client.callbacks.register_callback(ACCOUNT, URL)  # type: ignore[arg-type]
    ThingSpaceClient("https://host/api")  # type: ignore[call-arg, arg-type]
    ThingSpaceClient(max_retries="3")  # type: ignore[arg-type]
