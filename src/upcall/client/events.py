"""What a call tells while it runs: to the log, and to the hooks that a user gave. No event holds a secret or a body."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, TypeAlias
from weakref import WeakSet

import msgspec

from upcall.redact import BLANK, scrub

__all__ = ["CallEvent", "EventHook", "EventKind", "Observer", "shown_headers"]

EventKind: TypeAlias = Literal[
    "sent",
    "answered",
    "lost",
    "waiting",
    "read_back",
    "token_fetched",
    "token_dropped",
    "logged_in",
    "login_refused",
]

_LEVELS: Final[Mapping[EventKind, int]] = {
    "sent": logging.DEBUG,
    "answered": logging.DEBUG,
    "lost": logging.WARNING,
    "waiting": logging.WARNING,
    "read_back": logging.WARNING,
    "token_fetched": logging.INFO,
    "token_dropped": logging.INFO,
    "logged_in": logging.INFO,
    "login_refused": logging.WARNING,
}

_SHOWN_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "request-id",
        "retry-after",
        "server",
        "user-agent",
        "x-correlation-id",
        "x-request-id",
    }
)
"""The headers whose values are shown: whatever else a request or an answer carries may be a secret."""

_MAX_HEADER: Final = 200
_WIRE_LOGGERS: Final = (
    "httpx2",
    *(f"httpcore2.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")),
    *(f"hpack.{part}" for part in ("hpack", "table", "huffman", "struct")),
)
"""The loggers of the libraries below, some of which show headers at DEBUG."""

_PACKED: Final = ("Encoded header block", "Decoding")

_logger = logging.getLogger("upcall.client")
_logger.addHandler(logging.NullHandler())  # else warnings go to stderr where no logging is set up


class CallEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one thing that happened to a call.

    Args:
        kind: ``sent``; ``answered``, with any status; ``lost``, sent or not, without an answer; ``waiting`` before
            another try; ``read_back``, before a write is repeated; ``token_fetched``, ``token_dropped``,
            ``logged_in`` or ``login_refused``.
        operation: The operation's name, such as ``register_callback``.
        method: The HTTP verb.
        url: Where it goes, without the query.
        attempt: Which try this is, from 1.
        status: The answer's status.
        request_id: The provider's id for the request.
        headers: The request's or the answer's; values outside an allow-list are blanked.
        reason: Why, in words: what was lost, why there is a wait, which token it is.
        wait_seconds: How long the wait will be.
        elapsed_seconds: Since the call began.
    """

    kind: EventKind
    operation: str
    method: str
    url: str
    attempt: int = 0
    status: int | None = None
    request_id: str | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    reason: str | None = None
    wait_seconds: float | None = None
    elapsed_seconds: float = 0.0

    def __str__(self) -> str:
        facts = [
            f"attempt {self.attempt}" if self.attempt else None,
            f"status {self.status}" if self.status is not None else None,
            self.reason,
            f"{self.wait_seconds:.3f} s" if self.wait_seconds is not None else None,
            f"request id {self.request_id}" if self.request_id else None,
            f"after {self.elapsed_seconds:.3f} s",
            " ".join(f"{name}={value!r}" for name, value in self.headers.items()) or None,
        ]
        happened = self.kind.replace("_", " ")
        return f"{self.operation} {happened}: {self.method} {self.url}, {', '.join(fact for fact in facts if fact)}"


EventHook: TypeAlias = Callable[[CallEvent], object]
"""What a user gives to be told: it is called in the calling thread or event loop, and should be quick."""


class Observer:
    """Tell the log and the hooks what happens.

    Args:
        hooks: The user's hooks. One that raises is logged, and breaks no call.
        secrets: What must never be shown, asked for when something is.
    """

    def __init__(self, hooks: Iterable[EventHook], secrets: Callable[[], Iterable[str]]) -> None:
        self._hooks = tuple(hooks)
        self.secrets = secrets
        _guard.watch(self)

    def wants(self, kind: EventKind) -> bool:
        """Tell whether anybody would see an event: making one costs time."""
        return bool(self._hooks) or _logger.isEnabledFor(_LEVELS[kind])

    def tell(self, event: CallEvent) -> None:
        """Tell everybody."""
        _logger.log(_LEVELS[event.kind], "%s", event, extra={"call_event": event})
        for hook in self._hooks:
            try:
                hook(event)
            except Exception:
                _logger.exception("the event hook %r failed", hook)

    def scrub(self, text: str) -> str:
        """Blank the secrets in a text."""
        return scrub(text, self.secrets()) or ""

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return headers as they may be shown."""
        return shown_headers({name: self.scrub(value) for name, value in headers.items()})


def shown_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with the value of each one blanked that is not on the allow-list."""
    return {
        name.lower(): value[:_MAX_HEADER] if name.lower() in _SHOWN_HEADERS else BLANK
        for name, value in headers.items()
    }


class _Guard(logging.Filter):
    """Blank our secrets in what the libraries below us log."""

    def __init__(self) -> None:
        super().__init__()
        self._observers: WeakSet[Observer] = WeakSet()
        self._lock = threading.RLock()  # a set that grows while it is read breaks the reader

    def watch(self, observer: Observer) -> None:
        with self._lock:
            if not self._observers:
                for name in _WIRE_LOGGERS:
                    logging.getLogger(name).addFilter(self)
            self._observers.add(observer)

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        # A packed header block holds our headers in another alphabet.
        packed = next((words for words in _PACKED if text.startswith(words)), None)
        clean = f"{packed} {BLANK}" if packed else text
        # All at once: blanking one client's token first could leave half of another's.
        with self._lock:
            observers = list(self._observers)
        clean = scrub(clean, [secret for observer in observers for secret in observer.secrets()]) or ""
        if clean != text:
            record.msg, record.args = clean, None
        return True


_guard = _Guard()
