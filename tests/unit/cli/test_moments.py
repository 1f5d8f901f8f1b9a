"""Times and sizes as people write and read them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.cli.moments import parse_duration, parse_moment, words_of_bytes, words_of_count, words_of_micros
from upcall.errors import SettingsError
from upcall.thingspace import text_of_micros

NOW = 1_800_000_000_000_000
MINUTE = 60_000_000


@pytest.mark.parametrize(
    ("text", "before_now"),
    [("90s", 1.5), ("15m", 15), ("2h", 120), ("3d ago", 3 * 1440), (" 1W ", 7 * 1440), ("0s", 0), ("2 h ago", 120)],
)
def test_so_long_ago(text, before_now):
    """A number and a unit is so long before now, with or without the word."""
    assert parse_moment(text, NOW, option="--since") == NOW - before_now * MINUTE


@given(st.integers(min_value=-(10**15), max_value=10**16))
def test_a_time_as_we_write_it(micros):
    """Every time that a command prints can be given back to it."""
    assert parse_moment(text_of_micros(micros), NOW, option="--since") == micros


def test_a_time_without_a_zone_is_utc():
    """A date is its first moment, in UTC as everything that is printed."""
    assert text_of_micros(parse_moment("2026-08-01", NOW, option="--until")) == "2026-08-01T00:00:00.000000Z"
    assert text_of_micros(parse_moment("2026-08-01T03:00", NOW, option="--until")) == "2026-08-01T03:00:00.000000Z"
    assert text_of_micros(parse_moment("2026-08-01T03:00:00+02:00", NOW, option="-")) == "2026-08-01T01:00:00.000000Z"


@pytest.mark.parametrize("text", ["", "yesterday", "2 hours", "-2h", "1.5h", "2026-13-01", "20y", "9999999h", "m"])
def test_what_is_no_time(text):
    """What cannot be read is named with its option and with what could be written."""
    with pytest.raises(SettingsError, match="--since") as caught:
        parse_moment(text, NOW, option="--since")
    assert "15m" in str(caught.value)
    with pytest.raises(SettingsError, match="--silent-after"):
        parse_duration(text, option="--silent-after")


@given(st.text())
def test_any_text_is_a_time_or_a_clear_mistake(text):
    """No text whatever ends in another error than ours."""
    with contextlib.suppress(SettingsError):
        assert isinstance(parse_moment(text, NOW, option="--since"), int)


@pytest.mark.parametrize(
    ("micros", "words"),
    [
        (0, "0.0 s"),
        (4_200_000, "4.2 s"),
        (60_000_000, "1 min"),
        (90_000_000, "1 min 30 s"),
        (200 * MINUTE, "3 h 20 min"),
        (48 * 60 * MINUTE, "2 d"),
        (-52 * 60 * MINUTE, "2 d 4 h"),
    ],
)
def test_a_length_of_time_in_words(micros, words):
    """A length of time has its two largest units."""
    assert words_of_micros(micros) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (12_900_000, "12.3 MiB"),
        (1024**3, "1.0 GiB"),
        (1024**4, "1.0 TiB"),
    ],
)
def test_a_size_in_words(count, words):
    """A size has the largest unit that it reaches."""
    assert words_of_bytes(count) == words


def test_a_count_in_words():
    """One of something is not several."""
    assert words_of_count(1, "body", "bodies") == "1 body"
    assert words_of_count(0, "body", "bodies") == "0 bodies"
    assert words_of_count(2, "attempt") == "2 attempts"
