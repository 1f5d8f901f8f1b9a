"""The two clients: what a user constructs. Everything that they do is in `exchange`, carried out by `transport`."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from upcall.client import operations
from upcall.client.controllers import (
    CampaignsV2Controller,
    SoftwareManagementCallbacksV2Controller,
    SoftwareManagementReportsV2Controller,
)
from upcall.client.driver import Driver
from upcall.client.effects import Clock
from upcall.client.exchange import Exchange
from upcall.client.latch import LatchState, LoginLatch
from upcall.client.raw import raw_response
from upcall.client.tokenstore import TokenStore
from upcall.client.trip import CallOptions, Limits
from upcall.client.wire import open_async_wire, open_wire
from upcall.errors import SettingsError
from upcall.settings import Credentials, Settings, expanded, read_settings
from upcall.thingspace import ENVIRONMENTS, PRODUCTION, is_loopback_host
from upcall.version import __version__

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from types import TracebackType

    from upcall.client.async_controllers import (
        AsyncCampaignsV2Controller,
        AsyncSoftwareManagementCallbacksV2Controller,
        AsyncSoftwareManagementReportsV2Controller,
    )
    from upcall.client.authenticator import TokenState
    from upcall.client.effects import Flow, Reply
    from upcall.client.events import EventHook
    from upcall.client.operations import Call
    from upcall.client.wire import AsyncHttpClient, AsyncHttpTransport, HttpClient, HttpTransport

__all__ = ["AsyncThingSpaceClient", "ThingSpaceClient"]

T = TypeVar("T")

_CLOCK = Clock(monotonic=time.monotonic, wall=time.time, chance=random.random)


class _Client:
    """Hold what both clients have in common: their settings and the state of their tokens."""

    def __init__(
        self,
        *,
        credentials: Credentials | None,
        environment: str | None,
        base_url: str | None,
        timeout_seconds: float | None,
        max_retries: int | None,
        max_elapsed_seconds: float | None,
        allow_http: bool | None,
        token_store: bool | str | os.PathLike[str] | None,
        event_hooks: Iterable[EventHook],
        state_dir: str | os.PathLike[str] | None,
        config: str | os.PathLike[str] | None,
    ) -> None:
        settings = read_settings(config=config)
        credentials = credentials or settings.credentials
        base_url = _root(environment, base_url, settings)
        state = Path(state_dir) if state_dir is not None else settings.state_dir
        self._allow_http = bool(settings.allow_http if allow_http is None else allow_http)
        self._latch = LoginLatch(state)
        self._exchange = Exchange(
            base_url=base_url,
            credentials=credentials,
            limits=_limits(settings).but(
                {
                    "timeout_seconds": timeout_seconds,
                    "max_retries": max_retries,
                    "max_elapsed_seconds": max_elapsed_seconds,
                }
            ),
            latch=self._latch,
            clock=_CLOCK,
            user_agent=f"upcall/{__version__}",
            token_store=_token_store(token_store, settings, state, base_url, credentials),
            event_hooks=event_hooks,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r})"

    @property
    def base_url(self) -> str:
        """Return the provider's root, without a trailing slash."""
        return self._exchange.base_url

    @property
    def credentials(self) -> Credentials:
        """Return who calls."""
        return self._exchange.credentials

    @property
    def token_store(self) -> Path | None:
        """Return the file in which tokens are kept, None where they are not."""
        return self._exchange.auth.store_path

    def token_states(self) -> tuple[TokenState, ...]:
        """Tell which tokens are held, here or on disk, and until when; none is shown, nothing is sent."""
        return self._exchange.auth.states()

    def login_latch(self) -> LatchState:
        """Tell whether a login would be refused here because the provider refused it before."""
        return self._latch.state(self.base_url, self.credentials.username, self.credentials.password)

    def reset_login_latch(self) -> None:
        """Forget the refused logins, once the password is right; ``upcall login --reset`` does it too.

        Raises:
            SettingsError: The file that counts them cannot be written.
        """
        try:
            self._latch.reset(self.base_url, self.credentials.username)
        except OSError as error:
            raise SettingsError(
                f"The count of refused logins in {self._latch.path} cannot be reset: {error.strerror or error}.",
                hint="Make its directory writable, or set UPCALL_STATE_DIR.",
            ) from None

    def _flow(self, call: Call[T], options: CallOptions) -> Flow[Reply[T]]:
        return self._exchange.run(call, limits=self._exchange.limits.but(options) if options else None)


