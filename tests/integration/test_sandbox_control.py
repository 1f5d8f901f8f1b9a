"""The sandbox's control calls, its manual clock, and what goes wrong with its API on purpose."""

import asyncio
import hashlib
import sqlite3
import threading
from types import SimpleNamespace

import httpx2
import pytest

from upcall.errors import SettingsError, StartError
from upcall.sandbox import Faults, ManualClock, Sandbox, messages
from upcall.sandbox.faults import STOLEN_URL
from upcall.sandbox.fleet import imei, new_versions
from upcall.thingspace import parse_callback

ACCOUNT = "0000123456-00001"
CALLBACKS = f"/api/fota/v2/callbacks/{ACCOUNT}"
CAMPAIGNS = f"/api/fota/v2/campaigns/{ACCOUNT}"
REPORTS = f"/api/fota/v2/reports/{ACCOUNT}"
URL, OTHER_URL = "https://one.example:50559/callbacks/a", "https://two.example:50559/callbacks/b"
BASIC = httpx2.BasicAuth("sandbox", "sandbox")
START = 1_800_000_000.0


class Poster:
    """Takes every callback and acknowledges it."""

    def __init__(self):
        self.sent = []

    async def post(self, url, body, headers, **_):
        self.sent.append(SimpleNamespace(url=url, event=parse_callback(body), headers=dict(headers)))
        return SimpleNamespace(status=200)


class World:
    """A sandbox with a manual clock, and a client of it that can log in."""

    def __init__(self, peer="127.0.0.1", **options):
        self.clock, self.poster, self.lines = ManualClock(START), Poster(), []
        options = {"clock": self.clock, "poster": self.poster, "seed": 1} | options
        self.sandbox = Sandbox(log=self.lines.append, **options)
        transport = httpx2.ASGITransport(self.sandbox, client=(peer, 1))
        self.client = httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1")
        self.headers = {}

    async def log_in(self):
        form = {"grant_type": "client_credentials"}
        token = (await self.client.post("/api/ts/v1/oauth2/token", auth=BASIC, data=form)).json()["access_token"]
        bearer = {"Authorization": f"Bearer {token}"}
        body = {"username": "sandbox", "password": "sandbox"}
        session = (await self.client.post("/api/m2m/v1/session/login", headers=bearer, json=body)).json()
        self.headers = bearer | {"VZ-M2M-Token": session["sessionToken"]}

    async def call(self, method, path, **options):
        return await self.client.request(method, path, headers=self.headers, **options)

    async def control(self, method, path, **options):
        answer = await self.client.request(method, f"/_sandbox{path}", **options)
        return answer.status_code, answer.json()

    async def set_faults(self, **rates):
        assert (await self.control("PUT", "/faults", json={"all": rates}))[0] == 200

    async def schedule(self, devices=3, dates=("2027-01-15", "2027-01-20"), **sandbox):
        body = {
            "softwareName": "FOTA_01To02",
            "softwareFrom": "01",
            "softwareTo": "02",
            "distributionType": "HTTP",
            "startDate": dates[0],
            "endDate": dates[1],
            "deviceList": [imei(number) for number in range(devices)],
        }
        answer = await self.call("POST", CAMPAIGNS, json=body | ({"_sandbox": sandbox} if sandbox else {}))
        return answer.json()["id"]

    async def devices(self, campaign_id):
        page = (await self.call("GET", f"{REPORTS}/campaigns/{campaign_id}/devices")).json()
        return {device["deviceId"]: device["status"] for device in page["deviceList"]}


@pytest.fixture
async def world():
    made = World()
    async with made.client:
        await made.log_in()
        yield made


# --- The clock -------------------------------------------------------------------------------------------------------


async def test_the_clock_is_moved_by_a_call(world):
    """A manual clock moves so far as it is told, and says what is due next."""
    status, before = await world.control("GET", "/clock")
    assert (status, before) == (
        200,
        {"mode": "manual", "now": START, "time": "2027-01-15T08:00:00.000+00:00", "next_due": None},
    )
    await world.schedule(rejected=0)
    assert (await world.control("GET", "/clock"))[1]["next_due"] == START
    _, moved = await world.control("POST", "/clock", json={"to_next": True})
    assert (moved["now"], moved["next_due"]) == (START, START + 36.0)
    _, moved = await world.control("POST", "/clock", json={"advance_seconds": 3600})
    assert (moved["now"], moved["next_due"]) == (START + 3600, None)
    assert (await world.control("POST", "/clock", json={"to_next": True}))[1]["now"] == START + 3600


async def test_nothing_happens_before_the_clock_moves(world):
    """Under a manual clock even what is due at once waits for the clock to be moved, by nothing."""
    await world.call("POST", CALLBACKS, json={"url": URL})
    await world.schedule(rejected=0)
    async with world.sandbox:
        await asyncio.sleep(0)
        assert world.poster.sent == []
        await world.control("POST", "/clock", json={"advance_seconds": 0})
        assert [sent.event.kind for sent in world.poster.sent] == ["upgradeScheduled"]


