"""Each mistake in a settings file is named with its line and with what is allowed instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.errors import SettingsError
from upcall.settings import read_accounts, read_settings
from upcall.settings.file import SettingsFile

HERE = "# here"
"""Marks the line that is to be blamed."""

MISTAKES = {
    "syntax": ("[client]\ntimeout_seconds 3 # here\n", r"Expected '=' after a key in a key/value pair \(column"),
    "twice": ("[client]\nmax_retries = 1\nmax_retries = 1 # here\n", "Cannot overwrite a value"),
    "unfinished": ("[[accounts]]\nlabels = [\n'a', # here\n\n", r"\(at the end of the file\)"),
    "name without quotes": ("[[accounts]]\nname = 0000123456-00001 # here\n", "An account's name stands in quotes"),
    "unknown table": ("\n[acounts] # here\nname = 'a'\n", "no `acounts` in the settings file.*Did you mean `accounts`"),
    "unknown key": (
        "[client]\n\ntimeout_second = 1 # here\n",
        "no `timeout_second` in .client.. Did you mean `timeout_s",
    ),
    "known keys": ("[guard]\nzzz = 1 # here\n", "no `zzz` in .guard.. Known: `every_seconds`, `reassert`"),
    "key of an account": ("[[accounts]]\nname = 'a'\nlabel = ['x'] # here\n", "Did you mean `labels`"),
    "type": (
        "[client]\ntimeout_seconds = '1' # here\n",
        "`client.timeout_seconds` has to be a number, not text. Write seconds, without quotes, such as 300",
    ),
    "type in a list": (
        "[[accounts]]\nname = 'a'\nlabels = [\n'x',\n7, # here\n]\n",
        r"`accounts\[0\]\.labels\[1\]` has to be text, not a whole number",
    ),
    "one table for a list": ("[accounts] # here\nname = 'a'\n", r"write \[\[accounts\]\], in double brackets"),
    "a list for one table": ("[[guard]] # here\nreassert = true\n", r"write \[guard\]"),
    "a list of words": ("accounts = [\n'a', # here\n]\n", "an account is a table"),
    "credentials without a name": (
        "[credentials] # x\nclient_id_env = 'A' # here\n",
        r"write \[credentials\.default\]|Write",
    ),
    "credentials that are none": ("credentials = 'east' # here\n", r"write \[credentials\.NAME\]"),
    "no name": ("[[accounts]]\nname = 'a'\n\n[[accounts]] # here\nurl = 'https://h/c'\n", "this account has no `name`"),
    "nearly a name": ("[[accounts]]\nnam = 'a' # here\n", "no `nam` in .*accounts.*Did you mean `name`.$"),
    "a number": ("[[accounts]]\nname = 242078689 # here\n", "loses the leading zeros.*Write it in quotes"),
    "an empty name": ("[[accounts]]\nname = '' # here\n", "account must not be ''"),
    "twice the same": (
        "[[accounts]]\nname = 'a'\n[[accounts]]\nname = 'a' # here\n",
        "names the account a twice, first at line 2. Leave one out",
    ),
    "credentials that are not there": (
        "[[accounts]]\nname = 'a'\ncredentials = 'esat' # here\n[credentials.east]\n",
        r"no table \[credentials\.esat\], which the account a asks for. Did you mean `east`",
    ),
    "an empty label": ("[[accounts]]\nname = 'a'\nlabels = [\n'x',\n'', # here\n]\n", "a has an empty label"),
    "no seconds": ("[guard]\nevery_seconds = 0 # here\n", "`every_seconds` is 0, and has to be more than 0"),
    "less than none": ("[client]\nmax_elapsed_seconds = -1.5 # here\n", "`max_elapsed_seconds` is -1.5"),
    "no number": ("[reconcile]\nrequests_per_second = nan # here\n", "`requests_per_second` is nan"),
    "without end": ("[reconcile]\nevery_seconds = inf # here\n", "`every_seconds` is inf"),
    "tries": ("[client]\nmax_retries = -1 # here\n", "`max_retries` is -1, and has to be 0 or more"),
    "an environment": (
        "[client]\nenvironment = 'produktion' # here\n",
        "no environment 'produktion'. Did you mean `production`",
    ),
    "two places": (
        "[client]\nbase_url = 'https://h/api'\nenvironment = 'qa' # here\n",
        "contradict each other. Give one",
    ),
    "a profile": ("[delivery]\nprofile = 'observd' # here\n", "no delivery profile 'observd'. Did you mean `observed`"),
    "a profile's file": (
        "[delivery]\nprofile = 'nowhere.toml' # here\n",
        "nowhere.toml: the file cannot be read: No such",
    ),
    "an unsound profile": (
        "[delivery]\nprofile = 'unsound.toml' # here\n",
        "unsound.toml: .* is not sound: seconds are",
    ),
    "a secret": (
        "[credentials.a]\npassword = 'canary' # here\n",
        "No secret stands in this file: `password_env` names its",
    ),
    "a secret's file": (
        "[credentials.a]\npassword_file = 'nowhere' # here\n",
        r"credentials\.a\.password_file names .*/nowhere",
    ),
    "no home": ("[client]\nstate_dir = '~nobody-at-all/x' # here\n", "there is no such home directory"),
    "alerts to nowhere": ("[alerts]\nurl = 'canary.example/x' # here\n", "`alerts.url` is no URL such as https"),
    "alerts to no URL": ("[alerts]\nurl = 'https://[canary/x' # here\n", "`alerts.url` cannot be read as a URL"),
    "alerts by a variable": (
        "[alerts]\nurl_env = 'HOOK' # here\n",
        "alerts.url_env names HOOK, and what that holds is no URL",
    ),
    "alerts by a file": (
        "[alerts]\nurl_file = 'nowhere' # here\n",
        "alerts.url_file names .*/nowhere, which cannot be read",
    ),
    "alerts twice": (
        "[alerts]\nurl = 'https://h/canary'\nurl_env = 'NONE' # here\n",
        r"has `url` and `url_env`.* Give one",
    ),
}

URLS = {
    "http://fleet.example.com/{token}": "loopback hosts only",
    "https:///callbacks/{token}": "names no host",
    "fleet.example.com/callbacks/{token}": "names no host",
    "ftp://fleet.example.com/callbacks/{token}": "is not https",
    "https://me:canary@fleet.example.com/{token}": "must not name a user",
    "https://fleet.example.com/a b/{token}": "a space",
    "https://fleet.example.com/{account}/{token}": "{account} means nothing; {token} stands",
    "https://fleet.example.com/{Token}": "{Token} means nothing",
    "https://fleet.example.com/{token": "holds '{'",
    "https://fleet.example.com/{token}/{token}": "more than once",
    "https://fleet.example.com/{token}/callbacks": "is the whole last segment of the path",
    "https://fleet.example.com/c-{token}": "is the whole last segment of the path",
    "https://fleet.example.com/c?token={token}": "is the whole last segment of the path",
    "https://fleet.example.com/c#{token}": "is the whole last segment of the path",
    "https://{token}.example.com/c": "is the whole last segment of the path",
}


@pytest.fixture
def refused(tmp_path):
    """Return what reads a settings file that is wrong, and gives the error and the line that is to be blamed."""
    (tmp_path / "unsound.toml").write_text("gaps_seconds = [-1]\n")
    path = tmp_path / "upcall.toml"

    def read(text, environ):
        path.write_text(text)
        line = next(number for number, line in enumerate(text.split("\n"), 1) if HERE in line)
        with pytest.raises(SettingsError) as caught:
            read_settings(environ, config=path)
        return caught.value, f"The settings file {path} is wrong at line {line}: "

    return read


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_line(name, refused):
    """Whoever wrote it is told where to look, what is wrong and what may stand there; no secret is shown."""
    text, says = MISTAKES[name]
    error, begins = refused(text, {"HOOK": "nothing"})
    assert str(error).startswith(begins)
    assert re.search(says, str(error)), error
    assert "canary" not in str(error)
    assert ".." not in str(error).replace("...", "")


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_can_never_be_right(url, refused):
    """What the provider could not use whatever the token is, and a token that no listener would find, are refused."""
    error, begins = refused(f'[[accounts]]\nname = "a"\nurl = "{url}" {HERE}\n', {})
    assert str(error).startswith(f"{begins}the url of the account a cannot be used: ")
    assert URLS[url] in str(error)
    assert "canary" not in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "https://fleet.example.com:50559/callbacks/{token}",
        "https://fleet.example.com/{token}/?x=1",
        "https://fleet.example.com/callbacks/no-token-here",
        "https://[2001:db8::1]/{token}",
        "http://127.0.0.1:8080/callbacks/{token}",  # a command may be told --allow-http
    ],
)
def test_a_url_that_may_be_right_is_left_alone(url, tmp_path):
    """What stands before the token, which port and which address are the user's."""
    path = tmp_path / "upcall.toml"
    path.write_text(f'[[accounts]]\nname = "a"\nurl = "{url}"\n')
    assert read_settings({}, config=path).accounts[0].url == url
    assert read_accounts(path)[0].url == url


