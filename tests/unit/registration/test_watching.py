"""What the guard concludes from one look after the other."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.registration import Standing
from upcall.registration.watching import (
    MOST_THEFTS,
    THEFT_MICROS,
    UNREAD_ROUNDS,
    Watch,
    observe,
    pause_seconds,
    reason_to_leave,
    taken_again,
    text_of,
    transition_of,
)

A = "0000123456-00001"
GOOD, OLD, THEIRS, OTHERS = (
    "https://fleet.example/callbacks/good-token-of-ours",
    "https://fleet.example/callbacks/old-token-of-ours",
    "https://another.example/callbacks/secret-of-theirs",
    "https://third.example/x",
)
FIVE_MINUTES = 300_000_000
NOON = 1_800_000_000_000_000


class Story:
    """Look at one account again and again, and note what would be told."""

    def __init__(self, *, was_ours=False, reasserts=False):
        self.watch = Watch()
        self.now = NOON
        self.was_ours = was_ours
        self.reasserts = reasserts
        self.told = []

    def look(self, url=None, *, error=None):
        before, self.now = self.watch, self.now + FIVE_MINUTES
        ours = url in {GOOD, OLD}
        self.watch = observe(
            before,
            Standing(account=A, url=url, error=error),
            desired=GOOD,
            is_well=url == GOOD,
            was_ours=self.was_ours,
            ours=ours,
            reasserts=self.reasserts,
            now=self.now,
        )
        change = transition_of(A, before, self.watch, now=self.now, ours=ours)
        if change is not None:
            self.told.append(change)
        return self.watch.state

    def states(self):
        return [(change.was, change.state) for change in self.told]


def test_only_changes_are_told():
    """However often one looks, each change is told once, and that all is well at the first look is none."""
    story = Story()
    assert [story.look(url) for url in (GOOD, GOOD, THEIRS, THEIRS, None, None, GOOD, GOOD)] == [
        *("in_order", "in_order", "drifted", "drifted", "none", "none", "in_order", "in_order")
    ]
    assert story.states() == [("in_order", "drifted"), ("drifted", "none"), ("none", "in_order")]


def test_drift_at_the_first_look_is_told():
    """A guard that starts when the slot is somebody else's says so at once."""
    story = Story()
    story.look(THEIRS)
    assert story.states() == [("unknown", "drifted")]


def test_another_taker_is_told():
    """Who has the slot matters: a second one is news too."""
    story = Story()
    story.look(THEIRS)
    story.look(OTHERS)
    assert [change.registered for change in story.told] == [THEIRS, OTHERS]


def test_the_last_time_that_all_was_well_bounds_what_went_elsewhere():
    """A change says when the slot was last seen ours, and the note keeps it until it is again."""
    story = Story()
    story.look(GOOD)
    well = story.now
    story.look(THEIRS)
    story.look(THEIRS)
    assert (story.told[0].last_ok, story.watch.last_ok, story.watch.since) == (well, well, well + FIVE_MINUTES)
    story.look(GOOD)
    assert (story.told[1].last_ok, story.watch.last_ok) == (well, story.now)


def test_one_bad_round_is_nothing_three_are_told_once():
    """The provider's bad moments are not alerts; a longer silence is one, and its end another."""
    story = Story()
    story.look(GOOD)
    states = [story.look(error="503") for _ in range(UNREAD_ROUNDS + 3)]
    assert states == ["in_order"] * (UNREAD_ROUNDS - 1) + ["unreachable"] * 4
    story.look(GOOD)
    assert story.states() == [("in_order", "unreachable"), ("unreachable", "in_order")]
    assert story.watch.error is None


def test_a_good_round_between_bad_ones_begins_the_count_anew():
    """Only rounds in a row count."""
    story = Story()
    for error in ("503", "503", None, "503", "503"):
        story.look(GOOD if error is None else None, error=error)
    assert (story.watch.state, story.told) == ("in_order", [])


def test_the_third_theft_within_a_day_is_given_up_until_it_is_ours_again():
    """Two systems that write against each other would go on for ever: the guard that writes is the one that stops."""
    story = Story(reasserts=True)
    for _ in range(2):
        story.look(GOOD)
        assert story.look(THEIRS) == "drifted"
    story.look(GOOD)
    assert story.look(THEIRS) == "given_up"
    assert story.look(THEIRS) == "given_up"
    for _ in range(UNREAD_ROUNDS):
        story.look(error="503")
    assert story.look(THEIRS) == "given_up"
    assert story.look(None) == "given_up"
    assert story.look(GOOD) == "in_order"
    assert story.look(THEIRS) == "drifted", "it takes up its work anew, with nothing counted"


def test_a_guard_that_only_watches_never_gives_up():
    """Without --reassert there is nothing to give up: each theft is told as what it is."""
    story = Story()
    for _ in range(5):
        story.look(GOOD)
        assert story.look(THEIRS) == "drifted"


def test_a_theft_is_forgotten_after_a_day():
    """Thefts a week apart are no fight."""
    story = Story(reasserts=True)
    for _ in range(MOST_THEFTS + 2):
        story.look(GOOD)
        assert story.look(THEIRS) == "drifted"
        story.now += THEFT_MICROS // 2


