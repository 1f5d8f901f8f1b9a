"""Which backend a store's URL names, and what is done to a store that is not open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from upcall.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from upcall.inbox.base import Inbox

__all__ = [
    "SCHEMA_VERSION",
    "open_inbox",
    "restore_store",
    "store_path",
    "store_version",
    "upgrade_store",
]

SCHEMA_VERSION: Final = 3
"""The schema that this Upcall writes."""

_MEMORY: Final = "memory://"


def open_inbox(
    url: str, *, create: bool = False, upgrade: bool = False, accept_old: bool = False, relaxed: bool = False
) -> Inbox:
    """Open the inbox at a URL.

    Args:
        url: ``sqlite:////absolute/inbox.db`` (four slashes), ``sqlite:///relative/inbox.db``, or a plain path;
            ``memory://NAME`` for tests.
        create: Make the store where there is none; otherwise that is an error.
        upgrade: Bring a store that an older Upcall wrote to this one's schema; otherwise that is an error.
        accept_old: Open such a store as it is, for `tokens` and `add_token` only, until somebody upgrades it.
        relaxed: For a worker: what it records of its work is on disk a moment later, with the next callback that is
            kept. A power cut may take the last of it back, never half of it, and then that work is done again. What an
            appender commits is on disk all the same.

    Returns:
        The inbox; close it, or use it in a with statement.

    Raises:
        SettingsError: The URL names no backend that there is.
        StoreUnreadableError: There is no store, it is not an inbox, or it cannot be read.
        StoreVersionError: A newer Upcall wrote it, or an older one.
    """
    if url.startswith(_MEMORY):
        from upcall.inbox.memory import MemoryInbox  # noqa: PLC0415 - for tests only

        return MemoryInbox(url, create=create)
    from upcall.inbox.sqlite import SqliteInbox  # noqa: PLC0415 - sqlite3 is loaded with the first store

    path = store_path(url)
    if upgrade and (store_version(url) or SCHEMA_VERSION) < SCHEMA_VERSION:
        from upcall.inbox.sqlite.migration import upgrade as upgrade_file  # noqa: PLC0415 - as above

        upgrade_file(path, _no_progress, catch_up=False)
    return SqliteInbox(path, create=create, accept_old=accept_old, relaxed=relaxed)


def store_version(url: str) -> int | None:
    """Return the number of a store's schema, None where there is no store.

    Args:
        url: The store's URL.

    Raises:
        SettingsError: The URL names no backend that there is.
        StoreUnreadableError: What is there is no inbox, or cannot be read.
        StoreVersionError: A newer Upcall wrote it.
    """
    if url.startswith(_MEMORY):
        return SCHEMA_VERSION
    from upcall.inbox.sqlite.migration import version_of  # noqa: PLC0415 - sqlite3 is loaded with the first store

    return version_of(store_path(url))


def upgrade_store(url: str, *, progress: Callable[[int, int], None] = lambda _done, _total: None) -> tuple[int, int]:
    """Bring a store that an older Upcall wrote to this one's schema, and its read model up to date.

    It may be stopped at any point and called again, by several processes at once too. Listeners that cannot write
    meanwhile keep what comes in their spool.

    Args:
        url: The store's URL.
        progress: Called with how many parts of how many are done.

    Returns:
        The schema's number before and after.

    Raises:
        SettingsError: The URL names no backend that there is.
        StoreError: There is no store, it is not an inbox, or it cannot be written.
    """
    if url.startswith(_MEMORY):
        return SCHEMA_VERSION, SCHEMA_VERSION
    from upcall.inbox.sqlite.migration import upgrade  # noqa: PLC0415 - sqlite3 is loaded with the first store

    return upgrade(store_path(url), progress, catch_up=True)


def restore_store(source: Path, url: str, *, replace: bool = False) -> Path | None:
    """Put a copy that `Inbox.backup` made in a store's place.

    Args:
        source: The copy. It is checked first, and stays as it is.
        url: The store's URL.
        replace: Whether there may be a store already, which nobody uses; it is kept beside the new one.

    Returns:
        Where the old store is now, None where there was none.

    Raises:
        SettingsError: The URL names no file.
        UpcallError: There is a store, and it may not be replaced.
        StoreError: It is in use; or the copy is none, or damaged.
    """
    from upcall.inbox.sqlite.copies import restore  # noqa: PLC0415 - sqlite3 is loaded with the first store

    return restore(source, store_path(url), replace=replace)


def store_path(url: str) -> Path:
    """Return the file that an SQLite store's URL names.

    Raises:
        SettingsError: The URL is of another kind, or names no file.
    """
    scheme, mark, rest = url.partition("://")
    path = url if not mark else rest.removeprefix("/")
    if (mark and scheme != "sqlite") or (mark and not rest.startswith("/")) or not path or path == ":memory:":
        shown = url if scheme == "sqlite" or not mark else f"{scheme}://…"  # the rest may hold a password
        raise SettingsError(
            f"store {shown!r} is not one that Upcall can open.",
            hint="Write sqlite:////absolute/inbox.db, sqlite:///relative/inbox.db or a plain path.",
        )
    return Path(path)


def _no_progress(_done: int, _total: int) -> None:
    """Tell nobody."""
