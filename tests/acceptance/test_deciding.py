"""What a person decides: dead letters, replays, the quarantine; named ones at once, many only with `--yes`."""

import json
import os
import pty
import subprocess
import sys
import time

import pytest

from upcall.inbox import Arrival, Outcome, Selection, Subscription, Trust, open_inbox

ACCOUNT = "0000123456-00001"
HOUR = 3_600_000_000
TRACEBACK = 'Traceback (most recent call last):\n  File "handlers.py", line 3, in note\nValueError: no such ticket'
DEVICES = ("100000000000001", "100000000000002")
NAMES = ("note", "per_device")
USAGE, NO = 2, 1


def message(number):
    devices = [{"deviceId": device, "status": "UpgradePending"} for device in DEVICES]
    body = {"campaignId": f"C-{number}", "status": "CampaignInProgress", "deviceList": devices}
    return json.dumps({"type": "upgradeProgress", "accountName": ACCOUNT, "upgradeProgress": body}).encode()


def settle(inbox, now, ends):
    """Run what is due to the ends that are given by callback, handler and device; the rest is done."""
    while items := inbox.claim(NAMES, "me", now, lease_seconds=30, limit=100):
        outcomes = []
        for item in items:
            state = ends.get((item.callback_id, item.subscriber, item.device_id), "done")
            outcomes.append(Outcome(item.id, state, error=TRACEBACK if state == "dead" else None))
        inbox.settle(outcomes, "me", now)


@pytest.fixture
def decided(upcall):
    """Fill the store: callback 1 has two dead letters and is done for one device, 2 and 3 are done, 4 and 5 wait."""
    now = time.time_ns() // 1000 - HOUR
    hooks = [
        Subscription("note", lambda event: ("",)),
        Subscription("per_device", lambda event: [device.device_id for device in event.devices]),
    ]
    with open_inbox(upcall.store, create=True) as inbox:
        inbox.append([Arrival(body=message(number), received_at=now + number) for number in (1, 2, 3)])
        inbox.append(
            [
                Arrival(
                    body=b"\xff no text", received_at=now, trust=Trust.QUARANTINED, evidence="the body is not JSON"
                ),
                Arrival(body=b'{"password":"hunter2"}', received_at=now, account="A-2", trust=Trust.QUARANTINED),
            ]
        )
        inbox.subscribe(NAMES, now)
        while inbox.enroll(hooks, now)[0]:
            pass
        settle(inbox, now + 1, {(1, "note", ""): "dead", (1, "per_device", DEVICES[1]): "dead"})
    return upcall


def work(upcall, callback_id):
    with open_inbox(upcall.store) as inbox:
        return {(work.subscriber, work.device_id): work for work in inbox.work(callback_id)}


def states(upcall, callback_id):
    return {place: work.state for place, work in work(upcall, callback_id).items()}


def decide(upcall, *words):
    """Run a command that decides, and return its exit code and its document."""
    ended = upcall.run(*words, "--store", upcall.store, "--json")
    assert "Traceback" not in ended.stderr
    return ended.returncode, (json.loads(ended.stdout) if ended.stdout else None)


def test_dead_letters_are_found_by_filters(decided):
    """`dead list` narrows down by handler, device, campaign, account and kind; a limit of 0 lists them all."""
    assert len(decided.json("dead", "list", "--limit", "0")) == 2
    (note,) = decided.json("dead", "list", "--handler", "note", "--account", ACCOUNT, "--kind", "UPGRADEPROGRESS")
    assert (note["id"], note["device_id"], note["error"]) == (1, None, TRACEBACK)
    (device,) = decided.json("dead", "list", "--device", DEVICES[1], "--campaign", "C-1", "--since", "2h")
    assert (device["subscriber"], device["attempts"]) == ("per_device", 1)
    for words in (["--campaign", "C-2"], ["--until", "3h"], ["--device", DEVICES[0]]):
        assert decided.json("dead", "list", *words, "--limit", "0") == []


