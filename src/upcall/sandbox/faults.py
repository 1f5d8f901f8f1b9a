"""What goes wrong on purpose: which faults, for whom, when and how often, decided without I/O.

A fault of the delivery is drawn once a callback, one of the API once a call, one of a registration once a change. Each
has its rate for all accounts, may have another for one account, and a script may change both for a while.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

import msgspec
from msgspec import Meta

from upcall.errors import SettingsError
from upcall.sandbox.models import ACCOUNT_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upcall.sandbox.state import Randomness

__all__ = [
    "API_FAULTS",
    "DELAY_SECONDS",
    "DELIVERY_FAULTS",
    "DUPLICATE_SECONDS",
    "FAULT_NAMES",
    "FORGED_FORWARD",
    "REORDER_SECONDS",
    "SESSION_DEAD_SECONDS",
    "SLOW_BODY_SECONDS",
    "STALE_SECONDS",
    "STOLEN_SECONDS",
    "STOLEN_URL",
    "Faults",
    "Fortune",
    "Script",
    "Trouble",
    "parse_faults",
]

DELIVERY_FAULTS: Final = {
    "delay": "the callback is first sent 5 to 120 virtual seconds late",
    "drop": "the callback is never sent",
    "duplicate": "an acknowledged callback is sent once more, 1 to 5 virtual seconds later",
    "reorder": "the account's next callback overtakes it, where one comes within 60 virtual seconds",
    "refuse_once": "the first 2xx is taken for a refusal, so that the profile tries again",
    "cut_body": "the first try's connection ends in the middle of the body",
    "slow_body": "the first try's body drips in over 2 seconds",
    "forged_forward": "every try carries an X-Forwarded-For with an address of the provider's",
}
"""The faults of the delivery, each with what it does."""

API_FAULTS: Final = {
    "unauthorized": "the bearer token dies at this call: 401 with 900901",
    "session_dead": "the session of a login dies 96 seconds after it",
    "rate_limited": "429 in the gateway's shape",
    "server_error": "500, 502 or 503 in the gateway's shape",
    "html": "a page of HTML in the place of the answer, as 200 or 503; the call is not carried out",
    "reset": "the connection ends without an answer; every second such call was carried out",
}
"""The faults of the API, each with what it does."""

REGISTRATION_FAULTS: Final = {
    "stolen": "1 to 10 virtual minutes after a registration another system registers its own URL",
    "stale_listener": "for 10 virtual minutes after a change, every second callback or so goes to the old URL",
}
"""The faults of a registration, each with what it does."""

FAULT_NAMES: Final = (*DELIVERY_FAULTS, *API_FAULTS, *REGISTRATION_FAULTS)
"""All faults, in the order in which they are told."""

DUPLICATE_SECONDS: Final = (1.0, 5.0)
"""How long after its acknowledgement an acknowledged callback is sent again, in virtual seconds."""

DELAY_SECONDS: Final = (5.0, 120.0)
"""How late a delayed callback is first sent, in virtual seconds."""

REORDER_SECONDS: Final = 60.0
"""How long a callback waits for the next one to overtake it, at most, in virtual seconds."""

SLOW_BODY_SECONDS: Final = 2.0
"""How long a slow body takes, in seconds of the clock: it is a matter of deadlines, which no speed changes."""

FORGED_FORWARD: Final = "3.87.163.45"
"""One of the provider's listed addresses: what a stranger would write into the header."""

SESSION_DEAD_SECONDS: Final = 96.0
"""How soon after its login a session dies. Source: measured on a sister service, 2026-09 (observed)."""

STOLEN_SECONDS: Final = (60.0, 600.0)
"""How long after a registration it is displaced, in virtual seconds."""

STOLEN_URL: Final = "https://another-system.example:50559/callbacks"
"""What stands in the slot then; the sandbox itself answers what is sent there, with 200."""

STALE_SECONDS: Final = 600.0
"""How long after a change the old URL is still sent to, in virtual seconds.

Source: 9.5 to 14 minutes were measured on a sister service, mixed with the new registration (observed).
"""

