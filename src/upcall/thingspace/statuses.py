"""The vocabularies of campaign and device states, and which state may follow which.

The provider writes one state in several ways (``Queued``, ``CampaignQueued``, ``CampaignRequestQueued``). A
normalised state makes them one; a word that nobody documented stays the text it is.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import Final

__all__ = [
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
]


class CampaignState(StrEnum):
    """Name the states of a campaign, in the words of the V2 pages.

    Source: "Schedule an upgrade V2", "Get upgrade information V2", campaign lifecycle V1 to V3 (documented).
    """

    REQUEST_PENDING = "CampaignRequestPending"
    REQUEST_FAILED = "CampaignRequestFailed"
    QUEUED = "CampaignQueued"
    PRE_SCHEDULED = "CampaignPreScheduled"
    SCHEDULED = "CampaignScheduled"
    IN_PROGRESS = "InProgress"
    FAILED = "CampaignFailed"
    ENDED = "CampaignEnded"
    CANCELLED = "CampaignCancelled"
    ABORTED = "CampaignAborted"


class DeviceState(StrEnum):
    """Name the states of a device in a campaign, in the words of the V2 pages.

    Source: campaign lifecycle V2 and V3 (documented).
    """

    ACCEPTED = "Accepted"
    REQUEST_FAILED = "RequestToFotaServerFailed"
    NO_DATA_FROM_NETWORK = "NoDeviceDataFromNetwork"
    DATA_FROM_NETWORK = "ReceivedDeviceDataFromNetwork"
    UPGRADE_SCHEDULED = "UpgradeScheduled"
    UPGRADE_PENDING = "UpgradePending"
    REJECTED = "DeviceRejected"
    UPGRADE_FAILED = "UpgradeFailed"
    UPGRADE_SUCCESS = "UpgradeSuccess"
    CANCELLED = "CampaignCancelled"
    ABORTED = "CampaignAborted"


_CAMPAIGN_STEPS: Final = (
    (CampaignState.REQUEST_PENDING,),
    (CampaignState.QUEUED,),
    (CampaignState.PRE_SCHEDULED,),
    (CampaignState.SCHEDULED,),
    (CampaignState.IN_PROGRESS,),
)
_CAMPAIGN_FINAL: Final = (
    CampaignState.REQUEST_FAILED,
    CampaignState.FAILED,
    CampaignState.ENDED,
    CampaignState.CANCELLED,
    CampaignState.ABORTED,
)
_DEVICE_STEPS: Final = (
    (DeviceState.ACCEPTED,),
    (DeviceState.NO_DATA_FROM_NETWORK,),
    (DeviceState.DATA_FROM_NETWORK, DeviceState.REQUEST_FAILED),
    (DeviceState.UPGRADE_SCHEDULED,),
    (DeviceState.UPGRADE_PENDING,),
)
_DEVICE_FINAL: Final = (
    DeviceState.REJECTED,
    DeviceState.UPGRADE_FAILED,
    DeviceState.UPGRADE_SUCCESS,
    DeviceState.CANCELLED,
    DeviceState.ABORTED,
)

_CAMPAIGN_RANKS: Final = {
    state: step for step, states in enumerate(_CAMPAIGN_STEPS) for state in states
} | dict.fromkeys(_CAMPAIGN_FINAL, len(_CAMPAIGN_STEPS))
_DEVICE_RANKS: Final = {state: step for step, states in enumerate(_DEVICE_STEPS) for state in states} | dict.fromkeys(
    _DEVICE_FINAL, len(_DEVICE_STEPS)
)


_MAX_WORD: Final = 64
"""A longer text is no word of the lifecycle, and is not kept in a cache."""


def _fold(word: str) -> str:
    """Leave of a word what all its spellings share."""
    return "".join(filter(str.isalnum, word.casefold()))


_CAMPAIGN_WORDS: Final = {_fold(state).removeprefix("campaign"): state for state in CampaignState} | {
    "requestqueued": CampaignState.QUEUED,
    "pending": CampaignState.REQUEST_PENDING,
    "finished": CampaignState.ENDED,
    "upgradefailed": CampaignState.FAILED,
    "upgradedfailed": CampaignState.FAILED,
    "canceled": CampaignState.CANCELLED,
}
_DEVICE_WORDS: Final = {_fold(state): state for state in DeviceState} | {
    "rejected": DeviceState.REJECTED,
    "upgradedfailed": DeviceState.UPGRADE_FAILED,
    "upgradesucceeded": DeviceState.UPGRADE_SUCCESS,
    "cancelled": DeviceState.CANCELLED,
    "canceled": DeviceState.CANCELLED,
    "campaigncanceled": DeviceState.CANCELLED,
    "aborted": DeviceState.ABORTED,
}
_DEVICE_SPELLINGS: Final = {state.value: state for state in DeviceState}
"""The documented spellings, which need no folding: most devices of a long list."""


def normalize_campaign(word: str) -> CampaignState | str:
    """Return the state that a campaign status means, or the word itself where nobody documented it."""
    return (_campaign_state(word) if len(word) <= _MAX_WORD else None) or word


@lru_cache(maxsize=1024)
def _campaign_state(word: str) -> CampaignState | None:
    return _CAMPAIGN_WORDS.get(_fold(word).removeprefix("campaign"))


def normalize_device(word: str) -> DeviceState | str:
    """Return the state that a device status means, or the word itself where nobody documented it."""
    return _DEVICE_SPELLINGS.get(word) or (_device_state(word) if len(word) <= _MAX_WORD else None) or word


@lru_cache(maxsize=1024)
def _device_state(word: str) -> DeviceState | None:
    return _DEVICE_WORDS.get(_fold(word))


def is_known_device_word(word: str) -> bool:
    """Tell whether a device status is one that the lifecycle pages name, in any of its spellings."""
    return isinstance(normalize_device(word), DeviceState)


def is_final_campaign(word: str) -> bool:
    """Tell whether a campaign in this state never changes again."""
    return normalize_campaign(word) in _CAMPAIGN_FINAL


def is_final_device(word: str) -> bool:
    """Tell whether a device in this state never changes again in this campaign.

    Source: which states are final is inferred from the lifecycle pages.
    """
    return normalize_device(word) in _DEVICE_FINAL


def campaign_rank(word: str) -> int:
    """Return how far along a campaign status is: -1 for an unknown word, the highest for a final one."""
    state = normalize_campaign(word)
    return _CAMPAIGN_RANKS[state] if isinstance(state, CampaignState) else -1


def device_rank(word: str) -> int:
    """Return how far along a device status is: -1 for an unknown word, the highest for a final one."""
    state = normalize_device(word)
    return _DEVICE_RANKS[state] if isinstance(state, DeviceState) else -1


def campaign_transitions(state: CampaignState) -> frozenset[CampaignState]:
    """Return the states that may follow: any further along, none after a final one."""
    return frozenset(
        other
        for other in CampaignState
        if state not in _CAMPAIGN_FINAL and _CAMPAIGN_RANKS[other] > _CAMPAIGN_RANKS[state]
    )


def device_transitions(state: DeviceState) -> frozenset[DeviceState]:
    """Return the states that may follow: any further along, none after a final one."""
    return frozenset(
        other for other in DeviceState if state not in _DEVICE_FINAL and _DEVICE_RANKS[other] > _DEVICE_RANKS[state]
    )
