"""What `events`, `campaigns` and a server print: documents for programs, whole lines for people."""

import base64
import hashlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time

import httpx2
import pytest

from upcall.inbox import Arrival, Reported, Retention, Selection, Subscription, Trust, open_inbox

ACCOUNT = "0000123456-00001"
LONG = "a campaign with a long name " * 20


def message(kind, campaign_id, *devices, status="CampaignInProgress"):
    return json.dumps(
        {
            "type": kind,
            "accountName": ACCOUNT,
            kind: {
                "campaignId": campaign_id,
                "campaignName": LONG,
                "status": status,
                "deviceList": [{"deviceId": device, "status": word, "resultReason": LONG} for device, word in devices],
            },
        }
    ).encode()


PROGRESS = message(
    "upgradeProgress", "C-1", ("100000000000001", "UpgradeSuccess"), ("100000000000002", "UpgradePending")
)
BINARY = b"\xff\xfe\x00 no text"
NOW = 1_800_000_000_000_000
HOUR = 3_600_000_000


@pytest.fixture
def filled(upcall):
    """Fill the store with one callback that is understood, one in quarantine and one that names nothing."""
    with open_inbox(upcall.store, create=True) as inbox:
        inbox.append(
            [
                Arrival(body=PROGRESS, received_at=NOW, peer="192.0.2.1", token_id="abc"),
                Arrival(body=PROGRESS, received_at=NOW + 1, peer="192.0.2.2", token_id="abc"),
                Arrival(body=BINARY, received_at=NOW + 2, trust=Trust.QUARANTINED, evidence="the body is not JSON"),
                Arrival(body=b"{}", received_at=NOW + 3, account="A-9"),
            ]
        )
    return upcall


def test_events_list(filled):
    """Each stored callback is a line with the documented members, those in quarantine too, newest last."""
    progress, quarantined, empty = filled.json("events", "list")
    assert progress == {
        "id": 1,
        "received_at": "2027-01-15T08:00:00.000000Z",
        "account": ACCOUNT,
        "kind": "upgradeProgress",
        "campaign_id": "C-1",
        "deliveries": 2,
        "state": "stored",
        "origin": "received",
        "trust": "accepted",
        "duplicate": "first",
        "raw": PROGRESS.decode(),
    }
    assert (quarantined["state"], quarantined["trust"]) == ("quarantined", "quarantined")
    assert "raw" not in quarantined
    assert base64.b64decode(quarantined["raw_base64"]) == BINARY
    assert (empty["account"], empty["kind"], empty["raw"]) == ("A-9", None, "{}")


def test_events_list_takes_the_newest(filled):
    """A limit keeps the newest, 0 keeps all, and the default is 20."""
    with open_inbox(filled.store) as inbox:
        inbox.append([Arrival(body=b"%d" % number, received_at=NOW + 10 + number) for number in range(30)])
    assert [record["id"] for record in filled.json("events", "list", "--limit", "2")] == [32, 33]
    assert len(filled.json("events", "list", "--limit", "0")) > 30
    assert len(filled.json("events", "list")) == 20


def numbers(records):
    return [record.get("raw") for record in records]


def test_events_list_filters(filled):
    """Account, kind and campaign narrow the list down; a kind may be written in any spelling."""
    for option, value in (("--account", ACCOUNT), ("--kind", "UPGRADEPROGRESS"), ("--campaign", "C-1")):
        assert numbers(filled.json("events", "list", option, value)) == [PROGRESS.decode()]
    assert filled.json("events", "list", "--account", "nobody") == []


def test_events_show(filled):
    """One callback shows what it says, each delivery, the work on it and its body."""
    (shown,) = filled.json("events", "show", "1")
    assert [device["status"] for device in shown["devices"]] == ["UpgradeSuccess", "UpgradePending"]
    assert [delivery["peer"] for delivery in shown["received"]] == ["192.0.2.1", "192.0.2.2"]
    assert (shown["raw"], shown["work"]) == (PROGRESS.decode(), [])
    (quarantined,) = filled.json("events", "show", "2")
    assert quarantined["evidence"] == "the body is not JSON"


