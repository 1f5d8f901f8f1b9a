"""Files that are TOML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from upcall.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_toml"]


def read_toml(path: Path) -> dict[str, Any]:
    """Read a file.

    Raises:
        SettingsError: It cannot be read, or is not TOML. The message does not name the file.
    """
    try:
        document: dict[str, Any] = msgspec.toml.decode(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"the file cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the file is not TOML: {error}.") from None
    return document
