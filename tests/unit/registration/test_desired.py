"""What each account should have registered, and whose a URL is."""

import pytest

from upcall.inbox import TokenRecord
from upcall.listener import Token
from upcall.registration import Ours, in_order, select_targets, targets_of
from upcall.settings import Account

A, B, C = "0000123456-00001", "0000123456-00002", "0000123456-00003"
TEMPLATE = "https://fleet.example:50559/callbacks/{token}"
OLD, NOW, NEXT, OWN = "old-token-of-the-store", "now-token-of-the-store", "next-token-of-store", "own-token-of-account"


def url(secret):
    return TEMPLATE.replace("{token}", secret)


def accounts(*names, template=TEMPLATE):
    return [Account(name=name, url=template) for name in names]


def urls(targets):
    return [target.url for target in targets]


def test_a_plain_url_is_taken_as_it_stands():
    """An account whose URL holds no place for a token needs no store and no token."""
    (target,) = targets_of(accounts(A, template="https://fleet.example/fixed"))
    assert (target.url, target.tokens, target.problem) == ("https://fleet.example/fixed", (), None)


def test_a_template_takes_the_live_token_of_the_store():
    """The token in use makes the URL; retiring and retired ones never do."""
    tokens = [TokenRecord(OLD, (), "retiring"), TokenRecord(NEXT, (), "next"), TokenRecord(NOW, ())]
    (target,) = targets_of(accounts(A), [*tokens, TokenRecord("gone-token-of-the-store", (), "retired")])
    assert target.url == url(NOW)
    assert target.tokens == (NOW, NEXT)
    assert target.next_urls == (url(NEXT),)


def test_a_rotation_under_way_is_in_order_with_either_token():
    """While a rotation points the provider at the next token, neither side of it is drift."""
    (target,) = targets_of(accounts(A), [TokenRecord(NOW, ()), TokenRecord(NEXT, (), "next")])
    assert in_order(target, url(NOW))
    assert in_order(target, url(NEXT))
    assert not in_order(target, url(OLD))
    assert not in_order(target, None)


def test_a_token_fits_its_own_account_and_one_for_all_fits_each():
    """An account's own token makes its URL, beside one that is for another account."""
    tokens = [TokenRecord(OWN, (B,)), TokenRecord(NOW, ())]
    assert urls(targets_of(accounts(A, B), tokens)) == [url(NOW), url(OWN)]


def test_the_token_made_for_just_these_accounts_is_the_one():
    """A listener takes the token that was generated for the accounts it is given, and no other: so does the URL."""
    tokens = [TokenRecord(OLD, (A,)), TokenRecord(NOW, (A, B))]
    assert urls(targets_of(accounts(A, B), tokens)) == [url(NOW), url(NOW)]


def test_an_account_added_later_takes_the_store_s_token():
    """A listener believes the store's token for every account of the file, so one that is new there gets it too."""
    assert urls(targets_of(accounts(A, C), [TokenRecord(NOW, (A,))])) == [url(NOW), url(NOW)]


def test_given_tokens_stand_in_the_place_of_the_store_s():
    """Where the environment gives tokens, a listener takes no other, and they fit as they say."""
    given = [Token(OWN, frozenset({B})), Token(NEXT)]
    assert urls(targets_of(accounts(A, B), [TokenRecord(NOW, ())], given)) == [url(NEXT), url(OWN)]
    (_, other) = targets_of(accounts(A, B), [TokenRecord(NOW, ())], [Token(OWN, frozenset({A}))])
    assert (other.url, "UPCALL_TOKENS" in other.problem) == (None, True)


def test_without_a_token_it_is_said_what_to_do():
    """A template that nothing fits has no URL, and says how to get one."""
    (target,) = targets_of(accounts(A), [TokenRecord(OLD, (A,), "retired")])
    assert target.url is None
    assert "upcall listen --config" in target.problem
    assert targets_of([Account(name=A)])[0].problem == "the settings file gives no url for it"


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [({}, [A, B]), ({"accounts": [B]}, [B]), ({"labels": ["east"]}, [A]), ({"accounts": [B], "labels": ["east"]}, [])],
)
def test_targets_are_chosen_by_name_and_by_label(choice, chosen):
    """Nothing chosen is everything; both together must hold."""
    targets = targets_of([Account(name=A, url=TEMPLATE, labels=("east", "lab")), Account(name=B, url=TEMPLATE)])
    assert [target.account for target in select_targets(targets, **choice)] == chosen


def test_ours_is_the_desired_url_any_token_of_ours_and_what_we_wrote():
    """Old tokens in our template and URLs of our audit are ours; the same host with another end is not."""
    targets = targets_of(accounts(A, B), [TokenRecord(NOW, ())])
    written = {A: {"https://fleet.example/before"}}
    ours = Ours(targets, secrets=[OLD, NOW], written=written)
    assert ours.owns(A, url(NOW))
    assert ours.owns(A, url(OLD))
    assert ours.owns(A, "https://fleet.example/before")
    assert not ours.owns(B, "https://fleet.example/before")
    assert not ours.owns(A, url("token-of-somebody-else"))
    assert not ours.owns(A, None)
    assert not ours.owns(C, url(NOW))


def test_of_an_account_no_longer_listed_only_what_we_wrote_is_ours():
    """Without a target there is no template, so nothing is ours by its form."""
    ours = Ours([], secrets=[NOW], written={C: {url(NOW)}})
    assert ours.owns(C, url(NOW))
    assert not ours.owns(C, url(OLD))


def test_no_token_is_shown():
    """What is printed of a target in a log or a trace holds no token whole."""
    shown = repr(targets_of(accounts(A), [TokenRecord(NOW, ())]))
    assert NOW not in shown
    assert A in shown
