"""Whatever the provider answers, a caller gets a result or one error of ours, which tells the facts and no secret."""

import copy
import gzip
import html
import json
import logging
import pickle
import re
import time
import traceback
import zlib
from dataclasses import dataclass
from email.utils import formatdate

import pytest

from upcall.errors import (
    AnsweredError,
    CredentialsError,
    FotaV2ResultException,
    NoAnswerError,
    ThingSpaceError,
    UndecodableAnswerError,
)

URL = "https://listener.example.com:50559/callbacks/one"
REQUEST_ID = "req-7d1f-0042"
MARKER = "marker-in-the-body-5c1e"
METHODS = {"list": "GET", "register": "POST", "update": "PUT", "deregister": "DELETE"}


# --- The answers ---------------------------------------------------------------------------------------------------


def head(status, *fields, length=None, version="1.1", request_id=REQUEST_ID):
    lines = [f"HTTP/{version} {status} Odd", *fields]
    lines += [f"X-Request-Id: {request_id}"] if request_id is not None else []
    lines += [f"Content-Length: {length}"] if length is not None else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def whole(status, body=b"", *fields, **options):
    if isinstance(body, (dict, list)):
        body, fields = json.dumps(body).encode(), ("Content-Type: application/json", *fields)
    return head(status, *fields, length=len(body), **options) + body


def chunks(*pieces):
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def flood(count=None, size=1 << 20):
    """Make a body larger than any answer of this API, while it is being sent."""

    def produce(server):
        piece = chunks((MARKER + "x" * size).encode()[:size])
        yield from (piece for _ in range(count or 1 << 30))
        yield b"0\r\n\r\n"

    return produce


