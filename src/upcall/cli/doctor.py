"""``upcall doctor``: everything between the provider and the store, checked, with what to do where something fails."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path  # noqa: TC003 - Typer reads it off the signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upcall.cli.calling import AccountsArgument, AllOption, ConcurrencyOption, ConfigOption, progress, settings_of
from upcall.cli.output import JsonOption, StoreOption, emit, line, log

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from upcall.listener import Token
    from upcall.registration.doctor import Case, CheckResult

__all__ = ["doctor"]

EXIT_NO = 1
_SHOWN_ACCOUNTS = 5
_INDENT = " " * 30
_OF_CREDENTIALS = frozenset({"bearer", "session"})
_WORDS = {"ok": "ok", "failed": "FAILED", "warning": "WARNING", "skipped": "skipped", "unknown": "unknown"}


def doctor(
    accounts: AccountsArgument = None,
    *,
    everything: AllOption = False,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="Only accounts with this label; may be given several times.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help="The URL to look at.", show_default="the settings file's, else what is registered"),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 on warnings too.")] = False,
    trust: Annotated[
        Path | None,
        typer.Option("--trust", metavar="PEM", help="An authority to believe beside the public ones, for a sandbox."),
    ] = None,
    store: StoreOption = None,
    spool: Annotated[
        Path | None,
        typer.Option("--spool", metavar="DIR", help="The spool.", show_default="the store's, in the state directory"),
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
    max_concurrency: ConcurrencyOption = 8,
) -> int:
    """Check everything between ThingSpace and the store; say of each check what was found, why it matters, what to do.

    Without an account it takes all of the settings file. Nothing is written, and no callback is sent: the listener is
    asked for a proof that it knows the URL's token. One fault is one failure: what rests on it is skipped. Exit 1 where
    a check failed.
    """
    from upcall.registration.doctor import Looker, examine

    case = _case(
        accounts or (), everything=everything, labels=label or (), url=url, store=store, spool=spool, config=config
    )
    results = examine(case, Looker(trust=trust), max_concurrency=max_concurrency, progress=progress)
    if json:
        for result in results:
            emit(_document(result))
    else:
        _show(results)
    _sum_up(results)
    bad = {"failed", "warning"} if strict else {"failed"}
    return EXIT_NO if any(result.status in bad for result in results) else 0


def _case(
    accounts: Sequence[str],
    *,
    everything: bool,
    labels: Sequence[str],
    url: str | None,
    store: str | None,
    spool: Path | None,
    config: str | None,
) -> Case:
    """Say what is to be examined; settings that cannot be used are the first finding, and no error."""
    from upcall.cli.tokens import given_tokens
    from upcall.errors import SettingsError
    from upcall.registration.doctor import Case
    from upcall.settings import default_store

    if everything and accounts:
        raise SettingsError("Accounts and --all are both given.", hint="Give one of them.")
    if url is not None and not accounts:
        raise SettingsError("--url is given, and no account that it is for.", hint="Name the account before it.")
    settings, error = None, None
    given: Sequence[Token] = ()
    try:
        given = given_tokens((), ())
        settings = settings_of(config, lenient=True)
    except SettingsError as raised:
        settings, error = None, str(raised)
    if settings is not None:
        _check_labels(labels, {known for account in settings.accounts for known in account.labels})
    return Case(
        settings=settings,
        settings_error=error,
        accounts=tuple(dict.fromkeys(accounts)),
        labels=tuple(labels),
        url=url,
        store=store or default_store(),
        is_store_named=bool(store or os.environ.get("UPCALL_STORE")),
        spool=spool,
        given=tuple(given),
    )


def _check_labels(labels: Sequence[str], known: set[str]) -> None:
    from upcall.errors import SettingsError

    for label in labels:
        if label not in known:
            there = f"the labels are {', '.join(sorted(known))}" if known else "there are no labels"
            raise SettingsError(f"No account has the label {label}: {there}.")


def _document(result: CheckResult) -> dict[str, Any]:
    import msgspec

    return msgspec.structs.asdict(result)


def _show(results: Sequence[CheckResult]) -> None:
    for number, (title, group) in enumerate(_groups(results)):
        if number:
            line("")
        line(title)
        for result in group:
            line(f"  {_WORDS[result.status]:8} {result.name:18} {result.found}")
            if result.status in {"failed", "warning"}:
                line(f"{_INDENT}why: {result.why}")
                line(f"{_INDENT}do:  {result.todo}")


def _groups(results: Sequence[CheckResult]) -> Iterator[tuple[str, Sequence[CheckResult]]]:
    """Return results with a title: this machine's, those of credentials, those of accounts, equal ones together."""
    machine = [result for result in results if result.account is None and result.name not in _OF_CREDENTIALS]
    if machine:
        yield "this machine and ThingSpace", machine
    signed = [result for result in results if result.account is None and result.name in _OF_CREDENTIALS]
    for name in dict.fromkeys(result.credentials for result in signed):
        yield f"credentials {name or 'of the environment'}", [each for each in signed if each.credentials == name]
    alike: dict[tuple[tuple[str, str, str], ...], list[str]] = {}
    of_account = {
        account: [result for result in results if result.account == account]
        for account in dict.fromkeys(result.account for result in results)
        if account is not None
    }
    for account, own in of_account.items():
        alike.setdefault(tuple((each.name, each.status, each.found) for each in own), []).append(account)
    for accounts in alike.values():
        yield _named(accounts), of_account[accounts[0]]


def _named(accounts: Sequence[str]) -> str:
    more = f" and {len(accounts) - _SHOWN_ACCOUNTS} more" if len(accounts) > _SHOWN_ACCOUNTS else ""
    return f"account{'' if len(accounts) == 1 else 's'} {', '.join(accounts[:_SHOWN_ACCOUNTS])}{more}"


def _sum_up(results: Iterable[CheckResult]) -> None:
    counts: Counter[str] = Counter(result.status for result in results)
    words = ", ".join(f"{counts[status]} {status}" for status in _WORDS if counts[status])
    log(f"upcall: {counts.total()} checks: {words}.")