async def test_tokens_and_sessions_obey_the_clock(world):
    """Twenty idle minutes end a session and an hour a token, without anybody waiting."""
    await world.control("POST", "/clock", json={"advance_seconds": 1200})
    assert "SessionToken.Expired" in (await world.call("GET", CALLBACKS)).text
    await world.control("POST", "/clock", json={"advance_seconds": 2400})
    assert "900901" in (await world.call("GET", CALLBACKS)).text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "either advance_seconds or to_next"),
        ({"advance_seconds": 1, "to_next": True}, "either advance_seconds or to_next"),
        ({"advance_seconds": -1}, r"$.advance_seconds"),
        ({"advance_seconds": 1e9}, r"$.advance_seconds"),
        ({"forward": 1}, "forward"),
    ],
)
async def test_wrong_moves_of_the_clock(world, body, words):
    """A move that cannot be is refused, with what is wrong, and the clock stands."""
    status, answer = await world.control("POST", "/clock", json=body)
    assert (status, answer["errorCode"]) == (400, "INVALID_PARAMETER")
    assert words in answer["errorMessage"]
    assert world.clock.now() == START


async def test_a_real_clock_is_not_moved():
    """A clock that runs by itself says how to get one that does not."""
    world = World(clock=None)
    status, answer = await world.control("POST", "/clock", json={"to_next": True})
    assert (status, answer["errorCode"]) == (409, "CLOCK_RUNS")
    assert "--clock manual" in answer["errorMessage"]
    assert (await world.control("GET", "/clock"))[1]["mode"] == "real"


# --- Control ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8800"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "[::ffff:10.0.0.1]:80"},
        {"Host": "["},
    ],
)
async def test_no_web_page_controls_it(world, headers):
    """A page in a browser on this machine, under a name or an origin of its own, is refused like a stranger."""
    answer = await world.client.post("/_sandbox/reset", headers=headers)
    assert (answer.status_code, answer.json()["fault"]["code"]) == (403, "403")
    assert (await world.call("GET", CALLBACKS)).status_code == 200


@pytest.mark.parametrize("host", ["localhost:8800", "127.0.0.1", "[::1]:80", "sandbox.localhost", "LOCALHOST"])
async def test_names_of_this_machine(world, host):
    """Every usual name of this machine is taken, and an origin of this machine too."""
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert (await world.client.get("/_sandbox/", headers=headers)).status_code == 200


async def test_reset_forgets_everything(tmp_path):
    """After a reset nothing is known of before, on disk neither, and the same seed does the same again."""
    world = World(state=tmp_path / "sandbox-state", faults=Faults({"duplicate": 0.5}))

    async def campaign():
        await world.log_in()
        await world.call("POST", CALLBACKS, json={"url": URL})
        campaign_id = await world.schedule(20, hours=1.0)
        await world.sandbox.advance(600)
        told = [[(device.device_id, device.status) for device in sent.event.devices] for sent in world.poster.sent]
        return campaign_id, told

    first = await campaign()
    assert await world.control("POST", "/reset") == (200, {"success": True})
    assert world.sandbox.agenda.next_due() is None
    world.poster.sent.clear()
    assert (await world.call("GET", CALLBACKS)).status_code == 401
    assert (await world.control("GET", "/deliveries"))[1] == []
    assert (await world.control("GET", f"/truth/{first[0]}"))[0] == 404
    assert (await world.control("GET", "/faults"))[1]["all"] == {"duplicate": 0.5}
    again = await campaign()
    # Not the identifier: a listener would take the callbacks for those that it has.
    assert (again[0] != first[0], again[1] == first[1]) == (True, True)
    await world.control("POST", "/reset")
    await world.sandbox.store.close()
    with pytest.raises(StartError, match="kept by a manual clock"):
        Sandbox(state=tmp_path / "sandbox-state")
    reopened = Sandbox(state=tmp_path / "sandbox-state", clock=ManualClock(START))
    assert (reopened.options.seed, reopened.clock.now()) == (1, START + 1200)
    assert (reopened.access.listener(ACCOUNT), len(reopened.campaigns), len(reopened.ledger)) == (None, 0, 0)
    await reopened.store.close()


async def test_faults_are_set_and_cleared_by_calls(world):
    """Faults are shown, replaced as a whole, and cleared; what cannot be is refused with its place."""
    given = {"all": {"drop": 1.0}, "accounts": {"a": {"html": 0.5}}, "script": [{"faults": {"reset": 0.1}}]}
    status, shown = await world.control("PUT", "/faults", json=given)
    assert (status, shown["all"], shown["accounts"]) == (200, given["all"], given["accounts"])
    assert (await world.control("GET", "/faults"))[1] == shown
    assert (await world.control("PUT", "/faults", json=shown))[1] == shown
    status, refused = await world.control("PUT", "/faults", json={"all": {"eclipse": 1}})
    assert (status, refused["errorCode"]) == (400, "INVALID_PARAMETER")
    assert "stale_listener" in refused["errorMessage"]
    assert (await world.control("GET", "/faults"))[1] == shown
    assert (await world.control("DELETE", "/faults"))[1] == {"all": {}, "accounts": {}, "script": []}
    assert (await world.control("GET", "/"))[1]["faults"] == {"all": {}, "accounts": {}, "script": []}


