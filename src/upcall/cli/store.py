"""``upcall store``: check, copy, restore and upgrade the inbox, and let go of what is old."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from upcall.cli.deciding import EXIT_NO, YesOption, agrees
from upcall.cli.moments import words_of_bytes, words_of_count, words_of_micros
from upcall.cli.output import JsonOption, StoreOption, emit, error_console, line, log, progress_bar, visible
from upcall.cli.selecting import now_micros
from upcall.cli.upkeep import forget, prune, unsubscribe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from upcall.inbox import Inbox, Ledger
    from upcall.inbox.spool import SegmentInfo

__all__ = ["app"]

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Keep the store well.")

SpoolOption = Annotated[
    Path | None,
    typer.Option("--spool", metavar="DIR", help="The spool.", show_default="the store's, in the state directory"),
]
SCARCE_BYTES: Final = 512 * 1024**2
"""With less room than this on its disk, a store is about to fail."""


@app.command(epilog="Such as: upcall store check --store sqlite:////var/lib/upcall/inbox.db")
def check(*, store: StoreOption = None, spool: SpoolOption = None, json: JsonOption = False) -> int:
    """Read the whole store, its disk and its spool, and say what is wrong; exit 1 where anything is."""
    from upcall.inbox import open_inbox
    from upcall.settings import default_store

    url = store or default_store()
    with open_inbox(url) as inbox, error_console().status("reading the whole store…"):
        problems = inbox.check()
        ledger = inbox.ledger()
        found = {**_facts(inbox, url, spool), "counts": _counts(ledger), "handlers": _handlers(inbox)}
    problems += _outside_problems(found)
    found["problems"] = problems
    if json:
        emit(found)
    else:
        _print_check(found)
    return EXIT_NO if problems else 0


@app.command(epilog="Such as: upcall store backup /backup/inbox-2026-08-01.db")
def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="A file that is not there yet.")],
    *,
    store: StoreOption = None,
    spool: SpoolOption = None,
    json: JsonOption = False,
) -> None:
    """Copy this moment's store to a file, while others go on writing; it is whole and on disk, or not there."""
    from upcall.inbox import open_inbox
    from upcall.settings import default_store

    url = store or default_store()
    with open_inbox(url) as inbox, _bar("copying") as progress:
        inbox.backup(target, progress=progress)
    size = target.stat().st_size
    if json:
        emit({"backup": str(target), "size_bytes": size})
    else:
        line(f"copied to {target}, {words_of_bytes(size)}.")
    waiting = sum(segment.records for segment in _segments(url, spool) if not segment.set_aside)
    if waiting:
        arrivals = words_of_count(waiting, "arrival waits", "arrivals wait")
        log(f"upcall: {arrivals} in the spool; not in this copy.")


@app.command(epilog="Such as: upcall store restore /backup/inbox-2026-08-01.db --replace")
def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A copy that `upcall store backup` made.")],
    *,
    store: StoreOption = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of a store; it is kept aside.")] = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Put a copy in the store's place, once nothing uses that; callbacks that came after the copy are not in it."""
    from upcall.errors import UpcallError
    from upcall.inbox import restore_store
    from upcall.settings import default_store

    url = store or default_store()
    if replace and not agrees(f"Replace {url} by {source}? It is kept aside.", yes=yes, command="store restore"):
        raise UpcallError(f"{url} was left alone.")
    aside = restore_store(source, url, replace=replace)
    if json:
        emit({"restored": str(source), "store": url, "aside": str(aside) if aside else None})
        return
    line(f"restored {url} from {source}{f'; what was there is now {aside}' if aside else ''}.")
    log("upcall: next: upcall store check")


@app.command()
def upgrade(*, store: StoreOption = None, json: JsonOption = False) -> None:
    """Bring an older Upcall's store to this one's schema; a running listener keeps what comes in its spool."""
    from upcall.inbox import upgrade_store
    from upcall.settings import default_store

    url = store or default_store()
    with _bar("upgrading") as progress:
        before, after = upgrade_store(url, progress=progress)
    if json:
        emit({"store": url, "from": before, "to": after})
    elif before == after:
        line(f"{url} has schema {after} already; nothing was to do.")
    else:
        line(f"{url} went from schema {before} to {after}.")


app.command(epilog="Such as: upcall store prune --body-days 30 --record-days 400")(prune)
app.command(epilog="Such as: upcall store forget 356938035643809")(forget)
app.command(epilog="Such as: upcall store unsubscribe handlers.open_ticket")(unsubscribe)


