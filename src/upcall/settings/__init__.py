"""What the environment and the settings file say: who calls, where to, how patiently, and where state lies.

What a caller passes stands before a variable, a variable before the file, the file before the default. Secrets come
from the environment or from a file that is named there, never from a command line and never out of the settings file
itself.
"""

from upcall.settings.credentials import Credentials, credential_sources
from upcall.settings.places import config_path, default_store, expanded, state_dir
from upcall.settings.reading import Account, Settings, read_accounts, read_settings

__all__ = [
    "Account",
    "Credentials",
    "Settings",
    "config_path",
    "credential_sources",
    "default_store",
    "expanded",
    "read_accounts",
    "read_settings",
    "state_dir",
]
