"""The spool keeps what the store does not take, through full disks, crashes and damage, for one import."""

import errno
import itertools
import logging
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from upcall.errors import StoreError, StoreVersionError
from upcall.inbox import Arrival, Trust, durable, segment, spool
from upcall.inbox.framing import HEADER_BYTES, frame
from upcall.inbox.spool import Spool, shares_disk, spool_directory, spooled

EVERYTHING = {"max_records": 1000, "max_bytes": 1 << 30}


def arrivals(*serials):
    return [Arrival(body=b"body %d" % serial, received_at=serial) for serial in serials]


def serials(found):
    return [arrival.received_at for arrival in found]


def read_all(spool, *, max_records=1000, max_bytes=1 << 30):
    """Return what a spool gives to an importer that lets it keep its files."""
    found = []
    for waiting in spool.segments():
        offset, is_end = 0, False
        while not is_end:
            batch, offset, is_end = waiting.read(offset, max_records=max_records, max_bytes=max_bytes)
            found += batch
    return serials(found)


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "state" / "spool" / "0123"


@pytest.fixture
def make(directory):
    """Return a function that opens the directory's spool as one process would."""
    opened = []

    def make():
        opened.append(Spool(directory))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def files(directory):
    return sorted(directory.iterdir())


def spoil(path, offset, data=b"\xff\xff"):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def fail(monkeypatch, name, error=errno.ENOSPC, *, after=0):
    """Let a function of `segment`'s `os` fail from a call on; return a function that mends it."""
    real, calls = getattr(os, name), itertools.count()

    def failing(*arguments):
        if next(calls) >= after:
            raise OSError(error, os.strerror(error))
        return real(*arguments)

    monkeypatch.setattr(segment.os, name, failing)
    return lambda: monkeypatch.setattr(segment.os, name, real)


def test_what_was_appended_is_read_again_whole(make):
    """Each field of an arrival survives the file, whatever bytes its body has."""
    one = Arrival(
        body=bytes(range(256)) * 9,
        received_at=1_700_000_000_000_000,
        peer="203.0.113.9",
        source="2001:db8::1",
        listed=False,
        trust=Trust.QUARANTINED,
        evidence="names another account",
        token_id="t1",
        account="0000123456-00001",
    )
    two = Arrival(body=b"", received_at=0)
    writer = make()
    writer.append([one, two])
    (waiting,) = writer.segments()
    assert waiting.read(0, **EVERYTHING) == ([one, two], waiting.end, True)


def test_a_later_process_reads_in_order(make):
    """Groups come back in the order in which they were appended, over several segments."""
    first = make()
    first.append(arrivals(1, 2))
    assert read_all(first) == [1, 2]
    first.append(arrivals(3))
    first.close()
    second = make()
    assert read_all(second) == [1, 2, 3]
    assert len(second.segments()) == 2


def test_reading_in_steps_loses_nothing(make):
    """However few records or bytes a step may take, it takes at least one and the next one goes on behind it."""
    writer = make()
    for serial in range(5):
        writer.append(arrivals(serial))
    assert read_all(writer, max_records=2) == [0, 1, 2, 3, 4]
    assert read_all(writer, max_bytes=1) == [0, 1, 2, 3, 4]
    assert read_all(writer, max_records=0) == [0, 1, 2, 3, 4]


def test_an_append_that_meets_the_end_of_an_import_goes_elsewhere(make):
    """Once an importer was told that a segment ended, nothing is added to it: removing it loses nothing."""
    writer = make()
    writer.append(arrivals(1))
    (waiting,) = writer.segments()
    assert waiting.read(0, **EVERYTHING)[2]
    writer.append(arrivals(2))
    waiting.remove()
    assert read_all(writer) == [2]


def test_appends_between_two_reads_are_read(make):
    """An importer that has not reached the end yet comes upon what was appended meanwhile."""
    writer = make()
    writer.append(arrivals(1, 2))
    (waiting,) = writer.segments()
    _, offset, is_end = waiting.read(0, max_records=1, max_bytes=1 << 20)
    assert not is_end
    writer.append(arrivals(3))
    found, _, is_end = waiting.read(offset, **EVERYTHING)
    assert (serials(found), is_end) == ([2, 3], True)


