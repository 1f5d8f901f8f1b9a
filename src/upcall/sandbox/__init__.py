"""A ThingSpace for the laptop: its API, campaigns that run, and callbacks that are delivered as the provider does.

Names are loaded at their first use: the parts without I/O need neither the server nor the sender.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from upcall.lazy import lazy_names
from upcall.thingspace import Profile

if TYPE_CHECKING:
    from upcall.sandbox.app import Sandbox, SandboxSettings
    from upcall.sandbox.clock import ManualClock, RealClock
    from upcall.sandbox.faults import FAULT_NAMES, Faults, Script, parse_faults
    from upcall.sandbox.files import load_faults
    from upcall.sandbox.state import Credentials

__all__ = [
    "FAULT_NAMES",
    "Credentials",
    "Faults",
    "ManualClock",
    "Profile",
    "RealClock",
    "Sandbox",
    "SandboxSettings",
    "Script",
    "load_faults",
    "parse_faults",
]

_NAMES_OF = {
    "app": ("Sandbox", "SandboxSettings"),
    "clock": ("ManualClock", "RealClock"),
    "faults": ("FAULT_NAMES", "Faults", "Script", "parse_faults"),
    "files": ("load_faults",),
    "state": ("Credentials",),
}

if not TYPE_CHECKING:  # a checker that sees __getattr__ believes in every name
    __getattr__, __dir__ = lazy_names(__name__, _NAMES_OF)
