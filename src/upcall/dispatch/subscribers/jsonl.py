"""``--jsonl``: append each event to a file, a line each."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Final

from upcall.dispatch.subscribers.document import event_json

if TYPE_CHECKING:
    from pathlib import Path

    from upcall.thingspace import CallbackEvent

__all__ = ["JsonlFile"]

MAX_BYTES: Final = 100 * 1024 * 1024
_MODE: Final = 0o600
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class JsonlFile:
    """Append events to a file; each is on disk when its call returns, and one fsync serves all that wait.

    A file that grew to its limit becomes ``NAME.1``, ``NAME.2`` and so on, and none of them is ever removed. A file
    that was moved away is opened anew. Lines come at least once: ``key`` tells a copy.

    Args:
        path: The file; its directory exists.
        max_bytes: From which size on it is set aside.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file: int | None = None
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def __call__(self, event: CallbackEvent) -> None:
        """Append one event.

        Raises:
            OSError: The file cannot be written; the line is not in it.
        """
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((event_json(event) + b"\n", written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await written

    async def aclose(self) -> None:
        """Close the file; the next event opens it again."""
        if self._writing is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._writing
        self._waiting.clear()
        self._close()

    async def _write(self) -> None:
        await asyncio.sleep(0)  # whoever is about to wait joins this write
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            error: OSError | None = None
            try:
                await asyncio.to_thread(self._append, b"".join(line for line, _ in waiting))
            except OSError as raised:
                error = raised
            for _, written in waiting:
                if written.done():
                    continue
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(OSError(f"{self._path} cannot be written: {error.strerror}"))

    def _append(self, lines: bytes) -> None:
        file = self._locked()
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                lines = b"\n" + lines  # a line that a crash tore ends here
            try:
                _write_all(file, lines)
                os.fdatasync(file)
            except OSError:
                # Half a line, or lines that may not have reached the disk: they are all written again.
                with contextlib.suppress(OSError):
                    os.ftruncate(file, size)
                self._close()
                raise
        finally:
            if self._file is not None:
                fcntl.flock(file, fcntl.LOCK_UN)

    def _locked(self) -> int:
        """Return the open file, which is the one at the path, has room, and is locked against other processes."""
        while True:
            file = self._file if self._file is not None else self._open()
            fcntl.flock(file, fcntl.LOCK_EX)
            if self._was_moved(file):
                self._close()
            elif os.fstat(file).st_size >= self._max_bytes:
                self._set_aside()
                self._close()
            else:
                return file

    def _open(self) -> int:
        is_new = not self._path.exists()
        self._file = os.open(self._path, _FLAGS, _MODE)
        if is_new:
            self._sync_directory()
        return self._file

    def _was_moved(self, file: int) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        return not os.path.samestat(there, os.fstat(file))

    def _set_aside(self) -> None:
        number = 1
        while (aside := self._path.with_name(f"{self._path.name}.{number}")).exists():
            number += 1
        self._path.rename(aside)
        self._sync_directory()

    def _sync_directory(self) -> None:
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
