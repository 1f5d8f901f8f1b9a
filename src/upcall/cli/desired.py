"""What commands share that compare what is registered with what should be."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from upcall.cli.calling import Book, check_listed, error_document, settings_of
from upcall.cli.moments import words_of_count
from upcall.cli.output import emit, log, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from upcall.inbox import Inbox
    from upcall.listener import Token
    from upcall.registration import Desired, Standing, Step, Target
    from upcall.settings import Settings

__all__ = [
    "EXIT_NO",
    "EXIT_PROVIDER",
    "LabelOption",
    "ListedArgument",
    "PruneOption",
    "Wanted",
    "counted",
    "open_wanted",
    "read_standing",
    "say_unknown",
    "show_steps",
    "step_document",
    "targets_of_file",
]

EXIT_NO: Final = 1
EXIT_PROVIDER: Final = 4

ListedArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="ACCOUNT…", help="Accounts of the settings file.", show_default="all of them"),
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option("--label", help="Only accounts with this label; may be given several times."),
]
PruneOption = Annotated[
    bool,
    typer.Option(
        "--prune", help="Also take accounts that the file no longer lists: deregistered where the URL is ours."
    ),
]


class Wanted:
    """Hold what one command is about: the settings, the store, and the accounts that it takes.

    Args:
        settings: What the environment and the settings file say.
        inbox: The store, None where there is none.
        given: The tokens that the environment gives.
        desired: What is desired of all accounts.
        targets: What is desired of those that the command takes.
        pruned: The accounts to deregister, each with its credentials' name.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        inbox: Inbox | None,
        given: Sequence[Token],
        desired: Desired,
        targets: Sequence[Target],
        pruned: Mapping[str, str | None],
    ) -> None:
        self.settings: Settings = settings
        self.inbox: Inbox | None = inbox
        self.given: tuple[Token, ...] = tuple(given)
        self.desired: Desired = desired
        self.targets: tuple[Target, ...] = tuple(targets)
        self.pruned: dict[str, str | None] = dict(pruned)

    @property
    def accounts(self) -> tuple[str, ...]:
        """Return the accounts to read, those to deregister last."""
        return (*(target.account for target in self.targets), *self.pruned)

    def labels_of(self, account: str) -> tuple[str, ...]:
        """Return an account's labels."""
        return next((target.labels for target in self.targets if target.account == account), ())

    @contextlib.contextmanager
    def book(self, *, max_concurrency: int, allow_http: bool = False) -> Iterator[Book]:
        """Open what calls the provider for these accounts."""
        book = Book(self.settings, self.accounts, max_concurrency=max_concurrency, allow_http=allow_http)
        for account, credentials in self.pruned.items():
            book.assign(account, credentials)
        try:
            yield book
        finally:
            book.close()


@contextlib.contextmanager
def open_wanted(
    config: str | None,
    store: str | None,
    *,
    accounts: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    prune: bool = False,
    create: bool = False,
) -> Iterator[Wanted]:
    """Read what is desired, of the accounts that a command takes.

    Args:
        config: The settings file, None to look for it.
        store: The store, None for the default; one that is not there is done without, unless it is named.
        accounts: The accounts to take, none for all.
        labels: Labels of which each must carry one, none for any.
        prune: Whether accounts that are no longer listed are taken too.
        create: Make the store where there is none.

    Raises:
        SettingsError: The file lists no accounts, or not those that are named; or pruning is asked for beside a choice.
        StoreError: The store cannot be used.
    """
    from upcall.cli.tokens import given_tokens
    from upcall.errors import SettingsError
    from upcall.registration import read_desired, select_targets

    settings = settings_of(config)
    _check_choice(settings, accounts or (), labels or ())
    if prune and (accounts or labels):
        raise SettingsError(
            "--prune looks at all accounts, and a choice of them is given.", hint="Leave out either of them."
        )
    given = given_tokens((), ())
    with _opened(store, create=create) as inbox:
        desired = read_desired(settings.accounts, inbox, given)
        targets = select_targets(desired.targets, accounts=accounts or (), labels=labels or ())
        yield Wanted(
            settings=settings,
            inbox=inbox,
            given=given,
            desired=desired,
            targets=targets,
            pruned=desired.gone() if prune else {},
        )


