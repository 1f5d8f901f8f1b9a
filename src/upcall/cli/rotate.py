"""``upcall rotate``: take a new token into use while callbacks arrive."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from upcall.cli.calling import ConcurrencyOption, ConfigOption, HttpOption, interruptible
from upcall.cli.desired import EXIT_NO, EXIT_PROVIDER, Wanted, open_wanted
from upcall.cli.moments import parse_duration, words_of_count
from upcall.cli.output import JsonOption, StoreOption, emit, line, log
from upcall.cli.preflight import StrictOption, refused_by_preflight
from upcall.cli.selecting import now_micros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from upcall.cli.calling import Book
    from upcall.inbox import Inbox, TokenRecord
    from upcall.registration import Applied, Audit, Ours, Step, Target
    from upcall.registration.rotation import Rotated, Rotation

__all__ = ["rotate"]

_LEAVE_OUT: Final = "One that is no longer yours is left out with --without-account."


def rotate(
    *,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="How long the old token stays good, such as 30m.",
            show_default="15 minutes more than the delivery profile's longest ladder",
        ),
    ] = None,
    without_listener: Annotated[
        bool,
        typer.Option(
            "--without-listener", help="Go ahead where none runs: the next one that starts takes the new token."
        ),
    ] = False,
    without_account: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ACCOUNT",
            help="An account that is no longer yours: whether it has the old token registered is not asked.",
        ),
    ] = None,
    strict: StrictOption = False,
    store: StoreOption = None,
    config: ConfigOption = None,
    allow_http: HttpOption = False,
    json: JsonOption = False,
    max_concurrency: ConcurrencyOption = 8,
) -> int:
    """Take a new token into use: no callback is refused, and it can be interrupted and run again.

    A new token is accepted by every listener that runs, then each account's URL is changed at ThingSpace and read back,
    then the old token stays good for as long as callbacks may still come by it, and the listener retires it.
    """
    from upcall.registration import targets_of
    from upcall.registration.rotation import keep_seconds
    from upcall.registration.rotation import rotate as carried_out
    from upcall.settings import read_profile

    again = "Nothing is refused by that: both tokens are good. The same command goes on from there."
    with open_wanted(config, store) as wanted, interruptible(again):
        inbox = _store_of(wanted)
        settings = wanted.settings
        if keep is None:
            kept = keep_seconds(read_profile(settings.profile))
        else:
            kept = parse_duration(keep, option="--keep") / 1e6
        with wanted.book(max_concurrency=max_concurrency, allow_http=allow_http) as book:
            writer = _Writer(wanted, inbox, book, without=without_account or (), strict=strict, json=json)
            rotated = carried_out(
                inbox,
                partial(targets_of, settings.accounts),
                writer.point,
                keep=kept,
                now=now_micros,
                needs_listener=not without_listener,
            )
    _report(rotated, json=json)
    return writer.code or (EXIT_NO if rotated.retire_at is None else 0)


class _Writer:
    """Point the provider at new URLs, and say what became of each account."""

    def __init__(
        self, wanted: Wanted, inbox: Inbox, book: Book, *, without: Sequence[str], strict: bool, json: bool
    ) -> None:
        self._wanted = wanted
        self._inbox = inbox
        self._book = book
        self._without = frozenset(without)
        self._strict = strict
        self._json = json
        self.code = 0

    @contextlib.contextmanager
    def point(self, targets: Sequence[Target], rotations: Sequence[Rotation], listeners: int) -> Iterator[bool]:
        """Change the URL of every account that takes a token; tell whether no account still has an old one.

        Nobody else writes a registration until the caller is done.
        """
        from upcall.registration import Audit, read_desired, registration_lock

        _tell(rotations, listeners, json=self._json)
        rotating = {target.account: target for target in targets if target.tokens}
        olds = {old.token for rotation in rotations for old in rotation.olds}
        settings = self._wanted.settings
        permit = self._permitting(list(rotating.values()))
        with registration_lock(settings.state_dir, "rotate"):
            # Now, with the new tokens in the store: a slot that has one already is ours.
            ours = read_desired(settings.accounts, self._inbox).ours
            audit = Audit(self._inbox, "rotate", now=now_micros)
            ends = self._book.each(
                list(rotating),
                "rotating",
                lambda client, account: _carry_out(client, rotating[account], ours, audit, permit),
            )
            over = [self._is_over(end, olds) for end in ends]
            yield all(over) and self._nobody_else_has(olds, rotations, rotating)

    def _permitting(self, targets: Sequence[Target]) -> Callable[[Step], str | None]:
        """Look at the new URLs, and return what says why a write must not be made: nobody's place is taken."""
        from upcall.registration import Step

        steps = [Step(account=target.account, action="update", desired=target.url) for target in targets]
        allow_http = self._book.allow_http
        flawed = refused_by_preflight(self._wanted, steps, strict=self._strict, allow_http=allow_http)

        def permit(step: Step) -> str | None:
            if step.action == "replace":
                return "what is registered is not ours, and was left alone. To take its place: upcall apply --replace"
            return flawed.get(step.account)

        return permit

    def _nobody_else_has(self, olds: set[str], rotations: Sequence[Rotation], rotating: Mapping[str, Target]) -> bool:
        """Look at the other accounts that the tokens are for: one that has an old one registered would be refused."""
        from upcall.errors import SettingsError

        listed = [account.name for account in self._wanted.settings.accounts]
        owners = [account for rotation in rotations for account in rotation.following.accounts]
        others = [
            account for account in dict.fromkeys((*listed, *owners)) if account not in {*rotating, *self._without}
        ]
        for account, credentials in self._wanted.desired.gone().items():
            self._book.assign(account, credentials)
        is_clear = True
        try:
            ends = self._book.each(
                others, "looking", lambda client, account: client.callbacks.list_registered_callbacks(account)
            )
        except SettingsError as error:
            self.code = EXIT_PROVIDER
            log(
                f"upcall: whether {', '.join(others)} has the old token registered cannot be read: {error} {_LEAVE_OUT}"
            )
            return False
        for end in ends:
            if end.result is None:
                self.code = EXIT_PROVIDER
                log(f"upcall: {end.account}: whether it has the old token registered cannot be read: {end.error}")
                if end.account not in listed:
                    log(f"upcall: {_LEAVE_OUT}")
                is_clear = False
            elif _holds(end.result.url, olds):
                self.code = self.code or EXIT_NO
                log(
                    f"upcall: {end.account} has the old token registered, by a url that the settings file does not give"
                    " it. Write the url with {token} there, then type the same again."
                )
                is_clear = False
        return is_clear

    def _is_over(self, end: Any, olds: set[str]) -> bool:
        """Say what became of an account, and tell whether its old token may end."""
        if end.result is None:
            self.code = EXIT_PROVIDER
            log(f"upcall: {end.account}: {end.error}")
            self._say({"account": end.account, "outcome": "failed", "error": str(end.error)}, None)
            return False
        applied: Applied = end.result
        is_done = applied.outcome in {"none", "done"}
        self._say(
            {"account": end.account, "outcome": applied.outcome, "url": applied.stands, "why": applied.why},
            f"{end.account}  {applied.stands}" if is_done else None,
        )
        if is_done:
            return True
        self.code = self.code or EXIT_NO
        log(f"upcall: {end.account}: {applied.why}.".replace("..", "."))
        return not _holds(applied.stands, olds)

    def _say(self, document: dict[str, Any], text: str | None) -> None:
        if self._json:
            emit(document)
        elif text is not None:
            line(text)


