"""What ``upcall listen`` does: the store, the tokens, the user's module, the server."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from upcall.app import WorkerThread, load_app
from upcall.cli.logs import configure_logging
from upcall.errors import SettingsError, StoreError
from upcall.inbox import TokenRecord, open_inbox
from upcall.listener import Gate, ListenerApp, ListenerStats, Token, generate_token, parse_tokens
from upcall.listener.server import bind, serve, url_of
from upcall.redact import mask_token
from upcall.settings import default_store
from upcall.thingspace import check_account

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from upcall.inbox import Inbox

__all__ = ["run_listener"]

PROJECTION_PAUSE_SECONDS = 0.2
PROJECTION_BATCH = 100

_log = logging.getLogger("upcall.listener")


def run_listener(
    *,
    module: str | None,
    host: str,
    port: int,
    store: str | None,
    accounts: Sequence[str],
    tokens: Sequence[str],
    mask: bool,
    on_ready: Callable[[str], None],
    log: Callable[[str], None],
) -> None:
    """Open the store, bind the socket, and serve until a signal ends it.

    Args:
        module: ``module:app`` whose handlers run in this process, None for none.
        host: The address.
        port: The port, 0 for a free one.
        store: The store's URL, None for the default.
        accounts: The accounts that tokens belong to, none for all.
        tokens: Tokens as given on the command line.
        mask: Hide the token in the ready line.
        on_ready: Called with the callback URL once requests are accepted.
        log: Prints a line for a person.

    Raises:
        UpcallError: The store, the port, a token or the module is not usable.
    """
    configure_logging(logging.INFO)
    url = store or default_store()
    # The module first: a mistake in it should leave no store and no open port behind.
    handlers = load_app(module) if module else None
    with open_inbox(url, create=True) as inbox:
        gate = Gate(live_tokens(inbox, tokens, accounts))
        listening = bind(host, port)
        app = ListenerApp(inbox, gate)

        def announce() -> None:
            secret = gate.tokens[0].secret
            on_ready(f"{url_of(listening)}/callbacks/{mask_token(secret) if mask else secret}")

        log(f"upcall: keeping callbacks in {inbox.url}")
        worker = WorkerThread(handlers, inbox.url) if handlers else None
        if worker is not None:
            worker.start()
        try:
            serve(app, listening, on_ready=announce, while_running=lambda: _project(inbox, app))
        finally:
            if worker is not None:
                worker.stop()
            log(f"upcall: {_account_for(app.stats)}")


def _account_for(stats: ListenerStats) -> str:
    """Say in one line what the listener did since it started."""
    return (
        f"acknowledged {stats.acknowledged} (new {stats.new}, in quarantine {stats.quarantined}); refused"
        f" {stats.unknown_token} with a wrong token, {stats.too_large} too large, {stats.not_stored} not stored;"
        f" {stats.cut_short} cut short by their sender"
    )


def live_tokens(inbox: Inbox, texts: Sequence[str], accounts: Sequence[str]) -> list[Token]:
    """Return the tokens to accept: given, else from the environment, else this store's own."""
    try:
        owners = tuple(check_account(account) for account in accounts)
    except ValueError as error:
        raise SettingsError(f"{error}.") from None
    given = list(texts) or _environment_tokens()
    if given:
        return parse_tokens(given, owners)
    kept = [record for record in inbox.tokens() if set(record.accounts) == set(owners)]
    if not kept:
        kept = [TokenRecord(generate_token(), owners)]
        inbox.add_token(kept[0], time.time_ns() // 1000)
    return [Token(record.token, frozenset(record.accounts)) for record in kept]


def _environment_tokens() -> list[str]:
    text = os.environ.get("UPCALL_TOKENS", "")
    path = os.environ.get("UPCALL_TOKENS_FILE")
    if not text and path:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"UPCALL_TOKENS_FILE names {path}, which cannot be read: {error}.", hint="Correct the path or unset it."
            ) from None
    return text.replace(",", " ").split()


async def _project(inbox: Inbox, app: ListenerApp) -> None:
    """Bring the read model forward in small steps while no request waits; whoever looks catches up the rest."""
    while True:
        taken = 0
        if app.is_idle:
            try:
                # In a thread: where another process holds the store's write lock, requests go on being read.
                taken = await asyncio.to_thread(inbox.project, limit=PROJECTION_BATCH)
            except StoreError as error:
                _log.warning("the read model waits: %s", error)
        await asyncio.sleep(0 if taken else PROJECTION_PAUSE_SECONDS)
