"""Campaign plans by the calendar: dates, windows, check-ins, and what a change of dates or devices does to them."""

import itertools
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from random import Random

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from upcall.sandbox.campaigns import CampaignRequest, Progress, SandboxOptions, TimeWindow
from upcall.sandbox.fleet import imei
from upcall.sandbox.planning import new_campaign, with_dates, with_devices, without_devices
from upcall.thingspace import is_final_device

TODAY = date(2026, 11, 20)
MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
UNDONE = {"RovaClientDidNotReportStatus", "RovaClientDownloadNotInstalledYet"}
BEFORE_THE_END = {
    "RovaClientDownloadFailed",
    "RovaClientDownloadedInstallFailed",
    "Uknown device error.",
    "Other",
}
A_MOMENT = 1.0
CLOSE = 0.001
"""Seconds that rounding may cost: times since 1970 are held as floats."""


class Quarters:
    """Draw only quarters: devices check in on the hour then, which is where windows open and close."""

    def __init__(self, seed):
        self._random = Random(seed)

    def random(self):
        return self._random.randrange(4) / 4

    def randrange(self, stop):
        return self._random.randrange(stop)

    def getrandbits(self, bits):
        return self._random.getrandbits(bits)


def day(number):
    """Return the date so many days after the campaign is scheduled."""
    return (TODAY + timedelta(days=number)).isoformat()


def request(first=0, last=4, **members):
    return CampaignRequest(
        software_name="FOTA_01To02",
        software_from="01",
        software_to="02",
        distribution_type="HTTP",
        start_date=day(first),
        end_date=day(last),
        **members,
    )


def draw(asked, devices=10, seed=1, scheduled=NOON, *, random=Random):
    return new_campaign(
        asked,
        [imei(number) for number in range(devices)],
        account="0000123456-00001",
        now=scheduled.timestamp(),
        options=None,
        busy=(),
        ids=Random(seed),
        random=random(seed),
    )


windows = st.none() | st.lists(
    st.builds(TimeWindow, st.integers(0, 23), st.integers(1, 24)), min_size=1, max_size=3
).map(tuple)
after_dates = st.none() | st.integers(-2, 8).map(day)


def requests_from(first, last):
    return st.integers(first, last).flatmap(
        lambda first: st.builds(
            request,
            st.just(first),
            st.integers(first, first + 6),
            download_after_date=after_dates,
            download_time_window_list=windows,
            install_after_date=after_dates,
            install_time_window_list=windows,
        )
    )


def plans_of(requests):
    randoms = st.sampled_from([Random, Quarters])
    return st.builds(draw, requests, st.integers(1, 12), st.integers(), moments, random=randoms)


requests = requests_from(-3, 3)
# Half seconds are exact in a float, so that midnight is midnight.
moments = st.integers(0, 2 * 86_400 - 1).map(lambda halves: MIDNIGHT + timedelta(seconds=halves / 2))
plans = plans_of(requests)
later_plans = plans_of(requests_from(2, 4))


# --- An independent reading of the calendar --------------------------------------------------------------------------


def moment_of(campaign, at):
    """Return the date and time of a step."""
    return datetime.fromtimestamp(campaign.scheduled_at, UTC) + timedelta(seconds=at)


def midnight(text):
    return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)


def is_open(windows, moment):
    """Tell whether a moment lies in one of the windows; one that ends before it begins goes over midnight."""
    if not windows:
        return True
    hour = moment.hour + moment.minute / 60 + (moment.second + moment.microsecond / 1e6) / 3600
    return any(
        window.start_time <= hour < window.end_time
        if window.start_time < window.end_time
        else hour >= window.start_time or hour < window.end_time
        for window in windows
    )


def may_download(asked, moment):
    return (
        moment >= midnight(asked.start_date)
        and (asked.download_after_date is None or moment >= midnight(asked.download_after_date))
        and is_open(asked.download_time_window_list, moment)
    )


def may_install(asked, moment):
    after = asked.install_after_date
    return (after is None or moment >= midnight(after)) and is_open(asked.install_time_window_list, moment)


def end_of(asked):
    """Return the midnight at which the end date is over."""
    return midnight(asked.end_date) + timedelta(days=1)


def check_ins(campaign, fate, first, end):
    """Yield when a device checks in, in seconds since the campaign was scheduled, from `first` on and before `end`.

    It does so every so many seconds, counted from its first time after 1970's first midnight.
    """
    since_1970 = campaign.scheduled_at + first
    for number in itertools.count(int((since_1970 - fate.phase_seconds) / fate.every_seconds) - 1):
        at = fate.phase_seconds + number * fate.every_seconds - campaign.scheduled_at
        if at >= end - CLOSE:
            return
        if at >= first - CLOSE:
            yield at


