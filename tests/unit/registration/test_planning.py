"""From what should be registered and what is, to what is to be done."""

import pytest

from upcall.inbox import TokenRecord
from upcall.registration import Ours, Standing, decision, plan, targets_of
from upcall.settings import Account

A, B, GONE = "0000123456-00001", "0000123456-00002", "0000123456-00009"
TEMPLATE = "https://fleet.example:50559/callbacks/{token}"
OLD, NOW, NEXT = "old-token-of-the-store", "now-token-of-the-store", "next-token-of-store"
THEIRS = "https://another.example/callbacks"


def url(secret):
    return TEMPLATE.replace("{token}", secret)


TOKENS = [TokenRecord(NOW, ()), TokenRecord(NEXT, (), "next"), TokenRecord(OLD, (), "retired")]
TARGETS = targets_of([Account(name=A, url=TEMPLATE, credentials="east")], TOKENS)
OURS = Ours(TARGETS, secrets=[OLD, NOW, NEXT], written={GONE: {"https://fleet.example/gone"}})


def step(stands, **more):
    (made,) = plan(TARGETS, {A: Standing(account=A, url=stands, **more)}, OURS)
    return made


@pytest.mark.parametrize(
    ("stands", "action", "ours"),
    [
        (None, "register", False),
        (url(NOW), "none", True),
        (url(NEXT), "none", True),
        (url(OLD), "update", True),
        (THEIRS, "replace", False),
    ],
)
def test_what_stands_decides_what_is_done(stands, action, ours):
    """Nothing is registered, an older URL of ours updated, somebody else's replaced, and what is wanted left alone."""
    made = step(stands)
    assert (made.action, made.ours, made.registered) == (action, ours, stands)
    assert (made.desired, made.credentials) == (url(NOW), "east")
    assert made.differs is (action != "none")
    assert made.is_write is (action != "none")


def test_a_rotation_under_way_is_said():
    """Who looks in the middle of a rotation is told why the URL is another one and yet in order."""
    assert "rotation under way" in step(url(NEXT)).note
    assert step(url(NOW)).note is None


def test_what_was_not_read_is_unknown():
    """An account whose registration could not be read is neither in order nor to be written."""
    made = step(None, error="no answer")
    assert (made.action, made.error, made.differs, made.is_write) == ("unknown", "no answer", True, False)
    (missing,) = plan(TARGETS, {}, OURS)
    assert missing.action == "unknown"


def test_a_url_that_cannot_be_made_is_unknown_and_says_why():
    """Without a fitting token nothing is written, and the step says what to do."""
    (made,) = plan(targets_of([Account(name=A, url=TEMPLATE)]), {A: Standing(account=A)}, Ours([]))
    assert (made.action, made.is_write) == ("unknown", False)
    assert "UPCALL_TOKENS" in made.note


def test_an_account_without_a_url_wants_nothing():
    """One that the file lists for other commands only is left as it is."""
    (made,) = plan(targets_of([Account(name=B)]), {B: Standing(account=B, url=THEIRS)}, Ours([]))
    assert (made.action, made.registered) == ("none", THEIRS)


@pytest.mark.parametrize(
    ("stands", "action"),
    [("https://fleet.example/gone", "deregister"), (THEIRS, "none"), (None, "none")],
)
def test_what_is_no_longer_listed_is_removed_only_where_it_is_ours(stands, action):
    """Pruning takes away what we wrote, and nothing that somebody else has put there since."""
    standing = {A: Standing(account=A, url=url(NOW)), GONE: Standing(account=GONE, url=stands)}
    _, made = plan(TARGETS, standing, OURS, pruned={GONE: "west"})
    assert (made.account, made.action, made.desired, made.credentials) == (GONE, action, None, "west")
    assert "no longer listed" in made.note


def test_what_is_no_longer_listed_and_could_not_be_read_is_unknown():
    """Nothing is removed blindly."""
    made = decision([], OURS, pruned={GONE: None})(Standing(account=GONE, error="no answer"))
    assert (made.action, made.error) == ("unknown", "no answer")


def test_no_token_is_shown():
    """What is printed of a step or of what stands holds no token."""
    standing = Standing(account=A, url=url(OLD))
    assert OLD not in repr((standing, step(url(OLD))))
    assert NOW not in repr(step(url(OLD)))
