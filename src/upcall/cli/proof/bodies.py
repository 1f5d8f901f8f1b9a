"""The callbacks that a proof sends: each one's bytes follow from its serial number, and the other way round."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["ALWAYS_FAILS", "DEVICE_WORD", "EXACT_KIND", "make", "serial_of", "wants_device", "wants_exact"]

EXACT_KIND: Final = "upgradeFinished"
"""What the transactional handler takes: its effects are counted, and must be one each."""
DEVICE_WORD: Final = "UpgradeFailed"
"""The state of the devices that the device handler takes."""
ALWAYS_FAILS: Final = 999
"""Serial numbers that end like this, out of a thousand, are dead letters in the end."""

_ACCOUNT: Final = "0000123456-00001"
_EXACT_EVERY: Final = 20
_DEVICE_EVERY: Final = 4
_SECOND_DEVICE: Final = 500_000_000_000_000
_DIGITS: Final = re.compile(rb'"deviceId":"(\d{15})"')


def make(serial: int) -> bytes:
    """Return the body with this serial number."""
    kind = EXACT_KIND if wants_exact(serial) else "upgradeProgress"
    devices = f'{{"deviceId":"{serial:015d}","status":"DownloadCompleted"}}'
    if wants_device(serial):
        devices += f',{{"deviceId":"{_SECOND_DEVICE + serial}","status":"{DEVICE_WORD}","resultReason":"proof"}}'
    return (
        f'{{"type":"{kind}","accountName":"{_ACCOUNT}","{kind}":{{"campaignId":"proof-{serial // 1000}",'
        f'"campaignName":"Proof","status":"CampaignStarted","deviceList":[{devices}]}}}}'
    ).encode()


def serial_of(body: bytes) -> int | None:
    """Return the serial number of a body, None where it is not, byte for byte, one of ours."""
    found = _DIGITS.search(body)
    if found is None:
        return None
    serial = int(found[1])
    return serial if make(serial) == body else None


def wants_exact(serial: int) -> bool:
    """Tell whether the transactional handler takes this callback."""
    return serial % _EXACT_EVERY == 0


def wants_device(serial: int) -> bool:
    """Tell whether the device handler takes a device of this callback."""
    return serial % _DEVICE_EVERY == 0