def test_events_show_what_was_reconciled(upcall):
    """A reconciled callback says where it is from; a late one that merged with it says with which."""
    body = message("upgradeProgress", "C-1", ("1", "UpgradeSuccess"))
    report = Reported(account=ACCOUNT, campaign_id="C-1", device_id="1", status="UpgradeSuccess", body=body)
    handler = Subscription("handler", lambda event: [""])
    with open_inbox(upcall.store, create=True) as inbox:
        inbox.subscribe(["handler"], NOW)
        inbox.append_reported([report], NOW)
        inbox.append([Arrival(body=body, received_at=NOW)])
        inbox.enroll([handler], NOW)
    (made,), (late,) = (upcall.json("events", "show", number) for number in "12")
    assert (made["origin"], made["trust"], made["evidence"], made["received"], made["work"][0]["merged_with"]) == (
        "reconciled", "confirmed", "the provider's report says so", [], None,
    )  # fmt: skip
    assert (late["origin"], late["state"], late["work"][0]["merged_with"]) == ("received", "done", 1)
    assert "merged_with=1" in upcall.run("events", "show", "2", "--store", upcall.store).stdout


def test_a_password_is_not_shown(upcall):
    """The password that a V1 message repeats in clear is blank in every output; the rest is as received."""
    body = b'{"username": "u", "password": "hunter2", "deviceIds": []}'
    with open_inbox(upcall.store, create=True) as inbox:
        inbox.append([Arrival(body=body, received_at=NOW)])
    for words in (["list"], ["list", "--json"], ["show", "1"], ["show", "1", "--json"]):
        assert "hunter2" not in upcall.run("events", *words, "--store", upcall.store).stdout
    assert upcall.json("events", "list")[0]["raw"] == body.decode().replace("hunter2", "***")


