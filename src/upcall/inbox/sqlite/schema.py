"""The tables of an SQLite inbox; the version stands in `user_version`.

A release only adds columns, tables and indexes, so that the one before it can still use the store: a new store is
made by the same statements that bring an old one forward. Schema 2 also takes an index away (`SUPERSEDED`), without
which the first release would be slow, not wrong. Tables and indexes that are new since schema 2 begin with
`OWN_PREFIX`: a handler may have tables of any other name.
"""

from __future__ import annotations

from typing import Final

import msgspec

from upcall.inbox.stores import SCHEMA_VERSION

__all__ = [
    "APPLICATION_ID",
    "LEAST_READER",
    "ORIGINAL",
    "OWN_PREFIX",
    "OWN_TABLES",
    "SCHEMA_VERSION",
    "SECOND",
    "SUPERSEDED",
    "THIRD",
    "Addition",
]

APPLICATION_ID = 0x5570_6361
"""Marks an SQLite file as an Upcall inbox."""

OWN_TABLES: Final = frozenset(
    {
        "callbacks",
        "campaigns",
        "cursors",
        "deliveries",
        "devices",
        "digests",
        "drift",
        "events",
        "marks",
        "releases",
        "replays",
        "spans",
        "subscribers",
        "tokens",
        "upcall_journal",
        "upcall_notes",
        "upcall_reported",
        "upcall_uptimes",
        "work",
    }
)
OWN_PREFIX: Final = "upcall_"
"""Names that a later release may take for tables; a handler's own must not begin so."""

