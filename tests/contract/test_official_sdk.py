"""The official SDK, unmodified, drives the sandbox: what it sends is accepted and what it gets it understands.

Each method of the SDK that calls Software Management V2 on a path of the sandbox has a test here that is called after
it; `test_every_served_method_has_its_test` sees to that.
"""

import inspect
import itertools
import json
import os
import re
import subprocess
import sys
import time
import uuid
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from upcall.sandbox.fleet import fleet, imei
from upcall.sandbox.routes import ROUTES

URL = "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx"
OTHER_URL = "https://255.255.11.135:50559/CallbackListener/FirmwareServiceMessages.asmx"
UNKNOWN_CAMPAIGN = "6f1c0a3e-0000-4000-8000-000000000000"
FINAL = {"DeviceRejected", "UpgradeFailed", "UpgradeSuccess"}


@pytest.fixture(scope="module")
def base_url(tmp_path_factory):
    """Start a real sandbox process, at ten virtual hours a second, and return its base URL."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("THINGSPACE_")}
    with subprocess.Popen(
        [sys.executable, "-m", "upcall", "sandbox", "--port", "0", "--speed", "36000", "--seed", "1", "--quiet"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path_factory.mktemp("sandbox"),
    ) as process:
        line = process.stdout.readline()
        assert line.startswith("ready "), line
        yield line.split()[1]
        process.terminate()
        assert process.wait(10) == 0


@pytest.fixture
def make_client(base_url, monkeypatch):
    """Build the SDK's client with its base URLs replaced, as its own configuration provides."""
    from verizon.configuration import Configuration, Environment, Server
    from verizon.http.auth.thingspace_oauth import ThingspaceOauthCredentials
    from verizon.http.auth.vz_m2m_token import VZM2mTokenCredentials
    from verizon.verizon_client import VerizonClient

    servers = dict(Configuration.environments[Environment.PRODUCTION]) | {
        Server.THINGSPACE: base_url,
        Server.OAUTH_SERVER: f"{base_url}/ts/v1",
        Server.M2M: f"{base_url}/m2m",
        Server.SOFTWARE_MANAGEMENT_V2: f"{base_url}/fota/v2",
    }
    monkeypatch.setitem(Configuration.environments, Environment.PRODUCTION, servers)

    def make(session_token="none yet", secret="sandbox"):
        return VerizonClient(
            thingspace_oauth_credentials=ThingspaceOauthCredentials(
                oauth_client_id="sandbox", oauth_client_secret=secret
            ),
            vz_m2m_token_credentials=VZM2mTokenCredentials(vz_m2m_token=session_token),
        )

    return make


@pytest.fixture
def client(make_client):
    """Return the SDK's client with a session that its own controller started."""
    return make_client(log_in(make_client()))


@pytest.fixture
def callbacks(client):
    return client.software_management_callbacks_v2


@pytest.fixture
def campaigns(client):
    return client.campaigns_v2


@pytest.fixture
def reports(client):
    return client.software_management_reports_v2


ACCOUNT_NUMBERS = itertools.count(1)


@pytest.fixture
def account():
    """Return an account that no other test of this process has."""
    return f"0000123456-{next(ACCOUNT_NUMBERS):05d}"


def log_in(client, password="sandbox"):
    from verizon.models.log_in_request import LogInRequest

    body = LogInRequest(username="sandbox", password=password)
    return client.session_management.start_connectivity_management_session(body).body.session_token


def listener(url):
    from verizon.models.fota_v2_callback_registration_request import FotaV2CallbackRegistrationRequest

    return FotaV2CallbackRegistrationRequest(url=url)


def days_ahead(days):
    """Return a date by the calendar that campaigns obey: UTC's."""
    return datetime.now(UTC).date() + timedelta(days=days)


