"""From page to page of a report until its end, and never round in a circle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from upcall.registration.reconcile.pages import CampaignPage, DevicePage

__all__ = ["Walk"]

_MOST_IDLE: Final = 3
"""So many pages in a row may hold nothing new: a provider that filters a page may leave it empty."""


class Walk:
    """Say which page is to be read next.

    The provider's own word on where to go on from counts. Where it says that there is more and not from where, its last
    entry stands in.

    Args:
        start: Where the first page begins, None for the report's own beginning.
    """

    def __init__(self, start: str | None) -> None:
        self._asked: set[str | None] = {start}
        self._seen: set[str] = set()
        self._idle = 0
        self.position: str | None = start
        self.is_over: bool = False
        self.trouble: str | None = None

    @property
    def seen(self) -> frozenset[str]:
        """Return what was read, by name."""
        return frozenset(self._seen)

    def take(self, page: CampaignPage | DevicePage) -> int:
        """Go on after a page, and return how many of its entries are new.

        Afterwards `position` says where the next page begins, or `is_over` that there is none, and `trouble` why, where
        the provider said that there is more.
        """
        new = set(page.ids) - self._seen
        self._seen |= new
        self._idle = 0 if new else self._idle + 1
        if not page.has_more:
            self.is_over = True
            return len(new)
        following = page.last_seen or (page.ids[-1] if page.ids else None)
        self.trouble = self._trouble(following)
        self.is_over = self.trouble is not None
        if not self.is_over:
            self._asked.add(following)
            self.position = following
        return len(new)

    def _trouble(self, following: str | None) -> str | None:
        read = f"after {len(self._seen)} entries"
        if following is None:
            return f"says {read} that there is more, and not from where to go on"
        if following in self._asked:
            return f"sends {read} to a page that was read before"
        if self._idle >= _MOST_IDLE:
            return f"goes on {read} with pages that hold nothing new"
        return None
