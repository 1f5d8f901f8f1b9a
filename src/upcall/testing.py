"""For tests of your handlers: a listener without a port, a clock that does not wait, and callbacks to send.

A pytest plugin: the fixture `upcall_listener` is there as soon as Upcall is installed.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from types import TracebackType

    from upcall.app import Upcall
    from upcall.inbox import CallbackRecord, DeadRecord, Ledger

__all__ = ["ListenerHarness", "callback", "upcall_listener"]

Result = TypeVar("Result")

_TOKEN = "token-of-the-test-listener"  # noqa: S105 - it opens nothing


def callback(
    kind: str = "upgradeProgress",
    *,
    account: str = "0000123456-00001",
    campaign_id: str = "e3a1c9d2-7b64-4f0e-9a55-1c2d3e4f5a6b",
    status: str = "CampaignScheduled",
    devices: Mapping[str, str] | None = None,
) -> bytes:
    """Make a callback's body in the shape that is best supported by what is known.

    Args:
        kind: One of the four types.
        account: The account that it names.
        campaign_id: The campaign that it is about.
        status: The campaign's status.
        devices: Status by device identifier.

    Source: the V2 message schema is not public; this is the reconstruction in docs/callback-messages.md (inferred).
    """
    device_list = [{"deviceId": device_id, "status": word} for device_id, word in (devices or {}).items()]
    elements: dict[str, Any] = {"upgradeScheduled": {}, "upgradeProgress": {}, "upgradeFinished": {}}
    if kind in elements:
        elements[kind] = {"id": campaign_id, "status": status, "deviceList": device_list}
    return json.dumps({"accountName": account, "type": kind, "firmwareList": [], **elements}).encode()


class ListenerHarness:
    """Receive callbacks as a listener does, and run handlers without waiting.

    The store is a real one in a temporary directory, the application the one that `upcall listen` serves; only the
    port is missing, and the clock jumps to the next retry instead of waiting for it.

    Args:
        app: The handlers.
        account: The account that the listener's token belongs to, None for all.
    """

    def __init__(self, app: Upcall, *, account: str | None = None) -> None:
        from upcall.inbox import open_inbox  # noqa: PLC0415 - a plugin is loaded by every run of pytest
        from upcall.listener import Gate, ListenerApp, Reception, parse_tokens  # noqa: PLC0415

        self._app = app
        self._directory = tempfile.TemporaryDirectory(prefix="upcall-test-")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upcall-test-listener", daemon=True)
        self._thread.start()
        self._inbox = open_inbox(f"sqlite:///{Path(self._directory.name) / 'inbox.db'}", create=True)
        gate = Gate(parse_tokens([_TOKEN], [account] if account else []))
        self._listener = ListenerApp(Reception(self._inbox.appender, gate))
        self._ahead_micros = 0

    def receive(self, body: bytes | str | Mapping[str, Any]) -> int:
        """Deliver one callback.

        Args:
            body: Bytes as they are, text as UTF-8, a mapping as JSON.

        Returns:
            The status of the answer, 200 once the callback is on disk.
        """
        if not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        raw = body.encode() if isinstance(body, str) else body
        return self._run(self._post(raw))

    def drain(self) -> None:
        """Run the handlers until nothing is left to do: every retry that falls due is taken at once."""
        while self._run(self._drain_due()):
            pass

    def callbacks(self) -> list[CallbackRecord]:
        """Return what is stored, in the order of receipt."""
        return self._run(self._look(self._inbox.callbacks))

    def dead(self) -> list[DeadRecord]:
        """Return the work that handlers were given up on."""
        return self._run(self._look(self._inbox.dead))

    def ledger(self) -> Ledger:
        """Count what was stored, handled and given up."""
        return self._run(self._look(self._inbox.ledger))

    def close(self) -> None:
        """Stop the listener and remove its store."""
        self._run(self._listener.aclose())
        self._inbox.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _post(self, body: bytes) -> int:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": f"/callbacks/{_TOKEN}",
            "headers": [],
            "client": None,
        }
        await self._listener(scope, receive, send)
        status: int = sent[0]["status"]
        return status

    async def _drain_due(self) -> bool:
        """Run what is due; then move the clock to the next retry and say whether there is one."""
        from upcall.dispatch import Worker  # noqa: PLC0415

        def now() -> int:
            return time.time_ns() // 1000 + self._ahead_micros

        await Worker(self._inbox, self._app.handlers, now=now).drain()
        due = self._inbox.next_due([handler.name for handler in self._app.handlers])
        if due is not None:
            self._ahead_micros += max(0, due - now()) + 1
        return due is not None

    async def _look(self, question: Callable[[], Result]) -> Result:
        while self._inbox.project():
            pass
        return question()


@pytest.fixture
def upcall_listener() -> Iterator[Callable[..., ListenerHarness]]:
    """Make listeners for one test.

    Returns:
        A function that takes the application and, optionally, the account of the listener's token.
    """
    harnesses: list[ListenerHarness] = []

    def make(app: Upcall, *, account: str | None = None) -> ListenerHarness:
        harnesses.append(ListenerHarness(app, account=account))
        return harnesses[-1]

    yield make
    for harness in reversed(harnesses):
        harness.close()
