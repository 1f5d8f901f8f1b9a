"""Handlers in real processes: beside a listener, in it, killed, restarted, failing."""

import contextlib
import json
import os
import signal
import sqlite3
import time

import httpx2
import pytest

from upcall.inbox import Arrival, open_inbox

NOTE = "@app.on()\ndef note(event):\n    (HERE / 'done').open('a').write(f'{event.id}\\n')\n"

BLOCKED = """
@app.on()
def wait(event):
    (HERE / 'started').open('a').write(f'{event.id}\\n')
    while not (HERE / 'open').exists():
        time.sleep(0.01)
    (HERE / 'done').open('a').write(f'{event.id}\\n')
"""

FAILING = """
@app.on(max_attempts=100_000, backoff_seconds=0.05, max_backoff_seconds=0.05)
def wait(event):
    (HERE / 'started').open('a').write(f'{event.id}\\n')
    if not (HERE / 'open').exists():
        raise RuntimeError('not yet')
    (HERE / 'done').open('a').write(f'{event.id}\\n')
"""


LOUD = """
print("imported")

@app.on(max_attempts=1)
def shout(event):
    print("handled")
    raise ValueError("\\x1b[2J")
"""

POISON = """
import signal

@app.on(max_attempts=3)
def handle(event):
    if event.raw == b'poison':
        os.kill(os.getpid(), signal.SIGKILL)
    (HERE / 'done').open('a').write(f'{event.id}\\n')
"""

TRANSACTIONAL = """
@app.on(transactional=True)
def handle(event, transaction):
    transaction.execute("CREATE TABLE IF NOT EXISTS effects (id INTEGER)")
    transaction.execute("INSERT INTO effects VALUES (?)", (event.id,))
"""

FORKING = """
import sys

@app.on()
def fork(event):
    if not os.fork():
        sys.exit()
    (HERE / 'done').open('a').write(f'{event.id}\\n')
"""


