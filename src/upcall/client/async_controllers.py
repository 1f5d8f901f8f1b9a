"""What a caller calls in asyncio: the same names, arguments, results and errors as in `controllers`.

A method checks its arguments and sends nothing until it is awaited.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, Unpack

from upcall.client import operations
from upcall.client.many import AccountResult, OnResult, account_work, body_work, run_many_async
from upcall.client.raw import RawResponse
from upcall.thingspace import CallbackSummary, FotaV2CallbackRegistrationResult, FotaV2SuccessResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from upcall.client.operations import Call, RegistrationBody
    from upcall.client.trip import CallOptions

__all__ = [
    "AsyncCampaignsV2Controller",
    "AsyncCampaignsV2WithRawResponse",
    "AsyncSoftwareManagementCallbacksV2Controller",
    "AsyncSoftwareManagementCallbacksV2WithRawResponse",
    "AsyncSoftwareManagementReportsV2Controller",
    "AsyncSoftwareManagementReportsV2WithRawResponse",
]

Summary = TypeVar("Summary")
Registration = TypeVar("Registration")
Success = TypeVar("Success")
Document = TypeVar("Document")
Documents = TypeVar("Documents")


class AsyncCaller(Protocol):
    """Make a call: `raw` returns a `RawResponse` in place of the result."""

    async def __call__(self, call: Call[Any], options: CallOptions, /, *, raw: bool) -> Any: ...


class _Callbacks(Generic[Summary, Registration, Success]):
    def __init__(self, call: AsyncCaller, *, raw: bool = False, allow_http: bool = False) -> None:
        self._call = call
        self._raw = raw
        self._allow_http = allow_http

    async def list_registered_callbacks(self, account: str, **options: Unpack[CallOptions]) -> Summary:
        """Read which URL is registered; see `SoftwareManagementCallbacksV2Controller`."""
        return await self._call(operations.list_registered_callbacks(account), options, raw=self._raw)

    async def update_callback(
        self, account: str, body: RegistrationBody, **options: Unpack[CallOptions]
    ) -> Registration:
        """Replace the registered URL; see `SoftwareManagementCallbacksV2Controller`."""
        return await self._call(
            operations.update_callback(account, body, allow_http=self._allow_http), options, raw=self._raw
        )

    async def register_callback(
        self, account: str, body: RegistrationBody, **options: Unpack[CallOptions]
    ) -> Registration:
        """Register a URL, in place of any other; see `SoftwareManagementCallbacksV2Controller`."""
        return await self._call(
            operations.register_callback(account, body, allow_http=self._allow_http), options, raw=self._raw
        )

    async def deregister_callback(self, account: str, **options: Unpack[CallOptions]) -> Success:
        """Remove the registered URL; see `SoftwareManagementCallbacksV2Controller`."""
        return await self._call(operations.deregister_callback(account), options, raw=self._raw)


class AsyncSoftwareManagementCallbacksV2WithRawResponse(
    _Callbacks[
        RawResponse[CallbackSummary], RawResponse[FotaV2CallbackRegistrationResult], RawResponse[FotaV2SuccessResult]
    ]
):
    """Make the same calls, and return the answer's status, headers and cost beside the result."""


class AsyncSoftwareManagementCallbacksV2Controller(
    _Callbacks[CallbackSummary, FotaV2CallbackRegistrationResult, FotaV2SuccessResult]
):
    """Read and write which URL receives an account's callbacks; see `SoftwareManagementCallbacksV2Controller`."""

    @cached_property
    def with_raw_response(self) -> AsyncSoftwareManagementCallbacksV2WithRawResponse:
        """Return the same operations, each of which returns a `RawResponse`."""
        return AsyncSoftwareManagementCallbacksV2WithRawResponse(self._call, raw=True, allow_http=self._allow_http)

    async def list_many(
        self,
        accounts: Iterable[str],
        *,
        max_concurrency: int = 8,
        on_result: OnResult | None = None,
        **options: Unpack[CallOptions],
    ) -> list[AccountResult[CallbackSummary]]:
        """Read which URL is registered for each of many accounts; see `SoftwareManagementCallbacksV2Controller`."""
        work = account_work(self.list_registered_callbacks, accounts, options)
        return await run_many_async(work, max_concurrency=max_concurrency, on_result=on_result)

    async def register_many(
        self,
        bodies: Mapping[str, RegistrationBody],
        *,
        max_concurrency: int = 8,
        on_result: OnResult | None = None,
        **options: Unpack[CallOptions],
    ) -> list[AccountResult[FotaV2CallbackRegistrationResult]]:
        """Register a URL for each of many accounts; see `SoftwareManagementCallbacksV2Controller`."""
        work = body_work(self.register_callback, bodies, options)
        return await run_many_async(work, max_concurrency=max_concurrency, on_result=on_result)


