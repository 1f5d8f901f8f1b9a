"""The provider's contract: pure values, no I/O.

A name is loaded at its first use: a client that checks an account does not pay for the parser of callbacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from upcall.lazy import lazy_names

if TYPE_CHECKING:
    from upcall.thingspace.accounts import check_account, check_callback_url, is_loopback_host
    from upcall.thingspace.callbacks import parse_callback
    from upcall.thingspace.environments import (
        CALLBACK_PORTS,
        CALLBACK_SOURCES,
        ENVIRONMENTS,
        PRODUCTION,
        DatedList,
        Environment,
    )
    from upcall.thingspace.events import (
        CALLBACK_KINDS,
        AvailableSoftware,
        CallbackEvent,
        DeviceUpdate,
        normalize_kind,
    )
    from upcall.thingspace.messages import callback_body
    from upcall.thingspace.peeking import peek_account
    from upcall.thingspace.profiles import PROFILES, Profile
    from upcall.thingspace.registration import (
        CallbackSummary,
        FotaV2CallbackRegistrationRequest,
        FotaV2CallbackRegistrationResult,
        FotaV2SuccessResult,
    )
    from upcall.thingspace.statuses import (
        CampaignState,
        DeviceState,
        campaign_rank,
        campaign_transitions,
        device_rank,
        device_transitions,
        is_final_campaign,
        is_final_device,
        is_known_device_word,
        normalize_campaign,
        normalize_device,
    )
    from upcall.thingspace.times import ProviderTime, parse_time, text_of_micros

__all__ = [
    "CALLBACK_KINDS",
    "CALLBACK_PORTS",
    "CALLBACK_SOURCES",
    "ENVIRONMENTS",
    "PRODUCTION",
    "PROFILES",
    "AvailableSoftware",
    "CallbackEvent",
    "CallbackSummary",
    "CampaignState",
    "DatedList",
    "DeviceState",
    "DeviceUpdate",
    "Environment",
    "FotaV2CallbackRegistrationRequest",
    "FotaV2CallbackRegistrationResult",
    "FotaV2SuccessResult",
    "Profile",
    "ProviderTime",
    "callback_body",
    "campaign_rank",
    "campaign_transitions",
    "check_account",
    "check_callback_url",
    "device_rank",
    "device_transitions",
    "is_final_campaign",
    "is_final_device",
    "is_known_device_word",
    "is_loopback_host",
    "normalize_campaign",
    "normalize_device",
    "normalize_kind",
    "parse_callback",
    "parse_time",
    "peek_account",
    "text_of_micros",
]

_NAMES_OF = {
    "accounts": (
        "check_account",
        "check_callback_url",
        "is_loopback_host",
    ),
    "callbacks": ("parse_callback",),
    "environments": (
        "CALLBACK_PORTS",
        "CALLBACK_SOURCES",
        "ENVIRONMENTS",
        "PRODUCTION",
        "DatedList",
        "Environment",
    ),
    "events": (
        "CALLBACK_KINDS",
        "AvailableSoftware",
        "CallbackEvent",
        "DeviceUpdate",
        "normalize_kind",
    ),
    "messages": ("callback_body",),
    "peeking": ("peek_account",),
    "profiles": ("PROFILES", "Profile"),
    "registration": (
        "CallbackSummary",
        "FotaV2CallbackRegistrationRequest",
        "FotaV2CallbackRegistrationResult",
        "FotaV2SuccessResult",
    ),
    "statuses": (
        "CampaignState",
        "DeviceState",
        "campaign_rank",
        "campaign_transitions",
        "device_rank",
        "device_transitions",
        "is_final_campaign",
        "is_final_device",
        "is_known_device_word",
        "normalize_campaign",
        "normalize_device",
    ),
    "times": (
        "ProviderTime",
        "parse_time",
        "text_of_micros",
    ),
}

if not TYPE_CHECKING:  # a checker that sees __getattr__ believes in every name
    __getattr__, __dir__ = lazy_names(__name__, _NAMES_OF)
