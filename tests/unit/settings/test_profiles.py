"""Delivery profiles: by name, from a file, and what follows from one."""

from __future__ import annotations

import pytest

from upcall.errors import SettingsError
from upcall.settings import read_profile


def test_a_file_of_a_profile(tmp_path):
    """A TOML file is a profile; a gap is one number or two."""
    path = tmp_path / "mine.toml"
    path.write_text("gaps_seconds = [5, [10, 20]]\nsilence_seconds = 4\nconcurrency = 2\n")
    profile = read_profile(str(path))
    assert (profile.name, profile.gaps_seconds) == ("mine", ((5.0, 5.0), (10.0, 20.0)))
    assert (profile.silence_seconds, profile.concurrency, profile.max_attempts) == (4.0, 2, 3)
    assert (profile.connect_timeout_seconds, profile.answer_timeout_seconds) == (10.0, 30.0)
    assert read_profile("observed").name == "observed"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gaps_seconds = [", "is not TOML"),
        ("gaps = [1]", "gaps"),
        ("silence_seconds = 1", "gaps_seconds"),
        ("gaps_seconds = [[2, 1]]", "shortest"),
        ("gaps_seconds = [-1]", "seconds are from 0"),
        ("gaps_seconds = [nan]", "seconds are from 0"),
        ("gaps_seconds = []\nanswer_timeout_seconds = 0", "above 0"),
        ("gaps_seconds = []\nsilence_seconds = 0", "above 0"),
        ("gaps_seconds = []\nsilence_seconds = 30", "no copy would ever be sent"),
        ("gaps_seconds = []\nconcurrency = 0", "concurrency"),
        ('gaps_seconds = ["soon"]', r"\$\.gaps_seconds"),
    ],
)
def test_unsound_profiles(tmp_path, text, words):
    """What is wrong with a profile is said, with where it stands."""
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=words):
        read_profile(str(path))


def test_a_path_counts_from_the_directory_that_is_given(tmp_path):
    """A settings file in another directory names the profile that lies beside it."""
    (tmp_path / "mine.toml").write_text("gaps_seconds = []\n")
    assert read_profile("mine.toml", home=tmp_path).max_attempts == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sunny", "no delivery profile 'sunny'.*documented, observed, or a file"),
        ("nowhere.toml", r"nowhere\.toml: the file cannot be read: No such file"),
    ],
)
def test_a_profile_that_is_not_there(text, words, tmp_path):
    """A name that means nothing, and a path to nothing, are named."""
    with pytest.raises(SettingsError, match=words):
        read_profile(text, home=tmp_path)
