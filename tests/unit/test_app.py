"""`Upcall` in somebody's program: mounted, in a thread of its own, and loaded by name."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sqlite3
import sys
import threading
from itertools import count
from pathlib import Path

import httpx2
import pytest

from upcall import Upcall
from upcall.app import WorkerThread, load_app
from upcall.errors import SettingsError, StartError, StoreError, StoreUnreadableError
from upcall.inbox import SCHEMA_VERSION, Arrival, Trust, open_inbox, store_version
from upcall.inbox.spool import Spool, spool_directory
from upcall.listener import Reception
from upcall.testing import callback

TOKEN = "a-token-of-the-test-0123456789"
PATH = f"/callbacks/{TOKEN}"


@pytest.fixture
def url(tmp_path, monkeypatch):
    monkeypatch.setenv("UPCALL_STATE_DIR", str(tmp_path / "state"))
    return f"sqlite:///{tmp_path / 'state' / 'inbox.db'}"


@pytest.fixture
def garbage(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no database, and long enough not to be taken for an empty one\n")
    return f"sqlite:///{path}"


@pytest.fixture(autouse=True)
def _nothing_left_running():
    """Each test ends with the threads that it began with."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith(("upcall", "asyncio")):
            thread.join(20)
            assert not thread.is_alive(), thread.name


class Heard:
    """Handlers that tell the test what they received, and when there was enough of it."""

    def __init__(self, expected=1):
        self.app = Upcall()
        self.events = []
        self.devices = []
        self.enough = threading.Event()
        self._expected = expected

        @self.app.on()
        def on_event(event):
            self.events.append(event)
            self._count()

        @self.app.on_device("UpgradeFailed")
        async def on_device(event, device):
            self.devices.append(device.device_id)
            self._count()

    def _count(self):
        if len(self.events) + len(self.devices) >= self._expected:
            self.enough.set()


@contextlib.asynccontextmanager
async def client_of(app):
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://mounted") as client:
        try:
            yield client
        finally:
            await app.aclose()


