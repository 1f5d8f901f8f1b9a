"""The sandbox's API over ASGI: what it answers, and every error that is documented."""

import asyncio
import contextlib
import json
from types import SimpleNamespace

import httpx2
import pytest

from upcall.sandbox import Faults, ManualClock, Sandbox
from upcall.sandbox.fleet import imei
from upcall.sandbox.http import MAX_BODY_BYTES
from upcall.thingspace import parse_callback

ACCOUNT = "0000123456-00001"
CALLBACKS = f"/api/fota/v2/callbacks/{ACCOUNT}"
CAMPAIGNS = f"/api/fota/v2/campaigns/{ACCOUNT}"
REPORTS = f"/api/fota/v2/reports/{ACCOUNT}"
URL = "https://10.120.102.183:50559/CallbackListener/FirmwareServiceMessages.asmx"
BASIC = httpx2.BasicAuth("sandbox", "sandbox")
GRANT = {"grant_type": "client_credentials"}


class Poster:
    """Takes every callback and acknowledges it."""

    def __init__(self):
        self.bodies = []

    async def post(self, url, body, headers, **_):
        self.bodies.append(body)
        return SimpleNamespace(status=200)


class World:
    """A sandbox, its clock, and a client that is logged in."""

    def __init__(self, peer="127.0.0.1", **options):
        self.clock = ManualClock()
        self.poster = Poster()
        self.lines = []
        self.sandbox = Sandbox(clock=self.clock, poster=self.poster, seed=1, log=self.lines.append, **options)
        transport = httpx2.ASGITransport(self.sandbox, client=(peer, 1))
        self.client = httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1")
        self.headers = {}

    async def token(self):
        return (await self.client.post("/api/ts/v1/oauth2/token", auth=BASIC, data=GRANT)).json()

    async def log_in(self, password="sandbox"):
        bearer = {"Authorization": f"Bearer {(await self.token())['access_token']}"}
        answer = await self.client.post(
            "/api/m2m/v1/session/login", headers=bearer, json={"username": "sandbox", "password": password}
        )
        if answer.status_code == 200:
            self.headers = bearer | {"VZ-M2M-Token": answer.json()["sessionToken"]}
        return answer

    async def call(self, method, path, **options):
        return await self.client.request(method, path, headers=self.headers | options.pop("headers", {}), **options)

    async def schedule(self, devices=3, **sandbox):
        return await self.call("POST", CAMPAIGNS, json=campaign(devices, **sandbox))

    async def pass_time(self, seconds):
        """Let happen what falls due meanwhile, in order."""
        await self.sandbox.advance(seconds)


def campaign(devices=3, **sandbox):
    body = {
        "campaignName": "June",
        "softwareName": "FOTA_01To02",
        "softwareFrom": "01",
        "softwareTo": "02",
        "distributionType": "HTTP",
        "startDate": "2026-06-01",
        "endDate": "2026-06-08",
        "downloadTimeWindowList": [{"startTime": 3, "endTime": 4}],
        "deviceList": [imei(number) for number in range(devices)],
    }
    return body | ({"_sandbox": sandbox} if sandbox else {})


@pytest.fixture
async def world():
    made = World()
    async with made.client:
        await made.log_in()
        yield made


def error(answer):
    return answer.status_code, answer.json().get("errorCode"), answer.json().get("errorMessage")


async def test_seed_urls_register(world):
    """The documented examples register, replace each other, are listed and removed, in the documented shapes."""
    empty = await world.call("GET", CALLBACKS)
    assert (empty.status_code, empty.content) == (200, b"")
    other = URL.replace("10.120.102.183", "255.255.11.135")
    assert (await world.call("POST", CALLBACKS, json={"url": URL})).json() == {"url": URL}
    assert (await world.call("GET", CALLBACKS)).json() == {"url": URL}
    assert (await world.call("PUT", CALLBACKS, json={"url": other})).json() == {"url": other}
    assert (await world.call("GET", CALLBACKS)).json() == {"url": other}
    assert (await world.call("DELETE", CALLBACKS)).json() == {"success": True}
    assert (await world.call("DELETE", CALLBACKS)).json() == {"success": True}
    assert (await world.call("GET", CALLBACKS)).content == b""


