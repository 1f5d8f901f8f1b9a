"""Opening stores: what a URL names, what is refused and in which words, and who may read the file."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from upcall.errors import SettingsError, StoreError, StoreUnreadableError, StoreVersionError
from upcall.inbox import Arrival, durable, open_inbox
from upcall.inbox.sqlite.schema import SCHEMA_VERSION
from upcall.inbox.stores import store_path


def make_store(path):
    with open_inbox(str(path), create=True) as inbox:
        inbox.append([Arrival(body=b"kept", received_at=1)])
    return path


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///inbox.db", "inbox.db"),
        ("sqlite:///some/inbox.db", "some/inbox.db"),
        ("sqlite:////var/lib/inbox.db", "/var/lib/inbox.db"),
        ("/var/lib/inbox.db", "/var/lib/inbox.db"),
        ("inbox.db", "inbox.db"),
        ("a b/ü.db", "a b/ü.db"),
    ],
)
def test_what_a_url_names(url, path):
    """Three slashes are relative, four absolute, and a plain path is what it says."""
    assert store_path(url) == Path(path)


@pytest.mark.parametrize(
    "url",
    ["", "sqlite://", "sqlite:///", "sqlite://inbox.db", ":memory:", "sqlite:///:memory:", "postgresql://h/db", "mysql:///x"],
)  # fmt: skip
def test_urls_that_name_no_store(url):
    """A URL of another kind, or one that names no file, is refused with the three forms that there are."""
    with pytest.raises(
        SettingsError, match=r"sqlite:////absolute/inbox\.db, sqlite:///relative/inbox\.db or a plain path"
    ):
        open_inbox(url, create=True)


def test_an_inboxs_url_opens_it_again(tmp_path, monkeypatch):
    """The URL that an inbox names is one that opens the same store, relative or absolute."""
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///relative.db", f"sqlite:///{tmp_path}/absolute.db", "plain.db"):
        with open_inbox(url, create=True) as inbox:
            inbox.append([Arrival(body=url.encode(), received_at=1)])
        with open_inbox(inbox.url) as again:
            assert [record.body for record in again.callbacks()] == [url.encode()]


def test_a_store_that_is_not_there(tmp_path):
    """A reader makes no store: it says that there is none and who makes one."""
    path = tmp_path / "inbox.db"
    with pytest.raises(StoreUnreadableError, match=r"there is no store at .*inbox\.db.*upcall listen"):
        open_inbox(str(path))
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_no_store(tmp_path):
    """A directory in the store's place is named as one."""
    for create in (True, False):
        with pytest.raises(StoreUnreadableError, match="is a directory"):
            open_inbox(str(tmp_path), create=create)


@pytest.mark.parametrize("size", [2, 20, 100, 4096, 100_000])
def test_a_file_of_something_else(tmp_path, size):
    """A file that SQLite did not write is refused in one line, and left as it is."""
    path = tmp_path / "notes.txt"
    content = b"these are somebody's notes\n" * (size // 27 + 1)
    path.write_bytes(content[:size])
    for create in (True, False):
        with pytest.raises(StoreUnreadableError, match=r"notes\.txt is not an SQLite file"):
            open_inbox(str(path), create=create)
    assert path.read_bytes() == content[:size]
    assert list(tmp_path.iterdir()) == [path]


def test_another_programs_database(tmp_path):
    """Another program's SQLite file is refused, and not a byte of it is changed, its journal mode included."""
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    before = path.read_bytes()
    for create in (True, False):
        with pytest.raises(StoreUnreadableError, match="not an Upcall inbox"):
            open_inbox(str(path), create=create)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("pragma", ["user_version", "application_id"])
def test_another_programs_empty_database(tmp_path, pragma):
    """A database without tables that carries another program's mark is that program's."""
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute(f"PRAGMA {pragma} = 7")
    other.close()
    with pytest.raises(StoreUnreadableError, match="not an Upcall inbox"):
        open_inbox(str(path), create=True)


def test_an_empty_file(tmp_path):
    """An empty file is no store to a reader, and is made one by whoever may create."""
    path = tmp_path / "inbox.db"
    path.touch()
    with pytest.raises(StoreUnreadableError, match="is empty"):
        open_inbox(str(path))
    make_store(path)
    open_inbox(str(path)).close()


def test_a_newer_store_that_this_version_may_use(tmp_path):
    """A newer Upcall that only added to the schema says so, and this one goes on using the store."""
    path = tmp_path / "inbox.db"
    open_inbox(str(path), create=True).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as newer:
        newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        newer.execute("UPDATE cursors SET position = ? WHERE name = 'least_reader'", (SCHEMA_VERSION,))
    with open_inbox(str(path)) as inbox:
        assert inbox.ledger().stored == 0


def test_a_store_of_a_newer_version(tmp_path):
    """A store that a newer Upcall wrote is refused with both versions."""
    path = make_store(tmp_path / "inbox.db")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as newer:
        newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        newer.execute("UPDATE cursors SET position = ? WHERE name = 'least_reader'", (SCHEMA_VERSION + 1,))
    for create in (True, False):
        with pytest.raises(StoreVersionError, match=rf"schema {SCHEMA_VERSION + 1}; this one knows {SCHEMA_VERSION}"):
            open_inbox(str(path), create=create)


def test_a_store_behind_a_link(tmp_path):
    """A link is a store's name like any other: callbacks are kept in the file behind it, whose log lies there too."""
    path = make_store(tmp_path / "inbox.db")
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.db"
    link.symlink_to(path)
    make_store(link)
    with open_inbox(str(path)) as inbox:
        assert inbox.ledger().deliveries == 2


def test_a_parent_that_is_a_file(tmp_path):
    """A path through a file is refused with the system's reason."""
    (tmp_path / "file").touch()
    for create in (True, False):
        with pytest.raises(StoreUnreadableError):
            open_inbox(str(tmp_path / "file" / "inbox.db"), create=create)


@pytest.mark.parametrize("name", ["n" * 300, "nul\0.db"])
def test_names_that_no_file_can_have(tmp_path, name):
    """A name that the system refuses is reported as the store's, never as a bare system error."""
    for create in (True, False):
        with pytest.raises(StoreUnreadableError):
            open_inbox(str(tmp_path / name), create=create)


@pytest.mark.parametrize("method", ["is_dir", "mkdir"])
def test_a_parent_that_may_not_be_read(tmp_path, monkeypatch, method):
    """A directory that this user may not enter is reported with the system's reason."""

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, method, refuse)
    with pytest.raises(StoreUnreadableError, match=r"cannot be opened: Permission denied\."):
        open_inbox(str(tmp_path / "sub" / "inbox.db"), create=True)


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs"])
def test_a_network_file_system(tmp_path, monkeypatch, kind):
    """A store on a network file system is refused before anything is written there."""
    monkeypatch.setattr(durable, "file_system", lambda path: kind)
    with pytest.raises(StoreError, match=rf"network file system \({kind}\)"):
        open_inbox(str(tmp_path / "sub" / "inbox.db"), create=True)
    assert list(tmp_path.iterdir()) == []


