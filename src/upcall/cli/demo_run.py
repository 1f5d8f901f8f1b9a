"""What ``upcall demo`` does, step by step."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from upcall.cli.output import progress_bar
from upcall.cli.processes import Server, clean_environment, signals_interrupt
from upcall.cli.reading import catch_up
from upcall.cli.simulate import read_control, run_campaign
from upcall.client import ThingSpaceClient
from upcall.errors import UpcallError
from upcall.inbox import Inbox, Selection, open_inbox
from upcall.listener import generate_token
from upcall.redact import mask_device, mask_url_token
from upcall.settings import Credentials
from upcall.thingspace import PROFILES, FotaV2CallbackRegistrationRequest, is_final_device, parse_callback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from upcall.inbox import CallbackRecord

__all__ = ["DemoLedger", "DemoResult", "run_demo"]

ACCOUNT = "0000123456-00001"
SPEED = 120
"""The fastest that a demo runs: six seconds of campaign."""
STARTS = 4
"""So many starts of the listener fit into the provider's retries: on a slow machine the demo goes slower."""
HOURS = 0.2
PROFILE = "documented"
FAULTS = "duplicate=0.1,reorder=0.1"
SETTLE_SECONDS = 60.0
POLL_SECONDS = 0.1
SHOWN_AT_ONCE = 3
_DIRECTORY = "upcall-demo-"
_KEEP_MARK = "keep"


class DemoLedger(msgspec.Struct, frozen=True):
    """Account for every callback of the demo.

    Args:
        sent: Callbacks that the sandbox sent.
        acknowledged: Of those, answered 2xx.
        stored: Callbacks in the listener's store.
        redelivered: Deliveries that the listener recognised as copies.
        handled: Callbacks whose every handler ended well.
        dead: Callbacks that a handler gave up on.
        lost: Callbacks that were sent and are not stored.
        restarts: How often the listener was killed and started again.
        devices_equal: Whether the listener's device states are the sandbox's.
    """

    sent: int
    acknowledged: int
    stored: int
    redelivered: int
    handled: int
    dead: int
    lost: int
    restarts: int
    devices_equal: bool

    def document(self) -> dict[str, Any]:
        """Return the ledger as JSON's types."""
        return msgspec.structs.asdict(self)

    def holds(self) -> bool:
        """Tell whether nothing was lost and everything agrees."""
        whole = self.sent == self.acknowledged == self.stored == self.handled > 0
        return whole and self.lost == self.dead == 0 and self.restarts > 0 and self.devices_equal


class DemoResult(msgspec.Struct, frozen=True):
    """Hold what the demo found.

    Args:
        ledger: The counts.
        states: How many devices ended in each state, as the listener sees them.
        campaign_id: The campaign.
        directory: Where the data lies.
        store: The listener's store.
    """

    ledger: DemoLedger
    states: dict[str, int]
    campaign_id: str
    directory: Path
    store: str

    def report(self) -> Iterator[str]:
        """Yield the lines that a person reads at the end."""
        ledger = self.ledger
        yield "The ledger"
        yield f"  sent          {ledger.sent:6}  callbacks by the sandbox"
        yield f"  acknowledged  {ledger.acknowledged:6}  answered 200, each after its fsync"
        yield f"  stored        {ledger.stored:6}  in the listener's inbox"
        yield f"  redelivered   {ledger.redelivered:6}  copies, recognised"
        yield f"  handled       {ledger.handled:6}  by every handler that wanted them"
        yield f"  dead          {ledger.dead:6}  given up"
        yield f"  lost          {ledger.lost:6}"
        yield f"  restarts      {ledger.restarts:6}  after SIGKILL, in the middle of the campaign"
        yield "Devices, as the listener sees them"
        for status, count in sorted(self.states.items()):
            yield f"  {count:6}  {status}"
        equal = "equal" if ledger.devices_equal else "NOT EQUAL"
        yield f"  {equal} to the sandbox's truth"
        yield f"The data lies in {self.directory}"
        yield "Try next"
        command = _command()
        yield f"  {command} events list --store {self.store}"
        yield f"  {command} campaigns show {self.campaign_id} --store {self.store}"
        yield f"  {command} dead list --store {self.store}"


