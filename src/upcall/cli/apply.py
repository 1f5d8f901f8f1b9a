"""``upcall apply``: make what is registered what should be."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upcall.cli.calling import ConcurrencyOption, ConfigOption, HttpOption, error_document, interruptible
from upcall.cli.desired import (
    EXIT_NO,
    EXIT_PROVIDER,
    LabelOption,
    ListedArgument,
    PruneOption,
    counted,
    open_wanted,
    read_standing,
    show_steps,
    step_document,
)
from upcall.cli.output import JsonOption, StoreOption, emit, line, log
from upcall.cli.preflight import StrictOption, refused_by_preflight
from upcall.cli.selecting import now_micros

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from upcall.cli.calling import Book
    from upcall.cli.desired import Wanted
    from upcall.client import AccountResult
    from upcall.registration import Applied, Standing, Step

__all__ = ["apply"]


def apply(
    accounts: ListedArgument = None,
    *,
    label: LabelOption = None,
    prune: PruneOption = False,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of URLs that are not ours.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    strict: StrictOption = False,
    allow_http: HttpOption = False,
    store: StoreOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
    max_concurrency: ConcurrencyOption = 8,
) -> int:
    """Register what the settings file says: show the plan, ask, write each account, read it back.

    A URL that is not ours is left alone without --replace. One account that fails leaves the rest done, and running it
    again does what is left. Each write is kept in the store's audit.
    """
    from upcall.errors import SettingsError, UpcallError
    from upcall.registration import plan as plan_of

    if not yes and not sys.stdin.isatty():
        raise SettingsError("apply asks first, and there is no terminal to ask on.", hint="To go ahead: --yes")
    with (
        open_wanted(config, store, accounts=accounts, labels=label, prune=prune, create=True) as wanted,
        wanted.book(max_concurrency=max_concurrency, allow_http=allow_http) as book,
    ):
        standing, errors = read_standing(book, wanted.accounts)
        steps = plan_of(wanted.targets, standing, wanted.desired.ours, pruned=wanted.pruned)
        wished = [step for step in steps if replace or step.action != "replace"]
        flawed = refused_by_preflight(wanted, wished, strict=strict, allow_http=book.allow_http)
        permit = _permit(flawed, replace=replace)
        if not json:
            show_steps(steps, wanted, errors, json=False)
        written = [step for step in steps if step.is_write and permit(step) is None]
        if written and not yes and not _agrees(written):
            raise UpcallError("Nothing was written.")
        report = _Report(wanted, errors, json=json)
        ends = _write(wanted, book, {step.account: step.desired for step in written}, permit)
        for step in steps:
            report.tell(step, ends.get(step.account), permit)
    log(f"upcall: {counted(steps) if not written else report.line()}")
    return report.code


def _permit(flawed: Mapping[str, str], *, replace: bool) -> Callable[[Step], str | None]:
    """Return what says why a write must not be made."""
    from upcall.redact import mask_url_token

    def permit(step: Step) -> str | None:
        if step.action == "replace" and not replace:
            stands = mask_url_token(step.registered or "")
            return f"{stands} is registered and is not ours, so it was left alone. To take its place: --replace"
        return flawed.get(step.account)

    return permit


def _agrees(written: Sequence[Step]) -> bool:
    counts = Counter(step.action for step in written)
    what = ", ".join(f"{action} {count}" for action, count in counts.items())
    return typer.confirm(f"{what[0].upper()}{what[1:]}?", err=True)


def _write(
    wanted: Wanted, book: Book, shown: Mapping[str, str | None], permit: Callable[[Step], str | None]
) -> dict[str, AccountResult[Applied]]:
    """Write accounts, each one in the audit; no other writer of this machine is at it meanwhile.

    Args:
        wanted: What the command is about.
        book: Calls the provider.
        shown: The accounts to write, each with the URL that was shown.
        permit: Says why a write must not be made.
    """
    from upcall.registration import Audit, carry_out, decision, drive, read_desired, registration_lock

    if not shown:
        return {}
    assert wanted.inbox is not None
    audit = Audit(wanted.inbox, "apply", now=now_micros)

    def permitted(step: Step) -> str | None:
        if step.desired != shown[step.account]:
            return "what should be registered has changed since the plan was shown: type the same again"
        return permit(step)

    again = "What was written: upcall callbacks history. The same command does what is left."
    with interruptible(again), registration_lock(wanted.settings.state_dir, "apply"):
        # Anew: while somebody read the plan, or we waited for the lock, a token may have been rotated.
        desired = read_desired(wanted.settings.accounts, wanted.inbox, wanted.given)
        decide: Callable[[Standing], Step] = decision(desired.targets, desired.ours, pruned=wanted.pruned)
        ends = book.each(
            list(shown), "applying", lambda client, name: drive(carry_out(name, decide, permitted, audit), client)
        )
    return {end.account: end for end in ends}


class _Report:
    """Tell what became of each account, and come to one exit code: a provider that fails weighs more than a no."""

    def __init__(self, wanted: Wanted, errors: Mapping[str, Any], *, json: bool) -> None:
        self._wanted = wanted
        self._errors = errors
        self._json = json
        self._counts: Counter[str] = Counter()
        self.code = 0

    def tell(self, step: Step, end: AccountResult[Applied] | None, permit: Callable[[Step], str | None]) -> None:
        """Tell of one account: as it was planned, or as it ended where it was written."""
        error: Any = self._errors.get(step.account)
        stands, outcome, why = step.registered, "none", None
        if end is not None and end.result is not None:
            step, outcome, stands, why = end.result.step, end.result.outcome, end.result.stands, end.result.why
        elif end is not None:
            error, outcome, stands = end.error, "failed", None
        elif step.error is not None:
            outcome = "failed"
        elif step.differs:
            outcome, why = "refused", permit(step) or step.note
        self._say(step, outcome, stands, error, why)

    def line(self) -> str:
        """Say how many accounts ended how."""
        return f"{', '.join(f'{count} {outcome}' for outcome, count in self._counts.items())}."

    def _say(self, step: Step, outcome: str, stands: str | None, error: Any, why: str | None) -> None:
        self._counts["in order" if outcome == "none" else outcome] += 1
        if error is not None:
            log(f"upcall: {step.account}: {error}")
            self.code = EXIT_PROVIDER
        elif why is not None:
            log(f"upcall: {step.account}: {why}")
            self.code = self.code or EXIT_NO
        if self._json:
            said = error_document(error) if error is not None else why and {"kind": outcome, "message": why}
            document = step_document(step, self._wanted.labels_of(step.account), said)
            emit(document | {"outcome": outcome, "stands": stands})
        elif outcome == "done":
            place = f", in place of {step.registered}" if step.registered else ""
            line(f"{step.account}  {stands or 'none registered'}{place}")
