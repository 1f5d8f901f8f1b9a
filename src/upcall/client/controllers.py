"""What a caller calls: the provider's operations under the official SDK's names.

Each method hands on one `Call` of `operations`, where the thinking is. A controller and its twin with raw responses
are one text: what differs is what a call returns.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, Unpack

from upcall.client import operations
from upcall.client.many import AccountResult, OnResult, account_work, body_work, run_many
from upcall.client.raw import RawResponse
from upcall.thingspace import CallbackSummary, FotaV2CallbackRegistrationResult, FotaV2SuccessResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from upcall.client.operations import Call, RegistrationBody
    from upcall.client.trip import CallOptions

__all__ = [
    "CampaignsV2Controller",
    "CampaignsV2WithRawResponse",
    "SoftwareManagementCallbacksV2Controller",
    "SoftwareManagementCallbacksV2WithRawResponse",
    "SoftwareManagementReportsV2Controller",
    "SoftwareManagementReportsV2WithRawResponse",
]

Summary = TypeVar("Summary")
Registration = TypeVar("Registration")
Success = TypeVar("Success")
Document = TypeVar("Document")
Documents = TypeVar("Documents")


class Caller(Protocol):
    """Make a call: `raw` returns a `RawResponse` in place of the result."""

    def __call__(self, call: Call[Any], options: CallOptions, /, *, raw: bool) -> Any: ...


class _Callbacks(Generic[Summary, Registration, Success]):
    def __init__(self, call: Caller, *, raw: bool = False, allow_http: bool = False) -> None:
        self._call = call
        self._raw = raw
        self._allow_http = allow_http

    def list_registered_callbacks(self, account: str, **options: Unpack[CallOptions]) -> Summary:
        """Read which URL is registered.

        Args:
            account: The billing account's name, such as ``0000123456-00001``.
            options: What this call sets for itself, see `CallOptions`.

        Returns:
            The registered URL; its `url` is None where none is registered.

        Raises:
            TypeError: The account is not a string.
            ValueError: The account cannot be one.
            FotaV2ResultException: ThingSpace answered 400.
            ThingSpaceError: Anything else that went wrong on the way; see `upcall.errors`.

        Source: that an empty answer means none is documented of V1 and V3 (inferred).
        """
        return self._call(operations.list_registered_callbacks(account), options, raw=self._raw)

    def update_callback(self, account: str, body: RegistrationBody, **options: Unpack[CallOptions]) -> Registration:
        """Replace the registered URL.

        Args:
            account: The billing account's name.
            body: The new URL, as a `FotaV2CallbackRegistrationRequest` or ``{"url": …}``.
            options: What this call sets for itself, see `CallOptions`.

        Returns:
            The URL that ThingSpace says it registered.

        Raises:
            TypeError: The account is not a string, or the body neither model nor dict.
            ValueError: The account cannot be one, or the URL is not https or names no host.
            FotaV2ResultException: ThingSpace answered 400.
            NoAnswerError: The request left and no answer came: read back what is registered.
            UndecodableAnswerError: ThingSpace answered 2xx without the documented result.
            ThingSpaceError: Anything else that went wrong on the way; see `upcall.errors`.

        Source: "Modify a callback listener URL V2" (documented).
        """
        return self._call(
            operations.update_callback(account, body, allow_http=self._allow_http), options, raw=self._raw
        )

    def register_callback(self, account: str, body: RegistrationBody, **options: Unpack[CallOptions]) -> Registration:
        """Register a URL, in place of any other.

        Args:
            account: The billing account's name.
            body: The URL, as a `FotaV2CallbackRegistrationRequest` or ``{"url": …}``.
            options: What this call sets for itself, see `CallOptions`.

        Returns:
            The URL that ThingSpace says it registered.

        Raises:
            TypeError: The account is not a string, or the body neither model nor dict.
            ValueError: The account cannot be one, or the URL is not https or names no host.
            FotaV2ResultException: ThingSpace answered 400.
            NoAnswerError: The request left and no answer came: read back what is registered.
            UndecodableAnswerError: ThingSpace answered 2xx without the documented result.
            ThingSpaceError: Anything else that went wrong on the way; see `upcall.errors`.

        Source: "Register a callback listener URL V2" (documented).
        """
        return self._call(
            operations.register_callback(account, body, allow_http=self._allow_http), options, raw=self._raw
        )

    def deregister_callback(self, account: str, **options: Unpack[CallOptions]) -> Success:
        """Remove the registered URL; callbacks sent from then on are lost.

        Args:
            account: The billing account's name.
            options: What this call sets for itself, see `CallOptions`.

        Returns:
            Whether ThingSpace says that it did; an empty 2xx says so too.

        Raises:
            TypeError: The account is not a string.
            ValueError: The account cannot be one.
            FotaV2ResultException: ThingSpace answered 400.
            NoAnswerError: The request left and no answer came: read back what is registered.
            UndecodableAnswerError: ThingSpace answered 2xx with something else.
            ThingSpaceError: Anything else that went wrong on the way; see `upcall.errors`.

        Source: "Deregister a callback listener" (documented).
        """
        return self._call(operations.deregister_callback(account), options, raw=self._raw)


class SoftwareManagementCallbacksV2WithRawResponse(
    _Callbacks[
        RawResponse[CallbackSummary], RawResponse[FotaV2CallbackRegistrationResult], RawResponse[FotaV2SuccessResult]
    ]
):
    """Make the same calls, and return the answer's status, headers and cost beside the result."""


