"""Log lines: where they go, and what one is as text and as JSON."""

import json
import logging
import time

import pytest

from upcall.cli.logs import FORMATS, configure_logging
from upcall.errors import SettingsError

log = logging.getLogger("upcall.test_logs")


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Log into a file in a form, and return what it holds then."""

    def write(form: str, say) -> str:
        path = tmp_path / f"{form}.log"
        monkeypatch.setenv("UPCALL_LOG_FILE", str(path))
        monkeypatch.setenv("UPCALL_LOG_FORMAT", form)
        configure_logging()
        say()
        return path.read_text()

    root = logging.getLogger()
    level = root.level
    yield write
    monkeypatch.undo()
    configure_logging()
    root.setLevel(level)


def test_a_json_line_holds_time_level_logger_and_message(written):
    """A collector finds what it needs without taking a line apart, and the time is UTC with milliseconds."""
    before = time.time()
    (line,) = written("json", lambda: log.warning("%d callbacks wait", 3)).splitlines()
    document = json.loads(line)
    moment = document.pop("time")
    assert time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(before)) <= moment[:19]
    assert (len(moment), moment[19], moment[-1]) == (24, ".", "Z")
    assert document == {"level": "warning", "logger": "upcall.test_logs", "message": "3 callbacks wait"}


def test_a_json_line_carries_the_fields_of_its_record(written):
    """What a line says in figures stands there as figures, too."""
    fields = {"method": "POST", "status": 200, "ms": 0.4}
    document = json.loads(written("json", lambda: log.info("POST 200", extra={"upcall_fields": fields})))
    assert {name: document[name] for name in fields} == fields


def fail() -> None:
    try:
        raise ConnectionError("tickets\x1b[31m are away")
    except ConnectionError:
        log.exception("the handler failed")


def test_an_error_is_one_json_line_with_its_traceback(written):
    """A traceback does not break the rule of one object a line."""
    (line,) = written("json", fail).splitlines()
    document = json.loads(line)
    assert document["message"] == "the handler failed"
    assert document["error"].startswith("Traceback (most recent call last):\n")
    assert document["error"].endswith("ConnectionError: tickets\x1b[31m are away")


@pytest.mark.parametrize("form", FORMATS)
def test_no_form_passes_on_what_a_terminal_obeys(written, form):
    """A callback cannot colour, clear or turn around what an operator reads, whatever the form."""
    text = written(form, lambda: (fail(), log.error("\x1b[2J\x7f\x9b\u202e\ud800")))
    assert text.replace("\n", "").isprintable()
    assert text.isascii()


def test_text_is_the_form_where_nothing_is_said(written):
    """Who sets nothing gets lines for people."""
    line = written("", lambda: log.info("ready"))
    assert line.endswith("INFO upcall.test_logs: ready\n")


@pytest.mark.parametrize(("variable", "value"), [("UPCALL_LOG_FORMAT", "xml"), ("UPCALL_LOG", "loud")])
def test_a_wrong_word_is_refused_with_the_right_ones(monkeypatch, variable, value):
    """A mistyped variable is told, not passed over, and the hint names what may stand there."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"{variable} is '{value}'") as caught:
        configure_logging()
    assert "Set it to one of" in str(caught.value)
