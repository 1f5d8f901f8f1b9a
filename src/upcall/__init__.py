"""Upcall: Software Management Callbacks V2 of Verizon ThingSpace, both ends.

Everything public stands here by name and is loaded at its first use: `import upcall` costs the names, not the rooms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from upcall.lazy import lazy_names
from upcall.version import __version__ as __version__

if TYPE_CHECKING:
    from upcall.app import Upcall
    from upcall.client import (
        AccountResult,
        AsyncSoftwareManagementCallbacksV2Controller,
        AsyncThingSpaceClient,
        CallEvent,
        CallOptions,
        RawResponse,
        SoftwareManagementCallbacksV2Controller,
        ThingSpaceClient,
    )
    from upcall.dispatch import GiveUp, RetryLater
    from upcall.errors import (
        AnsweredError,
        CredentialsError,
        FotaV2ResultException,
        LoginLatchedError,
        NoAnswerError,
        RequestNotSentError,
        SettingsError,
        ThingSpaceError,
        UndecodableAnswerError,
        UpcallError,
    )
    from upcall.settings import Credentials
    from upcall.thingspace import (
        CallbackEvent,
        CallbackSummary,
        DeviceUpdate,
        FotaV2CallbackRegistrationRequest,
        FotaV2CallbackRegistrationResult,
        FotaV2SuccessResult,
        parse_callback,
    )

__all__ = [
    "AccountResult",
    "AnsweredError",
    "AsyncSoftwareManagementCallbacksV2Controller",
    "AsyncThingSpaceClient",
    "CallEvent",
    "CallOptions",
    "CallbackEvent",
    "CallbackSummary",
    "Credentials",
    "CredentialsError",
    "DeviceUpdate",
    "FotaV2CallbackRegistrationRequest",
    "FotaV2CallbackRegistrationResult",
    "FotaV2ResultException",
    "FotaV2SuccessResult",
    "GiveUp",
    "LoginLatchedError",
    "NoAnswerError",
    "RawResponse",
    "RequestNotSentError",
    "RetryLater",
    "SettingsError",
    "SoftwareManagementCallbacksV2Controller",
    "ThingSpaceClient",
    "ThingSpaceError",
    "UndecodableAnswerError",
    "Upcall",
    "UpcallError",
    "parse_callback",
]

_NAMES_OF = {
    "app": ("Upcall",),
    "client": (
        "AccountResult",
        "AsyncSoftwareManagementCallbacksV2Controller",
        "AsyncThingSpaceClient",
        "CallEvent",
        "CallOptions",
        "RawResponse",
        "SoftwareManagementCallbacksV2Controller",
        "ThingSpaceClient",
    ),
    "dispatch": ("GiveUp", "RetryLater"),
    "errors": (
        "AnsweredError",
        "CredentialsError",
        "FotaV2ResultException",
        "LoginLatchedError",
        "NoAnswerError",
        "RequestNotSentError",
        "SettingsError",
        "ThingSpaceError",
        "UndecodableAnswerError",
        "UpcallError",
    ),
    "settings": ("Credentials",),
    "thingspace": (
        "CallbackEvent",
        "CallbackSummary",
        "DeviceUpdate",
        "FotaV2CallbackRegistrationRequest",
        "FotaV2CallbackRegistrationResult",
        "FotaV2SuccessResult",
        "parse_callback",
    ),
}

if not TYPE_CHECKING:  # a checker that sees __getattr__ believes in every name
    __getattr__, __dir__ = lazy_names(__name__, _NAMES_OF)