def test_events_tail(filled):
    """`tail` begins with the newest and prints each callback that arrives, until Ctrl-C ends it with 130."""
    tail = filled.start("events", "tail", "--store", filled.store, "--limit", "1", "--json")
    assert json.loads(tail.next_line())["id"] == 3
    with open_inbox(filled.store) as inbox:
        inbox.append([Arrival(body=b'"new"', received_at=time.time_ns() // 1000)])
    assert json.loads(tail.next_line())["raw"] == '"new"'
    assert tail.end(signal.SIGINT) == 130


def test_events_tail_skips_nothing(upcall):
    """`tail` prints each of thousands of callbacks that arrive at once, with what the filters look at known of each."""
    open_inbox(upcall.store, create=True).close()
    tail = upcall.start("events", "tail", "--store", upcall.store, "--kind", "upgradeProgress", "--json")
    upcall.until(lambda: "waiting" in tail.errors.read_text())
    with open_inbox(upcall.store) as inbox:
        for part in range(6):
            numbers = range(part * 500, part * 500 + 500)
            inbox.append([Arrival(body=message("upgradeProgress", f"C-{n}"), received_at=NOW) for n in numbers])
    assert [json.loads(tail.next_line())["campaign_id"] for _ in range(3000)] == [f"C-{n}" for n in range(3000)]
    assert tail.end(signal.SIGINT) == 130


def test_campaigns(filled):
    """A campaign is listed with its devices' states counted, and shown with each device."""
    with open_inbox(filled.store) as inbox:
        late = message("upgradeScheduled", "C-1", ("100000000000001", "UpgradeRequestQueued"), status="CampaignQueued")
        inbox.append([Arrival(body=late, received_at=NOW + 50)])
    (listed,) = filled.json("campaigns", "list")
    assert listed == {
        "campaign_id": "C-1",
        "account": ACCOUNT,
        "name": LONG.strip(),
        "status": "CampaignInProgress",
        "first_at": "2027-01-15T08:00:00.000000Z",
        "last_at": "2027-01-15T08:00:00.000050Z",
        "callbacks": 2,
        "devices": {"UpgradePending": 1, "UpgradeSuccess": 1},
        "open": 1,
        "silent": None,
        "contradiction": None,
        "contradicting": 0,
    }
    (shown,) = filled.json("campaigns", "show", "C-1")
    assert set(shown) >= {"campaign_id", "status", "devices"}
    first, second = shown["devices"]
    assert list(first)[:4] == ["device_id", "status", "reason", "updated_at"]
    assert (first["device_id"], first["status"]) == ("100000000000001", "UpgradeSuccess")
    assert (first["first_status"], first["last_status"]) == ("UpgradeSuccess", "UpgradeRequestQueued")
    assert (second["last_at"], second["contradiction"]) == ("2027-01-15T08:00:00.000000Z", None)
    people = filled.run("campaigns", "show", "C-1", "--store", filled.store).stdout
    assert people.count("UpgradeRequestQueued") == 1  # the last word, beside where the device stands


def test_a_body_that_is_gone_is_not_shown_as_an_empty_one(filled):
    """Without its body a callback has no size, keeps its key, and says why it has none; an empty body has size 0."""
    (before,) = filled.json("events", "show", "1")
    assert before["key"] == f"{hashlib.sha256(PROGRESS).hexdigest()[:32]}-1"
    with open_inbox(filled.store) as inbox:
        inbox.append([Arrival(body=b"", received_at=NOW + 3 * HOUR)])
        inbox.subscribe(["handler"], NOW)
        assert inbox.enroll([Subscription("handler", lambda event: ())], NOW)[0] == 4
        inbox.drop_quarantined(Selection(ids=(2,)), NOW)
        inbox.prune(Retention(body_seconds=HOUR / 1e6, record_seconds=9e9), NOW + 2 * HOUR)
    (pruned,), (dropped,), (empty,) = (filled.json("events", "show", number) for number in ("1", "2", "4"))
    assert (pruned["key"], pruned["sha256"]) == (before["key"], before["sha256"])
    assert (pruned["raw"], pruned["body_bytes"], dropped["raw"], dropped["body_bytes"]) == (None,) * 4
    assert (empty["raw"], empty["body_bytes"]) == ("", 0)
    words = {number: filled.run("events", "show", number, "--store", filled.store).stdout for number in "12"}
    assert "removed: upcall store prune" in words["1"]
    assert "dropped from the quarantine" in words["2"]


def test_campaigns_tell_silence_and_contradictions(upcall):
    """A device that is not final and not heard of is silent; one that ended in two ways is marked; others are not."""
    ago = time.time_ns() // 1000 - 5 * HOUR
    first = message("upgradeProgress", "C-2", ("1", "UpgradePending"), ("2", "UpgradeSuccess"), ("3", "UpgradePending"))
    second = message("upgradeProgress", "C-2", ("2", "UpgradeFailed"), ("3", "UpgradePending"))
    with open_inbox(upcall.store, create=True) as inbox:
        inbox.append([Arrival(body=first, received_at=ago), Arrival(body=second, received_at=ago + 2 * HOUR)])
    (shown,) = upcall.json("campaigns", "show", "C-2", "--silent-after", "4h")
    assert shown["silent"] == ["1"]
    assert {device["device_id"]: device["contradiction"] for device in shown["devices"]} == {
        "1": None,
        "2": "UpgradeFailed",
        "3": None,
    }
    people = upcall.run("campaigns", "show", "C-2", "--silent-after", "4h", "--store", upcall.store).stdout
    assert "SILENT for 5 h" in people
    assert "CONTRADICTION: also said UpgradeFailed" in people
    (listed,) = upcall.json("campaigns", "list", "--silent-after", "90m")
    assert (listed["open"], listed["silent"]) == (2, 2)
    (listed,) = upcall.json("campaigns", "list")
    assert (listed["open"], listed["silent"], listed["contradicting"]) == (2, None, 1)
    assert "(1 CONTRADICTS itself)" in upcall.run("campaigns", "list", "--store", upcall.store).stdout


def test_drift(filled):
    """`drift` counts each unexpected thing and names the first and the last callback that showed it."""
    with open_inbox(filled.store) as inbox:
        for number in (1, 2):
            inbox.append([Arrival(body=b'{"type":"upgradeProgress","odd":%d}' % number, received_at=NOW + number)])
    (odd,) = [row for row in filled.json("events", "drift") if "odd" in row["drift"]]
    assert (odd["callbacks"], odd["first_id"], odd["last_id"]) == (2, 4, 5)
    assert odd["drift"] in filled.run("events", "drift", "--store", filled.store).stdout


def test_events_show_says_why_it_seems_to_repeat(upcall):
    """The guess comes with its evidence in words: which callback, how long before, the same bytes or not."""
    body = message("upgradeProgress", "C-1", ("1", "UpgradePending"))
    with open_inbox(upcall.store, create=True) as inbox:
        inbox.append(
            [
                Arrival(body=body, received_at=NOW, peer="192.0.2.1", source="198.51.100.7", listed=True),
                Arrival(body=body + b" ", received_at=NOW + 90_000_000, listed=False),
                Arrival(body=body, received_at=NOW + 200 * 60_000_000),
            ]
        )
    shown = [upcall.run("events", "show", str(number), "--store", upcall.store).stdout for number in (1, 2, 3)]
    assert "first (no earlier callback" in shown[0]
    assert "redelivery (callback 1, 1 min 30 s before: other bytes that say the same)" in shown[1]
    assert "repeat (callback 2, 3 h 18 min before: other bytes that say the same)" in shown[2]
    assert "source=198.51.100.7" in shown[0]
    assert shown[0].count(" listed") == shown[1].count("not listed") == 1


def test_events_list_by_time_state_and_number(upcall):
    """Times may be written as so long ago or in RFC 3339; numbers page on in both directions."""
    now = time.time_ns() // 1000
    with open_inbox(upcall.store, create=True) as inbox:
        inbox.append([Arrival(body=b"%d" % hours, received_at=now - hours * HOUR) for hours in range(9, 0, -1)])

    def hours(*words):
        return [int(record["raw"]) for record in upcall.json("events", "list", *words)]

    assert hours("--since", "150m") == [2, 1]
    assert hours("--since", "4h ago", "--until", "150m") == [3]
    assert hours("--until", "2001-01-01T00:00:00Z") == []
    assert hours("--before", "4") == [9, 8, 7]
    assert hours("--after", "7") == [2, 1]
    assert hours("--limit", "2", "--oldest") == [9, 8]
    assert hours("--state", "stored", "--limit", "1") == [1]
    assert hours("--state", "dead") == []


def test_export(filled):
    """An export holds every callback as it came, to stdout or to a new file for its owner alone."""
    said = filled.run("events", "export", "--store", filled.store)
    assert said.returncode == 0
    target = filled.directory / "out.jsonl"
    words = ("events", "export", "--store", filled.store, "--output", str(target))
    assert filled.run(*words).returncode == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    for text in (said.stdout, target.read_text()):
        first, second, _ = map(json.loads, text.splitlines())
        assert first["raw"].encode() == PROGRESS
        assert first["sha256"] == hashlib.sha256(PROGRESS).hexdigest()
        assert [delivery["peer"] for delivery in first["received"]] == ["192.0.2.1", "192.0.2.2"]
        assert base64.b64decode(second["raw_base64"]) == BINARY
    again = filled.run(*words)
    assert (again.returncode, "left alone" in again.stderr) == (1, True)
    assert sorted(path.name for path in filled.directory.glob("*out.jsonl*")) == ["out.jsonl"]


def test_long_lists_in_bounded_memory(upcall):
    """A list or an export of everything holds a few megabytes of bodies at a time, however many there are."""
    body = b'"' + b"x" * 4_000_000 + b'"'
    with open_inbox(upcall.store, create=True) as inbox:
        for number in range(20):
            inbox.append([Arrival(body=b"[%d,%s]" % (number, body), received_at=NOW + number)])
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (170_000_000, 170_000_000));"
        "from upcall.cli.main import run; sys.exit(run())"
    )
    for words, lines in ((("list", "--json", "--limit", "0"), 20), (("export",), 20)):
        ended = subprocess.run(
            [sys.executable, "-c", code, "events", *words, "--store", upcall.store],
            env=upcall.environment,
            capture_output=True,
            check=False,
        )
        assert (ended.returncode, ended.stdout.count(b"\n")) == (0, lines), ended.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["events", "list"],
        ["events", "list", "--json"],
        ["events", "show", "1"],
        ["campaigns", "list", "--json"],
        ["campaigns", "show", "C-1"],
        ["dead", "list"],
    ],
)
def test_nothing_is_folded_or_coloured_in_a_pipe(filled, words):
    """In a pipe a line is as long as it is and has no colour, however narrow the terminal beside it."""
    ended = filled.run(*words, "--store", filled.store, COLUMNS="40", TERM="xterm-256color")
    assert ended.returncode == 0
    assert "\x1b" not in ended.stdout + ended.stderr
    if words != ["dead", "list"]:
        assert max(map(len, ended.stdout.splitlines())) > 80
    if words[-1] in {"--json", "C-1"}:
        assert LONG.strip() in ended.stdout


