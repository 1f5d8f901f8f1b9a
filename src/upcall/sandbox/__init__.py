"""A ThingSpace for the laptop: its API, campaigns that run, and callbacks that are delivered as the provider does.

Names are loaded at their first use: the parts without I/O need neither the server nor the sender.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_MODULES = {
    "app": ("Sandbox", "SandboxSettings", "create_app"),
    "clock": ("ManualClock", "RealClock"),
    "faults": ("Faults", "parse_faults"),
    "profiles": ("PROFILES", "Profile"),
    "state": ("Credentials",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'upcall.sandbox' has no attribute {name!r}")
    value = getattr(import_module(f"upcall.sandbox.{module}"), name)
    globals()[name] = value
    return value