class ThingSpaceClient(_Client):
    """Call ThingSpace from any number of threads.

    Both tokens are fetched, kept and renewed behind the calls. Nothing is read from or sent to the network before
    the first call.

        with ThingSpaceClient() as client:
            print(client.callbacks.list_registered_callbacks("0000123456-00001").url)

    Each option that is None is taken from its variable, else from the ``[client]`` table of the settings file, else it
    has its default. The variables are the options' names in capitals behind ``UPCALL_``, and ``THINGSPACE_ENVIRONMENT``
    and ``THINGSPACE_BASE_URL``.

    Args:
        credentials: Who calls; None reads the ``THINGSPACE_…`` variables.
        environment: ``production`` (the default), ``staging``, ``dev``, ``qa`` or ``mock``.
        base_url: The root that ends in ``/api``, instead of an environment. Plain http is taken for loopback only.
        timeout_seconds: How long one request may take, more than 0; 30 by default.
        max_retries: How often a call may be tried again, 0 or more; 3 by default.
        max_elapsed_seconds: The budget of a whole call, retries and waits included, more than 0; 60 by default.
        allow_http: Admit http callback URLs to loopback hosts, for a sandbox.
        token_store: Keep tokens on disk between runs, mode 0600: True for ``tokens.json`` in the state directory, or
            a path. Off by default.
        event_hooks: Called with a `CallEvent` for each thing that happens to a call.
        transport: An httpx2 transport in place of the network.
        http_client: Your own httpx2 client, for a proxy, mutual TLS or HTTP/2; you close it.
        state_dir: Where the count of refused logins lies, and the tokens.
        config: The settings file; None takes the one that ``UPCALL_CONFIG`` names. Only commands look for
            ``upcall.toml`` by themselves.

    Raises:
        SettingsError: The environment, the base URL, a variable or the settings file cannot be used.
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        *,
        credentials: Credentials | None = None,
        environment: str | None = None,
        base_url: str | None = None,
        timeout_seconds: float | None = None,
        max_retries: int | None = None,
        max_elapsed_seconds: float | None = None,
        allow_http: bool | None = None,
        token_store: bool | str | os.PathLike[str] | None = None,
        event_hooks: Iterable[EventHook] = (),
        transport: HttpTransport | None = None,
        http_client: HttpClient | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        config: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(
            credentials=credentials,
            environment=environment,
            base_url=base_url,
            timeout_seconds=timeout_seconds,
            max_retries=max_retries,
            max_elapsed_seconds=max_elapsed_seconds,
            allow_http=allow_http,
            token_store=token_store,
            event_hooks=event_hooks,
            state_dir=state_dir,
            config=config,
        )
        _check_one(transport, http_client)
        self._driver = Driver(lambda: open_wire(self.base_url, transport, http_client))
        self.software_management_callbacks_v2: SoftwareManagementCallbacksV2Controller = (
            SoftwareManagementCallbacksV2Controller(self._call, allow_http=self._allow_http)
        )
        self.callbacks: SoftwareManagementCallbacksV2Controller = self.software_management_callbacks_v2
        self.campaigns_v2: CampaignsV2Controller = CampaignsV2Controller(self._call)
        self.software_management_reports_v2: SoftwareManagementReportsV2Controller = (
            SoftwareManagementReportsV2Controller(self._call)
        )

    def login(self, *, fresh: bool = False) -> None:
        """Fetch both tokens now, unless good ones are held; every call does so by itself.

        Args:
            fresh: Drop the tokens that are held first, to see whether the credentials are right.

        Raises:
            SettingsError: Credentials are missing.
            CredentialsError: The provider refused them.
            LoginLatchedError: It refused them before, and no login was sent.
            ThingSpaceError: The provider did not answer, or with an error.
        """
        self._driver.run(self._exchange.log_in(fresh=fresh))

    def logout(self) -> None:
        """End the session that this client began, if it began one.

        Raises:
            ThingSpaceError: The provider did not answer, or with an error.
        """
        self._driver.run(self._exchange.log_out())

    def sandbox_banner(self) -> dict[str, Any] | None:
        """Return what a sandbox says of itself, None where something else answers. No credentials are sent.

        Raises:
            RequestNotSentError: Nothing answers at the base URL.
            ThingSpaceError: The answer got lost.
        """
        return self._driver.run(self._exchange.run(operations.sandbox_banner())).parsed

    def close(self) -> None:
        """Close the connections."""
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, call: Call[Any], options: CallOptions, /, *, raw: bool) -> Any:
        reply = self._driver.run(self._flow(call, options))
        return raw_response(reply) if raw else reply.parsed


class AsyncThingSpaceClient(_Client):
    """Call ThingSpace from asyncio, in one event loop after another or in several at once.

    The same names and options as `ThingSpaceClient`, with `aclose` for `close`.

        async with AsyncThingSpaceClient() as client:
            print((await client.callbacks.list_registered_callbacks("0000123456-00001")).url)

    Each option that is None is taken from its variable, else from the ``[client]`` table of the settings file, else it
    has its default. The variables are the options' names in capitals behind ``UPCALL_``, and ``THINGSPACE_ENVIRONMENT``
    and ``THINGSPACE_BASE_URL``.

    Args:
        credentials: Who calls; None reads the ``THINGSPACE_…`` variables.
        environment: ``production`` (the default), ``staging``, ``dev``, ``qa`` or ``mock``.
        base_url: The root that ends in ``/api``, instead of an environment. Plain http is taken for loopback only.
        timeout_seconds: How long one request may take, more than 0; 30 by default.
        max_retries: How often a call may be tried again, 0 or more; 3 by default.
        max_elapsed_seconds: The budget of a whole call, retries and waits included, more than 0; 60 by default.
        allow_http: Admit http callback URLs to loopback hosts, for a sandbox.
        token_store: Keep tokens on disk between runs, mode 0600: True for ``tokens.json`` in the state directory, or
            a path. Off by default.
        event_hooks: Called with a `CallEvent` for each thing that happens to a call.
        transport: An httpx2 transport in place of the network.
        http_client: Your own httpx2 client; you close it, and it is good for one event loop.
        state_dir: Where the count of refused logins lies, and the tokens.
        config: The settings file; None takes the one that ``UPCALL_CONFIG`` names. Only commands look for
            ``upcall.toml`` by themselves.

    Raises:
        SettingsError: The environment, the base URL, a variable or the settings file cannot be used.
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        *,
        credentials: Credentials | None = None,
        environment: str | None = None,
        base_url: str | None = None,
        timeout_seconds: float | None = None,
        max_retries: int | None = None,
        max_elapsed_seconds: float | None = None,
        allow_http: bool | None = None,
        token_store: bool | str | os.PathLike[str] | None = None,
        event_hooks: Iterable[EventHook] = (),
        transport: AsyncHttpTransport | None = None,
        http_client: AsyncHttpClient | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        config: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(
            credentials=credentials,
            environment=environment,
            base_url=base_url,
            timeout_seconds=timeout_seconds,
            max_retries=max_retries,
            max_elapsed_seconds=max_elapsed_seconds,
            allow_http=allow_http,
            token_store=token_store,
            event_hooks=event_hooks,
            state_dir=state_dir,
            config=config,
        )
        from upcall.client.async_controllers import (  # noqa: PLC0415 - asyncio takes long to load
            AsyncCampaignsV2Controller,
            AsyncSoftwareManagementCallbacksV2Controller,
            AsyncSoftwareManagementReportsV2Controller,
        )
        from upcall.client.async_driver import AsyncDriver  # noqa: PLC0415

        _check_one(transport, http_client)
        self._driver = AsyncDriver(lambda: open_async_wire(self.base_url, transport, http_client))
        self.software_management_callbacks_v2: AsyncSoftwareManagementCallbacksV2Controller = (
            AsyncSoftwareManagementCallbacksV2Controller(self._call, allow_http=self._allow_http)
        )
        self.callbacks: AsyncSoftwareManagementCallbacksV2Controller = self.software_management_callbacks_v2
        self.campaigns_v2: AsyncCampaignsV2Controller = AsyncCampaignsV2Controller(self._call)
        self.software_management_reports_v2: AsyncSoftwareManagementReportsV2Controller = (
            AsyncSoftwareManagementReportsV2Controller(self._call)
        )

    async def login(self, *, fresh: bool = False) -> None:
        """Fetch both tokens now, unless good ones are held; see `ThingSpaceClient.login`."""
        await self._driver.run(self._exchange.log_in(fresh=fresh))

    async def logout(self) -> None:
        """End the session that this client began, if it began one; see `ThingSpaceClient.logout`."""
        await self._driver.run(self._exchange.log_out())

    async def sandbox_banner(self) -> dict[str, Any] | None:
        """Return what a sandbox says of itself, None where something else answers."""
        return (await self._driver.run(self._exchange.run(operations.sandbox_banner()))).parsed

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._driver.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _call(self, call: Call[Any], options: CallOptions, /, *, raw: bool) -> Any:
        reply = await self._driver.run(self._flow(call, options))
        return raw_response(reply) if raw else reply.parsed


