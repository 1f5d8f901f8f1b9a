"""``upcall reconcile``: read back from the provider's reports what callbacks did not tell."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from upcall.cli.calling import ConfigOption, check_listed, interruptible, open_book, settings_of
from upcall.cli.moments import parse_moment, words_of_count
from upcall.cli.output import JsonOption, StoreOption, emit, error_console, line, log, progress_bar, table
from upcall.cli.selecting import now_micros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from upcall.registration import Reconciled, ReconcileProgress

__all__ = ["reconcile"]

EXIT_NO: Final = 1
EXIT_PROVIDER: Final = 4

_NAMED: Final = 5
"""So many of a kind are named to a person; JSON names all."""


def reconcile(
    *,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="From when on callbacks may be missing: 2h, or 2026-08-01T03:00:00Z.",
            show_default="24h, or the last outage where that began earlier",
        ),
    ] = None,
    account: Annotated[
        list[str] | None,
        typer.Option("--account", help="Such as 0000123456-00001.", show_default="all of the settings file"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Keep nothing; exit 1 where something differs.")] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="How many requests a second at most.",
            show_default="[reconcile] requests_per_second of the settings file, else 5",
        ),
    ] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> int:
    """Read where campaigns and devices stand from the provider's reports, and keep what callbacks did not tell.

    Each device whose state differs becomes one callback of origin "reconciled", which handlers get once; the late real
    one merges with it. What no report holds is named. Interrupted, the same command goes on where it ended.
    """
    from upcall.errors import SettingsError
    from upcall.inbox import open_inbox
    from upcall.registration import reconcile_accounts, reconcile_lock
    from upcall.settings import default_store

    settings = settings_of(config)
    if not account and not settings.accounts:
        raise SettingsError(
            "No account is given, and no settings file lists any.", hint="Name one or more with --account."
        )
    rate = settings.reconcile.requests_per_second if rate is None else rate
    if not 0 < rate < float("inf"):
        raise SettingsError(f"--rate is {rate:g}.", hint="Give a number above 0.")
    if settings.accounts:
        check_listed(settings, account or ())
    now = now_micros()
    start = None if since is None else parse_moment(since, now, option="--since")
    if start is not None and start > now:
        raise SettingsError(f"--since {since} is yet to come.", hint="Give a time that is past, such as 2h.")
    with (
        open_book(account, everything=not account, config=config) as book,
        contextlib.nullcontext() if dry_run else reconcile_lock(settings.state_dir, "reconcile"),
        open_inbox(store or default_store()) as inbox,
        interruptible("The same command goes on from there, within six hours."),
        _bar() as on_progress,
    ):
        results = reconcile_accounts(
            book.accounts,
            inbox=inbox,
            client_of=book.client_of,
            since=start,
            dry_run=dry_run,
            requests_per_second=rate,
            on_progress=on_progress,
            on_result=(lambda result: emit(_document(result, dry_run=dry_run))) if json else None,
        )
    if not json:
        _print(results, dry_run=dry_run)
    _complain(results)
    return _code(results, dry_run=dry_run)


def _code(results: Sequence[Reconciled], *, dry_run: bool) -> int:
    if any(result.errors for result in results):
        return EXIT_PROVIDER
    differs = any(result.differed or result.campaigns_differed for result in results)
    return EXIT_NO if dry_run and differs else 0


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[ReconcileProgress], None] | None]:
    """Show on a terminal how many devices of how many were read."""
    console = error_console()
    if not console.is_terminal:
        yield None
        return
    with progress_bar(console, transient=True) as bar:
        task = bar.add_task("reading campaigns", total=None)

        def show(progress: ReconcileProgress) -> None:
            place = f"campaign {min(progress.campaigns_done + 1, progress.campaigns)} of {progress.campaigns}"
            what = f"{progress.account}: {place}" if progress.campaigns else progress.account
            bar.update(task, description=what, completed=progress.devices, total=progress.total or None)

        yield show


def _print(results: Sequence[Reconciled], *, dry_run: bool) -> None:
    table(
        (
            "ACCOUNT",
            "CAMPAIGNS",
            "DEVICES",
            "WOULD DIFFER" if dry_run else "DIFFERED",
            "SILENT",
            "MISSING",
            "CONTRADICT",
        ),
        [_row(result) for result in results],
    )
    for result in results:
        for text in _details(result):
            line(f"{result.account}  {text}")


def _row(result: Reconciled) -> tuple[str, ...]:
    return (
        result.account,
        str(result.campaigns),
        str(result.devices),
        str(result.differed),
        str(len(result.silent_devices)),
        str(len(result.missing)),
        str(len(result.contradictions)),
    )


def _details(result: Reconciled) -> Iterator[str]:
    """Yield for a person what the numbers stand for."""
    if result.resumed_from is not None:
        yield f"Went on with the run that began at {_text(result.resumed_from)}."
    if result.campaigns_differed:
        yield f"{words_of_count(result.campaigns_differed, 'campaign')} stood elsewhere than callbacks had told."
    if result.silent_campaigns:
        yield f"No callback ever named: {_some(f'campaign {name}' for name in result.silent_campaigns)}."
    if result.silent_devices:
        names = (f"{_place(one.campaign_id, one.device_id)} ({one.status})" for one in result.silent_devices)
        yield f"Silent: {_some(names)}."
    if result.missing:
        names = (f"{_place(one.campaign_id, one.device_id)} ({one.status or '-'})" for one in result.missing)
        yield f"Callbacks told of it, and the reports do not hold it: {_some(names)}."
    if result.contradictions:
        names = (
            f"{_place(one.campaign_id, one.device_id)} ({one.told}, reported {one.reported})"
            for one in result.contradictions
        )
        yield f"Final by callbacks, and not by the reports: {_some(names)}."
    yield from (f"Not recoverable: {text}" for text in result.not_recoverable)
    yield from result.remarks


def _complain(results: Iterable[Reconciled]) -> None:
    for result in results:
        for error in result.errors:
            log(f"upcall: {result.account}: {error}")
        if not result.finished:
            log(f"upcall: {result.account} was not read to its end. The same command goes on from there.")


def _place(campaign_id: str, device_id: str) -> str:
    from upcall.redact import mask_device

    return f"{mask_device(device_id)} of campaign {campaign_id}" if device_id else f"campaign {campaign_id}"


def _some(names: Iterable[str]) -> str:
    """Name the first ones, and say how many more there are."""
    every = list(names)
    more = f" and {len(every) - _NAMED} more, which --json names" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more


def _document(result: Reconciled, *, dry_run: bool) -> dict[str, Any]:
    import msgspec

    document = msgspec.to_builtins(result)
    document |= {name: _text(document[name]) for name in ("since", "until", "resumed_from")}
    for device in document["silent_devices"]:
        device["last_at"] = _text(device["last_at"])
    return {"account": document.pop("account"), "dry_run": dry_run, **document}


def _text(micros: int | None) -> str | None:
    from upcall.thingspace import text_of_micros

    return None if micros is None else text_of_micros(micros)
