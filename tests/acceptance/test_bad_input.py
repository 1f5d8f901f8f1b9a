"""What a mistake looks like: one clear line on stderr, nothing on stdout, the right exit code, no traceback."""

from __future__ import annotations

import socket
import sqlite3

import pytest

from upcall.inbox import open_inbox

USAGE, NOT_STARTED, NO, PROVIDER = 2, 3, 1, 4
CREDENTIALS = {f"THINGSPACE_{name}": "sandbox" for name in ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD")}


def check(ended, code, *words):
    """Check that a command ended as a mistake should, and named what is wrong."""
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    assert "canary" not in ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("upcall: ")
    for word in words:
        assert word in line
    assert ended.returncode == code, line


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["lissen"], "lissen"),
        (["events", "lst"], "lst"),
        (["events", "list", "--limt", "3"], "--limt"),
        (["events", "list", "--limit", "many"], "--limit"),
        (["listen", "--port", "high"], "--port"),
        (["events", "show"], "ID"),
        (["events", "show", str(2**63)], "ID"),
        (["dead", "list", "--limit", str(2**63)], "--limit"),
        (["demo", "--devices", "0"], "--devices"),
        (["listen", "--port", "0", "--token", "short"], "16 characters"),
        (["listen", "--port", "0", "--account", " "], "account"),
        (["events", "list", "--store", "mysql://here/db"], "mysql"),
        (["events", "list", "--store", "postgresql://me:canary@here/db"], "'postgresql://…' is not one"),
        (["store", "restore", "copy.db", "--store", "postgresql://me:canary@here/db"], "sqlite:////absolute/inbox.db"),
        (["sandbox", "--faults", "gremlins=0.5"], "gremlins"),
        (["guard", "--once", "--every", "5"], "--once looks once"),
        (["guard", "--once", "--admin", "127.0.0.1:0"], "--once looks once"),
        (["callbacks", "register", "0000123456-00001", "--url", "ftp://x/"], "https"),
    ],
)
def test_usage(upcall, words, named):
    """A word, an option or a value that cannot be is named, with exit code 2."""
    check(upcall.run(*words, **CREDENTIALS), USAGE, named)


def test_a_port_in_use(upcall):
    """A server whose port is taken says which port, and what else to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = upcall.run("listen", "--port", port, "--store", upcall.store)
        check(ended, NOT_STARTED, port, "in use", "another port")
        check(upcall.run("sandbox", "--port", port), NOT_STARTED, port, "in use")


@pytest.mark.parametrize("port", ["70000", "-1"])
def test_a_port_that_cannot_be(upcall, port):
    """A number that is no port is refused, not taken for another port as resolvers do."""
    check(upcall.run("listen", f"--port={port}", "--store", upcall.store), NOT_STARTED, port, "65535")


def test_a_host_that_is_not_ours(upcall):
    """An address of somebody else's machine is refused by name."""
    check(upcall.run("listen", "--host", "192.0.2.1", "--port", "0", "--store", upcall.store), NOT_STARTED, "192.0.2.1")


@pytest.fixture(params=["missing", "directory", "garbage", "foreign", "newer", "empty"])
def bad_store(request, upcall):
    path = upcall.path
    if request.param == "directory":
        path.mkdir()
    elif request.param == "garbage":
        path.write_bytes(b"this is no database at all, but it is long enough to be looked at" * 20)
    elif request.param == "foreign":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE theirs (id)")
        connection.close()
    elif request.param == "newer":
        open_inbox(upcall.store, create=True).close()
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
            connection.execute("UPDATE cursors SET position = 99 WHERE name = 'least_reader'")
        connection.close()
    elif request.param == "empty":
        path.touch()
    return request.param


@pytest.mark.parametrize(
    "words", [("events", "list"), ("events", "show", "1"), ("campaigns", "list"), ("dead", "list"), ("events", "tail")]
)
def test_a_store_that_cannot_be_read(upcall, bad_store, words):
    """Whoever looks into what is no inbox is told which file, and what is wrong with it."""
    check(upcall.run(*words, "--store", upcall.store), NOT_STARTED, str(upcall.path))


