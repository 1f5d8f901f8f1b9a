"""The sandbox that users' tests get: campaigns, outages and faults without a port and without waiting."""

import asyncio
import subprocess
import sys
import threading

import pytest

from upcall import Upcall
from upcall.errors import DeliveryError, SettingsError
from upcall.sandbox import Faults, Profile, Script
from upcall.testing import ListenerHarness, SandboxHarness

ACCOUNT = "0000123456-00001"
OTHER = "0000123456-00002"


@pytest.fixture
def tickets():
    return []


@pytest.fixture
def app(tickets):
    app = Upcall()
    app.on_device("UpgradeFailed")(lambda event, device: tickets.append(device.device_id))
    return app


def test_a_campaign_with_failures(thingspace_sandbox, upcall_listener, app, tickets):
    """The example of the documents: two failures are two tickets, and nothing is lost."""
    listener = upcall_listener(app, account=ACCOUNT)
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=25, failing=2)
    thingspace_sandbox.run_until(campaign.ended)
    assert len(tickets) == 2
    assert listener.ledger().lost == 0
    assert campaign.counts() == {"UpgradeSuccess": 23, "UpgradeFailed": 2}
    assert {device for device, state in campaign.devices().items() if state == "UpgradeFailed"} == set(tickets)
    assert campaign.status() == "CampaignEnded"


def test_the_same_test_has_the_same_campaign():
    """Without a seed of its own a test sees the same identifiers, devices and fates in each run."""
    seen = []
    for _ in range(2):
        with SandboxHarness() as sandbox:
            campaign = sandbox.schedule_campaign(ACCOUNT, devices=10, failing=3)
            sandbox.run_until(campaign.ended)
            seen.append((campaign.id, campaign.devices()))
    assert seen[0] == seen[1]


def test_handlers_run_as_callbacks_come(thingspace_sandbox, upcall_listener, app, tickets):
    """A test can wait for what a handler did, in the middle of a campaign."""
    upcall_listener(app, account=ACCOUNT)
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=20, failing=5)
    thingspace_sandbox.run_until(lambda: len(tickets) == 2)
    assert not campaign.ended()
    assert len(tickets) == 2


def test_what_never_comes_is_said(thingspace_sandbox):
    """A condition that cannot become true ends with what was waited for, when, and why not."""
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=1)

    def never():
        return False

    with pytest.raises(
        TimeoutError, match=r"never is not true at 2027-01-15 \d\d:\d\d:\d\d, and nothing more is planned"
    ):
        thingspace_sandbox.run_until(never)
    assert campaign.ended()
    second = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=1)
    with pytest.raises(TimeoutError, match="within_seconds=60 ends before what is due next, at 2027-01-15 "):
        thingspace_sandbox.run_until(second.ended, within_seconds=60)


def test_a_listener_of_all_accounts(thingspace_sandbox, upcall_listener, app, tickets):
    """A listener without an account is registered for every account that comes up."""
    listener = upcall_listener(app)
    campaigns = [thingspace_sandbox.schedule_campaign(name, devices=5, failing=1) for name in (ACCOUNT, OTHER)]
    thingspace_sandbox.run_until(lambda: all(campaign.ended() for campaign in campaigns))
    thingspace_sandbox.announce("0000123456-00003")
    assert len(tickets) == 2
    assert {record.account for record in listener.callbacks()} == {ACCOUNT, OTHER, "0000123456-00003"}
    assert listener.ledger().lost == 0


def test_two_listeners(thingspace_sandbox, upcall_listener, app):
    """Each account's callbacks go to its own listener."""
    first, second = (upcall_listener(app, account=name) for name in (ACCOUNT, OTHER))
    thingspace_sandbox.announce(OTHER)
    assert (first.ledger().stored, second.ledger().stored) == (0, 1)
    assert (first.ledger().sent, second.ledger().sent) == (0, 1)


def test_an_outage_loses_what_the_ladder_says(upcall_listener, app):
    """Under a profile of one try everything sent meanwhile is lost, and counted."""
    with SandboxHarness(profile=Profile(name="once", gaps_seconds=())) as sandbox:
        listener = upcall_listener(app, account=ACCOUNT)
        sandbox.join(listener)
        sandbox.announce(ACCOUNT)
        with listener.away():
            sandbox.announce(ACCOUNT)
        sandbox.announce(ACCOUNT)
        assert [message.state for message in sandbox.deliveries()] == ["acknowledged", "failed", "acknowledged"]
        assert sandbox.deliveries()[1].attempts[0].error == "connect"