ORIGINAL: Final = (
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
    # What the parser made of a callback. Can be made again from callbacks that still have their body.
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
"""Schema 1."""


class Addition(msgspec.Struct, frozen=True):
    """Hold what one step adds to a schema.

    Args:
        table: The table that gets columns, or the new table or index.
        sql: A column's definition, or the whole statement.
        is_column: Whether it is a column.
    """

    table: str
    sql: str
    is_column: bool = False

    @property
    def column(self) -> str:
        """Return the name of the column that is added."""
        return self.sql.split()[0]


def _columns(table: str, *definitions: str) -> tuple[Addition, ...]:
    return tuple(Addition(table, definition, is_column=True) for definition in definitions)


def _table(name: str, columns: str) -> Addition:
    return Addition(name, f"CREATE TABLE {name} ({columns}) STRICT")


def _keyed_table(name: str, columns: str) -> Addition:
    return Addition(name, f"CREATE TABLE {name} ({columns}) STRICT, WITHOUT ROWID")


def _index(name: str, on: str) -> Addition:
    return Addition(name, f"CREATE INDEX {name} ON {on}")


SUPERSEDED: Final = "DROP INDEX IF EXISTS callbacks_recent"
"""The index of schema 1 in which copies were looked up."""

SECOND: Final = (
    # No source: the peer itself. Listed: 0, 1, or nobody looked.
    *_columns(
        "callbacks",
        "source TEXT",
        "listed INTEGER",
        "released_at INTEGER",
        "dropped_at INTEGER",
        "redacted_at INTEGER",
    ),
    *_columns("deliveries", "source TEXT", "listed INTEGER"),
    # What `callbacks_recent` was: see `upcall.inbox.sqlite.digests`.
    _keyed_table(
        "digests",
        "bucket INTEGER NOT NULL, head BLOB NOT NULL, callback_id INTEGER NOT NULL,"
        " PRIMARY KEY (bucket, head, callback_id)",
    ),
    # Both carry their condition, so that an honest callback costs them nothing.
    _index("callbacks_quarantined", "callbacks (id, length(body)) WHERE trust = 'quarantined' AND dropped_at IS NULL"),
    _index("callbacks_dropped", "callbacks (id) WHERE dropped_at IS NOT NULL"),
    # The account is the message's, else the token's.
    *_columns("events", "body_gone INTEGER NOT NULL DEFAULT 0"),
    _index("events_kind", "events (kind, callback_id) WHERE kind IS NOT NULL"),
    _index("events_account", "events (account, callback_id) WHERE account IS NOT NULL"),
    _index("events_age", "events (body_gone, received_at)"),
    # Which callbacks each half hour holds, so that a time becomes a range of numbers.
    _table("spans", "bucket INTEGER PRIMARY KEY, first_id INTEGER NOT NULL, last_id INTEGER NOT NULL"),
    *_columns("campaigns", "contradiction TEXT"),
    _index("campaigns_last", "campaigns (last_at)"),
    *_columns(
        "devices",
        "first_at INTEGER NOT NULL DEFAULT 0",
        "first_status TEXT",
        "last_at INTEGER NOT NULL DEFAULT 0",
        "last_status TEXT",
    ),
    _table(
        "drift",
        "text TEXT PRIMARY KEY, callbacks INTEGER NOT NULL, first_id INTEGER NOT NULL, first_at INTEGER NOT NULL,"
        " last_id INTEGER NOT NULL, last_at INTEGER NOT NULL",
    ),
    # What was let out of quarantine, in that order; each subscriber and the read model have a position here too.
    _table(
        "releases",
        "seq INTEGER PRIMARY KEY AUTOINCREMENT, callback_id INTEGER NOT NULL REFERENCES callbacks (id),"
        " released_at INTEGER NOT NULL",
    ),
    _index("releases_of", "releases (callback_id)"),
    *_columns(
        "subscribers",
        "released INTEGER NOT NULL DEFAULT 0",
        # What became of its attempts since it is known: counted by whoever records it, never taken back.
        "done INTEGER NOT NULL DEFAULT 0",
        "failed INTEGER NOT NULL DEFAULT 0",
    ),
    *_columns("work", "order_key TEXT", "replays INTEGER NOT NULL DEFAULT 0"),
    _index("work_ready", "work (subscriber, due_at, id) WHERE state IN ('pending', 'leased') AND order_key IS NULL"),
    _index(
        "work_order",
        "work (subscriber, order_key, id) WHERE state IN ('pending', 'leased') AND order_key IS NOT NULL",
    ),
    _index("work_open", "work (subscriber, callback_id) WHERE state IN ('pending', 'leased')"),
    _index("work_leased", "work (owner, subscriber) WHERE state = 'leased'"),
    _index("work_given_up", "work (callback_id, subscriber) WHERE state = 'dead'"),
    _index("work_dropped", "work (callback_id) WHERE state = 'dropped'"),
    _table(
        "replays",
        "id INTEGER PRIMARY KEY, work_id INTEGER NOT NULL, replayed_at INTEGER NOT NULL, reason TEXT NOT NULL,"
        " state TEXT NOT NULL, attempts INTEGER NOT NULL, error TEXT",
    ),
    _index("replays_of", "replays (work_id)"),
    # How far a file of the spool was imported.
    _table("marks", "name TEXT PRIMARY KEY, position INTEGER NOT NULL"),
)
"""What schema 2 adds."""

THIRD: Final = (
    # How a generated token lives: `upcall.inbox.TokenRecord` names the states.
    *_columns("tokens", "state TEXT NOT NULL DEFAULT 'live'", "retire_at INTEGER", "retired_at INTEGER"),
    # The reconciled callback that said the same before: nobody was called for this work.
    *_columns("work", "merged_with INTEGER"),
    # When listeners accepted callbacks: a row a process. Tokens by their ids, a line each.
    _keyed_table(
        "upcall_uptimes",
        "listener TEXT PRIMARY KEY, began_at INTEGER NOT NULL, last_at INTEGER NOT NULL, ended INTEGER NOT NULL,"
        " tokens TEXT NOT NULL, given INTEGER NOT NULL, url TEXT NOT NULL",
    ),
    _index("upcall_uptimes_last", "upcall_uptimes (last_at)"),
    # What the registration room did and saw, and what it knows now; each document is JSON.
    _table(
        "upcall_journal",
        "id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, at INTEGER NOT NULL, account TEXT NOT NULL,"
        " document TEXT NOT NULL",
    ),
    _index("upcall_journal_topic", "upcall_journal (topic, id)"),
    _keyed_table(
        "upcall_notes",
        "topic TEXT NOT NULL, key TEXT NOT NULL, at INTEGER NOT NULL, document TEXT NOT NULL, PRIMARY KEY (topic, key)",
    ),
    # What a reconciled callback said, until a real one that says the same merged with it. No device: of the campaign.
    _keyed_table(
        "upcall_reported",
        "campaign_id TEXT NOT NULL, device_id TEXT NOT NULL, state TEXT NOT NULL, account TEXT NOT NULL,"
        " callback_id INTEGER NOT NULL, merged_by INTEGER, PRIMARY KEY (campaign_id, device_id, state, account)",
    ),
    _index("upcall_reported_by", "upcall_reported (callback_id)"),
)
"""What schema 3 adds."""

LEAST_READER: Final = 2
"""The oldest schema whose Upcall can open a store of this one."""