def fill(upcall, *bodies):
    with open_inbox(upcall.store, create=True) as inbox:
        inbox.append([Arrival(body=body, received_at=time.time_ns() // 1000) for body in bodies])


def post(listener, *bodies):
    for body in bodies:
        assert httpx2.post(listener.url, content=body).status_code == 200


def states(upcall):
    return {record["state"] for record in upcall.json("events", "list", "--limit", "0")}


def test_a_worker_beside_a_listener(upcall):
    """What a listener keeps reaches the handlers of a process of their own, which ends when it is asked to."""
    upcall.handlers(NOTE)
    listener = upcall.listen()
    worker = upcall.start("work", "handlers:app", "--store", upcall.store)
    post(listener, b"1", b"2", b"3")
    upcall.until(lambda: sorted(upcall.read("done")) == ["1", "2", "3"])
    assert (worker.end(), listener.end()) == (0, 0)
    assert worker.lines == []
    assert f"upcall: working on {upcall.store}: 1 handler of handlers:app\n" in worker.errors.read_text()
    assert states(upcall) == {"done"}


def test_what_works_is_said(upcall):
    """Handlers of the module and subscribers without code are counted apart."""
    upcall.handlers("@app.on()\ndef one(event): pass\n\n@app.on()\ndef other(event): pass\n")
    ended = upcall.run("work", "handlers:app", "--until-idle", "--store", upcall.store, "--exec", "true")
    assert f"working on {upcall.store}: 2 handlers of handlers:app and 1 subscriber option\n" in ended.stderr
    ended = upcall.run("work", "--until-idle", "--store", upcall.store, "--exec", "true", "--jsonl", "out")
    assert f"working on {upcall.store}: 2 subscriber options\n" in ended.stderr


def test_a_warning_looks_like_one(upcall):
    """What a listener warns of by its options has a time and a logger, as all that it logs."""
    listener = upcall.listen("--forward", "http://127.0.0.1:1/")
    assert listener.end() == 0
    (line,) = [line for line in listener.errors.read_text().splitlines() if "not signed" in line]
    assert " WARNING upcall.dispatch: forwards are not signed: set UPCALL_FORWARD_SECRET" in line


def test_one_process(upcall):
    """`upcall listen module:app` runs the handlers too, after the answer."""
    upcall.handlers(NOTE)
    listener = upcall.listen("handlers:app")
    post(listener, b"1", b"2")
    upcall.until(lambda: sorted(upcall.read("done")) == ["1", "2"])
    assert listener.end() == 0
    assert len(listener.lines) == 1
    assert states(upcall) == {"done"}


def test_what_handlers_print(upcall):
    """A module's output goes to stderr, where nothing of it commands a terminal: stdout is the ready line's alone."""
    upcall.handlers(LOUD)
    listener = upcall.listen("handlers:app")
    post(listener, b"1")
    upcall.until(lambda: states(upcall) == {"dead"})
    assert listener.end() == 0
    assert [line.split()[0] for line in listener.lines] == ["ready"]
    said = listener.errors.read_text()
    assert "imported\n" in said
    assert "handled\n" in said
    assert r"ValueError: \x1b[2J" in said


def test_a_handler_that_forks(upcall):
    """A child that a handler forks and that comes back ends there, and does not live on with the listener's port."""
    upcall.handlers(FORKING)
    listener = upcall.listen("handlers:app")
    post(listener, b"1")
    upcall.until(lambda: upcall.read("done"))
    assert listener.end() == 0
    assert states(upcall) == {"done"}
    upcall.listen(port=listener.port)


def test_one_process_that_is_killed_with_work_pending(upcall):
    """Work that had failed, or had not begun, when the process died is done by the next one."""
    upcall.handlers(FAILING)
    listener = upcall.listen("handlers:app")
    post(listener, b"1", b"2")
    upcall.until(lambda: set(upcall.read("started")) == {"1", "2"})
    listener.kill()
    (upcall.directory / "open").touch()
    listener = upcall.listen("handlers:app")
    upcall.until(lambda: sorted(upcall.read("done")) == ["1", "2"])
    assert listener.end() == 0
    assert states(upcall) == {"done"}


def test_an_answer_does_not_wait_for_a_handler(upcall):
    """In one process a handler that blocks delays no acknowledgement."""
    upcall.handlers(BLOCKED)
    listener = upcall.listen("handlers:app")
    post(listener, b"1")
    upcall.until(lambda: upcall.read("started"))
    post(listener, b"2", b"3")
    (upcall.directory / "open").touch()
    upcall.until(lambda: len(upcall.read("done")) == 3)


def test_a_worker_killed_in_the_middle(upcall):
    """A handler whose process died under it is run again, without waiting for the lease to run out."""
    upcall.handlers(BLOCKED)
    fill(upcall, b"1")
    worker = upcall.start("work", "handlers:app", "--store", upcall.store)
    upcall.until(lambda: upcall.read("started") == ["1"])
    worker.kill()
    (upcall.directory / "open").touch()
    worker = upcall.start("work", "handlers:app", "--store", upcall.store)
    upcall.until(lambda: upcall.read("done") == ["1"])
    assert upcall.read("started") == ["1", "1"]
    upcall.until(lambda: states(upcall) == {"done"})
    assert worker.end() == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_worker_that_is_stopped_gives_its_work_back(upcall, number, code):
    """Asked to end, a worker lets a running handler finish and leaves the rest to the next worker."""
    upcall.handlers(BLOCKED)
    fill(upcall, *(b"%d" % number for number in range(40)))
    worker = upcall.start("work", "handlers:app", "--store", upcall.store, "--concurrency", "2")
    upcall.until(lambda: len(upcall.read("started")) == 2)
    os.kill(worker.process.pid, number)
    (upcall.directory / "open").touch()
    assert worker.wait() == code
    assert len(upcall.read("done")) == len(upcall.read("started"))
    assert upcall.run("work", "handlers:app", "--store", upcall.store, "--until-idle").returncode == 0
    assert sorted(map(int, upcall.read("done"))) == list(range(1, 41))


def test_dead_letters(upcall):
    """What a handler fails on to the end is a dead letter that says where it failed; the others' work is done."""
    upcall.handlers(
        "@app.on_device(max_attempts=1)\ndef strict(event, device):\n"
        "    if device.status == 'UpgradeFailed': raise ValueError('no such ticket queue')\n"
    )
    fill(
        upcall,
        b'{"type": "upgradeProgress", "accountName": "A-1", "upgradeProgress": {"campaignId": "C-1", "deviceList": ['
        b'{"deviceId": "100000000000001", "status": "UpgradeFailed"},'
        b'{"deviceId": "100000000000002", "status": "UpgradeSuccess"}]}}',
    )
    ended = upcall.run("work", "handlers:app", "--store", upcall.store, "--until-idle")
    assert (ended.returncode, ended.stdout) == (0, "")
    (letter,) = upcall.json("dead", "list")
    assert letter["error"].strip().endswith("ValueError: no such ticket queue")
    assert "handlers.py" in letter["error"]
    del letter["error"], letter["dead_at"]
    assert letter == {
        "id": 1,
        "subscriber": "handlers.strict",
        "device_id": "100000000000001",
        "attempts": 1,
        "kind": "upgradeProgress",
        "account": "A-1",
        "campaign_id": "C-1",
    }
    assert states(upcall) == {"dead"}
    shown = upcall.run("dead", "list", "--store", upcall.store)
    assert "ValueError: no such ticket queue" in shown.stdout
    assert "Traceback" not in shown.stdout


def test_what_handlers_print_stays_out_of_the_data(upcall):
    """With --json the worker's counts are all of stdout; what a module and its handlers print goes to stderr."""
    upcall.handlers("print('imported')\n@app.on()\ndef handle(event):\n    print('handled')\n")
    with open_inbox(upcall.store, create=True) as inbox:
        inbox.append([Arrival(body=b"{}", received_at=1)])
    ended = upcall.run("work", "handlers:app", "--store", upcall.store, "--until-idle", "--json")
    assert json.loads(ended.stdout) == {"done": 1, "failed": 0, "dead": 0}
    assert ended.returncode == 0
    assert {"imported", "handled"} <= set(ended.stderr.splitlines())


def test_a_poison_callback(upcall):
    """A callback that kills its worker each time is a dead letter in the end, and takes no other one with it."""
    upcall.handlers(POISON)
    fill(upcall, *(b"%d" % number for number in range(10)), b"poison", *(b"%d" % number for number in range(10, 20)))
    words = ("work", "handlers:app", "--store", upcall.store, "--until-idle")
    codes = [upcall.run(*words).returncode for _ in range(4)]
    assert codes == [-signal.SIGKILL] * 3 + [0]
    assert set(map(int, upcall.read("done"))) == set(range(1, 22)) - {11}
    (letter,) = upcall.json("dead", "list")
    assert letter["id"] == 11
    assert "started 3 times" in letter["error"]


@pytest.mark.parametrize("point", ["mid_handler", "before_done"])
def test_a_transactional_handler_that_is_killed(upcall, point):
    """Wherever a worker dies, a transactional handler has had its effect once for each callback."""
    upcall.handlers(TRANSACTIONAL)
    fill(upcall, *(b"%d" % number for number in range(12)))
    words = ("work", "handlers:app", "--store", upcall.store, "--until-idle")
    for count in (1, 4, 3):
        assert upcall.run(*words, UPCALL_KILL_AT=f"{point}:{count}").returncode == -signal.SIGKILL
    assert upcall.run(*words).returncode == 0
    with contextlib.closing(sqlite3.connect(upcall.path)) as connection:
        rows = connection.execute("SELECT id FROM effects ORDER BY id").fetchall()
    assert [number for (number,) in rows] == list(range(1, 13))
    assert states(upcall) == {"done"}


@pytest.mark.parametrize("point", ["mid_handler", "before_done"])
def test_a_handler_that_is_killed(upcall, point):
    """Wherever a worker dies, an ordinary handler runs at least once for each callback."""
    upcall.handlers(NOTE)
    fill(upcall, *(b"%d" % number for number in range(30)))
    words = ("work", "handlers:app", "--store", upcall.store, "--until-idle")
    assert upcall.run(*words, UPCALL_KILL_AT=f"{point}:9").returncode == -signal.SIGKILL
    assert upcall.run(*words).returncode == 0
    assert set(map(int, upcall.read("done"))) == set(range(1, 31))
    assert states(upcall) == {"done"}


def test_subscribers_without_a_module(upcall):
    """Commands and files receive each callback, without any code."""
    fill(upcall, b'{"type": "upgradeFinished"}', b"\xff")
    lines, told = upcall.directory / "events.jsonl", upcall.directory / "told"
    command = f"sh -c 'cat >> {told}; echo $UPCALL_EVENT_KIND >> {told}.kinds'"
    words = ("work", "--store", upcall.store, "--until-idle", "--json")
    ended = upcall.run(*words, "--jsonl", str(lines), "--exec", command)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {"done": 4, "failed": 0, "dead": 0}
    documents = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [document["id"] for document in sorted(documents, key=lambda one: one["id"])] == [1, 2]
    assert sorted(told.read_text().splitlines()) == sorted(lines.read_text().splitlines())
    assert "upgradeFinished" in (upcall.directory / "told.kinds").read_text()
    assert states(upcall) == {"done"}


def test_a_forward_to_another_listener(upcall, tmp_path):
    """A raw forward to a second listener arrives there byte for byte, once."""
    listener = upcall.listen()
    target = upcall.store.replace("inbox.db", "second.db")
    fill(upcall, b"{}", b"\xff\0", b'{"password":"x"}')
    second = upcall.start(
        "listen", "--port", "0", "--store", target, "--token", "second-token-0123456789"
    ).wait_until_ready()  # fmt: skip
    words = ("work", "--store", upcall.store, "--until-idle", "--forward-raw", second.url)
    ended = upcall.run(*words, UPCALL_FORWARD_SECRET="whsec_" + "A" * 44)
    assert ended.returncode == 0, ended.stderr
    assert "second-token" not in ended.stderr
    with open_inbox(target) as inbox:
        assert sorted(record.body for record in inbox.callbacks()) == sorted([b"{}", b"\xff\0", b'{"password":"x"}'])
    assert (listener.end(), second.end()) == (0, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "there is nothing to hand callbacks to. Name a module:app, or give --forward, --forward-raw,"),
        (["--forward", "http://127.0.0.1/", "--exec", "no-such-program"], "no-such-program"),
        (["--forward", "http://8.8.8.8/"], "unencrypted"),
        (["--exec", "no-such-program"], "no-such-program"),
        (["--jsonl", "/no/such/place/x"], "/no/such/place/x"),
    ],
)
def test_options_that_cannot_be_used(upcall, words, said):
    """A mistake in the options is one line, exit 2, and leaves no store behind."""
    ended = upcall.run("work", "--store", upcall.store, *words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "Traceback" not in ended.stderr
    assert not upcall.path.exists()
