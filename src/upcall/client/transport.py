"""The wire: the one module that names httpx2, which loads, with its TLS context, at the first call.

Two drivers carry out the effects of a flow, one for threads and one for asyncio.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from upcall.client.answers import Answer
from upcall.client.effects import Do, Effect, Flow, Join, Launch, Request, Send, Wait
from upcall.client.failures import Failure
from upcall.errors import SettingsError
from upcall.thingspace import is_loopback_host

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator

    import httpx2

    AsyncHttpClient = httpx2.AsyncClient
    AsyncHttpTransport = httpx2.AsyncBaseTransport
    HttpClient = httpx2.Client
    HttpTransport = httpx2.BaseTransport

__all__ = ["MAX_BODY_BYTES", "AsyncDriver", "Driver"]

T = TypeVar("T")

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""No answer of this API comes near it: a page of 1,000 devices has some 100 KiB."""


class Driver:
    """Carry out flows in the calling thread.

    Args:
        base_url: The provider's root: loopback ignores proxy variables.
        transport: An httpx2 transport to use instead of the network.
        http_client: An httpx2 client to use, which its owner closes.
    """

    def __init__(
        self,
        *,
        base_url: str,
        transport: httpx2.BaseTransport | None = None,
        http_client: httpx2.Client | None = None,
    ) -> None:
        self.sleep: Callable[[float], None] = time.sleep
        self._base_url = base_url
        self._transport = transport
        self._given = http_client
        self._opened: httpx2.Client | None = None
        self._finalizer: weakref.finalize[Any, Driver] | None = None
        self._is_closed = False
        self._lock = threading.Lock()

    def run(self, flow: Flow[T]) -> T:
        """Carry out a flow and return what it comes to."""
        value: Any = None
        with contextlib.closing(flow):
            while True:
                try:
                    effect = flow.send(value)
                except StopIteration as end:
                    return cast("T", end.value)
                value = self._perform(effect)

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            self._is_closed = True
            opened, self._opened = self._opened, None
            if self._finalizer is not None:
                self._finalizer.detach()
        if opened is not None:
            opened.close()

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case Send():
                return self._send(effect.request, effect.timeout_seconds)
            case Wait():
                return self.sleep(effect.seconds)
            case Launch():
                return self.run(effect.flow)
            case Join():
                try:
                    return effect.flight.result(effect.timeout_seconds)
                except TimeoutError as error:
                    return error
            case Do():
                return effect.function()

    def _send(self, request: Request, timeout_seconds: float) -> Answer | Failure:
        import httpx2  # noqa: PLC0415 - at the first call, not at import

        client = self._client()
        deadline = time.monotonic() + timeout_seconds
        response: httpx2.Response | None = None
        body = bytearray()
        try:
            wire = _wire(client, request, timeout_seconds)
            response = client.send(wire, stream=True, follow_redirects=False)
            with contextlib.closing(response):
                for chunk in response.iter_bytes():
                    body += chunk
                    if flaw := _flaw_of(body, deadline):
                        return _answer(response, body, flaw)
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            return _lost(error, response, body)
        return _answer(response, body)

    def _client(self) -> httpx2.Client:
        if self._given is not None:
            return self._given
        with self._lock:
            if self._is_closed:
                raise RuntimeError("This client is closed.")
            if self._opened is None:
                import httpx2  # noqa: PLC0415 - at the first call, not at import

                trust_env = _trusts_environment(self._base_url)
                with _environment_errors():
                    self._opened = httpx2.Client(transport=self._transport, trust_env=trust_env)
                self._finalizer = weakref.finalize(self, _left_open, self._opened)
                self._finalizer.atexit = False
            return self._opened


