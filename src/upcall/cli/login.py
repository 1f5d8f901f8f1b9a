"""``upcall login`` and ``upcall whoami``: the credentials, without showing them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upcall.cli.output import JsonOption, emit, line, log, table

if TYPE_CHECKING:
    from upcall.client import ThingSpaceClient

__all__ = ["login", "whoami"]


def login(
    *,
    reset: Annotated[
        bool, typer.Option("--reset", help="Forget the refused logins first: do it once the password is right.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Fetch both tokens once, to see that the credentials are right.

    A refused login is remembered and not sent again, because five in a row lock the account at the provider.
    """
    from upcall.client import ThingSpaceClient

    with ThingSpaceClient() as client:
        if reset:
            client.reset_login_latch()
            log("upcall: the refused logins are forgotten.")
        client.login()
        fixed = bool(client.credentials.session_token)
    if json:
        emit({"base_url": client.base_url, "bearer": "issued", "session": "given" if fixed else "issued"})
    elif fixed:
        line(f"{client.base_url} accepts the client id. The session token was given and is not checked by this.")
    else:
        line(f"{client.base_url} accepts the client id and the login.")


def whoami(*, json: JsonOption = False) -> None:
    """Show which credentials are set and where they come from, the base URL, and how the login latch stands."""
    from upcall.client import ThingSpaceClient

    with ThingSpaceClient() as client:
        document = _document(client)
    if json:
        emit(document)
        return
    latch = document["login_latch"]
    table(
        ("WHAT", "IS"),
        [
            ("base URL", document["base_url"]),
            *((name, source or "not set") for name, source in document["credentials"].items()),
            ("login latch", latch["reason"] if latch["latched"] else f"open, {latch['refusals']} refused"),
        ],
    )
    if document["missing"]:
        log(f"upcall: a call still needs {', '.join(document['missing'])}.")
    if latch["latched"]:
        log("upcall: once the password is right, run: upcall login --reset")


def _document(client: ThingSpaceClient) -> dict[str, Any]:
    from upcall.settings import credential_sources

    state = client.login_latch()
    return {
        "base_url": client.base_url,
        "credentials": credential_sources(os.environ),
        "missing": list(client.credentials.missing()),
        "login_latch": {
            "latched": state.latched,
            "refusals": state.refusals,
            "reason": state.reason,
            "path": state.path,
        },
    }
