"""Reconciling against a provider whose answers the test makes up: pages of all kinds, refusals, interruptions."""

import json
from itertools import count
from urllib.parse import parse_qsl

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upcall import ThingSpaceClient
from upcall.inbox import Arrival, JournalEntry, Note, Selection, Uptime, open_inbox
from upcall.registration import SilentDevice, default_since, reconcile_accounts
from upcall.registration.reconcile.reader import STATUSES
from upcall.registration.reconcile.values import Contradiction, MissingReport
from upcall.settings import Credentials
from upcall.testing import callback
from upcall.thingspace import parse_callback, parse_time

ACCOUNT = "0000123456-00001"
OTHER = "0000123456-00002"
CREDENTIALS = Credentials(client_id="id-1", client_secret="canary-secret", username="user", password="canary-password")
HOUR = 3_600_000_000
DAY = 24 * HOUR
NOW = parse_time("2026-11-23T12:00:00Z").micros
DATES = {"startDate": "2026-11-20", "endDate": "2026-11-27"}
STORES = count()


def imei(number):
    return f"9900{number:011d}"


class Provider:
    """Answer the report calls of a few accounts, in pages of ten unless told otherwise.

    `oddities` change an answer: functions of the path, the query and the answer, which return another one.
    """

    def __init__(self):
        self.campaigns = {}
        self.devices = {}
        self.page_size = 10
        self.asked = []
        self.oddities = []

    def add(self, campaign_id, states, *, account=ACCOUNT, status="CampaignScheduled", **members):
        """Have a campaign, with the state of each device."""
        row = {"id": campaign_id, "accountName": account, "campaignName": "n", "status": status, **DATES, **members}
        self.campaigns.setdefault(account, {})[campaign_id] = row
        self.devices[campaign_id] = dict(states)

    def __call__(self, request):
        path, query = request.url.path, dict(parse_qsl(request.url.query.decode()))
        if path.endswith("/oauth2/token"):
            return httpx2.Response(200, json={"access_token": "b", "expires_in": 3600, "token_type": "Bearer"})
        if path.endswith("/session/login"):
            return httpx2.Response(200, json={"sessionToken": "s"})
        self.asked.append((path.partition("/fota/v2/")[2], query))
        answer = self._answer(path.split("/"), query)
        for oddity in self.oddities:
            answer = oddity(path, query, answer)
        if isinstance(answer, Exception):
            raise answer
        status, document = answer if isinstance(answer, tuple) else (200, answer)
        return httpx2.Response(status, json=document)

    def _answer(self, path, query):
        if path[-1] == "devices":
            return self._devices(path[-2], query.get("lastSeenDeviceId"))
        if path[-3] == "campaigns":
            found = self.campaigns.get(path[-2], {}).get(path[-1])
            return found or REFUSED
        rows = self.campaigns.get(path[-2], {})
        wanted = query.get("campaignStatus")
        some, more = self._page([name for name, row in rows.items() if wanted in {None, row["status"]}], query)
        return {
            "hasMoreData": more,
            "campaignList": [rows[name] for name in some] or None,
            "lastSeenCampaignId": some[-1] if some else None,
        }

    def _devices(self, campaign_id, last_seen):
        states = self.devices[campaign_id]
        some, more = self._page(list(states), {"last": last_seen})
        return {
            "totalDevice": len(states),
            "hasMoreData": more,
            "lastSeenDeviceId": some[-1] if some else "0",
            "maxPageSize": self.page_size,
            "deviceList": [{"deviceId": name, "status": states[name], "resultReason": ""} for name in some],
        }

    def _page(self, names, query):
        last = query.get("lastSeenCampaignId") or query.get("last")
        start = names.index(last) + 1 if last in names else 0
        return names[start : start + self.page_size], start + self.page_size < len(names)


REFUSED = (400, {"errorCode": "INVALID_PARAMETER", "errorMessage": "Invalid upgradeId"})