def _holds(url: str | None, secrets: set[str]) -> bool:
    """Tell whether a URL has one of these tokens in it, wherever it leads to."""
    return url is not None and any(secret in url for secret in secrets)


def _carry_out(client: Any, target: Target, ours: Ours, audit: Audit, permit: Any) -> Applied:
    from upcall.registration import carry_out, drive, step_of

    return drive(carry_out(target.account, partial(step_of, target, ours=ours), permit, audit), client)


def _store_of(wanted: Wanted) -> Inbox:
    """Return the store whose tokens are rotated.

    Raises:
        SettingsError: Tokens are given, to this process or to a listener that runs, and are not the store's; or there
            is no store.
    """
    from upcall.errors import SettingsError
    from upcall.registration import living

    by_hand = "Put NEW,OLD there, restart each listener, upcall apply, and take OLD out half an hour later."
    if wanted.given:
        raise SettingsError("The tokens are given by UPCALL_TOKENS, which no command can change.", hint=by_hand)
    if wanted.inbox is None:
        raise SettingsError(
            "There is no store, and so no token to rotate.", hint="Name the listener's with --store, or UPCALL_STORE."
        )
    for uptime in living(wanted.inbox.uptimes(), now_micros()):
        if uptime.given:
            raise SettingsError(
                f"The listener at {uptime.url or uptime.listener} was given its tokens and takes none of the store's.",
                hint=by_hand,
            )
    return wanted.inbox


def _tell(rotations: Sequence[Rotation], listeners: int, *, json: bool) -> None:
    if not listeners:
        log("upcall: no listener runs on this store: the next one that starts accepts the new token.")
    for rotation in rotations:
        again = ", which an earlier run began with," if rotation.resumed else ""
        accounts = _accounts_of(rotation.following)
        if json:
            document = {"token_id": rotation.id, "accounts": list(rotation.following.accounts) or None}
            emit({**document, "listeners": listeners, "resumed": rotation.resumed})
        else:
            line(f"token {rotation.id}{again} for {accounts} is accepted by {words_of_count(listeners, 'listener')}")


def _report(rotated: Rotated, *, json: bool) -> None:
    from upcall.thingspace import text_of_micros

    until = None if rotated.retire_at is None else text_of_micros(rotated.retire_at)
    if json:
        emit({"done": until is not None, "old_accepted_until": until})
    elif until is None:
        log("upcall: the rotation is not done, and the old token stays good. Type the same again.")
    else:
        line(f"the old token is accepted until {until}; the listener retires it by itself")
        for rotation in rotated.rotations:
            if not rotation.following.accounts:
                log(
                    "upcall: the token is for every account: one that the settings file does not list keeps the old URL"
                    " and is refused from then on."
                )


def _accounts_of(record: TokenRecord) -> str:
    return ", ".join(record.accounts) or "every account"
