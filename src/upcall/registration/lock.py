"""One writer at a time: a lock in the state directory around what is written to the provider."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, Final

from upcall.errors import StartError
from upcall.registration.audit import operator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["WAIT_SECONDS", "registration_lock"]

WAIT_SECONDS: Final = 10.0
"""How long a writer waits for another: a guard's write takes less."""

_NAME: Final = "registration.lock"
_AGAIN_SECONDS: Final = 0.1


@contextlib.contextmanager
def registration_lock(
    directory: Path,
    by: str,
    *,
    wait_seconds: float = WAIT_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Keep other writers of this machine out, threads and processes; the system opens it when its holder dies.

    Args:
        directory: The state directory; it is made, for its owner only.
        by: Who holds it, for those who wait: a command's name.
        wait_seconds: How long to wait for another holder.
        sleep: Waits.

    Raises:
        StartError: Somebody else holds it for longer than that, or it cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(
            f"The lock around registrations cannot be made in {directory}: {error.strerror}.",
            hint="Make the directory writable, or set UPCALL_STATE_DIR.",
        ) from None
    try:
        _wait(descriptor, directory, wait_seconds, sleep)
        _sign(descriptor, f"upcall {by} by {operator()}, process {os.getpid()}")
        yield
        _sign(descriptor, "")
    finally:
        os.close(descriptor)


def _wait(descriptor: int, directory: Path, wait_seconds: float, sleep: Callable[[float], None]) -> None:
    for left in reversed(range(1 + round(wait_seconds / _AGAIN_SECONDS))):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if left:
                sleep(_AGAIN_SECONDS)
        else:
            return
    raise StartError(
        f"Another writer is at the registrations: {_read(descriptor) or 'somebody'} holds {directory / _NAME}.",
        hint="Wait until it is done, then try again.",
    )


def _sign(descriptor: int, holder: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, holder.encode("utf-8", "backslashreplace"), 0)


def _read(descriptor: int) -> str:
    return os.pread(descriptor, 500, 0).decode("utf-8", "backslashreplace")
