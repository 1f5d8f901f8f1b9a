"""Long lists in bounded memory: pages of callbacks, and rows that need not all be there to be aligned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from upcall.cli.output import line, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from upcall.inbox import CallbackRecord, DeadRecord, Inbox, Selection

__all__ = ["Columns", "callback_pages", "dead_pages", "newest_id", "with_bodies"]

PAGE: Final = 1000
_PAGE_BYTES: Final = 16 * 1024 * 1024
_PADDED_TO: Final = 60


class Columns:
    """Print rows in aligned columns as they come, never folded.

    A column grows with what it has seen; a very long field is printed whole and does not widen it.

    Args:
        headers: The titles, printed before the first row.
        titled: Whether to print them.
    """

    def __init__(self, headers: Sequence[str], *, titled: bool = True) -> None:
        self._widths = [len(header) for header in headers]
        self._title: Sequence[str] | None = headers if titled else None

    def add(self, rows: Iterable[Sequence[str]]) -> None:
        """Print some rows, the titles before the first ones."""
        cells = [tuple(map(visible, row)) for row in rows]
        for row in cells:
            for column, cell in enumerate(row):
                self._widths[column] = min(_PADDED_TO, max(self._widths[column], len(cell)))
        if self._title is not None:
            cells.insert(0, tuple(self._title))
            self._title = None
        for row in cells:
            line("  ".join(cell.ljust(width) for cell, width in zip(row, self._widths, strict=True)).rstrip())


def callback_pages(inbox: Inbox, selection: Selection) -> Iterator[list[CallbackRecord]]:
    """Yield every callback that is selected, oldest first, a page at a time and without its body.

    What arrives meanwhile is left out: the end is where it was at the first page.
    """
    import msgspec

    end = newest_id(inbox) + 1
    before = min(selection.before or end, end)
    after = selection.after
    while True:
        part = msgspec.structs.replace(selection, after=after, before=before)
        records = inbox.callbacks(part, limit=PAGE, oldest=True, bodies=False)
        if not records:
            return
        after = records[-1].id
        yield records


def with_bodies(inbox: Inbox, records: Sequence[CallbackRecord]) -> Iterator[CallbackRecord]:
    """Yield the same callbacks with their bodies, of which only so many megabytes are held at a time."""
    from upcall.inbox import Selection

    for group in _groups(records):
        yield from inbox.callbacks(Selection(ids=tuple(record.id for record in group)))


def _groups(records: Sequence[CallbackRecord]) -> Iterator[list[CallbackRecord]]:
    group: list[CallbackRecord] = []
    weight = 0
    for record in records:
        size = record.body_bytes or 0
        if group and (weight + size > _PAGE_BYTES or len(group) >= PAGE):
            yield group
            group, weight = [], 0
        group.append(record)
        weight += size
    if group:
        yield group


def dead_pages(inbox: Inbox, selection: Selection) -> Iterator[list[DeadRecord]]:
    """Yield every piece of dead work that is selected, oldest callback first, a page at a time."""
    import msgspec

    from upcall.inbox import Selection

    of_dead = msgspec.structs.replace(selection, given_up=True, subscriber=None, device_id=None)
    for records in callback_pages(inbox, of_dead):
        ids = tuple(record.id for record in records)
        pieces = inbox.dead(Selection(ids=ids, subscriber=selection.subscriber, device_id=selection.device_id))
        if pieces:
            yield pieces


def newest_id(inbox: Inbox) -> int:
    """Return the number of the newest callback, 0 where there is none."""
    newest = inbox.callbacks(limit=1, bodies=False)
    return newest[-1].id if newest else 0
