"""The stores that every inbox test runs on (add a backend by one more parameter of `store`), and one sandbox."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Self

import pytest

from upcall.cli.processes import Server, clean_environment
from upcall.inbox import Arrival, Subscription, open_inbox
from upcall.testing import callback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from upcall.inbox import Inbox

NOW = 1_800_000_000_000_000


def sqlite_urls(directory: Path) -> Iterator[str]:
    for number in itertools.count():
        yield f"sqlite:///{directory / f'inbox-{number}.db'}"


class Store:
    """One empty store; `open` gives as many inboxes on it as a test needs, and the fixture closes them."""

    def __init__(self, urls: Iterator[str]) -> None:
        self._urls = urls
        self._opened: list[Inbox] = []
        self.url = next(urls)

    def open(self) -> Inbox:
        inbox = open_inbox(self.url, create=True)
        self._opened.append(inbox)
        return inbox

    def fresh(self) -> Store:
        """Return another empty store, for each example of a property."""
        return Store(self._urls)

    def close(self) -> None:
        for inbox in self._opened:
            inbox.close()
        self._opened.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


@pytest.fixture(params=[pytest.param(sqlite_urls, id="sqlite")])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    make_urls: Callable[[Path], Iterator[str]] = request.param
    with Store(make_urls(tmp_path)) as made:
        yield made


@pytest.fixture
def inbox(store: Store) -> Inbox:
    return store.open()


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a sandbox as a user does, and stop it at the end."""
    log = tmp_path_factory.mktemp("sandbox") / "sandbox.log"
    server = Server("sandbox", ["sandbox", "--port", "0", "--quiet"], clean_environment(), log)
    yield server.url
    server.stop()


class Make:
    """Values for inbox tests, with one moment to count from."""

    now = NOW
    second = 1_000_000
    minute = 60 * second
    day = 24 * 60 * minute

    @staticmethod
    def arrival(body: bytes = b'{"type":"upgradeProgress"}', at: int = NOW, **fields: object) -> Arrival:
        return Arrival(body=body, received_at=at, **fields)

    @staticmethod
    def arrivals(count: int, at: int = NOW) -> list[Arrival]:
        return [
            Arrival(body=f'{{"type":"upgradeProgress","number":{n}}}'.encode(), received_at=at) for n in range(count)
        ]

    @staticmethod
    def report(at: int = NOW, **facts: object) -> Arrival:
        return Arrival(body=callback(**facts), received_at=at)

    @staticmethod
    def whole(name: str = "handler") -> Subscription:
        return Subscription(name, lambda event: [""])

    @staticmethod
    def devices(name: str = "device-handler") -> Subscription:
        return Subscription(name, lambda event: [device.device_id for device in event.devices])


@pytest.fixture
def make() -> type[Make]:
    return Make