def upgrade(devices=3, **members):
    """Return what schedules a campaign; without other dates it starts at once and ends with tomorrow, UTC."""
    from verizon.models.campaign_software_upgrade import CampaignSoftwareUpgrade

    asked = {
        "software_name": "FOTA_Verizon_Model-A_01To02_HF",
        "software_from": "FOTA_Verizon_Model-A_00To01_HF",
        "software_to": "FOTA_Verizon_Model-A_01To02_HF",
        "distribution_type": "HTTP",
        "start_date": days_ahead(0),
        "end_date": days_ahead(1),
        "device_list": [imei(number) for number in range(devices)],
    }
    return CampaignSoftwareUpgrade(**asked | members)


def later(devices=3):
    """Return what schedules a campaign that does not start while a test runs."""
    return upgrade(devices, start_date=days_ahead(365), end_date=days_ahead(372))


def changed_devices(kind, numbers):
    from verizon.models.v2_add_or_remove_device_request import V2AddOrRemoveDeviceRequest

    return V2AddOrRemoveDeviceRequest(kind, [imei(number) for number in numbers])


def wait_for(ask, wanted, seconds=60):
    """Ask again, as a client does, until the answer is the wanted one."""
    deadline = time.monotonic() + seconds
    while (answer := ask()) != wanted:
        assert time.monotonic() < deadline, f"it is {answer} after {seconds} seconds, not {wanted}"
        time.sleep(0.05)


def wait_for_campaign(campaigns, account, campaign_id, status):
    wait_for(lambda: campaigns.get_campaign_information(account, campaign_id).body.status, status)


def device_statuses(reports, account, campaign_id):
    page = reports.get_campaign_device_status(account, campaign_id).body
    return {device.device_id: device.status for device in page.device_list}


# --- Which methods there are -----------------------------------------------------------------------------------------


class Built(Exception):  # noqa: N818 - it says that a request is ready, and is no mistake
    """Carry the method and the path of a request that the SDK has built, in place of sending it."""


def v2_methods():
    """Return the SDK's methods for Software Management V2: by name, the HTTP method and the path that each builds.

    Each is really called, with ``{}`` for every argument, up to the moment at which its request would be sent.
    """
    from verizon.controllers.base_controller import BaseController
    from verizon.http.auth.thingspace_oauth import ThingspaceOauthCredentials
    from verizon.http.auth.vz_m2m_token import VZM2mTokenCredentials
    from verizon.http.http_call_back import HttpCallBack
    from verizon.models.oauth_token import OauthToken
    from verizon.verizon_client import VerizonClient

    class Before(HttpCallBack):
        def on_before_request(self, request):
            raise Built(request.http_method, unquote(urlsplit(request.query_url).path))

    client = VerizonClient(
        http_call_back=Before(),
        thingspace_oauth_credentials=ThingspaceOauthCredentials("", "", oauth_token=OauthToken("token", "Bearer")),
        vz_m2m_token_credentials=VZM2mTokenCredentials("session"),
    )
    found = {}
    for _, controller in inspect.getmembers(client, lambda member: isinstance(member, BaseController)):
        if "Server.SOFTWARE_MANAGEMENT_V2" not in inspect.getsource(type(controller)):
            continue
        for name, method in inspect.getmembers(controller, inspect.ismethod):
            if name.startswith("_"):
                continue
            with Path(__file__).open("rb") as file, pytest.raises(Built) as built:
                method(**{key: file if key == "fileupload" else "{}" for key in inspect.signature(method).parameters})
            found[name] = built.value.args
    return found


def is_tested(name):
    """Tell whether a test is called after a method of the SDK and calls it."""
    test = globals().get(f"test_{name}")
    return test is not None and name in test.__code__.co_names


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK says it of the calls about licences
def test_every_served_method_has_its_test():
    """Each V2 path that the sandbox serves is one that the SDK calls, and a test that bears the method's name does."""
    served = {(route.method, re.sub(r"{\w+}", "{}", route.path)) for route in ROUTES if "/fota/v2/" in route.path}
    methods = v2_methods()
    assert served - set(methods.values()) == set()
    assert [name for name, request in methods.items() if request in served and not is_tested(name)] == []