def test_a_slot_that_we_applied_and_find_taken_was_stolen():
    """The audit says that it was ours, even where no guard had looked before."""
    story = Story(was_ours=True)
    story.look(THEIRS)
    assert len(story.watch.thefts) == 1
    stranger = Story()
    stranger.look(THEIRS)
    assert stranger.watch.thefts == ()


def test_an_older_url_of_ours_is_drift_and_no_theft():
    """A change of the file that nobody applied is told, and counts against nobody."""
    story = Story(reasserts=True)
    for _ in range(4):
        story.look(GOOD)
        assert story.look(OLD) == "drifted"
    assert story.watch.thefts == ()
    assert text_of(story.told[0]).endswith(f"upcall apply {story.told[0].account}.")


def test_taken_in_the_moment_of_taking_back_counts():
    """Somebody who writes right after us is one who writes against us."""
    story = Story(reasserts=True)
    story.look(GOOD)
    story.look(THEIRS)
    watch = taken_again(story.watch, Standing(account=A, url=OTHERS), story.now)
    assert (watch.state, watch.registered, len(watch.thefts)) == ("drifted", OTHERS, 2)
    watch = taken_again(watch, Standing(account=A, url=THEIRS), story.now)
    assert watch.state == "given_up"


@pytest.mark.parametrize(
    ("url", "more", "said"),
    [
        (THEIRS, {}, None),
        (None, {}, None),
        (THEIRS, {"was_ours": False}, "not ours before"),
        (THEIRS, {"was_removed": True}, "not ours before"),
        (OLD, {"ours": True}, "upcall apply"),
        (THEIRS, {"flaw": "url is not https"}, "not https"),
        (THEIRS, {"accepted": False}, "no listener accepts"),
        (GOOD, {}, "nothing says"),
    ],
)
def test_only_what_was_ours_is_taken_back(url, more, said):
    """A slot that was never ours, one that we gave up ourselves, and a URL that nobody would accept are left."""
    story = Story()
    story.look(url)
    told = {"was_ours": True, "was_removed": False, "ours": False, "flaw": None, "accepted": True}
    reason = reason_to_leave(story.watch, **(told | more))
    assert reason is None if said is None else said in reason


def test_what_the_guard_saw_as_ours_may_be_taken_back_without_an_audit():
    """A slot that somebody registered by hand, and that the guard saw in order, was ours."""
    story = Story()
    story.look(GOOD)
    story.look(THEIRS)
    told = {"was_ours": False, "was_removed": False, "ours": False, "flaw": None, "accepted": True}
    assert reason_to_leave(story.watch, **told) is None


def test_a_note_comes_back_as_it_was():
    """A guard that starts again knows what the one before knew; a note of another form begins anew."""
    story = Story(reasserts=True)
    for url in (GOOD, THEIRS, GOOD, THEIRS):
        story.look(url)
    assert Watch.of(story.watch.document()) == story.watch
    assert Watch.of({"state": "something new"}) == Watch()
    assert Watch.of({"state": "in_order", "more": 1}).state == "in_order"


def texts():
    story = Story(reasserts=True)
    story.look(None)
    for _ in range(3):
        story.look(GOOD)
        story.look(THEIRS)
    for _ in range(UNREAD_ROUNDS):
        story.look(error="ThingSpace did not answer.")
    return [text_of(change) for change in story.told]


def test_texts_name_the_account_and_what_to_type_and_show_no_token():
    """Each alert is one line that a tired engineer can act on, and may go to a chat that many read."""
    written = texts()
    for text in written:
        assert text.startswith(f"{A}: ")
        assert "\n" not in text
        assert "upcall " in text
        assert "good-token" not in text
        assert "secret-of-theirs" not in text
    assert any("callbacks are lost" in text for text in written)
    assert any("by another.example" in text for text in written)
    assert any("could not be read 3 rounds in a row" in text for text in written)


def test_nothing_printed_shows_a_token():
    """Neither what is known nor a change shows a URL in a log or a trace."""
    story = Story()
    story.look(GOOD)
    story.look(THEIRS)
    assert "token" not in repr((story.watch, story.told))


@given(chance=st.floats(0, 1, exclude_max=True), every=st.floats(1, 1e5))
def test_the_pause_is_a_tenth_more_or_less(chance, every):
    """Many guards that started together do not come together for long, and none comes much later than it says."""
    assert every * 0.9 * (1 - 1e-9) <= pause_seconds(every, chance) <= every * 1.1 * (1 + 1e-9)


@given(st.lists(st.sampled_from([GOOD, OLD, THEIRS, OTHERS, None, "error"]), max_size=40), st.booleans())
def test_any_story_is_told_without_repeating_itself(looks, reasserts):
    """Whatever happens, no two alerts in a row say the same, and last_ok is the last look at which all was well."""
    story = Story(reasserts=reasserts)
    well = None
    for url in looks:
        story.look(None if url == "error" else url, error="503" if url == "error" else None)
        well = story.now if url == GOOD else well
        assert story.watch.last_ok == well
    said = [(change.state, change.registered) for change in story.told]
    assert all(one != other for one, other in itertools.pairwise(said))
    assert all(change.state != "unknown" for change in story.told)
