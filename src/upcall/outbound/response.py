"""An answer as its bytes come in, however they are cut."""

from __future__ import annotations

from typing import Final

import httptools
import msgspec

__all__ = ["Answer", "MalformedAnswerError", "ResponseReader"]

MAX_HEAD_BYTES: Final = 64 * 1024
"""How long an answer's head may be, with the 1xx heads before it."""

_FRAMED: Final = 8
"""How many times its size a body may take with what frames it: a piece of one byte takes six."""

_SWITCHING_PROTOCOLS: Final = 101


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what came back.

    Args:
        status: The HTTP status; a redirect is returned, never followed.
        body: The body's beginning, up to the cap.
        truncated: Whether there was more.
        elapsed_seconds: From the call to the end of the body.
        retry_after: The text of its ``Retry-After``, where there is one.
    """

    status: int
    body: bytes
    truncated: bool
    elapsed_seconds: float
    retry_after: str | None = None


def _parser(reader: ResponseReader) -> httptools.HttpResponseParser:
    parser = httptools.HttpResponseParser(reader)
    # Receivers of one's own are sloppy at times. It lets nothing in: one answer is read, and nothing may follow it.
    parser.set_dangerous_leniencies(
        lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
    )
    return parser


class MalformedAnswerError(Exception):
    """Say that what comes in is not an answer, or one without an end."""


class ResponseReader:
    """Read one answer to a POST; it does no I/O.

    Args:
        max_body_bytes: How much of the body is kept. An answer with more of it is whole where the cap is passed.
    """

    __slots__ = (
        "_body",
        "_has_head",
        "_is_framed",
        "_max_body_bytes",
        "_parser",
        "_received",
        "is_complete",
        "keeps_alive",
        "retry_after",
        "status",
    )

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._parser: httptools.HttpResponseParser | None = _parser(self)
        self._received = 0
        self._has_head = False
        self._is_framed = False
        self._body: bytearray | None = None
        self.is_complete: bool = False
        self.keeps_alive: bool = False
        """Whether the connection can carry another request, when the answer is whole."""
        self.status: int = 0
        self.retry_after: str | None = None

    @property
    def is_begun(self) -> bool:
        """Tell whether anything came."""
        return self._received > 0

    @property
    def is_truncated(self) -> bool:
        """Tell whether there was more of the body than is kept."""
        return self._body is not None and len(self._body) > self._max_body_bytes

    @property
    def body(self) -> bytes:
        """Return the body, up to the cap."""
        return bytes(self._body[: self._max_body_bytes]) if self._body else b""

    def feed(self, data: bytes) -> bool:
        """Read on; tell whether the answer is whole.

        Raises:
            MalformedAnswerError: This is not HTTP, or there is too much of it.
        """
        self._received += len(data)
        try:
            self._parse(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.keeps_alive = False  # what follows a whole answer is nothing that was asked for
            if not self.is_complete:
                self._parser = None
                raise MalformedAnswerError from None
        if self.is_complete:
            self._parser = None  # it and the reader hold each other
        elif self._received > MAX_HEAD_BYTES + _FRAMED * self._max_body_bytes:
            self._parser = None
            raise MalformedAnswerError
        return self.is_complete

    def end(self) -> bool:
        """Take in that nothing more comes; tell whether the answer is whole: some end with their connection."""
        self._parser = None
        self.keeps_alive = False
        self.is_complete = self.is_complete or (self._has_head and not self._is_framed)
        return self.is_complete

    def _parse(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            raise httptools.HttpParserError
        room = MAX_HEAD_BYTES - self._received + len(data)
        if self._has_head or len(data) <= room:
            parser.feed_data(data)
        else:
            parser.feed_data(data[:room])
            self._require_head()
            parser.feed_data(data[room:])

    def _require_head(self) -> None:
        if not self._has_head:
            raise httptools.HttpParserError

    # what the parser calls

    def on_message_begin(self) -> None:
        """Note a second answer behind the first."""
        if self.is_complete:
            self.keeps_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Read the headers that matter here; those behind a body do not."""
        if self._has_head:
            return
        name = name.lower()
        if name == b"content-length":
            self._is_framed = True
        elif name == b"transfer-encoding":
            self._is_framed = value.lower().rpartition(b",")[2].strip() == b"chunked"
        elif name == b"retry-after":
            self.retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Take the status; one of the 1xx is not the answer yet."""
        parser = self._parser
        if self._has_head or parser is None:
            return
        status = parser.get_status_code()
        if status >= 200:  # noqa: PLR2004 - the first that is an answer
            self._has_head = True
            self.status = status
            self.keeps_alive = parser.should_keep_alive()
        elif status < 100 or status == _SWITCHING_PROTOCOLS:  # noqa: PLR2004 - none such is defined
            raise ValueError(status)
        else:
            self._is_framed = False
            self.retry_after = None

    def on_body(self, part: bytes) -> None:
        """Keep the body up to the cap, and one byte to know of more."""
        if self.is_complete:
            return
        if self._body is None:
            self._body = bytearray()
        self._body += part[: self._max_body_bytes + 1 - len(self._body)]
        if len(self._body) > self._max_body_bytes:
            self.is_complete = True
            self.keeps_alive = False

    def on_message_complete(self) -> None:
        """Note the end."""
        if self._has_head:
            self.is_complete = True
