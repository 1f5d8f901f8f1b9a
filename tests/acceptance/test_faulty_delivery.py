"""Campaigns through every fault of the delivery, by real processes: the listener ends with the sandbox's truth."""

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from upcall import Credentials, ThingSpaceClient
from upcall.cli.simulate import run_campaign as simulate_campaign

ACCOUNT = "0000123456-00001"
CREDENTIALS = Credentials(client_id="sandbox", client_secret="sandbox", username="sandbox", password="sandbox")
FAULTS = (
    "delay=0.1,duplicate=0.1,reorder=0.1,refuse_once=0.05,cut_body=0.02,slow_body=0.002,forged_forward=0.1,"
    "stale_listener=0.5"
)
MET = {"refuse_once", "cut_body", "slow_body", "forged_forward", "stale_listener"}


def control(sandbox, path):
    with urllib.request.urlopen(sandbox.url.removesuffix("/api") + path, timeout=200) as answer:
        return json.load(answer)


def run_campaign(upcall, devices, faults):
    """Return the sandbox's truth and its messages, once nothing more is sent."""
    listener = upcall.listen()
    options = ("--port", "0", "--allow-http", "--speed", "600", "--seed", "7", "--quiet", "--faults", faults)
    sandbox = upcall.start("sandbox", *options).wait_until_ready()
    with (
        ThingSpaceClient(
            base_url=sandbox.url, credentials=CREDENTIALS, allow_http=True, state_dir=upcall.directory / "client"
        ) as client,
        ThreadPoolExecutor() as pool,
    ):
        client.callbacks.register_callback(ACCOUNT, {"url": f"{listener.url}?old"})
        running = pool.submit(simulate_campaign, client, ACCOUNT, devices=devices, seed=3)
        # The listener changes its URL in the middle: what still goes to the old one arrives too.
        upcall.until(lambda: len(control(sandbox, "/_sandbox/deliveries")) > devices / 10)
        client.callbacks.register_callback(ACCOUNT, {"url": listener.url})
        truth = running.result()
    upcall.until(lambda: all(message["next_at"] is None for message in control(sandbox, "/_sandbox/deliveries")), 100)
    return truth, control(sandbox, "/_sandbox/deliveries")


def seen_by(upcall, truth):
    (seen,) = upcall.json("campaigns", "show", truth["campaign_id"])
    return seen["status"], {device["device_id"]: device["status"] for device in seen["devices"]}


@pytest.mark.timeout(600)
def test_ten_thousand_devices_end_with_the_truth(upcall):
    """Late, doubled, out of order, cut, slow, forged or sent to an old URL: each device's state is right."""
    truth, messages = run_campaign(upcall, 10_000, FAULTS)
    states = {device["device_id"]: device["status"] for device in truth["devices"]}
    assert len(states) == 10_000
    assert seen_by(upcall, truth) == (truth["status"], states)
    assert {message["state"] for message in messages} == {"acknowledged"}
    tries = [attempt for message in messages for attempt in message["attempts"]]
    assert {name for attempt in tries for name in attempt.get("faults", ())} == MET
    assert any(attempt.get("duplicate") for attempt in tries)
    # Acknowledged means stored: each message once, however often it was sent.
    assert len(upcall.json("events", "list", "--limit", "0")) == len(messages)


@pytest.mark.timeout(600)
def test_what_is_dropped_is_all_that_is_missing(upcall):
    """A callback that is never sent cannot be known of: its device shows the state that was told of before."""
    truth, messages = run_campaign(upcall, 1_000, f"{FAULTS},drop=0.05")
    dropped = [message for message in messages if message["state"] == "dropped"]
    events = upcall.json("events", "list", "--limit", "0")
    assert len(dropped) > 0
    assert len(events) == len(messages) - len(dropped)
    told = {}
    for event in events:
        for device in (json.loads(event["raw"])[event["kind"]] or {}).get("deviceList", ()):
            told.setdefault(device["deviceId"], set()).add(device["status"])
    _, shown = seen_by(upcall, truth)
    for device in truth["devices"]:
        is_told = device["status"] in told.get(device["device_id"], ())
        assert (shown.get(device["device_id"]) == device["status"]) is is_told
