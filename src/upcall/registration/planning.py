"""From what should be registered and what is, to what is to be done. Pure: nothing is read or written here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from upcall.redact import mask_url_token
from upcall.registration.desired import Ours, Target, in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["ROTATING", "Action", "Standing", "Step", "decision", "plan", "step_of"]

Action = Literal["none", "register", "update", "replace", "deregister", "unknown"]
"""What is to be done: ``none`` where all is in order, ``register`` where nothing stands, ``update`` where an older URL
of ours does, ``replace`` where somebody else's does, ``deregister`` where the account is no longer listed, ``unknown``
where it could not be read or there is no URL to be made."""

ROTATING: Final = "rotation under way: it has the next token already"
"""What is said of a URL whose token is about to become the live one."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Say what is registered for an account now; `repr` shows no token.

    Args:
        account: The account.
        url: The registered URL, None for none.
        error: Why it could not be read, None where it was.
    """

    account: str
    url: str | None = None
    error: str | None = None

    def __repr__(self) -> str:
        return f"Standing({self.account!r}, {mask_url_token(self.url) if self.url else None!r}, error={self.error!r})"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Say what is to be done for one account; `repr` shows no token.

    Args:
        account: The account.
        action: What is to be done, see `Action`.
        registered: The URL that stands now, None for none.
        desired: The URL that should stand, None for none.
        ours: Whether the one that stands is ours.
        note: What else a person should know.
        error: Why it could not be read.
        credentials: Which ``[credentials.…]`` table calls for it.
    """

    account: str
    action: Action
    registered: str | None = None
    desired: str | None = None
    ours: bool = False
    note: str | None = None
    error: str | None = None
    credentials: str | None = None

    def __repr__(self) -> str:
        return f"Step({self.account!r}, {self.action!r}, ours={self.ours!r}, note={self.note!r}, error={self.error!r})"

    @property
    def differs(self) -> bool:
        """Return whether what stands is not what should, as far as it is known."""
        return self.action != "none"

    @property
    def is_write(self) -> bool:
        """Return whether something is to be written."""
        return self.action not in {"none", "unknown"}


def plan(
    targets: Sequence[Target],
    standing: Mapping[str, Standing],
    ours: Ours,
    *,
    pruned: Mapping[str, str | None] | None = None,
) -> list[Step]:
    """Return a step for each account, those that are no longer listed last.

    Args:
        targets: What each account should have registered.
        standing: What each has; an account that is missing was not read.
        ours: Tells whose a URL is.
        pruned: The accounts to deregister, each with its credentials' name.
    """
    step = decision(targets, ours, pruned=pruned)
    accounts = (*(target.account for target in targets), *(pruned or {}))
    return [step(_of(standing, account)) for account in accounts]


def decision(
    targets: Sequence[Target], ours: Ours, *, pruned: Mapping[str, str | None] | None = None
) -> Callable[[Standing], Step]:
    """Return what decides about one account, each time that it is read.

    Args:
        targets: What each account should have registered.
        ours: Tells whose a URL is.
        pruned: The accounts to deregister, each with its credentials' name.
    """
    wanted = {target.account: target for target in targets}
    gone = dict(pruned or {})

    def step(standing: Standing) -> Step:
        if (target := wanted.get(standing.account)) is not None:
            return step_of(target, standing, ours)
        return _prune_step(standing, ours, gone[standing.account])

    return step


def step_of(target: Target, standing: Standing, ours: Ours) -> Step:
    """Return what is to be done for one account."""
    step = Step(
        account=target.account,
        action="none",
        registered=standing.url,
        desired=target.url,
        ours=ours.owns(target.account, standing.url),
        credentials=target.credentials,
    )
    if standing.error is not None:
        return msgspec.structs.replace(step, action="unknown", error=standing.error)
    if target.url is None:
        # An account that is only listed wants nothing; one whose URL cannot be made wants what nobody can say.
        action: Action = "unknown" if target.template is not None else "none"
        return msgspec.structs.replace(step, action=action, note=target.problem)
    if in_order(target, standing.url):
        return msgspec.structs.replace(step, note=None if standing.url == target.url else ROTATING)
    if standing.url is None:
        return msgspec.structs.replace(step, action="register")
    return msgspec.structs.replace(step, action="update" if step.ours else "replace", note=_owner_note(step))


def _prune_step(standing: Standing, ours: Ours, credentials: str | None) -> Step:
    """Return what is to be done for an account that the file no longer lists: only what is ours is removed."""
    step = Step(
        account=standing.account,
        action="none",
        registered=standing.url,
        ours=ours.owns(standing.account, standing.url),
        note="no longer listed",
        credentials=credentials,
    )
    if standing.error is not None:
        return msgspec.structs.replace(step, action="unknown", error=standing.error)
    if standing.url is None:
        return msgspec.structs.replace(step, note="no longer listed, and nothing is registered")
    if not step.ours:
        return msgspec.structs.replace(step, note="no longer listed; what is registered is not ours, and stays")
    return msgspec.structs.replace(step, action="deregister")


def _owner_note(step: Step) -> str | None:
    return None if step.ours else "not ours"


def _of(standing: Mapping[str, Standing], account: str) -> Standing:
    return standing.get(account) or Standing(account=account, error="it was not read")