class World:
    """Hold a provider, a store that only this test sees, and a clock."""

    def __init__(self, directory):
        self.provider = Provider()
        self.now = NOW
        self.clock = 0.0
        self.inbox = open_inbox(f"memory://reconcile-{next(STORES)}", create=True)
        self.client = ThingSpaceClient(
            base_url="http://localhost/api",
            credentials=CREDENTIALS,
            transport=httpx2.MockTransport(self.provider),
            state_dir=directory,
            max_retries=0,
        )

    def sleep(self, seconds):
        self.clock += seconds

    def receive(self, campaign_id, states, *, account=ACCOUNT, at=None, kind="upgradeProgress", status=None):
        """Let a callback come."""
        body = callback(kind, account=account, campaign_id=campaign_id, status=status, devices=states)
        self.inbox.append([Arrival(body=body, received_at=self.now - HOUR if at is None else at)])

    def reconcile(self, *accounts, **options):
        asked = {"since": NOW - DAY, "now": lambda: self.now, "monotonic": lambda: self.clock, "sleep": self.sleep}
        return reconcile_accounts(
            accounts or (ACCOUNT,), inbox=self.inbox, client_of=lambda _: self.client, **asked | options
        )

    def states(self, campaign_id):
        """Return where each device stands as callbacks tell it, reconciled ones too."""
        while self.inbox.project():
            pass
        found = self.inbox.campaign(campaign_id)
        return {} if found is None else {device.device_id: device.status for device in found[1]}

    def kept(self):
        """Return what the reconciled callbacks say."""
        return [
            (event.kind, event.campaign_id, tuple((one.device_id, one.status) for one in event.devices))
            for record in self.inbox.callbacks()
            if record.origin == "reconciled"
            for event in [parse_callback(record.body)]
        ]

    def asked(self, ending):
        return [query for path, query in self.provider.asked if path.endswith(ending)]

    def close(self):
        self.client.close()
        self.inbox.close()

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.close()


@pytest.fixture
def world(tmp_path):
    with World(tmp_path) as made:
        yield made


def test_what_callbacks_did_not_tell_is_kept(world):
    """Devices that stand elsewhere are kept once each, what was told is not; the campaign comes after its devices."""
    world.receive("c", {imei(1): "UpgradeSuccess", imei(2): "UpgradePending"})
    world.provider.add("c", {imei(1): "UpgradeSuccess", imei(2): "UpgradeFailed", imei(3): "DeviceRejected"})
    (result,) = world.reconcile()
    assert (result.campaigns, result.devices, result.differed, result.campaigns_differed) == (1, 3, 2, 1)
    assert (result.errors, result.finished, result.resumed_from) == ((), True, None)
    assert world.kept() == [
        ("upgradeProgress", "c", ((imei(2), "UpgradeFailed"),)),
        ("upgradeScheduled", "c", ((imei(3), "DeviceRejected"),)),
        ("upgradeScheduled", "c", ()),
    ]
    assert world.states("c") == world.provider.devices["c"]
    (record, *_) = [record for record in world.inbox.callbacks() if record.origin == "reconciled"]
    assert (record.trust, record.account) == ("confirmed", ACCOUNT)


def test_a_second_run_finds_nothing(world):
    """What was kept is no news again."""
    world.provider.add("c", {imei(number): "UpgradePending" for number in range(25)})
    assert world.reconcile()[0].differed == 25
    before = len(world.inbox.callbacks())
    (again,) = world.reconcile()
    assert (again.differed, again.campaigns_differed, again.devices) == (0, 0, 25)
    assert len(world.inbox.callbacks()) == before


def test_a_dry_run_keeps_nothing(world):
    """It counts what would be kept, and leaves neither a callback nor a note."""
    world.provider.add("c", {imei(1): "UpgradePending", imei(2): "Accepted"})
    (result,) = world.reconcile(dry_run=True)
    assert (result.differed, result.campaigns_differed, result.devices) == (2, 1, 2)
    assert world.inbox.callbacks() == []
    assert world.inbox.notes("reconcile") + world.inbox.notes("reconcile.found") == []


def test_pages_of_ten_are_read_to_the_end(world):
    """Campaigns and devices come in pages of any size; each page is asked for from where the one before ended."""
    for number in range(12):
        world.provider.add(f"c-{number}", {imei(number * 100 + one): "UpgradePending" for one in range(13)})
    (result,) = world.reconcile()
    assert (result.campaigns, result.devices, result.differed) == (12, 156, 156)
    assert world.asked("/campaigns") == [{}, {"lastSeenCampaignId": "c-9"}]
    assert world.asked("c-3/devices") == [{"lastSeenDeviceId": "0"}, {"lastSeenDeviceId": imei(309)}]


def test_requests_keep_their_distance(world):
    """At two a second, thirteen requests take six seconds of waiting, and no more."""
    for number in range(12):
        world.provider.add(f"c-{number}", {imei(number): "UpgradePending"})
    world.provider.page_size = 1000
    world.reconcile(requests_per_second=2)
    assert (len(world.provider.asked), world.clock) == (13, 6.0)


