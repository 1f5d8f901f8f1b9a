"""A listener without a port, whose handlers run without waiting."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import msgspec

from upcall.dispatch import Worker
from upcall.errors import DeliveryError
from upcall.inbox import Ledger as InboxLedger
from upcall.inbox import open_inbox
from upcall.listener import Gate, ListenerApp, Reception, parse_tokens
from upcall.registration import reconcile_accounts
from upcall.testing.loop import LoopThread
from upcall.thingspace import check_account

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from upcall.app import Upcall
    from upcall.client import ThingSpaceClient
    from upcall.inbox import CallbackRecord, DeadRecord
    from upcall.registration import Reconciled

__all__ = ["PATH", "Delivery", "Ledger", "ListenerHarness"]

Result = TypeVar("Result")

_TOKEN = "token-of-the-test-listener"  # noqa: S105 - it opens nothing
_OK = range(200, 300)
PATH = f"/callbacks/{_TOKEN}"


class Ledger(InboxLedger, frozen=True):
    """Account for every callback: the sandbox's and this listener's.

    Args:
        sent: Callbacks that the sandbox made for this listener and is done with; without a sandbox, those that were
            received and acknowledged.
        lost: Of those, the ones that are not in the store.
    """

    sent: int
    lost: int


class Delivery(NamedTuple):
    """Hold one POST.

    Args:
        path: Where to.
        headers: Its header fields.
        parts: Its body, as it comes.
        length: How long it should be.
    """

    path: str
    headers: Mapping[str, str]
    parts: AsyncIterator[bytes]
    length: int


class ListenerHarness:
    """Receive callbacks as a listener does, and run handlers without waiting.

    The store is a real one in a temporary directory, the application the one that `upcall listen` serves; only the
    port is missing, and the clock jumps to the next retry instead of waiting for it.

    Args:
        app: The handlers.
        account: The account that the listener's token belongs to, None for all.

    Attributes:
        url: Its URL, to register it again.
    """

    def __init__(self, app: Upcall, *, account: str | None = None) -> None:
        if account is not None:
            check_account(account)
        gate = Gate(parse_tokens([_TOKEN], [account] if account else []))
        self.account = account
        self.url: str = f"https://listener.example:50559{PATH}"
        self._app = app
        self._directory = tempfile.TemporaryDirectory(prefix="upcall-test-")
        # Relaxed: what a test stores need not outlast a power cut.
        self._inbox = open_inbox(f"sqlite:///{Path(self._directory.name) / 'inbox.db'}", create=True, relaxed=True)
        self._loop = LoopThread("listener")
        self._listener = ListenerApp(Reception(self._inbox.appender, gate))
        self._ahead_micros = 0
        self._is_away = False
        self._has_news = False
        self._is_draining = False
        self._dead_were_seen = False
        self._acknowledged: list[str] = []
        self._sent: Callable[[], Iterable[str]] = lambda: self._acknowledged

    def receive(self, body: bytes | str | Mapping[str, Any]) -> int:
        """Deliver one callback.

        Args:
            body: Bytes as they are, text as UTF-8, a mapping as JSON.

        Returns:
            The status of the answer, 200 once the callback is on disk.

        Raises:
            DeliveryError: It is away.
        """
        self._check_reachable()
        if not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        raw = body.encode() if isinstance(body, str) else body
        status = self._loop.run(self._post(Delivery(PATH, {}, _whole(raw), len(raw))))
        if status in _OK:
            self._acknowledged.append(hashlib.sha256(raw).hexdigest())
        return status

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Be out of reach meanwhile: every connection to this listener is refused."""
        self._is_away = True
        try:
            yield
        finally:
            self._is_away = False

    def drain(self) -> None:
        """Run the handlers until nothing is left to do: every retry that falls due is taken at once.

        Where a handler asks for it, what is left is done when that handler has returned.
        """
        if self._is_draining:
            self._has_news = True
            return
        self._is_draining = True
        try:
            self._has_news = True
            while self._has_news:
                self._has_news = False
                while self._loop.run(self._drain_due()):
                    pass
        finally:
            self._is_draining = False

    def reconcile(self, client: ThingSpaceClient, *accounts: str, dry_run: bool = False) -> list[Reconciled]:
        """Read the provider's reports into this listener's store, as ``upcall reconcile`` does; nothing is waited for.

        The handlers run when `drain` is called, or when the sandbox's clock is moved next.

        Args:
            client: Who reads them, such as ``thingspace_sandbox.client()``.
            accounts: Whose; by default the one that the listener's token belongs to.
            dry_run: Keep nothing, and count what would be kept.

        Returns:
            A result an account.

        Raises:
            ValueError: No account is given, and the listener is for all.
        """
        named = accounts or ((self.account,) if self.account else ())
        if not named:
            raise ValueError("name the accounts: this listener is for all of them")
        with open_inbox(self._inbox.url, relaxed=True) as inbox:
            results = reconcile_accounts(
                named,
                inbox=inbox,
                client_of=lambda _: client,
                dry_run=dry_run,
                now=self._now,
                sleep=lambda _: None,
            )
        self._has_news = True
        return results

    def callbacks(self) -> list[CallbackRecord]:
        """Return what is stored, in the order of receipt."""
        return self._loop.run(self._look(self._inbox.callbacks))

    def status(self, campaign_id: str) -> str | None:
        """Return a campaign's state as callbacks tell it, None where none does."""
        found = self._loop.run(self._look(partial(self._inbox.campaign, campaign_id)))
        return None if found is None else found[0].status

    def devices(self, campaign_id: str) -> dict[str, str | None]:
        """Return the state of each device of a campaign as callbacks tell it."""
        found = self._loop.run(self._look(partial(self._inbox.campaign, campaign_id)))
        return {} if found is None else {device.device_id: device.status for device in found[1]}

    def dead(self) -> list[DeadRecord]:
        """Return the work that handlers were given up on; a test that never asks fails where there is any."""
        self._dead_were_seen = True
        return self._loop.run(self._look(self._inbox.dead))

    def ledger(self) -> Ledger:
        """Count what was sent, stored, handled, given up and lost."""
        counts = self._loop.run(self._look(self._inbox.ledger))
        stored = {record.digest for record in self._loop.run(self._look(partial(self._inbox.callbacks, bodies=False)))}
        sent = set(self._sent())
        return Ledger(**msgspec.structs.asdict(counts), sent=len(sent), lost=len(sent - stored))

    def close(self) -> None:
        """Stop the listener and remove its store."""
        if not self._loop.is_closed:
            self._loop.run(self._listener.aclose())
            self._loop.close()
            self._inbox.close()
            self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # what the fixtures call

    def unseen_dead(self) -> list[DeadRecord]:
        """Return the work that handlers were given up on, where the test has not asked for it."""
        return [] if self._dead_were_seen or self._loop.is_closed else self.dead()

    def join(self, url: str, sent: Callable[[], Iterable[str]]) -> None:
        """Belong to a sandbox.

        Args:
            url: What it is registered as there.
            sent: Returns what should be stored, as SHA-256 digests in hexadecimal.
        """
        self.url = url
        self._sent = sent

    def drain_news(self) -> None:
        """Run the handlers where something came since they last ran."""
        if self._has_news:
            self.drain()

    async def take(self, delivery: Delivery) -> int:
        """Receive a POST from another loop and return the answer's status.

        Raises:
            DeliveryError: This listener is out of reach, or the connection ended.
        """
        self._check_reachable()
        if self._loop.is_closed:
            raise DeliveryError("POST failed: the listener is closed.", kind="connect")
        parts = [part async for part in delivery.parts]
        return await self._loop.run_for(self._post(delivery._replace(parts=_again(parts))))

    def _check_reachable(self) -> None:
        if self._is_away:
            raise DeliveryError("POST failed: the listener is away.", kind="connect")

    async def _post(self, delivery: Delivery) -> int:
        sent: list[dict[str, Any]] = []
        missing = delivery.length

        async def receive() -> dict[str, Any]:
            nonlocal missing
            async for part in delivery.parts:
                missing -= len(part)
                return {"type": "http.request", "body": part, "more_body": missing > 0}
            if delivery.length:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": delivery.path,
            "headers": [(name.lower().encode(), value.encode()) for name, value in delivery.headers.items()],
            "client": None,
        }
        await self._listener(scope, receive, send)
        if not sent:
            raise DeliveryError("POST failed: the connection ended in the middle of the body.", kind="reset")
        self._has_news = True
        status: int = sent[0]["status"]
        return status

    async def _drain_due(self) -> bool:
        """Run what is due; then move the clock to the next retry and say whether there is one."""
        await Worker(self._inbox, self._app.handlers, now=self._now).drain()
        due = self._inbox.next_due([handler.name for handler in self._app.handlers])
        if due is not None:
            self._ahead_micros += max(0, due - self._now()) + 1
        return due is not None

    def _now(self) -> int:
        """Return what time it is for the handlers, UTC microseconds."""
        return time.time_ns() // 1000 + self._ahead_micros

    async def _look(self, question: Callable[[], Result]) -> Result:
        while self._inbox.project():
            pass
        return question()


async def _whole(raw: bytes) -> AsyncIterator[bytes]:
    yield raw


async def _again(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