def is_check_in(campaign, fate, at):
    periods = (campaign.scheduled_at + at - fate.phase_seconds) / fate.every_seconds
    return abs(periods - round(periods)) * fate.every_seconds < CLOSE


def seconds_to(campaign, moment):
    return (moment - datetime.fromtimestamp(campaign.scheduled_at, UTC)).total_seconds()


def end_at(campaign):
    """Return when a campaign's end date is over, or when it has just started where that is past."""
    return max(seconds_to(campaign, end_of(campaign.request)), started_at(campaign) + A_MOMENT)


def started_at(campaign):
    return next(step.at for step in campaign.steps if step.status == "CampaignScheduled")


def steps_of(campaign, device_id):
    return [step for step in campaign.steps if step.device_id == device_id]


def is_over(step, campaign):
    return step.at >= end_at(campaign) - CLOSE


def run(campaign):
    progress = Progress(campaign)
    while progress.next_at() is not None:
        progress.advance()
    return progress


# --- A plan and its calendar -----------------------------------------------------------------------------------------


@given(plans)
def test_steps_are_in_order(campaign):
    """Steps follow each other in time: queued at once, started on the start date, ended last."""
    times = [step.at for step in campaign.steps]
    assert times == sorted(times)
    own = [(step.at, step.status) for step in campaign.steps if step.device_id is None]
    assert [status for _, status in own] == ["CampaignQueued", "CampaignScheduled", "CampaignEnded"]
    assert own[0][0] == 0.0
    assert own[1][0] == max(seconds_to(campaign, midnight(campaign.request.start_date)), A_MOMENT)
    assert campaign.steps[-1].status == "CampaignEnded"


@given(plans)
def test_every_device_is_final(campaign):
    """However a plan falls out, the campaign ends and each of its devices is final, told of once."""
    progress = run(campaign)
    assert progress.status == "CampaignEnded"
    assert len(progress.devices) == len(campaign.intake)
    assert all(is_final_device(device.status) for device in progress.devices.values())
    for device in campaign.intake:
        words = [step.status for step in steps_of(campaign, device.device_id)]
        if device.status == "DeviceRejected":
            assert words == []
        else:
            assert words[-1] in {"UpgradeSuccess", "UpgradeFailed"}
            assert words[:-1] in ([], ["UpgradePending"])


@given(plans)
def test_downloads_keep_to_the_calendar(campaign):
    """A download begins at a check-in: after the start, from its date on, inside a window and before the end."""
    fates = {fate.device_id: fate for fate in campaign.fates}
    for step in campaign.steps:
        if step.status == "UpgradePending":
            assert may_download(campaign.request, moment_of(campaign, step.at))
            assert is_check_in(campaign, fates[step.device_id], step.at)
            assert step.at > started_at(campaign)
            assert not is_over(step, campaign)


@given(plans)
def test_installations_keep_to_the_calendar(campaign):
    """What is installed was downloaded, and installed after a check-in from its date on and inside a window."""
    fates = {fate.device_id: fate for fate in campaign.fates}
    downloads = {step.device_id: step.at for step in campaign.steps if step.status == "UpgradePending"}
    for step in campaign.steps:
        if step.device_id is None or step.status == "UpgradePending" or is_over(step, campaign):
            continue
        fate, download_at = fates[step.device_id], downloads[step.device_id]
        if step.reason == "RovaClientDownloadFailed":
            assert step.at == pytest.approx(download_at + fate.download_seconds, abs=CLOSE)
            continue
        install_at = step.at - fate.install_seconds
        assert install_at >= download_at + fate.download_seconds - CLOSE
        assert is_check_in(campaign, fate, install_at)
        # A millisecond later: what was rounded down may lie before a window that it is in.
        assert may_install(campaign.request, moment_of(campaign, install_at + CLOSE))


