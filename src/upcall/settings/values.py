"""The values that settings are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from upcall.errors import SettingsError
from upcall.redact import BLANK, mask_url_token
from upcall.settings.credentials import Credentials

__all__ = ["TOKEN_PLACEHOLDER", "Account", "GuardSettings", "ReconcileSettings", "Settings", "SettingsProblem"]

TOKEN_PLACEHOLDER: Final = "{token}"  # noqa: S105 - where one is put
"""What stands in an account's URL where its token is to be."""


class Account(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold one ``[[accounts]]`` table; `repr` shows no token.

    Args:
        name: The billing account's name, such as ``0000123456-00001``.
        url: Where its callbacks are to go, None where the file does not say. ``{token}`` in it stands for the
            listener's token.
        credentials: Which ``[credentials.…]`` table calls for it, None for the environment's.
        labels: Words by which commands choose accounts.
    """

    name: str
    url: str | None = None
    credentials: str | None = None
    labels: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shown = self.url if self.url is None or TOKEN_PLACEHOLDER in self.url else mask_url_token(self.url)
        return f"Account(name={self.name!r}, url={shown!r}, credentials={self.credentials!r}, labels={self.labels!r})"


class GuardSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold the ``[guard]`` table.

    Args:
        every_seconds: How long from one look at what is registered to the next.
        reassert: Whether a URL that somebody else has replaced is written again.
    """

    every_seconds: float = 300.0
    reassert: bool = False


class ReconcileSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold the ``[reconcile]`` table.

    Args:
        after_outage: Whether a listener that was away reads the provider's reports when it is back.
        every_seconds: How long from one reading of the reports to the next; None for no schedule.
        requests_per_second: How many calls a second it makes at most.
    """

    after_outage: bool = False
    every_seconds: float | None = None
    requests_per_second: float = 5.0


class SettingsProblem(msgspec.Struct, frozen=True):
    """Say what is wrong in a settings file.

    Args:
        line: In which line, counted from 1; None where no line is to blame.
        text: What is wrong, and what is allowed.
        hint: What to do about it, None where the text says so.
        account: Whose ``[[accounts]]`` table it is, None where it is none's or that has no name.
    """

    line: int | None
    text: str
    hint: str | None = None
    account: str | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what the environment and the settings file say; None where neither does. `repr` shows no secret.

    Args:
        credentials: Who calls, unless an account names others.
        state_dir: Where Upcall keeps what outlives a process.
        base_url: The provider's root, which ends in ``/api``.
        environment: One of the provider's environments, instead of a base URL.
        timeout_seconds: How long one request may take.
        max_retries: How often a call may be tried again.
        max_elapsed_seconds: The budget of a whole call.
        allow_http: Whether http callback URLs to loopback are admitted.
        token_store: Whether tokens are kept on disk, or in which file.
        accounts: The accounts, in the file's order.
        credentials_by_name: The ``[credentials.…]`` tables, read.
        profile: How the provider delivers, for `read_profile`: a name, or the path of a file.
        alert_url: Where alerts are posted.
        alert_source: The variable or file that the alerts' URL is read from, None where it stands in the settings
            file or nowhere.
        guard: How the guard watches.
        reconcile: How reports are read.
        path: The settings file, None where there is none.
        problems: What is wrong in it, where it was read leniently.
    """

    credentials: Credentials
    state_dir: Path
    base_url: str | None = None
    environment: str | None = None
    timeout_seconds: float | None = None
    max_retries: int | None = None
    max_elapsed_seconds: float | None = None
    allow_http: bool | None = None
    token_store: bool | str | None = None
    accounts: tuple[Account, ...] = ()
    credentials_by_name: dict[str, Credentials] = msgspec.field(default_factory=dict)
    profile: str = "documented"
    alert_url: str | None = None
    alert_source: str | None = None
    guard: GuardSettings = GuardSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
    path: Path | None = None
    problems: tuple[SettingsProblem, ...] = ()

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        if self.alert_url is not None:
            shown["alert_url"] = BLANK
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def credentials_of(self, account: Account) -> Credentials:
        """Return who calls for an account."""
        return self.credentials_named(account.credentials)

    def credentials_named(self, name: str | None) -> Credentials:
        """Return who calls by a ``[credentials.…]`` table, or without one by its name being None.

        Raises:
            SettingsError: There is no such table, in a file that was read leniently.
        """
        if not name:
            return self.credentials
        if name not in self.credentials_by_name:
            raise SettingsError(f"The settings file {self.path} has no table [credentials.{name}].")
        return self.credentials_by_name[name]