async def test_deliveries_by_state(world):
    """The ledger can be asked for the callbacks in one state."""
    await world.control("POST", "/announce/other")
    await world.call("POST", CALLBACKS, json={"url": URL})
    await world.control("POST", f"/announce/{ACCOUNT}")
    await world.sandbox.advance(0)
    assert [entry["account"] for entry in (await world.control("GET", "/deliveries?state=lost"))[1]] == ["other"]
    assert [entry["account"] for entry in (await world.control("GET", "/deliveries?state=acknowledged"))[1]] == [
        ACCOUNT
    ]
    assert (await world.control("GET", "/deliveries?state=pending"))[1] == []


# --- Devices and dates of a campaign ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        lambda kind, devices: {"Type": kind, "deviceList": devices},
        lambda kind, devices: {"type": kind, "deviceList": devices},
        lambda kind, devices: {"addOrRemoveDevice": [{"type": kind, "deviceList": devices}]},
    ],
)
async def test_devices_are_added_and_removed_before_the_start(world, form):
    """Both documented forms add and remove devices of a queued campaign; the added ones are told of."""
    await world.call("POST", CALLBACKS, json={"url": URL})
    campaign_id = await world.schedule(3, hours=2.0, rejected=0)
    await world.sandbox.advance(0)
    path = f"{CAMPAIGNS}/{campaign_id}"
    added = (await world.call("PUT", path, json=form("append", [imei(8), imei(9)]))).json()
    assert {"accountName": ACCOUNT, "campaignId": campaign_id}.items() < added.items()
    assert len(added["requestId"]) == 36
    assert (await world.call("PUT", path, json=form("remove", [imei(0), "unknown"]))).status_code == 200
    await world.sandbox.advance(0)
    assert set(await world.devices(campaign_id)) == {imei(1), imei(2), imei(8), imei(9)}
    told = [device.device_id for sent in world.poster.sent for device in sent.event.devices]
    assert told == [imei(0), imei(1), imei(2), imei(8), imei(9)]
    await world.sandbox.advance(7200)
    await world.log_in()
    states = await world.devices(campaign_id)
    assert set(states) == {imei(1), imei(2), imei(8), imei(9)}
    assert set(states.values()) <= {"UpgradeSuccess", "UpgradeFailed", "DeviceRejected"}
    told = {device.device_id: device.status for sent in world.poster.sent for device in sent.event.devices}
    assert {device: told[device] for device in states} == states


async def test_devices_stay_after_the_start(world):
    """A campaign that has started takes no other devices."""
    campaign_id = await world.schedule(3, hours=2.0, rejected=0)
    await world.sandbox.advance(600)
    refused = await world.call("PUT", f"{CAMPAIGNS}/{campaign_id}", json={"Type": "append", "deviceList": [imei(9)]})
    assert (refused.status_code, refused.json()["errorMessage"]) == (400, "The campaign is CampaignScheduled")
    assert len(await world.devices(campaign_id)) == 3


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"Type": "replace", "deviceList": ["1"]}, "append or remove"),
        ({"deviceList": ["1"]}, "append or remove"),
        ({"Type": "append", "deviceList": []}, "Device list is empty"),
        ({"Type": "append"}, "Device list is empty"),
        ({"addOrRemoveDevice": ["append"]}, "Input binding error"),
        ({"addOrRemoveDevice": []}, "append or remove"),
    ],
)
async def test_unsound_changes_of_devices(world, body, words):
    """A change of devices that cannot be is refused whole."""
    campaign_id = await world.schedule(3, hours=2.0)
    refused = await world.call("PUT", f"{CAMPAIGNS}/{campaign_id}", json=body)
    assert (refused.status_code, refused.json()["errorCode"]) == (400, "INVALID_PARAMETER")
    assert words in refused.json()["errorMessage"]
    assert len(await world.devices(campaign_id)) == 3