def test_faults_by_name_account_and_script(thingspace_sandbox, upcall_listener, app):
    """Faults are set by name, for one account, as a whole, and none at all."""
    listener = upcall_listener(app)
    states = lambda: [message.state for message in thingspace_sandbox.deliveries()]  # noqa: E731
    thingspace_sandbox.set_faults(drop=1)
    thingspace_sandbox.announce(ACCOUNT)
    thingspace_sandbox.set_faults()
    thingspace_sandbox.set_faults(OTHER, drop=1)
    thingspace_sandbox.announce(ACCOUNT)
    thingspace_sandbox.announce(OTHER)
    thingspace_sandbox.set_faults(faults=Faults(script=(Script(after_seconds=60, faults={"drop": 1.0}),)))
    thingspace_sandbox.announce(ACCOUNT)
    thingspace_sandbox.advance(60)
    thingspace_sandbox.announce(ACCOUNT)
    thingspace_sandbox.set_faults()
    thingspace_sandbox.announce(ACCOUNT)
    assert states() == ["dropped", "acknowledged", "dropped", "acknowledged", "dropped", "acknowledged"]
    with pytest.raises(SettingsError, match="eclipse"):
        thingspace_sandbox.set_faults(eclipse=1)
    # What is announced is the same each time: three of six are one callback for the listener.
    assert listener.ledger().deliveries == 3


def test_cut_bodies_are_not_stored(thingspace_sandbox, upcall_listener, app):
    """A body that was cut is not kept; the next try brings it whole."""
    listener = upcall_listener(app, account=ACCOUNT)
    thingspace_sandbox.set_faults(cut_body=1, slow_body=1, forged_forward=1)
    thingspace_sandbox.announce(ACCOUNT)
    (message,) = thingspace_sandbox.deliveries()
    assert (message.state, message.attempts[0].error, listener.ledger().stored) == ("pending", "reset", 0)
    thingspace_sandbox.advance(300)
    assert (message.state, listener.ledger().stored) == ("acknowledged", 1)


def test_dates_and_windows(thingspace_sandbox, upcall_listener, app):
    """Without hours a campaign obeys its calendar: nothing is downloaded outside its window."""
    upcall_listener(app, account=ACCOUNT)
    window = {"downloadTimeWindowList": [{"startTime": 20, "endTime": 21}]}
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=10, hours=None, startDate="2027-01-16", **window)
    thingspace_sandbox.advance(35 * 3600)
    assert (f"{thingspace_sandbox.now:%d %H:%M}", campaign.status()) == ("16 19:00", "CampaignScheduled")
    assert set(campaign.devices().values()) <= {"Accepted", "DeviceRejected"}
    thingspace_sandbox.advance(2 * 3600)
    assert "Accepted" not in campaign.devices().values() or "UpgradePending" in campaign.devices().values()
    thingspace_sandbox.run_until(campaign.ended)


def test_an_unsound_campaign_is_a_value_error(thingspace_sandbox):
    """What the provider would refuse is refused with its words."""
    with pytest.raises(ValueError, match="Device list is empty"):
        thingspace_sandbox.schedule_campaign(ACCOUNT, devices=[])
    with pytest.raises(ValueError, match="failing and rejected"):
        thingspace_sandbox.schedule_campaign(ACCOUNT, devices=1, failing=2)
    with pytest.raises(ValueError, match="Invalid softwareName"):
        thingspace_sandbox.schedule_campaign(ACCOUNT, devices=1, softwareName="")


def test_cancelling(thingspace_sandbox, upcall_listener, app):
    """A campaign is cancelled or aborted, and its devices with it."""
    listener = upcall_listener(app, account=ACCOUNT)
    early, late = (thingspace_sandbox.schedule_campaign(ACCOUNT, devices=3) for _ in range(2))
    thingspace_sandbox.advance(0)
    thingspace_sandbox.cancel_campaign(early)
    thingspace_sandbox.advance(60)
    thingspace_sandbox.cancel_campaign(late)
    assert (early.counts(), late.counts()) == ({"CampaignCancelled": 3}, {"CampaignAborted": 3})
    assert early.ended()
    assert late.ended()
    assert listener.ledger().lost == 0
    with pytest.raises(ValueError, match="the campaign is CampaignAborted"):
        thingspace_sandbox.cancel_campaign(late)