@given(plans)
def test_the_first_chance_is_taken(campaign):
    """A device downloads at the first check-in that may be, and installs at the first one after that; else it fails."""
    end = end_at(campaign)
    for fate in campaign.fates:
        steps = steps_of(campaign, fate.device_id)
        chances = check_ins(campaign, fate, started_at(campaign) + A_MOMENT, end)
        download_at = next((at for at in chances if may_download(campaign.request, near(campaign, at))), None)
        if download_at is None:
            assert [(step.at, step.reason) for step in steps] == [(end, "RovaClientDidNotReportStatus")]
            continue
        assert steps[0].at == pytest.approx(download_at, abs=CLOSE)
        downloaded_at = download_at + fate.download_seconds
        chances = check_ins(campaign, fate, downloaded_at, end)
        install_at = next((at for at in chances if may_install(campaign.request, near(campaign, at))), None)
        last = steps[1]
        if fate.failure is None and install_at is not None and install_at + fate.install_seconds < end:
            assert (last.status, last.reason) == ("UpgradeSuccess", "DownloadInstallSucceeded")
            assert last.at == pytest.approx(install_at + fate.install_seconds, abs=CLOSE)
        else:
            assert last.status == "UpgradeFailed"


def near(campaign, at):
    """Return the moment of a check-in to the nearest millisecond: rounding must not put it outside a window."""
    return moment_of(campaign, round(at + campaign.scheduled_at, 3) - campaign.scheduled_at + CLOSE / 10)


@given(plans)
def test_the_end_date_ends_it(campaign):
    """From the end date's midnight on what is undone fails, with the reason for that, and nothing else happens."""
    end = end_at(campaign)
    pending = {step.device_id for step in campaign.steps if step.status == "UpgradePending"}
    for step in campaign.steps:
        if step.device_id is None:
            continue
        if is_over(step, campaign):
            assert step.at == end
            assert (step.status, step.reason in UNDONE) == ("UpgradeFailed", True)
            if step.reason == "RovaClientDownloadNotInstalledYet":
                assert step.device_id in pending
        elif step.status == "UpgradeFailed":
            assert step.reason in BEFORE_THE_END
    assert campaign.steps[-1].at == campaign.steps[-2].at + A_MOMENT <= end + A_MOMENT


@given(plans)
def test_failures_are_those_that_were_decided(campaign):
    """A device that is to fail fails; one that is not fails only where the end comes first."""
    for fate in campaign.fates:
        last = steps_of(campaign, fate.device_id)[-1]
        if fate.failure is not None:
            assert last.status == "UpgradeFailed"
            assert last.reason == fate.failure or is_over(last, campaign)
        elif last.status == "UpgradeFailed":
            assert is_over(last, campaign)


def test_a_window_over_midnight():
    """A window from 22 to 4 is open at night only, and the night that began the day before counts."""
    asked = request(1, 8, download_time_window_list=(TimeWindow(22, 4),))
    campaign = draw(asked, 300)
    hours = Counter(moment_of(campaign, step.at).hour for step in campaign.steps if step.status == "UpgradePending")
    assert set(hours) == {22, 23, 0, 1, 2, 3}
    # The first night is open from the start date's midnight on, not from 22 hours.
    first = next(moment_of(campaign, step.at) for step in campaign.steps if step.status == "UpgradePending")
    assert first.date() == TODAY + timedelta(days=1)
    assert first.hour < 4


@pytest.mark.parametrize(("begins", "ends"), [(0, 24), (5, 5)])
def test_a_window_of_a_whole_day(begins, ends):
    """A window from 0 to 24, or from an hour to itself, closes nothing out: the plan is that without windows."""
    whole = (TimeWindow(begins, ends),)
    open_all_day = draw(request(download_time_window_list=whole, install_time_window_list=whole), 50)
    assert open_all_day.steps == draw(request(), 50).steps


def test_a_download_that_midnight_overtakes():
    """A download that is not over when the end date is fails then, as one that was not reported."""
    campaign = draw(request(0, 1, download_time_window_list=(TimeWindow(23, 24),)), 400)
    fates = {fate.device_id: fate for fate in campaign.fates}
    downloads = {step.device_id: step.at for step in campaign.steps if step.status == "UpgradePending"}
    late = [one for one, at in downloads.items() if at + fates[one].download_seconds >= end_at(campaign)]
    assert late
    for device_id in late:
        last = steps_of(campaign, device_id)[-1]
        assert (last.at, last.reason) == (end_at(campaign), "RovaClientDidNotReportStatus")


def test_an_installation_that_midnight_overtakes():
    """An installation that is not over when the end date is fails then, as one that is not installed yet."""
    campaign = draw(request(0, 1, install_after_date=day(1), install_time_window_list=(TimeWindow(23, 24),)), 400)
    end, opens = end_at(campaign), end_at(campaign) - 3600
    begun = {fate: next(check_ins(campaign, fate, opens, end), end) for fate in campaign.fates if fate.failure is None}
    late = [fate for fate, at in begun.items() if at < end <= at + fate.install_seconds]
    assert late
    for fate in late:
        last = steps_of(campaign, fate.device_id)[-1]
        assert (last.at, last.reason) == (end, "RovaClientDownloadNotInstalledYet")