def run_demo(*, devices: int, seed: int, keep: bool, console: Console) -> DemoResult:
    """Run the demo in a directory of its own.

    Args:
        devices: Devices in the campaign.
        seed: What the campaign and its faults are drawn from.
        keep: Keep the directory for good.
        console: Where the story is told.

    Raises:
        UpcallError: A step failed; the servers are ended.
    """
    _clear_earlier()
    directory = Path(tempfile.mkdtemp(prefix=_DIRECTORY))
    if keep:
        (directory / _KEEP_MARK).touch()
    with signals_interrupt(), _Demo(directory, seed, console) as run:
        return run.go(devices)


class _Demo:
    def __init__(self, directory: Path, seed: int, console: Console) -> None:
        self._directory = directory
        self._seed = seed
        self._console = console
        self._store = f"sqlite:///{directory / 'inbox.db'}"
        self._environment = clean_environment(UPCALL_STATE_DIR=str(directory / "state"), UPCALL_DEMO_DIR=str(directory))
        self._token = generate_token()
        self._servers: dict[str, Server] = {}
        self._over = threading.Event()
        self._speed = SPEED
        self._restarts = 0
        self._shown = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers.values():
            try:
                server.stop()
            except KeyboardInterrupt:  # a second signal waits for nobody, and no server is left behind
                server.kill()

    def go(self, devices: int) -> DemoResult:
        began = time.monotonic()
        listener = self._start_listener(port="0")
        self._say(f"[bold]listener[/] at {mask_url_token(listener.url)}, in a process of its own")
        retries_end = PROFILES[PROFILE].ladder_seconds()[-1][0]
        self._speed = min(SPEED, math.ceil(retries_end / STARTS / (time.monotonic() - began)))
        faults = ["--profile", PROFILE, "--seed", str(self._seed), "--speed", str(self._speed), "--faults", FAULTS]
        sandbox = self._start("sandbox", ["sandbox", "--port", "0", "--allow-http", *faults])
        self._say(f"[bold]sandbox[/] of ThingSpace at {sandbox.url}, in another")
        credentials = Credentials(client_id="sandbox", client_secret="sandbox", username="sandbox", password="sandbox")  # noqa: S106 - the sandbox's own
        with (
            ThingSpaceClient(
                credentials=credentials,
                base_url=sandbox.url,
                allow_http=True,
                state_dir=self._directory / "state",
            ) as client,
            open_inbox(self._store) as inbox,
            ThreadPoolExecutor(max_workers=1) as pool,
        ):
            self._register(client, listener.url)
            campaign = pool.submit(
                run_campaign,
                client,
                account=ACCOUNT,
                devices=devices,
                hours=HOURS,
                seed=self._seed,
                pause=self._pause,
            )
            try:
                self._follow(inbox, campaign, devices)
                return self._result(inbox, campaign.result())
            finally:
                self._over.set()

    def _pause(self, seconds: float) -> None:
        """Wait between two looks at the campaign; a demo that was interrupted does not wait for its end."""
        if self._over.wait(seconds):
            raise UpcallError("the demo is over.")

    def _start(self, name: str, arguments: list[str]) -> Server:
        server = Server(name, arguments, self._environment, self._directory / f"{name}.log")
        self._servers[name] = server
        return server

    def _start_listener(self, port: str) -> Server:
        where = ["--port", port, "--store", self._store, "--account", ACCOUNT, "--token", self._token]
        return self._start("listener", ["listen", "upcall.cli.demo_app:app", *where])

    def _register(self, client: ThingSpaceClient, url: str) -> None:
        client.callbacks.register_callback(ACCOUNT, FotaV2CallbackRegistrationRequest(url=url))
        registered = client.callbacks.list_registered_callbacks(ACCOUNT).url
        if registered != url:
            raise UpcallError(f"registered {mask_url_token(url)}, read back {mask_url_token(registered or 'nothing')}.")
        self._say(f"[bold]registered[/] for account {ACCOUNT}, and read back")

    def _follow(self, inbox: Inbox, campaign: Future[dict[str, Any]], devices: int) -> None:
        """Show callbacks as they arrive, kill the listener halfway, and wait until all is quiet."""
        self._say(f"[bold]campaign[/] of {devices} devices at {self._speed} times the speed of life")
        with progress_bar(self._console, transient=True) as bar:
            task = bar.add_task("devices final", total=devices)
            deadline = time.monotonic() + SETTLE_SECONDS
            while not (self._restarts and campaign.done() and self._is_quiet(inbox)):
                final = self._show(inbox)
                bar.update(task, completed=final)
                # A campaign of one device has no half, and a short one may be over before it is looked at.
                if not self._restarts and self._shown and (final * 2 >= devices - 1 or campaign.done()):
                    self._kill_listener()
                if campaign.done():
                    campaign.result()  # a campaign that failed ends the demo now
                else:
                    deadline = time.monotonic() + SETTLE_SECONDS
                if time.monotonic() > deadline:
                    raise UpcallError(f"the demo did not settle. Its logs and data lie in {self._directory}.")
                time.sleep(POLL_SECONDS)
            self._show(inbox)

    def _show(self, inbox: Inbox) -> int:
        """Print what arrived since the last look; return how many devices are final."""
        catch_up(inbox)
        records = inbox.callbacks(Selection(after=self._shown))
        if len(records) > SHOWN_AT_ONCE:
            self._say(f"         … {len(records) - SHOWN_AT_ONCE} more")
        for record in records[-SHOWN_AT_ONCE:]:
            self._say(_story(record))
        if records:
            self._shown = records[-1].id
        counts: Counter[str] = Counter()
        for campaign in inbox.campaigns():
            counts.update(campaign.devices)
        return sum(count for status, count in counts.items() if is_final_device(status))

    def _kill_listener(self) -> None:
        listener = self._servers["listener"]
        port = listener.url.split("/")[2].rpartition(":")[2]
        listener.kill()
        self._say(f"[bold red]SIGKILL[/] to the listener, process {listener.pid}: as hard as it gets")
        started = time.monotonic()
        again = self._start_listener(port)
        self._restarts += 1
        seconds = time.monotonic() - started
        self._say(f"[bold]listener[/] again after {seconds:.1f} s, same store, process {again.pid}")

    def _is_quiet(self, inbox: Inbox) -> bool:
        """Tell whether nothing is on its way, and nothing is left to do."""
        catch_up(inbox)
        ledger = inbox.ledger()
        if ledger.pending or ledger.unread:
            return False
        return not any(message["state"] == "pending" or message["next_at"] for message in self._messages())

    def _messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = read_control(self._servers["sandbox"].url, "deliveries")
        return messages

    def _result(self, inbox: Inbox, truth: dict[str, Any]) -> DemoResult:
        sent = [message for message in self._messages() if message["attempts"] or message["state"] == "pending"]
        digests = {record.digest for record in inbox.callbacks(bodies=False)}
        counts = inbox.ledger()
        found = inbox.campaign(truth["campaign_id"])
        seen = {device.device_id: device.status for device in found[1]} if found else {}
        ledger = DemoLedger(
            sent=len(sent),
            acknowledged=sum(1 for message in sent if message["acknowledged"]),
            stored=counts.stored,
            redelivered=counts.redelivered,
            handled=counts.handled,
            dead=counts.dead,
            lost=sum(1 for message in sent if message["sha256"] not in digests),
            restarts=self._restarts,
            devices_equal=seen == {device["device_id"]: device["status"] for device in truth["devices"]},
        )
        states = Counter(status or "unknown" for status in seen.values())
        return DemoResult(ledger, dict(states), truth["campaign_id"], self._directory, self._store)

    def _say(self, text: str) -> None:
        self._console.print(f"  {text}", soft_wrap=True)


