"""What came back: the answer as a value, and the error bodies that the provider and its gateway write.

Four shapes of error are known, beside XML, HTML and nothing at all. Whatever the body is, the status survives.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any, Final, Literal

import msgspec

__all__ = [
    "MAX_REQUEST_ID",
    "Answer",
    "Complaint",
    "UnreadableError",
    "decode_json",
    "is_empty",
    "is_success",
    "read_complaint",
]

_BOM = b"\xef\xbb\xbf"
_XML_CODE = re.compile(rb"<(?:\w+:)?code>\s*([\w.-]{1,64})\s*</")
_XML_MESSAGE = re.compile(rb"<(?:\w+:)?message>\s*([^<]{1,500}?)\s*</")
MAX_REQUEST_ID: Final = 128
"""How much of a request id is shown, once secrets in it are blanked: one across the cut would show its beginning."""
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-correlation-id")


class UnreadableError(ValueError):
    """Say, inside the client, what is wrong with a body; callers see `UndecodableAnswerError`."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one HTTP answer; `repr` shows neither headers nor body.

    Args:
        status: The HTTP status.
        headers: Names in lower case.
        body: The body, decompressed.
        flaw: Why the body is not whole: ``cut`` off, ``too_large``, or ``garbled`` compression.
    """

    status: int
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""
    flaw: Literal["cut", "too_large", "garbled"] | None = None

    def __repr__(self) -> str:
        return f"Answer(status={self.status}, {len(self.body)} bytes)"

    @property
    def request_id(self) -> str | None:
        """Return the provider's id for the request, where it sent one."""
        for name in _REQUEST_ID_HEADERS:
            if value := self.headers.get(name):
                return value
        return None


class Complaint(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what an error body says.

    Args:
        shape: ``result`` for ``{errorCode, errorMessage}``, ``fault`` for the gateway's JSON, ``oauth`` for
            ``{error, error_description}``, ``xml`` for the gateway's XML, ``none`` for everything else.
        code: The provider's code.
        message: The provider's text.

    Source: Connectivity Management error pages (documented there; that this API answers alike is inferred).
    """

    shape: Literal["result", "fault", "oauth", "xml", "none"] = "none"
    code: str | None = None
    message: str | None = None

    def names_session(self) -> bool:
        """Tell whether it is the session token that is refused: a service's prefix may precede the code."""
        return any("SessionToken." in text for text in (self.code, self.message) if text)


def is_success(answer: Answer) -> bool:
    """Tell whether the status is 2xx."""
    return 200 <= answer.status < 300  # noqa: PLR2004


def decode_json(body: bytes) -> Any:
    """Decode a JSON body in any UTF encoding, and, whatever its charset is said to be, one that is none of them.

    Raises:
        UnreadableError: It is not JSON.
    """
    try:
        return msgspec.json.decode(body.removeprefix(_BOM))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    for text in (body, body.decode("latin-1")):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
    raise UnreadableError("is not JSON")


def is_empty(body: bytes) -> bool:
    """Tell whether a body says nothing: zero bytes, ``{}``, ``[]`` or ``null``."""
    text = body.removeprefix(_BOM).strip()
    return text in {b"", b"null"} or b"".join(text.split()) in {b"{}", b"[]"}


def read_complaint(answer: Answer) -> Complaint:
    """Read an error body of any shape, or of none; never fail."""
    try:
        document = decode_json(answer.body)
    except UnreadableError:
        return _read_xml(answer.body)
    if not isinstance(document, dict):
        return Complaint()
    if "fault" in document:
        return _read_fault(document["fault"])
    if "errorCode" in document or "errorMessage" in document:
        return Complaint(shape="result", code=_text(document, "errorCode"), message=_text(document, "errorMessage"))
    if "error" in document and not isinstance(document["error"], dict | list):
        return Complaint(shape="oauth", code=_text(document, "error"), message=_text(document, "error_description"))
    return Complaint()


def _read_fault(fault: Any) -> Complaint:
    if not isinstance(fault, dict):
        return Complaint(shape="fault", message=fault if isinstance(fault, str) else None)
    return Complaint(shape="fault", code=_text(fault, "code"), message=_text(fault, "message"))


def _read_xml(body: bytes) -> Complaint:
    if b"fault" not in body[:512]:
        return Complaint()
    from xml.sax.saxutils import unescape  # noqa: PLC0415 - rare, and takes long to load

    code, message = _XML_CODE.search(body), _XML_MESSAGE.search(body)
    return Complaint(
        shape="xml",
        code=code[1].decode("ascii", "replace") if code else None,
        message=unescape(message[1].decode("utf-8", "replace")) if message else None,
    )


def _text(document: dict[str, Any], key: str) -> str | None:
    """Return a member as text: codes do come as numbers."""
    value = document.get(key)
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
