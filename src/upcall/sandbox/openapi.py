"""This API, described in OpenAPI 3.1.

What a call takes and gives stands in the table of routes and in the models; here stands how calls are refused.
"""

from __future__ import annotations

import functools
import inspect
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from upcall.sandbox import api_auth, api_callbacks, api_campaigns, api_control, api_reports
from upcall.sandbox.faults import API_FAULTS
from upcall.sandbox.http import MAX_BODY_BYTES
from upcall.sandbox.models import PARAMETERS, Fault, FotaV2Result, OauthError
from upcall.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from upcall.sandbox.routes import Route

__all__ = ["document"]

_ABOUT: Final = """\
A sandbox of Verizon ThingSpace, Software Management V2. It is a reconstruction from public documentation, and no
service of the provider. `docs/sandbox.md` lists where it is known or assumed to deviate.

Tokens and sessions come from the first calls; the sandbox's default credentials are `sandbox` for each of the four.
What stands here as `Fault …` is answered only while that fault is switched on; while `reset` is, a connection may also
end without an answer. A path, or a path's method, that is not listed is answered with 400 and a `Fault` of code 900906;
under `/_sandbox/`, which is no provider's, with 404 or 405.
"""

_REF: Final = "#/components/schemas/{name}"
_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"
_HTML: Final = "text/html"
_XML: Final = "application/xml"


def _text(documented: object) -> str:
    """Return a docstring as Markdown."""
    return (inspect.getdoc(documented) or "").replace("``", "`")


_TAGS: Final = {
    module.__name__: {"name": name, "description": _text(module)}
    for name, module in (
        ("tokens", api_auth),
        ("callbacks", api_callbacks),
        ("campaigns", api_campaigns),
        ("reports", api_reports),
        ("sandbox", api_control),
    )
}

_SCHEMES: Final = {
    "basic": {"type": "http", "scheme": "basic", "description": "The client's key and secret"},
    "bearer": {"type": "http", "scheme": "bearer", "description": "From the token call; it lives an hour"},
    "session": {
        "type": "apiKey",
        "in": "header",
        "name": "VZ-M2M-Token",
        "description": "From the login; it lives 20 minutes after its last use",
    },
}


class _Answer(NamedTuple):
    """Say one thing that a call answers.

    Args:
        status: The HTTP status.
        why: When.
        shape: What the body holds.
        media_type: Its content type, None for no body.
    """

    status: int
    why: str
    shape: Any = str
    media_type: str | None = _JSON


class _Guard(NamedTuple):
    """Say what a guard asks for, and what it answers where that is missing."""

    schemes: tuple[str, ...] = ()
    answers: tuple[_Answer, ...] = ()


_NO_CLIENT: Final = (
    _Answer(401, "No credentials (900902).", Fault),
    _Answer(401, "Wrong credentials.", OauthError),
)
_NO_BEARER: Final = (
    _Answer(401, "No bearer token (900902), or none that lives (900901).", Fault),
    _Answer(403, "Credentials of another kind; the code in the body is not the status.", media_type=_XML),
)
_NO_SESSION: Final = _Answer(401, "No session, or none that lives: the code holds `SessionToken.`", FotaV2Result)
_NOT_LOCAL: Final = _Answer(403, "The caller is not on this machine.", Fault)

_GUARDS: Final = {
    "none": _Guard(),
    "loopback": _Guard((), (_NOT_LOCAL,)),
    "basic": _Guard(("basic",), _NO_CLIENT),
    "bearer": _Guard(("bearer",), _NO_BEARER),
    "session": _Guard(("bearer", "session"), (*_NO_BEARER, _NO_SESSION)),
}

_TOO_LARGE: Final = _Answer(413, f"The body is over {MAX_BODY_BYTES} bytes.", Fault)
_IN_TROUBLE: Final = tuple(
    _Answer(status, f"Fault `{name}`: {API_FAULTS[name]}.", shape, media_type)
    for name, statuses, shape, media_type in (
        ("rate_limited", (429,), Fault, _JSON),
        ("server_error", (500, 502, 503), Fault, _JSON),
        ("html", (200, 503), str, _HTML),
    )
    for status in statuses
)


@functools.cache
def document(routes: tuple[Route, ...]) -> dict[str, Any]:
    """Return the document.

    Args:
        routes: What it describes.
    """
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "upcall sandbox of Verizon ThingSpace", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": list(_TAGS.values()),
        "paths": paths,
        "components": {"schemas": _components(routes), "securitySchemes": _SCHEMES},
    }


def _operation(route: Route) -> dict[str, Any]:
    first, _, rest = _text(route.handler).partition("\n")
    summary = first.partition(": ")[2] or first
    schemes = _GUARDS[route.guard].schemes
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": summary[:1].upper() + summary[1:],
        "description": rest.strip(),
        "tags": [_TAGS.get(route.handler.__module__, _TAGS[api_control.__name__])["name"]],
        "security": [{scheme: [] for scheme in schemes}] if schemes else [],
        "parameters": list(_parameters(route)),
        "responses": _responses(route),
    }
    return operation | ({"requestBody": _request_body(route)} if route.body else {})


def _parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", route.path):
        yield {"name": name, "in": "path", "required": True, "schema": _schema(PARAMETERS[name])}
    for name in route.query:
        yield {"name": name, "in": "query", "schema": _schema(PARAMETERS[name])}


def _request_body(route: Route) -> dict[str, Any]:
    media = {"schema": _schema(*route.body)}
    if not route.sdk_sends_any:
        return {"required": True, "content": {_FORM if route.is_form else _JSON: media}}
    return {
        "required": True,
        "description": "JSON, whatever its content type says: the official SDKs send `*/*`.",
        "content": {_JSON: media, "*/*": media},
    }


def _responses(route: Route) -> dict[str, Any]:
    by_status: dict[int, list[_Answer]] = {}
    for answer in _answers(route):
        by_status.setdefault(answer.status, []).append(answer)
    return {str(status): _response(answers) for status, answers in sorted(by_status.items())}


def _answers(route: Route) -> Iterator[_Answer]:
    """Yield everything that a route answers."""
    guard = _GUARDS[route.guard]
    if route.result is None:
        yield _Answer(200, "Done; the body is empty.", media_type=None)
    else:
        yield _Answer(200, "Done; the body may be empty." if route.may_be_empty else "Done.", route.result)
    if route.body or "{account}" in route.path:
        yield _Answer(400, "The request is not sound.", OauthError if route.guard == "basic" else FotaV2Result)
    for status, why in route.refusals:
        yield _Answer(status, why, FotaV2Result)
    yield from guard.answers
    yield _TOO_LARGE
    if guard.schemes:
        yield from _IN_TROUBLE


def _response(answers: Iterable[_Answer]) -> dict[str, Any]:
    shapes: dict[str, list[Any]] = {}
    for answer in answers:
        if answer.media_type is not None:
            shapes.setdefault(answer.media_type, []).append(answer.shape)
    return {
        "description": " ".join(answer.why for answer in answers),
        "content": {media_type: {"schema": _schema(*kinds)} for media_type, kinds in shapes.items()},
    }


def _schema(*kinds: Any) -> dict[str, Any]:
    """Return the schema of a value that is of one of these kinds."""
    schemas, _ = msgspec.json.schema_components(kinds, ref_template=_REF)
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}


def _components(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the schema of every model that an answer or a request refers to."""
    kinds = [answer.shape for route in routes for answer in _answers(route)]
    kinds += [form for route in routes for form in route.body]
    _, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    return {
        name: schema | {"description": inspect.cleandoc(schema["description"]).replace("``", "`")}
        for name, schema in sorted(components.items())
    }
