"""``upcall login`` and ``upcall whoami``: the credentials, without showing them."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upcall.cli.calling import ConfigOption, settings_of
from upcall.cli.output import JsonOption, emit, line, log, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upcall.client import ThingSpaceClient
    from upcall.settings import Settings

__all__ = ["login", "whoami"]


def login(
    *,
    reset: Annotated[
        bool, typer.Option("--reset", help="Forget the refused logins first: do it once the password is right.")
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> int:
    """Fetch both tokens anew, to see that the credentials are right: the environment's, and the settings file's.

    A refused login is remembered and not sent again, because five in a row lock the account at the provider.
    """
    from upcall.errors import ThingSpaceError

    failed = 0
    with ExitStack() as stack:
        for name, client in _clients(settings_of(config), stack):
            if reset:
                client.reset_login_latch()
                log(f"upcall: the refused logins are forgotten{_of(name)}.")
            try:
                client.login(fresh=True)
            except ThingSpaceError as error:
                log(f"upcall: {error}{_of(name)}")
                failed += 1
                continue
            _accepted(client, name, json=json)
    return ThingSpaceError.exit_code if failed else 0


def whoami(*, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show which credentials are set and from where, which tokens live and until when, and how the latch stands."""
    settings = settings_of(config)
    with ExitStack() as stack:
        for name, client in _clients(settings, stack):
            document = _document(client, name, settings)
            if json:
                emit(document)
            else:
                _show(document)


def _clients(settings: Settings, stack: ExitStack) -> Iterator[tuple[str | None, ThingSpaceClient]]:
    """Make a client of the environment's credentials, and of each table that an account of the file asks for."""
    import upcall.client

    named = list(dict.fromkeys(account.credentials for account in settings.accounts if account.credentials))
    is_alone = not named or any(account.credentials is None for account in settings.accounts)
    for name in ([None] if is_alone else []) + named:
        client = upcall.client.ThingSpaceClient(credentials=settings.credentials_named(name), config=settings.path)
        yield name, stack.enter_context(client)


def _of(name: str | None) -> str:
    return f" (credentials {name})" if name else ""


def _accepted(client: ThingSpaceClient, name: str | None, *, json: bool) -> None:
    fixed = bool(client.credentials.session_token)
    if json:
        session = "given" if fixed else "issued"
        emit({"base_url": client.base_url, "credentials": name, "bearer": "issued", "session": session})
    elif fixed:
        line(f"{client.base_url} accepts the client id{_of(name)}. The session token was given and is not checked.")
    else:
        line(f"{client.base_url} accepts the client id and the login{_of(name)}.")


def _document(client: ThingSpaceClient, name: str | None, settings: Settings) -> dict[str, Any]:
    from upcall.settings import CREDENTIAL_FIELDS

    latch, credentials = client.login_latch(), client.credentials
    sources = dict(credentials.sources)
    return {
        "name": name,
        "base_url": client.base_url,
        "config": str(settings.path) if settings.path else None,
        "accounts": [account.name for account in settings.accounts if account.credentials == name],
        "credentials": {field: sources.get(field) for field in CREDENTIAL_FIELDS},
        "unset": [source for field, source in sources.items() if not getattr(credentials, field)],
        "missing": list(credentials.missing()),
        "tokens": [
            {"kind": token.kind, "origin": token.origin, "ends_at": _time(token.ends_at)}
            for token in client.token_states()
        ],
        "token_store": str(client.token_store) if client.token_store else None,
        "login_latch": {
            "latched": latch.latched,
            "refusals": latch.refusals,
            "unanswered": latch.unanswered,
            "reason": latch.reason,
            "path": latch.path,
        },
    }


def _show(document: dict[str, Any]) -> None:
    latch, store = document["login_latch"], document["token_store"]
    held = {token["kind"]: token for token in document["tokens"]}
    table(
        ("WHAT", "IS"),
        [
            ("base URL", document["base_url"]),
            ("settings file", document["config"] or "none"),
            *((("credentials", document["name"]),) if document["name"] else ()),
            *(
                (name, f"{source} (not set)" if source in document["unset"] else source or "not set")
                for name, source in document["credentials"].items()
            ),
            *((f"{kind} token", _told(held.get(kind))) for kind in ("bearer", "session")),
            ("token store", store or "off: UPCALL_TOKEN_STORE=1 keeps tokens between commands"),
            ("login latch", latch["reason"] if latch["latched"] else f"open, {latch['refusals']} refused"),
        ],
    )
    if document["missing"]:
        log(f"upcall: a call still needs {', '.join(document['missing'])}.")
    if latch["latched"]:
        log("upcall: once the password is right, run: upcall login --reset")


def _told(token: dict[str, Any] | None) -> str:
    if token is None:
        return "none held"
    return "given, and never replaced" if token["origin"] == "given" else f"lives until {token['ends_at']}"


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
