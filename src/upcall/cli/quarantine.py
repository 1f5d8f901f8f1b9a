"""``upcall quarantine``: callbacks that no handler sees until somebody has looked at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import typer

from upcall.cli import describing
from upcall.cli.deciding import Deed, DryRunOption, YesOption, agrees, carry_out
from upcall.cli.listing import Columns, callback_pages, newest_id, with_bodies
from upcall.cli.moments import words_of_bytes
from upcall.cli.output import JsonOption, StoreOption, emit, log
from upcall.cli.selecting import (
    AccountFilter,
    EveryOption,
    IdArgument,
    IdsArgument,
    LimitOption,
    SinceFilter,
    UntilFilter,
    chosen,
    now_micros,
    selection_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from upcall.inbox import CallbackRecord, Inbox, Selection

__all__ = ["app"]

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Decide about callbacks that contradict their token.")

QUOTA_BYTES: Final = 1024**3
STEP: Final = 500
_HEADERS: Final = ("ID", "RECEIVED", "ACCOUNT", "KIND", "DELIVERIES", "BYTES", "WHY")


@app.command("list", epilog="Such as: upcall quarantine list --account 0000123456-00001")
def list_(
    *, store: StoreOption = None, limit: LimitOption = 20, account: AccountFilter = None, json: JsonOption = False
) -> None:
    """List what is in quarantine, oldest first, and how much of its quota is used."""
    from upcall.cli.reading import reading

    selection = _quarantined(selection_of(account=account))
    with reading(store) as inbox:
        listed = 0
        columns = Columns(_HEADERS)
        for records in _pages(inbox, selection, limit):
            listed += len(records)
            if json:
                for record in with_bodies(inbox, records):
                    emit(_document(record))
            else:
                columns.add(map(_row, records))
        used = inbox.quarantined_bytes()
    if json:
        return
    if not listed:
        log("upcall: nothing is in quarantine." if account is None else "upcall: no callback in quarantine matches.")
    log(f"upcall: {words_of_bytes(used)} used of the quota ({words_of_bytes(QUOTA_BYTES)}, or --quarantine-mb).")


@app.command()
def show(callback_id: IdArgument, *, store: StoreOption = None, json: JsonOption = False) -> None:
    """Show one callback of the quarantine: why it is there, who sent it, and its body with nothing obeyed in it."""
    from upcall.cli.reading import reading
    from upcall.errors import UpcallError
    from upcall.inbox import Trust

    with reading(store) as inbox:
        record = inbox.callback(callback_id)
        if record is None or record.trust != Trust.QUARANTINED:
            raise UpcallError(f"callback {callback_id} is not in quarantine.", hint="Try: upcall quarantine list")
        found = describing.details(inbox, record)
    if json:
        emit(found)
    else:
        describing.print_details(found)


@app.command(epilog="Such as: upcall quarantine release 17; upcall quarantine release --since 2h --yes")
def release(
    ids: IdsArgument = None,
    *,
    store: StoreOption = None,
    everything: EveryOption = False,
    account: AccountFilter = None,
    since: SinceFilter = None,
    until: UntilFilter = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> int:
    """Let the handlers see callbacks after all, in the order of their release."""
    from upcall.cli.reading import reading

    selection = _chosen(ids, everything=everything, account=account, since=since, until=until)
    with reading(store) as inbox:
        deed = _deed(inbox, selection, "release", "released", inbox.release_quarantined)
        return carry_out(deed, bulk=not selection.ids, dry_run=dry_run, yes=yes, json=json)


@app.command(epilog="Such as: upcall quarantine drop 17; upcall quarantine drop --until 30d --yes")
def drop(
    ids: IdsArgument = None,
    *,
    store: StoreOption = None,
    everything: EveryOption = False,
    account: AccountFilter = None,
    since: SinceFilter = None,
    until: UntilFilter = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> int:
    """Remove the bodies of callbacks for good; when they came, from where, and their digest stay."""
    from upcall.cli.reading import reading
    from upcall.errors import UpcallError

    selection = _chosen(ids, everything=everything, account=account, since=since, until=until)
    with reading(store) as inbox:
        deed = _deed(inbox, selection, "drop", "dropped", inbox.drop_quarantined)
        if selection.ids and not dry_run and (count := deed.count()):
            question = f"Remove the bodies of {deed.of(count)} for good?"
            if not agrees(question, yes=yes, command="quarantine drop"):
                raise UpcallError("Nothing was dropped.")
        return carry_out(deed, bulk=not selection.ids, dry_run=dry_run, yes=yes, json=json)


def _deed(inbox: Inbox, selection: Selection, verb: str, past: str, decide: Callable[..., int]) -> Deed:
    """Describe a decision about what is in quarantine now; what arrives from now on is not meant."""
    import msgspec

    meant = msgspec.structs.replace(selection, before=newest_id(inbox) + 1)

    def steps() -> Iterator[int]:
        now = now_micros()
        while done := decide(meant, now, limit=STEP):
            yield done

    return Deed(
        verb,
        past,
        ("callback", "callbacks"),
        count=lambda: sum(len(page) for page in callback_pages(inbox, meant)),
        steps=steps,
        missing="no callback in quarantine matches. Try: upcall quarantine list",
        absent=_absent(inbox, meant),
    )


def _absent(inbox: Inbox, selection: Selection) -> list[str]:
    """Name the numbers that were given and are not in quarantine."""
    if not selection.ids:
        return []
    there = {record.id for page in callback_pages(inbox, selection) for record in page}
    return [f"callback {number} is not in quarantine." for number in selection.ids if number not in there]


def _chosen(
    ids: list[int] | None, *, everything: bool, account: str | None, since: str | None, until: str | None
) -> Selection:
    selection = selection_of(ids, account=account, since=since, until=until)
    return _quarantined(chosen(selection, everything=everything, what="callbacks"))


def _quarantined(selection: Selection) -> Selection:
    import msgspec

    from upcall.inbox import State

    return msgspec.structs.replace(selection, state=State.QUARANTINED)


def _pages(inbox: Inbox, selection: Selection, limit: int) -> Iterator[list[CallbackRecord]]:
    if not limit:
        yield from callback_pages(inbox, selection)
        return
    records = inbox.callbacks(selection, limit=limit, bodies=False)
    if records:
        yield records


def _row(record: CallbackRecord) -> tuple[str, ...]:
    from upcall.thingspace import text_of_micros

    return (
        str(record.id),
        text_of_micros(record.received_at),
        record.account or "-",
        record.kind or "-",
        str(record.deliveries),
        str(record.body_bytes),
        record.evidence or "-",
    )


def _document(record: CallbackRecord) -> dict[str, Any]:
    return {**describing.document(record), "evidence": record.evidence, "body_bytes": record.body_bytes}