def _story(record: CallbackRecord) -> str:
    event = parse_callback(record.body or b"")
    said = ", ".join(f"{mask_device(device.device_id)} {device.status}" for device in event.devices[:1])
    more = f" and {len(event.devices) - 1} more" if len(event.devices) > 1 else ""
    return f"callback {record.id:4}  {record.kind or '?':17} {event.campaign_status or '':18} {said}{more}".rstrip()


def _clear_earlier() -> None:
    """Remove the directories of earlier demos of this user that are over and were not to be kept."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_DIRECTORY}*"):
        with contextlib.suppress(OSError):
            mine = directory.stat().st_uid == os.getuid() and not directory.is_symlink()
            hour_old = time.time() - directory.stat().st_mtime > 3600  # noqa: PLR2004 - an hour
            if mine and hour_old and not (directory / _KEEP_MARK).exists():
                shutil.rmtree(directory)


def _command() -> str:
    """Return how to type the command where this process was started."""
    beside = Path(sys.prefix) / "bin" / "upcall"
    # `uv run` puts the environment's commands on its own PATH only.
    if "UV_RUN_RECURSION_DEPTH" not in os.environ or not beside.exists():
        return "upcall"
    here = Path.cwd()
    return str(beside.relative_to(here)) if beside.is_relative_to(here) else str(beside)