async def until(condition):
    """Wait, for ten seconds at most, until something holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in a thread
            await asyncio.sleep(0.002)


class TestMounted:
    async def test_receives_and_runs_the_handlers(self, url):
        """A mounted application keeps a callback, answers 200, and then its handlers run."""
        heard = Heard(expected=2)
        async with client_of(heard.app.asgi(store=url, tokens=[TOKEN])) as client:
            answer = await client.post(PATH, content=callback(devices={"d1": "UpgradeFailed", "d2": "Accepted"}))
            assert answer.status_code == 200
            assert await asyncio.to_thread(heard.enough.wait, 20)
        assert ([event.id for event in heard.events], heard.devices) == ([1], ["d1"])
        with open_inbox(url) as inbox:
            assert inbox.ledger().handled == 1

    async def test_a_wrong_token_stores_nothing(self, url):
        """A request without a live token is not found, and nothing is kept of it."""
        async with client_of(Upcall().asgi(store=url, tokens=[TOKEN])) as client:
            assert (await client.post("/callbacks/not-the-token", content=b"{}")).status_code == 404
            assert (await client.get(PATH)).status_code == 200
        with open_inbox(url) as inbox:
            assert inbox.ledger().stored == 0

    async def test_requests_that_come_together_at_first(self, url):
        """The first requests of a mounted application share one store, one listener and one worker."""
        heard = Heard(expected=20)
        async with client_of(heard.app.asgi(store=url, tokens=[TOKEN])) as client:
            answers = await asyncio.gather(*(client.post(PATH, content=str(n).encode()) for n in range(20)))
            assert {answer.status_code for answer in answers} == {200}
            assert await asyncio.to_thread(heard.enough.wait, 20)
            assert [thread.name for thread in threading.enumerate()].count("upcall-work") == 1
        assert len(heard.events) == 20

    async def test_it_begins_again_after_it_was_closed(self, url):
        """Closing is no end: the next request opens the store again, and closing twice does nothing more."""
        heard = Heard(expected=2)
        app = heard.app.asgi(store=url, tokens=[TOKEN])
        for body in (b"1", b"2"):
            async with client_of(app) as client:
                assert (await client.post(PATH, content=body)).status_code == 200
                if body == b"2":
                    assert await asyncio.to_thread(heard.enough.wait, 20)
        await app.aclose()
        assert sorted(event.raw for event in heard.events) == [b"1", b"2"]

    async def test_nothing_is_opened_before_the_first_request(self, url, tmp_path):
        """Mounting opens no store and starts no thread."""
        app = Upcall().asgi(store=url, tokens=[TOKEN])
        assert list(tmp_path.iterdir()) == []
        await app.aclose()

    @pytest.mark.parametrize("tokens", [[], ["short"], [TOKEN, TOKEN], [f"={TOKEN}"]])
    def test_tokens_that_are_none(self, url, tokens):
        """A token that cannot be one is refused when the application is made, not at the first callback."""
        with pytest.raises(SettingsError):
            Upcall().asgi(store=url, tokens=tokens)

    async def test_a_store_that_cannot_be_used(self, garbage):
        """Without its store a mounted application fails each request with the reason, and leaves nothing running."""
        app = Upcall().asgi(store=garbage, tokens=[TOKEN])
        async with client_of(app) as client:
            for _ in range(2):
                with pytest.raises(StoreUnreadableError, match="not an SQLite file"):
                    await client.post(PATH, content=b"{}")

    async def test_a_worker_that_cannot_start(self, url, monkeypatch):
        """Where the handlers cannot start no callback is taken, and the store is closed again."""
        monkeypatch.setattr("upcall.app.Worker", lambda *args: (_ for _ in ()).throw(StoreError("no more files.")))
        async with client_of(Heard().app.asgi(store=url, tokens=[TOKEN])) as client:
            with pytest.raises(StoreError, match="no more files"):
                await client.post(PATH, content=b"{}")

    async def test_a_spool_that_has_no_place(self, url, monkeypatch):
        """Where the spool has no place to lie no callback is taken, and no worker is left running."""
        app = Heard().app.asgi(store=url, tokens=[TOKEN])
        monkeypatch.delenv("UPCALL_STATE_DIR", raising=False)
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home")))
        running = threading.active_count()
        async with client_of(app) as client:
            with pytest.raises(SettingsError, match="UPCALL_STATE_DIR"):
                await client.post(PATH, content=b"{}")
        assert threading.active_count() == running

    async def test_the_quota_counts_what_was_there_before(self, url, monkeypatch):
        """A mounted listener's quarantine is as full as its store says, not as it has seen itself."""
        made = []

        def small(*args, **options):
            made.append(Reception(*args, quarantine_bytes=1500, **options))
            return made[0]

        monkeypatch.setattr("upcall.app.Reception", small)
        with open_inbox(url, create=True) as inbox:
            inbox.append([Arrival(body=b"x" * 1000, received_at=1, trust=Trust.QUARANTINED)])
        async with client_of(Upcall().asgi(store=url, tokens=[TOKEN])) as client:
            await client.get(PATH)
            await until(lambda: made[0].quarantined_bytes == 1000)
            assert (await client.post(PATH, content=b"y" * 600)).status_code == 503
            assert (await client.post(PATH, content=b"1" * 600)).status_code == 200

    async def test_the_read_model_follows_without_a_look(self, url):
        """Behind a mounted listener the read model is made while no request waits, without handlers and commands."""
        async with client_of(Upcall().asgi(store=url, tokens=[TOKEN])) as client:
            assert (await client.post(PATH, content=callback())).status_code == 200
            with open_inbox(url) as inbox:
                await until(lambda: inbox.callbacks()[0].kind == "upgradeProgress")

    async def test_what_an_earlier_process_left_in_the_spool(self, url):
        """A mounted listener imports the spool without waiting for a callback."""
        open_inbox(url, create=True).close()
        left = Spool(spool_directory(url))
        left.append([Arrival(body=b"left", received_at=1)])
        left.close()
        async with client_of(Upcall().asgi(store=url, tokens=[TOKEN])) as client:
            await client.get(PATH)
            with open_inbox(url) as inbox:
                await until(lambda: [record.body for record in inbox.callbacks()] == [b"left"])

    async def test_a_store_of_an_older_release(self, url, tmp_path):
        """A mounted application upgrades an old store beside its server's loop, and then its handlers run."""
        open_inbox(url, create=True).close()
        with contextlib.closing(sqlite3.connect(tmp_path / "state" / "inbox.db")) as connection:
            connection.execute("PRAGMA user_version = 1")
        heard = Heard()
        async with client_of(heard.app.asgi(store=url, tokens=[TOKEN])) as client:
            assert (await client.post(PATH, content=b"1")).status_code == 200
            assert await asyncio.to_thread(heard.enough.wait, 20)
        assert store_version(url) == SCHEMA_VERSION
        assert [event.raw for event in heard.events] == [b"1"]

    async def test_the_program_of_the_document(self, url):
        """The program in docs/handlers.md that mounts an application makes one that answers by its token."""
        text = (Path(__file__).parents[2] / "docs" / "handlers.md").read_text(encoding="utf-8")
        (program,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if ".asgi(" in block]
        names = {}
        exec(compile(program.replace("sqlite:////var/lib/upcall/inbox.db", url), "docs/handlers.md", "exec"), names)
        async with client_of(names["callbacks"]) as client:
            assert (await client.get("/callbacks/0123456789-a-long-secret")).status_code == 200

    async def lifespan(self, app, *between):
        sent = []
        incoming = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        alive = []

        async def receive():
            alive.append("upcall-work" in [thread.name for thread in threading.enumerate()])
            return next(incoming)

        async def send(message):
            alive.append("upcall-work" in [thread.name for thread in threading.enumerate()])
            sent.append(message)

        await app({"type": "lifespan"}, receive, send)
        return sent, alive

    async def test_it_begins_and_ends_with_its_server(self, url):
        """With a lifespan the handlers run before the first request, and have ended before the server is told so."""
        sent, alive = await self.lifespan(Heard().app.asgi(store=url, tokens=[TOKEN]))
        assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert alive == [False, True, True, False]

    async def test_a_server_does_not_start_without_the_store(self, garbage):
        """A store that cannot be used fails the server's start, with the reason."""
        sent, _ = await self.lifespan(Upcall().asgi(store=garbage, tokens=[TOKEN]))
        assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
        assert "not an SQLite file" in sent[0]["message"]


