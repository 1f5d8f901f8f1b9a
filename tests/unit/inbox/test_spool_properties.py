"""Whatever is appended, cut off, flipped or interrupted: what was acknowledged is imported, in order and once."""

import contextlib
import itertools
import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from upcall.inbox import Arrival
from upcall.inbox.framing import HEADER_BYTES
from upcall.inbox.spool import Spool

bodies = st.binary(max_size=40) | st.integers(0, 3000).map(bytes)
groups = st.lists(st.lists(bodies, min_size=1, max_size=4), min_size=1, max_size=6)


@contextlib.contextmanager
def opened(directory):
    spool = Spool(directory)
    try:
        yield spool
    finally:
        spool.close()


@contextlib.contextmanager
def written(groups):
    """Give the path of a segment with these groups, its arrivals, and where the records and the groups end."""
    serial = itertools.count(1)
    with tempfile.TemporaryDirectory() as place, opened(Path(place)) as spool:
        kept, ends = [], []
        for group in groups:
            arrivals = [Arrival(body=body, received_at=next(serial)) for body in group]
            spool.append(arrivals)
            kept.append(arrivals)
            ends.append(spool.segments()[0].end)
        spool.close()
        (path,) = Path(place).iterdir()
        yield path, kept, ends


def read(path, step=1000):
    with opened(path.parent) as spool:
        (segment,) = spool.segments()
        found, offset, is_end = [], 0, False
        while not is_end:
            batch, offset, is_end = segment.read(offset, max_records=step, max_bytes=1 << 30)
            found += batch
        return found


@given(groups, st.data())
def test_a_file_cut_anywhere_gives_each_group_before_the_cut(groups, data):
    """A crash leaves a beginning of the file: what is read is a beginning of what was sent, with each whole group."""
    with written(groups) as (path, kept, ends):
        cut = data.draw(st.integers(0, path.stat().st_size))
        os.truncate(path, cut)
        found = read(path, data.draw(st.integers(1, 5)))
    sent = list(itertools.chain(*kept))
    whole = list(itertools.chain(*(group for group, end in zip(kept, ends, strict=True) if end <= cut)))
    assert found == sent[: len(found)]
    assert len(found) >= len(whole)


