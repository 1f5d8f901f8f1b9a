"""What the environment says, and what is never shown of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from upcall.errors import SettingsError
from upcall.settings import (
    Account,
    Credentials,
    GuardSettings,
    ReconcileSettings,
    default_store,
    read_accounts,
    read_profile,
    read_settings,
    state_dir,
)

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
    assert read_settings(environ).credentials.sources == ((field, name),)
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


def test_what_is_missing_in_a_table_is_named_as_the_table_names_it(tmp_path):
    """The table's own variable or file is to be set, or the key to be written that names one."""
    (tmp_path / "empty").touch()
    path = tmp_path / "upcall.toml"
    path.write_text(
        '[credentials.east]\nclient_id_env = "EAST_ID"\nclient_secret_file = "empty"\n'
        'session_token_env = "EAST_TOKEN"\n'
    )
    east = read_settings({}, config=path).credentials_named("east")
    assert east.missing() == (
        "EAST_ID",
        "empty",
        "username_env of [credentials.east]",
        "password_env of [credentials.east]",
    )
    assert east.missing(session=False) == ("EAST_ID", "empty")
    assert read_settings({"EAST_TOKEN": "a b"}, config=path).credentials_named("east").unusable() == ("EAST_TOKEN",)


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


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    """Where neither the environment nor the machine knows a home, the error says which place, and what helps."""

    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    for environ in ({}, {"UPCALL_STATE_DIR": "~/state"}):
        with pytest.raises(SettingsError, match=r"no such home directory.*set HOME or UPCALL_STATE_DIR"):
            state_dir(environ)
    assert state_dir({"XDG_STATE_HOME": "/x"}) == Path("/x/upcall")


SETTINGS_FILE = """
[client]
environment = "staging"
timeout_seconds = 10
max_retries = 1
max_elapsed_seconds = 20.5
allow_http = true
token_store = "kept.json"

[[accounts]]
name = "0000123456-00001"
url = "https://fleet.example.com/callbacks/a"
credentials = "east"

[[accounts]]
name = "0000123456-00002"

[credentials.east]
client_id_env = "EAST_ID"
client_secret_file = "east-secret"
username_env = "EAST_USER"
"""


@pytest.fixture
def settings_file(tmp_path):
    """Write a settings file with everything in it."""
    (tmp_path / "east-secret").write_text("from-file\n")
    path = tmp_path / "upcall.toml"
    path.write_text(SETTINGS_FILE)
    return path


def test_a_settings_file_gives_options_accounts_and_credentials(settings_file):
    """Every field of the file is read; a file of a secret is looked for beside it."""
    settings = read_settings({"EAST_ID": "id-east"}, config=settings_file)
    assert (settings.environment, settings.timeout_seconds, settings.max_retries) == ("staging", 10.0, 1)
    assert (settings.max_elapsed_seconds, settings.allow_http, settings.token_store) == (20.5, True, "kept.json")
    first, second = settings.accounts
    assert (first.name, first.url) == ("0000123456-00001", "https://fleet.example.com/callbacks/a")
    assert (second.name, second.url, second.credentials) == ("0000123456-00002", None, None)
    east = settings.credentials_of(first)
    assert (east.client_id, east.client_secret, east.username) == ("id-east", "from-file", None)
    sources = dict(east.sources)
    assert (east.table, sources["client_id"], sources["client_secret"]) == ("east", "EAST_ID", "east-secret")
    assert settings.credentials_of(second) == settings.credentials


def test_a_variable_stands_before_the_file(settings_file):
    """What the environment says wins, option by option, and a base URL there puts the file's environment aside."""
    environ = {
        "UPCALL_CONFIG": str(settings_file),
        "UPCALL_TIMEOUT_SECONDS": "2.5",
        "UPCALL_MAX_RETRIES": "0",
        "UPCALL_ALLOW_HTTP": "no",
        "UPCALL_TOKEN_STORE": "1",
        "THINGSPACE_BASE_URL": "https://host/api",
    }
    settings = read_settings(environ)
    assert (settings.timeout_seconds, settings.max_retries, settings.max_elapsed_seconds) == (2.5, 0, 20.5)
    assert (settings.allow_http, settings.token_store) == (False, True)
    assert (settings.base_url, settings.environment) == ("https://host/api", None)


def test_a_table_called_default_stands_in_for_variables(tmp_path):
    """Where no variable names credentials, [credentials.default] does; one variable puts it aside whole."""
    path = tmp_path / "upcall.toml"
    path.write_text('[credentials.default]\nclient_id_env = "MINE"\n')
    assert read_settings({"MINE": "id"}, config=path).credentials.client_id == "id"
    assert read_settings({"MINE": "id", "THINGSPACE_USERNAME": "u"}, config=path).credentials.client_id is None


GUARDIAN = """
[delivery]
profile = "patient.toml"

[alerts]
url_file = "hook"

[guard]
every_seconds = 60
reassert = true

[reconcile]
after_outage = true
every_seconds = 3600
requests_per_second = 0.5

[[accounts]]
name = "0000123456-00001"
url = "https://fleet.example.com/callbacks/{token}"
labels = ["east", "trucks"]
"""