class TestWorking:
    async def test_work_makes_the_store_and_ends_when_told(self, url):
        """`work` runs the handlers over a store, made where there is none, until it is told to stop."""
        heard, stop = Heard(), asyncio.Event()
        heard.app.on()(lambda event: stop_soon())
        loop = asyncio.get_running_loop()

        def stop_soon():
            loop.call_soon_threadsafe(stop.set)

        working = asyncio.ensure_future(heard.app.work(url, stop, concurrency=2, poll_seconds=0.001))
        with open_inbox(url, create=True) as inbox:
            inbox.append([Arrival(body=b"x", received_at=1)])
            await asyncio.wait_for(working, 20)
            assert inbox.ledger().handled == 1

    async def test_work_says_that_the_store_cannot_be_used(self, garbage):
        """`work` raises what is wrong with the store."""
        with pytest.raises(StoreUnreadableError):
            await Upcall().work(garbage, asyncio.Event())

    def test_a_thread_runs_the_handlers(self, url):
        """The thread hands on what another part of the process appends, and ends when it is stopped."""
        heard = Heard()
        worker = WorkerThread(heard.app, url)
        worker.start()
        with open_inbox(url) as inbox:
            inbox.append([Arrival(body=b"x", received_at=1)])
            assert heard.enough.wait(20)
            worker.stop()
            assert inbox.ledger().handled == 1
            assert inbox.owners() == []
        worker.stop()

    def test_a_store_that_fails_at_the_start(self, garbage):
        """A worker that cannot open its store says so to whoever starts it, and does not hang."""
        worker = WorkerThread(Heard().app, garbage)
        with pytest.raises(StoreUnreadableError, match="not an SQLite file"):
            worker.start()
        worker.stop()

    def test_a_worker_that_breaks_later(self, url, monkeypatch, caplog):
        """A worker that ends of an error that nobody foresaw is heard of, and can still be stopped."""
        broken = threading.Event()

        class Broken:
            def __init__(self, inbox, handlers):
                pass

            async def run(self, stop):
                broken.set()
                raise RuntimeError("nobody thought of this")

        monkeypatch.setattr("upcall.app.Worker", Broken)
        worker = WorkerThread(Heard().app, url)
        with caplog.at_level(logging.INFO, "upcall.app"):
            worker.start()
            assert broken.wait(20)
            worker.stop()
        (record,) = [record for record in caplog.records if record.name == "upcall.app"]
        assert (record.levelname, record.getMessage()) == ("CRITICAL", "the handlers stopped; they go on in 1 s")
        assert "nobody thought of this" in caplog.text

    @pytest.mark.parametrize("how", ["stops the loop", "cancels every task"])
    def test_a_handler_that_ends_the_worker(self, url, monkeypatch, how):
        """A handler that takes the worker's loop down does not leave the other callbacks unhandled."""
        monkeypatch.setattr("upcall.app.AGAIN_SECONDS", 0.01)
        app = Upcall()
        begun, handled = threading.Event(), threading.Event()

        @app.on()
        async def rude(event):
            if begun.is_set():
                handled.set()
                return
            begun.set()
            if how == "stops the loop":
                asyncio.get_running_loop().stop()
            else:
                for task in asyncio.all_tasks():
                    task.cancel()

        worker = WorkerThread(app, url)
        worker.start()
        with open_inbox(url) as inbox:
            inbox.append([Arrival(body=b"1", received_at=1)])
            assert begun.wait(20)
            inbox.append([Arrival(body=b"2", received_at=2)])
            assert handled.wait(20)
            worker.stop()
            assert inbox.owners() == []

    def test_without_handlers_there_is_nothing_to_start(self, garbage):
        """A worker that has no handlers opens no store and runs no thread."""
        worker = WorkerThread(Upcall(), garbage)
        worker.start()
        assert "upcall-work" not in [thread.name for thread in threading.enumerate()]
        worker.stop()

    def test_a_start_that_is_tried_again(self, garbage, tmp_path):
        """A worker that could not start may be started again, once what stood in its way is gone."""
        heard = Heard()
        worker = WorkerThread(heard.app, garbage)
        with pytest.raises(StoreUnreadableError):
            worker.start()
        (tmp_path / "notes.txt").unlink()
        worker.start()
        with open_inbox(garbage) as inbox:
            inbox.append([Arrival(body=b"x", received_at=1)])
            assert heard.enough.wait(20)
        worker.stop()

    def test_a_start_after_the_end(self, url):
        """Starting a worker that was stopped neither hangs nor runs anything: an end that came first stays the end."""
        worker = WorkerThread(Heard().app, url)
        worker.stop()
        worker.start()

    def test_a_thread_that_was_never_started(self, url):
        """Stopping what was not started does nothing, and making it holds nothing open."""
        WorkerThread(Upcall(), url).stop()


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Write modules into a directory that is the working directory, under names that no other test uses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    numbers = count()

    def write(text, name=None):
        name = name or f"handlers_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    for name in set(sys.modules) - before:
        if name.startswith(("handlers_", "helper_")):
            del sys.modules[name]


