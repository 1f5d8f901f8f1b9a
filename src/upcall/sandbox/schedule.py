"""When a callback is sent, sent again and given up: decided without I/O.

The engine asks when a callback was made, when a try has been silent for too long, and when a try has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from upcall.sandbox.faults import REORDER_SECONDS

if TYPE_CHECKING:
    from upcall.sandbox.faults import Fortune
    from upcall.sandbox.ledger import Attempt, Message
    from upcall.sandbox.state import Randomness
    from upcall.thingspace import Profile

__all__ = ["Schedule", "Verdict", "is_acknowledgement"]

_OK: Final = range(200, 300)


class Verdict(msgspec.Struct, frozen=True):
    """Say what follows for a callback.

    Args:
        state: Its final state, None where it has none yet.
        next_at: When it is tried next, None where nothing is planned.
    """

    state: str | None = None
    next_at: float | None = None


class Schedule:
    """Decide by a profile and by each callback's fortune.

    Args:
        profile: When a callback is tried again.
        speed: What retry gaps and fault delays are divided by; deadlines and silence keep real time.
    """

    def __init__(self, profile: Profile, speed: float) -> None:
        self.profile = profile
        self._speed = speed

    def first(self, fortune: Fortune, now: float, *, is_overtaken: bool) -> Verdict:
        """Say when a new callback is first sent.

        Args:
            fortune: What it meets.
            now: Seconds of the clock.
            is_overtaken: Whether it waits for the account's next one to overtake it.
        """
        if fortune.drop:
            return Verdict("dropped")
        wait_seconds = REORDER_SECONDS if is_overtaken else fortune.delay_seconds
        return Verdict(None, now + wait_seconds / self._speed)

    def after_silence(self, message: Message, *, is_waiting: bool) -> bool:
        """Say whether a second copy is sent because a try has been unanswered for too long.

        Args:
            message: The callback.
            is_waiting: Whether that try is still unanswered.
        """
        return is_waiting and not message.acknowledged and message.started < self.profile.max_attempts

    def refuses(self, message: Message, attempt: Attempt) -> bool:
        """Say whether a fault takes a try's acknowledgement for a refusal: the first one, while a try is left."""
        return (
            message.fortune.refuse_once
            and is_acknowledgement(attempt)
            and not any(is_acknowledgement(earlier) for earlier in message.attempts)
            and message.started < self.profile.max_attempts
        )

    def after_try(self, message: Message, attempt: Attempt, now: float, random: Randomness) -> Verdict:
        """Say what follows when the last try in the air has ended, and none was acknowledged.

        Args:
            message: The callback, with this try entered.
            attempt: The try.
            now: Seconds of the clock.
            random: What picks the wait.
        """
        if attempt.error == "target":
            return Verdict("refused")
        gap = self.profile.gap_seconds(message.started, random)
        return Verdict("failed") if gap is None else Verdict(None, now + gap / self._speed)

    def after_acknowledgement(self, message: Message, now: float) -> Verdict:
        """Say what follows when a callback is acknowledged, whatever else is in the air."""
        wait_seconds = message.fortune.duplicate_seconds
        return Verdict(message.state, None if wait_seconds is None else now + wait_seconds / self._speed)

    def is_overtaken(self, message: Message) -> bool:
        """Tell whether a callback still waits for the account's next one to overtake it, as a kill found it."""
        waits_until = message.created_at + REORDER_SECONDS / self._speed
        return message.fortune.reorder and not message.attempts and message.next_at == waits_until


def is_acknowledgement(attempt: Attempt) -> bool:
    """Tell whether a try was answered 2xx. Source: Connectivity Management (documented there; inferred here)."""
    return attempt.status in _OK
