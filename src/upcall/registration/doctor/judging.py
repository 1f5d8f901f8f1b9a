"""What each check of a URL comes to, by what was seen of it. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from upcall.redact import mask_url_token
from upcall.registration.doctor.addresses import is_published_port, unreachable
from upcall.registration.doctor.catalogue import CLOCK_FAILS_SECONDS, CLOCK_WARNS_SECONDS
from upcall.registration.doctor.handshakes import chain_text
from upcall.registration.doctor.results import Finding, failed, ok, skipped, warning
from upcall.registration.doctor.sights import FORGED
from upcall.thingspace import check_account, check_callback_url, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from upcall.registration.desired import Target
    from upcall.registration.doctor.sights import Certificate, Handshake, Reply, Sight

__all__ = ["ENDS_SOON_DAYS", "SEEN_DEADLINE_SECONDS", "SLOW_SECONDS", "account_form", "of_sight", "skew", "url_form"]

SEEN_DEADLINE_SECONDS: Final = 4.0
"""After so long without an answer a callback is sent again. Source: measured on a sister service (observed)."""
SLOW_SECONDS: Final = 1.0
ENDS_SOON_DAYS: Final = 14

_DAY: Final = 86_400.0
_USUAL_ACCOUNT: Final = re.compile(r"[0-9]{10}-[0-9]{5}")
_NAMES_SHOWN: Final = 5
_NOT_REACHED: Final = skipped("the time that a run may take was over")
_PLAIN: Final = skipped("the URL is http, which only a sandbox takes", passes=True)


def account_form(account: str) -> Finding:
    """Judge an account's name.

    Source: "usually 10 digits, hyphen, 5 digits" (documented by examples); so another form is no failure.
    """
    try:
        check_account(account)
    except ValueError as error:
        return failed(f"{error}")
    if _USUAL_ACCOUNT.fullmatch(account):
        return ok("ten digits, a hyphen, five digits")
    return warning(f"{account} is not ten digits, a hyphen and five digits, as accounts usually are")


def url_form(target: Target, url: str | None, *, allow_http: bool) -> Finding:
    """Judge the form of a URL.

    Args:
        target: What the account should have registered.
        url: The URL that is looked at: the target's, else the one that is registered.
        allow_http: Whether http to this machine is admitted, for a sandbox.
    """
    if url is None:
        if target.template is not None:
            return failed(target.problem or "no URL can be made")
        return skipped("the settings file gives no url for it, and none is registered")
    try:
        check_callback_url(url, allow_http=allow_http)
    except ValueError as error:
        return failed(f"{error}")
    return ok(f"{mask_url_token(url)}{'' if target.url or target.template else ', as it is registered'}")


def of_sight(sight: Sight, *, local: bool, now: float) -> dict[str, Finding]:
    """Return what each check of a URL comes to that admits a look.

    Args:
        sight: What was seen.
        local: Whether the provider is a sandbox on this machine.
        now: The time, in seconds since 1970.
    """
    tls = _PLAIN if sight.place.is_plain else None
    return {
        "port": skipped("a sandbox takes any port") if local else _port(sight),
        "dns": _NOT_REACHED if sight.is_late else _dns(sight, local=local),
        "connect": _connect(sight),
        "tls": tls or _tls(sight),
        "tls-version": tls or _of_handshake(sight, _version),
        "certificate-chain": tls or _of_handshake(sight, _chain),
        "certificate-dates": tls or _of_handshake(sight, lambda seen: _dates(seen, now)),
        "certificate-name": tls or _of_handshake(sight, lambda seen: _name(seen, sight.place.host)),
        "redirect": _of_reply(sight, _redirect),
        "round-trip": _of_reply(sight, _round_trip),
        "answer-time": _of_reply(sight, _answer_time),
        "listener-clock": _of_reply(sight, _listener_clock),
        "forwarded-for": _forwarded_for(sight),
    }


def skew(told: float, now: float, whose: str) -> Finding:
    """Judge how far another clock is from this machine's.

    Args:
        told: What it says, in seconds since 1970.
        now: What this machine's said at that moment.
        whose: Whose clock it is.
    """
    seconds = told - now
    words = f"{whose} clock is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} this machine's"
    if abs(seconds) > CLOCK_FAILS_SECONDS:
        return failed(words)
    if abs(seconds) > CLOCK_WARNS_SECONDS:
        return warning(words)
    return ok(f"{whose} clock agrees with this machine's")


def _port(sight: Sight) -> Finding:
    port = sight.place.port
    if is_published_port(port):
        return ok(f"{port} is a published port")
    return warning(f"{port} is not on the published list")


def _dns(sight: Sight, *, local: bool) -> Finding:
    host = sight.place.host
    if sight.dns_error:
        return failed(f"{host} does not resolve: {sight.dns_error}")
    if outside := unreachable(sight.addresses, local=local):
        return failed(f"{host} leads to what ThingSpace cannot reach: {', '.join(outside)}")
    return ok(f"{host}: {', '.join(sight.addresses)}")


def _connect(sight: Sight) -> Finding:
    refused = [f"{attempt.address}: {attempt.error}" for attempt in sight.attempts if attempt.error is not None]
    if len(refused) == len(sight.attempts):
        return failed(f"no connection to port {sight.place.port} ({', '.join(refused)})") if refused else _NOT_REACHED
    theirs = [attempt.address for attempt in sight.attempts if attempt.error is not None and not attempt.is_ours]
    if theirs:
        return warning(
            f"some of its addresses take no connection to port {sight.place.port} ({', '.join(refused)})",
            "Let every address of the name lead to a listener, or remove those that do not from the DNS.",
        )
    return ok(f"port {sight.place.port} is open")


def _tls(sight: Sight) -> Finding:
    if sight.reply is not None and sight.reply.wants_certificate:
        return failed("it wants a client certificate, and ThingSpace has none")
    return _of_handshake(sight, lambda seen: failed(seen.text) if seen.flaw == "tls" else ok("it speaks TLS"))


def _of_handshake(sight: Sight, judge: Callable[[Handshake], Finding]) -> Finding:
    return _NOT_REACHED if sight.handshake is None else judge(sight.handshake)


def _version(seen: Handshake) -> Finding:
    return failed(seen.text) if seen.flaw == "tls-version" else ok(seen.version or "1.2 or newer")


def _chain(seen: Handshake) -> Finding:
    if seen.flaw == "certificate-chain":
        return failed(chain_text(seen.code, seen.text, seen.sent))
    return ok("it leads to an authority that this machine knows")


def _dates(seen: Handshake, now: float) -> Finding:
    certificate = seen.certificate
    if seen.flaw == "certificate-dates":
        return failed(_off_dates(seen, certificate))
    if certificate is None:
        return ok("its dates are right")
    left = (certificate.ends_at - now) / _DAY
    ends = f"ends on {_day(certificate.ends_at)}"
    if left < 0 or now < certificate.starts_at:
        return failed(f"it holds from {_day(certificate.starts_at)} to {_day(certificate.ends_at)}")
    return warning(f"it {ends}, in {left:.0f} days") if left < ENDS_SOON_DAYS else ok(f"it {ends}")


def _off_dates(seen: Handshake, certificate: Certificate | None) -> str:
    if certificate is None:
        return seen.text
    return f"{seen.text}: it holds from {_day(certificate.starts_at)} to {_day(certificate.ends_at)}"


def _name(seen: Handshake, host: str) -> Finding:
    if seen.flaw != "certificate-name":
        return ok(f"it names {host}")
    names = seen.certificate.names if seen.certificate is not None else ()
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    what = f"it names {', '.join(names[:_NAMES_SHOWN])}{more}" if names else "it names something else"
    return failed(f"{what}, and not {host}")


def _of_reply(sight: Sight, judge: Callable[[Reply], Finding]) -> Finding:
    return _NOT_REACHED if sight.reply is None else judge(sight.reply)


def _redirect(reply: Reply) -> Finding:
    if reply.status is not None and reply.status // 100 == 3:  # noqa: PLR2004 - redirects
        return failed(f"it answers {reply.status}, and leads to {reply.location or 'nowhere'}")
    return ok("none")


def _round_trip(reply: Reply) -> Finding:
    if reply.status is None:
        return failed(f"{reply.error}")
    if reply.is_proved:
        return ok("a listener that knows the token answered")
    if reply.said is not None:
        return failed("a listener answered with a proof that is not this token's")
    found, todo = _TOLD_BY_STATUS.get(reply.status, _TOLD_BY_CLASS.get(reply.status // 100, _ODD))
    return failed(found.format(status=reply.status), todo)


_ODD: Final = ("it answers {status}, as no listener does", "")
_BEFORE: Final = ("it answers {status}: something before the listener does, and lets ThingSpace through no more", "")
_TOLD_BY_STATUS: Final = {
    200: (
        "something answers 200 that is no listener of this token: a callback would be lost without a trace",
        "Let the path lead to upcall listen, query included; an older Upcall cannot prove itself: upgrade it.",
    ),
    401: _BEFORE,
    403: _BEFORE,
    404: (
        "it answers 404: the listener does not know the token, or does not see the path /callbacks/TOKEN",
        "Compare upcall plan with the listener's own store and tokens, and the path that the proxy passes on.",
    ),
    429: ("it answers 429: something before the listener counts requests, and callbacks come in bursts", ""),
}
_TOLD_BY_CLASS: Final = {
    2: _TOLD_BY_STATUS[200],
    5: (
        "it answers {status}: a proxy whose listener does not answer, or a listener that fails",
        "Start the listener, and see the proxy's error log.",
    ),
}


def _answer_time(reply: Reply) -> Finding:
    took = f"{reply.seconds * 1000:.0f} ms" if reply.seconds < 1 else f"{reply.seconds:.1f} s"
    if reply.seconds > SEEN_DEADLINE_SECONDS:
        return failed(f"{took}, and a callback is sent again after about {SEEN_DEADLINE_SECONDS:.0f} s")
    return warning(took) if reply.seconds > SLOW_SECONDS else ok(took)


def _listener_clock(reply: Reply) -> Finding:
    told = parse_time(reply.said.time).micros if reply.said is not None else None
    if told is None:
        return skipped("the listener told no time")
    return skew(told / 1_000_000, reply.at, "the listener's")


def _forwarded_for(sight: Sight) -> Finding:
    if sight.forged is None or sight.forged.said is None:
        return skipped("the probe with a forged source was not answered by the listener")
    source = sight.forged.said.source
    if source == FORGED:
        return failed(f"it took this machine for {FORGED}, because the request said so")
    return ok(f"a forged source is not believed; it sees {source}")


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
