"""What a callback says, as values."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from upcall.thingspace.statuses import normalize_device
from upcall.thingspace.times import ProviderTime

__all__ = ["CALLBACK_KINDS", "AvailableSoftware", "CallbackEvent", "DeviceUpdate", "normalize_kind"]

CALLBACK_KINDS: Final = ("firmwareList", "upgradeScheduled", "upgradeProgress", "upgradeFinished")
"""The four values of ``type``: new versions, and a campaign scheduled, in progress, finished.

Source: "About callback services" names two, a public listener tells all four apart (inferred, strong).
"""

_KIND_WORDS: Final = {kind.casefold(): kind for kind in CALLBACK_KINDS} | {
    "newfirmware": "firmwareList",
    "softwarelist": "firmwareList",
}


def normalize_kind(kind: str) -> str:
    """Return the documented spelling of a callback type, or the text itself where it is unknown."""
    return _KIND_WORDS.get(kind.casefold(), kind)


class DeviceUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """Say what a callback says of one device.

    Args:
        device_id: The device's identifier, usually an IMEI.
        status: The provider's own word, None where it gave none.
        reason: The provider's text for the status.
        time: When the provider says that it happened.
        extra: Members that have no field here.

    Source: official SDK, ``V2DeviceStatus`` (shape documented, its place in a callback inferred).
    """

    device_id: str
    status: str | None = None
    reason: str | None = None
    time: ProviderTime | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def state(self) -> str | None:
        """Return the normalised state, or the provider's word where nobody documented it."""
        return None if self.status is None else normalize_device(self.status)


class AvailableSoftware(msgspec.Struct, frozen=True, kw_only=True):
    """Describe one version that ThingSpace announces.

    Args:
        name: Firmware or software name.
        make: The devices' make.
        model: The devices' model.
        from_version: The version that it upgrades.
        to_version: The version that it installs.
        launch_date: The provider's text for its launch.
        release_note: The provider's text.
        extra: Members that have no field here, such as ``distributionType``.

    Source: official SDK, ``Firmware`` for V1 (documented) and ``SoftwarePackage`` for V2 (inferred).
    """

    name: str | None = None
    make: str | None = None
    model: str | None = None
    from_version: str | None = None
    to_version: str | None = None
    launch_date: str | None = None
    release_note: str | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)


class CallbackEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one callback as it was understood, beside the bytes as they came.

    Its `repr` is one line that shows neither the body nor a device.

    Args:
        kind: One of `CALLBACK_KINDS`, the provider's own text for an unknown one, None where it names none.
        account: The account that it names.
        campaign_id: The campaign that it is about.
        campaign_name: The campaign's name.
        campaign_status: The provider's own word for the campaign's state.
        devices: What it says of each device.
        software: The versions that it announces.
        time: When the provider says that it happened.
        extra: Members that the parser could not place: a member of the message by its name, a deeper one by its
            path. Passwords are left out.
        drift: What was unexpected, one line each: how this message differs from what is known.
        undecodable: Why the body is not JSON, None where it is.
        key: A text to write idempotently by. Of a parsed message: the same for messages that say the same. Of an
            event that a handler receives: the same each time that callback is handed on, and no other's.
        raw: The body, byte for byte.
        id: The stored callback's number, 0 where it is not stored.
        received_at: When it was first received, UTC microseconds since 1970, 0 where it was not.
        origin: ``received``; ``reconciled`` where it was made of the provider's reports; ``guard`` where Upcall itself
            says it, such as ``registration.drift``.
    """

    kind: str | None = None
    account: str | None = None
    campaign_id: str | None = None
    campaign_name: str | None = None
    campaign_status: str | None = None
    devices: tuple[DeviceUpdate, ...] = ()
    software: tuple[AvailableSoftware, ...] = ()
    time: ProviderTime | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    drift: tuple[str, ...] = ()
    undecodable: str | None = None
    key: str = ""
    raw: bytes = b""
    id: int = 0
    received_at: int = 0
    origin: str = "received"

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"CallbackEvent({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Name what `repr` shows, for Rich too, whose own way would print the body."""
        return [
            ("kind", self.kind),
            ("account", self.account),
            ("campaign_id", self.campaign_id),
            ("campaign_status", self.campaign_status),
            ("devices", len(self.devices)),
            ("software", len(self.software)),
            ("drift", len(self.drift)),
            ("key", self.key),
            ("id", self.id),
        ]
