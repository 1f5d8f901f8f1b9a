"""For tests of your handlers: a ThingSpace and a listener without a port, and a clock that does not wait.

A pytest plugin: the fixtures are there as soon as Upcall is installed. What they are made of is loaded by the first
test that asks for one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from upcall.lazy import lazy_names
from upcall.testing.bodies import callback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upcall.app import Upcall
    from upcall.testing.listener import Ledger, ListenerHarness
    from upcall.testing.sandbox import AsyncSandboxHarness, SandboxCampaign, SandboxHarness

__all__ = [
    "AsyncSandboxHarness",
    "Ledger",
    "ListenerHarness",
    "MakeListener",
    "SandboxCampaign",
    "SandboxHarness",
    "async_thingspace_sandbox",
    "callback",
    "thingspace_sandbox",
    "upcall_listener",
]

_NAMES_OF = {
    "listener": ("Ledger", "ListenerHarness"),
    "sandbox": ("AsyncSandboxHarness", "SandboxCampaign", "SandboxHarness"),
}

if not TYPE_CHECKING:  # a checker that sees __getattr__ believes in every name
    # No __dir__: pytest looks at each name of a plugin's, and would load everything in every run.
    __getattr__, _ = lazy_names(__name__, _NAMES_OF)

_SANDBOXES = ("thingspace_sandbox", "async_thingspace_sandbox")


class MakeListener(Protocol):
    """Be the type of the fixture `upcall_listener`."""

    def __call__(self, app: Upcall, *, account: str | None = None) -> ListenerHarness:
        """Make a listener for this test.

        Args:
            app: The handlers.
            account: The account that its token belongs to, None for all.
        """
        ...


@pytest.fixture
def thingspace_sandbox() -> Iterator[SandboxHarness]:
    """Be a ThingSpace for one test; its clock stands still until the test moves it."""
    with _loaded("sandbox").SandboxHarness() as sandbox:
        yield sandbox


@pytest.fixture
def async_thingspace_sandbox(thingspace_sandbox: SandboxHarness) -> AsyncSandboxHarness:
    """Be the same for a test in asyncio."""
    harness: AsyncSandboxHarness = _loaded("sandbox").AsyncSandboxHarness(thingspace_sandbox)
    return harness


@pytest.fixture
def upcall_listener(request: pytest.FixtureRequest) -> Iterator[MakeListener]:
    """Make listeners for one test; where it uses a sandbox too, they are registered there.

    A test fails where a handler was given up on and the test did not ask for `ListenerHarness.dead`.

    Returns:
        A function that takes the application and, optionally, the account of the listener's token.
    """
    module = _loaded("listener")
    harnesses: list[ListenerHarness] = []
    sandbox: SandboxHarness | None = None
    if any(name in request.fixturenames for name in _SANDBOXES):
        sandbox = request.getfixturevalue("thingspace_sandbox")

    def make(app: Upcall, *, account: str | None = None) -> ListenerHarness:
        harnesses.append(module.ListenerHarness(app, account=account))
        if sandbox is not None:
            sandbox.join(harnesses[-1])
        return harnesses[-1]

    yield make
    given_up = []
    for harness in reversed(harnesses):
        given_up += [
            f"{dead.subscriber} on callback {dead.callback_id}: {dead.error}" for dead in harness.unseen_dead()
        ]
        harness.close()
    if given_up:
        pytest.fail(
            f"Handlers were given up on, and the test did not look at listener.dead():\n{given_up[0]}", pytrace=False
        )


def _loaded(name: str) -> Any:
    """Load a part of this package, which a run of pytest that does not use it need not."""
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        pytest.fail(f"{error}: these fixtures need more: pip install 'upcall[sandbox]'", pytrace=False)
