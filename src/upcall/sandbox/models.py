"""What the API takes and gives, as it is written on the wire.

Source of the members, where a docstring names no other: the official SDK's models (documented); a member's being
optional, null or oddly spelt is theirs too.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from upcall.sandbox.campaigns import CampaignRequest, SandboxOptions, TimeWindow
from upcall.thingspace import CampaignState, DeviceState

__all__ = [
    "ACCOUNT_PATTERN",
    "DELIVERY_STATES",
    "FINAL_STATES",
    "NOT_BLANK_PATTERN",
    "PARAMETERS",
    "AccountDevice",
    "CallbackBody",
    "CampaignAnswer",
    "CampaignBody",
    "CampaignPage",
    "DatesBody",
    "DeviceHistoryEntry",
    "DevicePage",
    "DeviceStatusPage",
    "DevicesBody",
    "DevicesChange",
    "DevicesResult",
    "Fault",
    "FaultBody",
    "FotaV2Result",
    "LogInBody",
    "OauthError",
    "OauthToken",
    "ReportedDevice",
    "RevokeForm",
    "SessionToken",
    "Software",
    "SoftwarePackage",
    "Success",
    "TokenForm",
    "WrappedDevicesBody",
]

ACCOUNT_PATTERN: Final = r"[A-Za-z0-9-]+"
"""What an account's name is made of; any account of such a name exists."""

NOT_BLANK_PATTERN: Final = r"[^ \t\r\n]"
"""What a required text holds. Not ``\\S``, which means other characters to other readers of the document."""

FINAL_STATES: Final = ("acknowledged", "failed", "lost", "refused", "dropped", "stolen")
"""Acknowledged; tried in vain to the end; nobody was registered; the target may not be sent to; a fault dropped it;
another system that took the slot acknowledged it."""

DELIVERY_STATES: Final = ("pending", *FINAL_STATES)
"""Where a callback may stand: pending while it is still sent, or in one of the final states."""

AccountName = Annotated[
    str,
    Meta(
        pattern=f"^{ACCOUNT_PATTERN}$",
        description="A billing account's name; its leading zeros are part of it",
        examples=["0000123456-00001"],
    ),
]
CampaignId = Annotated[
    str,
    Meta(
        description="A campaign's identifier",
        examples=["60b5d639-ccdc-4db8-8824-069bd94c95bf"],
        extra_json_schema={"format": "uuid"},
    ),
]
DeviceId = Annotated[str, Meta(pattern="^[0-9]{14,16}$", description="An IMEI", examples=["990013907835573"])]
DateText = Annotated[
    str,
    Meta(
        pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
        description="YYYY-MM-DD",
        examples=["2026-06-01"],
        extra_json_schema={"format": "date"},
    ),
]
NotBlank = Annotated[str, Meta(pattern=NOT_BLANK_PATTERN)]
CampaignStatusText = Annotated[str, Meta(extra_json_schema={"enum": [state.value for state in CampaignState]})]
DeviceStatusText = Annotated[str, Meta(extra_json_schema={"enum": [state.value for state in DeviceState]})]

PARAMETERS: Final[dict[str, Any]] = {
    "account": AccountName,
    "id": CampaignId,
    "imei": DeviceId,
    "username": Annotated[str, Meta(description="Whose logins were refused", examples=["sandbox"])],
    "lastSeenDeviceId": Annotated[
        str, Meta(description="The same member of the page before; 0 or nothing for the first page", examples=["0"])
    ],
    "lastSeenCampaignId": Annotated[
        str, Meta(description="The same member of the page before; 0 or nothing for the first page", examples=["0"])
    ],
    "distributionType": Annotated[str, Meta(description="Only what is of this type", examples=["HTTP"])],
    "campaignStatus": Annotated[
        str, Meta(description="Only campaigns in this state, in any of its spellings", examples=["CampaignEnded"])
    ],
    "campaign": Annotated[str, Meta(description="Only callbacks about this campaign")],
    "state": Annotated[
        str, Meta(description="Only callbacks in this state", extra_json_schema={"enum": list(DELIVERY_STATES)})
    ],
}
"""What may stand in a path or a query, by its name there."""


# --- Tokens and sessions ---------------------------------------------------------------------------------------------


class TokenForm(msgspec.Struct, frozen=True):
    """Ask for a bearer token. Source: "Get credentials" (documented)."""

    grant_type: Literal["client_credentials"]


class RevokeForm(msgspec.Struct, frozen=True):
    """Give a bearer token back. Source: "Get credentials" (documented)."""

    token: Annotated[str, Meta(min_length=1)]
    grant_type: str = "client_credentials"


class OauthToken(msgspec.Struct, frozen=True):
    """Hold a bearer token. Source: official SDK, ``OauthToken`` (documented)."""

    access_token: str
    scope: str
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Meta(ge=0, le=3600)]


class LogInBody(msgspec.Struct, frozen=True):
    """Ask for a session. Source: "Start connectivity management session" (documented)."""

    username: Annotated[str, Meta(examples=["sandbox"])]
    password: Annotated[str, Meta(examples=["sandbox"])]

    def __repr__(self) -> str:
        return "LogInBody(…)"


class SessionToken(msgspec.Struct, frozen=True, rename="camel"):
    """Hold a session's token. Source: the same page (documented)."""

    session_token: str


# --- Errors ----------------------------------------------------------------------------------------------------------


class FotaV2Result(msgspec.Struct, frozen=True, rename="camel"):
    """Hold an error of the service. Source: Software Management reference, error messages (documented)."""

    error_code: str
    error_message: str