def test_progress_is_told(world):
    """After each page it is known which campaign is read, and how many devices of how many are."""
    world.provider.add("c", {imei(number): "UpgradePending" for number in range(15)})
    told = []
    world.reconcile(on_progress=told.append)
    assert [(one.campaign_id, one.campaigns_done, one.campaigns, one.devices, one.total) for one in told] == [
        ("", 0, 1, 0, 0),
        ("c", 0, 1, 10, 15),
        ("c", 0, 1, 15, 15),
        ("", 1, 1, 15, 15),
    ]


# --- Odd answers -----------------------------------------------------------------------------------------------------


def of_devices(change):
    """Return an oddity of device reports alone."""
    return lambda path, query, answer: change(query, answer) if path.endswith("/devices") else answer


def of_campaigns(change):
    """Return an oddity of lists of campaigns alone."""
    return lambda path, query, answer: change(query, answer) if path.endswith("/campaigns") else answer


def test_null_lists_are_empty_ones(world):
    """An account without campaigns, and a campaign without devices, are read and hold nothing."""
    assert world.reconcile()[0].errors == ()
    world.provider.add("c", {})
    world.provider.oddities.append(of_devices(lambda _, answer: answer | {"deviceList": None}))
    (result,) = world.reconcile()
    assert (result.campaigns, result.devices, result.errors) == (1, 0, ())


def test_a_report_that_repeats_itself_is_left(world):
    """A page that comes again and again is read no further; what it holds is kept, the rest is said to be unread."""
    world.provider.add("c", {imei(number): "UpgradePending" for number in range(30)})
    world.provider.add("d", {imei(99): "UpgradePending"})
    world.provider.oddities.append(
        of_devices(
            lambda query, answer: answer if query["lastSeenDeviceId"] == "0" else answer | {"lastSeenDeviceId": "0"}
        )
    )
    (result,) = world.reconcile()
    assert (result.devices, result.differed, result.campaigns, result.finished) == (21, 21, 2, True)
    (error,) = result.errors
    assert error.startswith("The device report of campaign c sends after 20 entries to a page that was read before: ")
    assert result.missing == ()
    assert world.inbox.notes("reconcile") == []


def test_more_without_a_place_to_go_on_from(world):
    """Where a page says that there is more and not from where, its last device stands in."""
    world.provider.add("c", {imei(number): "UpgradePending" for number in range(25)})
    world.provider.oddities.append(
        of_devices(lambda _, answer: {name: one for name, one in answer.items() if name != "lastSeenDeviceId"})
    )
    (result,) = world.reconcile()
    assert (result.devices, result.errors) == (25, ())


def test_a_list_of_campaigns_that_repeats_itself_is_left(world):
    """What it held is read, and the account is not said to have been read whole."""
    world.provider.add("c", {imei(1): "UpgradePending"})
    world.provider.oddities.append(
        of_campaigns(lambda _, answer: answer | {"hasMoreData": True, "lastSeenCampaignId": "c"})
    )
    (result,) = world.reconcile()
    assert result.errors == ("The list of campaigns sends after 1 entries to a page that was read before.",)
    assert world.states("c") == {imei(1): "UpgradePending"}


def test_numbers_in_the_place_of_texts(world):
    """A device that the report names by a number is the one that callbacks name by its digits."""
    world.receive("c", {imei(1): "UpgradePending"})
    world.provider.add("c", {imei(1): "UpgradeSuccess"})
    world.provider.oddities.append(
        of_devices(
            lambda _, answer: (
                answer | {"deviceList": [one | {"deviceId": int(one["deviceId"])} for one in answer["deviceList"]]}
            )
        )
    )
    assert world.reconcile()[0].differed == 1
    assert world.states("c") == {imei(1): "UpgradeSuccess"}


def test_entries_that_name_nothing_are_counted(world):
    """What cannot be placed is left out and said, and the rest is read."""
    world.provider.add("c", {imei(1): "UpgradeSuccess"})
    world.provider.oddities.append(
        of_devices(lambda _, answer: answer | {"deviceList": [*answer["deviceList"], {"status": "Accepted"}, None]})
    )
    world.provider.oddities.append(
        of_campaigns(lambda _, answer: answer | {"campaignList": [*answer["campaignList"], 7]})
    )
    (result,) = world.reconcile()
    assert (result.devices, result.errors) == (1, ())
    assert result.remarks == (
        "1 entries of the list of campaigns name no campaign.",
        "2 entries of device reports name no device or no state.",
    )


