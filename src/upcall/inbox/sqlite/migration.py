"""Bringing a store forward: one short transaction a step, each of which may be the last before a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from upcall.inbox.sqlite.connection import connect, set_version, store_errors, stored_version, transaction
from upcall.inbox.sqlite.digests import file_digests
from upcall.inbox.sqlite.projection import Projection
from upcall.inbox.sqlite.schema import SCHEMA_VERSION, SECOND, SUPERSEDED, THIRD, Addition

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["upgrade", "version_of"]

PROJECTION_BATCH = 1000
FILED_AT_ONCE = 20_000
_READ_MODEL = ("campaigns", "devices", "drift", "spans")
_FILED: Final = 2
"""The schema in which copies are looked up among filed digests, and whose read model says more."""
_STEPS: Final = {2: SECOND, 3: THIRD}
_PARTS: Final = sum(map(len, _STEPS.values()))


def upgrade(path: Path, progress: Callable[[int, int], None], *, catch_up: bool) -> tuple[int, int]:
    """Bring a store to this Upcall's schema.

    It goes a schema at a time. It may be stopped at any point and called again, also by several processes at once. The
    previous Upcall can use the store before, meanwhile and afterwards.

    Args:
        path: The store's file.
        progress: Called with how many parts of how many are done.
        catch_up: Whether to make the read model again before returning; whoever looks next does it otherwise.

    Returns:
        The schema's number before and after.
    """
    connection = connect(path, accept_old=True)
    try:
        with store_errors(path):
            before = stored_version(connection)
            done = 0
            for version, additions in _STEPS.items():
                for addition in additions:
                    progress(done, _PARTS + 1)
                    done += 1
                    if before < version:
                        with transaction(connection):
                            _add(connection, addition)
                if before < version:
                    _conclude(connection, version)
            if catch_up:
                _catch_up(connection, progress)
            progress(_PARTS + 1, _PARTS + 1)
            return before, SCHEMA_VERSION
    finally:
        connection.close()


def version_of(path: Path) -> int | None:
    """Return the number of a store's schema, None where there is no store or an empty file."""
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        return None
    connection = connect(path, accept_old=True)
    try:
        with store_errors(path):
            return stored_version(connection)
    finally:
        connection.close()


def _add(connection: sqlite3.Connection, addition: Addition) -> None:
    """Take one step, unless it was taken before."""
    if addition.is_column:
        columns = {row[1] for row in connection.execute(f"PRAGMA table_xinfo({addition.table})")}
        if addition.column not in columns:
            connection.execute(f"ALTER TABLE {addition.table} ADD COLUMN {addition.sql}")
        return
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if addition.table not in names:
        connection.execute(addition.sql)


def _file_some(connection: sqlite3.Connection) -> bool:
    """File some digests; tell whether there are more. What comes after the last step, its appender files."""
    with transaction(connection):
        filed, newest = connection.execute(
            "SELECT coalesce((SELECT position FROM cursors WHERE name = 'filed'), 0),"
            " coalesce((SELECT max(id) FROM callbacks), 0)"
        ).fetchone()
        upto = min(filed + FILED_AT_ONCE, newest)
        if upto > filed:
            file_digests(connection, filed, upto)
    return bool(upto < newest)


def _conclude(connection: sqlite3.Connection, version: int) -> None:
    """Say that the store has the next schema, unless somebody was quicker."""
    if version == _FILED:
        while _file_some(connection):
            pass
    with transaction(connection):
        if stored_version(connection) < version:
            if version == _FILED:
                _begin_again(connection)
            set_version(connection, version)


def _begin_again(connection: sqlite3.Connection) -> None:
    """Let the read model begin again from its first callback.

    What schema 2 keeps beside it (first and last words, contradictions, drift, accounts) is in the bodies, and
    schema 1 removed none.
    """
    connection.execute(SUPERSEDED)
    for table in _READ_MODEL:
        connection.execute(f"DELETE FROM {table}")
    connection.execute("UPDATE cursors SET position = 0 WHERE name = 'projection'")


def _catch_up(connection: sqlite3.Connection, progress: Callable[[int, int], None]) -> None:
    projection = Projection(connection)
    while projection.advance(PROJECTION_BATCH):
        done, total = projection.position()
        progress(_PARTS + done, _PARTS + 1 + total)
