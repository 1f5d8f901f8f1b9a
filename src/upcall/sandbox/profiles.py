"""Delivery profiles: when a callback that was not acknowledged is tried again, decided without I/O."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec

from upcall.errors import SettingsError

if TYPE_CHECKING:
    from upcall.sandbox.state import Randomness

__all__ = ["PROFILES", "Profile", "checked_profile", "profile_named"]


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Say how often and when the provider tries.

    Args:
        name: What ``--profile`` takes.
        gaps_seconds: Before each further try, the shortest and the longest wait after a failed one.
        silence_seconds: After so long without an answer the callback is sent again while the first request still
            runs, which uses up a try; None where that does not happen.
        connect_timeout_seconds: How long a connection may take.
        answer_timeout_seconds: How long a whole try may take.
        concurrency: Requests that one listener gets at a time, the copies that silence earns not counted.
        source: Where this is known from.
    """

    name: str
    gaps_seconds: tuple[tuple[float, float], ...]
    silence_seconds: float | None = None
    connect_timeout_seconds: float = 10.0
    answer_timeout_seconds: float = 30.0
    concurrency: int = 16
    source: str = ""

    @property
    def max_attempts(self) -> int:
        """Return how many tries there are in all."""
        return len(self.gaps_seconds) + 1

    def gap_seconds(self, attempts: int, random: Randomness) -> float | None:
        """Return how long to wait after so many failed tries, None where there is no further one.

        Args:
            attempts: How many tries were made.
            random: What picks the wait between its bounds.
        """
        if attempts > len(self.gaps_seconds):
            return None
        shortest, longest = self.gaps_seconds[attempts - 1]
        return shortest + (longest - shortest) * random.random()


PROFILES: Final = {
    profile.name: profile
    for profile in (
        Profile(
            name="documented",
            gaps_seconds=((300.0, 300.0),) * 3,
            source="Connectivity Management, callback services: 4 tries 5 minutes apart (documented there; that"
            " Software Management does the same is inferred; no time limit for the answer is documented)",
        ),
        Profile(
            name="observed",
            gaps_seconds=((1.15, 1.7),),
            silence_seconds=4.0,
            source="live measurements of a sister service, 2026-09: one more try after a refusal, a second copy"
            " after about 4 s of silence, then nothing (observed, on another service)",
        ),
    )
}
"""The delivery profiles by name."""

_MAX_CONCURRENCY: Final = 1000
_MAX_SECONDS: Final = 30 * 86_400.0


def profile_named(name: str) -> Profile:
    """Return a built-in profile by its name.

    Raises:
        SettingsError: There is none of that name.
    """
    profile = PROFILES.get(name)
    if profile is None:
        known = ", ".join(sorted(PROFILES))
        raise SettingsError(
            f"There is no delivery profile {name!r}.", hint=f"Available: {known}, or a file that ends in .toml."
        )
    return profile


def checked_profile(document: dict[str, Any]) -> Profile:
    """Read a profile from plain values.

    Args:
        document: The members of `Profile`; a gap may also be one number, for its shortest and its longest wait.

    Raises:
        SettingsError: They are not sound.
    """
    gaps = document.get("gaps_seconds")
    if isinstance(gaps, list):
        document = document | {"gaps_seconds": [gap if isinstance(gap, list) else [gap, gap] for gap in gaps]}
    try:
        profile = msgspec.convert(document, Profile)
    except msgspec.ValidationError as error:
        raise _unsound(str(error)) from None
    seconds = [bound for gap in profile.gaps_seconds for bound in gap]
    seconds += [profile.connect_timeout_seconds, profile.answer_timeout_seconds, profile.silence_seconds or 0.0]
    if not all(math.isfinite(value) and 0 <= value <= _MAX_SECONDS for value in seconds):
        raise _unsound(f"seconds are from 0 to {_MAX_SECONDS:.0f}")
    if any(shortest > longest for shortest, longest in profile.gaps_seconds):
        raise _unsound("a gap's shortest wait is longer than its longest")
    if min(profile.connect_timeout_seconds, profile.answer_timeout_seconds) <= 0 or profile.silence_seconds == 0:
        raise _unsound("a time limit is above 0")
    if profile.silence_seconds is not None and profile.silence_seconds >= profile.answer_timeout_seconds:
        raise _unsound("silence_seconds is not below answer_timeout_seconds: no copy would ever be sent")
    if not 1 <= profile.concurrency <= _MAX_CONCURRENCY:
        raise _unsound(f"concurrency is from 1 to {_MAX_CONCURRENCY}")
    return profile


def _unsound(why: str) -> SettingsError:
    return SettingsError(
        f"The delivery profile is not sound: {why}.", hint="docs/sandbox.md shows one, with what each member means."
    )
