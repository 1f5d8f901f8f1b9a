"""What a settings file points at: secrets in variables and files, a directory, a file that is a profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from upcall.errors import SettingsError
from upcall.settings.credentials import CREDENTIAL_FIELDS, Credentials, read_secret_file
from upcall.settings.places import expanded, is_profile_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from upcall.settings.file import SettingsFile
    from upcall.settings.lines import Place
    from upcall.settings.tables import Alerts, References

    T = TypeVar("T")

__all__ = ["Pointed", "follow"]


class Pointed(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what a settings file points at; `repr` shows none of it.

    Args:
        credentials: The ``[credentials.…]`` tables, read.
        alert_url: Where alerts are posted.
        state_dir: The client's state directory.
        profile: The delivery profile's name, or the whole path of its file.
    """

    credentials: dict[str, Credentials] = msgspec.field(default_factory=dict)
    alert_url: str | None = None
    state_dir: Path | None = None
    profile: str = "documented"

    def __repr__(self) -> str:
        return "Pointed(…)"


def follow(found: SettingsFile, env: Mapping[str, str]) -> Pointed:
    """Read what a settings file points at, and blame the file for what cannot be; paths count from it.

    Args:
        found: The file.
        env: The variables.
    """
    tables, home = found.tables, found.path.parent
    credentials = {name: _credentials(found, name, table, env) for name, table in tables.credentials.items()}
    return Pointed(
        credentials=credentials,
        alert_url=_alert_url(found, tables.alerts, env),
        state_dir=_state_dir(found, tables.client.state_dir),
        profile=_profile(found, tables.delivery.profile, home),
    )


def _credentials(found: SettingsFile, name: str, table: References, env: Mapping[str, str]) -> Credentials:
    values: dict[str, str | None] = {}
    sources: dict[str, str] = {}
    for field in CREDENTIAL_FIELDS:
        variable, file = getattr(table, f"{field}_env"), getattr(table, f"{field}_file")
        if file is not None:
            sources[field], values[field] = file, _secret(found, ("credentials", name, f"{field}_file"), file)
        elif variable is not None:
            sources[field], values[field] = variable, env.get(variable) or None
    return Credentials(**values, sources=tuple(sources.items()), table=name)


def _alert_url(found: SettingsFile, alerts: Alerts, env: Mapping[str, str]) -> str | None:
    from upcall.settings.checking import wrong_alert_url  # noqa: PLC0415 - loaded with the file

    key = next((key for key in ("url_file", "url_env") if getattr(alerts, key) is not None), None)
    if key is None:
        return alerts.url
    place, source = ("alerts", key), getattr(alerts, key)
    url = _secret(found, place, source) if key == "url_file" else env.get(source, "").strip() or None
    if url is not None and (wrong := wrong_alert_url(url)) is not None:
        found.blame(place, SettingsError(f"alerts.{key} names {source}, and what that holds {wrong}"))
        return None
    return url


def _secret(found: SettingsFile, place: Place, file: str) -> str | None:
    named_by = ".".join(map(str, place))
    return _tried(found, place, lambda: read_secret_file(found.path.parent / expanded(file), named_by))


def _state_dir(found: SettingsFile, named: str | None) -> Path | None:
    return _tried(found, ("client", "state_dir"), lambda: expanded(named)) if named else None


def _profile(found: SettingsFile, text: str, home: Path) -> str:
    """Read a profile, to see that it is one; a file's path is made one that does not count from anywhere."""
    if not is_profile_file(text):
        return text
    from upcall.settings.profiles import read_profile  # noqa: PLC0415 - most files name none

    read = _tried(found, ("delivery", "profile"), lambda: read_profile(text, home=home))
    return str((home / expanded(text)).absolute()) if read is not None else text


def _tried(found: SettingsFile, place: Place, read: Callable[[], T]) -> T | None:
    try:
        return read()
    except SettingsError as error:
        found.blame(place, error)
        return None
