"""What the checks of the provider, of credentials and of registrations come to. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from upcall.redact import mask_url_token
from upcall.registration.desired import in_order
from upcall.registration.doctor.judging import skew
from upcall.registration.doctor.results import Finding, failed, ok, skipped, unknown, warning

if TYPE_CHECKING:
    from upcall.registration.desired import Ours, Target
    from upcall.registration.doctor.calling import ProviderSight, Signed
    from upcall.registration.planning import Standing

__all__ = ["of_credentials", "of_provider", "registered"]

_BY_SETTINGS: Final = "credentials are missing: {missing}"


def of_provider(sight: ProviderSight) -> dict[str, Finding]:
    """Judge the provider, and this machine's clock by the provider's."""
    return {"provider": _provider(sight), "clock": _clock(sight)}


def _provider(sight: ProviderSight) -> Finding:
    if sight.error is not None:
        return failed(sight.error)
    for signed in sight.signed.values():
        if signed.error is not None and not signed.is_refusal:
            return failed(signed.error)
    return ok(f"{sight.base_url} answers{', and is a sandbox' if sight.is_sandbox else ''}")


def _clock(sight: ProviderSight) -> Finding:
    if not sight.clocks:
        return skipped("the provider's answers say no time", passes=True)
    # The way of an answer adds to the difference, and never takes from it.
    told, now = min(sight.clocks, key=lambda pair: abs(pair[0] - pair[1]))
    return skew(told, now, "the provider's")


def of_credentials(signed: Signed) -> dict[str, Finding]:
    """Judge one set of credentials."""
    return {"bearer": _bearer(signed), "session": _session(signed)}


def _bearer(signed: Signed) -> Finding:
    if signed.missing:
        return skipped(f"nothing was sent: {', '.join(signed.missing)} not set")
    if signed.error is not None and signed.is_bearer:
        return failed(signed.error, signed.hint)
    return ok("the client id and the client secret earn a token")


def _session(signed: Signed) -> Finding:
    if signed.error is not None:
        return failed(signed.error, signed.hint)
    if not signed.is_given:
        return ok("the user name and the password earn a token")
    if signed.given_refused is not None:
        return failed(f"the session token that was given is refused: {signed.given_refused}", signed.hint)
    return ok("the session token that was given is taken") if signed.proved else unknown("given, and not tried")


def registered(target: Target, standing: Standing | None, ours: Ours) -> Finding:
    """Judge what is registered for an account.

    Args:
        target: What should be.
        standing: What is, None where it was not read.
        ours: Tells whose a URL is.
    """
    if standing is None:
        return skipped("it was not read")
    if standing.error is not None:
        return failed(f"it could not be read: {standing.error}", "See what the provider says of this account.")
    if target.url is None:
        return _without_url(target, standing)
    if in_order(target, standing.url):
        rotating = "; a rotation is under way, and it has the next token already"
        return ok(f"{mask_url_token(target.url)}{'' if standing.url == target.url else rotating}")
    return _differs(target, standing, ours)


def _differs(target: Target, standing: Standing, ours: Ours) -> Finding:
    if standing.url is None:
        return failed("nothing is registered, so this account's callbacks are lost", "Register it: upcall apply")
    shown = mask_url_token(standing.url)
    if ours.owns(target.account, standing.url):
        return failed(f"an older URL of ours stands there: {shown}", "Bring it up to date: upcall apply")
    return failed(
        f"somebody else's URL stands there: {shown}",
        "Find out whose it is; to take the slot back: upcall apply --replace",
    )


def _without_url(target: Target, standing: Standing) -> Finding:
    if target.template is not None:
        return unknown("there is no URL to compare with")
    if standing.url is None:
        return warning(
            "nothing is registered, and the settings file gives no url", "Give the account a url, then: upcall apply"
        )
    return ok(f"{mask_url_token(standing.url)}; the settings file gives no other")
