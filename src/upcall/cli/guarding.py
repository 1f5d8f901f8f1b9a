"""What runs beside a listener that guards its own registration: the guard, and what fills gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upcall.registration.figures import families
from upcall.registration.filling import GapFiller
from upcall.registration.guarding import GuardThread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import Metric

    from upcall.listener import Token
    from upcall.settings import Settings

__all__ = ["Guarding"]


class Guarding:
    """Run a guard and a gap filler, each in a thread of its own: neither delays a callback.

    Args:
        settings: What the environment and the settings file say.
        store: The store's URL.
        given: The tokens that the listener was given.
        reassert: Whether slots are taken back, None for what the settings say.

    Raises:
        SettingsError: The settings cannot be used.
    """

    def __init__(self, settings: Settings, store: str, given: Sequence[Token], reassert: bool | None) -> None:
        self._guard = GuardThread(settings, store, given, reassert=reassert)
        self._filler = GapFiller(settings, store)

    def start(self) -> None:
        """Begin, once the listener accepts."""
        self._guard.start()
        self._filler.start()

    def stop(self) -> None:
        """End both."""
        self._guard.stop()
        self._filler.stop()

    def families(self) -> Iterator[Metric]:
        """Yield the guard's figures as Prometheus names them."""
        return families(self._guard.figures)
