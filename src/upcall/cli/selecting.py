"""Which callbacks, or which work, a command means: the options that commands share, and the selection they make."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from upcall.cli.moments import parse_moment
from upcall.cli.output import MOST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upcall.inbox import Selection, State

__all__ = [
    "AccountFilter",
    "AfterFilter",
    "BeforeFilter",
    "CampaignFilter",
    "DeviceFilter",
    "EveryOption",
    "HandlerFilter",
    "IdArgument",
    "IdsArgument",
    "KindFilter",
    "LimitOption",
    "SinceFilter",
    "StateFilter",
    "UntilFilter",
    "chosen",
    "now_micros",
    "selection_of",
]

IdArgument = Annotated[int, typer.Argument(metavar="ID", min=1, max=MOST, help="The callback's number.")]
IdsArgument = Annotated[
    list[int] | None, typer.Argument(metavar="ID…", min=1, max=MOST, help="Callbacks, by their numbers.")
]
LimitOption = Annotated[int, typer.Option("--limit", min=0, max=MOST, help="The newest so many; 0 for all.")]
AccountFilter = Annotated[str | None, typer.Option("--account", help="Only this account's.")]
KindFilter = Annotated[str | None, typer.Option("--kind", help="Only this kind, such as upgradeProgress.")]
CampaignFilter = Annotated[str | None, typer.Option("--campaign", metavar="ID", help="Only this campaign's.")]
StateFilter = Annotated[
    str | None,
    typer.Option("--state", help="Only those that are stored, pending, done, dead, quarantined or dropped."),
]
SinceFilter = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only those received then or later: 15m, 2h, 3d or RFC 3339."),
]
UntilFilter = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only those received before then.")]
BeforeFilter = Annotated[
    int | None, typer.Option("--before", metavar="ID", min=1, max=MOST, help="Only those with a smaller number.")
]
AfterFilter = Annotated[
    int | None, typer.Option("--after", metavar="ID", min=0, max=MOST, help="Only those with a greater number.")
]
HandlerFilter = Annotated[str | None, typer.Option("--handler", metavar="NAME", help="Only this handler's work.")]
DeviceFilter = Annotated[str | None, typer.Option("--device", metavar="ID", help="Only work about this device.")]
EveryOption = Annotated[bool, typer.Option("--all", help="All that there are.")]


def now_micros() -> int:
    """Return the time, in UTC microseconds since 1970."""
    return time.time_ns() // 1000


def selection_of(
    ids: Sequence[int] | None = None,
    *,
    account: str | None = None,
    kind: str | None = None,
    campaign: str | None = None,
    state: str | None = None,
    since: str | None = None,
    until: str | None = None,
    before: int | None = None,
    after: int | None = None,
    handler: str | None = None,
    device: str | None = None,
) -> Selection:
    """Build the selection that a command's options describe; what is None is not asked about.

    Raises:
        SettingsError: A time or a state is none.
    """
    from upcall.inbox import Selection
    from upcall.thingspace import normalize_kind

    now = now_micros()
    return Selection(
        ids=tuple(dict.fromkeys(ids or ())),
        after=after or 0,
        before=before or 0,
        since=None if since is None else parse_moment(since, now, option="--since"),
        until=None if until is None else parse_moment(until, now, option="--until"),
        account=account,
        kind=None if kind is None else normalize_kind(kind),
        campaign_id=campaign,
        state=None if state is None else _state(state),
        subscriber=handler,
        device_id=device,
    )


def chosen(selection: Selection, *, everything: bool, what: str) -> Selection:
    """Return the selection of a command that changes something: it must say which, or say that it means all.

    Args:
        selection: What the options describe.
        everything: Whether ``--all`` was given.
        what: What is selected, such as ``callbacks``.

    Raises:
        SettingsError: Nothing is named, or both all and some.
    """
    from upcall.errors import SettingsError
    from upcall.inbox import EVERYTHING

    if everything and selection.ids:
        raise SettingsError("Numbers and --all are both given.", hint="Give one of them.")
    if selection == EVERYTHING and not everything:
        raise SettingsError(f"Nothing says which {what}.", hint="Give their numbers, a filter or --all.")
    return selection


def _state(text: str) -> State:
    from upcall.errors import SettingsError
    from upcall.inbox import State

    try:
        return State(text.strip().lower())
    except ValueError:
        raise SettingsError(f"--state is {text!r}.", hint=f"It is one of {', '.join(State)}.") from None
