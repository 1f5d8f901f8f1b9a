"""Directories that are made keep their names through a power cut, and nobody else may read them."""

import errno
import os
import stat
from pathlib import Path

import pytest

from upcall.errors import StoreError
from upcall.inbox import open_inbox
from upcall.inbox.durable import make_directory


@pytest.fixture
def synced(monkeypatch):
    """Return the paths that are synced from now on."""
    found = []
    real = os.fsync

    def fsync(descriptor):
        real(descriptor)
        found.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def test_each_directory_that_is_made_has_its_name_on_disk(tmp_path, synced):
    """All that were missing are synced where their names stand, up to the first that was there."""
    make_directory(tmp_path / "a" / "b" / "c")
    assert set(synced) == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_a_directory_that_is_there_is_synced_once_more(tmp_path, synced):
    """Who made it may have been cut off in between."""
    make_directory(tmp_path)
    assert synced == [tmp_path.parent]


def test_a_new_stores_directories_are_on_disk(tmp_path, synced):
    """A power cut right after the first acknowledgement does not take the directory that the store lies in."""
    open_inbox(str(tmp_path / "new" / "place" / "inbox.db"), create=True).close()
    assert {tmp_path, tmp_path / "new"} <= set(synced)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EINVAL, errno.EROFS])
def test_a_directory_that_has_no_such_thing_as_a_sync_is_used(tmp_path, monkeypatch, code):
    """What somebody else mounted or made, and cannot be synced by us, keeps nobody from working there."""

    def fsync(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    make_directory(tmp_path / "a")
    assert (tmp_path / "a").is_dir()


def test_a_store_whose_directory_may_not_last_is_refused(tmp_path, monkeypatch):
    """Where the name of its directory cannot be synced the store says so at once, and not after the power cut."""

    def fsync(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreError, match="Input/output error"):
        open_inbox(str(tmp_path / "new" / "inbox.db"), create=True)
