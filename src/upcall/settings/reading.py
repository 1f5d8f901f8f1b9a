"""The settings: variables laid over the settings file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from upcall.errors import SettingsError
from upcall.settings.credentials import Credentials, read_credentials, read_secret_file
from upcall.settings.places import config_path, expanded, is_profile_file, state_dir
from upcall.settings.tables import Client, File, References
from upcall.settings.values import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upcall.settings.tables import Alerts
    from upcall.settings.values import Account

__all__ = ["read_accounts", "read_settings"]

N = TypeVar("N", int, float)

DEFAULT_CREDENTIALS: Final = "default"
"""The ``[credentials.default]`` table stands in for variables that are not set."""

_CORRECT: Final = "Correct or unset it."
_SWITCHES: Final = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def read_settings(
    environ: Mapping[str, str] | None = None, *, config: str | os.PathLike[str] | None = None
) -> Settings:
    """Read the settings from the environment, and from the settings file where one is named.

    Args:
        environ: Variables to read instead of the process's own.
        config: The settings file; None takes the one that ``UPCALL_CONFIG`` names, if it names one.

    Raises:
        SettingsError: A variable, the file, or a file that one of them names cannot be used.
    """
    try:
        return _read(environ, config)
    except SettingsError as error:
        # The frames below hold the whole environment, which a trace that shows local names would show.
        raise error.with_traceback(None) from None


def read_accounts(config: str | os.PathLike[str]) -> tuple[Account, ...]:
    """Read the accounts of a settings file, and nothing that it points at: who only receives needs no credentials.

    Raises:
        SettingsError: The file cannot be used.
    """
    return _read_file(Path(config)).accounts


def _read(environ: Mapping[str, str] | None, config: str | os.PathLike[str] | None) -> Settings:
    env = os.environ if environ is None else environ
    path = Path(config) if config is not None else config_path(env)
    file = _read_file(path) if path is not None else File()
    home = path.parent if path is not None else Path()
    named = {name: _resolve(table, name, env, home) for name, table in file.credentials.items()}
    own = read_credentials(env)
    target = _target(env, file.client)
    alert_url, alert_source = _alerts(env, file.alerts, home)
    return Settings(
        credentials=named[DEFAULT_CREDENTIALS] if own == Credentials() and DEFAULT_CREDENTIALS in named else own,
        state_dir=_state_dir(env, file.client.state_dir),
        base_url=target[0],
        environment=target[1],
        timeout_seconds=_parsed(env, "UPCALL_TIMEOUT_SECONDS", float, file.client.timeout_seconds),
        max_retries=_parsed(env, "UPCALL_MAX_RETRIES", int, file.client.max_retries),
        max_elapsed_seconds=_parsed(env, "UPCALL_MAX_ELAPSED_SECONDS", float, file.client.max_elapsed_seconds),
        allow_http=_switch(env, "UPCALL_ALLOW_HTTP", file.client.allow_http),
        token_store=_token_store(env, file.client.token_store),
        accounts=file.accounts,
        credentials_by_name=named,
        sources_by_name={name: _sources(table) for name, table in file.credentials.items()},
        profile=_profile(file.delivery.profile, home),
        alert_url=alert_url,
        alert_source=alert_source,
        guard=file.guard,
        reconcile=file.reconcile,
        path=path,
    )


def _target(env: Mapping[str, str], client: Client) -> tuple[str | None, str | None]:
    """Choose base URL or environment: the variables', else the file's; both at once contradict each other."""
    base_url, environment = env.get("THINGSPACE_BASE_URL", "").strip(), env.get("THINGSPACE_ENVIRONMENT", "").strip()
    if base_url and environment:
        raise SettingsError("THINGSPACE_BASE_URL and THINGSPACE_ENVIRONMENT are both set.", hint="Unset one of them.")
    if base_url or environment:
        return base_url or None, environment or None
    if client.base_url and client.environment:
        raise SettingsError("The settings file gives client.base_url and client.environment.", hint="Give one of them.")
    return client.base_url, client.environment


def _parsed(env: Mapping[str, str], name: str, parse: type[N], otherwise: N | None) -> N | None:
    text = env.get(name, "").strip()
    if not text:
        return otherwise
    try:
        return parse(text)
    except ValueError:
        what = {int: "a whole number", float: "a number of seconds"}[parse]
        raise SettingsError(f"{name} is {text!r}, which is not {what}.", hint=_CORRECT) from None


def _switch(env: Mapping[str, str], name: str, otherwise: bool | None) -> bool | None:  # noqa: FBT001
    text = env.get(name, "").strip().lower()
    if not text:
        return otherwise
    if text not in _SWITCHES:
        raise SettingsError(f"{name} is {text!r}, which is neither 1 nor 0.", hint=_CORRECT)
    return _SWITCHES[text]


def _token_store(env: Mapping[str, str], otherwise: bool | str | None) -> bool | str | None:  # noqa: FBT001
    text = env.get("UPCALL_TOKEN_STORE", "").strip()
    return _SWITCHES.get(text.lower(), text) if text else otherwise


def _state_dir(env: Mapping[str, str], otherwise: str | None) -> Path:
    return expanded(otherwise) if otherwise and not env.get("UPCALL_STATE_DIR") else state_dir(env)


def _read_file(path: Path) -> File:
    """Read a settings file, and say where in it a mistake is."""
    import tomllib  # noqa: PLC0415 - most programs have no settings file

    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        file = msgspec.convert(document, File)
    except FileNotFoundError:
        raise SettingsError(f"There is no settings file {path}.", hint="Correct --config or UPCALL_CONFIG.") from None
    except OSError as error:
        raise SettingsError(f"The settings file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SettingsError(f"The settings file {path} is not UTF-8 text.") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise SettingsError(f"The settings file {path} is wrong: {error}.") from None
    names = [account.name for account in file.accounts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(f"The settings file {path} names the account {twice[0]} twice.", hint="Leave one out.")
    for account in file.accounts:
        if account.credentials is not None and account.credentials not in file.credentials:
            raise SettingsError(
                f"The settings file {path} has no table [credentials.{account.credentials}], which the account"
                f" {account.name} asks for."
            )
    return file


def _profile(text: str, home: Path) -> str:
    """Make a file's path one that does not count from the settings file any more."""
    return str((home / expanded(text)).absolute()) if is_profile_file(text) else text


def _alerts(env: Mapping[str, str], alerts: Alerts, home: Path) -> tuple[str | None, str | None]:
    """Read where alerts are posted, and from which variable or file that is known."""
    if alerts.url_file is not None:
        return read_secret_file(home / expanded(alerts.url_file), "alerts.url_file"), alerts.url_file
    if alerts.url_env is not None:
        return env.get(alerts.url_env, "").strip() or None, alerts.url_env
    return alerts.url, None


def _sources(table: References) -> dict[str, str | None]:
    """Return what a table of references points at; the file counts where both are given."""
    return {
        field: getattr(table, f"{field}_file") or getattr(table, f"{field}_env")
        for field in Credentials.__struct_fields__
    }


def _resolve(table: References, name: str, env: Mapping[str, str], home: Path) -> Credentials:
    """Read what a table of references points at; a file's path counts from the settings file."""
    values: dict[str, str | None] = {}
    for field in Credentials.__struct_fields__:
        variable, file = getattr(table, f"{field}_env"), getattr(table, f"{field}_file")
        if file is not None:
            values[field] = read_secret_file(home / expanded(file), f"credentials.{name}.{field}_file")
        elif variable is not None:
            values[field] = env.get(variable) or None
    return Credentials(**values)
