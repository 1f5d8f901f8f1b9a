"""One operation on many accounts: so many at once, one error does not stop the rest, results in order."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

import msgspec

from upcall.client.trip import check_options
from upcall.errors import CredentialsError, ThingSpaceError

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["AccountResult", "CallerOf", "OnResult", "account_work", "body_work", "run_many", "run_many_async"]

T = TypeVar("T")

_ACCOUNT_ERRORS: Final = (ThingSpaceError, ValueError, TypeError)
"""What is an account's own failure; anything else, such as missing credentials, is everybody's and is raised."""


class AccountResult(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Hold what became of one account.

    Args:
        account: The account.
        result: What the call returned, None where it failed.
        error: Why it failed, None where it did not.
    """

    account: str
    result: T | None = None
    error: ThingSpaceError | ValueError | TypeError | None = None


OnResult: TypeAlias = Callable[[AccountResult[Any]], object]
"""What is called with each result as it comes, in any order, one call at a time: for a progress bar."""

CallerOf: TypeAlias = Callable[[str], Hashable]
"""What returns who calls for an account."""


def _one_caller(_: str) -> None:
    """Say that the same one calls for every account."""


def account_work(
    call: Callable[..., T], accounts: Iterable[str], options: Mapping[str, Any]
) -> list[tuple[str, Callable[[], T]]]:
    """Return what is to be done for each account, the options checked before any call.

    Raises:
        TypeError: The accounts are no iterable of them, or there is no such option.
        ValueError: A number is out of its range.
    """
    check_options(options)
    if isinstance(accounts, str):
        raise TypeError("accounts must be several, such as a list of them, and not one str")
    return [(account, partial(call, account, **options)) for account in accounts]


def body_work(
    call: Callable[..., T], bodies: Mapping[str, Any], options: Mapping[str, Any]
) -> list[tuple[str, Callable[[], T]]]:
    """Return what is to be done for each account with its body, the options checked before any call.

    Raises:
        TypeError: The bodies are no mapping, or there is no such option.
        ValueError: A number is out of its range.
    """
    check_options(options)
    if not isinstance(bodies, Mapping):
        raise TypeError(f"bodies must be a dict of accounts and what each registers, not {type(bodies).__name__}")
    return [(account, partial(call, account, body, **options)) for account, body in bodies.items()]


def run_many(
    work: Iterable[tuple[str, Callable[[], T]]],
    *,
    max_concurrency: int,
    on_result: OnResult | None,
    caller_of: CallerOf = _one_caller,
) -> list[AccountResult[T]]:
    """Run work in threads.

    Args:
        work: Each account with what is to be done for it.
        max_concurrency: How many at once, 1 or more.
        on_result: Told of each result as it comes, in the calling thread.
        caller_of: Returns who calls for an account, where several do: one that is refused is refused for its own
            accounts only.

    Raises:
        ValueError: `max_concurrency` is less than 1.
        SettingsError: No call can be made at all.
    """
    from concurrent.futures import ThreadPoolExecutor, as_completed  # noqa: PLC0415 - here only

    jobs, attempts = list(work), _Attempts(caller_of)
    _check(max_concurrency)
    with ThreadPoolExecutor(min(max_concurrency, len(jobs) or 1), thread_name_prefix="upcall-many") as threads:
        try:
            futures = [threads.submit(attempts.run, account, job) for account, job in jobs]
            for future in as_completed(futures):
                result = future.result()
                if on_result is not None:
                    on_result(result)
            return [future.result() for future in futures]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)  # what is on its way ends, what waits does not begin
            raise


async def run_many_async(
    work: Iterable[tuple[str, Callable[[], Coroutine[Any, Any, T]]]],
    *,
    max_concurrency: int,
    on_result: OnResult | None,
    caller_of: CallerOf = _one_caller,
) -> list[AccountResult[T]]:
    """Run work in tasks; see `run_many`."""
    import asyncio  # noqa: PLC0415 - takes long to load

    jobs, attempts = list(work), _Attempts(caller_of)
    _check(max_concurrency)
    results: list[AccountResult[T] | None] = [None] * len(jobs)
    waiting = iter(enumerate(jobs))

    async def worker() -> None:
        for index, (account, job) in waiting:
            results[index] = result = await attempts.run_async(account, job)
            if on_result is not None:
                on_result(result)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(max_concurrency, len(jobs))):
                tasks.create_task(worker())
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return [result for result in results if result is not None]


class _Attempts:
    """Do the work of each account, until the provider refuses who we are: then it would refuse us for each."""

    def __init__(self, caller_of: CallerOf) -> None:
        self._caller_of = caller_of
        self._refusals: dict[Hashable, CredentialsError] = {}

    def run(self, account: str, job: Callable[[], T]) -> AccountResult[T]:
        if (refusal := self._refusals.get(self._caller_of(account))) is not None:
            return AccountResult(account=account, error=copy.copy(refusal))
        try:
            return AccountResult(account=account, result=job())
        except _ACCOUNT_ERRORS as error:
            return self._failed(account, error)

    async def run_async(self, account: str, job: Callable[[], Coroutine[Any, Any, T]]) -> AccountResult[T]:
        if (refusal := self._refusals.get(self._caller_of(account))) is not None:
            return AccountResult(account=account, error=copy.copy(refusal))
        try:
            return AccountResult(account=account, result=await job())
        except _ACCOUNT_ERRORS as error:
            return self._failed(account, error)

    def _failed(self, account: str, error: ThingSpaceError | ValueError | TypeError) -> AccountResult[Any]:
        if isinstance(error, CredentialsError) and error.operation in {"request_token", "login"}:
            self._refusals[self._caller_of(account)] = error
        return AccountResult(account=account, error=error)


def _check(max_concurrency: int) -> None:
    if max_concurrency < 1:
        raise ValueError(f"max_concurrency must be 1 or more, not {max_concurrency}")