def test_the_file_system_is_the_innermost_mount(tmp_path, monkeypatch):
    """The mount that counts is the one nearest to the file, whatever its name holds."""
    lines = [
        "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
        "2 1 0:2 / /mnt/a\\040b rw - nfs4 server:/x rw",
        "3 2 0:3 / /mnt/a\\040b/local rw master:2 shared:3 - xfs /dev/sdb rw",
    ]
    monkeypatch.setattr(Path, "read_text", lambda self, **options: "\n".join(lines))
    assert durable.file_system(Path("/mnt/a b/inbox.db")) == "nfs4"
    assert durable.file_system(Path("/mnt/a b/local/inbox.db")) == "xfs"
    assert durable.file_system(Path("/mnt/a bc/inbox.db")) == "ext4"


def test_a_file_system_without_write_ahead_log(tmp_path, monkeypatch):
    """Where SQLite cannot keep a write-ahead log the store is refused, not run in a mode that nobody measured."""
    real = sqlite3.connect

    class Connection(sqlite3.Connection):
        def execute(self, sql, *args):
            return super().execute("SELECT 'delete'" if sql.startswith("PRAGMA journal_mode") else sql, *args)

    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: real(*args, factory=Connection, **options))
    with pytest.raises(StoreError, match="write-ahead log"):
        open_inbox(str(tmp_path / "inbox.db"), create=True)


def test_nobody_else_may_read_the_store(tmp_path):
    """The store's files, the log beside it included, and a directory made for it are this user's only."""
    path = tmp_path / "state" / "inbox.db"
    with open_inbox(str(path), create=True) as inbox:
        inbox.append([Arrival(body=b"x", received_at=1)])
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == {"inbox.db": 0o600, "inbox.db-wal": 0o600, "inbox.db-shm": 0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_commits_are_on_disk_when_they_return(tmp_path):
    """Every connection, the appender's too, keeps a write-ahead log and syncs it at each commit."""
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as inbox:
        appender = inbox.appender()
        for connection in (inbox._connection, appender._connection):
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        appender.close()


def test_several_processes_create_one_store(tmp_path):
    """Processes that start together on no store make one between them, and each can use it."""
    script = (
        "import sys\n"
        "from upcall.inbox import Arrival, open_inbox\n"
        "sys.stdin.read()\n"
        "with open_inbox(sys.argv[1], create=True) as inbox:\n"
        "    inbox.append([Arrival(body=sys.argv[2].encode(), received_at=1)])\n"
    )
    path = str(tmp_path / "inbox.db")
    command = [sys.executable, "-c", script, path]
    processes = [subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE) for number in range(6)]
    for process in processes:
        process.stdin.close()
    assert [process.wait(60) for process in processes] == [0] * 6
    with open_inbox(path) as inbox:
        assert {record.body for record in inbox.callbacks()} == {str(number).encode() for number in range(6)}


def test_errors_while_in_use_name_the_store(tmp_path):
    """What SQLite reports while the store is in use comes out as the store's error."""
    inbox = open_inbox(str(make_store(tmp_path / "inbox.db")))
    inbox.close()
    with pytest.raises(StoreUnreadableError, match=r"inbox\.db cannot be used"):
        inbox.callbacks()


def test_a_locked_store_says_so(tmp_path, monkeypatch):
    """A store that another process holds for longer than the wait is reported as locked, and nothing stays open."""
    monkeypatch.setattr("upcall.inbox.sqlite.BUSY_SECONDS", 0.0)
    with open_inbox(str(make_store(tmp_path / "inbox.db"))) as inbox:
        other = sqlite3.connect(tmp_path / "inbox.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked by another process"):
            inbox.append([Arrival(body=b"x", received_at=1)])
        other.rollback()
        other.close()
        assert inbox.append([Arrival(body=b"x", received_at=1)])[0].is_new
