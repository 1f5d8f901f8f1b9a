"""Read what is desired, and when it was not so: the settings file's accounts, the store's tokens, guard and audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from upcall.inbox import JournalEntry
from upcall.registration.audit import TOPIC, History
from upcall.registration.desired import Ours, Target, targets_of
from upcall.registration.outages import elsewhere_spans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upcall.inbox import Inbox
    from upcall.listener import Token
    from upcall.registration.outages import Span
    from upcall.settings import Account

__all__ = ["Desired", "read_desired", "read_elsewhere"]


class Desired(msgspec.Struct, frozen=True):
    """Hold what is desired at one moment.

    Args:
        targets: What each account of the settings file should have registered.
        ours: Tells whose a URL is.
        history: What the audit says was written.
    """

    targets: tuple[Target, ...]
    ours: Ours
    history: History

    def gone(self) -> dict[str, str | None]:
        """Return the accounts that we registered and that are no longer listed, each with its credentials' name."""
        listed = {target.account for target in self.targets}
        return {account: name for account, name in self.history.registered().items() if account not in listed}


def read_elsewhere(inbox: Inbox, now: int, account: str | None = None) -> dict[str, list[Span]]:
    """Return for each account when its slot was not ours, as the guard saw it and as the audit says that it ended.

    An older URL of ours whose token is still accepted is no such time.

    Args:
        inbox: The store.
        now: The time, UTC microseconds.
        account: This account alone, None for all.
    """
    records = inbox.tokens()
    accepted = [record.token for record in records if record.state != "retired"]
    known = [record.token for record in records]
    seen = [
        entry for entry in inbox.journal("guard", account=account) if not _came_to_us(entry.document, accepted, known)
    ]
    settled = [
        JournalEntry(topic=entry.topic, at=entry.at, account=entry.account, document={"to": "in_order"})
        for entry in inbox.journal(TOPIC, account=account)
        if entry.document.get("outcome") == "done" and entry.document.get("after")
    ]
    return elsewhere_spans(sorted([*seen, *settled], key=lambda entry: entry.at), now)


def _came_to_us(document: dict[str, Any], accepted: Sequence[str], known: Sequence[str]) -> bool:
    """Tell whether callbacks came to us by the URL that stood: the desired one, with another token that is accepted."""
    registered, desired = document.get("registered"), document.get("desired")
    if not registered or not desired or not document.get("ours"):
        return False
    return any(old in registered and registered.replace(old, new) == desired for old in accepted for new in known)


def read_desired(accounts: Sequence[Account], inbox: Inbox | None, given: Sequence[Token] = ()) -> Desired:
    """Read what is desired now: a rotation changes it from one moment to the next.

    Args:
        accounts: All accounts of the settings file.
        inbox: The store, None where there is none.
        given: The tokens that the environment gives, in the place of the store's.
    """
    records = inbox.tokens() if inbox is not None else []
    history = History.of(inbox)
    targets = targets_of(accounts, records, given, store=inbox.url if inbox is not None else None)
    secrets = {record.token for record in records} | {token.secret for token in given}
    return Desired(tuple(targets), Ours(targets, secrets=secrets, written=history.written), history)
