"""The inbox in one SQLite file: WAL, `synchronous=FULL`, group commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from upcall.errors import StoreError
from upcall.inbox.base import (
    Arrival,
    CallbackRecord,
    CampaignRecord,
    DeadRecord,
    Delivery,
    DeviceRecord,
    Ledger,
    Outcome,
    Receipt,
    Subscription,
    TokenRecord,
    WorkItem,
    WorkRecord,
)
from upcall.inbox.sqlite.append import SqliteAppender
from upcall.inbox.sqlite.connection import BUSY_SECONDS, connect, store_errors, transaction
from upcall.inbox.sqlite.projection import Projection
from upcall.inbox.sqlite.views import Views
from upcall.inbox.sqlite.work import WorkTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

__all__ = ["SqliteInbox"]


class SqliteInbox:
    """Keep callbacks in one SQLite file. See `upcall.inbox.Inbox` for what each method promises.

    Args:
        path: The file.
        create: Make it where there is none.

    Raises:
        StoreUnreadableError: There is no store, it is not an inbox, or it cannot be read.
        StoreVersionError: A newer Upcall wrote it.
        StoreError: It lies on a network file system.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self.url: str = f"sqlite:///{path}"
        self._connection = connect(path, create=create)
        self._work = WorkTable(self._connection)
        self._views = Views(self._connection)
        self._projection = Projection(self._connection)

    def appender(self) -> SqliteAppender:
        """Return an appender with a connection of its own."""
        return SqliteAppender(self.path)

    def append(self, arrivals: Sequence[Arrival]) -> list[Receipt]:
        """Keep arrivals; they are on disk when this returns."""
        appender = self.appender()
        try:
            receipts = appender.stage(arrivals, wait_seconds=BUSY_SECONDS)
            if receipts is None:
                raise StoreError(f"store {self.path} is locked by another process.", hint="Try again.")
            appender.commit()
        finally:
            appender.close()
        return receipts

    def subscribe(self, names: Sequence[str], now: int) -> None:
        """Make subscribers known: the first ones of a store begin at its start, later ones where those stand."""
        with store_errors(self.path):
            self._work.subscribe(names, now)

    def enroll(self, subscriptions: Sequence[Subscription], now: int, *, limit: int = 500) -> int:
        """Turn callbacks that subscribers have not seen into work; return how many callbacks were looked at."""
        with store_errors(self.path):
            return self._work.enroll(subscriptions, now, limit=limit)

    def claim(self, names: Sequence[str], owner: str, now: int, *, lease_seconds: float, limit: int) -> list[WorkItem]:
        """Lease work that is due, or whose lease ran out, to an owner."""
        with store_errors(self.path):
            return self._work.claim(names, owner, now, lease_seconds=lease_seconds, limit=limit)

    def renew(self, work_ids: Sequence[int], owner: str, now: int, *, lease_seconds: float) -> None:
        """Extend leases that the owner still holds."""
        with store_errors(self.path):
            self._work.renew(work_ids, owner, now, lease_seconds=lease_seconds)

    def settle(self, outcomes: Sequence[Outcome], owner: str, now: int) -> None:
        """Record how leased work ended; an owner that lost its lease changes nothing."""
        with store_errors(self.path):
            self._work.settle(outcomes, owner, now)

    def release(self, owners: Sequence[str], now: int, *, uncounted: bool = False) -> int:
        """Give back, at once, the work that these owners hold."""
        with store_errors(self.path):
            return self._work.release(owners, now, uncounted=uncounted)

    def owners(self) -> list[str]:
        """Return who holds leases."""
        with store_errors(self.path):
            return self._work.owners()

    def next_due(self, names: Sequence[str]) -> int | None:
        """Return when the next piece of work is due, None where there is none."""
        with store_errors(self.path):
            return self._work.next_due(names)

    def project(self, *, limit: int = 1000) -> int:
        """Bring the read model forward by up to so many callbacks; return how many it took."""
        with store_errors(self.path):
            return self._projection.advance(limit)

    def callbacks(
        self,
        *,
        limit: int = 0,
        after: int = 0,
        account: str | None = None,
        kind: str | None = None,
        campaign_id: str | None = None,
    ) -> list[CallbackRecord]:
        """Return the newest callbacks in the order of receipt; a limit of 0 means all."""
        with store_errors(self.path):
            return self._views.callbacks(limit=limit, after=after, account=account, kind=kind, campaign_id=campaign_id)

    def callback(self, callback_id: int) -> CallbackRecord | None:
        """Return one callback."""
        with store_errors(self.path):
            return self._views.callback(callback_id)

    def deliveries(self, callback_id: int) -> list[Delivery]:
        """Return a callback's deliveries in the order of receipt."""
        with store_errors(self.path):
            return self._views.deliveries(callback_id)

    def work(self, callback_id: int) -> list[WorkRecord]:
        """Return what subscribers did with a callback."""
        with store_errors(self.path):
            return self._work.of(callback_id)

    def dead(self, *, limit: int = 0) -> list[DeadRecord]:
        """Return the newest dead letters, oldest first; a limit of 0 means all."""
        with store_errors(self.path):
            return self._views.dead(limit=limit)

    def campaigns(self, *, limit: int = 0) -> list[CampaignRecord]:
        """Return the campaigns last heard of, in the order of their last word; a limit of 0 means all."""
        with store_errors(self.path):
            return self._views.campaigns(limit=limit)

    def campaign(self, campaign_id: str) -> tuple[CampaignRecord, list[DeviceRecord]] | None:
        """Return one campaign and its devices."""
        with store_errors(self.path):
            return self._views.campaign(campaign_id)

    def ledger(self) -> Ledger:
        """Count what the store holds."""
        with store_errors(self.path):
            return self._views.ledger()

    def tokens(self) -> list[TokenRecord]:
        """Return the tokens that were generated for this store."""
        with store_errors(self.path):
            rows = self._connection.execute("SELECT token, accounts FROM tokens ORDER BY created_at, token").fetchall()
        return [TokenRecord(token, tuple(accounts.split("\n") if accounts else ())) for token, accounts in rows]

    def add_token(self, record: TokenRecord, now: int) -> None:
        """Keep a generated token."""
        with store_errors(self.path), transaction(self._connection):
            self._connection.execute(
                "INSERT INTO tokens (token, accounts, created_at) VALUES (?, ?, ?)",
                (record.token, "\n".join(record.accounts), now),  # an account may hold a space
            )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