# --- Without a status ------------------------------------------------------------------------------------------------


def demand_status(known=STATUSES):
    """Return the oddity of a provider that lists campaigns by certain states only."""
    return of_campaigns(lambda query, answer: answer if query.get("campaignStatus") in known else REFUSED)


def test_where_a_status_is_demanded_each_is_asked_for(world):
    """A provider that refuses to list campaigns without a status is asked for each, and it is said."""
    world.provider.add("c", {imei(1): "UpgradeSuccess"}, status="CampaignEnded")
    world.provider.add("d", {imei(2): "UpgradePending"})
    world.provider.oddities.append(demand_status())
    (result,) = world.reconcile()
    assert (result.campaigns, result.devices, result.errors) == (2, 2, ())
    (remark,) = result.remarks
    assert remark.startswith("ThingSpace refuses to list campaigns without a status (Invalid upgradeId): it was asked")
    assert [query["campaignStatus"] for query in world.asked("/campaigns")[1:]] == list(STATUSES)


def test_a_state_that_the_provider_does_not_know_is_passed_over(world):
    """The SDK and the pages do not agree on a word: the one that is refused is said, and is no error."""
    world.provider.add("c", {imei(1): "UpgradeSuccess"}, status="CampaignEnded")
    world.provider.oddities.append(demand_status([word for word in STATUSES if word != "CampaignRequestQueued"]))
    (result,) = world.reconcile()
    assert (result.campaigns, result.errors) == (1, ())
    assert result.remarks[-1] == "ThingSpace refuses to list campaigns by CampaignRequestQueued."


def test_where_every_state_is_refused_the_account_cannot_be_read(world):
    """An account that the provider does not know is an error with the provider's own words."""
    world.provider.oddities.append(demand_status(()))
    (result,) = world.reconcile()
    assert not result.finished
    assert "Invalid upgradeId" in result.errors[0]


def test_an_empty_list_is_not_believed_where_callbacks_told_of_campaigns(world):
    """A provider that lists nothing without a status, although one is under way, is asked for each status."""
    world.receive("c", {imei(1): "UpgradePending"})
    world.provider.add("c", {imei(1): "UpgradeSuccess"})
    world.provider.oddities.append(
        of_campaigns(lambda query, answer: answer if "campaignStatus" in query else {"campaignList": None})
    )
    (result,) = world.reconcile()
    assert (result.campaigns, result.differed, result.missing) == (1, 1, ())


# --- What is named ---------------------------------------------------------------------------------------------------


def test_a_campaign_that_no_callback_named_is_silent_until_one_does(world):
    """It is named by every run until a callback comes: what was kept from reports is not one."""
    world.provider.add("c", {imei(number): "UpgradePending" for number in range(5)})
    assert world.reconcile()[0].silent_campaigns == ("c",)
    assert world.reconcile()[0].silent_campaigns == ("c",)
    world.receive("c", {imei(1): "UpgradeSuccess"})
    assert world.reconcile()[0].silent_campaigns == ()


def test_silent_devices_are_named(world):
    """A device that the provider is not done with, and of which nothing came for a day, is named."""
    world.receive("c", {imei(1): "UpgradePending", imei(4): "Accepted"}, at=NOW - 25 * HOUR)
    world.receive("c", {imei(2): "UpgradePending"}, at=NOW - 23 * HOUR)
    states = dict.fromkeys((imei(1), imei(2), imei(3)), "UpgradePending") | {imei(4): "UpgradeSuccess"}
    world.provider.add("c", states)
    assert world.reconcile()[0].silent_devices == (
        SilentDevice("c", imei(1), "UpgradePending", NOW - 25 * HOUR),
        SilentDevice("c", imei(3), "UpgradePending", None),
    )


def test_what_the_reports_do_not_hold_is_named(world):
    """Campaigns and devices that callbacks told of, that are not final, and that the provider does not have."""
    world.receive("gone", {imei(1): "UpgradePending"})
    world.receive("over", {imei(2): "UpgradeSuccess"})
    world.receive("over", {}, kind="upgradeFinished", status="CampaignEnded")
    world.receive("c", {imei(3): "UpgradePending", imei(4): "UpgradePending", imei(5): "UpgradeSuccess"})
    world.receive("another's", {imei(6): "UpgradePending"}, account=OTHER)
    world.provider.add("c", {imei(3): "UpgradePending"})
    (result,) = world.reconcile()
    assert result.missing == (
        MissingReport("gone", "", None),
        MissingReport("c", imei(4), "UpgradePending"),
    )
    assert result.errors == ()