def targets_of_file(settings: Settings, store: str | None) -> dict[str, Target]:
    """Return what each account of the settings file should have registered, for a command that only shows it.

    Without a store, or with one that cannot be read, a URL that takes a token cannot be made.

    Args:
        settings: What the environment and the settings file say.
        store: The store, None for the default.

    Raises:
        SettingsError: The tokens that the environment gives cannot be used.
    """
    from upcall.cli.tokens import given_tokens
    from upcall.errors import StoreError
    from upcall.registration import read_desired

    given = given_tokens((), ())
    try:
        with _opened(store, create=False) as inbox:
            targets = read_desired(settings.accounts, inbox, given).targets
    except StoreError as error:
        log(f"upcall: {error}")
        log("upcall: URLs with a token are not compared.")
        targets = read_desired(settings.accounts, None, given).targets
    return {target.account: target for target in targets}


def read_standing(book: Book, accounts: Sequence[str]) -> tuple[dict[str, Standing], dict[str, Any]]:
    """Read what is registered for accounts, so many at once, with one progress bar.

    Returns:
        What stands for each, and the errors of those that could not be read.
    """
    from upcall.registration import Standing

    read = book.each(accounts, "reading", lambda client, name: client.callbacks.list_registered_callbacks(name))
    standing = {
        end.account: Standing(account=end.account, error=str(end.error))
        if end.result is None
        else Standing(account=end.account, url=end.result.url)
        for end in read
    }
    return standing, {end.account: end.error for end in read if end.error is not None}


def step_document(step: Step, labels: Iterable[str] = (), error: object = None) -> dict[str, Any]:
    """Return what is said of a step in JSON.

    Args:
        step: The step.
        labels: The account's labels.
        error: Why it could not be read, as a document.
    """
    return {
        "account": step.account,
        "action": step.action,
        "registered": step.registered,
        "desired": step.desired,
        "ours": step.ours,
        "differs": step.differs,
        "note": step.note,
        "error": error,
        "credentials": step.credentials,
        "labels": list(labels),
    }


def say_unknown(steps: Sequence[Step], errors: Mapping[str, Any]) -> int:
    """Say on stderr why steps are not known, and return the exit code that they ask for."""
    code = 0
    for step in steps:
        if step.action == "unknown":
            log(f"upcall: {step.account}: {errors.get(step.account) or step.note}")
            code = max(code, EXIT_PROVIDER if step.error is not None else EXIT_NO)
    return code


def show_steps(steps: Sequence[Step], wanted: Wanted, errors: Mapping[str, Any], *, json: bool) -> None:
    """Print what differs: a table for a person, a line an account in JSON.

    Args:
        steps: What is to be done.
        wanted: What the command is about.
        errors: Why accounts could not be read.
        json: Print JSON.
    """
    if json:
        for step in steps:
            error = errors.get(step.account)
            emit(step_document(step, wanted.labels_of(step.account), error and error_document(error)))
        return
    rows = [
        (step.account, step.action, step.registered or _nothing(step), step.desired or "-", step.note or "")
        for step in steps
        if step.differs or step.note
    ]
    if rows:
        table(("ACCOUNT", "ACTION", "REGISTERED", "DESIRED", "NOTE"), rows)


def counted(steps: Sequence[Step]) -> str:
    """Say how many accounts there are, and how many of them are in order."""
    well = sum(not step.differs for step in steps)
    if well == len(steps):
        return f"{words_of_count(len(steps), 'account')}, all in order."
    return f"{well} of {words_of_count(len(steps), 'account')} in order."


def _nothing(step: Step) -> str:
    return "not known" if step.error is not None else "none registered"


def _check_choice(settings: Settings, accounts: Sequence[str], labels: Sequence[str]) -> None:
    from upcall.errors import SettingsError

    if not settings.accounts:
        where = f"{settings.path} lists none" if settings.path else "there is no upcall.toml here"
        raise SettingsError(
            f"What should be registered stands in the [[accounts]] tables of the settings file, and {where}.",
            hint='Give each account one, with name = "…" and url = "…" (docs/settings.md).'
            if settings.path
            else "Try: --config FILE",
        )
    check_listed(settings, accounts)
    known = {label for account in settings.accounts for label in account.labels}
    for label in labels:
        if label not in known:
            there = f"its labels are {', '.join(sorted(known))}" if known else "it has none"
            raise SettingsError(f"No account in {settings.path} has the label {label}: {there}.")


@contextlib.contextmanager
def _opened(store: str | None, *, create: bool) -> Iterator[Inbox | None]:
    """Open the store; where nobody named one and there is none, go without."""
    from upcall.inbox import open_inbox, store_version
    from upcall.settings import default_store

    url = store or default_store()
    if store is None and store_version(url) is None:
        if not create:
            yield None
            return
        log(f"upcall: there is no store at {url}, and a new one is made.")
    # One that somebody names is there: a mistyped path would be a store that no listener uses.
    with open_inbox(url, create=create and store is None) as inbox:
        yield inbox