def test_what_waits_is_counted(make):
    """Records and bytes go down as the importer asks for what follows them, not when it only read them."""
    writer = make()
    assert (writer.records, writer.size_bytes) == (0, 0)
    writer.append(arrivals(1, 2))
    writer.append(arrivals(3))
    assert writer.records == 3
    (waiting,) = writer.segments()
    _, offset, _ = waiting.read(0, max_records=2, max_bytes=1 << 20)
    waiting.read(0, max_records=2, max_bytes=1 << 20)  # the commit failed
    assert (writer.records, writer.size_bytes) == (3, waiting.end - HEADER_BYTES)
    _, end, _ = waiting.read(offset, max_records=2, max_bytes=1 << 20)
    assert (writer.records, writer.size_bytes) == (1, waiting.end - offset)
    assert end == waiting.end
    waiting.remove()
    assert (writer.records, writer.size_bytes, writer.segments()) == (0, 0, [])


def test_a_resumed_import_counts_what_is_left(make):
    """A process that goes on where another stopped counts only what is left."""
    first = make()
    first.append(arrivals(1, 2, 3))
    (waiting,) = first.segments()
    _, offset, _ = waiting.read(0, max_records=2, max_bytes=1 << 20)
    first.close()
    second = make()
    (waiting,) = second.segments()
    assert second.size_bytes > 0
    assert serials(waiting.read(offset, **EVERYTHING)[0]) == [3]
    assert second.records == 1


def test_a_mark_behind_the_end_is_the_end(make):
    """Where a power cut left the file shorter than what the store took from it, nothing is left to import."""
    writer = make()
    writer.append(arrivals(1))
    (waiting,) = writer.segments()
    assert waiting.read(10**9, **EVERYTHING) == ([], 10**9, True)


def test_nothing_is_made_before_the_first_append(make, directory):
    """A listener whose store never fails leaves no trace in the state directory."""
    reader = make()
    reader.append([])
    assert reader.segments() == []
    reader.close()
    assert not directory.exists()


def test_nobody_else_may_read_it(make, directory):
    """Directory and files hold device identifiers: they are their owner's alone, whatever the umask says."""
    before = os.umask(0)
    try:
        make().append(arrivals(1))
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.parent.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in files(directory)] == [0o600]


def test_a_long_segment_is_followed_by_another(make, directory, monkeypatch):
    """No segment grows without end, and an import frees space as it goes on."""
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 100)
    writer = make()
    for serial in range(6):
        writer.append(arrivals(serial))
    assert len(files(directory)) > 2
    assert read_all(writer) == [0, 1, 2, 3, 4, 5]
    writer.segments()[0].remove()
    assert read_all(writer)[0] > 0


def test_a_clock_set_back_keeps_the_order(make, monkeypatch):
    """Segments are imported in the order in which they were made, whatever the clock says."""
    now = iter([5_000_000, 4_000_000, 3_000_000])
    monkeypatch.setattr(spool.time, "time_ns", lambda: next(now))
    writer = make()
    for serial in range(3):
        writer.append(arrivals(serial))
        writer.segments()[-1].is_sealed = True
    assert read_all(writer) == [0, 1, 2]


# two processes


def test_a_live_process_keeps_its_segments(make):
    """What another process writes is not taken from it; once it is gone, what it left is."""
    first, second = make(), make()
    first.append(arrivals(1))
    assert second.segments() == []
    second.append(arrivals(2))
    assert read_all(second) == [2]
    first.close()
    assert read_all(second) == [1, 2]


def test_one_of_two_takes_what_a_third_left(make):
    """Of two processes that find a segment left behind, one imports it, and the other never does."""
    gone, first, second = make(), make(), make()
    gone.append(arrivals(1))
    gone.close()
    (waiting,) = first.segments()
    assert second.segments() == []
    waiting.read(0, **EVERYTHING)
    waiting.remove()
    assert second.segments() == []
    assert first.segments() == []


KILLED = """
import os, signal, sys
from pathlib import Path
from upcall.inbox import Arrival
from upcall.inbox.spool import Spool

spool = Spool(Path(sys.argv[1]))
spool.append([Arrival(body=b"x", received_at=7)])
print("kept", flush=True)
signal.pause()
"""