def refusal(text):
    with pytest.raises(StartError) as caught:
        load_app(text)
    said = str(caught.value)
    assert "\n" not in said
    assert caught.value.exit_code == 3
    return said


class TestLoading:
    @pytest.mark.parametrize("suffix", ["", ":", ":app"])
    def test_app_is_the_name_where_none_is_given(self, modules, suffix):
        """``module`` means ``module:app``, looked for in the working directory."""
        name = modules("from upcall import Upcall\napp = Upcall()\n")
        assert isinstance(load_app(name + suffix), Upcall)

    def test_another_name(self, modules):
        """``module:name`` names any `Upcall` of the module."""
        name = modules("from upcall import Upcall\none = Upcall()\nother = Upcall()\n")
        assert load_app(f"{name}:other") is sys.modules[name].other

    @pytest.mark.parametrize("text", ["", ":", ":app"])
    def test_no_module(self, text):
        """A text that names no module is refused with the form to write."""
        assert "module:app" in refusal(text)

    def test_a_module_that_is_not_there(self, modules, tmp_path):
        """A module that cannot be found is named, with the directory that was looked in."""
        said = refusal("no_such_module:app")
        assert "No module named 'no_such_module'" in said
        assert str(tmp_path) in said

    @pytest.mark.parametrize("text", ["handlers.py:app", "./handlers", "../x:app", ".relative", "a..b"])
    def test_names_that_are_no_modules(self, modules, text):
        """A file's name, or a path, in the module's place is refused in one line."""
        assert re.match(r"module \S+ does not import: ", refusal(text))

    def test_a_module_that_raises(self, modules):
        """A module that fails at import is named with the file, the line and the error."""
        name = modules("import os\n\nraise RuntimeError('no database\\nfor you')\n")
        assert f"module {name} does not import: {name}.py line 3: RuntimeError: no database for you." in refusal(name)

    def test_a_module_whose_import_fails_elsewhere(self, modules):
        """The line that is named is the one of the user's own files that is nearest to the failure."""
        modules("import json\n\n\ndef read():\n    json.loads('{')\n\n\nread()\n", "helper_module")
        name = modules("import helper_module\n")
        assert "helper_module.py line 5: JSONDecodeError" in refusal(name)

    def test_a_module_that_needs_another(self, modules):
        """A missing dependency is named, with the line that imports it."""
        name = modules("\nimport no_such_dependency\n")
        assert f"{name}.py line 2: ModuleNotFoundError: No module named 'no_such_dependency'" in refusal(name)

    def test_a_module_with_a_syntax_error(self, modules):
        """A syntax error is shown with its file and line."""
        name = modules("app = 1\ndef broken(:\n")
        assert re.search(rf"SyntaxError: .*{name}\.py, line 2", refusal(name))

    def test_a_module_that_is_no_text(self, modules, tmp_path):
        """A file that Python cannot read as source is refused in one line."""
        (tmp_path / "handlers_binary.py").write_bytes(b"\0\xff\xfe")
        assert "module handlers_binary does not import" in refusal("handlers_binary")

    @pytest.mark.parametrize("code", ["'set FLEET_DB first'", "3", ""])
    def test_a_module_that_exits(self, modules, code):
        """A module that ends the program at import does not end it without a word."""
        name = modules(f"import sys\nsys.exit({code})\n")
        assert f"{name}.py line 2: SystemExit" in refusal(name)

    def test_a_module_without_the_name(self, modules):
        """A module that lacks the name is told what to write."""
        name = modules("application = 1\n")
        assert refusal(f"{name}:app") == f"module {name} has no app. Write app = Upcall() in it."

    @pytest.mark.parametrize(("value", "kind"), [("1", "int"), ("Upcall", "type"), ("lambda: Upcall()", "function")])
    def test_a_name_that_is_something_else(self, modules, value, kind):
        """What is no `Upcall` is named by its type."""
        name = modules(f"from upcall import Upcall\napp = {value}\n")
        assert f"module {name} has a {kind} as app." in refusal(name)

    def test_our_own_errors_keep_their_words(self, modules):
        """An error of ours that a module raises comes out as it is."""
        name = modules("from upcall.errors import SettingsError\nraise SettingsError('set this.')\n")
        with pytest.raises(SettingsError, match=r"set this\."):
            load_app(name)
