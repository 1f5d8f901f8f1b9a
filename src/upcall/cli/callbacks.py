"""``upcall callbacks``: which URL receives an account's callbacks."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upcall.cli.output import JsonOption, emit, line, log, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upcall.client import ThingSpaceClient

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Read and write which URL receives an account's callbacks.")

AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Such as 0000123456-00001.")]
UrlOption = Annotated[str, typer.Option("--url", help="Where ThingSpace is to POST: https, reachable from outside.")]
HttpOption = Annotated[bool, typer.Option("--allow-http", help="Admit http to this machine, for a sandbox.")]

EXIT_NO = 1
EXIT_PROVIDER = 4


@app.command()
def show(
    accounts: Annotated[list[str], typer.Argument(metavar="ACCOUNT…", help="Such as 0000123456-00001.")],
    *,
    json: JsonOption = False,
) -> int:
    """Show the registered URL of each account; one that fails does not stop the rest."""
    from upcall.errors import ThingSpaceError
    from upcall.thingspace import check_account

    rows: list[tuple[str, str]] = []
    failed = 0
    with _client() as client, _usage_errors():
        for account in accounts:
            check_account(account)
        for account in accounts:
            try:
                url = client.callbacks.list_registered_callbacks(account).url
            except ThingSpaceError as error:
                failed += 1
                log(f"upcall: {account}: {error}")
                if json:
                    emit({"account": account, "error": _error_document(error)})
                continue
            rows.append((account, url or "none registered"))
            if json:
                emit({"account": account, "url": url})
    if rows and not json:
        table(("ACCOUNT", "URL"), rows)
    return EXIT_PROVIDER if failed else 0


@app.command()
def register(
    account: AccountArgument,
    *,
    url: UrlOption,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of another URL.")] = False,
    allow_http: HttpOption = False,
    json: JsonOption = False,
) -> None:
    """Register a URL, unless another one is registered; read it back."""
    from upcall.errors import UpcallError

    with _client(allow_http=allow_http) as client, _usage_errors():
        _check(account, url, allow_http=allow_http)
        standing = client.callbacks.list_registered_callbacks(account).url
        if standing not in {None, url} and not replace:
            if json:
                emit({"account": account, "url": standing, "registered": False})
            raise UpcallError(
                f"{standing} is registered for {account}, and was left alone.", hint="To take its place: --replace"
            )
        client.callbacks.register_callback(account, {"url": url})
        _read_back(client, account, url)
    displaced = standing if standing != url else None
    if json:
        emit({"account": account, "url": url, "registered": True, "displaced": displaced})
    else:
        _say_written(account, url, displaced)


@app.command()
def update(
    account: AccountArgument, *, url: UrlOption, allow_http: HttpOption = False, json: JsonOption = False
) -> None:
    """Replace the registered URL, print the one that it displaced, and read back."""
    with _client(allow_http=allow_http) as client, _usage_errors():
        _check(account, url, allow_http=allow_http)
        standing = client.callbacks.list_registered_callbacks(account).url
        client.callbacks.update_callback(account, {"url": url})
        _read_back(client, account, url)
    displaced = standing if standing != url else None
    if json:
        emit({"account": account, "url": url, "displaced": displaced})
    else:
        _say_written(account, url, displaced)


@app.command()
def deregister(
    account: AccountArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Remove the registered URL; callbacks that are sent from then on are lost."""
    from upcall.errors import SettingsError, UpcallError

    if not yes and not sys.stdin.isatty():
        raise SettingsError("deregister asks first, and there is no terminal to ask on.", hint="To go ahead: --yes")
    with _client() as client, _usage_errors():
        standing = client.callbacks.list_registered_callbacks(account).url
        if not yes and not _agrees(account, standing):
            raise UpcallError(f"{standing or 'nothing'} is registered for {account}, and was left alone.")
        result = client.callbacks.deregister_callback(account)
    if json:
        emit({"account": account, "success": result.success, "displaced": standing})
    if not result.success:
        raise UpcallError(f"ThingSpace says that it did not deregister {account}.")
    if not json:
        line(f"{account}  none registered" + (f", in place of {standing}" if standing else ""))


@contextlib.contextmanager
def _client(*, allow_http: bool = False) -> Iterator[ThingSpaceClient]:
    from upcall.client import ThingSpaceClient

    with ThingSpaceClient(allow_http=allow_http) as client:
        yield client


@contextlib.contextmanager
def _usage_errors() -> Iterator[None]:
    """Turn what a local check refuses into an error of usage."""
    from upcall.errors import SettingsError

    try:
        yield
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{error}.") from None


def _check(account: str, url: str, *, allow_http: bool) -> None:
    """Check everything before the first call."""
    from upcall.thingspace import check_account, check_callback_url

    check_account(account)
    check_callback_url(url, allow_http=allow_http)


def _read_back(client: ThingSpaceClient, account: str, url: str) -> None:
    from upcall.errors import UpcallError

    now = client.callbacks.list_registered_callbacks(account).url
    if now != url:
        raise UpcallError(
            f"{url} was written for {account}, but {now or 'nothing'} is registered.",
            hint="Somebody else may be writing it too.",
        )


def _say_written(account: str, url: str, displaced: str | None) -> None:
    line(f"{account}  {url}" + (f", in place of {displaced}" if displaced else ""))


def _agrees(account: str, standing: str | None) -> bool:
    log(f"{account} has {standing or 'nothing'} registered. Callbacks sent after it is removed are lost.")
    return typer.confirm("Remove it?", err=True)


def _error_document(error: Any) -> dict[str, Any]:
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "status_code": error.status_code,
        "error_code": error.error_code,
    }
