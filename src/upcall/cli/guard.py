"""``upcall guard``: watch that what is registered stays what should be."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upcall.cli.calling import ConcurrencyOption, ConfigOption  # noqa: TC001 - Typer reads them off the signature
from upcall.cli.desired import EXIT_NO, EXIT_PROVIDER, open_wanted
from upcall.cli.moments import words_of_count, words_of_micros
from upcall.cli.output import JsonOption, StoreOption, emit, line, log, table
from upcall.cli.preflight import StrictOption  # noqa: TC001 - as above

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upcall.cli.desired import Wanted
    from upcall.registration.guard import Seen
    from upcall.registration.watching import Transition

__all__ = ["guard"]

_WAIT_SECONDS = 10.0
_ALERT_SECONDS = 30.0


def guard(
    *,
    once: Annotated[bool, typer.Option("--once", help="Look once, and say how each account stands.")] = False,
    every: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=1.0,
            help="How long from one look to the next, a tenth more or less.",
            show_default="[guard] every_seconds, else 300",
        ),
    ] = None,
    reassert: Annotated[
        bool | None,
        typer.Option(
            "--reassert/--no-reassert",
            help="Take back a slot that was ours, twice a day at most.",
            show_default="[guard] reassert, else not",
        ),
    ] = None,
    strict: StrictOption = False,
    admin: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Serve /healthz and /metrics there, such as 127.0.0.1:9465."),
    ] = None,
    store: StoreOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
    max_concurrency: ConcurrencyOption = 8,
) -> int:
    """Compare what is registered with the settings file, again and again, and tell when it changes.

    Changes go to the log, to subscribers as registration.drift, and to [alerts] url. With --once it exits 1 where it
    found drift and left it, 4 where an account could not be read. Without, it also reconciles where [reconcile] of the
    settings file asks for it: after an outage, on a schedule.
    """
    import asyncio

    from upcall.cli.logs import configure_logging
    from upcall.errors import SettingsError

    if once and (admin is not None or every is not None):
        raise SettingsError(
            "--once looks once; --every and --admin are for a guard that goes on.", hint="Leave them out."
        )
    configure_logging(logging.WARNING if once else logging.INFO)
    options = {"reassert": reassert, "strict": strict, "max_concurrency": max_concurrency}
    with open_wanted(config, store, create=True) as wanted:
        if once:
            return asyncio.run(_once(wanted, options, json=json))
        every_seconds = wanted.settings.guard.every_seconds if every is None else every
        asyncio.run(_watch(wanted, every_seconds, options, admin=admin, json=json))
    return 0


async def _once(wanted: Wanted, options: dict[str, Any], *, json: bool) -> int:
    """Make one round, and say how each account stands after it."""
    from upcall.registration.guarding import open_guard

    assert wanted.inbox is not None
    async with open_guard(
        wanted.settings,
        wanted.inbox,
        wanted.given,
        wait_seconds=_WAIT_SECONDS,
        patience_seconds=_ALERT_SECONDS,
        **options,
    ) as watcher:
        seen = await watcher.round()
    _say(seen, json=json)
    if any(one.watch.error for one in seen):
        return EXIT_PROVIDER
    return EXIT_NO if any(one.watch.state != "in_order" for one in seen) else 0


async def _watch(
    wanted: Wanted,
    every_seconds: float,
    options: dict[str, Any],
    *,
    admin: str | None,
    json: bool,
) -> None:
    """Make rounds until a signal comes."""
    import asyncio

    from upcall.cli.serving_guard import admin_pages
    from upcall.listener.server import until_stopped
    from upcall.registration.figures import GuardFigures
    from upcall.registration.filling import GapFiller
    from upcall.registration.guard import watch
    from upcall.registration.guarding import open_guard

    assert wanted.inbox is not None
    figures = GuardFigures()
    filler = GapFiller(wanted.settings, wanted.inbox.url)
    async with (
        until_stopped() as stop,
        admin_pages(admin, figures),
        open_guard(
            wanted.settings,
            wanted.inbox,
            wanted.given,
            figures=figures,
            **options,
        ) as watcher,
    ):
        log(f"upcall: watching {words_of_count(len(wanted.targets), 'account')} every {every_seconds:g} s.")
        filler.start()
        rounds = asyncio.ensure_future(
            watch(watcher, every_seconds=every_seconds, on_round=lambda seen: _tell(seen, json=json))
        )
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({rounds, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.to_thread(filler.stop)
        stopping.cancel()
        if rounds.done():
            rounds.result()
        rounds.cancel()
        await asyncio.gather(rounds, return_exceptions=True)


def _say(seen: Sequence[Seen], *, json: bool) -> None:
    from upcall.cli.selecting import now_micros

    now = now_micros()
    if json:
        for one in seen:
            emit(_document(one))
        return
    rows = [
        (
            one.account,
            _state(one),
            (not one.watch.error and one.watch.registered) or _nothing(one),
            words_of_micros(now - one.watch.since) if one.watch.since else "-",
            one.problem or one.watch.error or one.left or "",
        )
        for one in seen
    ]
    table(("ACCOUNT", "STATE", "REGISTERED", "FOR", "NOTE"), rows)


def _state(one: Seen) -> str:
    """Return how an account stands: what this look could not read is not said to stand as it did before."""
    return "unread" if one.watch.error and one.watch.state != "unreachable" else one.watch.state


def _nothing(one: Seen) -> str:
    return "not known" if one.watch.error or one.watch.state == "unknown" else "none registered"


def _tell(seen: Sequence[Seen], *, json: bool) -> None:
    """Print what changed in a round."""
    for one in seen:
        for transition in one.transitions:
            if json:
                emit(_change(transition))
            else:
                line(_line(transition))


def _document(one: Seen) -> dict[str, Any]:
    from upcall.thingspace import text_of_micros

    watch = one.watch
    return {
        "account": one.account,
        "state": _state(one),
        "registered": None if watch.error else watch.registered,
        "desired": watch.desired,
        "since": text_of_micros(watch.since) if watch.since else None,
        "last_ok": text_of_micros(watch.last_ok) if watch.last_ok is not None else None,
        "taken_back": any(transition.taken_back for transition in one.transitions),
        "note": one.problem or one.left,
        "error": watch.error,
    }


def _change(transition: Transition) -> dict[str, Any]:
    from upcall.thingspace import text_of_micros

    return {
        "account": transition.account,
        "at": text_of_micros(transition.at),
        "from": transition.was,
        "to": transition.state,
        "registered": _masked(transition.registered),
        "desired": _masked(transition.desired),
        "last_ok": text_of_micros(transition.last_ok) if transition.last_ok is not None else None,
        "taken_back": transition.taken_back,
        "error": transition.error,
    }


def _masked(url: str | None) -> str | None:
    """Mask a URL's token: what a server prints ends in a log. `upcall callbacks history` shows it whole."""
    from upcall.redact import mask_url_token

    return None if url is None else mask_url_token(url)


def _line(transition: Transition) -> str:
    from upcall.thingspace import text_of_micros

    stands = f"  {_masked(transition.registered)}" if transition.registered else ""
    return f"{text_of_micros(transition.at)}  {transition.account}  {transition.was} -> {transition.state}{stands}"
