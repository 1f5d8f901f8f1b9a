"""`Upcall`: handlers in a program of your own, and what runs them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upcall.dispatch import HandlerTable, Worker
from upcall.errors import StartError, UpcallError
from upcall.inbox import open_inbox
from upcall.inbox.spool import Spool, spool_directory
from upcall.listener import Gate, ListenerApp, Reception, parse_tokens
from upcall.listener.heartbeat import Heartbeat
from upcall.listener.upkeep import Upkeep, is_old

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from upcall.dispatch import Handler

__all__ = ["Upcall", "WorkerThread", "load_app", "run_on_fast_loop"]

AGAIN_SECONDS = 1.0

_log = logging.getLogger("upcall.app")


class Upcall(HandlerTable):
    """Hold the handlers of your program; store, tokens and port belong to whoever runs it.

    ::

        app = Upcall()

        @app.on_device("UpgradeFailed")
        def open_ticket(event, device):
            ...

    Run it with ``upcall listen mymodule:app``, or with ``upcall work mymodule:app`` beside a listener.
    """

    def asgi(self, *, store: str, tokens: Sequence[str]) -> Callable[..., Any]:
        """Return an ASGI application that receives callbacks and runs the handlers, to mount in yours.

        Args:
            store: The inbox, such as ``sqlite:////var/lib/upcall/inbox.db``; made where there is none, and upgraded
                where an older Upcall wrote it, while the spool takes what comes.
            tokens: The secret ends of the callback URL, ``TOKEN`` or ``ACCOUNT=TOKEN``.

        Raises:
            SettingsError: A token or the store's URL is wrong.
            StoreError: The store cannot be used.
        """
        return _MountedListener(self, store, Gate(parse_tokens(tokens)))

    async def work(self, store: str, stop: asyncio.Event, **options: Any) -> None:
        """Run the handlers over a store until asked to stop.

        Args:
            store: The inbox's URL; made where there is none.
            stop: Set it to end.
            options: What `upcall.dispatch.Worker` takes, such as ``concurrency``.

        Raises:
            StoreError: The store cannot be used.
        """
        with open_inbox(store, create=True, upgrade=True, relaxed=True) as inbox:
            await Worker(inbox, self.handlers, **options).run(stop)


class WorkerThread:
    """Run handlers in a thread with an event loop of its own.

    A handler that blocks its loop then delays other handlers, and no acknowledgement.

    Args:
        app: The application whose handlers these are, None for subscribers only.
        store: The inbox's URL.
        subscribers: Handlers beside the application's, such as `upcall.dispatch.subscribers` makes.
        options: What `upcall.dispatch.Worker` takes, such as ``concurrency``.
    """

    def __init__(
        self, app: HandlerTable | None, store: str, subscribers: Sequence[Handler] = (), **options: Any
    ) -> None:
        self._handlers = [*(app.handlers if app is not None else []), *subscribers]
        self._store = store
        self._options = options
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._begun = threading.Event()

    def start(self) -> None:
        """Start working, if there are handlers; the store is open when this returns. It may be tried again.

        Raises:
            StoreError: The store cannot be used.
        """
        if not self._handlers:
            return
        self._begun.clear()
        self._thread = threading.Thread(target=self._run, name="upcall-work", daemon=True)
        self._thread.start()
        self._begun.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self) -> None:
        """Let running handlers finish, give back the rest, and wait for the end."""
        self._stopping.set()
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self) -> None:
        self._error = None
        while not self._stopping.is_set():
            try:
                run_on_fast_loop(self._work())
            except BaseException as error:  # noqa: BLE001 - seen by start, or logged
                if not self._begun.is_set():
                    self._error = error
                    self._begun.set()
                    return
                # Such as a handler that stops the loop or cancels every task: the others must not wait for a restart.
                _log.critical("the handlers stopped; they go on in %g s", AGAIN_SECONDS, exc_info=error)
                self._stopping.wait(AGAIN_SECONDS)
        self._begun.set()  # it may have been stopped before it began

    async def _work(self) -> None:
        with open_inbox(self._store, create=True, upgrade=True, relaxed=True) as inbox:
            worker = Worker(inbox, self._handlers, **self._options)
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            if self._stopping.is_set():
                return
            self._begun.set()
            await worker.run(self._stop)


def run_on_fast_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end on an event loop of uvloop's, where it is installed."""
    try:
        import uvloop  # noqa: PLC0415 - it comes with the extra `server`, and is loaded when there is work
    except ImportError:
        asyncio.run(work)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


class _MountedListener:
    """Receive and run handlers inside another program's server; begins with the first request or its lifespan."""

    def __init__(self, app: Upcall, store: str, gate: Gate) -> None:
        self._app = app
        self._store = store
        self._gate = gate
        self._listener: ListenerApp | None = None
        self._ending = contextlib.AsyncExitStack()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await self._begin()(scope, receive, send)

    async def aclose(self) -> None:
        """Finish what waits and stop the handlers; for servers that tell a mounted application nothing of their end."""
        self._listener = None
        await self._ending.pop_all().aclose()

    def _begin(self) -> ListenerApp:
        if self._listener is None:
            old = is_old(self._store)
            inbox = open_inbox(self._store, create=True, accept_old=True)
            worker = WorkerThread(self._app, self._store)
            try:
                reception = Reception(inbox.appender, self._gate, spool=Spool(spool_directory(self._store)))
                if not old:
                    worker.start()
            except BaseException:
                inbox.close()
                raise
            upkeep = Upkeep(inbox, reception, upgrade=old, on_upgraded=worker.start)
            upkeep.begin()
            heartbeat = Heartbeat(lambda: open_inbox(self._store), reception)
            heartbeat.begin()
            self._listener = ListenerApp(reception)
            self._ending.callback(inbox.close)  # last, as the others use it
            self._ending.push_async_callback(asyncio.to_thread, worker.stop)
            self._ending.push_async_callback(self._listener.aclose)
            self._ending.push_async_callback(upkeep.aclose)
            self._ending.push_async_callback(heartbeat.aclose)
        return self._listener

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        try:
            self._begin()
        except UpcallError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})


def load_app(text: str) -> Upcall:
    """Import the `Upcall` that ``module:name`` names, looking in the working directory too.

    Raises:
        StartError: The module does not import, or the name is not an `Upcall`.
    """
    module_name, _, attribute = text.partition(":")
    attribute = attribute or "app"
    if not module_name:
        raise StartError(f"{text!r} names no module.", hint="Write module:app, such as mymodule:app.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except UpcallError:
        raise
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())[:500].rstrip(".")
        raise StartError(
            f"module {module_name} does not import: {_where(error)}{type(error).__name__}{said and f': {said}'}.",
            hint=f"Looked in {here} and in Python's own path.",
        ) from error
    app = getattr(module, attribute, None)
    if not isinstance(app, Upcall):
        found = "has no" if app is None else f"has a {type(app).__name__} as"
        raise StartError(f"module {module_name} {found} {attribute}.", hint=f"Write {attribute} = Upcall() in it.")
    return app


def _where(error: BaseException) -> str:
    """Return the line of the user's file at which an import failed, where there is one."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in {__file__, importlib.__file__} and not frame.filename.startswith("<frozen importlib")
    ]
    here = Path.cwd()
    # The line of theirs that is nearest to the failure, which may lie deep in a library that they called.
    theirs = [
        frame
        for frame in frames
        if Path(frame.filename).is_relative_to(here) and "site-packages" not in Path(frame.filename).parts
    ] or frames[:1]
    return f"{Path(theirs[-1].filename).name} line {theirs[-1].lineno}: " if theirs else ""
