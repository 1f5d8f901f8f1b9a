"""Callbacks that are made of the provider's reports, and the real ones that merge with them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from upcall.inbox.memory.projection import project
from upcall.inbox.memory.tables import Callback, Report, Tables
from upcall.inbox.merging import CONFIRMED_BY, Fact, Known, Merger, News, reported_state, said_by
from upcall.inbox.values import Delivery, Origin, Trust

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upcall.inbox.journal import Reported
    from upcall.inbox.merging import Said

__all__ = ["append_reported", "mergers"]

_STEP = 1000
_NO_ANSWER = 0

Key = tuple[str, str, str, str]
"""Campaign, device, state and account of a report."""


def append_reported(tables: Tables, reported: Sequence[Reported], now: int) -> list[int | None]:
    """Keep what is news as callbacks; return the number of each, None where it is no news."""
    while project(tables, _STEP, None):
        pass
    news = News()
    return [_keep(tables, report, now) if _is_news(tables, news, report, now) else None for report in reported]


def _is_news(tables: Tables, news: News, report: Reported, now: int) -> bool:
    known = [_known(tables, report, account) for account in {report.account, ""}]
    return news.take(report, known, was_reported=_key(report) in tables.reported, now=now)


def _known(tables: Tables, report: Reported, account: str) -> Known:
    if report.device_id:
        return tables.devices.get((report.campaign_id, account, report.device_id))
    return tables.campaigns.get((report.campaign_id, account))


def _key(report: Reported) -> Key:
    return report.campaign_id, report.device_id, reported_state(report), report.account


def _keep(tables: Tables, report: Reported, now: int) -> int:
    tables.last_callback_id += 1
    number = tables.last_callback_id
    tables.callbacks[number] = Callback(
        id=number,
        received_at=now,
        account=report.account,
        origin=Origin.RECONCILED.value,
        trust=Trust.CONFIRMED,
        evidence=CONFIRMED_BY,
        digest=hashlib.sha256(report.body).hexdigest(),
        body=report.body,
        deliveries=(Delivery(now, "", "", None, "", _NO_ANSWER),),
    )
    tables.reported[_key(report)] = Report(number)
    return number


def mergers(tables: Tables, callbacks: Sequence[Callback]) -> dict[int, Merger]:
    """Let real callbacks merge with the reports that they repeat, each report with the first of them."""
    found: dict[int, Merger] = {}
    for callback in callbacks if tables.reported else ():
        event = callback.handed_on
        said = None if event is None else said_by(event)
        reports = {} if said is None else _claim(tables, said, was_released=callback.id in tables.releases)
        if said is not None and reports:
            is_told = said.ending is not None and bool(_keys(tables, said, said.ending))
            found[callback.id] = Merger(said, reports, is_told)
    return found


def _claim(tables: Tables, said: Said, *, was_released: bool) -> dict[Fact, int]:
    """Return what was reported of what a callback says, and is now its to merge with."""
    reports: dict[Fact, int] = {}
    for fact in said.facts:
        for key in _keys(tables, said, fact):
            report = tables.reported[key]
            is_later = was_released or said.callback_id > report.callback_id
            if fact not in reports and is_later and report.merged_by in {None, said.callback_id}:
                tables.reported[key] = msgspec.structs.replace(report, merged_by=said.callback_id)
                reports[fact] = report.callback_id
    return reports


def _keys(tables: Tables, said: Said, fact: Fact) -> list[Key]:
    """Return the reports that say the same: of the callback's account, or of any where it is nobody's."""
    keys = [key for key in tables.reported if key[:3] == (said.campaign_id, *fact)]
    return sorted(key for key in keys if said.account in {None, key[3]})