def test_the_lock_ends_with_a_killed_process(make, directory):
    """Another process's segment is left alone while that lives, and imported once it was killed."""
    other = subprocess.Popen([sys.executable, "-c", KILLED, str(directory)], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"kept\n"
        survivor = make()
        assert survivor.segments() == []
        assert [info.records for info in spooled(directory)] == [1]
        other.send_signal(signal.SIGKILL)
        other.wait(30)
        assert read_all(survivor) == [7]
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


def test_a_segment_that_a_crash_left_without_a_header_is_removed(make, directory):
    """A process that died while it made its first file leaves nothing that stops an import."""
    directory.mkdir(parents=True)
    (directory / f"{1:020d}-{'ab' * 8}.spool").touch()
    reader = make()
    assert read_all(reader) == []
    (waiting,) = reader.segments()
    assert waiting.records == 0
    waiting.remove()
    assert files(directory) == []


def test_a_name_that_was_taken_away_while_it_was_made_is_made_again(make, directory, monkeypatch):
    """An importer that removes a file in the moment between its making and its lock costs nothing."""
    real = segment.fcntl.flock
    taken = []

    def flock(descriptor, how):
        if not taken:
            taken.extend(files(directory))
            taken[0].unlink()
        real(descriptor, how)

    monkeypatch.setattr(segment.fcntl, "flock", flock)
    writer = make()
    writer.append(arrivals(1))
    assert read_all(writer) == [1]
    assert len(files(directory)) == 1
    assert taken != files(directory)


def test_other_files_are_left_alone(make, directory):
    """What is not named as a segment is neither read nor removed."""
    directory.mkdir(parents=True)
    (directory / "notes.spool").write_bytes(b"mine")
    (directory / f"{1:020d}-{'ab' * 8}.txt").write_bytes(b"mine")
    reader = make()
    assert (reader.segments(), spooled(directory)) == ([], [])
    assert len(files(directory)) == 2


# disks that fail


def test_a_full_disk_loses_the_group_and_nothing_else(make, directory, monkeypatch):
    """Of a group that does not fit nothing is read, nothing of others is lost, and the next one that fits is kept."""
    writer = make()
    writer.append(arrivals(1))
    size = files(directory)[0].stat().st_size
    real = os.write
    written = iter([10])

    def full(descriptor, data):
        room = next(written, 0)
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[:room])

    with monkeypatch.context() as patch:
        patch.setattr(segment.os, "write", full)
        with pytest.raises(StoreError, match="No space left on device") as caught:
            writer.append(arrivals(2, 3))
    assert "with --spool, else by UPCALL_STATE_DIR" in caught.value.hint
    assert files(directory)[0].stat().st_size == size
    writer.append(arrivals(4))
    assert len(files(directory)) == 1
    assert read_all(writer) == [1, 4]


def test_a_write_that_is_cut_short_goes_on(make, monkeypatch):
    """A write that the system takes only part of is continued."""
    real = os.write
    monkeypatch.setattr(segment.os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    writer = make()
    writer.append(arrivals(1, 2))
    writer.append(arrivals(3))
    assert read_all(writer) == [1, 2, 3]


def test_after_a_failed_fsync_a_segment_is_trusted_no_more(make, directory, monkeypatch):
    """What was to be synced does not count, what was before does, and the next group goes to another file."""
    writer = make()
    writer.append(arrivals(1))
    mend = fail(monkeypatch, "fdatasync", errno.EIO)
    with pytest.raises(StoreError, match="Input/output error"):
        writer.append(arrivals(2))
    mend()
    writer.append(arrivals(3))
    assert len(files(directory)) == 2
    assert read_all(writer) == [1, 3]


def test_a_tail_that_cannot_be_cut_off_is_not_written_behind(make, directory, monkeypatch):
    """Where taking back fails too, the segment stays readable up to its last good group."""
    writer = make()
    writer.append(arrivals(1))
    real = os.write
    written = iter([10])

    def full(descriptor, data):
        room = next(written, 0)
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[:room])

    with monkeypatch.context() as patch:
        patch.setattr(segment.os, "write", full)
        fail(patch, "ftruncate", errno.EIO)
        with pytest.raises(StoreError):
            writer.append(arrivals(2))
    writer.append(arrivals(3))
    assert len(files(directory)) == 2
    assert read_all(writer) == [1, 3]
    writer.close()
    assert read_all(make()) == [1, 3]


def test_a_segment_that_never_held_anything_leaves_no_file(make, directory, monkeypatch):
    """However often a disk fails the first group, the directory does not fill with empty files."""
    writer = make()
    mend = fail(monkeypatch, "fdatasync", errno.EIO, after=1)  # the header's succeeds
    with pytest.raises(StoreError):
        writer.append(arrivals(1))
    mend()
    assert files(directory) == []
    mend = fail(monkeypatch, "fdatasync", errno.EIO)
    with pytest.raises(StoreError):
        writer.append(arrivals(1))
    mend()
    assert files(directory) == []
    mend = fail(monkeypatch, "write")
    with pytest.raises(StoreError):
        writer.append(arrivals(1))
    mend()
    assert files(directory) == []
    assert read_all(writer) == []
    writer.append(arrivals(2))
    assert read_all(writer) == [2]