def test_a_campaign_that_the_list_leaves_out_is_asked_for(world):
    """Nobody knows what the list holds: a campaign under way that is not in it is read by its name."""
    world.receive("c", {imei(1): "UpgradePending"})
    world.provider.add("c", {imei(1): "UpgradeSuccess"})
    world.provider.add("d", {})
    world.provider.oddities.append(
        of_campaigns(
            lambda _, answer: answer | {"campaignList": [row for row in answer["campaignList"] if row["id"] == "d"]}
        )
    )
    (result,) = world.reconcile()
    assert (result.differed, result.missing) == (1, ())


def test_contradictions_are_named_and_kept(world):
    """Two ends that do not agree are both known afterwards; an end that the report does not know is named."""
    world.receive("c", {imei(1): "UpgradeSuccess", imei(2): "UpgradeSuccess"})
    world.receive("c", {}, kind="upgradeFinished", status="CampaignEnded")
    world.provider.add("c", {imei(1): "UpgradeFailed", imei(2): "UpgradePending"}, status="CampaignAborted")
    (result,) = world.reconcile()
    assert set(result.contradictions) == {
        Contradiction("c", imei(1), "UpgradeSuccess", "UpgradeFailed"),
        Contradiction("c", imei(2), "UpgradeSuccess", "UpgradePending"),
        Contradiction("c", "", "CampaignEnded", "CampaignAborted"),
    }
    # A final state stays where it is, and what contradicts it is kept beside it.
    assert world.states("c") == {imei(1): "UpgradeSuccess", imei(2): "UpgradeSuccess"}
    assert {device.contradiction for device in world.inbox.campaign("c")[1]} == {"UpgradeFailed", None}


def test_what_is_lost_for_good_is_said(world):
    """Announcements and states in between stand in no report: the result says so, and none is made."""
    world.receive("c", {imei(1): "Accepted", imei(2): "UpgradePending"})
    world.provider.add("c", dict.fromkeys((imei(1), imei(2), imei(3)), "UpgradeSuccess"))
    (result,) = world.reconcile()
    assert result.not_recoverable[1].startswith("The states in between of 2 devices:")
    assert {states for _, _, states in world.kept() if states} == {
        ((imei(number), "UpgradeSuccess"),) for number in (1, 2, 3)
    }


def test_a_late_callback_that_says_the_same_changes_nothing(world):
    """The state stays, and the device is no news to the next run."""
    world.provider.add("c", {imei(1): "UpgradeSuccess"})
    world.reconcile()
    world.receive("c", {imei(1): "UpgradeSuccess"})
    assert world.reconcile()[0].differed == 0
    assert world.states("c") == {imei(1): "UpgradeSuccess"}


# --- Errors ----------------------------------------------------------------------------------------------------------


def test_an_account_that_cannot_be_read_does_not_stop_the_rest(world):
    """Its error is in its result, the others are done."""
    world.provider.add("c", {imei(1): "UpgradePending"})
    world.provider.add("d", {imei(2): "UpgradePending"}, account=OTHER)
    world.provider.oddities.append(lambda path, _, answer: (503, {}) if ACCOUNT in path else answer)
    told = []
    first, second = world.reconcile(ACCOUNT, OTHER, ACCOUNT, on_result=told.append)
    assert (first.finished, len(first.errors), first.devices) == (False, 1, 0)
    assert (second.finished, second.errors, second.differed) == (True, (), 1)
    assert told == [first, second]


def test_a_campaign_whose_report_is_refused_does_not_stop_the_rest(world):
    """The provider's words are told, the account's other campaigns are read, and the run is over."""
    world.provider.add("c", {imei(1): "UpgradePending"})
    world.provider.add("d", {imei(2): "UpgradePending"})
    world.provider.oddities.append(lambda path, _, answer: REFUSED if path.endswith("c/devices") else answer)
    (result,) = world.reconcile()
    assert (result.finished, result.devices, result.campaigns) == (True, 1, 2)
    assert result.errors[0].startswith("The device report of campaign c cannot be read: ThingSpace answered")
    assert world.inbox.notes("reconcile") == []


