"""What ``upcall listen`` does: the store, the spool, the tokens, the user's module, the servers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from upcall.app import WorkerThread, load_app
from upcall.cli.tokens import given_tokens, store_tokens
from upcall.errors import SettingsError, StoreError, UpcallError
from upcall.inbox import open_inbox
from upcall.inbox.spool import Spool, spool_directory
from upcall.listener import Gate, ListenerStats, Reception, Sources
from upcall.listener.connections import Connections, Limits
from upcall.listener.heartbeat import Heartbeat
from upcall.listener.server import bind, max_connections, run, serving, tls_context, until_stopped, url_of
from upcall.listener.service import AdminService, Admitted, CallbackService
from upcall.listener.upkeep import Upkeep, is_old
from upcall.redact import mask_token
from upcall.settings import Settings, default_store, read_accounts, read_settings

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

    from upcall.cli.guarding import Guarding
    from upcall.dispatch import Handler
    from upcall.inbox import Inbox
    from upcall.listener import Token
    from upcall.listener.request import Request
    from upcall.listener.tokens import StoreTokens

__all__ = ["ListenOptions", "expected_accounts", "guarded_settings", "host_and_port", "run_listener"]

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
        guarded: The settings whose accounts are guarded beside the listener, None for none.
        reassert: Whether the guard takes slots back, None for what the settings say.
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
    guarded: Settings | None = None
    reassert: bool | None = None


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
    url = options.store or default_store()
    sources = _sources(options)
    tls = _tls(options)
    # The module before the store and the port: a mistake in it should leave neither behind.
    app = load_app(options.module) if options.module else None
    with contextlib.ExitStack() as stack:
        old = is_old(url)
        inbox = stack.enter_context(open_inbox(url, create=True, accept_old=True))
        spool = _spool(options, url)
        given = given_tokens(options.tokens, options.accounts)
        own = None if given else store_tokens(options.accounts)
        gate = Gate(given if own is None else own.begin(inbox))
        guarding = _guarding(options, url, given)
        listener = _Listener(options, inbox, spool, gate, sources, tls=tls, tokens=own, guarding=guarding)
        listener.bind()
        log(f"upcall: keeping callbacks in {inbox.url}")
        run(listener.serve(WorkerThread(app, inbox.url, subscribers), on_ready, log, old=old))


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
        tokens: StoreTokens | None,
        guarding: Guarding | None,
    ) -> None:
        self._options = options
        self._tokens = tokens
        self._guarding = guarding
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
                self._admin_socket = bind(*host_and_port(self._options.admin))
            except BaseException:
                self._socket.close()
                raise

    async def serve(
        self, worker: WorkerThread, on_ready: Callable[[str], None], log: Callable[[str], None], *, old: bool
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
        upkeep = Upkeep(self._inbox, reception, upgrade=old, on_upgraded=worker.start)
        heartbeat = Heartbeat(lambda: open_inbox(self._inbox.url), reception, tokens=self._tokens, url=self._root())
        async with until_stopped(on_hangup=self._reload_certificate if self._tls else None) as stop:
            try:
                async with contextlib.AsyncExitStack() as stack:
                    await stack.enter_async_context(self._admin())
                    stack.push_async_callback(reception.aclose)
                    stack.push_async_callback(upkeep.aclose)
                    stack.push_async_callback(heartbeat.aclose)
                    await stack.enter_async_context(serving(connections, self._socket, tls=self._tls))
                    reception.begin()
                    upkeep.begin()
                    heartbeat.begin()
                    if not old:
                        worker.start()
                    on_ready(self._url())
                    if self._guarding is not None:
                        self._guarding.start()
                    await stop.wait()
                    reception.draining = True
            finally:
                if self._guarding is not None:
                    await asyncio.to_thread(self._guarding.stop)
                await asyncio.to_thread(worker.stop)
                log(f"upcall: {reception.stats.line()}")

    def _url(self) -> str:
        secret = self._gate.tokens[0].secret
        shown = mask_token(secret) if self._options.mask else secret
        return f"{self._root()}/callbacks/{shown}"

    def _root(self) -> str:
        return url_of(self._socket, scheme="https" if self._tls else "http")

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
        more = tuple if self._guarding is None else self._guarding.families
        admin = Admin(reception.stats, lambda: open_inbox(self._inbox.url), state=lambda: reception.state, more=more)
        connections = Connections(AdminService(admin), Sources(), ListenerStats(), limits=Limits(connections=64))
        async with serving(connections, self._admin_socket):
            _log.info("admin pages at %s", url_of(self._admin_socket))
            yield
        await admin.aclose()


def guarded_settings(config: Path | None, reassert: bool | None) -> Settings:
    """Return the settings whose accounts are guarded.

    Args:
        config: The settings file.
        reassert: Whether a slot is to be taken back, None where nobody said so.

    Raises:
        SettingsError: There is no settings file, or it cannot be used.
    """
    if config is None:
        option = "--guard" if reassert is None else "--reassert"
        raise SettingsError(
            f"{option} watches the accounts of a settings file, and none is named.", hint="Give --config FILE."
        )
    return read_settings(config=config)


def _guarding(options: ListenOptions, url: str, given: Sequence[Token]) -> Guarding | None:
    if options.guarded is None:
        return None
    from upcall.cli.guarding import Guarding

    return Guarding(options.guarded, url, given, options.reassert)


def _log_request(request: Request, status: int, seconds: float) -> None:
    """Write one line about a request: never its token, its query or its body."""
    fields = {
        "method": request.method.decode("ascii", "replace"),
        "path": "/callbacks/***" if request.path.startswith("/callbacks/") else "/***",
        "status": status,
        "bytes": request.size,
        "ms": round(seconds * 1000, 1),
        "from": request.admitted.source.address if isinstance(request.admitted, Admitted) else request.peer.address,
    }
    _access.info("%s %s %d %d bytes %.1f ms from %s", *fields.values(), extra={"upcall_fields": fields})


def _sources(options: ListenOptions) -> Sources:
    sources = Sources(options.trusted_proxies, refuse_unlisted=options.refuse_unlisted)
    if options.refuse_unlisted and not sources.has_proxies and options.host in {"127.0.0.1", "::1", "localhost"}:
        raise SettingsError(
            f"--refuse-unlisted on {options.host} would refuse every callback: each comes from this machine.",
            hint="Name the proxy in front with --trusted-proxy, or listen on a public address.",
        )
    return sources


def _tls(options: ListenOptions) -> ssl.SSLContext | None:
    """Return what https needs, None for plain HTTP."""
    if options.tls_certificate:
        return tls_context(options.tls_certificate, options.tls_key)
    if options.tls_key:
        raise SettingsError(
            "--tls-key is given without --tls-cert, and plain HTTP would be spoken.",
            hint="Name the certificate and its chain with --tls-cert.",
        )
    return None


def _spool(options: ListenOptions, url: str) -> Spool:
    """Return the spool, and say so where it would not help."""
    spool = Spool(options.spool or spool_directory(url))
    try:
        spool.test()
    except StoreError as error:
        _log.warning("%s While that is so, a store that fails may cost callbacks.", error)
    return spool


def host_and_port(text: str) -> tuple[str, int]:
    """Read where admin pages are served.

    Args:
        text: ``HOST:PORT``, or a port alone for this machine.

    Raises:
        SettingsError: It is neither.
    """
    host, mark, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()):
        raise SettingsError(f"--admin {text!r} is no HOST:PORT.", hint="Write 127.0.0.1:9464.")
    return (host.strip("[]") if mark and host else "127.0.0.1"), int(port)


def expected_accounts(named: Sequence[str], config: Path | None) -> tuple[str, ...]:
    """Return the accounts whose callbacks are expected, none for all: those named, and those of a settings file.

    No file is looked for: a server that begins in another directory must not expect other accounts.

    Raises:
        SettingsError: The file cannot be used, or names no account.
    """
    if config is None:
        return tuple(named)
    listed = [account.name for account in read_accounts(config)]
    if not listed:  # it would admit every account, and look as if it did not
        raise SettingsError(
            f"The settings file {config} names no account.",
            hint="Add [[accounts]] tables with a name, or leave --config out to expect every account.",
        )
    return tuple(dict.fromkeys((*named, *listed)))
