"""What may stand in a settings file: its tables, as they are written."""

from __future__ import annotations

import msgspec

from upcall.settings.values import Account, GuardSettings, ReconcileSettings

__all__ = ["Alerts", "Client", "Delivery", "File", "References"]


class Client(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold the ``[client]`` table: options of a client, by their names there."""

    base_url: str | None = None
    environment: str | None = None
    timeout_seconds: float | None = None
    max_retries: int | None = None
    max_elapsed_seconds: float | None = None
    allow_http: bool | None = None
    token_store: bool | str | None = None
    state_dir: str | None = None


class Delivery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold the ``[delivery]`` table: how the provider is taken to deliver."""

    profile: str = "documented"


class Alerts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold the ``[alerts]`` table; `repr` shows no URL."""

    url: str | None = None
    url_env: str | None = None
    url_file: str | None = None

    def __repr__(self) -> str:
        return "Alerts(…)"


class References(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold a ``[credentials.…]`` table: where each credential lies, in a variable or in a file."""

    client_id_env: str | None = None
    client_id_file: str | None = None
    client_secret_env: str | None = None
    client_secret_file: str | None = None
    username_env: str | None = None
    username_file: str | None = None
    password_env: str | None = None
    password_file: str | None = None
    session_token_env: str | None = None
    session_token_file: str | None = None


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold a settings file."""

    client: Client = Client()
    delivery: Delivery = Delivery()
    alerts: Alerts = Alerts()
    guard: GuardSettings = GuardSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
    accounts: tuple[Account, ...] = ()
    credentials: dict[str, References] = msgspec.field(default_factory=dict)
