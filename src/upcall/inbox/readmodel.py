"""What callbacks say of campaigns and devices, folded in the order of receipt.

A late or repeated message never moves a state back; a second final word that does not agree is kept beside the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from upcall.inbox.values import DeviceRecord, DriftRecord
from upcall.thingspace import (
    campaign_rank,
    device_rank,
    is_final_campaign,
    is_final_device,
    normalize_campaign,
    normalize_device,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from upcall.thingspace import CallbackEvent, DeviceUpdate

__all__ = [
    "CampaignView",
    "duplicate_guess",
    "fold_campaign",
    "fold_device",
    "fold_drift",
    "is_campaign_news",
    "is_news",
]


class _Words(NamedTuple):
    """Hold how the words of one vocabulary are compared."""

    normalize: Callable[[str], str]
    rank: Callable[[str], int]
    is_final: Callable[[str], bool]


_DEVICE: Final = _Words(normalize_device, device_rank, is_final_device)
_CAMPAIGN: Final = _Words(normalize_campaign, campaign_rank, is_final_campaign)


class CampaignView(msgspec.Struct, frozen=True):
    """Hold a campaign as the callbacks up to now tell it.

    Args:
        name: Its name.
        status: The provider's own word.
        first_at: When its first callback came, UTC microseconds.
        last_at: When its last callback came, UTC microseconds.
        callbacks: How many callbacks were about it.
        contradiction: A second final word that did not agree, None where none came.
    """

    name: str | None
    status: str | None
    first_at: int
    last_at: int
    callbacks: int
    contradiction: str | None = None


def fold_campaign(known: CampaignView | None, event: CallbackEvent, received_at: int) -> CampaignView:
    """Return the campaign after one more callback about it."""
    said = event.campaign_status
    if known is None:
        return CampaignView(event.campaign_name, said, received_at, received_at, 1)
    return CampaignView(
        name=event.campaign_name or known.name,
        status=said if said is not None and _moves(known.status, said) else known.status,
        first_at=min(known.first_at, received_at),
        last_at=max(known.last_at, received_at),
        callbacks=known.callbacks + 1,
        contradiction=known.contradiction or _contradiction(known.status, said),
    )


def _moves(status: str | None, said: str) -> bool:
    return status is None or campaign_rank(said) > campaign_rank(status) or _both_unknown(said, status)


def _contradiction(status: str | None, said: str | None) -> str | None:
    if status is None or said is None or not (is_final_campaign(status) and is_final_campaign(said)):
        return None
    return said if normalize_campaign(said) != normalize_campaign(status) else None


def fold_device(known: DeviceRecord | None, update: DeviceUpdate, received_at: int) -> DeviceRecord:
    """Return the device after one more word about it."""
    at = received_at if update.time is None or update.time.micros is None else update.time.micros
    said = DeviceRecord(
        update.device_id,
        update.status,
        update.reason,
        at,
        first_at=received_at,
        first_status=update.status,
        last_at=received_at,
        last_status=update.status,
    )
    return said if known is None else _with_ends(_stands(known, said), known, said)


def _stands(known: DeviceRecord, said: DeviceRecord) -> DeviceRecord:
    """Return the record whose word stands, with a contradiction where there is one."""
    if known.status is None:
        return said
    if said.status is None or normalize_device(said.status) == normalize_device(known.status):
        return known
    if is_final_device(known.status):
        contradicts = is_final_device(said.status) and known.contradiction is None
        return msgspec.structs.replace(known, contradiction=said.status) if contradicts else known
    # Of two states that no order is known of, the one that happened later stands.
    further = (device_rank(said.status), said.updated_at) >= (device_rank(known.status), known.updated_at)
    return said if further else known


def _with_ends(stands: DeviceRecord, known: DeviceRecord, said: DeviceRecord) -> DeviceRecord:
    """Return a record with the first and the last word about its device, by receipt."""
    earlier, later = (said, known) if said.first_at < known.first_at else (known, said)
    older, newer = (said, known) if said.last_at < known.last_at else (known, said)
    return msgspec.structs.replace(
        stands,
        first_at=earlier.first_at,
        first_status=earlier.first_status or later.first_status,
        last_at=newer.last_at,
        last_status=newer.last_status or older.last_status,
    )


def is_news(known: DeviceRecord | None, status: str) -> bool:
    """Tell whether a report says of a device what its callbacks have not said.

    Args:
        known: The device as the callbacks tell it.
        status: The report's word.
    """
    return known is None or _says_more(known.status, (known.contradiction, known.last_status), status, _DEVICE)


def is_campaign_news(known: CampaignView | None, status: str) -> bool:
    """Tell whether a report says of a campaign what its callbacks have not said.

    Args:
        known: The campaign as the callbacks tell it.
        status: The report's word.
    """
    return known is None or _says_more(known.status, (known.contradiction,), status, _CAMPAIGN)


def _says_more(known: str | None, others: Sequence[str | None], said: str, words: _Words) -> bool:
    """Tell whether a word goes beyond where its device or campaign stands, and was not heard beside that either."""
    if known is None:
        return True
    if words.normalize(said) in {words.normalize(word) for word in (known, *others) if word is not None}:
        return False
    if words.is_final(known):
        return words.is_final(said)
    return words.rank(said) >= words.rank(known)


def fold_drift(known: DriftRecord | None, text: str, callback_id: int, received_at: int) -> DriftRecord:
    """Return one way to differ from the known schema after one more callback that does."""
    if known is None:
        return DriftRecord(text, 1, callback_id, received_at, callback_id, received_at)
    return msgspec.structs.replace(known, callbacks=known.callbacks + 1, last_id=callback_id, last_at=received_at)


def _both_unknown(word: str, other: str) -> bool:
    return campaign_rank(word) == campaign_rank(other) == -1


def duplicate_guess(received_at: int, earlier_at: int | None, window_micros: int) -> str:
    """Guess whether a callback that says the same as an earlier one was sent again or happened again.

    Args:
        received_at: When it came.
        earlier_at: When the last one that says the same came, None where none did.
        window_micros: The redelivery window.

    Returns:
        ``first``, ``redelivery`` or ``repeat``. A guess: it never drops work.
    """
    if earlier_at is None:
        return "first"
    return "redelivery" if abs(received_at - earlier_at) <= window_micros else "repeat"
