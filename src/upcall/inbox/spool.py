"""What is acknowledged while the store fails: fsynced files on another path, imported in order and once.

The importer goes through `Spool.segments`, oldest first. For each it asks the store how far it got (`Appender.marked`),
reads from there, stages what it read together with where that ends, and commits; at the end it removes the segment,
and only then lets the store forget the mark. Wherever that is cut off, nothing is imported twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from typing import TYPE_CHECKING, Final, NoReturn

from upcall.errors import StoreError, StoreVersionError
from upcall.inbox.framing import HEADER_BYTES
from upcall.inbox.segment import SEGMENT, Segment, SegmentInfo, inspect, is_segment, sync_directory
from upcall.inbox.stores import store_path
from upcall.settings import state_dir

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from upcall.inbox.values import Arrival

__all__ = ["Segment", "SegmentInfo", "Spool", "spool_directory", "spooled"]

SEGMENT_BYTES: Final = 64 * 1024 * 1024
"""A segment that is longer takes no further group."""

_log = logging.getLogger("upcall.inbox")


def spool_directory(url: str) -> Path:
    """Return where a store's spool lies: in the state directory, so that it may be another disk than the store's.

    Args:
        url: The store's URL.

    Raises:
        SettingsError: The URL names no store.
    """
    named = os.fsencode(_file(url) or url)
    return state_dir() / "spool" / hashlib.sha256(named).hexdigest()[:16]


class Spool:
    """Keep arrivals in files until the store takes them.

    Several processes may use one directory: each writes segments of its own, and imports those and what a process
    that is gone left behind. One thread at a time; `records` and `size_bytes` may be asked from any.

    Args:
        directory: Where; it is made when the first arrivals come.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._held: dict[str, Segment] = {}
        self._written: Segment | None = None
        self._damaged_bytes = 0
        self._reported: set[str] = set()
        self._is_closed = False

    @property
    def records(self) -> int:
        """Return how many arrivals wait in the segments that this process holds, since `segments` was last asked."""
        return sum(segment.records for segment in list(self._held.values()))

    @property
    def size_bytes(self) -> int:
        """Return how many bytes wait in the segments that this process holds."""
        return sum(segment.size_bytes for segment in list(self._held.values()))

    @property
    def damaged_bytes(self) -> int:
        """Return how many bytes of damage this process came upon."""
        return self._damaged_bytes + sum(sum(segment.damage.values()) for segment in list(self._held.values()))

    def append(self, arrivals: Sequence[Arrival]) -> None:
        """Keep arrivals; they are on disk when this returns.

        Args:
            arrivals: What came, in order.

        Raises:
            StoreError: They are not; nothing of them counts.
        """
        if not arrivals:
            return
        if self._is_closed:
            raise StoreError("the spool is closed.")
        try:
            segment = self._segment_to_write()
            try:
                segment.extend(arrivals)
            finally:
                self._drop_failed(segment)
        except OSError as error:
            self._fail(error)

    def segments(self) -> list[Segment]:
        """Return what this process may import, oldest first: its own segments, and those of processes that are gone.

        Segments that another process writes or imports are left alone. Those returned are held until they are
        removed: ask the store for a segment's mark after this, not before.
        """
        for segment in [held for held in self._held.values() if held.is_gone]:
            self._damaged_bytes += sum(segment.damage.values())
            del self._held[segment.name]
        for path in self._files():
            if path.stem not in self._held:
                self._adopt(path)
        return [segment for _, segment in sorted(self._held.items()) if not segment.is_spent]

    def test(self) -> None:
        """Find out, by making a file, whether arrivals could be kept here.

        Raises:
            StoreError: They could not.
        """
        try:
            self._make_directory()
            probe = Segment.create(self.directory, 0)
        except OSError as error:
            self._fail(error)
        probe.remove()

    def shares_disk(self, url: str) -> bool:
        """Tell whether the store lies on the same file system: a full disk then stops both."""
        store = _file(url)
        try:
            return store is not None and _existing(store).stat().st_dev == _existing(self.directory).stat().st_dev
        except OSError:
            return False

    def close(self) -> None:
        """Let go of all segments: what is in them waits for the next process."""
        self._is_closed = True
        for segment in self._held.values():
            if segment is self._written and segment.end == HEADER_BYTES:
                with contextlib.suppress(StoreError):
                    segment.remove()
            segment.let_go()
        self._held = {}
        self._written = None

    def _segment_to_write(self) -> Segment:
        current = self._written
        if current is not None and not current.is_sealed and current.end < SEGMENT_BYTES:
            if current.is_in_place:
                return current
            _log.error(
                "spool file %s was deleted while in use; what is in it is kept until this process ends.", current.name
            )
        self._seal()
        self._make_directory()
        self._written = Segment.create(self.directory, self._next_number())
        self._held[self._written.name] = self._written
        return self._written

    def _seal(self) -> None:
        if self._written is not None:
            self._written.is_sealed = True
            self._written = None

    def _drop_failed(self, segment: Segment) -> None:
        """Go on elsewhere after a failure that leaves a segment's end in doubt; its earlier groups stay good."""
        if segment.is_sealed:
            self._seal()
            if segment.end == HEADER_BYTES:
                with contextlib.suppress(StoreError):
                    segment.remove()

    def _adopt(self, path: Path) -> None:
        try:
            segment = Segment.adopt(path)
        except (OSError, StoreVersionError) as error:
            self._report(path.stem, f"spool file {path} waits, and cannot be imported: {error}")
            return
        if segment is not None:
            self._held[segment.name] = segment

    def _files(self) -> list[Path]:
        try:
            return sorted(path for path in self.directory.iterdir() if path.suffix == SEGMENT and is_segment(path))
        except FileNotFoundError:
            return []
        except OSError as error:
            self._report("", f"spool {self.directory} cannot be looked through: {error.strerror}.")
            return []

    def _report(self, about: str, text: str) -> None:
        """Log an error once."""
        if about not in self._reported:
            self._reported.add(about)
            _log.error("%s", text)

    def _next_number(self) -> int:
        """Return the time, or more where a clock that was set back would put a new segment before an older one."""
        numbers = [int(path.stem.partition("-")[0]) for path in self._files()]
        return max([time.time_ns() // 1000, *(number + 1 for number in numbers)])

    def _make_directory(self) -> None:
        missing = [path for path in (self.directory, *self.directory.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(mode=0o700, exist_ok=True)
        for path in {self.directory.parent, *(path.parent for path in missing)}:
            with contextlib.suppress(PermissionError):  # one that somebody else made, and that may not be read
                sync_directory(path)

    def _fail(self, error: OSError) -> NoReturn:
        raise StoreError(
            f"spool {self.directory} cannot take callbacks: {error.strerror}.",
            hint="Free space or mend it, or set UPCALL_STATE_DIR to a directory on another disk.",
        ) from error


def spooled(directory: Path) -> list[SegmentInfo]:
    """Describe the segments in a directory, oldest first, and those set aside; nobody is kept from working there.

    Args:
        directory: From `spool_directory`.

    Raises:
        StoreError: They cannot be read.
        StoreVersionError: A newer Upcall wrote one.
    """
    found = []
    try:
        for path in sorted(directory.iterdir()):
            if is_segment(path):
                with contextlib.suppress(FileNotFoundError):  # imported meanwhile
                    found.append(inspect(path))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"spool {directory} cannot be read: {error.strerror}.") from error
    return found


def _file(url: str) -> Path | None:
    """Return the file that a store's URL names, None where it names none."""
    return store_path(url).resolve() if "://" not in url or url.startswith("sqlite:") else None


def _existing(path: Path) -> Path:
    """Return a path, or the nearest of the directories around it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())