async def test_put_creates(world):
    """PUT with nothing registered registers."""
    assert (await world.call("PUT", CALLBACKS, json={"url": URL})).json() == {"url": URL}


@pytest.mark.parametrize("content_type", ["*/*", "application/json", "text/plain"])
async def test_content_type_does_not_matter(world, content_type):
    """A JSON body is read under the content type that the official SDKs send, and under any other."""
    answer = await world.call(
        "POST", CALLBACKS, content=json.dumps({"url": URL}), headers={"Content-Type": content_type}
    )
    assert answer.json() == {"url": URL}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b"null"])
async def test_bodies_that_cannot_be_read(world, body):
    """An empty or undecodable body is a binding error."""
    assert error(await world.call("POST", CALLBACKS, content=body)) == (400, "INVALID_PARAMETER", "Input binding error")


@pytest.mark.parametrize(
    "url", [None, "", 5, "http://10.0.0.1/x", "http://127.0.0.1/x", "ftp://a/", "https://", "no url", "https://a b/"]
)
async def test_urls_that_are_refused(world, url):
    """A missing, unreadable or non-https URL is an invalid parameter, and nothing is registered."""
    status, code, message = error(await world.call("POST", CALLBACKS, json={"url": url} if url is not None else {}))
    assert (status, code) == (400, "INVALID_PARAMETER")
    assert "url" in message
    assert (await world.call("GET", CALLBACKS)).content == b""


async def test_http_only_where_allowed_and_loopback():
    """With --allow-http a loopback URL may be http, and no other."""
    world = World(allow_http=True)
    await world.log_in()
    local = "http://127.0.0.1:8080/callbacks/t"
    assert (await world.call("POST", CALLBACKS, json={"url": local})).json() == {"url": local}
    assert (await world.call("POST", CALLBACKS, json={"url": "http://10.0.0.1/x"})).status_code == 400


@pytest.mark.parametrize("account", ["a%20b", "a_b", "a%2Fb", "%C3%A9", "a.b", "0000123456-00001%0A"])
async def test_account_names(world, account):
    """An account name with another character than letters, digits and hyphens is refused as documented."""
    for path in (f"/api/fota/v2/callbacks/{account}", f"/api/fota/v2/devices/{account}"):
        answer = await world.call("GET", path)
        assert error(answer) == (400, "INVALID_PARAMETER", "Invalid account name format")


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/api/fota/v2/callbacks", "/api/fota/v9/callbacks/a", "/api/fota/v2/callbacks/a/b"]
)
async def test_unknown_paths(world, path):
    """A path that the gateway does not know is 400 with its code, whoever asks."""
    for headers in ({}, world.headers):
        answer = await world.client.get(path, headers=headers)
        assert (answer.status_code, answer.json()["fault"]["code"]) == (400, "900906")


async def test_unknown_methods(world):
    """A method that a path does not have is answered as an unknown path."""
    assert (await world.call("PATCH", CALLBACKS)).json()["fault"]["code"] == "900906"


async def test_a_base_url_without_api(world):
    """The gateway does not say what is wrong with such a path: the log does."""
    await world.client.get("/fota/v2/callbacks/a")
    assert "(every path of the API begins with /api)" in world.lines[-1]
    await world.client.get("/api/fota/v9/callbacks/a")
    assert "begins with" not in world.lines[-1]


async def test_an_http_url_without_its_option(world):
    """The log says what to start the sandbox with; what the answer says is what the provider might."""
    answer = await world.call("POST", CALLBACKS, json={"url": "http://127.0.0.1:8080/callbacks/t"})
    assert "(--allow-http lets listeners on this machine use http)" in world.lines[-1]
    assert "allow-http" not in answer.text