def test_a_refused_login_is_not_tried_for_each_account(world, tmp_path):
    """Who is refused for one account would be for the others: they are not asked for."""
    logins = []

    def refuse(request):
        if request.url.path.endswith("/oauth2/token"):
            return httpx2.Response(200, json={"access_token": "b", "expires_in": 3600, "token_type": "Bearer"})
        logins.append(request)
        return httpx2.Response(401, json={"errorCode": "UnifiedWebService.INPUT_INVALID.Password.Invalid"})

    world.client.close()
    world.client = ThingSpaceClient(
        base_url="http://localhost/api",
        credentials=CREDENTIALS,
        transport=httpx2.MockTransport(refuse),
        state_dir=tmp_path / "refused",
    )
    results = world.reconcile(ACCOUNT, OTHER, "0000123456-00003")
    assert len(logins) == 1
    assert [len(result.errors) for result in results] == [1, 1, 1]
    assert not any(result.finished for result in results)


def test_an_account_that_is_refused_to_us_does_not_stop_the_rest(world):
    """Credentials that may not see one account may see another."""
    world.provider.add("d", {imei(2): "UpgradePending"}, account=OTHER)
    world.provider.oddities.append(lambda path, _, answer: (403, {}) if ACCOUNT in path else answer)
    first, second = world.reconcile(ACCOUNT, OTHER)
    assert "403" in first.errors[0]
    assert (second.differed, second.errors) == (1, ())


# --- Going on --------------------------------------------------------------------------------------------------------


def stop_after(requests):
    """Return what tells a run to end before the request after so many."""
    left = [requests]

    def is_stopping():
        left[0] -= 1
        return left[0] < 0

    return is_stopping


def test_an_interrupted_run_is_gone_on_with(world):
    """The next run within six hours reads what is left, says so, and leaves no note behind."""
    world.provider.add("c", {imei(number): "UpgradePending" for number in range(25)})
    world.provider.add("d", {imei(99): "UpgradePending"})
    (stopped,) = world.reconcile(is_stopping=stop_after(4))  # one is asked before the account is begun
    assert (stopped.finished, stopped.devices, stopped.errors) == (False, 20, ())
    (note,) = world.inbox.notes("reconcile")
    assert (note.key, note.document["campaign_id"]) == (ACCOUNT, "c")
    assert note.document["last_seen_device_id"] == imei(19)
    assert (note.document["since"], note.document["begun_at"]) == (NOW - DAY, NOW)
    asked = len(world.provider.asked)
    world.now += HOUR
    (result,) = world.reconcile()
    assert (result.resumed_from, result.finished) == (NOW, True)
    assert (result.campaigns, result.devices, result.differed, result.silent_campaigns) == (2, 26, 26, ("c", "d"))
    assert [query for _, query in world.provider.asked[asked + 1 :]] == [
        {"lastSeenDeviceId": imei(19)},
        {"lastSeenDeviceId": "0"},
    ]
    assert world.inbox.notes("reconcile") + world.inbox.notes("reconcile.found") == []


@pytest.mark.parametrize(("later", "since"), [(7 * HOUR, NOW - DAY), (HOUR, NOW - 2 * DAY), (HOUR, NOW)])
def test_an_old_run_or_one_of_another_window_begins_anew(world, later, since):
    """After six hours, or where another time is asked for, everything is read again."""
    world.provider.add("c", {imei(number): "UpgradePending" for number in range(25)})
    world.reconcile(is_stopping=stop_after(3))
    world.now += later
    (result,) = world.reconcile(since=since)
    assert (result.resumed_from, result.devices, result.differed) == (None, 25, 15)
    assert world.inbox.notes("reconcile.found") == []


def test_a_window_of_so_long_ago_is_the_same_one_later(world):
    """Who types --since 24h again means the run that was interrupted."""
    world.provider.add("c", {imei(number): "UpgradePending" for number in range(25)})
    world.reconcile(is_stopping=stop_after(3))
    world.now += HOUR
    (result,) = world.reconcile(since=world.now - DAY)
    assert (result.resumed_from, result.since) == (NOW, NOW - DAY)