def test_a_reader_that_has_seen_enough(filled):
    """A pipe that closes early, such as `head`'s, is no error and no traceback."""
    with open_inbox(filled.store) as inbox:
        inbox.append([Arrival(body=b"%0900d" % number, received_at=NOW) for number in range(1000)])
    words = [sys.executable, "-m", "upcall", "events", "list", "--store", filled.store, "--json", "--limit", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=filled.environment) as listing:
        listing.stdout.readline()
        listing.stdout.close()
        assert listing.stderr.read() == b""
        assert listing.wait(30) == 0


def test_the_ready_line(upcall):
    """A server prints one line on stdout, with the whole URL, which answers; its store is for its owner alone."""
    listener = upcall.listen()
    assert listener.url.endswith("/callbacks/acceptance-canary-token")
    assert httpx2.get(listener.url).status_code == 200
    assert httpx2.head(listener.url).status_code == 200
    assert httpx2.post(listener.url + "x", content=b"{}").status_code == 404
    assert listener.end() == 0
    assert listener.lines == [f"ready {listener.url}"]
    assert "acceptance-canary-token" not in listener.errors.read_text()
    assert stat.S_IMODE(upcall.path.stat().st_mode) == 0o600


def test_the_token_can_be_masked(upcall):
    """With `--mask-token` the ready line goes into a log without giving the URL away."""
    listener = upcall.listen("--mask-token")
    assert listener.url.endswith("/callbacks/acce***")