def test_one_dead_letter_whole(decided):
    """`dead show` prints each traceback whole, set in so that no line of it passes for one of ours."""
    shown = decided.run("dead", "show", "1", "--store", decided.store).stdout
    for text in TRACEBACK.splitlines():
        assert f"   {text}\n" in shown
    (found,) = decided.json("dead", "show", "1")
    assert [piece["error"] for piece in found["work"]] == [TRACEBACK, TRACEBACK]
    ended = decided.run("dead", "show", "2", "--store", decided.store)
    assert (ended.returncode, ended.stdout) == (NO, "")
    assert "upcall dead list" in ended.stderr


def test_retry_leaves_what_is_done(decided):
    """A retry gives dead work back with its history and its reason; the done work of the same callback stays done."""
    assert decide(decided, "dead", "retry", "1", "--reason", "ticket system is back") == (
        0,
        {"matched": 2, "retried": 2, "dry_run": False},
    )
    assert states(decided, 1) == {
        ("note", ""): "pending",
        ("per_device", DEVICES[0]): "done",
        ("per_device", DEVICES[1]): "pending",
    }
    (replay,) = work(decided, 1)["note", ""].replays
    assert (replay.state, replay.reason, replay.error) == ("dead", "ticket system is back", TRACEBACK)
    (shown,) = decided.json("events", "show", "1")
    told = {piece["subscriber"]: piece["replays"] for piece in shown["work"] if piece["device_id"] != DEVICES[0]}
    assert [replay["reason"] for replay in told["note"]] == ["ticket system is back"]


