"""What ``upcall listen`` does: the store, the spool, the tokens, the user's module, the servers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from upcall.app import WorkerThread, load_app
from upcall.cli.logs import configure_logging
from upcall.errors import SettingsError, StoreError, UpcallError
from upcall.inbox import SCHEMA_VERSION, TokenRecord, open_inbox, store_version, upgrade_store
from upcall.inbox.spool import Spool, spool_directory
from upcall.listener import Gate, ListenerStats, Reception, Sources, Token, generate_token, parse_tokens
from upcall.listener.connections import Connections, Limits
from upcall.listener.server import bind, max_connections, run, serving, tls_context, until_stopped, url_of
from upcall.listener.service import AdminService, CallbackService
from upcall.redact import mask_token
from upcall.settings import default_store
from upcall.thingspace import check_account

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from upcall.app import Upcall
    from upcall.dispatch import Handler
    from upcall.inbox import Inbox
    from upcall.listener.request import Request

__all__ = ["ListenOptions", "run_listener"]

PROJECTION_PAUSE_SECONDS: Final = 0.2
PROJECTION_BATCH: Final = 100
QUOTA_SECONDS: Final = 10.0
"""How often the listener asks what the quarantine holds: others release and drop."""

_log = logging.getLogger("upcall.listener")
_access = logging.getLogger("upcall.access")


class ListenOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what ``upcall listen`` was told.

    Args:
        module: ``module:app`` whose handlers run in this process, None for none.
        host: The address.
        port: The port, 0 for a free one.
        store: The store's URL, None for the default.
        spool: The spool's directory, None for the default.
        accounts: The accounts that tokens belong to, none for all.
        tokens: Tokens as given on the command line.
        mask: Hide the token in the ready line.
        admin: ``HOST:PORT`` of the admin pages, None for none.
        trusted_proxies: Networks whose ``X-Forwarded-For`` is believed.
        refuse_unlisted: Refuse callbacks from addresses that the provider does not publish.
        tls_certificate: PEM, None for plain HTTP.
        tls_key: PEM, None where the certificate's file holds it.
        access_log: Log a line for each request.
        quarantine_bytes: How much the quarantine may hold.
        limits: What connections are held to.
    """

    module: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    store: str | None = None
    spool: Path | None = None
    accounts: Sequence[str] = ()
    tokens: Sequence[str] = ()
    mask: bool = False
    admin: str | None = None
    trusted_proxies: Sequence[str] = ()
    refuse_unlisted: bool = False
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    access_log: bool = False
    quarantine_bytes: int = 1024**3
    limits: Limits = Limits()


def run_listener(
    options: ListenOptions,
    subscribers: Sequence[Handler] = (),
    *,
    on_ready: Callable[[str], None],
    log: Callable[[str], None],
) -> None:
    """Open the store, bind the sockets, and serve until a signal ends it.

    Args:
        options: What to do.
        subscribers: Handlers beside the module's, that need no code of the user's.
        on_ready: Called with the callback URL once requests are accepted.
        log: Prints a line for a person.

    Raises:
        UpcallError: The store, a port, a token or the module is not usable.
    """
    configure_logging(logging.INFO)
    url = options.store or default_store()
    sources = _sources(options)
    tls = tls_context(options.tls_certificate, options.tls_key) if options.tls_certificate else None
    # The module before the store and the port: a mistake in it should leave neither behind.
    app = load_app(options.module) if options.module else None
    with contextlib.ExitStack() as stack:
        is_old = (store_version(url) or SCHEMA_VERSION) < SCHEMA_VERSION
        inbox = stack.enter_context(open_inbox(url, create=True, accept_old=True))
        spool = _spool(options, url)
        listener = _Listener(
            options, inbox, spool, Gate(live_tokens(inbox, options.tokens, options.accounts)), sources, tls=tls
        )
        listener.bind()
        log(f"upcall: keeping callbacks in {inbox.url}")
        run(listener.serve(_Worker(app, inbox.url, subscribers), on_ready, log, is_old=is_old))