def test_clients_of_both_kinds(async_thingspace_sandbox, thingspace_sandbox):
    """Clients call the same sandbox without a port; an hour of its clock costs them a new token, and nothing else."""
    url = "https://listener.example:50559/callbacks/a"
    with thingspace_sandbox.client() as client:
        client.callbacks.register_callback(ACCOUNT, {"url": url})
        thingspace_sandbox.advance(3600)
        assert client.callbacks.list_registered_callbacks(ACCOUNT).url == url

    async def look():
        async with async_thingspace_sandbox.client() as client:
            return (await client.callbacks.list_registered_callbacks(ACCOUNT)).url

    assert asyncio.run(look()) == url


async def test_in_asyncio_the_loop_goes_on(async_thingspace_sandbox, upcall_listener):
    """While the clock moves the test's own loop runs: what it does may be what is waited for."""
    app, seen, ticks = Upcall(), [], 0

    @app.on()
    async def note(event):
        seen.append(event.kind)

    upcall_listener(app, account=ACCOUNT)

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    campaign = async_thingspace_sandbox.schedule_campaign(ACCOUNT, devices=5)
    await async_thingspace_sandbox.run_until(campaign.ended)
    await async_thingspace_sandbox.announce(ACCOUNT)
    await async_thingspace_sandbox.advance(60)
    assert ticks > 10
    ticking.cancel()
    assert seen[0] == "upgradeScheduled"
    assert seen[-2:] == ["upgradeFinished", "firmwareList"]
    assert f"{async_thingspace_sandbox.now:%Y}" == "2027"
    second = async_thingspace_sandbox.schedule_campaign(ACCOUNT, devices=5)
    await async_thingspace_sandbox.cancel_campaign(second)
    assert second.ended()


def test_a_listener_without_a_sandbox_counts_too(upcall_listener, app):
    """What was received and acknowledged, and is stored, is not lost."""
    listener = upcall_listener(app)
    assert isinstance(listener, ListenerHarness)
    assert listener.receive({"type": "firmwareList"}) == 200
    ledger = listener.ledger()
    assert (ledger.sent, ledger.stored, ledger.lost) == (1, 1, 0)


def test_the_plugin_costs_little():
    """A run of pytest that uses no fixture of ours loads neither the sandbox nor the listener."""
    script = "import sys, upcall.testing; print(sorted(n for n in sys.modules if n.startswith('upcall.')))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "upcall.testing" in loaded
    assert "upcall.sandbox" not in loaded
    assert "upcall.inbox" not in loaded


def test_two_listeners_lose_nothing_of_each_other(thingspace_sandbox, upcall_listener, app):
    """A listener's ledger counts what was made for its own account, and none of another's."""
    first, others = upcall_listener(app, account=ACCOUNT), upcall_listener(app)
    campaigns = [thingspace_sandbox.schedule_campaign(name, devices=4) for name in (ACCOUNT, OTHER)]
    thingspace_sandbox.run_until(lambda: all(campaign.ended() for campaign in campaigns))
    for listener in (first, others):
        assert (listener.ledger().sent, listener.ledger().lost) == (10, 0)


def test_a_listener_is_registered_again(thingspace_sandbox, upcall_listener, app):
    """After a theft the test takes the slot back by the listener's own URL."""
    listener = upcall_listener(app, account=ACCOUNT)
    thingspace_sandbox.set_faults(stolen=1)
    thingspace_sandbox.register(ACCOUNT, listener.url)
    thingspace_sandbox.advance(600)
    thingspace_sandbox.announce(ACCOUNT)
    assert (thingspace_sandbox.deliveries()[0].state, listener.ledger().lost) == ("stolen", 1)
    thingspace_sandbox.set_faults()
    thingspace_sandbox.register(ACCOUNT, listener.url)
    thingspace_sandbox.announce(ACCOUNT)
    assert thingspace_sandbox.deliveries()[1].state == "acknowledged"


def test_a_wrong_path_is_refused(thingspace_sandbox, upcall_listener, app):
    """A URL of the listener's host with another token is refused as the listener refuses it."""
    listener = upcall_listener(app, account=ACCOUNT)
    thingspace_sandbox.register(ACCOUNT, listener.url.rpartition("/")[0] + "/another-token")
    thingspace_sandbox.announce(ACCOUNT)
    assert thingspace_sandbox.deliveries()[0].attempts[0].status == 404


