"""The bodies of the four callback operations, under the names of the official SDK."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = [
    "CallbackSummary",
    "FotaV2CallbackRegistrationRequest",
    "FotaV2CallbackRegistrationResult",
    "FotaV2SuccessResult",
]


class FotaV2CallbackRegistrationRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Ask ThingSpace to send an account's callbacks to a URL.

    Args:
        url: The listener's https URL.

    Source: official SDK, ``FotaV2CallbackRegistrationRequest`` (documented).
    """

    url: str


class FotaV2CallbackRegistrationResult(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """Hold the URL that ThingSpace says it registered.

    Args:
        url: The listener's URL.
        extra: Whatever else the answer held.
        read_back: Whether an answer to this write was lost, and what is registered was read before going on.

    Source: official SDK, ``FotaV2CallbackRegistrationResult`` (documented).
    """

    url: str
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    read_back: bool = False


class CallbackSummary(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """Hold the URL that is registered for an account.

    Args:
        url: The listener's URL, None where none is registered.
        extra: Whatever else the answer held.

    Source: official SDK, ``CallbackSummary`` (documented).
    """

    url: str | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)


class FotaV2SuccessResult(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """Hold whether ThingSpace says that it did what was asked.

    Args:
        success: What the answer said.
        extra: Whatever else the answer held.
        read_back: Whether an answer to this write was lost, and what is registered was read before going on.

    Source: official SDK, ``FotaV2SuccessResult`` (documented).
    """

    success: bool
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    read_back: bool = False