def test_bytes_that_are_no_text_have_a_line_too(tmp_path):
    """An editor that saved in another encoding is found by its first odd letter."""
    path = tmp_path / "upcall.toml"
    path.write_bytes(b"[client]\n# gr\xfc\xdfe\n")
    with pytest.raises(SettingsError, match="is wrong at line 2: it is not UTF-8 text"):
        read_settings({}, config=path)


def test_lists_without_end_are_refused(tmp_path):
    """A file that would exhaust the stack is an error like any other."""
    path = tmp_path / "upcall.toml"
    path.write_text(f"a = {'[' * 100_000}")
    with pytest.raises(SettingsError, match="is wrong: its lists are too deep"):
        read_settings({}, config=path)


MANY = """[client]
timeout_seconds = 3
max_retry = 1

[delivery]
profile = "sunny"

[[accounts]]
name = 17

[[accounts]]
name = " a"
url = "https://fleet.example.com/{tokens}"
labels = ["x", ""]

[[accounts]]
name = "b"
credentials = "west"

[[accounts]]
name = "b"

[credentials.east]
password_file = "nowhere"
"""


def test_the_first_of_many_mistakes_is_told_with_their_number(tmp_path):
    """One line is mended at a time; how many wait is known."""
    path = tmp_path / "upcall.toml"
    path.write_text(MANY)
    with pytest.raises(SettingsError, match=r"line 3: there is no `max_retry` .* Mistakes that follow it: 8\."):
        read_settings({}, config=path)
    with pytest.raises(SettingsError, match=r"line 3: .* Mistakes that follow it: 7\."):  # the secret is not looked for
        read_accounts(path)