class FaultBody(msgspec.Struct, frozen=True):
    """Hold what the gateway says."""

    code: str
    message: str
    description: str


class Fault(msgspec.Struct, frozen=True):
    """Hold an error of the gateway. Source: Connectivity Management, synchronous error messages (documented there)."""

    fault: FaultBody


class OauthError(msgspec.Struct, frozen=True):
    """Hold an error of the token endpoint. Source: RFC 6749, section 5.2."""

    error: str
    error_description: str


# --- Callbacks -------------------------------------------------------------------------------------------------------


class CallbackBody(msgspec.Struct, frozen=True):
    """Hold a registered URL; without a listener the answer is empty."""

    url: Annotated[
        str,
        Meta(
            description="https, with a host; anything else is refused",
            min_length=1,
            examples=["https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx"],
            extra_json_schema={"format": "uri"},
        ),
    ]


class Success(msgspec.Struct, frozen=True):
    """Say that it was done."""

    success: bool


# --- Campaigns -------------------------------------------------------------------------------------------------------


class CampaignBody(CampaignRequest, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Ask for an upgrade. Source: official SDK, ``CampaignSoftwareUpgrade`` (documented)."""

    software_name: NotBlank
    software_from: NotBlank
    software_to: NotBlank
    distribution_type: NotBlank
    start_date: DateText
    end_date: DateText
    download_after_date: DateText | None = None
    install_after_date: DateText | None = None
    device_list: Annotated[list[str], Meta(min_length=1, description="IMEIs; any other is rejected")]
    sandbox: SandboxOptions | None = msgspec.field(default=None, name="_sandbox")


class CampaignAnswer(CampaignRequest, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Hold a campaign as it stands. Source: official SDK, ``CampaignSoftware`` (documented)."""

    id: CampaignId
    account_name: AccountName
    make: str
    model: str
    status: CampaignStatusText


class DatesBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Ask for other dates and windows; what is left out stays as it was.

    Source: official SDK, ``V2ChangeCampaignDatesRequest`` (documented); that both dates may be left out is assumed.
    """

    start_date: DateText | UnsetType = UNSET
    end_date: DateText | UnsetType = UNSET
    download_after_date: DateText | None = None
    download_time_window_list: list[TimeWindow] | None = None
    install_after_date: DateText | None = None
    install_time_window_list: list[TimeWindow] | None = None


class DevicesBody(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for other devices, with a capital T as the SDK sends it. Source: ``V2AddOrRemoveDeviceRequest``."""

    type: Literal["append", "remove"] = msgspec.field(name="Type")
    device_list: Annotated[list[str], Meta(min_length=1)] = msgspec.field(name="deviceList")


class DevicesChange(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Hold one change of a campaign's devices."""

    type: Literal["append", "remove"]
    device_list: Annotated[list[str], Meta(min_length=1)]


class WrappedDevicesBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Ask for other devices in the form of the page's own example.

    Source: "Add or remove devices in an upgrade V2" (documented).
    """

    add_or_remove_device: Annotated[list[DevicesChange], Meta(min_length=1)]


class DevicesResult(msgspec.Struct, frozen=True, rename="camel"):
    """Hold that a campaign's devices were changed. Source: ``V2AddOrRemoveDeviceResult`` (documented)."""

    account_name: AccountName
    campaign_id: CampaignId
    request_id: Annotated[str, Meta(extra_json_schema={"format": "uuid"})]


# --- Software, devices and reports -----------------------------------------------------------------------------------


class SoftwarePackage(msgspec.Struct, frozen=True, rename="camel"):
    """Hold what can be installed."""

    software_name: str
    launch_date: str
    release_note: str
    model: str
    make: str
    distribution_type: str
    device_platform_id: str


class Software(msgspec.Struct, frozen=True, rename="camel"):
    """Hold what is installed on a device."""

    name: str
    version: str
    upgrade_time: str


class AccountDevice(msgspec.Struct, frozen=True, rename="camel"):
    """Hold a device of an account. Source: official SDK, ``V2AccountDevice`` (documented)."""

    device_id: str
    mdn: str
    model: str
    make: str
    fota_eligible: bool
    app_fota_eligible: bool
    license_assigned: bool
    distribution_type: str
    software_list: list[Software]
    create_time: str
    upgrade_time: str
    update_time: str
    refresh_time: str


class DevicePage(msgspec.Struct, frozen=True, rename="camel"):
    """Hold a page of an account's devices."""

    account_name: str
    has_more_data: bool
    last_seen_device_id: str
    max_page_size: int
    device_list: list[AccountDevice]


class CampaignPage(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Hold a page of an account's campaigns; the list is null where there is none."""

    has_more_data: bool
    campaign_list: list[CampaignAnswer] | None
    last_seen_campaign_id: str | None = None


class ReportedDevice(msgspec.Struct, frozen=True, rename="camel"):
    """Hold where a device stands in a campaign. Source: official SDK, ``V2DeviceStatus`` (documented)."""

    device_id: str
    status: DeviceStatusText
    result_reason: str


class DeviceStatusPage(msgspec.Struct, frozen=True, rename="camel"):
    """Hold a page of a campaign's devices."""

    total_device: int
    has_more_data: bool
    last_seen_device_id: str
    max_page_size: int
    device_list: list[ReportedDevice]


class DeviceHistoryEntry(msgspec.Struct, frozen=True, rename="camel"):
    """Hold a campaign that a device was in. Source: official SDK, ``DeviceSoftwareUpgrade`` (documented)."""

    device_id: str
    id: CampaignId
    account_name: AccountName
    software_name: str
    start_date: DateText
    status: DeviceStatusText
    reason: str