@pytest.mark.parametrize("answer", [(500, {"errorCode": "X"}), (200, None), (429, {})])
def test_a_report_that_stays_broken_costs_its_own_campaign_only(world, answer):
    """The others are read, also by the runs that follow, and the one that is left is named each time."""
    for number in range(4):
        world.provider.add(f"c{number}", {imei(10 * number + k): "UpgradePending" for k in range(3)})
    world.provider.oddities.append(lambda path, query, given: answer if path.endswith("c1/devices") else given)
    (first,) = world.reconcile()
    assert (first.finished, first.campaigns, first.devices) == (False, 3, 9)
    assert len(first.errors) == 1
    assert "campaign c1 cannot be read now" in first.errors[0]
    world.provider.asked.clear()
    (again,) = world.reconcile()
    assert (again.finished, again.campaigns, again.differed) == (False, 3, 9)
    assert {path.split("/")[-2] for path, _ in world.provider.asked if path.endswith("/devices")} == {"c1"}
    world.provider.oddities.clear()
    (last,) = world.reconcile()
    assert (last.finished, last.campaigns, last.devices, last.errors) == (True, 4, 12, ())


def test_a_provider_that_fails_for_each_campaign_is_left_alone(world):
    """After a few campaigns in a row nobody goes on asking."""
    for number in range(10):
        world.provider.add(f"c{number}", {imei(number): "UpgradePending"})
    world.provider.oddities.append(of_devices(lambda query, answer: (500, {})))
    (failed,) = world.reconcile()
    asked = {path.split("/")[-2] for path, _ in world.provider.asked if path.endswith("/devices")}
    assert (failed.finished, len(failed.errors), len(asked)) == (False, 3, 3)


def test_an_error_in_the_middle_is_gone_on_from(world):
    """What was read before the provider failed is kept, and not read again."""
    world.provider.add("c", {imei(number): "UpgradePending" for number in range(25)})
    world.provider.oddities.append(
        of_devices(lambda query, answer: (500, {}) if query["lastSeenDeviceId"] != "0" else answer)
    )
    (failed,) = world.reconcile()
    assert (failed.finished, failed.devices, failed.differed, len(failed.errors)) == (False, 10, 10, 1)
    world.provider.oddities.clear()
    (result,) = world.reconcile()
    assert (result.finished, result.devices, result.differed, result.errors) == (True, 25, 25, ())
    assert [query["lastSeenDeviceId"] for query in world.asked("c/devices")] == ["0", imei(9), imei(9), imei(19)]


def test_where_the_last_device_is_gone_the_campaign_is_read_again(world):
    """A provider that refuses to go on from a device that was removed meanwhile is asked from the beginning."""
    world.provider.add("c", {imei(number): "UpgradePending" for number in range(25)})
    world.reconcile(is_stopping=stop_after(3))
    del world.provider.devices["c"][imei(9)]
    world.provider.oddities.append(
        of_devices(lambda query, answer: REFUSED if query["lastSeenDeviceId"] == imei(9) else answer)
    )
    (result,) = world.reconcile()
    assert (result.errors, result.finished) == ((), True)
    assert result.missing == (MissingReport("c", imei(9), "UpgradePending"),)


def test_notes_that_cannot_be_read_are_left_behind(world):
    """What another release wrote in another shape is no reason to fail: the run begins anew."""
    world.provider.add("c", {imei(1): "UpgradePending"})
    world.inbox.put_note(Note(topic="reconcile", key=ACCOUNT, at=NOW, document={"begun_at": "soon"}))
    world.inbox.put_note(Note(topic="reconcile", key=OTHER, at=NOW, document={"begun_at": "another's"}))
    assert world.reconcile()[0].finished
    assert [note.key for note in world.inbox.notes("reconcile")] == [OTHER]
    world.inbox.put_note(Note(topic="reconcile", key=ACCOUNT, at=NOW, document={"begun_at": NOW, "since": NOW - DAY}))
    for number, odd in enumerate(({}, {"page": "x"}, {"found": {"devices": "many"}, "begun_at": NOW})):
        document = {"account": ACCOUNT, **odd}
        world.inbox.put_note(Note(topic="reconcile.found", key=f"{number}", at=NOW, document=document))
    (result,) = world.reconcile()
    assert (result.devices, result.errors) == (1, ())
    assert world.inbox.notes("reconcile.found") == []


def test_a_run_that_is_told_to_end_begins_no_other_account(world):
    """Accounts that were not begun have no result."""
    world.provider.add("c", {imei(1): "UpgradePending"})
    assert [result.account for result in world.reconcile(ACCOUNT, OTHER, is_stopping=stop_after(2))] == [ACCOUNT]
    assert world.reconcile(is_stopping=lambda: True) == []


CAMPAIGNS = st.lists(
    st.dictionaries(
        st.integers(0, 9).map(imei),
        st.sampled_from(["Accepted", "UpgradePending", "UpgradeSuccess", "UpgradeFailed", "DeviceRejected"]),
        max_size=8,
    ),
    min_size=1,
    max_size=3,
)


