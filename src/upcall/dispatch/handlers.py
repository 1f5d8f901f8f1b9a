"""Handlers and what each of them wants."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from upcall.dispatch.schedule import RetrySchedule
from upcall.inbox import Subscription
from upcall.thingspace import CallbackEvent, DeviceUpdate, check_account, normalize_device, normalize_kind

__all__ = ["Handler", "HandlerTable"]

HandlerFunction = TypeVar("HandlerFunction", bound="Callable[[CallbackEvent], Awaitable[None] | None]")
DeviceFunction = TypeVar("DeviceFunction", bound="Callable[[CallbackEvent, DeviceUpdate], Awaitable[None] | None]")


class Handler(msgspec.Struct, frozen=True):
    """Describe one registered function.

    Args:
        name: The subscriber's name: its work is kept under it, so it must stay the same across restarts.
        function: What to call.
        per_device: Whether it is called for each device, with the event and the device.
        words: The kinds or device states that it wants, normalised; empty for all.
        account: The account whose callbacks it wants, None for all.
        schedule: How it is retried.
    """

    name: str
    function: Callable[..., Any]
    per_device: bool
    words: frozenset[str]
    account: str | None
    schedule: RetrySchedule

    @property
    def is_async(self) -> bool:
        """Tell whether the function is awaited, or runs in a thread."""
        call = getattr(self.function, "__call__", None)  # noqa: B004 - an object may be called through an async method
        return inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(call)

    def wants(self, event: CallbackEvent) -> list[str]:
        """Return the devices to call for, ``[""]`` for the event as a whole, nothing where it is not wanted."""
        if self.account is not None and event.account != self.account:
            return []
        if not self.per_device:
            return [""] if not self.words or event.kind in self.words else []
        return [device.device_id for device in event.devices if not self.words or device.state in self.words]

    def arguments(self, event: CallbackEvent, device_id: str) -> tuple[Any, ...]:
        """Return what to call the function with.

        Raises:
            LookupError: The callback does not name the device: it was to be handled by a function of another shape,
                which has this one's name now.
        """
        if not self.per_device:
            return (event,)
        named = [device for device in event.devices if device.device_id == device_id]
        if not named:
            raise LookupError(f"callback {event.id} names no device {device_id[-4:]!r}, as the handler now wants")
        # None is wanted where the handler asked for other states when the callback came.
        wanted = [device for device in named if not self.words or device.state in self.words]
        return (event, (wanted or named)[-1])

    def subscription(self) -> Subscription:
        """Return what the inbox needs to know of it."""
        return Subscription(self.name, self.wants)


class HandlerTable:
    """Hold handlers, in the order in which they were registered."""

    def __init__(self) -> None:
        self.handlers: list[Handler] = []

    def on(
        self,
        *kinds: str,
        account: str | None = None,
        max_attempts: int = 12,
        backoff_seconds: float = 1.0,
        max_backoff_seconds: float = 600.0,
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """Register ``handler(event)`` for callbacks of these kinds.

        Args:
            kinds: Such as ``upgradeProgress``; none means every kind.
            account: Only callbacks that name this account.
            max_attempts: Tries before a callback becomes a dead letter.
            backoff_seconds: The longest wait before the second try; it doubles with each.
            max_backoff_seconds: No wait is longer.

        Returns:
            A decorator that leaves the function as it is.

        Raises:
            TypeError: What is decorated does not take one argument, or a kind is no string.
            ValueError: A figure is out of range, or the same function is registered twice.
        """
        words = _words(kinds, normalize_kind, "on")
        schedule = RetrySchedule(
            max_attempts=max_attempts, backoff_seconds=backoff_seconds, max_backoff_seconds=max_backoff_seconds
        )

        def register(function: HandlerFunction) -> HandlerFunction:
            self._add(function, per_device=False, words=words, account=account, schedule=schedule)
            return function

        return register

    def on_device(
        self,
        *statuses: str,
        account: str | None = None,
        max_attempts: int = 12,
        backoff_seconds: float = 1.0,
        max_backoff_seconds: float = 600.0,
    ) -> Callable[[DeviceFunction], DeviceFunction]:
        """Register ``handler(event, device)`` for devices that callbacks report in these states.

        Each device is work of its own: one device's failure never reruns the others.

        Args:
            statuses: Such as ``UpgradeFailed``, in any of the provider's spellings; none means every state.
            account: Only callbacks that name this account.
            max_attempts: Tries before a device becomes a dead letter.
            backoff_seconds: The longest wait before the second try; it doubles with each.
            max_backoff_seconds: No wait is longer.

        Returns:
            A decorator that leaves the function as it is.

        Raises:
            TypeError: What is decorated does not take two arguments, or a status is no string.
            ValueError: A figure is out of range, or the same function is registered twice.
        """
        words = _words(statuses, normalize_device, "on_device")
        schedule = RetrySchedule(
            max_attempts=max_attempts, backoff_seconds=backoff_seconds, max_backoff_seconds=max_backoff_seconds
        )

        def register(function: DeviceFunction) -> DeviceFunction:
            self._add(function, per_device=True, words=words, account=account, schedule=schedule)
            return function

        return register

    def _add(
        self,
        function: Callable[..., Any],
        *,
        per_device: bool,
        words: frozenset[str],
        account: str | None,
        schedule: RetrySchedule,
    ) -> None:
        _check_arguments(function, 2 if per_device else 1)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{_name(function)} contains yield: it would return without having run")
        if account is not None:
            check_account(account)
        name = _name(function)
        if any(handler.name == name for handler in self.handlers):
            raise ValueError(f"{name} is registered twice: one handler has one name, under which its work is kept")
        self.handlers.append(Handler(name, function, per_device, words, account, schedule))


def _words(words: tuple[object, ...], normalize: Callable[[str], str], decorator: str) -> frozenset[str]:
    for word in words:
        if not isinstance(word, str):
            raise TypeError(f"@app.{decorator} takes names, such as @app.{decorator}('…'), not {type(word).__name__}")
    return frozenset(str(normalize(str(word))) for word in words)


def _check_arguments(function: Callable[..., Any], count: int) -> None:
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        takes = "handler(event, device)" if count == 2 else "handler(event)"  # noqa: PLR2004
        raise TypeError(f"{_name(function)} must be callable as {takes}") from None
    except ValueError:
        return  # a builtin that has no signature


def _name(function: Callable[..., Any]) -> str:
    module = getattr(function, "__module__", None) or type(function).__module__
    if module == "__main__":
        # Run as a script and imported by name, one handler keeps one name.
        path = getattr(sys.modules["__main__"], "__file__", None)
        module = Path(path).stem if path else module
    return f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"
