"""The admin pages of ``upcall guard``: whether it lives, and what it counts."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from prometheus_client import Metric

    from upcall.registration.figures import GuardFigures

__all__ = ["GuardAdmin", "admin_pages"]

_TEXT = "text/plain; charset=utf-8"
_PATHS = b"/healthz\n/metrics\n"

_log = logging.getLogger("upcall.guard")


class GuardAdmin:
    """Answer ``/healthz``, ``/metrics`` and a list of them at ``/``.

    Args:
        figures: What the guard counts.
    """

    def __init__(self, figures: GuardFigures) -> None:
        self._figures = figures

    async def respond(self, method: str, path: str) -> tuple[int, str, bytes]:
        """Answer one request: the status, the content type and the body."""
        if method not in {"GET", "HEAD"}:
            return 405, _TEXT, b"method not allowed\n"
        return self._page(path.partition("?")[0])

    def _page(self, path: str) -> tuple[int, str, bytes]:
        from upcall.listener.metrics import CONTENT_TYPE

        pages = {"/healthz": b"ok\n", "/": _PATHS}
        if path == "/metrics":
            return 200, CONTENT_TYPE, _exposition(self._figures)
        return (200, _TEXT, pages[path]) if path in pages else (404, _TEXT, b"not found\n")


@contextlib.asynccontextmanager
async def admin_pages(place: str | None, figures: GuardFigures) -> AsyncIterator[None]:
    """Serve the pages at ``HOST:PORT``; nowhere where that is None.

    Raises:
        SettingsError: It is no such place.
        StartError: The port cannot be listened on.
    """
    if place is None:
        yield
        return
    from upcall.cli.serving import host_and_port
    from upcall.listener import ListenerStats, Sources
    from upcall.listener.connections import Connections, Limits
    from upcall.listener.server import bind, serving, url_of
    from upcall.listener.service import AdminService

    listening = bind(*host_and_port(place))
    connections = Connections(
        AdminService(GuardAdmin(figures)), Sources(), ListenerStats(), limits=Limits(connections=64)
    )
    async with serving(connections, listening):
        _log.info("admin pages at %s", url_of(listening))
        yield


def _exposition(figures: GuardFigures) -> bytes:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    from upcall.registration.figures import families

    class _Families(Collector):
        def collect(self) -> Iterator[Metric]:
            return families(figures)

    registry = CollectorRegistry()
    registry.register(_Families())
    return generate_latest(registry)
