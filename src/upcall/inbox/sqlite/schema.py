"""The tables of an SQLite inbox. A release only adds columns and tables; the version stands in `user_version`."""

from __future__ import annotations

__all__ = ["APPLICATION_ID", "SCHEMA", "SCHEMA_VERSION"]

APPLICATION_ID = 0x5570_6361
"""Marks an SQLite file as an Upcall inbox."""

SCHEMA_VERSION = 1

SCHEMA = (
    # What came, before it is parsed. The bucket (half hours since 1970) stands before the digest in the index, so that
    # new rows touch the index's recent pages only, however many rows there are.
    """
    CREATE TABLE callbacks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        received_at INTEGER NOT NULL,
        bucket INTEGER NOT NULL,
        digest BLOB NOT NULL,
        trust TEXT NOT NULL,
        evidence TEXT,
        origin TEXT NOT NULL,
        peer TEXT NOT NULL,
        token_id TEXT NOT NULL,
        account TEXT,
        answer INTEGER NOT NULL,
        body BLOB
    ) STRICT
    """,
    "CREATE INDEX callbacks_recent ON callbacks (bucket, digest)",
    # Deliveries after the first, whose facts are columns of the callback itself.
    """
    CREATE TABLE deliveries (
        id INTEGER PRIMARY KEY,
        callback_id INTEGER NOT NULL REFERENCES callbacks (id),
        received_at INTEGER NOT NULL,
        peer TEXT NOT NULL,
        token_id TEXT NOT NULL,
        answer INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX deliveries_of ON deliveries (callback_id)",
    # What the parser made of a callback. Can be made again from callbacks at any time.
    """
    CREATE TABLE events (
        callback_id INTEGER PRIMARY KEY REFERENCES callbacks (id),
        received_at INTEGER NOT NULL,
        account TEXT,
        kind TEXT,
        campaign_id TEXT,
        key TEXT NOT NULL,
        duplicate TEXT NOT NULL,
        duplicate_of INTEGER
    ) STRICT
    """,
    "CREATE INDEX events_key ON events (key, callback_id)",
    "CREATE INDEX events_campaign ON events (campaign_id, callback_id) WHERE campaign_id IS NOT NULL",
    """
    CREATE TABLE campaigns (
        campaign_id TEXT NOT NULL,
        account TEXT NOT NULL,
        name TEXT,
        status TEXT,
        first_at INTEGER NOT NULL,
        last_at INTEGER NOT NULL,
        callbacks INTEGER NOT NULL,
        PRIMARY KEY (campaign_id, account)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE devices (
        campaign_id TEXT NOT NULL,
        account TEXT NOT NULL,
        device_id TEXT NOT NULL,
        status TEXT,
        reason TEXT,
        updated_at INTEGER NOT NULL,
        contradiction TEXT,
        PRIMARY KEY (campaign_id, account, device_id)
    ) STRICT, WITHOUT ROWID
    """,
    # Who has looked at which callbacks, and what is left to do.
    """
    CREATE TABLE subscribers (
        name TEXT PRIMARY KEY,
        cursor INTEGER NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE work (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        callback_id INTEGER NOT NULL REFERENCES callbacks (id),
        subscriber TEXT NOT NULL,
        device_id TEXT NOT NULL,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        due_at INTEGER NOT NULL,
        owner TEXT,
        error TEXT,
        finished_at INTEGER,
        UNIQUE (callback_id, subscriber, device_id)
    ) STRICT
    """,
    # A subscriber at a time: the backlog of one that no worker here serves is not read to find another's work.
    "CREATE INDEX work_due ON work (subscriber, due_at, id) WHERE state IN ('pending', 'leased')",
    "CREATE INDEX work_dead ON work (id) WHERE state = 'dead'",
    """
    CREATE TABLE tokens (
        token TEXT PRIMARY KEY,
        accounts TEXT NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE TABLE cursors (name TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "INSERT INTO cursors (name, position) VALUES ('projection', 0)",
)
