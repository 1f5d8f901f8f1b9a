"""Callbacks that are made of the provider's reports: which of those are news, decided where nobody else can write."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from upcall.errors import StoreError
from upcall.inbox.merging import CONFIRMED_BY, Known, News, reported_state
from upcall.inbox.readmodel import CampaignView
from upcall.inbox.sqlite.append import commit_to_disk, resolve_doubt
from upcall.inbox.sqlite.connection import begin, snapshot, synchronous
from upcall.inbox.values import REDELIVERY_WINDOW_MICROS, DeviceRecord, Origin, Trust

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from upcall.inbox.journal import Reported
    from upcall.inbox.sqlite.projection import Projection

__all__ = ["Reports"]

AT_ONCE: Final = 200
"""Reports of one transaction: a listener beside us waits for it, and nothing is read while it is open but rows."""
MOST_BEHIND: Final = 100
"""Callbacks that may come between the read model's last step and the transaction: it takes them in itself."""
TRIES: Final = 50

_NO_ANSWER: Final = 0
_DEVICE: Final = f"""
    SELECT {", ".join(DeviceRecord.__struct_fields__)} FROM devices
    WHERE campaign_id = ?1 AND account IN (?2, '') AND device_id = ?3
"""
_CAMPAIGN: Final = f"""
    SELECT {", ".join(CampaignView.__struct_fields__)} FROM campaigns WHERE campaign_id = ?1 AND account IN (?2, '')
"""
_WAS_REPORTED: Final = """
    SELECT 1 FROM upcall_reported WHERE campaign_id = ? AND device_id = ? AND state = ? AND account = ?
"""
# Not by way of an appender: a report that says in the same bytes what another said is a callback of its own.
_KEEP: Final = """
    INSERT INTO callbacks
        (received_at, bucket, digest, trust, evidence, origin, peer, token_id, account, answer, body)
    VALUES (?, ?, ?, ?, ?, ?, '', '', ?, ?, ?)
"""
_NOTE: Final = """
    INSERT INTO upcall_reported (campaign_id, device_id, state, account, callback_id) VALUES (?, ?, ?, ?, ?)
"""


class Reports:
    """Keep what the provider reports in an SQLite store.

    Args:
        connection: The inbox's connection.
        projection: Its read model.
        path: The store's file.
    """

    def __init__(self, connection: sqlite3.Connection, projection: Projection, path: Path) -> None:
        self._connection = connection
        self._projection = projection
        self._path = path

    def append(self, reported: Sequence[Reported], now: int) -> list[int | None]:
        """Keep what is news as callbacks; return the number of each, None where it is no news.

        Raises:
            StoreError: Callbacks come in faster than the read model can be brought up to them.
        """
        resolve_doubt(self._connection, self._path)
        news = News()
        with synchronous(self._connection, "FULL"):
            return [number for some in _batched(reported) for number in self._append_some(some, news, now)]

    def would_append(self, reported: Sequence[Reported], now: int) -> list[int | None]:
        """Tell what would be kept now: 0 for the number of what would, None for what would not."""
        self._projection.catch_up()
        news = News()
        with snapshot(self._connection):
            return [0 if self._is_news(report, news, now) else None for report in reported]

    def _append_some(self, reported: Sequence[Reported], news: News, now: int) -> list[int | None]:
        """Decide and keep in one transaction, which begins with a read model that knows every callback."""
        for _ in range(TRIES):
            self._projection.catch_up()
            begin(self._connection)
            try:
                if self._projection.finish(MOST_BEHIND):
                    numbers = [self._keep(each, now) if self._is_news(each, news, now) else None for each in reported]
                    commit_to_disk(self._connection, self._path)
                    return numbers
            finally:
                self._connection.rollback()
        raise StoreError(
            f"callbacks come into store {self._path} faster than they can be read.", hint="Try again when fewer do."
        )

    def _is_news(self, report: Reported, news: News, now: int) -> bool:
        was_reported = self._connection.execute(_WAS_REPORTED, _key(report)).fetchone() is not None
        return news.take(report, list(self._known(report)), was_reported=was_reported, now=now)

    def _known(self, report: Reported) -> Iterator[Known]:
        """Yield what callbacks tell, of its account and of none: a callback need not name one."""
        place: tuple[Any, ...] = (report.campaign_id, report.account)
        if report.device_id:
            yield from (DeviceRecord(*row) for row in self._connection.execute(_DEVICE, (*place, report.device_id)))
        else:
            yield from (CampaignView(*row) for row in self._connection.execute(_CAMPAIGN, place))

    def _keep(self, report: Reported, now: int) -> int:
        facts = (
            now,
            now // REDELIVERY_WINDOW_MICROS,
            hashlib.sha256(report.body).digest(),
            Trust.CONFIRMED.value,
            CONFIRMED_BY,
            Origin.RECONCILED.value,
            report.account,
            _NO_ANSWER,
            report.body,
        )
        number = self._connection.execute(_KEEP, facts).lastrowid or 0
        self._connection.execute(_NOTE, (*_key(report), number))
        return number


def _key(report: Reported) -> tuple[str, str, str, str]:
    return report.campaign_id, report.device_id, reported_state(report), report.account


def _batched(reported: Sequence[Reported]) -> Iterator[Sequence[Reported]]:
    return (reported[start : start + AT_ONCE] for start in range(0, len(reported), AT_ONCE))
