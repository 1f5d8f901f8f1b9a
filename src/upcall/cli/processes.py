"""Starting our own servers as child processes, and ending them."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from upcall.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Server", "clean_environment", "signals_interrupt"]

READY_SECONDS = 30.0
END_SECONDS = 10.0
_OURS = ("THINGSPACE_", "UPCALL_", "VZ_M2M_")


def clean_environment(**extra: str) -> dict[str, str]:
    """Return this process's environment without the caller's credentials and settings.

    Args:
        extra: Variables to set.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return kept | extra


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """Let a signal that would end this process at once interrupt it instead, so that no server is left behind."""
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _signals_held() -> Iterator[Callable[[], None]]:
    """Hold back the signals that this process handles, so that none comes between a child's start and our knowing it.

    Yields:
        What delivers those that came, and holds none back any more.
    """
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    ours = {number: handler for number, handler in handlers.items() if callable(handler)}

    def deliver() -> None:
        for number, handler in ours.items():
            signal.signal(number, handler)
        ours.clear()
        while came:
            signal.raise_signal(came.pop())

    for number in ours:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield deliver
    finally:
        deliver()


class Server:
    """Run one ``upcall`` server and know the URL that it is ready at.

    Args:
        name: What to call it in errors.
        arguments: The words after ``upcall``.
        environment: The child's variables.
        log: The file that takes its stderr, appended to.

    Raises:
        StartError: It ended, or said nothing in time.
    """

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as errors, _signals_held() as deliver:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own words
                [sys.executable, "-m", "upcall", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
            try:
                deliver()
                self.url: str = self._read_ready()
            except BaseException:
                self.kill()
                raise

    @property
    def pid(self) -> int:
        """Return the child's process number."""
        return self._process.pid

    def kill(self) -> None:
        """End it with SIGKILL: nothing in it runs any more."""
        self._process.kill()
        self._finish()

    def stop(self) -> None:
        """End it with SIGTERM, and with SIGKILL where that takes too long."""
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._finish()

    def _finish(self) -> None:
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read_ready(self) -> str:
        assert self._process.stdout is not None
        deadline = time.monotonic() + READY_SECONDS
        text = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not text.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise StartError(f"{self.name} was not ready within {READY_SECONDS:.0f} s. {self._last_words()}")
                chunk = os.read(self._process.stdout.fileno(), 4096)
                if not chunk:
                    raise StartError(f"{self.name} ended before it was ready. {self._last_words()}")
                text += chunk
        word, _, url = text.decode().strip().partition(" ")
        if word != "ready" or not url:
            raise StartError(f"{self.name} said {text.decode().strip()!r} in place of `ready URL`.")
        return url

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"Its last line: {lines[-1]}" if lines else "It said nothing."
