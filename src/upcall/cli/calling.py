"""What the commands that call the provider share: whose accounts, by which credentials, how far along."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from upcall.cli.output import error_console, log, progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from upcall.client import AccountResult, ThingSpaceClient
    from upcall.settings import Settings

__all__ = [
    "AccountsArgument",
    "AllOption",
    "Book",
    "ConcurrencyOption",
    "ConfigOption",
    "HttpOption",
    "error_document",
    "interruptible",
    "open_book",
    "progress",
    "settings_of",
    "usage_errors",
]

T = TypeVar("T")

_FOUND = "upcall.toml"

AccountsArgument = Annotated[list[str] | None, typer.Argument(metavar="ACCOUNT…", help="Such as 0000123456-00001.")]
AllOption = Annotated[bool, typer.Option("--all", help="Take every account of the settings file.")]
ConfigOption = Annotated[
    str | None,
    typer.Option("--config", help="The settings file.", show_default="UPCALL_CONFIG, else upcall.toml here"),
]
ConcurrencyOption = Annotated[int, typer.Option("--max-concurrency", min=1, max=64, help="How many calls at once.")]
HttpOption = Annotated[bool, typer.Option("--allow-http", help="Admit http to this machine, for a sandbox.")]


class Book:
    """Hold the accounts of one command, and a client for each set of credentials among them.

    Args:
        settings: What the environment and the settings file say.
        accounts: The accounts, in order.
        max_concurrency: How many calls at once.
        allow_http: Admit http callback URLs to loopback, whatever the settings say.
    """

    def __init__(self, settings: Settings, accounts: Sequence[str], *, max_concurrency: int, allow_http: bool) -> None:
        self._known = {account.name: account for account in settings.accounts}
        self.settings: Settings = settings
        self._clients: dict[str | None, ThingSpaceClient] = {}
        self._max_concurrency = max_concurrency
        self.allow_http: bool = allow_http or bool(settings.allow_http)
        self.accounts: tuple[str, ...] = tuple(accounts)

    def url_of(self, account: str) -> str | None:
        """Return the URL that the settings file gives an account."""
        known = self._known.get(account)
        return known.url if known is not None else None

    def assign(self, account: str, credentials: str | None) -> None:
        """Say who calls for an account that the settings file does not list.

        Args:
            account: The account.
            credentials: Which ``[credentials.…]`` table; where there is no such table, the default calls.
        """
        from upcall.settings import Account

        named = credentials if credentials in self.settings.credentials_by_name else None
        self._known.setdefault(account, Account(name=account, credentials=named))

    def each(
        self, accounts: Sequence[str], what: str, call: Callable[[ThingSpaceClient, str], T]
    ) -> list[AccountResult[T]]:
        """Make a call for each account, so many at once, and show how far along it is.

        Args:
            accounts: For which accounts.
            what: What is done, for the progress bar.
            call: Makes the call of one account.

        Returns:
            A result an account, in order.
        """
        from upcall.client.many import run_many

        work = [(account, partial(call, self.client_of(account), account)) for account in accounts]
        with progress(what, len(work)) as on_result:
            return run_many(
                work, max_concurrency=self._max_concurrency, on_result=on_result, caller_of=self._credentials_of
            )

    def client_of(self, account: str) -> ThingSpaceClient:
        """Return who calls for an account; it is closed with the book."""
        import upcall.client
        from upcall.errors import SettingsError

        name = self._credentials_of(account)
        if account not in self._known and self._known and self.settings.credentials.missing():
            raise SettingsError(
                f"The settings file {self.settings.path} does not list the account {account}, and the environment"
                " gives no credentials for others.",
                hint="Correct the account, add it to the file, or set THINGSPACE_CLIENT_ID and so on.",
            )
        if name not in self._clients:
            self._clients[name] = upcall.client.ThingSpaceClient(
                credentials=self.settings.credentials_named(name),
                allow_http=self.allow_http,
                config=self.settings.path,
            )
        return self._clients[name]

    def close(self) -> None:
        """Close the clients."""
        for client in self._clients.values():
            client.close()

    def _credentials_of(self, account: str) -> str | None:
        known = self._known.get(account)
        return known.credentials if known is not None else None


@contextlib.contextmanager
def open_book(
    accounts: Sequence[str] | None,
    *,
    everything: bool,
    config: str | None,
    max_concurrency: int = 8,
    allow_http: bool = False,
) -> Iterator[Book]:
    """Open the book of the accounts that a command names, or of all that the settings file does.

    Raises:
        SettingsError: No account is named, or one that cannot be.
    """
    from upcall.errors import SettingsError
    from upcall.thingspace import check_account

    settings = settings_of(config)
    if everything and accounts:
        raise SettingsError("Accounts and --all are both given.", hint="Give one of them.")
    if everything and not settings.accounts:
        where = f"{settings.path} names none" if settings.path else f"there is no {_FOUND} here"
        raise SettingsError(f"--all takes the accounts of the settings file, and {where}.", hint="Try: --config FILE")
    named = [account.name for account in settings.accounts] if everything else list(dict.fromkeys(accounts or ()))
    if not named:
        raise SettingsError("No account is given.", hint="Name one or more, or give --all.")
    with usage_errors():
        for account in named:
            check_account(account)
    book = Book(settings, named, max_concurrency=max_concurrency, allow_http=allow_http)
    try:
        yield book
    finally:
        book.close()


def settings_of(config: str | None, *, lenient: bool = False) -> Settings:
    """Read the settings: of the file that is named, else of the one that lies here.

    Args:
        config: The file, None to look for it.
        lenient: Take what can be used, and tell the rest in `Settings.problems`.
    """
    from upcall.settings import config_path, read_settings

    found = Path(_FOUND)
    if config is None and config_path() is None and found.exists():
        config = str(found)
    return read_settings(config=config, lenient=lenient)


def check_listed(settings: Settings, accounts: Sequence[str]) -> None:
    """Check that the settings file lists accounts.

    Raises:
        SettingsError: It does not list one of them.
    """
    from upcall.errors import SettingsError

    names = {account.name for account in settings.accounts}
    for name in accounts:
        if name not in names:
            raise SettingsError(
                f"The settings file {settings.path} does not list the account {name}.", hint="Correct it, or add it."
            )


def error_document(error: Any) -> dict[str, Any]:
    """Return what is said in JSON of an account's failure."""
    return {
        "kind": type(error).__name__,
        "message": str(error),
        **{name: getattr(error, name, None) for name in ("status_code", "error_code", "request_id")},
    }


@contextlib.contextmanager
def interruptible(text: str) -> Iterator[None]:
    """Say what to type after an interruption."""
    try:
        yield
    except KeyboardInterrupt:
        log(f"upcall: interrupted. {text}")
        raise


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Turn what a local check refuses into an error of usage."""
    from upcall.errors import SettingsError

    try:
        yield
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{error}.") from None


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[Any], None] | None]:
    """Show a bar on a terminal, where there is more than one thing to wait for."""
    console = error_console()
    if not console.is_terminal or total <= 1:
        yield None
        return
    with progress_bar(console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda _: bar.advance(task)
