"""`upcall reconcile` by real processes: a listener that is killed, a sandbox that goes on, and what is read back."""

import json
import re
import urllib.request

import pytest

from upcall import Credentials, ThingSpaceClient
from upcall.sandbox.fleet import imei

ACCOUNT = "0000123456-00001"
CREDENTIALS = Credentials(client_id="sandbox", client_secret="sandbox", username="sandbox", password="sandbox")
OURS = {f"THINGSPACE_{name}": "sandbox" for name in ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD")}
DEVICES = [imei(number) for number in range(60)]
CAMPAIGN = {
    "softwareName": "FOTA_Verizon_Model-A_01To02_HF",
    "softwareFrom": "FOTA_Verizon_Model-A_00To01_HF",
    "softwareTo": "FOTA_Verizon_Model-A_01To02_HF",
    "distributionType": "HTTP",
    "startDate": "2026-01-01",
    "endDate": "2099-01-01",
    "deviceList": DEVICES,
    "_sandbox": {"hours": 1, "failing": 6, "rejected": 3},
}


HANDLERS = """
@app.on_device()
def hear(event, device):
    with (HERE / "heard").open("a") as file:
        file.write(f"{device.device_id} {device.status} {event.origin}\\n")
"""


def advance(sandbox, seconds):
    body = json.dumps({"advance_seconds": seconds}).encode()
    root = sandbox.url.removesuffix("/api")
    with urllib.request.urlopen(f"{root}/_sandbox/clock", data=body, timeout=200) as answer:
        answer.read()


@pytest.fixture
def outage(upcall):
    """A campaign that is over, of which the listener heard the beginning only: the client, its id, the environment."""
    sandbox = upcall.start("sandbox", "--port", "0", "--allow-http", "--clock", "manual", "--seed", "7", "--quiet")
    sandbox.wait_until_ready()
    upcall.handlers(HANDLERS)
    listener = upcall.listen("handlers:app")
    with ThingSpaceClient(
        base_url=sandbox.url, credentials=CREDENTIALS, allow_http=True, state_dir=upcall.directory / "client"
    ) as client:
        client.callbacks.register_callback(ACCOUNT, {"url": listener.url})
        campaign_id = client.campaigns_v2.schedule_campaign_firmware_upgrade(ACCOUNT, CAMPAIGN)["id"]
        advance(sandbox, 600)
        # A handler that is killed at its work does it again, which is not what is counted here.
        upcall.until(lambda: {event["state"] for event in upcall.json("events", "list", "--limit", "0")} == {"done"})
        listener.kill()
        advance(sandbox, 5400)
        yield client, campaign_id, OURS | {"THINGSPACE_BASE_URL": sandbox.url}


def test_what_a_killed_listener_missed_is_read_back(upcall, outage):
    """A dry run keeps nothing; the run, beside a listener that is back, has handlers hear of each device once."""
    client, campaign_id, environment = outage
    page = client.software_management_reports_v2.get_campaign_device_status(ACCOUNT, campaign_id)
    truth = {device["deviceId"]: device["status"] for device in page["deviceList"]}
    words = ("reconcile", "--account", ACCOUNT, "--since", "2d", "--rate", "100", "--store", upcall.store, "--json")
    stored = len(upcall.json("events", "list", "--limit", "0"))

    dry = upcall.run(*words, "--dry-run", **environment)
    assert (dry.returncode, dry.stderr) == (1, "")
    assert len(upcall.json("events", "list", "--limit", "0")) == stored

    upcall.listen("handlers:app")
    done = upcall.run(*words, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    (document,) = map(json.loads, done.stdout.splitlines())
    assert document | {"dry_run": True} == json.loads(dry.stdout) | {"until": document["until"]} | {
        name: document[name] for name in ("since", "not_recoverable")
    }
    assert (document["account"], document["devices"], document["campaigns"]) == (ACCOUNT, 60, 1)
    assert document["differed"] > 30
    (seen,) = upcall.json("campaigns", "show", campaign_id)
    assert {device["device_id"]: device["status"] for device in seen["devices"]} == truth
    assert seen["status"] == "CampaignEnded"
    events = upcall.json("events", "list", "--limit", "0")
    reconciled = [event for event in events if event["origin"] == "reconciled"]
    assert len(reconciled) == document["differed"] + document["campaigns_differed"]
    assert {event["trust"] for event in reconciled} == {"confirmed"}
    listed = upcall.run("events", "list", "--limit", "0", "--store", upcall.store).stdout.splitlines()
    assert sum(line.split()[5] == "reconciled" for line in listed) == len(reconciled)

    upcall.until(lambda: sum("reconciled" in line for line in upcall.read("heard")) == document["differed"])
    heard = [tuple(line.split()[:2]) for line in upcall.read("heard")]
    assert len(heard) == len(set(heard))
    assert truth.items() <= set(heard)

    (again,) = [json.loads(line) for line in upcall.run(*words, **environment).stdout.splitlines()]
    assert (again["differed"], again["campaigns_differed"]) == (0, 0)


def test_what_a_person_sees_shows_no_whole_device(upcall, outage):
    """The table counts, the lines below it name with the last four digits, and nothing is left out in silence."""
    _, campaign_id, environment = outage
    (upcall.directory / "upcall.toml").write_text(f'[[accounts]]\nname = "{ACCOUNT}"\n')
    done = upcall.run("reconcile", "--store", upcall.store, "--rate", "100", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    head, row, *lines = done.stdout.splitlines()
    assert head.split() == ["ACCOUNT", "CAMPAIGNS", "DEVICES", "DIFFERED", "SILENT", "MISSING", "CONTRADICT"]
    assert row.split()[:3] == [ACCOUNT, "1", "60"]
    assert any("Not recoverable: Announcements of new software" in line for line in lines)
    assert any("Not recoverable: The states in between of" in line for line in lines)
    assert not re.search(r"[0-9]{14,}", done.stdout)
    assert campaign_id not in done.stdout  # it is no silent one


def test_errors_have_the_documented_codes(upcall):
    """2 for usage, 3 where there is no store, 4 where the provider does not answer; each says what to do."""
    upcall.listen().kill()
    one = ("--account", ACCOUNT, "--store", upcall.store)
    (upcall.directory / "others.toml").write_text('[[accounts]]\nname = "0000123456-00077"\n')
    for words, code, said in (
        (("--store", upcall.store), 2, "Name one or more with --account"),
        ((*one, "--since", "soon"), 2, "--since is 'soon'"),
        ((*one, "--since", "2099-01-01T00:00:00Z"), 2, "is yet to come"),
        ((*one, "--rate", "0"), 2, "--rate is 0"),
        ((*one, "--config", "others.toml"), 2, f"others.toml does not list the account {ACCOUNT}"),
        (("--account", "a/b c\n", "--store", upcall.store), 2, "account"),
        (("--account", ACCOUNT, "--store", f"sqlite:///{upcall.directory}/none.db"), 3, "none.db"),
    ):
        ended = upcall.run("reconcile", *words)
        assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr
    nobody = OURS | {"THINGSPACE_BASE_URL": "http://127.0.0.1:9/api", "UPCALL_MAX_RETRIES": "0"}
    ended = upcall.run("reconcile", *one, **nobody)
    assert ended.returncode == 4
    assert f"upcall: {ACCOUNT}: " in ended.stderr
    assert "was not read to its end. The same command goes on from there." in ended.stderr
