"""The processes of a proof: servers like any other, and some that are to die."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final

from upcall.cli.processes import Server
from upcall.errors import UpcallError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Child", "Unready", "wait_until"]

DEATH_SECONDS: Final = 30.0


class Child(Server):
    """Run one ``upcall`` server, and see how it ends."""

    @property
    def has_ended(self) -> bool:
        """Tell whether the process is gone."""
        return self._process.poll() is not None

    def end(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = DEATH_SECONDS) -> int:
        """Send a signal, and return the exit code.

        Raises:
            UpcallError: It did not end in time; it was killed then.
        """
        self._process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds: float = DEATH_SECONDS) -> int:
        """Return the exit code of a process that is to end by itself.

        Raises:
            UpcallError: It did not in time; it was killed then.
        """
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise UpcallError(f"{self.name} was still running after {seconds:.0f} s.") from None
        self._finish()
        return code

    def kill(self) -> None:
        """End it with SIGKILL, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            super().kill()

    def await_kill(self, point: str) -> None:
        """Wait for the SIGKILL that the process sends itself.

        Raises:
            UpcallError: It ended otherwise, or not at all.
        """
        code = self.wait()
        if code != -signal.SIGKILL:
            raise UpcallError(f"{self.name} was to be killed at {point}, and ended with {code}. {self._last_words()}")


class Unready(Child):
    """Run a process without waiting for its ready line: a worker has none, and what is to die may not get that far."""

    def _read_ready(self) -> str:
        return ""


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = 30.0, every: float = 0.01) -> None:
    """Wait for something to hold.

    Raises:
        UpcallError: It did not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise UpcallError(f"{what}: not within {seconds:.0f} s.")
        time.sleep(every)
