"""The official SDK, unmodified, drives the sandbox: what it sends is accepted and what it gets it understands."""

import os
import subprocess
import sys
from datetime import date
from importlib.metadata import version

import pytest

ACCOUNT = "0000123456-00001"
URL = "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx"
OTHER_URL = "https://255.255.11.135:50559/CallbackListener/FirmwareServiceMessages.asmx"
DEVICES = ["990013907835573", "990013907884259"]


@pytest.fixture(scope="module")
def base_url(tmp_path_factory):
    """Start a real sandbox process and return its base URL."""
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


def log_in(client, password="sandbox"):
    from verizon.models.log_in_request import LogInRequest

    body = LogInRequest(username="sandbox", password=password)
    return client.session_management.start_connectivity_management_session(body).body.session_token


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


def test_login_and_logout(make_client):
    """A session starts, works, ends, and is refused afterwards."""
    from verizon.exceptions.api_exception import APIException

    token = log_in(make_client())
    client = make_client(token)
    assert client.session_management.end_connectivity_management_session().body.session_token == token
    with pytest.raises(APIException) as refused:
        client.software_management_callbacks_v2.list_registered_callbacks(ACCOUNT)
    assert refused.value.response_code == 401
    assert "SessionToken.Expired" in refused.value.response.text


def test_refused_login(make_client):
    """A wrong password is refused in the shape for which the SDK has an exception."""
    from verizon.exceptions.connectivity_management_result_exception import ConnectivityManagementResultException

    with pytest.raises(ConnectivityManagementResultException) as refused:
        log_in(make_client(), "wrong")
    assert refused.value.error_code.endswith("Password.Invalid")
    assert log_in(make_client())


def test_the_four_callback_operations(client):
    """List, register, update and deregister give the documented results."""
    from verizon.models.fota_v2_callback_registration_request import FotaV2CallbackRegistrationRequest

    callbacks = client.software_management_callbacks_v2
    assert callbacks.list_registered_callbacks(ACCOUNT).body is None
    assert callbacks.register_callback(ACCOUNT, FotaV2CallbackRegistrationRequest(url=URL)).body.url == URL
    assert callbacks.list_registered_callbacks(ACCOUNT).body.url == URL
    assert callbacks.update_callback(ACCOUNT, FotaV2CallbackRegistrationRequest(url=OTHER_URL)).body.url == OTHER_URL
    assert callbacks.list_registered_callbacks(ACCOUNT).body.url == OTHER_URL
    assert callbacks.deregister_callback(ACCOUNT).body.success is True
    assert callbacks.list_registered_callbacks(ACCOUNT).body is None


@pytest.mark.parametrize(
    ("account", "url", "message"),
    [
        (ACCOUNT, "http://10.120.102.183:50559/x", "is not https"),
        ("not_an_account", URL, "Invalid account name format"),
    ],
)
def test_bad_requests_raise_with_code_and_message(client, account, url, message):
    """A bad request raises the SDK's own exception, with the provider's code and message in it."""
    from verizon.exceptions.fota_v2_result_exception import FotaV2ResultException
    from verizon.models.fota_v2_callback_registration_request import FotaV2CallbackRegistrationRequest

    with pytest.raises(FotaV2ResultException) as refused:
        client.software_management_callbacks_v2.register_callback(account, FotaV2CallbackRegistrationRequest(url=url))
    assert refused.value.response_code == 400
    assert refused.value.error_code == "INVALID_PARAMETER"
    assert message in refused.value.error_message


def test_empty_body(client):
    """An empty registration raises with the documented message."""
    from verizon.exceptions.fota_v2_result_exception import FotaV2ResultException

    with pytest.raises(FotaV2ResultException) as refused:
        client.software_management_callbacks_v2.register_callback(ACCOUNT, "")
    assert refused.value.error_message == "Input binding error"


def test_a_campaign_and_its_reports(client):
    """A campaign is scheduled, followed to its end, and read in every report that the sandbox has."""
    from verizon.models.campaign_software_upgrade import CampaignSoftwareUpgrade
    from verizon.models.v2_time_window import V2TimeWindow

    body = CampaignSoftwareUpgrade(
        campaign_name="contract",
        software_name="FOTA_Verizon_Model-A_01To02_HF",
        software_from="FOTA_Verizon_Model-A_00To01_HF",
        software_to="FOTA_Verizon_Model-A_01To02_HF",
        distribution_type="HTTP",
        start_date=date(2026, 6, 1),
        end_date=date(2026, 6, 8),
        download_time_window_list=[V2TimeWindow(start_time=20, end_time=21)],
        device_list=DEVICES,
    )
    campaign = client.campaigns_v2.schedule_campaign_firmware_upgrade(ACCOUNT, body).body
    assert (campaign.account_name, campaign.status) == (ACCOUNT, "CampaignRequestPending")
    assert campaign.start_date == date(2026, 6, 1)
    reports = client.software_management_reports_v2
    for _ in range(1000):
        if client.campaigns_v2.get_campaign_information(ACCOUNT, campaign.id).body.status == "CampaignEnded":
            break
    else:
        pytest.fail("the campaign did not end")
    page = reports.get_campaign_device_status(ACCOUNT, campaign.id, "0").body
    assert (page.has_more_data, [device.device_id for device in page.device_list]) == (False, DEVICES)
    history = reports.get_device_firmware_upgrade_history(ACCOUNT, DEVICES[0]).body
    assert (history[-1].id, history[-1].status) == (campaign.id, page.device_list[0].status)
    ended = reports.get_campaign_history_by_status(ACCOUNT, "CampaignEnded").body
    assert campaign.id in [entry.id for entry in ended.campaign_list]
    assert len(reports.list_available_software(ACCOUNT).body) == 2
    assert len(reports.list_account_devices(ACCOUNT).body.device_list) > 2


def test_dates_and_stopping(client):
    """A campaign's dates are changed and it is stopped, and a second stop raises."""
    from verizon.exceptions.fota_v2_result_exception import FotaV2ResultException
    from verizon.models.campaign_software_upgrade import CampaignSoftwareUpgrade
    from verizon.models.v2_change_campaign_dates_request import V2ChangeCampaignDatesRequest

    body = CampaignSoftwareUpgrade("s", "1", "2", "HTTP", date(2026, 6, 1), date(2026, 6, 8), ["990013900000017"])
    campaigns = client.campaigns_v2
    campaign_id = campaigns.schedule_campaign_firmware_upgrade(ACCOUNT, body).body.id
    dates = V2ChangeCampaignDatesRequest(start_date=date(2026, 7, 1), end_date=date(2026, 7, 8))
    assert campaigns.update_campaign_dates(ACCOUNT, campaign_id, dates).body.end_date == date(2026, 7, 8)
    assert campaigns.cancel_campaign(ACCOUNT, campaign_id).body.success is True
    with pytest.raises(FotaV2ResultException) as refused:
        campaigns.cancel_campaign(ACCOUNT, campaign_id)
    assert refused.value.error_code == "INVALID_PARAMETER"
