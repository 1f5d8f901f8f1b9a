"""The provider's times in three formats, and whatever else stands in a time's place."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from upcall.thingspace import parse_time, text_of_micros

JUNE = int(datetime(2021, 6, 3, 0, 3, 56, 79000, UTC).timestamp() * 1000) * 1000
SECOND = JUNE - 79_000


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2021-06-03T00:03:56.079Z", JUNE),
        ("2021-06-03T00:03:56.079+00:00", JUNE),
        ("2021-06-02T19:03:56.079-0500", JUNE),
        ("2021-06-02T19:03:56.079-05", JUNE),
        ("2021-06-03t00:03:56.079z", JUNE),
        ("2021-06-03T00:03:56.079000123Z", JUNE),
        ("2021-06-03 00:03:56.079 +0000 UTC", JUNE),
        ("2021-06-02 19:03:56.079 -0500 EST", JUNE),
        ("2021-06-02 21:03:56.079 -0300 -03", JUNE),
        ("2021-06-03 00:03:56.079000123 +0000 UTC m=+0.000012", JUNE),
        ("2021-06-03 00:03:56 +0000", SECOND),
        ("Thu, 03 Jun 2021 00:03:56 GMT", SECOND),
        ("Wed, 2 Jun 2021 19:03:56 -0500", SECOND),
        ("02 Jun 2021 19:03:56 EST", SECOND),
        (" 2021-06-03T00:03:56Z\n", SECOND),
    ],
)
def test_times_with_a_zone(text, micros):
    """ISO 8601, Go's format and RFC 822's give the same moment, and the text is kept beside it."""
    time = parse_time(text)
    assert (time.text, time.micros, time.zone_assumed) == (text, micros, False)


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2021-06-03T00:03:56.079", JUNE),
        ("2021-06-03 00:03:56", SECOND),
        ("2021-06-03 00:03", SECOND - 56_000_000),
        ("2021-06-03", SECOND - 236_000_000),
        ("Thu, 03 Jun 2021 00:03:56", SECOND),
        ("Thu, 03 Jun 2021 00:03:56 -0000", SECOND),
        ("Thu, 03 Jun 2021 00:03:56 XYZ", SECOND),
    ],
)
def test_times_without_a_known_zone(text, micros):
    """A time whose zone is not named, or not known, is read as UTC and says that this was assumed."""
    time = parse_time(text)
    assert (time.micros, time.zone_assumed) == (micros, True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "1622678636079",
        "1712051312015",
        "20210603",
        "2021-W22-4",
        "2021-06-03x00:03",
        "2021-13-03T00:00:00Z",
        "2021-06-31",
        "0000-01-01",
        "10000-01-01T00:00:00Z",
        "2021-06-03T00:03:60Z",
        "2021-06-03T00:03:56+99:99",
        "٢٠٢١-٠٦-٠٣",
        "2021-06-03T00:03:56.\u0660Z",
        "2021-06-03 00:03:56 +0000 UTC extra",
        "Thu, 99 Jun 2021 00:03:56 GMT",
        "Thu, 03 Zzz 2021 00:03:56 GMT",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "Fri, 31 Dec 9999 23:59:59 -1400",
        "\ud800",
        "1" * 1_000_000,
        " " * 1_000_000 + "x",
    ],
)
def test_texts_that_are_no_time(text):
    """What is in no known format, or outside the calendar, is kept as text and never guessed at."""
    time = parse_time(text)
    assert (time.text, time.micros, time.zone_assumed) == (text, None, False)


PIECES = st.sampled_from(
    [*"0123456789-:+. TZ,", "2021-06-03", "T00:03:56", " +0000 UTC", "Thu, ", " Jun ", "9999", "٣"]
)


@given(st.text(max_size=40) | st.lists(PIECES, max_size=10).map("".join))
@example("0001-01-01T00:00:00Z")
@example("9999-12-31T23:59:59.999999Z")
def test_any_text_gives_a_time(text):
    """Reading a time never fails, and every time that was read can be written."""
    time = parse_time(text)
    assert time.text == text
    if time.micros is not None:
        assert parse_time(text_of_micros(time.micros)).micros == time.micros


@given(st.datetimes(timezones=st.timezones() | st.just(UTC)))
def test_times_written_by_python_read_back(moment):
    """Any moment in ISO 8601 or in Go's format reads back to the microsecond."""
    try:
        expected = (moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    except OverflowError:
        expected = None
    if moment.utcoffset() % timedelta(minutes=1):
        return  # local mean time of the nineteenth century
    assert parse_time(moment.isoformat()).micros == expected
    if moment.year >= 1000:
        assert parse_time(moment.strftime("%Y-%m-%d %H:%M:%S.%f %z")).micros == expected


def test_text_of_micros():
    """Our own times are written as ISO 8601 in UTC, always to the microsecond."""
    assert text_of_micros(0) == "1970-01-01T00:00:00.000000Z"
    assert text_of_micros(-1) == "1969-12-31T23:59:59.999999Z"
    assert text_of_micros(JUNE) == "2021-06-03T00:03:56.079000Z"
    with pytest.raises(OverflowError):
        text_of_micros(10**18)