class _bar:  # noqa: N801 - used as a function
    """Show how many parts of how many are done, on a terminal."""

    def __init__(self, what: str) -> None:
        self._bar = progress_bar(error_console(), transient=True)
        self._task = self._bar.add_task(what, total=None)

    def __enter__(self) -> Callable[[int, int], None]:
        self._bar.start()
        return lambda done, total: self._bar.update(self._task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _facts(inbox: Inbox, url: str, spool: Path | None) -> dict[str, Any]:
    from upcall.inbox import store_version
    from upcall.inbox.spool import shares_disk

    directory = _spool_directory(url, spool)
    segments = _segments(url, spool)
    return {
        "store": inbox.url,
        "schema": store_version(url),
        **_disk(url),
        "quarantine_bytes": inbox.quarantined_bytes(),
        "spool": {
            "directory": str(directory),
            "shares_disk": shares_disk(directory, url),
            "files": len(segments),
            "arrivals": sum(segment.records for segment in segments if not segment.set_aside),
            "size_bytes": sum(segment.size_bytes for segment in segments),
            "damaged": [segment.name for segment in segments if segment.damaged_bytes],
            "unreadable": {segment.name: segment.unreadable for segment in segments if segment.unreadable},
        },
    }


def _handlers(inbox: Inbox) -> list[dict[str, Any]]:
    """Say how far each handler is, and how long the oldest callback has waited that it is not done with."""
    now = now_micros()
    return [
        {
            "name": subscriber.name,
            "unread": subscriber.unread,
            "pending": subscriber.pending,
            "leased": subscriber.leased,
            "dead": subscriber.dead,
            "oldest_seconds": None if subscriber.oldest_at is None else (now - subscriber.oldest_at) / 1_000_000,
        }
        for subscriber in inbox.subscribers()
    ]


def _disk(url: str) -> dict[str, Any]:
    """Look at the files of a store that has some."""
    from upcall.inbox.durable import file_system
    from upcall.inbox.stores import store_path

    if "://" in url and not url.startswith("sqlite:"):
        return {"size_bytes": 0, "log_bytes": 0, "free_bytes": None, "file_system": None}
    path = store_path(url).resolve()  # the log lies beside the file, not beside a link to it
    log_file = path.with_name(f"{path.name}-wal")
    return {
        "size_bytes": path.stat().st_size,
        "log_bytes": log_file.stat().st_size if log_file.exists() else 0,
        "free_bytes": shutil.disk_usage(path.parent).free,
        "file_system": file_system(path),
    }


def _spool_directory(url: str, spool: Path | None) -> Path:
    from upcall.inbox.spool import spool_directory

    return spool if spool is not None else spool_directory(url)


def _segments(url: str, spool: Path | None) -> list[SegmentInfo]:
    from upcall.inbox.spool import spooled

    return spooled(_spool_directory(url, spool))


def _counts(ledger: Ledger) -> dict[str, int]:
    import msgspec

    return msgspec.structs.asdict(ledger)


def _outside_problems(found: dict[str, Any]) -> Iterator[str]:
    """Find what is wrong beside the store: with its disk, and with its spool."""
    free = found["free_bytes"]
    if free is not None and free < SCARCE_BYTES:
        yield f"only {words_of_bytes(free)} are free on the store's disk. Make room: upcall store prune, or elsewhere."
    for name in found["spool"]["damaged"]:
        yield f"spool file {name} holds bytes that cannot be read. Keep a copy of it; what can be read is imported."
    for name, reason in found["spool"]["unreadable"].items():
        yield f"spool file {name} cannot be read: {reason}. Mend its disk; a listener tries it again every few minutes."


def _print_check(found: dict[str, Any]) -> None:
    spool, counts = found["spool"], found["counts"]
    held = ", ".join(f"{count} {name}" for name, count in counts.items() if name not in {"stored", "deliveries"})
    waiting = (
        f"{words_of_count(spool['arrivals'], 'arrival')} in {words_of_count(spool['files'], 'file')},"
        f" {words_of_bytes(spool['size_bytes'])}: a running `upcall listen` imports them"
        if spool["arrivals"] or spool["unreadable"]
        else "nothing waits"
    )
    facts = {
        "store": found["store"],
        "schema": found["schema"],
        "size": f"{words_of_bytes(found['size_bytes'])}, and {words_of_bytes(found['log_bytes'])} of write-ahead log",
        "callbacks": f"{counts['stored']}, delivered {counts['deliveries']} times",
        "": held,
        "quarantine": words_of_bytes(found["quarantine_bytes"]),
        "spool": f"{waiting} ({spool['directory']})",
        "disk": _room(found),
    }
    for name, value in facts.items():
        line(visible(f"{name:11} {value}"))
    for handler in found["handlers"]:
        line(visible(f"{'handler':11} {_standing(handler)}"))
    for problem in found["problems"]:
        line(visible(f"{'PROBLEM':11} {problem}"))
    if not found["problems"]:
        line("sound")


def _standing(handler: dict[str, Any]) -> str:
    counts = ", ".join(f"{handler[name]} {name}" for name in ("unread", "pending", "leased", "dead"))
    waits = handler["oldest_seconds"]
    since = "" if waits is None else f"; the oldest waits for {words_of_micros(int(waits * 1_000_000))}"
    return f"{handler['name']}: {counts}{since}"


def _room(found: dict[str, Any]) -> str:
    if found["free_bytes"] is None:
        return "none"
    spool = "; the spool's too, so a full one stops both" if found["spool"]["shares_disk"] else ""
    return f"{words_of_bytes(found['free_bytes'])} free, {found['file_system'] or 'of an unknown file system'}{spool}"
