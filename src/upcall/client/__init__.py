"""Call ThingSpace: operations as data, two tokens, retries, one exchange, sync and async."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upcall.lazy import lazy_names

if TYPE_CHECKING:
    from upcall.client.async_controllers import (
        AsyncCampaignsV2Controller,
        AsyncSoftwareManagementCallbacksV2Controller,
        AsyncSoftwareManagementReportsV2Controller,
    )
    from upcall.client.authenticator import TokenState
    from upcall.client.client import AsyncThingSpaceClient, ThingSpaceClient
    from upcall.client.controllers import (
        CampaignsV2Controller,
        SoftwareManagementCallbacksV2Controller,
        SoftwareManagementReportsV2Controller,
    )
    from upcall.client.events import CallEvent, EventHook
    from upcall.client.latch import LatchState
    from upcall.client.many import AccountResult, OnResult
    from upcall.client.operations import RegistrationBody
    from upcall.client.raw import RawResponse
    from upcall.client.trip import CallOptions

__all__ = [
    "AccountResult",
    "AsyncCampaignsV2Controller",
    "AsyncSoftwareManagementCallbacksV2Controller",
    "AsyncSoftwareManagementReportsV2Controller",
    "AsyncThingSpaceClient",
    "CallEvent",
    "CallOptions",
    "CampaignsV2Controller",
    "EventHook",
    "LatchState",
    "OnResult",
    "RawResponse",
    "RegistrationBody",
    "SoftwareManagementCallbacksV2Controller",
    "SoftwareManagementReportsV2Controller",
    "ThingSpaceClient",
    "TokenState",
]

_NAMES_OF = {
    "async_controllers": (
        "AsyncCampaignsV2Controller",
        "AsyncSoftwareManagementCallbacksV2Controller",
        "AsyncSoftwareManagementReportsV2Controller",
    ),
    "authenticator": ("TokenState",),
    "client": ("AsyncThingSpaceClient", "ThingSpaceClient"),
    "controllers": (
        "CampaignsV2Controller",
        "SoftwareManagementCallbacksV2Controller",
        "SoftwareManagementReportsV2Controller",
    ),
    "events": ("CallEvent", "EventHook"),
    "latch": ("LatchState",),
    "many": ("AccountResult", "OnResult"),
    "operations": ("RegistrationBody",),
    "raw": ("RawResponse",),
    "trip": ("CallOptions",),
}

if not TYPE_CHECKING:  # a checker that sees __getattr__ believes in every name
    __getattr__, __dir__ = lazy_names(__name__, _NAMES_OF)