def test_a_group_counts_once_its_files_name_is_on_disk(make, directory, monkeypatch):
    """A power cut cannot take away the file: each directory in which a name was made is synced before."""
    synced = []
    real = os.fsync

    def fsync(descriptor):
        real(descriptor)
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(segment.os, "fsync", fsync)
    make().append(arrivals(1))
    assert set(synced) == {directory, *directory.parents[:3]}
    assert synced[-1] == directory


@pytest.mark.parametrize("after", range(4))
def test_a_name_that_is_not_on_disk_takes_no_group(make, directory, monkeypatch, after):
    """Whichever directory cannot be synced, the group does not count, and the next one does once it can."""
    mend = fail(monkeypatch, "fsync", errno.EIO, after=after)
    writer = make()
    with pytest.raises(StoreError, match="Input/output error"):
        writer.append(arrivals(1))
    mend()
    writer.append(arrivals(2))
    assert read_all(writer) == [2]


def test_a_file_deleted_while_in_use_is_not_written_to(make, directory, caplog):
    """What follows goes to a new file; what was in the deleted one is still there for this process's import."""
    writer = make()
    writer.append(arrivals(1))
    files(directory)[0].unlink()
    writer.append(arrivals(2))
    assert len(files(directory)) == 1
    assert "was deleted while in use" in caplog.text
    assert read_all(writer) == [1, 2]
    for waiting in writer.segments():
        waiting.remove()
    assert files(directory) == []


def test_a_directory_deleted_while_in_use_is_made_again(make, directory):
    """Somebody who clears the state directory does not stop the spool."""
    writer = make()
    writer.append(arrivals(1))
    files(directory)[0].unlink()
    directory.rmdir()
    writer.append(arrivals(2))
    assert read_all(writer) == [1, 2]


def test_a_file_that_cannot_be_removed_is_not_imported_again(make, directory, monkeypatch):
    """The error says that the mark must stay; this process is done with the file, and a later one finds it again."""
    writer = make()
    writer.append(arrivals(1))
    (waiting,) = writer.segments()
    _, end, _ = waiting.read(0, **EVERYTHING)
    mend = fail(monkeypatch, "fsync", errno.EIO)
    with pytest.raises(StoreError, match="cannot be removed: Input/output error"):
        waiting.remove()
    monkeypatch.setattr(Path, "unlink", lambda path: fail_with(errno.EROFS))
    mend()
    writer.append(arrivals(2))
    waiting = writer.segments()[-1]
    with pytest.raises(StoreError, match="Read-only file system"):
        waiting.remove()
    assert writer.segments() == []
    assert (writer.records, writer.size_bytes) == (0, 0)
    monkeypatch.undo()
    writer.close()
    (waiting,) = make().segments()
    assert waiting.read(end, **EVERYTHING) == ([], end, True)


def fail_with(error):
    raise OSError(error, os.strerror(error))


def test_a_closed_spool_takes_nothing(make, directory):
    """After closing nothing is appended or read, and what waits is another process's to import."""
    writer = make()
    writer.append(arrivals(1))
    (waiting,) = writer.segments()
    writer.close()
    with pytest.raises(StoreError, match="closed"):
        writer.append(arrivals(2))
    with pytest.raises(StoreError, match="cannot be read"):
        waiting.read(0, **EVERYTHING)
    writer.close()
    assert read_all(make()) == [1]


def test_an_unused_segment_goes_with_its_process(make, directory, monkeypatch):
    """A process whose only group did not fit leaves no empty file."""
    writer = make()
    real = os.write
    calls = itertools.count()
    with monkeypatch.context() as patch:
        patch.setattr(segment.os, "write", lambda *given: real(*given) if next(calls) == 0 else fail_with(errno.ENOSPC))
        with pytest.raises(StoreError):
            writer.append(arrivals(1))
    assert len(files(directory)) == 1
    writer.close()
    assert files(directory) == []


# damage


