"""Keeping a store well: check, backup, restore, upgrade, prune, forget."""

import json
import sqlite3
import stat
import time

import httpx2
import pytest

from upcall.inbox import Arrival, Outcome, Subscription, Trust, open_inbox
from upcall.inbox.spool import Spool

IMEI = "356938035643809"
OTHER = "356938035643810"
DAY = 86_400_000_000
USAGE, NO, NOT_STARTED = 2, 1, 3


def message(campaign_id, *devices):
    states = [{"deviceId": device, "status": "UpgradeSuccess"} for device in devices]
    body = {"campaignId": campaign_id, "status": "CampaignEnded", "deviceList": states}
    return json.dumps({"type": "upgradeProgress", "accountName": "A-1", "upgradeProgress": body}).encode()


def document(ended, code=0):
    assert ended.returncode == code, ended.stderr
    return json.loads(ended.stdout)


def store(upcall, *words, code=0):
    return document(upcall.run("store", *words, "--store", upcall.store, "--json"), code)


def fill(upcall, *arrivals):
    with open_inbox(upcall.store, create=True) as inbox:
        inbox.append(arrivals)


@pytest.fixture
def filled(upcall):
    """Fill the store with two callbacks and one in quarantine."""
    now = time.time_ns() // 1000
    fill(
        upcall,
        Arrival(body=message("C-1", IMEI, OTHER), received_at=now - 100 * DAY),
        Arrival(body=message("C-2", OTHER), received_at=now),
        Arrival(body=b"no", received_at=now - 100 * DAY, trust=Trust.QUARANTINED, evidence="the body is not JSON"),
    )
    return upcall


def test_a_sound_store(filled):
    """`check` says what it looked at, and exits 0 where nothing is wrong."""
    found = store(filled, "check")
    assert (found["problems"], found["counts"]["stored"], found["counts"]["quarantined"]) == ([], 3, 1)
    assert found["size_bytes"] > 0
    assert found["free_bytes"] > 0
    assert found["spool"]["arrivals"] == 0
    ended = filled.run("store", "check", "--store", filled.store)
    assert (ended.returncode, ended.stdout.splitlines()[-1], ended.stderr) == (0, "sound", "")
    for word in (str(filled.path), "schema", "free", "nothing waits"):
        assert word in ended.stdout


def test_a_spool_file_that_cannot_be_read(filled):
    """`check` names it, says why, and counts those beside it; that the spool lies on the store's disk is said too."""
    spool = Spool(filled.directory / "spool")
    spool.append([Arrival(body=b"{}", received_at=1)])
    spool.close()
    (filled.directory / "spool" / f"{1:020d}-{'ab' * 8}.spool").mkdir()
    found = store(filled, "check", "--spool", str(filled.directory / "spool"), code=NO)
    assert (found["spool"]["arrivals"], found["spool"]["shares_disk"]) == (1, True)
    (problem,) = found["problems"]
    assert "ab" * 8 in problem
    assert "Is a directory" in problem
    ended = filled.run("store", "check", "--store", filled.store, "--spool", str(filled.directory / "spool"))
    assert "1 arrival in 2 files" in ended.stdout
    assert "a full one stops both" in ended.stdout


def test_a_store_whose_bytes_rotted(filled):
    """A body that is not the one that came is found by its digest, named, and makes `check` exit 1."""
    with sqlite3.connect(filled.path) as connection:
        connection.execute("UPDATE callbacks SET body = x'00' WHERE id = 2")
    connection.close()
    assert any("2" in problem for problem in store(filled, "check", code=NO)["problems"])
    ended = filled.run("store", "check", "--store", filled.store)
    assert (ended.returncode, "PROBLEM" in ended.stdout, "sound" in ended.stdout) == (NO, True, False)


def test_what_waits_in_the_spool(filled):
    """`check` and `backup` say how many arrivals wait in the spool: they are acknowledged, and not in the store."""
    from upcall.inbox.spool import Spool

    directory = filled.directory / "spool"
    spool = Spool(directory)
    spool.append([Arrival(body=b"1", received_at=1), Arrival(body=b"2", received_at=2)])
    spool.close()
    found = store(filled, "check", "--spool", str(directory))
    assert (found["spool"]["arrivals"], found["spool"]["files"]) == (2, 1)
    words = ("backup", str(filled.directory / "copy.db"), "--spool", str(directory))
    assert "2 arrivals wait" in filled.run("store", *words, "--store", filled.store).stderr


