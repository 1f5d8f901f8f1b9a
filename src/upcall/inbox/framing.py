"""How a file of the spool is laid out, and how its records are found past any damage.

::

    header   magic (8), version (4), id (8), CRC-32 of these (4)
    record   id (8), length (4), CRC-32 of id, length and payload (4), payload

The id is random and part of the file's name. It begins each record, so that reading finds the next one behind damage;
as nobody outside knows it, no callback's body can hold what reads as a record.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from upcall.errors import StoreVersionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "HEADER_BYTES",
    "ID_BYTES",
    "Piece",
    "Survey",
    "check_version",
    "frame",
    "header",
    "is_torn",
    "pieces",
    "survey",
]

MAGIC: Final = b"UPCSPOOL"
VERSION: Final = 1
ID_BYTES: Final = 8

_HEADER: Final = struct.Struct(f">8sI{ID_BYTES}s")
_HEAD: Final = struct.Struct(f">{ID_BYTES}sI")
_CRC: Final = struct.Struct(">I")
HEADER_BYTES: Final = _HEADER.size + _CRC.size
_HEAD_BYTES: Final = _HEAD.size + _CRC.size

_CHUNK_BYTES: Final = 1024 * 1024
_STEP_BYTES: Final = 16 * 1024
"""The disk is read in chunks; behind damage the next record is looked for in steps."""


class Piece(NamedTuple):
    """Hold a stretch of a file: a record and its payload, or bytes that are none, with None."""

    start: int
    end: int
    payload: bytes | None


class Survey(NamedTuple):
    """Count what a stretch of a file holds.

    Args:
        records: Whole records.
        damaged_bytes: Bytes that are no record, though a record was there.
        torn_bytes: Bytes at the end that a crash in the middle of an append leaves.
    """

    records: int = 0
    damaged_bytes: int = 0
    torn_bytes: int = 0


class _Window:
    """Read a file in large chunks, however small the pieces are that are looked at."""

    def __init__(self, descriptor: int, end: int) -> None:
        self._descriptor = descriptor
        self._end = end
        self._start = 0
        self._bytes = b""

    def view(self, start: int, size: int) -> bytes:
        """Return so many bytes, fewer where the stretch ends before."""
        size = min(size, self._end - start)
        skip = start - self._start
        if skip < 0 or skip + size > len(self._bytes):
            self._bytes = _read_at(self._descriptor, start, min(max(size, _CHUNK_BYTES), self._end - start))
            self._start, skip = start, 0
        return self._bytes[skip : skip + size]


def header(marker: bytes) -> bytes:
    """Return what a file with this id begins with."""
    plain = _HEADER.pack(MAGIC, VERSION, marker)
    return plain + _CRC.pack(zlib.crc32(plain))


def check_version(descriptor: int, path: Path) -> None:
    """Refuse what another version wrote; a damaged header says nothing, and its file is read as this version's.

    Raises:
        StoreVersionError: Another Upcall wrote it.
    """
    found = _read_at(descriptor, 0, HEADER_BYTES)
    if len(found) < HEADER_BYTES or zlib.crc32(found[: _HEADER.size]) != _CRC.unpack_from(found, _HEADER.size)[0]:
        return
    version = int(_HEADER.unpack_from(found)[1])
    if version != VERSION:
        raise StoreVersionError(
            f"spool file {path} was written by another Upcall (format {version}; this one knows {VERSION}).",
            hint="Run that Upcall until it has imported the file.",
        )


def frame(marker: bytes, payload: bytes) -> bytes:
    """Return a record.

    Args:
        marker: The file's id.
        payload: What the record holds.
    """
    head = _HEAD.pack(marker, len(payload))
    return b"".join((head, _CRC.pack(zlib.crc32(payload, zlib.crc32(head))), payload))


def pieces(descriptor: int, marker: bytes, offset: int, end: int) -> Iterator[Piece]:
    """Divide a stretch of a file into its records and what lies between them.

    Args:
        descriptor: The file.
        marker: Its id.
        offset: Where a record begins, or damage.
        end: Where the stretch ends.

    Yields:
        Each record, and each stretch that is none.
    """
    window = _Window(descriptor, end)
    while offset < end:
        payload = _payload(window, marker, offset)
        stop = _next_record(window, marker, offset + 1, end) if payload is None else offset + _HEAD_BYTES + len(payload)
        yield Piece(offset, stop, payload)
        offset = stop


def survey(descriptor: int, marker: bytes, offset: int, end: int) -> Survey:
    """Count what `pieces` finds."""
    records = damaged = torn = 0
    for piece in pieces(descriptor, marker, offset, end):
        if piece.payload is not None:
            records += 1
        elif is_torn(descriptor, marker, piece, end):
            torn += piece.end - piece.start
        else:
            damaged += piece.end - piece.start
    return Survey(records, damaged, torn)


def is_torn(descriptor: int, marker: bytes, piece: Piece, end: int) -> bool:
    """Tell whether a stretch without records is what a crash in the middle of an append leaves.

    That is the beginning of a record, or zeros: a file system may lengthen a file before it writes what is in it.
    """
    if piece.end < end:
        return False
    head = _read_at(descriptor, piece.start, min(_HEAD_BYTES, end - piece.start))
    if len(head) == _HEAD_BYTES and head.startswith(marker):
        return piece.start + _HEAD_BYTES + int(_HEAD.unpack_from(head)[1]) > end
    return marker.startswith(head[: len(marker)]) or _is_blank(descriptor, piece)


def _is_blank(descriptor: int, piece: Piece) -> bool:
    window = _Window(descriptor, piece.end)
    return not any(any(window.view(at, _STEP_BYTES)) for at in range(piece.start, piece.end, _STEP_BYTES))


def _payload(window: _Window, marker: bytes, offset: int) -> bytes | None:
    """Return the payload of the record at an offset, None where there is no whole one."""
    head = window.view(offset, _HEAD_BYTES)
    if len(head) < _HEAD_BYTES or not head.startswith(marker):
        return None
    _, length = _HEAD.unpack_from(head)
    (expected,) = _CRC.unpack_from(head, _HEAD.size)
    payload = window.view(offset + _HEAD_BYTES, length)
    if len(payload) < length or zlib.crc32(payload, zlib.crc32(head[: _HEAD.size])) != expected:
        return None
    return payload


def _next_record(window: _Window, marker: bytes, offset: int, end: int) -> int:
    """Return where the next whole record begins, the end where none does."""
    while offset < end:
        seen = window.view(offset, _STEP_BYTES)
        found = seen.find(marker)
        if found < 0:
            offset += max(len(seen) - len(marker) + 1, 1)  # one may begin in this step and end in the next
        elif _payload(window, marker, offset + found) is not None:
            return offset + found
        else:
            offset += found + 1
    return end


def _read_at(descriptor: int, offset: int, size: int) -> bytes:
    parts = []
    while size > 0 and (part := os.pread(descriptor, size, offset)):
        parts.append(part)
        offset += len(part)
        size -= len(part)
    return b"".join(parts)