class _Campaigns(Generic[Document]):
    def __init__(self, call: AsyncCaller, *, raw: bool = False) -> None:
        self._call = call
        self._raw = raw

    async def schedule_campaign_firmware_upgrade(
        self, account: str, body: Mapping[str, Any], **options: Unpack[CallOptions]
    ) -> Document:
        """Schedule a campaign; see `CampaignsV2Controller`."""
        return await self._call(operations.schedule_campaign_firmware_upgrade(account, body), options, raw=self._raw)

    async def get_campaign_information(
        self, account: str, campaign_id: str, **options: Unpack[CallOptions]
    ) -> Document:
        """Read a campaign; see `CampaignsV2Controller`."""
        return await self._call(operations.get_campaign_information(account, campaign_id), options, raw=self._raw)


class AsyncCampaignsV2WithRawResponse(_Campaigns[RawResponse[dict[str, Any]]]):
    """Make the same calls, and return the answer's status, headers and cost beside the result."""


class AsyncCampaignsV2Controller(_Campaigns[dict[str, Any]]):
    """Schedule and read campaigns; see `CampaignsV2Controller`."""

    @cached_property
    def with_raw_response(self) -> AsyncCampaignsV2WithRawResponse:
        """Return the same operations, each of which returns a `RawResponse`."""
        return AsyncCampaignsV2WithRawResponse(self._call, raw=True)


class _Reports(Generic[Document, Documents]):
    def __init__(self, call: AsyncCaller, *, raw: bool = False) -> None:
        self._call = call
        self._raw = raw

    async def get_campaign_device_status(
        self, account: str, campaign_id: str, last_seen_device_id: str | None = None, **options: Unpack[CallOptions]
    ) -> Document:
        """Read one page of the devices' states in a campaign; see `SoftwareManagementReportsV2Controller`."""
        return await self._call(
            operations.get_campaign_device_status(account, campaign_id, last_seen_device_id), options, raw=self._raw
        )

    async def get_campaign_history_by_status(
        self,
        account: str,
        campaign_status: str | None = None,
        last_seen_campaign_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Document:
        """Read one page of an account's campaigns; see `SoftwareManagementReportsV2Controller`."""
        return await self._call(
            operations.get_campaign_history_by_status(account, campaign_status, last_seen_campaign_id),
            options,
            raw=self._raw,
        )

    async def get_device_firmware_upgrade_history(
        self, account: str, device_id: str, **options: Unpack[CallOptions]
    ) -> Documents:
        """Read which campaigns a device was in; see `SoftwareManagementReportsV2Controller`."""
        return await self._call(
            operations.get_device_firmware_upgrade_history(account, device_id), options, raw=self._raw
        )


class AsyncSoftwareManagementReportsV2WithRawResponse(
    _Reports[RawResponse[dict[str, Any]], RawResponse[list[dict[str, Any]]]]
):
    """Make the same calls, and return the answer's status, headers and cost beside the result."""


class AsyncSoftwareManagementReportsV2Controller(_Reports[dict[str, Any], list[dict[str, Any]]]):
    """Read what became of devices; see `SoftwareManagementReportsV2Controller`."""

    @cached_property
    def with_raw_response(self) -> AsyncSoftwareManagementReportsV2WithRawResponse:
        """Return the same operations, each of which returns a `RawResponse`."""
        return AsyncSoftwareManagementReportsV2WithRawResponse(self._call, raw=True)
