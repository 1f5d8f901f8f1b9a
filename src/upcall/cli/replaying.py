"""``upcall events replay``: hand stored callbacks to their handlers again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from upcall.cli.deciding import Deed, DryRunOption, YesOption, carry_out
from upcall.cli.listing import callback_pages
from upcall.cli.output import JsonOption, StoreOption  # noqa: TC001 - Typer reads the annotations
from upcall.cli.selecting import (
    AccountFilter,
    AfterFilter,
    BeforeFilter,
    CampaignFilter,
    DeviceFilter,
    EveryOption,
    HandlerFilter,
    IdsArgument,
    KindFilter,
    SinceFilter,
    StateFilter,
    UntilFilter,
    chosen,
    now_micros,
    selection_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upcall.inbox import Inbox, Selection

__all__ = ["ReasonOption", "replay", "replay_steps"]

ReasonOption = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Kept beside the work: why.")]

_IDS_AT_A_TIME = 200
_PIECES_AT_A_TIME = 2000
_EVERY_PIECE = 2**31


def replay(
    ids: IdsArgument = None,
    *,
    store: StoreOption = None,
    everything: EveryOption = False,
    account: AccountFilter = None,
    kind: KindFilter = None,
    campaign: CampaignFilter = None,
    state: StateFilter = None,
    since: SinceFilter = None,
    until: UntilFilter = None,
    before: BeforeFilter = None,
    after: AfterFilter = None,
    handler: HandlerFilter = None,
    device: DeviceFilter = None,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> int:
    """Hand callbacks to their handlers again, whatever became of them: work that is done, dead or dropped.

    How the work had ended is kept beside it. Handlers that write by event.key have their effect once all the same.
    A handler that is new looks at callbacks from where it begins; replay does not make work for it.
    """
    from upcall.cli.reading import reading

    selection = chosen(
        selection_of(
            ids,
            account=account,
            kind=kind,
            campaign=campaign,
            state=state,
            since=since,
            until=until,
            before=before,
            after=after,
            handler=handler,
            device=device,
        ),
        everything=everything,
        what="callbacks",
    )
    with reading(store) as inbox:
        deed = Deed(
            "replay",
            "replayed",
            ("piece of work", "pieces of work"),
            count=lambda: inbox.replayable(selection),
            steps=lambda: replay_steps(inbox, selection, reason or "upcall events replay"),
            missing="no work that is done, dead or dropped matches. Try: upcall events list",
            absent=_absent(inbox, selection),
        )
        return carry_out(deed, bulk=not selection.ids, dry_run=dry_run, yes=yes, json=json)


def _absent(inbox: Inbox, selection: Selection) -> list[str]:
    """Name the numbers that were given and of which nothing can be replayed."""
    import msgspec

    return [
        f"nothing of callback {number} can be replayed: no work of it is done, dead or dropped and matches."
        for number in selection.ids
        if not inbox.replayable(msgspec.structs.replace(selection, ids=(number,)))
    ]


def replay_steps(inbox: Inbox, selection: Selection, reason: str) -> Iterator[int]:
    """Replay a few callbacks at a time, each once: a worker may do the first again before the last is reached."""
    now = now_micros()
    for part in _parts(inbox, selection):
        yield inbox.replay(part, now, reason=reason, limit=_EVERY_PIECE)


def _parts(inbox: Inbox, selection: Selection) -> Iterator[Selection]:
    """Split a selection into such as are replayed in one short transaction each."""
    from upcall.inbox import Selection

    for records in callback_pages(inbox, selection):
        ids = tuple(record.id for record in records)
        for start in range(0, len(ids), _IDS_AT_A_TIME):
            part = Selection(
                ids=ids[start : start + _IDS_AT_A_TIME], subscriber=selection.subscriber, device_id=selection.device_id
            )
            yield from _halved(inbox, part)


def _halved(inbox: Inbox, part: Selection) -> Iterator[Selection]:
    import msgspec

    pieces = inbox.replayable(part)
    if not pieces:
        return
    if pieces <= _PIECES_AT_A_TIME or len(part.ids) == 1:
        yield part
        return
    middle = len(part.ids) // 2
    for ids in (part.ids[:middle], part.ids[middle:]):
        yield from _halved(inbox, msgspec.structs.replace(part, ids=ids))
