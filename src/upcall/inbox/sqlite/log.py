"""The write-ahead log, after a disk that failed to take it.

When an fsync fails, the kernel takes what it could not write for written: a later fsync succeeds without it. So there
may be a hole in the log on disk, of frames that others committed, and all that is committed behind it would be gone
after a power cut, though its own fsync succeeded. Before a store is trusted again its log is therefore written anew,
each byte as it stands, and synced. Unlike a checkpoint that needs no reader to leave, and a power cut in the middle of
it finds a log that is no worse than before.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from upcall.errors import StoreError
from upcall.inbox.durable import sync_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["log_of", "write_again"]

_CHUNK_BYTES: Final = 1024 * 1024


def log_of(path: Path) -> str:
    """Return the path of a store's log: it lies beside the file itself, not beside a link to it."""
    return f"{os.path.realpath(path)}-wal"


def write_again(path: Path) -> None:
    """Write a store's log once more; all that is committed is on disk when this returns.

    Hold the store's write lock: nobody changes the log then. (SQLite keeps its locks on the other two files.)

    Raises:
        StoreError: The disk fails still.
    """
    try:
        descriptor = os.open(log_of(path), os.O_RDWR | os.O_CLOEXEC)
        try:
            at = 0
            while part := os.pread(descriptor, _CHUNK_BYTES, at):
                at += os.pwrite(descriptor, part, at)
            sync_file(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreError(f"store {path} cannot be written: {error.strerror}.", hint="Look after its disk.") from error
