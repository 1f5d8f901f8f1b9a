"""The provider's contract: pure values, no I/O."""

from upcall.thingspace.accounts import check_account, check_callback_url, is_loopback_host
from upcall.thingspace.callbacks import parse_callback, peek_account
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
    "ProviderTime",
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
