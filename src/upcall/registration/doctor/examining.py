"""The whole examination: this machine, the provider, each set of credentials, each URL and account."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

import upcall.client
from upcall.errors import SettingsError
from upcall.listener import Token
from upcall.registration.desired import select_targets
from upcall.registration.doctor.calling import Caller, ProviderSight, Signed
from upcall.registration.doctor.judging import account_form, of_sight, url_form
from upcall.registration.doctor.keeping import open_shelf
from upcall.registration.doctor.preflight import LOOKED_AT, Viewed, look_at_all
from upcall.registration.doctor.results import Chain, failed, ok, warning
from upcall.registration.doctor.shelving import last_callback, of_store
from upcall.registration.doctor.signing import of_credentials, of_provider, registered
from upcall.registration.doctor.tokens import of_token
from upcall.registration.reading import read_desired
from upcall.settings import Account, Settings
from upcall.settings.values import TOKEN_PLACEHOLDER

if TYPE_CHECKING:
    from upcall.client import EventHook, ThingSpaceClient
    from upcall.registration.desired import Target
    from upcall.registration.doctor.calling import MakeClient, Progress
    from upcall.registration.doctor.keeping import Shelf
    from upcall.registration.doctor.looking import Looker
    from upcall.registration.doctor.results import CheckResult, Finding
    from upcall.registration.doctor.sights import Sight

__all__ = ["Case", "examine"]

TIMEOUT_SECONDS: Final = 10.0
MAX_ELAPSED_SECONDS: Final = 20.0
"""How patient calls of the provider are: a run has an end."""
_NOT_ASKED: Final = "it was not asked"
_THEN_APPLY: Final = "Once there is one, see the difference: upcall plan. Make it so: upcall apply"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Say what is to be examined; `repr` shows no secret.

    Args:
        settings: What the environment and the settings file say, None where they cannot be used.
        settings_error: Why not.
        accounts: The accounts, none for all of the settings file.
        labels: Labels of which each account must carry one, none for any.
        url: The URL, or a template of it, in the place of the settings file's.
        store: The store's URL.
        is_store_named: Whether somebody named it, so that there should be one.
        spool: The spool's directory, None for the store's own.
        given: The tokens that the environment gives.
    """

    settings: Settings | None
    settings_error: str | None = None
    accounts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    url: str | None = None
    store: str
    is_store_named: bool = False
    spool: Path | None = None
    given: tuple[Token, ...] = ()

    def __repr__(self) -> str:
        return f"Case({len(self.accounts) or 'all'} accounts, store={self.store!r})"

    def listed(self) -> list[Account]:
        """Return the settings file's accounts, and behind them those that are named besides, with their URLs."""
        known = {account.name: account for account in (self.settings.accounts if self.settings is not None else ())}
        for name in self.accounts:
            account = known.get(name) or Account(name=name)
            known[name] = account if self.url is None else msgspec.structs.replace(account, url=self.url)
        return list(known.values())


def examine(
    case: Case,
    looker: Looker,
    *,
    make_client: MakeClient | None = None,
    max_concurrency: int = 8,
    progress: Progress | None = None,
) -> list[CheckResult]:
    """Examine everything between the provider and the store; nothing is written, here or there.

    Args:
        case: What is to be examined.
        looker: Looks at URLs from this machine, and tells the time.
        make_client: Makes a client by its credentials' name, with a hook; None makes what the settings say.
        max_concurrency: How many calls, and looks, at once.
        progress: Shows how far along it is.

    Returns:
        The results: those of this machine and the provider, then of each set of credentials, then of each account.

    Raises:
        SettingsError: The store's URL names no store.
    """
    now = round(looker.wall() * 1_000_000)
    with open_shelf(case.store, is_named=case.is_store_named, spool=case.spool, now=now) as shelf:
        examination = _Examination(case, looker, shelf, now)
        examination.call(make_client, max_concurrency=max_concurrency, progress=progress)
        examination.look(max_concurrency=max_concurrency, progress=progress)
        return examination.results()