def test_a_lenient_reading_takes_what_can_be_used_and_tells_the_rest(tmp_path):
    """Who reports what is wrong gets every mistake with its line and account, and everything else that stands there."""
    path = tmp_path / "upcall.toml"
    path.write_text(MANY)
    settings = read_settings({}, config=path, lenient=True)
    told = [(problem.line, problem.account) for problem in settings.problems]
    assert told == [
        (3, None),
        (6, None),
        (9, None),
        (12, " a"),
        (13, " a"),
        (14, " a"),
        (18, "b"),
        (21, "b"),
        (24, None),
    ]
    assert settings.timeout_seconds == 3
    assert [account.name for account in settings.accounts] == [" a", "b"]
    assert settings.accounts[0].url == "https://fleet.example.com/{tokens}"
    with pytest.raises(SettingsError, match=r"no table \[credentials\.west\]"):
        settings.credentials_of(settings.accounts[1])


def test_a_lenient_reading_of_what_is_no_toml(tmp_path):
    """Nothing can be used of it, and the mistake is told like any other."""
    path = tmp_path / "upcall.toml"
    path.write_text("[[accounts]\nname = 'a'\n")
    settings = read_settings({}, config=path, lenient=True)
    assert [problem.line for problem in settings.problems] == [1]
    assert settings.accounts == ()


VALUES = st.recursive(
    st.one_of(
        st.integers(-(2**63), 2**63 - 1).map(str),
        st.sampled_from(["true", "-1.0", "nan", "inf", "1979-05-27", '""', "'a'", "'{token}'", "'https://h/{token}'"]),
        st.sampled_from(["'documented'", "'x.toml'", "'http://[x'", "'~nobody/x'", "0"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda values: f"[{', '.join(values)}]"),
        st.dictionaries(st.sampled_from(["a", "name", "url_env"]), inner, max_size=2).map(
            lambda items: f"{{{', '.join(f'{key} = {value}' for key, value in items.items())}}}"
        ),
    ),
    max_leaves=4,
)
KEYS = st.sampled_from(
    [
        *(
            "name",
            "url",
            "url_env",
            "url_file",
            "labels",
            "credentials",
            "profile",
            "every_seconds",
            "state_dir",
            "odd",
        ),
        *("client_id_env", "password", "password_file", "timeout_seconds", "base_url", "environment", "max_retries"),
    ]
)
HEADERS = st.sampled_from(
    [
        *(
            "[client]",
            "[guard]",
            "[reconcile]",
            "[delivery]",
            "[alerts]",
            "[credentials.a]",
            "[credentials]",
            "[accounts]",
        ),
        "[odd]",
    ]
)
BODIES = st.dictionaries(KEYS, VALUES, max_size=3)


@given(st.dictionaries(HEADERS, BODIES, max_size=4), st.lists(BODIES, max_size=3))
def test_no_file_is_too_odd(tables, accounts):
    """Whatever stands in it, a file is sound or wrong at a line that it has, and never breaks what reads it."""
    tables = {header: body for header, body in tables.items() if header != "[accounts]" or not accounts}
    sections = [*tables.items(), *(("[[accounts]]", body) for body in accounts)]
    lines = [
        line for header, body in sections for line in (header, *(f"{key} = {value}" for key, value in body.items()))
    ]
    found = SettingsFile(Path("upcall.toml"), "\n".join(lines))
    for problem in found.problems():
        assert 1 <= problem.line <= len(lines)
        assert problem.text
    names = [account.name for account in found.tables.accounts]
    assert len(names) == len(set(names)) <= len(accounts)