async def test_a_campaign_obeys_its_dates(world):
    """Without hours of its own a campaign waits for its start date, and is over after its end date."""
    await world.call("POST", CALLBACKS, json={"url": URL})
    campaign_id = await world.schedule(40, dates=("2027-01-17", "2027-01-18"))
    day = 86_400.0
    await world.sandbox.advance(day)  # the sixteenth, at eight
    await world.log_in()
    assert (await world.call("GET", f"{CAMPAIGNS}/{campaign_id}")).json()["status"] == "CampaignQueued"
    assert set((await world.devices(campaign_id)).values()) <= {"Accepted", "DeviceRejected"}
    await world.sandbox.advance(day * 0.75)  # the seventeenth, at two
    await world.log_in()
    assert (await world.call("GET", f"{CAMPAIGNS}/{campaign_id}")).json()["status"] == "CampaignScheduled"
    assert "UpgradePending" in (await world.devices(campaign_id)).values()
    await world.sandbox.advance(2 * day)
    await world.log_in()
    assert (await world.call("GET", f"{CAMPAIGNS}/{campaign_id}")).json()["status"] == "CampaignEnded"
    states = await world.devices(campaign_id)
    assert (
        {"UpgradeSuccess", "UpgradeFailed"}
        <= set(states.values())
        <= {"UpgradeSuccess", "UpgradeFailed", "DeviceRejected"}
    )
    told = {device.device_id: device.status for sent in world.poster.sent for device in sent.event.devices}
    assert told == states


async def test_other_dates_are_obeyed(world):
    """A campaign that is put off starts with its new date."""
    campaign_id = await world.schedule(5, dates=("2027-01-17", "2027-01-18"))
    dates = {"startDate": "2027-01-19", "endDate": "2027-01-20"}
    assert (await world.call("PUT", f"{CAMPAIGNS}/{campaign_id}/dates", json=dates)).status_code == 200
    await world.sandbox.advance(3 * 86_400)
    assert world.sandbox.campaigns.get(campaign_id).status == "CampaignQueued"
    await world.sandbox.advance(16 * 3600 + 60)  # the nineteenth, a minute after midnight
    assert world.sandbox.campaigns.get(campaign_id).status == "CampaignScheduled"


# --- What goes wrong with the API ------------------------------------------------------------------------------------


async def test_unauthorized_kills_the_token(world):
    """The token is dead from that call on, and a new one is another."""
    await world.set_faults(unauthorized=1)
    assert (await world.call("GET", CALLBACKS)).json()["fault"]["code"] == "900901"
    await world.set_faults()
    assert (await world.call("GET", CALLBACKS)).status_code == 401
    old = world.headers["Authorization"]
    await world.log_in()
    assert world.headers["Authorization"] != old
    assert (await world.call("GET", CALLBACKS)).status_code == 200


async def test_session_dead_after_96_seconds(world):
    """A session of a login under that fault dies 96 seconds later, however it is used; others live."""
    before = dict(world.headers)
    await world.set_faults(session_dead=1)
    await world.log_in()
    for _ in range(9):
        await world.sandbox.advance(10)
        assert (await world.call("GET", CALLBACKS)).status_code == 200
    await world.sandbox.advance(5.9)
    assert (await world.call("GET", CALLBACKS)).status_code == 200
    await world.sandbox.advance(0.1)
    assert "SessionToken.Expired" in (await world.call("GET", CALLBACKS)).text
    assert (await world.client.get(CALLBACKS, headers=before)).status_code == 200


async def test_rate_limited(world):
    """429 comes in the gateway's shape, before anything is done, and without a time to wait."""
    await world.set_faults(rate_limited=1)
    answer = await world.call("POST", CALLBACKS, json={"url": URL})
    assert (answer.status_code, answer.json()["fault"]["code"]) == (429, "900802")
    assert "retry-after" not in answer.headers
    await world.set_faults()
    assert (await world.call("GET", CALLBACKS)).content == b""


async def test_server_errors_and_pages(world):
    """A failing back end and a proxy's page come in all their forms, and nothing is done meanwhile."""
    await world.set_faults(server_error=1)
    codes = {(await world.call("POST", CALLBACKS, json={"url": URL})).status_code for _ in range(40)}
    assert codes == {500, 502, 503}
    await world.set_faults(html=1)
    pages = [await world.call("POST", CALLBACKS, json={"url": URL}) for _ in range(40)]
    assert {page.status_code for page in pages} == {200, 503}
    assert all(
        page.headers["content-type"].startswith("text/html") and page.text.startswith("<html>") for page in pages
    )
    await world.set_faults()
    assert (await world.call("GET", CALLBACKS)).content == b""


async def test_reset_may_have_been_carried_out(world):
    """A connection ends without an answer, and whether the call was carried out is not known from that."""
    await world.set_faults(reset=1)
    done = []
    for number in range(40):
        url = f"{URL}/{number}"
        with pytest.raises(ConnectionResetError):
            await world.call("POST", CALLBACKS, json={"url": url})
        done.append(world.sandbox.access.listener(ACCOUNT) == url)
    assert 5 < sum(done) < 35
    assert any("connection ended without an answer" in line for line in world.lines)


async def test_faults_of_one_account(world):
    """A fault of one account leaves the others alone."""
    await world.control("PUT", "/faults", json={"accounts": {"other": {"html": 1}}})
    assert (await world.call("GET", CALLBACKS)).status_code == 200
    assert (await world.call("GET", "/api/fota/v2/callbacks/other")).headers["content-type"].startswith("text/html")