def three(make):
    """Return the path of a segment with the records 1, 2 and 3, and where each begins."""
    writer = make()
    begins = []
    for serial in (1, 2, 3):
        writer.append(arrivals(serial))
        begins.append(writer.segments()[0].end)
    writer.close()
    (path,) = files(writer.directory)
    return path, [HEADER_BYTES, *begins]


def test_damage_in_the_middle_costs_one_record_and_is_kept(make, directory, caplog):
    """A bad record hides none of those behind it; it is logged and counted, and the file outlives its import."""
    path, begins = three(make)
    spoil(path, begins[1] + 20)
    reader = make()
    assert read_all(reader) == [1, 3]
    assert read_all(reader) == [1, 3]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert path.name in caplog.text
    assert "body" not in caplog.text
    assert reader.damaged_bytes == begins[2] - begins[1]
    reader.segments()[0].remove()
    assert [found.suffix for found in files(directory)] == [".damaged"]
    assert (reader.segments(), reader.records) == ([], 0)
    assert reader.damaged_bytes == begins[2] - begins[1]
    (info,) = spooled(directory)
    assert (info.set_aside, info.records, info.damaged_bytes, info.torn_bytes) == (True, 2, begins[2] - begins[1], 0)


def test_damage_before_a_resumed_import_is_kept_too(make, directory):
    """A process that goes on behind damage still sets the file aside at its end."""
    path, begins = three(make)
    spoil(path, begins[1] + 20)
    reader = make()
    (waiting,) = reader.segments()
    assert serials(waiting.read(begins[2], **EVERYTHING)[0]) == [3]
    waiting.remove()
    assert [found.suffix for found in files(directory)] == [".damaged"]


@pytest.mark.parametrize("where", ["marker", "length", "crc", "payload"])
def test_a_damaged_last_record_is_not_taken_for_others(make, where):
    """Whatever byte of the last record is bad, those before it are read and it is not."""
    path, begins = three(make)
    spoil(path, begins[2] + {"marker": 0, "length": 8, "crc": 12, "payload": 16}[where], b"\xee")
    assert read_all(make()) == [1, 2]


def test_a_damaged_header_hides_nothing(make):
    """The file's name holds what its header does."""
    path, _ = three(make)
    spoil(path, 0, bytes(HEADER_BYTES))
    assert read_all(make()) == [1, 2, 3]


def test_a_torn_tail_is_no_damage(make, directory, caplog):
    """What a crash in the middle of an append leaves is logged, ends the reading, and is removed with its file."""
    path, begins = three(make)
    for cut in range(begins[3] - 1, begins[2], -1):
        os.truncate(path, cut)
        (info,) = spooled(directory)
        assert (info.records, info.damaged_bytes, info.torn_bytes) == (2, 0, cut - begins[2])
    reader = make()
    caplog.set_level(logging.WARNING)
    assert read_all(reader) == [1, 2]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert reader.damaged_bytes == 0
    reader.segments()[0].remove()
    assert files(directory) == []


def test_zeros_at_the_end_are_no_damage(make, directory):
    """A file system that lengthened the file before a power cut, and wrote nothing into it, does no harm."""
    path, begins = three(make)
    os.truncate(path, begins[3] + 100_000)
    (info,) = spooled(directory)
    assert (info.records, info.damaged_bytes, info.torn_bytes) == (3, 0, 100_000)
    assert read_all(make()) == [1, 2, 3]


def test_a_record_that_says_nothing_is_damage(make, directory):
    """A record that is whole, and no arrival, stops nothing and is kept."""
    writer = make()
    writer.append(arrivals(1))
    writer.close()
    (path,) = files(directory)
    with path.open("ab") as file:
        file.write(frame(bytes.fromhex(path.stem.split("-")[1]), b"\xc1"))
    reader = make()
    assert read_all(reader) == [1]
    reader.segments()[0].remove()
    assert [found.suffix for found in files(directory)] == [".damaged"]


def test_a_body_that_looks_like_a_record_is_none(make, directory):
    """Behind damage reading looks for the next record; what a sender put into a body is not taken for one."""
    forged = frame(bytes(8), segment._encode(Arrival(body=b"forged", received_at=666)))
    writer = make()
    writer.append([Arrival(body=forged * 3, received_at=1), *arrivals(2)])
    writer.close()
    (path,) = files(directory)
    spoil(path, HEADER_BYTES + 12)
    assert read_all(make()) == [2]


