"""``upcall events``: look at stored callbacks, hand them on again, carry them off."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from upcall.cli import describing
from upcall.cli.exporting import export
from upcall.cli.listing import Columns, callback_pages, newest_id, with_bodies
from upcall.cli.output import MOST, JsonOption, StoreOption, emit, log, table
from upcall.cli.replaying import replay
from upcall.cli.selecting import (
    AccountFilter,
    AfterFilter,
    BeforeFilter,
    CampaignFilter,
    IdArgument,
    KindFilter,
    LimitOption,
    SinceFilter,
    StateFilter,
    UntilFilter,
    selection_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upcall.inbox import CallbackRecord, Inbox, Selection

__all__ = ["app"]

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Look at stored callbacks, and hand them on again.")

POLL_SECONDS = 0.2


@app.command(
    "list", epilog="Such as: upcall events list --since 2h --kind upgradeProgress; upcall events list --state dead"
)
def list_(
    *,
    store: StoreOption = None,
    limit: LimitOption = 20,
    oldest: Annotated[bool, typer.Option("--oldest", help="The oldest so many, in place of the newest.")] = False,
    account: AccountFilter = None,
    kind: KindFilter = None,
    campaign: CampaignFilter = None,
    state: StateFilter = None,
    since: SinceFilter = None,
    until: UntilFilter = None,
    before: BeforeFilter = None,
    after: AfterFilter = None,
    json: JsonOption = False,
) -> None:
    """List the newest callbacks, oldest first, those in quarantine too. Page on with --before and --after."""
    from upcall.cli.reading import reading

    selection = selection_of(
        account=account, kind=kind, campaign=campaign, state=state, since=since, until=until, before=before, after=after
    )
    with reading(store) as inbox:
        listed = 0
        columns = None if json else Columns(describing.HEADERS)
        for records in _pages(inbox, selection, limit=limit, oldest=oldest):
            listed += len(records)
            _print(inbox, columns, records)
    if not listed and not json:
        log("upcall: no callbacks match.")


def _pages(inbox: Inbox, selection: Selection, *, limit: int, oldest: bool) -> Iterator[list[CallbackRecord]]:
    if not limit:
        yield from callback_pages(inbox, selection)
        return
    records = inbox.callbacks(selection, limit=limit, oldest=oldest, bodies=False)
    if records:
        yield records


@app.command()
def show(callback_id: IdArgument, *, store: StoreOption = None, json: JsonOption = False) -> None:
    """Show one callback: what it says, each delivery, what is guessed and why, what the handlers did, its body."""
    from upcall.cli.reading import reading
    from upcall.errors import UpcallError

    with reading(store) as inbox:
        record = inbox.callback(callback_id)
        if record is None:
            raise UpcallError(f"there is no callback {callback_id} in {inbox.url}.", hint="Try: upcall events list")
        found = describing.details(inbox, record)
    if json:
        emit(found)
    else:
        describing.print_details(found)


@app.command()
def tail(
    *,
    store: StoreOption = None,
    limit: Annotated[int, typer.Option("--limit", min=0, max=MOST, help="Begin with the newest so many.")] = 10,
    account: AccountFilter = None,
    kind: KindFilter = None,
    campaign: CampaignFilter = None,
    json: JsonOption = False,
) -> None:
    """Print callbacks as they arrive, every one of them, until interrupted."""
    from upcall.cli.reading import reading

    selection = selection_of(account=account, kind=kind, campaign=campaign)
    with reading(store) as inbox:
        following = _Tail(inbox, selection, json=json)
        following.begin(limit)
        log("upcall: waiting for callbacks… (Ctrl-C ends)")
        while True:
            following.look()
            time.sleep(POLL_SECONDS)


class _Tail:
    """Print each callback once, as it arrives.

    Args:
        inbox: The store.
        selection: Which callbacks are printed.
        json: Whether as JSON, with their bodies.
    """

    def __init__(self, inbox: Inbox, selection: Selection, *, json: bool) -> None:
        self._inbox = inbox
        self._selection = selection
        self._columns = None if json else Columns(describing.HEADERS, titled=False)
        self._last = 0
        self._trouble = ""

    def begin(self, limit: int) -> None:
        """Print the newest so many; from there on all."""
        self._last = newest_id(self._inbox)
        if limit:
            _print(self._inbox, self._columns, self._inbox.callbacks(self._part(0), limit=limit, bodies=False))

    def look(self) -> None:
        """Print what arrived since the last look; a store that cannot be read now is looked at again."""
        from upcall.errors import StoreError

        try:
            self._follow()
            self._trouble = ""
        except StoreError as error:
            if str(error) != self._trouble:
                log(f"upcall: {error}")
            self._trouble = str(error)

    def _follow(self) -> None:
        from upcall.cli.reading import catch_up

        start, newest = self._last, newest_id(self._inbox)
        if newest == start:
            return
        catch_up(self._inbox)  # up to the newest at least: so the filters know all that they look at
        for records in callback_pages(self._inbox, self._part(start, newest)):
            _print(self._inbox, self._columns, records)
            self._last = records[-1].id
        self._last = newest

    def _part(self, after: int, last: int | None = None) -> Selection:
        import msgspec

        return msgspec.structs.replace(self._selection, after=after, before=(last or self._last) + 1)


def _print(inbox: Inbox, columns: Columns | None, records: list[CallbackRecord]) -> None:
    """Print some callbacks as rows, or without columns as JSON with their bodies."""
    if columns is not None:
        columns.add(map(describing.row, records))
        return
    for record in with_bodies(inbox, records):
        emit(describing.document(record))


@app.command()
def drift(*, store: StoreOption = None, json: JsonOption = False) -> None:
    """Show in which ways callbacks differed from what is known of their schema, the most recent last."""
    from upcall.cli.reading import reading
    from upcall.thingspace import text_of_micros

    with reading(store) as inbox:
        records = inbox.drift()
    if json:
        for record in records:
            emit(
                {
                    "drift": record.text,
                    "callbacks": record.callbacks,
                    "first_id": record.first_id,
                    "first_at": text_of_micros(record.first_at),
                    "last_id": record.last_id,
                    "last_at": text_of_micros(record.last_at),
                }
            )
        return
    table(
        ("CALLBACKS", "FIRST", "FIRST AT", "LAST", "LAST AT", "WHAT WAS UNEXPECTED"),
        [
            (
                str(record.callbacks),
                str(record.first_id),
                text_of_micros(record.first_at),
                str(record.last_id),
                text_of_micros(record.last_at),
                record.text,
            )
            for record in records
        ],
    )
    if not records:
        log("upcall: no callback differed from the known schema.")


app.command(epilog="Such as: upcall events replay 17 18; upcall events replay --campaign C-1 --handler note --yes")(
    replay
)
app.command(epilog="Such as: upcall events export --since 30d --output callbacks.jsonl")(export)
