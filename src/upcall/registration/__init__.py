"""Keeping the provider pointed at us: what should be registered, what is, what was written, and what was missed."""

from upcall.registration.applying import Applied, carry_out, drive, drive_async, flaw_of
from upcall.registration.audit import Audit, History
from upcall.registration.desired import Ours, Target, in_order, select_targets, targets_of
from upcall.registration.lock import reconcile_lock, registration_lock
from upcall.registration.outages import (
    ALIVE_MICROS,
    Outage,
    Repeats,
    Span,
    away_spans,
    find_outages,
    living,
    repeats,
)
from upcall.registration.planning import Standing, Step, decision, plan, step_of
from upcall.registration.reading import Desired, read_desired, read_elsewhere
from upcall.registration.reconcile import (
    SILENT_AFTER_SECONDS,
    Contradiction,
    MissingReport,
    Reconciled,
    ReconcileProgress,
    SilentDevice,
    default_since,
    reconcile_accounts,
)

__all__ = [
    "ALIVE_MICROS",
    "SILENT_AFTER_SECONDS",
    "Applied",
    "Audit",
    "Contradiction",
    "Desired",
    "History",
    "MissingReport",
    "Ours",
    "Outage",
    "ReconcileProgress",
    "Reconciled",
    "Repeats",
    "SilentDevice",
    "Span",
    "Standing",
    "Step",
    "Target",
    "away_spans",
    "carry_out",
    "decision",
    "default_since",
    "drive",
    "drive_async",
    "find_outages",
    "flaw_of",
    "in_order",
    "living",
    "plan",
    "read_desired",
    "read_elsewhere",
    "reconcile_accounts",
    "reconcile_lock",
    "registration_lock",
    "repeats",
    "select_targets",
    "step_of",
    "targets_of",
]