class SoftwareManagementCallbacksV2Controller(
    _Callbacks[CallbackSummary, FotaV2CallbackRegistrationResult, FotaV2SuccessResult]
):
    """Read and write which URL receives an account's callbacks.

    An account has one listener: whoever registers last takes it, silently. All four operations are safe to repeat,
    and are repeated, within the client's budget, after an error that may pass.

    Source: official SDK, ``SoftwareManagementCallbacksV2Controller`` (documented).
    """

    @cached_property
    def with_raw_response(self) -> SoftwareManagementCallbacksV2WithRawResponse:
        """Return the same operations, each of which returns a `RawResponse`."""
        return SoftwareManagementCallbacksV2WithRawResponse(self._call, raw=True, allow_http=self._allow_http)

    def list_many(
        self,
        accounts: Iterable[str],
        *,
        max_concurrency: int = 8,
        on_result: OnResult | None = None,
        **options: Unpack[CallOptions],
    ) -> list[AccountResult[CallbackSummary]]:
        """Read which URL is registered for each of many accounts. One error does not stop the rest.

        Args:
            accounts: The accounts.
            max_concurrency: How many calls at once, 1 or more.
            on_result: Called with each result as it comes, in any order.
            options: What each call sets for itself, see `CallOptions`.

        Returns:
            A result an account, in the order given.

        Raises:
            SettingsError: No call can be made at all, because credentials are missing.
            TypeError: The accounts are no iterable of them, or there is no such option.
            ValueError: A number is out of its range.
        """
        work = account_work(self.list_registered_callbacks, accounts, options)
        return run_many(work, max_concurrency=max_concurrency, on_result=on_result)

    def register_many(
        self,
        bodies: Mapping[str, RegistrationBody],
        *,
        max_concurrency: int = 8,
        on_result: OnResult | None = None,
        **options: Unpack[CallOptions],
    ) -> list[AccountResult[FotaV2CallbackRegistrationResult]]:
        """Register a URL for each of many accounts, in place of any other. One error does not stop the rest.

        Args:
            bodies: For each account what `register_callback` takes.
            max_concurrency: How many calls at once, 1 or more.
            on_result: Called with each result as it comes, in any order.
            options: What each call sets for itself, see `CallOptions`.

        Returns:
            A result an account, in the order given.

        Raises:
            SettingsError: No call can be made at all, because credentials are missing.
            TypeError: The accounts are no iterable of them, or there is no such option.
            ValueError: A number is out of its range.
        """
        work = body_work(self.register_callback, bodies, options)
        return run_many(work, max_concurrency=max_concurrency, on_result=on_result)


class _Campaigns(Generic[Document]):
    def __init__(self, call: Caller, *, raw: bool = False) -> None:
        self._call = call
        self._raw = raw

    def schedule_campaign_firmware_upgrade(
        self, account: str, body: Mapping[str, Any], **options: Unpack[CallOptions]
    ) -> Document:
        """Schedule a campaign. Doing it twice makes two, so it is not repeated once it may have been received.

        Args:
            account: The billing account's name.
            body: The campaign, in the provider's spelling.
            options: What this call sets for itself, see `CallOptions`.

        Returns:
            The campaign, with its ``id``.

        Raises:
            FotaV2ResultException: ThingSpace answered 400.
            ThingSpaceError: Anything else that went wrong; see `upcall.errors`.

        Source: "Schedule an upgrade V2" (documented).
        """
        return self._call(operations.schedule_campaign_firmware_upgrade(account, body), options, raw=self._raw)

    def get_campaign_information(self, account: str, campaign_id: str, **options: Unpack[CallOptions]) -> Document:
        """Read a campaign.

        Args:
            account: The billing account's name.
            campaign_id: What scheduling returned as ``id``.
            options: What this call sets for itself, see `CallOptions`.

        Raises:
            FotaV2ResultException: ThingSpace answered 400.
            ThingSpaceError: Anything else that went wrong; see `upcall.errors`.

        Source: "Get upgrade information V2" (documented).
        """
        return self._call(operations.get_campaign_information(account, campaign_id), options, raw=self._raw)


