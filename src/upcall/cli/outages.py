"""``upcall outages``: when callbacks could not arrive, and what that can have cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from upcall.cli.calling import ConfigOption, settings_of
from upcall.cli.moments import parse_moment, words_of_count, words_of_micros
from upcall.cli.output import JsonOption, StoreOption, emit, line, log, table
from upcall.cli.selecting import now_micros

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upcall.inbox import CampaignRecord, Inbox, Uptime
    from upcall.registration import Outage, Repeats, Span
    from upcall.thingspace import Profile

__all__ = ["outages"]

_SHOWN_CAMPAIGNS: Final = 3


def outages(
    *,
    since: Annotated[str, typer.Option(metavar="TIME", help="From then on: 7d, or 2026-08-01T03:00:00Z.")] = "30d",
    profile: Annotated[
        str | None,
        typer.Option(
            help="When ThingSpace tries again: documented, observed, or a file that ends in .toml.",
            show_default="[delivery] profile of the settings file, else documented",
        ),
    ] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> int:
    """Show each window in which callbacks can have been lost, and what is left of the tries in a current one.

    The listener's heartbeats tell when it was away, the guard's journal when a slot was somebody else's. Exits 1 while
    an outage is going on.
    """
    from upcall.cli.reading import reading
    from upcall.registration import away_spans, find_outages, read_elsewhere, repeats
    from upcall.settings import read_profile

    settings = settings_of(config)
    active = read_profile(profile or settings.profile)
    now = now_micros()
    start = parse_moment(since, now, option="--since")
    with reading(store) as inbox:
        # All of them, whatever is to be shown: what goes on may have begun long before.
        uptimes = inbox.uptimes()
        away = away_spans(uptimes, now)
        elsewhere = read_elsewhere(inbox, now)
        listed = {account.name for account in settings.accounts}
        if listed:  # nobody watches the others any more, so that nobody would see the end of what goes on
            elsewhere = {
                account: [span for span in spans if account in listed or not span.is_open]
                for account, spans in elsewhere.items()
            }
        found = [one for one in find_outages(away, elsewhere, active, now) if one.is_current or one.span.end > start]
        repeated = repeats(inbox.repeat_intervals(since=start))
        rows = [(outage, _under_way(inbox, outage)) for outage in found]
    if json:
        for outage, campaigns in rows:
            emit(_document(outage, campaigns))
        emit(_profile_document(active, repeated))
    else:
        _print(rows, now, known=bool(uptimes))
        _print_alive(uptimes, now)
        _print_profile(active, repeated)
    return 1 if any(outage.is_current for outage in found) else 0


def _under_way(inbox: Inbox, outage: Outage) -> list[CampaignRecord]:
    """Return the campaigns that something of may be lost: those that had not ended before, as far as is known."""
    from upcall.thingspace import is_final_campaign

    if not outage.lost:
        return []
    return [
        campaign
        for campaign in inbox.campaigns()
        if campaign.first_at < outage.span.end
        and (campaign.last_at >= outage.span.start or not is_final_campaign(campaign.status or ""))
        and outage.account in {"", campaign.account}
    ]


def _document(outage: Outage, campaigns: Sequence[CampaignRecord]) -> dict[str, Any]:
    return {
        "kind": outage.kind,
        "account": outage.account or None,
        "from": _text(outage.span.start),
        "to": None if outage.is_current else _text(outage.span.end),
        "seconds": outage.span.micros / 1e6,
        "current": outage.is_current,
        "lost": [{"from": _text(part.start), "to": _text(part.end)} for part in outage.lost],
        "lost_seconds": outage.lost_micros / 1e6,
        "attempts_left": outage.attempts_left,
        "safe_until": None if outage.safe_until is None else _text(outage.safe_until),
        "campaigns": [campaign.campaign_id for campaign in campaigns],
    }


def _profile_document(profile: Profile, repeated: Sequence[Repeats]) -> dict[str, Any]:
    return {
        "kind": "profile",
        "profile": profile.name,
        "attempts": profile.max_attempts,
        "gaps_seconds": [list(gap) for gap in profile.gaps_seconds],
        "silence_seconds": profile.silence_seconds,
        "source": profile.source,
        "observed_repeats": [{"seconds": each.micros / 1e6, "count": each.count} for each in repeated],
    }


def _print(rows: Sequence[tuple[Outage, Sequence[CampaignRecord]]], now: int, *, known: bool) -> None:
    if rows:
        table(
            ("FROM", "TO", "LASTED", "WHAT", "CAN BE LOST: FIRST SENT", "CAMPAIGNS UNDER WAY"),
            [_row(outage, campaigns) for outage, campaigns in rows],
        )
        line("")
    for outage, _ in rows:
        for text in _advice(outage, now):
            line(text)
    if any(outage.lost for outage, _ in rows):
        first = min(part.start for outage, _ in rows for part in outage.lost)
        line(f"To read back where devices stand: upcall reconcile --since {_text(first)}")
    if not rows and known:
        line("No outage.")
    if not known:
        log("upcall: no listener has kept a heartbeat in this store in that time, so nothing is known of outages.")


def _print_alive(uptimes: Sequence[Uptime], now: int) -> None:
    """Say how old the last sign of life is: one that was killed a moment ago looks alive."""
    from upcall.registration import ALIVE_MICROS

    alive = [uptime.last_at for uptime in uptimes if not uptime.ended]
    if alive and now - max(alive) <= ALIVE_MICROS:
        line(f"alive     a listener gave its last sign of life {words_of_micros(now - max(alive))} ago")


def _row(outage: Outage, campaigns: Sequence[CampaignRecord]) -> tuple[str, ...]:
    what = "listener away" if outage.kind == "away" else f"{outage.account} registered elsewhere"
    names = [campaign.campaign_id for campaign in campaigns]
    more = f" and {len(names) - _SHOWN_CAMPAIGNS} more" if len(names) > _SHOWN_CAMPAIGNS else ""
    return (
        _text(outage.span.start),
        "now" if outage.is_current else _text(outage.span.end),
        words_of_micros(outage.span.micros),
        what,
        ", ".join(_between(part) for part in outage.lost) or "nothing",
        (", ".join(names[:_SHOWN_CAMPAIGNS]) + more) or "-",
    )


def _between(part: Span) -> str:
    return f"{_text(part.start)} to {_text(part.end)}"


def _advice(outage: Outage, now: int) -> list[str]:
    """Say what a current outage still leaves time for."""
    if not outage.is_current:
        over = _text(outage.span.end)
        late = f"{outage.account}: ours again, but callbacks may still go elsewhere until {over}."
        return [late] if outage.span.end > now else []
    if outage.kind == "elsewhere":
        return [f"{outage.account}: callbacks go elsewhere NOW, and none comes again. Type: upcall plan"]
    tries = words_of_count(outage.attempts_left or 0, "try", "tries")
    begun = (
        f"No listener NOW: of what was first sent at {_text(outage.span.start)}, ThingSpace has at least {tries} left."
    )
    if outage.safe_until is None:
        return [begun, "What was sent at its beginning can be lost; each further minute can cost another one."]
    left = words_of_micros(outage.safe_until - outage.span.end)
    return [begun, f"Back before {_text(outage.safe_until)}, in {left}, and nothing is lost. Type: upcall listen"]


def _print_profile(profile: Profile, repeated: Sequence[Repeats]) -> None:
    gaps = ", ".join(_gap(*gap) for gap in profile.gaps_seconds) or "none"
    line(f"profile   {profile.name}: {words_of_count(profile.max_attempts, 'try', 'tries')}, with gaps of {gaps}")
    if profile.silence_seconds is not None:
        line(f"          and a second copy after {_seconds(profile.silence_seconds)} without an answer")
    seen = ", ".join(f"{words_of_micros(each.micros)} ({words_of_count(each.count, 'time')})" for each in repeated)
    line(f"observed  {f'further deliveries after {seen}' if seen else 'no callback was delivered twice'}")


def _gap(shortest: float, longest: float) -> str:
    return _seconds(longest) if shortest == longest else f"{_seconds(shortest)} to {_seconds(longest)}"


def _seconds(seconds: float) -> str:
    return words_of_micros(round(seconds * 1e6))


def _text(micros: int) -> str:
    from upcall.thingspace import text_of_micros

    return text_of_micros(micros)
