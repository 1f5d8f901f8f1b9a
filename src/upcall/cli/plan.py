"""``upcall plan``: what differs between what is registered and what should be."""

from __future__ import annotations

from upcall.cli.calling import ConcurrencyOption, ConfigOption  # noqa: TC001 - Typer reads them off the signature
from upcall.cli.desired import (
    EXIT_NO,
    LabelOption,
    ListedArgument,
    PruneOption,
    counted,
    open_wanted,
    read_standing,
    say_unknown,
    show_steps,
)
from upcall.cli.output import JsonOption, StoreOption, log

__all__ = ["plan"]


def plan(
    accounts: ListedArgument = None,
    *,
    label: LabelOption = None,
    prune: PruneOption = False,
    store: StoreOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
    max_concurrency: ConcurrencyOption = 8,
) -> int:
    """Compare what is registered with the settings file, and show what differs; nothing is written.

    Actions: register (nothing stands), update (an older URL of ours does), replace (a URL that is not ours does),
    deregister (no longer listed), unknown (not read, or no token for its URL), none. Exits 1 when anything differs, 4
    when an account could not be read.
    """
    from upcall.registration import plan as plan_of

    with (
        open_wanted(config, store, accounts=accounts, labels=label, prune=prune) as wanted,
        wanted.book(max_concurrency=max_concurrency) as book,
    ):
        standing, errors = read_standing(book, wanted.accounts)
        steps = plan_of(wanted.targets, standing, wanted.desired.ours, pruned=wanted.pruned)
        show_steps(steps, wanted, errors, json=json)
    code = say_unknown(steps, errors)
    log(f"upcall: {counted(steps)}")
    return code or (EXIT_NO if any(step.differs for step in steps) else 0)