@pytest.fixture
def guardian_file(tmp_path):
    """Write a settings file that says how the registrations are watched."""
    (tmp_path / "patient.toml").write_text("gaps_seconds = [600, 600]\n")
    (tmp_path / "hook").write_text("https://hooks.example.com/canary\n")
    path = tmp_path / "upcall.toml"
    path.write_text(GUARDIAN)
    return path


def test_a_settings_file_says_how_registrations_are_watched(guardian_file):
    """Profile, alerts, guard and reconciling are read; the paths of both files count from the settings file."""
    settings = read_settings({}, config=guardian_file)
    assert read_profile(settings.profile).max_attempts == 3
    assert read_profile(settings.profile, home=Path("/elsewhere")).name == "patient"
    assert (settings.alert_url, settings.alert_source) == ("https://hooks.example.com/canary", "hook")
    assert settings.guard == GuardSettings(every_seconds=60.0, reassert=True)
    assert settings.reconcile == ReconcileSettings(after_outage=True, every_seconds=3600.0, requests_per_second=0.5)
    assert settings.accounts[0].labels == ("east", "trucks")


def test_what_is_watched_where_nothing_is_said(tmp_path):
    """Nobody's slot is taken back, nothing is posted and no report is read unless the file says so."""
    path = tmp_path / "upcall.toml"
    path.write_text("")
    for settings in (read_settings({}), read_settings({}, config=path)):
        assert (settings.profile, settings.alert_url, settings.accounts) == ("documented", None, ())
        assert (settings.guard.every_seconds, settings.guard.reassert) == (300.0, False)
        assert (settings.reconcile.after_outage, settings.reconcile.every_seconds) == (False, None)
        assert settings.problems == ()


@pytest.mark.parametrize(
    ("text", "url", "source"),
    [
        ("url = 'https://h/plain'", "https://h/plain", None),
        ("url_env = 'HOOK'", "https://h/canary", "HOOK"),
        ("url_env = 'UNSET'", None, "UNSET"),
    ],
)
def test_where_alerts_go(text, url, source, tmp_path):
    """The URL stands in the file, or in a variable that may be unset where nobody wants alerts."""
    path = tmp_path / "upcall.toml"
    path.write_text(f"[alerts]\n{text}\n")
    settings = read_settings({"HOOK": "https://h/canary "}, config=path)
    assert (settings.alert_url, settings.alert_source) == (url, source)


def test_settings_show_no_secret(guardian_file):
    """The repr in a debugger or a trace tells the settings, and neither the alerts' URL nor a token in a listener's."""
    settings = read_settings({"THINGSPACE_PASSWORD": "canary"}, config=guardian_file)
    assert "canary" not in repr(settings)
    assert "alert_url='***'" in repr(settings)
    assert "https://fleet.example.com/callbacks/{token}" in repr(settings)
    account = Account(name="a", url="https://fleet.example.com/callbacks/canary-token-of-43-characters")
    assert "fleet.example.com" in repr(account)
    assert "token-of-43" not in repr(account)


def test_who_only_receives_needs_nothing_that_the_file_points_at(guardian_file):
    """A listener's machine has neither the provider's credentials nor the guard's files."""
    for name in ("hook", "patient.toml"):
        (guardian_file.parent / name).unlink()
    guardian_file.write_text(f"{GUARDIAN}[credentials.east]\npassword_file = 'nowhere'\n")
    assert [account.name for account in read_accounts(guardian_file)] == ["0000123456-00001"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[client]\ntimeout_second = 1", "timeout_second"),
        ('[client]\ntimeout_seconds = "1"', "client.timeout_seconds"),
        ("[[accounts]]\nurl = 'x'", "name"),
        ("[[accounts]]\nname = 'a'\n[[accounts]]\nname = 'a'", "account a twice"),
        ("[[accounts]]\nname = 'a'\ncredentials = 'west'", r"no table \[credentials\.west\]"),
        ("[credentials.a]\npassword = 'canary'", "password"),
        ("[client", "wrong"),
        ('[client]\nbase_url = "https://h/api"\nenvironment = "qa"', "Give one of them"),
        ("[credentials.a]\npassword_file = 'nowhere'", r"credentials\.a\.password_file names"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_place(tmp_path, text, complaint):
    """A wrong file says which file, where in it and what, and never shows a value."""
    path = tmp_path / "upcall.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=complaint) as caught:
        read_settings({}, config=path)
    assert "canary" not in str(caught.value)


def test_a_settings_file_that_cannot_be_read_says_why(tmp_path):
    """A path to nothing, to a directory, and to bytes that are no text."""
    (tmp_path / "binary").write_bytes(b"\xff")
    for name, complaint in (("none", "There is no settings file"), (".", "directory"), ("binary", "not UTF-8")):
        with pytest.raises(SettingsError, match=complaint):
            read_settings({}, config=tmp_path / name)


@pytest.mark.parametrize(
    "environ",
    [
        {"UPCALL_TIMEOUT_SECONDS": "soon"},
        {"UPCALL_MAX_RETRIES": "1.5"},
        {"UPCALL_ALLOW_HTTP": "maybe"},
        {"THINGSPACE_BASE_URL": "https://h/api", "THINGSPACE_ENVIRONMENT": "qa"},
    ],
)
def test_a_variable_that_makes_no_sense_is_named(environ):
    """A typo in a variable is an error that names it, not a default that surprises."""
    with pytest.raises(SettingsError, match=next(iter(environ))):
        read_settings(environ)