@given(groups, st.data())
def test_a_flipped_byte_costs_at_most_its_record(groups, data):
    """Of all records at most the one with the bad byte is missing, and none is changed."""
    with written([list(itertools.chain(*groups))]) as (path, (sent,), _):
        at = data.draw(st.integers(0, path.stat().st_size - 1))
        content = bytearray(path.read_bytes())
        content[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        found = read(path, data.draw(st.integers(1, 5)))
        lost = [arrival for arrival in sent if arrival not in found]
        assert found == [arrival for arrival in sent if arrival not in lost]
        assert len(lost) == (at >= HEADER_BYTES)


@given(groups, st.data())
def test_damaged_stretches_cost_only_what_they_touch(groups, data):
    """Several stretches of noise: each record that none of them touches is read, in order, and nothing else is."""
    with written([[body] for group in groups for body in group]) as (path, kept, ends):
        content = bytearray(path.read_bytes())
        touched = set()
        for _ in range(data.draw(st.integers(1, 3))):
            start = data.draw(st.integers(0, len(content) - 1))
            noise = data.draw(st.binary(min_size=1, max_size=60))[: len(content) - start]
            content[start : start + len(noise)] = noise
            touched |= set(range(start, start + len(noise)))
        path.write_bytes(content)
        found = read(path)
    begins = [HEADER_BYTES, *ends]
    sent = [group[0] for group in kept]
    safe = [arrival for index, arrival in enumerate(sent) if not touched & set(range(begins[index], begins[index + 1]))]
    assert [arrival for arrival in found if arrival in safe] == safe
    assert [arrival for arrival in sent if arrival in found] == found


@given(st.lists(st.integers(-3, 3).filter(bool), max_size=30))
def test_one_process_imports_in_the_order_of_receipt(moves):
    """However appends (above zero: so many arrivals) and reads (below: so many at most) take turns."""
    serial = itertools.count()
    store = Store()
    with tempfile.TemporaryDirectory() as place, opened(Path(place) / "spool") as spool:
        for move in [*moves, *[-1000] * (len(moves) + 1)]:
            if move > 0:
                spool.append([Arrival(body=b"x", received_at=next(serial)) for _ in range(move)])
                continue
            for segment in spool.segments()[:1]:
                found, offset, is_end = segment.read(
                    store.marks.get(segment.name, 0), max_records=-move, max_bytes=1 << 20
                )
                store.commit(found, (segment.name, offset))
                if is_end:
                    segment.remove()
        assert (spool.records, spool.size_bytes, spool.segments()) == (0, 0, [])
    assert store.rows == list(range(next(serial)))


class Store:
    """Hold rows and marks as a store would: what was staged counts once it is committed."""

    def __init__(self):
        self.rows = []
        self.marks = {}

    def commit(self, arrivals, mark):
        self.rows += [arrival.received_at for arrival in arrivals]
        self.marks[mark[0]] = mark[1]


class CrashError(Exception):
    """End a process between two steps."""


class Importing(RuleBasedStateMachine):
    """Append, import and crash between any two steps, in two processes over one directory."""

    @initialize()
    def begin(self):
        self.place = tempfile.TemporaryDirectory()
        self.store = Store()
        self.serial = itertools.count()
        self.acknowledged = []
        self.spools = [self.open(), self.open()]

    def open(self):
        return Spool(Path(self.place.name) / "spool")

    @rule(who=st.integers(0, 1), count=st.integers(1, 3))
    def append(self, who, count):
        arrivals = [Arrival(body=b"x", received_at=next(self.serial)) for _ in range(count)]
        self.spools[who].append(arrivals)
        self.acknowledged += [arrival.received_at for arrival in arrivals]

    @rule(who=st.integers(0, 1), records=st.integers(1, 3), steps=st.integers(0, 4))
    def import_some(self, who, records, steps):
        """Take one step through the oldest segment; after so many of its parts the process ends."""
        with contextlib.suppress(CrashError):
            self.step(self.spools[who], records, itertools.count(-steps))
            return
        self.restart(who)

    def step(self, spool, records, crashes):
        def survive():
            if next(crashes) == 0:
                raise CrashError

        for segment in spool.segments()[:1]:
            found, offset, is_end = segment.read(
                self.store.marks.get(segment.name, 0), max_records=records, max_bytes=1 << 20
            )
            survive()
            if found:
                self.store.commit(found, (segment.name, offset))
            survive()
            if is_end:
                segment.remove()
                survive()
                self.store.marks.pop(segment.name, None)

    @rule(who=st.integers(0, 1))
    def restart(self, who):
        self.spools[who].close()  # as the kernel does for a process that ends
        self.spools[who] = self.open()

    @precondition(lambda self: self.acknowledged)
    @rule(who=st.integers(0, 1))
    def tear(self, who):
        """End in the middle of an append that was not acknowledged."""
        spool = self.spools[who]
        spool.append([Arrival(body=b"torn", received_at=-1)])
        segment = spool._written
        size = segment.end
        spool.close()
        os.truncate(segment._path, size - 1)
        self.spools[who] = self.open()

    @invariant()
    def nothing_came_twice(self):
        assert len(self.store.rows) == len(set(self.store.rows))
        assert set(self.store.rows) <= set(self.acknowledged)

    def teardown(self):
        try:
            for spool in self.spools:
                spool.close()
            with opened(Path(self.place.name) / "spool") as spool:
                while spool.segments():
                    self.step(spool, 2, itertools.count(1))
            assert sorted(self.store.rows) == self.acknowledged
            assert not any(Path(self.place.name).glob("spool/*"))
        finally:
            self.place.cleanup()


Importing.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
test_no_crash_loses_an_arrival_or_imports_it_twice = Importing.TestCase