# --- Tokens and sessions ---------------------------------------------------------------------------------------------


def test_the_version_is_the_one_promised():
    """The SDK that drives the sandbox is the released 2.0.0."""
    assert version("sdksio-verizon-apis-sdk") == "2.0.0"


def test_token(make_client):
    """The SDK's token request is answered with a bearer token that it can use."""
    token = make_client().oauth_authorization.request_token_thingspace_oauth("Basic c2FuZGJveDpzYW5kYm94").body
    assert token.token_type == "Bearer"
    assert 0 < token.expires_in <= 3600


def test_wrong_client(make_client):
    """A wrong secret is refused in the shape for which the SDK has an exception."""
    from verizon.exceptions.oauth_provider_exception import OauthProviderException

    with pytest.raises(OauthProviderException) as refused:
        make_client().oauth_authorization.request_token_thingspace_oauth("Basic c2FuZGJveDpubw==")
    assert refused.value.response_code == 401
    assert refused.value.error == "invalid_client"


def test_login_and_logout(make_client, account):
    """A session starts, works, ends, and is refused afterwards."""
    from verizon.exceptions.api_exception import APIException

    token = log_in(make_client())
    client = make_client(token)
    assert client.session_management.end_connectivity_management_session().body.session_token == token
    with pytest.raises(APIException) as refused:
        client.software_management_callbacks_v2.list_registered_callbacks(account)
    assert refused.value.response_code == 401
    assert "SessionToken.Expired" in refused.value.response.text


def test_refused_login(make_client):
    """A wrong password is refused in the shape for which the SDK has an exception."""
    from verizon.exceptions.connectivity_management_result_exception import ConnectivityManagementResultException

    with pytest.raises(ConnectivityManagementResultException) as refused:
        log_in(make_client(), "wrong")
    assert refused.value.error_code.endswith("Password.Invalid")
    assert log_in(make_client())


# --- Callbacks -------------------------------------------------------------------------------------------------------


def test_register_callback(callbacks, account):
    """Registering answers with the URL, in the place of any that was registered before."""
    assert callbacks.register_callback(account, listener(URL)).body.url == URL
    assert callbacks.register_callback(account, listener(OTHER_URL)).body.url == OTHER_URL
    assert callbacks.list_registered_callbacks(account).body.url == OTHER_URL


def test_list_registered_callbacks(callbacks, account):
    """The SDK reads the registered URL, and nothing where none is."""
    assert callbacks.list_registered_callbacks(account).body is None
    callbacks.register_callback(account, listener(URL))
    assert callbacks.list_registered_callbacks(account).body.url == URL


def test_update_callback(callbacks, account):
    """Updating puts another URL in the place of the registered one."""
    callbacks.register_callback(account, listener(URL))
    assert callbacks.update_callback(account, listener(OTHER_URL)).body.url == OTHER_URL
    assert callbacks.list_registered_callbacks(account).body.url == OTHER_URL


def test_deregister_callback(callbacks, account):
    """Deregistering says that it was done, and leaves no listener."""
    callbacks.register_callback(account, listener(URL))
    assert callbacks.deregister_callback(account).body.success is True
    assert callbacks.list_registered_callbacks(account).body is None


# --- Campaigns -------------------------------------------------------------------------------------------------------


