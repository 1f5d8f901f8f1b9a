"""What a caller calls: the provider's operations under the official SDK's names, once for threads, once for asyncio.

Each method hands on one `Call` of `operations`, where the thinking is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from upcall.client import operations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upcall.client.operations import Call
    from upcall.thingspace import (
        CallbackSummary,
        FotaV2CallbackRegistrationRequest,
        FotaV2CallbackRegistrationResult,
        FotaV2SuccessResult,
    )

__all__ = [
    "AsyncCampaignsV2Controller",
    "AsyncSoftwareManagementCallbacksV2Controller",
    "AsyncSoftwareManagementReportsV2Controller",
    "CampaignsV2Controller",
    "SoftwareManagementCallbacksV2Controller",
    "SoftwareManagementReportsV2Controller",
]

T = TypeVar("T")


class _Caller(Protocol):
    def __call__(self, call: Call[T], /) -> T: ...


class _AsyncCaller(Protocol):
    async def __call__(self, call: Call[T], /) -> T: ...


class SoftwareManagementCallbacksV2Controller:
    """Read and write which URL receives an account's callbacks.

    An account has one listener: whoever registers last takes it, silently. All four operations are safe to repeat,
    and are repeated, within the client's budget, after an error that may pass.

    Source: official SDK, ``SoftwareManagementCallbacksV2Controller`` (documented).
    """

    def __init__(self, call: _Caller, *, allow_http: bool = False) -> None:
        self._call = call
        self._allow_http = allow_http

    def list_registered_callbacks(self, account: str) -> CallbackSummary:
        """Read which URL is registered.

        Args:
            account: The billing account's name, such as ``0000123456-00001``.

        Returns:
            The registered URL; its `url` is None where none is registered.

        Raises:
            TypeError: The account is not a string.
            ValueError: The account cannot be one.
            FotaV2ResultException: ThingSpace answered 400.
            ThingSpaceError: Anything else that went wrong on the way; see `upcall.errors`.

        Source: that an empty answer means none is documented of V1 and V3 (inferred).
        """
        return self._call(operations.list_registered_callbacks(account))

    def update_callback(
        self, account: str, body: FotaV2CallbackRegistrationRequest | Mapping[str, Any]
    ) -> FotaV2CallbackRegistrationResult:
        """Replace the registered URL.

        Args:
            account: The billing account's name.
            body: The new URL, as a `FotaV2CallbackRegistrationRequest` or ``{"url": …}``.

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
        return self._call(operations.update_callback(account, body, allow_http=self._allow_http))

    def register_callback(
        self, account: str, body: FotaV2CallbackRegistrationRequest | Mapping[str, Any]
    ) -> FotaV2CallbackRegistrationResult:
        """Register a URL, in place of any other.

        Args:
            account: The billing account's name.
            body: The URL, as a `FotaV2CallbackRegistrationRequest` or ``{"url": …}``.

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
        return self._call(operations.register_callback(account, body, allow_http=self._allow_http))

    def deregister_callback(self, account: str) -> FotaV2SuccessResult:
        """Remove the registered URL; callbacks sent from then on are lost.

        Args:
            account: The billing account's name.

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
        return self._call(operations.deregister_callback(account))


class AsyncSoftwareManagementCallbacksV2Controller:
    """Read and write which URL receives an account's callbacks, in asyncio.

    The same names, arguments, results and errors as `SoftwareManagementCallbacksV2Controller`.
    """

    def __init__(self, call: _AsyncCaller, *, allow_http: bool = False) -> None:
        self._call = call
        self._allow_http = allow_http

    async def list_registered_callbacks(self, account: str) -> CallbackSummary:
        """Read which URL is registered; see `SoftwareManagementCallbacksV2Controller`."""
        return await self._call(operations.list_registered_callbacks(account))

    async def update_callback(
        self, account: str, body: FotaV2CallbackRegistrationRequest | Mapping[str, Any]
    ) -> FotaV2CallbackRegistrationResult:
        """Replace the registered URL; see `SoftwareManagementCallbacksV2Controller`."""
        return await self._call(operations.update_callback(account, body, allow_http=self._allow_http))

    async def register_callback(
        self, account: str, body: FotaV2CallbackRegistrationRequest | Mapping[str, Any]
    ) -> FotaV2CallbackRegistrationResult:
        """Register a URL, in place of any other; see `SoftwareManagementCallbacksV2Controller`."""
        return await self._call(operations.register_callback(account, body, allow_http=self._allow_http))

    async def deregister_callback(self, account: str) -> FotaV2SuccessResult:
        """Remove the registered URL; see `SoftwareManagementCallbacksV2Controller`."""
        return await self._call(operations.deregister_callback(account))


