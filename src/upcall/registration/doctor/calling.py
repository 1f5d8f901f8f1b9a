"""Asking the provider: is it there, does it take the credentials, what is registered, what time has it."""

from __future__ import annotations

import contextlib
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from upcall.client.many import run_many
from upcall.errors import CredentialsError, SettingsError, ThingSpaceError
from upcall.registration.planning import Standing
from upcall.thingspace import is_loopback_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from upcall.client import CallEvent, EventHook, ThingSpaceClient
    from upcall.client.many import OnResult

    MakeClient = Callable[[str | None, EventHook], ThingSpaceClient]
    Progress = Callable[[str, int], AbstractContextManager[OnResult | None]]

__all__ = ["Caller", "ProviderSight", "Signed", "shown_to_nobody"]

_GATEWAY: Final = "9009"
"""How the codes begin by which the gateway refuses a bearer token."""


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """Say how the provider took one set of credentials; no secret is in it.

    Args:
        missing: The variables without which nothing was sent.
        error: Why the tokens were not to be had, None where they were.
        hint: What to do about it, empty where nothing in particular.
        is_refusal: Whether the provider refused the credentials, or did before.
        is_bearer: Whether it was the bearer token that was refused.
        is_given: Whether the session token was given, so that only a call shows whether it is good.
        given_refused: Why a call was refused where it was given.
        proved: Whether a call was made with these tokens.
    """

    missing: tuple[str, ...] = ()
    error: str | None = None
    hint: str = ""
    is_refusal: bool = False
    is_bearer: bool = False
    is_given: bool = False
    given_refused: str | None = None
    proved: bool = False


class ProviderSight(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what asking the provider came to; `repr` shows no token.

    Args:
        base_url: Its root.
        is_sandbox: Whether it says that it is a sandbox.
        error: Why it was not reached, None where it was.
        clocks: What time it said it was, and what time it was here then, in seconds since 1970.
        signed: By the credentials' names, how it took them.
        standing: By account what is registered; accounts that were not read are missing.
    """

    base_url: str
    is_sandbox: bool = False
    error: str | None = None
    clocks: tuple[tuple[float, float], ...] = ()
    signed: dict[str | None, Signed] = msgspec.field(default_factory=dict)
    standing: dict[str, Standing] = msgspec.field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Return whether it is on this machine, and so a sandbox."""
        return is_loopback_host(urlsplit(self.base_url).hostname or "")


class Caller:
    """Call the provider with each set of credentials, once each to log in.

    Args:
        make_client: Makes a client by the credentials' name, with a hook.
        wall: Returns the time, in seconds since 1970.
    """

    def __init__(self, make_client: MakeClient, *, wall: Callable[[], float]) -> None:
        self._make_client = make_client
        self._wall = wall
        self._clocks: list[tuple[float, float]] = []

    def ask(
        self,
        accounts: Mapping[str, str | None],
        names: Sequence[str | None] = (None,),
        *,
        max_concurrency: int,
        progress: Progress | None = None,
    ) -> ProviderSight:
        """Ask whether it is there, log in, and read what is registered.

        Args:
            accounts: The accounts to read, each with its credentials' name.
            names: The names of the credentials, one at least, those of the accounts among them.
            max_concurrency: How many calls at once.
            progress: Shows how far along the reading is.

        Raises:
            SettingsError: No client can be made at all.
        """
        with contextlib.ExitStack() as stack:
            clients, signed = self._clients(names, stack)
            first = next(iter(clients.values()))
            try:
                is_sandbox = first.sandbox_banner() is not None
            except ThingSpaceError as error:
                said = str(error).replace(f"{error.operation} ", "a first question ", 1)
                return ProviderSight(base_url=first.base_url, error=said)
            signed |= {name: _sign(client) for name, client in clients.items()}
            readable = [
                (account, partial(clients[name].callbacks.list_registered_callbacks, account))
                for account, name in accounts.items()
                if signed[name].error is None and not signed[name].missing
            ]
            with (progress or shown_to_nobody)("reading", len(readable)) as on_result:
                read = run_many(
                    readable, max_concurrency=max_concurrency, on_result=on_result, caller_of=accounts.__getitem__
                )
        standing = {}
        for end in read:
            name = accounts[end.account]
            signed[name] = _after_reading(signed[name], end.error)
            url = end.result.url if end.result is not None else None
            standing[end.account] = Standing(
                account=end.account, url=url, error=str(end.error) if end.error is not None else None
            )
        return ProviderSight(
            base_url=first.base_url,
            is_sandbox=is_sandbox,
            clocks=tuple(self._clocks),
            signed=signed,
            standing=standing,
        )

    def _clients(
        self, names: Sequence[str | None], stack: contextlib.ExitStack
    ) -> tuple[dict[str | None, ThingSpaceClient], dict[str | None, Signed]]:
        """Make a client for each set of credentials; one that cannot be used is refused as the provider would."""
        clients: dict[str | None, ThingSpaceClient] = {}
        refused: dict[str | None, Signed] = {}
        for name in names:
            try:
                clients[name] = stack.enter_context(self._make_client(name, self._note_time))
            except SettingsError as error:
                refused[name] = Signed(error=str(error), hint=error.hint or "", is_refusal=True, is_bearer=True)
                if len(refused) == len(names):
                    raise
        return clients, refused

    def _note_time(self, event: CallEvent) -> None:
        said = event.headers.get("date") if event.kind == "answered" else None
        if said:
            with contextlib.suppress(ValueError, TypeError):
                self._clocks.append((parsedate_to_datetime(said).timestamp(), self._wall()))


def _sign(client: ThingSpaceClient) -> Signed:
    """Log in, unless tokens are held or the latch forbids it."""
    credentials = client.credentials
    is_given = bool(credentials.session_token)
    if missing := credentials.missing():
        return Signed(missing=missing, is_given=is_given)
    try:
        client.login()
    except SettingsError as error:
        return Signed(error=str(error), hint=error.hint or "", is_refusal=True, is_bearer=True, is_given=is_given)
    except ThingSpaceError as error:
        return Signed(
            error=str(error),
            hint=error.hint or "",
            is_refusal=isinstance(error, CredentialsError),
            is_bearer=error.operation != "login" or (error.error_code or "").startswith(_GATEWAY),
            is_given=is_given,
        )
    return Signed(is_given=is_given)


def _after_reading(signed: Signed, error: Exception | None) -> Signed:
    """Note what a call says of a session token that was given."""
    if error is None:
        return msgspec.structs.replace(signed, proved=True)
    if signed.is_given and isinstance(error, CredentialsError):
        return msgspec.structs.replace(signed, given_refused=str(error), hint=error.hint or "")
    return signed


@contextlib.contextmanager
def shown_to_nobody(_what: str, _total: int) -> Iterator[OnResult | None]:
    """Show nothing."""
    yield None
