"""The notes in which a run leaves where it is and what it found, for the run that goes on after an interruption."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from upcall.inbox import Note
from upcall.registration.reconcile.progress import Found, Position, goes_on, merged

if TYPE_CHECKING:
    from upcall.inbox import Inbox

__all__ = ["FINDINGS", "POSITIONS", "Trail"]

POSITIONS: Final = "reconcile"
"""The topic of the notes that say where a run is, by account."""
FINDINGS: Final = "reconcile.found"
"""The topic of the notes that say what was found, by account, campaign and page."""


class _Finding(msgspec.Struct, frozen=True):
    """Hold what a note says of one page."""

    account: str
    begun_at: int
    campaign_id: str
    page: int
    found: Found


class Trail:
    """Keep where the run of one account is.

    Args:
        inbox: Where the notes lie.
        account: The account.
        is_kept: Whether anything is written; without, the run cannot be gone on with.
    """

    def __init__(self, inbox: Inbox, account: str, *, is_kept: bool) -> None:
        self._inbox = inbox
        self._account = account
        self._is_kept = is_kept
        self._found: dict[tuple[str, int], Found] = {}

    def resume(self, *, since: int, now: int) -> Position | None:
        """Return where an interrupted run was that is to be gone on with, None where there is none.

        Args:
            since: From when on callbacks may be missing.
            now: The time.
        """
        if not self._is_kept:
            return None
        position = self._position()
        if position is None or not goes_on(position, since=since, now=now):
            self.clear()
            return None
        for note in self._findings():
            finding = _read(note.document, _Finding)
            if finding is not None and finding.begun_at == position.begun_at:
                self._found[(finding.campaign_id, finding.page)] = finding.found
        return position

    def find(self, position: Position, found: Found) -> None:
        """Keep what was found in the page that comes after a position, beside what was found in it before."""
        place = (position.campaign_id, position.pages)
        before = self._found.get(place)
        found = found if before is None else merged(before, found)
        if found == before:
            return
        self._keep(place, position.begun_at, found)

    def read_again(self, position: Position) -> None:
        """Forget which devices a campaign's pages held: they are read from the beginning."""
        for place, found in list(self._found.items()):
            if place[0] == position.campaign_id:
                self._keep(place, position.begun_at, msgspec.structs.replace(found, devices=0, met=()))

    def move(self, position: Position, now: int) -> None:
        """Keep where the run is."""
        if self._is_kept:
            document = msgspec.to_builtins(position)
            self._inbox.put_note(Note(topic=POSITIONS, key=self._account, at=now, document=document))

    def findings(self, campaign_id: str | None = None) -> list[Found]:
        """Return what was found so far, in one campaign or in all."""
        return [found for (campaign, _), found in self._found.items() if campaign_id in {None, campaign}]

    def clear(self) -> None:
        """Remove the notes: the run is over, or nobody goes on with it."""
        if self._is_kept:
            self._inbox.drop_note(POSITIONS, self._account)
            for note in self._findings():
                self._inbox.drop_note(FINDINGS, note.key)

    def _keep(self, place: tuple[str, int], begun_at: int, found: Found) -> None:
        self._found[place] = found
        if self._is_kept:
            campaign_id, page = place
            document = msgspec.to_builtins(_Finding(self._account, begun_at, campaign_id, page, found))
            key = f"{self._account} {campaign_id} {page:06d}"
            self._inbox.put_note(Note(topic=FINDINGS, key=key, at=begun_at, document=document))

    def _position(self) -> Position | None:
        notes = [note for note in self._inbox.notes(POSITIONS) if note.key == self._account]
        return _read(notes[0].document, Position) if notes else None

    def _findings(self) -> list[Note]:
        return [note for note in self._inbox.notes(FINDINGS) if note.document.get("account") == self._account]


def _read(document: Any, kind: type[Any]) -> Any:
    """Read a note, None where an Upcall wrote it that knew it in another shape."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError:
        return None
