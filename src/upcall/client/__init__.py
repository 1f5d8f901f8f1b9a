"""Call ThingSpace: operations as data, two tokens, retries, one exchange, sync and async."""

from upcall.client.client import AsyncThingSpaceClient, ThingSpaceClient
from upcall.client.controllers import (
    AsyncCampaignsV2Controller,
    AsyncSoftwareManagementCallbacksV2Controller,
    AsyncSoftwareManagementReportsV2Controller,
    CampaignsV2Controller,
    SoftwareManagementCallbacksV2Controller,
    SoftwareManagementReportsV2Controller,
)
from upcall.client.latch import LatchState
from upcall.client.retry import RetryPolicy

__all__ = [
    "AsyncCampaignsV2Controller",
    "AsyncSoftwareManagementCallbacksV2Controller",
    "AsyncSoftwareManagementReportsV2Controller",
    "AsyncThingSpaceClient",
    "CampaignsV2Controller",
    "LatchState",
    "RetryPolicy",
    "SoftwareManagementCallbacksV2Controller",
    "SoftwareManagementReportsV2Controller",
    "ThingSpaceClient",
]