@pytest.mark.parametrize("end", ["pending", "done", "dead"])
def test_what_was_tried_before_a_retry_is_shown_whatever_becomes_of_it(decided, end):
    """After a retry `dead show` still says how the work had ended and why it was retried, and where it stands now."""
    decide(decided, "dead", "retry", "1", "--reason", "ticket system is back")
    if end != "pending":
        with open_inbox(decided.store) as inbox:
            settle(inbox, time.time_ns() // 1000 + HOUR, {(1, "note", ""): end})
    shown = decided.run("dead", "show", "1", "--store", decided.store).stdout
    assert shown.startswith("callback 1 ")
    assert f"note: {end}{', due' if end == 'pending' else ''} at 2" in shown
    assert shown.count("ticket system is back): it was dead after 1 attempt\n") == 2
    assert shown.count(TRACEBACK.splitlines()[0]) == (3 if end == "dead" else 2)
    (found,) = decided.json("dead", "show", "1")
    assert [piece["replays"][0]["error"] for piece in found["work"]] == [TRACEBACK] * 2


def test_retry_of_one_handler(decided):
    """A filter narrows a retry down to one handler's or one device's work; the default reason names the command."""
    assert decide(decided, "dead", "retry", "--handler", "note", "--yes")[0] == 0
    assert states(decided, 1)["per_device", DEVICES[1]] == "dead"
    assert work(decided, 1)["note", ""].replays[0].reason == "upcall dead retry"
    assert decide(decided, "dead", "retry", "1", "--device", DEVICES[1])[1]["retried"] == 1


def test_dead_letters_are_dropped(decided):
    """What is dropped is no dead letter any more, stays visible, and a replay still brings it back."""
    assert decide(decided, "dead", "drop", "1")[1] == {"matched": 2, "dropped": 2, "dry_run": False}
    assert decided.json("dead", "list") == []
    assert states(decided, 1)["note", ""] == "dropped"
    assert [record["id"] for record in decided.json("events", "list", "--state", "dropped")] == [1]
    assert decided.run("quarantine", "show", "1", "--store", decided.store).returncode == NO
    counts = decided.json("store", "check")[0]["counts"]
    assert (counts["dropped"], counts["dead"]) == (1, 0)
    assert decided.run("dead", "show", "1", "--store", decided.store).returncode == 0
    assert decide(decided, "events", "replay", "1", "--handler", "note") == (
        0,
        {"matched": 1, "replayed": 1, "dry_run": False},
    )


def test_replay_by_filters(decided):
    """A replay takes what was named, the work of one handler where that was said, and keeps why."""
    words = ("events", "replay", "--campaign", "C-2", "--handler", "note", "--reason", "template was wrong", "--yes")
    assert decide(decided, *words) == (0, {"matched": 1, "replayed": 1, "dry_run": False})
    assert states(decided, 2) == dict.fromkeys([("per_device", device) for device in DEVICES], "done") | {
        ("note", ""): "pending"
    }
    assert work(decided, 2)["note", ""].replays[0].reason == "template was wrong"
    assert set(states(decided, 3).values()) == {"done"}


def test_replay_takes_each_piece_once(decided):
    """A replay of everything takes each piece once and leaves the quarantine alone."""
    code, document = decide(decided, "events", "replay", "--all", "--yes")
    assert (code, document["replayed"]) == (0, 9)
    with open_inbox(decided.store) as inbox:
        pieces = [piece for number in (1, 2, 3) for piece in inbox.work(number)]
        assert {len(piece.replays) for piece in pieces} == {1}
        assert inbox.work(4) == []


def test_replay_while_a_worker_is_quick(tmp_path):
    """What a worker has done again before the rest was replayed is not replayed a second time."""
    from upcall.cli.replaying import replay_steps

    now = time.time_ns() // 1000
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as inbox:
        inbox.append([Arrival(body=b"%d" % number, received_at=now) for number in range(500)])
        inbox.subscribe(["note"], now)
        while inbox.enroll([Subscription("note", lambda event: ("",))], now)[0]:
            pass
        settle(inbox, now, {})
        replayed = 0
        for step in replay_steps(inbox, Selection(), "again"):
            replayed += step
            settle(inbox, time.time_ns() // 1000 + 1, {})
        assert replayed == 500
        assert {len(inbox.work(record.id)[0].replays) for record in inbox.callbacks(bodies=False)} == {1}


BULK = [
    ("dead", "retry", "--all"),
    ("dead", "drop", "--handler", "note"),
    ("events", "replay", "--state", "done"),
    ("quarantine", "release", "--all"),
    ("quarantine", "drop", "--account", "A-2"),
]
COUNTS = [2, 1, 6, 2, 1]


@pytest.mark.parametrize(
    ("words", "count"), list(zip(BULK, COUNTS, strict=True)), ids=[" ".join(words) for words in BULK]
)
def test_many_take_a_yes(decided, words, count):
    """A bulk change without `--yes` is refused with its size and what to type; a dry run counts; neither changes."""
    before = decided.run("events", "export", "--store", decided.store).stdout
    ended = decided.run(*words, "--store", decided.store)
    (line,) = ended.stderr.splitlines()
    assert (ended.returncode, ended.stdout) == (USAGE, "")
    for said in (f" {count} ", "--yes", "--dry-run"):
        assert said in line
    code, document = decide(decided, *words, "--dry-run")
    assert (code, document["matched"], document["dry_run"]) == (0, count, True)
    assert decided.run("events", "export", "--store", decided.store).stdout == before


@pytest.mark.parametrize("command", [("dead", "retry"), ("dead", "drop"), ("events", "replay"), ("quarantine", "drop")])
def test_nothing_named_is_not_everything(decided, command):
    """A command that changes things refuses to guess what: it wants numbers, a filter or `--all`, and not two."""
    for words in ((), ("1", "--all")):
        ended = decided.run(*command, *words, "--yes", "--store", decided.store)
        assert (ended.returncode, ended.stdout) == (USAGE, "")
        assert "--all" in ended.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("dead", "retry", "2"),
        ("dead", "drop", "--campaign", "nobody", "--yes"),
        ("events", "replay", "99"),
        ("events", "replay", "--kind", "nothing", "--yes"),
        ("quarantine", "release", "1"),
        ("quarantine", "drop", "--account", "nobody", "--yes"),
    ],
)
def test_nothing_matched(decided, words):
    """Where nothing matches the answer is no, in one line."""
    ended = decided.run(*words, "--store", decided.store)
    assert (ended.returncode, ended.stdout) == (NO, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("upcall: ")


def test_one_of_two_that_were_named(decided):
    """What was named and does not match is named again, with exit code 1; the other one is done all the same."""
    ended = decided.run("quarantine", "release", "4", "1", "--store", decided.store)
    assert (ended.returncode, ended.stdout) == (NO, "released 1 callback.\n")
    assert "callback 1 is not in quarantine" in ended.stderr


def test_the_quarantine_is_listed(decided):
    """The list says why each is there; its last line on stderr says how much of the quota is used."""
    listed = decided.run("quarantine", "list", "--store", decided.store)
    assert "the body is not JSON" in listed.stdout
    assert "1.0 GiB" in listed.stderr.splitlines()[-1]
    binary, other = decided.json("quarantine", "list")
    assert (binary["id"], binary["evidence"], binary["body_bytes"]) == (4, "the body is not JSON", 9)
    assert list(binary)[:4] == ["id", "received_at", "account", "kind"]
    assert (other["account"], other["raw"]) == ("A-2", '{"password":"***"}')
    assert [one["id"] for one in decided.json("quarantine", "list", "--account", "A-2", "--limit", "0")] == [5]


def test_one_of_the_quarantine(decided):
    """`quarantine show` prints a body with its odd bytes escaped, and no callback that is not there."""
    ended = decided.run("quarantine", "show", "4", "--store", decided.store)
    assert r"\xff no text" in ended.stdout
    assert "quarantined (the body is not JSON)" in ended.stdout
    assert decided.run("quarantine", "show", "1", "--store", decided.store).returncode == NO


def test_release(decided):
    """A released callback is work for the handlers, and no longer in quarantine."""
    assert decide(decided, "quarantine", "release", "--account", "A-2", "--yes")[1]["released"] == 1
    assert [one["id"] for one in decided.json("quarantine", "list")] == [4]
    (shown,) = decided.json("events", "show", "5")
    assert shown["trust"] == "accepted"
    with open_inbox(decided.store) as inbox:
        now = time.time_ns() // 1000
        while inbox.enroll([Subscription("note", lambda event: ("",))], now)[0]:
            pass
        assert [item.callback_id for item in inbox.claim(["note"], "me", now, lease_seconds=30, limit=9)] == [5]


def test_drop_asks(decided):
    """Dropping what was named asks on a terminal, and elsewhere takes `--yes`: the bodies are gone for good."""
    drop = ("quarantine", "drop", "4", "--store", decided.store)
    refused = decided.run(*drop)
    assert (refused.returncode, "--yes" in refused.stderr) == (USAGE, True)
    assert on_a_terminal(decided, drop, "n") == NO
    assert len(decided.json("quarantine", "list")) == 2
    assert on_a_terminal(decided, drop, "y") == 0
    (dropped,) = decided.json("events", "list", "--state", "dropped")
    assert (dropped["id"], dropped["raw"]) == (4, None)
    with open_inbox(decided.store) as inbox:
        assert inbox.callbacks(Selection(ids=(4,)))[0].digest


def on_a_terminal(upcall, words, answer):
    """Run a command on a terminal where somebody answers, and return its exit code."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        return subprocess.run(
            [sys.executable, "-m", "upcall", *words],
            stdin=theirs,
            capture_output=True,
            env=upcall.environment,
            cwd=upcall.directory,
            timeout=100,
            check=False,
        ).returncode
    finally:
        os.close(ours)
        os.close(theirs)
