"""Every call that we make, as data: where it goes, what it needs, whether it may be repeated, how it is read."""

from upcall.client.operations.base import Auth, Call, Operation, ReadBack
from upcall.client.operations.callbacks import (
    RegistrationBody,
    deregister_callback,
    list_registered_callbacks,
    register_callback,
    update_callback,
)
from upcall.client.operations.campaigns import (
    get_campaign_device_status,
    get_campaign_history_by_status,
    get_campaign_information,
    get_device_firmware_upgrade_history,
    schedule_campaign_firmware_upgrade,
)
from upcall.client.operations.sandbox import sandbox_banner
from upcall.client.operations.tokens import LOGIN, IssuedToken, log_in, log_out, request_token

__all__ = [
    "LOGIN",
    "Auth",
    "Call",
    "IssuedToken",
    "Operation",
    "ReadBack",
    "RegistrationBody",
    "deregister_callback",
    "get_campaign_device_status",
    "get_campaign_history_by_status",
    "get_campaign_information",
    "get_device_firmware_upgrade_history",
    "list_registered_callbacks",
    "log_in",
    "log_out",
    "register_callback",
    "request_token",
    "sandbox_banner",
    "schedule_campaign_firmware_upgrade",
    "update_callback",
]
