"""A small file of the state directory that threads and processes share: read whole, replaced in one step."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["DamagedError", "StateFile", "fingerprint"]

T = TypeVar("T")

_FINGERPRINT_ROUNDS: Final = 100_000
_process_lock = threading.RLock()


class DamagedError(Exception):
    """Say that the file is there and cannot be read."""


class StateFile:
    """Read and replace one file.

    Args:
        path: The file. Its directory is made, for its owner only, when it is first locked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other threads and processes out of one read and write; where there is no directory, only threads."""
        with _process_lock, contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def read(self, kind: type[T]) -> T | None:
        """Return what the file holds, None where there is no file.

        Raises:
            DamagedError: It cannot be read, or does not hold that.
        """
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=kind)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, RecursionError):  # msgspec's errors are ValueErrors
            raise DamagedError from None

    def is_private(self) -> bool:
        """Tell whether the file belongs to this user, and nobody else can read it."""
        try:
            status = self.path.stat()
        except OSError:
            return False
        return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)

    def write(self, document: Any) -> None:
        """Replace the file: a reader sees the old one or the new one, also after a power loss.

        Raises:
            OSError: It cannot be written.
        """
        draft = self.path.with_suffix(f".{os.getpid()}.tmp")
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()  # left by a process of that number that was killed; its mode is anybody's guess
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(document))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)


def fingerprint(salt: str, secret: str) -> str:
    """Tell secrets apart without keeping them: slow to guess at, and too short to prove a guess by."""
    digest = hashlib.pbkdf2_hmac("sha256", secret.encode("utf-8", "surrogatepass"), salt.encode(), _FINGERPRINT_ROUNDS)
    return digest.hex()[:8]