def test_schedule_campaign_firmware_upgrade(campaigns, account):
    """A campaign is taken on with every member that the SDK can send, and shown with all of them."""
    from verizon.models.v2_time_window import V2TimeWindow

    body = upgrade(
        campaign_name="contract",
        download_after_date=days_ahead(1),
        download_time_window_list=[V2TimeWindow(20, 21), V2TimeWindow(0, 24)],
        install_after_date=days_ahead(1),
        install_time_window_list=[V2TimeWindow(22, 4)],
    )
    answer = campaigns.schedule_campaign_firmware_upgrade(account, body)
    campaign = answer.body
    assert uuid.UUID(campaign.id).version == 4
    assert (campaign.account_name, campaign.status) == (account, "CampaignRequestPending")
    assert (campaign.make, campaign.model) == ("Upcall", "Sandbox")
    for name in (
        "campaign_name",
        "software_name",
        "software_from",
        "software_to",
        "distribution_type",
        "start_date",
        "end_date",
        "download_after_date",
        "install_after_date",
    ):
        assert getattr(campaign, name) == getattr(body, name)
    assert [(window.start_time, window.end_time) for window in campaign.install_time_window_list] == [(22, 4)]
    # The SDK sends hour 0 and reads it as None.
    assert json.loads(answer.text)["downloadTimeWindowList"] == [
        {"startTime": 20, "endTime": 21},
        {"startTime": 0, "endTime": 24},
    ]


def test_get_campaign_information(campaigns, reports, account):
    """A campaign is followed by its calendar to its end, when each of its devices is final."""
    campaign_id = campaigns.schedule_campaign_firmware_upgrade(account, upgrade(40)).body.id
    wait_for_campaign(campaigns, account, campaign_id, "CampaignEnded")
    campaign = campaigns.get_campaign_information(account, campaign_id).body
    assert (campaign.id, campaign.account_name, campaign.status) == (campaign_id, account, "CampaignEnded")
    assert isinstance(campaign.start_date, date)
    statuses = device_statuses(reports, account, campaign_id)
    assert list(statuses) == [imei(number) for number in range(40)]
    assert "UpgradeSuccess" in statuses.values()
    assert set(statuses.values()) <= FINAL


def test_update_campaign_firmware_devices(campaigns, reports, account):
    """Devices are added to a campaign that has not started, and removed from it, each once."""
    campaign_id = campaigns.schedule_campaign_firmware_upgrade(account, later(3)).body.id
    added = campaigns.update_campaign_firmware_devices(account, campaign_id, changed_devices("append", [2, 3, 4])).body
    assert (added.account_name, added.campaign_id) == (account, campaign_id)
    assert uuid.UUID(added.request_id)
    assert list(device_statuses(reports, account, campaign_id)) == [imei(number) for number in (0, 1, 2, 3, 4)]
    gone = campaigns.update_campaign_firmware_devices(account, campaign_id, changed_devices("remove", [0, 3])).body
    assert (gone.account_name, gone.campaign_id) == (account, campaign_id)
    assert gone.request_id != added.request_id
    assert list(device_statuses(reports, account, campaign_id)) == [imei(number) for number in (1, 2, 4)]


def test_devices_of_a_started_campaign_stay(campaigns, reports, account):
    """A campaign that has started is given no other devices, and the SDK raises its own exception."""
    body = upgrade(3, end_date=days_ahead(372), download_after_date=days_ahead(370))
    campaign_id = campaigns.schedule_campaign_firmware_upgrade(account, body).body.id
    wait_for_campaign(campaigns, account, campaign_id, "CampaignScheduled")
    before = device_statuses(reports, account, campaign_id)
    for kind, numbers in (("append", [3]), ("remove", [0])):
        change = changed_devices(kind, numbers)
        refused = refusal(campaigns.update_campaign_firmware_devices, account, campaign_id, change)
        assert refused == "The campaign is CampaignScheduled"
    assert device_statuses(reports, account, campaign_id) == before


