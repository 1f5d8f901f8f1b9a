"""One file of the spool: held, read, and written so that a group counts or does not."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.errors import StoreError
from upcall.inbox.durable import sync_directory, sync_file
from upcall.inbox.framing import HEADER_BYTES, ID_BYTES, Survey, check_version, frame, header, is_torn, pieces, survey
from upcall.inbox.values import Arrival

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from upcall.inbox.framing import Piece

__all__ = ["DAMAGED", "SEGMENT", "Segment", "SegmentInfo", "inspect", "is_segment"]

SEGMENT: Final = ".spool"
DAMAGED: Final = ".damaged"
"""What the name of a segment ends with, while it waits and once it was set aside."""

_NAME: Final = re.compile(rf"[0-9]{{20}}-[0-9a-f]{{{2 * ID_BYTES}}}")
_TYPICAL_RECORD_BYTES: Final = 1024
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Arrival).decode

_log = logging.getLogger("upcall.inbox")


class SegmentInfo(msgspec.Struct, frozen=True):
    """Describe a segment as somebody finds it who only looks.

    Args:
        name: Its name.
        records: Arrivals that can be read from it, those already in the store included.
        size_bytes: How long it is.
        damaged_bytes: Bytes that are no record, though a record was there.
        torn_bytes: Bytes at its end that a crash in the middle of an append leaves; they were never acknowledged.
        set_aside: Whether it was imported already, and is kept only for its damage.
        unreadable: Why nothing of it can be read now, None where it can.
    """

    name: str
    records: int
    size_bytes: int
    damaged_bytes: int
    torn_bytes: int
    set_aside: bool
    unreadable: str | None = None


class Segment:
    """Hold one file of the spool, and its lock, until it is removed or let go.

    Args:
        path: The file.
        descriptor: It, open and locked; the segment's from now on.
        end: Up to where it is good.
        is_own: Whether it is new, and written by this process.
    """

    def __init__(self, path: Path, descriptor: int, end: int, *, is_own: bool) -> None:
        self.name: str = path.stem
        """Its name, and that of its mark in the store; never used again."""
        self.end: int = end
        self.is_sealed: bool = not is_own
        self.damage: dict[int, int] = {}
        """Damage that `read` came upon: where, and how many bytes."""
        self._path = path
        self._descriptor = descriptor
        self._identity = _identity(os.fstat(descriptor))
        self._marker = _marker(path)
        self._records = _ceil(end - HEADER_BYTES, _TYPICAL_RECORD_BYTES)
        self._is_looked_through = is_own
        self._is_damaged = False
        self._is_spent = False
        self._position = HEADER_BYTES

    @classmethod
    def create(cls, directory: Path, number: int) -> Segment:
        """Make a segment, its name and header on disk.

        Args:
            directory: Where; it exists.
            number: What its name begins with, and what it is ordered by.

        Raises:
            OSError: It cannot be made; nothing is left of it.
        """
        while True:
            marker = os.urandom(ID_BYTES)
            path = directory / f"{number:020d}-{marker.hex()}{SEGMENT}"
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                # Another process may have taken it, still without a lock, for what a crash left, and removed it.
                if _lock(descriptor, path):
                    _write_all(descriptor, header(marker))
                    sync_file(descriptor)
                    sync_directory(directory)
                    return cls(path, descriptor, HEADER_BYTES, is_own=True)
            except BaseException:
                os.close(descriptor)
                with contextlib.suppress(OSError):
                    path.unlink()
                raise
            os.close(descriptor)

    @classmethod
    def adopt(cls, path: Path) -> Segment | None:
        """Take over a segment whose process is gone; None where that one lives, or somebody else was quicker.

        Raises:
            OSError: It cannot be read.
            StoreVersionError: A newer Upcall wrote it.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if _lock(descriptor, path):
                check_version(descriptor, path)
                return cls(path, descriptor, max(os.fstat(descriptor).st_size, HEADER_BYTES), is_own=False)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    @property
    def records(self) -> int:
        """Return about how many arrivals wait here, and 0 only where none does."""
        return _ceil(self.size_bytes * self._records, max(self.end - HEADER_BYTES, 1))

    @property
    def size_bytes(self) -> int:
        """Return how many bytes wait here."""
        return max(self.end - self._position, 0)

    @property
    def is_gone(self) -> bool:
        """Tell whether it was removed or let go."""
        return self._descriptor < 0

    @property
    def is_spent(self) -> bool:
        """Tell whether it was to be removed, as the store has all of it: it is not to be imported again."""
        return self._is_spent

    @property
    def is_in_place(self) -> bool:
        """Tell whether the file is still where it was: what is written to a deleted one is gone when it closes."""
        try:
            return _identity(self._path.stat()) == self._identity
        except OSError:
            return False

    def extend(self, arrivals: Sequence[Arrival]) -> None:
        """Write a group; it is on disk when this returns.

        Raises:
            OSError: It is not. Nothing of the group counts, and where the segment is sealed then, no other group may
                follow here.
        """
        data = b"".join([frame(self._marker, _encode(arrival)) for arrival in arrivals])
        self.is_sealed = True  # until all is well
        try:
            _write_all(self._descriptor, data)
        except OSError:
            self.is_sealed = not self._cut_back()
            raise
        try:
            sync_file(self._descriptor)
        except OSError:
            # The kernel may have dropped the pages and say next time that all is well: nothing is written behind them.
            self._cut_back()
            raise
        self.is_sealed = False
        self.end += len(data)
        self._records += len(arrivals)

    def read(self, offset: int, *, max_records: int, max_bytes: int) -> tuple[list[Arrival], int, bool]:
        """Read arrivals in the order in which they were written, past any damage.

        Reaching the end of the segment that is being written seals it: the next group goes to another.

        Args:
            offset: Where to begin: 0, or where an earlier read of this segment, by any process, ended. What lies
                before it counts as imported.
            max_records: At most so many.
            max_bytes: At most so many bytes of records, but always one record.

        Returns:
            The arrivals, which may be none; where to go on; whether that is the end, for good.

        Raises:
            StoreError: It cannot be read.
        """
        offset = max(offset, HEADER_BYTES)
        arrivals: list[Arrival] = []
        at = offset
        try:
            self._pass(offset)
            for piece in pieces(self._descriptor, self._marker, offset, self.end):
                is_full = len(arrivals) == max_records or piece.end - offset > max_bytes
                if arrivals and is_full:
                    break
                arrivals += self._arrival(piece)
                at = piece.end
        except OSError as error:
            raise StoreError(
                f"spool file {self._path} cannot be read: {error.strerror}.",
                hint="Mend its disk, and leave the file: it waits, and is tried again every few minutes.",
            ) from error
        is_end = at >= self.end
        self.is_sealed = self.is_sealed or is_end
        return arrivals, at, is_end

    def remove(self) -> None:
        """Remove the file, or set it aside where it was damaged; that is on disk when this returns.

        Raises:
            StoreError: It cannot be removed. The store must keep its mark: a later process finds the file again.
        """
        self._spend()
        try:
            with contextlib.suppress(FileNotFoundError):
                self._leave()
                sync_directory(self._path.parent)
        except OSError as error:
            raise StoreError(
                f"spool file {self._path} cannot be removed: {error.strerror}.",
                hint="What it holds is in the store already; make its directory writable.",
            ) from error
        self.let_go()

    def let_go(self) -> None:
        """Close the file and give up its lock: another process may import what is left."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._spend()

    def _spend(self) -> None:
        self._is_spent = True
        self._position = self.end

    def _leave(self) -> None:
        if self._is_damaged:
            self._path.rename(self._path.with_suffix(DAMAGED))
        else:
            self._path.unlink()

    def _cut_back(self) -> bool:
        """Take back what was written behind the last good group; tell whether that is on disk."""
        try:
            os.ftruncate(self._descriptor, self.end)
            sync_file(self._descriptor)
        except OSError:
            return False
        return True

    def _pass(self, offset: int) -> None:
        """Count what lies before an offset as imported."""
        if not self._is_looked_through:
            # Of damage that lies before the offset nothing else tells.
            if offset > HEADER_BYTES:
                found = survey(self._descriptor, self._marker, HEADER_BYTES, self.end)
                self._is_damaged = found.damaged_bytes > 0
            self._is_looked_through = True
        self._position = offset

    def _arrival(self, piece: Piece) -> list[Arrival]:
        """Return the arrival in a record; nothing, but a note of the damage, where there is none."""
        if piece.payload is not None:
            try:
                return [_decode(piece.payload)]
            except msgspec.DecodeError:
                pass  # whole, but not of this version's making
        elif is_torn(self._descriptor, self._marker, piece, self.end):
            _log.warning(
                "spool file %s ends with %d bytes of a group whose writing a crash cut off; it was not acknowledged.",
                self._path,
                piece.end - piece.start,
            )
            return []
        self._note_damage(piece)
        return []

    def _note_damage(self, piece: Piece) -> None:
        if piece.start not in self.damage:
            _log.error(
                "spool file %s is damaged: %d bytes at %d are no record; what follows is read, the file kept as %s.",
                self._path,
                piece.end - piece.start,
                piece.start,
                self._path.with_suffix(DAMAGED).name,
            )
        self.damage[piece.start] = piece.end - piece.start
        self._is_damaged = True


def is_segment(path: Path) -> bool:
    """Tell by its name whether a file is a segment, waiting or set aside."""
    return path.suffix in {SEGMENT, DAMAGED} and _NAME.fullmatch(path.stem) is not None


def inspect(path: Path) -> SegmentInfo:
    """Look at a segment that somebody may be writing.

    Raises:
        FileNotFoundError: It is gone.
        StoreVersionError: A newer Upcall wrote it.
    """
    end, found, unreadable = path.stat().st_size, Survey(), None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            check_version(descriptor, path)
            found = survey(descriptor, _marker(path), HEADER_BYTES, end)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        unreadable = error.strerror
    return SegmentInfo(
        name=path.stem,
        records=found.records,
        size_bytes=end,
        damaged_bytes=found.damaged_bytes,
        torn_bytes=found.torn_bytes,
        set_aside=path.suffix == DAMAGED,
        unreadable=unreadable,
    )


def _marker(path: Path) -> bytes:
    return bytes.fromhex(path.stem.partition("-")[2])


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _lock(descriptor: int, path: Path) -> bool:
    """Take a segment's lock; False where another process has it, or the file is no longer the one of that name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _identity(path.stat()) == _identity(os.fstat(descriptor))
    except (BlockingIOError, FileNotFoundError):
        return False


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)
