"""``--exec``: run a command for each event, with the event on its stdin."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Final

from upcall.dispatch.subscribers.document import event_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from upcall.thingspace import CallbackEvent

__all__ = ["CommandFailedError", "Execute"]

TIMEOUT_SECONDS: Final = 60.0
MAX_STDERR_BYTES: Final = 2000
_LOOK_SECONDS: Final = 0.05
_OURS: Final = ("UPCALL_", "THINGSPACE_", "VZ_M2M_TOKEN_")
_STDERR: Final = 2


class CommandFailedError(Exception):
    """Say how a command ended, with the end of its stderr."""


class Execute:
    """Run a command without a shell; its exit 0 is the event's end.

    Its stdout goes to our stderr. It sees our environment without our own variables, which hold secrets, but with
    ``UPCALL_EVENT_ID``, ``…_KEY``, ``…_KIND``, ``…_ORIGIN``, ``…_ACCOUNT`` and ``…_CAMPAIGN_ID``.

    Args:
        words: The command and its arguments.
        environ: The environment, None for this process's.
        timeout_seconds: How long it may run before its process group is killed.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._words = list(words)
        self._environ = os.environ if environ is None else environ
        self._timeout_seconds = timeout_seconds

    def __call__(self, event: CallbackEvent) -> None:
        """Run it for one event, in the thread that this is called in.

        Raises:
            CommandFailedError: It could not be started, ended otherwise, or took too long.
        """
        with tempfile.TemporaryFile() as stdin:
            # A file and not a pipe: a command that does not read, or reads late, holds up nobody.
            stdin.write(event_json(event) + b"\n")
            stdin.seek(0)
            try:
                process = subprocess.Popen(  # noqa: S603 - the operator's own command, no shell
                    self._words,
                    stdin=stdin,
                    stdout=_STDERR,
                    stderr=subprocess.PIPE,
                    env=self._environment(event),
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or "it cannot be passed on"
                raise CommandFailedError(f"{self._words[0]} was not started: {why}.") from None
        with process:
            self._wait(process)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._timeout_seconds
        try:
            said = _read_until_exit(process, deadline)
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise CommandFailedError(
                f"{self._words[0]} was killed: it took longer than {self._timeout_seconds:g} s."
            ) from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if code:
            ended = f"exit {code}" if code > 0 else f"signal {-code}"
            text = said.decode("utf-8", "backslashreplace").strip()
            raise CommandFailedError(f"{self._words[0]} ended with {ended}{text and f': {text}'}")

    def _environment(self, event: CallbackEvent) -> dict[str, str]:
        given = {name: value for name, value in self._environ.items() if not name.startswith(_OURS)}
        facts = {
            "ID": str(event.id),
            "KEY": event.key,
            "KIND": event.kind,
            "ORIGIN": event.origin,
            "ACCOUNT": event.account,
            "CAMPAIGN_ID": event.campaign_id,
        }
        return given | {f"UPCALL_EVENT_{name}": (value or "").replace("\0", "") for name, value in facts.items()}


def _read_until_exit(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """Return the end of what a process writes to its stderr, until it closes it or ends.

    Raises:
        subprocess.TimeoutExpired: The deadline passed.
    """
    assert process.stderr is not None
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(process.args, 0)
            # What it leaves running may hold its stderr open: its own end counts.
            has_ended = process.poll() is not None
            if selector.select(0 if has_ended else min(left, _LOOK_SECONDS)):
                part = os.read(process.stderr.fileno(), 65536)
                if not part:
                    return said
                said = (said + part)[-MAX_STDERR_BYTES:]
            elif has_ended:
                return said
