"""The audit of registrations: who wrote what to the provider, when, in the place of what, and how it ended."""

from __future__ import annotations

import getpass
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

from upcall.inbox import JournalEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from upcall.inbox import Inbox

__all__ = ["TOPIC", "Audit", "History", "operator"]

TOPIC: Final = "registration"
"""The journal's topic."""

_STOOD: Final = frozenset({"begun", "done"})
"""Outcomes after which a URL that stands is one that we wrote: a write whose end nobody saw may have been made."""


class Audit:
    """Write the audit. Any thread may; one at a time does.

    Args:
        inbox: Where the journal lies.
        by: Which command writes, such as ``apply``.
        now: Returns the time, UTC microseconds.
        who: The person and the machine, None for this process's.
    """

    def __init__(self, inbox: Inbox, by: str, *, now: Callable[[], int], who: str | None = None) -> None:
        self._inbox = inbox
        self._by = by
        self._now = now
        self._who = operator() if who is None else who
        self._lock = threading.Lock()

    def begun(
        self, account: str, action: str, *, before: str | None, after: str | None, credentials: str | None = None
    ) -> Writing:
        """Say that a write is about to be sent; it is on disk before it is.

        Args:
            account: For which account.
            action: ``register``, ``update``, ``replace`` or ``deregister``.
            before: The URL that stood, None for none.
            after: The URL that is to stand, None for none.
            credentials: Which ``[credentials.…]`` table calls.

        Returns:
            What its end is told to.
        """
        document: dict[str, Any] = {"action": action, "before": before, "after": after, "by": self._by}
        document["who"] = self._who
        if credentials is not None:
            document["credentials"] = credentials
        writing = Writing(self, account, document)
        writing.ended("begun")
        return writing

    def record(self, account: str, document: dict[str, Any]) -> None:
        """Add an entry to the journal."""
        with self._lock:
            self._inbox.record(JournalEntry(topic=TOPIC, at=self._now(), account=account, document=document))


class Writing:
    """Be one write of the audit, from its beginning to its end.

    Args:
        audit: Where it is kept.
        account: For which account.
        document: What it is.
    """

    def __init__(self, audit: Audit, account: str, document: dict[str, Any]) -> None:
        self._audit = audit
        self._account = account
        self._document = document

    def ended(
        self, outcome: str, *, error: str | None = None, stands: str | None = None, refused: bool | None = None
    ) -> None:
        """Say how it ended.

        Args:
            outcome: ``done``, ``differs`` where something else was read back, or ``failed``.
            error: Why it failed; no token in it.
            stands: What was read back, where that is something else.
            refused: Whether the provider refused the write, so that it certainly was not made; None where it may be.
        """
        said = (("error", error), ("stands", stands), ("refused", refused))
        more = {name: value for name, value in said if value is not None}
        self._audit.record(self._account, self._document | {"outcome": outcome} | more)


class History:
    """Hold what the audit says of each account.

    Args:
        entries: The journal's entries of this topic, oldest first.
    """

    def __init__(self, entries: Sequence[JournalEntry] = ()) -> None:
        self._written: dict[str, set[str]] = {}
        self._last: dict[str, dict[str, Any]] = {}
        self._before: dict[str, tuple[frozenset[str], dict[str, Any] | None]] = {}
        for entry in entries:
            self._take(entry)

    @classmethod
    def of(cls, inbox: Inbox | None) -> History:
        """Read the history that a store holds; without a store there is none."""
        return cls(inbox.journal(TOPIC) if inbox is not None else ())

    @property
    def written(self) -> dict[str, frozenset[str]]:
        """Return for each account the URLs that we wrote."""
        return {account: frozenset(urls) for account, urls in self._written.items()}

    def registered(self) -> dict[str, str | None]:
        """Return the accounts that we registered and did not deregister since, each with its credentials' name."""
        return {
            account: last.get("credentials")
            for account, last in self._last.items()
            if last.get("action") != "deregister"
        }

    def removed(self) -> frozenset[str]:
        """Return the accounts that we deregistered, and did not register since."""
        return frozenset(account for account, last in self._last.items() if last.get("action") == "deregister")

    def _take(self, entry: JournalEntry) -> None:
        document = entry.document
        if document.get("outcome") == "begun":
            known = self._written.get(entry.account, set())
            self._before[entry.account] = (frozenset(known), self._last.get(entry.account))
        elif document.get("refused"):
            self._take_back(entry.account)
        if document.get("outcome") not in _STOOD:
            return
        after = document.get("after")
        if isinstance(after, str):
            self._written.setdefault(entry.account, set()).add(after)
        # A removal whose end nobody saw may not have been made.
        if after is not None or document["outcome"] == "done":
            self._last[entry.account] = document

    def _take_back(self, account: str) -> None:
        """Forget a write that the provider refused: it never stood."""
        written, last = self._before.pop(account, (frozenset(), None))
        self._written[account] = set(written)
        if last is None:
            self._last.pop(account, None)
        else:
            self._last[account] = last


def operator() -> str:
    """Return who runs this process, on which machine."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user number without a name, as containers have
        name = "somebody"
    return f"{name}@{socket.gethostname()}"
