"""What the environment and the settings file say: who calls, where to, how patiently, and where state lies.

What a caller passes stands before a variable, a variable before the file, the file before the default. Secrets come
from the environment or from a file that is named there, never from a command line and never out of the settings file
itself.

Names are loaded at their first use: what only asks where the store lies reads no file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from upcall.lazy import lazy_names

if TYPE_CHECKING:
    from upcall.settings.credentials import CREDENTIAL_FIELDS, Credentials
    from upcall.settings.places import config_path, default_store, expanded, state_dir
    from upcall.settings.profiles import read_profile
    from upcall.settings.reading import read_accounts, read_settings
    from upcall.settings.values import Account, GuardSettings, ReconcileSettings, Settings, SettingsProblem

__all__ = [
    "CREDENTIAL_FIELDS",
    "Account",
    "Credentials",
    "GuardSettings",
    "ReconcileSettings",
    "Settings",
    "SettingsProblem",
    "config_path",
    "default_store",
    "expanded",
    "read_accounts",
    "read_profile",
    "read_settings",
    "state_dir",
]

_NAMES_OF = {
    "credentials": ("CREDENTIAL_FIELDS", "Credentials"),
    "places": ("config_path", "default_store", "expanded", "state_dir"),
    "profiles": ("read_profile",),
    "reading": ("read_accounts", "read_settings"),
    "values": ("Account", "GuardSettings", "ReconcileSettings", "Settings", "SettingsProblem"),
}

if not TYPE_CHECKING:  # a checker that sees __getattr__ believes in every name
    __getattr__, __dir__ = lazy_names(__name__, _NAMES_OF)
