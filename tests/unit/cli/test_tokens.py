"""Which tokens a listener accepts."""

import logging

import pytest

from upcall.cli.tokens import given_tokens, store_tokens
from upcall.errors import SettingsError
from upcall.inbox import TokenRecord, open_inbox

GIVEN = "given-by-the-operator"
OTHER = "another-one-of-theirs"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in ("UPCALL_TOKENS", "UPCALL_TOKENS_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def inbox(tmp_path):
    with open_inbox(str(tmp_path / "inbox.db"), create=True) as opened:
        yield opened


def live_tokens(inbox, texts, accounts):
    """Return what a listener accepts at its start."""
    return given_tokens(texts, accounts) or store_tokens(accounts).begin(inbox)


def accounts_by_secret(tokens):
    return {token.secret: set(token.accounts) for token in tokens}


def test_a_generated_token_outlives_a_change_of_accounts(inbox, caplog):
    """Whatever accounts are expected at a restart, the registered URL goes on, and its token is theirs now."""
    caplog.set_level(logging.INFO)
    ((secret, owners),) = accounts_by_secret(live_tokens(inbox, [], ["A-1"])).items()
    assert owners == {"A-1"}
    assert caplog.text == ""
    assert accounts_by_secret(live_tokens(inbox, [], ["A-1", "A-2"])) == {secret: {"A-1", "A-2"}}
    assert "generated for A-1 belongs to A-1, A-2 now" in caplog.text
    assert accounts_by_secret(live_tokens(inbox, [], [])) == {secret: set()}
    assert "every account are taken with the token that was generated for A-1" in caplog.text
    assert secret not in caplog.text
    assert [(record.token, record.accounts) for record in inbox.tokens()] == [(secret, ("A-1",))]


def test_the_token_of_exactly_these_accounts_goes_first(inbox, caplog):
    """Where a store has several, the one made for the accounts that are expected is taken, and the rest are named."""
    for number, accounts in enumerate([("A-1",), ("A-2", "A-1"), ()]):
        inbox.add_token(TokenRecord(f"{number}" * 32, accounts), number)
    assert accounts_by_secret(live_tokens(inbox, [], ["A-1", "A-2"])) == {"1" * 32: {"A-1", "A-2"}}
    assert "a generated token for other accounts too" in caplog.text
    every = live_tokens(inbox, [], ["A-3"])
    assert accounts_by_secret(every) == {f"{number}" * 32: {"A-3"} for number in range(3)}


def test_where_tokens_are_looked_for(inbox, tmp_path, monkeypatch):
    """The command line goes before the variable, that before the file, and what is given leaves the store alone."""
    (tmp_path / "tokens").write_text(f"\n{OTHER},\n")
    monkeypatch.setenv("UPCALL_TOKENS_FILE", str(tmp_path / "tokens"))
    assert accounts_by_secret(live_tokens(inbox, [], [])) == {OTHER: set()}
    monkeypatch.setenv("UPCALL_TOKENS", "")
    assert accounts_by_secret(live_tokens(inbox, [], ["A-1"])) == {OTHER: {"A-1"}}
    monkeypatch.setenv("UPCALL_TOKENS", f" {GIVEN} , A-2={OTHER}")
    assert accounts_by_secret(live_tokens(inbox, [], [])) == {GIVEN: set(), OTHER: {"A-2"}}
    assert accounts_by_secret(live_tokens(inbox, [GIVEN], [])) == {GIVEN: set()}
    assert inbox.tokens() == []


@pytest.mark.parametrize("text", ["", " ", ",", "\n"])
@pytest.mark.parametrize("variable", ["UPCALL_TOKENS", "UPCALL_TOKENS_FILE"])
def test_a_variable_without_a_token(inbox, tmp_path, monkeypatch, variable, text):
    """A variable that is set and holds no token is refused: a generated token would get the registered URL a 404."""
    (tmp_path / "tokens").write_text(text)
    monkeypatch.setenv(variable, text if variable == "UPCALL_TOKENS" else str(tmp_path / "tokens"))
    with pytest.raises(SettingsError, match=f"{variable}.* holds no token"):
        live_tokens(inbox, [], [])
    assert inbox.tokens() == []