def test_a_generated_token_stays(upcall):
    """Without a token one is made and kept in the store: the registered URL survives a restart."""
    words = ("listen", "--port", "0", "--store", upcall.store)
    urls = []
    for _ in range(2):
        listener = upcall.start(*words).wait_until_ready()
        urls.append(listener.url.rpartition("/")[2])
        assert listener.end() == 0
    assert urls[0] == urls[1]
    assert len(urls[0]) >= 32


def test_a_token_for_one_account(upcall):
    """Through a token of one account another's callback is kept, acknowledged and shown in quarantine."""
    listener = upcall.start(
        "listen", "--port", "0", "--store", upcall.store, "--token", f"{ACCOUNT}=acceptance-canary-token"
    ).wait_until_ready()
    assert httpx2.post(listener.url, content=b'{"accountName": "A-2"}').status_code == 200
    (record,) = upcall.json("events", "list")
    assert (record["account"], record["trust"]) == ("A-2", "quarantined")


COMMANDS = "\x1b\x07\x9b\r\u202e\u2028\x7f"
EVIL = "\x1b]0;title\x07\x1b[2J\x9b31m\r\n\u202e\u2028\x7f"


@pytest.mark.parametrize(
    "words", [("events", "list"), ("events", "show", "1"), ("campaigns", "list"), ("dead", "list")]
)
def test_a_callback_does_not_command_the_terminal(upcall, words):
    """What a terminal would obey is escaped wherever a callback says it, in people's output and in programs'."""
    body = json.loads(message(f"kind{EVIL}", f"C-1{EVIL}", (f"1{EVIL}", EVIL), status=EVIL)) | {"accountName": EVIL}
    with open_inbox(upcall.store, create=True) as inbox:
        inbox.append(
            [
                Arrival(body=json.dumps(body, ensure_ascii=False).encode(), received_at=NOW),
                Arrival(body=EVIL.encode(), received_at=NOW + 1, trust=Trust.QUARANTINED),
            ]
        )
    for form in ((), ("--json",)):
        ended = upcall.run(*words, *form, "--store", upcall.store)
        assert ended.returncode == 0
        assert not set(ended.stdout) & set(COMMANDS)
        assert len(ended.stdout) == len(ended.stdout.encode("utf-8"))
    (campaign,) = upcall.json("campaigns", "list")
    assert campaign["campaign_id"] == f"C-1{EVIL}".strip()


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["people", "programs"])
def test_a_terminal_that_speaks_no_unicode(upcall, form):
    """What the encoding of stdout cannot say is escaped, and JSON stays JSON."""
    with open_inbox(upcall.store, create=True) as inbox:
        inbox.append([Arrival(body='{"campaignId":"cämpaign→"}'.encode(), received_at=NOW)])
    ended = upcall.run("events", "list", *form, "--store", upcall.store, PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stderr) == (0, "")
    if form:
        assert json.loads(ended.stdout)["campaign_id"] == "cämpaign→"
    else:
        assert r"c\xe4mpaign\u2192" in ended.stdout