def test_large_damage_is_passed(make, directory):
    """The next record is found behind more bytes than are read in one step."""
    writer = make()
    writer.append([Arrival(body=bytes(3_000_000), received_at=1), *arrivals(2)])
    writer.close()
    (path,) = files(directory)
    spoil(path, HEADER_BYTES)
    assert read_all(make()) == [2]


@pytest.mark.parametrize("shift", range(-9, 3))
def test_a_record_behind_damage_is_found_wherever_a_step_ends(make, directory, shift):
    """Reading looks for the next record in steps of 16 KiB; one may begin in one of them and end in the next."""
    writer = make()
    writer.append(arrivals(1))
    overhead = writer.segments()[0].end - HEADER_BYTES - len(b"body 1") + 2  # a longer body's length takes more bytes
    writer.segments()[0].is_sealed = True
    writer.append([Arrival(body=bytes(16 * 1024 + shift - overhead), received_at=2), *arrivals(3)])
    writer.close()
    _, path = files(directory)
    spoil(path, HEADER_BYTES)
    assert read_all(make()) == [1, 3]


def test_a_newer_format_is_left_for_a_newer_upcall(make, directory, caplog, monkeypatch):
    """A file of another format is neither guessed at nor removed; that is said once, and `store check` says it too."""
    monkeypatch.setattr("upcall.inbox.framing.VERSION", 2)
    writer = make()
    writer.append(arrivals(1))
    writer.close()
    monkeypatch.undo()
    reader = make()
    assert (reader.segments(), reader.segments()) == ([], [])
    assert len(caplog.records) == 1
    assert "format 2" in caplog.text
    with pytest.raises(StoreVersionError, match="format 2"):
        spooled(directory)


# where it lies


def test_each_store_has_a_spool_of_its_own(tmp_path, monkeypatch):
    """The directory depends on the store's file, however it is written, and lies in the state directory."""
    monkeypatch.setenv("UPCALL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    one = spool_directory(f"sqlite:///{tmp_path}/inbox.db")
    assert one == spool_directory("inbox.db") == spool_directory("sqlite:///inbox.db")
    assert one != spool_directory("other.db")
    assert one.parent == tmp_path / "state" / "spool"
    assert len(one.name) == 16
    assert spool_directory("memory://a") != spool_directory("memory://b")


def test_a_spool_that_can_take_nothing_says_so(tmp_path, directory, make):
    """The first check makes a file where records would lie; it leaves none, and fails where appending would."""
    make().test()
    assert files(directory) == []
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot take callbacks"):
        Spool(tmp_path / "file" / "spool").test()


def test_a_probe_that_cannot_be_removed_holds_nothing(directory, make, monkeypatch):
    """A check that leaves its file behind lets go of it, so that whoever looks next may remove it."""
    one = make()
    with monkeypatch.context() as patch:
        patch.setattr(segment.Segment, "_leave", lambda self: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
        with pytest.raises(StoreError):
            one.probe()
    assert len(files(directory)) == 1
    (left,) = make().segments()
    left.remove()
    assert files(directory) == []


def test_a_store_on_the_same_disk_is_told(tmp_path, directory):
    """Whether one full disk would stop both is known before either is made."""
    assert shares_disk(directory, str(tmp_path / "inbox.db"))
    assert not shares_disk(directory, "/proc/inbox.db")
    assert not shares_disk(directory, "memory://one")


@pytest.mark.parametrize("kind", ["nfs4", "cifs"])
def test_a_spool_on_a_network_file_system_is_said_and_used(directory, make, monkeypatch, kind):
    """Who starts hears that fsync may lie there, before the directory is made; what works is used all the same."""
    monkeypatch.setattr(durable, "file_system", lambda path: kind)
    one = make()
    with pytest.raises(StoreError, match=rf"network file system \({kind}\)"):
        one.test()
    one.probe()
    one.append(arrivals(1))
    assert read_all(one) == [1]


def test_a_file_that_cannot_be_read_hides_no_other(make, directory):
    """Whoever looks is told which file it is and why, and of the others all the same; an import passes it by too."""
    (directory / f"{1:020d}-{'ab' * 8}.spool").mkdir(parents=True)
    make().append(arrivals(1))
    assert [(info.records, info.unreadable) for info in spooled(directory)] == [(0, "Is a directory"), (1, None)]
    reader = make()
    assert reader.segments() == []
    assert "Is a directory" in reader.trouble


def test_looking_where_nothing_is(directory):
    """A store that never failed has no spool, and that is not an error."""
    assert spooled(directory) == []
