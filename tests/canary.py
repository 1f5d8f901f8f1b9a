"""The watch over secrets: what a test brings to light is searched for canaries, and one that is found fails the test.

A canary is a secret that is known here: each value that says `canary`; the credentials of every client that is made,
with the pair that `Basic` carries; every token from the moment that it is issued or held. Brought to light is what a
log record holds at any level, what an error of ours shows as text, pickled, or in a trace with local names, what is
printed here or by a child process, what a child process logs at DEBUG, and what lies in a test's own directory.
What is shown on purpose is listed in `ALLOWED`, each with its reason.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import itertools
import logging
import os
import pickle
import re
import shutil
import subprocess
import tempfile
import traceback
from collections import deque
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self
from weakref import WeakKeyDictionary, WeakSet

import pytest

import upcall

TESTS = Path(__file__).parent
PRODUCT = Path(upcall.__file__).parent

_SECTIONS = pytest.StashKey[int]()
"""How many of a test's captured sections were seen."""


class Allowed(NamedTuple):
    """What tests may show.

    Args:
        test: An `fnmatch` pattern of the test.
        where: An `fnmatch` pattern of the place.
        shown: What is left out of the text before it is searched.
        reason: Why.
    """

    test: str
    where: str
    shown: re.Pattern[str]
    reason: str


ALL = re.compile(r".+", re.DOTALL)
ALLOWED = [
    Allowed("*", "file */tokens.json", ALL, "the token store is where tokens are kept"),
    Allowed(
        "tests/acceptance/*",
        "stdout of `*",
        re.compile(r"^ready http://127\.0\.0\.1:\d+/callbacks/acceptance-canary-token$", re.MULTILINE),
        "the ready line carries the whole callback URL, unless --mask-token hides its end",
    ),
    Allowed(
        "tests/acceptance/*",
        "*log record of httpx2",
        re.compile(r"http://127\.0\.0\.1:\d+/callbacks/acceptance-canary-token"),
        "the test itself plays the provider and calls the listener with httpx2",
    ),
    Allowed(
        "tests/unit/client/test_client.py::test_a_root_to_which_no_secret_should_go_is_refused*",
        "trace of SettingsError, as *",
        ALL,
        "the test passes a secret where none belongs: the constructor's frame has what it was called with",
    ),
    Allowed(
        "tests/contract/test_openapi.py::*",
        "trace of SettingsError, as *",
        ALL,
        "what is sent is made up by chance, at times a member that is named as a token is",
    ),
    Allowed(
        "tests/integration/test_sandbox_routes.py::*restart*",
        "file */*",
        ALL,
        "a sandbox's state file keeps the tokens that it issued",
    ),
    Allowed("*", "file */sandbox-state*", ALL, "a sandbox's state file keeps the tokens that it issued"),
    Allowed(
        "tests/integration/test_sandbox_control.py::test_reset_may_*",
        "trace of ConnectionResetError, as *",
        ALL,
        "the frames between the caller and a sandbox in one process hold the request that the caller made",
    ),
    Allowed(
        "tests/unit/client/test_commands.py::test_whoami_*",
        "file */password",
        ALL,
        "the test itself wrote the file that THINGSPACE_PASSWORD_FILE names",
    ),
    Allowed(
        "tests/unit/*settings*::*",
        "file */upcall.toml",
        ALL,
        "the test itself wrote a password into the settings, where none may stand",
    ),
    Allowed(
        "tests/unit/test_settings.py::*",
        "file */hook",
        ALL,
        "the test itself wrote the file that alerts.url_file names",
    ),
    Allowed(
        "tests/unit/test_canary.py::test_a_wrong_setting_*",
        "file */secret",
        ALL,
        "the test itself wrote the file that THINGSPACE_PASSWORD_FILE names",
    ),
    Allowed(
        "tests/unit/client/test_answers.py::test_an_error_shows_nothing_that_the_provider_echoes*",
        "pickle of FotaV2ResultException",
        re.compile(r"https://host/callbacks/canary-path-token"),
        "error_message is the provider's own text: our secrets are blanked in it, but listeners' URLs are not",
    ),
]