def test_an_example_by_hand():
    """Downloads run from 20 to 21 on the third day and installations from 9 to 10 on the fifth."""
    asked = request(
        1,
        4,
        download_after_date=day(3),
        download_time_window_list=(TimeWindow(20, 21),),
        install_after_date=day(4),
        install_time_window_list=(TimeWindow(9, 10),),
    )
    campaign = draw(asked, 200)
    pending = [moment_of(campaign, step.at) for step in campaign.steps if step.status == "UpgradePending"]
    done = [moment_of(campaign, step.at) for step in campaign.steps if step.status == "UpgradeSuccess"]
    assert moment_of(campaign, started_at(campaign)) == datetime(2026, 11, 21, tzinfo=UTC)
    assert {(moment.date(), moment.hour) for moment in pending} == {
        (date(2026, 11, 23), 20),
        (date(2026, 11, 24), 20),
    }
    assert done
    assert all(datetime(2026, 11, 24, 9, tzinfo=UTC) < moment for moment in done)
    assert all(moment < datetime(2026, 11, 24, 10, 20, tzinfo=UTC) for moment in done)
    assert moment_of(campaign, campaign.steps[-2].at) == datetime(2026, 11, 25, tzinfo=UTC)
    assert {step.reason for step in campaign.steps if is_over(step, campaign)} - {None} == UNDONE


@given(moments, st.integers(1, 2000), windows)
def test_an_end_in_the_past_ends_everything_at_once(scheduled, days, hours):
    """A campaign whose end date is past ends within seconds, and each device has not reported."""
    campaign = draw(request(-days, -1, download_time_window_list=hours), 20, scheduled=scheduled)
    assert campaign.steps[-1].at <= 5.0
    assert {(step.status, step.reason) for step in campaign.steps if step.device_id is not None} == {
        ("UpgradeFailed", "RovaClientDidNotReportStatus")
    }
    assert run(campaign).status == "CampaignEnded"


@given(requests, st.integers(), moments)
def test_the_same_seed_gives_the_same_plan(asked, seed, scheduled):
    """A seed decides the identifier, the rejections, the times and the results."""
    assert draw(asked, 10, seed, scheduled) == draw(asked, 10, seed, scheduled)
    assert draw(asked, 10, seed, scheduled).fates != draw(asked, 10, seed + 1, scheduled).fates


def test_a_long_campaign_is_planned_at_once(cpu_seconds):
    """Two thousand devices with an hour a day for two years are planned in far less than a request may take."""
    hour = (TimeWindow(3, 4),)
    asked = request(1, 731, download_time_window_list=hour, install_time_window_list=hour)
    assert cpu_seconds(draw, asked, 2000) < 1.0
    assert len(draw(asked, 2000).intake) == 2000


# --- Other dates -----------------------------------------------------------------------------------------------------


def reach(data, campaign):
    """Take some of a campaign's steps, and return where it stands and when that is: not within seconds of a step."""
    steps = campaign.steps
    gaps = [number for number in range(1, len(steps)) if steps[number].at - steps[number - 1].at > 3 * A_MOMENT]
    assume(gaps)
    progress = Progress(campaign)
    for _ in range(data.draw(st.sampled_from(gaps), "steps taken")):
        progress.advance()
    last, following = steps[progress.cursor - 1].at, steps[progress.cursor].at
    return progress, data.draw(st.floats(last, following - 2 * A_MOMENT), "at")


@given(plans, requests, st.data())
def test_other_dates_leave_what_was_done(campaign, asked, data):
    """Steps that were taken stay as they are, first in the new plan, and the rest lies ahead."""
    progress, at = reach(data, campaign)
    taken = campaign.steps[: progress.cursor]
    changed = with_dates(progress, asked, at)
    assert changed.steps[: len(taken)] == taken
    assert all(step.at >= at for step in changed.steps[len(taken) :])
    assert changed == msgspec.structs.replace(campaign, request=asked, steps=changed.steps)


