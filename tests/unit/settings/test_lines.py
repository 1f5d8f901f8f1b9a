"""In which line of a TOML text something stands, whatever the text."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.settings.lines import Lines

WORDS = st.sampled_from(["accounts", "name", "url", "labels", "x-1", "a b", "ü", "1979", "a.b", "]", "#", "{"])
TEXTS = st.text(st.sampled_from("ab ]}[{,=#'\u2028é"), max_size=6).map(lambda text: text.replace("'", ""))
SCALARS = st.one_of(
    st.integers(-5, 5).map(str),
    st.sampled_from(["true", "1e3", "inf", "1979-05-27T07:32:00Z", "'''one line'''", '"a \\" b"']),
    TEXTS.map(lambda text: f"'{text}'"),
)
LONG_TEXTS = st.lists(st.sampled_from(["", "]", "[accounts]", "name = 1", "}", "# no", "'x'"]), min_size=1, max_size=4)
NOTHING = st.lists(st.sampled_from(["", "  ", "# [accounts]", "\t# name = ''"]), max_size=2)


def quoted(word):
    """Write a key as any word can be written."""
    return f"'{word}'"


class Text:
    """A text that is written line by line, with the line of each value."""

    def __init__(self, draw):
        self.draw = draw
        self.lines = []
        self.at = {}

    def add(self, *lines):
        self.lines += lines

    def noted(self, place):
        """Note that what stands at a place begins with the next line."""
        for length in range(1, len(place) + 1):
            self.at.setdefault(place[:length], len(self.lines) + 1)

    def gap(self):
        self.add(*self.draw(NOTHING))

    def keys(self, section, words):
        for word in words:
            self.gap()
            kind = self.draw(st.sampled_from(["scalar", "text", "line", "list", "tables", "inline", "dotted"]))
            self.noted((*section, word))
            getattr(self, kind)((*section, word), quoted(word))
        self.gap()

    def scalar(self, place, key):
        self.add(f"{key} = {self.draw(SCALARS)} # scalar")

    def text(self, place, key):
        marks = self.draw(st.sampled_from(['"""', "'''"]))
        if marks == "'''":
            self.add(f'{key} = """{{', *self.draw(LONG_TEXTS), '"""')
        else:
            self.add(f"{key} = '''", *(line.replace("'", "") for line in self.draw(LONG_TEXTS)), "]'''")

    def line(self, place, key):
        values = self.draw(st.lists(SCALARS, max_size=3))
        for index in range(len(values)):
            self.noted((*place, index))
        self.add(f"{key} = [{', '.join(values)}]")

    def list(self, place, key):
        self.add(f"{key} = [ # of values")
        for index, value in enumerate(self.draw(st.lists(SCALARS, max_size=3))):
            self.gap()
            self.noted((*place, index))
            self.add(f"  {value}, # {{")
        self.gap()
        self.add("]")

    def tables(self, place, key):
        self.add(f"{key} = [")
        for index in range(self.draw(st.integers(0, 3))):
            self.gap()
            self.noted((*place, index, "name"))
            self.noted((*place, index, "labels"))
            self.add("  {name = ']', labels = [")
            for number in range(self.draw(st.integers(0, 2))):
                self.noted((*place, index, "labels", number))
                self.add("    'x',")
            self.add("  ]},")
        self.add("  ]")

    def inline(self, place, key):
        self.noted((*place, "inner"))
        self.noted((*place, "more", "deep"))
        self.add(f"{key} = {{inner = 1, more.deep = 2}}")

    def dotted(self, place, key):
        self.noted((*place, "below"))
        self.add(f"{key} . below = 1")


@st.composite
def texts(draw):
    """A text with tables, lists of tables and tables within them, and where everything in it stands."""
    text = Text(draw)
    words = draw(st.lists(WORDS, unique=True, min_size=1, max_size=6))
    cut = draw(st.integers(0, len(words)))
    text.keys((), words[:cut])
    for word in words[cut:]:
        inner = st.lists(WORDS, unique=True, max_size=3)
        if draw(st.booleans()):
            text.noted((word,))
            text.add(f"[ {quoted(word)} ] # a table")
            text.keys((word,), draw(inner))
            continue
        for index in range(draw(st.integers(1, 3))):
            text.noted((word, index))
            text.add(f"[[{quoted(word)}]]")
            own = draw(inner)
            text.keys((word, index), own)
            if draw(st.booleans()) and "below" not in own:
                text.noted((word, index, "below"))
                text.add(f"[{quoted(word)}.below]")
                text.keys((word, index, "below"), draw(inner))
            if draw(st.booleans()) and "more" not in own:
                for number in range(2):
                    text.noted((word, index, "more", number))
                    text.add(f"[[{quoted(word)}.more]]")
                    text.keys((word, index, "more", number), draw(inner))
    return draw(st.sampled_from(["\n", "\r\n"])).join(text.lines), text.at


def places_in(value, place=()):
    """Yield where everything in a document stands."""
    for key, held in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*place, key)
        yield from places_in(held, (*place, key))


@given(texts())
def test_each_value_stands_where_it_was_written(written):
    """A value's line is that of its key, or its own where it is an element of a list that takes several lines."""
    text, at = written
    lines = Lines(text)
    assert set(places_in(tomllib.loads(text))) == set(at)
    assert {place: lines.of(place) for place in at} == at


@given(texts())
def test_a_value_is_there_once_its_line_is(written):
    """`tomllib` itself agrees: the shortest beginning of the text that holds a value ends with its statement."""
    text, at = written
    lines, all_lines = Lines(text), text.replace("\r\n", "\n").split("\n")
    held = {0: set()}
    for end in range(1, len(all_lines) + 1):
        try:
            held[end] = set(places_in(tomllib.loads("\n".join(all_lines[:end]))))
        except tomllib.TOMLDecodeError:
            continue
    for place in at:
        end = min(end for end, there in held.items() if place in there)
        before = max(shorter for shorter in held if shorter < end)
        assert before < lines.of(place) <= end


def test_what_is_not_there_is_blamed_on_what_would_hold_it():
    """A key that is missing has the line of its table, and a table that is missing none."""
    lines = Lines("\n[[accounts]]\nname = 'a'\n\n[[accounts]]\n")
    assert lines.of(("accounts", 1, "name")) == 5
    assert lines.of(("accounts", 0, "url")) == 2
    assert lines.of(("client", "base_url")) is None
    assert lines.of(()) is None
    assert Lines("").of(("accounts",)) is None


@pytest.mark.timeout(300)
@pytest.mark.parametrize("style", ["tables", "inline", "long text"])
def test_thousands_of_lines_are_no_trouble(style):
    """A file that a program wrote, in either style, is searched within moments."""
    count = 3_000
    if style == "tables":
        text = "".join(f"[[accounts]]\nname = '{index}'\n" for index in range(count))
        place, line = ("accounts", count - 1, "name"), 2 * count
    elif style == "inline":
        tables = "".join(f"  {{name = '{index}', labels = ['x']}},\n" for index in range(count))
        text = f"accounts = [\n{tables}]\n"
        place, line = ("accounts", count - 1, "labels", 0), count + 1
    else:
        text = "x = '''\n" + "a ] b\n" * count + "'''\ny = 1\n"
        place, line = ("y",), count + 3
    assert Lines(text).of(place) == line
