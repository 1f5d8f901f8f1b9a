"""Call ThingSpace: operations as data, two tokens, retries, one exchange, sync and async."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    from upcall.client.many import AccountResult
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
    "RawResponse",
    "SoftwareManagementCallbacksV2Controller",
    "SoftwareManagementReportsV2Controller",
    "ThingSpaceClient",
    "TokenState",
]

_MODULES = {
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
    "many": ("AccountResult",),
    "raw": ("RawResponse",),
    "trip": ("CallOptions",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'upcall.client' has no attribute {name!r}")
    value = getattr(import_module(f"upcall.client.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