def lasting(piece, seconds=2.5):
    """Repeat a piece for longer than any client here may wait, yet not for ever."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield piece


def echoing(status, make, **options):
    """Answer with what `make` does with all that is secret, as providers echo what they were sent."""
    return lambda server: whole(status, make(" ".join(server.secrets().values())), **options)


def xml(code, message):
    return (
        '<am:fault xmlns:am="http://wso2.org/apimanager">'
        f"<am:code>{code}</am:code><am:type>Status report</am:type><am:message>{html.escape(message)}</am:message>"
        f"<am:description>{MARKER}</am:description></am:fault>"
    ).encode()


BLANKS = " ".join(["***"] * 5)
RESULT = {"errorCode": "INVALID_PARAMETER", "errorMessage": "Invalid account name format", "trace": MARKER}
OF_RESULT = {"code": RESULT["errorCode"], "message": RESULT["errorMessage"]}
FAULT = {"fault": {"code": "900901", "message": "Invalid Credentials", "description": MARKER}}
OAUTH = {"error": "server_error", "error_description": "Try later", "error_uri": MARKER}
OF_FAULT = {"code": "900901", "message": "Invalid Credentials"}
OF_OAUTH = {"code": "server_error", "message": "Try later"}
SESSION = {"errorCode": "UnifiedWebService.REQUEST_FAILED.SessionToken.Expired", "errorMessage": "Log in again"}
HTML = f"<!doctype html><html><title>Sign in</title><p>{MARKER}</p></html>".encode()
PAGE = (HTML, "Content-Type: text/html; charset=utf-8")
RAW = json.dumps(RESULT).encode()
JSON_TEXT = "Content-Type: application/json; charset="
CHUNKED = "Transfer-Encoding: chunked"
GZIP = "Content-Encoding: gzip"
DEEP = b'{"url":' * 50_000 + b'"' + MARKER.encode()


@dataclass(frozen=True, repr=False)
class Odd:
    """An answer, and what the error must say; `repr` shows no body, as frames hold one of these."""

    id: str
    steps: tuple
    status: int | None
    kind: type = AnsweredError
    code: str | None = None
    message: str | None = None
    request_id: str | None = REQUEST_ID
    attempts: int = 1
    operation: str = "list"
    retry_after: float | None = None
    timeout_seconds: float = 10.0

    def __repr__(self):
        return f"Odd({self.id})"


def bad(name, *steps, **said):
    return Odd(f"400-{name}", steps, 400, FotaV2ResultException, **said)


def error(name, status, *steps, **facts):
    return Odd(f"{status}-{name}", steps, status, **facts)


def unreadable(name, *steps, status=200, **facts):
    return Odd(f"{status}-{name}", steps, status, UndecodableAnswerError, **facts)


def silence(name, *steps, **facts):
    return Odd(f"none-{name}", steps, None, NoAnswerError, request_id=None, **facts)


BAD_REQUESTS = [
    bad("result", whole(400, RESULT), **OF_RESULT),
    bad("no-request-id", whole(400, RESULT, request_id=None), **OF_RESULT, request_id=None),
    bad("fault", whole(400, FAULT), **OF_FAULT),
    bad("fault-of-text", whole(400, {"fault": "Runtime Error"}), message="Runtime Error"),
    bad("oauth", whole(400, OAUTH), **OF_OAUTH),
    bad("xml", whole(400, xml("900906", "No matching resource")), code="900906", message="No matching resource"),
    bad("html", whole(400, *PAGE)),
    bad("nothing", whole(400)),
    bad("half-a-document", whole(400, RAW[:40])),
    bad("cut-off", head(400, length=len(RAW) + 9) + RAW[:40], "close"),
    bad("reset-in-the-body", head(400, length=9999) + RAW[:40], "reset"),
    bad("number-and-null", whole(400, {"errorCode": 17, "errorMessage": None, "trace": MARKER}), code="17"),
    bad("members-of-other-types", whole(400, {"errorCode": [MARKER], "errorMessage": {"text": MARKER}})),
    bad("list", whole(400, [MARKER])),
    bad("plain-text-type", whole(400, RAW, "Content-Type: text/plain"), **OF_RESULT),
    bad("utf-8-mark", whole(400, b"\xef\xbb\xbf" + RAW), **OF_RESULT),
    bad("utf-16", whole(400, json.dumps(RESULT).encode("utf-16"), f"{JSON_TEXT}utf-16"), **OF_RESULT),
    bad("latin-1", whole(400, RAW[:-1] + b', "who": "Ren\xe9e"}', f"{JSON_TEXT}iso-8859-1"), **OF_RESULT),
    bad("wrong-charset", whole(400, RAW[:-1] + b', "who": "Ren\xe9e"}', f"{JSON_TEXT}utf-8"), **OF_RESULT),
    bad("unknown-charset", whole(400, RAW, f"{JSON_TEXT}klingon"), **OF_RESULT),
    bad("deep", whole(400, DEEP)),
    bad("half-a-character", whole(400, {**RESULT, "errorCode": "A\ud800"}), **{**OF_RESULT, "code": "A\ud800"}),
    bad("more-than-16-mib", head(400, CHUNKED), flood()),
    bad("gzip", whole(400, gzip.compress(RAW), GZIP), **OF_RESULT),
    bad("bad-gzip", whole(400, RAW, GZIP)),
    bad("http-1.0", head(400, version="1.0") + RAW, "close", **OF_RESULT),
    bad(
        "after-100-and-103",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\n" + whole(400, RESULT),
        **OF_RESULT,
    ),
    bad(
        "echoing-secrets",
        echoing(400, lambda secrets: {"errorCode": f"NO {secrets}", "errorMessage": f"Got {secrets}!"}),
        code=f"NO {BLANKS}",
        message=f"Got {BLANKS}!",
    ),
]

ANSWERED = [
    error("fault", 500, whole(500, FAULT), **OF_FAULT),
    error("oauth", 500, whole(500, OAUTH), **OF_OAUTH),
    error("xml", 500, whole(500, xml("303001", "Suspended")), code="303001", message="Suspended"),
    error("result", 500, whole(500, RESULT), **OF_RESULT),
    error("nothing", 500, whole(500)),
    error("to-a-write", 500, whole(500, RESULT), **OF_RESULT, operation="register"),
    error("html", 502, whole(502, *PAGE)),
    error("html-to-a-write", 503, whole(503, *PAGE), operation="update"),
    error("reset-after-the-headers", 503, head(503, length=900), "reset"),
    error("chunk-cut-off", 504, head(504, CHUNKED) + b"ff\r\n<html>" + MARKER.encode(), "close"),
    error("body-never-comes", 500, head(500, length=900), "hold", timeout_seconds=0.3),
    error("fault", 404, whole(404, FAULT), **OF_FAULT),
    error("html", 404, whole(404, *PAGE)),
    error("nothing-to-a-write", 404, whole(404), operation="deregister"),
    error("proxy", 407, whole(407, HTML, 'Proxy-Authenticate: Basic realm="x"')),
    error("retry-after", 429, whole(429, *PAGE, "Retry-After: 7"), retry_after=7),
    error("retry-after-in-words", 429, whole(429, FAULT, "Retry-After: soon"), **OF_FAULT),
    error("teapot", 418, whole(418, *PAGE)),
    error("beyond-the-classes", 600, whole(600, RESULT), **OF_RESULT),
    error("beyond-the-classes", 999, whole(999, *PAGE)),
    error("no-location", 300, whole(300, *PAGE)),
    error("moved", 301, whole(301, HTML, "Location: /elsewhere")),
    error("found-a-login-page", 302, whole(302, b"", f"Location: /login?{MARKER}")),
    error("not-modified", 304, head(304)),
    error("moved-a-write", 307, whole(307, b"", "Location: /elsewhere"), operation="register"),
    error("moved-for-good", 308, whole(308, b"", "Location: /elsewhere"), operation="update"),
    error("nothing", 401, whole(401), kind=CredentialsError, attempts=3),
    error("html", 401, whole(401, *PAGE), kind=CredentialsError, attempts=3, operation="register"),
    error("cut-off", 401, head(401, "Connection: close", length=99), "close", kind=CredentialsError, attempts=3),
    error(
        "xml",
        403,
        whole(403, xml("404", "Not Found")),
        kind=CredentialsError,
        attempts=3,
        code="404",
        message="Not Found",
    ),
    error("fault", 401, whole(401, FAULT), kind=CredentialsError, attempts=2, **OF_FAULT),
    error("result", 403, whole(403, RESULT), kind=CredentialsError, **OF_RESULT),
    error(
        "echoing-every-token",
        403,
        echoing(403, lambda secrets: xml("900908", f"No {secrets}")),
        kind=CredentialsError,
        attempts=3,
        code="900908",
        message=f"No {BLANKS} *** ***",
    ),
    error("request-id-folded", 500, whole(500, request_id="a\r\n b"), request_id="a b"),
    error(
        "request-id-of-markup",
        500,
        whole(500, request_id="<b>%0d%0aSet-Cookie: x"),
        request_id="<b>%0d%0aSet-Cookie: x",
    ),
    error("request-id-beyond-ascii", 500, whole(500, request_id="r\xe9q"), request_id="r\xe9q"),
    error("request-id-long", 500, whole(500, request_id="r" * 4000), request_id="r" * 128),
    error(
        "request-id-cut-in-a-secret",
        500,
        lambda server: whole(500, request_id="r" * 110 + server.issued[-1]),
        request_id="r" * 110 + "***",
    ),
    error(
        "request-id-is-a-secret",
        500,
        lambda server: whole(500, FAULT, request_id=f"id {server.issued[-1]} {server.issued[0]}"),
        **OF_FAULT,
        request_id="id *** ***",
    ),
]

UNREADABLE = [
    unreadable("login-page", whole(200, *PAGE)),
    unreadable("login-page-to-a-write", whole(200, *PAGE), operation="register"),
    unreadable("xml", whole(200, xml("900901", "Invalid")), code="900901", message="Invalid"),
    unreadable("error-body", whole(200, RESULT), **OF_RESULT),
    unreadable("half-a-document", whole(200, b'{"url": "https://' + MARKER.encode())),
    unreadable("cut-off", head(200, length=99) + b'{"url": "' + MARKER.encode(), "close"),
    unreadable("chunk-cut-off", head(200, CHUNKED) + b"ff\r\n{" + MARKER.encode(), "close", operation="update"),
    unreadable("no-last-chunk", head(200, CHUNKED) + chunks(b'{"url": "x"}'), "close"),
    unreadable("garbage-for-a-chunk", head(200, CHUNKED) + f"{MARKER}\r\n".encode(), "close"),
    unreadable("reset-after-the-headers", head(200, length=99), "reset"),
    unreadable("body-never-comes", head(200, length=99), "hold", timeout_seconds=0.3),
    unreadable("bad-gzip", whole(200, MARKER.encode(), GZIP)),
    unreadable("gzip-cut-off", whole(200, gzip.compress(HTML * 99)[:60], GZIP)),
    unreadable("gzip-bomb", whole(200, gzip.compress(bytes(40 << 20), 1), GZIP)),
    unreadable("more-than-16-mib", head(200, CHUNKED), flood(17)),
    unreadable("without-end", head(200, CHUNKED), flood(), operation="register"),
    unreadable("deep", whole(200, DEEP)),
    unreadable("deep-and-closed", whole(200, b"[" * 100_000 + b"]" * 100_000)),
    unreadable("no-charset", whole(200, b"\xff\xfe\xfd\xfc" + MARKER.encode(), f"{JSON_TEXT}utf-8")),
    unreadable("number", whole(200, b"5")),
    unreadable("text", whole(200, f'"{MARKER}"'.encode())),
    unreadable("two-in-a-list", whole(200, [{"url": URL}, {"url": MARKER}])),
    unreadable("url-is-a-number", whole(200, {"url": 5, "trace": MARKER})),
    unreadable("no-url", whole(200, {"link": MARKER})),
    unreadable("nothing-to-register", whole(200), operation="register"),
    unreadable("nothing-to-update", whole(200), operation="update"),
    unreadable("braces-to-register", whole(200, b"{}"), operation="register"),
    unreadable("null-url-to-register", whole(200, {"url": None}), operation="register"),
    unreadable("nothing-to-register", head(204), status=204, operation="register"),
    unreadable("accepted-to-register", whole(202, HTML), status=202, operation="register"),
    unreadable("success-is-text", whole(200, {"success": "yes", "trace": MARKER}), operation="deregister"),
    unreadable("url-to-deregister", whole(200, {"url": URL}), operation="deregister"),
]

SILENT = [
    silence("reset", "reset"),
    silence("reset-of-a-write", "reset", operation="register"),
    silence("closed", "close"),
    silence("never", "hold", timeout_seconds=0.3),
    silence("reset-in-the-headers", head(200)[:-9], "reset"),
    silence("garbage", f"{MARKER}\r\n\r\n".encode(), "close"),
    silence("another-protocol", b"SSH-2.0-OpenSSH_9.6\r\n", "close", operation="deregister"),
    silence("nul-bytes", bytes(64), "close"),
    silence("status-of-words", b"HTTP/1.1 fine Odd\r\nContent-Length: 0\r\n\r\n", "close"),
    silence("status-of-two-digits", b"HTTP/1.1 42 Odd\r\nContent-Length: 0\r\n\r\n", "close"),
    silence("two-lengths", head(200, "Content-Length: 3", length=2) + b"{}", "close"),
    silence("length-below-zero", head(200, length=-1), "close"),
    silence("nul-in-a-header", head(200, f"X-Odd: a\0{MARKER}", length=0), "close"),
    silence("header-of-a-mebibyte", head(200, f"X-Odd: {MARKER}{'x' * (1 << 20)}", length=0), "close"),
    silence(
        "another-status-line", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: odd\r\n\r\n" + MARKER.encode(), "close"
    ),
    silence("a-few-100s", b"HTTP/1.1 100 Continue\r\n\r\n" * 50, "close"),
    silence("100s-without-end", lambda _: lasting(b"HTTP/1.1 100 Continue\r\n\r\n"), "close", timeout_seconds=0.3),
]


def result(name, expected, *steps, operation="list"):
    return pytest.param(operation, expected, steps, id=f"{operation}-{name}")


LIST = json.dumps({"url": URL}).encode()
RESULTS = [
    result("nothing", None, whole(200)),
    result("no-content", None, head(204)),
    result("blanks", None, whole(200, b" \r\n")),
    result("utf-8-mark-alone", None, whole(200, b"\xef\xbb\xbf")),
    result("braces", None, whole(200, b"{ }")),
    result("brackets", None, whole(200, b"[]")),
    result("null", None, whole(200, b"null")),
    result("url-null", None, whole(200, {"url": None})),
    result("url-empty", None, whole(200, {"url": ""})),
    result("404-nothing", None, whole(404)),
    result("404-json", None, whole(404, RESULT)),
    result("404-of-another-shape", None, whole(404, {"message": "none"})),
    result("capital-url", URL, whole(200, {"URL": URL})),
    result("one-in-a-list", URL, whole(200, [{"url": URL}])),
    result("same-key-twice", URL, whole(200, b'{"url": "https://first.example.com", "url": "%s"}' % URL.encode())),
    result("http-url", "http://1.2.3.4:50559/", whole(200, {"url": "http://1.2.3.4:50559/"})),
    result("html-type", URL, whole(200, LIST, "Content-Type: text/html")),
    result("utf-8-mark", URL, whole(200, b"\xef\xbb\xbf" + LIST)),
    result("utf-16", URL, whole(200, LIST.decode().encode("utf-16-le"))),
    result("gzip", URL, whole(200, gzip.compress(LIST), GZIP)),
    result("deflate", URL, whole(200, zlib.compress(LIST), "Content-Encoding: deflate")),
    result("identity", URL, whole(200, LIST, "Content-Encoding: identity")),
    result("http-1.0", URL, head(200, version="1.0") + LIST, "close"),
    result("no-length", URL, head(200) + LIST, "close"),
    result("odd-chunks", URL, head(200, CHUNKED) + b"%X;a=b\r\n%s\r\n0\r\nX-Odd: 1\r\n\r\n" % (len(LIST), LIST)),
    result("after-103", URL, b"HTTP/1.1 103 Early\r\n\r\n" + whole(200, LIST)),
    result("longer-than-it-says", URL, whole(200, LIST) + LIST, "close"),
    result("line-feeds-alone", URL, whole(200, LIST).replace(b"\r\n", b"\n")),
    result("a-thousand-headers", URL, whole(200, LIST, *(f"X-Odd-{n}: {n}" for n in range(1000)))),
    result("capital-url", URL, whole(201, {"URL": URL}), operation="register"),
    result("nothing", True, whole(200), operation="deregister"),
    result("no-content", True, head(204), operation="deregister"),
    result("braces", True, whole(200, b"{}"), operation="deregister"),
    result("no", False, whole(200, {"success": False}), operation="deregister"),
]

PASSING = [
    pytest.param("list", 1, [(whole(503, *PAGE),)], id="503"),
    pytest.param("list", 1, [(whole(429, FAULT, "Retry-After: 0"),)], id="429-at-once"),
    pytest.param("list", 1, [(whole(429, FAULT, "Retry-After: \xb2"),)], id="429-in-no-digits"),
    pytest.param("list", 1, [("reset",)], id="reset"),
    pytest.param("list", 1, [(head(200, length=99) + b"{", "close")], id="cut-off"),
    pytest.param("register", 1, [(whole(503, FAULT),)], id="503-to-a-write"),
    pytest.param("list", 0, [(whole(401, FAULT),)], id="stale-bearer"),
    pytest.param("register", 0, [(whole(400, SESSION),)], id="stale-session"),
    pytest.param("update", 0, [(whole(401),), (whole(403, xml("404", "No")),)], id="stale-both"),
]


# --- What is looked at -----------------------------------------------------------------------------------------------


def leaks(raised, server, log):
    """Say where a secret or the body stands: in its text, its pickle, its traceback with all locals, or the log."""
    frames = traceback.TracebackException.from_exception(raised, capture_locals=True).format()
    texts = {
        "str": str(raised),
        "repr": repr(raised),
        "attributes": repr(vars(raised)),
        "pickle": pickle.dumps(raised).decode("latin-1"),
        "traceback": "".join(frames),
        "log": log.text,
    }
    # The beginning of a secret is one too.
    parts = {what: secret[:16] for what, secret in server.secrets().items()} | {"body": MARKER}
    return [f"{what} in {where}" for where, text in texts.items() for what, part in parts.items() if part in text]


def is_twin(twin, raised):
    return (type(twin), vars(twin), twin.args, str(twin)) == (type(raised), vars(raised), raised.args, str(raised))


def told(raised, server, log):
    """Say everything of an error that a test compares."""
    assert isinstance(raised, ThingSpaceError), f"no error, but {type(raised).__name__}"
    return {
        "kind": type(raised),
        "operation": raised.operation,
        "status": raised.status_code,
        "code": raised.error_code,
        "message": raised.error_message,
        "request_id": raised.request_id,
        "retry_after": raised.retry_after_seconds,
        "attempts": raised.attempts,
        "took time": raised.elapsed_seconds > 0,
        "hint": bool(raised.hint),
        "leaks": leaks(raised, server, log),
        "pickles": is_twin(pickle.loads(pickle.dumps(raised)), raised),
        "copies": is_twin(copy.copy(raised), raised),
    }


def expected(odd, operation):
    return {
        "kind": odd.kind,
        "operation": "list_registered_callbacks" if operation == "list" else f"{operation}_callback",
        "status": odd.status,
        "code": odd.code,
        "message": odd.message,
        "request_id": odd.request_id,
        "retry_after": odd.retry_after,
        "attempts": odd.attempts,
        "took time": True,
        "hint": True,
        "leaks": [],
        "pickles": True,
        "copies": True,
    }


def check(odd, operations, caller, log):
    log.set_level(logging.DEBUG, "upcall")
    server = caller.server.play(odd.steps)
    outcomes = caller.outcomes(*operations, timeout_seconds=odd.timeout_seconds)
    assert [told(raised, server, log) for raised in outcomes] == [expected(odd, operation) for operation in operations]
    # `timeout_seconds` is for the whole of one request, however busy its answer is.
    assert all(raised.elapsed_seconds < odd.timeout_seconds + 1.5 for raised in outcomes)
    # The same place each time, however often: no redirect was followed.
    assert server.calls == [METHODS[operation] for operation in operations for _ in range(odd.attempts)]


# --- The tests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", BAD_REQUESTS, ids=lambda odd: odd.id)
def test_every_400_is_the_documented_exception(odd, odd_caller, caplog):
    """Status 400 raises the seed's exception from all four operations, whatever its body is or becomes of it."""
    check(odd, list(METHODS), odd_caller, caplog)


