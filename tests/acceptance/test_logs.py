"""What a listener logs as JSON: a real process, a real request."""

import json

from .conftest import TOKEN
from .sockets import Connection, post


def test_the_access_log_in_json_carries_figures(upcall, tmp_path):
    """A collector reads method, status, size, time and source of each answer as members, and no token."""
    log = tmp_path / "listen.log"
    upcall.environment |= {"UPCALL_LOG_FORMAT": "json", "UPCALL_LOG_FILE": str(log)}
    listener = upcall.listen("--access-log", "--mask-token")
    with Connection(listener.port) as connection:
        assert connection.ask(post(b'{"type": "upgradeProgress"}')) == 200
    assert listener.end() == 0
    text = log.read_text()
    (line,) = [line for line in map(json.loads, text.splitlines()) if line["logger"] == "upcall.access"]
    assert (line["method"], line["status"], line["bytes"], line["from"]) == ("POST", 200, 27, "127.0.0.1")
    assert line["ms"] >= 0
    assert TOKEN not in text