class _Examination:
    """Hold what was seen so far."""

    def __init__(self, case: Case, looker: Looker, shelf: Shelf, now: int) -> None:
        self._case = case
        self._looker = looker
        self._shelf = shelf
        self._now = now
        desired = read_desired(case.listed(), shelf.inbox, case.given)
        self._ours = desired.ours
        self._targets = select_targets(desired.targets, accounts=case.accounts, labels=case.labels)
        self._forms = {target.account: account_form(target.account) for target in self._targets}
        self._names = tuple(dict.fromkeys(target.credentials for target in self._targets)) or (None,)
        self._settings = _settings(case)
        self._provider = ProviderSight(base_url="", error=_NOT_ASKED)
        self._views: dict[str, Viewed] = {}
        self._sights: dict[Viewed, Sight] = {}

    def call(self, make_client: MakeClient | None, *, max_concurrency: int, progress: Progress | None) -> None:
        """Ask the provider, where it is known who calls."""
        if self._case.settings is None:
            return
        caller = Caller(make_client or partial(_client, self._case.settings), wall=self._looker.wall)
        readable = {
            target.account: target.credentials
            for target in self._targets
            if self._forms[target.account].status != "failed"
        }
        try:
            self._provider = caller.ask(readable, self._names, max_concurrency=max_concurrency, progress=progress)
        except SettingsError as error:
            self._settings = failed(str(error))

    def look(self, *, max_concurrency: int, progress: Progress | None) -> None:
        """Look at the URLs whose form admits it."""
        if not self._settings.passes:
            return
        for target in self._targets:
            url = self._url(target)
            if url is not None and self._url_form(target).status == "ok":
                self._views[target.account] = Viewed.of(target, url)
        self._sights = look_at_all(
            self._views.values(),
            self._looker,
            local=self._provider.is_local,
            max_concurrency=max_concurrency,
            progress=progress,
        )

    def results(self) -> list[CheckResult]:
        """Judge what was seen."""
        machine = Chain()
        machine.take(
            {"settings": self._settings} | of_provider(self._provider) | of_store(self._shelf.sight, self._now)
        )
        results = [*machine.results]
        signed = {}
        for name in self._names:
            signed[name] = Chain(machine)
            signed[name].take(of_credentials(self._provider.signed.get(name, Signed())), credentials=name)
            results += signed[name].results
        for target in self._targets:
            chain = Chain(signed[target.credentials])
            chain.take(self._of_account(target), account=target.account, credentials=target.credentials)
            results += chain.results
        return results

    def _of_account(self, target: Target) -> dict[str, Finding]:
        account, now = target.account, self._now
        view = self._views.get(account)
        sight = self._sights.get(view) if view is not None else None
        findings = LOOKED_AT | {
            "account-form": self._forms[account],
            "url-form": self._url_form(target),
            "registered": registered(target, self._provider.standing.get(account), self._ours),
            "last-callback": last_callback(self._shelf.last_listed(account), now),
        }
        if view is not None and sight is not None:
            findings |= of_sight(sight, local=self._provider.is_local, now=now / 1_000_000)
            token = of_token(
                account, view.secrets, sight=sight, store=self._shelf.sight, given=self._case.given, now=now
            )
            # Whatever is wrong with it, its URL can be looked at.
            findings["tokens"] = msgspec.structs.replace(token, passes=True)
        elif target.url is None and target.template is not None:
            findings["tokens"] = failed(target.problem or "there is no token to fill in", _THEN_APPLY)
        return findings

    def _url(self, target: Target) -> str | None:
        """Return the URL that is looked at: the desired one, else, where none is desired, the one that stands."""
        if target.url is not None or target.template is not None:
            return target.url
        standing = self._provider.standing.get(target.account)
        return standing.url if standing is not None else None

    def _url_form(self, target: Target) -> Finding:
        settings = self._case.settings
        allow_http = self._provider.is_local or (settings is not None and bool(settings.allow_http))
        url = self._url(target)
        if url is None and target.template is not None:
            url = target.template.replace(TOKEN_PLACEHOLDER, "TOKEN")
        return url_form(target, url, allow_http=allow_http)


def _settings(case: Case) -> Finding:
    settings = case.settings
    if settings is None:
        return failed(case.settings_error or "the settings cannot be used")
    if settings.path is None:
        return ok("there is no settings file; the environment says who calls")
    if settings.problems:
        first = settings.problems[0]
        where = f"{settings.path}:{first.line}" if first.line is not None else f"{settings.path}"
        more = f" (and {len(settings.problems) - 1} more)" if len(settings.problems) > 1 else ""
        return failed(f"{where}: {first.text}{more}", first.hint or "", passes=True)
    if settings.alert_source and not settings.alert_url:
        return warning(
            f"[alerts] of {settings.path} names {settings.alert_source}, which holds nothing",
            f"Set {settings.alert_source} where the guard runs: until then its alerts are posted nowhere.",
        )
    count = len(settings.accounts)
    return ok(f"{settings.path}, {count} account{'' if count == 1 else 's'}")


def _client(settings: Settings, name: str | None, hook: EventHook) -> ThingSpaceClient:
    return upcall.client.ThingSpaceClient(
        credentials=settings.credentials_named(name),
        config=settings.path,
        event_hooks=(hook,),
        timeout_seconds=TIMEOUT_SECONDS,
        max_elapsed_seconds=MAX_ELAPSED_SECONDS,
        max_retries=1,
    )
