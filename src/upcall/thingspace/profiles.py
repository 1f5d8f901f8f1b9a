"""Delivery profiles: when the provider tries a callback again that was not acknowledged, decided without I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from typing import Protocol

    class Chance(Protocol):
        """Say what picks a wait, such as `random.Random`."""

        def random(self) -> float:
            """Return a number from 0 up to 1."""
            ...


__all__ = ["PROFILES", "Profile"]


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

    @property
    def longest_seconds(self) -> float:
        """Return after how long at most nothing is sent any more and no request runs, counted from the first try."""
        ladder = self.ladder_seconds()
        return (ladder[-1][1] if ladder else 0.0) + self.answer_timeout_seconds

    def gap_seconds(self, attempts: int, random: Chance) -> float | None:
        """Return how long to wait after so many failed tries, None where there is no further one.

        Args:
            attempts: How many tries were made.
            random: What picks the wait between its bounds.
        """
        if attempts > len(self.gaps_seconds):
            return None
        shortest, longest = self.gaps_seconds[attempts - 1]
        return shortest + (longest - shortest) * random.random()

    def ladder_seconds(self) -> tuple[tuple[float, float], ...]:
        """Return for each try after the first how long after the first one it begins, at the earliest and the latest.

        A try fails at once, or after `answer_timeout_seconds` at the latest. Where silence earns a copy, that is the
        next try: the first one is followed after `silence_seconds` even while it runs, and a later one may have to
        wait for the end of an earlier one all the same.
        """
        ladder: list[tuple[float, float]] = []
        earliest = latest = 0.0
        for shortest, longest in self.gaps_seconds:
            silence = self.silence_seconds
            earliest += shortest if silence is None else min(shortest, silence)
            is_first = not ladder
            latest += longest + (silence if silence is not None and is_first else self.answer_timeout_seconds)
            ladder.append((earliest, latest))
        return tuple(ladder)


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