class CampaignsV2WithRawResponse(_Campaigns[RawResponse[dict[str, Any]]]):
    """Make the same calls, and return the answer's status, headers and cost beside the result."""


class CampaignsV2Controller(_Campaigns[dict[str, Any]]):
    """Schedule and read campaigns, as plain decoded objects.

    Source: official SDK, ``CampaignsV2Controller`` (documented).
    """

    @cached_property
    def with_raw_response(self) -> CampaignsV2WithRawResponse:
        """Return the same operations, each of which returns a `RawResponse`."""
        return CampaignsV2WithRawResponse(self._call, raw=True)


class _Reports(Generic[Document, Documents]):
    def __init__(self, call: Caller, *, raw: bool = False) -> None:
        self._call = call
        self._raw = raw

    def get_campaign_device_status(
        self, account: str, campaign_id: str, last_seen_device_id: str | None = None, **options: Unpack[CallOptions]
    ) -> Document:
        """Read one page of the devices' states in a campaign.

        Args:
            account: The billing account's name.
            campaign_id: What scheduling returned as ``id``.
            last_seen_device_id: The page before's ``lastSeenDeviceId``, while it said ``hasMoreData``.
            options: What this call sets for itself, see `CallOptions`.

        Raises:
            FotaV2ResultException: ThingSpace answered 400.
            ThingSpaceError: Anything else that went wrong; see `upcall.errors`.

        Source: official SDK (documented); a page holds up to 1,000 devices.
        """
        return self._call(
            operations.get_campaign_device_status(account, campaign_id, last_seen_device_id), options, raw=self._raw
        )

    def get_campaign_history_by_status(
        self,
        account: str,
        campaign_status: str | None = None,
        last_seen_campaign_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Document:
        """Read one page of an account's campaigns.

        Args:
            account: The billing account's name.
            campaign_status: Only campaigns in this state, such as ``CampaignScheduled``. The SDK asks for one always;
                whether ThingSpace answers without is unknown.
            last_seen_campaign_id: The page before's ``lastSeenCampaignId``, while it said ``hasMoreData``.
            options: What this call sets for itself, see `CallOptions`.

        Returns:
            The page; its ``campaignList`` may be None, and it may be empty.

        Raises:
            FotaV2ResultException: ThingSpace answered 400.
            ThingSpaceError: Anything else that went wrong; see `upcall.errors`.

        Source: official SDK (documented).
        """
        return self._call(
            operations.get_campaign_history_by_status(account, campaign_status, last_seen_campaign_id),
            options,
            raw=self._raw,
        )

    def get_device_firmware_upgrade_history(
        self, account: str, device_id: str, **options: Unpack[CallOptions]
    ) -> Documents:
        """Read which campaigns a device was in, and where it stands in each.

        Args:
            account: The billing account's name.
            device_id: The device's IMEI; logs and hooks show its last four digits.
            options: What this call sets for itself, see `CallOptions`.

        Returns:
            An entry a campaign.

        Raises:
            FotaV2ResultException: ThingSpace answered 400.
            ThingSpaceError: Anything else that went wrong; see `upcall.errors`.

        Source: official SDK (documented).
        """
        return self._call(operations.get_device_firmware_upgrade_history(account, device_id), options, raw=self._raw)


class SoftwareManagementReportsV2WithRawResponse(
    _Reports[RawResponse[dict[str, Any]], RawResponse[list[dict[str, Any]]]]
):
    """Make the same calls, and return the answer's status, headers and cost beside the result."""


class SoftwareManagementReportsV2Controller(_Reports[dict[str, Any], list[dict[str, Any]]]):
    """Read what became of devices, as plain decoded objects.

    Source: official SDK, ``SoftwareManagementReportsV2Controller`` (documented).
    """

    @cached_property
    def with_raw_response(self) -> SoftwareManagementReportsV2WithRawResponse:
        """Return the same operations, each of which returns a `RawResponse`."""
        return SoftwareManagementReportsV2WithRawResponse(self._call, raw=True)