@given(plans, requests, st.data())
def test_other_dates_still_end_everything(campaign, asked, data):
    """After a change of dates each device is final once, and the campaign ends last and in order of time."""
    progress, at = reach(data, campaign)
    taken = progress.cursor
    progress.change(with_dates(progress, asked, at))
    ended = run(progress.campaign)
    assert ended.status == "CampaignEnded"
    assert all(is_final_device(device.status) for device in ended.devices.values())
    words = Counter((step.device_id, step.status) for step in progress.campaign.steps)
    assert set(words.values()) == {1}
    finals = Counter(
        step.device_id for step in progress.campaign.steps if step.device_id and is_final_device(step.status)
    )
    assert finals == Counter(fate.device_id for fate in campaign.fates)
    ahead = [step.at for step in progress.campaign.steps[taken:]]
    assert ahead == sorted(ahead)


@given(plans, requests, st.data())
def test_other_dates_are_obeyed(campaign, asked, data):
    """What is still to be downloaded or installed keeps to the new dates and windows."""
    progress, at = reach(data, campaign)
    changed = with_dates(progress, asked, at)
    fates = {fate.device_id: fate for fate in campaign.fates}
    old = set(campaign.steps)
    end = max(seconds_to(changed, end_of(asked)), at + 2 * A_MOMENT)
    for step in changed.steps[progress.cursor :]:
        if step.device_id is None:
            continue
        if step.status == "UpgradePending":
            assert may_download(asked, moment_of(changed, step.at))
            assert is_check_in(changed, fates[step.device_id], step.at)
            assert step.at < end
        elif step.reason in UNDONE:
            assert step.at <= end + CLOSE
        elif step.reason != "RovaClientDownloadFailed":
            assert step.at < end + CLOSE
            install_at = step.at - fates[step.device_id].install_seconds
            # An installation that was running when the dates were changed is not undone.
            assert may_install(asked, moment_of(changed, install_at + CLOSE)) or (step in old and install_at < at)


@given(plans, st.data())
def test_the_same_dates_change_nothing(campaign, data):
    """A change to the dates that a campaign already has leaves its plan as it is."""
    progress, at = reach(data, campaign)
    assert with_dates(progress, campaign.request, at).steps == campaign.steps


def test_a_campaign_that_is_put_forward():
    """A campaign of next year that is moved to today starts at once."""
    campaign = draw(request(365, 370), 20)
    progress = Progress(campaign)
    progress.advance()
    changed = with_dates(progress, request(0, 2), 100.0)
    assert [step.status for step in changed.steps[:2]] == ["CampaignQueued", "CampaignScheduled"]
    assert changed.steps[1].at == 101.0
    assert moment_of(changed, changed.steps[-1].at) <= datetime(2026, 11, 23, 0, 0, 1, tzinfo=UTC)


def test_a_campaign_that_is_called_off_early():
    """An end date in the past ends a running campaign at once: what is undone fails."""
    progress = Progress(draw(request(0, 300, install_after_date=day(200)), 50))
    while progress.next_at() < 40_000:
        progress.advance()
    pending = {device.device_id for device in progress.devices.values() if device.status == "UpgradePending"}
    changed = with_dates(progress, request(-2, -1), 40_000.0)
    ahead = changed.steps[progress.cursor :]
    assert ahead[-1].at <= 40_005.0
    waiting = {step.device_id for step in ahead if step.reason == "RovaClientDownloadNotInstalledYet"}
    assert waiting
    assert waiting <= pending
    assert {step.reason for step in ahead if step.device_id is not None} <= UNDONE


def test_a_window_that_is_opened_lets_devices_install_from_then_on():
    """Devices that wait for a window install at their next check-in once it is opened, not at one that has passed."""
    progress = Progress(draw(request(0, 20, install_after_date=day(10)), 50))
    at = 3 * 86_400.0
    while progress.next_at() < at:
        progress.advance()
    changed = with_dates(progress, request(0, 20), at)
    fates = {fate.device_id: fate for fate in changed.fates}
    done = [step for step in changed.steps if step.status == "UpgradeSuccess"]
    assert done
    assert all(step.at - fates[step.device_id].install_seconds >= at for step in done)


def test_an_installation_that_runs_is_not_begun_again():
    """Dates that stay as they are, sent while a device installs, do not put its installation off."""
    campaign = draw(request(0, 20, install_time_window_list=(TimeWindow(9, 10),)), 50)
    done = next(step for step in campaign.steps if step.status == "UpgradeSuccess")
    progress = Progress(campaign)
    while progress.next_at() < done.at:
        progress.advance()
    assert done in with_dates(progress, campaign.request, done.at - 60.0).steps