async def test_control_is_spared(world):
    """What goes wrong with the API goes wrong with no control call."""
    await world.set_faults(rate_limited=1, server_error=1, html=1, reset=1, unauthorized=1)
    assert (await world.control("GET", "/"))[0] == 200
    assert (await world.client.get("/openapi.json")).status_code == 200


async def test_a_script_is_an_outage(world):
    """A script's time is virtual time since the faults were set."""
    script = [{"after_seconds": 60, "for_seconds": 30, "faults": {"server_error": 1}}]
    await world.control("PUT", "/faults", json={"script": script})
    codes = []
    for seconds in (0, 59, 1, 29, 1):
        await world.sandbox.advance(seconds)
        codes.append((await world.call("GET", CALLBACKS)).status_code // 100)
    assert codes == [2, 2, 5, 5, 2]


async def test_a_stolen_listener(world):
    """Another system takes the slot some minutes after a registration; it is to be seen, and can be taken back."""
    await world.set_faults(stolen=1)
    await world.call("POST", CALLBACKS, json={"url": URL})
    await world.sandbox.advance(59)
    assert (await world.call("GET", CALLBACKS)).json() == {"url": URL}
    await world.sandbox.advance(541)
    assert (await world.call("GET", CALLBACKS)).json() == {"url": STOLEN_URL}
    assert any(f"listener of {ACCOUNT} stolen" in line for line in world.lines)
    await world.control("POST", f"/announce/{ACCOUNT}")
    await world.sandbox.advance(0)
    (message,) = (await world.control("GET", "/deliveries"))[1]
    assert (message["state"], message["attempts"][0]["faults"]) == ("stolen", ["stolen"])
    assert world.poster.sent == []
    await world.set_faults()
    await world.call("POST", CALLBACKS, json={"url": URL})
    await world.sandbox.advance(3600)
    await world.log_in()
    assert (await world.call("GET", CALLBACKS)).json() == {"url": URL}


async def test_a_new_registration_is_stolen_by_itself(world):
    """A registration that is replaced in time is not displaced by the theft that was planned for it."""
    await world.set_faults(stolen=1)
    await world.call("POST", CALLBACKS, json={"url": URL})
    await world.set_faults()
    await world.call("PUT", CALLBACKS, json={"url": OTHER_URL})
    await world.sandbox.advance(600)
    assert (await world.call("GET", CALLBACKS)).json() == {"url": OTHER_URL}


async def test_a_planned_theft_survives_a_kill(tmp_path):
    """A sandbox that was killed before a theft commits it after its restart."""
    clock = ManualClock(START)
    world = World(state=tmp_path / "sandbox-state", clock=clock, faults=Faults({"stolen": 1.0}))
    await world.log_in()
    await world.call("POST", CALLBACKS, json={"url": URL})
    world.sandbox.store._connection.close()
    async with Sandbox(state=tmp_path / "sandbox-state", clock=clock, poster=Poster()) as again:
        assert again.access.listener(ACCOUNT) == URL
        await again.advance(600)
        assert again.access.listener(ACCOUNT) == STOLEN_URL


async def test_a_stale_listener(world):
    """For ten minutes after a change callbacks go to the old URL and the new one, and then to the new one only."""
    await world.set_faults(stale_listener=1)
    await world.call("POST", CALLBACKS, json={"url": URL})
    await world.call("PUT", CALLBACKS, json={"url": OTHER_URL})
    for _ in range(60):
        await world.control("POST", f"/announce/{ACCOUNT}")
        await world.sandbox.advance(10)
    first = [sent.url for sent in world.poster.sent]
    assert 10 < first.count(URL) < 50
    assert first.count(URL) + first.count(OTHER_URL) == 60
    world.poster.sent.clear()
    for _ in range(20):
        await world.control("POST", f"/announce/{ACCOUNT}")
        await world.sandbox.advance(10)
    assert {sent.url for sent in world.poster.sent} == {OTHER_URL}


async def test_a_removed_listener_is_stale_too(world):
    """After a removal some callbacks still go to the listener that was removed; the others are lost."""
    await world.set_faults(stale_listener=1)
    await world.call("POST", CALLBACKS, json={"url": URL})
    await world.call("DELETE", CALLBACKS)
    for _ in range(40):
        await world.control("POST", f"/announce/{ACCOUNT}")
    await world.sandbox.advance(0)
    states = [entry["state"] for entry in (await world.control("GET", "/deliveries"))[1]]
    assert set(states) == {"acknowledged", "lost"}
    assert states.count("acknowledged") == len(world.poster.sent) > 5


async def test_wrong_authentication_is_xml(world):
    """Credentials of another kind than a bearer token are refused in XML, whose inner code is not the status."""
    answer = await world.client.get(CALLBACKS, auth=BASIC)
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/xml; charset=utf-8")
    assert "<am:code>404</am:code>" in answer.text


# --- Kills, restarts and resets --------------------------------------------------------------------------------------


async def test_a_reset_with_requests_in_the_air(tmp_path):
    """What was in the air when everything was forgotten harms nothing that comes after, in memory and on disk."""
    hanging = asyncio.Event()

    class Hanging(Poster):
        async def post(self, url, body, headers, **options):
            await hanging.wait()
            return await super().post(url, body, headers, **options)

    world = World(poster=Hanging(), clock=None, state=tmp_path / "sandbox-state")
    async with world.sandbox:
        await world.log_in()
        world.sandbox.register(ACCOUNT, URL)
        for _ in range(20):
            await world.control("POST", f"/announce/{ACCOUNT}")
        late = asyncio.ensure_future(world.control("POST", f"/announce/{ACCOUNT}"))
        await asyncio.gather(world.control("POST", "/reset"), late)
        hanging.set()
        world.sandbox.register(ACCOUNT, URL)
        for _ in range(20):
            await world.control("POST", f"/announce/{ACCOUNT}")
        async with asyncio.timeout(80):
            while (await world.control("GET", "/deliveries?state=pending"))[1]:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0)
        ends = (await world.control("GET", "/deliveries"))[1]
        assert {len(message["attempts"]) for message in ends if message["state"] == "acknowledged"} == {1}
        assert [message["state"] for message in ends][-20:] == ["acknowledged"] * 20
        assert not [line for line in world.lines if "could not" in line or "broke" in line]
    reopened = Sandbox(state=tmp_path / "sandbox-state", clock=None)
    assert [(message.id, message.state) for message in reopened.ledger] == [
        (message["id"], message["state"]) for message in ends
    ]
    await reopened.store.close()