def test_a_store_that_cannot_be_written(upcall, bad_store):
    """A listener and a worker refuse what is there and is no inbox; what is missing or empty they make."""
    upcall.handlers("")
    if bad_store in {"missing", "empty"}:
        assert upcall.run("work", "handlers:app", "--until-idle", "--store", upcall.store).returncode == 0
        return
    check(upcall.run("listen", "--port", "0", "--store", upcall.store), NOT_STARTED, str(upcall.path))
    check(upcall.run("work", "handlers:app", "--until-idle", "--store", upcall.store), NOT_STARTED, str(upcall.path))


def test_a_foreign_store_stays_as_it_is(upcall):
    """A database that is somebody else's is refused without a byte of it changed."""
    with sqlite3.connect(upcall.path) as connection:
        connection.execute("CREATE TABLE theirs (id)")
    connection.close()
    before = upcall.path.read_bytes()
    check(upcall.run("listen", "--port", "0", "--store", upcall.store), NOT_STARTED, "not an Upcall inbox")
    assert upcall.path.read_bytes() == before


def test_a_tokens_file_that_cannot_be_read(upcall):
    """A tokens file that cannot be read is named; the listener does not start with other tokens instead."""
    ended = upcall.run("listen", "--port", "0", "--store", upcall.store, UPCALL_TOKENS_FILE="/nowhere/tokens")
    check(ended, USAGE, "UPCALL_TOKENS_FILE", "/nowhere/tokens")


@pytest.mark.parametrize(("word", "named"), [("nowhere:app", "No module named"), (":app", "names no module")])
@pytest.mark.parametrize("command", ["listen", "work"])
def test_a_module_that_is_not_there(upcall, command, word, named):
    """A module that cannot be found is named."""
    check(upcall.run(command, word, "--store", upcall.store), NOT_STARTED, named)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("import nothing_of_that_name", "nothing_of_that_name"),
        ("app = 3", "int"),
        ("def app(:", "SyntaxError"),
        ("raise RuntimeError('no such luck')", "no such luck"),
        ("import sys; sys.exit(0)", "broken"),
        ("", "app"),
    ],
)
@pytest.mark.parametrize("command", ["listen", "work"])
def test_a_module_that_does_not_import(upcall, command, text, named):
    """A mistake in the user's module is named with its line, and leaves no store behind."""
    (upcall.directory / "broken.py").write_text(text)
    check(upcall.run(command, "broken:app", "--store", upcall.store), NOT_STARTED, "broken", named)
    assert not upcall.path.exists()


def test_what_is_not_there(upcall):
    """Asking for a callback or a campaign that is not stored is answered no, and says where to look."""
    open_inbox(upcall.store, create=True).close()
    check(upcall.run("events", "show", "999", "--store", upcall.store), NO, "999", "events list")
    check(upcall.run("campaigns", "show", "nope", "--store", upcall.store), NO, "nope", "campaigns list")


def test_credentials(upcall):
    """Missing credentials are named by their variables; wrong ones are refused once, and then not sent again."""
    sandbox = upcall.start("sandbox", "--port", "0").wait_until_ready()
    base = {"THINGSPACE_BASE_URL": sandbox.url}
    show = ("callbacks", "show", "0000123456-00001")
    check(upcall.run(*show, **base), USAGE, "THINGSPACE_CLIENT_ID", "THINGSPACE_PASSWORD")
    check(upcall.run(*show, **base | CREDENTIALS | {"THINGSPACE_CLIENT_SECRET": "wrong"}), PROVIDER, "CLIENT_SECRET")
    wrong = base | CREDENTIALS | {"THINGSPACE_PASSWORD": "wrong"}
    check(upcall.run(*show, **wrong), PROVIDER, "THINGSPACE_PASSWORD")
    check(upcall.run(*show, **wrong), PROVIDER, "No login was sent", "upcall login --reset")


def test_simulate_against_what_is_no_sandbox(upcall):
    """A campaign is simulated in sandboxes only: what answers as something else is refused before it is asked."""
    listener = upcall.listen()
    base = {"THINGSPACE_BASE_URL": f"http://127.0.0.1:{listener.port}/api"}
    words = ("simulate", "--account", "0000123456-00001", "--devices", "3")
    check(upcall.run(*words, **base | CREDENTIALS), USAGE, "no sandbox", "upcall sandbox")
    listener.end()
    check(upcall.run(*words, **base | CREDENTIALS), PROVIDER, str(listener.port))
