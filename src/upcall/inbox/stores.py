"""Which backend a store's URL names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from upcall.errors import SettingsError

if TYPE_CHECKING:
    from upcall.inbox.base import Inbox

__all__ = ["open_inbox", "store_path"]


def open_inbox(url: str, *, create: bool = False) -> Inbox:
    """Open the inbox at a URL.

    Args:
        url: ``sqlite:////absolute/inbox.db`` (four slashes), ``sqlite:///relative/inbox.db``, or a plain path.
        create: Make the store where there is none; otherwise that is an error.

    Returns:
        The inbox; close it, or use it in a with statement.

    Raises:
        SettingsError: The URL names no backend that there is.
        StoreUnreadableError: There is no store, it is not an inbox, or it cannot be read.
        StoreVersionError: A newer Upcall wrote it.
    """
    from upcall.inbox.sqlite import SqliteInbox  # noqa: PLC0415 - sqlite3 is loaded with the first store

    return SqliteInbox(store_path(url), create=create)


def store_path(url: str) -> Path:
    """Return the file that an SQLite store's URL names.

    Raises:
        SettingsError: The URL is of another kind, or names no file.
    """
    scheme, mark, rest = url.partition("://")
    path = url if not mark else rest.removeprefix("/")
    if (mark and scheme != "sqlite") or (mark and not rest.startswith("/")) or not path or path == ":memory:":
        raise SettingsError(
            f"store {url!r} is not one that Upcall can open.",
            hint="Write sqlite:////absolute/inbox.db, sqlite:///relative/inbox.db or a plain path.",
        )
    return Path(path)