@pytest.mark.parametrize("form", ["events list --json", "events list"])
@pytest.mark.parametrize("stdout", [">&-", ">/dev/full"])
def test_a_stdout_that_takes_nothing(filled, form, stdout):
    """Data that cannot be written is a mistake that one line names, not one of ours."""
    if "full" in stdout and not os.path.exists("/dev/full"):  # noqa: PTH110 - no path of ours
        pytest.skip("no /dev/full here")
    command = f"{sys.executable} -m upcall {form} --store {filled.store} {stdout}"
    ended = subprocess.run(
        ["sh", "-c", command], env=filled.environment, cwd=filled.directory, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("upcall: ")
    assert "stdout" in line
    assert "mistake" not in line


@pytest.mark.parametrize("streams", [">&-", ">&- 2>&-", "2>&-", "| true"])
def test_a_listener_that_nobody_reads(upcall, streams):
    """A listener whose ready line or log nobody takes receives all the same, and ends in order."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = "a-token-of-this-test-alone"
    command = f"{sys.executable} -m upcall listen --port {port} --store {upcall.store} --token {token} {streams}"
    listener = subprocess.Popen(
        ["sh", "-c", command if "|" in streams else f"exec {command}"],
        env=upcall.environment,
        cwd=upcall.directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        upcall.until(lambda: answers(f"http://127.0.0.1:{port}/callbacks/{token}"))
        assert [callback["raw"] for callback in upcall.json("events", "list")] == ["{}"]
    finally:
        os.killpg(listener.pid, signal.SIGTERM)
        code = listener.wait(30)
    assert code == (0 if "|" not in streams else -signal.SIGTERM)


def answers(url):
    try:
        return httpx2.post(url, content=b"{}").status_code == 200
    except httpx2.TransportError:
        return False
