"""Looking at what lies on this machine: the store, its spool, its listeners. Nothing is written."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.errors import StoreError
from upcall.inbox import ListedDelivery, TokenRecord, Uptime, open_inbox, store_version
from upcall.inbox.durable import existing, network_file_system
from upcall.inbox.spool import spool_directory, spooled
from upcall.inbox.stores import store_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from upcall.inbox import Inbox

__all__ = ["Shelf", "SpoolSight", "StoreSight", "open_shelf"]

READ_WHOLE_BYTES: Final = 64 * 1024**2
"""A store that is larger is not read whole here: `upcall store check` does that."""
_KEPT_UPTIMES_MICROS: Final = 7 * 86_400 * 1_000_000
"""Listeners that ended longer ago are nobody's news."""


class SpoolSight(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what was seen of the spool.

    Args:
        directory: Where it is.
        error: Why it could not take callbacks, None where it could.
        waiting: How many arrivals wait in it.
        damaged: Files in it that hold what cannot be read.
        free_bytes: How much room its disk has.
    """

    directory: str
    error: str | None = None
    waiting: int = 0
    damaged: tuple[str, ...] = ()
    free_bytes: int | None = None


class StoreSight(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what was seen of the store; `repr` shows no token.

    Args:
        url: Where it is.
        is_missing: Whether there is none.
        is_named: Whether somebody named it, so that there should be one.
        error: Why it cannot be used, None where it can.
        problems: What is wrong in it.
        was_read: Whether all of it was read.
        quarantine_bytes: How much the quarantine holds.
        free_bytes: How much room its disk has, None where it has none.
        tokens: The tokens that were generated for it.
        uptimes: The listeners of the last days.
        spool: Its spool.
    """

    url: str
    is_missing: bool = False
    is_named: bool = False
    error: str | None = None
    problems: tuple[str, ...] = ()
    was_read: bool = False
    quarantine_bytes: int = 0
    free_bytes: int | None = None
    tokens: tuple[TokenRecord, ...] = ()
    uptimes: tuple[Uptime, ...] = ()
    spool: SpoolSight

    def __repr__(self) -> str:
        return f"StoreSight({self.url!r}, error={self.error!r}, {len(self.tokens)} tokens)"


class Shelf:
    """Hold a store while it is looked at.

    Args:
        inbox: The store, None where it cannot be used.
        sight: What was seen.
    """

    def __init__(self, inbox: Inbox | None, sight: StoreSight) -> None:
        self.inbox: Inbox | None = inbox
        self.sight: StoreSight = sight

    def last_listed(self, account: str) -> ListedDelivery | None:
        """Return when a callback of an account last came from an address that the provider publishes."""
        if self.inbox is None:
            return None
        try:
            return self.inbox.last_listed(account)
        except StoreError:
            return None


@contextlib.contextmanager
def open_shelf(url: str, *, is_named: bool, spool: Path | None, now: int) -> Iterator[Shelf]:
    """Open a store and look at it; one that cannot be used is what was seen.

    Args:
        url: The store's URL.
        is_named: Whether somebody named it.
        spool: The spool's directory, None for the store's own.
        now: The time, UTC microseconds.

    Raises:
        SettingsError: The URL names no store.
    """
    sight = StoreSight(url=url, is_named=is_named, spool=_spool(url, spool))
    with contextlib.ExitStack() as stack:
        inbox = None
        try:
            if store_version(url) is None:
                sight = msgspec.structs.replace(sight, is_missing=True)
            else:
                inbox = stack.enter_context(open_inbox(url))
                sight = _seen(sight, inbox, now)
                if (locked := _read_only(url)) is not None:
                    sight = msgspec.structs.replace(sight, error=f"{locked} cannot be written by this user")
        except StoreError as error:
            inbox, sight = None, msgspec.structs.replace(sight, error=str(error))
        yield Shelf(inbox, sight)


def _seen(sight: StoreSight, inbox: Inbox, now: int) -> StoreSight:
    size, free = _disk(sight.url)
    reads_whole = size <= READ_WHOLE_BYTES
    return msgspec.structs.replace(
        sight,
        problems=tuple(inbox.check()) if reads_whole else (),
        was_read=reads_whole,
        quarantine_bytes=inbox.quarantined_bytes(),
        free_bytes=free,
        tokens=tuple(inbox.tokens()),
        uptimes=tuple(inbox.uptimes(since=now - _KEPT_UPTIMES_MICROS)),
    )


def _read_only(url: str) -> Path | None:
    """Return what of a store cannot be written, its file or its directory, None where all of it can."""
    path = _file(url)
    places = () if path is None else (path, path.parent)
    return next((place for place in places if not os.access(place, os.W_OK)), None)


def _disk(url: str) -> tuple[int, int | None]:
    """Return how long a store's file is, and how much room its disk has."""
    path = _file(url)
    return (0, None) if path is None else (path.stat().st_size, shutil.disk_usage(path.parent).free)


def _file(url: str) -> Path | None:
    """Return the file of a store, None where it lies in none."""
    return None if "://" in url and not url.startswith("sqlite:") else store_path(url).resolve()


def _spool(url: str, named: Path | None) -> SpoolSight:
    directory = named if named is not None else spool_directory(url)
    sight = SpoolSight(directory=str(directory))
    place = existing(directory)
    if not place.is_dir():
        return msgspec.structs.replace(sight, error=f"{place} is no directory")
    if not os.access(place, os.W_OK | os.X_OK):
        return msgspec.structs.replace(sight, error=f"{place} cannot be written by this user")
    if (kind := network_file_system(directory)) is not None:
        return msgspec.structs.replace(sight, error=f"it lies on a network file system ({kind}), which may lose it")
    try:
        segments = spooled(directory)
    except StoreError as error:
        return msgspec.structs.replace(sight, error=str(error))
    return msgspec.structs.replace(
        sight,
        waiting=sum(segment.records for segment in segments if not segment.set_aside),
        damaged=tuple(segment.name for segment in segments if segment.damaged_bytes or segment.unreadable),
        free_bytes=shutil.disk_usage(place).free,
    )
