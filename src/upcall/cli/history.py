"""``upcall callbacks history``: who wrote which URL, and what the guard saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from upcall.cli.moments import parse_moment
from upcall.cli.output import MOST, JsonOption, StoreOption, emit, log, table
from upcall.cli.selecting import now_micros

if TYPE_CHECKING:
    from upcall.inbox import Inbox, JournalEntry

__all__ = ["history"]


def history(
    accounts: Annotated[
        list[str] | None, typer.Argument(metavar="ACCOUNT…", help="Only these accounts.", show_default="all")
    ] = None,
    *,
    since: Annotated[str, typer.Option(metavar="TIME", help="From then on: 7d, or 2026-08-01T03:00:00Z.")] = "30d",
    limit: Annotated[int, typer.Option(min=0, max=MOST, help="The newest so many; 0 for all.")] = 50,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show each write of apply, rotate and guard with what stood before, and each change that the guard saw.

    It lies in the store, oldest first. What others wrote, `upcall callbacks register` too, shows as what the guard saw.
    """
    from upcall.inbox import open_inbox, store_version
    from upcall.settings import default_store

    start = parse_moment(since, now_micros(), option="--since")
    url = store or default_store()
    entries: list[JournalEntry] = []
    if store is not None or store_version(url) is not None:  # before the first store there is no audit
        with open_inbox(url) as inbox:
            entries = [entry for entry in _entries(inbox, start) if not accounts or entry.account in accounts]
    shown = entries[-limit:] if limit else entries
    if json:
        for entry in shown:
            emit(_document(entry))
        return
    table(("AT", "ACCOUNT", "BY", "WHAT", "BEFORE", "AFTER"), map(_row, shown))
    if not entries:
        log("upcall: nothing was written and nothing changed in that time, as far as this store knows.")


def _entries(inbox: Inbox, start: int) -> list[JournalEntry]:
    entries = [*inbox.journal("registration", since=start), *inbox.journal("guard", since=start)]
    return sorted(entries, key=lambda entry: entry.id)


def _document(entry: JournalEntry) -> dict[str, Any]:
    from upcall.thingspace import text_of_micros

    return {"at": text_of_micros(entry.at), "account": entry.account, "topic": entry.topic, **entry.document}


def _row(entry: JournalEntry) -> tuple[str, ...]:
    from upcall.thingspace import text_of_micros

    said = entry.document
    if entry.topic == "guard":
        by, what = "guard saw", f"{said.get('from')} -> {said.get('to')}"
        before, after = None, said.get("registered")
    else:
        by, what = f"{said.get('by')} ({said.get('who')})", f"{said.get('action')}: {said.get('outcome')}"
        before, after = said.get("before"), said.get("stands") or said.get("after")
    return text_of_micros(entry.at), entry.account, by, what, str(before or "-"), str(after or "-")