async def test_control_calls_that_there_are_not(world):
    """A mistyped control call is told apart from one with a wrong method, and neither is the provider's."""
    unknown = await world.client.get("/_sandbox/delivery")
    assert error(unknown) == (404, "NOT_FOUND", "No such control call; /openapi.json has them all")
    wrong = await world.client.delete("/_sandbox/clock")
    assert error(wrong) == (405, "METHOD_NOT_ALLOWED", "This control call takes GET, POST")
    assert wrong.headers["allow"] == "GET, POST"


async def test_bearer_errors(world):
    """A missing bearer is 900902, a wrong and an expired one are 900901 and look alike."""
    missing = await world.client.get(CALLBACKS)
    assert (missing.status_code, missing.json()["fault"]["code"]) == (401, "900902")
    wrong = await world.client.get(CALLBACKS, headers={"Authorization": "Bearer no"})
    world.clock.move_to(world.clock.now() + 3600)
    expired = await world.call("GET", CALLBACKS)
    assert (wrong.status_code, wrong.json()["fault"]["code"]) == (401, "900901")
    assert (expired.status_code, expired.content) == (401, wrong.content)


async def test_session_errors(world):
    """A missing, a malformed, an unknown and an idle session are refused with the provider's codes."""
    bearer = {"Authorization": world.headers["Authorization"]}
    codes = {"": "REQUEST_FAILED.SessionToken.Format", "x": "INPUT_INVALID.SessionToken.Invalid"}
    for token, code in codes.items():
        answer = await world.client.get(CALLBACKS, headers=bearer | {"VZ-M2M-Token": token})
        assert error(answer)[:2] == (401, f"UnifiedWebService.{code}")
    world.clock.move_to(world.clock.now() + 1199)
    assert (await world.call("GET", CALLBACKS)).status_code == 200
    world.clock.move_to(world.clock.now() + 1200)
    assert error(await world.call("GET", CALLBACKS))[:2] == (
        401,
        "UnifiedWebService.REQUEST_FAILED.SessionToken.Expired",
    )


async def test_token_endpoint(world):
    """The same token comes within the hour with its seconds counting down, whatever else the request carries."""
    first = await world.token()
    world.clock.move_to(world.clock.now() + 100)
    answer = await world.client.post(
        "/api/ts/v1/oauth2/token", auth=BASIC, data=GRANT, headers={"VZ-M2M-Token": "anything"}
    )
    again = answer.json()
    assert again["access_token"] == first["access_token"]
    assert first["expires_in"] - again["expires_in"] == 100
    assert again["token_type"] == "Bearer"


async def test_token_errors(world):
    """Missing Basic, a wrong client and a wrong grant are told apart, each in its documented shape."""
    path = "/api/ts/v1/oauth2/token"
    missing = await world.client.post(path, data=GRANT)
    assert (missing.status_code, missing.json()["fault"]["code"]) == (401, "900902")
    for auth in (httpx2.BasicAuth("sandbox", "no"), httpx2.BasicAuth("no", "sandbox"), httpx2.BasicAuth("", "")):
        wrong = await world.client.post(path, auth=auth, data=GRANT)
        assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
        assert wrong.json()["error_description"]
    for header in ("Basic !!!", "Basic None", "Basic /w=="):
        wrong = await world.client.post(path, headers={"Authorization": header}, data=GRANT)
        assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    for data in ({}, {"grant_type": "password"}):
        grant = await world.client.post(path, auth=BASIC, data=data)
        assert (grant.status_code, grant.json()["error"]) == (400, "invalid_request")


async def test_revoke(world):
    """A revoked token comes back in a header without a body, is dead, and the next one is another."""
    old = (await world.token())["access_token"]
    answer = await world.client.post("/api/ts/v1/oauth2/revoke", auth=BASIC, data=GRANT | {"token": old})
    assert (answer.status_code, answer.content, answer.headers["RevokedAccessToken"]) == (200, b"", old)
    assert (await world.call("GET", CALLBACKS)).status_code == 401
    assert (await world.token())["access_token"] != old
    unknown = await world.client.post("/api/ts/v1/oauth2/revoke", auth=BASIC, data=GRANT | {"token": "no"})
    assert (unknown.status_code, "RevokedAccessToken" in unknown.headers) == (200, False)


