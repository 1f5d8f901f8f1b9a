"""What the environment says, and what is never shown of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from upcall.errors import SettingsError
from upcall.settings import Credentials, credential_sources, default_store, read_settings, state_dir

NAMES = {
    "client_id": "THINGSPACE_CLIENT_ID",
    "client_secret": "THINGSPACE_CLIENT_SECRET",
    "username": "THINGSPACE_USERNAME",
    "password": "THINGSPACE_PASSWORD",
    "session_token": "THINGSPACE_SESSION_TOKEN",
}


@pytest.mark.parametrize(("field", "name"), NAMES.items())
def test_each_credential_is_read_from_its_variable_or_its_file(field, name, tmp_path):
    """A secret comes from its variable, or from the file that its _FILE twin names, without the line's end."""
    path = tmp_path / "secret"
    path.write_text("from-file\n")
    assert getattr(read_settings({name: "from-variable"}).credentials, field) == "from-variable"
    assert getattr(read_settings({f"{name}_FILE": str(path)}).credentials, field) == "from-file"
    both = {name: "from-variable", f"{name}_FILE": str(path)}
    assert getattr(read_settings(both).credentials, field) == "from-variable"


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("client_id", "THINGSPACE_OAUTH_OAUTH_CLIENT_ID"),
        ("client_secret", "THINGSPACE_OAUTH_OAUTH_CLIENT_SECRET"),
        ("session_token", "VZ_M2M_TOKEN_VZ_M2M_TOKEN"),
    ],
)
def test_the_official_sdks_variables_work_too(field, name):
    """A program that moves from the official SDK keeps its environment."""
    environ = {name: "theirs"}
    assert getattr(read_settings(environ).credentials, field) == "theirs"
    assert credential_sources(environ)[field] == name
    assert getattr(read_settings(environ | {NAMES[field]: "ours"}).credentials, field) == "ours"


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    """A wrong path, and a file that is no text, name the variable and the reason."""
    with pytest.raises(SettingsError, match=r"THINGSPACE_PASSWORD_FILE names /nowhere/x.*No such file"):
        read_settings({"THINGSPACE_PASSWORD_FILE": "/nowhere/x"})
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not UTF-8 text"):
        read_settings({"THINGSPACE_PASSWORD_FILE": str(binary)})


def test_an_empty_variable_or_file_counts_as_unset(tmp_path):
    """Empty is absent, so that a shell can unset a secret by emptying it."""
    empty = tmp_path / "empty"
    empty.write_text("\n")
    assert read_settings({"THINGSPACE_PASSWORD": ""}).credentials.password is None
    assert read_settings({"THINGSPACE_PASSWORD_FILE": str(empty)}).credentials.password is None
    assert read_settings({"THINGSPACE_BASE_URL": " "}).base_url is None


def test_what_is_missing_is_named_by_its_variable():
    """A call needs all four, or the first two and a session token."""
    assert Credentials().missing() == tuple(NAMES.values())[:4]
    assert Credentials(client_id="a", client_secret="b", session_token="c").missing() == ()
    assert Credentials(client_id="a", client_secret="b", username="c").missing() == ("THINGSPACE_PASSWORD",)


def test_credentials_show_which_are_given_and_none_of_them():
    """The repr names the fields that are set."""
    assert repr(Credentials(client_id="canary", password="canary")) == "Credentials(client_id, password)"


@pytest.mark.parametrize(("token", "usable"), [("abc-1", True), ("a b", False), ("a\n", False), ("é", False)])
def test_a_session_token_that_no_header_can_carry_is_known(token, usable):
    """What would break inside the HTTP library, where the error shows it, is found before."""
    credentials = Credentials(client_id="a", client_secret="é", session_token=token)
    assert credentials.unusable() == (() if usable else ("THINGSPACE_SESSION_TOKEN",))


def test_where_state_lies():
    """UPCALL_STATE_DIR, else the user's state directory."""
    assert state_dir({"UPCALL_STATE_DIR": "/s"}) == Path("/s")
    assert state_dir({"XDG_STATE_HOME": "/x"}) == Path("/x/upcall")
    assert state_dir({"HOME": "/home/me"}) == Path("/home/me/.local/state/upcall")
    assert default_store({"UPCALL_STATE_DIR": "/s"}) == "sqlite:////s/inbox.db"
    assert default_store({"UPCALL_STORE": "sqlite:///else"}) == "sqlite:///else"
