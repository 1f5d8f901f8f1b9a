"""What the proof lies on: the file system, and what an fsync costs there."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Disk", "default_directory", "look_at", "small_disk"]

_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_SYNCS: Final = 40


class Disk(msgspec.Struct, frozen=True):
    """Describe where a proof lies.

    Args:
        directory: Where.
        file_system: Its type, ``unknown`` where the machine does not say.
        fsync_ms: What writing 4 KiB and fsync took, the median.
    """

    directory: str
    file_system: str
    fsync_ms: float


def default_directory() -> Path:
    """Return where a proof lies unless told otherwise: often ``/tmp`` is memory, and ``/var/tmp`` a disk."""
    place = Path("/var/tmp")  # noqa: S108 - a directory of a random name is made in it
    return place if os.access(place, os.W_OK) else Path(tempfile.gettempdir())


def look_at(directory: Path) -> Disk:
    """Measure the disk under a directory.

    Raises:
        SettingsError: It is memory, and proves nothing about what survives.
    """
    from upcall.inbox.durable import file_system

    kind = file_system(directory) or "unknown"
    if kind in _MEMORY:
        raise SettingsError(
            f"{directory} lies in memory ({kind}): nothing there survives a power cut.",
            hint="Name a directory on the disk that the store will be on, with --dir.",
        )
    return Disk(str(directory), kind, _fsync_ms(directory))


def _fsync_ms(directory: Path) -> float:
    with tempfile.TemporaryFile(dir=directory) as file:
        taken = []
        for _ in range(_SYNCS):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


@contextlib.contextmanager
def small_disk(directory: Path, size: str) -> Iterator[str | None]:
    """Mount a small file system on a directory, and take it away at the end.

    Yields:
        None, or why it cannot be.
    """
    directory.mkdir()
    why = _mount(directory, size)
    try:
        yield why
    finally:
        if why is None:
            subprocess.run(["umount", "--lazy", str(directory)], check=False, capture_output=True)  # noqa: S603, S607 - as PATH has it


def _mount(directory: Path, size: str) -> str | None:
    if os.geteuid() != 0:
        return "only root may mount a small disk"
    words = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "upcall-prove", str(directory)]
    try:
        ended = subprocess.run(words, check=False, capture_output=True, text=True)  # noqa: S603 - our own words
    except OSError as error:
        return f"mount cannot be run: {error.strerror}"
    return None if ended.returncode == 0 else f"mount was refused: {' '.join(ended.stderr.split())}"
