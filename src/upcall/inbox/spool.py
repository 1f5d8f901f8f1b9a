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
from upcall.inbox.durable import existing, make_directory, network_file_system
from upcall.inbox.framing import HEADER_BYTES
from upcall.inbox.segment import SEGMENT, Segment, SegmentInfo, inspect, is_segment
from upcall.inbox.stores import store_path
from upcall.settings import state_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from upcall.inbox.values import Arrival

__all__ = ["Segment", "SegmentInfo", "Spool", "shares_disk", "spool_directory", "spooled"]

SEGMENT_BYTES: Final = 64 * 1024 * 1024
"""A segment that is longer takes no further group."""
UNREADABLE_SECONDS: Final = 300.0
"""How soon a segment that could not be read is tried again. A disk that fails may take long over each attempt, and
acknowledgements wait meanwhile."""

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
        clock: Tells seconds, from any beginning.
    """

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.directory = directory
        self._clock = clock
        self._held: dict[str, Segment] = {}
        self._written: Segment | None = None
        self._damaged_bytes = 0
        self._put_off: dict[str, tuple[float, str]] = {}  # a segment's name; until when, and why
        self._reported: set[str] = set()
        self._is_closed = False

    @property
    def records(self) -> int:
        """Return about how many arrivals wait in the segments that this process holds."""
        return sum(segment.records for segment in list(self._held.values()))

    @property
    def size_bytes(self) -> int:
        """Return how many bytes wait in the segments that this process holds."""
        return sum(segment.size_bytes for segment in list(self._held.values()))

    @property
    def damaged_bytes(self) -> int:
        """Return how many bytes of damage this process came upon."""
        return self._damaged_bytes + sum(sum(segment.damage.values()) for segment in list(self._held.values()))

    @property
    def trouble(self) -> str | None:
        """Return why a segment that waits could not be read, None where all could."""
        return next((why for _, why in self._put_off.values()), None)

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

        Segments that another process writes or imports are left alone, and so are, for a while, those that were put
        off. Those returned are held until they are removed: ask the store for a segment's mark after this, not before.
        """
        now = self._clock()
        self._put_off = {name: (until, why) for name, (until, why) in self._put_off.items() if until > now}
        for segment in [held for held in self._held.values() if held.is_gone]:
            self._damaged_bytes += sum(segment.damage.values())
            del self._held[segment.name]
        for path in self._files():
            if path.stem not in self._held and path.stem not in self._put_off:
                self._adopt(path)
        held = [segment for _, segment in sorted(self._held.items()) if not segment.is_spent]
        return [segment for segment in held if segment.name not in self._put_off]

    def put_off(self, segment: Segment, error: StoreError) -> None:
        """Leave a segment that could not be read where it is, and try it again later: those behind it go on.

        Args:
            segment: One of `segments`; nothing more is written to it.
            error: What its `read` raised.
        """
        segment.is_sealed = True
        self._leave_for_later(segment.name, str(error))

    def test(self) -> None:
        """Find out whether arrivals would be safe here.

        Raises:
            StoreError: They could not be kept; or they could, but on a network file system, which may lie about it.
        """
        self.probe()
        kind = network_file_system(self.directory)
        if kind is not None:
            raise StoreError(
                f"spool {self.directory} lies on a network file system ({kind}): fsync cannot be trusted there.",
                hint="Name a local directory with --spool or UPCALL_STATE_DIR.",
            )

    def probe(self) -> None:
        """Find out, by making a file, whether arrivals could be kept here.

        Raises:
            StoreError: They could not.
        """
        try:
            make_directory(self.directory)
            probe = Segment.create(self.directory, 0)
        except OSError as error:
            self._fail(error)
        try:
            probe.remove()
        finally:
            probe.let_go()

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
        make_directory(self.directory)
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
            reason = f"{error.strerror}." if isinstance(error, OSError) else error
            self._leave_for_later(path.stem, f"spool file {path} waits, and cannot be imported: {reason}")
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

    def _leave_for_later(self, name: str, why: str) -> None:
        self._put_off[name] = self._clock() + UNREADABLE_SECONDS, why
        self._report(name, why)

    def _report(self, about: str, text: str) -> None:
        """Log an error once."""
        if about not in self._reported:
            self._reported.add(about)
            _log.error("%s", text)

    def _next_number(self) -> int:
        """Return the time, or more where a clock that was set back would put a new segment before an older one."""
        numbers = [int(path.stem.partition("-")[0]) for path in self._files()]
        return max([time.time_ns() // 1000, *(number + 1 for number in numbers)])

    def _fail(self, error: OSError) -> NoReturn:
        raise StoreError(
            f"spool {self.directory} cannot take callbacks: {error.strerror}.",
            hint="Free space or mend it, or name a directory on another disk with --spool, else by UPCALL_STATE_DIR.",
        ) from error


def shares_disk(directory: Path, url: str) -> bool:
    """Tell whether a spool's directory and a store, there or not yet, lie on one disk: a full one then stops both.

    Args:
        directory: From `spool_directory`.
        url: The store's URL.
    """
    store = _file(url)
    try:
        return store is not None and existing(store).stat().st_dev == existing(directory).stat().st_dev
    except OSError:
        return False


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