class Cut(Exception):  # noqa: N818 - it is what the test makes happen
    """Stand for the end of the process."""


def told_before(world, campaigns):
    for number, states in enumerate(campaigns):
        if states:
            world.receive(f"c-{number}", states, at=NOW - 30 * HOUR)


def outcome(world, result):
    """Return what a run comes to, whether or not it was interrupted."""
    kept = sorted(world.kept(), key=repr)
    shown = json.loads(json.dumps([result.devices, result.campaigns, result.differed, result.campaigns_differed]))
    named = [
        set(value) for value in (result.silent_campaigns, result.silent_devices, result.missing, result.contradictions)
    ]
    named.append(set(result.not_recoverable[1:]))  # the first one says when the run began
    return shown, named, kept


@settings(max_examples=40)
@given(told=CAMPAIGNS, there=CAMPAIGNS, page_size=st.integers(1, 4), stopping=st.booleans())
def test_interrupted_anywhere_it_comes_to_the_same(told, there, page_size, stopping, tmp_path_factory):
    """Ended after every single request, by word or by a crash, and run again: the store and the result are the same."""

    def world_of():
        world = World(tmp_path_factory.mktemp("client"))
        world.provider.page_size = page_size
        told_before(world, told)
        for number, states in enumerate(there):
            world.provider.add(f"c-{number}", states)
        return world

    with world_of() as straight:
        (result,) = straight.reconcile()
        expected = outcome(straight, result)
    with world_of() as world:
        for _ in range(200):
            if stopping:
                results = world.reconcile(is_stopping=stop_after(2 + _requests_to_go_on(world)))
                finished = results[0].finished
            else:
                finished, results = _crash_after(world, 1 + _requests_to_go_on(world))
            if finished:
                break
            world.now += 1_000_000
        assert finished
        assert outcome(world, results[0]) == expected


def _requests_to_go_on(world):
    """Return how many requests it takes to know again which campaigns there are."""
    lists = -(-len(world.provider.campaigns.get(ACCOUNT, ())) // world.provider.page_size)
    open_here = {record.campaign_id for record in world.inbox.campaigns()}
    return lists + len(open_here - set(world.provider.campaigns.get(ACCOUNT, ())))


def _crash_after(world, requests):
    left = [requests]

    def crash(path, query, answer):
        left[0] -= 1
        if left[0] < 0:
            raise Cut
        return answer

    world.provider.oddities.append(crash)
    try:
        return True, world.reconcile()
    except Cut:
        return False, []
    finally:
        world.provider.oddities.clear()


# --- From when on ----------------------------------------------------------------------------------------------------


def test_the_window_is_that_of_the_last_outage(world):
    """Where heartbeats or the guard's journal show an outage that began more than a day ago, it begins there."""
    assert default_since(world.inbox, ACCOUNT, NOW) == NOW - DAY
    for began, ended in ((NOW - 9 * DAY, NOW - 5 * DAY), (NOW - 3 * DAY, NOW)):
        world.inbox.beat(Uptime(listener=f"{began}", began_at=began, last_at=ended, ended=True))
    assert default_since(world.inbox, ACCOUNT, NOW) == NOW - 5 * DAY
    for at, state in ((NOW - 2 * DAY, "drifted"), (NOW - HOUR, "in_order")):
        document = {"to": state, "last_ok": at - HOUR}
        world.inbox.record(JournalEntry(topic="guard", at=at, account=ACCOUNT, document=document))
    assert default_since(world.inbox, ACCOUNT, NOW) == NOW - 2 * DAY - HOUR
    assert default_since(world.inbox, OTHER, NOW) == NOW - 5 * DAY
    world.provider.add("c", {})
    assert world.reconcile(since=None)[0].since == NOW - 2 * DAY - HOUR


def test_the_callbacks_of_one_campaign_are_all_looked_at(world):
    """One that came is found among many that were made of reports."""
    world.provider.add("c", {imei(number): "UpgradePending" for number in range(600)})
    world.provider.page_size = 1000
    world.reconcile()
    world.receive("c", {imei(1): "UpgradeSuccess"})
    world.provider.devices["c"] |= {imei(number): "UpgradeSuccess" for number in range(600)}
    (result,) = world.reconcile()
    assert (result.silent_campaigns, result.differed) == ((), 599)
    assert len(world.inbox.callbacks(Selection(campaign_id="c"))) == 1 + 600 + 1 + 599