class _Listener:
    """Hold the parts of one listener, and run them together."""

    def __init__(
        self,
        options: ListenOptions,
        inbox: Inbox,
        spool: Spool,
        gate: Gate,
        sources: Sources,
        *,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._options = options
        self._inbox = inbox
        self._gate = gate
        self._sources = sources
        self._tls = tls
        self._reception = Reception(inbox.appender, gate, spool=spool, quarantine_bytes=options.quarantine_bytes)

    def bind(self) -> None:
        """Open the sockets."""
        self._socket = bind(self._options.host, self._options.port)
        self._admin_socket = None
        if self._options.admin:
            try:
                self._admin_socket = bind(*_host_and_port(self._options.admin))
            except BaseException:
                self._socket.close()
                raise

    async def serve(
        self, worker: _Worker, on_ready: Callable[[str], None], log: Callable[[str], None], *, is_old: bool
    ) -> None:
        """Serve until a signal comes; answer what was accepted, stop the handlers, and say what was done."""
        reception, limits = self._reception, self._options.limits
        limits = msgspec.structs.replace(limits, connections=max_connections(limits.connections))
        connections = Connections(
            CallbackService(reception, self._sources),
            self._sources,
            reception.stats,
            limits=limits,
            log=_log_request if self._options.access_log else None,
        )
        reception.count_connections = lambda: len(connections.open) + len(connections.expected)
        async with until_stopped(on_hangup=self._reload_certificate if self._tls else None) as stop:
            try:
                async with contextlib.AsyncExitStack() as stack:
                    await stack.enter_async_context(self._admin())
                    stack.push_async_callback(reception.aclose)
                    await stack.enter_async_context(serving(connections, self._socket, tls=self._tls))
                    reception.begin()
                    stack.enter_context(_beside(self._upkeep(worker, is_old=is_old)))
                    if not is_old:
                        worker.start()
                    on_ready(self._url())
                    await stop.wait()
                    reception.draining = True
            finally:
                await asyncio.to_thread(worker.stop)
                log(f"upcall: {reception.stats.line()}")

    def _url(self) -> str:
        secret = self._gate.tokens[0].secret
        shown = mask_token(secret) if self._options.mask else secret
        return f"{url_of(self._socket, scheme='https' if self._tls else 'http')}/callbacks/{shown}"

    def _reload_certificate(self) -> None:
        """Read the certificate again, as one that was renewed asks for by SIGHUP."""
        assert self._tls is not None
        assert self._options.tls_certificate is not None
        certificate, key = self._options.tls_certificate, self._options.tls_key
        try:
            tls_context(certificate, key)  # first elsewhere: a file that does not fit would cost the one in use its key
            self._tls.load_cert_chain(certificate, key)
        except (UpcallError, OSError) as error:
            _log.error("the certificate was not read again, the old one stays in use: %s", error)
        else:
            _log.info("the certificate was read again")

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[None]:
        if self._admin_socket is None:
            yield
            return
        from upcall.listener.admin import Admin

        reception = self._reception
        admin = Admin(reception.stats, lambda: open_inbox(self._inbox.url), state=lambda: reception.state)
        connections = Connections(AdminService(admin), Sources(), ListenerStats(), limits=Limits(connections=64))
        async with serving(connections, self._admin_socket):
            _log.info("admin pages at %s", url_of(self._admin_socket))
            yield
        await admin.aclose()

    async def _upkeep(self, worker: _Worker, *, is_old: bool) -> None:
        """Bring an old store up to date while the spool accepts; then keep the read model near."""
        asked_at = -QUOTA_SECONDS
        trouble = ""
        while True:
            pause = PROJECTION_PAUSE_SECONDS
            try:
                if is_old:
                    await self._upgrade()
                    await asyncio.to_thread(worker.start)
                    is_old = False
                if time.monotonic() - asked_at >= QUOTA_SECONDS:
                    asked_at = time.monotonic()
                    self._reception.look_for_spool()
                    held = await asyncio.to_thread(self._inbox.quarantined_bytes)
                    if not self._reception.state.spooling:  # what lies in the spool is not in that figure
                        self._reception.quarantined_bytes = held
                # In a thread: where another process holds the store's write lock, requests go on being read.
                if self._reception.is_idle:
                    taken = await asyncio.to_thread(self._inbox.project, limit=PROJECTION_BATCH)
                    pause = 0.0 if taken else pause
                trouble = ""
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again: nobody else would
                if str(error) != trouble:  # once, not with each attempt
                    trouble = str(error)
                    _log.warning("the %s waits: %s", "upgrade" if is_old else "read model", error)
                pause *= 10
            await asyncio.sleep(pause)

    async def _upgrade(self) -> None:
        url = self._inbox.url
        _log.warning("store %s is of an older Upcall: callbacks go to the spool while it is upgraded", url)
        before, after = await asyncio.to_thread(upgrade_store, url)
        _log.warning("store %s was upgraded from schema %d to %d", url, before, after)


class _Worker:
    """Run handlers in a thread, if there are any."""

    def __init__(self, app: Upcall | None, url: str, subscribers: Sequence[Handler]) -> None:
        self._app = app
        self._url = url
        self._subscribers = subscribers
        self._thread: WorkerThread | None = None

    def start(self) -> None:
        if self._subscribers or (self._app is not None and self._app.handlers):
            thread = WorkerThread(self._app, self._url, self._subscribers)
            thread.start()
            self._thread = thread

    def stop(self) -> None:
        if self._thread is not None:
            self._thread.stop()


@contextlib.contextmanager
def _beside(work: Coroutine[Any, Any, None]) -> Iterator[None]:
    """Run a coroutine beside what follows, and cancel it at the end."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()


def _log_request(request: Request, status: int, seconds: float) -> None:
    """Write one line about a request: never its token, its query or its body."""
    _access.info(
        "%s %s %d %d bytes %.1f ms from %s",
        request.method.decode("ascii", "replace"),
        "/callbacks/***" if request.path.startswith("/callbacks/") else "/***",
        status,
        request.size,
        seconds * 1000,
        request.token[1].address if isinstance(request.token, tuple) else request.peer.address,
    )


def _sources(options: ListenOptions) -> Sources:
    sources = Sources(options.trusted_proxies, refuse_unlisted=options.refuse_unlisted)
    if options.refuse_unlisted and not sources.has_proxies and options.host in {"127.0.0.1", "::1", "localhost"}:
        raise SettingsError(
            f"--refuse-unlisted on {options.host} would refuse every callback: each comes from this machine.",
            hint="Name the proxy in front with --trusted-proxy, or listen on a public address.",
        )
    return sources


def _spool(options: ListenOptions, url: str) -> Spool:
    """Return the spool, and say so where it would not help."""
    spool = Spool(options.spool or spool_directory(url))
    try:
        spool.test()
    except StoreError as error:
        _log.warning("%s While it cannot be written, a store that fails costs callbacks.", error)
    return spool


def _host_and_port(text: str) -> tuple[str, int]:
    host, mark, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()):
        raise SettingsError(f"--admin {text!r} is no HOST:PORT.", hint="Write 127.0.0.1:9464.")
    return (host.strip("[]") if mark and host else "127.0.0.1"), int(port)


def live_tokens(inbox: Inbox, texts: Sequence[str], accounts: Sequence[str]) -> list[Token]:
    """Return the tokens to accept: given, else from the environment, else this store's own."""
    try:
        owners = tuple(check_account(account) for account in accounts)
    except ValueError as error:
        raise SettingsError(f"{error}.") from None
    given = list(texts) or _environment_tokens()
    if given:
        return parse_tokens(given, owners)
    records = inbox.tokens()
    kept = [record for record in records if set(record.accounts) == set(owners)]
    if len(kept) < len(records):
        _log.warning(
            "this store has a generated token for other accounts, which is not accepted now; to go on with it, give the"
            " same --account options as before, or give the token itself by UPCALL_TOKENS"
        )
    if not kept:
        kept = [TokenRecord(generate_token(), owners)]
        inbox.add_token(kept[0], time.time_ns() // 1000)
    return [Token(record.token, frozenset(record.accounts)) for record in kept]


def _environment_tokens() -> list[str]:
    text = os.environ.get("UPCALL_TOKENS", "")
    path = os.environ.get("UPCALL_TOKENS_FILE")
    if not text and path:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"UPCALL_TOKENS_FILE names {path}, which cannot be read: {error}.", hint="Correct the path or unset it."
            ) from None
    return text.replace(",", " ").split()
