"""``--forward`` and ``--forward-raw``: POST each event to a receiver of one's own."""

from __future__ import annotations

import base64
import functools
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import msgspec

from upcall.dispatch.control import GiveUp, RetryLater
from upcall.errors import DeliveryError
from upcall.inbox import Origin
from upcall.outbound import GuardedPoster, OwnTarget
from upcall.redact import blank_password
from upcall.thingspace import text_of_micros

if TYPE_CHECKING:
    from collections.abc import Callable

    from upcall.dispatch.subscribers.signing import Signer
    from upcall.outbound import Answer
    from upcall.thingspace import CallbackEvent

__all__ = ["Forward", "cloud_event"]

TOTAL_TIMEOUT_SECONDS: Final = 15.0
CONNECT_TIMEOUT_SECONDS: Final = 10.0
MAX_RESPONSE_BYTES: Final = 64 * 1024
LONGEST_RETRY_AFTER_SECONDS: Final = 3600.0
_GONE: Final = 410
_WAIT_STATUSES: Final = frozenset({429, 503})
_TYPE_PREFIX: Final = "com.verizon.thingspace.fota."
_GUARD_TYPE_PREFIX: Final = "upcall."
_USER_AGENT: Final = "Upcall"

_encode = msgspec.json.Encoder().encode
_check = msgspec.json.Decoder(msgspec.Raw).decode


class Forward:
    """POST events to one URL, as CloudEvents or as they were received.

    Args:
        url: Where to.
        raw: Send the body as it was received, in place of a CloudEvent.
        signer: Signs each request, None for unsigned.
        clock: Seconds since 1970.
    """

    def __init__(self, url: str, *, raw: bool, signer: Signer | None, clock: Callable[[], float] = time.time) -> None:
        content_type = "application/json" if raw else "application/cloudevents+json"
        self._url, authorization = _without_user(url)
        self._fixed_headers = {"Content-Type": content_type, "User-Agent": _USER_AGENT, **authorization}
        self._raw = raw
        self._signer = signer
        self._clock = clock
        self._origin = _origin(url)
        self._poster: GuardedPoster | None = None

    async def __call__(self, event: CallbackEvent) -> None:
        """Send one event; any 2xx is its end.

        Raises:
            GiveUp: The receiver answered 410: it wants no more of it.
            RetryLater: It answered 429 or 503 and said when to come again.
            DeliveryError: No whole answer came, or another one.
        """
        body = event.raw if self._raw else cloud_event(event)
        answer = await self._open().post(self._url, body, self._headers(event, body))
        if not 200 <= answer.status < 300:  # noqa: PLR2004 - any 2xx is its end
            self._refused(answer)

    async def aclose(self) -> None:
        """Close the connections; the next event opens them again."""
        poster, self._poster = self._poster, None
        if poster is not None:
            await poster.aclose()

    def _open(self) -> GuardedPoster:
        if self._poster is None:
            self._poster = GuardedPoster(
                OwnTarget.of(self._url),
                connect_timeout_seconds=CONNECT_TIMEOUT_SECONDS,
                total_timeout_seconds=TOTAL_TIMEOUT_SECONDS,
                max_response_bytes=MAX_RESPONSE_BYTES,
            )
        return self._poster

    def _headers(self, event: CallbackEvent, body: bytes) -> dict[str, str]:
        if self._signer is None:
            return self._fixed_headers | {"webhook-id": event.key}
        return self._fixed_headers | self._signer.headers(event.key, int(self._clock()), body)

    def _refused(self, answer: Answer) -> None:
        said = f"{self._origin} answered {answer.status}"
        if answer.status == _GONE:
            raise GiveUp(f"{said}: it is gone.")
        if answer.status in _WAIT_STATUSES:
            seconds = retry_after_seconds(answer.retry_after, wall_now=self._clock())
            if seconds:
                raise RetryLater(min(seconds, LONGEST_RETRY_AFTER_SECONDS), said)
        raise DeliveryError(f"{said}.", kind="protocol")


def cloud_event(event: CallbackEvent) -> bytes:
    """Return an event as CloudEvents 1.0 in structured JSON; the same bytes each time.

    ``data`` is the body's JSON, a V1 password blanked; a body that is no strict JSON in UTF-8 is ``data_base64``. What
    the provider did not send says so in ``upcallorigin``.
    """
    is_guards = event.origin == Origin.GUARD
    document: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.key,
        "source": _source("upcall" if is_guards else "thingspace", event.account),
        "type": f"{_GUARD_TYPE_PREFIX if is_guards else _TYPE_PREFIX}{event.kind or 'unknown'}",
        "time": text_of_micros(event.received_at),
        "upcallid": str(event.id),
    }
    if event.origin != Origin.RECEIVED:
        document["upcallorigin"] = event.origin
    if event.campaign_id:
        document["subject"] = event.campaign_id
    body = blank_password(event.raw)
    if _is_strict_json(body):
        document["datacontenttype"] = "application/json"
        document["data"] = msgspec.Raw(body)
    else:
        document["datacontenttype"] = "application/octet-stream"
        document["data_base64"] = base64.b64encode(body).decode()
    return _encode(document)


@functools.lru_cache(maxsize=1024)
def _source(whose: str, account: str | None) -> str:
    return f"/{whose}/accounts/{quote(account, safe='')}" if account else f"/{whose}"


def retry_after_seconds(header: str | None, *, wall_now: float) -> float:
    """Read a ``Retry-After`` header in either form; 0 where it is absent or unreadable.

    Args:
        header: The header's value: seconds, or an HTTP date.
        wall_now: Now, in seconds since 1970.

    Source: RFC 9110, section 10.2.3.
    """
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - the header is rare

    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:10]), 10**9))
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - wall_now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0


def _is_strict_json(body: bytes) -> bool:
    try:
        _check(body)
        body.decode()
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _without_user(url: str) -> tuple[str, dict[str, str]]:
    """Return a URL without the user name in it, and the header that says it in its place.

    Source: RFC 7617, section 2.
    """
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    name, _, password = user.partition(":")
    encoded = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {encoded}"}


def _origin(url: str) -> str:
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port}" if parts.port else f"{parts.scheme}://{host}"
