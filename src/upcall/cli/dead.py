"""``upcall dead``: work that was given up."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import typer

from upcall.cli import describing
from upcall.cli.deciding import Deed, DryRunOption, YesOption, carry_out
from upcall.cli.listing import Columns, dead_pages
from upcall.cli.moments import words_of_count
from upcall.cli.output import JsonOption, StoreOption, emit, line, log, visible
from upcall.cli.replaying import ReasonOption  # noqa: TC001 - Typer reads the annotations
from upcall.cli.selecting import (
    AccountFilter,
    CampaignFilter,
    DeviceFilter,
    EveryOption,
    HandlerFilter,
    IdArgument,
    IdsArgument,
    KindFilter,
    LimitOption,
    SinceFilter,
    UntilFilter,
    chosen,
    now_micros,
    selection_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from upcall.inbox import CallbackRecord, DeadRecord, Inbox, Selection, WorkRecord

__all__ = ["app"]

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Look at work that was given up, and decide about it.")

STEP = 500
_HEADERS = ("CALLBACK", "HANDLER", "DEVICE", "ATTEMPTS", "GIVEN UP", "ERROR")
_GIVEN_UP = frozenset({"dead", "dropped"})


@app.command("list", epilog="Such as: upcall dead list --handler handlers.open_ticket --since 12h")
def list_(
    *,
    store: StoreOption = None,
    limit: LimitOption = 20,
    account: AccountFilter = None,
    kind: KindFilter = None,
    campaign: CampaignFilter = None,
    handler: HandlerFilter = None,
    device: DeviceFilter = None,
    since: SinceFilter = None,
    until: UntilFilter = None,
    json: JsonOption = False,
) -> None:
    """List the dead letters: what a handler failed on as often as it was allowed to."""
    from upcall.cli.reading import reading

    selection = selection_of(
        account=account, kind=kind, campaign=campaign, handler=handler, device=device, since=since, until=until
    )
    with reading(store) as inbox:
        listed = 0
        columns = Columns(_HEADERS)
        for records in _pages(inbox, selection, limit):
            listed += len(records)
            if json:
                for record in records:
                    emit(_document(record))
            else:
                columns.add(map(_row, records))
    if not listed and not json:
        log("upcall: no dead letters.")


@app.command()
def show(callback_id: IdArgument, *, store: StoreOption = None, json: JsonOption = False) -> None:
    """Show what was given up of one callback, retried since or not: tracebacks whole, and what was tried before."""
    from upcall.cli.reading import reading
    from upcall.errors import UpcallError

    with reading(store) as inbox:
        record = inbox.callback(callback_id)
        given_up = [work for work in inbox.work(callback_id) if _was_given_up(work)]
        if record is None or not given_up:
            hint = f"Try: upcall dead list{f', or: upcall events show {callback_id}' if record else ''}"
            raise UpcallError(f"nothing of callback {callback_id} was given up.", hint=hint)
    found = _callback_facts(record) | {"work": [describing.work_document(work) for work in given_up]}
    if json:
        emit(found)
    else:
        _print(found)


def _was_given_up(work: WorkRecord) -> bool:
    """Tell whether work is dead or dropped, or was before it was tried again."""
    return not _GIVEN_UP.isdisjoint([work.state, *(replay.state for replay in work.replays)])


@app.command(epilog="Such as: upcall dead retry 17; upcall dead retry --handler handlers.open_ticket --yes")
def retry(
    ids: IdsArgument = None,
    *,
    store: StoreOption = None,
    everything: EveryOption = False,
    account: AccountFilter = None,
    kind: KindFilter = None,
    campaign: CampaignFilter = None,
    handler: HandlerFilter = None,
    device: DeviceFilter = None,
    since: SinceFilter = None,
    until: UntilFilter = None,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> int:
    """Give dead work to its handlers again, with all its attempts; what is done stays done."""
    from upcall.cli.reading import reading

    selection = _chosen(
        everything,
        ids,
        account=account,
        kind=kind,
        campaign=campaign,
        handler=handler,
        device=device,
        since=since,
        until=until,
    )
    with reading(store) as inbox:
        deed = _deed(inbox, selection, "retry", "retried", _retried(inbox, selection, reason or "upcall dead retry"))
        return carry_out(deed, bulk=not selection.ids, dry_run=dry_run, yes=yes, json=json)


@app.command(epilog="Such as: upcall dead drop 17; upcall dead drop --campaign C-1 --dry-run")
def drop(
    ids: IdsArgument = None,
    *,
    store: StoreOption = None,
    everything: EveryOption = False,
    account: AccountFilter = None,
    kind: KindFilter = None,
    campaign: CampaignFilter = None,
    handler: HandlerFilter = None,
    device: DeviceFilter = None,
    since: SinceFilter = None,
    until: UntilFilter = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> int:
    """Give dead work up for good. It stays visible as dropped, and `upcall events replay` can still bring it back."""
    from upcall.cli.reading import reading

    selection = _chosen(
        everything,
        ids,
        account=account,
        kind=kind,
        campaign=campaign,
        handler=handler,
        device=device,
        since=since,
        until=until,
    )
    with reading(store) as inbox:
        deed = _deed(inbox, selection, "drop", "dropped", _dropped(inbox, selection))
        return carry_out(deed, bulk=not selection.ids, dry_run=dry_run, yes=yes, json=json)


def _chosen(everything: bool, ids: list[int] | None, **filters: Any) -> Selection:
    """Return what was chosen; nothing at all is a mistake, unless everything was meant."""
    selection = selection_of(ids, **filters)
    chosen(selection, everything=everything, what="dead letters")
    return selection


def _deed(inbox: Inbox, selection: Selection, verb: str, past: str, steps: Iterable[int]) -> Deed:
    return Deed(
        verb,
        past,
        ("dead letter", "dead letters"),
        count=lambda: sum(len(page) for page in dead_pages(inbox, selection)),
        steps=lambda: steps,
        missing="no dead letter matches. Try: upcall dead list",
        absent=_absent(inbox, selection),
    )


def _absent(inbox: Inbox, selection: Selection) -> list[str]:
    """Name the numbers that were given and of which nothing is dead."""
    if not selection.ids:
        return []
    there = {piece.callback_id for page in dead_pages(inbox, selection) for piece in page}
    return [f"no dead letter of callback {number} matches." for number in selection.ids if number not in there]


def _retried(inbox: Inbox, selection: Selection, reason: str) -> Iterator[int]:
    """Replay dead pieces alone: what else became of the same callbacks is not touched."""
    from upcall.inbox import Selection

    now = now_micros()
    for page in dead_pages(inbox, selection):
        together: dict[tuple[str, str], list[int]] = defaultdict(list)
        for piece in page:
            together[piece.subscriber, piece.device_id].append(piece.callback_id)
        for (subscriber, device_id), ids in together.items():
            part = Selection(ids=tuple(ids), subscriber=subscriber, device_id=device_id)
            yield inbox.replay(part, now, reason=reason, limit=len(ids))


def _dropped(inbox: Inbox, selection: Selection) -> Iterator[int]:
    now = now_micros()
    while dropped := inbox.drop_dead(selection, now, limit=STEP):
        yield dropped


def _pages(inbox: Inbox, selection: Selection, limit: int) -> Iterator[list[DeadRecord]]:
    if limit:
        yield from filter(None, [inbox.dead(selection, limit=limit)])
    else:
        yield from dead_pages(inbox, selection)


def _row(record: DeadRecord) -> tuple[str, ...]:
    from upcall.thingspace import text_of_micros

    error = (describing.shown_error(record.error) or "").strip()
    return (
        str(record.callback_id),
        record.subscriber,
        record.device_id or "-",
        str(record.attempts),
        text_of_micros(record.finished_at),
        error.splitlines()[-1] if error else "-",
    )


def _document(record: DeadRecord) -> dict[str, Any]:
    from upcall.thingspace import text_of_micros

    return {
        "id": record.callback_id,
        "subscriber": record.subscriber,
        "device_id": record.device_id or None,
        "attempts": record.attempts,
        "dead_at": text_of_micros(record.finished_at),
        "kind": record.kind,
        "account": record.account,
        "campaign_id": record.campaign_id,
        "error": describing.shown_error(record.error),
    }


def _callback_facts(record: CallbackRecord) -> dict[str, Any]:
    kept = ("id", "received_at", "account", "kind", "campaign_id", "state")
    return {name: value for name, value in describing.document(record).items() if name in kept}


def _print(found: dict[str, Any]) -> None:
    facts = [f"{name}={value}" for name, value in found.items() if name not in {"id", "work"} and value is not None]
    line(visible(f"callback {found['id']}  {'  '.join(facts)}"))
    for work in found["work"]:
        about = f" for device {work['device_id']}" if work["device_id"] else ""
        line("")
        line(
            visible(
                f"{work['subscriber']}{about}: {work['state']}{_when(work)}"
                f" after {words_of_count(work['attempts'], 'attempt')}"
            )
        )
        if work["attempts"]:  # else the error is that of before
            describing.print_block(work["error"] or "(no error)")
        for replay in work["replays"]:
            line(visible(f"before that, {describing.replay_words(replay)}"))
            describing.print_block(replay["error"] or "(no error)")


def _when(work: dict[str, Any]) -> str:
    if work["finished_at"]:
        return f" at {work['finished_at']}"
    return f", due at {work['due_at']}," if work["state"] == "pending" else ""
