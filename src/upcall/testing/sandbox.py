"""A sandbox of ThingSpace without a port, whose clock stands still until a test moves it."""

from __future__ import annotations

import asyncio
import itertools
import math
import tempfile
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import msgspec

from upcall.client import AsyncThingSpaceClient, ThingSpaceClient
from upcall.errors import DeliveryError
from upcall.sandbox import Faults, ManualClock, Sandbox, messages
from upcall.sandbox.api_campaigns import take_on
from upcall.sandbox.clock import moment
from upcall.sandbox.fleet import imei, new_versions
from upcall.sandbox.http import RequestError
from upcall.sandbox.models import CampaignBody
from upcall.settings import Credentials
from upcall.testing.listener import PATH, Delivery
from upcall.testing.loop import LoopThread
from upcall.testing.transport import AsyncInProcess, InProcess
from upcall.thingspace import check_account

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    from upcall.sandbox import Profile
    from upcall.sandbox.campaigns import Progress
    from upcall.sandbox.ledger import Message
    from upcall.sandbox.sending import Posted
    from upcall.testing.listener import ListenerHarness

__all__ = ["AsyncSandboxHarness", "SandboxCampaign", "SandboxHarness"]

BASE_URL = "http://127.0.0.1/api"
CREDENTIALS = Credentials(client_id="sandbox", client_secret="sandbox", username="sandbox", password="sandbox")  # noqa: S106 - printed in the documentation
_MONTH_SECONDS = 31 * 86_400.0
_TIME = "%Y-%m-%d %H:%M:%S"
_REQUEST = frozenset((*(field.encode_name for field in msgspec.structs.fields(CampaignBody)), "_sandbox"))


class _Acknowledged(msgspec.Struct, frozen=True):
    status: int


class _Poster:
    """Hand callbacks to the listeners of this process."""

    def __init__(self) -> None:
        self.listeners: dict[str, ListenerHarness] = {}

    def listener_of(self, url: str | None) -> ListenerHarness | None:
        """Return the listener that a URL leads to."""
        return None if url is None else self.listeners.get(urlsplit(url).hostname or "")

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        parts: AsyncIterator[bytes] | None = None,
        on_connected: Callable[[], None] | None = None,
    ) -> Posted:
        """Send a body to the listener whose host the URL names."""
        listener = self.listener_of(url)
        if listener is None:
            raise DeliveryError("POST failed: no listener of this test has that host.", kind="connect")
        if on_connected is not None:
            on_connected()
        return _Acknowledged(await listener.take(Delivery(urlsplit(url).path, headers, parts or _one(body), len(body))))


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body


class SandboxCampaign:
    """Be a campaign of the sandbox.

    Args:
        campaign_id: The provider's identifier.
        account: Whose.
        progress: Where it stands.
        settled: Returns whether nothing more will be sent of it.
    """

    def __init__(self, campaign_id: str, account: str, progress: Progress, settled: Callable[[], bool]) -> None:
        self.id = campaign_id
        self.account = account
        self._progress = progress
        self._settled = settled

    def status(self) -> str:
        """Return its state, in the provider's word."""
        return str(self._progress.status)

    def devices(self) -> dict[str, str]:
        """Return the state of each device, in the provider's word: the truth."""
        return {device.device_id: str(device.status) for device in self._progress.devices.values()}

    def counts(self) -> dict[str, int]:
        """Return how many devices are in each state."""
        return dict(Counter(self.devices().values()))

    def ended(self) -> bool:
        """Tell whether it has ended and the last of its callbacks was acknowledged or given up."""
        return self._progress.ended and self._settled()