async def test_lock_out_and_unlock(world):
    """Five refused logins in a row lock the user name until the control call unlocks it."""
    codes = [error(await world.log_in("wrong"))[1] for _ in range(5)]
    assert [code.rsplit(".", 2)[1:] for code in codes] == [["Password", "Invalid"]] * 4 + [["Account", "Locked"]]
    assert error(await world.log_in())[1] == "UnifiedWebService.REQUEST_FAILED.Account.Locked"
    assert (await world.client.post("/_sandbox/unlock/sandbox")).json() == {"unlocked": True}
    assert (await world.log_in()).status_code == 200


async def test_logout(world):
    """A session that was logged out is answered with its token and refused afterwards."""
    answer = await world.call("POST", "/api/m2m/v1/session/logout")
    assert answer.json() == {"sessionToken": world.headers["VZ-M2M-Token"]}
    assert (await world.call("GET", CALLBACKS)).status_code == 401


async def test_campaign_from_start_to_end(world):
    """A campaign goes through the provider's states, and its reports, its callbacks and the truth agree."""
    await world.call("POST", CALLBACKS, json={"url": URL})
    scheduled = (await world.schedule(10, hours=2.0, failing=3, rejected=2)).json()
    assert scheduled["status"] == "CampaignRequestPending"
    assert scheduled["downloadTimeWindowList"] == [{"startTime": 3, "endTime": 4}]
    campaign_id = scheduled["id"]
    await world.pass_time(0)
    assert (await world.call("GET", f"{CAMPAIGNS}/{campaign_id}")).json()["status"] == "CampaignQueued"
    first = parse_callback(world.poster.bodies[0])
    assert (first.kind, first.campaign_id, len(first.devices)) == ("upgradeScheduled", campaign_id, 10)
    await world.pass_time(100)
    assert (await world.call("GET", f"{CAMPAIGNS}/{campaign_id}")).json()["status"] == "CampaignScheduled"
    await world.pass_time(7200)
    await world.log_in()
    assert (await world.call("GET", f"{CAMPAIGNS}/{campaign_id}")).json()["status"] == "CampaignEnded"
    report = (await world.call("GET", f"{REPORTS}/campaigns/{campaign_id}/devices")).json()
    reported = {device["deviceId"]: device["status"] for device in report["deviceList"]}
    assert sorted(reported.values()) == ["DeviceRejected"] * 2 + ["UpgradeFailed"] * 3 + ["UpgradeSuccess"] * 5
    told = {}
    for body in world.poster.bodies:
        told |= {device.device_id: device.status for device in parse_callback(body).devices}
    truth = (await world.client.get(f"/_sandbox/truth/{campaign_id}")).json()
    assert told == reported == {device["device_id"]: device["status"] for device in truth["devices"]}
    assert truth["ended"] is truth["final"] is True
    assert parse_callback(world.poster.bodies[-1]).kind == "upgradeFinished"
    history = (await world.call("GET", f"{REPORTS}/devices/{imei(0)}")).json()
    assert [(entry["id"], entry["status"]) for entry in history] == [(campaign_id, reported[imei(0)])]


async def test_deliveries_are_told(world):
    """The control call lists every callback with its tries, of one account or one campaign if asked."""
    await world.call("POST", CALLBACKS, json={"url": URL})
    campaign_id = (await world.schedule(2, rejected=0)).json()["id"]
    await world.client.post("/_sandbox/announce/other")
    await world.pass_time(3600)
    entries = (await world.client.get("/_sandbox/deliveries", params={"campaign": campaign_id})).json()
    assert len(entries) == len(world.poster.bodies) == 6
    assert {entry["state"] for entry in entries} == {"acknowledged"}
    assert set(entries[0]) >= {
        "id",
        "account",
        "campaign_id",
        "type",
        "sha256",
        "created_at",
        "attempts",
        "acknowledged",
    }
    assert entries[0]["attempts"][0]["status"] == 200
    other = (await world.client.get("/_sandbox/deliveries", params={"account": "other"})).json()
    assert [(entry["type"], entry["state"]) for entry in other] == [("firmwareList", "lost")]
    assert len((await world.client.get("/_sandbox/deliveries")).json()) == 7