def test_update_campaign_dates(campaigns, account):
    """A campaign that was to start next year is given other dates and windows, obeys them, and ends."""
    from verizon.models.v2_change_campaign_dates_request import V2ChangeCampaignDatesRequest
    from verizon.models.v2_time_window import V2TimeWindow

    campaign_id = campaigns.schedule_campaign_firmware_upgrade(account, later()).body.id
    wait_for_campaign(campaigns, account, campaign_id, "CampaignQueued")
    dates = V2ChangeCampaignDatesRequest(
        start_date=days_ahead(0),
        end_date=days_ahead(1),
        download_after_date=days_ahead(0),
        download_time_window_list=[V2TimeWindow(start_time=1, end_time=24)],
        install_after_date=days_ahead(1),
        install_time_window_list=[V2TimeWindow(start_time=20, end_time=21)],
    )
    changed = campaigns.update_campaign_dates(account, campaign_id, dates).body
    for name in ("start_date", "end_date", "download_after_date", "install_after_date"):
        assert getattr(changed, name) == getattr(dates, name)
    assert [(window.start_time, window.end_time) for window in changed.install_time_window_list] == [(20, 21)]
    wait_for_campaign(campaigns, account, campaign_id, "CampaignEnded")
    assert refusal(campaigns.update_campaign_dates, account, campaign_id, dates) == "The campaign is CampaignEnded"


def test_cancel_campaign(campaigns, reports, account):
    """Deleting a campaign before its start cancels it and its devices, and a second time raises."""
    campaign_id = campaigns.schedule_campaign_firmware_upgrade(account, later(30)).body.id
    assert campaigns.cancel_campaign(account, campaign_id).body.success is True
    assert campaigns.get_campaign_information(account, campaign_id).body.status == "CampaignCancelled"
    statuses = device_statuses(reports, account, campaign_id)
    assert "CampaignCancelled" in statuses.values()
    assert set(statuses.values()) <= {"CampaignCancelled", "DeviceRejected"}
    assert refusal(campaigns.cancel_campaign, account, campaign_id) == "The campaign is CampaignCancelled"


def test_cancelling_a_started_campaign_aborts_it(campaigns, reports, account):
    """Deleting a campaign after its start aborts it and those of its devices that are not final."""
    body = upgrade(30, end_date=days_ahead(372), download_after_date=days_ahead(370))
    campaign_id = campaigns.schedule_campaign_firmware_upgrade(account, body).body.id
    wait_for_campaign(campaigns, account, campaign_id, "CampaignScheduled")
    assert campaigns.cancel_campaign(account, campaign_id).body.success is True
    assert campaigns.get_campaign_information(account, campaign_id).body.status == "CampaignAborted"
    statuses = device_statuses(reports, account, campaign_id)
    assert "CampaignAborted" in statuses.values()
    assert set(statuses.values()) <= {"CampaignAborted", "DeviceRejected"}


# --- Software, devices and reports -----------------------------------------------------------------------------------


def test_list_available_software(reports, account):
    """The SDK reads software with its launch date, of one distribution type if asked."""
    from verizon.models.software_package import SoftwarePackage

    packages = reports.list_available_software(account).body
    assert [type(package) for package in packages] == [SoftwarePackage, SoftwarePackage]
    assert packages[0].software_name == "FOTA_Verizon_Model-A_00To01_HF"
    assert packages[0].launch_date == date(2026, 1, 15)
    assert len(reports.list_available_software(account, "HTTP").body) == 2
    assert reports.list_available_software(account, "LWM2M").body == []


def test_list_account_devices(campaigns, reports, account):
    """The SDK reads all devices of an account, a page of a thousand at a time, with those that a campaign named."""
    devices = list(dict.fromkeys(fleet(account) + [imei(number) for number in range(1500)]))
    campaigns.schedule_campaign_firmware_upgrade(account, later(1500))
    seen, sizes, last, more = [], [], "0", True
    while more:
        page = reports.list_account_devices(account, last).body
        assert (page.account_name, page.max_page_size) == (account, 1000)
        seen += [device.device_id for device in page.device_list]
        sizes.append(len(page.device_list))
        last, more = page.last_seen_device_id, page.has_more_data
    assert sizes == [1000, len(devices) - 1000]
    assert seen == devices


def test_forms_of_time(reports, account):
    """The SDK keeps a device's times as text, and so reads both forms that the provider writes them in."""
    device = reports.list_account_devices(account).body.device_list[0]
    rfc_3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    for text in (device.create_time, device.upgrade_time, device.update_time, device.software_list[0].upgrade_time):
        assert re.fullmatch(rfc_3339, text)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \+0000 UTC", device.refresh_time)


