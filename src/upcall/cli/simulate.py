"""``upcall simulate``: run a campaign in a sandbox, through the same API that the provider has."""

from __future__ import annotations

import contextlib
import json
import random
import time
import urllib.request
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import typer

from upcall.cli import output
from upcall.cli.output import JsonOption  # noqa: TC001 - Typer reads the annotations

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress

    from upcall.client import ThingSpaceClient

__all__ = ["Snapshot", "read_control", "run_campaign", "simulate"]

_MAX_DEVICES = 1_000_000
_MAX_HOURS = 8784
_POLL_SECONDS = 0.2
_LINE_EVERY_SECONDS = 2.0
_LONG_SECONDS = 120.0


class Snapshot(NamedTuple):
    """Say how far a campaign is.

    Args:
        campaign_id: The campaign.
        status: Its state, in the provider's word.
        counts: Devices by state, in the provider's words.
        final: Devices whose state will not change again.
        total: All devices.
    """

    campaign_id: str
    status: str
    counts: dict[str, int]
    final: int
    total: int


def simulate(
    *,
    account: Annotated[str, typer.Option(help="The account whose listener gets the callbacks.")],
    devices: Annotated[int, typer.Option(min=1, max=_MAX_DEVICES, help="How many devices the campaign has.")],
    hours: Annotated[float, typer.Option(help="Virtual hours within which every device is final.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Makes devices and their fates the same each time.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a campaign in a sandbox and say what became of each device.

    The sandbox is the one that THINGSPACE_BASE_URL names; a provider is refused. The last line of the output is the
    truth that a listener's own view should equal. Devices that fail do not make the command fail.
    """
    from upcall.client import ThingSpaceClient
    from upcall.errors import NotASandboxError, RequestNotSentError, SettingsError
    from upcall.thingspace import ENVIRONMENTS, check_account

    try:
        check_account(account)
    except ValueError as error:
        raise SettingsError(f"{error}.") from None
    if not 0 < hours < float("inf"):
        raise SettingsError(f"--hours is {hours}.", hint="Give a number above 0.")
    if hours > _MAX_HOURS:
        raise SettingsError(f"--hours is {hours:g}.", hint=f"Give at most {_MAX_HOURS}, a year.")
    how = "Start one with: upcall sandbox; then set THINGSPACE_BASE_URL to the URL of its ready line."
    with ThingSpaceClient() as client:
        # No environment of the provider's is asked: it would only say that it knows no such path.
        is_provider = any(client.base_url == environment.base_url for environment in ENVIRONMENTS.values())
        try:
            banner = None if is_provider else client.sandbox_banner()
        except RequestNotSentError as error:
            why = error.message.partition(f"{client.base_url}: ")[2] or error.message
            raise RequestNotSentError(f"No sandbox answers at {client.base_url}: {why}", hint=how) from None
        if banner is None:
            raise NotASandboxError(
                f"{client.base_url} is no sandbox, and simulate schedules campaigns in sandboxes only.", hint=how
            )
        _say_what_comes(client, account, hours, banner)
        with _Display(devices) as display:
            truth = run_campaign(client, account, devices=devices, hours=hours, seed=seed, on_progress=display.show)
        _say_what_was_delivered(client, truth["campaign_id"])
    if not as_json:
        _summarise(truth)
    output.emit(truth)


def run_campaign(
    client: ThingSpaceClient,
    account: str,
    *,
    devices: int,
    hours: float = 1.0,
    seed: int | None = None,
    on_progress: Callable[[Snapshot], None] = lambda _: None,
    pause: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Schedule a campaign through the V2 API, follow it to its end, and return the truth.

    Args:
        client: A client of a sandbox.
        account: The account.
        devices: How many devices.
        hours: Virtual hours within which every device is final.
        seed: Makes the devices and their fates the same each time; None picks one.
        on_progress: Called after each look.
        pause: What waits between two looks, in seconds.

    Returns:
        ``{"campaign_id", "status", "devices": [{"device_id", "status"}]}`` in the provider's own words.

    Raises:
        ThingSpaceError: The sandbox refused, or does not answer.
    """
    from upcall.thingspace import is_final_campaign, is_final_device

    body = _campaign(devices, hours, seed)
    campaign_id = str(client.campaigns_v2.schedule_campaign_firmware_upgrade(account, body)["id"])
    while True:
        started = time.monotonic()
        # The campaign first: once it has ended, no device's state that is read after it can change.
        status = str(client.campaigns_v2.get_campaign_information(account, campaign_id)["status"])
        states = _device_states(client, account, campaign_id)
        final = sum(is_final_device(state) for state in states.values())
        on_progress(Snapshot(campaign_id, status, dict(Counter(states.values())), final, len(states)))
        if is_final_campaign(status) and final == len(states):
            break
        # A look at a large campaign takes many pages: it must not become the sandbox's main work.
        pause(max(_POLL_SECONDS, 2 * (time.monotonic() - started)))
    return {
        "campaign_id": campaign_id,
        "status": status,
        "devices": [{"device_id": device_id, "status": state} for device_id, state in states.items()],
    }


def read_control(base_url: str, path: str) -> Any:
    """Return what a control call of a sandbox on this machine answers, whatever proxy is set.

    Args:
        base_url: The sandbox's root, which ends in ``/api``.
        path: What follows ``/_sandbox/``.

    Raises:
        OSError: It does not answer, or refuses.
        ValueError: It answers with no JSON.
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"{base_url.removesuffix('/api')}/_sandbox/{path}", timeout=10) as answer:
        return json.load(answer)


def _campaign(devices: int, hours: float, seed: int | None) -> dict[str, Any]:
    from upcall.sandbox.fleet import imei

    first = random.Random(seed).randrange(_MAX_DEVICES)  # noqa: S311 - reproducible on purpose
    today = datetime.now(UTC).date()
    wishes: dict[str, Any] = {"hours": hours}
    if seed is not None:
        wishes["seed"] = seed
    return {
        "campaignName": "upcall simulate",
        "softwareName": "FOTA_Verizon_Model-A_01To02_HF",
        "softwareFrom": "FOTA_Verizon_Model-A_00To01_HF",
        "softwareTo": "FOTA_Verizon_Model-A_01To02_HF",
        "distributionType": "HTTP",
        "startDate": today.isoformat(),
        "endDate": (today + timedelta(days=7)).isoformat(),
        "deviceList": [imei((first + number) % _MAX_DEVICES) for number in range(devices)],
        "_sandbox": wishes,
    }


def _device_states(client: ThingSpaceClient, account: str, campaign_id: str) -> dict[str, str]:
    """Read where every device stands, all pages of it."""
    states: dict[str, str] = {}
    last_seen = "0"
    while True:
        page = client.software_management_reports_v2.get_campaign_device_status(account, campaign_id, last_seen)
        states |= {str(device["deviceId"]): str(device["status"]) for device in page.get("deviceList") or []}
        if not page.get("hasMoreData"):
            return states
        last_seen = str(page["lastSeenDeviceId"])


def _say_what_comes(client: ThingSpaceClient, account: str, hours: float, banner: dict[str, Any]) -> None:
    registered = client.software_management_callbacks_v2.list_registered_callbacks(account).url
    speed = float(banner.get("speed") or 1.0)
    seconds = hours * 3600 / speed
    if banner.get("clock") == "manual":
        root = client.base_url.removesuffix("/api")
        output.log(
            f"{hours:g} h of virtual time, by a clock that only you move:"
            f" curl -X POST {root}/_sandbox/clock -d '{{\"advance_seconds\": 60}}'"
        )
    else:
        faster = (
            "; a sandbox that is started with --speed 3600 takes a second an hour" if seconds > _LONG_SECONDS else ""
        )
        output.log(f"{hours:g} h of virtual time at speed {speed:g}: about {seconds:.1f} s{faster}")
    if registered is None:
        output.log(f"no listener is registered for {account}: its callbacks will be lost")


def _say_what_was_delivered(client: ThingSpaceClient, campaign_id: str) -> None:
    """Say what became of the campaign's callbacks, where the sandbox tells: it answers this machine only."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        summary = read_control(client.base_url, f"summary?campaign={campaign_id}")
        states = ", ".join(f"{count} {state}" for state, count in summary["states"].items() if count)
        output.log(f"{summary['callbacks']} callbacks in {summary['tries']} tries: {states}")


def _summarise(truth: dict[str, Any]) -> None:
    output.line(f"campaign {truth['campaign_id']}: {truth['status']}")
    counts = Counter(device["status"] for device in truth["devices"])
    output.table(("state", "devices"), [(state, str(count)) for state, count in sorted(counts.items())])


class _Display:
    """Show progress on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._bar: Progress | None = None
        self._told_at = float("-inf")
        self._told = ""

    def __enter__(self) -> Self:
        console = output.error_console()
        if console.is_terminal:
            self._bar = output.progress_bar(console)
            self._bar.add_task("scheduling", total=self._total)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Show how far the campaign is."""
        if self._bar is not None:
            if not self._told:
                self._told = f"campaign {snapshot.campaign_id}"
                self._bar.console.print(self._told, highlight=False)
            self._bar.update(self._bar.task_ids[0], completed=snapshot.final, description=snapshot.status)
            return
        text = f"campaign {snapshot.campaign_id} {snapshot.status}: {snapshot.final} of {snapshot.total} devices final"
        ended = snapshot.final == snapshot.total
        if text != self._told and (ended or time.monotonic() - self._told_at >= _LINE_EVERY_SECONDS):
            output.log(text)
            self._told, self._told_at = text, time.monotonic()