_STALE_SHARE: Final = 0.5


class Fortune(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hold what one callback will meet.

    Args:
        duplicate_seconds: Send it again so long after it was acknowledged; None not to.
        delay_seconds: Send it so late; 0 for at once.
        reorder: Let the account's next callback overtake it.
        drop: Never send it.
        refuse_once: Take the first acknowledgement for a refusal.
        cut_body: End the first try's connection in the middle of the body.
        slow_body: Send the first try's body slowly.
        forged_forward: Add a header that claims another source.
    """

    duplicate_seconds: float | None = None
    delay_seconds: float = 0.0
    reorder: bool = False
    drop: bool = False
    refuse_once: bool = False
    cut_body: bool = False
    slow_body: bool = False
    forged_forward: bool = False


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what one call meets.

    Args:
        name: One of `API_FAULTS`, None for nothing.
        choice: From 0 up to 1: which of its forms the fault takes.
    """

    name: str | None = None
    choice: float = 0.0


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Change the rates for a while.

    Args:
        after_seconds: Virtual seconds since the faults were set.
        for_seconds: How long, in virtual seconds; None for ever.
        account: For whom; None for all.
        faults: Rates by name; 0 switches one off meanwhile.
    """

    after_seconds: Annotated[float, Meta(ge=0)] = 0.0
    for_seconds: Annotated[float, Meta(gt=0)] | None = None
    account: str | None = None
    faults: Mapping[str, float]

    def is_on(self, elapsed: float) -> bool:
        """Tell whether it holds so many virtual seconds after the faults were set."""
        ends_at = math.inf if self.for_seconds is None else self.after_seconds + self.for_seconds
        return self.after_seconds <= elapsed < ends_at


class Faults(msgspec.Struct, frozen=True, rename={"rates": "all"}, forbid_unknown_fields=True):
    """Hold how likely each fault is.

    Args:
        rates: From 0 to 1, by name, for all accounts.
        accounts: The same for one account, in the place of those for all.
        script: Changes of the rates, by time; where several hold, the last one named.
    """

    rates: Mapping[str, float] = {}
    accounts: Mapping[str, Mapping[str, float]] = {}
    script: tuple[Script, ...] = ()

    @classmethod
    def checked(cls, document: Any) -> Self:
        """Read faults from plain values.

        Args:
            document: An object with ``all``, ``accounts`` and ``script``, each of which may be absent.

        Raises:
            SettingsError: A name is unknown, a value is out of range, or the form is another.
        """
        try:
            faults = msgspec.convert(document, cls)
        except msgspec.ValidationError as error:
            raise SettingsError(f"The faults are not sound: {error}.", hint=_HINT) from None
        for rates in faults.all_rates():
            for name, rate in rates.items():
                _check(name, rate)
        for script in faults.script:
            if not all(math.isfinite(value) for value in (script.after_seconds, script.for_seconds or 0.0)):
                raise SettingsError("The faults are not sound: a script's seconds are numbers.", hint=_HINT)
        for account in (*faults.accounts, *(one.account for one in faults.script if one.account is not None)):
            if re.fullmatch(ACCOUNT_PATTERN, account) is None:
                raise SettingsError(f"The faults are not sound: {account!r} is no account's name.", hint=_HINT)
        return faults

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `checked` reads."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document

    def __bool__(self) -> bool:
        return any(rate for rates in self.all_rates() for rate in rates.values())

    def rate(self, name: str, account: str, elapsed: float) -> float:
        """Return how likely a fault is now.

        Args:
            name: The fault.
            account: For whom; empty for a call that concerns none.
            elapsed: Virtual seconds since the faults were set.
        """
        for script in reversed(self.script):
            if name in script.faults and script.account in {None, account} and script.is_on(elapsed):
                return script.faults[name]
        own = self.accounts.get(account, {})
        return own[name] if name in own else self.rates.get(name, 0.0)

    def fortune(self, account: str, elapsed: float, random: Randomness) -> Fortune:
        """Decide what one callback meets.

        Args:
            account: Whose callback.
            elapsed: Virtual seconds since the faults were set.
            random: The callback's own random source. Each fault takes its draws whether it is on or not, so that
                switching one on leaves the others where they were.
        """
        hit = {name: random.random() < self.rate(name, account, elapsed) for name in DELIVERY_FAULTS}
        delay, duplicate = (_between(bounds, random) for bounds in (DELAY_SECONDS, DUPLICATE_SECONDS))
        return Fortune(
            duplicate_seconds=duplicate if hit["duplicate"] else None,
            delay_seconds=delay if hit["delay"] else 0.0,
            reorder=hit["reorder"],
            drop=hit["drop"],
            refuse_once=hit["refuse_once"],
            cut_body=hit["cut_body"],
            slow_body=hit["slow_body"],
            forged_forward=hit["forged_forward"],
        )

    def trouble(self, account: str, elapsed: float, random: Randomness) -> Trouble:
        """Decide what one call meets: of several faults that hit it, the first in the order of their names.

        Args:
            account: Whom the call concerns; empty for a token or a login.
            elapsed: Virtual seconds since the faults were set.
            random: The call's own random source.
        """
        hit = [name for name in _CALL_FAULTS if random.random() < self.rate(name, account, elapsed)]
        return Trouble(name=hit[0] if hit else None, choice=random.random())

    def session_dies(self, elapsed: float, random: Randomness) -> bool:
        """Decide whether the session of a login dies early."""
        return random.random() < self.rate("session_dead", "", elapsed)

    def stolen_seconds(self, account: str, elapsed: float, random: Randomness) -> float | None:
        """Decide how many virtual seconds after its registration a URL is displaced, None where it is not."""
        hit, seconds = random.random() < self.rate("stolen", account, elapsed), _between(STOLEN_SECONDS, random)
        return seconds if hit else None

    def is_stale(self, account: str, elapsed: float, random: Randomness) -> bool:
        """Decide whether a try soon after a change goes to the old URL."""
        return random.random() < self.rate("stale_listener", account, elapsed) * _STALE_SHARE

    def all_rates(self) -> Iterator[Mapping[str, float]]:
        """Return every set of rates, whoever and whenever it is for."""
        yield self.rates
        yield from self.accounts.values()
        for script in self.script:
            yield script.faults


_CALL_FAULTS: Final = tuple(name for name in API_FAULTS if name != "session_dead")
_HINT: Final = "docs/sandbox.md shows a file of faults, with what each member means."


def parse_faults(text: str | None) -> Faults:
    """Read ``duplicate=0.1,reorder=0.1``: names, each with its rate, or alone for always.

    Raises:
        SettingsError: A name is unknown, or a rate is no number from 0 to 1.
    """
    rates: dict[str, float] = {}
    for item in (text or "").split(","):
        name, equals, rate = (part.strip() for part in item.partition("="))
        if name or rate:
            rates[name] = _rate(name, rate) if equals else 1.0
            _check(name, rates[name], or_file=", or a file that ends in .toml")
    return Faults(rates)


def _rate(name: str, text: str) -> float:
    if name not in FAULT_NAMES:
        return 0.0  # the name is what is wrong
    try:
        return float(text)
    except ValueError:
        raise _wrong_rate(name, repr(text)) from None


def _check(name: str, rate: float, or_file: str = "") -> None:
    if name not in FAULT_NAMES:
        raise SettingsError(f"There is no fault {name!r}.", hint=f"Available: {', '.join(FAULT_NAMES)}{or_file}.")
    if not 0.0 <= rate <= 1.0:
        raise _wrong_rate(name, str(rate))


def _wrong_rate(name: str, shown: str) -> SettingsError:
    return SettingsError(f"The rate of fault {name} is {shown}.", hint="Give a number from 0 to 1.")


def _between(bounds: tuple[float, float], random: Randomness) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * random.random()
