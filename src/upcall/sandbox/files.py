"""A file that says what goes wrong: TOML."""

from __future__ import annotations

from pathlib import Path

from upcall.errors import SettingsError
from upcall.sandbox.faults import Faults, parse_faults
from upcall.settings.toml import read_toml

__all__ = ["load_faults"]


def load_faults(text: str | None) -> Faults:
    """Read a list such as ``duplicate=0.1,reorder=0.1``, or a file.

    Args:
        text: The list, or a path that ends in ``.toml``.

    Raises:
        SettingsError: A name is unknown, a rate is out of range, or the file is not sound.
    """
    name = (text or "").strip()
    if not name.endswith(".toml"):
        return parse_faults(text)
    try:
        return Faults.checked(read_toml(Path(name)))
    except SettingsError as error:
        raise SettingsError(f"{name}: {error.message}", hint=error.hint) from None