class CampaignsV2Controller:
    """Schedule and read campaigns, as plain decoded objects.

    Source: official SDK, ``CampaignsV2Controller`` (documented).
    """

    def __init__(self, call: _Caller) -> None:
        self._call = call

    def schedule_campaign_firmware_upgrade(self, account: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Schedule a campaign. Doing it twice makes two, so it is not repeated once it may have been received.

        Args:
            account: The billing account's name.
            body: The campaign, in the provider's spelling.

        Returns:
            The campaign, with its ``id``.

        Raises:
            FotaV2ResultException: ThingSpace answered 400.
            ThingSpaceError: Anything else that went wrong; see `upcall.errors`.

        Source: "Schedule an upgrade V2" (documented).
        """
        return self._call(operations.schedule_campaign_firmware_upgrade(account, body))

    def get_campaign_information(self, account: str, campaign_id: str) -> dict[str, Any]:
        """Read a campaign.

        Args:
            account: The billing account's name.
            campaign_id: What scheduling returned as ``id``.

        Raises:
            FotaV2ResultException: ThingSpace answered 400.
            ThingSpaceError: Anything else that went wrong; see `upcall.errors`.

        Source: "Get upgrade information V2" (documented).
        """
        return self._call(operations.get_campaign_information(account, campaign_id))


class AsyncCampaignsV2Controller:
    """Schedule and read campaigns in asyncio; see `CampaignsV2Controller`."""

    def __init__(self, call: _AsyncCaller) -> None:
        self._call = call

    async def schedule_campaign_firmware_upgrade(self, account: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Schedule a campaign; see `CampaignsV2Controller`."""
        return await self._call(operations.schedule_campaign_firmware_upgrade(account, body))

    async def get_campaign_information(self, account: str, campaign_id: str) -> dict[str, Any]:
        """Read a campaign; see `CampaignsV2Controller`."""
        return await self._call(operations.get_campaign_information(account, campaign_id))


class SoftwareManagementReportsV2Controller:
    """Read what became of devices, as plain decoded objects.

    Source: official SDK, ``SoftwareManagementReportsV2Controller`` (documented).
    """

    def __init__(self, call: _Caller) -> None:
        self._call = call

    def get_campaign_device_status(
        self, account: str, campaign_id: str, last_seen_device_id: str | None = None
    ) -> dict[str, Any]:
        """Read one page of the devices' states in a campaign.

        Args:
            account: The billing account's name.
            campaign_id: What scheduling returned as ``id``.
            last_seen_device_id: The page before's ``lastSeenDeviceId``, while it said ``hasMoreData``.

        Raises:
            FotaV2ResultException: ThingSpace answered 400.
            ThingSpaceError: Anything else that went wrong; see `upcall.errors`.

        Source: official SDK (documented); a page holds up to 1,000 devices.
        """
        return self._call(operations.get_campaign_device_status(account, campaign_id, last_seen_device_id))


class AsyncSoftwareManagementReportsV2Controller:
    """Read what became of devices in asyncio; see `SoftwareManagementReportsV2Controller`."""

    def __init__(self, call: _AsyncCaller) -> None:
        self._call = call

    async def get_campaign_device_status(
        self, account: str, campaign_id: str, last_seen_device_id: str | None = None
    ) -> dict[str, Any]:
        """Read one page of the devices' states; see `SoftwareManagementReportsV2Controller`."""
        return await self._call(operations.get_campaign_device_status(account, campaign_id, last_seen_device_id))
