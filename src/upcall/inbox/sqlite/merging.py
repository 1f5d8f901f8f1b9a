"""Real callbacks that merge with what was reported before, while work is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from upcall.inbox.merging import Fact, Merger, Said, said_by
from upcall.inbox.sqlite.selection import in_numbers

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator

    from upcall.thingspace import CallbackEvent

__all__ = ["LateCallbacks", "Place"]

_AT_A_TIME: Final = 500
_ANY: Final = (1 << 63) - 1

_IS_ANY: Final = "SELECT 1 FROM upcall_reported LIMIT 1"
_OF_CAMPAIGN: Final = "SELECT 1 FROM upcall_reported WHERE campaign_id = ? LIMIT 1"
# Of the callback's account; of any where it is nobody's.
_SAME: Final = """
    FROM upcall_reported WHERE campaign_id = ?1 AND device_id = ?2 AND state = ?3 AND ?4 IN (account, '')
"""
_OPEN: Final = f"""
    SELECT account, callback_id {_SAME} AND callback_id < ?5 AND (merged_by IS NULL OR merged_by = ?6)
    ORDER BY account LIMIT 1
"""
_IS_TOLD: Final = f"SELECT 1 {_SAME} LIMIT 1"
_CLAIM: Final = """
    UPDATE upcall_reported SET merged_by = ?1
    WHERE campaign_id = ?2 AND device_id = ?3 AND state = ?4 AND account = ?5 AND (merged_by IS NULL OR merged_by = ?1)
"""

Place = tuple[int, str, str]
"""A piece of work: its callback, its subscriber, its device."""


class LateCallbacks:
    """Find what the callbacks of one batch merge with; it costs one look where nothing was ever reported.

    Args:
        connection: The inbox's connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._found: list[tuple[Said, dict[Fact, tuple[str, int]]]] = []
        self._campaigns: dict[str, bool] = {}
        self.is_any: bool = connection.execute(_IS_ANY).fetchone() is not None
        """Whether anything was reported, so that callbacks have to be heard."""

    def hear(self, event: CallbackEvent, *, was_released: bool) -> None:
        """Look, before the write transaction begins, for what a callback may merge with.

        A callback that was released may have come before the report: what it says is heard after it.
        """
        if event.campaign_id is None or not self._is_reported(event.campaign_id):
            return
        said = said_by(event)
        if said is None:
            return
        before = _ANY if was_released else said.callback_id
        found = {fact: report for fact in said.facts if (report := self._report(said, fact, before)) is not None}
        if found:
            self._found.append((said, found))

    def _is_reported(self, campaign_id: str) -> bool:
        known = self._campaigns.get(campaign_id)
        if known is None:
            known = self._connection.execute(_OF_CAMPAIGN, (campaign_id,)).fetchone() is not None
            self._campaigns[campaign_id] = known
        return known

    def _report(self, said: Said, fact: Fact, before: int) -> tuple[str, int] | None:
        values = (said.campaign_id, *fact, said.account or "", before, said.callback_id)
        row = self._connection.execute(_OPEN, values).fetchone()
        return None if row is None else (row[0], row[1])

    def claim(self, wanted: Collection[Place]) -> dict[Place, int]:
        """Let the callbacks merge, in the open transaction: each report with the first that repeats it.

        Args:
            wanted: The work that is about to be made.

        Returns:
            What of it is done already, by who was told the same before, and with which reconciled callback.
        """
        mergers = {said.callback_id: self._merger(said, found) for said, found in self._found}
        behind = {
            place: told
            for place in wanted
            if place[0] in mergers and (told := mergers[place[0]].behind(place[2]))
        }  # fmt: skip
        worked = {*wanted, *self._worked({number for told in behind.values() for number in told})}
        return {
            place: told[-1]
            for place, told in behind.items()
            if all((number, place[1], place[2]) in worked for number in told)
        }

    def _merger(self, said: Said, found: dict[Fact, tuple[str, int]]) -> Merger:
        reports = {
            fact: number
            for fact, (account, number) in found.items()
            if self._connection.execute(_CLAIM, (said.callback_id, said.campaign_id, *fact, account)).rowcount
        }
        return Merger(said, reports, said.ending is not None and self._is_told(said, said.ending))

    def _is_told(self, said: Said, fact: Fact) -> bool:
        values = (said.campaign_id, *fact, said.account or "")
        return self._connection.execute(_IS_TOLD, values).fetchone() is not None

    def _worked(self, numbers: Collection[int]) -> Iterator[Place]:
        """Yield the work that there is of some callbacks."""
        ordered = sorted(numbers)
        for start in range(0, len(ordered), _AT_A_TIME):
            some = in_numbers("callback_id", ordered[start : start + _AT_A_TIME])
            yield from self._connection.execute(f"SELECT callback_id, subscriber, device_id FROM work WHERE {some}")
