"""What an account owns before anything happened: some devices and some software, the same each time."""

from __future__ import annotations

from random import Random
from typing import Any, Final

from upcall.sandbox.models import SoftwarePackage

__all__ = ["DISTRIBUTION_TYPE", "FLEET_SIZE", "SOFTWARE", "fleet", "imei", "new_versions"]

FLEET_SIZE: Final = 25
"""Devices that every account has; those that its campaigns named come after them."""

DISTRIBUTION_TYPE: Final = "HTTP"
"""How every device and every package of the sandbox is served: V2's own way."""

_TAC: Final = "99001390"
"""The type allocation code of the devices: that of the identifiers in the provider's own examples."""

SOFTWARE: Final = tuple(
    SoftwarePackage(
        software_name=f"FOTA_Verizon_Model-A_{versions}_HF",
        launch_date=launch_date,
        release_note="",
        model="Sandbox",
        make="Upcall",
        distribution_type=DISTRIBUTION_TYPE,
        device_platform_id="IoT",
    )
    for versions, launch_date in (("00To01", "2026-01-15"), ("01To02", "2026-06-15"))
)
"""Source of the members: official SDK, ``SoftwarePackage`` (documented)."""


def imei(serial: int) -> str:
    """Return an IMEI of the sandbox's make with its check digit.

    Args:
        serial: 0 to 999,999.
    """
    digits = f"{_TAC}{serial:06d}"
    total = sum(sum(divmod(int(digit) * (1 + index % 2), 10)) for index, digit in enumerate(digits))
    return f"{digits}{-total % 10}"


def fleet(account: str) -> list[str]:
    """Return the devices that an account has from the start."""
    random = Random(f"fleet/{account}")  # noqa: S311 - the same devices each time
    return [imei(serial) for serial in sorted(random.sample(range(1_000_000), FLEET_SIZE))]


def new_versions() -> list[dict[str, Any]]:
    """Return the software as a callback announces it. Source: official SDK, ``Firmware`` (documented for V1)."""
    return [
        {
            "firmwareName": package.software_name,
            "participantName": "",
            "launchDate": package.launch_date,
            "releaseNote": package.release_note,
            "model": package.model,
            "make": package.make,
            "fromVersion": f"0{number}",
            "toVersion": f"0{number + 1}",
        }
        for number, package in enumerate(SOFTWARE)
    ]
