"""Keeping the provider pointed at us: what should be registered, what is, what was written, and what was missed."""

from upcall.registration.audit import Audit, History
from upcall.registration.desired import Ours, Target, in_order, select_targets, targets_of
from upcall.registration.lock import registration_lock
from upcall.registration.planning import Standing, Step, plan, step_of

__all__ = [
    "Audit",
    "History",
    "Ours",
    "Standing",
    "Step",
    "Target",
    "in_order",
    "plan",
    "registration_lock",
    "select_targets",
    "step_of",
    "targets_of",
]
