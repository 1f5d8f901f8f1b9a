"""What reconciling an account comes to. Times are UTC microseconds since 1970."""

from __future__ import annotations

import msgspec

__all__ = ["Contradiction", "MissingReport", "ReconcileProgress", "Reconciled", "SilentDevice"]


class SilentDevice(msgspec.Struct, frozen=True):
    """Name a device that the provider is not done with, and that we have not heard of for long.

    Args:
        campaign_id: Its campaign.
        device_id: The device.
        status: Where the provider's report says that it stands.
        last_at: When we last heard of it before, None for never.
    """

    campaign_id: str
    device_id: str
    status: str
    last_at: int | None


class MissingReport(msgspec.Struct, frozen=True):
    """Name what callbacks told of, what is not final, and what the provider's reports do not hold.

    Args:
        campaign_id: The campaign.
        device_id: The device, empty for the campaign itself.
        status: Where it stands as callbacks tell it, None where none said.
    """

    campaign_id: str
    device_id: str
    status: str | None


class Contradiction(msgspec.Struct, frozen=True):
    """Name what callbacks called final, and the provider's reports call something else.

    Args:
        campaign_id: The campaign.
        device_id: The device, empty for the campaign itself.
        told: The final state that callbacks told.
        reported: The state that the report says.
    """

    campaign_id: str
    device_id: str
    told: str
    reported: str


class ReconcileProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Say how far the reconciling of one account is, after each page that was read.

    Args:
        account: The account.
        campaign_id: The campaign whose devices are read, empty before and after.
        campaigns_done: How many campaigns are done.
        campaigns: How many there are to read.
        devices: How many devices were read.
        total: How many devices the campaigns that were begun have, as far as the provider says.
    """

    account: str
    campaign_id: str = ""
    campaigns_done: int = 0
    campaigns: int = 0
    devices: int = 0
    total: int = 0


class Reconciled(msgspec.Struct, frozen=True, kw_only=True):
    """Say what became of one account.

    Args:
        account: The account.
        since: From when on callbacks may be missing.
        until: When the reading began.
        resumed_from: When the interrupted run began that this one went on with, None where there was none.
        finished: Whether it was read to its end; what is left is read by the next run.
        campaigns: How many campaigns were read.
        devices: How many devices were read.
        differed: How many devices stood elsewhere than callbacks had told; each is kept as a reconciled callback.
        campaigns_differed: How many campaigns did.
        silent_campaigns: Campaigns that the provider has, and that no callback ever named.
        silent_devices: Devices that the provider is not done with, and that were not heard of for long.
        missing: What callbacks told of, what is not final, and what the reports do not hold.
        contradictions: What callbacks called final, and the reports call something else.
        not_recoverable: What was lost and stands in no report, a sentence each.
        remarks: What a person should know of how it was read, a sentence each.
        errors: What could not be read, a sentence each.
    """

    account: str
    since: int
    until: int
    resumed_from: int | None = None
    finished: bool = True
    campaigns: int = 0
    devices: int = 0
    differed: int = 0
    campaigns_differed: int = 0
    silent_campaigns: tuple[str, ...] = ()
    silent_devices: tuple[SilentDevice, ...] = ()
    missing: tuple[MissingReport, ...] = ()
    contradictions: tuple[Contradiction, ...] = ()
    not_recoverable: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