async def test_a_manual_clock_goes_on_from_where_it_was(tmp_path):
    """After a kill a manual clock is as late as it was, so that nothing that is due has moved."""
    world = World(state=tmp_path / "sandbox-state")
    await world.log_in()
    await world.call("POST", CALLBACKS, json={"url": URL})
    await world.schedule(5, hours=200.0, rejected=0)
    await world.sandbox.advance(100 * 3600)
    due = world.sandbox.agenda.next_due()
    world.sandbox.store._connection.close()
    # However late it is meanwhile: a clock that stands still is not moved by a night.
    for now in (START, START + 1000 * 3600):
        clock = ManualClock(now)
        async with Sandbox(state=tmp_path / "sandbox-state", clock=clock, poster=Poster()) as again:
            assert again.clock.now() == START + 100 * 3600
            assert again.agenda.next_due() == due


async def test_a_manual_clock_is_kept_before_it_moves(tmp_path):
    """A sandbox that is killed before its clock was ever moved has the same time afterwards."""
    first = Sandbox(state=tmp_path / "sandbox-state", clock=ManualClock(START), poster=Poster())
    await first.start()
    first.store._connection.close()
    async with Sandbox(state=tmp_path / "sandbox-state", clock=ManualClock(START + 7200), poster=Poster()) as again:
        assert again.clock.now() == START


async def test_what_was_sent_is_never_later_than_the_kept_clock(tmp_path):
    """In the middle of a move the time on the disk is that of the callback that is just sent."""
    world = World(state=tmp_path / "sandbox-state")
    kept = []

    async def post(url, body, headers, **_):
        kept.append((float(world.sandbox.store.load()["sandbox"]["now"]), world.clock.now()))
        return SimpleNamespace(status=200)

    world.poster.post = post
    await world.log_in()
    await world.call("POST", CALLBACKS, json={"url": URL})
    await world.schedule(5, hours=1.0, rejected=0)
    await world.sandbox.advance(3600)
    assert len({now for _, now in kept}) > 5
    assert [on_disk for on_disk, _ in kept] == [now for _, now in kept]
    await world.sandbox.store.close()


async def all_is_kept(store):
    """Wait until nothing is left to write, with nobody else writing."""
    async with asyncio.timeout(60):
        while not store.is_kept():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)


async def test_what_changes_during_a_write_is_kept_soon(tmp_path, monkeypatch):
    """What is said while the disk is busy does not wait for somebody to say more."""
    world = World(state=tmp_path / "sandbox-state")
    async with world.sandbox as sandbox:
        write, begun, goes_on = sandbox.store._write, threading.Event(), threading.Event()

        def slow(*entries):
            begun.set()
            goes_on.wait(10)
            write(*entries)

        monkeypatch.setattr(sandbox.store, "_write", slow)
        sandbox.keep_access_soon()
        await asyncio.to_thread(begun.wait, 10)
        sandbox.keep_access_soon()
        goes_on.set()
        await all_is_kept(world.sandbox.store)


async def test_a_write_that_failed_is_tried_again_by_itself(tmp_path, monkeypatch):
    """Once there is room, what could not be written is, and one line told of it."""
    monkeypatch.setattr("upcall.sandbox.delivery._BROKEN_OFF_SECONDS", 0.01)
    world = World(state=tmp_path / "sandbox-state")
    async with world.sandbox as sandbox:
        write, failed = sandbox.store._write, threading.Event()

        def full_at_first(*entries):
            if failed.is_set():
                write(*entries)
            else:
                failed.set()
                raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(sandbox.store, "_write", full_at_first)
        sandbox.keep_access_soon()
        await all_is_kept(world.sandbox.store)
    told = [line for line in world.lines if "disk is full" in line]
    assert [line.partition(" ")[2] for line in told] == [
        "what became of callbacks is not kept yet: OperationalError: database or disk is full"
    ]