async def test_reports_are_paged(world):
    """A report comes a thousand devices at a time; the last one seen asks for the next page."""
    campaign_id = (await world.schedule(2500)).json()["id"]
    path = f"{REPORTS}/campaigns/{campaign_id}/devices"
    seen, last, more = [], "0", True
    while more:
        page = (await world.call("GET", path, params={"lastSeenDeviceId": last})).json()
        assert (page["totalDevice"], page["maxPageSize"]) == (2500, 1000)
        seen += [device["deviceId"] for device in page["deviceList"]]
        last, more = page["lastSeenDeviceId"], page["hasMoreData"]
    assert seen == [imei(number) for number in range(2500)]
    wrong = await world.call("GET", path, params={"lastSeenDeviceId": "5"})
    assert error(wrong) == (400, "INVALID_PARAMETER", "LastSeenDeviceId Not Valid")


async def test_campaign_list(world):
    """The campaign report filters by status, in any spelling of it, and its list is null where there is none."""
    path = f"{REPORTS}/campaigns"
    assert (await world.call("GET", path)).json() == {"hasMoreData": False, "campaignList": None}
    first, second = [(await world.schedule(1)).json()["id"] for _ in range(2)]
    await world.pass_time(0)
    await world.call("DELETE", f"{CAMPAIGNS}/{first}")
    queued = (await world.call("GET", path, params={"campaignStatus": "CampaignRequestQueued"})).json()
    assert [entry["id"] for entry in queued["campaignList"]] == [second]
    everything = (await world.call("GET", path, params={"lastSeenCampaignId": first})).json()
    assert [entry["id"] for entry in everything["campaignList"]] == [second]
    assert (await world.call("GET", path, params={"lastSeenCampaignId": "x"})).status_code == 400


@pytest.mark.parametrize(("seconds", "word"), [(0, "CampaignCancelled"), (1000, "CampaignAborted")])
async def test_stopping_a_campaign(world, seconds, word):
    """Deleting a campaign cancels it before its start and aborts it afterwards; every device is told of once."""
    await world.call("POST", CALLBACKS, json={"url": URL})
    campaign_id = (await world.schedule(10, rejected=0)).json()["id"]
    await world.pass_time(seconds)
    assert (await world.call("DELETE", f"{CAMPAIGNS}/{campaign_id}")).json() == {"success": True}
    await world.pass_time(7200)
    truth = (await world.client.get(f"/_sandbox/truth/{campaign_id}")).json()
    assert (truth["status"], truth["final"]) == (word, True)
    told = {}
    for body in world.poster.bodies:
        told |= {device.device_id: device.status for device in parse_callback(body).devices}
    assert told == {device["device_id"]: device["status"] for device in truth["devices"]}
    await world.log_in()
    assert error(await world.call("DELETE", f"{CAMPAIGNS}/{campaign_id}"))[0] == 400


