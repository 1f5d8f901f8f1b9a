"""Stores to begin with: as the earlier releases made them, in their own statements, and one full of rows."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3

import pytest

from upcall.inbox import open_inbox

SCHEMA = """
CREATE TABLE callbacks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, received_at INTEGER NOT NULL, bucket INTEGER NOT NULL, digest BLOB NOT NULL,
    trust TEXT NOT NULL, evidence TEXT, origin TEXT NOT NULL, peer TEXT NOT NULL, token_id TEXT NOT NULL, account TEXT,
    answer INTEGER NOT NULL, body BLOB
) STRICT;
CREATE INDEX callbacks_recent ON callbacks (bucket, digest);
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY, callback_id INTEGER NOT NULL REFERENCES callbacks (id), received_at INTEGER NOT NULL,
    peer TEXT NOT NULL, token_id TEXT NOT NULL, answer INTEGER NOT NULL
) STRICT;
CREATE INDEX deliveries_of ON deliveries (callback_id);
CREATE TABLE events (
    callback_id INTEGER PRIMARY KEY REFERENCES callbacks (id), received_at INTEGER NOT NULL, account TEXT, kind TEXT,
    campaign_id TEXT, key TEXT NOT NULL, duplicate TEXT NOT NULL, duplicate_of INTEGER
) STRICT;
CREATE INDEX events_key ON events (key, callback_id);
CREATE INDEX events_campaign ON events (campaign_id, callback_id) WHERE campaign_id IS NOT NULL;
CREATE TABLE campaigns (
    campaign_id TEXT NOT NULL, account TEXT NOT NULL, name TEXT, status TEXT, first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL, callbacks INTEGER NOT NULL, PRIMARY KEY (campaign_id, account)
) STRICT, WITHOUT ROWID;
CREATE TABLE devices (
    campaign_id TEXT NOT NULL, account TEXT NOT NULL, device_id TEXT NOT NULL, status TEXT, reason TEXT,
    updated_at INTEGER NOT NULL, contradiction TEXT, PRIMARY KEY (campaign_id, account, device_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE subscribers (
    name TEXT PRIMARY KEY, cursor INTEGER NOT NULL, created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE work (
    id INTEGER PRIMARY KEY AUTOINCREMENT, callback_id INTEGER NOT NULL REFERENCES callbacks (id),
    subscriber TEXT NOT NULL, device_id TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER NOT NULL, owner TEXT, error TEXT, finished_at INTEGER, UNIQUE (callback_id, subscriber, device_id)
) STRICT;
CREATE INDEX work_due ON work (subscriber, due_at, id) WHERE state IN ('pending', 'leased');
CREATE INDEX work_dead ON work (id) WHERE state = 'dead';
CREATE TABLE tokens (
    token TEXT PRIMARY KEY, accounts TEXT NOT NULL, created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE cursors (name TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO cursors (name, position) VALUES ('projection', 0);
PRAGMA application_id = 0x55706361;
PRAGMA user_version = 1;
"""

SECOND_SCHEMA = """
ALTER TABLE callbacks ADD COLUMN source TEXT;
ALTER TABLE callbacks ADD COLUMN listed INTEGER;
ALTER TABLE callbacks ADD COLUMN released_at INTEGER;
ALTER TABLE callbacks ADD COLUMN dropped_at INTEGER;
ALTER TABLE callbacks ADD COLUMN redacted_at INTEGER;
ALTER TABLE deliveries ADD COLUMN source TEXT;
ALTER TABLE deliveries ADD COLUMN listed INTEGER;
CREATE TABLE digests (
    bucket INTEGER NOT NULL, head BLOB NOT NULL, callback_id INTEGER NOT NULL, PRIMARY KEY (bucket, head, callback_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX callbacks_quarantined ON callbacks (id, length(body)) WHERE trust = 'quarantined' AND dropped_at IS NULL;
CREATE INDEX callbacks_dropped ON callbacks (id) WHERE dropped_at IS NOT NULL;
ALTER TABLE events ADD COLUMN body_gone INTEGER NOT NULL DEFAULT 0;
CREATE INDEX events_kind ON events (kind, callback_id) WHERE kind IS NOT NULL;
CREATE INDEX events_account ON events (account, callback_id) WHERE account IS NOT NULL;
CREATE INDEX events_age ON events (body_gone, received_at);
CREATE TABLE spans (bucket INTEGER PRIMARY KEY, first_id INTEGER NOT NULL, last_id INTEGER NOT NULL) STRICT;
ALTER TABLE campaigns ADD COLUMN contradiction TEXT;
CREATE INDEX campaigns_last ON campaigns (last_at);
ALTER TABLE devices ADD COLUMN first_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN first_status TEXT;
ALTER TABLE devices ADD COLUMN last_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN last_status TEXT;
CREATE TABLE drift (
    text TEXT PRIMARY KEY, callbacks INTEGER NOT NULL, first_id INTEGER NOT NULL, first_at INTEGER NOT NULL,
    last_id INTEGER NOT NULL, last_at INTEGER NOT NULL
) STRICT;
CREATE TABLE releases (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, callback_id INTEGER NOT NULL REFERENCES callbacks (id),
    released_at INTEGER NOT NULL
) STRICT;
CREATE INDEX releases_of ON releases (callback_id);
ALTER TABLE subscribers ADD COLUMN released INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscribers ADD COLUMN done INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscribers ADD COLUMN failed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE work ADD COLUMN order_key TEXT;
ALTER TABLE work ADD COLUMN replays INTEGER NOT NULL DEFAULT 0;
CREATE INDEX work_ready ON work (subscriber, due_at, id) WHERE state IN ('pending', 'leased') AND order_key IS NULL;
CREATE INDEX work_order ON work (subscriber, order_key, id)
    WHERE state IN ('pending', 'leased') AND order_key IS NOT NULL;
CREATE INDEX work_open ON work (subscriber, callback_id) WHERE state IN ('pending', 'leased');
CREATE INDEX work_leased ON work (owner, subscriber) WHERE state = 'leased';
CREATE INDEX work_given_up ON work (callback_id, subscriber) WHERE state = 'dead';
CREATE INDEX work_dropped ON work (callback_id) WHERE state = 'dropped';
CREATE TABLE replays (
    id INTEGER PRIMARY KEY, work_id INTEGER NOT NULL, replayed_at INTEGER NOT NULL, reason TEXT NOT NULL,
    state TEXT NOT NULL, attempts INTEGER NOT NULL, error TEXT
) STRICT;
CREATE INDEX replays_of ON replays (work_id);
CREATE TABLE marks (name TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT;
DROP INDEX callbacks_recent;
PRAGMA user_version = 2;
"""


class OldRelease:
    """Do to a store what the first release did, in its own words."""

    def __init__(self, path):
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")

    def close(self):
        self.connection.close()

    def create(self):
        self.connection.executescript(SCHEMA)

    def append(self, body, at, *, trust="accepted", account=None):
        return self.connection.execute(
            "INSERT INTO callbacks (received_at, bucket, digest, trust, evidence, origin, peer, token_id, account,"
            " answer, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (at, at // 1_800_000_000, hashlib.sha256(body).digest(), trust, None, "received", "192.0.2.1", "tok1",
             account, 200, body),
        ).lastrowid  # fmt: skip

    def redeliver(self, callback_id, at):
        self.connection.execute(
            "INSERT INTO deliveries (callback_id, received_at, peer, token_id, answer) VALUES (?, ?, ?, ?, ?)",
            (callback_id, at, "192.0.2.2", "tok1", 200),
        )

    def project(self, callback_id, at, *, account, kind, campaign_id, key, device_id=None, status=None):
        self.connection.execute(
            "INSERT OR REPLACE INTO events (callback_id, received_at, account, kind, campaign_id, key, duplicate,"
            " duplicate_of) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (callback_id, at, account, kind, campaign_id, key, "first", None),
        )
        if campaign_id is not None:
            self.connection.execute(
                "INSERT OR REPLACE INTO campaigns (campaign_id, account, name, status, first_at, last_at, callbacks)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (campaign_id, account or "", None, None, at, at, 1),
            )
        if device_id is not None:
            self.connection.execute(
                "INSERT OR REPLACE INTO devices (campaign_id, account, device_id, status, reason, updated_at,"
                " contradiction) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (campaign_id, account or "", device_id, status, None, at, None),
            )
        self.connection.execute("UPDATE cursors SET position = ? WHERE name = 'projection'", (callback_id,))

    def subscribe(self, name):
        self.connection.execute(
            "INSERT OR IGNORE INTO subscribers (name, cursor, created_at) VALUES (?, ?, ?)", (name, 0, 1)
        )

    def enroll(self, name, callback_id, device_id=""):
        self.connection.execute(
            "INSERT OR IGNORE INTO work (callback_id, subscriber, device_id, state, due_at)"
            " VALUES (?, ?, ?, 'pending', ?)",
            (callback_id, name, device_id, 1),
        )
        self.connection.execute("UPDATE subscribers SET cursor = max(cursor, ?) WHERE name IN (?)", (callback_id, name))

    def claim(self, name, owner, now):
        due = self.connection.execute(
            "SELECT due_at, id FROM work WHERE state IN ('pending', 'leased') AND subscriber = ? AND due_at <= ?"
            " ORDER BY due_at, id LIMIT ?",
            (name, now, 100),
        ).fetchall()
        for _, number in due:
            self.connection.execute(
                "UPDATE work SET state = 'leased', owner = ?, due_at = ?, attempts = attempts + 1 WHERE id IN (?)",
                (owner, now + 30_000_000, number),
            )
        return [number for _, number in due]

    def settle(self, number, owner, state, now):
        self.connection.execute(
            "UPDATE work SET state = ?, due_at = ?, error = ?, owner = NULL, finished_at = ?"
            " WHERE id = ? AND owner = ? AND state = 'leased'",
            (state, now, "trace" if state == "dead" else None, now, number, owner),
        )

    def add_token(self, token, accounts):
        self.connection.execute(
            "INSERT INTO tokens (token, accounts, created_at) VALUES (?, ?, ?)", (token, accounts, 1)
        )


class SecondRelease(OldRelease):
    """Do to a store what the second release did, in its own words."""

    def create(self):
        super().create()
        self.connection.executescript(SECOND_SCHEMA)

    def may_open(self):
        """Tell whether the release would have opened a store."""
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        row = self.connection.execute("SELECT position FROM cursors WHERE name = 'least_reader'").fetchone()
        return version <= 2 or (row is not None and row[0] <= 2)

    def append(self, body, at, *, trust="accepted", account=None):
        number = self.connection.execute(
            "INSERT INTO callbacks (received_at, bucket, digest, trust, evidence, origin, peer, source, listed,"
            " token_id, account, answer, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (at, at // 1_800_000_000, hashlib.sha256(body).digest(), trust, None, "received", "192.0.2.1", None, 1,
             "tok1", account, 200, body),
        ).lastrowid  # fmt: skip
        self.connection.execute(
            "INSERT OR IGNORE INTO digests (bucket, head, callback_id)"
            " SELECT bucket, substr(digest, 1, 8), id FROM callbacks WHERE id = ?",
            (number,),
        )
        self.connection.execute(
            "INSERT INTO cursors (name, position) VALUES ('filed', ?)"
            " ON CONFLICT (name) DO UPDATE SET position = max(position, excluded.position)",
            (number,),
        )
        return number

    def redeliver(self, callback_id, at):
        self.connection.execute(
            "INSERT INTO deliveries (callback_id, received_at, peer, source, listed, token_id, answer)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (callback_id, at, "192.0.2.2", None, 1, "tok1", 200),
        )

    def project(self, callback_id, at, **said):
        super().project(callback_id, at, **said)
        self.connection.execute(
            "INSERT INTO spans (bucket, first_id, last_id) VALUES (?1, ?2, ?2)"
            " ON CONFLICT (bucket) DO UPDATE SET last_id = ?2",
            (at // 1_800_000_000, callback_id),
        )

    def tokens(self):
        return self.connection.execute("SELECT token, accounts FROM tokens ORDER BY created_at, token").fetchall()


def _use(release_class):
    @contextlib.contextmanager
    def use(path):
        release = release_class(path)
        try:
            yield release
        finally:
            release.close()

    return use


@pytest.fixture
def old_release():
    """Give, for a store's path, what the first release did to it."""
    return _use(OldRelease)


@pytest.fixture
def second_release():
    """Give, for a store's path, what the second release did to it."""
    return _use(SecondRelease)


@pytest.fixture
def filled(tmp_path):
    """Make a store of so many callbacks, projected and done by one subscriber but the last hundred, in no time."""

    def fill(rows, *, micros_apart=60_000_000):
        path = tmp_path / "filled.db"
        inbox = open_inbox(str(path), create=True)
        numbers = range(1, rows + 1)
        at = {number: 1_700_000_000_000_000 + number * micros_apart for number in numbers}
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO callbacks (id, received_at, bucket, digest, trust, origin, peer, token_id, answer, body)"
            " VALUES (?, ?, ?, ?, ?, 'received', '', '', 200, ?)",
            (
                (number, at[number], at[number] // 1_800_000_000, hashlib.sha256(b"%d" % number).digest(),
                 "accepted" if number % 100 else "quarantined", b"%d" % number)
                for number in numbers
            ),
        )  # fmt: skip
        connection.executemany(
            "INSERT INTO events (callback_id, received_at, account, kind, campaign_id, key, duplicate)"
            " VALUES (?, ?, ?, ?, ?, ?, 'first')",
            (
                (number, at[number], f"a{number % 3}", f"k{number % 5}", f"c{number % 50}", f"{number:032}")
                for number in numbers
            ),
        )
        connection.executemany(
            "INSERT OR REPLACE INTO spans (bucket, first_id, last_id) VALUES (?1, coalesce((SELECT first_id FROM spans"
            " WHERE bucket = ?1), ?2), ?2)",
            ((at[number] // 1_800_000_000, number) for number in numbers),
        )
        connection.execute("INSERT INTO subscribers (name, cursor, created_at) VALUES ('handler', ?, 1)", (rows - 100,))
        connection.executemany(
            "INSERT INTO work (callback_id, subscriber, device_id, state, due_at) VALUES (?, 'handler', '', ?, 0)",
            ((number, _state(number)) for number in numbers[:-100] if number % 100),
        )
        connection.execute("UPDATE cursors SET position = ? WHERE name = 'projection'", (rows,))
        connection.execute("COMMIT")
        connection.close()
        opened.append(inbox)
        return inbox

    opened = []
    yield fill
    for inbox in opened:
        inbox.close()


def _state(number):
    return {1: "dead", 2: "pending"}.get(number % 1000, "done")
