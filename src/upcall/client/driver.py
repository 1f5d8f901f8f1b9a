"""Carry out flows in the calling thread."""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from upcall.client.effects import Do, Effect, Flow, Join, Launch, Send, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from upcall.client.wire import Wire

__all__ = ["Driver"]

T = TypeVar("T")


class Driver:
    """Carry out flows in any number of threads.

    Args:
        make_wire: Opens the connections, when the first request is sent.
    """

    def __init__(self, make_wire: Callable[[], Wire]) -> None:
        self.sleep: Callable[[float], None] = time.sleep
        self._make_wire = make_wire
        self._wire: Wire | None = None
        self._finalizer: weakref.finalize[Any, Driver] | None = None
        self._is_closed = False
        self._lock = threading.Lock()

    def run(self, flow: Flow[T]) -> T:
        """Carry out a flow and return what it comes to."""
        step: Callable[[], Effect] = partial(next, flow)
        with contextlib.closing(flow):
            while True:
                try:
                    effect = step()
                except StopIteration as end:
                    return cast("T", end.value)
                try:
                    step = partial(flow.send, self._perform(effect))
                except Exception as error:  # noqa: BLE001 - the flow raises it, and ends what it had begun
                    step = partial(flow.throw, error)

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            self._is_closed = True
            wire, self._wire = self._wire, None
            if self._finalizer is not None:
                self._finalizer.detach()
        if wire is not None:
            wire.close()

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case Send():
                return (self._wire or self._open()).send(effect.request, effect.timeout_seconds)
            case Wait():
                return self.sleep(effect.seconds)
            case Launch():
                return self.run(effect.flow)
            case Join():
                try:
                    return effect.flight.result(effect.timeout_seconds)
                except TimeoutError as error:
                    return error
            case Do():
                return effect.function()

    def _open(self) -> Wire:
        with self._lock:
            if self._is_closed:
                raise RuntimeError("This client is closed.")
            if self._wire is None:
                self._wire = self._make_wire()
                self._finalizer = weakref.finalize(self, _left_open, self._wire)
                self._finalizer.atexit = False
            return self._wire


def _left_open(wire: Wire) -> None:
    wire.close()
    warnings.warn("A ThingSpaceClient was not closed: use it in a with statement, or call close().", ResourceWarning, 2)
