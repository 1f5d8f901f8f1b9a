"""What was acknowledged, kept: one interface, one package a backend."""

from upcall.inbox.base import (
    Appender,
    Arrival,
    CallbackRecord,
    CampaignRecord,
    DeadRecord,
    Delivery,
    DeviceRecord,
    Inbox,
    Ledger,
    Outcome,
    Receipt,
    Subscription,
    TokenRecord,
    Trust,
    WorkItem,
    WorkRecord,
)
from upcall.inbox.events import stored_event
from upcall.inbox.stores import open_inbox

__all__ = [
    "Appender",
    "Arrival",
    "CallbackRecord",
    "CampaignRecord",
    "DeadRecord",
    "Delivery",
    "DeviceRecord",
    "Inbox",
    "Ledger",
    "Outcome",
    "Receipt",
    "Subscription",
    "TokenRecord",
    "Trust",
    "WorkItem",
    "WorkRecord",
    "open_inbox",
    "stored_event",
]