def test_backup_and_restore(filled):
    """A copy is whole, private and never over a file; restored, the store holds what the copy held."""
    copy = filled.directory / "copy.db"
    assert store(filled, "backup", str(copy))["size_bytes"] == copy.stat().st_size
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    again = filled.run("store", "backup", str(copy), "--store", filled.store)
    assert (again.returncode, again.stdout) == (NO, "")
    assert f"{copy} is there already, and was left alone" in again.stderr
    fill(filled, Arrival(body=b'"late"', received_at=time.time_ns() // 1000))

    refused = filled.run("store", "restore", str(copy), "--store", filled.store)
    assert (refused.returncode, "--replace" in refused.stderr) == (NO, True)
    asked = filled.run("store", "restore", str(copy), "--replace", "--store", filled.store)
    assert (asked.returncode, "--yes" in asked.stderr) == (USAGE, True)
    assert len(filled.json("events", "list")) == 4
    aside = store(filled, "restore", str(copy), "--replace", "--yes")["aside"]
    assert len(filled.json("events", "list")) == 3
    kept = filled.run("events", "list", "--json", "--store", f"sqlite:///{aside}")
    assert len(kept.stdout.splitlines()) == 4


def test_a_file_that_is_no_copy(filled):
    """Where what is to be restored is no copy, that file is blamed, and not the store, which stays."""
    wrong = filled.directory / "handlers.py"
    wrong.write_text("import upcall\n" * 100)
    for named, says in ((wrong, f"copy {wrong} is not an SQLite file"), (wrong.with_name("no"), "there is no copy at")):
        ended = filled.run("store", "restore", str(named), "--replace", "--yes", "--store", filled.store)
        assert (ended.returncode, ended.stdout) == (NOT_STARTED, "")
        assert says in ended.stderr
        assert "Name one that `upcall store backup` made." in ended.stderr
    assert len(filled.json("events", "list")) == 3


def test_backup_beside_a_listener(filled):
    """A copy is taken while a listener goes on receiving, and holds all that was acknowledged before it began."""
    listener = filled.listen()
    assert httpx2.post(listener.url, content=b'"before"').status_code == 200
    copy = filled.directory / "copy.db"
    store(filled, "backup", str(copy))
    assert httpx2.post(listener.url, content=b'"after"').status_code == 200
    assert listener.end() == 0
    bodies = filled.run("events", "list", "--json", "--store", f"sqlite:///{copy}").stdout
    assert r"\"before\"" in bodies


def test_upgrade_says_from_and_to(filled):
    """`upgrade` says from which schema to which; a second time nothing is to do."""
    found = store(filled, "upgrade")
    assert found["from"] == found["to"]
    assert "already" in filled.run("store", "upgrade", "--store", filled.store).stdout


def test_there_is_no_store(upcall):
    """What is not there cannot be kept well: one line names it, and none is made."""
    commands = [("check",), ("backup", "x.db"), ("upgrade",), ("prune",), ("forget", IMEI, "--yes")]
    for words in commands:
        ended = upcall.run("store", *words, "--store", upcall.store)
        assert (ended.returncode, ended.stdout) == (NOT_STARTED, "")
        (line,) = ended.stderr.splitlines()
        assert str(upcall.path) in line
    assert not upcall.path.exists()


def test_prune(filled):
    """What is older than its time goes; what is undone, dead, in quarantine or unread stays, and is counted."""
    now = time.time_ns() // 1000
    with open_inbox(filled.store) as inbox:
        inbox.subscribe(["note"], now)
        while inbox.enroll([Subscription("note", lambda event: ("",))], now)[0]:
            pass
    assert store(filled, "prune")["bodies"] == 0
    with open_inbox(filled.store) as inbox:
        items = inbox.claim(["note"], "me", now, lease_seconds=30, limit=9)
        inbox.settle([Outcome(item.id, "done") for item in items], "me", now)
    ended = filled.run("store", "prune", "--store", filled.store)
    assert "removed 1 body older than 90 days" in ended.stdout
    assert "kept: 1 callback undone" in ended.stderr
    assert [record["id"] for record in filled.json("events", "list") if record.get("raw", "") is None] == [1]
    assert [one["id"] for one in filled.json("quarantine", "list")] == [3]
    assert store(filled, "prune", "--body-days", "90", "--record-days", "95")["callbacks"] == 1
    assert [record["id"] for record in filled.json("events", "list")] == [2, 3]


def test_prune_keeps_records_longer_than_bodies(filled):
    """Retention that keeps a body longer than what is known of it is a mistake, and changes nothing."""
    ended = filled.run("store", "prune", "--body-days", "500", "--store", filled.store)
    assert (ended.returncode, ended.stdout) == (USAGE, "")
    assert "--record-days" in ended.stderr


def test_forget(filled):
    """A forgotten device is nowhere in the store's files, other devices stay, and what may remain is said."""
    refused = filled.run("store", "forget", IMEI, "--store", filled.store)
    assert (refused.returncode, "--yes" in refused.stderr) == (USAGE, True)
    assert filled.json("campaigns", "show", "C-1")[0]["devices"][0]["device_id"] == IMEI
    ended = filled.run("store", "forget", IMEI, "--yes", "--store", filled.store)
    assert ended.returncode == 0
    assert "in 1 body, " in ended.stdout
    assert "backups" in ended.stderr
    assert IMEI not in ended.stdout + ended.stderr
    assert [device["device_id"] for device in filled.json("campaigns", "show", "C-1")[0]["devices"]] == [OTHER]
    for path in filled.directory.glob("inbox.db*"):
        assert IMEI.encode() not in path.read_bytes()
    assert filled.json("events", "list")[0]["raw"] == message("C-1", "*" * len(IMEI), OTHER).decode()
    assert store(filled, "check")["problems"] == []
    assert store(filled, "forget", IMEI, "--yes", code=NO)["bodies"] == 0


def test_a_full_disk_still_shows(filled):
    """Where the read model cannot be written, the lists are printed all the same, and one line says so."""
    with sqlite3.connect(filled.path) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
        )
    connection.close()
    ended = filled.run("events", "list", "--store", filled.store)
    assert (ended.returncode, len(ended.stdout.splitlines())) == (0, 4)
    (line,) = ended.stderr.splitlines()
    assert "full" in line


def test_an_older_store(filled):
    """A store that an older Upcall left is not read; the line says which command upgrades it, and that says how far."""
    with sqlite3.connect(filled.path) as connection:
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    for words in (("events", "list"), ("dead", "list"), ("store", "check"), ("quarantine", "release", "--all")):
        ended = filled.run(*words, "--store", filled.store)
        assert (ended.returncode, ended.stdout) == (NOT_STARTED, "")
        (line,) = ended.stderr.splitlines()
        assert "upcall store upgrade" in line
    ended = filled.run("store", "upgrade", "--store", filled.store)
    assert "from schema 1 to 3" in ended.stdout
    assert len(filled.json("events", "list")) == 3