def test_handlers_run_in_the_middle_of_an_advance(thingspace_sandbox, upcall_listener):
    """While the clock is moved far a handler runs when its callback comes, not at the end."""
    app, seen = Upcall(), []
    app.on("upgradeProgress")(lambda event: seen.append(f"{thingspace_sandbox.now:%H:%M}"))
    upcall_listener(app, account=ACCOUNT)
    thingspace_sandbox.schedule_campaign(ACCOUNT, devices=5)
    thingspace_sandbox.advance(3600)
    assert len(set(seen)) > 3
    assert seen == sorted(seen)
    assert seen[0] < "09:00"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start_date": "2027-01-16"}, "no start_date"),
        ({"devices": "356938035643809"}, "not a text"),
        ({"hours": None, "failing": 1}, "left to chance"),
        ({"_sandbox": {"hour": 2}}, "hour"),
        ({"failing": -1}, "0 or more"),
    ],
)
def test_wrong_options_of_a_campaign(thingspace_sandbox, options, words):
    """An option that would be ignored, or mean something else, is refused."""
    with pytest.raises(ValueError, match=words):
        thingspace_sandbox.schedule_campaign(ACCOUNT, **options)


@pytest.mark.parametrize("account", ["", "bad account!", 242078689])
def test_wrong_accounts(thingspace_sandbox, account):
    """An account is a text as the provider has them."""
    with pytest.raises((TypeError, ValueError)):
        thingspace_sandbox.schedule_campaign(account)


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_no_time_forward(thingspace_sandbox, seconds):
    """The clock is moved forward, by a time that ends."""
    with pytest.raises(ValueError, match="cannot move"):
        thingspace_sandbox.advance(seconds)


def test_closing_twice_and_use_afterwards(app):
    """A sandbox and a listener are closed as often as one likes, and say so when they are used."""
    with SandboxHarness() as sandbox, ListenerHarness(app) as listener:
        pass
    sandbox.close()
    listener.close()
    with pytest.raises(RuntimeError, match="sandbox is closed"):
        sandbox.announce(ACCOUNT)
    with pytest.raises(RuntimeError, match="listener is closed"):
        listener.ledger()


def test_wrong_arguments_leave_nothing_behind(app):
    """What cannot be made starts no thread."""
    before = threading.active_count()
    with pytest.raises(SettingsError, match="There is no delivery profile"):
        SandboxHarness(profile="nope")
    with pytest.raises((SettingsError, ValueError)):
        ListenerHarness(app, account="")
    assert threading.active_count() == before


def test_faults_are_faults(thingspace_sandbox):
    """A text or a mapping is not taken for faults, nor are two ways of saying them."""
    for wrong in ({"faults": "drop"}, {"faults": {"drop": 1}}, {"faults": Faults(), "drop": 1}):
        with pytest.raises(TypeError, match="by name"):
            thingspace_sandbox.set_faults(**wrong)


def test_faults_of_one_account_leave_others_alone(thingspace_sandbox):
    """What goes wrong for one account is said, and taken back, without a word about the others."""
    thingspace_sandbox.set_faults(ACCOUNT, drop=1)
    thingspace_sandbox.set_faults(OTHER, delay=1)
    for account in (ACCOUNT, OTHER):
        thingspace_sandbox.announce(account)
    assert [message.state for message in thingspace_sandbox.deliveries()] == ["dropped", "pending"]
    thingspace_sandbox.set_faults(ACCOUNT)
    for account in (ACCOUNT, OTHER):
        thingspace_sandbox.announce(account)
    assert [message.state for message in thingspace_sandbox.deliveries()][2:] == ["lost", "pending"]


def test_an_async_handler_cannot_ask_its_own_listener(upcall_listener):
    """What would wait for itself for ever is refused with what to do."""
    app, told = Upcall(), []

    @app.on(max_attempts=1)
    async def ask(event):
        try:
            listener.ledger()
        except RuntimeError as error:
            told.append(str(error))

    listener = upcall_listener(app)
    listener.receive({"type": "firmwareList"})
    listener.drain()
    assert told == ["The listener cannot be asked by an async handler, which runs inside it: ask from the test."]