def _check_one(transport: object, http_client: object) -> None:
    if transport is not None and http_client is not None:
        raise SettingsError("transport and http_client are both given.", hint="Give one of them.")


def _limits(settings: Settings) -> Limits:
    """Return what calls may spend; a number out of its range is the settings' fault here."""
    try:
        return Limits().but({name: getattr(settings, name) for name in CallOptions.__annotations__})
    except ValueError as error:
        name = str(error).partition(" ")[0]
        where = f", or client.{name} in {settings.path}" if settings.path else ""
        raise SettingsError(f"{error}.", hint=f"Correct or unset UPCALL_{name.upper()}{where}.") from None


def _token_store(
    asked: bool | str | os.PathLike[str] | None,  # noqa: FBT001
    settings: Settings,
    state: Path,
    base_url: str,
    credentials: Credentials,
) -> TokenStore | None:
    asked = settings.token_store if asked is None else asked
    if asked is None or asked is False:
        return None
    return TokenStore(state / "tokens.json" if asked is True else expanded(asked), base_url, credentials)


def _root(environment: str | None, base_url: str | None, settings: Settings) -> str:
    """Choose the provider's root: what the caller names, else what the settings do, else production."""
    if environment is not None and base_url is not None:
        raise SettingsError("environment and base_url are both given.", hint="Give one of them.")
    if environment is None and base_url is None:
        environment, base_url = settings.environment, settings.base_url
    if environment is not None:
        if environment not in ENVIRONMENTS:
            raise SettingsError(
                f"There is no environment {environment!r}.", hint=f"Give one of {', '.join(ENVIRONMENTS)}."
            )
        return ENVIRONMENTS[environment].base_url
    return _check_root(base_url or PRODUCTION.base_url)


def _check_root(url: str) -> str:
    """Refuse a root to which no secret should be sent."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError:  # UnicodeError is one
        host, parts = None, urlsplit("")
    hint = f"Give the root that ends in /api, such as {PRODUCTION.base_url}."
    if not host or parts.scheme not in {"http", "https"}:
        raise SettingsError("The base URL (THINGSPACE_BASE_URL) is no http or https URL with a host.", hint=hint)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SettingsError("The base URL (THINGSPACE_BASE_URL) must hold no user, query or fragment.", hint=hint)
    if parts.scheme == "http" and not is_loopback_host(host):
        raise SettingsError(
            f"The base URL is http to {host}: secrets are sent in clear to loopback only.", hint="Give an https URL."
        )
    return url.rstrip("/")
