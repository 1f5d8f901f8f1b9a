"""How far the reconciling of an account is, as an interrupted run leaves it for the next one. Pure.

One value says where the run is, and one a page what was found in it, so that what is written after a page does not
grow with the campaign.
"""

from __future__ import annotations

from typing import Final

import msgspec

from upcall.registration.reconcile.values import Contradiction, MissingReport, SilentDevice

__all__ = ["RESUME_MICROS", "Found", "Position", "goes_on", "merged"]

RESUME_MICROS: Final = 6 * 3_600_000_000
"""An interrupted run is gone on with for so long; later the next one begins anew."""


class Found(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hold what was found in one page of a device report, or at its end.

    Args:
        devices: How many devices it holds.
        met: Those of them that are not final as callbacks tell them, or that none named.
        silent: Devices that were not heard of for long.
        contradictions: What callbacks called final, and the report does not.
        missing: What callbacks told of, and the whole report does not hold.
        unreadable: How many entries could not be read.
    """

    devices: int = 0
    met: tuple[str, ...] = ()
    silent: tuple[SilentDevice, ...] = ()
    contradictions: tuple[Contradiction, ...] = ()
    missing: tuple[MissingReport, ...] = ()
    unreadable: int = 0


class Position(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hold where a run is.

    Args:
        begun_at: When it began, UTC microseconds.
        since: From when on callbacks may be missing, UTC microseconds.
        campaign_id: The campaign whose devices are being read, empty between two.
        last_seen_device_id: From where on.
        pages: How many of its pages were read.
        done: The campaigns that are done.
        differed: How many devices stood elsewhere than callbacks had told.
        campaigns_differed: How many campaigns did.
        skipped: How many of the devices went through states that no callback told of.
        silent_campaigns: Campaigns that no callback ever named.
        remarks: What a person should know of how it was read.
        errors: What could not be read.
    """

    begun_at: int
    since: int
    campaign_id: str = ""
    last_seen_device_id: str = "0"
    pages: int = 0
    done: tuple[str, ...] = ()
    differed: int = 0
    campaigns_differed: int = 0
    skipped: int = 0
    silent_campaigns: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def merged(earlier: Found, later: Found) -> Found:
    """Return what was found in a page that was read twice, or in a page and at its report's end."""
    return Found(
        devices=max(earlier.devices, later.devices),
        met=tuple(dict.fromkeys((*earlier.met, *later.met))),
        silent=tuple({device.device_id: device for device in (*later.silent, *earlier.silent)}.values()),
        contradictions=tuple(dict.fromkeys((*earlier.contradictions, *later.contradictions))),
        missing=tuple(dict.fromkeys((*earlier.missing, *later.missing))),
        unreadable=max(earlier.unreadable, later.unreadable),
    )


def goes_on(position: Position, *, since: int, now: int) -> bool:
    """Tell whether an interrupted run is to be gone on with: it is not old, and its window is the one asked for.

    A window that was asked for as so long ago has moved on meanwhile, at most as far as the run is old.

    Args:
        position: Where that run was.
        since: From when on callbacks may be missing, as it is asked for now.
        now: The time.
    """
    age = now - position.begun_at
    return 0 <= age < RESUME_MICROS and position.since <= since <= position.since + age
