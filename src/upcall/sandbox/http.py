"""HTTP over bare ASGI: one request in, one answer out, and the provider's four shapes of error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

__all__ = [
    "MAX_BODY_BYTES",
    "NO_RESOURCE",
    "RESET_EXTENSION",
    "Answer",
    "ConnectionEnded",
    "Request",
    "RequestError",
    "fault",
    "html_answer",
    "invalid_parameter",
    "json_answer",
    "oauth_error",
    "provider_error",
    "read_request",
    "send_answer",
    "wrong_authentication",
]

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""The largest request body: room for a campaign of a million devices."""

RESET_EXTENSION: Final = "upcall.reset"
"""The name under which a server's scope says how its connection is ended without an answer."""

_JSON: Final = ("content-type", "application/json")
_NO_STORE: Final = ("cache-control", "no-store")
_PAGE: Final = (
    b"<html><head><title>Service unavailable</title></head><body><h1>Please try again later.</h1></body></html>"
)
_XML_FAULT: Final = (
    b'<am:fault xmlns:am="http://wso2.org/apimanager"><am:code>404</am:code><am:type>Status report</am:type>'
    b"<am:message>Not Found</am:message><am:description>The requested resource is not available."
    b"</am:description></am:fault>"
)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one request as it was received.

    Args:
        method: GET, POST, PUT, DELETE and so on.
        segments: The path's segments, each percent-decoded after the path was split.
        query: The query's members; of several with one name, the last.
        headers: Header fields under lower-case names; of several with one name, the last.
        body: The body.
        peer: The address that it came from, None where the server does not say.
    """

    method: str
    segments: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    peer: str | None

    def json_object(self) -> dict[str, Any]:
        """Return the decoded body where it is an object, whatever content type it was sent with.

        Raises:
            RequestError: It is empty, no JSON, or no object.
        """
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise RequestError(invalid_parameter("Input binding error")) from None

    def form(self) -> dict[str, str]:
        """Return the members of a form body, empty where it is none."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))


class Answer(msgspec.Struct, frozen=True):
    """Hold one answer.

    Args:
        status: The HTTP status.
        body: The body.
        headers: Header fields.
        note: What its line in the log adds; empty for nothing.
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    note: str = ""


class ConnectionEnded(Exception):  # noqa: N818 - it ends the connection, and is no mistake
    """Say that the connection ends without an answer, on purpose."""


class RequestError(Exception):
    """Carry the answer that ends a request early.

    Args:
        answer: What to send.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def json_answer(document: Any, status: int = 200, *headers: tuple[str, str]) -> Answer:
    """Return an answer with a JSON body."""
    return Answer(status, msgspec.json.encode(document), (_JSON, _NO_STORE, *headers))


def html_answer(status: int) -> Answer:
    """Return a page such as a proxy puts in the place of an answer."""
    return Answer(status, _PAGE, (("content-type", "text/html; charset=utf-8"), _NO_STORE))


def wrong_authentication() -> Answer:
    """Return what the gateway says to credentials of another kind: XML, whose inner code is not its status.

    Source: Connectivity Management, synchronous error messages (documented there; inferred here).
    """
    return Answer(403, _XML_FAULT, (("content-type", "application/xml; charset=utf-8"), _NO_STORE))


def provider_error(status: int, code: str, message: str) -> Answer:
    """Return an error in the provider's own shape.

    Source: Software Management reference, error messages (documented).
    """
    return json_answer({"errorCode": code, "errorMessage": message}, status)


def invalid_parameter(message: str) -> Answer:
    """Return the one error that the software-management pages document: 400 ``INVALID_PARAMETER``."""
    return provider_error(400, "INVALID_PARAMETER", message)


def fault(status: int, code: str, message: str, description: str) -> Answer:
    """Return an error in the gateway's shape.

    Source: Connectivity Management, synchronous error messages (documented); that Software Management's gateway
        answers alike is inferred.
    """
    return json_answer({"fault": {"code": code, "message": message, "description": description}}, status)


def oauth_error(status: int, error: str, description: str) -> Answer:
    """Return an error in OAuth2's shape.

    Source: RFC 6749, section 5.2; official SDK, ``OauthProviderException``.
    """
    return json_answer({"error": error, "error_description": description}, status)


NO_RESOURCE: Final = fault(400, "900906", "No matching resource found", "No matching resource for this API request")
"""What the gateway says to a path, or to a path's method, that it does not know (documented)."""


async def read_request(scope: Scope, receive: Receive) -> Request:
    """Read one request from the server.

    Raises:
        RequestError: Its body is over `MAX_BODY_BYTES`.
        ConnectionError: The caller went away before all of it was here.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionError("the caller went away")
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise RequestError(fault(413, "101413", "Payload Too Large", f"The limit is {MAX_BODY_BYTES} bytes"))
        parts.append(part)
        if not message.get("more_body", False):
            break
    client = scope.get("client")
    return Request(
        method=scope["method"],
        segments=_segments(scope),
        query=dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)),
        headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]},
        body=b"".join(parts),
        peer=client[0] if client else None,
    )


async def send_answer(answer: Answer, send: Send) -> None:
    """Hand an answer to the server."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _segments(scope: Scope) -> tuple[str, ...]:
    # The raw path: an account of `a%2Fb` is one segment, and must not become two.
    raw = scope.get("raw_path")
    path = raw.partition(b"?")[0].decode("latin-1") if raw else scope["path"]
    return tuple(unquote(part) if raw else part for part in path.strip("/").split("/"))
