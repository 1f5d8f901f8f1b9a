"""A ThingSpace for the laptop: its API, campaigns that run, and callbacks that are delivered as the provider does.

Names are loaded at their first use: the parts without I/O need neither the server nor the sender.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from upcall.lazy import lazy_names

if TYPE_CHECKING:
    from upcall.sandbox.app import Sandbox, SandboxSettings, create_app
    from upcall.sandbox.clock import ManualClock, RealClock
    from upcall.sandbox.faults import Faults, parse_faults
    from upcall.sandbox.profiles import PROFILES, Profile
    from upcall.sandbox.state import Credentials

__all__ = [
    "PROFILES",
    "Credentials",
    "Faults",
    "ManualClock",
    "Profile",
    "RealClock",
    "Sandbox",
    "SandboxSettings",
    "create_app",
    "parse_faults",
]

_NAMES_OF = {
    "app": ("Sandbox", "SandboxSettings", "create_app"),
    "clock": ("ManualClock", "RealClock"),
    "faults": ("Faults", "parse_faults"),
    "profiles": ("PROFILES", "Profile"),
    "state": ("Credentials",),
}

if not TYPE_CHECKING:  # a checker that sees __getattr__ believes in every name
    __getattr__, __dir__ = lazy_names(__name__, _NAMES_OF)