async def test_a_full_disk_has_one_line_for_all(tmp_path, monkeypatch):
    """However many callbacks wait for one write, its failure is told once."""
    world = World(state=tmp_path / "sandbox-state")
    await world.log_in()
    await world.call("POST", CALLBACKS, json={"url": URL})
    await world.sandbox.start()
    write = world.sandbox.store._write

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    for _ in range(10):
        world.sandbox.deliver(messages.announcement(ACCOUNT, new_versions()))
    monkeypatch.setattr(world.sandbox.store, "_write", full)
    world.sandbox.agenda.run_due()
    await world.sandbox.settle()
    assert len([line for line in world.lines if "callbacks wait" in line]) == 1
    assert world.poster.sent == []
    monkeypatch.setattr(world.sandbox.store, "_write", write)
    await world.sandbox.advance(5)
    assert len(world.poster.sent) == 10
    await world.sandbox.stop()


async def test_a_campaign_after_a_reset_is_another(world):
    """With a clock that stands still too, no campaign has the identifier of one that was forgotten."""
    seen = set()
    for _ in range(3):
        await world.log_in()
        seen.add(await world.schedule(1, hours=1.0))
        await world.control("POST", "/reset")
    assert len(seen) == 3


async def test_beyond_the_calendar(world):
    """A clock that has run past the year 9999 breaks neither its own call nor a line of the log."""
    world.clock.go_on_from(253_402_300_800.0 + 86_400)
    status, shown = await world.control("GET", "/clock")
    assert (status, shown["time"]) == (200, "9999-12-31T23:59:59.000+00:00")
    assert world.lines[-1].startswith("23:59:59 GET /_sandbox/clock 200")


async def test_what_goes_wrong_is_told_apart(world):
    """Refused calls and tries that failed have their lines where nobody asked for those of all others."""
    warned = []
    async with World(warn=warned.append).client as client:
        sandbox = client._transport.app
        await client.get("/_sandbox/clock")
        sandbox.register(ACCOUNT, URL)
        sandbox.deliver(messages.announcement(ACCOUNT, new_versions()))
        await sandbox.advance(0)
        assert warned == []
        await client.get(CALLBACKS)
        sandbox.deregister(ACCOUNT)
        sandbox.deliver(messages.announcement(ACCOUNT, new_versions()))
        await sandbox.advance(0)
    assert [line.partition(" ")[2].split(" in ")[0] for line in warned] == [
        f"GET {CALLBACKS} 401: 900902 Missing Credentials",
        f"callback 2 {ACCOUNT} firmwareList 2 packages lost: no listener is registered",
    ]


async def test_the_summary(world):
    """Callbacks are counted by what became of them, of an account or a campaign if asked."""
    await world.call("POST", CALLBACKS, json={"url": URL})
    campaign_id = await world.schedule(2, hours=1.0, rejected=0)
    await world.control("POST", "/announce/other")
    await world.sandbox.advance(3600)
    none = dict.fromkeys(("pending", "failed", "refused", "dropped", "stolen"), 0)
    of_all = {"callbacks": 7, "tries": 6, "states": none | {"acknowledged": 6, "lost": 1}}
    of_campaign = {"callbacks": 6, "tries": 6, "states": none | {"acknowledged": 6, "lost": 0}}
    assert await world.control("GET", "/summary") == (200, of_all)
    assert await world.control("GET", f"/summary?campaign={campaign_id}") == (200, of_campaign)
    assert (await world.control("GET", "/summary?account=other"))[1]["states"]["lost"] == 1


async def test_where_a_try_went(world):
    """Each try names its URL, without the token."""
    await world.call("POST", CALLBACKS, json={"url": "https://one.example:50559/callbacks/a-long-secret-token"})
    await world.control("POST", f"/announce/{ACCOUNT}")
    await world.sandbox.advance(0)
    ((message,),) = [(await world.control("GET", "/deliveries"))[1]]
    assert message["attempts"][0]["url"] == "https://one.example:50559/callbacks/a-lo***"


async def test_control_calls_that_say_what_is_wrong(world):
    """A state that there is not, and a body that is no object, are refused with what would be right."""
    status, refusal = await world.control("GET", "/deliveries?state=bogus")
    assert (status, refusal["errorMessage"].partition(",")[0]) == (400, "There is no state 'bogus'")
    for method, path, body in (("PUT", "/faults", b"[]"), ("PUT", "/faults", b""), ("POST", "/clock", b"{")):
        status, refusal = await world.control(method, path, content=body)
        assert (status, refusal["errorMessage"]) == (400, "The body is a JSON object, as /openapi.json shows")


