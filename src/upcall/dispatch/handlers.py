"""Handlers and what each of them wants."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import msgspec

from upcall.dispatch.schedule import RetrySchedule
from upcall.inbox import Origin, Subscription, Transaction
from upcall.thingspace import CallbackEvent, DeviceUpdate, check_account, normalize_device, normalize_kind

__all__ = ["Handler", "HandlerTable"]

_GUARD_PREFIX = "registration."

HandlerFunction = TypeVar(
    "HandlerFunction",
    bound="Callable[[CallbackEvent], Awaitable[None] | None] | Callable[[CallbackEvent, Transaction], None]",
)
DeviceFunction = TypeVar(
    "DeviceFunction",
    bound="Callable[[CallbackEvent, DeviceUpdate], Awaitable[None] | None]"
    " | Callable[[CallbackEvent, DeviceUpdate, Transaction], None]",
)


class Handler(msgspec.Struct, frozen=True):
    """Describe one registered function.

    Args:
        name: The subscriber's name: its work is kept under it, so it must stay the same across restarts.
        function: What to call.
        per_device: Whether it is called for each device, with the event and the device.
        words: The kinds or device states that it wants, normalised; empty for all.
        account: The account whose callbacks it wants, None for all.
        schedule: How it is retried.
        concurrency: How many calls of it run at once, None for as many as the worker allows.
        ordered: Whether a campaign's callbacks are handed to it one at a time, in the order of receipt.
        transactional: Whether it is given the inbox's own transaction as its last argument.
        is_ours: Whether it is a subscriber without code: it has slots of its own beside the worker's, is not suspected
            of ending its process, and its failures are told in one line.
        aclose: Closes what the function holds open; awaited when its worker ends.
        wants_guard: Whether it wants what the guard says, such as ``registration.drift``, without naming its kind.
    """

    name: str
    function: Callable[..., Any]
    per_device: bool = False
    words: frozenset[str] = frozenset()
    account: str | None = None
    schedule: RetrySchedule = RetrySchedule()
    concurrency: int | None = None
    ordered: bool = False
    transactional: bool = False
    is_ours: bool = False
    aclose: Callable[[], Awaitable[None]] | None = None
    wants_guard: bool = False

    @property
    def is_async(self) -> bool:
        """Tell whether the function is awaited, or runs in a thread."""
        call = getattr(self.function, "__call__", None)  # noqa: B004 - an object may be called through an async method
        return inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(call)

    def wants(self, event: CallbackEvent) -> list[str]:
        """Return the devices to call for, ``[""]`` for the event as a whole, nothing where it is not wanted."""
        if self.account is not None and event.account != self.account:
            return []
        if event.origin == Origin.GUARD:
            is_named = not self.per_device and event.kind in self.words
            return [""] if is_named or self.wants_guard else []
        if not self.per_device:
            return [""] if self._wants_kind(event.kind) else []
        return [device.device_id for device in event.devices if not self.words or device.state in self.words]

    def _wants_kind(self, kind: str | None) -> bool:
        # Anybody can send a callback that bears the name of what the guard says.
        return not self.words or (kind in self.words and not str(kind).startswith(_GUARD_PREFIX))

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
        return Subscription(self.name, self.wants, ordered=self.ordered)


class _Options(TypedDict):
    """Hold what a decorator was given, in the handler's own words."""

    per_device: bool
    words: frozenset[str]
    account: str | None
    schedule: RetrySchedule
    concurrency: int | None
    ordered: bool
    transactional: bool


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
        concurrency: int | None = None,
        ordered: bool = False,
        transactional: bool = False,
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """Register ``handler(event)`` for callbacks of these kinds.

        Args:
            kinds: Such as ``upgradeProgress``; none means every kind that the provider sends. What Upcall itself says,
                ``registration.drift``, has to be named.
            account: Only callbacks that name this account.
            max_attempts: Tries before a callback becomes a dead letter.
            backoff_seconds: The longest wait before the second try; it doubles with each.
            max_backoff_seconds: No wait is longer.
            concurrency: How many calls of it run at once in a worker, at least 1; None for as many as the worker runs.
            ordered: Hand a campaign's callbacks to it one at a time, in the order of receipt: one that fails holds up
                its campaign's later ones until it is done or dead.
            transactional: Give it the inbox's own transaction as its last argument: what it writes through that takes
                effect exactly once. It must be a plain function, and short: the store is locked while it runs.

        Returns:
            A decorator that leaves the function as it is.

        Raises:
            TypeError: What is decorated does not take these arguments, is async and transactional, or a kind is no
                string.
            ValueError: A figure is out of range, or the same function is registered twice.
        """
        options = _Options(
            per_device=False,
            words=_words(kinds, normalize_kind, "on"),
            account=account,
            schedule=RetrySchedule(
                max_attempts=max_attempts, backoff_seconds=backoff_seconds, max_backoff_seconds=max_backoff_seconds
            ),
            concurrency=_checked_concurrency(concurrency),
            ordered=ordered,
            transactional=transactional,
        )

        def register(function: HandlerFunction) -> HandlerFunction:
            self._add(function, options)
            return function

        return register

    def on_device(
        self,
        *statuses: str,
        account: str | None = None,
        max_attempts: int = 12,
        backoff_seconds: float = 1.0,
        max_backoff_seconds: float = 600.0,
        concurrency: int | None = None,
        ordered: bool = False,
        transactional: bool = False,
    ) -> Callable[[DeviceFunction], DeviceFunction]:
        """Register ``handler(event, device)`` for devices that callbacks report in these states.

        Each device is work of its own: one device's failure never reruns the others.

        Args:
            statuses: Such as ``UpgradeFailed``, in any of the provider's spellings; none means every state.
            account: Only callbacks that name this account.
            max_attempts: Tries before a device becomes a dead letter.
            backoff_seconds: The longest wait before the second try; it doubles with each.
            max_backoff_seconds: No wait is longer.
            concurrency: How many calls of it run at once in a worker, at least 1; None for as many as the worker runs.
            ordered: Hand a campaign's callbacks to it one at a time, in the order of receipt: one that fails holds up
                its campaign's later ones until it is done or dead.
            transactional: Give it the inbox's own transaction as its last argument: what it writes through that takes
                effect exactly once. It must be a plain function, and short: the store is locked while it runs.

        Returns:
            A decorator that leaves the function as it is.

        Raises:
            TypeError: What is decorated does not take these arguments, is async and transactional, or a status is no
                string.
            ValueError: A figure is out of range, or the same function is registered twice.
        """
        options = _Options(
            per_device=True,
            words=_words(statuses, normalize_device, "on_device"),
            account=account,
            schedule=RetrySchedule(
                max_attempts=max_attempts, backoff_seconds=backoff_seconds, max_backoff_seconds=max_backoff_seconds
            ),
            concurrency=_checked_concurrency(concurrency),
            ordered=ordered,
            transactional=transactional,
        )

        def register(function: DeviceFunction) -> DeviceFunction:
            self._add(function, options)
            return function

        return register

    def _add(self, function: Callable[..., Any], options: _Options) -> None:
        name = _name(function)
        _check_arguments(function, per_device=options["per_device"], transactional=options["transactional"])
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{name} contains yield: it would return without having run")
        if options["account"] is not None:
            check_account(options["account"])
        if any(handler.name == name for handler in self.handlers):
            raise ValueError(f"{name} is registered twice: one handler has one name, under which its work is kept")
        handler = Handler(name, function, **options)
        if handler.transactional and handler.is_async:
            raise TypeError(f"{name} is async: a transactional handler is a plain function, for the store is locked")
        self.handlers.append(handler)


def _words(words: tuple[object, ...], normalize: Callable[[str], str], decorator: str) -> frozenset[str]:
    for word in words:
        if not isinstance(word, str):
            raise TypeError(f"@app.{decorator} takes names, such as @app.{decorator}('…'), not {type(word).__name__}")
    return frozenset(str(normalize(str(word))) for word in words)


def _checked_concurrency(concurrency: int | None) -> int | None:
    if concurrency is not None and concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, not {concurrency}")
    return concurrency


def _check_arguments(function: Callable[..., Any], *, per_device: bool, transactional: bool) -> None:
    names = ["event", *(["device"] if per_device else []), *(["transaction"] if transactional else [])]
    try:
        inspect.signature(function).bind(*names)
    except TypeError:
        raise TypeError(f"{_name(function)} must be callable as handler({', '.join(names)})") from None
    except ValueError:
        return  # a builtin that has no signature


def _name(function: Callable[..., Any]) -> str:
    module = getattr(function, "__module__", None) or type(function).__module__
    if module == "__main__":
        # Run as a script and imported by name, one handler keeps one name.
        path = getattr(sys.modules["__main__"], "__file__", None)
        module = Path(path).stem if path else module
    return f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"
