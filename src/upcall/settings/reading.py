"""The settings: variables laid over the settings file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from upcall.errors import SettingsError
from upcall.settings.credentials import Credentials, read_credentials
from upcall.settings.places import config_path, state_dir
from upcall.settings.pointing import Pointed, follow
from upcall.settings.tables import File
from upcall.settings.values import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upcall.settings.file import SettingsFile
    from upcall.settings.tables import Client
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
    environ: Mapping[str, str] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    lenient: bool = False,
) -> Settings:
    """Read the settings from the environment, and from the settings file where one is named.

    Args:
        environ: Variables to read instead of the process's own.
        config: The settings file; None takes the one that ``UPCALL_CONFIG`` names, if it names one.
        lenient: Take of the file what can be used, and tell the rest in `Settings.problems`, for a command that
            reports what is wrong.

    Raises:
        SettingsError: A variable, the file, or a file that one of them names cannot be used.
    """
    try:
        return _read(environ, config, lenient=lenient)
    except SettingsError as error:
        # The frames below hold the whole environment, which a trace that shows local names would show.
        raise error.with_traceback(None) from None


def read_accounts(config: str | os.PathLike[str]) -> tuple[Account, ...]:
    """Read the accounts of a settings file, and nothing that it points at: who only receives needs no credentials.

    Raises:
        SettingsError: The file cannot be used.
    """
    try:
        found = _found(Path(config))
        found.refuse()
    except SettingsError as error:
        raise error.with_traceback(None) from None
    return found.tables.accounts


def _found(path: Path) -> SettingsFile:
    from upcall.settings.file import read_file  # noqa: PLC0415 - most programs have no settings file

    return read_file(path)


def _read(environ: Mapping[str, str] | None, config: str | os.PathLike[str] | None, *, lenient: bool) -> Settings:
    env = os.environ if environ is None else environ
    path = Path(config) if config is not None else config_path(env)
    found = _found(path) if path is not None else None
    file, pointed = (found.tables, follow(found, env)) if found is not None else (File(), Pointed())
    if found is not None and not lenient:
        found.refuse()
    named, own, target = pointed.credentials, read_credentials(env), _target(env, file.client)
    return Settings(
        credentials=named[DEFAULT_CREDENTIALS] if own == Credentials() and DEFAULT_CREDENTIALS in named else own,
        state_dir=pointed.state_dir if pointed.state_dir and not env.get("UPCALL_STATE_DIR") else state_dir(env),
        base_url=target[0],
        environment=target[1],
        timeout_seconds=_parsed(env, "UPCALL_TIMEOUT_SECONDS", float, file.client.timeout_seconds),
        max_retries=_parsed(env, "UPCALL_MAX_RETRIES", int, file.client.max_retries),
        max_elapsed_seconds=_parsed(env, "UPCALL_MAX_ELAPSED_SECONDS", float, file.client.max_elapsed_seconds),
        allow_http=_switch(env, "UPCALL_ALLOW_HTTP", file.client.allow_http),
        token_store=_token_store(env, file.client.token_store),
        accounts=file.accounts,
        credentials_by_name=named,
        profile=pointed.profile,
        alert_url=pointed.alert_url,
        alert_source=file.alerts.url_file or file.alerts.url_env,
        guard=file.guard,
        reconcile=file.reconcile,
        path=path,
        problems=found.problems() if found is not None else (),
    )


def _target(env: Mapping[str, str], client: Client) -> tuple[str | None, str | None]:
    """Choose base URL or environment: the variables', else the file's; both variables contradict each other."""
    base_url, environment = env.get("THINGSPACE_BASE_URL", "").strip(), env.get("THINGSPACE_ENVIRONMENT", "").strip()
    if base_url and environment:
        raise SettingsError("THINGSPACE_BASE_URL and THINGSPACE_ENVIRONMENT are both set.", hint="Unset one of them.")
    if base_url or environment:
        return base_url or None, environment or None
    return client.base_url, None if client.base_url else client.environment


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