class AsyncDriver:
    """Carry out flows in asyncio; connections belong to one event loop, so each loop has its own.

    Args:
        base_url: The provider's root: loopback ignores proxy variables.
        transport: An httpx2 transport to use instead of the network.
        http_client: An httpx2 client to use, which its owner closes.
    """

    def __init__(
        self,
        *,
        base_url: str,
        transport: httpx2.AsyncBaseTransport | None = None,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        self.sleep = asyncio.sleep
        self._base_url = base_url
        self._transport = transport
        self._given = http_client
        self._loops: dict[asyncio.AbstractEventLoop, _LoopPart] = {}
        self._is_closed = False

    async def run(self, flow: Flow[T]) -> T:
        """Carry out a flow and return what it comes to."""
        value: Any = None
        stopped: asyncio.CancelledError | None = None
        with contextlib.closing(flow):
            while True:
                try:
                    effect = flow.send(value)
                except StopIteration as end:
                    return cast("T", end.value)
                if stopped is not None:
                    raise stopped
                if isinstance(effect, Do):
                    value, stopped = await _to_its_end(effect.function)
                else:
                    value = await self._perform(effect)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; those of an ended one were closed as it ended."""
        self._is_closed = True
        part = self._loops.get(asyncio.get_running_loop())
        if part is not None:
            await part.close()

    async def _perform(self, effect: Send | Wait | Launch | Join) -> Any:
        match effect:
            case Send():
                return await self._send(effect.request, effect.timeout_seconds)
            case Wait():
                return await self.sleep(effect.seconds)
            case Launch():
                # A task of its own: a caller who is cancelled does not stop a login whose outcome others wait for,
                # and whose refusal has to be counted.
                part = await self._part()
                part.launch(self.run(effect.flow), effect.ended)
                return None
            case Join():
                try:
                    return await asyncio.wait_for(asyncio.wrap_future(effect.flight), effect.timeout_seconds)
                except TimeoutError as error:
                    return error

    async def _send(self, request: Request, timeout_seconds: float) -> Answer | Failure:
        import httpx2  # noqa: PLC0415 - at the first call, not at import

        client = self._given or (await self._part()).http
        deadline = time.monotonic() + timeout_seconds
        response: httpx2.Response | None = None
        body = bytearray()
        try:
            wire = _wire(client, request, timeout_seconds)
            response = await client.send(wire, stream=True, follow_redirects=False)
            async with contextlib.aclosing(response):
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if flaw := _flaw_of(body, deadline):
                        return _answer(response, body, flaw)
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            return _lost(error, response, body)
        return _answer(response, body)

    async def _part(self) -> _LoopPart:
        if self._is_closed:
            raise RuntimeError("This client is closed.")
        loop = asyncio.get_running_loop()
        part = self._loops.get(loop)
        if part is None:
            import httpx2  # noqa: PLC0415 - at the first call, not at import

            trust_env = _trusts_environment(self._base_url)
            with _environment_errors():
                http = httpx2.AsyncClient(transport=self._transport, trust_env=trust_env)
            part = self._loops[loop] = _LoopPart(http, lambda: self._loops.pop(loop, None))
            await part.open()
        return part


class _LoopPart:
    """Hold the connections and the tasks that belong to one event loop, and end them with it."""

    def __init__(self, http: httpx2.AsyncClient, forget: Callable[[], object]) -> None:
        self.http = http
        self._tasks: set[asyncio.Task[Any]] = set()
        self._forget = forget
        self._guard = self._close_with_loop()

    async def open(self) -> None:
        # An event loop closes the generators that were begun in it before it ends: asyncio.run() leaves no socket.
        await anext(self._guard)

    async def close(self) -> None:
        await self._guard.aclose()

    def launch(self, work: Coroutine[Any, Any, None], ended: Callable[[], None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: ended())

    async def _close_with_loop(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._forget()
            for task in self._tasks:
                task.cancel()
            await self.http.aclose()


async def _to_its_end(function: Callable[[], T]) -> tuple[T, asyncio.CancelledError | None]:
    """Call a function in a thread; who is cancelled meanwhile learns what it returned, and stops after that."""
    work = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(work), None
    except asyncio.CancelledError as stopped:
        return await work, stopped


def _wire(client: httpx2.Client | httpx2.AsyncClient, request: Request, timeout_seconds: float) -> httpx2.Request:
    return client.build_request(
        request.method, request.url, headers=request.headers, content=request.body, timeout=timeout_seconds
    )


def _flaw_of(body: bytearray, deadline: float) -> str | None:
    """Tell why to stop reading: httpx2's timeout is one for each read, ours is one for the answer."""
    if len(body) > MAX_BODY_BYTES:
        return "too_large"
    return "cut" if time.monotonic() > deadline else None


def _answer(response: httpx2.Response, body: bytearray, flaw: Any = None) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(status=response.status_code, headers=headers, body=bytes(body), flaw=flaw)


def _lost(error: Exception, response: httpx2.Response | None, body: bytearray) -> Answer | Failure:
    """Say what an exception of httpx2's means: once the status has come it survives, whatever the body did."""
    import httpx2  # noqa: PLC0415 - loaded by now

    if response is not None:
        return _answer(response, body, "garbled" if isinstance(error, httpx2.DecodingError) else "cut")
    if isinstance(error, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        return Failure(reason="the request cannot be written", sent=False, permanent=True)
    unsent = httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout | httpx2.ProxyError
    if isinstance(error, unsent):
        return Failure(reason=_reason(error), sent=False, permanent="CERTIFICATE_VERIFY_FAILED" in str(error))
    return Failure(reason=_reason(error), sent=True)


def _reason(error: Exception) -> str:
    """Say what happened in the error's own words; a timeout has none but its name."""
    words = {
        "ConnectTimeout": "the connection took too long",
        "PoolTimeout": "no connection came free",
        "ReadTimeout": "the answer took too long",
        "WriteTimeout": "the request took too long",
    }
    name = type(error).__name__
    return words.get(name) or re.sub(r"^\[Errno -?\d+\] ", "", str(error)).rstrip(".") or name


def _trusts_environment(base_url: str) -> bool:
    return not is_loopback_host(urlsplit(base_url).hostname or "")


@contextlib.contextmanager
def _environment_errors() -> Iterator[None]:
    """Say which variables are to blame; httpx2's own error would show a proxy's password."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        raise SettingsError(
            f"The connection cannot be set up ({type(error).__name__}).",
            hint="Check HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR.",
        ) from None


def _left_open(http: httpx2.Client) -> None:
    http.close()
    warnings.warn("A ThingSpaceClient was not closed: use it in a with statement, or call close().", ResourceWarning, 2)