def test_a_campaign_that_is_not_queued_yet_is_still_announced():
    """Dates that are changed before the campaign's first step leave that step, which makes its first callback."""
    progress = Progress(draw(request(), 5))
    assert with_dates(progress, request(1, 5), 0.0).steps[0].status == "CampaignQueued"


@pytest.mark.parametrize("hours", [1.0, 48.0])
def test_hours_outweigh_dates(hours):
    """A campaign that was to take so many hours keeps its plan, whatever its dates become."""
    campaign = new_campaign(
        request(),
        [imei(number) for number in range(10)],
        account="a",
        now=0.0,
        options=SandboxOptions(hours=hours),
        busy=(),
        ids=Random(1),
        random=Random(1),
    )
    progress = Progress(campaign)
    progress.advance()
    changed = with_dates(progress, request(100, 101), 10.0)
    assert changed == msgspec.structs.replace(campaign, request=request(100, 101))
    assert changed.steps[-1].at <= hours * 3600


# --- Other devices ---------------------------------------------------------------------------------------------------


def queued(data, campaign):
    """Return a campaign that is queued, and a moment before its start."""
    progress = Progress(campaign)
    progress.advance()
    return progress, data.draw(st.floats(0.0, started_at(campaign) - A_MOMENT), "at")


@given(later_plans, st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)), st.integers(), st.data())
def test_more_devices(campaign, more, busy, seed, data):
    """Each new device is taken in once, or rejected if another campaign has it; the others stay as they are."""
    progress, at = queued(data, campaign)
    known = {device.device_id for device in campaign.intake}
    asked = [imei(number) for number in sorted(more)]
    changed = with_devices(progress, asked * 2, busy={imei(number) for number in busy}, at=at, random=Random(seed))
    assert changed.intake[: len(campaign.intake)] == campaign.intake
    added = changed.intake[len(campaign.intake) :]
    assert [device.device_id for device in added] == [one for one in asked if one not in known]
    for device in added:
        if device.device_id in {imei(number) for number in busy}:
            assert (device.status, device.reason) == ("DeviceRejected", "Device is already in another upgrade")
    for device in changed.intake:
        steps = steps_of(changed, device.device_id)
        if device.device_id in known:
            assert steps == steps_of(campaign, device.device_id)
        assert bool(steps) is (device.status == "Accepted")
    progress.change(changed)
    assert list(progress.devices) == [device.device_id for device in changed.intake]
    check_plan(changed)


@given(later_plans, st.sets(st.integers(0, 30)), st.data())
def test_fewer_devices(campaign, fewer, data):
    """Devices that are let go of do nothing any more; the others stay as they are."""
    progress, _ = queued(data, campaign)
    gone = {imei(number) for number in fewer}
    changed = without_devices(progress, gone)
    assert changed.intake == tuple(device for device in campaign.intake if device.device_id not in gone)
    assert changed.fates == tuple(fate for fate in campaign.fates if fate.device_id not in gone)
    assert changed.steps[:-1] == tuple(step for step in campaign.steps[:-1] if step.device_id not in gone)
    progress.change(changed)
    assert set(progress.devices) == {device.device_id for device in changed.intake}
    check_plan(changed)


def check_plan(campaign):
    """Check that a plan is as whole as a new one."""
    times = [step.at for step in campaign.steps]
    assert times == sorted(times)
    own = [step.status for step in campaign.steps if step.device_id is None]
    assert own == ["CampaignQueued", "CampaignScheduled", "CampaignEnded"]
    assert campaign.steps[-1].status == "CampaignEnded"
    ended = run(campaign)
    assert all(is_final_device(device.status) for device in ended.devices.values())
    assert {fate.device_id for fate in campaign.fates} == {
        device.device_id for device in campaign.intake if device.status == "Accepted"
    }


def test_devices_that_go_and_come_back():
    """A device that was let go of and is taken in again is there once, with a plan of its own."""
    progress = Progress(draw(request(2, 6), 10))
    progress.advance()
    progress.change(without_devices(progress, [imei(3)]))
    progress.change(with_devices(progress, [imei(3)], busy=(), at=10.0, random=Random(5)))
    assert sorted(progress.devices) == sorted(imei(number) for number in range(10))
    check_plan(progress.campaign)


def test_devices_before_the_first_step_are_still_announced():
    """Devices that are added before the campaign's first step leave that step, which makes its first callback."""
    progress = Progress(draw(request(1, 5), 5))
    changed = with_devices(progress, [imei(7)], busy=(), at=0.0, random=Random(1))
    assert changed.steps[0].status == "CampaignQueued"