class Canaries:
    """Know the secrets of the tests that run, and find them in text and in bytes.

    A value that says `canary` is found by that word wherever it comes from; of the others the last ones are known.
    """

    MARKED = re.compile(r"[\w.&%+/=-]*(?<!test_)(?<!tests/)canary[\w.&%+/=-]*", re.IGNORECASE)
    SHAPES: ClassVar = {
        "an Authorization header": re.compile(r"\b(?:Bearer|Basic) +(?=\S*\d)[\w.~+/-]{16,}"),
        "a VZ-M2M-Token header": re.compile(
            r"(?:VZ-M2M-Token|vz-m2m-token)['\"]?[:=, b]+['\"]?(?=\S*\d)[\w.~+/-]{16,}"
        ),
        "an issued token": re.compile(r"\b(?:access_token|sessionToken)['\"]?\s*[:=]\s*['\"]?(?=\S*\d)[\w.~+/-]{16,}"),
    }
    """How secrets look that nobody told us of: those of a child process and the server that it calls."""

    SHORTEST = 8
    """A shorter value is part of any text."""

    KNOWN = 100
    """How many values are looked for that do not say what they are."""

    HARMLESS: ClassVar = {"sandbox", "c2FuZGJveDpzYW5kYm94"}
    """The sandbox's credentials, which its documentation prints."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._unmarked: deque[str] = deque(maxlen=self.KNOWN)

    def learn(self, name: str, value: str | None) -> None:
        """Take note of a secret."""
        if value is None or len(value) < self.SHORTEST or value in self.HARMLESS or value in self._names:
            return
        if self.MARKED.search(value):
            self._names[value] = name
        elif any(character.isdigit() for character in value):  # a word is part of any text too
            self._names[value] = name
            self._unmarked.append(value)

    def learn_credentials(self, credentials: Any) -> None:
        """Take note of what a client was given."""
        pair = f"{credentials.client_id}:{credentials.client_secret}".encode("utf-8", "surrogatepass")
        self.learn("the client secret", credentials.client_secret)
        self.learn("the password", credentials.password)
        self.learn("the given session token", credentials.session_token)
        self.learn("the Basic pair", base64.b64encode(pair).decode())

    def learn_environment(self, environment: dict[str, str]) -> None:
        """Take note of what a child process is given."""
        names = ("SECRET", "PASSWORD", "TOKEN")
        for variable, value in environment.items():
            if variable.startswith(("THINGSPACE_", "VZ_M2M_")) and variable.endswith(names):
                self.learn(f"the value of {variable}", value)

    def found_in(self, text: str) -> set[str]:
        """Return the names of the canaries in a text."""
        found = {name for name, shape in self.SHAPES.items() if shape.search(text)}
        found |= {self._names[value] for value in self._unmarked if value in text}
        # Half a secret is one: the word is enough.
        for said in self.MARKED.findall(text) if "canary" in text.lower() else ():
            found |= {name for value, name in self._names.items() if value in said} or {"a marked value"}
        return found


class Evidence(NamedTuple):
    """Something that came to light."""

    where: str
    text: str


class Watch:
    """Gather what comes to light, and say what of it should not have.

    Args:
        canaries: What to look for.
        logs: Where child processes write their logs.
    """

    ENOUGH = 4_000_000
    """So many characters are gathered before they are searched: a token may be shown before it is known here."""

    LARGEST = 8_000_000
    """No more of a file is read than this, nor of the text of one value."""

    def __init__(self, canaries: Canaries, logs: Path) -> None:
        self.canaries = canaries
        self._logs = logs
        self._numbers = itertools.count(1)
        self._gathered: list[Evidence] = []
        self._size = 0
        self._suspect: list[Evidence] = []
        self._errors: WeakSet[BaseException] = WeakSet()
        self._unseen: set[int] = set()
        self._dying: list[BaseException] = []
        self._children: list[Child] = []

    def take(self, where: str, text: str | bytes | None) -> None:
        """Take a text that somebody could read."""
        if not text:
            return
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        self._gathered.append(Evidence(where, text))
        self._size += len(text)
        if self._size > self.ENOUGH:
            self._search()

    def leaks(self, test: str) -> list[str]:
        """Say what leaked since the last time, but for what this test may show."""
        dying, self._dying = self._dying, []
        for error in (*dying, *self._errors):
            self.end_of_error(error)
        for child in self._children:
            child.read_log()
        self._children = [child for child in self._children if child.process.poll() is None]
        self._search()
        suspect, self._suspect = self._suspect, []
        leaks = {}
        for where, text in suspect:
            for canary in sorted(self.canaries.found_in(_without_what_is_allowed(test, where, text))):
                leaks[f"{canary} in the {where}"] = None
        return list(leaks)

    def _search(self) -> None:
        gathered, self._gathered, self._size = self._gathered, [], 0
        if self.canaries.found_in("\n".join(text for _, text in gathered)):
            self._suspect += [evidence for evidence in gathered if self.canaries.found_in(evidence.text)]

    # --- Log records -------------------------------------------------------------------------------------------------

    _STANDARD = frozenset(vars(logging.makeLogRecord({})))

    def record(self, record: logging.LogRecord) -> None:
        """Take a log record: its text, its arguments, its error and what else hangs on it."""
        where = f"log record of {record.name}"
        with contextlib.suppress(Exception):  # a record that cannot be formatted is logging's to report
            self.take(where, record.getMessage())
        arguments = record.args.values() if isinstance(record.args, dict) else record.args or ()
        extras = (value for name, value in vars(record).items() if name not in self._STANDARD)
        for value in (*arguments, *extras):
            self.take(f"argument of a {where}", _text(value))
        if record.exc_info and record.exc_info[1] is not None:
            self.take(f"trace in a {where}", "".join(traceback.format_exception(record.exc_info[1])))
            self.error(record.exc_info[1])

    # --- Errors ------------------------------------------------------------------------------------------------------

    def begin_of_error(self, error: BaseException) -> None:
        """Take note of an error that is made: its trace is whole when it dies, or when the test ends."""
        self._errors.add(error)
        self._unseen.add(id(error))

    def dying_error(self, error: BaseException) -> None:
        """Keep an error that dies until it is looked at: a finalizer may run in the middle of anything."""
        if id(error) in self._unseen:
            self._dying.append(error)

    def end_of_error(self, error: BaseException) -> None:
        """Take an error that has come to rest."""
        if id(error) in self._unseen:
            self._unseen.discard(id(error))
            self._errors.discard(error)
            self.error(error)

    def error(self, error: BaseException) -> None:
        """Take an error: its text, what would go to another process, and its trace with local names."""
        kind = type(error).__name__
        self.take(f"text of {kind}", _text(error, str))
        self.take(f"repr of {kind}", _text(error))
        with contextlib.suppress(Exception):  # not every error of a test can be pickled
            self.take(f"pickle of {kind}", pickle.dumps(error))
        for part in _chain(error):
            for name, function, value in _locals(part):
                self.take(f"trace of {kind}, as {name} in {function}", value)

    # --- Child processes ---------------------------------------------------------------------------------------------

    def log_file(self) -> Path:
        """Return a name for the log of a child process."""
        return self._logs / f"{next(self._numbers)}.log"

    def child(self, process: subprocess.Popen[Any], log: Path) -> Child:
        """Watch a child process."""
        self._children.append(Child(self, process, log))
        return self._children[-1]

    # --- Files -------------------------------------------------------------------------------------------------------

    def directory(self, directory: Path) -> None:
        """Take the files of a directory, their names included."""
        for folder, _, names in os.walk(directory):
            for name in names:
                path = Path(folder, name)
                where = f"file {directory.name}/{path.relative_to(directory)}"
                self.take("name of a file", name)
                with contextlib.suppress(OSError):
                    if path.is_file() and not path.is_symlink():
                        with path.open("rb") as file:
                            self.take(where, file.read(self.LARGEST))


class Child:
    """Hear what a child process says, as far as the test reads it, and read what it logs.

    Args:
        watch: Who is told.
        process: The process.
        log: Its log.
    """

    OVERLAP = 200

    def __init__(self, watch: Watch, process: subprocess.Popen[Any], log: Path) -> None:
        self.process = process
        self._watch = watch
        self._log = log
        self._read = 0
        self._said = {"stdout": "", "stderr": ""}
        self._name = _command(process.args)

    def said(self, stream: str, text: str | bytes | None) -> None:
        """Take what was read of a stream, in whatever parts."""
        if text:
            text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
            whole = self._said[stream] + text
            self._said[stream] = whole[-self.OVERLAP :]
            self._watch.take(f"{stream} of {self._name}", whole)

    def read_log(self) -> None:
        """Take what was logged since the last time."""
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            log.seek(max(0, self._read - self.OVERLAP))
            self._watch.take(f"log of {self._name}", log.read(Watch.LARGEST))
            self._read = log.tell()


class Heard:
    """A stream of a child process that tells the watch what is read of it."""

    def __init__(self, stream: Any, say: Any) -> None:
        self._stream = stream
        self._say = say

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._stream, name)
        if name not in {"read", "read1", "readline", "readlines", "peek"}:
            return found

        def heard(*arguments: Any) -> Any:
            came = found(*arguments)
            self._say(came if not isinstance(came, list) else came[0][:0].join(came) if came else None)
            return came

        return heard

    def __iter__(self) -> Heard:
        return self

    def __next__(self) -> Any:
        line = next(self._stream)
        self._say(line)
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._stream.close()


class Plugin:
    """Let a watch see each test of a run, and fail those that leak."""

    def __init__(self) -> None:
        self._logs = Path(tempfile.mkdtemp(prefix="upcall-tests-logs-"))
        self.canaries = Canaries()
        self.watch = Watch(self.canaries, self._logs)
        self._patch = pytest.MonkeyPatch()

    def pytest_configure(self) -> None:
        self._watch_logs()
        self._watch_errors()
        self._watch_secrets()
        self._watch_children()
        self._watch_output()

    def pytest_unconfigure(self) -> None:
        self._patch.undo()
        shutil.rmtree(self._logs, ignore_errors=True)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        came = yield
        self._judge(item)
        return came

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Any:
        came = yield
        directory = getattr(item, "funcargs", {}).get("tmp_path")
        if directory is not None:
            self.watch.directory(directory)
        self._judge(item)
        return came

    def _judge(self, item: pytest.Item) -> None:
        sections = item._report_sections
        for _, stream, text in sections[item.stash.get(_SECTIONS, 0) :]:
            if stream != "log":  # records were seen as they came
                self.watch.take(f"captured {stream}", text)
        item.stash[_SECTIONS] = len(sections)
        leaks = self.watch.leaks(item.nodeid)
        if leaks:
            more = f" (and {len(leaks) - 3} more)" if len(leaks) > 3 else ""
            pytest.fail(f"A secret leaked: {'; '.join(leaks[:3])}{more}.", pytrace=False)

    # --- Where the watch looks ---------------------------------------------------------------------------------------

    def _watch_logs(self) -> None:
        """See every record that any logger makes at DEBUG, and let handlers see those that they would have seen."""
        hand_on, is_enabled = logging.Logger.callHandlers, logging.Logger.isEnabledFor

        def is_enabled_for(logger: logging.Logger, level: int) -> bool:
            return (level >= logging.DEBUG and not logger.disabled) or is_enabled(logger, level)

        def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
            self.watch.record(record)
            if is_enabled(logger, record.levelno):
                hand_on(logger, record)

        self._patch.setattr(logging.Logger, "isEnabledFor", is_enabled_for)
        self._patch.setattr(logging.Logger, "callHandlers", call_handlers)

    def _watch_errors(self) -> None:
        """See each error of ours at its end, without keeping it alive, and whatever else a test expects."""
        from upcall.errors import UpcallError

        watch = self.watch
        begin, leave = UpcallError.__init__, pytest.RaisesExc.__exit__

        @functools.wraps(begin)
        def begin_seen(error: UpcallError, *arguments: Any, **options: Any) -> None:
            begin(error, *arguments, **options)
            watch.begin_of_error(error)

        def end_seen(error: UpcallError) -> None:
            watch.dying_error(error)

        def leave_seen(expected: Any, kind: Any, error: BaseException | None, trace: Any) -> bool:
            if error is not None and not isinstance(error, UpcallError) and _is_ours(error):
                watch.error(error)
            return leave(expected, kind, error, trace)

        self._patch.setattr(UpcallError, "__init__", begin_seen)
        self._patch.setattr(UpcallError, "__del__", end_seen, raising=False)
        self._patch.setattr(pytest.RaisesExc, "__exit__", leave_seen)

    def _watch_secrets(self) -> None:
        """Learn each secret from the objects that hold it."""
        from upcall.client.auth import TokenSlot
        from upcall.client.exchange import Exchange
        from upcall.sandbox.state import AccessState

        canaries = self.canaries
        make, hold = Exchange.__init__, TokenSlot.adopt
        issue, log_in = AccessState.issue_token, AccessState.log_in

        @functools.wraps(make)
        def make_seen(exchange: Exchange, **options: Any) -> None:
            canaries.learn_credentials(options["credentials"])
            make(exchange, **options)

        @functools.wraps(hold)
        def hold_seen(slot: TokenSlot, flight: Any, token: Any) -> None:
            canaries.learn("a token", token.value)
            hold(slot, flight, token)

        @functools.wraps(issue)
        def issue_seen(state: AccessState, *arguments: Any) -> Any:
            issued = issue(state, *arguments)
            canaries.learn("a bearer token of the sandbox", issued[0].token)
            return issued

        @functools.wraps(log_in)
        def log_in_seen(state: AccessState, *arguments: Any, **options: Any) -> Any:
            login = log_in(state, *arguments, **options)
            canaries.learn("a session token of the sandbox", login.session_token)
            return login

        self._patch.setattr(Exchange, "__init__", make_seen)
        self._patch.setattr(TokenSlot, "adopt", hold_seen)
        self._patch.setattr(AccessState, "issue_token", issue_seen)
        self._patch.setattr(AccessState, "log_in", log_in_seen)

    def _watch_children(self) -> None:
        """Let each child process log at DEBUG into a file, and hear what a test reads of it."""
        begin, talk = subprocess.Popen.__init__, subprocess.Popen.communicate
        children: WeakKeyDictionary[Any, Child] = WeakKeyDictionary()

        @functools.wraps(begin)
        def begin_seen(process: Any, *arguments: Any, **options: Any) -> None:
            environment = dict(os.environ if options.get("env") is None else options["env"])
            log = environment.setdefault("UPCALL_LOG_FILE", str(self.watch.log_file()))
            self.canaries.learn_environment(environment)
            begin(process, *arguments, **options | {"env": environment})
            child = children[process] = self.watch.child(process, Path(log))
            for name in ("stdout", "stderr"):
                if (stream := getattr(process, name)) is not None:
                    setattr(process, name, Heard(stream, functools.partial(child.said, name)))

        @functools.wraps(talk)
        def talk_seen(process: Any, *arguments: Any, **options: Any) -> Any:
            came = talk(process, *arguments, **options)
            for name, text in zip(("stdout", "stderr"), came, strict=True):
                children[process].said(name, text)
            return came

        self._patch.setattr(subprocess.Popen, "__init__", begin_seen)
        self._patch.setattr(subprocess.Popen, "communicate", talk_seen)

    def _watch_output(self) -> None:
        """See what a test takes out of what was printed; the rest is in its report."""
        read = pytest.CaptureFixture.readouterr

        def read_seen(capture: Any) -> Any:
            came = read(capture)
            self.watch.take("captured stdout", came.out)
            self.watch.take("captured stderr", came.err)
            return came

        self._patch.setattr(pytest.CaptureFixture, "readouterr", read_seen)


def _without_what_is_allowed(test: str, where: str, text: str) -> str:
    for allowed in ALLOWED:
        if fnmatchcase(test, allowed.test) and fnmatchcase(where, allowed.where):
            text = allowed.shown.sub("", text)
    return text


def _text(value: object, show: Any = repr) -> str:
    try:
        return str(show(value))[: Watch.LARGEST]
    except Exception:  # noqa: BLE001 - what cannot be shown shows nothing
        return ""


def _chain(error: BaseException) -> Any:
    """Yield an error and those that its trace would show with it."""
    waiting, seen = [error], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        if isinstance(part, BaseExceptionGroup):
            waiting += part.exceptions
        if part.__cause__ is not None:
            waiting.append(part.__cause__)
        elif part.__context__ is not None and not part.__suppress_context__:
            waiting.append(part.__context__)


def _is_ours(error: BaseException) -> bool:
    """Tell whether an error came out of the product."""
    return any(PRODUCT in Path(frame.f_code.co_filename).parents for frame, _ in traceback.walk_tb(error.__traceback__))


def _locals(error: BaseException) -> Any:
    """Yield the local names of an error's trace, with their values as text; a test's own secrets are its business."""
    is_ours = False
    for frame, _ in traceback.walk_tb(error.__traceback__):
        path = Path(frame.f_code.co_filename)
        is_ours = is_ours or PRODUCT in path.parents
        if is_ours and TESTS not in path.parents:
            for name, value in list(frame.f_locals.items()):
                yield name, frame.f_code.co_qualname, _text(value)


def _command(words: Any) -> str:
    """Name a command without its options, which may hold secrets."""
    if isinstance(words, (str, bytes, os.PathLike)):
        words = [words]
    texts = [os.fsdecode(word) for word in words]
    if "upcall" in texts:
        plain = itertools.takewhile(str.isalpha, texts[texts.index("upcall") + 1 :])
        return " ".join(["`upcall", *itertools.islice(plain, 2)]) + "`"
    return f"`{Path(texts[0]).name}`"
