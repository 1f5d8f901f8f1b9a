"""``upcall events export``: everything that was received, as JSON Lines."""

from __future__ import annotations

import contextlib
import json as json_module
import os
from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upcall.cli.describing import archive_document
from upcall.cli.listing import callback_pages, newest_id, with_bodies
from upcall.cli.moments import words_of_count
from upcall.cli.output import JsonOption, StoreOption, emit, error_console, log, progress_bar
from upcall.cli.selecting import (
    AccountFilter,
    AfterFilter,
    BeforeFilter,
    CampaignFilter,
    KindFilter,
    SinceFilter,
    StateFilter,
    UntilFilter,
    selection_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from upcall.inbox import Inbox, Selection

__all__ = ["export"]


def export(
    *,
    store: StoreOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write to this new file, not to stdout.")
    ] = None,
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
    """Write all callbacks, or those that match, as JSON Lines: the bodies as received, every delivery, the evidence.

    A file is made for its owner alone, and is whole and on disk, or not there at all. Only V1 passwords are blanked.
    """
    from upcall.cli.reading import reading

    selection = selection_of(
        account=account, kind=kind, campaign=campaign, state=state, since=since, until=until, before=before, after=after
    )
    with reading(store) as inbox:
        if output is None:
            written = _export(inbox, selection, emit)
        else:
            with _new_file(output) as write:
                written = _export(inbox, selection, write)
    place = f" to {output}" if output is not None else ""
    log(f"upcall: exported {words_of_count(written, 'callback')}{place}.")
    if json and output is not None:
        emit({"exported": written, "output": str(output)})


def _export(inbox: Inbox, selection: Selection, write: Callable[[dict[str, Any]], None]) -> int:
    written = 0
    with progress_bar(error_console(), transient=True) as bar:
        task = bar.add_task("callbacks looked at", total=max(newest_id(inbox) - selection.after, 0))
        for records in callback_pages(inbox, selection):
            for record in with_bodies(inbox, records):
                write(archive_document(inbox, record))
                written += 1
            bar.update(task, completed=records[-1].id - selection.after)
    return written


@contextlib.contextmanager
def _new_file(target: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Write JSON lines beside a file's place, and put them there once they are on disk."""
    from upcall.errors import UpcallError

    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        if target.exists():
            raise UpcallError(f"{target} is there already, and was left alone.", hint="Name another file.")
        handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with open(handle, "w", encoding="ascii") as file:  # noqa: PTH123 - made with its mode, not opened by its name

            def write(document: dict[str, Any]) -> None:
                file.write(json_module.dumps(document) + "\n")

            yield write
            file.flush()
            os.fsync(file.fileno())
        partial.rename(target)
        _sync_directory(target.parent)
    except OSError as error:
        raise UpcallError(
            f"{target} cannot be written: {error.strerror}.", hint="Name another with --output."
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
