"""The checks: what each is, why it matters, what to do where it fails, and which ones must hold before it. Pure.

`docs/registration.md` lists them in these words.
"""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["CHECKS", "CLOCK_FAILS_SECONDS", "CLOCK_WARNS_SECONDS", "Check"]

CLOCK_WARNS_SECONDS: Final = 30.0
CLOCK_FAILS_SECONDS: Final = 300.0
"""How far two clocks may be apart."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Describe one check.

    Args:
        why: Why it matters.
        todo: What to do where it fails.
        rests_on: The checks without which it cannot be made.
        explained_by: The checks whose failure explains that this one fails, and says more.
    """

    why: str
    todo: str
    rests_on: tuple[str, ...] = ()
    explained_by: tuple[str, ...] = ()


CHECKS: Final[dict[str, Check]] = {
    "settings": Check(
        why="Which accounts there are, where their callbacks go and who calls stands in the settings file.",
        todo="Correct what it names, and run upcall doctor again.",
    ),
    "provider": Check(
        why="Registrations are read and written there; callbacks come from elsewhere, and may come all the same.",
        todo="Check the base URL (upcall whoami), the proxy variables and this machine's way out.",
        rests_on=("settings",),
    ),
    "clock": Check(
        why="A wrong clock makes good certificates look expired, and callbacks and outages look shifted.",
        todo="Set this machine's clock, and keep it set: timedatectl set-ntp true",
        rests_on=("provider",),
    ),
    "store": Check(
        why="What is acknowledged is kept there; a store that fails fills the spool.",
        todo="See: upcall store check",
    ),
    "spool": Check(
        why="It takes callbacks while the store fails; without it they are refused then, and soon lost.",
        todo="Make room or mend it, or name a directory on another disk: upcall listen --spool DIR",
    ),
    "listener": Check(
        why="Without a listener every callback is refused, and lost once the provider has tried a few times.",
        todo="Start it: upcall listen",
        rests_on=("store",),
        explained_by=("clock",),
    ),
    "bearer": Check(
        why="Each call needs a bearer token, which the client id and the client secret earn.",
        todo="Correct THINGSPACE_CLIENT_ID and THINGSPACE_CLIENT_SECRET, or what the settings file names for them.",
        rests_on=("provider",),
        explained_by=("settings",),
    ),
    "session": Check(
        why="Each call needs a session token too; five refused logins in a row lock the user at the provider.",
        todo="Correct THINGSPACE_USERNAME and THINGSPACE_PASSWORD, then: upcall login --reset",
        rests_on=("bearer",),
    ),
    "account-form": Check(
        why="A name that lost its leading zeros or holds a blank is another account's, or nobody's.",
        todo="Write it as the provider does, in quotes: 0000123456-00001",
        rests_on=("settings",),
    ),
    "url-form": Check(
        why="ThingSpace takes whole https URLs without a user name.",
        todo="Correct the account's url in the settings file.",
        rests_on=("settings",),
        explained_by=("settings", "store"),
    ),
    "tokens": Check(
        why="A listener answers 404 to a token that it does not accept, and keeps nothing.",
        todo="Put the listener's own URL where ThingSpace sends: upcall plan, then upcall apply",
        rests_on=("url-form",),
        explained_by=("store",),
    ),
    "port": Check(
        why="The provider publishes which ports a sister product may use; that it binds here is not known.",
        todo="Use 443, or one of 50551 to 50559, where you can choose.",
        rests_on=("url-form", "tokens"),
    ),
    "dns": Check(
        why="ThingSpace looks the name up in the public DNS, and reaches public addresses only.",
        todo="Correct the name's A and AAAA records, or the URL.",
        rests_on=("url-form", "tokens"),
    ),
    "connect": Check(
        why="Where no connection is made, callbacks are lost after a few tries.",
        todo="Start the listener or the proxy before it, and open the port in the firewall.",
        rests_on=("dns",),
        explained_by=("listener",),
    ),
    "tls": Check(
        why="ThingSpace sends callbacks over https only, and shows no certificate of its own.",
        todo="Let TLS end there: upcall listen --tls-cert, or a proxy before the listener (docs/deploy.md).",
        rests_on=("connect",),
    ),
    "tls-version": Check(
        why="Versions before 1.2 are broken, and most who connect refuse them.",
        todo="Allow TLS 1.2 and 1.3 in what ends TLS there.",
        rests_on=("tls",),
    ),
    "certificate-chain": Check(
        why="ThingSpace believes public authorities only: a self-signed certificate does not work.",
        todo="Serve the certificate followed by its intermediates (fullchain.pem), of a public authority.",
        rests_on=("tls-version",),
    ),
    "certificate-dates": Check(
        why="ThingSpace looks at it at each connection: from the second it ends, callbacks are lost.",
        todo="Renew it, then let what serves it read it again: SIGHUP for upcall listen",
        rests_on=("certificate-chain",),
        explained_by=("clock",),
    ),
    "certificate-name": Check(
        why="A certificate for another name is refused like none.",
        todo="Get one that names the URL's host, or put a host that it names into the URL.",
        rests_on=("certificate-dates",),
    ),
    "redirect": Check(
        why="That ThingSpace follows one is not known; who does often sends a GET, without the body.",
        todo="Register the URL that it leads to, or let the proxy pass the request on.",
        rests_on=("certificate-name",),
    ),
    "round-trip": Check(
        why="Anything answers 200; only a listener that knows the token can prove it.",
        todo="See what answers there: the proxy's routes, its path prefix, whether it passes the query on.",
        rests_on=("redirect",),
        explained_by=("tokens", "listener"),
    ),
    "answer-time": Check(
        why="A callback without an answer after about 4 s was seen to be sent again, while the first one still ran.",
        todo="Look for what is slow between here and the listener: upcall_commit_seconds on its /metrics, the proxy.",
        rests_on=("round-trip",),
    ),
    "listener-clock": Check(
        why="Callbacks, outages and the lives of tokens are told by the listener's clock.",
        todo="Set the clock of the listener's machine, and keep it set: timedatectl set-ntp true",
        rests_on=("round-trip",),
        explained_by=("clock",),
    ),
    "forwarded-for": Check(
        why="A listener that believes a forged X-Forwarded-For takes any stranger for ThingSpace.",
        todo="Name only your own proxies with --trusted-proxy, and let them append the address that they see.",
        rests_on=("round-trip",),
    ),
    "registered": Check(
        why="There is one URL an account, and the last writer wins without a word.",
        todo="See the difference: upcall plan. Make it so: upcall apply",
        rests_on=("account-form", "session"),
        explained_by=("url-form",),
    ),
    "last-callback": Check(
        why="Nothing shows better that ThingSpace reaches you than a callback from its own addresses.",
        todo="",
        rests_on=("account-form", "store"),
    ),
}
"""The checks by name, in the order in which they are reported."""
