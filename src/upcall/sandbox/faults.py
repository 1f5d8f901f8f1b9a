"""Seeded faults of the delivery, decided without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.errors import SettingsError

if TYPE_CHECKING:
    from upcall.sandbox.state import Randomness

__all__ = ["DELAY_SECONDS", "DUPLICATE_SECONDS", "FAULT_NAMES", "REORDER_SECONDS", "Faults", "Fortune", "parse_faults"]

FAULT_NAMES: Final = ("delay", "drop", "duplicate", "reorder")
"""The faults that this version has."""

DUPLICATE_SECONDS: Final = (1.0, 5.0)
"""How long after its acknowledgement an acknowledged callback is sent again, in virtual seconds."""

DELAY_SECONDS: Final = (5.0, 120.0)
"""How late a delayed callback is first sent, in virtual seconds."""

REORDER_SECONDS: Final = 60.0
"""How long a callback waits for the next one to overtake it, at most, in virtual seconds."""


class Fortune(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what one callback will meet.

    Args:
        duplicate_seconds: Send it again so long after it was acknowledged; None not to.
        delay_seconds: Send it so late; 0 for at once.
        reorder: Let the account's next callback overtake it.
        drop: Never send it.
    """

    duplicate_seconds: float | None = None
    delay_seconds: float = 0.0
    reorder: bool = False
    drop: bool = False


class Faults(msgspec.Struct, frozen=True):
    """Hold how likely each fault is.

    Args:
        rates: From 0 to 1, by name.
    """

    rates: Mapping[str, float] = {}

    def draw(self, random: Randomness) -> Fortune:
        """Decide what one callback meets.

        Args:
            random: The callback's own random source. Each fault takes its draws whether it is on or not, so that
                switching one on leaves the others where they were.
        """
        hit = {name: random.random() < self.rates.get(name, 0.0) for name in FAULT_NAMES}
        delay, duplicate = (_between(bounds, random) for bounds in (DELAY_SECONDS, DUPLICATE_SECONDS))
        return Fortune(
            duplicate_seconds=duplicate if hit["duplicate"] else None,
            delay_seconds=delay if hit["delay"] else 0.0,
            reorder=hit["reorder"],
            drop=hit["drop"],
        )


def parse_faults(text: str | None) -> Faults:
    """Read ``duplicate=0.1,reorder=0.1``.

    Raises:
        SettingsError: A name is unknown, or a rate is no number from 0 to 1.
    """
    rates: dict[str, float] = {}
    for item in (text or "").split(","):
        name, equals, rate = (part.strip() for part in item.partition("="))
        if not name and not rate:
            continue
        if name not in FAULT_NAMES:
            raise SettingsError(f"There is no fault {name!r}.", hint=f"Available: {', '.join(FAULT_NAMES)}.")
        rates[name] = _rate(name, rate) if equals else 1.0
    return Faults(rates)


def _rate(name: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0.0 <= rate <= 1.0:
        raise SettingsError(f"The rate of fault {name} is {text!r}.", hint="Give a number from 0 to 1.")
    return rate


def _between(bounds: tuple[float, float], random: Randomness) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * random.random()
