"""One at a time: locks in the state directory, around what is written to the provider and around a reconciliation."""

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
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["WAIT_SECONDS", "reconcile_lock", "registration_lock"]

WAIT_SECONDS: Final = 10.0
"""How long a writer waits for another: a guard's write takes less."""

_AGAIN_SECONDS: Final = 0.1


def registration_lock(
    directory: Path,
    by: str,
    *,
    wait_seconds: float = WAIT_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> AbstractContextManager[None]:
    """Keep other writers of this machine out, threads and processes; the system opens it when its holder dies.

    Args:
        directory: The state directory; it is made, for its owner only.
        by: Who holds it, for those who wait: a command's name.
        wait_seconds: How long to wait for another holder.
        sleep: Waits.

    Raises:
        StartError: Somebody else holds it for longer than that, or it cannot be made.
    """
    return _locked(directory / "registration.lock", "Another writer is at the registrations", by, wait_seconds, sleep)


def reconcile_lock(directory: Path, by: str, *, wait_seconds: float = WAIT_SECONDS) -> AbstractContextManager[None]:
    """Keep other reconciliations of this machine out: two would ask twice as fast, and mistake each other's notes.

    Args:
        directory: The state directory; it is made, for its owner only.
        by: Who holds it, for those who wait: a command's name.
        wait_seconds: How long to wait for another holder.

    Raises:
        StartError: Somebody else holds it for longer than that, or it cannot be made.
    """
    return _locked(directory / "reconcile.lock", "Another reconciliation is under way", by, wait_seconds, time.sleep)


@contextlib.contextmanager
def _locked(path: Path, around: str, by: str, wait_seconds: float, sleep: Callable[[float], None]) -> Iterator[None]:
    directory = path.parent
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(
            f"The lock {path} cannot be made: {error.strerror}.",
            hint="Make the directory writable, or set UPCALL_STATE_DIR.",
        ) from None
    try:
        _wait(descriptor, path, around, wait_seconds, sleep)
        _sign(descriptor, f"upcall {by} by {operator()}, process {os.getpid()}")
        yield
        _sign(descriptor, "")
    finally:
        os.close(descriptor)


def _wait(descriptor: int, path: Path, around: str, wait_seconds: float, sleep: Callable[[float], None]) -> None:
    for left in reversed(range(1 + round(wait_seconds / _AGAIN_SECONDS))):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if left:
                sleep(_AGAIN_SECONDS)
        else:
            return
    raise StartError(
        f"{around}: {_read(descriptor) or 'somebody'} holds {path}.",
        hint="Wait until it is done, then try again.",
    )


def _sign(descriptor: int, holder: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, holder.encode("utf-8", "backslashreplace"), 0)


def _read(descriptor: int) -> str:
    return os.pread(descriptor, 500, 0).decode("utf-8", "backslashreplace")