@pytest.mark.parametrize("odd", [*ANSWERED, *UNREADABLE, *SILENT], ids=lambda odd: odd.id)
def test_every_odd_answer_is_an_error_of_ours(odd, odd_caller, caplog):
    """An answer that is no result raises one error of ours, with its facts and without secrets, that can be sent on."""
    check(odd, [odd.operation], odd_caller, caplog)


@pytest.mark.parametrize(("operation", "expected", "steps"), RESULTS)
def test_some_odd_answers_are_results(operation, expected, steps, odd_caller):
    """What can only mean one thing is read so: nothing is "none registered" to a reader, and "done" to who removes."""
    odd_caller.server.play(steps)
    result = odd_caller.result(operation)
    assert (result.success if operation == "deregister" else result.url) == expected
    assert odd_caller.server.calls == [METHODS[operation]]


@pytest.mark.parametrize(("operation", "max_retries", "passing"), PASSING)
def test_what_passes_is_tried_again(operation, max_retries, passing, odd_caller):
    """Answers after which the same request may succeed are not the caller's business, and neither is a stale token."""
    odd_caller.server.play(*passing, [whole(200, {"url": URL})])
    assert odd_caller.result(operation, max_retries=max_retries).url == URL
    assert len(odd_caller.server.calls) == len(passing) + 1


