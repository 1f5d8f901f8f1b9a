"""A store that an earlier release wrote: read, brought forward, and still that release's to use."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys

import pytest

from upcall.errors import StoreError, StoreVersionError
from upcall.inbox import (
    SCHEMA_VERSION,
    Arrival,
    JournalEntry,
    ListedDelivery,
    Note,
    Outcome,
    Selection,
    State,
    Subscription,
    TokenRecord,
    Trust,
    Uptime,
    open_inbox,
    store_version,
    upgrade_store,
)
from upcall.inbox.sqlite import migration
from upcall.inbox.sqlite.schema import OWN_TABLES, SECOND, THIRD
from upcall.testing import callback

NOW = 1_800_000_000_000_000
EVERY = Subscription("handler", lambda event: [""])
ACCOUNT = "0000000001-00001"
PARTS = len(SECOND) + len(THIRD)


@pytest.fixture
def path(tmp_path, old_release):
    """Make a store of schema 1 with rows in every table."""
    file = tmp_path / "inbox.db"
    with old_release(file) as old:
        old.create()
        said = callback(account=ACCOUNT, campaign_id="c1", devices={"d1": "UpgradeFailed"})
        old.append(said, NOW)
        old.redeliver(1, NOW + 1)
        old.project(
            1,
            NOW,
            account=ACCOUNT,
            kind="upgradeProgress",
            campaign_id="c1",
            key="k1",
            device_id="d1",
            status="UpgradeFailed",
        )
        old.append(callback(account=ACCOUNT, campaign_id="c1", devices={"d1": "UpgradeSuccess"}), NOW + 2)
        old.project(2, NOW + 2, account=ACCOUNT, kind="upgradeProgress", campaign_id="c1", key="k2")
        old.append(b'{"type": "upgradeProgress", "surprise": 1}', NOW + 3, account="of-the-token")
        old.project(3, NOW + 3, account=None, kind="upgradeProgress", campaign_id=None, key="k3")
        old.append(b"not json", NOW + 4, trust="quarantined")
        old.project(4, NOW + 4, account=None, kind=None, campaign_id=None, key="k4")
        old.append(said + b" ", NOW + 5)
        old.subscribe("handler")
        for number in (1, 2, 3):
            old.enroll("handler", number)
        done, dead, _ = old.claim("handler", "gone", 5)
        old.settle(done, "gone", "done", 6)
        old.settle(dead, "gone", "dead", 6)
        old.add_token("secret", "a 1\nb")
    return file  # fmt: skip


def rows(path, sql):
    connection = sqlite3.connect(path)
    found = connection.execute(sql).fetchall()
    connection.close()
    return found


def test_an_old_store_says_what_to_do(path):
    """A store of schema 1 is refused in one line that names both schemas and the command."""
    with pytest.raises(StoreVersionError, match=r"has schema 1; this Upcall reads 3\. Run: upcall store upgrade"):
        open_inbox(str(path), create=True)
    assert store_version(str(path)) == 1


def test_the_tokens_of_an_old_store_can_be_read_before_it_is_upgraded(path):
    """A listener takes the tokens from an old store, and adds one, while the store waits for its upgrade."""
    with open_inbox(str(path), accept_old=True) as inbox:
        assert inbox.tokens() == [TokenRecord("secret", ("a 1", "b"), created_at=1)]
        inbox.add_token(TokenRecord("second", ()), 2)
        with pytest.raises(StoreVersionError):
            inbox.appender()
        with pytest.raises(StoreError):
            inbox.callbacks()
        upgrade_store(str(path))
        assert len(inbox.callbacks()) == 5
        assert [record.token for record in inbox.tokens()] == ["secret", "second"]


def test_everything_is_still_there_after_an_upgrade(path):
    """Bodies, deliveries, states, work, cursors and tokens come through as they were."""
    with open_inbox(str(path), upgrade=True) as inbox:
        assert store_version(str(path)) == SCHEMA_VERSION
        assert [record.state for record in inbox.callbacks()] == ["done", "dead", "pending", "quarantined", "pending"]
        assert inbox.callback(3).body == b'{"type": "upgradeProgress", "surprise": 1}'
        assert [(delivery.peer, delivery.source, delivery.listed) for delivery in inbox.deliveries(1)] == [
            ("192.0.2.1", "192.0.2.1", None),
            ("192.0.2.2", "192.0.2.2", None),
        ]
        assert [(work.state, work.attempts, work.replays) for work in inbox.work(2)] == [("dead", 1, ())]
        assert inbox.enroll([EVERY], NOW) == (2, [])
        assert inbox.tokens() == [TokenRecord("secret", ("a 1", "b"), created_at=1)]
        assert inbox.quarantined_bytes() == 8
        assert inbox.check() == []


def test_the_read_model_gains_what_the_old_one_did_not_keep(path):
    """Accounts, first and last words, contradictions and drift are read from the bodies again."""
    assert upgrade_store(str(path)) == (1, SCHEMA_VERSION)
    with open_inbox(str(path)) as inbox:
        assert inbox.project() == 0
        assert [record.id for record in inbox.callbacks(Selection(account="of-the-token"))] == [3]
        assert [record.id for record in inbox.callbacks(Selection(since=NOW + 2, until=NOW + 4))] == [2, 3]
        campaign, (device,) = inbox.campaign("c1")
        assert campaign.callbacks == 3
        assert (device.status, device.contradiction) == ("UpgradeFailed", "UpgradeSuccess")
        assert (device.first_at, device.first_status, device.last_at) == (NOW, "UpgradeFailed", NOW + 5)
        assert [record.first_id for record in inbox.drift() if "surprise" in record.text] == [3]


def test_what_was_old_can_be_decided_upon(path):
    """Old work is replayed and old quarantine released as new is."""
    with open_inbox(str(path), upgrade=True) as inbox:
        assert inbox.replay(Selection(state=State.DEAD), NOW, reason="again") == 1
        assert inbox.work(2)[0].replays[0].state == "dead"
        assert inbox.release_quarantined(Selection(), NOW) == 1
        while inbox.enroll([EVERY], NOW)[0]:
            pass
        claimed = inbox.claim(["handler"], "me", NOW, lease_seconds=1, limit=10)
        assert {item.callback_id for item in claimed} == {2, 3, 4, 5}


def test_the_old_release_goes_on_using_an_upgraded_store(path, old_release):
    """After an upgrade the previous release still appends, projects, enrolls, claims and settles; we read it all."""
    upgrade_store(str(path))
    with old_release(path) as old:
        number = old.append(callback(account=ACCOUNT, campaign_id="c2", devices={"d9": "Accepted"}), NOW + 10)
        old.redeliver(number, NOW + 11)
        old.project(
            number,
            NOW + 10,
            account=ACCOUNT,
            kind="upgradeProgress",
            campaign_id="c2",
            key="k9",
            device_id="d9",
            status="Accepted",
        )
        old.subscribe("second")
        old.enroll("second", number, "d9")
        (piece,) = old.claim("second", "old", NOW)
        old.settle(piece, "old", "done", NOW)
        old.add_token("third", "")
    with open_inbox(str(path)) as inbox:
        assert inbox.callback(number).state == "pending"  # "handler" has not looked
        assert inbox.work(number)[0].state == "done"
        assert inbox.campaign("c2")[1][0].status == "Accepted"
        assert inbox.work(number)[0].device_id == "d9"
        assert inbox.check() == []  # fmt: skip


def test_a_new_store_and_an_upgraded_one_have_the_same_schema(path, tmp_path):
    """What a new store is made of is what an old one becomes, table by table and index by index."""
    open_inbox(str(tmp_path / "new.db"), create=True).close()
    upgrade_store(str(path))
    new, old = tmp_path / "new.db", path
    assert {name for (name,) in rows(new, "SELECT name FROM sqlite_master WHERE type = 'table'")} - {
        "sqlite_sequence"
    } == OWN_TABLES
    names = "SELECT name FROM sqlite_master ORDER BY name"
    assert rows(new, names) == rows(old, names)
    for table in OWN_TABLES:
        columns = f"SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_info('{table}')"
        assert rows(new, columns) == rows(old, columns)


def test_an_upgrade_is_done_once(path):
    """A second upgrade finds nothing to do and changes nothing."""
    assert upgrade_store(str(path)) == (1, SCHEMA_VERSION)
    before = path.read_bytes()
    assert upgrade_store(str(path)) == (SCHEMA_VERSION, SCHEMA_VERSION)
    assert path.read_bytes() == before


@pytest.mark.parametrize("steps", [*range(0, PARTS + 1, 5), len(SECOND), PARTS])
def test_an_upgrade_that_was_killed_goes_on_where_it_stopped(path, old_release, monkeypatch, steps):
    """After any number of its steps, what is there is a store of an older schema, and another upgrade does the rest."""
    taken = []

    class Killed(BaseException):
        pass

    def step(connection, addition, add=migration._add):
        if len(taken) == steps:
            raise Killed
        taken.append(addition)
        add(connection, addition)

    monkeypatch.setattr(migration, "_add", step)
    if steps < PARTS:
        with pytest.raises(Killed):
            upgrade_store(str(path))
        assert store_version(str(path)) == (1 if steps < len(SECOND) else 2)
        with old_release(path) as old:
            old.append(b"meanwhile", NOW + 9)
    monkeypatch.undo()
    upgrade_store(str(path))
    with open_inbox(str(path)) as inbox:
        assert len(inbox.callbacks()) == (6 if steps < PARTS else 5)
        assert inbox.check() == []


def test_processes_that_upgrade_at_once(path):
    """Several upgrades of one store at once leave one upgraded store; a kill amid them hurts none."""
    script = "import sys; from upcall.inbox import upgrade_store; print(upgrade_store(sys.argv[1])[1])"
    command = [sys.executable, "-c", script, str(path)]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(4)]
    processes[0].send_signal(signal.SIGKILL)
    assert [process.wait(60) for process in processes][1:] == [0, 0, 0]
    with open_inbox(str(path)) as inbox:
        assert inbox.check() == []
        assert inbox.campaign("c1")[0].callbacks == 3


def test_progress_is_told_to_its_end(path):
    """Whoever watches an upgrade sees it come to its end, never beyond."""
    told = []
    upgrade_store(str(path), progress=lambda done, total: told.append((done, total)))
    assert all(0 <= done <= total for done, total in told)
    assert told[-1][0] == told[-1][1]


def test_a_store_that_is_not_there_has_no_version(tmp_path):
    """No store and an empty file have no version, and an upgrade of none says that there is none."""
    assert store_version(str(tmp_path / "none.db")) is None
    (tmp_path / "empty.db").touch()
    assert store_version(str(tmp_path / "empty.db")) is None
    with pytest.raises(StoreError, match="there is no store"):
        upgrade_store(str(tmp_path / "none.db"))
    with open_inbox(str(tmp_path / "new.db"), create=True, upgrade=True) as inbox:
        inbox.append([Arrival(body=b"x", received_at=1, trust=Trust.ACCEPTED)])
        inbox.subscribe(["handler"], 1)
        inbox.enroll([EVERY], 1)
        (item,) = inbox.claim(["handler"], "me", 1, lease_seconds=1, limit=1)
        inbox.settle([Outcome(item.id, "done")], "me", 1)
        assert inbox.ledger().handled == 1


class TestSecondRelease:
    """A store that the second release wrote."""

    @pytest.fixture
    def path(self, tmp_path, second_release):
        """Make a store of schema 2 whose read model says what no body does, so that making it again would show."""
        file = tmp_path / "inbox.db"
        with second_release(file) as release:
            release.create()
            for at, status in enumerate(("UpgradeFailed", "UpgradeSuccess")):
                said = callback(account=ACCOUNT, campaign_id="c1", devices={"d1": status})
                number = release.append(said, NOW + at)
                release.project(
                    number,
                    NOW + at,
                    account=ACCOUNT,
                    kind="upgradeProgress",
                    campaign_id="c1",
                    key=f"k{number}",
                    device_id="d1",
                    status="of the read model",
                )
            release.redeliver(1, NOW + 7)
            release.subscribe("handler")
            release.enroll("handler", 1)
            (piece,) = release.claim("handler", "gone", 5)
            release.settle(piece, "gone", "dead", 6)
            release.add_token("secret", ACCOUNT)
        return file

    def test_nothing_is_made_again(self, path):
        """The read model of schema 2 stays as it is, and everything else too."""
        assert upgrade_store(str(path)) == (2, SCHEMA_VERSION)
        with open_inbox(str(path)) as inbox:
            assert inbox.project() == 0
            assert inbox.campaign("c1")[1][0].status == "of the read model"
            assert [record.state for record in inbox.callbacks()] == ["dead", "pending"]
            assert inbox.tokens() == [TokenRecord("secret", (ACCOUNT,), created_at=1)]
            assert inbox.repeat_intervals() == [7]
            assert inbox.last_listed(ACCOUNT) == ListedDelivery(NOW + 7, "192.0.2.2")
            assert inbox.work(1)[0].merged_with is None
            assert inbox.check() == []

    def test_it_keeps_what_the_registration_room_needs(self, path):
        """An upgraded store keeps uptimes, the journal, notes and the lives of tokens as a new one does."""
        with open_inbox(str(path), upgrade=True) as inbox:
            inbox.set_token("secret", state="retiring", retire_at=NOW, now=1)
            inbox.beat(Uptime(listener="a", began_at=1, last_at=2))
            inbox.record(JournalEntry(topic="guard", at=1))
            inbox.put_note(Note(topic="guard", key="a", at=1))
            assert [(record.state, record.retire_at) for record in inbox.tokens()] == [("retiring", NOW)]
            assert [len(inbox.uptimes()), len(inbox.journal("guard")), len(inbox.notes("guard"))] == [1, 1, 1]

    def test_its_tokens_can_be_read_before_it_is_upgraded(self, path):
        """Each token of a store of schema 2 is live; one may be added, and lives on through the upgrade."""
        with open_inbox(str(path), accept_old=True) as inbox:
            inbox.add_token(TokenRecord("second", ()), 2)
            kept = [TokenRecord("secret", (ACCOUNT,), created_at=1), TokenRecord("second", (), created_at=2)]
            assert inbox.tokens() == kept
            with pytest.raises(StoreError):
                inbox.beat(Uptime(listener="a", began_at=1, last_at=2))
            upgrade_store(str(path))
            assert inbox.tokens() == kept
            inbox.beat(Uptime(listener="a", began_at=1, last_at=2))

    def test_the_second_release_goes_on_using_it(self, path, second_release):
        """After an upgrade the second release still opens the store, appends, works and adds tokens; we read it all."""
        with second_release(path) as release:
            upgrade_store(str(path))
            assert release.may_open()
            number = release.append(callback(account=ACCOUNT, campaign_id="c2", devices={"d9": "Accepted"}), NOW + 10)
            release.redeliver(number, NOW + 11)
            release.project(
                number, NOW + 10, account=ACCOUNT, kind="upgradeProgress", campaign_id="c2", key="k9", device_id="d9"
            )
            release.enroll("handler", number)
            (piece,) = release.claim("handler", "old", NOW)
            release.settle(piece, "old", "done", NOW)
            release.add_token("third", "")
            assert release.tokens() == [("secret", ACCOUNT), ("third", "")]
        with open_inbox(str(path)) as inbox:
            assert inbox.work(number)[0].state == "done"
            assert inbox.last_listed(ACCOUNT) == ListedDelivery(NOW + 11, "192.0.2.2")
            assert [record.state for record in inbox.tokens()] == ["live", "live"]
            assert inbox.check() == []

    def test_it_becomes_what_a_new_store_is(self, path, tmp_path):
        """A store that came from schema 2 has the tables, columns and indexes of a new one."""
        open_inbox(str(tmp_path / "new.db"), create=True).close()
        upgrade_store(str(path))
        names = "SELECT name FROM sqlite_master ORDER BY name"
        assert rows(path, names) == rows(tmp_path / "new.db", names)
        for table in OWN_TABLES:
            columns = f"SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_info('{table}')"
            assert rows(path, columns) == rows(tmp_path / "new.db", columns)

    @pytest.mark.parametrize("steps", range(len(THIRD)))
    def test_an_upgrade_that_was_killed_goes_on_where_it_stopped(self, path, second_release, monkeypatch, steps):
        """After any number of its steps there is a store of schema 2, and another upgrade finishes the rest."""
        left = iter(range(steps))
        add = migration._add

        def step(connection, addition):
            next(left)
            add(connection, addition)

        monkeypatch.setattr(migration, "_add", step)
        with pytest.raises(StopIteration):
            upgrade_store(str(path))
        monkeypatch.undo()
        with second_release(path) as release:
            assert release.may_open()
            release.append(b"meanwhile", NOW + 9)
        with open_inbox(str(path), accept_old=True) as inbox:
            assert [record.state for record in inbox.tokens()] == ["live"]
        assert upgrade_store(str(path)) == (2, SCHEMA_VERSION)
        with open_inbox(str(path)) as inbox:
            assert len(inbox.callbacks()) == 3
            assert inbox.check() == []


def test_a_handlers_table_of_a_name_that_we_use_now(path):
    """A table that a handler made under a plain name is left alone: what is new of ours begins with our prefix."""
    connection = sqlite3.connect(path)
    for name in ("journal", "notes", "reported", "uptimes"):
        connection.execute(f"CREATE TABLE {name} (mine TEXT)")
    connection.close()
    with open_inbox(str(path), upgrade=True) as inbox:
        inbox.put_note(Note(topic="guard", key="a", at=1))
        inbox.record(JournalEntry(topic="guard", at=1))
        assert inbox.check() == []
    assert rows(path, "SELECT * FROM notes") == []
