"""What a handler may and may not do in the transaction that ends its work, in an SQLite store."""

from __future__ import annotations

import sqlite3

import pytest

from upcall.errors import StoreError
from upcall.inbox import Arrival, Subscription, TokenRecord, open_inbox
from upcall.inbox.sqlite.schema import OWN_TABLES

EVERY = Subscription("handler", lambda event: [""])


@pytest.fixture
def inbox(tmp_path):
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as opened:
        opened.append([Arrival(body=b"1", received_at=1), Arrival(body=b"2", received_at=1)])
        opened.add_token(TokenRecord("secret", ()), 1)
        opened.subscribe(["handler"], 1)
        opened.enroll([EVERY], 1)
        opened.claim(["handler"], "me", 1, lease_seconds=30, limit=10)
        with opened.finish(1, "me", 1) as transaction:
            transaction.execute("CREATE TABLE effects (id INTEGER PRIMARY KEY, text TEXT UNIQUE)")
        yield opened


def effects(inbox):
    return [text for (text,) in inbox._connection.execute("SELECT text FROM effects ORDER BY id")]


@pytest.mark.parametrize("table", sorted(OWN_TABLES))
@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO {} DEFAULT VALUES",
        "DELETE FROM {}",
        "DROP TABLE {}",
        "ALTER TABLE {} ADD COLUMN theirs TEXT",
        "ALTER TABLE {} RENAME TO theirs",
        "CREATE TRIGGER theirs AFTER INSERT ON {} BEGIN SELECT 1; END",
        "CREATE TEMP TRIGGER theirs AFTER INSERT ON main.{} BEGIN SELECT 1; END",
        "CREATE TEMP TABLE {} (x)",
    ],
)
def test_upcalls_own_tables_are_refused(inbox, table, sql):
    """No statement of a handler's changes a table of Upcall's, its shape, or what happens to its rows."""
    with (
        pytest.raises(sqlite3.DatabaseError, match=r"not authorized|prohibited"),
        inbox.finish(2, "me", 1) as transaction,
    ):
        transaction.execute(sql.format(table))
    assert inbox.work(2)[0].state == "leased"
    assert inbox.check() == []


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE work SET state = 'done'",
        "WITH all_of_it AS (SELECT 1) UPDATE callbacks SET body = NULL",
        "INSERT INTO effects (text) SELECT token FROM tokens",
        "SELECT * FROM tokens",
        "SELECT document FROM upcall_journal",
        "SELECT document FROM upcall_notes",
        "CREATE INDEX theirs ON callbacks (body)",
        "DROP INDEX work_ready",
        "ANALYZE",
        "CREATE TABLE upcall_next (x)",
        "CREATE VIEW upcall_next AS SELECT 1",
        "UPDATE sqlite_sequence SET seq = 0",
        "PRAGMA synchronous = OFF",
        "PRAGMA user_version = 9",
        "PRAGMA writable_schema = ON",
        "PRAGMA wal_checkpoint",
        "ATTACH ':memory:' AS theirs",
        "DETACH main",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT theirs",
        "RELEASE theirs",
        "VACUUM",
    ],
)
def test_the_transaction_the_settings_and_the_tokens_are_not_the_handlers(inbox, sql):
    """A handler can neither end the transaction nor change how the store is kept, and reads no token."""
    with pytest.raises(sqlite3.Error), inbox.finish(2, "me", 1) as transaction:
        transaction.execute(sql)
    assert effects(inbox) == []
    assert inbox._connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_trigger_of_the_handlers_does_not_reach_upcalls_tables_either(inbox):
    """A trigger on a handler's own table that writes to one of Upcall's is refused when it would fire."""
    with inbox.finish(2, "me", 1) as transaction:
        transaction.execute("CREATE TRIGGER theirs AFTER INSERT ON effects BEGIN UPDATE work SET state = 'dead'; END")
        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            transaction.execute("INSERT INTO effects (text) VALUES ('x')")
    assert {work.state for number in (1, 2) for work in inbox.work(number)} == {"done"}


def test_what_a_handler_may_do(inbox):
    """Tables, indexes and temporary tables of its own, upserts, and reading callbacks, all in one transaction."""
    with inbox.finish(2, "me", 1) as transaction:
        transaction.execute("CREATE TABLE more (x UNIQUE)")
        transaction.execute("CREATE INDEX more_x ON more (x)")
        transaction.execute("CREATE TEMP TABLE scratch (x)")
        transaction.executemany("INSERT OR REPLACE INTO more VALUES (?)", [(1,), (1,), (2,)])
        transaction.execute("ALTER TABLE more ADD COLUMN y")
        transaction.execute("INSERT INTO effects (text) SELECT CAST(body AS TEXT) FROM callbacks ORDER BY id")
        assert transaction.execute("PRAGMA table_info(more)").fetchall()
        assert transaction.execute("SELECT count(*) FROM more").fetchone() == (2,)
    assert effects(inbox) == ["1", "2"]


def test_a_cursor_that_was_left_open_does_not_hold_up_the_end(inbox):
    """Rows that a handler did not read to the end, written ones too, do not break the commit, and end with it."""
    with inbox.finish(2, "me", 1) as transaction:
        transaction.executemany("INSERT INTO effects (text) VALUES (?)", [(str(n),) for n in range(500)])
        reading = transaction.execute("SELECT text FROM effects")
        writing = transaction.execute("UPDATE effects SET text = text || '!' RETURNING text")
        assert (reading.fetchone(), writing.fetchone()) == (("0",), ("0!",))
    assert inbox.work(2)[0].state == "done"
    assert effects(inbox)[:2] == ["0!", "1!"]
    with pytest.raises(sqlite3.ProgrammingError):
        reading.fetchone()


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_statement_that_rolls_the_transaction_back_ends_it(inbox, goes_on):
    """Where a statement's own conflict clause rolls back, nothing more is written, and the work is not done."""

    def handle(transaction):
        transaction.execute("INSERT INTO effects (id) VALUES (1)")
        with pytest.raises(sqlite3.IntegrityError):
            transaction.execute("INSERT OR ROLLBACK INTO effects (id) VALUES (1)")
        if goes_on:
            transaction.execute("INSERT INTO effects (id) VALUES (2)")

    with pytest.raises(StoreError, match="was rolled back"), inbox.finish(2, "me", 1) as transaction:
        handle(transaction)
    assert effects(inbox) == []
    assert inbox.work(2)[0].state == "leased"
    assert inbox.append([Arrival(body=b"3", received_at=1)])[0].is_new


def test_a_transaction_that_is_over_writes_nothing(inbox):
    """A handler that kept its transaction cannot write through it afterwards."""
    with inbox.finish(2, "me", 1) as transaction:
        pass
    with pytest.raises(StoreError, match="is over"):
        transaction.execute("INSERT INTO effects (text) VALUES ('late')")
    assert effects(inbox) == []


def test_a_commit_that_fails_leaves_the_work_to_do(inbox, monkeypatch):
    """Where the disk refuses the end, neither the effect nor the end is kept, and the store can be used again."""

    def refuse(work_id, now):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(inbox._leases, "conclude_end", refuse)
    with pytest.raises(StoreError, match="disk I/O error"), inbox.finish(2, "me", 1) as transaction:
        transaction.execute("INSERT INTO effects (text) VALUES ('x')")
    monkeypatch.undo()
    assert effects(inbox) == []
    with inbox.finish(2, "me", 1) as transaction:
        transaction.execute("INSERT INTO effects (text) VALUES ('y')")
    assert effects(inbox) == ["y"]