def test_devices_of_a_distribution_type(reports, account):
    """Devices are listed of one distribution type if asked: the sandbox's are all of HTTP."""
    assert len(reports.list_account_devices(account, None, "HTTP").body.device_list) == 25
    assert reports.list_account_devices(account, None, "LWM2M").body.device_list == []


def test_get_campaign_device_status(campaigns, reports, account):
    """A campaign of more than a thousand devices is read a page at a time, each device once and in order."""
    campaign_id = campaigns.schedule_campaign_firmware_upgrade(account, later(2500)).body.id
    seen, sizes, last, more = [], [], "0", True
    while more:
        page = reports.get_campaign_device_status(account, campaign_id, last).body
        assert (page.total_device, page.max_page_size) == (2500, 1000)
        seen += [device.device_id for device in page.device_list]
        sizes.append(len(page.device_list))
        last, more = page.last_seen_device_id, page.has_more_data
    assert sizes == [1000, 1000, 500]
    assert seen == [imei(number) for number in range(2500)]


def test_get_device_firmware_upgrade_history(campaigns, reports, account):
    """The SDK reads the campaigns that a device was in, oldest first, and none of a device that was in none."""
    assert reports.get_device_firmware_upgrade_history(account, imei(0)).body == []
    first = campaigns.schedule_campaign_firmware_upgrade(account, upgrade(1)).body.id
    wait_for_campaign(campaigns, account, first, "CampaignEnded")
    second = campaigns.schedule_campaign_firmware_upgrade(account, upgrade(1)).body.id
    wait_for_campaign(campaigns, account, second, "CampaignEnded")
    history = reports.get_device_firmware_upgrade_history(account, imei(0)).body
    assert [entry.id for entry in history] == [first, second]
    for entry in history:
        assert (entry.device_id, entry.account_name) == (imei(0), account)
        assert entry.software_name == "FOTA_Verizon_Model-A_01To02_HF"
        assert entry.start_date in {days_ahead(0), days_ahead(-1)}  # the day may have changed meanwhile
        assert entry.status == device_statuses(reports, account, entry.id)[imei(0)]
        assert entry.reason


def test_get_campaign_history_by_status(campaigns, reports, account):
    """The SDK reads an account's campaigns of one status: more than a thousand a page at a time, and none as None."""
    from verizon.models.campaign_status_enum import CampaignStatusEnum

    queued = CampaignStatusEnum.CAMPAIGNREQUESTQUEUED
    assert reports.get_campaign_history_by_status(account, queued).body.campaign_list is None
    ids = [campaigns.schedule_campaign_firmware_upgrade(account, later(1)).body.id for _ in range(1002)]
    wait_for_campaign(campaigns, account, ids[-1], "CampaignQueued")
    campaigns.cancel_campaign(account, ids[0])
    first = reports.get_campaign_history_by_status(account, queued).body
    assert (first.has_more_data, first.last_seen_campaign_id) == (True, ids[1000])
    second = reports.get_campaign_history_by_status(account, queued, first.last_seen_campaign_id).body
    assert second.has_more_data is False
    assert [campaign.id for campaign in first.campaign_list + second.campaign_list] == ids[1:]
    cancelled = reports.get_campaign_history_by_status(account, CampaignStatusEnum.CAMPAIGNCANCELLED).body
    assert [(entry.id, entry.status) for entry in cancelled.campaign_list] == [(ids[0], "CampaignCancelled")]


# --- Errors ----------------------------------------------------------------------------------------------------------


def refusal(method, *arguments):
    """Call a method that is refused with the SDK's own exception, and return the provider's message."""
    from verizon.exceptions.fota_v2_result_exception import FotaV2ResultException

    with pytest.raises(FotaV2ResultException) as refused:
        method(*arguments)
    assert (refused.value.response_code, refused.value.error_code) == (400, "INVALID_PARAMETER")
    return refused.value.error_message


