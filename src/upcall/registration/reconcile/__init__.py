"""Filling gaps: what the provider's reports say, through the same inbox as what callbacks said."""

from upcall.registration.reconcile.accounts import SILENT_AFTER_SECONDS, default_since, reconcile_accounts
from upcall.registration.reconcile.values import (
    Contradiction,
    MissingReport,
    Reconciled,
    ReconcileProgress,
    SilentDevice,
)

__all__ = [
    "SILENT_AFTER_SECONDS",
    "Contradiction",
    "MissingReport",
    "ReconcileProgress",
    "Reconciled",
    "SilentDevice",
    "default_since",
    "reconcile_accounts",
]