def test_a_handler_that_is_given_up_fails_the_test(tmp_path):
    """An assertion in a handler fails the test that did not expect it; one that looks at the dead letters may."""
    (tmp_path / "test_it.py").write_text(
        "from upcall import Upcall\n"
        "app = Upcall()\n"
        "@app.on(max_attempts=2)\n"
        "def check(event):\n"
        "    assert event.kind == 'upgradeFinished'\n"
        "def test_unseen(upcall_listener):\n"
        "    listener = upcall_listener(app)\n"
        "    listener.receive({'type': 'firmwareList'})\n"
        "    listener.drain()\n"
        "def test_seen(upcall_listener):\n"
        "    listener = upcall_listener(app)\n"
        "    listener.receive({'type': 'firmwareList'})\n"
        "    listener.drain()\n"
        "    assert len(listener.dead()) == 1\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=200, check=False)
    assert "2 passed, 1 error" in ended.stdout.splitlines()[-1]
    assert "Handlers were given up on, and the test did not look at listener.dead()" in ended.stdout
    assert "assert event.kind == 'upgradeFinished'" in ended.stdout


def test_a_listener_that_comes_late(thingspace_sandbox, upcall_listener, app):
    """A listener of all accounts is registered for those that there were before it too."""
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=3)
    listener = upcall_listener(app)
    thingspace_sandbox.run_until(campaign.ended)
    ledger = listener.ledger()
    assert (ledger.sent, ledger.lost) == (len(thingspace_sandbox.deliveries()), 0)


def test_a_listener_that_was_closed(thingspace_sandbox, upcall_listener, app):
    """What goes to a closed listener is tried as the profile says, and given up."""
    listener = upcall_listener(app, account=ACCOUNT)
    listener.close()
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=1)
    thingspace_sandbox.run_until(campaign.ended)
    tries = {(message.state, len(message.attempts)) for message in thingspace_sandbox.deliveries()}
    assert tries == {("failed", 4)}
    assert thingspace_sandbox.deliveries()[0].attempts[0].why == "POST failed: the listener is closed."


def test_a_campaign_that_nobody_hears_of(thingspace_sandbox, upcall_listener, app):
    """A campaign of another account than the listeners' is a mistake in the test; one that lost its listener is not."""
    upcall_listener(app, account=ACCOUNT)
    with pytest.raises(ValueError, match=f"this test's listeners are for {ACCOUNT}"):
        thingspace_sandbox.schedule_campaign(OTHER)
    thingspace_sandbox.register(OTHER, "https://elsewhere.example/")
    assert thingspace_sandbox.schedule_campaign(OTHER).account == OTHER
    with thingspace_sandbox.client() as client:
        client.callbacks.deregister_callback(ACCOUNT)
    assert thingspace_sandbox.schedule_campaign(ACCOUNT).account == ACCOUNT


def test_a_handler_that_moves_the_clock(thingspace_sandbox, upcall_listener):
    """A handler that lets more callbacks come does not run again inside itself, and none of them is left out."""
    app, handled = Upcall(), []

    @app.on_device("UpgradeSuccess")
    def note(event, device):
        handled.append(device.device_id)
        thingspace_sandbox.advance(600)

    listener = upcall_listener(app, account=ACCOUNT)
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT, devices=4)
    thingspace_sandbox.run_until(campaign.ended)
    assert sorted(handled) == sorted(campaign.devices())
    assert (listener.ledger().lost, listener.ledger().dead) == (0, 0)


def test_a_handler_that_drains(upcall_listener):
    """What a handler receives is handled when that handler has returned."""
    app, handled = Upcall(), []

    @app.on(max_attempts=1)
    def relay(event):
        handled.append(event.kind)
        if event.kind == "first":
            listener.receive({"type": "second"})
            listener.drain()
            handled.append("end of first")

    listener = upcall_listener(app)
    listener.receive({"type": "first"})
    listener.drain()
    assert handled == ["first", "end of first", "second"]


def test_nothing_is_received_while_away(upcall_listener, app):
    """A listener that is out of reach is so for what the test itself sends."""
    listener = upcall_listener(app)
    with listener.away(), pytest.raises(DeliveryError, match="the listener is away"):
        listener.receive({"type": "firmwareList"})
    assert listener.receive({"type": "firmwareList"}) == 200


def test_a_condition_is_a_function(thingspace_sandbox):
    """Brackets too many are said to be so."""
    campaign = thingspace_sandbox.schedule_campaign(ACCOUNT)
    with pytest.raises(TypeError, match=r"campaign\.ended, without brackets"):
        thingspace_sandbox.run_until(campaign.ended())


def test_a_profile_of_a_file(tmp_path, app):
    """The harness takes the path of a profile, as the command does."""
    path = tmp_path / "twice.toml"
    path.write_text("gaps_seconds = [60]")
    with SandboxHarness(profile=str(path)) as sandbox, ListenerHarness(app, account=ACCOUNT) as listener:
        sandbox.join(listener)
        with listener.away():
            sandbox.announce(ACCOUNT)
            sandbox.advance(60)
        assert [attempt.number for attempt in sandbox.deliveries()[0].attempts] == [1, 2]
        assert sandbox.deliveries()[0].state == "failed"
