"""One store under proof: its directory, its listener and worker processes, its traffic, its account."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from upcall.cli.processes import clean_environment
from upcall.cli.proof.audit import create_effects, observe
from upcall.cli.proof.children import Child, Unready, wait_until
from upcall.cli.proof.handlers import DIRECTORY_VARIABLE, app
from upcall.cli.proof.ledger import Ledger, reconcile
from upcall.cli.proof.sender import Sender
from upcall.errors import StoreError
from upcall.inbox import open_inbox
from upcall.inbox.spool import spooled
from upcall.listener import generate_token

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from upcall.inbox import Inbox

__all__ = ["Run"]

_HANDLERS: Final = "upcall.cli.proof.handlers:app"
_EXACT: Final = "upcall.cli.proof.handlers:exact"
DRAIN_SECONDS: Final = 120.0


class Run:
    """Keep a listener and a worker running over a store of their own, with nothing of the caller's settings.

    Args:
        directory: Where everything lies; it exists, and is empty.
        store_directory: Where the store lies, None for a directory beside the rest.
        connections: How many the sender uses.
    """

    def __init__(
        self,
        directory: Path,
        *,
        store_directory: Path | None = None,
        connections: int = 16,
    ) -> None:
        self.directory = directory
        self.store_directory: Path = store_directory or directory / "store"
        self.store: Path = self.store_directory / "inbox.db"
        self.url: str = f"sqlite:///{self.store}"
        self.spool: Path = directory / "spool"
        self.effects: Path = directory / "effects"
        self.effects.mkdir()
        self._environment = clean_environment(UPCALL_STATE_DIR=str(directory / "state"))
        self._environment[DIRECTORY_VARIABLE] = str(self.effects)
        self._token = generate_token()
        self._port = 0
        self.sender: Sender = Sender(connections=connections)
        self.junk: list[bytes] = []
        self.restarts: int = 0
        self.kills: dict[str, int] = {}
        self.spooled: int = 0
        self.refused: dict[str, int] = {}
        self.listener: Child | None = None
        self.worker: Child | None = None
        self._others: list[Child] = []

    def __enter__(self) -> Self:
        self.sender.__enter__()
        try:
            self.start_listener()
            create_effects(self.store)
            self.start_worker()
            self._await_subscribers()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _await_subscribers(self) -> None:
        """Wait until every handler is known: one that comes later begins where the others stand."""
        with self.inbox() as inbox:
            wait_until(lambda: len(inbox.subscribers()) == len(app.handlers), "the worker's first step")

    def close(self) -> None:
        """End everything that runs."""
        self.sender.__exit__(None, None, None)
        for child in (self.listener, self.worker, *self._others):
            if child is not None and not child.has_ended:
                child.kill()

    @property
    def port(self) -> int:
        """Return the listener's port, the same after each restart."""
        return self._port

    @property
    def path(self) -> str:
        """Return the path that callbacks are sent to."""
        return f"/callbacks/{self._token}"

    # processes

    def start_listener(self) -> Child:
        """Start the listener, again on the same port, and wait until it is ready."""
        self.listener = listener = Child("the listener", self._listen(), self._environment, self._log("listener"))
        self._port = urlsplit(listener.url).port or 0
        self.sender.aim(self._port, self.path)
        return listener

    def start_worker(self) -> Child:
        """Start the worker."""
        self.worker = Unready("the worker", self._drain(), self._environment, self._log("worker"))
        return self.worker

    def start_other(self, name: str, words: Sequence[str]) -> Child:
        """Start one more process, without waiting until it is ready; it ends with the run.

        Args:
            name: What to call it.
            words: The words after ``upcall``.
        """
        child = Unready(name, list(words), self._environment, self._log(name))
        self._others.append(child)
        return child

    def start_doomed(self, point: str, passage: int, *, worker: bool, exact: bool = False) -> Child:
        """Start the listener or the worker so that it kills itself at a point.

        Args:
            point: One of `upcall.failpoints.POINTS`.
            passage: The how many-th passage of the point ends it.
            worker: Which of the two.
            exact: Give the worker the transactional handler alone.
        """
        environment = {**self._environment, "UPCALL_KILL_AT": f"{point}:{passage}"}
        if worker:
            words = self._drain(_EXACT if exact else _HANDLERS)
            self.worker = doomed = Unready("the worker", words, environment, self._log("worker"))
        else:
            self.listener = doomed = Unready("the listener", self._listen(), environment, self._log("listener"))
        return doomed

    def ensure_up(self) -> None:
        """Start what does not run."""
        if self.listener is None or self.listener.has_ended:
            self.start_listener()
        if self.worker is None or self.worker.has_ended:
            self.start_worker()

    def _listen(self) -> list[str]:
        where = ["--port", str(self._port), "--store", self.url, "--spool", str(self.spool)]
        return ["listen", *where, "--token", self._token]

    def _drain(self, handlers: str = _HANDLERS) -> list[str]:
        return ["work", handlers, "--store", self.url]

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    # the store

    def inbox(self) -> Inbox:
        """Open the store."""
        return open_inbox(self.url)

    @contextlib.contextmanager
    def store_locked(self) -> Iterator[None]:
        """Hold the store's write lock, as a program that forgot to commit would."""
        with contextlib.closing(sqlite3.connect(self.store, timeout=10, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            finally:
                connection.rollback()

    def spool_records(self) -> int:
        """Return how many callbacks lie in the spool."""
        return sum(info.records for info in spooled(self.spool))

    def count_spool(self) -> int:
        """Return how many callbacks lie in the spool, and count them as spooled; call it once an outage."""
        records = self.spool_records()
        self.spooled += records
        return records

    def await_import(self, seconds: float = 30.0) -> None:
        """Wait until the spool is empty: what was in it is in the store then."""
        wait_until(lambda: not self.spool_records(), "the import of the spool", seconds=seconds, every=0.05)

    def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        """Wait until everything is acknowledged, imported, and handled or dead.

        Raises:
            UpcallError: It was not in time.
        """
        self.ensure_up()
        self.sender.settle()
        self.await_import()
        with self.inbox() as inbox:
            wait_until(lambda: _is_drained(inbox), "the handlers' work", seconds=seconds, every=0.2)

    def account(self) -> Ledger:
        """Account for everything that was sent."""
        return reconcile(observe(self.store, self.effects, self.sender.states[: self.sender.sent], self.junk))


def _is_drained(inbox: Inbox) -> bool:
    try:
        subscribers = inbox.subscribers()
    except StoreError:  # held by another process for longer than one waits
        return False
    return bool(subscribers) and not any(one.unread or one.pending or one.leased for one in subscribers)
