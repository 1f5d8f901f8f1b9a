"""Who calls the provider for which account, in asyncio: a client for each set of credentials, closed together."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from upcall.client.many import AccountResult, run_many_async

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from upcall.client import AsyncThingSpaceClient
    from upcall.settings import Settings

__all__ = ["Callers", "clients_of"]

T = TypeVar("T")


class Callers:
    """Make calls for many accounts, each by its own credentials: one login a set, so many calls at once.

    Args:
        make_client: Makes the client of a ``[credentials.…]`` table, None for the environment's credentials.
        max_concurrency: How many calls at once.
    """

    def __init__(self, make_client: Callable[[str | None], AsyncThingSpaceClient], *, max_concurrency: int = 8) -> None:
        self._make_client = make_client
        self._max_concurrency = max_concurrency
        self._clients: dict[str | None, AsyncThingSpaceClient] = {}

    async def each(
        self,
        accounts: Mapping[str, str | None],
        call: Callable[[AsyncThingSpaceClient, str], Coroutine[Any, Any, T]],
        *,
        within_seconds: float | None = None,
    ) -> dict[str, AccountResult[T]]:
        """Make a call for each account.

        Args:
            accounts: For which accounts, each with its credentials' name.
            call: Makes the call of one account.
            within_seconds: How long it may take; what has not ended by then is missing from the results.

        Raises:
            SettingsError: No call can be made at all.
        """
        results: dict[str, AccountResult[T]] = {}
        work = [(account, partial(call, self._client(name), account)) for account, name in accounts.items()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                await run_many_async(
                    work,
                    max_concurrency=self._max_concurrency,
                    on_result=lambda result: results.update({result.account: result}),
                    caller_of=accounts.get,
                )
        return results

    async def aclose(self) -> None:
        """Close the clients."""
        for client in self._clients.values():
            await client.aclose()

    def _client(self, name: str | None) -> AsyncThingSpaceClient:
        if name not in self._clients:
            self._clients[name] = self._make_client(name)
        return self._clients[name]


def clients_of(settings: Settings) -> Callable[[str | None], AsyncThingSpaceClient]:
    """Return what makes the client of each set of credentials that the settings name."""

    def make_client(name: str | None) -> AsyncThingSpaceClient:
        from upcall.client import AsyncThingSpaceClient  # noqa: PLC0415 - loaded with the first call

        return AsyncThingSpaceClient(credentials=settings.credentials_named(name), config=settings.path)

    return make_client
