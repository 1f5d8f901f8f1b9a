"""The stores that every inbox test runs on (add a backend by one more parameter of `store`), and one sandbox."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Self

import pytest

from upcall.cli.processes import Server, clean_environment
from upcall.inbox import Arrival, Outcome, Subscription, open_inbox
from upcall.testing import callback

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from upcall.inbox import Inbox, WorkItem

NOW = 1_800_000_000_000_000


def sqlite_urls(directory: Path) -> Iterator[str]:
    for number in itertools.count():
        yield f"sqlite:///{directory / f'inbox-{number}.db'}"


def memory_urls(directory: Path) -> Iterator[str]:
    for number in itertools.count():
        yield f"memory://{directory}/inbox-{number}"


BACKENDS = {"sqlite": sqlite_urls, "memory": memory_urls}


class Store:
    """One empty store; `open` gives as many inboxes on it as a test needs, and the fixture closes them."""

    def __init__(self, backend: str, urls: Iterator[str]) -> None:
        self.backend = backend
        self._urls = urls
        self._opened: list[Inbox] = []
        self.url = next(urls)
        if backend == "memory":
            self.open()  # it is there for as long as one inbox on it is open

    def open(self) -> Inbox:
        inbox = open_inbox(self.url, create=True)
        self._opened.append(inbox)
        return inbox

    def fresh(self) -> Store:
        """Return another empty store, for each example of a property."""
        return Store(self.backend, self._urls)

    def close(self) -> None:
        for inbox in self._opened:
            inbox.close()
        self._opened.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


@pytest.fixture(params=list(BACKENDS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with Store(request.param, BACKENDS[request.param](tmp_path)) as made:
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
    """Values and first steps for inbox tests, with one moment to count from."""

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
    def whole(name: str = "handler", *, ordered: bool = False) -> Subscription:
        return Subscription(name, lambda event: [""], ordered=ordered)

    @staticmethod
    def devices(name: str = "device-handler", *, ordered: bool = False) -> Subscription:
        return Subscription(name, lambda event: [device.device_id for device in event.devices], ordered=ordered)

    @staticmethod
    def enrolled(inbox: Inbox, *subscriptions: Subscription, now: int = NOW) -> None:
        subscriptions = subscriptions or (Make.whole(),)
        inbox.subscribe([subscription.name for subscription in subscriptions], now)
        assert any(not inbox.enroll(subscriptions, now)[0] for _ in range(1000))

    @staticmethod
    def take(
        inbox: Inbox,
        *names: str,
        owner: str = "owner",
        now: int = NOW,
        lease_seconds: float = 30.0,
        limit: int = 1000,
    ) -> list[WorkItem]:
        return inbox.claim(names or ("handler",), owner, now, lease_seconds=lease_seconds, limit=limit)

    @staticmethod
    def settle(
        inbox: Inbox,
        items: Iterable[WorkItem],
        state: str = "done",
        *,
        owner: str = "owner",
        now: int = NOW,
        due_at: int = 0,
        error: str | None = None,
    ) -> None:
        inbox.settle([Outcome(item.id, state, due_at, error) for item in items], owner, now)

    @staticmethod
    def read_up(inbox: Inbox) -> None:
        assert any(not inbox.project() for _ in range(1000))


@pytest.fixture
def make() -> type[Make]:
    return Make
