"""``upcall callbacks``: which URL receives an account's callbacks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from upcall.cli.calling import (
    AccountsArgument,
    AllOption,
    Book,
    ConcurrencyOption,
    ConfigOption,
    HttpOption,
    error_document,
    open_book,
)
from upcall.cli.history import history
from upcall.cli.output import JsonOption, StoreOption, emit, line, log, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upcall.client import AccountResult
    from upcall.thingspace import CallbackSummary

__all__ = ["app"]

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Read and write which URL receives an account's callbacks.")

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Where ThingSpace is to POST: https, reachable from outside.",
        show_default="the account's url in the settings file",
    ),
]

EXIT_NO = 1
EXIT_PROVIDER = 4


class _Outcome:
    """Gather what became of each account, and come to one exit code: a provider that fails weighs more than a no."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.code = 0

    def say(self, document: dict[str, Any], text: str | None) -> None:
        """Print what became of an account, as JSON or for a person."""
        if self.json:
            emit(document)
        elif text is not None:
            line(text)

    def wrote(self, account: str, url: str, before: str | None, **more: object) -> None:
        """Say which URL was written, and which one it displaced."""
        displaced = before if before != url else None
        place = f", in place of {displaced}" if displaced else ""
        self.say({"account": account, "url": url, **more, "displaced": displaced}, f"{account}  {url}{place}")

    def refuse(self, document: dict[str, Any], text: str) -> None:
        """Say that the answer is no."""
        log(f"upcall: {text}")
        self.say(document, None)
        self.code = self.code or EXIT_NO

    def fail(self, account: str, error: Any) -> None:
        """Say that the provider refused or did not answer."""
        log(f"upcall: {account}: {error}")
        self.say({"account": account, "error": error_document(error)}, None)
        self.code = EXIT_PROVIDER


@app.command(epilog="Such as: upcall callbacks show 0000123456-00001 0000123456-00002 --json")
def show(
    accounts: AccountsArgument = None,
    *,
    everything: AllOption = False,
    store: StoreOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
    max_concurrency: ConcurrencyOption = 8,
) -> int:
    """Show the registered URL of each account; one that fails does not stop the rest.

    Where the settings file gives an account a URL, it is also said whether that one is registered. Nothing is written.
    """
    outcome = _Outcome(json=json)
    rows = []
    with open_book(accounts, everything=everything, config=config, max_concurrency=max_concurrency) as book:
        wished = _Wished(book, store)
        for read in _read(book, book.accounts):
            if read.result is None:
                outcome.fail(read.account, read.error)
                continue
            url = read.result.url
            rows.append((read.account, url or "none registered", wished.word(read.account, url)))
            if json:
                emit({"account": read.account, "url": url, **wished.document(read.account, url)})
    if rows and not json:
        headers = ("ACCOUNT", "URL", "AS DESIRED")
        shown = len(headers) if any(word for *_, word in rows) else len(headers) - 1
        table(headers[:shown], [row[:shown] for row in rows])
    return outcome.code


@app.command(
    epilog="Such as: upcall callbacks register 0000123456-00001 --url https://fleet.example.com/callbacks/TOKEN"
)
def register(
    accounts: AccountsArgument = None,
    *,
    url: UrlOption = None,
    everything: AllOption = False,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of another URL.")] = False,
    allow_http: HttpOption = False,
    json: JsonOption = False,
    config: ConfigOption = None,
    max_concurrency: ConcurrencyOption = 8,
) -> int:
    """Register a URL for each account, unless another one is registered; read it back."""
    outcome = _Outcome(json=json)
    with open_book(
        accounts, everything=everything, config=config, max_concurrency=max_concurrency, allow_http=allow_http
    ) as book:
        urls = _urls(book, url)
        standing = _standing(book, outcome)
        wanted = []
        for account, stands in standing.items():
            if stands in {None, urls[account]} or replace:
                wanted.append(account)
                continue
            outcome.refuse(
                {"account": account, "url": stands, "registered": False},
                f"{stands} is registered for {account}, and was left alone. To take its place: --replace",
            )
        done = book.each(
            wanted, "registering", lambda client, name: client.callbacks.register_callback(name, {"url": urls[name]})
        )
        for account in _stands(book, done, urls, outcome):
            outcome.wrote(account, urls[account], standing[account], registered=True)
    return outcome.code


@app.command(epilog="Such as: upcall callbacks update --all --config fleet.toml")
def update(
    accounts: AccountsArgument = None,
    *,
    url: UrlOption = None,
    everything: AllOption = False,
    allow_http: HttpOption = False,
    json: JsonOption = False,
    config: ConfigOption = None,
    max_concurrency: ConcurrencyOption = 8,
) -> int:
    """Replace the registered URL of each account, print the one that it displaced, and read back."""
    outcome = _Outcome(json=json)
    with open_book(
        accounts, everything=everything, config=config, max_concurrency=max_concurrency, allow_http=allow_http
    ) as book:
        urls = _urls(book, url)
        standing = _standing(book, outcome)
        done = book.each(
            list(standing), "updating", lambda client, name: client.callbacks.update_callback(name, {"url": urls[name]})
        )
        for account in _stands(book, done, urls, outcome):
            outcome.wrote(account, urls[account], standing[account])
    return outcome.code


