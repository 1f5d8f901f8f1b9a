"""Diagnosis: each thing that must hold between the provider and the store, checked, with what to do where it fails.

What is seen (`looking`, `calling`, `keeping`) and what it means (`judging`, `signing`, `shelving`, `tokens`) are apart:
those who judge do no I/O. One fault is one failure: a check is skipped where one that it rests on failed.
"""

from upcall.registration.doctor.catalogue import CHECKS, Check
from upcall.registration.doctor.examining import Case, examine
from upcall.registration.doctor.looking import Limits, Looker
from upcall.registration.doctor.preflight import CERTAIN, PREFLIGHT, Preflight, concluded, preflight
from upcall.registration.doctor.results import CheckResult

__all__ = [
    "CERTAIN",
    "CHECKS",
    "PREFLIGHT",
    "Case",
    "Check",
    "CheckResult",
    "Limits",
    "Looker",
    "Preflight",
    "concluded",
    "examine",
    "preflight",
]