async def test_changing_dates(world):
    """New dates are kept and shown; unsound ones are refused."""
    campaign_id = (await world.schedule()).json()["id"]
    path = f"{CAMPAIGNS}/{campaign_id}"
    changed = await world.call("PUT", f"{path}/dates", json={"startDate": "2026-07-01", "endDate": "2026-07-02"})
    assert (changed.json()["startDate"], changed.json()["campaignName"]) == ("2026-07-01", "June")
    assert (await world.call("GET", path)).json()["endDate"] == "2026-07-02"
    assert (await world.call("PUT", f"{path}/dates", json={"endDate": "2026-01-01"})).status_code == 400


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deviceList": []}, "Device list is empty"),
        ({"deviceList": None}, "Device list is empty"),
        ({"deviceList": [990013907835573]}, "Device list is empty"),
        ({"startDate": "soon"}, "FotaPostUpgrades: invalid state date"),
        ({"startDate": None}, "FotaPostUpgrades: invalid state date"),
        ({"endDate": "2026-13-01"}, "Invalid endDate"),
        ({"endDate": "2026-05-01"}, "Invalid endDate: it is before startDate"),
        ({"softwareName": ""}, "Invalid softwareName"),
        ({"distributionType": 4}, "Invalid distributionType"),
        ({"installAfterDate": "x"}, "Invalid installAfterDate"),
        ({"downloadTimeWindowList": [{"startTime": "x"}]}, "Input binding error"),
        ({"_sandbox": {"hours": 0}}, "Invalid _sandbox.hours"),
        ({"_sandbox": {"hours": "1"}}, "Invalid _sandbox"),
        ({"_sandbox": {"failing": 3, "rejected": 1}}, "Invalid _sandbox"),
        ({"_sandbox": {"failing": -1}}, "Invalid _sandbox"),
    ],
)
async def test_unsound_campaigns(world, change, message):
    """A campaign that cannot be is refused with the documented code, and documented text where there is one."""
    status, code, text = error(await world.call("POST", CAMPAIGNS, json=campaign() | change))
    assert (status, code) == (400, "INVALID_PARAMETER")
    assert text.startswith(message)
    assert (await world.call("GET", f"{REPORTS}/campaigns")).json()["campaignList"] is None


@pytest.mark.parametrize(
    ("campaign_id", "message"), [("x", "Invalid uuid"), ("6f1c0a3e-0000-4000-8000-000000000000", "Invalid upgradeId")]
)
async def test_unknown_campaigns(world, campaign_id, message):
    """An identifier that is no UUID, and one that no campaign has, are told apart."""
    for method, path in (("GET", f"{CAMPAIGNS}/{campaign_id}"), ("DELETE", f"{CAMPAIGNS}/{campaign_id}")):
        assert error(await world.call(method, path)) == (400, "INVALID_PARAMETER", message)
    assert (await world.client.get(f"/_sandbox/truth/{campaign_id}")).status_code == 404


async def test_campaigns_belong_to_their_account(world):
    """Another account does not see a campaign."""
    campaign_id = (await world.schedule()).json()["id"]
    assert (await world.call("GET", f"/api/fota/v2/campaigns/other/{campaign_id}")).status_code == 400


async def test_device_in_two_campaigns(world):
    """A device that a running campaign has is rejected by the next one."""
    await world.schedule(1, rejected=0)
    second = (await world.schedule(1, rejected=0)).json()["id"]
    report = (await world.call("GET", f"{REPORTS}/campaigns/{second}/devices")).json()
    assert report["deviceList"][0]["status"] == "DeviceRejected"


async def test_devices_and_software(world):
    """An account has devices and software from the start, and devices that its campaigns named."""
    await world.schedule(2)
    answer = (await world.call("GET", f"/api/fota/v2/devices/{ACCOUNT}", params={"lastSeenDeviceId": "0"})).json()
    assert len(answer["deviceList"]) == 27
    assert answer["hasMoreData"] is False
    software = await world.call("GET", f"/api/fota/v2/software/{ACCOUNT}")
    assert len(software.json()) == 2
    none = await world.call("GET", f"/api/fota/v2/software/{ACCOUNT}", params={"distributionType": "OMA"})
    assert none.json() == []


@pytest.mark.parametrize("path", ["/_sandbox/", "/_sandbox", "/api/_sandbox/"])
async def test_banner(world, path):
    """The sandbox says that it is one, without credentials."""
    banner = (await world.client.get(path)).json()
    assert (banner["sandbox"], banner["name"], banner["seed"]) == (True, "upcall sandbox", 1)
    assert {"version", "profile", "speed", "faults"} <= set(banner)


