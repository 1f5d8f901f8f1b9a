"""How commands that look open the store: there already, and read up to its newest row."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from upcall.cli.listing import newest_id
from upcall.cli.output import log
from upcall.errors import StoreError
from upcall.inbox import open_inbox
from upcall.settings import default_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upcall.inbox import Inbox

__all__ = ["catch_up", "reading"]

PROGRESS_FROM = 5_000
PAUSE_SECONDS = 0.005
"""Between two steps: a listener that waits for the store looks every 2 ms whether it is free."""


@contextlib.contextmanager
def reading(store: str | None) -> Iterator[Inbox]:
    """Open the store and bring its read model up to the newest row, or near it where many keep coming.

    Where that cannot be written, on a full disk or while another process writes for long, what is there is read.

    Args:
        store: Its URL, None for the default.

    Raises:
        StoreError: There is none, or it cannot be read.
    """
    with open_inbox(store or default_store()) as inbox:
        try:
            catch_up(inbox)
        except StoreError as error:
            log(f"upcall: {error} What follows is as it was; the newest callbacks show neither kind nor campaign.")
        yield inbox


def catch_up(inbox: Inbox) -> None:
    """Fold every callback that is not yet in the read model; say so on a terminal where it takes long.

    It ends where callbacks come faster than it reads, too: with all that was there when it began.
    """
    taken = 0
    for step in _steps(inbox):
        taken += step
        if taken >= PROGRESS_FROM:
            _catch_up_visibly(inbox)
            return


def _steps(inbox: Inbox) -> Iterator[int]:
    before = float("inf")
    while True:
        newest, taken = newest_id(inbox), 0
        while step := inbox.project(upto=newest):
            taken += step
            yield step
            time.sleep(PAUSE_SECONDS)
        # What came meanwhile too, unless it comes as fast as it is read.
        if not taken or taken >= before:
            return
        before = taken


def _catch_up_visibly(inbox: Inbox) -> None:
    from upcall.cli.output import error_console

    with error_console().status("reading new callbacks…") as status:
        taken = 0
        for step in _steps(inbox):
            taken += step
            status.update(f"reading new callbacks… {taken}")