@pytest.mark.parametrize(
    ("account", "url", "message"),
    [
        ("0000123456-00001", "http://10.120.102.183:50559/x", "is not https"),
        ("not_an_account", URL, "Invalid account name format"),
    ],
)
def test_bad_listeners_raise(callbacks, account, url, message):
    """A URL or an account that cannot be raises with the provider's code and message."""
    assert message in refusal(callbacks.register_callback, account, listener(url))
    assert message in refusal(callbacks.update_callback, account, listener(url))


def test_empty_body(callbacks, account):
    """An empty registration raises with the documented message."""
    assert refusal(callbacks.register_callback, account, "") == "Input binding error"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"device_list": []}, "Device list is empty"),
        ({"start_date": "soon"}, "FotaPostUpgrades: invalid state date"),
        ({"end_date": date(2020, 1, 1)}, "Invalid endDate: it is before startDate"),
        ({"software_name": ""}, "Invalid softwareName"),
    ],
)
def test_bad_campaigns_raise(campaigns, account, members, message):
    """A campaign that cannot be raises with the provider's code and message."""
    assert refusal(campaigns.schedule_campaign_firmware_upgrade, account, upgrade(**members)) == message


@pytest.mark.parametrize(("campaign_id", "message"), [("x", "Invalid uuid"), (UNKNOWN_CAMPAIGN, "Invalid upgradeId")])
def test_unknown_campaigns_raise(campaigns, reports, account, campaign_id, message):
    """Each method that names a campaign raises for an identifier that is no UUID, and for one that no campaign has."""
    from verizon.models.v2_change_campaign_dates_request import V2ChangeCampaignDatesRequest

    dates = V2ChangeCampaignDatesRequest(days_ahead(0), days_ahead(1))
    for method, *rest in (
        (campaigns.get_campaign_information,),
        (campaigns.update_campaign_firmware_devices, changed_devices("append", [0])),
        (campaigns.update_campaign_dates, dates),
        (campaigns.cancel_campaign,),
        (reports.get_campaign_device_status,),
    ):
        assert refusal(method, account, campaign_id, *rest) == message


def test_bad_changes_of_devices_raise(campaigns, account):
    """A change of devices without devices, or of an unknown type, raises and changes nothing."""
    campaign_id = campaigns.schedule_campaign_firmware_upgrade(account, later()).body.id
    change = campaigns.update_campaign_firmware_devices
    assert refusal(change, account, campaign_id, changed_devices("append", [])) == "Device list is empty"
    assert refusal(change, account, campaign_id, changed_devices("swap", [5])).startswith("Invalid Type")


def test_unknown_last_seen_raises(campaigns, reports, account):
    """A page after a device or a campaign that there is not raises with the provider's code and message."""
    campaign_id = campaigns.schedule_campaign_firmware_upgrade(account, later()).body.id
    message = "LastSeenDeviceId Not Valid"
    assert refusal(reports.get_campaign_device_status, account, campaign_id, "5") == message
    assert refusal(reports.list_account_devices, account, "5") == message
    message = "lastSeenCampaignId Not Valid"
    assert refusal(reports.get_campaign_history_by_status, account, "CampaignQueued", UNKNOWN_CAMPAIGN) == message


def test_a_device_that_is_no_imei_raises(reports, account):
    """The history of what is no IMEI raises with the documented message."""
    assert refusal(reports.get_device_firmware_upgrade_history, account, "x") == "Invalid device id format"


def test_accounts_do_not_see_each_other(campaigns, reports, account):
    """Another account's campaign is an unknown one, and stands in none of its reports."""
    campaign_id = campaigns.schedule_campaign_firmware_upgrade(account, later(1)).body.id
    other = f"{account}9"
    assert refusal(campaigns.get_campaign_information, other, campaign_id) == "Invalid upgradeId"
    assert reports.get_campaign_history_by_status(other, "CampaignQueued").body.campaign_list is None
    assert reports.get_device_firmware_upgrade_history(other, imei(0)).body == []