class SandboxHarness:
    """Be a ThingSpace for one test: no port, no sleep.

    Its clock stands still until `advance` or `run_until` moves it; what falls due happens in order, each thing before
    the next. Callbacks go to the listeners of the same test.

    Args:
        profile: When callbacks are tried again: ``documented``, ``observed``, the path of a file that ends in
            ``.toml``, or a `Profile`.
        seed: What decides devices' fates and faults.
        now: When the clock starts, seconds since 1970.
    """

    def __init__(self, *, profile: str | Profile = "documented", seed: int = 1, now: float = 1_800_000_000.0) -> None:
        self._clock = ManualClock(now)
        self._poster = _Poster()
        # It does nothing before it is told to, and needs no loop of its own until then.
        self._sandbox: Sandbox = Sandbox(
            profile=profile, seed=seed, clock=self._clock, poster=self._poster, allow_http=True
        )
        self._state = tempfile.TemporaryDirectory(prefix="upcall-test-")
        self._loop = LoopThread("sandbox")
        self._serials = itertools.count()
        self._known: set[str] = set()
        self._owners: dict[str, ListenerHarness] = {}
        self._url_for_others: str | None = None
        self._loop.run(self._sandbox.start())

    # the clock

    @property
    def now(self) -> datetime:
        """Return what time it is in the sandbox."""
        return moment(self._clock.now())

    def advance(self, seconds: float) -> None:
        """Move the clock, and let everything happen that falls due meanwhile; handlers run as callbacks come.

        Args:
            seconds: How far, in virtual seconds.

        Raises:
            ValueError: That is no time forward.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"the clock cannot move by {seconds} s")
        end = self._clock.now() + seconds
        self._drain()
        while (due := self._next_due()) is not None and due <= end:
            self._step()
        self._loop.run(self._sandbox.advance(max(0.0, end - self._clock.now())))

    def run_until(self, condition: Callable[[], object], *, within_seconds: float = _MONTH_SECONDS) -> None:
        """Let one thing after the other happen until something is true; handlers run as callbacks come.

        Args:
            condition: What is to become true, such as ``campaign.ended``.
            within_seconds: How many virtual seconds it may take.

        Raises:
            TimeoutError: It did not become true in that time, or nothing more was planned.
            TypeError: The condition is no function.
        """
        if not callable(condition):
            raise TypeError("the condition is a function: campaign.ended, without brackets")
        limit = self._clock.now() + within_seconds
        self.advance(0)
        while not condition():
            due = self._next_due()
            if due is None or due > limit:
                why = "nothing more is planned"
                if due is not None:
                    why = f"within_seconds={within_seconds:.0f} ends before what is due next, at {moment(due):{_TIME}}"
                raise TimeoutError(f"{_name(condition)} is not true at {self.now:{_TIME}}, and {why}.")
            self._step()

    def _step(self) -> None:
        self._loop.run(self._sandbox.advance_to_next())
        self._drain()

    def _next_due(self) -> float | None:
        async def next_due() -> float | None:
            return self._sandbox.agenda.next_due()

        return self._loop.run(next_due())

    def _drain(self) -> None:
        for listener in self._poster.listeners.values():
            listener.drain_news()

    # what the provider does

    def schedule_campaign(
        self,
        account: str,
        devices: int | Sequence[str] = 10,
        *,
        failing: int = 0,
        rejected: int = 0,
        hours: float | None = 1.0,
        **request: Any,
    ) -> SandboxCampaign:
        """Schedule a campaign, through the same checks as ``POST /campaigns``.

        Args:
            account: Whose.
            devices: How many, or their identifiers.
            failing: How many of them fail.
            rejected: How many of them are rejected.
            hours: Virtual hours within which every device is final; None to obey dates and windows, with failures and
                rejections left to chance.
            request: Members of the request by their names on the wire, such as ``startDate``.

        Raises:
            ValueError: The provider would refuse it, and the text is its answer; or the test's listeners are all for
                other accounts.
        """
        if unknown := request.keys() - _REQUEST:
            raise ValueError(f"a campaign's request has no {', '.join(sorted(unknown))}")
        check_account(account)
        if isinstance(devices, str):
            raise ValueError("devices are a number or a list of identifiers, not a text")  # noqa: TRY004 - as others
        if hours is None and (failing or rejected):
            raise ValueError("without hours failures and rejections are left to chance")
        device_ids = [imei(next(self._serials)) for _ in range(devices)] if isinstance(devices, int) else devices
        body: dict[str, Any] = {
            "campaignName": "a test's campaign",
            "softwareName": "FOTA_Verizon_Model-A_01To02_HF",
            "softwareFrom": "FOTA_Verizon_Model-A_00To01_HF",
            "softwareTo": "FOTA_Verizon_Model-A_01To02_HF",
            "distributionType": "HTTP",
            "startDate": f"{self.now:%Y-%m-%d}",
            "endDate": f"{self.now + timedelta(days=7):%Y-%m-%d}",
            "deviceList": list(device_ids),
        }
        if hours is not None:
            body["_sandbox"] = {"hours": hours, "failing": failing, "rejected": rejected}
        progress = self._loop.run(self._take_on(account, body | request))
        campaign = progress.campaign
        return SandboxCampaign(campaign.id, account, progress, lambda: self._is_settled(campaign.id))

    async def _take_on(self, account: str, body: dict[str, Any]) -> Progress:
        self._introduce(account)
        access = self._sandbox.access
        has_had_one = account in self._owners or access.listener(account) or access.displaced(account)
        if self._owners and not has_had_one:
            raise ValueError(f"nobody would hear of it: this test's listeners are for {', '.join(self._owners)}")
        try:
            return take_on(self._sandbox, account, body)
        except RequestError as refused:
            raise ValueError(msgspec.json.decode(refused.answer.body)["errorMessage"]) from None

    def _is_settled(self, campaign_id: str) -> bool:
        return all(message.is_settled for message in self._messages(None, campaign_id))

    def _messages(self, account: str | None, campaign_id: str | None = None) -> list[Message]:
        async def select() -> list[Message]:
            return self._sandbox.ledger.select(account, campaign_id)

        return self._loop.run(select())

    def cancel_campaign(self, campaign: SandboxCampaign) -> None:
        """Cancel a campaign, or abort it once it has started.

        Raises:
            ValueError: It has ended, and the provider would refuse.
        """
        self._loop.run(self._cancel(campaign.id))
        self.advance(0)

    async def _cancel(self, campaign_id: str) -> None:
        progress = self._sandbox.campaigns.get(campaign_id)
        if progress is None or progress.ended:
            raise ValueError("there is no such campaign" if progress is None else f"the campaign is {progress.status}")
        self._sandbox.campaigns.stop(progress)

    def announce(self, account: str) -> None:
        """Send the callback that tells of new versions."""
        self._loop.run(self._announce(account))
        self.advance(0)

    async def _announce(self, account: str) -> None:
        self._introduce(account)
        self._sandbox.deliver(messages.announcement(account, new_versions()))

    def register(self, account: str, url: str) -> None:
        """Register a URL for an account, as another system would."""
        self._loop.run(self._register(account, url))

    async def _register(self, account: str, url: str) -> None:
        self._sandbox.register(account, url)

    def _introduce(self, account: str) -> None:
        """Register the listener of all accounts for one that is new here."""
        if account not in self._known:
            self._known.add(account)
            if self._url_for_others is not None and self._sandbox.access.listener(account) is None:
                self._sandbox.register(account, self._url_for_others)

    # what goes wrong

    def set_faults(self, account: str | None = None, *, faults: Faults | None = None, **rates: float) -> None:
        """Let this go wrong from now on, and nothing else.

        With an account only what goes wrong for that one is replaced; without arguments nothing goes wrong any more.

        Args:
            account: For whom the rates hold; None for all.
            faults: All of it, scripts included, in the place of rates.
            rates: From 0 to 1, by the fault's name, such as ``duplicate=0.1``.

        Raises:
            SettingsError: A fault is unknown, or a rate is out of range.
            TypeError: Faults are given twice, or as something else.
        """
        if faults is not None and (rates or account is not None or not isinstance(faults, Faults)):
            raise TypeError("give rates by name such as duplicate=0.1, or a Faults alone")
        self._loop.run(self._set_faults(account, rates, faults))

    async def _set_faults(self, account: str | None, rates: dict[str, float], faults: Faults | None) -> None:
        if faults is None and account is None:
            faults = Faults.checked({"all": rates})
        elif faults is None:
            before = self._sandbox.faults.to_dict()
            faults = Faults.checked(before | {"accounts": before["accounts"] | {account: rates}})
        self._sandbox.set_faults(faults)

    # what can be seen

    def deliveries(self, account: str | None = None, campaign: SandboxCampaign | None = None) -> list[Message]:
        """Return every callback with every try, of an account or of a campaign if asked."""
        return self._messages(account, None if campaign is None else campaign.id)

    def client(self, **options: Any) -> ThingSpaceClient:
        """Return a client that calls this sandbox; close it.

        Args:
            options: What `ThingSpaceClient` takes.
        """
        return ThingSpaceClient(**self._client_options(InProcess(self._sandbox, self._loop)) | options)

    def _client_options(self, transport: Any) -> dict[str, Any]:
        return {
            "base_url": BASE_URL,
            "credentials": CREDENTIALS,
            "transport": transport,
            "state_dir": self._state.name,
            "allow_http": True,
        }

    def join(self, listener: ListenerHarness) -> None:
        """Deliver callbacks to a listener, and register it for its account; its `url` says where."""
        host = f"listener-{len(self._poster.listeners) + 1}.example"
        url = f"https://{host}:50559{PATH}"
        self._poster.listeners[host] = listener
        listener.join(url, lambda: self._sent_to(listener))
        if listener.account is None:
            self._url_for_others = url
            for account in self._known - self._owners.keys():
                self.register(account, url)
        else:
            self._owners[listener.account] = listener
            self.register(listener.account, url)

    def _sent_to(self, listener: ListenerHarness) -> Iterable[str]:
        """Return what was made for a listener's account, or for any that no other one is for, and is done with."""
        return [
            message.sha256
            for message in self._messages(None)
            if message.is_settled
            and self._owners.get(message.account, self._poster.listener_of(self._url_for_others)) is listener
        ]

    def close(self) -> None:
        """Stop the sandbox."""
        if not self._loop.is_closed:
            self._loop.run(self._sandbox.stop())
            self._loop.close()
            self._state.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncSandboxHarness:
    """Be the same for a test in asyncio: the same names, awaited where the clock moves.

    The test's own loop goes on meanwhile, so that what it does beside may be what is waited for.

    Args:
        harness: The sandbox.
    """

    def __init__(self, harness: SandboxHarness) -> None:
        self._harness = harness

    @property
    def now(self) -> datetime:
        """Return what time it is in the sandbox."""
        return self._harness.now

    def schedule_campaign(
        self,
        account: str,
        devices: int | Sequence[str] = 10,
        *,
        failing: int = 0,
        rejected: int = 0,
        hours: float | None = 1.0,
        **request: Any,
    ) -> SandboxCampaign:
        """Schedule a campaign, as `SandboxHarness.schedule_campaign` does."""
        wishes: dict[str, Any] = {"failing": failing, "rejected": rejected, "hours": hours}
        return self._harness.schedule_campaign(account, devices, **wishes, **request)

    def set_faults(self, account: str | None = None, *, faults: Faults | None = None, **rates: float) -> None:
        """Let this go wrong from now on, as `SandboxHarness.set_faults` does."""
        self._harness.set_faults(account, faults=faults, **rates)

    def register(self, account: str, url: str) -> None:
        """Register a URL for an account, as another system would."""
        self._harness.register(account, url)

    def deliveries(self, account: str | None = None, campaign: SandboxCampaign | None = None) -> list[Message]:
        """Return every callback with every try, of an account or of a campaign if asked."""
        return self._harness.deliveries(account, campaign)

    async def advance(self, seconds: float) -> None:
        """Move the clock, let everything happen that falls due meanwhile, and run the handlers."""
        await asyncio.to_thread(self._harness.advance, seconds)

    async def run_until(self, condition: Callable[[], object], *, within_seconds: float = _MONTH_SECONDS) -> None:
        """Let one thing after the other happen until something is true.

        Raises:
            TimeoutError: It did not become true in that time, or nothing more was planned.
        """
        await asyncio.to_thread(self._harness.run_until, condition, within_seconds=within_seconds)

    async def cancel_campaign(self, campaign: SandboxCampaign) -> None:
        """Cancel a campaign, or abort it once it has started."""
        await asyncio.to_thread(self._harness.cancel_campaign, campaign)

    async def announce(self, account: str) -> None:
        """Send the callback that tells of new versions."""
        await asyncio.to_thread(self._harness.announce, account)

    def client(self, **options: Any) -> AsyncThingSpaceClient:
        """Return a client that calls this sandbox; close it."""
        harness = self._harness
        transport = AsyncInProcess(harness._sandbox, harness._loop)  # noqa: SLF001 - its twin
        return AsyncThingSpaceClient(**harness._client_options(transport) | options)  # noqa: SLF001


def _name(condition: Callable[[], object]) -> str:
    return getattr(condition, "__qualname__", repr(condition))