@pytest.mark.parametrize("status", [400, 503])
def test_status_of_a_lost_body_survives_retries(status, odd_caller):
    """A status that came is told, however often its body was lost and whatever was done to find out more."""
    odd_caller.server.play([head(status, length=99) + RAW[:40], "close"])
    operations = list(METHODS) if status == 400 else ["register"]
    outcomes = odd_caller.outcomes(*operations, max_retries=1)
    assert [raised.status_code for raised in outcomes] == [status] * len(operations)
    assert status != 400 or {type(raised) for raised in outcomes} == {FotaV2ResultException}


def test_retry_after_is_waited_for(odd_caller):
    """No retry comes earlier than the provider asked."""
    odd_caller.server.play([whole(429, FAULT, "Retry-After: 1")], [whole(200, {"url": URL})])
    started = time.monotonic()
    assert odd_caller.result("list", max_retries=1).url == URL
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_beyond_the_budget_raises_at_once(form, status, odd_caller, caplog):
    """A wait that the call's budget cannot hold is not begun: the error says at once how long it would have been."""
    until = "3600" if form == "seconds" else formatdate(time.time() + 3600, usegmt=True)
    server = odd_caller.server.play([whole(status, FAULT, f"Retry-After: {until}")], [whole(200, {"url": URL})])
    (raised,) = odd_caller.outcomes("list", max_retries=3, max_elapsed_seconds=60)
    asked_for = raised.retry_after_seconds
    odd = error("", status, **OF_FAULT, retry_after=asked_for)
    assert told(raised, server, caplog) == expected(odd, "list")
    assert raised.elapsed_seconds < 2
    assert server.calls == ["GET"]
    assert asked_for == pytest.approx(3600, abs=3)
    assert re.search(rf"\b{round(asked_for)}\b|\b59 min|\b60 min|\b1 h|\b(an|one) hour", str(raised))


def test_retry_after_of_a_thousand_digits_raises_at_once(odd_caller):
    """A number that no clock can hold is a wait beyond every budget, and no crash."""
    odd_caller.server.play([whole(503, FAULT, f"Retry-After: {'9' * 1000}")], [whole(200, {"url": URL})])
    (raised,) = odd_caller.outcomes("list", max_retries=3)
    assert (type(raised), raised.status_code, raised.attempts) == (AnsweredError, 503, 1)
    assert is_twin(pickle.loads(pickle.dumps(raised)), raised)
