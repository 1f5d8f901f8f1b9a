"""Files that say how the provider tries, and what goes wrong: TOML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from upcall.errors import SettingsError
from upcall.sandbox.faults import Faults, parse_faults
from upcall.sandbox.profiles import checked_profile, profile_named

if TYPE_CHECKING:
    from collections.abc import Callable

    from upcall.sandbox.profiles import Profile

Made = TypeVar("Made")

__all__ = ["load_faults", "load_profile"]


def load_profile(name: str) -> Profile:
    """Return a built-in profile by its name, or read one from a file.

    Args:
        name: ``documented``, ``observed``, or a path that ends in ``.toml``.

    Raises:
        SettingsError: There is none of that name, or the file is not sound.
    """
    if not name.endswith(".toml"):
        return profile_named(name)
    return _of(name, lambda document: checked_profile({"name": Path(name).stem} | document))


def load_faults(text: str | None) -> Faults:
    """Read a list such as ``duplicate=0.1,reorder=0.1``, or a file.

    Args:
        text: The list, or a path that ends in ``.toml``.

    Raises:
        SettingsError: A name is unknown, a rate is out of range, or the file is not sound.
    """
    if text is None or not text.strip().endswith(".toml"):
        return parse_faults(text)
    return _of(text.strip(), Faults.checked)


def _of(name: str, make: Callable[[dict[str, Any]], Made]) -> Made:
    try:
        return make(_read(name))
    except SettingsError as error:
        raise SettingsError(f"{name}: {error.message}", hint=error.hint) from None


def _read(name: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = msgspec.toml.decode(Path(name).read_bytes())
    except OSError as error:
        raise SettingsError(f"the file cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the file is not TOML: {error}.") from None
    return document
