"""Read what is desired: the settings file's accounts, the store's tokens, what the audit says was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from upcall.registration.audit import History
from upcall.registration.desired import Ours, Target, targets_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upcall.inbox import Inbox
    from upcall.listener import Token
    from upcall.settings import Account

__all__ = ["Desired", "read_desired"]


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