async def test_a_token_that_died_stays_dead(tmp_path):
    """A token that a fault killed is not alive again after a restart."""
    world = World(state=tmp_path / "sandbox-state", faults=Faults({"unauthorized": 1.0}))
    async with world.sandbox:
        bearer, _ = world.sandbox.access.issue_token("sandbox", START, world.sandbox.secrets)
        await world.sandbox.keep_access_now()
        world.headers = {"Authorization": f"Bearer {bearer.token}"}
        assert (await world.call("GET", CALLBACKS)).status_code == 401
        await all_is_kept(world.sandbox.store)
        kept = world.sandbox.store.load()["access"]["state"]
    assert bearer.token.encode() not in kept


async def test_a_campaign_keeps_its_speed(tmp_path):
    """A sandbox that goes on at another speed leaves a running campaign at its own."""
    clock = ManualClock(START)
    world = World(state=tmp_path / "sandbox-state", clock=clock, speed=60.0)
    await world.log_in()
    campaign_id = await world.schedule(5, hours=2.0, rejected=0)
    await world.sandbox.advance(10)
    due = world.sandbox.agenda.next_due()
    world.sandbox.store._connection.close()
    async with Sandbox(state=tmp_path / "sandbox-state", clock=clock, speed=3600.0, poster=Poster()) as again:
        assert again.agenda.next_due() == due
        await again.advance(111)
        assert again.campaigns.get(campaign_id).status == "CampaignEnded"


@pytest.mark.parametrize("told", [0, 1, 2, 3])
async def test_a_kill_in_the_middle_of_stopping(tmp_path, told):
    """A large campaign is stopped at once and told of in parts; a kill between two parts loses and doubles none."""
    clock = ManualClock(START)
    world = World(state=tmp_path / "sandbox-state", clock=clock)
    await world.log_in()
    await world.call("POST", CALLBACKS, json={"url": URL})
    campaign_id = await world.schedule(500, hours=2.0, rejected=0)
    await world.sandbox.advance(0)
    assert (await world.call("DELETE", f"{CAMPAIGNS}/{campaign_id}")).json() == {"success": True}
    assert set((await world.devices(campaign_id)).values()) == {"CampaignCancelled"}
    for _ in range(told):
        world.sandbox.agenda.run_due(1)
    await world.sandbox.store.flush()
    world.sandbox.store._connection.close()
    poster = Poster()
    async with Sandbox(state=tmp_path / "sandbox-state", clock=clock, poster=poster) as again:
        await again.advance(0)
        heard = [device.device_id for message in again.ledger for device in _devices_of(message, world, poster)]
        assert again.campaigns.get(campaign_id).status == "CampaignCancelled"
        assert {message.type for message in again.ledger} == {"upgradeScheduled", "upgradeProgress", "upgradeFinished"}
        assert [message.type for message in again.ledger].count("upgradeProgress") == 500
        assert len(set(heard)) == 500


def _devices_of(message, world, poster):
    """Return the devices that a stopped campaign's callback told of, before the kill or after it."""
    if message.type != "upgradeProgress":
        return []
    sent = [one.event for one in world.poster.sent + poster.sent]
    return [device for event in sent for device in event.devices if hash_of(event) == message.sha256]


def hash_of(event):
    return hashlib.sha256(event.raw).hexdigest()


async def test_campaigns_stay_in_their_order(tmp_path):
    """Campaigns of one moment are listed in the order of their making, after a restart too."""
    world = World(state=tmp_path / "sandbox-state")
    await world.log_in()
    ids = [await world.schedule(1, hours=1.0) for _ in range(8)]
    world.sandbox.store._connection.close()
    again = Sandbox(state=tmp_path / "sandbox-state", clock=ManualClock(START))
    assert [progress.campaign.id for progress in again.campaigns.of(ACCOUNT)] == ids
    await again.store.close()


async def test_a_stopped_sandbox_is_not_started_again():
    """One that was stopped says so, and does not look alive."""
    sandbox = Sandbox()
    async with sandbox:
        pass
    with pytest.raises(StartError, match="was stopped"):
        await sandbox.start()


async def test_a_line_says_why_a_call_was_refused(world):
    """The line for a refused call has its code and text, and the fault that it comes from."""
    await world.call("POST", CALLBACKS, json={"url": "ftp://127.0.0.1/"})
    assert " 400: INVALID_PARAMETER Invalid callback url: " in world.lines[-1]
    await world.set_faults(server_error=1)
    await world.call("GET", CALLBACKS)
    assert world.lines[-1].partition(" ")[0] == "08:00:00"
    assert "Runtime Error (fault server_error) in " in world.lines[-1]
    await world.set_faults(html=1)
    await world.call("GET", CALLBACKS)
    assert ": fault html in " in world.lines[-1]


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
async def test_no_time_forward(world, seconds):
    """A clock is not moved by what is no time forward."""
    with pytest.raises(SettingsError, match="cannot move"):
        await world.sandbox.advance(seconds)
    assert world.clock.now() == START
