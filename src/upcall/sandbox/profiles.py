"""Delivery profiles: when a callback that was not acknowledged is tried again, decided without I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from upcall.errors import SettingsError

if TYPE_CHECKING:
    from upcall.sandbox.state import Randomness

__all__ = ["PROFILES", "Profile", "profile_named"]


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Say how often and when the provider tries.

    Args:
        name: What ``--profile`` takes.
        gaps_seconds: Before each further try, the shortest and the longest wait after a failed one.
        silence_seconds: After so long without an answer the callback is sent again while the first request still
            runs, which uses up a try; None where that does not happen.
        connect_timeout_seconds: How long a connection may take.
        answer_timeout_seconds: How long a whole try may take.
        source: Where this is known from.
    """

    name: str
    gaps_seconds: tuple[tuple[float, float], ...]
    silence_seconds: float | None
    connect_timeout_seconds: float = 10.0
    answer_timeout_seconds: float = 30.0
    source: str

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
            silence_seconds=None,
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


def profile_named(name: str) -> Profile:
    """Return a profile by its name.

    Raises:
        SettingsError: There is none of that name.
    """
    profile = PROFILES.get(name)
    if profile is None:
        raise SettingsError(
            f"There is no delivery profile {name!r}.", hint=f"Available: {', '.join(sorted(PROFILES))}."
        )
    return profile
