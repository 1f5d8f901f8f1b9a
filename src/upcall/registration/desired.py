"""What each account should have registered, and whose a URL is that stands there. Pure: nothing is read here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from upcall.inbox import TokenRecord
from upcall.redact import mask_url_token
from upcall.settings.values import TOKEN_PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from upcall.listener import Token
    from upcall.settings import Account

__all__ = ["Ours", "Target", "in_order", "select_targets", "targets_of"]

_WITHOUT_URL: Final = "the settings file gives no url for it"
_NOT_GIVEN: Final = "none of the tokens that are given is this account's: add ACCOUNT=TOKEN to UPCALL_TOKENS"
_NOT_KEPT: Final = (
    "{where}: start `upcall listen --config FILE` once, which keeps one in its store; name"
    " the listener's store with --store, or give UPCALL_TOKENS"
)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Say what one account should have registered; `repr` shows no token.

    Args:
        account: The account.
        url: The whole URL, its token filled in; None where there is none to be made.
        template: The URL as the settings file gives it, None where it gives none.
        credentials: Which ``[credentials.…]`` table calls for it, None for the environment's.
        labels: What the settings file calls it besides.
        tokens: The secrets that fit its template, those that are live first, then those that come next. Empty where
            the template takes none.
        next_urls: Whole URLs with a token that comes next: where a rotation is under way they are in order too.
        problem: Why there is no URL, and what to do; None where there is one.
    """

    account: str
    url: str | None = None
    template: str | None = None
    credentials: str | None = None
    labels: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    next_urls: tuple[str, ...] = ()
    problem: str | None = None

    def __repr__(self) -> str:
        url = mask_url_token(self.url) if self.url else None
        return f"Target(account={self.account!r}, url={url!r}, problem={self.problem!r})"


def targets_of(
    accounts: Sequence[Account],
    tokens: Sequence[TokenRecord] = (),
    given: Sequence[Token] = (),
    *,
    store: str | None = None,
) -> list[Target]:
    """Return what each account should have registered, in the settings file's order.

    Args:
        accounts: All accounts of the settings file: which tokens a listener takes depends on all of them.
        tokens: The tokens that the store generated, in any state.
        given: The tokens that the environment gives, the wanted one first. Where there are any, they stand in the
            place of the store's, as they do for a listener.
        store: The store's URL, for what is said where a token is missing; None where there is no store.
    """
    names = frozenset(account.name for account in accounts)
    usable = [_of_given(token) for token in given] or _accepted(tokens, names)
    where = f"{store} holds no token that fits its url" if store else "there is no store, and so no token for its url"
    missing = _NOT_GIVEN if given else _NOT_KEPT.format(where=where)
    return [_target(account, usable, missing, strict=bool(given)) for account in accounts]


def select_targets(
    targets: Sequence[Target], *, accounts: Collection[str] = (), labels: Collection[str] = ()
) -> list[Target]:
    """Return the targets of these accounts that carry one of these labels; nothing given means all."""
    return [
        target
        for target in targets
        if (not accounts or target.account in accounts) and (not labels or not set(labels).isdisjoint(target.labels))
    ]


def in_order(target: Target, url: str | None) -> bool:
    """Tell whether what stands is what is wanted, or what a rotation under way wants."""
    return url is not None and (url == target.url or url in target.next_urls)


class Ours:
    """Tell whether a URL that stands somewhere is ours.

    It is where it is the desired one, where it is the account's template with any token that was ever ours, and where
    we wrote it for that account ourselves. Anything else is somebody else's, even on our host.

    Args:
        targets: What each account should have registered.
        secrets: Every token that is or was ours: live, next, retiring, retired, and those that are given.
        written: For each account the URLs that the audit says we wrote, and that stood when read back.
    """

    def __init__(
        self,
        targets: Iterable[Target],
        *,
        secrets: Iterable[str] = (),
        written: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._targets = {target.account: target for target in targets}
        self._secrets = frozenset(secrets)
        self._written = dict(written or {})

    def owns(self, account: str, url: str | None) -> bool:
        """Tell whether the URL that stands for an account is ours."""
        if url is None:
            return False
        return url in self._written.get(account, ()) or self._fits(self._targets.get(account), url)

    def _fits(self, target: Target | None, url: str) -> bool:
        if target is None or target.template is None:
            return False
        if in_order(target, url):
            return True
        return TOKEN_PLACEHOLDER in target.template and any(
            _filled(target.template, secret) == url for secret in self._secrets
        )


def _accepted(tokens: Sequence[TokenRecord], names: frozenset[str]) -> list[TokenRecord]:
    """Return the tokens that a listener of these accounts accepts and goes on accepting, the live ones first.

    Those that were generated for just these accounts, else all, as `upcall.listener.tokens` takes them.
    """
    lasting = [record for state in ("live", "next") for record in tokens if record.state == state]
    return [record for record in lasting if names == frozenset(record.accounts)] or lasting


def _of_given(token: Token) -> TokenRecord:
    return TokenRecord(token.secret, tuple(sorted(token.accounts)))


def _target(account: Account, tokens: Sequence[TokenRecord], missing: str, *, strict: bool) -> Target:
    target = Target(account=account.name, template=account.url, credentials=account.credentials, labels=account.labels)
    if account.url is None:
        return msgspec.structs.replace(target, problem=_WITHOUT_URL)
    if TOKEN_PLACEHOLDER not in account.url:
        return msgspec.structs.replace(target, url=account.url)
    fitting = _fitting(account.name, tokens, strict=strict)
    if not fitting:
        return msgspec.structs.replace(target, problem=missing)
    first = fitting[0]
    return msgspec.structs.replace(
        target,
        url=_filled(account.url, first.token),
        tokens=tuple(record.token for record in fitting),
        next_urls=tuple(
            _filled(account.url, record.token) for record in fitting if record.state == "next" and record is not first
        ),
    )


def _fitting(account: str, tokens: Sequence[TokenRecord], *, strict: bool) -> list[TokenRecord]:
    """Return the tokens that fit an account: its own, and those for all.

    A listener that takes tokens from its store believes them for every account that it expects. So where none fits by
    name, as for an account that was added to the file later, the store's others do.
    """
    own = [record for record in tokens if account in record.accounts or not record.accounts]
    return own if own or strict else list(tokens)


def _filled(template: str, secret: str) -> str:
    return template.replace(TOKEN_PLACEHOLDER, secret)
