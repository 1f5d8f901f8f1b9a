"""Which accounts a listener expects."""

import pytest

from upcall.cli.serving import expected_accounts
from upcall.errors import SettingsError

FLEET = """
[[accounts]]
name = "A-1"
url = "https://fleet.example.com/callbacks/TOKEN"
credentials = "east"

[[accounts]]
name = "A-2"

[credentials.east]
client_secret_file = "not-on-this-machine"
"""


@pytest.fixture
def fleet(tmp_path):
    path = tmp_path / "fleet.toml"
    path.write_text(FLEET)
    return path


def test_accounts_of_the_file_join_those_that_are_named(fleet):
    """Each account of the file is expected beside those named, once, and none of the file's secrets is read."""
    assert expected_accounts([], fleet) == ("A-1", "A-2")
    assert expected_accounts(["A-3", "A-1"], fleet) == ("A-3", "A-1", "A-2")


def test_no_file_is_looked_for(fleet, monkeypatch):
    """Without the option neither the variable nor a file in the working directory says what is expected."""
    fleet.rename(fleet.with_name("upcall.toml"))
    monkeypatch.chdir(fleet.parent)
    monkeypatch.setenv("UPCALL_CONFIG", str(fleet.with_name("upcall.toml")))
    assert expected_accounts([], None) == ()
    assert expected_accounts(["A-3"], None) == ("A-3",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"names no account\. Add \[\[accounts\]\] tables with a name, or leave --config out"),
        ("[client]\ntimeout_seconds = 3\n", "names no account"),
        ("[[accounts]]\n", "line 1: this account has no `name`"),
        ("[[accounts]]\nname = 17\n", "line 2: account must be a str"),
        ("accounts", "is wrong"),
    ],
)
def test_a_file_that_would_expect_nobody(fleet, text, says):
    """A file without accounts would expect all in silence: it is refused, and so is one that cannot be read."""
    fleet.write_text(text)
    with pytest.raises(SettingsError, match=says):
        expected_accounts(["A-3"], fleet)


def test_a_file_that_is_not_there(fleet):
    """A file that is not there is named."""
    fleet.unlink()
    with pytest.raises(SettingsError, match=r"There is no settings file .*fleet\.toml"):
        expected_accounts([], fleet)