@app.command(epilog="Such as: upcall callbacks deregister 0000123456-00001 --yes")
def deregister(
    accounts: AccountsArgument = None,
    *,
    everything: AllOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
    max_concurrency: ConcurrencyOption = 8,
) -> int:
    """Remove the registered URL of each account; callbacks that are sent from then on are lost."""
    from upcall.errors import SettingsError, UpcallError

    if not yes and not sys.stdin.isatty():
        raise SettingsError("deregister asks first, and there is no terminal to ask on.", hint="To go ahead: --yes")
    outcome = _Outcome(json=json)
    with open_book(accounts, everything=everything, config=config, max_concurrency=max_concurrency) as book:
        standing = _standing(book, outcome)
        if standing and not yes and not _agrees(standing):
            kept = ", ".join(f"{url or 'nothing'} is registered for {name}" for name, url in standing.items())
            raise UpcallError(f"{kept}, and was left alone.")
        removed = book.each(
            list(standing), "deregistering", lambda client, name: client.callbacks.deregister_callback(name)
        )
        for end in removed:
            if end.result is None:
                outcome.fail(end.account, end.error)
                continue
            displaced = standing[end.account]
            document = {"account": end.account, "success": end.result.success, "displaced": displaced}
            if end.result.success:
                place = f", in place of {displaced}" if displaced else ""
                outcome.say(document, f"{end.account}  none registered{place}")
            else:
                outcome.refuse(document, f"ThingSpace says that it did not deregister {end.account}.")
    return outcome.code


class _Wished:
    """Compare what is registered with the settings file, for the accounts that it gives a URL."""

    def __init__(self, book: Book, store: str | None) -> None:
        from upcall.cli.desired import targets_of_file

        asked = any(book.url_of(account) is not None for account in book.accounts)
        self._targets = targets_of_file(book.settings, store) if asked else {}

    def document(self, account: str, url: str | None) -> dict[str, Any]:
        """Return the members that JSON has beside the rest."""
        target = self._targets.get(account)
        if target is None or target.template is None:
            return {}
        return {"desired": target.url, "in_order": self._is_in_order(account, url)}

    def word(self, account: str, url: str | None) -> str:
        """Return what stands in the table."""
        document = self.document(account, url)
        return {True: "yes", False: "no", None: "not known"}[document["in_order"]] if document else ""

    def _is_in_order(self, account: str, url: str | None) -> bool | None:
        from upcall.registration import in_order

        target = self._targets[account]
        return None if target.url is None else in_order(target, url)


app.command(epilog="Such as: upcall callbacks history 0000123456-00001 --since 7d")(history)


def _read(book: Book, accounts: Sequence[str]) -> list[AccountResult[CallbackSummary]]:
    return book.each(accounts, "reading", lambda client, name: client.callbacks.list_registered_callbacks(name))


def _standing(book: Book, outcome: _Outcome) -> dict[str, str | None]:
    """Read what is registered now; an account that cannot be read is not written."""
    standing = {}
    for read in _read(book, book.accounts):
        if read.result is None:
            outcome.fail(read.account, read.error)
        else:
            standing[read.account] = read.result.url
    return standing


def _stands(book: Book, done: list[AccountResult[Any]], urls: dict[str, str], outcome: _Outcome) -> list[str]:
    """Return the accounts that were written and whose URL, read back, stands."""
    for end in done:
        if end.error is not None:
            outcome.fail(end.account, end.error)
    stands = []
    for read in _read(book, [end.account for end in done if end.error is None]):
        wanted = urls[read.account]
        if read.result is None:
            outcome.fail(read.account, read.error)
        elif read.result.url == wanted:
            stands.append(read.account)
        else:
            now = read.result.url
            outcome.refuse(
                {"account": read.account, "url": now, "registered": False},
                f"{wanted} was written for {read.account}, but {now or 'nothing'} is registered."
                " Somebody else may be writing it too.",
            )
    return stands


def _urls(book: Book, url: str | None) -> dict[str, str]:
    """Return the URL that each account is to have, all checked before the first call."""
    from upcall.errors import SettingsError
    from upcall.settings.values import TOKEN_PLACEHOLDER
    from upcall.thingspace import check_callback_url

    urls = {}
    for account in book.accounts:
        wanted = url if url is not None else book.url_of(account)
        if wanted is None:
            raise SettingsError(
                f"There is no URL for {account}.", hint="Give --url, or the account's url in the settings file."
            )
        if TOKEN_PLACEHOLDER in wanted:
            raise SettingsError(
                f"The URL of {account} takes the listener's token, which is not filled in here.",
                hint="upcall apply fills it in; or give the whole URL with --url.",
            )
        try:
            urls[account] = check_callback_url(wanted, allow_http=book.allow_http)
        except ValueError as error:
            hint = "--allow-http admits http to this machine, for a sandbox." if _is_local_http(wanted) else None
            raise SettingsError(f"{error}.", hint=None if book.allow_http else hint) from None
    return urls


def _is_local_http(url: str) -> bool:
    from upcall.thingspace import is_loopback_host

    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and is_loopback_host(parts.hostname or "")
    except ValueError:
        return False


def _agrees(standing: dict[str, str | None]) -> bool:
    for account, url in standing.items():
        log(f"{account} has {url or 'nothing'} registered. Callbacks sent after it is removed are lost.")
    return typer.confirm("Remove it?" if len(standing) == 1 else "Remove them?", err=True)
