"""The sandbox says that it is one."""

from __future__ import annotations

from typing import Any, Final

from upcall.client.answers import Answer, UnreadableError, decode_json, is_success
from upcall.client.operations.base import Auth, Call, Operation, fill
from upcall.errors import AnsweredError

__all__ = ["sandbox_banner"]


def _read_banner(answer: Answer) -> dict[str, Any] | None:
    try:
        document = decode_json(answer.body)
    except UnreadableError:
        return None
    is_sandbox = is_success(answer) and isinstance(document, dict) and document.get("sandbox") is True
    return document if is_sandbox else None


_BANNER: Final = Operation(
    name="sandbox_banner",
    method="GET",
    path="/_sandbox/",
    read=_read_banner,
    accepts=lambda _: True,
    retry_safe=True,
    auth=Auth.NONE,
    bad_request=AnsweredError,
    at_root=True,
)


def sandbox_banner() -> Call[dict[str, Any] | None]:
    """Ask whether a sandbox answers; the result is None where something else does."""
    return fill(_BANNER)