@pytest.mark.parametrize("peer", ["10.0.0.9", "::ffff:10.0.0.1", "testclient"])
async def test_control_is_local(peer):
    """Control calls are answered to callers on this machine only."""
    world = World(peer=peer)
    assert (await world.client.get("/_sandbox/")).status_code == 403
    assert (await world.client.post("/_sandbox/unlock/sandbox")).status_code == 403
    assert (await world.token())["access_token"]


async def test_large_bodies(world):
    """A body over the cap is refused before it is read as a whole."""
    answer = await world.call("POST", CALLBACKS, content=b" " * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 413


async def test_lines_hold_no_secrets(world):
    """Neither tokens nor passwords nor bodies show in the log."""
    await world.call("POST", CALLBACKS, json={"url": "https://10.0.0.1/callbacks/hidden"})
    text = "\n".join(world.lines)
    assert "POST /api/m2m/v1/session/login 200" in text
    for secret in (*world.headers.values(), "hidden", "password"):
        assert secret.removeprefix("Bearer ") not in text


async def test_what_breaks_is_answered(world, monkeypatch):
    """A fault of the sandbox itself is a 500 in the gateway's shape and a line, not a dropped connection."""
    monkeypatch.setattr(world.sandbox.access, "listener", None)
    answer = await world.call("GET", CALLBACKS)
    assert (answer.status_code, "fault" in answer.json()) == (500, True)
    assert any("broke" in line for line in world.lines)


async def test_restart_goes_on(tmp_path):
    """A sandbox that is started on the state of another goes on: tokens, listeners, campaigns and retries."""
    state = tmp_path / "state"
    async with Sandbox(state=state, seed=5, faults=Faults()) as first:
        first.access.register(ACCOUNT, URL)
        await first.keep_access_now()
        bearer, _ = first.access.issue_token("sandbox", first.clock.now(), first.secrets)
        first.keep_access()
    async with Sandbox(state=state) as second:
        assert second.options.seed == 5
        assert second.access.listener(ACCOUNT) == URL
        assert second.access.is_bearer(bearer.token, second.clock.now())


async def test_campaign_goes_on_after_a_restart(tmp_path):
    """A campaign that was interrupted sends each callback that it still owes, once, with the same bytes."""
    state = tmp_path / "state"
    whole = await _run_interrupted(tmp_path / "other", pauses=0)
    parts = await _run_interrupted(state, pauses=3)
    assert len(whole) == len(set(whole))
    assert sorted(whole) == sorted(parts)


async def _run_interrupted(state, pauses):
    clock, poster = ManualClock(), Poster()
    for number in range(pauses + 1):
        world = World()
        sandbox = Sandbox(state=state, seed=3, clock=clock, poster=poster)
        world.sandbox, world.clock = sandbox, clock
        world.client = httpx2.AsyncClient(transport=httpx2.ASGITransport(sandbox), base_url="http://127.0.0.1")
        await world.log_in()
        if number == 0:
            await world.call("POST", CALLBACKS, json={"url": URL})
            await world.schedule(20, hours=1.0)
        else:
            sandbox._engine.resume()
            sandbox.campaigns.resume()
        await world.pass_time(900 if number < pauses else 9000)
        # As a kill leaves it: only what was flushed is there.
        await sandbox.store.flush()
        sandbox.store._connection.close()
    return poster.bodies


async def test_lifespan():
    """A server's lifespan starts and stops the sandbox."""
    sandbox = Sandbox()
    messages = asyncio.Queue()
    sent = []

    async def send(message):
        sent.append(message["type"])
        if message["type"] == "lifespan.startup.complete":
            assert sandbox._running is not None
            await messages.put({"type": "lifespan.shutdown"})

    await messages.put({"type": "lifespan.startup"})
    await sandbox({"type": "lifespan"}, messages.get, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert sandbox._running is None


async def test_a_caller_that_goes_away():
    """A caller that hangs up in the middle of its request gets no answer and breaks nothing."""
    sandbox, sent = Sandbox(), []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": CALLBACKS, "headers": [], "client": None}
    with contextlib.suppress(asyncio.CancelledError):
        await sandbox(scope, receive, send)
    assert sent == []
