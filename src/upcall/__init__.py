"""Upcall: Software Management Callbacks V2 of Verizon ThingSpace, both ends.

Everything public stands here by name and is loaded at its first use: `import upcall` costs the names, not the rooms.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from upcall.version import __version__ as __version__

if TYPE_CHECKING:
    from upcall.app import Upcall
    from upcall.client import (
        AsyncSoftwareManagementCallbacksV2Controller,
        AsyncThingSpaceClient,
        SoftwareManagementCallbacksV2Controller,
        ThingSpaceClient,
    )
    from upcall.errors import (
        AnsweredError,
        CredentialsError,
        FotaV2ResultException,
        LoginLatchedError,
        NoAnswerError,
        RequestNotSentError,
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
    "AnsweredError",
    "AsyncSoftwareManagementCallbacksV2Controller",
    "AsyncThingSpaceClient",
    "CallbackEvent",
    "CallbackSummary",
    "Credentials",
    "CredentialsError",
    "DeviceUpdate",
    "FotaV2CallbackRegistrationRequest",
    "FotaV2CallbackRegistrationResult",
    "FotaV2ResultException",
    "FotaV2SuccessResult",
    "LoginLatchedError",
    "NoAnswerError",
    "RequestNotSentError",
    "SoftwareManagementCallbacksV2Controller",
    "ThingSpaceClient",
    "ThingSpaceError",
    "UndecodableAnswerError",
    "Upcall",
    "UpcallError",
    "parse_callback",
]

_ROOMS = {
    "upcall.app": ("Upcall",),
    "upcall.client": (
        "AsyncSoftwareManagementCallbacksV2Controller",
        "AsyncThingSpaceClient",
        "SoftwareManagementCallbacksV2Controller",
        "ThingSpaceClient",
    ),
    "upcall.errors": (
        "AnsweredError",
        "CredentialsError",
        "FotaV2ResultException",
        "LoginLatchedError",
        "NoAnswerError",
        "RequestNotSentError",
        "ThingSpaceError",
        "UndecodableAnswerError",
        "UpcallError",
    ),
    "upcall.settings": ("Credentials",),
    "upcall.thingspace": (
        "CallbackEvent",
        "CallbackSummary",
        "DeviceUpdate",
        "FotaV2CallbackRegistrationRequest",
        "FotaV2CallbackRegistrationResult",
        "FotaV2SuccessResult",
        "parse_callback",
    ),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    room = _ROOM_OF.get(name)
    if room is None:
        raise AttributeError(f"module 'upcall' has no attribute {name!r}")
    value = getattr(import_module(room), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
