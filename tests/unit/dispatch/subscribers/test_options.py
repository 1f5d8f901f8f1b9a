"""The options: which subscribers they make, under which names, and what is refused."""

from __future__ import annotations

import base64
import logging

import pytest

from upcall.dispatch.subscribers import subscribers_from_options
from upcall.errors import SettingsError

SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


def make(**options):
    return subscribers_from_options(environ={"UPCALL_FORWARD_SECRET": SECRET}, **options)


def name(**options):
    (handler,) = make(**options)
    return handler.name


def test_one_of_each(tmp_path):
    """Each option is a subscriber of its own, which wants every event and has slots of its own."""
    handlers = make(
        forward=["https://a.example/x"],
        forward_raw=["https://a.example/x"],
        execute=["true"],
        jsonl=[str(tmp_path / "events.jsonl")],
    )
    assert [handler.name for handler in handlers] == [
        "forward:https://a.example/x",
        "forward-raw:https://a.example/x",
        "exec:true",
        f"jsonl:{tmp_path / 'events.jsonl'}",
    ]
    assert [handler.concurrency for handler in handlers] == [64, 64, 4, 512]
    assert [handler.is_async for handler in handlers] == [True, True, False, True]
    assert all(handler.is_ours and not handler.words for handler in handlers)


def test_who_hears_the_guard(tmp_path, event):
    """What the guard says goes to every subscriber but one that expects the provider's own bodies."""
    handlers = make(
        forward=["https://a.example/x"],
        forward_raw=["https://a.example/x"],
        execute=["true"],
        jsonl=[str(tmp_path / "events.jsonl")],
    )
    said = event(b'{"type":"registration.drift"}', origin="guard")
    assert [handler.wants(said) for handler in handlers] == [[""], [], [""], [""]]
    assert [handler.wants(event(origin="reconciled")) for handler in handlers] == [[""]] * 4


@pytest.mark.parametrize(
    "url",
    [
        "https://user:pa55word@a.example/x",
        "https://a.example/x?token=pa55word",
        "https://a.example/services/T024BE7LH/pa55wordpa55wordpa55word",
        "https://a.example/x?token=pa55word&other=1",
    ],
)
def test_names_hold_no_secret(url):
    """What may be secret in a URL stands in its name as a digest: two URLs have two names, always the same."""
    assert "pa55word" not in name(forward=[url])
    assert name(forward=[url]) == name(forward=[url])
    other = url.replace("pa55word", "hunter22")
    assert name(forward=[url]) != name(forward=[other])
    assert len(make(forward=[url, other])) == 2


def test_names_of_commands():
    """A command's arguments may be secret: its name holds their digest."""
    assert "pa55word" not in name(execute=["true --token pa55word"])
    assert name(execute=["true --token pa55word"]) != name(execute=["true --token hunter22"])


def test_ordinary_paths_are_shown():
    """A path that is no token is shown as it is."""
    url = "https://a.example:8443/api/v1/hooks/fleet"
    assert name(forward=[url]) == f"forward:{url}"


@pytest.mark.parametrize("options", [{"forward": ["https://a.example/"] * 2}, {"execute": ["true", "true"]}])
def test_one_twice(options):
    """One subscriber given twice is a mistake."""
    with pytest.raises(SettingsError, match="given twice"):
        make(**options)


@pytest.mark.parametrize(
    "url",
    ["ftp://a.example/", "a.example", "", "https://", "https://[::1", "https://a/#x", "https://a b/", "https://a:x/"],
)
@pytest.mark.parametrize("option", ["forward", "forward_raw"])
def test_what_is_no_url(option, url):
    """What is no http or https URL is refused."""
    with pytest.raises(SettingsError, match="no http or https URL"):
        make(**{option: [url]})


@pytest.mark.parametrize(
    ("host", "is_fine"),
    [("127.0.0.1:8000", True), ("localhost", True), ("10.1.2.3", True), ("[::1]:80", True), ("[fd00::1]", True),
     ("100.64.0.1", True), ("8.8.8.8", False), ("[2001:4860:4860::8888]", False)],
)  # fmt: skip
def test_plain_http(host, is_fine):
    """Unencrypted, callbacks go to this machine and its own networks only."""
    if is_fine:
        make(forward=[f"http://{host}/x"])
    else:
        with pytest.raises(SettingsError, match="unencrypted"):
            make(forward=[f"http://{host}/x"])


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0177.0.0.1", "[::ffff:10.0.0.1]", "[fe80::1%25lo]"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_addresses_that_are_never_sent_to(scheme, host):
    """An address in a form that sending refuses is refused at the start: it would fail for two days."""
    with pytest.raises(SettingsError, match="odd form"):
        make(forward=[f"{scheme}://{host}/x"])


@pytest.mark.parametrize("command", ["", "  ", "no-such-program-anywhere", "'unclosed", "/"])
def test_commands_that_cannot_be_run(command):
    """A command that is not there, or cannot be read, is refused at the start."""
    with pytest.raises(SettingsError, match="--exec"):
        make(execute=[command])


def test_files_that_cannot_be_written(tmp_path):
    """A file in no directory, or that is one, is refused at the start."""
    for path in (tmp_path / "no" / "x", tmp_path):
        with pytest.raises(SettingsError, match="--jsonl"):
            make(jsonl=[str(path)])


class TestSecret:
    def test_from_a_file(self, tmp_path):
        """The secret may lie in a file."""
        (tmp_path / "secret").write_text(SECRET + "\n")
        environ = {"UPCALL_FORWARD_SECRET_FILE": str(tmp_path / "secret")}
        (handler,) = subscribers_from_options(forward=["https://a.example/"], environ=environ)
        assert handler.function._signer is not None

    @pytest.mark.parametrize("content", [None, "", "whsec_short"])
    def test_a_file_that_is_not_fine(self, tmp_path, content):
        """A file that is missing, empty or holds no secret is refused: nothing is sent unsigned by mistake."""
        if content is not None:
            (tmp_path / "secret").write_text(content)
        environ = {"UPCALL_FORWARD_SECRET_FILE": str(tmp_path / "secret")}
        with pytest.raises(SettingsError, match="UPCALL_FORWARD_SECRET_FILE"):
            subscribers_from_options(forward=["https://a.example/"], environ=environ)

    def test_without_one(self, caplog):
        """Without a secret there is one warning, however many forwards there are."""
        with caplog.at_level(logging.WARNING):
            subscribers_from_options(forward=["https://a.example/", "https://b.example/"], environ={})
        assert [record.getMessage().startswith("forwards are not signed") for record in caplog.records] == [True]

    def test_not_needed(self, tmp_path, caplog):
        """Without forwards nobody asks for a secret."""
        environ = {"UPCALL_FORWARD_SECRET": "nonsense"}
        assert subscribers_from_options(jsonl=[str(tmp_path / "x")], environ=environ)
        assert not caplog.records
