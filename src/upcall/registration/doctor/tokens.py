"""Whether the token of a URL is one that a listener accepts. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from upcall.listener import Token
from upcall.registration.doctor.results import Finding, failed, ok, skipped, warning
from upcall.registration.outages import living
from upcall.settings.values import TOKEN_PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upcall.inbox import TokenRecord
    from upcall.registration.desired import Target
    from upcall.registration.doctor.keeping import StoreSight
    from upcall.registration.doctor.sights import Sight

__all__ = ["of_token", "secrets_of"]

_ELSEWHERE: Final = "the listener knows it, and this machine's store does not"
_SEE_TOKENS: Final = "Put a URL with a live token there: upcall plan, then upcall apply"


def secrets_of(target: Target, url: str) -> tuple[str, ...]:
    """Return what may be the token in a URL: the one that was filled in, else the last part of its path.

    Args:
        target: What the account should have registered.
        url: The URL.
    """
    if target.template is not None and TOKEN_PLACEHOLDER in target.template:
        filled = tuple(each for each in target.tokens if target.template.replace(TOKEN_PLACEHOLDER, each) == url)
        if filled:
            return filled
    last = unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
    return (last,) if last else ()


def of_token(
    account: str,
    secrets: Sequence[str],
    *,
    sight: Sight | None,
    store: StoreSight,
    given: Sequence[Token],
    now: int,
) -> Finding:
    """Judge whether the token of a URL is one that a listener accepts, and for this account.

    A listener that proves that it knows the token is believed; without that, what is known here decides.

    Args:
        account: The account.
        secrets: What may be its URL's token.
        sight: What was seen of the URL, None where it was not looked at.
        store: What was seen of the store.
        given: The tokens that the environment gives.
        now: The time, UTC microseconds.
    """
    if not secrets:
        return skipped("the URL's path holds no token")
    own = [token for token in given if token.secret in secrets]
    if own and own[0].accounts and account not in own[0].accounts:
        return failed(
            f"it was given for {', '.join(sorted(own[0].accounts))}, so callbacks of {account} are put in quarantine",
            f"Give {account}=TOKEN beside it in UPCALL_TOKENS, or a token that names no account.",
        )
    record = next((record for record in store.tokens if record.token in secrets), None)
    if sight is not None and sight.reply is not None and sight.reply.is_proved:
        return _proved(record, is_known=bool(own) or record is not None or not store.tokens)
    if record is not None and record.state == "retired":
        return failed("it is retired, and no listener of this store accepts it", _SEE_TOKENS)
    return _unproved({Token(secret).id for secret in secrets}, store, given, now)


def _proved(record: TokenRecord | None, *, is_known: bool) -> Finding:
    if record is not None and record.state == "retiring":
        return warning("it is about to be retired: an older URL is in use", _SEE_TOKENS)
    if not is_known:
        return warning(_ELSEWHERE, "Look with the store of the listener that answers there: upcall doctor --store URL")
    return ok("the listener proved that it knows it")


def _unproved(ids: set[str], store: StoreSight, given: Sequence[Token], now: int) -> Finding:
    if accepting := living(store.uptimes, now):
        if all(ids.isdisjoint(uptime.tokens) for uptime in accepting):
            return failed("the listener of this store accepts other tokens", _SEE_TOKENS)
        return ok("a listener of this store accepts it")
    kept = {Token(record.token).id for record in store.tokens if record.state != "retired"}
    known = kept | {token.id for token in given}
    if not known:
        return skipped("no token is known here to compare it with")
    if ids & known:
        return ok("it is one of those that are known here")
    return failed("it is none of those that are known here", _SEE_TOKENS)
