"""The settings: variables laid over the settings file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from upcall.errors import SettingsError
from upcall.settings.credentials import Credentials, read_credentials, read_secret_file
from upcall.settings.places import config_path, expanded, state_dir

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Account", "Settings", "read_accounts", "read_settings"]

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


class Account(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold one ``[[accounts]]`` table.

    Args:
        name: The billing account's name, such as ``0000123456-00001``.
        url: Where its callbacks are to go, None where the file does not say.
        credentials: Which ``[credentials.…]`` table calls for it, None for the environment's.
    """

    name: str
    url: str | None = None
    credentials: str | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what the environment and the settings file say; None where neither does.

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
        sources_by_name: For each of them where each credential is read from, a variable or a file.
        path: The settings file, None where there is none.
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
    sources_by_name: dict[str, dict[str, str | None]] = msgspec.field(default_factory=dict)
    path: Path | None = None

    def credentials_of(self, account: Account) -> Credentials:
        """Return who calls for an account."""
        return self.credentials_named(account.credentials)

    def credentials_named(self, name: str | None) -> Credentials:
        """Return who calls by a ``[credentials.…]`` table, or without one by its name being None."""
        return self.credentials_by_name[name] if name else self.credentials


class _Client(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    base_url: str | None = None
    environment: str | None = None
    timeout_seconds: float | None = None
    max_retries: int | None = None
    max_elapsed_seconds: float | None = None
    allow_http: bool | None = None
    token_store: bool | str | None = None
    state_dir: str | None = None


class _References(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name where each credential lies: in a variable, or in a file."""

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


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    client: _Client = _Client()
    accounts: tuple[Account, ...] = ()
    credentials: dict[str, _References] = msgspec.field(default_factory=dict)


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
    file = _read_file(path) if path is not None else _File()
    named = {name: _resolve(table, name, env, path) for name, table in file.credentials.items()}
    own = read_credentials(env)
    target = _target(env, file.client)
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
        path=path,
    )


def _target(env: Mapping[str, str], client: _Client) -> tuple[str | None, str | None]:
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


def _read_file(path: Path) -> _File:
    """Read a settings file, and say where in it a mistake is."""
    import tomllib  # noqa: PLC0415 - most programs have no settings file

    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        file = msgspec.convert(document, _File)
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


def _sources(table: _References) -> dict[str, str | None]:
    """Return what a table of references points at; the file counts where both are given."""
    return {
        field: getattr(table, f"{field}_file") or getattr(table, f"{field}_env")
        for field in Credentials.__struct_fields__
    }


def _resolve(table: _References, name: str, env: Mapping[str, str], path: Path | None) -> Credentials:
    """Read what a table of references points at; a file's path counts from the settings file."""
    values: dict[str, str | None] = {}
    home = path.parent if path is not None else Path()
    for field in Credentials.__struct_fields__:
        variable, file = getattr(table, f"{field}_env"), getattr(table, f"{field}_file")
        if file is not None:
            values[field] = read_secret_file(home / expanded(file), f"credentials.{name}.{field}_file")
        elif variable is not None:
            values[field] = env.get(variable) or None
    return Credentials(**values)
