"""What callbacks say of campaigns and devices, folded in the order of receipt.

A late or repeated message never moves a state back; a second final word that does not agree is kept beside the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from upcall.inbox.base import DeviceRecord
from upcall.thingspace import (
    campaign_rank,
    device_rank,
    is_final_device,
    normalize_device,
)

if TYPE_CHECKING:
    from upcall.thingspace import CallbackEvent, DeviceUpdate

__all__ = ["CampaignView", "duplicate_guess", "fold_campaign", "fold_device"]


class CampaignView(msgspec.Struct, frozen=True):
    """Hold a campaign as the callbacks up to now tell it.

    Args:
        name: Its name.
        status: The provider's own word.
        first_at: When its first callback came, UTC microseconds.
        last_at: When its last callback came, UTC microseconds.
        callbacks: How many callbacks were about it.
    """

    name: str | None
    status: str | None
    first_at: int
    last_at: int
    callbacks: int


def fold_campaign(known: CampaignView | None, event: CallbackEvent, received_at: int) -> CampaignView:
    """Return the campaign after one more callback about it."""
    if known is None:
        return CampaignView(event.campaign_name, event.campaign_status, received_at, received_at, 1)
    said = event.campaign_status
    moves = said is not None and (
        known.status is None or campaign_rank(said) > campaign_rank(known.status) or _both_unknown(said, known.status)
    )
    return CampaignView(
        name=event.campaign_name or known.name,
        status=said if moves else known.status,
        first_at=min(known.first_at, received_at),
        last_at=max(known.last_at, received_at),
        callbacks=known.callbacks + 1,
    )


def fold_device(known: DeviceRecord | None, update: DeviceUpdate, received_at: int) -> DeviceRecord:
    """Return the device after one more word about it."""
    at = received_at if update.time is None or update.time.micros is None else update.time.micros
    said = DeviceRecord(update.device_id, update.status, update.reason, at)
    if known is None or known.status is None:
        return said
    if update.status is None or normalize_device(update.status) == normalize_device(known.status):
        return known
    if is_final_device(known.status):
        contradicts = is_final_device(update.status) and known.contradiction is None
        return msgspec.structs.replace(known, contradiction=update.status) if contradicts else known
    # Of two states that no order is known of, the one that happened later stands.
    further = (device_rank(update.status), at) >= (device_rank(known.status), known.updated_at)
    return said if further else known


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
